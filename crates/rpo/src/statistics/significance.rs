//! Tests: whether a difference, or an agreement, could be chance. P-values are of two sides unless said otherwise.

use libm::lgamma;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Interval, bootstrap, mean, mean_interval};

/// `ln (n choose k)`.
fn ln_choose(n: usize, k: usize) -> f64 {
    let ln_factorial = |n: usize| lgamma(n as f64 + 1.0);
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// The exact sign test (Dixon and Mood 1946): the probability that a fair coin divides `wins + losses` throws at least as
/// unevenly. Ties are left out before.
pub fn sign_test(wins: usize, losses: usize) -> f64 {
    let n = wins + losses;
    let tail: f64 = (0..=wins.min(losses)).map(|k| (ln_choose(n, k) - n as f64 * 2f64.ln()).exp()).sum();
    (2.0 * tail).min(1.0)
}

/// Whether things that come in `pairs` differ within pairs more often than chance: the probability of at least `mixed` mixed
/// pairs if `firsts` of the `2 * pairs` things, drawn at random, are of the first kind. One-sided and exact; with alleles for
/// things it is the test of Hardy and Weinberg's equilibrium against more heterozygotes (Haldane 1954; Wigginton, Cutler and
/// Abecasis 2005):
///
/// ```text
/// P(c mixed) = 2^c pairs! / (c! a! b!) / (2 pairs choose firsts),   a = (firsts - c) / 2,   b = pairs - a - c
/// ```
pub fn pairing_test(pairs: usize, firsts: usize, mixed: usize) -> f64 {
    let fewer = firsts.min(2 * pairs - firsts);
    let probability = |c: usize| {
        let a = (fewer - c) / 2;
        (c as f64 * 2f64.ln() + ln_choose(pairs, c) + ln_choose(pairs - c, a) - ln_choose(2 * pairs, fewer)).exp()
    };
    (0..=fewer).filter(|c| c % 2 == fewer % 2 && *c >= mixed).map(probability).sum::<f64>().min(1.0)
}

/// Holm's correction (1979): p-values for which the chance that any of them falls below 5 % without cause is at most 5 %.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut corrected = vec![0.0; p.len()];
    let mut largest = 0f64;
    for (before, i) in ascending(p).into_iter().enumerate() {
        largest = largest.max((p[i] * (p.len() - before) as f64).min(1.0));
        corrected[i] = largest;
    }
    corrected
}

/// Benjamini and Hochberg's correction (1995): of the values that it leaves below 5 %, at most 5 % are expected to be without
/// cause.
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let mut corrected = vec![0.0; p.len()];
    let mut smallest = 1f64;
    for (before, i) in ascending(p).into_iter().enumerate().rev() {
        smallest = smallest.min(p[i] * p.len() as f64 / (before + 1) as f64);
        corrected[i] = smallest;
    }
    corrected
}

fn ascending(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    order
}

/// The permutation test of paired differences (Fisher 1935): how often their sum is at least as far from 0 if each difference
/// may as well have the other sign. Exact for up to 16 differences; for more, 10,000 drawn signs, of which what was observed
/// counts as one (Phipson and Smyth 2010).
pub fn permutation_test(differences: &[f64], seed: u64) -> f64 {
    const DRAWS: usize = 10_000;
    let observed = differences.iter().sum::<f64>().abs();
    // Sums that are equal on paper count as equal.
    let bound = observed - 1e-9 * differences.iter().map(|d| d.abs()).sum::<f64>();
    let as_far = |signs: &mut dyn FnMut() -> bool| {
        let sum: f64 = differences.iter().map(|d| if signs() { *d } else { -d }).sum();
        sum.abs() >= bound
    };
    if differences.len() <= 16 {
        let all = 1u32 << differences.len();
        let far = (0..all).filter(|pattern| {
            let mut bits = *pattern;
            as_far(&mut || (bits & 1 == 1, bits >>= 1).0)
        });
        return far.count() as f64 / f64::from(all);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let far = (0..DRAWS).filter(|_| as_far(&mut || rng.random())).count();
    (far + 1) as f64 / (DRAWS + 1) as f64
}

/// How far one series of paired values is above another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Mean of ours minus theirs, with the bootstrap's interval over the pairs.
    #[serde(flatten)]
    pub interval: Interval,
    /// Pairs that entered it.
    pub n: usize,
    /// Of the permutation test of the pairs.
    pub p: f64,
}

