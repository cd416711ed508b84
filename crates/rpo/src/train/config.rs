//! Settings of the loop: plain data with its defaults, and what makes them impossible.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::feedback::Split;
use crate::objective::Needs;
use crate::optim::OptimizerConfig;

/// Settings of the loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct TrainConfig {
    /// Passes over the training responses.
    pub epochs: usize,
    /// Stop after this many optimizer steps instead.
    pub max_steps: Option<usize>,
    /// Responses of an optimizer step.
    pub batch_size: usize,
    /// Tokens, prompts included, of a micro-batch: bounds memory, changes nothing else.
    pub micro_batch_tokens: usize,
    /// Keep only what enters each block for the gradients and compute the rest again: less memory, a third more time.
    pub recompute: bool,
    /// Steps of linear warm-up; by default 150, but at most a tenth of all steps.
    pub warmup_steps: Option<usize>,
    /// Optimizer steps between validations, each of which also saves; by default a tenth of all steps.
    pub validate_every: Option<usize>,
    /// Decides the order of the data.
    pub seed: u64,
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
            recompute: false,
            warmup_steps: None,
            validate_every: None,
            seed: 42,
            optimizer: OptimizerConfig::default(),
        }
    }
}

impl TrainConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first setting that is impossible.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in
            [("batch-size", self.batch_size), ("epochs", self.epochs), ("micro-batch-tokens", self.micro_batch_tokens)]
        {
            if value == 0 {
                return Err(Error::Setting { field, problem: "0 is not a positive number".into() });
            }
        }
        self.optimizer.validate()
    }

    /// Checks the ranges, and that an objective with these needs can be trained on this data.
    ///
    /// # Errors
    /// The first setting that is impossible.
    pub fn check(&self, needs: Needs, data: &Split) -> Result<()> {
        self.validate()?;
        let largest = data.train.groups.iter().map(|g| g.responses.len()).max().unwrap_or(0);
        if needs.whole_prompts && largest > self.batch_size {
            let problem = format!(
                "the objective compares all the responses of a prompt; one prompt has {largest}, a step only {}",
                self.batch_size
            );
            return Err(Error::Setting { field: "batch-size", problem });
        }
        Ok(())
    }
}
