//! Reward Partitioning Optimization (Faye, Azzag, Lebbah, arXiv 2506.13702).
//!
//! The optimum of reward under a KL penalty satisfies `log pi*(y|x) = log pi_ref(y|x) + (r(x,y) - V(x)) / tau` with
//! `V(x) = tau log Z(x)`. RPO estimates `V` from a prompt's own rated responses and regresses the policy on that
//! identity:
//!
//! ```text
//! V_hat(x) = tau logsumexp_i( ell_ref(y_i|x) + r_i / tau )
//! loss     = 1/2 mean( (ell_theta(y|x) - ell_ref(y|x) - (r - V_hat(x)) / tau)^2 )
//! ```
//!
//! Read the other way round, the target of `ell_theta` is `log softmax_i( ell_ref(y_i|x) + r_i / tau )`: all probability to
//! the rated responses, the bad ones among them, and none to those that nobody rated. That is right only if they are all
//! there are. [`Partition::Fitted`], the default, keeps the regression and estimates `V` otherwise: at the optimum
//! `d_i = r_i - tau log-ratio_i` is `V(x)` for every response, so that `V` can be read off the policy itself,
//!
//! ```text
//! V_hat(x) = ( n mean_i(d_i) + lambda m(x) ) / (n + lambda)
//! ```
//!
//! with `m(x)` what the other prompts tell of this one and `lambda` the variance of `d` within prompts over that between them
//! ([`super::intercept`] derives it). It needs neither a network nor that the responses come from the reference; where a
//! prompt has one response, `m(x)` is all there is to compare it with.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{
    ByRow, Loss, Needs, Objective, Preparation, RewardScale, Step, by_prompt, given, known, ranked, strength, values,
};
use super::intercept::{Fit, Prompt, fit};
use crate::error::{Error, Result};
use crate::feedback::{PromptGroup, Response, Split};
use crate::reference::PromptFeatures;
use crate::reference::{ReferenceScores, References};
use crate::score::{LogProb, Scores, Seen};
use crate::statistics::log_sum_exp;

/// How `V_hat` is formed from a prompt's responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Partition {
    /// Fitted to the data instead of summed: the prompt's mean of `r - tau log-ratio`, drawn towards what the other prompts
    /// tell as far as the variances within and between prompts advise. Follows the policy, without gradient. Assumes
    /// nothing about where the rated responses come from.
    #[default]
    Fitted,
    /// The sum over the responses, as in the paper.
    Sum,
    /// Their mean (`tau log n` less), so that prompts with few responses are not favoured.
    Mean,
    /// `V_hat = tau log mean exp(r_i / tau)`, each copy of a response counting: not the paper's, but what converges to `V`
    /// where the rated responses were drawn from the reference.
    Sampled,
    /// What the published script does in effect: a `[B, 1]` partition broadcast against a `[B]` residual pushes every
    /// response towards the batch's mean partition. For comparison only.
    BatchMean,
}

/// What to do with a prompt that has one response, whose own partition would cancel its reward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SingleResponse {
    /// Use what the other prompts tell: the fitted partition does so by itself, the others are pooled over all the training
    /// responses, at their mean.
    #[default]
    Global,
    /// Keep the own partition: the target is `ell_theta = 0`, plain likelihood, whatever the reward.
    Sft,
    /// Leave the prompt out.
    Drop,
}

/// Settings of RPO.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct RpoConfig {
    /// Temperature: how strongly the policy is held to the reference. Positive. A response whose reward is one standard
    /// deviation higher becomes `exp(1/tau)` times as likely beside the others.
    pub tau: f64,
    /// Sum or mean over a response's tokens.
    pub log_prob: LogProb,
    /// How the partition is formed.
    pub partition: Partition,
    /// Prompts with one response.
    pub single_response: SingleResponse,
    /// Whether rewards are z-scored with the training split's mean and standard deviation.
    pub standardize_rewards: bool,
}