/// The mean difference of paired values, such as a metric of two models' responses to the same prompts; pairs of which one
/// is unknown are left out. `None` where none is left.
pub fn paired_difference(ours: &[Option<f64>], theirs: &[Option<f64>], seed: u64) -> Option<Difference> {
    let differences: Vec<f64> = ours.iter().zip(theirs).filter_map(|(a, b)| Some((*a)? - (*b)?)).collect();
    let interval = match differences.len() {
        1 => mean_interval(&differences),
        n => bootstrap(n, seed, |rows| mean(&rows.iter().map(|&i| differences[i]).collect::<Vec<f64>>()))?,
    };
    Some(Difference { interval, n: differences.len(), p: permutation_test(&differences, seed) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::tests::{close, golden, numbers};

    #[test]
    fn sign_tests_by_hand_and_as_scipy_has_them() {
        // Of 2^5 = 32 sequences one has no loss and one no win; 10 of 2^4 lie outside of 2 to 2.
        assert!((sign_test(5, 0) - 2.0 / 32.0).abs() < 1e-12 && (sign_test(3, 1) - 10.0 / 16.0).abs() < 1e-12);
        assert_eq!((sign_test(0, 0), sign_test(7, 7)), (1.0, 1.0));
        for case in golden()["sign_test"].as_array().expect("cases") {
            let n = |at: usize| case[at].as_u64().expect("number") as usize;
            close(&[sign_test(n(0), n(1))], &[case[2].as_f64().expect("number")], 1e-9);
        }
    }

    #[test]
    fn pairs_that_are_mixed_by_hand() {
        // Three pairs, three firsts: 20 ways to place them, 8 with one in each pair, 12 with one pair full.
        assert!((pairing_test(3, 3, 3) - 0.4).abs() < 1e-12 && (pairing_test(3, 3, 1) - 1.0).abs() < 1e-12);
        // Whoever always answers the first is never consistent.
        assert!((pairing_test(29, 58, 0) - 1.0).abs() < 1e-12);
        // Seven consistent pairs are the fewest that speak: 2^7 / (14 choose 7) = 128 / 3432.
        assert!((pairing_test(7, 7, 7) - 128.0 / 3432.0).abs() < 1e-12);
        for case in golden()["pairing_test"].as_array().expect("cases") {
            let n = |at: usize| case[at].as_u64().expect("number") as usize;
            close(&[pairing_test(n(0), n(1), n(2))], &[case[3].as_f64().expect("number")], 1e-9);
        }
    }

    #[test]
    fn corrections_by_hand_and_as_statsmodels_has_them() {
        // 0.01 * 3; the largest of that and 0.03 * 2; the largest of that and 0.04.
        close(&holm(&[0.04, 0.01, 0.03]), &[0.06, 0.03, 0.06], 1e-12);
        // 0.04 * 3 / 3; the smallest of that and 0.03 * 3 / 2; and 0.01 * 3.
        close(&benjamini_hochberg(&[0.04, 0.01, 0.03]), &[0.04, 0.03, 0.04], 1e-12);
        let golden = &golden()["corrections"];
        let p = numbers(&golden["p"]);
        close(&holm(&p), &numbers(&golden["holm"]), 1e-12);
        close(&benjamini_hochberg(&p), &numbers(&golden["benjamini_hochberg"]), 1e-12);
        assert!(holm(&[]).is_empty());
    }

    #[test]
    fn a_permutation_test_by_hand_and_as_scipy_has_it() {
        // Of 8 patterns of signs of 1, 2, 3 the two extreme ones reach 6; 0 is reached by all.
        assert!((permutation_test(&[1.0, 2.0, 3.0], 1) - 0.25).abs() < 1e-12);
        assert_eq!(permutation_test(&[1.0, -1.0], 1), 1.0);
        let golden = &golden()["permutation_test"];
        let few = numbers(&golden["few"]);
        close(&[permutation_test(&few, 1)], &numbers(&golden["few_p"]), 1e-9);
        let many = numbers(&golden["many"]);
        close(&[permutation_test(&many, 1)], &numbers(&golden["many_p"]), 0.01);
    }

    #[test]
    fn a_paired_difference_knows_what_is_missing() {
        let ours: Vec<Option<f64>> = (0..40).map(|i| (i != 3).then(|| f64::from(i % 7) + 1.0)).collect();
        let theirs: Vec<Option<f64>> = (0..40).map(|i| (i != 5).then(|| f64::from(i % 7))).collect();
        let found = paired_difference(&ours, &theirs, 1).expect("38 pairs");
        assert_eq!((found.n, found.interval.mean, found.interval.low), (38, 1.0, 1.0));
        assert!(found.p < 0.001);
        assert!(paired_difference(&[None], &[Some(1.0)], 1).is_none());
    }
}
