//! A metric of prompts that several responses were drawn to, and of two models beside each other.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Measured;
use crate::statistics::{Difference, Interval, bootstrap};

/// Random exchanges of a test.
const DRAWS: usize = 2_000;

impl Measured {
    /// Cases that are draws of the same prompts, all prompts of a draw before those of the next, as one case for each of the
    /// `prompts`: draws of a prompt are not independent of each other, and intervals go over prompts.
    #[must_use]
    pub fn by_prompt(&self, prompts: usize) -> Self {
        let draws = |prompt: usize| self.statistics.iter().skip(prompt).step_by(prompts.max(1)).flatten();
        let sum = |prompt: usize| {
            draws(prompt).cloned().reduce(|mut sum, more| {
                sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
                sum
            })
        };
        let prompts = prompts.min(self.statistics.len());
        Self { statistics: (0..prompts).map(sum).collect(), value: self.value }
    }

    /// By how much the value of these cases is above that of the `other` model's, over the cases that both know: with the
    /// bootstrap's interval over cases, and how often a random exchange of the two models case by case gives a difference at least
    /// as large (approximate randomization, Noreen 1989), which for a mean is the permutation test of pairs. `None` where it is
    /// not defined.
    pub fn difference(&self, other: &Self, seed: u64) -> Option<Difference> {
        let both = self.statistics.iter().zip(&other.statistics);
        let pairs: Vec<[&[f64]; 2]> =
            both.filter_map(|(ours, theirs)| Some([ours.as_deref()?, theirs.as_deref()?])).collect();
        let value = |pairs: &mut dyn Iterator<Item = [&[f64]; 2]>| {
            let mut sums: [Vec<f64>; 2] = Default::default();
            for pair in pairs {
                for (sum, statistics) in sums.iter_mut().zip(pair) {
                    sum.resize(statistics.len(), 0.0);
                    sum.iter_mut().zip(statistics).for_each(|(sum, x)| *sum += x);
                }
            }
            let of = |sum: &[f64]| if sum.is_empty() { None } else { (self.value)(sum) };
            Some(of(&sums[0])? - of(&sums[1])?)
        };
        let difference = value(&mut pairs.iter().copied())?;
        let interval = match pairs.len() {
            1 => Interval { mean: difference, low: f64::NEG_INFINITY, high: f64::INFINITY },
            n => bootstrap(n, seed, |rows| value(&mut rows.iter().map(|&row| pairs[row])))?,
        };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut exchanged = || value(&mut pairs.iter().map(|&[a, b]| if rng.random() { [a, b] } else { [b, a] }));
        let far = (0..DRAWS).filter_map(|_| exchanged()).filter(|d| d.abs() >= difference.abs() * (1.0 - 1e-9)).count();
        Some(Difference { interval, n: pairs.len(), p: (far + 1) as f64 / (DRAWS + 1) as f64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_of_a_prompt_are_one_case() {
        // Prompts 0 and 1 by draws: 1 and 4, then 3 and unknown.
        let measured = Measured::of_values([Some(1.0), Some(4.0), Some(3.0), None]).by_prompt(2);
        assert_eq!(measured.each(), [Some(2.0), Some(4.0)]);
        assert_eq!((measured.of(0..2), measured.estimate().map(|e| e.n)), (Some(8.0 / 3.0), Some(2)));
    }

    #[test]
    fn differences_of_means_and_of_ratios_of_sums() {
        let values = |all: [Option<f64>; 4]| Measured::of_values(all);
        let ours = values([Some(2.0), Some(3.0), Some(4.0), None]);
        let theirs = values([Some(1.0), Some(2.0), Some(3.0), Some(9.0)]);
        let found = ours.difference(&theirs, 1).expect("defined");
        let Interval { mean, low, high } = found.interval;
        assert!([mean, low, high].iter().all(|end| (end - 1.0).abs() < 1e-12) && found.n == 3, "{found:?}");
        // All signs equal: 2 of 8 exchanges are as far.
        assert!((found.p - 0.25).abs() < 0.04, "{}", found.p);
        let ratio = |rows: [[f64; 2]; 2]| {
            Measured::of_sums(rows.map(|row| Some(row.to_vec())).to_vec(), |sum| {
                (sum[1] > 0.0).then(|| sum[0] / sum[1])
            })
        };
        let found = ratio([[1.0, 2.0], [3.0, 8.0]]).difference(&ratio([[0.0, 5.0], [1.0, 5.0]]), 1).expect("defined");
        assert!((found.interval.mean - (0.4 - 0.1)).abs() < 1e-12);
        assert!(values([None; 4]).difference(&theirs, 1).is_none());
        let equal = theirs.difference(&theirs, 1).expect("defined");
        assert_eq!((equal.interval.mean, equal.p), (0.0, 1.0));
    }
}
