//! What the numbers of a `config.json` may be, judged before anything is allocated or built by them. The limits are far beyond every
//! model that there is; they keep products of sizes from overflowing, and a file of a hundred bytes from asking for terabytes.

use std::ops::RangeInclusive;

/// What is wrong, as a sentence without the file's name.
type Result<T> = std::result::Result<T, String>;

/// Most rows of an embedding; XLM-V has one million.
pub(super) const VOCABULARY: usize = 1 << 24;
/// Widest residual stream; Llama 3.1 405B has 16,384.
pub(super) const WIDTH: usize = 1 << 17;
/// Widest feed-forward layer; Llama 3.1 405B has 53,248 and T5-11B 65,536.
pub(super) const FEED_FORWARD: usize = 1 << 20;
/// Most layers; Llama 3.1 405B has 126.
pub(super) const LAYERS: usize = 4096;
/// Most attention heads, and the widest of them; T5-11B has 128 of width 128.
pub(super) const HEADS: usize = 4096;
/// Most numbers in one matrix: as many as 128 GiB hold.
const MATRIX: usize = 1 << 35;
/// Tokens of the longest context; so many as positions can be told apart as 32-bit numbers.
pub(super) const CONTEXT: f64 = 4_294_967_296.0;

/// Checks that each of the named sizes is between 1 and its limit.
///
/// # Errors
/// The first that is not.
pub(super) fn sizes(named: &[(&str, usize, usize)]) -> Result<()> {
    match named.iter().find(|(_, value, most)| !(1..=*most).contains(value)) {
        None => Ok(()),
        Some((name, 0, _)) => Err(format!("{name} is 0")),
        Some((name, value, most)) => Err(format!("{name} is {value}; at most {most} is read")),
    }
}

/// The product of two named sizes, which a matrix of `other` rows or columns must be able to have.
///
/// # Errors
/// If such a matrix would be too large.
pub(super) fn product(one: (&str, usize), two: (&str, usize), other: (&str, usize)) -> Result<usize> {
    let product = one.1.checked_mul(two.1);
    match product.and_then(|product| product.checked_mul(other.1)) {
        Some(all) if all <= MATRIX => Ok(one.1 * two.1),
        _ => Err(format!(
            "{} {} times {} {} times {} {} makes a matrix of more than {MATRIX} numbers",
            one.0, one.1, two.0, two.1, other.0, other.1
        )),
    }
}

/// Checks a matrix of two named sizes.
///
/// # Errors
/// If it would be too large.
pub(super) fn matrix(one: (&str, usize), two: (&str, usize)) -> Result<()> {
    match one.1.checked_mul(two.1) {
        Some(all) if all <= MATRIX => Ok(()),
        _ => Err(format!("{} {} times {} {} makes a matrix of more than {MATRIX} numbers", one.0, one.1, two.0, two.1)),
    }
}

/// Checks a named number: finite, and within `range`.
///
/// # Errors
/// If it is not.
pub(super) fn number(name: &str, value: f64, range: RangeInclusive<f64>) -> Result<()> {
    match range.contains(&value) {
        true => Ok(()),
        false => Err(format!("{name} is {value}; it must be between {:e} and {:e}", range.start(), range.end())),
    }
}

/// Checks what is added to a mean square before the root: positive, also as the 32-bit float that computes.
///
/// # Errors
/// If it is not, or is larger than any square that it is added to.
pub(super) fn epsilon(name: &str, value: f64) -> Result<()> {
    number(name, value, f64::from(f32::MIN_POSITIVE)..=1.0)
}

/// Checks the share of values that training drops, which a file may leave out.
///
/// # Errors
/// If there is one, and it is no number from 0 to 1.
pub(super) fn dropout(name: &str, value: Option<&serde_json::Value>) -> Result<()> {
    match value {
        None | Some(serde_json::Value::Null) => Ok(()),
        Some(value) => match value.as_f64() {
            Some(share) => number(name, share, 0.0..=1.0),
            None => Err(format!("{name} is {value}, which is no number")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_products_and_numbers_have_limits() {
        assert_eq!(sizes(&[("a", 1, 5), ("b", 5, 5)]), Ok(()));
        assert_eq!(sizes(&[("a", 0, 5)]), Err("a is 0".into()));
        assert!(sizes(&[("a", 6, 5)]).expect_err("large").contains("a is 6; at most 5"));
        assert_eq!(product(("a", 3), ("b", 4), ("c", 5)), Ok(12));
        // 2^63 + 8 times 2 wraps to 16.
        assert!(product(("a", (1 << 63) + 8), ("b", 2), ("c", 1)).is_err());
        assert!(matrix(("a", 1 << 18), ("b", 1 << 17)).is_ok() && matrix(("a", 1 << 18), ("b", 1 << 18)).is_err());
        for (value, good) in
            [(1e-6, true), (0.0, false), (-1e-6, false), (1e-46, false), (f64::NAN, false), (2.0, false)]
        {
            assert_eq!(epsilon("e", value).is_ok(), good, "{value}");
        }
        assert!(dropout("d", Some(&0.1.into())).is_ok() && dropout("d", None).is_ok());
        assert!(dropout("d", Some(&1.5.into())).is_err() && dropout("d", Some(&"x".into())).is_err());
    }
}
