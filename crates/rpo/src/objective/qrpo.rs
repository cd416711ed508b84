//! Quantile Reward Policy Optimization (Matrenok, Moalla, Gulcehre, arXiv 2507.08068): rewards become their quantiles among
//! the reference's rewards, whose partition function is known in closed form.
//!
//! ```text
//! q(x, y)  = share of the reference's responses to x with a reward of at most r(x, y)
//! log Z    = log of the integral over u in (0, 1) of exp(f(u) / beta)
//! loss     = mean( (f(q) - beta log Z - beta (ell_theta(y|x) - ell_ref(y|x)))^2 )
//! ```
//!
//! The prompt's own rated responses stand for the reference's. Ties and a response itself count half, so that `q` stays
//! inside `(0, 1)`, where the transforms `f` are finite.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{ByRow, Loss, Needs, Objective, Preparation, RewardScale, Step, given, known, strength, values};
use crate::error::{Error, Result};
use crate::feedback::{Response, Split};
use crate::reference::References;
use crate::score::{LogProb, Scores};

/// What becomes of a quantile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Transform {
    /// `q` itself: rewards uniform on `(0, 1)`.
    #[default]
    Identity,
    /// `ln q`: only the worst responses are told apart by much.
    Log,
    /// The quantile of the standard normal distribution: both ends matter.
    Normal,
}

impl Transform {
    /// `f(q)` of a quantile inside `(0, 1)`.
    pub fn apply(self, q: f64) -> f64 {
        match self {
            Self::Identity => q,
            Self::Log => q.ln(),
            Self::Normal => normal_quantile(q),
        }
    }

    /// `log Z`: of `beta (exp(1/beta) - 1)`, `beta / (beta + 1)` and `exp(1 / (2 beta^2))`.
    fn log_partition(self, beta: f64) -> f64 {
        match self {
            Self::Identity => beta.ln() + 1.0 / beta + (-(-1.0 / beta).exp()).ln_1p(),
            Self::Log => -(1.0 / beta).ln_1p(),
            Self::Normal => 0.5 / (beta * beta),
        }
    }
}

/// What to do with a prompt that has one response, whose quantile among its own responses says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum QrpoSingleResponse {
    /// Its quantile among all the training responses.
    #[default]
    Global,
    /// Leave the prompt out.
    Drop,
}

/// Settings of QRPO.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct QrpoConfig {
    /// How strongly the policy is held to the reference. Positive.
    pub beta: f64,
    /// Sum or mean over a response's tokens.
    pub log_prob: LogProb,
    /// What becomes of a quantile.
    pub transform: Transform,
    /// Prompts with one response.
    pub single_response: QrpoSingleResponse,
}

impl Default for QrpoConfig {
    fn default() -> Self {
        Self {
            beta: 0.1,
            log_prob: LogProb::Sum,
            transform: Transform::Identity,
            single_response: QrpoSingleResponse::Global,
        }
    }
}

/// QRPO with what `prepare` worked out.
pub struct Qrpo {
    config: QrpoConfig,
    by_row: ByRow<Row>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Row {
    /// `ell_ref(y|x)`.
    reference: f64,
    /// `f(q)`.
    reward: f64,
}

impl Qrpo {
    /// # Errors
    /// If `beta` is not a positive number.
    pub fn new(config: QrpoConfig) -> Result<Self> {
        strength("beta", config.beta)?;
        Ok(Self { config, by_row: Vec::new() })
    }
}

/// Rewards in order with the number of rows up to each.
struct Distribution {
    rewards: Vec<f64>,
    cumulative: Vec<f64>,
}

impl Distribution {
    fn of<'a>(responses: impl Iterator<Item = &'a Response>) -> Self {
        let mut weighted: Vec<(f64, f64)> = responses.map(|r| (r.reward, r.copies as f64)).collect();
        weighted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut sum = 0.0;
        let cumulative = std::iter::once(0.0).chain(weighted.iter().map(|(_, w)| {
            sum += w;
            sum
        }));
        let cumulative = cumulative.collect();
        Self { rewards: weighted.into_iter().map(|(r, _)| r).collect(), cumulative }
    }

