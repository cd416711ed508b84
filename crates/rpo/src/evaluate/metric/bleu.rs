//! BLEU (Papineni et al. 2002) as sacrebleu 2.5.1 computes it: of the whole corpus, with its default settings.
//!
//! ```text
//! BLEU = 100 min(1, exp(1 - r/c)) exp(mean over n = 1..4 of log p_n)
//! p_n  = matched n-grams / n-grams of the responses
//! ```
//!
//! `c` and `r` are the tokens of the responses and of the references nearest in length. An n-gram matches as often as in the
//! reference that has it most often. Where none of an order matches, the k-th such order counts as 1 / 2^k of a match.

use super::grams::{common, grams, numbered};
use super::tokens::{Tokenization, split};
use super::{About, Case, Measured, Metric, each};
use crate::error::Result;

/// BLEU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bleu {
    /// How responses and references are tokenized.
    pub tokenization: Tokenization,
}

impl Metric for Bleu {
    fn about(&self) -> About {
        let tokenization = self.tokenization.name();
        About {
            name: match self.tokenization {
                Tokenization::V13a => "bleu".into(),
                _ => format!("bleu-{tokenization}"),
            },
            version: format!("sacrebleu 2.5.1, case:mixed|eff:no|tok:{tokenization}|smooth:exp"),
            tokenization: format!("{tokenization} of sacrebleu"),
            unit: "0 to 100, of all responses together".into(),
            higher_is_better: Some(true),
        }
    }

    fn measure(&self, cases: &[Case]) -> Result<Measured> {
        let statistics = each(cases, |case| (!case.references.is_empty()).then(|| statistics(case, self.tokenization)));
        Ok(Measured::of_sums(statistics, |sum| Some(value(sum))))
    }
}

/// Tokens of the response and of the reference, matched n-grams by order, n-grams by order.
fn statistics(case: &Case, tokenization: Tokenization) -> Vec<f64> {
    let texts = std::iter::once(&case.response).chain(&case.references);
    let lines: Vec<_> = texts.map(|text| tokenization.line(text)).collect();
    let tokens = numbered(lines.iter().map(|line| split(line)));
    let lengths: Vec<usize> = tokens.sequences.iter().map(Vec::len).collect();
    let nearest = lengths[1..].iter().min_by_key(|&&n| (n.abs_diff(lengths[0]), n)).expect("a reference");
    let (mut matched, mut total) = (Vec::new(), Vec::new());
    for grams in grams(tokens, 4) {
        let counts = grams.counts();
        let most: Vec<u32> =
            (0..grams.different).map(|gram| counts[1..].iter().map(|c| c[gram]).max().expect("a reference")).collect();
        matched.push(f64::from(common(&counts[0], &most)));
        total.push(grams.sequences[0].len() as f64);
    }
    [vec![lengths[0] as f64, *nearest as f64], matched, total].concat()
}

fn value(sum: &[f64]) -> f64 {
    let (&[response, reference], counts) = sum.split_first_chunk().expect("two lengths");
    let (matched, total) = counts.split_at(4);
    // sacrebleu calls what has no n-grams of an order 0 too: it takes the logarithm for -10^10.
    if matched.iter().all(|&n| n == 0.0) || total.contains(&0.0) {
        return 0.0;
    }
    let mut unmatched = 1.0;
    let logs = matched.iter().zip(total).map(|(&matched, total)| match matched > 0.0 {
        true => (100.0 * matched / total).ln(),
        false => {
            unmatched *= 2.0;
            (100.0 / (unmatched * total)).ln()
        }
    });
    let mean = logs.sum::<f64>() / 4.0;
    (1.0 - reference / response).min(0.0).exp() * mean.exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_worked_by_hand() {
        let case = Case {
            response: "the cat sat on a mat".into(),
            references: vec!["the cat sat on the mat".into(), "a cat sat".into()],
            ..Case::default()
        };
        // All 6 words, of 5 pairs `the cat`, `cat sat`, `sat on`; of 4 triples two, of 3 quadruples one.
        let found = Bleu::default().measure(&[case]).expect("measured").of([0]).expect("defined");
        let by_hand = 100.0 * (1.0f64 * (3.0 / 5.0) * (2.0 / 4.0) * (1.0 / 3.0)).powf(0.25);
        assert!((found - by_hand).abs() < 1e-9, "{found} is not {by_hand}");
    }
}
