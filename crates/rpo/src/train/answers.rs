//! What the policy itself says to a few prompts, for a judge to rate and for people to read. Token ids only.

use crate::error::Result;
use crate::feedback::{FeedbackSet, Split};
use crate::generate::{Decoding, generate};
use crate::model::Model;
use crate::statistics::mean;
use crate::stop::Stop;

/// Token ids of a prompt and of an answer to it.
pub type Answered = (Vec<u32>, Vec<u32>);

/// Rates answers: a finite reward for each.
pub type Judge<'a> = dyn Fn(&[Answered]) -> Result<Vec<f64>> + 'a;

/// How many prompts a judge gets answers to at each validation, at most.
pub(super) const JUDGED: usize = 64;
/// How many prompts people get answers to.
const SHOWN: usize = 4;

/// At most `wanted` prompts, evenly spread over the data.
pub(super) fn some_prompts(data: &FeedbackSet, wanted: usize) -> FeedbackSet {
    let n = data.groups.len();
    let few = wanted.min(n);
    FeedbackSet { groups: (0..few).map(|i| data.groups[i * n / few].clone()).collect() }
}

/// The prompts whose answers are shown to people: held-out ones, if there are any.
pub fn shown_prompts(data: &Split) -> FeedbackSet {
    some_prompts(if data.validation.groups.is_empty() { &data.train } else { &data.validation }, SHOWN)
}

/// An answer to each prompt, drawn with the published settings. `seed` decides the random numbers, so that answers at
/// different steps differ by the policy alone.
pub(super) fn answers(policy: &Model, prompts: &[Vec<u32>], seed: u64, stop: &Stop) -> Result<Vec<Vec<u32>>> {
    generate(policy, prompts, 0, &Decoding { seed, ..Decoding::published() }, stop)
}

/// Mean of what `judge` gives to the policy's answers.
pub(super) fn reward(
    judge: &Judge<'_>,
    policy: &Model,
    prompts: &[Vec<u32>],
    seed: u64,
    stop: &Stop,
) -> Result<Option<f64>> {
    let pairs: Vec<Answered> = prompts.iter().cloned().zip(answers(policy, prompts, seed, stop)?).collect();
    // A judge that hears the same Ctrl-C ends with an error of its own.
    let rewards = judge(&pairs).or_else(|problem| stop.check().and(Err(problem)))?;
    Ok(mean(&rewards))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feedback::PromptGroup;

    #[test]
    fn prompts_are_spread_over_the_data() {
        let group = |id| PromptGroup { prompt: vec![id], first_row: 0, responses: Vec::new() };
        let data = FeedbackSet { groups: (0..10).map(group).collect() };
        let ids = |wanted| some_prompts(&data, wanted).groups.into_iter().flat_map(|g| g.prompt).collect::<Vec<_>>();
        assert_eq!(ids(4), [0, 2, 5, 7]);
        assert_eq!(ids(20).len(), 10);
        assert!(some_prompts(&FeedbackSet::default(), 4).groups.is_empty());
    }
}
