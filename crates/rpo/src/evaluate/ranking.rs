//! Rewards, wins and rank correlations over held-out prompts, each with the number of values that entered it.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::feedback::FeedbackSet;
use crate::model::Model;
use crate::score::score_set;
use crate::statistics::{Interval, bootstrap, kendall_tau_b, mean, mean_interval, spearman, win_rate};
use crate::stop::Stop;

/// An estimate with its 95 % interval and how many values it is of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Estimate and interval; as wide as the line where there is a single value.
    #[serde(flatten)]
    pub interval: Interval,
    /// Values that entered it.
    pub n: usize,
}

impl Estimate {
    /// The mean with Student's interval; `None` for no values.
    pub fn mean(values: &[f64]) -> Option<Self> {
        (!values.is_empty()).then(|| Self { interval: mean_interval(values), n: values.len() })
    }

    /// The mean with the bootstrap's interval over the values; `None` for no values.
    fn resampled_mean(values: &[f64]) -> Option<Self> {
        let interval = match values.len() {
            1 => Some(mean_interval(values)),
            n => bootstrap(n, 1, |rows| mean(&of(values, rows))),
        };
        interval.map(|interval| Self { interval, n: values.len() })
    }

    /// The share of the pairs in which ours is larger, ties counting half, with Wilson's interval; `None` for no pairs.
    pub fn wins(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        let n = ours.len().min(theirs.len());
        (n > 0).then(|| Self { interval: win_rate(ours, theirs), n })
    }
}

/// `log p(y|x)`, summed over tokens in nats, of all responses of `data` in their order, in batches of at most `budget` tokens.
///
/// # Errors
/// If the device fails, or somebody wishes to stop.
pub fn log_probs(model: &Model, data: &FeedbackSet, budget: usize, stop: &Stop) -> Result<Vec<f64>> {
    let mut scores = score_set(model, data, budget, &mut |_| stop.check())?;
    // Rows count up through a data set.
    scores.sort_unstable_by_key(|(row, _)| *row);
    Ok(scores.into_iter().map(|(_, sum)| f64::from(sum)).collect())
}

/// The values at these places.
pub fn of(values: &[f64], places: &[usize]) -> Vec<f64> {
    places.iter().map(|&i| values[i]).collect()
}

/// Kendall's tau-b of scores with rewards within each prompt; `None` where either side is constant, as it is for a prompt
/// with one response or with equal rewards.
fn within_prompts(data: &FeedbackSet, scores: &[f64]) -> Vec<Option<f64>> {
    let mut first = 0;
    let of_prompt = data.groups.iter().map(|group| {
        let rewards: Vec<f64> = group.responses.iter().map(|r| r.reward).collect();
        let tau = kendall_tau_b(&scores[first..first + rewards.len()], &rewards);
        first += rewards.len();
        tau
    });
    of_prompt.collect()
}

/// Mean tau-b within these prompts, the runs averaged for each prompt, with the bootstrap over those prompts on which it is
/// defined.
pub fn mean_tau(held_out: &FeedbackSet, by_run: &[&[f64]], prompts: &[usize]) -> Option<Estimate> {
    let taus: Vec<Vec<Option<f64>>> = by_run.iter().map(|scores| within_prompts(held_out, scores)).collect();
    let over_runs = |&i: &usize| mean(&taus.iter().filter_map(|run| run[i]).collect::<Vec<f64>>());
    Estimate::resampled_mean(&prompts.iter().filter_map(over_runs).collect::<Vec<f64>>())
}

/// Mean tau-b of scores with rewards, the items being prompts with both of their responses, with the bootstrap over those
/// prompts on which it is defined.
pub fn mean_tau_of<'a>(prompts: impl IntoIterator<Item = (&'a [f64], &'a [f64])>) -> Option<Estimate> {
    let taus = prompts.into_iter().filter_map(|(scores, rewards)| kendall_tau_b(scores, rewards));
    Estimate::resampled_mean(&taus.collect::<Vec<f64>>())
}

/// Mean tau-b within these prompts, and how many of them entered it.
pub fn tau_of_prompts(held_out: &FeedbackSet, scores: &[f64], prompts: &[usize]) -> (Option<f64>, usize) {
    let taus = within_prompts(held_out, scores);
    let defined: Vec<f64> = prompts.iter().filter_map(|&i| taus[i]).collect();
    (mean(&defined), defined.len())
}

