//! Small problems for the objectives' tests.

use burn::tensor::{Device, Tensor};

use crate::feedback::{FeedbackSet, PromptGroup, Response, Split};
use crate::reference::{ReferenceScores, References};
use crate::score::Scores;

/// Prompts with responses of two tokens each, given as (sum of reference log-probabilities, reward).
pub(super) fn problem(groups: &[&[(f32, f64)]]) -> (Split, References) {
    let mut row = 0;
    let mut response = |reward: f64| {
        row += 1;
        Response { row: row - 1, ids: vec![row as u32 + 1, 1], truncated: false, reward, copies: 1 }
    };
    let train = FeedbackSet {
        groups: groups
            .iter()
            .map(|rows| PromptGroup {
                prompt: vec![2, 1],
                first_row: 0,
                responses: rows.iter().map(|(_, reward)| response(*reward)).collect(),
            })
            .collect(),
    };
    let log_probs: Vec<f32> = groups.iter().flat_map(|g| g.iter().map(|(l, _)| *l)).collect();
    let tokens = vec![2; log_probs.len()];
    let references =
        References { matched: Some(ReferenceScores::new(log_probs, tokens)), mismatched: None, features: None };
    (Split { train, validation: FeedbackSet::default() }, references)
}

/// What a policy says of responses of two tokens each to one prompt.
pub(super) fn scores(log_probs: &[f32], rows: &[usize]) -> Scores {
    scores_of(log_probs, rows, &vec![0; rows.len()])
}

/// The same for responses to several prompts.
pub(super) fn scores_of(log_probs: &[f32], rows: &[usize], prompt_of: &[usize]) -> Scores {
    Scores {
        log_probs: Tensor::from_floats(log_probs, &Device::flex()),
        tokens: vec![2; rows.len()],
        rows: rows.to_vec(),
        prompt_of: prompt_of.to_vec(),
        values: None,
    }
}
