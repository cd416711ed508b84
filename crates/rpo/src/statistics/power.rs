//! How many prompts a difference needs.
//!
//! Prompts without ties are won with one probability and lost with another, and what is tested is whether these are equal: the
//! sign test, which is McNemar's. With `s` the share of prompts without a tie and `d` the difference of the two
//! probabilities, twice the win rate less one, it finds the difference with power `1 - b` at level `a` on (Connor 1987)
//!
//! ```text
//! n = ( z(1 - a/2) sqrt(s) + z(1 - b) sqrt(s - d^2) )^2 / d^2
//! ```
//!
//! prompts. Here `a` is 5 % and the power 80 %. Where many pairs of models are compared, each needs more.

use super::intervals::NORMAL_975;

/// The 0.8 quantile of the normal distribution.
const NORMAL_800: f64 = 0.841_621_234;

/// The number of prompts on which a win rate (ties counting half) is told from 1/2 in four of five cases, if this share of
/// the prompts ends in ties; `None` where none is enough: at a rate of 1/2, or one that so many ties forbid.
pub fn prompts_needed(rate: f64, ties: f64) -> Option<usize> {
    let (untied, difference) = (1.0 - ties, (2.0 * rate - 1.0).abs());
    if difference <= 0.0 || difference > untied + 1e-12 {
        return None;
    }
    let sum = NORMAL_975 * untied.sqrt() + NORMAL_800 * (untied - difference.powi(2)).max(0.0).sqrt();
    Some((sum / difference).powi(2).ceil() as usize)
}

/// The smallest win rate above 1/2 that so many prompts tell from it in four of five cases, if this share of them ends in
/// ties; `None` where they tell none.
pub fn smallest_rate(prompts: usize, ties: f64) -> Option<f64> {
    let enough = |rate: f64| prompts_needed(rate, ties).is_some_and(|needed| needed <= prompts);
    let (mut low, mut high) = (0.5, 1.0 - ties / 2.0);
    if !enough(high) {
        return None;
    }
    for _ in 0..50 {
        let middle = f64::midpoint(low, high);
        *if enough(middle) { &mut high } else { &mut low } = middle;
    }
    Some(high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::tests::golden;

    #[test]
    fn numbers_of_prompts_by_hand() {
        // (1.95996 + 0.84162 sqrt(0.99))^2 / 0.01 = 782.47.
        assert_eq!(prompts_needed(0.55, 0.0), Some(783));
        // s 0.6, d 0.2: (1.95996 * 0.774597 + 0.84162 sqrt(0.56))^2 / 0.04 = 115.3.
        assert_eq!((prompts_needed(0.6, 0.4), prompts_needed(0.4, 0.4)), (Some(116), Some(116)));
        assert_eq!((prompts_needed(0.5, 0.2), prompts_needed(0.9, 0.4)), (None, None));
        let smallest = smallest_rate(783, 0.0).expect("told");
        assert!(smallest <= 0.55 && smallest > 0.549, "{smallest}");
        assert!(smallest_rate(2, 0.0).is_none() && smallest_rate(0, 1.0).is_none());
    }

    #[test]
    fn the_sign_test_has_that_power() {
        // The exact power of the sign test at the number of prompts, ties drawn too, summed by the script.
        for case in golden()["power"].as_array().expect("cases") {
            let number = |at: usize| case[at].as_f64().expect("number");
            assert_eq!(prompts_needed(number(0), number(1)), Some(number(2) as usize));
            assert!((number(3) - 0.8).abs() < 0.04, "{case}");
        }
    }
}
