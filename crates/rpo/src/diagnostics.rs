//! What a loss does not say: whether the policy still stands by the rated responses, and which of them it prefers. Plain
//! numbers in and out; it knows neither tensors nor objectives.
//!
//! With `lr_i = log pi(y_i|x) - log pi_ref(y_i|x)`, the log-ratio to the start (sums over tokens, in nats), and `r_i` the
//! reward:
//!
//! | metric | formula | a sign of harm |
//! |---|---|---|
//! | `log_prob_best`, `log_prob_worst` | mean over prompts of `log pi` of the response with the highest (lowest) reward, mean over ties | the best falls |
//! | `mass_kept` | `exp( mean over prompts of [ logsumexp_i log pi(y_i\|x) - logsumexp_i log pi_ref(y_i\|x) ] )` | far below 1: probability went to answers that nobody rated |
//! | `kl_estimate` | `1/2 mean(lr_i^2)` | large: the policy has left the start |
//! | `tau_b` | mean over prompts of Kendall's tau-b of `lr_i` and `r_i` | below 0: it prefers the worse |
//! | `spearman` | rank correlation of `lr_i` and `r_i` over all responses | below 0 |
//! | `reward_weighted_log_ratio` | `mean(z_i lr_i)`, `z_i = (r_i - mean) / sd` by the training rewards | below 0 |
//!
//! The best and the worst are only looked at where a prompt's rewards differ, the ranks where both sides do; a metric that is
//! defined nowhere is left out. At the start all log-ratios are 0, so that neither rank correlation exists.
//!
//! `kl_estimate` is Schulman's estimator k2 (<http://joschu.net/blog/kl-approx.html>). It estimates `KL(pi || pi_ref)` for
//! responses drawn from the policy, with little bias while the two are close. The rated responses were drawn from something
//! else, once: take it for a distance on the data, which is comparable from step to step, and not for the KL of what the
//! policy would say today.

use crate::feedback::{FeedbackSet, Split};
use crate::reference::ReferenceScores;
use crate::score::Seen;
use crate::statistics::{kendall_tau_b, log_sum_exp, mean, spearman};

/// Metrics by name, those that are defined.
pub type Metrics = Vec<(&'static str, f64)>;

/// What is known of the responses of a data set before anything is scored.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostics {
    /// Number of the prompt, and the reward, by row.
    by_row: Vec<Option<(usize, f64)>>,
    /// Of the training rewards.
    mean: f64,
    /// Of the training rewards; `None` if they are all equal.
    sd: Option<f64>,
}

/// A response that was scored.
#[derive(Clone, Copy, Debug)]
struct Scored {
    group: usize,
    reward: f64,
    log_prob: f64,
    /// `log pi_ref`, if known.
    reference: Option<f64>,
}

impl Diagnostics {
    /// Remembers the rewards of `split`.
    pub fn new(split: &Split) -> Self {
        let sets: [&FeedbackSet; 2] = [&split.train, &split.validation];
        let mut by_row = vec![None; split.rows()];
        for (group, responses) in sets.iter().flat_map(|set| &set.groups).map(|g| &g.responses).enumerate() {
            responses.iter().for_each(|r| by_row[r.row] = Some((group, r.reward)));
        }
        let (mean, sd) = split.train.reward_mean_sd();
        Self { by_row, mean, sd: (sd.is_finite() && sd > 0.0).then_some(sd) }
    }

    /// The metrics over the responses that were `seen`, which may be some of a prompt's; those that need the reference only
    /// if `reference` covers all of them. Finite wherever the log-probabilities are.
    pub fn of(&self, seen: &[Seen], reference: Option<&ReferenceScores>) -> Metrics {
        let mut scored: Vec<Scored> = seen.iter().filter_map(|seen| self.scored(*seen, reference)).collect();
        scored.sort_by_key(|s| s.group);
        let groups: Vec<&[Scored]> = scored.chunk_by(|a, b| a.group == b.group).collect();
        let mut metrics = Vec::new();
        let mut put = |name, value: Option<f64>| metrics.extend(value.map(|value| (name, value)));
        put("log_prob_best", mean(&at_extremes(&groups, f64::max)));
        put("log_prob_worst", mean(&at_extremes(&groups, f64::min)));
        let Some(log_ratios) = log_ratios(&scored).filter(|l| !l.is_empty()) else { return metrics };
        let rewards: Vec<f64> = scored.iter().map(|s| s.reward).collect();
        put("mass_kept", mass_kept(&groups));
        put("kl_estimate", mean(&log_ratios.iter().map(|l| l * l / 2.0).collect::<Vec<_>>()));
        let mut begin = 0;
        let within = groups.iter().filter_map(|group| {
            let rows = begin..begin + group.len();
            begin = rows.end;
            kendall_tau_b(&log_ratios[rows.clone()], &rewards[rows])
        });
        put("tau_b", mean(&within.collect::<Vec<_>>()));
        put("spearman", spearman(&log_ratios, &rewards));
        put("reward_weighted_log_ratio", self.sd.and_then(|sd| mean(&weighted(&log_ratios, &rewards, self.mean, sd))));
        metrics
    }