impl Default for RpoConfig {
    fn default() -> Self {
        Self {
            tau: 0.1,
            log_prob: LogProb::Sum,
            partition: Partition::Fitted,
            single_response: SingleResponse::Global,
            standardize_rewards: true,
        }
    }
}

impl RpoConfig {
    /// As the authors' script sets it, but for its shape error ([`Partition::BatchMean`]).
    pub fn published() -> Self {
        Self { tau: 5.0, log_prob: LogProb::Mean, partition: Partition::Sum, ..Self::default() }
    }
}

/// RPO with the targets that `prepare` worked out.
pub struct Rpo {
    config: RpoConfig,
    targets: ByRow<Target>,
    /// For [`Partition::Fitted`], where [`Target::partition`] is not used.
    fitted: Option<Fitted>,
    /// See [`WINDOW`].
    window: usize,
}

/// All that the loss needs of one response besides the policy's score.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Target {
    /// `ell_ref(y|x)`.
    reference: f64,
    /// `r`, standardised if so configured.
    reward: f64,
    /// `V_hat(x)`.
    partition: f64,
    /// Number of the prompt, those of training first.
    group: usize,
}

/// How many prompts a fit looks at, those that the policy saw last: what it said of others long ago says little of where it
/// stands. On 770 prompts of the demo, 3 epochs at tau 0.1, the reward was 2.38, 2.47, 2.42 and 2.36 with 32, 128, 512 and all.
const WINDOW: usize = 128;

/// What the fitted partition is estimated from.
struct Fitted {
    /// 1 and the features of each prompt, `width` numbers each.
    design: Vec<f64>,
    width: usize,
    /// Rows of each training prompt.
    rows: Vec<Vec<usize>>,
    /// By what a sum over the tokens of each row is divided.
    divisors: Vec<f64>,
    /// [`Objective::memory`]: `log p(y|x)` of each row when the policy last saw it, summed over tokens; then for each
    /// training prompt in which step that was, 0 for the start; then how many steps there were.
    memory: Vec<f32>,
    fit: Fit,
    /// At the start. Held-out losses keep to it: as the policy learns its training responses by heart the scatter within
    /// prompts vanishes, and with a `lambda` of these the loss of others would fall by itself.
    first_lambda: f64,
}

impl Fitted {
    /// The row of the design of a prompt.
    fn design(&self, group: usize) -> &[f64] {
        &self.design[group * self.width..][..self.width]
    }

    /// The `window` training prompts that the policy saw last; before the first step, all of them. Those not seen yet come in an order
    /// that has nothing to do with the data's, which may be sorted.
    fn latest(&self, window: usize) -> Vec<usize> {
        let n = self.rows.len();
        let seen = &self.memory[self.divisors.len()..][..n];
        let mut order: Vec<usize> = (0..n).filter(|&i| !self.rows[i].is_empty()).collect();
        let started = self.memory.last().is_some_and(|steps| *steps > 0.0);
        let mixed = |i: usize| (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let by_step = |a: &usize, b: &usize| seen[*b].total_cmp(&seen[*a]).then(mixed(*a).cmp(&mixed(*b)));
        if started && order.len() > window {
            order.select_nth_unstable_by(window, by_step);
            order.truncate(window);
            order.sort_unstable();
        }
        order
    }
}

impl Rpo {
    /// # Errors
    /// If `tau` is not a positive number, or the settings contradict each other.
    pub fn new(config: RpoConfig) -> Result<Self> {
        strength("tau", config.tau)?;
        if config.partition == Partition::Fitted && config.single_response == SingleResponse::Sft {
            let problem = "`sft` cancels a reward with the prompt's own partition, which the fitted one is not; use `global` or \
                           `drop`, or another `partition`";
            return Err(Error::Setting { field: "single-response", problem: problem.into() });
        }
        Ok(Self { config, targets: Vec::new(), fitted: None, window: WINDOW })
    }

