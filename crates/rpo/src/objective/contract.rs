//! What an objective is, and what objectives share: needs, losses, checks of settings and data, the scale of rewards.

use burn::tensor::Tensor;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::feedback::{PromptGroup, Response, Split};
use crate::host::host;
use crate::model::ValueKind;
use crate::reference::{ReferenceScores, References};
use crate::score::{Scores, Seen};

/// What an objective reads beyond the policy's scores.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(clippy::struct_excessive_bools)] // Each is a need of its own, and any of them go together.
pub struct Needs {
    /// Log-probabilities of the responses under the reference.
    pub reference: bool,
    /// Log-probabilities of the responses as answers to other prompts, under policy and reference.
    pub mismatched: bool,
    /// What the reference's encoder says of the prompts, if most of them have one response ([`Split::mostly_single`]).
    pub features: bool,
    /// All responses of a prompt in the same loss, or as many as a step holds.
    pub whole_prompts: bool,
    /// A value network that is trained beside the policy.
    pub value: Option<ValueNeed>,
}

/// Which value network, and how fast it learns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueNeed {
    /// What it reads.
    pub kind: ValueKind,
    /// Its largest learning rate; `None` for the policy's.
    pub learning_rate: Option<f64>,
}

/// What an objective learned about the data before the first step.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Preparation {
    /// Named facts for the user, such as the rewards' mean and how many prompts have a single response.
    pub facts: Vec<(String, f64)>,
}

/// The optimizer step that a micro-batch is part of (in validation, all the validation responses).
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The rows of its responses.
    pub rows: &'a [usize],
    /// `log p(y|x')` of each row under the current policy, `x'` being another prompt; summed over tokens, without
    /// gradient. Empty unless [`Needs::mismatched`].
    pub mismatched: &'a [f64],
}

/// A loss over the `R` responses of a batch.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Sum over the responses, tracking gradients: `(1)`. The trainer divides by the responses of the whole step, so
    /// that accumulation over micro-batches changes nothing.
    pub sum: Tensor<1>,
    /// How many responses took part.
    pub count: usize,
    /// Named sums over the responses, to be reported as means.
    pub metrics: Vec<(&'static str, f64)>,
}

/// A training objective.
pub trait Objective: Send {
    /// What it reads.
    fn needs(&self) -> Needs;

    /// Looks once at all the data, before the first step. Statistics come from the training split alone.
    ///
    /// # Errors
    /// If the objective is not defined on this data.
    fn prepare(&mut self, split: &Split, references: &References) -> Result<Preparation>;

    /// Whether it trains on this response (a row of the data set) at all.
    fn uses(&self, row: usize) -> bool;

    /// The loss over a micro-batch, which is part of `step`.
    ///
    /// # Errors
    /// If the device fails.
    fn loss(&self, scores: &Scores, step: Step<'_>) -> Result<Loss>;

    /// Hears, after each optimizer step, the log-probabilities that it was made from: what is estimated from the data
    /// beside the policy follows it here, a step behind, so that a step's loss does not depend on how it is accumulated.
    fn follow(&mut self, _policy: &[Seen]) {}

    /// What [`Objective::follow`] has gathered; saved with the optimizer's state.
    fn memory(&self) -> &[f32] {
        &[]
    }

    /// Goes on from [`Objective::memory`], after `prepare` on the same data.
    fn recall(&mut self, _memory: &[f32]) {}
}

/// A setting that must be a positive number.
pub(super) fn positive(field: &'static str, value: f64) -> Result<()> {
    match value.is_finite() && value > 0.0 {
        true => Ok(()),
        false => Err(Error::Setting { field, problem: format!("{value} is not a positive number") }),
    }
}

/// A setting that scales log-ratios: positive, and such that neither gradients vanish nor targets overflow in 32 bits.
pub(super) fn strength(field: &'static str, value: f64) -> Result<()> {
    positive(field, value)?;
    match (1e-6..=1e6).contains(&value) {
        true => Ok(()),
        false => Err(Error::Setting {
            field,
            problem: format!(
                "{value} is outside of 0.000001 to 1000000, beyond which targets are infinite or gradients vanish in 32 \
                 bits"
            ),
        }),
    }
}

/// Refuses data on which an objective that compares a prompt's responses has nothing but rounding to follow: no prompt has
/// responses with different rewards.
pub(super) fn ranked(split: &Split, objective: &str) -> Result<()> {
    match split.train.groups.iter().any(PromptGroup::ranks) {
        true => Ok(()),
        false => Err(Error::Data(format!(
            "none of the {} training prompts has responses with different rewards, so that {objective} has nothing to \
             compare. Check the reward column, or keep ratings that tell a prompt's responses apart",
            split.train.groups.len()
        ))),
    }
}

/// The scores that an objective asked for; without them the caller made a mistake.
pub(super) fn given<'a>(scores: Option<&'a ReferenceScores>, objective: &str) -> Result<&'a ReferenceScores> {
    scores.ok_or_else(|| Error::Data(format!("{objective} needs reference scores that were not computed")))
}

