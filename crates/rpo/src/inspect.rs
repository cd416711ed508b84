//! What a file of feedback holds, worked out in one pass before anything is trained. Texts are not kept: memory grows
//! with the number of rows by a few numbers each.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use crate::advice::{Advice, Facts, advise};
use crate::error::Result;
use crate::feedback::{Feedback, FeedbackError, Limits, ReadOptions, Source, read_rows};
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
    /// Rated responses.
    pub rows: usize,
    /// Different prompts.
    pub prompts: usize,
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
    /// Rows that repeat a response of the same prompt.
    pub duplicates: usize,
    /// Those among them whose reward differs from the first one's.
    pub conflicting_duplicates: usize,
    /// Prompts with several responses that all have the same reward.
    pub tied_prompts: usize,
    /// Share of a prompt's pairs of responses with equal rewards.
    pub tied_pairs: f64,
    /// Share of all tokens that are `<unk>`.
    pub unknown_rate: f64,
    /// Share of prompts longer than the limit.
    pub truncated_prompts: f64,
    /// Share of responses longer than the limit.
    pub truncated_responses: f64,
    /// What was noticed while the rows were read, as sentences.
    pub notes: Vec<String>,
    /// What decides about objectives.
    pub facts: Facts,
    /// Which one to train with first.
    pub advice: Advice,
}

/// What is remembered of a prompt.
#[derive(Default)]
struct Group {
    /// Number of the prompt in order of appearance.
    number: usize,
    rewards: Vec<f64>,
    /// Place in `merged` of each different response, by a hash of its text.
    places: HashMap<blake3::Hash, usize>,
    /// Of each different response.
    merged: Vec<Merged>,
}

/// The ratings of a response.
struct Merged {
    first: f64,
    mean: f64,
    copies: usize,
}

/// What is remembered of a file.
#[derive(Default)]
struct Observed {
    groups: HashMap<blake3::Hash, Group>,
    prompt_tokens: Vec<f64>,
    response_tokens: Vec<f64>,
    unknown: usize,
    conflicting_duplicates: usize,
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
    let mut seen = Observed::default();
    let mut rows = read_rows(source, options)?;
    for row in rows.by_ref() {
        seen.add(&row?, tokenizer)?;
        progress(seen.response_tokens.len());
    }
    match seen.groups.is_empty() {
        true => Err(FeedbackError::Empty { path: source.to_string().into() }.into()),
        false => Ok(seen.report(limits, rows.notes().lines())),
    }
}

impl Observed {
    fn add(&mut self, row: &Feedback, tokenizer: &Tokenizer) -> Result<()> {
        let number = self.groups.len();
        let new = || Group { number, ..Group::default() };
        let group = self.groups.entry(blake3::hash(row.prompt.as_bytes())).or_insert_with(new);
        if group.rewards.is_empty() {
            let prompt = tokenizer.encode(&row.prompt, usize::MAX)?;
            self.unknown += prompt.unknown;
            self.prompt_tokens.push(prompt.ids.len() as f64);
        }
        let response = tokenizer.encode(&row.response, usize::MAX)?;
        self.unknown += response.unknown;
        self.response_tokens.push(response.ids.len() as f64);
        group.rewards.push(row.reward);
        let place = *group.places.entry(blake3::hash(row.response.as_bytes())).or_insert(group.merged.len());
        match group.merged.get_mut(place) {
            Some(merged) => {
                merged.copies += 1;
                merged.mean += (row.reward - merged.mean) / merged.copies as f64;
                self.conflicting_duplicates += usize::from(merged.first != row.reward);
            }
            None => group.merged.push(Merged { first: row.reward, mean: row.reward, copies: 1 }),
        }
        Ok(())
    }

    fn report(mut self, limits: Limits, notes: Vec<String>) -> DataReport {
        let groups = || self.groups.values();
        let mut responses_per_prompt = BTreeMap::new();
        groups().for_each(|g| *responses_per_prompt.entry(g.rewards.len()).or_default() += 1);
        let tied = |g: &&Group| g.rewards.len() > 1 && g.rewards.iter().all(|r| *r == g.rewards[0]);
        let pairs: usize = groups().map(|g| g.rewards.len() * (g.rewards.len() - 1) / 2).sum();
        let (tied_prompts, tied_pairs): (usize, usize) =
            (groups().filter(tied).count(), groups().map(equal_pairs).sum());
        let duplicates = groups().map(|g| g.rewards.len() - g.merged.len()).sum();
        let mut rewards: Vec<f64> = groups().flat_map(|g| g.rewards.iter().copied()).collect();
        rewards.sort_by(f64::total_cmp);
        let tokens: f64 = self.prompt_tokens.iter().chain(&self.response_tokens).sum();
        let longer = |lengths: &[f64], limit: usize| {
            lengths.iter().filter(|l| **l > limit as f64).count() as f64 / lengths.len() as f64
        };
        let facts = self.facts();
        DataReport {
            notes,
            advice: advise(&facts),
            facts,
            rows: rewards.len(),
            prompts: self.groups.len(),
            responses_per_prompt,
            reward_histogram: histogram(&rewards),
            rewards: distribution(&mut rewards),
            duplicates,
            conflicting_duplicates: self.conflicting_duplicates,
            tied_prompts,
            tied_pairs: if pairs > 0 { tied_pairs as f64 / pairs as f64 } else { 0.0 },
            unknown_rate: self.unknown as f64 / tokens,
            truncated_prompts: longer(&self.prompt_tokens, limits.prompt_tokens),
            truncated_responses: longer(&self.response_tokens, limits.response_tokens),
            prompt_tokens: distribution(&mut self.prompt_tokens),
            response_tokens: distribution(&mut self.response_tokens),
        }
    }
}

impl Observed {
    /// As training sees the data: repeated responses once, with their mean reward.
    fn facts(&self) -> Facts {
        let mut groups: Vec<&Group> = self.groups.values().collect();
        groups.sort_by_key(|g| g.number);
        let distinct: HashSet<&blake3::Hash> = groups.iter().flat_map(|g| g.places.keys()).collect();
        let rewards: Vec<Vec<f64>> = groups.iter().map(|g| g.merged.iter().map(|m| m.mean).collect()).collect();
        Facts::of(&rewards, distinct.len())
    }
}

/// Pairs of a prompt's responses with equal rewards.
fn equal_pairs(group: &Group) -> usize {
    let mut sorted = group.rewards.clone();
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
        let group = |rewards: &[f64]| Group { rewards: rewards.to_vec(), ..Group::default() };
        assert_eq!(equal_pairs(&group(&[1.0, 2.0, 1.0, 1.0])), 3);
        assert_eq!(equal_pairs(&group(&[1.0])), 0);
    }
}
