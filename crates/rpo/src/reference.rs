//! Log-probabilities under the reference model: computed once, kept on disk under a fingerprint of all that decides them.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};

use crate::batch::{PackedBatch, length_buckets};
use crate::error::{Error, Result};
use crate::features::PromptFeatures;
use crate::feedback::{FeedbackSet, Split};
use crate::host::{bytes, host};
use crate::model::{Model, NamedParameters};
use crate::objective::Needs;
use crate::parts::Parts;
use crate::score::{LogProb, Scores, score};
use crate::store::tensors::{TensorFile, write_values};

/// Raised whenever the same inputs would give other scores than before.
const VERSION: &str = "rpo reference scores 1";
/// Of the files of scores.
const ENDING: &str = "safetensors";

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
    ///
    /// # Errors
    /// If the device fails.
    pub fn compute(
        model: &Model,
        needs: Needs,
        split: &Split,
        mismatched: Option<&Split>,
        budget: usize,
    ) -> Result<Self> {
        let scores = |split: &Split| ReferenceScores::compute(model, split, budget, &mut |_| Ok(()));
        Ok(Self {
            matched: Self::scored(needs, split).map(|split| scores(&split)).transpose()?,
            mismatched: mismatched.filter(|_| needs.mismatched).map(scores).transpose()?,
            features: (needs.features && split.mostly_single())
                .then(|| PromptFeatures::compute(model, split, budget, &mut |_| Ok(())))
                .transpose()?,
        })
    }

    /// The part of `split` whose scores an objective with these needs reads: all of it, or what validates, to show what becomes
    /// of it.
    pub fn scored(needs: Needs, split: &Split) -> Option<Cow<'_, Split>> {
        match (needs.reference, split.validation.groups.is_empty()) {
            (true, _) => Some(Cow::Borrowed(split)),
            (false, false) => Some(Cow::Owned(Split { validation: split.validation.clone(), ..Split::default() })),
            (false, true) => None,
        }
    }

    /// Zeros in place of scores: with them an objective can say before anything is computed whether it is defined on
    /// `split`, and what a step costs can be measured.
    pub fn zeros(split: &Split) -> Self {
        let zeros = || ReferenceScores { log_probs: vec![0.0; split.rows()], tokens: tokens(split) };
        Self { matched: Some(zeros()), mismatched: Some(zeros()), features: None }
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
    /// gradients. `progress` hears how many responses are done, and may end the pass by an error.
    ///
    /// # Errors
    /// If the device fails, and those of `progress`.
    pub fn compute(
        model: &Model,
        split: &Split,
        budget: usize,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        let tokens = tokens(split);
        let mut parts = Parts::new(tokens.len(), 1);
        Self::complete(&mut parts, model, split, budget, progress)?;
        Ok(Self { log_probs: parts.into_values(), tokens })
    }

    /// Computes what is missing: in the same batches whatever is there already, so that a pass in parts gives the same bits.
    fn complete(
        parts: &mut Parts,
        model: &Model,
        split: &Split,
        budget: usize,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        let mut done = 0;
        for data in [&split.train, &split.validation] {
            for spans in length_buckets(data, budget, false) {
                let batch = PackedBatch::pack(data, &spans, model.start());
                if !parts.have(&batch.rows) {
                    parts.put(&batch.rows, &host(score(model, &batch).log_probs)?);
                }
                done += batch.rows.len();
                progress(done)?;
            }
        }
        Ok(())
    }

    /// Whether `cache` holds all the scores of `split`, so that they need no pass.
    pub fn are_cached(split: &Split, cache: &ReferenceCache) -> bool {
        cache.path(split, ENDING).exists()
    }

    /// Takes the scores from `cache`, which is of `model`, or computes them and leaves them there: batch by batch, so that a pass
    /// that was ended goes on where it was.
    ///
    /// # Errors
    /// If the device fails, and those of `progress`.
    pub fn cached(
        model: &Model,
        split: &Split,
        budget: usize,
        cache: &ReferenceCache,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<(Self, Cached)> {
        let tokens = tokens(split);
        let path = cache.path(split, ENDING);
        let complete = |parts: &mut Parts| Self::complete(parts, model, split, budget, progress);
        let (log_probs, cached) = kept(&path, "log_probs", tokens.len(), 1, complete)?;
        Ok((Self { log_probs, tokens }, cached))
    }
}

/// Where what is computed under one reference is kept between runs. The weights are hashed once for all that is asked of it.
#[derive(Clone, Debug)]
pub struct ReferenceCache {
    dir: PathBuf,
    /// What the names of all files have in common has gone into it.
    of_model: blake3::Hasher,
}

impl ReferenceCache {
    /// The cache in `dir` of what is computed under `model`. A name there is a hash of the weights and configuration, of the
    /// token ids (and with them of data, tokenizer and truncation), and of the device and number format of the computation.
    ///
    /// # Errors
    /// If the device fails.
    pub fn new(dir: &Path, model: &Model) -> Result<Self> {
        let mut of_model = blake3::Hasher::new();
        of_model.update(VERSION.as_bytes());
        of_model.update(format!("{:?}", model.device()).as_bytes());
        update_with_model(&mut of_model, model)?;
        Ok(Self { dir: dir.into(), of_model })
    }

    /// The file of what is computed on `split`.
    pub(crate) fn path(&self, split: &Split, ending: &str) -> PathBuf {
        let mut hasher = self.of_model.clone();
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
        self.dir.join(format!("{}.{ending}", hasher.finalize().to_hex()))
    }
}

/// Where results come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    /// They were in the cache.
    Found,
    /// They were computed and left there.
    Left,
    /// They were computed, and the cache could not be written, which was told.
    Failed,
}

