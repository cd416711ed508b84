//! What a run tells those who watch it, and what it leaves when it ends. Nothing here computes on tensors.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::BestBy;
use crate::error::Result;
use crate::model::Model;

/// What is still to be done before the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// To validate, and to show the policy to the observers.
    pub validation: bool,
    /// To let the policy answer a few prompts, if that is due.
    pub samples: bool,
}

impl Pending {
    /// As at the start.
    pub const ALL: Self = Self { validation: true, samples: true };
    /// As between two steps.
    pub const NOTHING: Self = Self { validation: false, samples: false };

    const fn nothing() -> Self {
        Self::NOTHING
    }
}

/// How far a run is; what is needed beside model and optimizer to go on as if it had never stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Optimizer steps done.
    pub step: usize,
    /// The best validation so far by `best_by` and its step, which is 0 for the start.
    pub best: Option<(f64, usize)>,
    /// Validation loss before the first step.
    pub first_validation: Option<f64>,
    /// Validation loss at the last validation.
    #[serde(default)]
    pub last_validation: Option<f64>,
    /// Optimizer steps before the last validation.
    #[serde(default)]
    pub validated_at: Option<usize>,
    /// What the start is worth by `best_by`, if that is a finite number.
    #[serde(default)]
    pub start: Option<f64>,
    /// By what validations were compared.
    #[serde(default)]
    pub best_by: BestBy,
    /// Validations since the best one.
    #[serde(default)]
    pub waited: usize,
    /// Steps from which nothing was learned, since they were bad.
    #[serde(default)]
    pub skipped: usize,
    /// What was left to do when the run stopped: something only if it stopped in the midst of it. Runs that were saved before
    /// this was noted were never stopped there.
    #[serde(default = "Pending::nothing")]
    pub pending: Pending,
}

impl Default for Progress {
    /// A run that begins.
    fn default() -> Self {
        Self {
            step: 0,
            best: None,
            first_validation: None,
            last_validation: None,
            validated_at: None,
            start: None,
            best_by: BestBy::default(),
            waited: 0,
            skipped: 0,
            pending: Pending::ALL,
        }
    }
}

