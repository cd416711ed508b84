//! The view of generations: page by page the prompts with what each model answered, side by side, and what judges said of them.
//! All of it lies in the page as data, of which its script draws what is asked for; the first page is there as HTML too, for
//! those without a script. It knows nothing of where answers and verdicts come from.

mod card;
mod data;

pub(super) use card::class;

use rpo::evaluate::judge::{Choice, Pairwise};

/// So many prompts are shown at a time.
const PAGE: usize = 25;

/// All that was generated. Numbers that are not finite are shown as unknown.
pub struct Generations<'a> {
    /// Who answered, in the order in which answers are shown.
    pub models: Vec<Contestant<'a>>,
    /// Who judged pairs of them; empty for nobody.
    pub judges: Vec<Judge<'a>>,
    /// What was measured of single answers.
    pub values: Vec<ValueColumn<'a>>,
    /// What was answered, with as many draws as there are of each model.
    pub prompts: Vec<Generated<'a>>,
    /// What the judges said, in any order, of answers that are there; a pair without a verdict counts as not judged.
    pub verdicts: Vec<Verdict>,
}

/// A model.
#[derive(Clone, Copy)]
pub struct Contestant<'a> {
    /// Its name; no two are the same.
    pub label: &'a str,
    /// Number of its colour, the same as in charts; none for what is no contestant.
    pub colour: Option<usize>,
}

/// Who says which of two answers is better.
#[derive(Clone, Copy)]
pub struct Judge<'a> {
    /// Its name.
    pub label: &'a str,
    /// Whether it can be trusted; one that cannot is named so beside each of its verdicts.
    pub trusted: bool,
}

/// A measure of single answers.
#[derive(Clone, Copy)]
pub struct ValueColumn<'a> {
    /// Its name, with its unit.
    pub label: &'a str,
    /// Digits that are shown behind the point.
    pub digits: usize,
}

/// A prompt with what each model answered.
pub struct Generated<'a> {
    /// Its text.
    pub prompt: &'a str,
    /// Answers that are known to be good; empty for none.
    pub references: Vec<&'a str>,
    /// What it served for, where that differs between prompts.
    pub part: Option<&'a str>,
    /// By model, then draw.
    pub answers: Vec<Vec<Answer<'a>>>,
}

/// What a model answered once.
pub struct Answer<'a> {
    /// Its text.
    pub text: &'a str,
    /// Its reward or rating.
    pub reward: Option<f64>,
    /// Of each of [`Generations::values`]; empty for none.
    pub values: Vec<Option<f64>>,
}

/// What a judge said of two models' answers to a prompt.
#[derive(Clone, Copy)]
pub struct Verdict {
    /// Number of the judge.
    pub judge: usize,
    /// Number of the prompt.
    pub prompt: usize,
    /// Numbers of the two models, in either order.
    pub models: [usize; 2],
    /// Number of the draw.
    pub draw: usize,
    /// As the first of the two has it.
    pub outcome: Outcome,
}

/// How a comparison ended for the first of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is preferred in both orders.
    Won,
    /// The other one is.
    Lost,
    /// Neither is.
    Tie,
    /// The one that is shown first is preferred in both orders, or the one that is shown second: the choice says nothing.
    Flip,
    /// The judge did not answer as it was asked to.
    Unparsed,
}

impl Outcome {
    /// Of two models' answers that were judged in both orders, for the first of the two.
    pub fn of(judged: &Pairwise) -> Self {
        match (judged.forward, judged.backward) {
            (Choice::Unparsed, _) | (_, Choice::Unparsed) => Self::Unparsed,
            (Choice::First, Choice::Second) => Self::Won,
            (Choice::Second, Choice::First) => Self::Lost,
            (Choice::First, Choice::First) | (Choice::Second, Choice::Second) => Self::Flip,
            _ => Self::Tie,
        }
    }

    /// As the other one has it.
    fn turned(self) -> Self {
        match self {
            Self::Won => Self::Lost,
            Self::Lost => Self::Won,
            same => same,
        }
    }
}