    /// `V_hat` of these responses.
    fn partition<'a>(
        &self,
        kind: Partition,
        responses: impl Iterator<Item = &'a Response>,
        reference: &ReferenceScores,
        scale: RewardScale,
    ) -> f64 {
        let RpoConfig { tau, log_prob, .. } = self.config;
        let responses: Vec<&Response> = responses.collect();
        let exponents = responses.iter().map(|r| {
            let weight = match kind {
                Partition::Sampled => (r.copies as f64).ln(),
                _ => reference.ell(r.row, log_prob),
            };
            weight + scale.apply(r.reward) / tau
        });
        let divisor = match kind {
            Partition::Mean => responses.len(),
            Partition::Sampled => responses.iter().map(|r| r.copies).sum(),
            Partition::Sum | Partition::BatchMean | Partition::Fitted => 1,
        };
        tau * (log_sum_exp(exponents) - (divisor as f64).ln())
    }
}

impl Objective for Rpo {
    fn needs(&self) -> Needs {
        let fitted = self.config.partition == Partition::Fitted;
        Needs { reference: true, features: fitted, whole_prompts: fitted, ..Needs::default() }
    }

    fn prepare(&mut self, split: &Split, references: &References) -> Result<Preparation> {
        let reference = given(references.matched.as_ref(), "RPO")?;
        let RpoConfig { log_prob, partition, single_response, standardize_rewards, .. } = self.config;
        let scale = RewardScale::of(split, standardize_rewards)?;
        scale.fits(split, self.config.tau)?;
        if partition != Partition::BatchMean && split.train.groups.iter().all(|g| g.responses.len() > 1) {
            ranked(split, "RPO")?;
        }
        let over_all = if partition == Partition::Sampled { partition } else { Partition::Mean };
        let pooled = self.partition(over_all, split.train.iter(), reference, scale);
        let mut singles = 0;
        let mut targets = vec![None; reference.len()];
        for (i, group) in split.train.groups.iter().chain(&split.validation.groups).enumerate() {
            let n = group.responses.len();
            singles += usize::from(n == 1);
            let v_hat = match (n, single_response) {
                (1, SingleResponse::Drop) => continue,
                _ if partition == Partition::Fitted => f64::NAN,
                (1, SingleResponse::Global) => pooled,
                _ => self.partition(partition, group.responses.iter(), reference, scale),
            };
            for r in &group.responses {
                targets[r.row] = Some(Target {
                    reference: reference.ell(r.row, log_prob),
                    reward: scale.apply(r.reward),
                    partition: v_hat,
                    group: i,
                });
            }
        }
        let used = split.train.iter().filter(|r| targets[r.row].is_some()).count();
        if used == 0 {
            return Err(Error::Data(
                "every prompt has a single response and `single-response = \"drop\"` leaves none to train on; \
                 use `global` or `sft`, or rate more responses per prompt"
                    .into(),
            ));
        }
        self.targets = targets;
        if partition == Partition::Fitted {
            self.fitted = Some(self.start_fit(split, reference, references.features.as_ref()));
            self.refit();
            self.fitted.iter_mut().for_each(|fitted| fitted.first_lambda = fitted.fit.lambda);
        }
        let [mean, sd] = scale.facts();
        let mut facts = vec![
            mean,
            sd,
            ("training responses".into(), used as f64),
            ("prompts with a single response".into(), singles as f64),
        ];
        facts.extend(match &self.fitted {
            Some(Fitted { fit, .. }) => vec![
                ("variance of rewards within prompts, at the start".into(), fit.within),
                ("between prompts".into(), fit.between),
                ("share of that which features of the prompt explain".into(), fit.explained),
            ],
            None => vec![("pooled partition".into(), pooled)],
        });
        Ok(Preparation { facts })
    }

    fn uses(&self, row: usize) -> bool {
        self.targets[row].is_some()
    }

