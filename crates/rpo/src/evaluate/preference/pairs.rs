//! Every two models: who wins, and how sure that is.

use std::collections::BTreeSet;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::super::Estimate;
use super::super::judge::Pairwise;
use super::lengths::{Difficulty, LengthControlled, length_controlled};
use super::{by_pair, by_prompt};
use crate::statistics::{
    Interval, RESAMPLES, benjamini_hochberg, holm, mean, percentile_interval, prompts_needed, share_interval,
    sign_test, smallest_rate,
};

/// What a judge says of two models, of which `models[0]` is the one that wins or loses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The two, by number.
    pub models: [usize; 2],
    /// Judgements of them, a prompt and a seed each, that both orders answered.
    pub judgements: usize,
    /// Prompts on which the first model won more often than it lost over the seeds.
    pub wins: usize,
    /// Prompts on which it won as often.
    pub ties: usize,
    /// Prompts on which it lost more often.
    pub losses: usize,
    /// Mean points of the first model over the prompts, a win 1 and a tie 1/2, with the bootstrap's interval over prompts and,
    /// within each, over its seeds; `n` is the number of prompts.
    pub rate: Estimate,
    /// The same with the interval over prompts and runs, as if the runs too had been drawn anew; `None` for one seed. Two or
    /// three runs say little of how runs differ: it is then too narrow.
    pub over_runs: Option<Interval>,
    /// Of the exact sign test of the prompts without ties.
    pub p: f64,
    /// `p` after Holm's correction over all pairs of models.
    pub p_holm: f64,
    /// `p` after Benjamini and Hochberg's.
    pub p_benjamini_hochberg: f64,
    /// The win rate if responses were equally long; `None` where it cannot be known.
    pub length_controlled: Option<LengthControlled>,
    /// The smallest win rate above 1/2 that so many prompts with so many ties tell from it in four of five cases.
    pub smallest_rate: Option<f64>,
    /// The prompts that win rates of 55, 60 and 65 % need, with so many ties, to be told from 1/2 in four of five cases.
    pub prompts_needed: [Option<usize>; 3],
}

/// What the judgements say of every two models that met, in their order; resampling starts from `seed`. Two models of which no
/// judgement was answered have no entry.
pub fn pairs(judgements: &[Pairwise], seed: u64) -> Vec<Pair> {
    let difficulty = Difficulty::of(judgements);
    let mut pairs: Vec<Pair> = by_pair(judgements)
        .into_iter()
        .filter_map(|(models, of_pair)| pair(models, &of_pair, &difficulty, seed))
        .collect();
    let p: Vec<f64> = pairs.iter().map(|pair| pair.p).collect();
    for ((pair, holm), hochberg) in pairs.iter_mut().zip(holm(&p)).zip(benjamini_hochberg(&p)) {
        (pair.p_holm, pair.p_benjamini_hochberg) = (holm, hochberg);
    }
    pairs
}

fn pair(models: [usize; 2], judgements: &[&Pairwise], difficulty: &Difficulty, seed: u64) -> Option<Pair> {
    let prompts = by_prompt(judgements.iter().copied(), |j| Some((j.seed, j.points()?)));
    let points: Vec<Vec<f64>> =
        prompts.values().map(|seeds| seeds.iter().map(|(_, points)| *points).collect()).collect();
    let means: Vec<f64> = points.iter().filter_map(|points| mean(points)).collect();
    let rate = mean(&means)?;
    let count = |is: fn(&f64) -> bool| means.iter().filter(|points| is(points)).count();
    let (wins, losses) = (count(|p| *p > 0.5 + 1e-9), count(|p| *p < 0.5 - 1e-9));
    let ties = means.len() - wins - losses;
    let tie_rate = ties as f64 / means.len() as f64;
    let p = sign_test(wins, losses);
    Some(Pair {
        models,
        judgements: points.iter().map(Vec::len).sum(),
        wins,
        ties,
        losses,
        rate: Estimate { interval: over_prompts(rate, &points, seed), n: means.len() },
        over_runs: over_runs(rate, &prompts.into_values().collect::<Vec<_>>(), seed),
        p,
        p_holm: p,
        p_benjamini_hochberg: p,
        length_controlled: length_controlled(models, judgements, difficulty, seed),
        smallest_rate: smallest_rate(means.len(), tie_rate),
        prompts_needed: [0.55, 0.6, 0.65].map(|rate| prompts_needed(rate, tie_rate)),
    })
}

