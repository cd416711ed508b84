//! Which responses make a step: a pure function of data, settings and step, so that a run resumes without stored random
//! state. Knows nothing of models.

use std::ops::Range;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::TrainConfig;
use crate::batch::Span;
use crate::feedback::FeedbackSet;

/// Optimizer steps of a pass over `data`.
pub(super) fn steps_per_epoch(data: &FeedbackSet, config: &TrainConfig) -> usize {
    data.responses().div_ceil(config.batch_size)
}

/// The responses of optimizer step `step`, from 1. With `whole`, prompts are not parted.
pub(super) fn batch(data: &FeedbackSet, config: &TrainConfig, step: usize, whole: bool) -> Vec<Span> {
    let per_epoch = steps_per_epoch(data, config);
    let (epoch, place) = ((step - 1) / per_epoch, (step - 1) % per_epoch);
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    rng.set_stream(epoch as u64);
    let mut order: Vec<usize> = (0..data.groups.len()).collect();
    order.shuffle(&mut rng);
    let size = config.batch_size;
    cut(data, &order, place * size..(place + 1) * size, whole)
}

/// Responses `wanted` of the groups in `order`, laid end to end; if `whole`, all the responses of the groups that end
/// there, of which there is at least one where no group is longer than `wanted`.
fn cut(data: &FeedbackSet, order: &[usize], wanted: Range<usize>, whole: bool) -> Vec<Span> {
    let mut begin = 0;
    let mut spans = Vec::new();
    for &group in order {
        let n = data.groups[group].responses.len();
        let inside = |at: usize| at.clamp(begin, begin + n) - begin;
        let responses = match whole {
            true if wanted.contains(&(begin + n - 1)) => 0..n,
            true => 0..0,
            false => inside(wanted.start)..inside(wanted.end),
        };
        if !responses.is_empty() {
            spans.push(Span { group, responses });
        }
        begin += n;
    }
    spans
}
