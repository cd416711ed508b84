//! Models in pairs: each prompt's responses are judged in both orders.

use std::collections::HashMap;

use super::{Case, Choice, Court, Outcome, Pairwise, Tally, Verdict};
use crate::error::{Error, Result};

/// What pairs came to.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// By prompt, seed and models.
    pub pairs: Vec<Pairwise>,
    /// Pairs of which at least one order has no reply; they are not among the pairs.
    pub incomplete: usize,
    /// Counts of questions and calls.
    pub tally: Tally,
}

/// A pair of responses by models, prompt and seed.
type Place = (usize, usize, [usize; 2]);

/// How many questions [`pairwise`] asks of the same models, if none of them was asked before.
pub fn questions(answers: &[Vec<Vec<String>>], pairs: &[[usize; 2]]) -> usize {
    2 * places(answers, pairs).filter(|place| !is_identical(answers, *place)).count()
}

fn places<'a>(answers: &'a [Vec<Vec<String>>], pairs: &'a [[usize; 2]]) -> impl Iterator<Item = Place> + 'a {
    let seeds = answers.first().map_or(0, Vec::len);
    let prompts = answers.first().and_then(|of_model| of_model.first()).map_or(0, Vec::len);
    let by_seed = move |prompt| (0..seeds).map(move |seed| (prompt, seed));
    (0..prompts).flat_map(by_seed).flat_map(move |(prompt, seed)| pairs.iter().map(move |pair| (prompt, seed, *pair)))
}

fn is_identical(answers: &[Vec<Vec<String>>], (prompt, seed, [a, b]): Place) -> bool {
    answers[a][seed][prompt] == answers[b][seed][prompt]
}

/// Has `pairs` of models judged in both orders. `answers` is by model, seed and prompt; `prompts` are the users' own texts. Equal
/// responses are ties without a question. `told` hears counts again and again.
///
/// # Errors
/// As [`Court::hear`], and if models have different numbers of seeds or of answers, or a pair names no two models.
pub fn pairwise(
    court: &Court<'_>,
    prompts: &[String],
    answers: &[Vec<Vec<String>>],
    pairs: &[[usize; 2]],
    told: &mut dyn FnMut(&Tally),
) -> Result<Judged> {
    check(prompts, answers, pairs)?;
    let mut judged = Judged::default();
    let mut identical = 0;
    let pair = |(prompt, seed, models): Place, forward, backward| {
        let lengths = models.map(|model| answers[model][seed][prompt].chars().count());
        Pairwise { prompt, seed, models, forward, backward, lengths }
    };
    for place in places(answers, pairs).filter(|place| is_identical(answers, *place)) {
        identical += 1;
        judged.pairs.push(pair(place, Choice::Tie, Choice::Tie));
    }
    let asked = places(answers, pairs).filter(|place| !is_identical(answers, *place)).flat_map(|place| {
        let (prompt, seed, [a, b]) = place;
        let text = |model: usize| answers[model][seed][prompt].clone();
        let case = |first, second| Case::Pair { prompt: prompts[prompt].clone(), first, second };
        [Ok(((place, true), case(text(a), text(b)))), Ok(((place, false), case(text(b), text(a))))]
    });
    // Orders whose other one is under way.
    let mut halves: HashMap<Place, Option<Choice>> = HashMap::new();
    let mut each = |(place, forward): (Place, bool), outcome: Outcome| {
        let choice = match outcome {
            Outcome::Heard(heard) => match heard.verdict {
                Verdict::Choice(choice) => Some(choice),
                Verdict::Rating(_) => None,
            },
            Outcome::Failed(_) | Outcome::Unasked => None,
        };
        let Some(other) = halves.remove(&place) else {
            halves.insert(place, choice);
            return Ok(());
        };
        match (choice, other, forward) {
            (Some(this), Some(other), true) => judged.pairs.push(pair(place, this, other)),
            (Some(this), Some(other), false) => judged.pairs.push(pair(place, other, this)),
            _ => judged.incomplete += 1,
        }
        Ok(())
    };
    let tally = court.hear(asked, &mut each, &mut |tally| told(&Tally { identical, ..tally.clone() }))?;
    judged.tally = Tally { identical, ..tally };
    judged.pairs.sort_by_key(|pair| (pair.prompt, pair.seed, pair.models));
    Ok(judged)
}

fn check(prompts: &[String], answers: &[Vec<Vec<String>>], pairs: &[[usize; 2]]) -> Result<()> {
    let seeds = answers.first().map_or(0, Vec::len);
    for (model, of_model) in answers.iter().enumerate() {
        if of_model.len() != seeds {
            let (n, first) = (of_model.len(), seeds);
            return Err(Error::Data(format!("model {model} has answers of {n} seeds, and model 0 of {first}")));
        }
        if let Some((seed, all)) = of_model.iter().enumerate().find(|(_, all)| all.len() != prompts.len()) {
            let (n, prompts) = (all.len(), prompts.len());
            return Err(Error::Data(format!("model {model}, seed {seed}: {n} answers to {prompts} prompts")));
        }
    }
    match pairs.iter().find(|[a, b]| a >= b || *b >= answers.len()) {
        Some(pair) => {
            Err(Error::Data(format!("{pair:?} are no two of {} models, the smaller number first", answers.len())))
        }
        None => Ok(()),
    }
}
