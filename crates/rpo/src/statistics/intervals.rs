//! Estimates with their intervals.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Interval;

/// The 0.975 quantile of the normal distribution.
pub(super) const NORMAL_975: f64 = 1.959_963_985;

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
    let (z, v) = (NORMAL_975, degrees as f64);
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * v * v);
    let third = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / (384.0 * v.powi(3));
    z + (z.powi(3) + z) / (4.0 * v) + second + third
}

/// How often a bootstrap draws.
pub const RESAMPLES: usize = 2000;

/// Samples of `n` of the numbers below `n`, drawn with replacement; the same for the same seed.
pub fn resamples(n: usize, seed: u64) -> impl Iterator<Item = Vec<usize>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    std::iter::repeat_with(move || (0..n).map(|_| rng.random_range(0..n)).collect())
}

/// A statistic of `n` items with its percentile bootstrap interval (Efron 1979) over 2,000 resamples; `None` where it is not
/// defined on the items themselves. Resamples on which it is not defined are left out.
pub fn bootstrap(n: usize, seed: u64, statistic: impl Fn(&[usize]) -> Option<f64>) -> Option<Interval> {
    let all: Vec<usize> = (0..n).collect();
    let mean = statistic(&all)?;
    Some(percentile_interval(mean, resamples(n, seed).take(RESAMPLES).filter_map(|rows| statistic(&rows))))
}

/// An estimate with the central 95 % of its values on resamples; as wide as the line where there are none.
pub fn percentile_interval(mean: f64, resampled: impl IntoIterator<Item = f64>) -> Interval {
    let mut resampled: Vec<f64> = resampled.into_iter().collect();
    resampled.sort_by(f64::total_cmp);
    let at = |share: f64| resampled[((resampled.len() - 1) as f64 * share).round() as usize];
    match resampled.is_empty() {
        true => Interval { mean, low: f64::NEG_INFINITY, high: f64::INFINITY },
        false => Interval { mean, low: at(0.025), high: at(0.975) },
    }
}

/// Share of the pairs in which the first value is larger, ties counting half, with Wilson's interval.
pub fn win_rate(ours: &[f64], theirs: &[f64]) -> Interval {
    let point = |(a, b): (&f64, &f64)| if a > b { 1.0 } else { f64::from(u8::from(a == b)) / 2.0 };
    let n = ours.len().min(theirs.len());
    share_interval(ours.iter().zip(theirs).map(point).sum::<f64>() / n as f64, n)
}

/// A share of `n` independent items with Wilson's interval (1927), which has a width where the share is 0 or 1. Where items
/// are parts, such as a tie that is half a win, it is too wide rather than too narrow.
pub fn share_interval(share: f64, n: usize) -> Interval {
    let (n, z2) = (n as f64, NORMAL_975.powi(2));
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