/// The bootstrap in two stages (Davison and Hinkley 1997, section 3.8): prompts are drawn, and for each its seeds. Where all points
/// are equal, so are those of every resample, and Wilson's interval says what the number of prompts leaves open.
fn over_prompts(rate: f64, points: &[Vec<f64>], seed: u64) -> Interval {
    if points.iter().flatten().all(|p| *p == points[0][0]) {
        return share_interval(rate, points.len());
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut resampled = || {
        let drawn = (0..points.len()).map(|_| {
            let seeds = &points[rng.random_range(0..points.len())];
            match seeds.len() {
                1 => seeds[0],
                n => (0..n).map(|_| seeds[rng.random_range(0..n)]).sum::<f64>() / n as f64,
            }
        });
        drawn.sum::<f64>() / points.len() as f64
    };
    percentile_interval(rate, (0..RESAMPLES).map(|_| resampled()))
}

/// The bootstrap of crossed samples (Owen 2007): prompts are drawn, and runs for all of them.
fn over_runs(rate: f64, prompts: &[Vec<(usize, f64)>], seed: u64) -> Option<Interval> {
    let runs: BTreeSet<usize> = prompts.iter().flatten().map(|(run, _)| *run).collect();
    let runs: Vec<usize> = runs.into_iter().collect();
    if runs.len() < 2 {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut resampled = || {
        let mut times = vec![0.0; runs[runs.len() - 1] + 1];
        (0..runs.len()).for_each(|_| times[runs[rng.random_range(0..runs.len())]] += 1.0);
        let drawn = (0..prompts.len()).filter_map(|_| {
            let points = &prompts[rng.random_range(0..prompts.len())];
            let weight: f64 = points.iter().map(|(run, _)| times[*run]).sum();
            (weight > 0.0).then(|| points.iter().map(|(run, points)| times[*run] * points).sum::<f64>() / weight)
        });
        mean(&drawn.collect::<Vec<f64>>())
    };
    Some(percentile_interval(rate, (0..RESAMPLES).filter_map(|_| resampled())))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{point, said};
    use super::*;
    use crate::evaluate::judge::Choice;

    #[test]
    fn wins_by_prompts_and_what_is_unparsed_by_hand() {
        // Prompt 0: a win and a tie, a win together; prompt 1: a win and a loss, a tie; prompt 2: a loss; prompt 3: unparsed.
        let judgements = [
            point(0, 0, [0, 1], 1.0),
            point(0, 1, [0, 1], 0.5),
            point(1, 0, [0, 1], 1.0),
            point(1, 1, [0, 1], 0.0),
            point(2, 0, [0, 1], 0.0),
            said(3, 0, Choice::Unparsed, Choice::First),
        ];
        let found = pairs(&judgements, 1);
        let pair = &found[0];
        assert_eq!((pair.judgements, pair.wins, pair.ties, pair.losses), (5, 1, 1, 1));
        assert!((pair.rate.interval.mean - (0.75 + 0.5 + 0.0) / 3.0).abs() < 1e-12 && pair.rate.n == 3);
        assert_eq!((pair.p, pair.smallest_rate), (1.0, None));
        assert!(pair.over_runs.is_some());
    }

    #[test]
    fn intervals_by_hand() {
        // One seed: variance 0.25 / 100 of the rate, so about 0.5 +- 0.098.
        let half: Vec<Pairwise> = (0..100).map(|i| point(i, 0, [0, 1], f64::from(u8::from(i % 2 == 0)))).collect();
        let rate = pairs(&half, 1)[0].rate.interval;
        assert!((rate.low - 0.402).abs() < 0.015 && (rate.high - 0.598).abs() < 0.015, "{rate:?}");
        // Every prompt won by one seed and lost by the other: prompts do not differ, seeds within them do, variance 0.25 / 200;
        // if a whole run wins and the other loses, all of it is between runs.
        let split: Vec<Pairwise> = (0..200).map(|i| point(i / 2, i % 2, [0, 1], (i % 2) as f64)).collect();
        let pair = &pairs(&split, 1)[0];
        let rate = pair.rate.interval;
        assert!((rate.high - rate.low - 2.0 * 1.96 * (0.25f64 / 200.0).sqrt()).abs() < 0.02, "{rate:?}");
        let runs = pair.over_runs.expect("two runs");
        assert_eq!((runs.low, runs.high, pair.ties), (0.0, 1.0, 100));
        // All won: Wilson's 5 of 5, 5 / (5 + 3.8415).
        let all: Vec<Pairwise> = (0..5).map(|i| point(i, 0, [0, 1], 1.0)).collect();
        let rate = pairs(&all, 1)[0].rate.interval;
        assert!((rate.low - 5.0 / 8.841_459).abs() < 1e-5 && rate.high == 1.0, "{rate:?}");
    }

    #[test]
    fn many_comparisons_are_corrected() {
        // 0 beats 1 by 9 to 0 and 2 by 7 to 2; 1 and 2 are level.
        let mut judgements: Vec<Pairwise> = Vec::new();
        for i in 0..9 {
            judgements.push(point(i, 0, [0, 1], 1.0));
            judgements.push(point(i, 0, [0, 2], f64::from(u8::from(i > 1))));
            judgements.push(point(i, 0, [1, 2], 0.5));
        }
        let found = pairs(&judgements, 1);
        // 2 / 2^9; 2 (1 + 9 + 36) / 2^9; 1.
        let (first, second) = (2.0 / 512.0, 92.0 / 512.0);
        assert!((found[0].p - first).abs() < 1e-12 && (found[0].p_holm - 3.0 * first).abs() < 1e-12);
        assert!((found[1].p - second).abs() < 1e-12 && (found[1].p_holm - 2.0 * second).abs() < 1e-12);
        assert!((found[1].p_benjamini_hochberg - 1.5 * second).abs() < 1e-12);
        assert_eq!((found[2].models, found[2].p_holm, found[2].ties), ([1, 2], 1.0, 9));
        // All ties: no number of prompts tells a difference.
        assert_eq!(found[2].prompts_needed, [None; 3]);
    }
}
