//! ROUGE (Lin 2004) as Google's rouge-score 0.1.2 computes it: F-measures of common n-grams or of longest common subsequences.
//! Of several references the best counts.

use std::collections::HashMap;

use super::grams::{Numbered, common, grams, numbered};
use super::lcs::Finder;
use super::meteor::stem;
use super::{About, Case, Measured, Metric, each};
use crate::error::Result;

/// What two texts have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// N-grams of so many tokens.
    Grams(usize),
    /// The longest common subsequence (ROUGE-L).
    Subsequence,
    /// The longest common subsequences of a reference's lines with those of the response (ROUGE-Lsum).
    Lines,
}

/// ROUGE.
#[derive(Clone, Copy, Debug)]
pub struct Rouge {
    /// What counts.
    pub overlap: Overlap,
    /// Whether words of more than three letters are stemmed (`use_stemmer`).
    pub stemmed: bool,
}

impl Metric for Rouge {
    fn about(&self) -> About {
        let (name, lines) = match self.overlap {
            Overlap::Grams(n) => (format!("rouge-{n}"), ""),
            Overlap::Subsequence => ("rouge-l".into(), ""),
            Overlap::Lines => ("rouge-lsum".into(), ", sentences are lines"),
        };
        let (suffix, stems) = if self.stemmed { ("-stemmed", ", stemmed by NLTK's Porter stemmer") } else { ("", "") };
        About {
            name: name + suffix,
            version: format!(
                "rouge-score 0.1.2, use_stemmer={}, F-measure",
                if self.stemmed { "True" } else { "False" }
            ),
            tokenization: format!("runs of a-z and 0-9 of the lower-cased text{stems}{lines}; no other letters"),
            unit: "0 to 1, mean over responses".into(),
            higher_is_better: Some(true),
        }
    }

    fn measure(&self, cases: &[Case]) -> Result<Measured> {
        Ok(Measured::of_values(each(cases, |case| {
            let texts: Vec<Vec<Vec<String>>> =
                std::iter::once(&case.response).chain(&case.references).map(|text| self.tokens(text)).collect();
            let words = numbered(texts.iter().flatten());
            // The lines of each text.
            let mut lines = words.sequences.as_slice();
            let texts: Vec<&[Vec<u32>]> =
                texts.iter().map(|text| lines.split_off(..text.len()).expect("as many")).collect();
            let scores = match self.overlap {
                Overlap::Grams(n) => shared_grams(&texts, words.different, n),
                _ => {
                    texts[1..].iter().map(|reference| self.subsequences(reference, texts[0], words.different)).collect()
                }
            };
            scores.into_iter().reduce(f64::max)
        })))
    }
}

impl Rouge {
    /// The tokens of each line; where lines do not count, all is one.
    fn tokens(self, text: &str) -> Vec<Vec<String>> {
        let text = text.to_lowercase();
        let mut stems = HashMap::new();
        let tokens = |line: &str| {
            let words =
                line.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit()).filter(|word| !word.is_empty());
            let written = words.map(|word| match self.stemmed && word.len() > 3 {
                true => stems.entry(word.to_owned()).or_insert_with(|| stem(word)).clone(),
                false => word.into(),
            });
            written.collect::<Vec<_>>()
        };
        match self.overlap {
            Overlap::Lines => text.split('\n').map(tokens).collect(),
            _ => std::iter::once(text.as_str()).map(tokens).collect(),
        }
    }

    /// The F-measure of the longest common subsequences with a reference.
    fn subsequences(self, reference: &[Vec<u32>], response: &[Vec<u32>], different: usize) -> f64 {
        let common = match self.overlap {
            Overlap::Lines => common_lines(reference, response, different),
            _ => Finder::new(different).length(&reference[0], &response[0]),
        };
        let length = |lines: &[Vec<u32>]| lines.iter().map(Vec::len).sum();
        f_measure(common, length(response), length(reference))
    }
}

/// The F-measure of common n-grams with each reference; each text is one line.
fn shared_grams(texts: &[&[Vec<u32>]], different: usize, n: usize) -> Vec<f64> {
    let sequences = texts.iter().map(|text| text[0].clone()).collect();
    let grams = grams(Numbered { sequences, different }, n).pop().expect("an order");
    let counts = grams.counts();
    let lengths: Vec<usize> = grams.sequences.iter().map(Vec::len).collect();
    let score = |i: usize| f_measure(common(&counts[0], &counts[i]) as usize, lengths[0], lengths[i]);
    (1..texts.len()).map(score).collect()
}

/// For each line of the reference, its tokens that are in a longest common subsequence with any line of the response; none more
/// often than both texts have it.
fn common_lines(reference: &[Vec<u32>], response: &[Vec<u32>], different: usize) -> usize {
    let count = |lines: &[Vec<u32>]| {
        let mut counts = vec![0u32; different];
        lines.iter().flatten().for_each(|&token| counts[token as usize] += 1);
        counts
    };
    let mut left: Vec<u32> = count(reference).into_iter().zip(count(response)).map(|(a, b)| a.min(b)).collect();
    let (mut finder, mut common) = (Finder::new(different), 0);
    for line in reference {
        let mut marked = vec![false; line.len()];
        response.iter().for_each(|other| finder.mark(line, other, &mut marked));
        for (&token, _) in line.iter().zip(marked).filter(|(_, marked)| *marked) {
            if left[token as usize] > 0 {
                left[token as usize] -= 1;
                common += 1;
            }
        }
    }
    common
}

fn f_measure(common: usize, response: usize, reference: usize) -> f64 {
    match common {
        0 => 0.0,
        _ => {
            let (precision, recall) = (common as f64 / response as f64, common as f64 / reference as f64);
            2.0 * precision * recall / (precision + recall)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_counted_by_hand() {
        let references = vec!["Police killed the gunman.".into(), "none".into()];
        let case = Case { response: "the gunman police\nkilled".into(), references, ..Case::default() };
        let of = |overlap| {
            let found = Rouge { overlap, stemmed: false }.measure(std::slice::from_ref(&case)).expect("measured");
            found.of([0]).expect("defined")
        };
        assert_eq!(of(Overlap::Grams(1)), 1.0);
        // `police killed` and `the gunman`, of three pairs.
        assert!((of(Overlap::Grams(2)) - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(of(Overlap::Subsequence), 0.5);
        // The first line gives `the gunman`, the second `killed`.
        assert_eq!(of(Overlap::Lines), 0.75);
        let stemmed = Rouge { overlap: Overlap::Grams(1), stemmed: true };
        assert_eq!(stemmed.tokens("Running runs far, naïve"), [["run", "run", "far", "na", "ve"]]);
        assert_eq!(stemmed.measure(&[Case::default()]).expect("measured").each(), [None]);
    }
}
