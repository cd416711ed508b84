//! Whether judges agree, on the judgements that they have in common.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::judge::Pairwise;
use crate::statistics::{Interval, Scale, bootstrap, cohen_kappa, krippendorff_alpha, share_interval};

/// How far two judges agree on who won.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// The two, by number.
    pub judges: [usize; 2],
    /// Judgements that both answered: the same prompt, seed and models.
    pub judgements: usize,
    /// Share on which they say the same of win, tie and loss, with the bootstrap's interval over prompts.
    pub share: Interval,
    /// Cohen's kappa of win, tie and loss, with the bootstrap's interval over prompts; `None` where both always say the same one thing.
    pub kappa: Option<Interval>,
}

/// How far judges agree.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Agreements {
    /// Every two that have judgements in common.
    pub pairs: Vec<Agreement>,
    /// Krippendorff's alpha of all judges, win, tie and loss being names, with the bootstrap's interval over prompts.
    pub alpha_nominal: Option<Interval>,
    /// The same with wins, ties and losses at 1, 1/2 and 0, so that a tie is nearer to both than they are to each other.
    pub alpha_interval: Option<Interval>,
}

/// What every judge said of one thing: twice the points, 0 to 2.
type Said = Vec<Option<u8>>;

/// How far judges agree, each given by its judgements; resampling starts from `seed`.
pub fn agreements(judges: &[&[Pairwise]], seed: u64) -> Agreements {
    let mut things: BTreeMap<(usize, usize, [usize; 2]), Said> = BTreeMap::new();
    for (judge, judgements) in judges.iter().enumerate() {
        for j in *judgements {
            let said = things.entry((j.prompt, j.seed, j.models)).or_insert_with(|| vec![None; judges.len()]);
            said[judge] = j.points().map(|points| (2.0 * points) as u8);
        }
    }
    let mut by_prompt: BTreeMap<usize, Vec<Said>> = BTreeMap::new();
    things.into_iter().for_each(|((prompt, ..), said)| by_prompt.entry(prompt).or_default().push(said));
    let prompts: Vec<Vec<Said>> = by_prompt.into_values().collect();
    let alpha = |scale: Scale| {
        let unit = |said: &Said| said.iter().flatten().map(|twice| f64::from(*twice) / 2.0).collect();
        bootstrap(prompts.len(), seed, |rows| {
            krippendorff_alpha(scale, &rows.iter().flat_map(|&row| prompts[row].iter().map(unit)).collect::<Vec<_>>())
        })
    };
    let twos = (0..judges.len()).flat_map(|b| (0..b).map(move |a| [a, b]));
    Agreements {
        pairs: twos.filter_map(|two| agreement(two, &prompts, seed)).collect(),
        alpha_nominal: alpha(Scale::Nominal),
        alpha_interval: alpha(Scale::Interval),
    }
}

fn agreement(judges: [usize; 2], prompts: &[Vec<Said>], seed: u64) -> Option<Agreement> {
    let both = |said: &Said| Some((usize::from(said[judges[0]]?), usize::from(said[judges[1]]?)));
    let prompts: Vec<Vec<(usize, usize)>> = prompts.iter().map(|said| said.iter().filter_map(both).collect()).collect();
    let prompts: Vec<Vec<(usize, usize)>> = prompts.into_iter().filter(|both| !both.is_empty()).collect();
    let items = |rows: &[usize]| rows.iter().flat_map(|&row| prompts[row].iter().copied()).collect::<Vec<_>>();
    let share = |rows: &[usize]| {
        let items = items(rows);
        (!items.is_empty()).then(|| items.iter().filter(|(a, b)| a == b).count() as f64 / items.len() as f64)
    };
    // Where no resample differs, Wilson's interval says what the number of prompts leaves open.
    let share = match bootstrap(prompts.len(), seed, share)? {
        Interval { mean, low, high } if low == high => share_interval(mean, prompts.len()),
        varied => varied,
    };
    Some(Agreement {
        judges,
        judgements: prompts.iter().map(Vec::len).sum(),
        share,
        kappa: bootstrap(prompts.len(), seed, |rows| cohen_kappa(3, &items(rows)).map(|kappa| kappa.mean)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{point, said};
    use super::*;
    use crate::evaluate::judge::Choice;

    #[test]
    fn two_judges_by_hand() {
        // As in the test of kappa: both say win on 20 and loss on 15 of 50; the first alone says win on 5, the second on 10.
        let of = |wins: &dyn Fn(usize) -> bool| -> Vec<Pairwise> {
            (0..50).map(|i| point(i, 0, [0, 1], f64::from(u8::from(wins(i))))).collect()
        };
        let first = of(&|i| i < 25);
        let mut second = of(&|i| i < 20 || (25..35).contains(&i));
        second.push(point(99, 0, [0, 1], 1.0));
        second.push(said(98, 0, Choice::Unparsed, Choice::First));
        let found = agreements(&[&first, &second], 1);
        let pair = &found.pairs[0];
        assert_eq!((pair.judges, pair.judgements), ([0, 1], 50));
        let kappa = pair.kappa.expect("defined");
        assert!((pair.share.mean - 0.7).abs() < 1e-12 && (kappa.mean - 0.4).abs() < 1e-12);
        // The large-sample interval of the same table, from statsmodels, is 0.151 to 0.649.
        assert!((kappa.low - 0.151).abs() < 0.06 && (kappa.high - 0.649).abs() < 0.06, "{kappa:?}");
        // Wins 55, losses 45 of 100: expected 2 * 55 * 45 / (100 * 99), observed 15 * 2 / 100.
        let alpha = 1.0 - 0.3 / (2.0 * 55.0 * 45.0 / 9900.0);
        assert!((found.alpha_nominal.expect("defined").mean - alpha).abs() < 1e-12);
        assert!((found.alpha_interval.expect("defined").mean - alpha).abs() < 1e-12);
        let never = agreements(&[&first, &of(&|i| i >= 25)], 1).pairs[0].share;
        assert!(never.mean == 0.0 && (never.high - 3.841_459 / 53.841_459).abs() < 1e-4, "{never:?}");
        assert!(agreements(&[&first], 1).pairs.is_empty() && agreements(&[], 1).alpha_nominal.is_none());
    }
}
