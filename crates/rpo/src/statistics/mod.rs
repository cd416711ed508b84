//! What measured numbers are worth: intervals, rank correlations, tests, agreement, strengths. Plain numbers in and out.

mod agreement;
mod intervals;
mod logistic;
mod power;
mod ranks;
mod significance;
mod strengths;

pub use agreement::{Scale, cohen_kappa, krippendorff_alpha};
pub use intervals::{
    RESAMPLES, bootstrap, geometric_interval, mean_interval, percentile_interval, resamples, share_interval, win_rate,
};
pub use logistic::{Example, cross_validated_penalty, fit_logistic, sigmoid};
pub use power::{prompts_needed, smallest_rate};
pub use ranks::{kendall_tau_b, spearman};
pub use significance::{
    Difference, benjamini_hochberg, holm, paired_difference, pairing_test, permutation_test, sign_test,
};
pub use strengths::{Fit, bradley_terry};

use serde::{Deserialize, Deserializer, Serialize};

/// An estimate with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The estimate.
    pub mean: f64,
    /// Lower end; minus infinity, `null` in JSON, where nothing is known.
    #[serde(deserialize_with = "low")]
    pub low: f64,
    /// Upper end; infinity, `null` in JSON, where nothing is known.
    #[serde(deserialize_with = "high")]
    pub high: f64,
}

fn low<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NEG_INFINITY))
}

fn high<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

/// `ln sum exp` without overflow; negative infinity for no terms.
pub(crate) fn log_sum_exp(terms: impl IntoIterator<Item = f64> + Clone) -> f64 {
    let largest = terms.clone().into_iter().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    largest + terms.into_iter().map(|t| (t - largest).exp()).sum::<f64>().ln()
}

/// Mean of the values; `None` for none.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What `scripts/statistics_goldens.py` wrote.
    pub(crate) fn golden() -> serde_json::Value {
        serde_json::from_str(include_str!("../../tests/goldens/statistics.json")).expect("the script's file")
    }

    /// A list of numbers.
    pub(crate) fn numbers(list: &serde_json::Value) -> Vec<f64> {
        list.as_array().expect("a list").iter().map(|number| number.as_f64().expect("a number")).collect()
    }

    pub(crate) fn close(got: &[f64], want: &[f64], by: f64) {
        let near = got.len() == want.len() && got.iter().zip(want).all(|(a, b)| (a - b).abs() <= by);
        assert!(near, "{got:?} is not {want:?}");
    }

    #[test]
    fn an_interval_without_ends_survives_json() {
        let wide = Interval { mean: 1.0, low: f64::NEG_INFINITY, high: f64::INFINITY };
        let text = serde_json::to_string(&wide).expect("plain");
        assert_eq!(text, r#"{"mean":1.0,"low":null,"high":null}"#);
        assert_eq!(serde_json::from_str::<Interval>(&text).expect("read"), wide);
    }
}
