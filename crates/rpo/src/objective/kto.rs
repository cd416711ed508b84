//! Kahneman-Tversky Optimization (Ethayarajh et al., arXiv 2402.01306): responses are desirable or not, and the policy is
//! moved by how far each is above or below a point of reference.
//!
//! ```text
//! z_0  = max(0, mean over the step of log pi_theta(y'|x) / pi_ref(y'|x)),  y' an answer to another prompt; no gradient
//! loss = mean( lambda (1 - sigmoid(+- beta (log pi_theta(y|x) / pi_ref(y|x) - z_0))) ),  + if desirable, - if not
//! ```
//!
//! Defaults: `beta = 0.1`, on sums of log-probabilities, weights that reach the range of the paper's equation 8, and `z_0` from
//! mismatched pairs of the whole step, as the paper has them. The paper's warning about small steps holds: a mean over few
//! pairs is a noisy `z_0`.

use burn::tensor::activation::sigmoid;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{ByRow, Loss, Needs, Objective, Preparation, RewardScale, Step, given, known, strength, values};
use crate::error::{Error, Result};
use crate::feedback::Split;
use crate::reference::References;
use crate::score::{LogProb, Scores};

/// From which reward on a response is desirable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", from = "WrittenThreshold")]
pub enum Threshold {
    /// The mean of the training rewards.
    #[default]
    Mean,
    /// The mean of the prompt's own rewards. Prompts whose rewards are all equal, among them those with one response,
    /// fall back to the mean of the training rewards.
    PromptMean,
    /// This reward.
    AtLeast(f64),
}

/// A threshold as people write it: a word, or the number itself.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected `mean`, `prompt-mean` or a number")]
enum WrittenThreshold {
    Number(f64),
    Named(NamedThreshold),
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum NamedThreshold {
    Mean,
    PromptMean,
    AtLeast(f64),
}

impl From<WrittenThreshold> for Threshold {
    fn from(written: WrittenThreshold) -> Self {
        match written {
            WrittenThreshold::Named(NamedThreshold::Mean) => Self::Mean,
            WrittenThreshold::Named(NamedThreshold::PromptMean) => Self::PromptMean,
            WrittenThreshold::Number(reward) | WrittenThreshold::Named(NamedThreshold::AtLeast(reward)) => {
                Self::AtLeast(reward)
            }
        }
    }
}

/// Where the point of reference `z_0` comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ZeroPoint {
    /// Prompts with responses to other prompts, over the whole optimizer step, as in the paper.
    #[default]
    Mismatched,
    /// The micro-batch's own prompts and responses, as the published comparison with RPO has it. For comparison only:
    /// it depends on `micro-batch-tokens`.
    Matched,
}

/// Settings of KTO.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct KtoConfig {
    /// How strongly the policy is held to the reference. Positive; the paper uses 0.1.
    pub beta: f64,
    /// Sum or mean over a response's tokens.
    pub log_prob: LogProb,
    /// From which reward on a response is desirable.
    pub threshold: Threshold,
    /// Weight of desirable responses. Without either weight, both are chosen so that the two kinds weigh about alike.
    pub desirable_weight: Option<f64>,
    /// Weight of undesirable responses.
    pub undesirable_weight: Option<f64>,
    /// Where `z_0` comes from.
    pub zero_point: ZeroPoint,
}

impl Default for KtoConfig {
    fn default() -> Self {
        Self {
            beta: 0.1,
            log_prob: LogProb::Sum,
            threshold: Threshold::Mean,
            desirable_weight: None,
            undesirable_weight: None,
            zero_point: ZeroPoint::Mismatched,
        }
    }
}

/// Weights of desirable and undesirable responses, of which there are `good` and `bad`: the smaller one is raised until
/// `lambda_D n_D / (lambda_U n_U)` lies in the paper's range of 1 to 4/3 (its equation 8).
pub fn balanced(good: usize, bad: usize) -> (f64, f64) {
    let (good, bad) = (good as f64, bad as f64);
    match good / bad {
        ratio if ratio < 1.0 => (bad / good, 1.0),
        ratio if ratio > 4.0 / 3.0 => (1.0, good / (bad * 4.0 / 3.0)),
        _ => (1.0, 1.0),
    }
}

