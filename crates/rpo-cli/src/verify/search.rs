//! The choice of a learning rate: a walk downhill over a fixed grid. It knows a function of the rate, not what it measures.

use serde::{Deserialize, Serialize};

/// The learning rates to choose from, about a factor of three apart.
pub const GRID: [f64; 8] = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2];
/// Places in the grid that are tried in any case.
pub const FIRST: [usize; 2] = [3, 4];
/// Rates that are tried at least: the first two, and one neighbour of the better one.
pub const FEWEST: usize = 3;

/// What the walk found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// The rate whose neighbours are no better.
    pub rate: f64,
    /// What it measured there; infinite where nothing worked at all.
    pub distance: f64,
    /// Whether the grid ends there, so that a better rate may lie beyond.
    pub at_edge: bool,
    /// Every rate that was tried with what it measured, from small to large.
    pub tried: Vec<(f64, f64)>,
}

/// Tries [`FIRST`], then the neighbours of the best rate so far until both are worse, or the grid ends. Of equally good
/// rates the smaller one is better, so that where all diverge it goes on to smaller ones. The found rate is the best of
/// all if `distance` has one valley.
pub fn walk<E>(mut distance: impl FnMut(f64) -> Result<f64, E>) -> Result<Choice, E> {
    let mut known = [None; GRID.len()];
    let mut due = FIRST.to_vec();
    loop {
        for i in due {
            known[i] = Some(distance(GRID[i])?);
        }
        let tried: Vec<(usize, f64)> = known.iter().enumerate().filter_map(|(i, d)| d.map(|d| (i, d))).collect();
        let nearest = tried.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1));
        let (best, distance) = nearest.unwrap_or((FIRST[0], f64::INFINITY));
        let neighbours = [best.checked_sub(1), Some(best + 1)].into_iter().flatten();
        due = neighbours.filter(|i| known.get(*i).is_some_and(Option::is_none)).collect();
        if due.is_empty() {
            let at_edge = distance.is_finite() && (best == 0 || best + 1 == GRID.len());
            let tried = tried.into_iter().map(|(i, d)| (GRID[i], d)).collect();
            return Ok(Choice { rate: GRID[best], distance, at_edge, tried });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The choice, and the rates in the order in which they were tried.
    fn walked(distance: impl Fn(f64) -> f64) -> (Choice, Vec<f64>) {
        let mut asked = Vec::new();
        let choice = walk(|rate| {
            asked.push(rate);
            Ok::<f64, ()>(distance(rate))
        });
        (choice.expect("no error"), asked)
    }

    #[test]
    fn a_valley_in_the_middle_takes_three_runs() {
        let (choice, asked) = walked(|rate| (rate / 1e-3).ln().abs());
        assert_eq!((choice.rate, choice.at_edge), (1e-3, false));
        assert_eq!(asked, [3e-4, 1e-3, 3e-3]);
        let (choice, asked) = walked(|rate| (rate / 3e-4).ln().abs());
        assert_eq!(choice.rate, 3e-4);
        assert_eq!(asked, [3e-4, 1e-3, 1e-4]);
        assert_eq!(choice.tried.iter().map(|t| t.0).collect::<Vec<_>>(), [1e-4, 3e-4, 1e-3]);
    }

    #[test]
    fn the_walk_goes_on_while_it_goes_down_and_says_where_the_grid_ends() {
        let (choice, asked) = walked(|rate| -rate);
        assert_eq!((choice.rate, choice.at_edge), (3e-2, true));
        assert_eq!(asked, [3e-4, 1e-3, 3e-3, 1e-2, 3e-2], "no rate twice");
        let (choice, asked) = walked(|rate| rate);
        assert_eq!((choice.rate, choice.at_edge), (1e-5, true));
        assert_eq!(asked, [3e-4, 1e-3, 1e-4, 3e-5, 1e-5]);
        let (choice, _) = walked(|rate| (rate / 1e-2).ln().abs());
        assert_eq!((choice.rate, choice.at_edge), (1e-2, false));
    }

    #[test]
    fn what_diverges_is_tried_at_smaller_rates() {
        let (choice, _) = walked(|rate| if rate > 5e-5 { f64::INFINITY } else { 1.0 / rate });
        assert_eq!((choice.rate, choice.at_edge), (3e-5, false));
        let (choice, asked) = walked(|_| f64::INFINITY);
        assert!(choice.distance.is_infinite() && !choice.at_edge && asked.len() == 5);
    }

    #[test]
    fn an_error_ends_the_walk() {
        assert_eq!(walk(|_| Err("disk")), Err("disk"));
    }
}