/// Rewards as an objective sees them: z-scored with the training split's statistics, or as they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RewardScale {
    pub mean: f64,
    pub sd: f64,
    pub standardize: bool,
}

/// Rewards over `tau` beyond this leave targets whose squares overflow in 32 bits.
pub(super) const LARGEST_TARGET: f64 = 1e12;

impl RewardScale {
    /// # Errors
    /// If all training rewards are equal: then there is nothing to learn. If they are too large to have a standard
    /// deviation.
    pub(super) fn of(split: &Split, standardize: bool) -> Result<Self> {
        let (mean, sd) = split.train.reward_mean_sd();
        if !sd.is_finite() {
            let largest = split.train.iter().map(|r| r.reward.abs()).fold(0.0, f64::max);
            return Err(Error::Data(format!(
                "the training rewards reach {largest:e}, too large for a standard deviation in 64 bits. Check the reward \
                 column, or rescale it"
            )));
        }
        let first = split.train.iter().next().map_or(0.0, |r| r.reward);
        if split.train.iter().all(|r| r.reward == first) {
            return Err(Error::Data(format!(
                "all {} training rewards equal {first}: there is nothing to prefer. Check the reward column",
                split.train.responses()
            )));
        }
        Ok(Self { mean, sd, standardize })
    }

    /// Refuses rewards that, over a temperature of `tau`, are no log-ratios that numbers of 32 bits can hold.
    pub(super) fn fits(self, split: &Split, tau: f64) -> Result<()> {
        let largest = |a: f64, r: &Response| if r.reward.abs() > a.abs() { r.reward } else { a };
        let largest = split.train.iter().chain(split.validation.iter()).fold(0.0, largest);
        let target = (self.apply(largest) / tau).abs();
        match target <= LARGEST_TARGET {
            true => Ok(()),
            false => Err(Error::Data(format!(
                "a reward of {largest:e} at tau {tau} asks for a log-ratio of {target:.0e}, which 32 bits cannot square. \
                 Check the reward column, raise `tau` or set `standardize-rewards = true`"
            ))),
        }
    }

    pub(super) fn apply(self, reward: f64) -> f64 {
        if self.standardize { (reward - self.mean) / self.sd } else { reward }
    }

    pub(super) fn facts(self) -> [(String, f64); 2] {
        [("reward mean".into(), self.mean), ("reward standard deviation".into(), self.sd)]
    }
}

/// What an objective knows of each row, or `None` for rows it does not use.
pub(super) type ByRow<T> = Vec<Option<T>>;

/// What is known of the rows of `scores`, which are all in use.
pub(super) fn known<T: Copy>(by_row: &ByRow<T>, scores: &Scores) -> Vec<T> {
    let known: Vec<T> = scores.rows.iter().filter_map(|&row| by_row[row]).collect();
    debug_assert_eq!(known.len(), scores.rows.len(), "rows that the objective does not use were scored");
    known
}

/// The responses of each prompt of a batch, from those of all: `of` has something for each.
pub(super) fn by_prompt<'a, T>(of: &'a [T], scores: &Scores) -> impl Iterator<Item = &'a [T]> {
    let mut from = 0;
    let lengths: Vec<usize> = scores.prompt_of.chunk_by(|a, b| a == b).map(<[usize]>::len).collect();
    lengths.into_iter().map(move |n| {
        from += n;
        &of[from - n..from]
    })
}

/// The values of a vector, for metrics.
pub(super) fn values(x: &Tensor<1>) -> Result<Vec<f64>> {
    Ok(host(x.clone())?.into_iter().map(f64::from).collect())
}
