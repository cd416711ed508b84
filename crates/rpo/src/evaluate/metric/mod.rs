//! Automatic metrics: what can be said of responses without asking anybody. One file each.
//!
//! A metric reduces every case to a row of statistics that add up, and the value of any set of cases is a function of their
//! sum: a mean, or, for a metric of whole corpora, more. So means, values of single cases and bootstrap intervals are all the
//! same computation.
//!
//! ```
//! use rpo::evaluate::metric::{Case, Files, text};
//!
//! let case = Case { response: "a cat sat".into(), references: vec!["a cat sat down".into()], ..Case::default() };
//! let found = text("rouge-1", &Files::default())?.measure(&[case])?;
//! assert!((found.of([0]).expect("there is a reference") - 6.0 / 7.0).abs() < 1e-12);
//! # Ok::<(), rpo::Error>(())
//! ```

mod abusive;
mod bleu;
mod chrf;
mod diversity;
mod grams;
mod lcs;
mod length;
mod meteor;
mod named;
mod rouge;
mod tokens;

use rayon::prelude::*;

pub use abusive::AbusiveWords;
pub use bleu::Bleu;
pub use chrf::Chrf;
pub use diversity::{Distinct, SelfRepetition};
pub use length::{Beside, Length, LengthRatio, Unit};
pub use meteor::{Meteor, USUAL_WORDNET, WordNet};
pub use named::{Files, TEXT, text};
pub use rouge::{Overlap, Rouge};
pub use tokens::Tokenization;

mod bertscore;
mod paired;
mod toxicity;

pub use bertscore::{BertScore, BertScoreOptions, Part};
pub use toxicity::{Toxicity, ToxicityPart};

use crate::error::Result;
use crate::statistics::{Interval, bootstrap};

use super::Estimate;

/// A response to a prompt, with the responses that it is compared with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Case {
    /// As the user wrote it.
    pub prompt: String,
    /// What is measured.
    pub response: String,
    /// What it is compared with; none where nothing is known.
    pub references: Vec<String>,
}

/// What a number is: everything that somebody needs to measure the same again.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct About {
    /// Short name, such as `bleu`.
    pub name: String,
    /// Which implementation's values it equals and with which settings, such as `sacrebleu 2.5, effective order off, exp smoothing`.
    pub version: String,
    /// How texts become tokens.
    pub tokenization: String,
    /// What it counts, and its range, such as `0 to 100`.
    pub unit: String,
    /// Whether more is better; `None` where neither is.
    pub higher_is_better: Option<bool>,
}

/// A metric.
pub trait Metric {
    /// What its numbers are.
    fn about(&self) -> About;

    /// Measures all cases.
    ///
    /// # Errors
    /// If it needs what the cases lack, or its model fails.
    fn measure(&self, cases: &[Case]) -> Result<Measured>;
}

/// What a metric found.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The statistics of each case; `None` where the metric says nothing of it, as where there is no reference.
    statistics: Vec<Option<Vec<f64>>>,
    /// The value of a set of cases, of the sum of their statistics; `None` where it is not defined.
    value: fn(&[f64]) -> Option<f64>,
}

impl Measured {
    /// A metric of whole corpora: `value` of the sum of statistics.
    pub fn of_sums(statistics: Vec<Option<Vec<f64>>>, value: fn(&[f64]) -> Option<f64>) -> Self {
        Self { statistics, value }
    }

    /// A metric that is the mean of its values of single cases.
    pub fn of_values(values: impl IntoIterator<Item = Option<f64>>) -> Self {
        let statistics = values.into_iter().map(|value| value.map(|value| vec![value, 1.0])).collect();
        Self { statistics, value: |sum| (sum[1] > 0.0).then(|| sum[0] / sum[1]) }
    }

    /// The value of these cases together.
    pub fn of(&self, cases: impl IntoIterator<Item = usize>) -> Option<f64> {
        let mut sum: Vec<f64> = Vec::new();
        for statistics in cases.into_iter().filter_map(|case| self.statistics[case].as_ref()) {
            sum.resize(statistics.len(), 0.0);
            sum.iter_mut().zip(statistics).for_each(|(sum, x)| *sum += x);
        }
        (!sum.is_empty()).then(|| (self.value)(&sum)).flatten()
    }

    /// The value of each case alone.
    pub fn each(&self) -> Vec<Option<f64>> {
        (0..self.statistics.len()).map(|case| self.of([case])).collect()
    }

    /// The value of all cases with the bootstrap's interval over them; `None` where it is not defined.
    pub fn estimate(&self) -> Option<Estimate> {
        let known: Vec<usize> = (0..self.statistics.len()).filter(|&case| self.statistics[case].is_some()).collect();
        let over = |rows: &[usize]| self.of(rows.iter().map(|&row| known[row]));
        let interval = match known.len() {
            1 => Interval { mean: self.of(known.clone())?, low: f64::NEG_INFINITY, high: f64::INFINITY },
            n => bootstrap(n, 1, over)?,
        };
        Some(Estimate { interval, n: known.len() })
    }
}

/// What `of` says of each, on all threads.
fn each<'a, T: Sync, R: Send>(all: &'a [T], of: impl Fn(&'a T) -> R + Sync + Send) -> Vec<R> {
    all.par_iter().map(of).collect()
}

/// What `scripts/metric_goldens.py` made.
#[cfg(test)]
fn golden() -> serde_json::Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/metrics.json");
    serde_json::from_slice(&std::fs::read(path).expect("golden file")).expect("JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_a_ratio_of_sums_and_what_is_unknown() {
        let mean = Measured::of_values([Some(1.0), None, Some(4.0)]);
        assert_eq!(mean.of(0..3), Some(2.5));
        assert_eq!(mean.each(), [Some(1.0), None, Some(4.0)]);
        let found = mean.estimate().expect("defined");
        assert!(found.n == 2 && found.interval.low <= 2.5 && found.interval.high >= 2.5);
        assert!(Measured::of_values([None]).estimate().is_none());
        // 1 of 2 and 3 of 8: 4 of 10 together, which is not the mean of the two.
        let ratio = Measured::of_sums(vec![Some(vec![1.0, 2.0]), Some(vec![3.0, 8.0])], |sum| Some(sum[0] / sum[1]));
        assert_eq!((ratio.of(0..2), ratio.each()[0]), (Some(0.4), Some(0.5)));
    }
}