    /// All rows, copies counted.
    fn total(&self) -> f64 {
        self.cumulative[self.rewards.len()]
    }

    /// The share below `reward`, and half of the share at it.
    fn quantile(&self, reward: f64) -> f64 {
        let below = self.cumulative[self.rewards.partition_point(|&r| r < reward)];
        let up_to = self.cumulative[self.rewards.partition_point(|&r| r <= reward)];
        0.5 * (below + up_to) / self.total()
    }
}

impl Objective for Qrpo {
    fn needs(&self) -> Needs {
        Needs { reference: true, ..Needs::default() }
    }

    fn prepare(&mut self, split: &Split, references: &References) -> Result<Preparation> {
        let QrpoConfig { log_prob, transform, single_response, beta } = self.config;
        let reference = given(references.matched.as_ref(), "QRPO")?;
        let facts = RewardScale::of(split, false)?.facts();
        let all = Distribution::of(split.train.iter());
        let mut singles = 0;
        self.by_row = vec![None; split.rows()];
        for group in split.train.groups.iter().chain(&split.validation.groups) {
            let single = group.responses.len() == 1;
            singles += u32::from(single);
            if single && single_response == QrpoSingleResponse::Drop {
                continue;
            }
            let own = Distribution::of(group.responses.iter());
            let among = if single { &all } else { &own };
            for r in &group.responses {
                // A validation reward beyond all training rewards would have quantile 0 or 1.
                let half = 0.5 / all.total();
                let q = among.quantile(r.reward).clamp(half, 1.0 - half);
                self.by_row[r.row] =
                    Some(Row { reference: reference.ell(r.row, log_prob), reward: transform.apply(q) });
            }
        }
        let used = split.train.iter().filter(|r| self.by_row[r.row].is_some()).count();
        if used == 0 {
            return Err(Error::Data(
                "every prompt has a single response and `single-response = \"drop\"` leaves none to train on; use `global`"
                    .into(),
            ));
        }
        let more = [
            ("training responses".into(), used as f64),
            ("prompts with a single response".into(), f64::from(singles)),
            ("log partition".into(), transform.log_partition(beta)),
        ];
        Ok(Preparation { facts: facts.into_iter().chain(more).collect() })
    }

    fn uses(&self, row: usize) -> bool {
        self.by_row[row].is_some()
    }

    fn loss(&self, scores: &Scores, _step: Step<'_>) -> Result<Loss> {
        let QrpoConfig { beta, log_prob, transform, .. } = self.config;
        let known = known(&self.by_row, scores);
        let partition = beta * transform.log_partition(beta);
        let target = |r: &Row| r.reward - partition + beta * r.reference;
        let wanted: Vec<f32> = known.iter().map(|r| target(r) as f32).collect();
        let ell = scores.ell(log_prob);
        let residual = scores.constant(&wanted) - ell.clone().mul_scalar(beta);
        let log_ratio = values(&ell)?.iter().zip(&known).map(|(e, r)| e - r.reference).sum();
        let residuals = values(&residual)?.iter().map(|r| r.abs()).sum();
        Ok(Loss {
            sum: residual.square().sum(),
            count: known.len(),
            metrics: vec![("log_ratio", log_ratio), ("absolute_residual", residuals)],
        })
    }
}