impl Generations<'_> {
    /// As HTML.
    pub fn html(&self) -> String {
        let outcomes = self.outcomes();
        let first: String = (0..self.prompts.len().min(PAGE)).map(|i| card::html(self, &outcomes, i)).collect();
        let n = self.prompts.len();
        let rest = match n > PAGE {
            true => format!(
                "<noscript><p class=\"quiet\">Without a script only the first {PAGE} of {n} prompts are shown; search, filters \
                 and the comparison word by word need one too. All answers lie in this file, in the element with the id \
                 <code>generations-data</code>.</p></noscript>"
            ),
            false => String::new(),
        };
        let data = data::json(self, &outcomes);
        format!(
            "<div class=\"generations\" id=\"generations\">{rest}<div class=\"cards\">{first}</div></div>\
             <script type=\"application/json\" id=\"generations-data\">{data}</script>"
        )
    }

    /// Draws of the model that has most.
    fn draws(&self) -> usize {
        self.prompts.iter().flat_map(|prompt| prompt.answers.iter().map(Vec::len)).max().unwrap_or(0)
    }

    /// Verdicts by prompt and judge; within these by pair, (0, 1), (0, 2), ... (1, 2), ..., and draw.
    fn outcomes(&self) -> Vec<Vec<Vec<Option<Outcome>>>> {
        let (models, draws) = (self.models.len(), self.draws());
        let none = vec![None; models * models.saturating_sub(1) / 2 * draws];
        let mut outcomes = vec![vec![none; self.judges.len()]; self.prompts.len()];
        for Verdict { judge, prompt, models: [a, b], draw, outcome } in &self.verdicts {
            assert!(a != b && a.max(b) < &models && *draw < draws, "a verdict on answers that are not there");
            let outcome = if a < b { *outcome } else { outcome.turned() };
            let place = pair(models, *a.min(b), *a.max(b)) * draws + draw;
            outcomes[*prompt][*judge][place] = Some(outcome);
        }
        outcomes
    }
}

/// The number of a pair of `n`, `a` before `b`.
fn pair(n: usize, a: usize, b: usize) -> usize {
    // Before (a, a + 1) there are n - 1 pairs with 0, n - 2 with 1, and so on.
    a * (2 * n - a - 1) / 2 + b - a - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_counted_row_by_row() {
        let pairs = (0..4).flat_map(|a| (a + 1..4).map(move |b| pair(4, a, b)));
        assert_eq!(pairs.collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_choice_that_follows_the_place_is_a_flip() {
        use Choice::{First, Second, Tie, Unparsed};
        let of = |(forward, backward)| {
            Outcome::of(&Pairwise { prompt: 0, seed: 0, models: [0, 1], forward, backward, lengths: [1, 1] })
        };
        let orders =
            [(First, Second), (Second, First), (First, First), (Second, Second), (Tie, First), (First, Unparsed)];
        let expected = [Outcome::Won, Outcome::Lost, Outcome::Flip, Outcome::Flip, Outcome::Tie, Outcome::Unparsed];
        assert_eq!(orders.map(of), expected);
    }

    #[test]
    fn verdicts_may_name_a_pair_either_way_round() {
        let label = |label| Contestant { label, colour: None };
        let answer = || vec![Answer { text: "", reward: None, values: vec![] }];
        let verdict = |models, outcome| Verdict { judge: 0, prompt: 0, models, draw: 0, outcome };
        let all = Generations {
            models: vec![label("a"), label("b"), label("c")],
            judges: vec![Judge { label: "j", trusted: true }],
            values: vec![],
            prompts: vec![Generated {
                prompt: "",
                references: vec![],
                part: None,
                answers: vec![answer(), answer(), answer()],
            }],
            verdicts: vec![verdict([2, 0], Outcome::Won), verdict([1, 2], Outcome::Flip)],
        };
        assert_eq!(all.outcomes(), [[[None, Some(Outcome::Lost), Some(Outcome::Flip)]]]);
    }
}
