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
use crate::world::World;

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
        let tokens = tokens(split);
        let mut parts = Parts::new(tokens.len(), 1);
        Self::complete(&mut parts, model, split, budget, progress)?;
        Ok(Self { log_probs: parts.into_values(), tokens })
    }

    /// Computes what is missing.
    fn complete(
        parts: &mut Parts,
        model: &Model,
        split: &Split,
        budget: usize,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        complete(
            parts,
            model,
            split,
            budget,
            &|batch| batch.rows.clone(),
            &|model, batch| score(model, batch).log_probs,
            progress,
        )
    }

    /// Fills `parts`, which all ranks have alike, a round of batches at a time: each rank scores every `n`-th of them.
    fn complete_together(
        parts: &mut Parts,
        model: &Model,
        split: &Split,
        budget: usize,
        world: &dyn World,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        let model = &model.inference();
        let sets = [&split.train, &split.validation];
        let batches: Vec<(usize, Vec<Span>)> = (0..sets.len())
            .flat_map(|set| length_buckets(sets[set], budget, false).into_iter().map(move |spans| (set, spans)))
            .collect();
        let mut done = 0;
        for round in batches.chunks(ROUND * world.size()) {
            let compute = || -> Result<Vec<(Vec<usize>, Vec<f32>)>> {
                let mut own = Vec::new();
                for (set, spans) in round.iter().skip(world.rank()).step_by(world.size()) {
                    let batch = PackedBatch::pack(sets[*set], spans, model.start());
                    if !parts.have(&batch.rows) {
                        let log_probs = host(score(model, &batch).log_probs)?;
                        own.push((batch.rows, log_probs));
                    }
                }
                Ok(own)
            };
            for (rows, log_probs) in world.together(compute())?.into_iter().flatten() {
                parts.put(&rows, &log_probs);
            }
            done += round.iter().flat_map(|(_, spans)| spans).map(|span| span.responses.len()).sum::<usize>();
            world.agreed(progress(done))?;
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
        world: &dyn World,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<(Self, Cached)> {
        let tokens = tokens(split);
        let path = cache.path(split, ENDING);
        let complete = |parts: &mut Parts| match world.size() {
            1 => Self::complete(parts, model, split, budget, progress),
            _ => Self::complete_together(parts, model, split, budget, world, progress),
        };
        let (log_probs, cached) = kept_together(world, &path, "log_probs", tokens.len(), complete)?;
        Ok((Self { log_probs, tokens }, cached))
    }
}

/// Computes the parts of `split` that are missing, batch by batch: in the same batches whatever is there already, so that a pass in
/// parts gives the same bits. `places` says which parts a batch has, `compute` gives their values.
pub(super) fn complete(
    parts: &mut Parts,
    model: &Model,
    split: &Split,
    budget: usize,
    places: &dyn Fn(&PackedBatch) -> Vec<usize>,
    compute: &dyn Fn(&Model, &PackedBatch) -> Tensor<1>,
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<()> {
    let model = &model.inference();
    let mut done = 0;
    for data in [&split.train, &split.validation] {
        for spans in length_buckets(data, budget, false) {
            let batch = PackedBatch::pack(data, &spans, model.start());
            let places = places(&batch);
            if !parts.have(&places) {
                parts.put(&places, &host(compute(model, &batch))?);
            }
            done += batch.rows.len();
            progress(done)?;
        }
    }
    Ok(())
}

/// Tokens of each response, by row.
pub(super) fn tokens(split: &Split) -> Vec<usize> {
    let mut tokens = vec![0; split.rows()];
    split.train.iter().chain(split.validation.iter()).for_each(|r| tokens[r.row] = r.ids.len());
    tokens
}