    fn follow(&mut self, policy: &[Seen]) {
        if let Some(fitted) = &mut self.fitted {
            let (n, last) = (fitted.divisors.len(), fitted.memory.len() - 1);
            fitted.memory[last] += 1.0;
            for Seen { row, log_prob } in policy {
                fitted.memory[*row] = *log_prob;
                let Some(Target { group, .. }) = self.targets[*row] else { continue };
                fitted.memory[n + group] = fitted.memory[last];
            }
            self.refit();
        }
    }

    fn memory(&self) -> &[f32] {
        self.fitted.as_ref().map_or(&[], |fitted| &fitted.memory)
    }

    fn recall(&mut self, memory: &[f32]) {
        if let Some(fitted) = &mut self.fitted {
            fitted.memory = memory.to_vec();
            self.refit();
        }
    }

    fn loss(&self, scores: &Scores, step: Step<'_>) -> Result<Loss> {
        let RpoConfig { tau, log_prob, partition, .. } = self.config;
        let targets = known(&self.targets, scores);
        let (coupled, variance) = match partition {
            Partition::BatchMean => {
                let (mean, variance) =
                    mean_variance(step.rows.iter().filter_map(|&row| self.targets[row]).map(|t| t.partition));
                (Some(mean), variance)
            }
            _ => (None, 0.0),
        };
        let ell = scores.ell(log_prob);
        let (partitions, between) = match &self.fitted {
            Some(fitted) => self.fitted_partitions(fitted, &targets, &values(&ell)?, scores),
            None => (targets.iter().map(|t| coupled.unwrap_or(t.partition)).collect(), 0.0),
        };
        let target = |(t, v_hat): (&Target, f64)| (t.reference + (t.reward - v_hat) / tau) as f32;
        let wanted: Vec<f32> = targets.iter().zip(partitions).map(target).collect();
        let residual = ell.clone() - scores.constant(&wanted);
        let n = targets.len() as f64;
        // The broadcast averages (a_i + V_j / tau)^2 over all j: the square at the mean V plus its variance / tau^2.
        let constant = (n * variance + between) / (tau * tau);
        let sum = (residual.clone().square().sum().add_scalar(constant)).mul_scalar(0.5);
        let log_ratio = values(&ell)?.iter().zip(&targets).map(|(e, t)| e - t.reference).sum();
        let residuals = values(&residual)?.iter().map(|r| r.abs()).sum();
        Ok(Loss {
            sum,
            count: targets.len(),
            metrics: vec![("log_ratio", log_ratio), ("absolute_residual", residuals)],
        })
    }
}

/// The fitted partition.
impl Rpo {
    fn start_fit(&self, split: &Split, reference: &ReferenceScores, features: Option<&PromptFeatures>) -> Fitted {
        let groups = || split.train.groups.iter().chain(&split.validation.groups);
        let used = |g: &PromptGroup| -> Vec<usize> {
            g.responses.iter().map(|r| r.row).filter(|&row| self.targets[row].is_some()).collect()
        };
        let rows: Vec<Vec<usize>> = split.train.groups.iter().map(used).collect();
        let mut divisors = vec![1.0; reference.len()];
        if self.config.log_prob == LogProb::Mean {
            groups().flat_map(|g| &g.responses).for_each(|r| divisors[r.row] = r.ids.len() as f64);
        }
        let mut memory: Vec<f32> = (0..reference.len()).map(|row| reference.ell(row, LogProb::Sum) as f32).collect();
        memory.resize(memory.len() + rows.len() + 1, 0.0);
        let of_group = |g: &PromptGroup| features.map_or(&[][..], |f| f.of(g.responses[0].row));
        let (design, width) = design(groups().map(of_group), rows.len());
        Fitted { design, width, rows, divisors, memory, fit: Fit::default(), first_lambda: 0.0 }
    }

