//! The win rate if responses were equally long: the regression of AlpacaEval 2 (Dubois, Galambosi, Liang and Hashimoto,
//! arXiv 2404.04475; its implementation is `alpaca_eval/metrics/glm_winrate.py`).
//!
//! ```text
//! P(m beats b on x) = sigmoid( theta + phi tanh( (len m - len b) / sd ) + psi gamma_x )
//! ```
//!
//! `sd` is the standard deviation of the differences, `gamma_x` the difficulty of the prompt; the rate at equal length is the mean
//! of `sigmoid(theta + psi gamma_x)` over the prompts. Weights are penalised by their absolute values, as strongly as predicts held-out
//! prompts best (five folds), which are alpaca_eval 0.6's choices. What differs on a user's own prompts:
//!
//! - AlpacaEval's difficulties come from a regression over its whole leaderboard. Here the difficulty of a prompt is how
//!   rarely the first model was beaten on it by models outside of the pair, if there are two or more; else the term is left out.
//! - AlpacaEval adds judgements of its baseline told to be brief and to be verbose, at a fifth of the weight, against models
//!   that shorten what they would have lost. There are none here.
//! - The interval resamples prompts with the penalty as it was chosen.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::Estimate;
use super::super::judge::Pairwise;
use super::by_prompt;
use crate::statistics::{
    Example, cross_validated_penalty, fit_logistic, mean, percentile_interval, resamples, sigmoid,
};

/// Folds of prompts by which the penalty is chosen.
const FOLDS: usize = 5;
/// Prompts below which nothing is said: the penalty would be chosen by noise.
const FEWEST: usize = 20;
/// Resamples of the interval.
const RESAMPLES: usize = 500;

/// A win rate from which the influence of length was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LengthControlled {
    /// The win rate of the first model at equal length, with the bootstrap's interval over prompts.
    pub rate: Estimate,
    /// `phi`: how much the judge favours the longer response, on the scale of log-odds; about twice this separates a response
    /// that is much longer from one that is much shorter.
    pub length_weight: f64,
    /// Whether difficulties of prompts were known.
    pub difficulty: bool,
    /// Whether it is so far from the plain win rate that the regression may have failed: more than ten points, and by more than a
    /// quarter of what is left on that side, as alpaca_eval warns.
    pub extreme: bool,
}

/// How hard prompts are for the first model.
pub struct Difficulty {
    /// By prompt: which model won how many points against the first one.
    against_first: BTreeMap<usize, Vec<(usize, f64)>>,
}

impl Difficulty {
    /// Gathers what these judgements say of it.
    pub fn of(judgements: &[Pairwise]) -> Self {
        let against_first = by_prompt(judgements, |j| match j.models {
            [0, other] => Some((other, 1.0 - j.points()?)),
            _ => None,
        });
        Self { against_first }
    }

    /// For each of the prompts, the log-odds of the points that models outside of the pair won against the first one, standardised;
    /// `None` unless two or more such models were judged on every prompt, and prompts differ.
    fn outside(&self, models: [usize; 2], prompts: &[usize]) -> Option<Vec<f64>> {
        let log_odds = prompts.iter().map(|prompt| {
            let won: Vec<&(usize, f64)> =
                self.against_first.get(prompt)?.iter().filter(|(other, _)| !models.contains(other)).collect();
            let first = won.first()?.0;
            let sum: f64 = won.iter().map(|(_, points)| points).sum();
            won.iter().any(|(other, _)| *other != first).then(|| {
                // Half a point to each side, so that what all won is not infinite.
                ((sum + 0.5) / (won.len() as f64 - sum + 0.5)).ln()
            })
        });
        let values = log_odds.collect::<Option<Vec<f64>>>()?;
        let centre = mean(&values)?;
        let sd = deviation(&values).filter(|sd| *sd > 0.0)?;
        Some(values.iter().map(|v| (v - centre) / sd).collect())
    }
}

