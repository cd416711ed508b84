//! What a file of feedback holds, worked out in one pass before anything is trained, grouped as training groups it. Texts are
//! not kept.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use crate::advice::{Advice, Facts, advise};
use crate::error::Result;
use crate::feedback::{Added, FeedbackSet, Grouping, Limits, ReadOptions, ReadSummary, Source, Wanted, read_answers};
use crate::tokenizer::Tokenizer;

/// Smallest, median, 95th percentile and largest of some numbers, with mean and population standard deviation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Distribution {
    /// Smallest.
    pub min: f64,
    /// Half of the values are at most this.
    pub median: f64,
    /// 95 % of the values are at most this.
    pub p95: f64,
    /// Largest.
    pub max: f64,
    /// Mean.
    pub mean: f64,
    /// Population standard deviation.
    pub sd: f64,
}

/// Count of values in `low..high` (the last bin includes `high`); `low == high` for a single value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bin {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// How many.
    pub count: usize,
}

/// What a file of feedback holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DataReport {
    /// What was counted, as for training.
    #[serde(flatten)]
    pub summary: ReadSummary,
    /// How many prompts have how many (different or equal) responses.
    pub responses_per_prompt: BTreeMap<usize, usize>,
    /// Rewards.
    pub rewards: Distribution,
    /// Rewards by value if there are few different ones, else in equal steps.
    pub reward_histogram: Vec<Bin>,
    /// Tokens of a prompt before any cut.
    pub prompt_tokens: Distribution,
    /// Tokens of a response before any cut.
    pub response_tokens: Distribution,
    /// Share of a prompt's pairs of responses with equal rewards.
    pub tied_pairs: f64,
    /// What decides about objectives.
    pub facts: Facts,
    /// Which one to train with first.
    pub advice: Advice,
}

/// What is remembered of a file beside the grouped data.
#[derive(Default)]
struct Observed {
    /// Rewards of all rows by group.
    rewards: Vec<Vec<f64>>,
    /// Of each prompt, before any cut.
    prompt_tokens: Vec<f64>,
    /// Of each row's response, before any cut.
    response_tokens: Vec<f64>,
}

/// Reads `source` once and describes it. `progress` hears how many rows are read.
///
/// # Errors
/// If the file cannot be read or a row is unusable (which, and why), or there is none.
pub fn inspect(
    source: &Source,
    options: &ReadOptions,
    tokenizer: &Tokenizer,
    limits: Limits,
    progress: &mut dyn FnMut(usize),
) -> Result<DataReport> {
    let rows = read_answers(source.files()?, options, Wanted::Rated)?;
    let mut seen = Observed::default();
    let mut grouping = Grouping::new(tokenizer, limits)?;
    let notes = grouping.read(rows, &mut |row| seen.add(row), progress)?;
    let (set, summary) = grouping.finish(&source.to_string())?;
    Ok(seen.report(&set, ReadSummary { notes, ..summary }))
}

impl Observed {
    fn add(&mut self, row: &Added<'_>) {
        if row.group == self.rewards.len() {
            self.rewards.push(Vec::new());
            self.prompt_tokens.extend(row.prompt.map(|prompt| prompt.length as f64));
        }
        self.rewards[row.group].push(row.reward);
        self.response_tokens.push(row.response.length as f64);
    }

    fn report(mut self, set: &FeedbackSet, summary: ReadSummary) -> DataReport {
        let groups = || self.rewards.iter();
        let mut responses_per_prompt = BTreeMap::new();
        groups().for_each(|g| *responses_per_prompt.entry(g.len()).or_default() += 1);
        let pairs: usize = groups().map(|g| g.len() * (g.len() - 1) / 2).sum();
        let tied_pairs: usize = groups().map(|g| equal_pairs(g)).sum();
        let mut rewards: Vec<f64> = groups().flatten().copied().collect();
        rewards.sort_by(f64::total_cmp);
        let facts = facts(set);
        DataReport {
            summary,
            advice: advise(&facts),
            facts,
            responses_per_prompt,
            reward_histogram: histogram(&rewards),
            rewards: distribution(&mut rewards),
            tied_pairs: if pairs > 0 { tied_pairs as f64 / pairs as f64 } else { 0.0 },
            prompt_tokens: distribution(&mut self.prompt_tokens),
            response_tokens: distribution(&mut self.response_tokens),
        }
    }
}

/// As training sees the data: repeated responses once, with their mean reward.
fn facts(set: &FeedbackSet) -> Facts {
    let distinct: HashSet<&[u32]> = set.iter().map(|response| &response.ids[..]).collect();
    let rewards: Vec<Vec<f64>> = set.groups.iter().map(|g| g.responses.iter().map(|r| r.reward).collect()).collect();
    Facts::of(&rewards, distinct.len())
}

/// Pairs of a prompt's responses with equal rewards.
fn equal_pairs(rewards: &[f64]) -> usize {
    let mut sorted = rewards.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.chunk_by(|a, b| a == b).map(|run| run.len() * (run.len() - 1) / 2).sum()
}

/// Describes at least one value; sorts them.
fn distribution(values: &mut [f64]) -> Distribution {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    let at = |share: f64| values[((share * n as f64).ceil() as usize).clamp(1, n) - 1];
    let mean = values.iter().sum::<f64>() / n as f64;
    let sd = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64).sqrt();
    Distribution { min: values[0], median: at(0.5), p95: at(0.95), max: values[n - 1], mean, sd }
}

/// Counts of sorted values: each different one if there are at most 12, else 12 equal steps.
fn histogram(sorted: &[f64]) -> Vec<Bin> {
    const BINS: usize = 12;
    let runs: Vec<Bin> =
        sorted.chunk_by(|a, b| a == b).map(|run| Bin { low: run[0], high: run[0], count: run.len() }).collect();
    if runs.len() <= BINS {
        return runs;
    }
    let (low, high) = (sorted[0], sorted[sorted.len() - 1]);
    let edge = |i: usize| low + (high - low) * i as f64 / BINS as f64;
    let mut bins: Vec<Bin> = (0..BINS).map(|i| Bin { low: edge(i), high: edge(i + 1), count: 0 }).collect();
    for run in runs {
        let place = ((run.low - low) / (high - low) * BINS as f64) as usize;
        bins[place.min(BINS - 1)].count += run.count;
    }
    bins
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_and_histograms_by_hand() {
        let d = distribution(&mut [4.0, 1.0, 2.0, 3.0]);
        assert_eq!((d.min, d.median, d.p95, d.max, d.mean), (1.0, 2.0, 4.0, 4.0, 2.5));
        assert!((d.sd - 1.25f64.sqrt()).abs() < 1e-12);
        assert_eq!(histogram(&[1.0, 1.0, 2.0]).iter().map(|b| b.count).collect::<Vec<_>>(), [2, 1]);
        let many: Vec<f64> = (0..=24).map(f64::from).collect();
        let bins = histogram(&many);
        assert_eq!(bins.len(), 12);
        assert_eq!(bins.iter().map(|b| b.count).sum::<usize>(), 25);
        assert_eq!((bins[0].count, bins[11].count), (2, 3), "the last bin has both its ends");
    }

    #[test]
    fn ties_are_counted_by_pairs() {
        assert_eq!(equal_pairs(&[1.0, 2.0, 1.0, 1.0]), 3);
        assert_eq!(equal_pairs(&[1.0]), 0);
    }
}