    /// `d = r - tau log-ratio`.
    fn own_value(&self, target: &Target, ell: f64) -> f64 {
        target.reward - self.config.tau * (ell - target.reference)
    }

    fn refit(&mut self) {
        let Some(fitted) = &self.fitted else { return };
        let mut squares = 0.0;
        let prompts = fitted.latest(self.window).into_iter().map(|group| {
            let value = |row: &usize| {
                let ell = f64::from(fitted.memory[*row]) / fitted.divisors[*row];
                self.targets[*row].as_ref().map(|t| self.own_value(t, ell))
            };
            let values: Vec<f64> = fitted.rows[group].iter().filter_map(value).collect();
            let (mean, variance) = mean_variance(values.iter().copied());
            squares += variance * values.len() as f64;
            let reward = |row: &usize| self.targets[*row].as_ref().map(|t| t.reward);
            let rewards = || fitted.rows[group].iter().filter_map(reward);
            let ranks = rewards().any(|r| Some(r) != rewards().next());
            Prompt { count: values.len(), ranks, mean, design: fitted.design(group) }
        });
        let prompts: Vec<Prompt<'_>> = prompts.collect();
        let fit = fit(&prompts, squares);
        if let Some(fitted) = &mut self.fitted {
            fitted.fit = fit;
        }
    }

    /// `V_hat` of each response's prompt, given the policy's `ell` of all its responses; and what the sum of the squares of
    /// `d - V_hat` lacks of that whose gradient it has, with `V` integrated out ([`super::intercept`]).
    fn fitted_partitions(&self, fitted: &Fitted, targets: &[Target], ells: &[f64], scores: &Scores) -> (Vec<f64>, f64) {
        let mut v_hats = Vec::with_capacity(targets.len());
        let mut lacking = 0.0;
        let held_out = fitted.fit.with_lambda(fitted.first_lambda);
        for (own, ells) in by_prompt(targets, scores).zip(by_prompt(ells, scores)) {
            let n = own.len() as f64;
            let mean = own.iter().zip(ells).map(|(t, ell)| self.own_value(t, *ell)).sum::<f64>() / n;
            let fit = if own[0].group < fitted.rows.len() { &fitted.fit } else { &held_out };
            let expected = fit.expected(fitted.design(own[0].group));
            let v_hat = fit.value(own.len(), mean, expected);
            lacking += n * (mean - v_hat) * (v_hat - expected);
            v_hats.extend(own.iter().map(|_| v_hat));
        }
        (v_hats, lacking)
    }
}

/// A row for each prompt: 1, then its features, centred and scaled so that over the first `train` prompts their squares sum to
/// 1 on average.
fn design<'a>(features: impl Iterator<Item = &'a [f32]> + Clone, train: usize) -> (Vec<f64>, usize) {
    let width = features.clone().next().map_or(0, <[f32]>::len);
    let mut centre = vec![0.0; width];
    for row in features.clone().take(train) {
        centre.iter_mut().zip(row).for_each(|(sum, f)| *sum += f64::from(*f) / train as f64);
    }
    let squares = |row: &[f32]| row.iter().zip(&centre).map(|(f, c)| (f64::from(*f) - c).powi(2)).sum::<f64>();
    let size = (features.clone().take(train).map(squares).sum::<f64>() / train as f64).sqrt().max(1e-12);
    let row = |row: &'a [f32]| {
        let scaled = row.iter().zip(&centre).map(move |(f, c)| (f64::from(*f) - c) / size);
        std::iter::once(1.0).chain(scaled).collect::<Vec<f64>>()
    };
    (features.flat_map(row).collect(), width + 1)
}

/// Mean and population variance.
fn mean_variance(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    (mean, values.map(|v| (v - mean).powi(2)).sum::<f64>() / n)
}

#[cfg(test)]
#[path = "rpo_properties.rs"]
mod properties;
#[cfg(test)]
#[path = "rpo_tests.rs"]
mod tests;
