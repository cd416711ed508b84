//! The demo's task: answers to customers, with a reward that is computed from the text alone. No training here.

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

const NAMES: [&str; 8] = ["ada", "ben", "cleo", "dan", "eva", "finn", "gil", "hana"];
const COLOURS: [&str; 6] = ["red", "blue", "green", "black", "white", "yellow"];
const ITEMS: [&str; 6] = ["lamp", "chair", "kettle", "coat", "bike", "radio"];
/// What happened, and the word of the action that fits.
const PROBLEMS: [(&str, &str); 4] =
    [("arrived broken", "replace"), ("never came", "trace"), ("is too small", "exchange"), ("cost too much", "refund")];
const POLITE: [&str; 2] = ["sorry", "apologies"];
const NEUTRAL: [&str; 2] = ["hello", "hi"];
const RUDE: [&str; 2] = ["whatever", "nonsense"];
/// Words beyond this many cost reward, so that rambling does not pay.
const WORDS: usize = 9;
/// The reward of a perfect answer.
pub const BEST: f64 = 2.5;

/// A customer's message, as the index of each part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prompt {
    name: usize,
    colour: usize,
    item: usize,
    problem: usize,
}

impl Prompt {
    /// All messages there are.
    pub fn all() -> Vec<Self> {
        let parts = (NAMES.len(), COLOURS.len(), ITEMS.len(), PROBLEMS.len());
        (0..parts.0 * parts.1 * parts.2 * parts.3)
            .map(|i| Self {
                name: i % parts.0,
                colour: i / parts.0 % parts.1,
                item: i / parts.0 / parts.1 % parts.2,
                problem: i / parts.0 / parts.1 / parts.2,
            })
            .collect()
    }

    /// Its text.
    pub fn text(self) -> String {
        let Self { name, colour, item, problem } = self;
        format!("{} says the {} {} {}", NAMES[name], COLOURS[colour], ITEMS[item], PROBLEMS[problem].0)
    }

    /// The reward of `answer`: 1 for naming the customer's item by colour and kind, 1 for the one action that fits,
    /// 1/2 for an apology, -1 for rudeness, -1/4 for each word that is repeated or beyond the ninth. At most [`BEST`].
    pub fn reward(self, answer: &str) -> f64 {
        let words: Vec<&str> = answer.split_whitespace().collect();
        let says = |word: &str| words.contains(&word);
        let only = |all: &[&str], right: &str| says(right) && all.iter().all(|w| *w == right || !says(w));
        let actions = PROBLEMS.map(|(_, action)| action);
        let mut reward = 0.0;
        if only(&COLOURS, COLOURS[self.colour]) && only(&ITEMS, ITEMS[self.item]) {
            reward += 1.0;
        }
        if only(&actions, PROBLEMS[self.problem].1) {
            reward += 1.0;
        }
        if POLITE.iter().any(|w| says(w)) {
            reward += 0.5;
        }
        if RUDE.iter().any(|w| says(w)) {
            reward -= 1.0;
        }
        let repeated = words.iter().enumerate().filter(|(i, w)| words[..*i].contains(w)).count();
        reward - 0.25 * (repeated + words.len().saturating_sub(WORDS)) as f64
    }

    /// An answer of mixed quality, such as people with and without patience give.
    pub fn answer(self, rng: &mut impl Rng) -> String {
        let pick = |words: &[&'static str], rng: &mut _| -> &'static str { words.choose(rng).copied().unwrap_or("") };
        let opening = match rng.random_range(0..10) {
            0..3 => pick(&POLITE, rng),
            3..7 => pick(&NEUTRAL, rng),
            _ => pick(&RUDE, rng),
        };
        let (colour, item) = match rng.random_bool(0.6) {
            true => (COLOURS[self.colour], ITEMS[self.item]),
            false => (pick(&COLOURS, rng), pick(&ITEMS, rng)),
        };
        let action = match rng.random_bool(0.4) {
            true => PROBLEMS[self.problem].1,
            false => pick(&PROBLEMS.map(|(_, action)| action), rng),
        };
        format!("{opening} {} we {action} your {colour} {item}", NAMES[self.name])
    }
}

/// A `tokenizer.json` of the task's whole words.
pub fn tokenizer() -> String {
    let phrases = PROBLEMS.iter().flat_map(|(problem, action)| problem.split(' ').chain([*action]));
    let mut words: Vec<&str> = ["says", "the", "we", "your"].into_iter().chain(phrases).collect();
    for list in [&NAMES[..], &COLOURS, &ITEMS, &POLITE, &NEUTRAL, &RUDE] {
        words.extend(list);
    }
    words.sort_unstable();
    words.dedup();
    rpo::tokenizer::word_level(&words)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn rewards_by_hand() {
        let prompt = Prompt { name: 0, colour: 0, item: 0, problem: 0 };
        assert_eq!(prompt.text(), "ada says the red lamp arrived broken");
        for (answer, reward) in [
            ("sorry ada we replace your red lamp", 2.5),
            ("hello ada we replace your red lamp", 2.0),
            ("whatever ada we refund your blue coat", -1.0),
            ("sorry ada we replace refund trace your red blue lamp", 0.25),
            ("sorry sorry sorry", 0.0),
            ("", 0.0),
        ] {
            assert_eq!(prompt.reward(answer), reward, "{answer}");
        }
    }

    #[test]
    fn behaviour_is_mixed_and_never_beats_the_best() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let rewards: Vec<f64> = Prompt::all().into_iter().map(|p| p.reward(&p.answer(&mut rng))).collect();
        let mean = rewards.iter().sum::<f64>() / rewards.len() as f64;
        assert!(rewards.iter().all(|r| (-1.0..=BEST).contains(r)) && mean > 0.3 && mean < 1.5, "{mean}");
    }
}
