//! What is done to a row of logits before a token is chosen, with transformers' semantics and order. No tensors here.

use rand::{Rng, RngExt};
use rpo_ops::{largest, log_sum_exp};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How many of the most likely tokens are looked at first where only the most likely are to be kept.
const NUCLEUS: usize = 256;

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

    /// Applies to the logits of the next token what depends on what was said before. `previous` holds the decoder's inputs so
    /// far, the start token among them, as transformers counts them.
    pub(super) fn edit(&self, previous: &[u32], logits: &mut Edited<'_>) {
        if self.repetition_penalty != 1.0 {
            penalise_repetition(previous, self.repetition_penalty, logits);
        }
        if self.no_repeat_ngram_size > 0 {
            ban_repeated_ngrams(previous, self.no_repeat_ngram_size, logits);
        }
    }

    /// The tokens that may be drawn, in order, with their logits divided by the temperature.
    pub(super) fn kept(&self, logits: &[f32]) -> Vec<(u32, f32)> {
        let all = if self.top_k == 0 { logits.len() } else { self.top_k.min(logits.len()) };
        if self.top_p == 1.0 {
            return self.tempered(logits, all);
        }
        // The most likely tokens are nearly always few: the rest is only summed.
        let mut wanted = NUCLEUS.min(all);
        while wanted < all {
            let kept = self.tempered(logits, wanted);
            let total = log_sum_exp(logits, 1.0 / self.temperature);
            let within: f64 = kept.iter().map(|(_, logit)| f64::from(logit - total).exp()).sum();
            if 1.0 - within <= f64::from(1.0 - self.top_p) {
                return keep_top_p(self.top_p, kept, 1.0 - within as f32);
            }
            wanted = all.min(8 * wanted);
        }
        keep_top_p(self.top_p, self.tempered(logits, all), 0.0)
    }

    /// The `k` most likely tokens and those tied with the last of them.
    fn tempered(&self, logits: &[f32], k: usize) -> Vec<(u32, f32)> {
        largest(logits, k).into_iter().map(|i| (i as u32, logits[i] / self.temperature)).collect()
    }
}

/// A row of logits of which a few are changed; it remembers what they were.
pub(super) struct Edited<'a> {
    logits: &'a mut [f32],
    /// Tokens with what their logits were, the latest change last.
    changes: Vec<(u32, f32)>,
}

impl<'a> Edited<'a> {
    pub(super) fn new(logits: &'a mut [f32]) -> Self {
        Self { logits, changes: Vec::new() }
    }

    /// As it is now.
    pub(super) fn logits(&self) -> &[f32] {
        self.logits
    }

    /// What the logit of `token` was before any change.
    pub(super) fn original(&self, token: u32) -> f32 {
        let changed = self.changes.iter().find(|(changed, _)| *changed == token);
        changed.map_or_else(|| self.logits[token as usize], |(_, logit)| *logit)
    }

    /// Changes the logit of `token`, if there is such a token.
    fn change(&mut self, token: u32, change: impl FnOnce(f32) -> f32) {
        if let Some(logit) = self.logits.get_mut(token as usize) {
            self.changes.push((token, *logit));
            *logit = change(*logit);
        }
    }

    /// Keeps `tokens` from being chosen.
    pub(super) fn forbid(&mut self, tokens: &[u32]) {
        tokens.iter().for_each(|&token| self.change(token, |_| f32::NEG_INFINITY));
    }
}

fn penalise_repetition(previous: &[u32], penalty: f32, logits: &mut Edited<'_>) {
    let mut seen = previous.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for token in seen {
        logits.change(token, |logit| if logit < 0.0 { logit * penalty } else { logit / penalty });
    }
}

fn ban_repeated_ngrams(previous: &[u32], n: usize, logits: &mut Edited<'_>) {
    if previous.len() + 1 < n {
        return;
    }
    let prefix = &previous[previous.len() + 1 - n..];
    for window in previous.windows(n) {
        if &window[..n - 1] == prefix {
            logits.forbid(&window[n - 1..]);
        }
    }
}

/// Removes, from the least likely upwards, tokens whose cumulative probability stays within `1 - p`; never the last. What is not
/// among `kept` has the probability `rest` together.
fn keep_top_p(p: f32, mut kept: Vec<(u32, f32)>, rest: f32) -> Vec<(u32, f32)> {
    kept.sort_by(|a, b| a.1.total_cmp(&b.1));
    let Some(&(_, best)) = kept.last() else { return kept };
    let weight = |logit: f32| (logit - best).exp();
    let total: f32 = kept.iter().map(|(_, logit)| weight(*logit)).sum::<f32>() / (1.0 - rest);
    let mut cumulative = rest;
    let removed = kept[..kept.len() - 1].iter().take_while(|(_, logit)| {
        cumulative += weight(*logit) / total;
        cumulative <= 1.0 - p
    });
    let removed = removed.count();
    kept.drain(..removed);
    kept.sort_unstable_by_key(|(token, _)| *token);
    kept
}

/// A token drawn in proportion to the exponentials of the logits beside them.
pub(super) fn draw(kept: &[(u32, f32)], rng: &mut impl Rng) -> Option<u32> {
    let best = kept.iter().fold(f32::NEG_INFINITY, |best, (_, logit)| best.max(*logit));
    let weights = || kept.iter().map(|(_, logit)| f64::from(logit - best).exp());
    let mut left = rng.random::<f64>() * weights().sum::<f64>();
    let drawn = weights().position(|weight| {
        left -= weight;
        left < 0.0
    });
    // Rounding may leave a little behind the last.
    kept.get(drawn.unwrap_or(kept.len().saturating_sub(1))).map(|(token, _)| *token)
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
            let (processors, mut edited) = (settings(&case.settings), Edited::new(&mut logits));
            processors.edit(&case.previous, &mut edited);
            let mut got = vec![f32::NEG_INFINITY; case.expected.len()];
            for (token, logit) in processors.kept(edited.logits()) {
                got[token as usize] = logit;
            }
            for (got, want) in got.into_iter().zip(case.expected.iter().map(number)) {
                assert!(got == want || (got - want).abs() < 1e-6, "{}: {got} for {want}", case.name);
            }
        }
    }

    #[test]
    fn draws_follow_the_softmax() {
        let kept = Processors::default().kept(&[0.0, 2f32.ln(), f32::NEG_INFINITY, 5f32.ln()]);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut counts = [0f64; 4];
        (0..80_000).for_each(|_| counts[draw(&kept, &mut rng).expect("some") as usize] += 1.0 / 80_000.0);
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
