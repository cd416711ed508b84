//! What measured numbers are worth: intervals, rank correlations, win rates. Plain numbers in and out.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// An estimate with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The estimate.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
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

/// Mean of independent values, with Student's interval (as wide as the line for a single value).
pub fn mean_interval(values: &[f64]) -> Interval {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    if values.len() < 2 {
        return Interval { mean, low: f64::NEG_INFINITY, high: f64::INFINITY };
    }
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = student_quantile(values.len() - 1) * (variance / n).sqrt();
    Interval { mean, low: mean - half, high: mean + half }
}

/// Geometric mean of independent positive values, with Student's interval of their logarithms.
pub fn geometric_interval(values: &[f64]) -> Interval {
    let logarithms: Vec<f64> = values.iter().map(|v| v.ln()).collect();
    let Interval { mean, low, high } = mean_interval(&logarithms);
    Interval { mean: mean.exp(), low: low.exp(), high: high.exp() }
}

/// The 0.975 quantile of Student's distribution, right to 0.001: a table, then Cornish and Fisher's expansion.
fn student_quantile(degrees: usize) -> f64 {
    const FEW: [f64; 6] = [12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469];
    if let Some(quantile) = FEW.get(degrees.wrapping_sub(1)) {
        return *quantile;
    }
    let (z, v) = (1.959_964f64, degrees as f64);
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * v * v);
    let third = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / (384.0 * v.powi(3));
    z + (z.powi(3) + z) / (4.0 * v) + second + third
}

/// A statistic of `n` items with its percentile bootstrap interval over 2,000 resamples; `None` where it is not defined
/// on the items themselves. Resamples on which it is not defined are left out.
pub fn bootstrap(n: usize, seed: u64, statistic: impl Fn(&[usize]) -> Option<f64>) -> Option<Interval> {
    let all: Vec<usize> = (0..n).collect();
    let mean = statistic(&all)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut resampled: Vec<f64> =
        (0..2000).filter_map(|_| statistic(&(0..n).map(|_| rng.random_range(0..n)).collect::<Vec<_>>())).collect();
    resampled.sort_by(f64::total_cmp);
    let at = |share: f64| resampled[((resampled.len() - 1) as f64 * share).round() as usize];
    Some(Interval { mean, low: at(0.025), high: at(0.975) })
}

/// Kendall's tau-b of paired values, which allows for ties; `None` if either side is constant.
pub fn kendall_tau_b(x: &[f64], y: &[f64]) -> Option<f64> {
    let (mut agreement, mut untied_x, mut untied_y) = (0.0, 0.0, 0.0);
    for i in 0..x.len() {
        for j in 0..i {
            let sign = |v: &[f64]| v[i].partial_cmp(&v[j]).map_or(0.0, |o| f64::from(o as i8));
            let (a, b) = (sign(x), sign(y));
            agreement += a * b;
            untied_x += a.abs();
            untied_y += b.abs();
        }
    }
    let pairs: f64 = untied_x * untied_y;
    (pairs > 0.0).then(|| agreement / pairs.sqrt())
}

/// Spearman's rank correlation of paired values, ties at their mean rank; `None` if either side is constant.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    let centred = |v: &[f64]| -> Vec<f64> {
        let mean = (v.len() + 1) as f64 / 2.0;
        ranks(v).into_iter().map(|r| r - mean).collect()
    };
    let (x, y) = (centred(x), centred(y));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let scale = (dot(&x, &x) * dot(&y, &y)).sqrt();
    (scale > 0.0).then(|| dot(&x, &y) / scale)
}

/// Ranks from 1, ties at their mean.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = before as f64 + (tied.len() + 1) as f64 / 2.0;
        tied.iter().for_each(|&i| ranks[i] = rank);
        before += tied.len();
    }
    ranks
}

