//! Group-centred regression: differences of log-ratios within a prompt are regressed on differences of rewards, so that
//! no partition is needed.
//!
//! ```text
//! V_hat(x) = mean over the prompt's responses of ( r - tau (ell_theta - ell_ref) )
//! loss     = 1/2 mean( (ell_theta(y|x) - ell_ref(y|x) - (r - V_hat(x)) / tau)^2 )
//! ```
//!
//! For `n` responses this is the loss of all pairs of REBEL (arXiv 2404.16767) divided by `n`. The residuals of a prompt
//! sum to zero, so that the gradient through `V_hat` vanishes and `V_hat` may be taken as a constant.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{
    ByRow, Loss, Needs, Objective, Preparation, RewardScale, Step, by_prompt, given, known, ranked, strength, values,
};
use crate::error::{Error, Result};
use crate::feedback::Split;
use crate::reference::References;
use crate::score::{LogProb, Scores};

/// Settings of group-centred regression.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct GroupCentredConfig {
    /// Temperature: how strongly the policy is held to the reference. Positive.
    pub tau: f64,
    /// Sum or mean over a response's tokens.
    pub log_prob: LogProb,
    /// Whether rewards are divided by the training split's standard deviation.
    pub standardize_rewards: bool,
}

impl Default for GroupCentredConfig {
    fn default() -> Self {
        Self { tau: 1.0, log_prob: LogProb::Sum, standardize_rewards: true }
    }
}

/// Group-centred regression with what `prepare` collected.
pub struct GroupCentred {
    config: GroupCentredConfig,
    by_row: ByRow<Row>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Row {
    /// `ell_ref(y|x)`.
    reference: f64,
    /// `r`, standardised if so configured.
    reward: f64,
}

impl GroupCentred {
    /// # Errors
    /// If `tau` is not a positive number.
    pub fn new(config: GroupCentredConfig) -> Result<Self> {
        strength("tau", config.tau)?;
        Ok(Self { config, by_row: Vec::new() })
    }
}

impl Objective for GroupCentred {
    fn needs(&self) -> Needs {
        Needs { reference: true, whole_prompts: true, ..Needs::default() }
    }

    fn prepare(&mut self, split: &Split, references: &References) -> Result<Preparation> {
        let reference = given(references.matched.as_ref(), "group-centred regression")?;
        let scale = RewardScale::of(split, self.config.standardize_rewards)?;
        scale.fits(split, self.config.tau)?;
        self.by_row = vec![None; split.rows()];
        let groups = split.train.groups.iter().chain(&split.validation.groups);
        let mut singles = 0;
        for responses in groups.map(|g| &g.responses) {
            if responses.len() == 1 {
                singles += 1;
                continue;
            }
            for r in responses {
                let reference = reference.ell(r.row, self.config.log_prob);
                self.by_row[r.row] = Some(Row { reference, reward: scale.apply(r.reward) });
            }
        }
        if !split.train.iter().any(|r| self.uses(r.row)) {
            return Err(Error::Data(
                "every prompt has a single response, which group-centred regression cannot compare with anything; \
                 rate more responses per prompt or choose another objective"
                    .into(),
            ));
        }
        ranked(split, "group-centred regression")?;
        let dropped = ("prompts with a single response, left out".into(), f64::from(singles));
        Ok(Preparation { facts: scale.facts().into_iter().chain([dropped]).collect() })
    }

    fn uses(&self, row: usize) -> bool {
        self.by_row[row].is_some()
    }

    fn loss(&self, scores: &Scores, _step: Step<'_>) -> Result<Loss> {
        let GroupCentredConfig { tau, log_prob, .. } = self.config;
        let known = known(&self.by_row, scores);
        let ell = scores.ell(log_prob);
        let ells = values(&ell)?;
        // `r - tau log-ratio` of each response, whose mean over the prompt is `V_hat`.
        let terms: Vec<f64> = known.iter().zip(&ells).map(|(r, e)| r.reward - tau * (e - r.reference)).collect();
        let mut wanted = Vec::with_capacity(known.len());
        for (rows, terms) in by_prompt(&known, scores).zip(by_prompt(&terms, scores)) {
            let v_hat = terms.iter().sum::<f64>() / terms.len() as f64;
            wanted.extend(rows.iter().map(|r| (r.reference + (r.reward - v_hat) / tau) as f32));
        }
        let residual = ell - scores.constant(&wanted);
        let residuals = values(&residual)?.iter().map(|r| r.abs()).sum();
        let log_ratio = ells.iter().zip(&known).map(|(e, r)| e - r.reference).sum();
        Ok(Loss {
            sum: residual.square().sum().mul_scalar(0.5),
            count: known.len(),
            metrics: vec![("log_ratio", log_ratio), ("absolute_residual", residuals)],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{problem, scores_of};
    use super::*;

    #[test]
    fn the_loss_is_that_of_all_pairs_over_their_number() {
        let groups: &[&[(f32, f64)]] = &[&[(-1.0, 0.5), (-2.0, 3.0), (-4.0, -1.0)], &[(-3.0, 2.0), (-1.0, 2.0)]];
        let (split, references) = problem(groups);
        let config = GroupCentredConfig { tau: 2.0, standardize_rewards: false, ..GroupCentredConfig::default() };
        let mut objective = GroupCentred::new(config).expect("valid");
        objective.prepare(&split, &references).expect("defined");
        let ells = [-1.5, -0.5, -6.0, -2.0, -2.5];
        let rows = [0, 1, 2, 3, 4];
        let loss = objective
            .loss(&scores_of(&ells, &rows, &[0, 0, 0, 1, 1]), Step { rows: &rows, mismatched: &[] })
            .expect("readable");
        let got = f64::from(loss.sum.into_scalar::<f32>());
        let mut want = 0.0;
        let mut first = 0;
        for group in groups {
            let n = group.len();
            for i in 0..n {
                for j in 0..i {
                    let log_ratio = |k: usize| f64::from(ells[first + k] - group[k].0);
                    let difference = log_ratio(i) - log_ratio(j) - (group[i].1 - group[j].1) / 2.0;
                    want += 0.5 * difference.powi(2) / n as f64;
                }
            }
            first += n;
        }
        assert!((got - want).abs() < 1e-5, "{got} for {want}");
    }
}