    fn scored(&self, seen: Seen, reference: Option<&ReferenceScores>) -> Option<Scored> {
        let (group, reward) = self.by_row.get(seen.row).copied().flatten()?;
        let reference = reference.and_then(|scores| scores.log_prob(seen.row));
        Some(Scored { group, reward, log_prob: f64::from(seen.log_prob), reference })
    }
}

/// `lr_i` of all, if the reference's part is known of all.
fn log_ratios(scored: &[Scored]) -> Option<Vec<f64>> {
    scored.iter().map(|s| s.reference.map(|reference| s.log_prob - reference)).collect()
}

/// By prompt whose rewards differ, the mean log-probability of the responses at one end of them.
fn at_extremes(groups: &[&[Scored]], end: fn(f64, f64) -> f64) -> Vec<f64> {
    let of_group = |group: &&[Scored]| {
        let extreme = group.iter().map(|s| s.reward).reduce(end)?;
        let differ = group.iter().any(|s| s.reward != extreme);
        let there: Vec<f64> = group.iter().filter(|s| s.reward == extreme).map(|s| s.log_prob).collect();
        mean(&there).filter(|_| differ)
    };
    groups.iter().filter_map(of_group).collect()
}

fn mass_kept(groups: &[&[Scored]]) -> Option<f64> {
    let of_group = |group: &&[Scored]| {
        let now = log_sum_exp(group.iter().map(|s| s.log_prob));
        Some(now - log_sum_exp(group.iter().map(|s| s.reference.unwrap_or(f64::NEG_INFINITY))))
    };
    let logarithms: Vec<f64> = groups.iter().filter_map(of_group).collect();
    // Beyond `exp(709)` there is no f64; a mean that is no number stays none.
    mean(&logarithms).map(|log| if log > 700.0 { 700f64.exp() } else { log.exp() })
}