/// Takes the `n` rows of `width` numbers of tensor `name` from the file at `path`, or lets `complete` compute what is missing
/// and leaves them there.
pub(crate) fn kept(
    path: &Path,
    name: &str,
    n: usize,
    width: usize,
    complete: impl FnOnce(&mut Parts) -> Result<()>,
) -> Result<(Vec<f32>, Cached)> {
    if path.exists() {
        let missing = || Error::file(path, format!("tensor `{name}` is missing"));
        let found = TensorFile::open(path).and_then(|mut file| file.read(name, &[n * width])?.ok_or_else(missing));
        match found {
            Ok(values) => return Ok((values, Cached::Found)),
            Err(e) => tracing::warn!("{e}; computing it again"),
        }
    }
    let dir = path.parent().unwrap_or(path);
    let log = path.with_extension("parts");
    let opened =
        std::fs::create_dir_all(dir).map_err(|e| Error::write(dir, e)).and_then(|()| Parts::kept_in(&log, n, width));
    let mut parts = opened.unwrap_or_else(|problem| {
        tracing::warn!("{problem}; what is computed is not kept for other runs");
        Parts::new(n, width)
    });
    let writable = parts.is_kept();
    complete(&mut parts)?;
    let values = parts.into_values();
    if !writable {
        return Ok((values, Cached::Failed));
    }
    let partial = path.with_extension("partial");
    let written = write_values(name, &values, &partial)
        .and_then(|()| std::fs::rename(&partial, path).map_err(|e| Error::write(path, e)));
    if let Err(problem) = written {
        tracing::warn!("{problem}; what was computed is not kept for other runs");
        let _ = std::fs::remove_file(&partial);
        return Ok((values, Cached::Failed));
    }
    // Another program that computes the same may have removed it.
    let _ = std::fs::remove_file(&log);
    Ok((values, Cached::Left))
}

/// Tokens of each response, by row.
fn tokens(split: &Split) -> Vec<usize> {
    let mut tokens = vec![0; split.rows()];
    split.train.iter().chain(split.validation.iter()).for_each(|r| tokens[r.row] = r.ids.len());
    tokens
}

/// A hash of a model's weights and configuration, in hexadecimal: the same on every device.
///
/// # Errors
/// If the device fails.
pub fn model_fingerprint(model: &Model) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    update_with_model(&mut hasher, model)?;
    Ok(hasher.finalize().to_hex().to_string())
}

fn update_with_model(hasher: &mut blake3::Hasher, model: &Model) -> Result<()> {
    hasher.update(model.config().to_json("float32").as_bytes());
    for parameter in model.parameters() {
        hasher.update(format!("{} {:?}", parameter.name, parameter.shape).as_bytes());
        hasher.update_rayon(&bytes(parameter.values)?);
    }
    Ok(())
}
