//! What a hearing came to so far.

use std::time::Duration;

use super::Usage;

/// Counts of questions, calls and tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Questions with a reply, those that were there already among them.
    pub replies: usize,
    /// Questions whose reply was there already, or came for an equal question.
    pub reused: usize,
    /// Pairs of equal responses, which are ties without a question.
    pub identical: usize,
    /// Replies that are not what was asked for.
    pub unparsed: usize,
    /// Questions that got no reply.
    pub failed: usize,
    /// What was wrong with the last of them.
    pub last_failure: Option<String>,
    /// Questions that were not asked because no more calls were allowed.
    pub unasked: usize,
    /// Calls made, those that were tried again among them.
    pub calls: u64,
    /// Calls that failed and were tried again.
    pub retries: u64,
    /// Tokens of the replies that came in this hearing.
    pub usage: Usage,
    /// Replies among them that did not tell their tokens.
    pub untold: usize,
    /// Parameters that the judge does without.
    pub without: Vec<&'static str>,
    /// How long the judge still wants to be left alone, and what it said.
    pub waiting: Option<(Duration, String)>,
}

impl Tally {
    /// Questions that are done with.
    pub fn done(&self) -> usize {
        self.replies + self.failed + self.unasked
    }

    /// What the tokens cost, at prices of a million each.
    pub fn cost(&self, input: f64, output: f64) -> f64 {
        (self.usage.input as f64 * input + self.usage.output as f64 * output) / 1e6
    }
}
