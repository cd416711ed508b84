//! How a judge answers: whether it reads what it is shown.

use serde::{Deserialize, Serialize};

use super::super::Estimate;
use super::super::judge::{Choice, Pairwise};
use super::by_prompt;
use crate::statistics::{mean, pairing_test, share_interval};

/// How a judge answered. A judgement is two calls: the same two responses in both orders.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Diagnostics {
    /// Judgements.
    pub judgements: usize,
    /// Of the two calls of each, those not answered as asked.
    pub unparsed_calls: usize,
    /// Judgements of which both calls were answered.
    pub answered: usize,
    /// Calls answered that neither is better.
    pub tied_calls: usize,
    /// Judgements in which both calls chose a response: those that the rest is about.
    pub decided: usize,
    /// Of these, how many chose the same response both times.
    pub consistent: usize,
    /// Of these, how many chose the same place, and so another response, when the order turned.
    pub flips: usize,
    /// Share of consistent judgements of those decided.
    pub consistency: Option<Estimate>,
    /// The share that calls which choose places as often, without regard to the responses, would have by chance.
    pub chance_consistency: Option<f64>,
    /// How probable at least so many consistent judgements are by such chance ([`crate::statistics::pairing_test`]).
    pub p: f64,
    /// Share of calls that chose the response shown first, of all that chose.
    pub first: Option<Estimate>,
    /// Share of calls that chose the longer response, of all that chose between responses of different lengths.
    pub longer: Option<Estimate>,
}

/// Whether a judge's answers tell responses apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It chooses the same response in both orders more often than chance allows (5 %).
    Sound,
    /// It does not, and prefers a place: its answers cannot be told from answers that go by the order alone.
    PositionOnly,
    /// It does not, and prefers no place: its answers cannot be told from thrown coins.
    Chance,
    /// It nearly always answers that neither is better.
    Undecided,
    /// Fewer than half of its answers are such as were asked for.
    Unreadable,
    /// So few judgements are decided that even complete consistency could be chance: fewer than seven.
    TooFew,
}

impl Verdict {
    /// Whether rates by this judge may stand; if not, they are struck out.
    pub fn is_sound(self) -> bool {
        self == Self::Sound
    }

    /// What it means, as a sentence for a report.
    pub fn says(self) -> &'static str {
        match self {
            Self::Sound => "It chooses the same response in both orders more often than chance allows.",
            Self::PositionOnly => {
                "Its choice follows the order in which responses are shown: it cannot be told from a judge that does not read them, \
                 and its win rates are struck out."
            }
            Self::Chance => {
                "Its choices in the two orders agree no more than thrown coins would: its win rates are struck out."
            }
            Self::Undecided => {
                "It nearly always answers that neither is better: its win rates say nothing and are struck out."
            }
            Self::Unreadable => {
                "Most of its answers are not such as were asked for: what remains is a selection, and its win rates are struck out."
            }
            Self::TooFew => {
                "Too few judgements are decided to tell whether it reads the responses: its win rates are struck out."
            }
        }
    }
}

impl Diagnostics {
    /// Share of calls that were not answered as asked.
    pub fn unparsed_share(&self) -> Option<f64> {
        (self.judgements > 0).then(|| self.unparsed_calls as f64 / (2 * self.judgements) as f64)
    }

    /// Share of answered judgements in which the choice turned with the order.
    pub fn flip_rate(&self) -> Option<f64> {
        (self.answered > 0).then(|| self.flips as f64 / self.answered as f64)
    }

    /// Whether the answers tell responses apart, at a level of 5 %. Judgements count as independent, also those of one prompt.
    pub fn verdict(&self) -> Verdict {
        let prefers_a_place = || self.first.is_some_and(|f| f.interval.low > 0.5 || f.interval.high < 0.5);
        if self.unparsed_share().is_some_and(|share| share > 0.5) {
            Verdict::Unreadable
        } else if pairing_test(self.decided, self.decided, self.decided) >= 0.05 {
            if self.answered >= 20 && self.tied_calls > self.answered { Verdict::Undecided } else { Verdict::TooFew }
        } else if self.p < 0.05 {
            Verdict::Sound
        } else if prefers_a_place() {
            Verdict::PositionOnly
        } else {
            Verdict::Chance
        }
    }
}

