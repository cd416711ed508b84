//! Whether two judges, or more, say the same.

use super::Interval;
use super::intervals::NORMAL_975;

/// Cohen's kappa (1960) of two judges' categories of the same items, with the interval of its large-sample error (Fleiss, Cohen
/// and Everitt 1969): `(o - e) / (1 - e)`, `o` the share of items on which they agree, `e` the share on which two who answer at
/// random, each as often as it does, would. `None` where there are no items or both always say the same one thing.
pub fn cohen_kappa(categories: usize, items: &[(usize, usize)]) -> Option<Interval> {
    let n = items.len() as f64;
    let mut share = vec![vec![0.0; categories]; categories];
    items.iter().for_each(|&(a, b)| share[a][b] += 1.0 / n);
    let ours: Vec<f64> = share.iter().map(|row| row.iter().sum()).collect();
    let theirs: Vec<f64> = (0..categories).map(|k| share.iter().map(|row| row[k]).sum()).collect();
    let observed: f64 = (0..categories).map(|k| share[k][k]).sum();
    let expected: f64 = ours.iter().zip(&theirs).map(|(a, b)| a * b).sum();
    if items.is_empty() || 1.0 - expected < 1e-12 {
        return None;
    }
    let kappa = (observed - expected) / (1.0 - expected);
    let mut variance = -(kappa - expected * (1.0 - kappa)).powi(2);
    for i in 0..categories {
        for j in 0..categories {
            let weight = match i == j {
                true => (1.0 - (ours[i] + theirs[i]) * (1.0 - kappa)).powi(2),
                false => (1.0 - kappa).powi(2) * (theirs[i] + ours[j]).powi(2),
            };
            variance += share[i][j] * weight;
        }
    }
    let half = NORMAL_975 * (variance.max(0.0) / n).sqrt() / (1.0 - expected);
    Some(Interval { mean: kappa, low: kappa - half, high: kappa + half })
}

/// How far apart two values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// They are equal or not.
    Nominal,
    /// By the square of their difference.
    Interval,
}

impl Scale {
    fn distance(self, a: f64, b: f64) -> f64 {
        match self {
            Self::Nominal => f64::from(u8::from(a != b)),
            Self::Interval => (a - b).powi(2),
        }
    }
}

/// Krippendorff's alpha (Content Analysis, 2004, chapter 11) of any number of judges: one less the mean distance of values
/// within a unit over the mean distance of all values. A unit is what the judges said of one item; units with fewer than two
/// values say nothing. `None` where no values can be compared, or all are equal.
pub fn krippendorff_alpha(scale: Scale, units: &[Vec<f64>]) -> Option<f64> {
    let units: Vec<&Vec<f64>> = units.iter().filter(|unit| unit.len() > 1).collect();
    // Values are few kinds, as a rule: distances between kinds, weighted by how many there are.
    let mut values: Vec<f64> = units.iter().flat_map(|unit| unit.iter().copied()).collect();
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let within = |unit: &[f64]| -> f64 {
        let pairs = unit.iter().enumerate().flat_map(|(i, a)| unit[..i].iter().map(move |b| scale.distance(*a, *b)));
        2.0 * pairs.sum::<f64>() / (unit.len() - 1) as f64
    };
    let kinds: Vec<&[f64]> = values.chunk_by(|a, b| a == b).collect();
    let between = |a: &&[f64]| -> f64 {
        let others = kinds.iter().map(|b| b.len() as f64 * scale.distance(a[0], b[0]));
        a.len() as f64 * others.sum::<f64>()
    };
    let observed = units.iter().map(|unit| within(unit)).sum::<f64>() / n;
    let expected = kinds.iter().map(between).sum::<f64>() / (n * (n - 1.0));
    (n > 1.0 && expected > 0.0).then(|| 1.0 - observed / expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::tests::{close, golden, numbers};

    #[test]
    fn kappa_by_hand_and_as_statsmodels_has_it() {
        // 20 and 15 of 50 agree: o 0.7; the first says yes to 25, the second to 30: e = 0.5 * 0.6 + 0.5 * 0.4.
        let items = |table: &[usize]| -> Vec<(usize, usize)> {
            let side = table.len().isqrt();
            table.iter().enumerate().flat_map(|(k, &n)| vec![(k / side, k % side); n]).collect()
        };
        let by_hand = cohen_kappa(2, &items(&[20, 5, 10, 15])).expect("defined");
        assert!((by_hand.mean - 0.4).abs() < 1e-12, "{by_hand:?}");
        for case in golden()["cohen_kappa"].as_array().expect("cases") {
            let table: Vec<usize> = numbers(&case["table"]).into_iter().map(|n| n as usize).collect();
            let got = cohen_kappa(table.len().isqrt(), &items(&table)).expect("defined");
            close(&[got.mean, got.low, got.high], &numbers(&case["interval"]), 1e-6);
        }
        assert!(cohen_kappa(2, &[(1, 1); 9]).is_none() && cohen_kappa(2, &[]).is_none());
    }

    #[test]
    fn alpha_by_hand_and_as_the_python_package_has_it() {
        // Units (0, 0), (1, 1), (0, 1): one of three disagrees, o = 2 / 6; three 0 and three 1: e = 18 / 30.
        let units = [vec![0.0, 0.0], vec![1.0, 1.0], vec![0.0, 1.0]];
        for scale in [Scale::Nominal, Scale::Interval] {
            assert!((krippendorff_alpha(scale, &units).expect("defined") - (1.0 - 10.0 / 18.0)).abs() < 1e-12);
        }
        for case in golden()["krippendorff_alpha"].as_array().expect("cases") {
            let units: Vec<Vec<f64>> = case["units"].as_array().expect("units").iter().map(numbers).collect();
            for (scale, name) in [(Scale::Nominal, "nominal"), (Scale::Interval, "interval")] {
                let want = case[name].as_f64().expect("number");
                close(&[krippendorff_alpha(scale, &units).expect("defined")], &[want], 1e-9);
            }
        }
        assert!(krippendorff_alpha(Scale::Nominal, &[vec![1.0], vec![]]).is_none());
        assert!(krippendorff_alpha(Scale::Interval, &[vec![1.0, 1.0]]).is_none());
    }
}
