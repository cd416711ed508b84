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
//! Read the other way round, the target of `ell_theta` is `log softmax_i( ell_ref(y_i|x) + r_i / tau )`.

use serde::{Deserialize, Serialize};

use super::{
    ByRow, Loss, Needs, Objective, Preparation, RewardScale, Step, given, known, log_sum_exp, positive, values,
};
use crate::error::{Error, Result};
use crate::feedback::{Response, Split};
use crate::reference::{ReferenceScores, References};
use crate::score::{LogProb, Scores};

/// How `V_hat` is formed from a prompt's responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Partition {
    /// The sum over the responses, as in the paper.
    #[default]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SingleResponse {
    /// Use the partition pooled over all the training responses, at their mean.
    #[default]
    Global,
    /// Keep the own partition: the target is `ell_theta = 0`, plain likelihood, whatever the reward.
    Sft,
    /// Leave the prompt out.
    Drop,
}

/// Settings of RPO.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct RpoConfig {
    /// Temperature: how strongly the policy is held to the reference. Positive; the paper uses 5.
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
            tau: 5.0,
            log_prob: LogProb::Mean,
            partition: Partition::Sum,
            single_response: SingleResponse::Global,
            standardize_rewards: true,
        }
    }
}

/// RPO with the targets that `prepare` worked out.
pub struct Rpo {
    config: RpoConfig,
    targets: ByRow<Target>,
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
}

impl Rpo {
    /// # Errors
    /// If `tau` is not a positive number.
    pub fn new(config: RpoConfig) -> Result<Self> {
        positive("tau", config.tau)?;
        Ok(Self { config, targets: Vec::new() })
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
                Partition::Sum | Partition::Mean | Partition::BatchMean => reference.ell(r.row, log_prob),
            };
            weight + scale.apply(r.reward) / tau
        });
        let divisor = match kind {
            Partition::Sum | Partition::BatchMean => 1,
            Partition::Mean => responses.len(),
            Partition::Sampled => responses.iter().map(|r| r.copies).sum(),
        };
        tau * (log_sum_exp(exponents) - (divisor as f64).ln())
    }
}

impl Objective for Rpo {
    fn needs(&self) -> Needs {
        Needs { reference: true, ..Needs::default() }
    }

    fn prepare(&mut self, split: &Split, references: &References) -> Result<Preparation> {
        let reference = given(references.matched.as_ref(), "RPO")?;
        let RpoConfig { log_prob, partition, single_response, standardize_rewards, .. } = self.config;
        let scale = RewardScale::of(split, standardize_rewards)?;
        let over_all = if partition == Partition::Sampled { partition } else { Partition::Mean };
        let pooled = self.partition(over_all, split.train.iter(), reference, scale);
        let mut singles = 0;
        let mut targets = vec![None; reference.len()];
        for group in split.train.groups.iter().chain(&split.validation.groups) {
            let n = group.responses.len();
            singles += usize::from(n == 1);
            let v_hat = match (n, single_response) {
                (1, SingleResponse::Drop) => continue,
                (1, SingleResponse::Global) => pooled,
                _ => self.partition(partition, group.responses.iter(), reference, scale),
            };
            for r in &group.responses {
                targets[r.row] = Some(Target {
                    reference: reference.ell(r.row, log_prob),
                    reward: scale.apply(r.reward),
                    partition: v_hat,
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
        let [mean, sd] = scale.facts();
        let facts = vec![
            mean,
            sd,
            ("training responses".into(), used as f64),
            ("prompts with a single response".into(), singles as f64),
            ("pooled partition".into(), pooled),
        ];
        Ok(Preparation { facts })
    }

    fn uses(&self, row: usize) -> bool {
        self.targets[row].is_some()
    }

    fn loss(&self, scores: &Scores, step: Step<'_>) -> Loss {
        let RpoConfig { tau, log_prob, partition, .. } = self.config;
        let targets = known(&self.targets, scores);
        let (coupled, variance) = match partition {
            Partition::BatchMean => {
                let (mean, variance) =
                    mean_variance(step.rows.iter().filter_map(|&row| self.targets[row]).map(|t| t.partition));
                (Some(mean), variance)
            }
            Partition::Sum | Partition::Mean | Partition::Sampled => (None, 0.0),
        };
        let target = |t: &Target| t.reference + (t.reward - coupled.unwrap_or(t.partition)) / tau;
        let wanted: Vec<f32> = targets.iter().map(|t| target(t) as f32).collect();
        let ell = scores.ell(log_prob);
        let residual = ell.clone() - scores.constant(&wanted);
        let n = targets.len() as f64;
        // The broadcast averages (a_i + V_j / tau)^2 over all j: the square at the mean V plus its variance / tau^2.
        let sum = residual.clone().square().sum().mul_scalar(0.5).add_scalar(0.5 * n * variance / (tau * tau));
        let log_ratio = values(&ell).iter().zip(&targets).map(|(e, t)| e - t.reference).sum();
        let residuals = values(&residual).iter().map(|r| r.abs()).sum();
        Loss { sum, count: targets.len(), metrics: vec![("log_ratio", log_ratio), ("absolute_residual", residuals)] }
    }
}

/// Mean and population variance.
fn mean_variance(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    (mean, values.map(|v| (v - mean).powi(2)).sum::<f64>() / n)
}

#[cfg(test)]
#[path = "rpo_tests.rs"]
mod tests;