/// How the judge of these judgements answered. Intervals are Wilson's, with prompts for items: calls about one prompt are not
/// independent.
pub fn diagnostics(judgements: &[Pairwise]) -> Diagnostics {
    let calls = |j: &Pairwise| [j.forward, j.backward];
    let chose = |choice: &Choice| matches!(choice, Choice::First | Choice::Second);
    let count = |what: fn(&Choice) -> bool| judgements.iter().flat_map(calls).filter(what).count();
    let decided: Vec<&Pairwise> = judgements.iter().filter(|j| calls(j).iter().all(chose)).collect();
    let consistent = decided.iter().filter(|j| j.forward != j.backward).count();
    let firsts = decided.iter().flat_map(|j| calls(j)).filter(|choice| *choice == Choice::First).count();
    let (n, k) = (decided.len() as f64, firsts as f64);
    // For each call that chose: whether it is such as `is` says; `None` for calls that do not count.
    let share = |is: fn(&Pairwise, [Choice; 2]) -> [Option<bool>; 2]| {
        let prompts = by_prompt(judgements, |j| {
            let told: Vec<f64> = is(j, calls(j)).into_iter().flatten().map(|is| f64::from(u8::from(is))).collect();
            (!told.is_empty()).then_some(told)
        });
        let prompts: Vec<Vec<f64>> = prompts.into_values().map(|told| told.concat()).collect();
        let shares: Vec<f64> = prompts.iter().filter_map(|told| mean(told)).collect();
        let n = prompts.iter().map(Vec::len).sum();
        mean(&shares).map(|share| Estimate { interval: share_interval(share, shares.len()), n })
    };
    Diagnostics {
        judgements: judgements.len(),
        unparsed_calls: count(|choice| *choice == Choice::Unparsed),
        answered: judgements.iter().filter(|j| j.points().is_some()).count(),
        tied_calls: count(|choice| *choice == Choice::Tie),
        decided: decided.len(),
        consistent,
        flips: decided.len() - consistent,
        consistency: share(|_, calls| {
            let [forward, backward] = calls.map(first);
            [forward.zip(backward).map(|(forward, backward)| forward != backward), None]
        }),
        // A call's partner is one of the others: k (2n - k) / (n (2n - 1)).
        chance_consistency: (n > 0.0).then(|| k * (2.0 * n - k) / (n * (2.0 * n - 1.0))),
        p: pairing_test(decided.len(), firsts, consistent),
        first: share(|_, calls| calls.map(first)),
        longer: share(|j, [forward, backward]| {
            let [ours, theirs] = j.lengths;
            let ours_longer = (ours != theirs).then_some(ours > theirs);
            [
                ours_longer.zip(first(forward)).map(|(longer, first)| longer == first),
                ours_longer.zip(first(backward)).map(|(longer, first)| longer != first),
            ]
        }),
    }
}

/// Whether the response shown first was chosen; `None` where none was.
fn first(choice: Choice) -> Option<bool> {
    match choice {
        Choice::First => Some(true),
        Choice::Second => Some(false),
        Choice::Tie | Choice::Unparsed => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{point, said};
    use super::*;
    use Choice::{First, Second, Tie, Unparsed};

    #[test]
    fn counts_and_shares_by_hand() {
        // Prompt 0: consistent for the longer; prompt 1: First twice, a flip; prompt 2: a tie in one order; prompt 3: unparsed.
        let found = diagnostics(&[
            said(0, 0, First, Second),
            said(1, 0, First, First),
            said(2, 0, Tie, Second),
            said(3, 0, Unparsed, First),
        ]);
        assert_eq!((found.judgements, found.unparsed_calls, found.answered, found.tied_calls), (4, 1, 3, 1));
        assert_eq!((found.decided, found.consistent, found.flips, found.flip_rate()), (2, 1, 1, Some(1.0 / 3.0)));
        // By prompts: 1/2, 1, 0 and 1 of the calls that chose went to the first.
        let first = found.first.expect("six calls chose");
        assert_eq!((first.interval.mean, first.n), (0.625, 6));
        // The first model's response is longer: 1, 1/2, 1 and 0.
        assert_eq!(found.longer.expect("lengths differ").interval.mean, 0.625);
        assert_eq!(found.consistency.expect("two decided").interval.mean, 0.5);
        // Two pairs with three firsts: one is mixed for certain, of two.
        assert_eq!(found.chance_consistency, Some(0.5));
        assert!((found.p - 1.0).abs() < 1e-9);
        assert_eq!(found.unparsed_share(), Some(1.0 / 8.0));
    }

    #[test]
    fn judges_that_do_not_read_are_told_from_one_that_does() {
        let verdict = |said: &dyn Fn(usize) -> Pairwise| diagnostics(&(0..40).map(said).collect::<Vec<_>>()).verdict();
        // Always the first, as a model of 135 million parameters answers, and with one slip.
        assert_eq!(verdict(&|i| said(i, 0, First, First)), Verdict::PositionOnly);
        assert_eq!(verdict(&|i| said(i, 0, First, if i == 7 { Second } else { First })), Verdict::PositionOnly);
        assert_eq!(verdict(&|i| said(i, 0, Second, Second)), Verdict::PositionOnly);
        // All four pairs of answers alike: coins.
        let coin = |i: usize| if i.is_multiple_of(2) { First } else { Second };
        assert_eq!(verdict(&|i| said(i, 0, coin(i), coin(i / 2))), Verdict::Chance);
        // One that always prefers the same model reads: its answers turn with the order.
        assert_eq!(verdict(&|i| said(i, 0, First, Second)), Verdict::Sound);
        // A third of flips, but far from chance.
        assert_eq!(verdict(&|i| said(i, 0, First, if i % 3 == 0 { First } else { Second })), Verdict::Sound);
        assert_eq!(verdict(&|i| point(i, 0, [0, 1], 0.5)), Verdict::Undecided);
        assert_eq!(verdict(&|i| said(i, 0, Unparsed, if i % 9 == 0 { Unparsed } else { First })), Verdict::Unreadable);
        let few: Vec<Pairwise> = (0..6).map(|i| said(i, 0, First, Second)).collect();
        assert_eq!(diagnostics(&few).verdict(), Verdict::TooFew);
        assert!(!Verdict::PositionOnly.is_sound() && Verdict::Sound.is_sound());
    }
}
