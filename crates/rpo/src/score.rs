//! Log-probabilities of responses: the only place that computes them, for policy and reference alike.

use burn::module::Module;
use burn::tensor::Tensor;
use rpo_ops::{label_log_probs, segment_sum};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::{PackedBatch, Span, length_buckets};
use crate::error::Result;
use crate::feedback::FeedbackSet;
use crate::host::host;
use crate::model::{Model, States, ValueNetwork};

/// What `ell(y|x)`, the log-probability of a response, is taken to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// Which prompt of the batch each response answers; those of one prompt lie together.
    pub prompt_of: Vec<usize>,
    /// `V(x)` of each response's prompt where a value network is trained: `(R)`.
    pub values: Option<Tensor<1>>,
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

    /// The log-probabilities as plain numbers, each with its row.
    ///
    /// # Errors
    /// If the device fails.
    pub fn seen(&self) -> Result<Vec<Seen>> {
        let sums = host(self.log_probs.clone())?;
        Ok(self.rows.iter().zip(sums).map(|(&row, log_prob)| Seen { row, log_prob }).collect())
    }

    /// Values that need no gradient, one for each response, beside `log_probs`.
    pub fn constant(&self, values: &[f32]) -> Tensor<1> {
        Tensor::from_floats(values, &self.log_probs.device())
    }
}

/// What the policy said of a response during a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Row of the response.
    pub row: usize,
    /// `log p(y|x)`, summed over tokens, in nats.
    pub log_prob: f32,
}

/// What is trained: the policy, and beside it a value network where the objective learns one.
#[derive(Module, Debug)]
pub struct Learner {
    /// The model that answers.
    pub policy: Model,
    /// `V(x)`, for DRO.
    pub value: Option<ValueNetwork>,
}

/// Scores every response of `batch` under `model`.
pub fn score(model: &Model, batch: &PackedBatch) -> Scores {
    score_with(model, None, batch)
}

/// `log p` of every token of the responses of `batch` given what is before it, in nats: `(response tokens)`.
pub fn score_tokens(model: &Model, batch: &PackedBatch) -> Tensor<1> {
    label_log_probs(model.forward(batch).responses, model.head(), &batch.labels, true, model.compute())
}

impl Learner {
    /// Scores every response of `batch` under the policy, and the prompts' values if there is a value network.
    pub fn score(&self, batch: &PackedBatch) -> Scores {
        score_with(&self.policy, self.value.as_ref(), batch)
    }
}

fn score_with(model: &Model, value: Option<&ValueNetwork>, batch: &PackedBatch) -> Scores {
    let States { prompts, responses } = model.forward(batch);
    let states = value.map(|v| v.states(&prompts, batch));
    score_decoded(model, value, responses, states, batch, true)
}

/// The last part of scoring: `hidden` is what the head multiplies, `states` what the value network reads; for `keep_logits`
/// see [`label_log_probs`].
pub(crate) fn score_decoded(
    model: &Model,
    value: Option<&ValueNetwork>,
    hidden: Tensor<2>,
    states: Option<Tensor<2>>,
    batch: &PackedBatch,
    keep_logits: bool,
) -> Scores {
    let tokens = label_log_probs(hidden, model.head(), &batch.labels, keep_logits, model.compute());
    Scores {
        log_probs: segment_sum(tokens, &batch.responses),
        tokens: batch.responses.lengths().collect(),
        rows: batch.rows.clone(),
        prompt_of: batch.prompt_of.clone(),
        values: value.zip(states).map(|(value, states)| value.forward(states, batch)),
    }
}

/// `log p(y|x)`, summed over tokens in nats, of every response of `data` with its row: in batches of similar length of at
/// most `budget` tokens. `progress` hears how many responses are done, and may end the pass
/// by an error.
///
/// # Errors
/// If the device fails, and those of `progress`.
pub fn score_set(
    model: &Model,
    data: &FeedbackSet,
    budget: usize,
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<(usize, f32)>> {
    score_batches(model, data, &length_buckets(data, budget, false), progress)
}

/// [`score_set`] of the responses in `batches`.
pub(crate) fn score_batches(
    model: &Model,
    data: &FeedbackSet,
    batches: &[Vec<Span>],
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<(usize, f32)>> {
    let model = &model.inference();
    let mut scores = Vec::new();
    for spans in batches {
        let scored = score(model, &PackedBatch::pack(data, spans, model.start()));
        scores.extend(scored.rows.into_iter().zip(host(scored.log_probs)?));
        progress(scores.len())?;
    }
    Ok(scores)
}
