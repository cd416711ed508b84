//! Log-probabilities of the single tokens of responses under a model, cached as those of whole responses are.

use super::cache::{Cached, ReferenceCache, kept_together};
use super::parts::Parts;
use super::scores::{Scoring, complete, tokens};
use crate::batch::PackedBatch;
use crate::error::Result;
use crate::feedback::Split;
use crate::model::Model;
use crate::score::score_tokens;
use crate::world::World;

/// `log p` of every token of every response of a data set, by the response's row.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenScores {
    /// In nats, responses end to end in the order of their rows.
    log_probs: Vec<f32>,
    /// Where each response begins, and where the last one ends.
    starts: Vec<usize>,
}

impl TokenScores {
    /// Scores all responses of `split`, whose rows have no gaps, in batches of similar length of at most `budget` tokens: taken
    /// from `cache`, which is of `model`, or computed and left there, batch by batch. Without a cache nothing is kept. The ranks of
    /// `world` share the pass, and the first has the cache. `progress` hears how many responses are done, and may end the pass by an
    /// error.
    ///
    /// # Errors
    /// If the device fails, and those of `progress`.
    pub fn cached(
        model: &Model,
        split: &Split,
        budget: usize,
        cache: Option<&ReferenceCache>,
        world: &dyn World,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<(Self, Option<Cached>)> {
        let starts = starts(split);
        let total = starts[starts.len() - 1];
        let places = |batch: &PackedBatch| batch.rows.iter().flat_map(|&row| starts[row]..starts[row + 1]).collect();
        let scoring = Scoring { places: &places, values: &score_tokens };
        let mut complete = |parts: &mut Parts| complete(parts, model, split, budget, world, &scoring, progress);
        let (log_probs, cached) = match cache {
            Some(cache) => {
                let path = cache.path(split, "tokens.safetensors");
                let (log_probs, cached) = kept_together(world, &path, "token_log_probs", total, complete)?;
                (log_probs, Some(cached))
            }
            None => {
                let mut parts = Parts::new(total, 1);
                complete(&mut parts)?;
                (parts.into_values(), None)
            }
        };
        Ok((Self { log_probs, starts }, cached))
    }

    /// Those of the tokens of the response in `row`, in nats.
    pub fn of(&self, row: usize) -> &[f32] {
        &self.log_probs[self.starts[row]..self.starts[row + 1]]
    }
}

/// Where the tokens of each row's response begin, and where the last ones end.
fn starts(split: &Split) -> Vec<usize> {
    let mut starts = vec![0];
    for tokens in tokens(split) {
        starts.push(starts[starts.len() - 1] + tokens);
    }
    starts
}
