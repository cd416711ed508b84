//! How varied responses are: distinct-n over all of them, and repetition within each.
//!
//! Neither looks at references, and neither says whether a response is good: noise is most diverse.

use super::grams::{Numbered, grams, numbered};
use super::tokens::words;
use super::{About, Case, Measured, Metric, each};
use crate::error::Result;

const WORDS: &str = "words by the boundaries of Unicode's annex 29, lower-cased";

/// distinct-n (Li et al. 2016): different n-grams of all responses, by their n-grams. It falls as responses become more or
/// longer, so only sets of the same prompts compare.
///
/// An n-gram that k responses have counts 1/k for each of them. So the value of all responses is exact; that of a part of them,
/// of one alone, or of a bootstrap's sample is its share in the whole.
#[derive(Clone, Copy, Debug)]
pub struct Distinct {
    /// Words of an n-gram, from 1.
    pub n: usize,
}

/// The share of a response's n-grams that it has had before (seq-rep-n of Welleck et al. 2020, "Neural Text Generation with
/// Unlikelihood Training"): 1 - different n-grams / n-grams. Responses of fewer than n words have none.
#[derive(Clone, Copy, Debug)]
pub struct SelfRepetition {
    /// Words of an n-gram, from 1.
    pub n: usize,
}

impl Metric for Distinct {
    fn about(&self) -> About {
        About {
            name: format!("distinct-{}", self.n),
            version: format!("different {0}-grams by {0}-grams of all responses (after Li et al. 2016)", self.n),
            tokenization: WORDS.into(),
            unit: "0 to 1, of all responses together; 1 where none occurs twice".into(),
            higher_is_better: None,
        }
    }

    fn measure(&self, cases: &[Case]) -> Result<Measured> {
        let texts = each(cases, |case| case.response.to_lowercase());
        let words = each(&texts, |text| words(text).collect::<Vec<_>>());
        let grams = grams(numbered(words), self.n).pop().expect("an order");
        let different = each(&grams.sequences, |sequence| different(sequence));
        let mut responses = vec![0u32; grams.different];
        different.iter().flatten().for_each(|&gram| responses[gram as usize] += 1);
        let share = |grams: &Vec<u32>| grams.iter().map(|&gram| 1.0 / f64::from(responses[gram as usize])).sum();
        let lengths = grams.sequences.iter().map(|sequence| sequence.len() as f64);
        let statistics =
            different.iter().zip(lengths).map(|(different, all)| Some(vec![share(different), all])).collect();
        Ok(Measured::of_sums(statistics, |sum| (sum[1] > 0.0).then(|| sum[0] / sum[1])))
    }
}

impl Metric for SelfRepetition {
    fn about(&self) -> About {
        About {
            name: format!("self-repetition-{}", self.n),
            version: format!(
                "1 - different {0}-grams / {0}-grams of a response (seq-rep-{0} of Welleck et al. 2020)",
                self.n
            ),
            tokenization: WORDS.into(),
            unit: format!("0 to 1, mean over responses of at least {} words", self.n),
            higher_is_better: Some(false),
        }
    }

    fn measure(&self, cases: &[Case]) -> Result<Measured> {
        Ok(Measured::of_values(each(cases, |case| {
            let text = case.response.to_lowercase();
            let Numbered { sequences, different } = grams(numbered([words(&text)]), self.n).pop().expect("an order");
            let all = sequences[0].len();
            (all > 0).then(|| 1.0 - different as f64 / all as f64)
        })))
    }
}

/// The different items of a sequence.
fn different(sequence: &[u32]) -> Vec<u32> {
    let mut items = sequence.to_vec();
    items.sort_unstable();
    items.dedup();
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_counted_by_hand() {
        let case = |response: &str| Case { response: response.into(), ..Case::default() };
        let cases = [case("Go, go on."), case("go on"), case("")];
        // Words: go go on, go on. Two of five are different; `go` and `on` are shared by two responses.
        let words = Distinct { n: 1 }.measure(&cases).expect("measured");
        assert_eq!((words.of(0..3), words.each()), (Some(0.4), vec![Some(1.0 / 3.0), Some(0.5), None]));
        // Pairs: `go go`, `go on`, `go on`.
        let pairs = Distinct { n: 2 }.measure(&cases).expect("measured");
        assert_eq!((pairs.of(0..3), pairs.of([0])), (Some(2.0 / 3.0), Some(0.75)));
        let repeated = SelfRepetition { n: 1 }.measure(&cases).expect("measured").each();
        assert!(
            (repeated[0].expect("words") - 1.0 / 3.0).abs() < 1e-12
                && repeated[1] == Some(0.0)
                && repeated[2].is_none()
        );
        let chinese = SelfRepetition { n: 2 }.measure(&[case("我们我们")]).expect("measured").each();
        assert!((chinese[0].expect("words") - 1.0 / 3.0).abs() < 1e-12, "{chinese:?}");
    }
}
