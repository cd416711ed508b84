//! Rank correlations.

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
