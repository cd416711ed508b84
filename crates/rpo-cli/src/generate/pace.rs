//! How fast answers are made, and how long the rest will take.

use std::time::{Duration, Instant};

use indicatif::HumanDuration;

/// The pace of a run.
pub struct Pace {
    began: Instant,
    /// Answers to be made, those that are not kept among them.
    all: f64,
    /// Answers that are over, of those that are kept, and their tokens.
    over: (usize, usize),
}

impl Pace {
    /// Of a run of so many answers that begins now.
    pub fn new(all: f64) -> Self {
        Self { began: Instant::now(), all, over: (0, 0) }
    }

    /// Counts an answer.
    pub fn over(&mut self, tokens: usize) {
        self.over = (self.over.0 + 1, self.over.1 + tokens);
    }

    fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64().max(1e-9)
    }

    /// Tokens a second, of so many.
    fn rate(&self, tokens: usize) -> f64 {
        tokens as f64 / self.seconds()
    }

    /// What people are told when all is over.
    pub fn summary(&self, answers: usize, tokens: usize) -> String {
        let (seconds, rate) = (self.seconds(), self.rate(tokens));
        let answers = format!("{answers} answer{}", if answers == 1 { "" } else { "s" });
        format!("{answers} with {tokens} tokens in {seconds:.1} s: {rate:.0} tokens/s")
    }

    /// What people are told when so many tokens were made. The rest takes as long as if answers stay as long as those that are over:
    /// many are half made when the first one is.
    pub fn said(&self, tokens: usize) -> String {
        let rate = self.rate(tokens);
        let mut said = format!("answering at {rate:.0} tokens/s");
        if let Some(left) = self.left(tokens) {
            let left = HumanDuration(Duration::from_secs_f64(left / rate));
            said = format!("{said}, {left} left");
        }
        said
    }

    /// Tokens that are left to make when so many were made; unknown until an answer is over.
    fn left(&self, tokens: usize) -> Option<f64> {
        let (answers, of_them) = self.over;
        let each = (answers > 0).then(|| of_them as f64 / answers as f64)?;
        Some((each * self.all - tokens as f64).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_counts_answers_that_are_half_made() {
        let mut pace = Pace::new(10.0);
        assert_eq!(pace.left(30), None);
        pace.over(20);
        pace.over(40);
        // Ten answers of thirty tokens, of which a hundred are made.
        assert_eq!(pace.left(100), Some(200.0));
        assert_eq!(pace.left(1000), Some(0.0));
        assert!(pace.said(100).ends_with(" left"), "{}", pace.said(100));
    }
}
