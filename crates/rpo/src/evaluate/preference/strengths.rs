//! One number for each of many models, on the scale of Elo's ratings.

use serde::{Deserialize, Serialize};

use super::super::judge::Pairwise;
use crate::statistics::{Fit, Interval, RESAMPLES, bradley_terry, mean, percentile_interval, resamples};

/// What the strengths of a group of models have for their mean.
const CENTRE: f64 = 1000.0;

/// Strengths by Bradley and Terry's model ([`bradley_terry`]), a tie being half a win.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Strengths {
    /// Of each model by its number.
    pub models: Vec<Strength>,
    /// Into how many groups the models fall that have never met, not even by way of others: strengths of different groups
    /// cannot be compared.
    pub groups: usize,
    /// Whether the judgements alone decide the strengths. They do not where some models have only won against others: then a tie was
    /// added to every pair that met, without which the strengths would be infinite.
    pub finite: bool,
    /// Share of the resamples, from which the intervals are, to which such ties were added.
    pub resamples_with_ties: f64,
}

/// A model's strength.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Strength {
    /// On Elo's scale, where 400 points are odds of ten to one, with mean 1000 in each group; the interval is of the bootstrap
    /// over prompts.
    pub elo: Interval,
    /// The group it belongs to, from 0.
    pub group: usize,
    /// How many judgements it was in.
    pub judgements: usize,
}

/// The strengths of `models` models; resampling starts from `seed`. Every prompt weighs alike for a pair, whatever its seeds.
pub fn strengths(judgements: &[Pairwise], models: usize, seed: u64) -> Strengths {
    let mut of_prompts: std::collections::BTreeMap<usize, Vec<([usize; 2], f64)>> = std::collections::BTreeMap::new();
    let mut met = vec![0; models];
    for (pair, of_pair) in super::by_pair(judgements) {
        for (prompt, points) in super::by_prompt(of_pair, Pairwise::points) {
            pair.iter().for_each(|&model| met[model] += points.len());
            of_prompts.entry(prompt).or_default().extend(mean(&points).map(|points| (pair, points)));
        }
    }
    let prompts: Vec<Vec<([usize; 2], f64)>> = of_prompts.into_values().collect();
    let fit = |rows: &[usize]| -> Fit {
        let mut points = vec![vec![0.0; models]; models];
        for ([a, b], won) in rows.iter().flat_map(|&row| &prompts[row]) {
            points[*a][*b] += won;
            points[*b][*a] += 1.0 - won;
        }
        bradley_terry(&points)
    };
    let found = fit(&(0..prompts.len()).collect::<Vec<usize>>());
    let elo = |logarithm: f64| CENTRE + 400.0 / 10f64.ln() * logarithm;
    // A resample in which groups fall apart says nothing of how they compare.
    let resampled: Vec<Fit> = resamples(prompts.len(), seed)
        .take(if prompts.is_empty() { 0 } else { RESAMPLES })
        .map(|rows| fit(&rows))
        .filter(|fit| fit.groups == found.groups)
        .collect();
    let strength = |model: usize| Strength {
        elo: percentile_interval(elo(found.logarithms[model]), resampled.iter().map(|fit| elo(fit.logarithms[model]))),
        group: found.groups[model],
        judgements: met[model],
    };
    let with_ties = resampled.iter().filter(|fit| !fit.finite).count();
    Strengths {
        models: (0..models).map(strength).collect(),
        groups: found.groups.iter().max().map_or(0, |last| last + 1),
        finite: found.finite,
        resamples_with_ties: with_ties as f64 / resampled.len().max(1) as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::point;
    use super::*;

    #[test]
    fn elo_by_hand() {
        // 30 of 40 points: odds of 3, 400 log10 3 = 190.85 apart. The interval of the rate, 0.75 +- 0.134, on that scale.
        let judgements: Vec<Pairwise> = (0..40).map(|i| point(i, 0, [0, 1], f64::from(u8::from(i % 4 > 0)))).collect();
        let found = strengths(&judgements, 2, 1);
        let [ours, theirs] = [found.models[0].elo, found.models[1].elo];
        assert!(
            (ours.mean - theirs.mean - 400.0 * 3f64.log10()).abs() < 1e-6
                && (ours.mean + theirs.mean - 2000.0).abs() < 1e-6
        );
        let at = |rate: f64| 1000.0 + 200.0 * (rate / (1.0 - rate)).log10();
        assert!((ours.low - at(0.616)).abs() < 12.0 && (ours.high - at(0.884)).abs() < 25.0, "{ours:?}");
        assert!(found.finite && found.groups == 1 && found.models[0].judgements == 40);
    }

    #[test]
    fn sweeps_and_strangers_are_said() {
        let sweep: Vec<Pairwise> = (0..20).map(|i| point(i, 0, [0, 1], 1.0)).collect();
        let found = strengths(&sweep, 3, 1);
        // 20.5 to 0.5; the third model met nobody.
        assert!(!found.finite && found.resamples_with_ties == 1.0 && found.groups == 2);
        assert!((found.models[0].elo.mean - found.models[1].elo.mean - 400.0 * 41f64.log10()).abs() < 1e-6);
        assert_eq!((found.models[2].elo.mean, found.models[2].group, found.models[2].judgements), (1000.0, 1, 0));
        assert_eq!(strengths(&[], 2, 1).models[0].elo.high, f64::INFINITY);
    }

    #[test]
    fn a_prompt_with_many_seeds_weighs_as_one_with_a_single() {
        let mut judgements = vec![point(0, 0, [0, 1], 0.0)];
        judgements.extend((0..5).map(|seed| point(1, seed, [0, 1], 1.0)));
        let found = strengths(&judgements, 2, 1);
        assert!((found.models[0].elo.mean - 1000.0).abs() < 1e-6 && found.models[0].judgements == 6);
    }
}