/// KTO with what `prepare` collected.
pub struct Kto {
    config: KtoConfig,
    by_row: ByRow<Row>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Row {
    /// `ell_ref(y|x)`.
    reference: f64,
    /// `log pi_ref(y|x')`, summed or averaged as `ell` is; 0 where none is needed.
    mismatched: f64,
    /// By what a sum over the tokens is divided to be comparable.
    divisor: f64,
    desirable: bool,
    /// `lambda`.
    weight: f64,
}

impl Kto {
    /// # Errors
    /// If `beta` or a weight is not a positive number, or the threshold no number.
    pub fn new(config: KtoConfig) -> Result<Self> {
        strength("beta", config.beta)?;
        for (field, weight) in
            [("desirable-weight", config.desirable_weight), ("undesirable-weight", config.undesirable_weight)]
        {
            weight.map_or(Ok(()), |w| strength(field, w))?;
        }
        match config.threshold {
            Threshold::AtLeast(t) if !t.is_finite() => {
                Err(Error::Setting { field: "threshold", problem: format!("{t} is not a number") })
            }
            _ => Ok(Self { config, by_row: Vec::new() }),
        }
    }

    fn weights(&self, good: usize, bad: usize) -> (f64, f64) {
        match (self.config.desirable_weight, self.config.undesirable_weight) {
            (None, None) => balanced(good, bad),
            (desirable, undesirable) => (desirable.unwrap_or(1.0), undesirable.unwrap_or(1.0)),
        }
    }

    /// `z_0` over the whole step.
    fn zero_point(&self, step: Step<'_>) -> f64 {
        let rows = step.rows.iter().filter_map(|&row| self.by_row[row]);
        let log_ratios: f64 = rows.zip(step.mismatched).map(|(r, sum)| sum / r.divisor - r.mismatched).sum();
        (log_ratios / step.rows.len() as f64).max(0.0)
    }
}

impl Objective for Kto {
    fn needs(&self) -> Needs {
        let mismatched = self.config.zero_point == ZeroPoint::Mismatched;
        Needs { reference: true, mismatched, ..Needs::default() }
    }

    fn prepare(&mut self, split: &Split, references: &References) -> Result<Preparation> {
        let KtoConfig { log_prob, threshold, .. } = self.config;
        let reference = given(references.matched.as_ref(), "KTO")?;
        let mismatched = match self.needs().mismatched {
            true => Some(given(references.mismatched.as_ref(), "KTO with mismatched pairs")?),
            false => None,
        };
        let mean = RewardScale::of(split, false)?.mean;
        let mut fallbacks = 0;
        self.by_row = vec![None; split.rows()];
        for group in split.train.groups.iter().chain(&split.validation.groups) {
            let first = group.responses[0].reward;
            let tied = group.responses.iter().all(|r| r.reward == first);
            let own = group.responses.iter().map(|r| r.reward).sum::<f64>() / group.responses.len() as f64;
            let limit = match threshold {
                Threshold::AtLeast(limit) => limit,
                Threshold::PromptMean if !tied => own,
                Threshold::PromptMean | Threshold::Mean => mean,
            };
            fallbacks += usize::from(threshold == Threshold::PromptMean && tied);
            for r in &group.responses {
                self.by_row[r.row] = Some(Row {
                    reference: reference.ell(r.row, log_prob),
                    mismatched: mismatched.map_or(0.0, |m| m.ell(r.row, log_prob)),
                    divisor: if log_prob == LogProb::Mean { r.ids.len() as f64 } else { 1.0 },
                    desirable: r.reward >= limit,
                    weight: 1.0,
                });
            }
        }
        let good = split.train.iter().filter(|r| self.by_row[r.row].is_some_and(|k| k.desirable)).count();
        let bad = split.train.responses() - good;
        if good == 0 || bad == 0 {
            let kind = if good == 0 { "desirable" } else { "undesirable" };
            let limit = match threshold {
                Threshold::Mean => format!("at the mean reward {mean}"),
                Threshold::PromptMean => "at the mean reward of each prompt".into(),
                Threshold::AtLeast(limit) => format!("at {limit} (the mean reward is {mean})"),
            };
            return Err(Error::Data(format!(
                "no training response is {kind} with the threshold {limit}; KTO needs both kinds. Set another `threshold` or \
                 check the reward column"
            )));
        }
        let (desirable, undesirable) = self.weights(good, bad);
        self.by_row.iter_mut().flatten().for_each(|r| r.weight = if r.desirable { desirable } else { undesirable });
        let mut facts = vec![
            ("desirable training responses".into(), good as f64),
            ("undesirable training responses".into(), bad as f64),
            ("weight of desirable responses".into(), desirable),
            ("weight of undesirable responses".into(), undesirable),
        ];
        if fallbacks > 0 {
            facts.push(("prompts of equal rewards, judged by the overall mean".into(), f64::from(fallbacks as u32)));
        }
        Ok(Preparation { facts })
    }

