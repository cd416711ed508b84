//! What objectives read of the reference model: log-probabilities of the responses, features of the prompts; computed once and
//! kept on disk.

mod cache;
mod features;
pub(crate) mod parts;
mod scores;
mod tokens;

pub use cache::{Cached, ReferenceCache, model_fingerprint};
pub use features::PromptFeatures;
pub use scores::ReferenceScores;
pub use tokens::TokenScores;

use crate::feedback::Split;

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
    /// Zeros in place of scores: with them an objective can say before anything is computed whether it is defined on
    /// `split`, and what a step costs can be measured.
    pub fn zeros(split: &Split) -> Self {
        Self {
            matched: Some(ReferenceScores::zeros(split)),
            mismatched: Some(ReferenceScores::zeros(split)),
            features: None,
        }
    }
}