impl Progress {
    /// Takes note of a validation at the current step; says whether it beats all before it, the start's included. One that is
    /// not finite beats none.
    pub(super) fn consider(&mut self, means: &Means) -> bool {
        let finite = |value: &f64| value.is_finite() && means.loss.is_finite();
        let value = self.best_by.of(means, self.step).filter(finite);
        let better = value.filter(|v| self.best.is_none_or(|(best, _)| self.best_by.better(*v, best)));
        self.waited = if better.is_some() || self.step == 0 { 0 } else { self.waited + 1 };
        self.best = better.map(|v| (v, self.step)).or(self.best);
        (self.last_validation, self.validated_at) = (Some(means.loss), Some(self.step));
        if self.step == 0 {
            (self.first_validation, self.start) = (Some(means.loss), value);
        }
        better.is_some() && self.step > 0
    }
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
        /// Steps that a line of the record tells together.
        log_every: usize,
    },
    /// An optimizer step.
    Step(&'a StepReport),
    /// A step, or a validation, whose numbers are not finite: nothing is learned from it.
    Bad(&'a BadStep),
    /// The run is being saved.
    Saving {
        /// Steps done.
        step: usize,
    },
    /// A good moment to look at the policy, which is outside any graph: before the first step, and wherever validation is
    /// due.
    Milestone {
        /// Steps done.
        step: usize,
        /// As it stands.
        policy: &'a Model,
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
        /// Whether it is better than the start and all validations before it (see [`BestBy`]).
        best: bool,
    },
    /// Answers that the policy draws, as token ids, for people to read.
    Samples {
        /// Steps done.
        step: usize,
        /// A few prompts, always the same.
        prompts: &'a [Vec<u32>],
        /// An answer to each.
        answers: &'a [Vec<u32>],
    },
}

/// A mean loss with metrics: the objective's own, then those of [`crate::diagnostics`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Means {
    /// Mean over responses.
    pub loss: f64,
    /// By name; the objective's are means over responses.
    pub metrics: Vec<(Cow<'static, str>, f64)>,
}

impl Means {
    /// The metric of this name.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }
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

/// What was in a step, or in a part of a validation, whose numbers are not finite.
#[derive(Clone, Debug, PartialEq)]
pub struct BadStep {
    /// Number of the step, from 1; of a validation, how many steps were before it.
    pub step: usize,
    /// Whether it was a validation.
    pub validation: bool,
    /// What is not finite.
    pub problem: String,
    /// The responses, first those whose own log-probability is not finite.
    pub responses: Vec<Suspect>,
}

impl BadStep {
    /// Where its prompts stand in the data, for people: the numbers of their rows from 1, the first few of them.
    pub fn prompts(&self) -> String {
        const NAMED: usize = 8;
        let mut rows: Vec<usize> = Vec::new();
        for suspect in &self.responses {
            if !rows.contains(&suspect.row) {
                rows.push(suspect.row);
            }
        }
        let named: Vec<String> = rows.iter().take(NAMED).map(|row| (row + 1).to_string()).collect();
        match rows.len() {
            1 => format!("the prompt of row {}", named[0]),
            n if n > NAMED => format!("the prompts of rows {} and {} more", named.join(", "), n - NAMED),
            _ => format!("the prompts of rows {}", named.join(", ")),
        }
    }
}

/// A response of a bad step.
#[derive(Clone, Debug, PartialEq)]
pub struct Suspect {
    /// The row of the data that brought its prompt, in reading order from 0.
    pub row: usize,
    /// Token ids of its prompt.
    pub prompt: Vec<u32>,
    /// Its own token ids.
    pub response: Vec<u32>,
    /// Its reward.
    pub reward: f64,
    /// What the policy gives to it, if that was computed: the sum of its tokens' log-probabilities.
    pub log_prob: Option<f32>,
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
    /// Whether it was stopped from outside before it was complete.
    pub interrupted: bool,
    /// Whether it is complete before the last step, because there was no new best for `patience` validations.
    pub ran_out_of_patience: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Considers validations of these losses and ranks, from the start on.
    fn after(best_by: BestBy, validations: &[(f64, Option<f64>)]) -> (Progress, Vec<bool>) {
        let mut progress = Progress { best_by, ..Progress::default() };
        let mut best = Vec::new();
        for (step, (loss, tau_b)) in validations.iter().enumerate() {
            progress.step = step;
            let metrics = tau_b.map(|tau| ("tau_b".into(), tau)).into_iter().collect();
            best.push(progress.consider(&Means { loss: *loss, metrics }));
        }
        (progress, best)
    }

    #[test]
    fn the_start_competes_and_only_what_is_strictly_better_wins() {
        let (progress, best) = after(BestBy::Loss, &[(1.0, None), (1.0, None), (0.5, None), (0.5, None), (0.7, None)]);
        assert_eq!((progress.best, progress.waited, best), (Some((0.5, 2)), 2, vec![false, false, true, false, false]));
        assert_eq!((progress.start, progress.last_validation), (Some(1.0), Some(0.7)));
        let (progress, best) = after(BestBy::Loss, &[(1.0, None), (2.0, None)]);
        assert_eq!((progress.best, best), (Some((1.0, 0)), vec![false, false]));
    }

    #[test]
    fn what_is_not_finite_is_never_best() {
        let (progress, _) = after(BestBy::Loss, &[(1.0, None), (f64::NEG_INFINITY, None), (f64::NAN, None)]);
        assert_eq!((progress.best, progress.waited), (Some((1.0, 0)), 2));
        // The start itself: the first finite validation takes its place.
        let (progress, best) = after(BestBy::Loss, &[(f64::NAN, None), (3.0, None)]);
        assert_eq!((progress.start, progress.best, best), (None, Some((3.0, 1)), vec![false, true]));
        let (progress, _) = after(BestBy::TauB, &[(1.0, None), (f64::NAN, Some(0.5))]);
        assert_eq!(progress.best, Some((0.0, 0)));
    }

    #[test]
    fn ranks_are_better_when_higher_and_the_start_has_none() {
        let (progress, best) =
            after(BestBy::TauB, &[(1.0, None), (9.0, Some(-0.1)), (9.0, Some(0.2)), (9.0, None), (0.0, Some(0.1))]);
        assert_eq!((progress.best, progress.start, progress.waited), (Some((0.2, 2)), Some(0.0), 2));
        assert_eq!(best, [false, false, true, false, false]);
    }
}
