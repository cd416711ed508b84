//! What a run tells those who watch it, and what it leaves when it ends. Nothing here computes on tensors.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::t5::T5;

/// How far a run is; what is needed beside model and optimizer to go on as if it had never stopped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Optimizer steps done.
    pub step: usize,
    /// Lowest validation loss so far and its step.
    pub best: Option<(f64, usize)>,
    /// Validation loss before the first step.
    pub first_validation: Option<f64>,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// The loop begins, after `done` of `steps` steps.
    Start {
        /// Steps done in an earlier run.
        done: usize,
        /// Steps in all.
        steps: usize,
    },
    /// An optimizer step.
    Step(&'a StepReport),
    /// A good moment to look at the policy, which is outside any graph: before the first step, and wherever validation is
    /// due.
    Milestone {
        /// Steps done.
        step: usize,
        /// As it stands.
        policy: &'a T5,
    },
    /// Part of a pass over the validation responses.
    Validating {
        /// Responses scored so far.
        done: usize,
        /// Responses in all.
        total: usize,
    },
    /// A pass over the validation responses is complete.
    Validation {
        /// Steps done.
        step: usize,
        /// The objective's mean loss and metrics.
        means: &'a Means,
        /// Whether it is the lowest loss so far.
        best: bool,
    },
}

/// A mean loss with the objective's own metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Means {
    /// Mean over responses.
    pub loss: f64,
    /// Means over responses by name.
    pub metrics: Vec<(&'static str, f64)>,
}

/// What an optimizer step did.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Number of the step, from 1.
    pub step: usize,
    /// Loss and metrics before the step.
    pub means: Means,
    /// Learning rate.
    pub learning_rate: f64,
    /// Norm of the gradients before clipping.
    pub grad_norm: f64,
    /// Responses in the step.
    pub responses: usize,
    /// Tokens in the step, prompts included.
    pub tokens: usize,
    /// Wall time.
    pub seconds: f64,
}

/// Hears of everything that happens.
pub trait Observer {
    /// Called as it happens.
    ///
    /// # Errors
    /// If what must be recorded cannot be; training then stops.
    fn observe(&mut self, event: &Event<'_>) -> Result<()>;
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Where it stands.
    pub progress: Progress,
    /// Loss at the last validation.
    pub last_validation: Option<f64>,
    /// Whether it was stopped before the last step.
    pub interrupted: bool,
}
