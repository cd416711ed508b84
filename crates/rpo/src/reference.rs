//! Log-probabilities under the reference model: computed once, kept on disk under a fingerprint of all that decides them.

use std::path::Path;

use burn::tensor::{Device, Tensor};

use crate::batch::PackedBatch;
use crate::error::{Error, Result};
use crate::features::PromptFeatures;
use crate::feedback::{FeedbackSet, Split};
use crate::objective::Needs;
use crate::score::{LogProb, Scores, score_set};
use crate::t5::{NamedParameters, T5};
use crate::tensor_file::{TensorFile, write_values};

/// Raised whenever the same inputs would give other scores than before.
const VERSION: &str = "rpo reference scores 1";

/// `log pi_ref(y|x)` of every response of a data set, or of one part of it, by its row.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceScores {
    /// Sum over tokens, in nats.
    log_probs: Vec<f32>,
    /// No response is empty: 0 stands for rows that were not scored.
    tokens: Vec<usize>,
}

/// The reference scores that an objective asks for, or that show what it does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct References {
    /// Of the responses: of all where the objective needs them, else perhaps of those that validate.
    pub matched: Option<ReferenceScores>,
    /// Of the responses as answers to other prompts ([`Split::mismatched`]).
    pub mismatched: Option<ReferenceScores>,
    /// What its encoder says of the prompts, where most of them have one response.
    pub features: Option<PromptFeatures>,
}

impl References {
    /// What an objective with these needs reads of `model`, the reference, on `split` and its mismatched pairs; of the
    /// responses that validate in any case, to show what becomes of them.
    pub fn compute(model: &T5, needs: Needs, split: &Split, mismatched: Option<&Split>, budget: usize) -> Self {
        let scores = |split: &Split| ReferenceScores::compute(model, split, budget, &mut |_| ());
        let held_out = || Split { validation: split.validation.clone(), ..Split::default() };
        Self {
            matched: match (needs.reference, split.validation.groups.is_empty()) {
                (true, _) => Some(scores(split)),
                (false, false) => Some(scores(&held_out())),
                (false, true) => None,
            },
            mismatched: mismatched.filter(|_| needs.mismatched).map(scores),
            features: (needs.features && split.mostly_single())
                .then(|| PromptFeatures::compute(model, split, budget, &mut |_| ())),
        }
    }
}

impl ReferenceScores {
    /// Scores from known values, `log_probs` being sums over `tokens` tokens each; 0 tokens for a row without score.
    pub fn new(log_probs: Vec<f32>, tokens: Vec<usize>) -> Self {
        Self { log_probs, tokens }
    }

    /// One more than the largest row.
    pub fn len(&self) -> usize {
        self.log_probs.len()
    }

    /// True if there is no response.
    pub fn is_empty(&self) -> bool {
        self.log_probs.is_empty()
    }

    /// `log pi_ref(y|x)`, summed over tokens in nats, of the response in `row`, if that was scored.
    pub fn log_prob(&self, row: usize) -> Option<f64> {
        self.tokens.get(row).filter(|tokens| **tokens > 0).map(|_| f64::from(self.log_probs[row]))
    }

    /// `ell_ref(y|x)` of the response in `row`, which was scored.
    pub fn ell(&self, row: usize, kind: LogProb) -> f64 {
        let sum = f64::from(self.log_probs[row]);
        match kind {
            LogProb::Sum => sum,
            LogProb::Mean => sum / self.tokens[row] as f64,
        }
    }

    /// As the scores of `batch` under the reference.
    pub fn scores(&self, batch: &PackedBatch, device: &Device) -> Scores {
        let log_probs: Vec<f32> = batch.rows.iter().map(|&row| self.log_probs[row]).collect();
        Scores {
            log_probs: Tensor::from_floats(log_probs.as_slice(), device),
            tokens: batch.responses.lengths().collect(),
            rows: batch.rows.clone(),
            prompt_of: batch.prompt_of.clone(),
            values: None,
        }
    }

    /// Scores all responses of `split`, one part of which may be empty, in batches of similar length of at most `budget` tokens. `model` must not track
    /// gradients. `progress` hears how many responses are done.
    pub fn compute(model: &T5, split: &Split, budget: usize, progress: &mut dyn FnMut(usize)) -> Self {
        let mut scores = Self { log_probs: vec![0.0; tokens(split).len()], tokens: tokens(split) };
        let mut done = 0;
        for data in [&split.train, &split.validation] {
            for (row, sum) in score_set(model, data, budget, &mut |n| progress(done + n)) {
                scores.log_probs[row] = sum;
            }
            done += data.responses();
        }
        scores
    }

    /// Takes the scores from `cache`, or computes them and leaves them there. The flag says whether they were cached.
    ///
    /// # Errors
    /// If the cache directory cannot be written.
    pub fn cached(
        model: &T5,
        split: &Split,
        budget: usize,
        cache: &Path,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(Self, bool)> {
        let tokens = tokens(split);
        let path = cache.join(format!("{}.safetensors", fingerprint(model, split)));
        let compute = || Self::compute(model, split, budget, progress).log_probs;
        let (log_probs, cached) = kept(&path, "log_probs", tokens.len(), compute)?;
        Ok((Self { log_probs, tokens }, cached))
    }
}

/// Takes the `n` numbers of tensor `name` from the file at `path`, or computes them and leaves them there. The flag says
/// whether they were there.
pub(crate) fn kept(path: &Path, name: &str, n: usize, compute: impl FnOnce() -> Vec<f32>) -> Result<(Vec<f32>, bool)> {
    if path.exists() {
        let missing = || Error::weights(path, format!("tensor `{name}` is missing"));
        let found = TensorFile::open(path).and_then(|mut file| file.read(name, &[n])?.ok_or_else(missing));
        match found {
            Ok(values) => return Ok((values, true)),
            Err(e) => tracing::warn!("{e}; computing it again"),
        }
    }
    let values = compute();
    let dir = path.parent().unwrap_or(path);
    std::fs::create_dir_all(dir).map_err(|e| Error::write(dir, e))?;
    let partial = path.with_extension("partial");
    write_values(name, &values, &partial)?;
    std::fs::rename(&partial, path).map_err(|e| Error::write(path, e))?;
    Ok((values, false))
}

/// Tokens of each response, by row.
fn tokens(split: &Split) -> Vec<usize> {
    let mut tokens = vec![0; split.rows()];
    split.train.iter().chain(split.validation.iter()).for_each(|r| tokens[r.row] = r.ids.len());
    tokens
}

/// A hash of the weights and configuration, of the token ids (and with them of data, tokenizer and truncation), and of
/// the device and number format that the scores are computed with.
pub(crate) fn fingerprint(model: &T5, split: &Split) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(VERSION.as_bytes());
    hasher.update(format!("{:?}", model.device()).as_bytes());
    hasher.update(model.config().to_json("float32").as_bytes());
    for parameter in model.parameters() {
        hasher.update(format!("{} {:?}", parameter.name, parameter.shape).as_bytes());
        hasher.update_rayon(parameter.values.to_data().as_bytes());
    }
    let mut ids = |ids: &[u32]| {
        hasher.update(&ids.len().to_le_bytes());
        ids.iter().for_each(|id| {
            hasher.update(&id.to_le_bytes());
        });
    };
    let sets: [&FeedbackSet; 2] = [&split.train, &split.validation];
    for group in sets.iter().flat_map(|set| &set.groups) {
        ids(&group.prompt);
        for response in &group.responses {
            ids(&[response.row as u32]);
            ids(&response.ids);
        }
    }
    hasher.finalize().to_hex().to_string()
}
