//! One number for each of many that were compared by twos.

/// Strengths by Bradley and Terry's model (1952).
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// Natural logarithm of each strength, with mean 0 in each group: `i` beats `j` with probability `1 / (1 + e^(s_j - s_i))`.
    pub logarithms: Vec<f64>,
    /// Which group each belongs to, numbered from 0 as they come. Those of different groups have never met, not even by way of
    /// others, and their strengths cannot be compared.
    pub groups: Vec<usize>,
    /// Whether the data alone decide the strengths. They do not where some have only won against others, for then the likelihood
    /// grows without end as these part; half a win was then added to both sides of every pair that met.
    pub finite: bool,
}

/// The most likely strengths, where `points[i][j]` is what `i` has won against `j`, a tie being half a point for both: the
/// minorisation of Hunter (2004), until no logarithm moves by 1e-10.
///
/// The likelihood has a maximum in each group if in every division of it in two, some on each side have won against some on
/// the other (Ford 1957): if wins lead from everyone to everyone.
pub fn bradley_terry(points: &[Vec<f64>]) -> Fit {
    let n = points.len();
    let met = |i: usize, j: usize| points[i][j] + points[j][i] > 0.0;
    let groups = groups(n, met);
    let beats = reach(n, |i, j| points[i][j] > 0.0);
    let finite = (0..n).all(|i| (0..n).all(|j| groups[i] != groups[j] || beats[i][j]));
    let added = if finite { 0.0 } else { 0.5 };
    let won = |i: usize, j: usize| if met(i, j) { points[i][j] + added } else { 0.0 };
    let games: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| won(i, j) + won(j, i)).collect()).collect();
    let wins: Vec<f64> = (0..n).map(|i| (0..n).map(|j| won(i, j)).sum()).collect();
    let mut strength = vec![1.0; n];
    for _ in 0..100_000 {
        let mut moved = 0f64;
        for i in 0..n {
            let shared: f64 = (0..n).filter(|&j| j != i).map(|j| games[i][j] / (strength[i] + strength[j])).sum();
            if shared > 0.0 {
                let next = wins[i] / shared;
                moved = moved.max((next / strength[i]).ln().abs());
                strength[i] = next;
            }
        }
        // Only ratios matter: keep them away from the ends of what a number holds.
        let scale = (strength.iter().map(|s| s.ln()).sum::<f64>() / n as f64).exp();
        strength.iter_mut().for_each(|s| *s /= scale);
        if moved < 1e-10 {
            break;
        }
    }
    let mut logarithms: Vec<f64> = strength.iter().map(|s| s.ln()).collect();
    for group in 0..=groups.iter().copied().max().unwrap_or(0) {
        let members: Vec<usize> = (0..n).filter(|&i| groups[i] == group).collect();
        let centre = members.iter().map(|&i| logarithms[i]).sum::<f64>() / members.len() as f64;
        members.iter().for_each(|&i| logarithms[i] -= centre);
    }
    Fit { logarithms, groups, finite }
}

/// The group of each of `n`, numbered as they come: those that are joined, if only by way of others.
fn groups(n: usize, joined: impl Fn(usize, usize) -> bool) -> Vec<usize> {
    let reached = reach(n, joined);
    let first: Vec<usize> = (0..n).map(|i| (0..n).find(|&j| reached[i][j]).unwrap_or(i)).collect();
    let mut heads = first.clone();
    heads.sort_unstable();
    heads.dedup();
    first.iter().map(|head| heads.partition_point(|h| h < head)).collect()
}

/// From which one comes to which over `edge`s (Warshall 1962); from each to itself.
fn reach(n: usize, edge: impl Fn(usize, usize) -> bool) -> Vec<Vec<bool>> {
    let mut reached: Vec<Vec<bool>> = (0..n).map(|i| (0..n).map(|j| i == j || edge(i, j)).collect()).collect();
    for middle in 0..n {
        let onward = reached[middle].clone();
        for row in reached.iter_mut().filter(|row| row[middle]) {
            row.iter_mut().zip(&onward).for_each(|(there, further)| *there |= further);
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::tests::{close, golden, numbers};

    #[test]
    fn strengths_by_hand_and_as_logistic_regression_has_them() {
        // Two: 3 of 4 points are odds of 3 to 1.
        let two = bradley_terry(&[vec![0.0, 3.0], vec![1.0, 0.0]]);
        close(&two.logarithms, &[3f64.ln() / 2.0, -(3f64.ln() / 2.0)], 1e-9);
        assert!(two.finite && two.groups == [0, 0]);
        for case in golden()["bradley_terry"].as_array().expect("cases") {
            let points: Vec<Vec<f64>> = case["points"].as_array().expect("rows").iter().map(numbers).collect();
            close(&bradley_terry(&points).logarithms, &numbers(&case["logarithms"]), 1e-6);
        }
    }

    #[test]
    fn who_always_wins_is_not_infinitely_strong_in_silence() {
        let swept = bradley_terry(&[vec![0.0, 9.0], vec![0.0, 0.0]]);
        assert!(!swept.finite);
        // 9.5 to 0.5.
        assert!((swept.logarithms[0] - swept.logarithms[1] - 19f64.ln()).abs() < 1e-9);
        // A cycle is finite though each has lost all of a pair.
        let cycle = bradley_terry(&[vec![0.0, 1.0, 0.0], vec![0.0, 0.0, 1.0], vec![1.0, 0.0, 0.0]]);
        assert!(cycle.finite && cycle.logarithms.iter().all(|s| s.abs() < 1e-9));
    }

    #[test]
    fn those_that_never_met_are_told_apart() {
        let mut points = vec![vec![0.0; 5]; 5];
        (points[0][3], points[3][0], points[1][4], points[4][1]) = (3.0, 1.0, 1.0, 1.0);
        let fit = bradley_terry(&points);
        assert_eq!(fit.groups, [0, 1, 2, 0, 1]);
        assert!(fit.finite);
        close(&fit.logarithms, &[3f64.ln() / 2.0, 0.0, 0.0, -(3f64.ln() / 2.0), 0.0], 1e-9);
    }
}