fn weighted(log_ratios: &[f64], rewards: &[f64], mean: f64, sd: f64) -> Vec<f64> {
    log_ratios.iter().zip(rewards).map(|(l, r)| l * (r - mean) / sd).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feedback::{PromptGroup, Response};

    /// Prompts with the rewards of their responses, in training.
    fn split(groups: &[&[f64]]) -> Split {
        let mut row = 0;
        let mut response = |reward: f64| {
            row += 1;
            Response { row: row - 1, ids: vec![row as u32, 1], truncated: false, reward, copies: 1 }
        };
        let mut group = |rewards: &&[f64]| PromptGroup {
            prompt: vec![2, 1],
            first_row: 0,
            responses: rewards.iter().map(|r| response(*r)).collect(),
        };
        Split { train: FeedbackSet { groups: groups.iter().map(&mut group).collect() }, ..Split::default() }
    }

    fn seen(log_probs: &[f32]) -> Vec<Seen> {
        log_probs.iter().enumerate().map(|(row, &log_prob)| Seen { row, log_prob }).collect()
    }

    fn reference(log_probs: &[f32]) -> ReferenceScores {
        ReferenceScores::new(log_probs.to_vec(), vec![2; log_probs.len()])
    }

    fn get(metrics: &Metrics, name: &str) -> Option<f64> {
        metrics.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    fn near(metrics: &Metrics, name: &str, want: f64) {
        let got = get(metrics, name);
        assert!(got.is_some_and(|got| (got - want).abs() < 1e-9), "{name}: {got:?} for {want}");
    }

    #[test]
    fn all_metrics_by_hand() {
        // Two prompts; the second one's rewards are tied at the top.
        let diagnostics = Diagnostics::new(&split(&[&[2.0, 0.0], &[1.0, 1.0, 0.0]]));
        let start = reference(&[-2.0, -2.0, -3.0, -3.0, -3.0]);
        let now = seen(&[-1.0, -4.0, -2.0, -4.0, -3.5]);
        let metrics = diagnostics.of(&now, Some(&start));
        // Best: -1 and (-2 - 4) / 2; worst: -4 and -3.5.
        near(&metrics, "log_prob_best", -2.0);
        near(&metrics, "log_prob_worst", -3.75);
        // log( (e^-1 + e^-4) / 2 e^-2 ) and log( (e^-2 + e^-4 + e^-3.5) / 3 e^-3 ).
        let e = |x: f64| x.exp();
        let first = ((e(-1.0) + e(-4.0)) / (2.0 * e(-2.0))).ln();
        let second = ((e(-2.0) + e(-4.0) + e(-3.5)) / (3.0 * e(-3.0))).ln();
        near(&metrics, "mass_kept", e(f64::midpoint(first, second)));
        // Log-ratios 1, -2, 1, -1, -0.5: squares sum to 1 + 4 + 1 + 1 + 0.25.
        near(&metrics, "kl_estimate", 7.25 / 10.0);
        // 1 in the first prompt; in the second one pair agrees, one disagrees, one is tied: 0.
        near(&metrics, "tau_b", 0.5);
        // Mean reward 0.8, variance (1.44 + 0.64 + 0.04 + 0.04 + 0.64) / 5 = 0.56; sum of lr (r - 0.8):
        // 1.2 + 1.6 + 0.2 - 0.2 + 0.4 = 3.2.
        near(&metrics, "reward_weighted_log_ratio", 3.2 / 5.0 / 0.56f64.sqrt());
        // Ranks of the log-ratios 4.5, 1, 4.5, 2, 3; of the rewards 5, 1.5, 3.5, 3.5, 1.5. Centred products:
        // 3 + 3 + 0.75 - 0.5 + 0 = 6.25; squares 9.5 and 9.
        near(&metrics, "spearman", 6.25 / (9.5f64 * 9.0).sqrt());
    }

    #[test]
    fn at_the_start_nothing_has_moved() {
        let diagnostics = Diagnostics::new(&split(&[&[2.0, 0.0], &[1.0]]));
        let log_probs = [-2.0, -700.0, -1e6];
        let metrics = diagnostics.of(&seen(&log_probs), Some(&reference(&log_probs)));
        near(&metrics, "mass_kept", 1.0);
        near(&metrics, "kl_estimate", 0.0);
        near(&metrics, "reward_weighted_log_ratio", 0.0);
        assert_eq!((get(&metrics, "tau_b"), get(&metrics, "spearman")), (None, None));
    }

    #[test]
    fn what_is_not_defined_is_left_out() {
        // Single and tied responses: no best or worst, no order.
        let diagnostics = Diagnostics::new(&split(&[&[1.0, 1.0], &[1.0]]));
        let now = seen(&[-1.0, -2.0, -3.0]);
        let names = |metrics: Metrics| metrics.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        let start = reference(&[-1.0, -1.0, -1.0]);
        assert_eq!(names(diagnostics.of(&now, Some(&start))), ["mass_kept", "kl_estimate"]);
        assert!(diagnostics.of(&now, None).is_empty() && diagnostics.of(&[], Some(&start)).is_empty());
        // Part of a prompt is in the step, and the reference knows only some rows.
        let diagnostics = Diagnostics::new(&split(&[&[1.0, 0.0, 3.0]]));
        near(&diagnostics.of(&now[..2], None), "log_prob_best", -1.0);
        let partial = ReferenceScores::new(vec![0.0, -1.0, -1.0], vec![0, 2, 2]);
        assert_eq!(names(diagnostics.of(&now, Some(&partial))), ["log_prob_best", "log_prob_worst"]);
        assert_eq!(names(diagnostics.of(&now[1..], Some(&partial))).len(), 7);
    }

    #[test]
    fn extremes_stay_finite() {
        let diagnostics = Diagnostics::new(&split(&[&[1e30, 0.0], &[-1e30]]));
        for (now, start) in [(-1e30, -1.0), (-1.0, -1e30)] {
            let metrics = diagnostics.of(&seen(&[now; 3]), Some(&reference(&[start; 3])));
            assert!(metrics.iter().all(|(_, value)| value.is_finite()), "{metrics:?}");
        }
    }
}
