//! chrF and chrF++ (Popović 2015, 2017) as sacrebleu 2.5.1 computes them: F-scores that weigh recall twice, of n-grams of
//! characters, up to six, and for chrF++ of words, up to two.
//!
//! ```text
//! chrF = 100 (1 + 2^2) P R / (2^2 P + R)
//! ```
//!
//! `P` and `R` are means over the orders that both sides have. Of several references the best counts.

use super::grams::{Numbered, common, grams, numbered};
use super::tokens::split;
use super::{About, Case, Measured, Metric, each};
use crate::error::Result;

/// chrF.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chrf {
    /// Whether pairs of words and words count beside characters: chrF++.
    pub words: bool,
}

impl Metric for Chrf {
    fn about(&self) -> About {
        let (name, words) = if self.words { ("chrf++", 2) } else { ("chrf", 0) };
        let tokenization = match self.words {
            true => {
                "characters but whitespace; words between whitespace, with a mark at their end or else at their beginning apart"
            }
            false => "characters but whitespace",
        };
        About {
            name: name.into(),
            version: format!("sacrebleu 2.5.1, case:mixed|eff:yes|nc:6|nw:{words}|space:no"),
            tokenization: tokenization.into(),
            unit: "0 to 100, of all responses together".into(),
            higher_is_better: Some(true),
        }
    }

    fn measure(&self, cases: &[Case]) -> Result<Measured> {
        let statistics = each(cases, |case| {
            // The first of the best.
            let all = statistics(case, self.words).into_iter();
            all.reduce(|best, next| if score(&next) > score(&best) { next } else { best })
        });
        Ok(Measured::of_sums(statistics, |sum| Some(score(sum))))
    }
}

/// By reference: n-grams of the response, of the reference and common ones, for each order.
fn statistics(case: &Case, words: bool) -> Vec<Vec<f64>> {
    let texts = || std::iter::once(&case.response).chain(&case.references).map(String::as_str);
    let characters = texts().map(|text| split(text).flat_map(str::chars));
    let mut orders = grams(numbered(characters), 6);
    if words {
        orders.extend(grams(numbered(texts().map(|text| split(text).flat_map(marks_apart))), 2));
    }
    let mut all = vec![Vec::new(); case.references.len()];
    for grams in orders {
        let counts = grams.counts();
        let Numbered { sequences, .. } = grams;
        for (reference, statistics) in all.iter_mut().enumerate() {
            let [ours, theirs] = [0, reference + 1].map(|text| sequences[text].len() as f64);
            let common = common(&counts[0], &counts[reference + 1]);
            statistics.extend([if theirs > 0.0 { ours } else { 0.0 }, theirs, f64::from(common)]);
        }
    }
    all
}

/// A word with the mark at its end apart, or else the one at its beginning.
fn marks_apart(word: &str) -> impl Iterator<Item = &str> {
    let (first, last) = (word.chars().next(), word.chars().next_back());
    let mark = |c: Option<char>| c.is_some_and(|c| c.is_ascii_punctuation());
    let at = match word.len() > first.map_or(0, char::len_utf8) {
        true if mark(last) => word.len() - 1,
        true if mark(first) => 1,
        _ => 0,
    };
    let (begin, end) = word.split_at(at);
    [begin, end].into_iter().filter(|part| !part.is_empty())
}

fn score(statistics: &[f64]) -> f64 {
    let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0);
    for order in statistics.chunks_exact(3).filter(|order| order[0] > 0.0 && order[1] > 0.0) {
        precision += order[2] / order[0];
        recall += order[2] / order[1];
        orders += 1.0;
    }
    if precision + recall == 0.0 {
        return 0.0;
    }
    let [precision, recall] = [precision / orders, recall / orders];
    100.0 * 5.0 * precision * recall / (4.0 * precision + recall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_their_marks() {
        let apart = |word| marks_apart(word).collect::<Vec<_>>();
        assert_eq!(apart("(hi)"), ["(hi", ")"]);
        assert_eq!(apart("(hi"), ["(", "hi"]);
        assert_eq!(
            (apart("."), apart("ü"), apart("ü."), apart("..")),
            (vec!["."], vec!["ü"], vec!["ü", "."], vec![".", "."])
        );
    }

    #[test]
    fn a_pair_worked_by_hand() {
        let case = Case { response: "ab".into(), references: vec!["abc".into(), "x".into()], ..Case::default() };
        // Characters: 2 of 2 and of 3; pairs: 1 of 1 and of 2. The response has no triples.
        let found = Chrf::default().measure(&[case]).expect("measured").of([0]).expect("defined");
        let (p, r) = (1.0, f64::midpoint(2.0 / 3.0, 0.5));
        assert!((found - 500.0 * p * r / (4.0 * p + r)).abs() < 1e-9, "{found}");
    }
}