/// The `x` at which the standard normal distribution function is `q`, by bisection.
fn normal_quantile(q: f64) -> f64 {
    let (mut low, mut high) = (-40.0, 40.0);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if 0.5 * libm::erfc(-middle / std::f64::consts::SQRT_2) < q { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{problem, scores};
    use super::*;
    use crate::feedback::PromptGroup;

    #[test]
    fn quantiles_count_ties_by_half() {
        let (split, _) = problem(&[&[(-1.0, 1.0), (-1.0, 2.0), (-1.0, 2.0), (-1.0, 5.0)]]);
        let own = Distribution::of(split.train.iter());
        assert_eq!([1.0, 2.0, 5.0, 0.0, 9.0].map(|r| own.quantile(r)), [0.125, 0.5, 0.875, 0.0, 1.0]);
    }

    #[test]
    fn log_partitions_equal_their_integrals() {
        for transform in [Transform::Identity, Transform::Log, Transform::Normal] {
            for beta in [0.5, 1.0, 3.0] {
                // Midpoint rule; the integrands are smooth but for the ends.
                let n = 200_000;
                let term = |i: i32| (transform.apply((f64::from(i) + 0.5) / f64::from(n)) / beta).exp();
                let integral = (0..n).map(term).sum::<f64>() / f64::from(n);
                let error = (transform.log_partition(beta) - integral.ln()).abs();
                assert!(error < 2e-3, "{transform:?} at {beta}: {error}");
            }
        }
        assert!((Transform::Identity.log_partition(1e-3) - (1e-3f64.ln() + 1e3)).abs() < 1e-9, "no overflow");
    }

    #[test]
    fn the_normal_quantile_at_known_places() {
        for (q, x) in [(0.5, 0.0), (0.975, 1.959_963_984_540_054), (1e-10, -6.361_340_902_404_056)] {
            assert!((normal_quantile(q) - x).abs() < 1e-9, "{q}: {}", normal_quantile(q));
        }
    }

    #[test]
    fn the_loss_by_hand() {
        let (split, references) = problem(&[&[(-1.0, 0.0), (-2.0, 10.0)]]);
        let mut qrpo = Qrpo::new(QrpoConfig { beta: 0.5, ..QrpoConfig::default() }).expect("valid");
        qrpo.prepare(&split, &references).expect("defined");
        // Quantiles 1/4 and 3/4; beta log Z = 0.5 ln(0.5 (e^2 - 1)); log-ratios 0.5 and -1.
        let z = 0.5 * (0.5 * (2f64.exp() - 1.0)).ln();
        let want = (0.25 - z - 0.25).powi(2) + (0.75 - z + 0.5).powi(2);
        let rows = [0, 1];
        let loss = qrpo.loss(&scores(&[-0.5, -3.0], &rows), Step { rows: &rows, mismatched: &[] }).expect("readable");
        let got = f64::from(loss.sum.into_scalar::<f32>());
        assert!((got - want).abs() < 1e-5, "{got} for {want}");
    }

    #[test]
    fn quantiles_reach_as_far_as_all_rows_with_their_copies_allow() {
        let (mut split, references) = problem(&[&[(-1.0, 0.0), (-2.0, 10.0)], &[(-1.0, 10.0)]]);
        split.train.groups[0].responses[0].copies = 7;
        let single = split.train.groups.remove(1);
        split
            .validation
            .groups
            .push(PromptGroup { responses: vec![Response { reward: 99.0, ..single.responses[0].clone() }], ..single });
        let mut qrpo = Qrpo::new(QrpoConfig::default()).expect("valid");
        qrpo.prepare(&split, &references).expect("defined");
        // Seven copies and one: half a row of eight below the top.
        assert_eq!(qrpo.by_row[2].expect("used").reward, 1.0 - 0.5 / 8.0);
    }

    #[test]
    fn single_responses_are_judged_among_all_or_left_out() {
        let (split, references) = problem(&[&[(-1.0, 0.0), (-2.0, 10.0)], &[(-1.0, 7.0)]]);
        let prepared = |single_response| {
            let mut qrpo = Qrpo::new(QrpoConfig { single_response, ..QrpoConfig::default() }).expect("valid");
            qrpo.prepare(&split, &references).expect("defined");
            qrpo
        };
        let row = prepared(QrpoSingleResponse::Global).by_row[2].expect("used");
        assert_eq!(row.reward, 0.5, "the middle one of three");
        assert!(!prepared(QrpoSingleResponse::Drop).uses(2));
    }
}
