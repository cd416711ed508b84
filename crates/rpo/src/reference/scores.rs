//! Log-probabilities of the responses under the reference model.

use burn::tensor::{Device, Tensor};

use super::cache::{Cached, ReferenceCache, kept_together};
use super::parts::Parts;
use crate::batch::{PackedBatch, Span, length_buckets};
use crate::error::Result;
use crate::feedback::Split;
use crate::host::host;
use crate::model::Model;
use crate::score::{LogProb, Scores, score};
use crate::world::{Alone, World};

/// Of the files of scores.
const ENDING: &str = "safetensors";

/// Batches of a rank after which what several ranks computed is put together, and kept.
const ROUND: usize = 8;

/// `log pi_ref(y|x)` of every response of a data set, or of one part of it, by its row.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceScores {
    /// Sum over tokens, in nats.
    log_probs: Vec<f32>,
    /// No response is empty: 0 stands for rows that were not scored.
    tokens: Vec<usize>,
}

impl ReferenceScores {
    /// Zeros for every response of `split`.
    pub(super) fn zeros(split: &Split) -> Self {
        Self { log_probs: vec![0.0; split.rows()], tokens: tokens(split) }
    }

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

    /// Scores all responses of `split`, one part of which may be empty, in batches of similar length of at most `budget` tokens.
    /// `progress` hears how many responses are done, and may end the pass by an error.
    ///
    /// # Errors
    /// If the device fails, and those of `progress`.
    pub fn compute(
        model: &Model,
        split: &Split,
        budget: usize,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        Self::compute_together(model, split, budget, &Alone, progress)
    }

    /// [`Self::compute`] by all ranks of `world`, each of which gets all scores.
    ///
    /// # Errors
    /// Those of [`Self::compute`], of any rank.
    pub fn compute_together(
        model: &Model,
        split: &Split,
        budget: usize,
        world: &dyn World,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        let tokens = tokens(split);
        let mut parts = Parts::new(tokens.len(), 1);
        complete(&mut parts, model, split, budget, world, &SUMS, progress)?;
        Ok(Self { log_probs: parts.into_values(), tokens })
    }

    /// Whether `cache` holds all the scores of `split`, so that they need no pass.
    pub fn are_cached(split: &Split, cache: &ReferenceCache) -> bool {
        cache.path(split, ENDING).exists()
    }

    /// Takes the scores from `cache`, which is of `model`, or computes them and leaves them there: batch by batch, so that a pass
    /// that was ended goes on where it was. The ranks of `world` share the pass, and the first has the cache.
    ///
    /// # Errors
    /// If the device fails, and those of `progress`.
    pub fn cached(
        model: &Model,
        split: &Split,
        budget: usize,
        cache: &ReferenceCache,
        world: &dyn World,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<(Self, Cached)> {
        let tokens = tokens(split);
        let path = cache.path(split, ENDING);
        let complete = |parts: &mut Parts| complete(parts, model, split, budget, world, &SUMS, progress);
        let (log_probs, cached) = kept_together(world, &path, "log_probs", tokens.len(), complete)?;
        Ok((Self { log_probs, tokens }, cached))
    }
}

/// What is computed of each batch: which parts it has, and their values.
pub(super) struct Scoring<'a> {
    pub places: &'a dyn Fn(&PackedBatch) -> Vec<usize>,
    pub values: &'a dyn Fn(&Model, &PackedBatch) -> Tensor<1>,
}

/// Whole responses.
const SUMS: Scoring<'static> =
    Scoring { places: &|batch| batch.rows.clone(), values: &|model, batch| score(model, batch).log_probs };

/// Computes the parts of `split` that are missing, which all ranks of `world` have alike, a round of batches at a time, of which each
/// rank takes every n-th: in the same batches whatever is there already, so that a pass in parts gives the same bits.
pub(super) fn complete(
    parts: &mut Parts,
    model: &Model,
    split: &Split,
    budget: usize,
    world: &dyn World,
    scoring: &Scoring<'_>,
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<()> {
    let model = &model.inference();
    let sets = [&split.train, &split.validation];
    let batches: Vec<(usize, Vec<Span>)> = (0..sets.len())
        .flat_map(|set| length_buckets(sets[set], budget, false).into_iter().map(move |spans| (set, spans)))
        .collect();
    let round = if world.size() == 1 { 1 } else { ROUND * world.size() };
    let mut done = 0;
    for round in batches.chunks(round) {
        let compute = || -> Result<Vec<(Vec<usize>, Vec<f32>)>> {
            let mut own = Vec::new();
            for (set, spans) in round.iter().skip(world.rank()).step_by(world.size()) {
                let batch = PackedBatch::pack(sets[*set], spans, model.start());
                let places = (scoring.places)(&batch);
                if !parts.have(&places) {
                    let values = host((scoring.values)(model, &batch))?;
                    own.push((places, values));
                }
            }
            Ok(own)
        };
        for (places, values) in world.together(compute())?.into_iter().flatten() {
            parts.put(&places, &values);
        }
        done += round.iter().flat_map(|(_, spans)| spans).map(|span| span.responses.len()).sum::<usize>();
        world.agreed(progress(done))?;
    }
    Ok(())
}

/// Tokens of each response, by row.
pub(super) fn tokens(split: &Split) -> Vec<usize> {
    let mut tokens = vec![0; split.rows()];
    split.train.iter().chain(split.validation.iter()).for_each(|r| tokens[r.row] = r.ids.len());
    tokens
}
