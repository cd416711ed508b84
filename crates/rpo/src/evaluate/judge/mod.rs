//! Judges: who says which of two responses is better, or how good one is.

use serde::{Deserialize, Serialize};

/// Which of two responses a judge prefers, by the place in which it was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// The one shown first.
    First,
    /// The one shown second.
    Second,
    /// Neither.
    Tie,
    /// The judge did not answer as it was asked to.
    Unparsed,
}

/// Two models' responses to one prompt, judged in both orders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pairwise {
    /// Which prompt, from 0.
    pub prompt: usize,
    /// Which run of the models: responses are paired with those of the same seed.
    pub seed: usize,
    /// The two models, by number, the smaller one first.
    pub models: [usize; 2],
    /// The judge's choice where `models[0]` is shown first.
    pub forward: Choice,
    /// Its choice where `models[1]` is shown first.
    pub backward: Choice,
    /// How long the two responses are, in characters.
    pub lengths: [usize; 2],
}

impl Pairwise {
    /// What `models[0]` has won: 1 if both orders prefer it, 0 if both prefer the other, else 1/2, for a choice that turns with
    /// the order is none; `None` where the judge did not answer both as it was asked to.
    pub fn points(&self) -> Option<f64> {
        match (self.forward, self.backward) {
            (Choice::Unparsed, _) | (_, Choice::Unparsed) => None,
            (Choice::First, Choice::Second) => Some(1.0),
            (Choice::Second, Choice::First) => Some(0.0),
            _ => Some(0.5),
        }
    }
}
