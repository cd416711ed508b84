//! Which token is drawn from a row of logits, with transformers' semantics and order. No tensors here.

use rand::{Rng, RngExt};
use rpo_ops::{argmax, at_least, largest, log_sum_exp, quantile};

use super::processors::Processors;

/// How many of the most likely tokens are looked at first where only the most likely are to be kept.
const NUCLEUS: usize = 256;

/// How many tokens are sorted.
const FEW: usize = 64;

/// Tokens in order, each with its logit divided by the temperature.
type Kept = Vec<(u32, f32)>;

impl Processors {
    /// A token drawn from what is kept of `logits`; `None` if none can be.
    pub(super) fn draw(&self, logits: &[f32], rng: &mut impl Rng) -> Option<u32> {
        let part = rng.random::<f64>();
        let Self { top_k, top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff, .. } = *self;
        let whole = (top_k == 0 || top_k >= logits.len()) && top_p == 1.0 && min_p == 0.0;
        if whole && typical_p == 1.0 && epsilon_cutoff == 0.0 && eta_cutoff == 0.0 {
            return quantile(logits, 1.0 / self.temperature, part).map(|token| token as u32);
        }
        let (tokens, logits): (Vec<u32>, Vec<f32>) = self.kept(logits).into_iter().unzip();
        quantile(&logits, 1.0, part).map(|place| tokens[place])
    }

    /// The tokens that may be drawn.
    fn kept(&self, logits: &[f32]) -> Kept {
        let mut kept = self.likeliest(logits);
        if self.min_p > 0.0 {
            keep_min_p(self.min_p, &mut kept);
        }
        if self.typical_p < 1.0 {
            keep_typical(self.typical_p, &mut kept);
        }
        if self.epsilon_cutoff > 0.0 {
            keep_probable(&mut kept, |_| self.epsilon_cutoff);
        }
        if self.eta_cutoff > 0.0 {
            let eta = self.eta_cutoff;
            keep_probable(&mut kept, |entropy| eta.min(eta.sqrt() * (-entropy).exp()));
        }
        kept
    }

    /// What temperature, top-k and top-p leave, and at least what min-p leaves of that.
    fn likeliest(&self, logits: &[f32]) -> Kept {
        let all = if self.top_k == 0 { logits.len() } else { self.top_k.min(logits.len()) };
        if self.top_p == 1.0 {
            if all < logits.len() {
                return self.tempered(logits, &largest(logits, all));
            }
            // A little less than the bound, which is one of probabilities. Negative infinity is below all numbers.
            let best = logits.get(argmax(logits)).map_or(f32::MIN, |best| *best);
            let bound = best + self.temperature * (self.min_p.ln() - 1e-3);
            return self.tempered(logits, &at_least(logits, bound.max(f32::MIN)));
        }
        // The most likely tokens are nearly always few: the rest is only summed.
        let mut wanted = NUCLEUS.min(all);
        let total = if wanted < all { log_sum_exp(logits, 1.0 / self.temperature) } else { 0.0 };
        while wanted < all {
            let kept = self.tempered(logits, &largest(logits, wanted));
            let within: f64 = kept.iter().map(|(_, logit)| f64::from((logit - total).exp())).sum();
            if 1.0 - within <= f64::from(1.0 - self.top_p) {
                return keep_top_p(self.top_p, kept, 1.0 - within as f32);
            }
            wanted = all.min(8 * wanted);
        }
        keep_top_p(self.top_p, self.tempered(logits, &largest(logits, all)), 0.0)
    }

    fn tempered(&self, logits: &[f32], places: &[usize]) -> Kept {
        places.iter().map(|&i| (i as u32, logits[i] / self.temperature)).collect()
    }
}

/// Removes, from the least likely upwards, tokens whose cumulative probability stays within `1 - p`; never the last. What is not
/// among `kept` has the probability `rest` together.
fn keep_top_p(p: f32, mut kept: Kept, rest: f32) -> Kept {
    let (best, most) = (best_of(&kept), kept.len());
    let weight = |(_, logit): &(u32, f32)| (logit - best).exp();
    let total: f32 = kept.iter().map(weight).sum::<f32>() / (1.0 - rest);
    let rising = |a: &(u32, f32), b: &(u32, f32)| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0));
    let mut tokens = kept.clone();
    // Those before `removed` go, those from `end` stay: halves are decided upon as wholes until few are left to be sorted.
    let (mut removed, mut end, mut cumulative) = (0, most, rest);
    while end - removed > FEW {
        let middle = removed + (end - removed) / 2;
        tokens[removed..end].select_nth_unstable_by(middle - removed, rising);
        let lower = tokens[removed..middle].iter().map(weight).sum::<f32>() / total;
        if cumulative + lower <= 1.0 - p {
            (removed, cumulative) = (middle, cumulative + lower);
        } else {
            end = middle;
        }
    }
    tokens[removed..end].sort_unstable_by(rising);
    let undecided = tokens[removed..end.min(most.saturating_sub(1))].iter().take_while(|token| {
        cumulative += weight(token) / total;
        cumulative <= 1.0 - p
    });
    removed += undecided.count();
    if let Some(least) = tokens.get(removed) {
        kept.retain(|token| rising(token, least).is_ge());
    }
    kept
}

fn best_of(kept: &[(u32, f32)]) -> f32 {
    kept.iter().fold(f32::NEG_INFINITY, |best, (_, logit)| best.max(*logit))
}

/// Removes tokens less than `part` as likely as the most likely.
fn keep_min_p(part: f32, kept: &mut Kept) {
    let best = best_of(kept);
    kept.retain(|(_, logit)| (logit - best).exp() >= part);
}

