//! Settings of the loop: plain data with its defaults, and what makes them impossible.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Means, SaveEvery};
use crate::error::{Error, Result};
use crate::feedback::{FeedbackSet, PromptGroup, Split};
use crate::model::checkpoint::StoredAs;
use crate::model::lora::Lora;
use crate::objective::Needs;
use crate::train::optim::OptimizerConfig;

/// Lines of steps in the record of a run, unless the settings ask for more.
const MOST_LINES: usize = 20_000;

/// By what one validation is better than another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BestBy {
    /// The objective's own loss, lower being better. Losses of different objectives or settings are not to be compared, and a
    /// lower loss need not be a better model: see `diagnostics` in the library.
    #[default]
    Loss,
    /// `tau_b`, higher being better: how the log-ratios to the start rank the rated responses of a prompt. The start, which
    /// ranks nothing, counts as 0.
    TauB,
    /// `mass_kept`, higher being better: the probability of the rated responses.
    Mass,
    /// What a judge gives to the policy's own answers, higher being better.
    Reward,
}

impl BestBy {
    /// Its name in the metrics.
    pub fn metric(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::TauB => "tau_b",
            Self::Mass => "mass_kept",
            Self::Reward => "reward",
        }
    }

    /// What a validation after `step` steps is worth; `None` where it is not defined.
    pub(super) fn of(self, means: &Means, step: usize) -> Option<f64> {
        let start_ranks_nothing = (self == Self::TauB && step == 0).then_some(0.0);
        match self {
            Self::Loss => Some(means.loss),
            Self::TauB | Self::Mass | Self::Reward => means.metric(self.metric()).or(start_ranks_nothing),
        }
    }

    /// Whether `a` is strictly better than `b`.
    pub(super) fn better(self, a: f64, b: f64) -> bool {
        if self == Self::Loss { a < b } else { a > b }
    }
}

/// What becomes of a step whose loss or gradients are not finite, and of a validation whose loss is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnBadStep {
    /// The run ends. What was good before it is saved.
    #[default]
    Stop,
    /// Nothing is learned from it, and the run goes on; it ends when ten steps in a row are such.
    Skip,
}

/// Settings of the loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct TrainConfig {
    /// Passes over the training responses.
    pub epochs: usize,
    /// Stop after this many optimizer steps, whatever `epochs` says.
    pub max_steps: Option<usize>,
    /// Responses of an optimizer step.
    pub batch_size: usize,
    /// Tokens, prompts included, of a micro-batch: bounds memory, changes nothing else. Where an objective compares the
    /// responses of a prompt, those of one prompt, at most `batch-size`, stay together all the same.
    pub micro_batch_tokens: usize,
    /// Parts of a step whose gradients are computed apart and added in order, so that any number of processes that divides it comes
    /// to the same weights; by default as many as there are processes when the run begins.
    pub shards: Option<usize>,
    /// Keep only what enters each block for the gradients and compute the rest again: less memory, a third more time.
    pub recompute: bool,
    /// Steps of linear warm-up; by default 150, but at most a tenth of all steps.
    pub warmup_steps: Option<usize>,
    /// Optimizer steps between validations, each of which also saves; by default a tenth of all steps.
    pub validate_every: Option<usize>,
    /// Steps (`500`), time (`10m`, `90s`, `2h`) or both (`500,10m`) after which the run is saved apart from validations; `never`
    /// for validations alone. Changes nothing else.
    pub save_every: SaveEvery,
    /// States that are kept to go on from, the newest ones: `last/` and, where it is damaged, what was `last/` before.
    pub keep: usize,
    /// What becomes of a step that must not be applied.
    pub on_bad_step: OnBadStep,
    /// Optimizer steps that a line of the record tells together; by default 1, and more where the run has over 20,000 steps.
    pub log_every: Option<usize>,
    /// By what validations are compared: the start, which is the first of them, with what comes after it.
    pub best_by: BestBy,
    /// Stop after this many validations in a row without a new best.
    pub patience: Option<usize>,
    /// Optimizer steps between answers to a few prompts, for people to read; none by default.
    pub sample_every: Option<usize>,
    /// Decides the order of the data.
    pub seed: u64,
    /// Number format of the weights in `best/`. With adapters, `bf16` also holds the model that they change so, in half the
    /// memory. What is trained is kept in `f32`, and so is `last/`, from which a run goes on.
    pub store: StoredAs,
    /// Adapters that are trained instead of the whole model.
    pub lora: Lora,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 1,
            max_steps: None,
            batch_size: 32,
            micro_batch_tokens: 4096,
            shards: None,
            recompute: false,
            warmup_steps: None,
            validate_every: None,
            save_every: SaveEvery::default(),
            keep: 2,
            on_bad_step: OnBadStep::Stop,
            log_every: None,
            best_by: BestBy::Loss,
            patience: None,
            sample_every: None,
            seed: 42,
            store: StoredAs::F32,
            lora: Lora::default(),
            optimizer: OptimizerConfig::default(),
        }
    }
}