    fn uses(&self, row: usize) -> bool {
        self.by_row[row].is_some()
    }

    fn loss(&self, scores: &Scores, step: Step<'_>) -> Result<Loss> {
        let KtoConfig { beta, log_prob, zero_point, .. } = self.config;
        let known = known(&self.by_row, scores);
        let n = known.len() as f64;
        let column = |f: &dyn Fn(&Row) -> f64| scores.constant(&known.iter().map(|r| f(r) as f32).collect::<Vec<_>>());
        let log_ratio = scores.ell(log_prob) - column(&|r| r.reference);
        let log_ratios = values(&log_ratio)?;
        let z0 = match zero_point {
            ZeroPoint::Mismatched => self.zero_point(step),
            ZeroPoint::Matched => (log_ratios.iter().sum::<f64>() / n).max(0.0),
        };
        // 1 - sigmoid(a) = sigmoid(-a).
        let exponent = log_ratio.sub_scalar(z0) * column(&|r| if r.desirable { -beta } else { beta });
        let loss = sigmoid(exponent) * column(&|r| r.weight);
        Ok(Loss {
            sum: loss.sum(),
            count: known.len(),
            metrics: vec![("log_ratio", log_ratios.iter().sum()), ("zero_point", n * z0)],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{problem, scores};
    use super::*;
    use crate::reference::ReferenceScores;

    fn prepared(config: KtoConfig, groups: &[&[(f32, f64)]]) -> Result<Kto> {
        let (split, mut references) = problem(groups);
        let rows: usize = groups.iter().map(|g| g.len()).sum();
        references.mismatched = Some(ReferenceScores::new(vec![-10.0; rows], vec![2; rows]));
        let mut kto = Kto::new(config)?;
        kto.prepare(&split, &references)?;
        Ok(kto)
    }

    fn loss(kto: &Kto, log_probs: &[f32], rows: &[usize], mismatched: &[f64]) -> f64 {
        let loss = kto.loss(&scores(log_probs, rows), Step { rows, mismatched }).expect("readable");
        f64::from(loss.sum.into_scalar::<f32>())
    }

    #[test]
    fn a_threshold_is_a_word_or_a_number() {
        let read = |text: &str| serde_json::from_str::<Threshold>(text).map_err(|e| e.to_string());
        assert_eq!(read("-0.5"), Ok(Threshold::AtLeast(-0.5)));
        assert_eq!(read("3"), Ok(Threshold::AtLeast(3.0)));
        assert_eq!(read("\"prompt-mean\""), Ok(Threshold::PromptMean));
        let written = serde_json::to_string(&Threshold::AtLeast(2.0)).expect("JSON");
        assert_eq!(read(&written), Ok(Threshold::AtLeast(2.0)));
        assert!(read("\"median\"").expect_err("no such word").contains("`prompt-mean` or a number"));
    }

    #[test]
    fn the_loss_by_hand() {
        let config = KtoConfig { beta: 0.5, ..KtoConfig::default() };
        let kto = prepared(config, &[&[(-4.0, 1.0), (-6.0, 0.0)]]).expect("defined");
        // Log-ratios 1 and -2; z_0 = ((-7 + 10) + (-9 + 10)) / 2 = 2; equal numbers, so that both weights are 1.
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let want = (1.0 - sigmoid(0.5 * (1.0 - 2.0))) + (1.0 - sigmoid(0.5 * (2.0 + 2.0)));
        let got = loss(&kto, &[-3.0, -8.0], &[0, 1], &[-7.0, -9.0]);
        assert!((got - want).abs() < 1e-6, "{got} for {want}");
        // A negative mean counts as 0.
        let want = (1.0 - sigmoid(0.5)) + (1.0 - sigmoid(0.5 * 2.0));
        let got = loss(&kto, &[-3.0, -8.0], &[0, 1], &[-17.0, -9.0]);
        assert!((got - want).abs() < 1e-6, "{got} for {want}");
        // The mean over tokens divides matched and mismatched alike by two.
        let config = KtoConfig { beta: 0.5, log_prob: LogProb::Mean, ..KtoConfig::default() };
        let kto = prepared(config, &[&[(-4.0, 1.0), (-6.0, 0.0)]]).expect("defined");
        let want = (1.0 - sigmoid(0.5 * (0.5 - 1.0))) + (1.0 - sigmoid(0.5 * (1.0 + 1.0)));
        let got = loss(&kto, &[-3.0, -8.0], &[0, 1], &[-7.0, -9.0]);
        assert!((got - want).abs() < 1e-6, "{got} for {want}");
        // The published variant takes the mean of the matched log-ratios: (1 - 2) / 2 < 0, so 0.
        let config = KtoConfig { beta: 0.5, zero_point: ZeroPoint::Matched, ..KtoConfig::default() };
        let kto = prepared(config, &[&[(-4.0, 1.0), (-6.0, 0.0)]]).expect("defined");
        let want = (1.0 - sigmoid(0.5)) + (1.0 - sigmoid(0.5 * 2.0));
        let got = loss(&kto, &[-3.0, -8.0], &[0, 1], &[]);
        assert!((got - want).abs() < 1e-6, "{got} for {want}");
    }

    #[test]
    fn weights_reach_the_papers_range_and_no_further() {
        assert_eq!(balanced(10, 10), (1.0, 1.0));
        assert_eq!(balanced(12, 10), (1.0, 1.0));
        assert_eq!(balanced(5, 10), (2.0, 1.0));
        let (desirable, undesirable) = balanced(40, 10);
        assert!((desirable * 40.0 / (undesirable * 10.0) - 4.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn thresholds_and_their_fallback() {
        let groups: &[&[(f32, f64)]] = &[&[(-1.0, 9.0), (-1.0, 5.0)], &[(-1.0, 1.0), (-1.0, 1.0)], &[(-1.0, 4.0)]];
        let desirable = |threshold| {
            let kto = prepared(KtoConfig { threshold, ..KtoConfig::default() }, groups).expect("defined");
            kto.by_row.iter().map(|r| r.is_some_and(|r| r.desirable)).collect::<Vec<_>>()
        };
        assert_eq!(desirable(Threshold::Mean), [true, true, false, false, true]);
        assert_eq!(desirable(Threshold::PromptMean), [true, false, false, false, true]);
        assert_eq!(desirable(Threshold::AtLeast(5.0)), [true, true, false, false, false]);
        for (threshold, missing) in [(100.0, "no training response is desirable"), (0.0, "is undesirable")] {
            let config = KtoConfig { threshold: Threshold::AtLeast(threshold), ..KtoConfig::default() };
            let said = prepared(config, groups).map(|_| ()).expect_err("one kind only").to_string();
            assert!(said.contains(missing), "{said}");
        }
    }
}