/// Share of the pairs in which the first value is larger, ties counting half, with Wilson's interval.
pub fn win_rate(ours: &[f64], theirs: &[f64]) -> Interval {
    let point = |(a, b): (&f64, &f64)| if a > b { 1.0 } else { f64::from(u8::from(a == b)) / 2.0 };
    let n = ours.len().min(theirs.len()) as f64;
    let share = ours.iter().zip(theirs).map(point).sum::<f64>() / n;
    let z2 = 1.959_964f64.powi(2);
    let centre = (share + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = (z2 * (share * (1.0 - share) / n + z2 / (4.0 * n * n))).sqrt() / (1.0 + z2 / n);
    Interval { mean: share, low: centre - half, high: centre + half }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn students_interval_by_hand() {
        // Mean 3, variance 2.5, four degrees of freedom: 2.7764 * sqrt(2.5 / 5).
        let got = mean_interval(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert!((got.mean - 3.0).abs() < 1e-12 && (got.high - 3.0 - 2.7764 * 0.5f64.sqrt()).abs() < 1e-9);
        assert_eq!(mean_interval(&[1.0]).high, f64::INFINITY);
        let geometric = geometric_interval(&[1.0, 4.0]);
        assert!((geometric.mean - 2.0).abs() < 1e-12 && (geometric.low * geometric.high - 4.0).abs() < 1e-9);
        for (degrees, quantile) in [(1, 12.7062), (7, 2.3646), (10, 2.2281), (30, 2.0423), (199, 1.9720)] {
            assert!((student_quantile(degrees) - quantile).abs() < 1e-3, "{degrees}: {}", student_quantile(degrees));
        }
    }

    #[test]
    fn rank_correlations_by_hand() {
        // Pairs of x: (1,2) + (1,3) + (2,3); of y with a tie: two agree, one tied. tau-b = 2 / sqrt(3 * 2).
        assert!(
            (kendall_tau_b(&[1.0, 2.0, 3.0], &[5.0, 5.0, 7.0]).expect("defined") - 2.0 / 6f64.sqrt()).abs() < 1e-12
        );
        assert_eq!(kendall_tau_b(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), Some(-1.0));
        assert_eq!(kendall_tau_b(&[1.0, 2.0], &[3.0, 3.0]), None);
        // Ranks 1 2 3 4 and 1 2.5 2.5 4: sum of products of the centred ranks 4.5, squares 5 and 4.5.
        let rho = spearman(&[1.0, 2.0, 3.0, 4.0], &[1.0, 7.0, 7.0, 9.0]).expect("defined");
        assert!((rho - 4.5 / (5.0f64 * 4.5).sqrt()).abs() < 1e-12, "{rho}");
    }

    #[test]
    fn wilsons_interval_by_hand() {
        // 8 of 10: centre (0.8 + 0.19207) / 1.38415, half width sqrt(3.84146 (0.016 + 0.0096036)) / 1.38415.
        let a: Vec<f64> = (0..10).map(|i| if i < 8 { 1.0 } else { 0.0 }).collect();
        let got = win_rate(&a, &[0.5; 10]);
        assert!((got.mean - 0.8).abs() < 1e-12);
        assert!((got.low - 0.490_16).abs() < 1e-4 && (got.high - 0.943_32).abs() < 1e-4, "{got:?}");
        assert_eq!(win_rate(&[1.0], &[1.0]).mean, 0.5);
    }

    #[test]
    fn the_bootstrap_covers_the_mean_as_students_interval_does() {
        let values: Vec<f64> = (0..200).map(|i| f64::from(i % 20)).collect();
        let mean = |rows: &[usize]| Some(rows.iter().map(|&i| values[i]).sum::<f64>() / rows.len() as f64);
        let got = bootstrap(values.len(), 1, mean).expect("defined");
        let want = mean_interval(&values);
        assert!((got.low - want.low).abs() < 0.1 && (got.high - want.high).abs() < 0.1, "{got:?} {want:?}");
        assert_eq!(bootstrap(3, 1, |_| None), None);
    }
}
