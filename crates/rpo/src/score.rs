//! Log-probabilities of responses: the only place that computes them, for policy and reference alike.

use burn::tensor::Tensor;
use rpo_ops::{label_log_probs, segment_sum};
use serde::{Deserialize, Serialize};

use crate::batch::PackedBatch;
use crate::t5::T5;

/// What `ell(y|x)`, the log-probability of a response, is taken to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogProb {
    /// The mean over the response's tokens, as the RPO authors' code has it: long and short responses weigh alike.
    #[default]
    Mean,
    /// The sum over the response's tokens: the log-probability in the strict sense.
    Sum,
}

/// Log-probabilities of the `R` responses of a batch under one model.
#[derive(Clone, Debug)]
pub struct Scores {
    /// `log p(y|x)` summed over tokens, in nats: `(R)`. Tracks gradients if the model does.
    pub log_probs: Tensor<1>,
    /// Tokens of each response.
    pub tokens: Vec<usize>,
    /// Row of each response in the data set.
    pub rows: Vec<usize>,
    /// Reward of each response, in the data's own units.
    pub rewards: Vec<f64>,
}

impl Scores {
    /// `ell(y|x)`: `(R)`.
    pub fn ell(&self, kind: LogProb) -> Tensor<1> {
        match kind {
            LogProb::Sum => self.log_probs.clone(),
            LogProb::Mean => {
                let per_token: Vec<f32> = self.tokens.iter().map(|&n| 1.0 / n as f32).collect();
                self.log_probs.clone() * self.constant(&per_token)
            }
        }
    }

    /// Values that need no gradient, one for each response, beside `log_probs`.
    pub fn constant(&self, values: &[f32]) -> Tensor<1> {
        Tensor::from_floats(values, &self.log_probs.device())
    }
}

/// Log-probability of every token of the packed responses: `(response tokens)`.
pub fn token_log_probs(model: &T5, batch: &PackedBatch) -> Tensor<1> {
    let memory = model.encode(&batch.prompt_ids, &batch.prompts);
    let hidden = model.decode(&batch.input_ids, &batch.responses, &batch.by_prompt, &memory, &batch.prompts);
    label_log_probs(hidden, model.head(), &batch.labels)
}

/// Scores every response of `batch` under `model`.
pub fn score(model: &T5, batch: &PackedBatch) -> Scores {
    Scores {
        log_probs: segment_sum(token_log_probs(model, batch), &batch.responses),
        tokens: batch.responses.lengths().collect(),
        rows: batch.rows.clone(),
        rewards: batch.rewards.clone(),
    }
}
