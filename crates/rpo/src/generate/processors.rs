//! What is done to a row of logits before a token is chosen, with transformers' semantics and order. No tensors here.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Processors in the order in which they act: repetition penalty, n-gram ban, temperature, top-k, top-p.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Processors {
    /// Divides positive and multiplies negative logits of tokens that already occurred (arXiv 1909.05858); 1 is off.
    pub repetition_penalty: f32,
    /// Bans tokens that would repeat an n-gram of this length; 0 is off.
    pub no_repeat_ngram_size: usize,
    /// Divides all logits; 1 is off.
    pub temperature: f32,
    /// Keeps the k most likely tokens and those tied with the last of them; 0 is off.
    pub top_k: usize,
    /// Keeps the most likely tokens that together reach this probability (arXiv 1904.09751); 1 is off.
    pub top_p: f32,
}

impl Default for Processors {
    fn default() -> Self {
        Self { repetition_penalty: 1.0, no_repeat_ngram_size: 0, temperature: 1.0, top_k: 0, top_p: 1.0 }
    }
}

impl Processors {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first setting outside its range.
    pub fn validate(&self) -> Result<()> {
        let within = |field, value: f32, is: bool, allowed: &str| match is {
            true => Ok(()),
            false => Err(Error::Setting { field, problem: format!("{value} is not {allowed}") }),
        };
        let positive = |field, value: f32| within(field, value, value.is_finite() && value > 0.0, "a positive number");
        positive("repetition-penalty", self.repetition_penalty)?;
        positive("temperature", self.temperature)?;
        within("top-p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "in (0, 1]")
    }

    /// Applies all that is on to the logits of the next token. `previous` holds the decoder's inputs so far, the start
    /// token among them, as transformers counts them.
    pub fn apply(&self, previous: &[u32], logits: &mut [f32]) {
        if self.repetition_penalty != 1.0 {
            penalise_repetition(previous, self.repetition_penalty, logits);
        }
        if self.no_repeat_ngram_size > 0 {
            ban_repeated_ngrams(previous, self.no_repeat_ngram_size, logits);
        }
        if self.temperature != 1.0 {
            logits.iter_mut().for_each(|l| *l /= self.temperature);
        }
        if self.top_k > 0 && self.top_k < logits.len() {
            keep_top_k(self.top_k, logits);
        }
        if self.top_p < 1.0 {
            keep_top_p(self.top_p, logits);
        }
    }
}

fn penalise_repetition(previous: &[u32], penalty: f32, logits: &mut [f32]) {
    let mut seen = previous.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for id in seen {
        let logit = &mut logits[id as usize];
        *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
    }
}

fn ban_repeated_ngrams(previous: &[u32], n: usize, logits: &mut [f32]) {
    if previous.len() + 1 < n {
        return;
    }
    let prefix = &previous[previous.len() + 1 - n..];
    for window in previous.windows(n) {
        if &window[..n - 1] == prefix {
            logits[window[n - 1] as usize] = f32::NEG_INFINITY;
        }
    }
}

fn keep_top_k(k: usize, logits: &mut [f32]) {
    let mut copy = logits.to_vec();
    let (_, &mut least, _) = copy.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    logits.iter_mut().filter(|l| **l < least).for_each(|l| *l = f32::NEG_INFINITY);
}

/// Removes, from the least likely upwards, tokens whose cumulative probability stays within `1 - p`; never the last.
fn keep_top_p(p: f32, logits: &mut [f32]) {
    let mut order: Vec<usize> = (0..logits.len()).filter(|&i| logits[i] > f32::NEG_INFINITY).collect();
    order.sort_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    let Some((&best, rest)) = order.split_last() else { return };
    let weight = |i: usize| (logits[i] - logits[best]).exp();
    let total: f32 = order.iter().map(|&i| weight(i)).sum();
    let mut cumulative = 0.0;
    let mut removed = 0;
    for &i in rest {
        cumulative += weight(i) / total;
        if cumulative > 1.0 - p {
            break;
        }
        removed += 1;
    }
    rest[..removed].iter().for_each(|&i| logits[i] = f32::NEG_INFINITY);
}

/// The most likely token, the first of several.
pub fn greedy(logits: &[f32]) -> u32 {
    let better = |best: usize, i: usize| if logits[i] > logits[best] { i } else { best };
    (1..logits.len()).fold(0, better) as u32
}

/// A token drawn from `softmax(logits)`.
pub fn draw(logits: &[f32], rng: &mut impl Rng) -> u32 {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights = || logits.iter().map(|l| f64::from(l - best).exp());
    let mut left = rng.random::<f64>() * weights().sum::<f64>();
    for (i, weight) in weights().enumerate() {
        left -= weight;
        if left < 0.0 {
            return i as u32;
        }
    }
    greedy(logits)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Case {
        name: String,
        previous: Vec<u32>,
        logits: Vec<Option<f32>>,
        settings: serde_json::Map<String, serde_json::Value>,
        expected: Vec<Option<f32>>,
    }

    fn settings(given: &serde_json::Map<String, serde_json::Value>) -> Processors {
        let mut all = serde_json::to_value(Processors::default()).expect("plain data");
        for (name, value) in given.iter().filter(|(_, v)| !v.is_null()) {
            all[name.replace('_', "-")] = value.clone();
        }
        serde_json::from_value(all).expect("settings of a golden case")
    }

    #[test]
    fn processors_equal_those_of_transformers() {
        let cases: Vec<Case> =
            serde_json::from_str(include_str!("../../tests/goldens/processors.json")).expect("goldens");
        assert!(cases.len() > 8);
        for case in cases {
            let number = |l: &Option<f32>| l.unwrap_or(f32::NEG_INFINITY);
            let mut logits: Vec<f32> = case.logits.iter().map(number).collect();
            settings(&case.settings).apply(&case.previous, &mut logits);
            for (got, want) in logits.iter().zip(case.expected.iter().map(number)) {
                assert!(*got == want || (got - want).abs() < 1e-6, "{}: {got} for {want}", case.name);
            }
        }
    }

    #[test]
    fn draws_follow_the_softmax() {
        let logits = [0.0, 2f32.ln(), f32::NEG_INFINITY, 5f32.ln()];
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut counts = [0f64; 4];
        (0..80_000).for_each(|_| counts[draw(&logits, &mut rng) as usize] += 1.0 / 80_000.0);
        // Four standard deviations of a proportion are at most 4 sqrt(1/4 / 80000) = 0.0071.
        for (got, want) in counts.iter().zip([0.125, 0.25, 0.0, 0.625]) {
            assert!((got - want).abs() < 0.0071, "{counts:?}");
        }
        assert_eq!(counts[2], 0.0);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let bad = Processors { top_p: 0.0, ..Processors::default() }.validate().expect_err("out of range");
        assert_eq!(bad.to_string(), "top-p: 0 is not in (0, 1]");
        assert!(Processors { temperature: f32::NAN, ..Processors::default() }.validate().is_err());
        assert!(Processors::default().validate().is_ok());
    }
}