/// Spearman's correlation over all responses of these prompts, mean over the runs, with the bootstrap over prompts; its `n`
/// counts responses.
pub fn pooled_spearman(held_out: &FeedbackSet, by_run: &[&[f64]], prompts: &[usize]) -> Option<Estimate> {
    let all: Vec<f64> = held_out.iter().map(|r| r.reward).collect();
    let mut ranges = Vec::new();
    let mut first = 0;
    for group in &held_out.groups {
        ranges.push(first..first + group.responses.len());
        first += group.responses.len();
    }
    let interval = bootstrap(prompts.len(), 1, |drawn| {
        let places: Vec<usize> = drawn.iter().flat_map(|&i| ranges[prompts[i]].clone()).collect();
        let rewards = of(&all, &places);
        let each = by_run.iter().map(|scores| spearman(&of(scores, &places), &rewards));
        let each: Option<Vec<f64>> = each.collect();
        each.and_then(|values| mean(&values))
    });
    interval.map(|interval| Estimate { interval, n: prompts.iter().map(|&i| ranges[i].len()).sum() })
}

/// The mean at each place of equally long rows; empty for no rows.
pub fn mean_of_rows(rows: &[&[f64]]) -> Vec<f64> {
    let places = rows.first().map_or(0, |row| row.len());
    (0..places).map(|i| rows.iter().map(|row| row[i]).sum::<f64>() / rows.len() as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feedback::{PromptGroup, Response};

    /// Prompts with responses of these rewards.
    fn rated(rewards: &[&[f64]]) -> FeedbackSet {
        let response = |reward: &f64| Response { row: 0, ids: vec![1], truncated: false, reward: *reward, copies: 1 };
        let group = |rewards: &&[f64]| PromptGroup {
            prompt: vec![1],
            first_row: 0,
            responses: rewards.iter().map(response).collect(),
        };
        FeedbackSet { groups: rewards.iter().map(group).collect() }
    }

    #[test]
    fn prompts_on_which_tau_is_undefined_are_not_counted() {
        // Ranked rightly, all tied, one response, ranked wrongly, ranked rightly.
        let data = rated(&[&[1.0, 2.0], &[3.0, 3.0], &[5.0], &[2.0, 1.0], &[0.0, 4.0]]);
        let scores = [0.1, 0.2, 0.1, 0.2, 0.3, 0.1, 0.2, 0.1, 0.2];
        let got = mean_tau(&data, &[&scores], &[0, 1, 2, 3, 4]).expect("defined");
        assert!(got.n == 3 && (got.interval.mean - 1.0 / 3.0).abs() < 1e-12, "{got:?}");
        assert_eq!(tau_of_prompts(&data, &scores, &[0, 1, 2]), (Some(1.0), 1));
        // A second run that ranks nothing in the first prompt and the other way round in the last: means 1, -1, 0.
        let second = [0.1, 0.1, 0.1, 0.2, 0.3, 0.1, 0.2, 0.2, 0.1];
        let both = mean_tau(&data, &[&scores, &second], &[0, 3, 4]).expect("defined");
        assert!(both.n == 3 && both.interval.mean.abs() < 1e-12, "{both:?}");
        assert_eq!(mean_tau(&data, &[&scores], &[1, 2]), None);
        assert_eq!(pooled_spearman(&data, &[&scores], &[1, 2]).map(|e| e.n), Some(3));
        assert_eq!(mean_tau(&data, &[&scores], &[0, 1]).map(|e| (e.interval.mean, e.n)), Some((1.0, 1)));
    }

    #[test]
    fn draws_are_averaged_before_they_are_compared() {
        let (a, b) = ([1.0, 4.0], [3.0, 0.0]);
        let means = mean_of_rows(&[&a, &b]);
        assert_eq!(means, [2.0, 2.0]);
        // One win, one tie.
        assert_eq!(Estimate::wins(&means, &[1.0, 2.0]).map(|e| (e.interval.mean, e.n)), Some((0.75, 2)));
        assert_eq!(Estimate::wins(&[], &[]), None);
    }
}