/// Log-probabilities among `kept` alone, and their entropy in nats.
fn normalised(kept: &[(u32, f32)]) -> (Vec<f32>, f32) {
    let logits: Vec<f32> = kept.iter().map(|(_, logit)| *logit).collect();
    let total = log_sum_exp(&logits, 1.0);
    let log_probs: Vec<f32> = logits.into_iter().map(|logit| logit - total).collect();
    let entropy = -log_probs.iter().map(|l| l.exp() * l).sum::<f32>();
    (log_probs, entropy)
}

/// Keeps tokens as near to the entropy as the one with which the nearest together reach the probability `mass`.
fn keep_typical(mass: f32, kept: &mut Kept) {
    let (log_probs, entropy) = normalised(kept);
    let distance = |log_prob: f32| (-log_prob - entropy).abs();
    let mut nearest: Vec<f32> = log_probs.clone();
    nearest.sort_by(|a, b| distance(*a).total_cmp(&distance(*b)));
    let mut cumulative = 0.0;
    let short = |log_prob: &&f32| {
        cumulative += log_prob.exp();
        cumulative < mass
    };
    let reached = nearest.iter().take_while(short).count();
    if let Some(bound) = nearest.get(reached).map(|log_prob| distance(*log_prob)) {
        let mut log_probs = log_probs.into_iter();
        kept.retain(|_| log_probs.next().is_some_and(|log_prob| distance(log_prob) <= bound));
    }
}

/// Removes tokens less likely than a bound that may depend on the entropy; never the most likely.
fn keep_probable(kept: &mut Kept, bound: impl Fn(f32) -> f32) {
    let (log_probs, entropy) = normalised(kept);
    let (best, bound) = (best_of(kept), bound(entropy));
    let mut log_probs = log_probs.into_iter();
    kept.retain(|(_, logit)| log_probs.next().is_some_and(|l| l.exp() >= bound) || *logit == best);
}

#[cfg(test)]
#[path = "sampling_properties.rs"]
mod properties;

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use serde::Deserialize;

    use super::super::processors::{Edited, Place};
    use super::*;

    #[derive(Deserialize)]
    struct Case {
        name: String,
        previous: Vec<u32>,
        logits: Vec<Option<f32>>,
        settings: serde_json::Map<String, serde_json::Value>,
        min_new_tokens: usize,
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
        assert!(cases.len() > 150);
        for case in cases {
            let number = |l: &Option<f32>| l.unwrap_or(f32::NEG_INFINITY);
            let mut logits: Vec<f32> = case.logits.iter().map(number).collect();
            let (processors, mut edited) = (settings(&case.settings), Edited::new(&mut logits));
            // Behind a start token, the last of at most nine.
            let (ids, done) = (&case.previous[..], case.previous.len() - 1);
            processors.edit(
                &Place { ids, done, ends: &[1], may_end: done >= case.min_new_tokens, last: done == 8 },
                &mut edited,
            );
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
        let logits = [0.0, 2f32.ln(), f32::NEG_INFINITY, 5f32.ln()];
        // The row as it is, and a list of what is kept of it.
        for processors in [Processors::default(), Processors { min_p: 0.1, ..Processors::default() }] {
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            let mut counts = [0f64; 4];
            (0..80_000).for_each(|_| {
                counts[processors.draw(&logits, &mut rng).expect("some") as usize] += 1.0 / 80_000.0;
            });
            // Four standard deviations of a proportion are at most 4 sqrt(1/4 / 80000) = 0.0071.
            for (got, want) in counts.iter().zip([0.125, 0.25, 0.0, 0.625]) {
                assert!((got - want).abs() < 0.0071, "{counts:?}");
            }
            assert_eq!(counts[2], 0.0);
            assert_eq!(processors.draw(&[f32::NEG_INFINITY; 3], &mut rng), None);
        }
    }

    #[test]
    fn a_large_vocabulary_keeps_what_a_sorted_one_does() {
        // Without an order, many alike, some banned; flat enough that top-p needs more than the first look.
        let logits: Vec<f32> = (0..5000u32)
            .map(|i| if i % 7 == 0 { f32::NEG_INFINITY } else { (i.wrapping_mul(2_654_435_761) >> 20) as f32 / 600.0 })
            .collect();
        let tokens = |processors: &Processors| processors.kept(&logits).into_iter().map(|(t, _)| t).collect::<Vec<_>>();
        let best = logits.iter().copied().fold(f32::MIN, f32::max);
        let weight = |i: usize, temperature: f32| f64::from((logits[i] - best) / temperature).exp();
        for temperature in [0.7, 1.0, 3.0] {
            let min_p = Processors { min_p: 0.2, temperature, ..Processors::default() };
            let want: Vec<u32> = (0..5000).filter(|i| weight(*i as usize, temperature) >= 0.2).collect();
            assert_eq!(tokens(&min_p), want, "min-p at {temperature}");
            let top_p = Processors { top_p: 0.8, temperature, ..Processors::default() };
            let sum = |tokens: &[u32]| tokens.iter().map(|t| weight(*t as usize, temperature)).sum::<f64>();
            let (all, kept) = ((0..5000).collect::<Vec<u32>>(), tokens(&top_p));
            let part = sum(&kept) / sum(&all);
            let least = kept.iter().map(|t| weight(*t as usize, temperature)).fold(1.0, f64::min);
            let without: Vec<u32> = kept.iter().copied().filter(|t| weight(*t as usize, temperature) > least).collect();
            assert!(part >= 0.8 - 1e-5 && sum(&without) / sum(&all) < 0.8, "top-p at {temperature}: {part}");
        }
    }
}
