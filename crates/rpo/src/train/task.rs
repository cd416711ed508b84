//! What a run trains by, and its state: the recipe that everything that trains follows.

use std::borrow::Cow;

use super::TrainConfig;
use super::event::Progress;
use super::optim::Optimizer;
use super::packing;
use crate::error::Result;
use crate::feedback::Split;
use crate::model::{Model, RandomWeights, ValueNetwork};
use crate::objective::{Needs, Objective, ObjectiveConfig};
use crate::reference::{PromptFeatures, ReferenceScores, References};
use crate::score::Learner;

/// An objective on its data, with what the reference says of them.
pub struct Task {
    /// The objective, prepared on the data.
    pub objective: Box<dyn Objective>,
    /// Training and validation responses.
    pub data: Split,
    /// [`Split::mismatched`] of the data, where the objective needs it: the same that its reference scores are of.
    pub mismatched: Option<Split>,
    /// What the reference, from which the learner starts, gives to the data: with it the first validation needs no pass, and
    /// those of [`crate::diagnostics`] that compare with the start are reported where it is known.
    pub references: References,
    /// What the objective learned about the data, for people to read.
    pub facts: Vec<(String, f64)>,
}

/// What a task reads of the reference: passes over its data.
#[derive(Clone, Debug)]
pub struct Passes<'a> {
    /// All the data.
    pub all: &'a Split,
    /// Over the responses: all of them if the objective reads their scores, else those that validate, to show what becomes of
    /// them.
    pub matched: Option<Cow<'a, Split>>,
    /// Over the responses as answers to other prompts.
    pub mismatched: Option<&'a Split>,
    /// Over the prompts, for their features.
    pub features: Option<&'a Split>,
}

impl<'a> Passes<'a> {
    /// Those of an objective with these needs.
    pub fn of(needs: Needs, data: &'a Split, mismatched: Option<&'a Split>) -> Self {
        let held_out = || Split { validation: data.validation.clone(), ..Split::default() };
        Self {
            all: data,
            matched: match (needs.reference, data.validation.groups.is_empty()) {
                (true, _) => Some(Cow::Borrowed(data)),
                (false, false) => Some(Cow::Owned(held_out())),
                (false, true) => None,
            },
            mismatched: mismatched.filter(|_| needs.mismatched),
            features: Some(data).filter(|data| needs.features && data.mostly_single()),
        }
    }

    /// Makes the passes, in batches of at most `budget` tokens, and keeps the results in memory alone.
    ///
    /// # Errors
    /// If the device fails.
    pub fn compute(&self, reference: &Model, budget: usize) -> Result<References> {
        let scores = |split: &Split| ReferenceScores::compute(reference, split, budget, &mut |_| Ok(()));
        Ok(References {
            matched: self.matched.as_deref().map(scores).transpose()?,
            mismatched: self.mismatched.map(scores).transpose()?,
            features: self
                .features
                .map(|split| PromptFeatures::compute(reference, split, budget, &mut |_| Ok(())))
                .transpose()?,
        })
    }
}

impl Task {
    /// The objective on `data`. `seed` decides the mismatched pairs; `make` makes the passes over the reference.
    ///
    /// # Errors
    /// If a setting is impossible or the objective is not defined on the data, and those of `make`.
    pub fn new<E: From<crate::Error>>(
        objective: &ObjectiveConfig,
        data: Split,
        seed: u64,
        make: impl FnOnce(&Passes<'_>) -> std::result::Result<References, E>,
    ) -> std::result::Result<Self, E> {
        let mut objective = objective.build()?;
        let needs = objective.needs();
        let mismatched = needs.mismatched.then(|| data.mismatched(seed)).transpose()?;
        let references = make(&Passes::of(needs, &data, mismatched.as_ref()))?;
        let facts = objective.prepare(&data, &references)?.facts;
        Ok(Self { objective, data, mismatched, references, facts })
    }

    /// Checks, before anything is computed, that a run as `config` says can be made of an objective and data.
    ///
    /// # Errors
    /// The first thing that is impossible.
    pub fn check(objective: &ObjectiveConfig, data: &Split, config: &TrainConfig) -> Result<()> {
        let mut objective = objective.build()?;
        let needs = objective.needs();
        config.check(needs, data)?;
        if needs.mismatched {
            data.check_mismatched()?;
        }
        objective.prepare(data, &References::zeros(data)).map(|_| ())
    }
}

/// What changes while a run is under way.
pub struct State {
    /// What is trained.
    pub learner: Learner,
    /// What the optimizer remembers.
    pub optimizer: Optimizer,
    /// How far the run is.
    pub progress: Progress,
}

impl State {
    /// The state in which a run of `task` begins at `start`, whose device must track gradients.
    ///
    /// # Errors
    /// If a setting is impossible, or packing changes what `start` says of the task's data.
    pub fn begin(start: Model, task: &Task, config: &TrainConfig) -> Result<Self> {
        let policy = config.lora.attach(start, &mut RandomWeights::new(config.seed))?;
        packing::check(&policy, &task.data.train)?;
        Ok(Self {
            learner: learner(policy, task.objective.needs(), config.seed)?,
            optimizer: Optimizer::new(config.optimizer.clone())?,
            progress: Progress::default(),
        })
    }
}

/// What an objective with these needs trains when it starts from `policy`; `seed` decides what is new.
///
/// # Errors
/// None with random weights.
pub fn learner(policy: Model, needs: Needs, seed: u64) -> Result<Learner> {
    let value = needs.value.map(|v| ValueNetwork::new(&policy, v.kind, seed)).transpose()?;
    Ok(Learner { policy, value })
}
