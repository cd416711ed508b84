//! A response as text, rated or not, and what was noticed while such rows were read.

use serde_json::Value;

use super::layout::reward::Scales;
use crate::chat::Prompt;

/// A response to a prompt with its reward.
#[derive(Clone, Debug, PartialEq)]
pub struct Feedback {
    /// What was asked.
    pub prompt: Prompt,
    /// What was answered.
    pub response: String,
    /// How good that is; more is better.
    pub reward: f64,
}

/// A response to a prompt as it was read, rated or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What was asked.
    pub prompt: Prompt,
    /// What was answered.
    pub response: String,
    /// How good that is, if it was rated.
    pub reward: Option<f64>,
    /// What its record calls itself, else the number of the record from 0; null where nobody asks.
    pub id: Value,
    /// Its place in its record, from 0, if that may hold several responses.
    pub within: Option<usize>,
}

impl From<&Feedback> for Answer {
    fn from(row: &Feedback) -> Self {
        let (prompt, response) = (row.prompt.clone(), row.response.clone());
        Self { prompt, response, reward: Some(row.reward), id: Value::Null, within: None }
    }
}

/// Which responses of a file are read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wanted {
    /// Those that are rated; others are left out and counted.
    Rated,
    /// All, each under what the record's column of this name calls it; by default `id`, where there is one.
    All { id: Option<String> },
}

/// What was noticed while rows were read, for the user to see.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Notes {
    said: Vec<String>,
    /// What to say of one row and of several, each with how many rows it concerns, in the order in which they were met.
    counts: Vec<((&'static str, &'static str), usize)>,
    /// How ratings were read.
    pub(super) scales: Scales,
    /// Whether any row has the reward's column.
    pub(super) rewarded: bool,
}

impl Notes {
    /// Keeps a sentence, once.
    pub(super) fn say(&mut self, sentence: String) {
        if !self.said.contains(&sentence) {
            self.said.push(sentence);
        }
    }

    /// Keeps sentences, each once.
    pub(super) fn say_all(&mut self, sentences: impl IntoIterator<Item = String>) {
        sentences.into_iter().for_each(|sentence| self.say(sentence));
    }

    /// Counts `n` more rows that `what` is said of.
    pub(super) fn count(&mut self, what: (&'static str, &'static str), n: usize) {
        match self.counts.iter_mut().find(|(said, _)| *said == what) {
            Some((_, count)) => *count += n,
            None if n > 0 => self.counts.push((what, n)),
            None => {}
        }
    }

    /// A sentence for each kind of thing that was noticed.
    pub fn lines(&self) -> Vec<String> {
        let counted =
            |((one, several), n): &((&str, &str), usize)| format!("{n} {}", if *n == 1 { one } else { several });
        let counts = self.counts.iter().map(counted);
        self.said.iter().cloned().chain(self.scales.lines()).chain(counts).collect()
    }
}
