//! Direct Reward Optimization with a value network (Richemond et al., arXiv 2405.19107).
//!
//! Policy and value are fitted together to the identity that holds at the optimum:
//!
//! ```text
//! loss = 1/2 mean( (r - V(x) - tau (ell_theta(y|x) - ell_ref(y|x)))^2 )
//! ```
//!
//! Defaults: `tau = 1` as in the paper's experiments, with its policy and value apart and both at the policy's learning rate;
//! the value's head starts at zero ([`crate::model::ValueNetwork`]). On a real task `tau` deserves the same care as RPO's.
//!
//! The policy's gradient is divided by `tau`, as in the paper: `-(r - V - tau log-ratio) grad ell_theta`. The value's
//! gradient is the loss's own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{
    ByRow, Loss, Needs, Objective, Preparation, RewardScale, Step, ValueNeed, given, known, positive, strength, values,
};
use crate::error::Result;
use crate::feedback::Split;
use crate::model::ValueKind;
use crate::reference::References;
use crate::score::{LogProb, Scores};

/// Settings of DRO.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct DroConfig {
    /// Temperature: how strongly the policy is held to the reference. Positive; the paper uses 1.
    pub tau: f64,
    /// Sum or mean over a response's tokens.
    pub log_prob: LogProb,
    /// What the value network reads.
    pub value_network: ValueKind,
    /// The value network's largest learning rate; by default the policy's.
    pub value_learning_rate: Option<f64>,
    /// Whether rewards are z-scored with the training split's mean and standard deviation.
    pub standardize_rewards: bool,
}

impl Default for DroConfig {
    fn default() -> Self {
        Self {
            tau: 1.0,
            log_prob: LogProb::Sum,
            value_network: ValueKind::OwnEncoder,
            value_learning_rate: None,
            standardize_rewards: true,
        }
    }
}

/// DRO with what `prepare` collected.
pub struct Dro {
    config: DroConfig,
    by_row: ByRow<Row>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Row {
    /// `ell_ref(y|x)`.
    reference: f64,
    /// `r`, standardised if so configured.
    reward: f64,
}

impl Dro {
    /// # Errors
    /// If `tau` or the value's learning rate is not a positive number.
    pub fn new(config: DroConfig) -> Result<Self> {
        strength("tau", config.tau)?;
        if let Some(rate) = config.value_learning_rate {
            positive("value-learning-rate", rate)?;
        }
        Ok(Self { config, by_row: Vec::new() })
    }
}

impl Objective for Dro {
    fn needs(&self) -> Needs {
        let DroConfig { value_network: kind, value_learning_rate: learning_rate, .. } = self.config;
        Needs { reference: true, value: Some(ValueNeed { kind, learning_rate }), ..Needs::default() }
    }

    fn prepare(&mut self, split: &Split, references: &References) -> Result<Preparation> {
        let reference = given(references.matched.as_ref(), "DRO")?;
        let scale = RewardScale::of(split, self.config.standardize_rewards)?;
        scale.fits(split, self.config.tau)?;
        self.by_row = vec![None; split.rows()];
        for r in split.train.iter().chain(split.validation.iter()) {
            let reference = reference.ell(r.row, self.config.log_prob);
            self.by_row[r.row] = Some(Row { reference, reward: scale.apply(r.reward) });
        }
        Ok(Preparation { facts: scale.facts().into() })
    }

    fn uses(&self, row: usize) -> bool {
        self.by_row[row].is_some()
    }

    fn loss(&self, scores: &Scores, _step: Step<'_>) -> Result<Loss> {
        let DroConfig { tau, log_prob, .. } = self.config;
        let known = known(&self.by_row, scores);
        let Some(value) = &scores.values else { unreachable!("asked for in `needs`") };
        let column = |f: fn(&Row) -> f64| scores.constant(&known.iter().map(|r| f(r) as f32).collect::<Vec<_>>());
        let log_ratio = scores.ell(log_prob) - column(|r| r.reference);
        // Equal to `log_ratio`, with 1/tau of its gradient.
        let slowed = log_ratio.clone().div_scalar(tau) + log_ratio.clone().detach().mul_scalar(1.0 - 1.0 / tau);
        let residual = column(|r| r.reward) - value.clone() - slowed.mul_scalar(tau);
        Ok(Loss {
            sum: residual.clone().square().sum().mul_scalar(0.5),
            count: known.len(),
            metrics: vec![
                ("log_ratio", values(&log_ratio)?.iter().sum()),
                ("value", values(value)?.iter().sum()),
                ("absolute_residual", values(&residual)?.iter().map(|r| r.abs()).sum()),
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::super::testing::{problem, scores};
    use super::*;

    #[test]
    fn loss_and_gradients_by_hand() {
        let (split, references) = problem(&[&[(-1.0, 2.0), (-2.0, -1.0)]]);
        let config = DroConfig { tau: 4.0, standardize_rewards: false, ..DroConfig::default() };
        let mut dro = Dro::new(config).expect("valid");
        dro.prepare(&split, &references).expect("defined");
        let device = Device::flex().autodiff();
        let ell = Tensor::<1>::from_floats([-0.5, -3.0], &device).require_grad();
        let value = Tensor::<1>::from_floats([0.25, 0.25], &device).require_grad();
        let loss = dro.loss(
            &Scores { log_probs: ell.clone(), values: Some(value.clone()), ..scores(&[0.0, 0.0], &[0, 1]) },
            Step { rows: &[0, 1], mismatched: &[] },
        );
        let loss = loss.expect("readable");
        // Residuals 2 - 0.25 - 4 * 0.5 = -0.25 and -1 - 0.25 + 4 * 1 = 2.75.
        let sum = f64::from(loss.sum.clone().into_scalar::<f32>());
        assert!((sum - 0.5 * (0.25f64.powi(2) + 2.75f64.powi(2))).abs() < 1e-6, "{sum}");
        let gradients = loss.sum.backward();
        let of = |x: &Tensor<1>| values(&x.grad(&gradients).expect("reached")).expect("readable");
        // Both are minus the residual: the factor tau of the policy's is divided out.
        assert_eq!(of(&value), [0.25, -2.75]);
        assert_eq!(of(&ell), [0.25, -2.75]);
    }
}