/// Most parts of a step.
const MOST_SHARDS: usize = 4096;

impl TrainConfig {
    /// Parts of a step whose gradients are computed apart.
    pub fn shards(&self) -> usize {
        self.shards.unwrap_or(1)
    }

    /// Checks that so many processes can share a step.
    ///
    /// # Errors
    /// If they cannot have equally many of its parts.
    pub fn check_shared(&self, processes: usize) -> Result<()> {
        let shards = self.shards();
        if shards.is_multiple_of(processes) {
            return Ok(());
        }
        if self.shards.is_none() {
            let problem = format!(
                "the run was begun by one process without --shards, and {processes} would not come to the same weights: go on with \
                 one, or begin a run with --shards"
            );
            return Err(Error::Setting { field: "shards", problem });
        }
        let divide: Vec<String> = (1..=shards).filter(|n| shards.is_multiple_of(*n)).map(|n| n.to_string()).collect();
        let problem = format!(
            "a step in {shards} parts cannot be shared evenly by {processes} processes; start as many as divide it ({}), or begin a \
             run with another number of shards",
            divide.join(", ")
        );
        Err(Error::Setting { field: "shards", problem })
    }

    /// Steps of warm-up where there are `steps` in all.
    pub fn warmup(&self, steps: usize) -> usize {
        self.warmup_steps.unwrap_or((steps / 10).min(150)).min(steps)
    }

    /// Steps between validations where there are `steps` in all.
    pub fn validates_every(&self, steps: usize) -> usize {
        self.validate_every.unwrap_or(steps.div_ceil(10)).max(1)
    }

    /// Optimizer steps that a line of the record tells together where there are `steps` in all.
    pub fn logs_every(&self, steps: usize) -> usize {
        self.log_every.unwrap_or(steps.div_ceil(MOST_LINES)).max(1)
    }

    /// Optimizer steps of a run on `responses` responses that the objective uses.
    pub fn steps(&self, responses: usize) -> usize {
        self.max_steps.unwrap_or(self.epochs * responses.div_ceil(self.batch_size))
    }

    /// The same run, saved and told as `other` says: what may change while it goes on.
    #[must_use]
    pub fn saved_as(self, other: &Self) -> Self {
        let &Self { save_every, keep, on_bad_step, log_every, .. } = other;
        Self { save_every, keep, on_bad_step, log_every, ..self }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// The first setting that is impossible.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [
            ("batch-size", self.batch_size),
            ("epochs", self.epochs),
            ("max-steps", self.max_steps.unwrap_or(1)),
            ("validate-every", self.validate_every.unwrap_or(1)),
            ("micro-batch-tokens", self.micro_batch_tokens),
            ("shards", self.shards()),
            ("keep", self.keep),
            ("log-every", self.log_every.unwrap_or(1)),
            ("patience", self.patience.unwrap_or(1)),
            ("sample-every", self.sample_every.unwrap_or(1)),
        ] {
            if value == 0 {
                return Err(Error::Setting { field, problem: "0 is not a positive number".into() });
            }
        }
        let shards = self.shards();
        if shards > self.batch_size.min(MOST_SHARDS) {
            let most = self.batch_size.min(MOST_SHARDS);
            let problem = format!("a step of {} responses has at most {most} parts, and not {shards}", self.batch_size);
            return Err(Error::Setting { field: "shards", problem });
        }
        self.lora.validate()?;
        self.optimizer.validate()
    }

    /// Checks the ranges, and that an objective with these needs can be trained on this data.
    ///
    /// # Errors
    /// The first setting that is impossible.
    pub fn check(&self, needs: Needs, data: &Split) -> Result<()> {
        self.validate()?;
        let several = data.train.groups.iter().any(|g| g.responses.len() > 1);
        if needs.whole_prompts && several && self.batch_size < 2 {
            let problem =
                "the objective compares the responses of a prompt, and a step of one response has none to compare";
            return Err(Error::Setting { field: "batch-size", problem: problem.into() });
        }
        self.check_measure(&data.validation)
    }

    /// That what is `best` can be told at all on these validation responses.
    fn check_measure(&self, validation: &FeedbackSet) -> Result<()> {
        let refuse = |field, problem: &str| Err(Error::Setting { field, problem: problem.into() });
        let by = self.best_by;
        match (validation.groups.is_empty(), by) {
            (true, _) if self.patience.is_some() => {
                refuse("patience", "there are no held-out prompts to validate on; raise `validation-fraction`")
            }
            (true, BestBy::TauB | BestBy::Mass | BestBy::Reward) => {
                refuse("best-by", "there are no held-out prompts to validate on; raise `validation-fraction`")
            }
            (false, BestBy::TauB) if !validation.groups.iter().any(PromptGroup::ranks) => refuse(
                "best-by",
                "`tau-b` compares the responses of a prompt, and no held-out prompt has two with different rewards; \
                 use `loss`, or `reward` with a judge",
            ),
            _ => Ok(()),
        }
    }
}
