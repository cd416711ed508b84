//! Training objectives: what makes a loss of the policy's scores. One file each; this one holds what they share.
//!
//! To add an objective, write its file (formula, configuration, a test worked by hand) and add one variant to
//! [`ObjectiveConfig`]; trainer and checkpoints need no change. The program's `train` command gives it a name and flags.

mod rpo;
mod sft;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

pub use rpo::{Partition, Rpo, RpoConfig, SingleResponse};
pub use sft::{Sft, SftConfig, SftRows};

use crate::error::Result;
use crate::feedback::Split;
use crate::reference::ReferenceScores;
use crate::score::Scores;

/// What an objective learned about the data before the first step.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Preparation {
    /// Named facts for the user, such as the rewards' mean and how many prompts have a single response.
    pub facts: Vec<(String, f64)>,
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
    /// Whether it reads log-probabilities of the reference model.
    fn needs_reference(&self) -> bool;

    /// Looks once at all the data, before the first step. Statistics come from the training split alone.
    ///
    /// # Errors
    /// If the objective is not defined on this data.
    fn prepare(&mut self, split: &Split, reference: Option<&ReferenceScores>) -> Result<Preparation>;

    /// Whether it trains on this response (a row of the data set) at all.
    fn uses(&self, row: usize) -> bool;

    /// The loss over a micro-batch. `step` lists the rows of the whole optimizer step, for objectives that couple them.
    fn loss(&self, scores: &Scores, step: &[usize]) -> Loss;
}

/// Which objective, with its settings, as written in a configuration file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum ObjectiveConfig {
    /// Reward Partitioning Optimization.
    Rpo(RpoConfig),
    /// Supervised fine-tuning.
    Sft(SftConfig),
}

impl ObjectiveConfig {
    /// The objective in its state before `prepare`.
    ///
    /// # Errors
    /// If a setting is impossible.
    pub fn build(&self) -> Result<Box<dyn Objective>> {
        Ok(match self {
            Self::Rpo(config) => Box::new(Rpo::new(config.clone())?),
            Self::Sft(config) => Box::new(Sft::new(config.clone())?),
        })
    }

    /// Its short name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rpo(_) => "rpo",
            Self::Sft(_) => "sft",
        }
    }
}

/// `ln sum exp` without overflow; negative infinity for no terms.
pub(crate) fn log_sum_exp(terms: impl IntoIterator<Item = f64> + Clone) -> f64 {
    let largest = terms.clone().into_iter().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    largest + terms.into_iter().map(|t| (t - largest).exp()).sum::<f64>().ln()
}
