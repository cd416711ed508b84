//! Two sets of named numbers, each computed in its own way: how far they are apart, and whether that is more than rounding.

use super::precision::Arithmetic;

/// What a quantity is, which decides how far rounding may move it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Hidden states, logits, log-probabilities or a loss.
    Value,
    /// The gradient of a loss, to which each layer behind adds its own rounding.
    Gradient,
    /// Token ids, chosen by comparing logits: rounding moves none unless two are nearly equal.
    Tokens,
}

/// Numbers that were computed, by name.
#[derive(Clone, Debug)]
pub struct Quantity {
    /// What it is, as `log-probabilities` or `gradient of` a tensor.
    pub name: String,
    /// Of which kind.
    pub kind: Kind,
    /// In row-major order.
    pub values: Vec<f32>,
}

/// A quantity as expected and as found.
#[derive(Clone, Debug)]
pub struct Compared {
    /// What it is.
    pub name: String,
    /// Of which kind.
    pub kind: Kind,
    /// The expected number; the norm (root of the sum of squares) where there are several.
    pub expected: f64,
    /// The same of what was found; not finite where a number in it is not.
    pub found: f64,
    /// Norm of the difference over the norm of what was expected; for tokens the share that differs. Infinite where something is
    /// missing or is no number.
    pub difference: f64,
    /// The largest difference that rounding explains; infinite where that cannot be said.
    pub tolerance: f64,
}

impl Compared {
    /// Whether rounding explains the difference.
    pub fn is_within(&self) -> bool {
        self.difference <= self.tolerance
    }
}

/// A gradient is compared on the scale of at least this part of the norm of all gradients: one that nearly cancels is all rounding.
const CANCELLED: f64 = 1e-4;

/// Compares what was found with what was expected, in the order of the latter; `arithmetic` is what the less precise of the two was
/// computed in.
pub fn compare(expected: &[Quantity], found: &[Quantity], arithmetic: Arithmetic) -> Vec<Compared> {
    let gradients = expected.iter().filter(|q| q.kind == Kind::Gradient).flat_map(|q| &q.values);
    let floor = CANCELLED * norm(gradients.copied());
    let one = |expected: &Quantity| {
        let values = found.iter().find(|q| q.name == expected.name).map_or(&[][..], |q| &q.values);
        let difference = match expected.kind {
            Kind::Value => relative(&expected.values, values, 0.0),
            Kind::Gradient => relative(&expected.values, values, floor),
            Kind::Tokens => share_apart(&expected.values, values),
        };
        Compared {
            name: expected.name.clone(),
            kind: expected.kind,
            expected: told(&expected.values),
            found: told(values),
            difference,
            tolerance: arithmetic.tolerance(expected.kind),
        }
    };
    expected.iter().map(one).collect()
}

fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt()
}

/// One number as itself, several by their norm.
fn told(values: &[f32]) -> f64 {
    match values {
        [one] => f64::from(*one),
        several => norm(several.iter().copied()),
    }
}

/// The norm of the difference over that of what was expected, or over `floor` if that is more.
fn relative(expected: &[f32], found: &[f32], floor: f64) -> f64 {
    if expected.len() != found.len() || !found.iter().all(|v| v.is_finite()) {
        return f64::INFINITY;
    }
    let difference = norm(expected.iter().zip(found).map(|(a, b)| a - b));
    let scale = norm(expected.iter().copied()).max(floor);
    if difference == 0.0 { 0.0 } else { difference / scale }
}

fn share_apart(expected: &[f32], found: &[f32]) -> f64 {
    let longest = expected.len().max(found.len());
    let alike = expected.iter().zip(found).filter(|(a, b)| a == b).count();
    if longest == 0 { 0.0 } else { (longest - alike) as f64 / longest as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(name: &str, kind: Kind, values: &[f32]) -> Quantity {
        Quantity { name: name.into(), kind, values: values.into() }
    }

    fn of(expected: &[Quantity], found: &[Quantity]) -> Vec<(f64, bool)> {
        let compared = compare(expected, found, Arithmetic::F32);
        compared.iter().map(|c| (c.difference, c.is_within())).collect()
    }

    #[test]
    fn differences_by_hand() {
        let expected = [
            quantity("loss", Kind::Value, &[2.0]),
            quantity("gradient of a", Kind::Gradient, &[3.0, 4.0]),
            quantity("gradient of b", Kind::Gradient, &[0.0, 0.0]),
            quantity("answers", Kind::Tokens, &[5.0, 6.0, 7.0, 1.0]),
        ];
        assert!(of(&expected, &expected).iter().all(|(difference, within)| *difference == 0.0 && *within));
        let found = [
            quantity("answers", Kind::Tokens, &[5.0, 6.0, 8.0]),
            // Of a norm of 5e-4 that counts.
            quantity("gradient of b", Kind::Gradient, &[0.0, 1e-7]),
            quantity("gradient of a", Kind::Gradient, &[3.0, 5.0]),
            quantity("loss", Kind::Value, &[2.0]),
        ];
        let said = of(&expected, &found);
        assert_eq!([said[0], said[1], said[3]], [(0.0, true), (0.2, false), (0.5, false)]);
        assert!((said[2].0 - 2e-4).abs() < 1e-9 && said[2].1, "{said:?}");
    }

    #[test]
    fn what_is_missing_or_no_number_is_never_within() {
        let expected = [quantity("states", Kind::Value, &[1.0, 2.0])];
        for values in [&[1.0][..], &[1.0, f32::NAN], &[1.0, f32::INFINITY]] {
            for arithmetic in [Arithmetic::F32, Arithmetic::Tf32, Arithmetic::Bf16] {
                let compared = compare(&expected, &[quantity("states", Kind::Value, values)], arithmetic);
                assert!(!compared[0].is_within(), "{values:?}");
            }
        }
        assert_eq!(of(&expected, &[]), [(f64::INFINITY, false)]);
    }
}
