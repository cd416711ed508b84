//! What a set of judgements says: of the models, and of the judge.
//!
//! Prompts are what is sampled: several seeds of a prompt are averaged within it, and every interval resamples prompts.
//!
//! ```
//! use rpo::evaluate::judge::{Choice, Pairwise};
//! use rpo::evaluate::preference::{Verdict, judged};
//!
//! // A judge that answers "the first one", whatever it is shown.
//! let always_first = |prompt| Pairwise {
//!     prompt,
//!     seed: 0,
//!     models: [0, 1],
//!     forward: Choice::First,
//!     backward: Choice::First,
//!     lengths: [120, 80],
//! };
//! let found = judged(&(0..29).map(always_first).collect::<Vec<_>>(), 2, 1);
//! assert_eq!(found.pairs[0].rate.interval.mean, 0.5);
//! assert_eq!(found.verdict, Verdict::PositionOnly);
//! ```

mod agreement;
mod diagnostics;
mod lengths;
mod pairs;
mod strengths;

pub use agreement::{Agreement, Agreements, agreements};
pub use diagnostics::{Diagnostics, Verdict, diagnostics};
pub use lengths::{LengthControlled, length_controlled};
pub use pairs::{Pair, pairs};
pub use strengths::{Strength, Strengths, strengths};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::judge::Pairwise;

/// What one judge's judgements say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// How the judge answered.
    pub diagnostics: Diagnostics,
    /// Whether its answers tell responses apart. Where they do not, the rates and strengths here are those of its habits, and
    /// whoever shows them strikes them out.
    pub verdict: Verdict,
    /// Every two models that met, in their order.
    pub pairs: Vec<Pair>,
    /// One number for each model.
    pub strengths: Strengths,
}

/// Everything that judgements of `models` models by one judge say; resampling starts from `seed`.
pub fn judged(judgements: &[Pairwise], models: usize, seed: u64) -> Judged {
    let diagnostics = diagnostics(judgements);
    Judged {
        verdict: diagnostics.verdict(),
        diagnostics,
        pairs: pairs(judgements, seed),
        strengths: strengths(judgements, models, seed),
    }
}

/// The judgements of each two models that met.
fn by_pair(judgements: &[Pairwise]) -> BTreeMap<[usize; 2], Vec<&Pairwise>> {
    let mut pairs: BTreeMap<_, Vec<_>> = BTreeMap::new();
    judgements.iter().for_each(|judgement| pairs.entry(judgement.models).or_default().push(judgement));
    pairs
}

/// For each prompt, what `of` says of its judgements, where it says something.
fn by_prompt<'a, T>(
    judgements: impl IntoIterator<Item = &'a Pairwise>,
    of: impl Fn(&Pairwise) -> Option<T>,
) -> BTreeMap<usize, Vec<T>> {
    let mut prompts: BTreeMap<usize, Vec<T>> = BTreeMap::new();
    for judgement in judgements {
        if let Some(value) = of(judgement) {
            prompts.entry(judgement.prompt).or_default().push(value);
        }
    }
    prompts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::judge::Choice;

    /// A judgement of models 0 and 1 from what the judge said in both orders.
    pub(super) fn said(prompt: usize, seed: usize, forward: Choice, backward: Choice) -> Pairwise {
        Pairwise { prompt, seed, models: [0, 1], forward, backward, lengths: [120, 100] }
    }

    /// A judgement that both orders agree on: 1, 0 or 1/2 points for the first model.
    pub(super) fn point(prompt: usize, seed: usize, models: [usize; 2], points: f64) -> Pairwise {
        let (forward, backward) = match points {
            1.0 => (Choice::First, Choice::Second),
            0.0 => (Choice::Second, Choice::First),
            _ => (Choice::Tie, Choice::Tie),
        };
        Pairwise { models, ..said(prompt, seed, forward, backward) }
    }

    #[test]
    fn what_is_found_survives_json_and_nothing_judged_is_no_fault() {
        let judgements: Vec<Pairwise> = (0..30).map(|i| point(i, 0, [0, 1], f64::from(u8::from(i % 3 > 0)))).collect();
        let found = judged(&judgements, 3, 1);
        let text = serde_json::to_string(&found).expect("plain");
        assert_eq!(serde_json::from_str::<Judged>(&text).expect("read"), found);
        let nothing = judged(&[], 2, 1);
        assert!(nothing.pairs.is_empty() && nothing.verdict == Verdict::TooFew);
    }
}