/// Standard deviation with `n - 1`; `None` for fewer than two values.
fn deviation(values: &[f64]) -> Option<f64> {
    let centre = mean(values)?;
    let squares: f64 = values.iter().map(|v| (v - centre).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

/// The length-controlled win rate of two models from their judgements; `None` for fewer than 20 prompts, or where all responses
/// differ by the same length, so that length and model cannot be told apart, or where the penalty leaves nothing of the difference
/// between the models: then the regression says 1/2 whatever they are. Resampling starts from `seed`.
pub fn length_controlled(
    models: [usize; 2],
    judgements: &[&Pairwise],
    difficulty: &Difficulty,
    seed: u64,
) -> Option<LengthControlled> {
    let prompts =
        by_prompt(judgements.iter().copied(), |j| Some((j.points()?, j.lengths[0] as f64 - j.lengths[1] as f64)));
    if prompts.len() < FEWEST {
        return None;
    }
    let differences: Vec<f64> = prompts.values().flatten().map(|(_, difference)| *difference).collect();
    let sd = deviation(&differences).filter(|sd| *sd > 1e-9)?;
    let numbers: Vec<usize> = prompts.keys().copied().collect();
    let gamma = difficulty.outside(models, &numbers);
    // Without difficulties the feature is 0, and so is its weight.
    let gamma_of = |prompt: usize| gamma.as_ref().map_or(0.0, |gamma| gamma[prompt]);
    let examples: Vec<Vec<Example<3>>> = prompts
        .values()
        .enumerate()
        .map(|(prompt, seeds)| {
            let of_seed = |&(share, difference): &(f64, f64)| Example {
                features: [(difference / sd).tanh(), gamma_of(prompt), 1.0],
                share,
                fold: prompt % FOLDS,
            };
            seeds.iter().map(of_seed).collect()
        })
        .collect();
    let c = cross_validated_penalty(&examples.concat(), FOLDS);
    let rate_of = |rows: &[usize]| {
        let weights = fit_logistic(&rows.iter().flat_map(|&row| &examples[row]), c);
        let gammas: Vec<f64> = rows.iter().map(|&row| gamma_of(row)).collect();
        (at_equal_length(&weights, &gammas), weights)
    };
    let all: Vec<usize> = (0..examples.len()).collect();
    let (rate, weights) = rate_of(&all);
    let plain = mean(&prompts.values().map(|seeds| mean_points(seeds)).collect::<Vec<f64>>())?;
    if weights == [0.0; 3] || weights[2] == 0.0 && (plain - 0.5).abs() > 0.005 {
        return None;
    }
    let resampled = resamples(examples.len(), seed).take(RESAMPLES).map(|rows| rate_of(&rows).0);
    Some(LengthControlled {
        rate: Estimate { interval: percentile_interval(rate, resampled), n: examples.len() },
        length_weight: weights[0],
        difficulty: gamma.is_some(),
        extreme: rate < (plain * 0.75).min(plain - 0.1) || rate > (plain + (1.0 - plain) / 4.0).max(plain + 0.1),
    })
}

fn mean_points(seeds: &[(f64, f64)]) -> f64 {
    seeds.iter().map(|(points, _)| points).sum::<f64>() / seeds.len() as f64
}

/// The mean win rate over prompts of these difficulties with the length term at 0.
fn at_equal_length(weights: &[f64; 3], difficulties: &[f64]) -> f64 {
    difficulties.iter().map(|gamma| sigmoid(weights[2] + weights[1] * gamma)).sum::<f64>() / difficulties.len() as f64
}

#[cfg(test)]
mod tests {
    use super::super::tests::point;
    use super::*;
    use crate::statistics::tests::{golden, numbers};

    #[test]
    fn a_rate_at_equal_length_as_alpaca_eval_has_it() {
        // The first golden case has no difficulties to speak of: its weight is -0.004. Folds differ, so by 1 point.
        let case = &golden()["length_controlled"][0];
        let lengths: Vec<Vec<f64>> = case["lengths"].as_array().expect("two").iter().map(numbers).collect();
        let shares = numbers(&case["share"]);
        // A share of 1/2 is a tie.
        let judgements: Vec<Pairwise> = (0..shares.len())
            .map(|i| Pairwise {
                lengths: [lengths[0][i] as usize, lengths[1][i] as usize],
                ..point(i, 0, [0, 1], shares[i])
            })
            .collect();
        let of: Vec<&Pairwise> = judgements.iter().collect();
        let found = length_controlled([0, 1], &of, &Difficulty::of(&judgements), 1).expect("400 prompts");
        let want = case["rate"].as_f64().expect("number");
        let plain = mean(&shares).expect("shares");
        assert!((found.rate.interval.mean - want).abs() < 0.01, "{found:?} {want}");
        // The judge favours length and ours are longer: equal lengths lose a part of the wins.
        assert!(plain > want + 0.03 && found.length_weight > 1.0 && !found.difficulty && !found.extreme);
        assert!(found.rate.interval.low < want && want < found.rate.interval.high);
        // Turned round, it is the other's.
        let turned: Vec<Pairwise> = judgements
            .iter()
            .map(|j| Pairwise {
                forward: j.backward,
                backward: j.forward,
                lengths: [j.lengths[1], j.lengths[0]],
                ..j.clone()
            })
            .collect();
        let of: Vec<&Pairwise> = turned.iter().collect();
        let other = length_controlled([0, 1], &of, &Difficulty::of(&turned), 1).expect("400 prompts");
        assert!((found.rate.interval.mean + other.rate.interval.mean - 1.0).abs() < 1e-6, "{other:?}");
    }

    #[test]
    fn published_win_rates_follow_from_published_weights() {
        // Weights and rates of AlpacaEval 2's leaderboard; the 805 difficulties, which are not published with them, as a
        // distribution of three numbers that the script fitted to other models.
        let published = &golden()["published"];
        let (difficulties, shares) = (numbers(&published["difficulties"]), numbers(&published["shares"]));
        for row in published["held_out"].as_array().expect("models") {
            let row = numbers(row);
            let of = |&gamma: &f64| at_equal_length(&[0.0, row[0], row[1]], &[gamma]);
            let rate: f64 = difficulties.iter().map(of).zip(&shares).map(|(rate, share)| 100.0 * rate * share).sum();
            assert!((rate - row[2]).abs() < 0.25, "{rate} {row:?}");
        }
    }

    #[test]
    fn difficulties_come_from_models_outside_of_the_pair() {
        let mut judgements: Vec<Pairwise> = Vec::new();
        for i in 0..40 {
            let hard = i % 2 == 0;
            for other in 1..4 {
                let lengths = [100 + i * 7 % 50, 100 + i * 3 % 40];
                judgements.push(Pairwise { lengths, ..point(i, 0, [0, other], if hard { 0.0 } else { 1.0 }) });
            }
        }
        let difficulty = Difficulty::of(&judgements);
        // Two others won both prompts of a kind, or none: log-odds of +- ln 5, standardised with n - 1.
        let got = difficulty.outside([0, 1], &[0, 1, 2, 3]).expect("two models outside");
        let want = (3.0f64 / 4.0).sqrt();
        assert!(got.iter().zip([1.0, -1.0, 1.0, -1.0]).all(|(a, b)| (a - b * want).abs() < 1e-12), "{got:?}");
        assert!(difficulty.outside([1, 2], &[0, 1]).is_none(), "one model is left outside");
        let pair: Vec<&Pairwise> = judgements.iter().filter(|j| j.models == [0, 1]).collect();
        assert!(length_controlled([0, 1], &pair, &difficulty, 1).expect("40 prompts").difficulty);
        // Too few prompts; lengths that say no more than who it is.
        assert!(length_controlled([0, 1], &pair[..19], &difficulty, 1).is_none());
        // All ties, from which the penalty leaves nothing.
        let ties: Vec<Pairwise> =
            (0..30).map(|i| Pairwise { lengths: [100 + i, 100], ..point(i, 0, [0, 1], 0.5) }).collect();
        assert!(length_controlled([0, 1], &ties.iter().collect::<Vec<_>>(), &Difficulty::of(&ties), 1).is_none());
        let constant: Vec<Pairwise> = (0..30).map(|i| point(i, 0, [0, 1], (i % 2) as f64)).collect();
        let of: Vec<&Pairwise> = constant.iter().collect();
        assert!(length_controlled([0, 1], &of, &difficulty, 1).is_none());
    }
}
