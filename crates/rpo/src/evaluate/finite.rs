//! A problem small enough to be solved exactly: every response can be enumerated, so that the optimum of reward under a
//! KL penalty, and how far any policy is from it, are sums. It is what objectives are judged on.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::feedback::{FeedbackSet, PromptGroup, Response};
use crate::model::{Config, Model};
use crate::score::score_set;
use crate::statistics::{log_sum_exp, mean};

/// The model's `</s>`.
const END: u32 = 1;
/// The first id of a word; below are `<pad>`, `</s>` and `<unk>`.
const FIRST_WORD: u32 = 3;
const PROMPT_WORDS: usize = 6;
const RESPONSE_WORDS: usize = 3;
const RESPONSE_LENGTH: usize = 3;

/// 36 prompts of two words, responses of up to three, and a reward for each pair.
#[derive(Clone, Debug)]
pub struct FiniteProblem {
    prompts: Vec<Vec<u32>>,
    responses: Vec<Vec<u32>>,
    /// `r(x, y)`, by prompt and response; mean 0 and standard deviation 1 over all pairs.
    rewards: Vec<Vec<f64>>,
    /// What a crowd answers, as logits by prompt and response: a start is taught to imitate it.
    crowd: Table,
}

/// `log pi(y|x)` of every response, by prompt; each row normalised.
#[derive(Clone, Debug, PartialEq)]
pub struct Table(Vec<Vec<f64>>);

/// What a model gives to the responses of the problem, and not to other texts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mass {
    /// `P(x)`, their probability in all; mean over the prompts.
    pub mean: f64,
    /// `-ln P(x)` in nats, mean over the prompts: `KL(pi(.|x, a response of the problem) || pi(.|x))`, what it costs to have
    /// to leave other texts out.
    pub surprise: f64,
}

/// How long the responses are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lengths {
    /// Three words: 27 responses.
    #[default]
    Equal,
    /// One to three words: 39 responses, whose summed and mean log-probabilities are ordered differently.
    Unequal,
}

/// Which responses a prompt gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Responses {
    /// This many draws from the reference.
    Each(usize),
    /// This many draws in which all responses are equally likely: off-policy.
    Uniform(usize),
    /// As many draws as this on average: one or two for one half of the prompts, the rest for the other.
    Unequal(usize),
    /// Every response there is, once.
    All,
}

impl FiniteProblem {
    /// A problem whose rewards and crowd are decided by `seed`: sums of random terms for each word in its place beside
    /// each word of the prompt, and for each pair of neighbouring words.
    pub fn new(seed: u64, lengths: Lengths) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let shortest = match lengths {
            Lengths::Equal => RESPONSE_LENGTH,
            Lengths::Unequal => 1,
        };
        let prompts = words(PROMPT_WORDS, 2);
        let responses: Vec<Vec<usize>> =
            (shortest..=RESPONSE_LENGTH).flat_map(|length| words(RESPONSE_WORDS, length)).collect();
        let mut random_table = |scale: f64| {
            let mut draw = |n: usize| -> Vec<f64> {
                (0..n).map(|_| -> f64 { StandardNormal.sample(&mut rng) }).map(|z| scale * z).collect()
            };
            let by_word = draw(2 * PROMPT_WORDS * RESPONSE_LENGTH * RESPONSE_WORDS);
            let by_pair = draw(RESPONSE_WORDS * RESPONSE_WORDS);
            let value = |prompt: &[usize], response: &[usize]| -> f64 {
                let word = |side: usize, place: usize| {
                    ((side * PROMPT_WORDS + prompt[side]) * RESPONSE_LENGTH + place) * RESPONSE_WORDS + response[place]
                };
                let words: f64 = (0..response.len()).map(|k| by_word[word(0, k)] + by_word[word(1, k)]).sum();
                words + response.windows(2).map(|w| by_pair[w[0] * RESPONSE_WORDS + w[1]]).sum::<f64>()
            };
            let row = |prompt: &Vec<usize>| responses.iter().map(|response| value(prompt, response)).collect();
            prompts.iter().map(row).collect::<Vec<Vec<f64>>>()
        };
        let crowd = Table::normalised(random_table(0.5));
        let rewards = standardised(random_table(1.0));
        let ids = |texts: &[Vec<usize>], first: u32| -> Vec<Vec<u32>> {
            texts.iter().map(|t| t.iter().map(|&w| first + w as u32).chain([END]).collect()).collect()
        };
        let first_response_word = FIRST_WORD + PROMPT_WORDS as u32;
        Self { prompts: ids(&prompts, FIRST_WORD), responses: ids(&responses, first_response_word), rewards, crowd }
    }

    /// A T5 small enough to be trained hundreds of times.
    ///
    /// # Panics
    /// Never: the text is valid.
    pub fn config() -> Config {
        let vocabulary = FIRST_WORD as usize + PROMPT_WORDS + RESPONSE_WORDS;
        let text = format!(
            r#"{{"model_type":"t5","vocab_size":{vocabulary},"d_model":32,"d_kv":8,"d_ff":64,"num_layers":1,
                "num_decoder_layers":2,"num_heads":4,"feed_forward_proj":"gated-gelu","tie_word_embeddings":false}}"#
        );
        Config::parse(&text).unwrap_or_else(|problem| unreachable!("{problem}"))
    }

    /// `draws` responses of the crowd to each prompt, each its own row.
    pub fn behaviour(&self, draws: usize, seed: u64) -> FeedbackSet {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let drawn = |x: usize| (0..draws).map(|_| (self.crowd.draw(x, &mut rng), 0.0)).collect();
        self.set((0..self.prompts.len()).map(drawn).collect())
    }

    /// Rated responses, those that are not [`Responses::Uniform`] drawn from `reference`, repetitions merged; `noise` is the standard deviation of what is added to
    /// each rating.
    pub fn feedback(&self, reference: &Table, responses: Responses, noise: f64, seed: u64) -> FeedbackSet {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let rows = (0..self.prompts.len()).map(|x| {
            let drawn: Vec<usize> = match responses {
                Responses::All => (0..self.responses.len()).collect(),
                Responses::Each(n) => (0..n).map(|_| reference.draw(x, &mut rng)).collect(),
                Responses::Uniform(n) => (0..n).map(|_| rng.random_range(0..self.responses.len())).collect(),
                Responses::Unequal(mean) => {
                    let few = 1 + rng.random_range(0..2);
                    let n = if x.is_multiple_of(2) { few } else { 2 * mean - few };
                    (0..n).map(|_| reference.draw(x, &mut rng)).collect()
                }
            };
            let rated = |y: usize| {
                let error: f64 = StandardNormal.sample(&mut rng);
                (y, self.rewards[x][y] + noise * error)
            };
            drawn.into_iter().map(rated).collect()
        });
        self.set(rows.collect())
    }

    /// Groups of (response, reward), equal responses merged at their mean reward.
    fn set(&self, rows: Vec<Vec<(usize, f64)>>) -> FeedbackSet {
        let mut row = 0;
        let groups = self.prompts.iter().zip(rows).map(|(prompt, rated)| {
            let mut responses: Vec<Response> = Vec::new();
            for (y, reward) in rated {
                match responses.iter_mut().find(|r| r.ids == self.responses[y]) {
                    Some(known) => known.merge(reward),
                    None => {
                        responses.push(Response {
                            row,
                            ids: self.responses[y].clone(),
                            truncated: false,
                            reward,
                            copies: 1,
                        });
                        row += 1;
                    }
                }
            }
            PromptGroup { prompt: prompt.clone(), first_row: 0, responses }
        });
        FeedbackSet { groups: groups.collect() }
    }

    /// The probabilities that `model` gives to the responses, as shares of their sum, and that sum.
    ///
    /// # Errors
    /// If the device fails.
    pub fn table(&self, model: &Model) -> crate::Result<(Table, Mass)> {
        let every = vec![(0..self.responses.len()).map(|y| (y, 0.0)).collect(); self.prompts.len()];
        let data = self.set(every);
        let mut log_probs = vec![0.0; data.responses()];
        for (row, sum) in score_set(model, &data, 8192, &mut |_| Ok(()))? {
            log_probs[row] = f64::from(sum);
        }
        let rows: Vec<Vec<f64>> = log_probs.chunks(self.responses.len()).map(<[f64]>::to_vec).collect();
        let mass = Mass::of(&rows);
        Ok((Table::normalised(rows), mass))
    }

    /// `pi*(y|x)`, proportional to `pi_ref(y|x) exp(r(x, y) / tau)`.
    pub fn optimum(&self, reference: &Table, tau: f64) -> Table {
        reference.tilted(&self.rewards, tau)
    }

    /// `q(x, y)`, the quantile of a reward under `reference`: its probability of a smaller reward, and half of that of an
    /// equal one, which `y` itself has. By prompt and response.
    pub fn quantiles(&self, reference: &Table) -> Vec<Vec<f64>> {
        let row = |(log_probs, rewards): (&Vec<f64>, &Vec<f64>)| -> Vec<f64> {
            let share = |r: f64, other: f64| f64::from(u8::from(other < r)) + 0.5 * f64::from(u8::from(other == r));
            let quantile = |r: &f64| log_probs.iter().zip(rewards).map(|(l, other)| l.exp() * share(*r, *other)).sum();
            rewards.iter().map(quantile).collect()
        };
        reference.0.iter().zip(&self.rewards).map(row).collect()
    }

    /// `-ln pi(D|x)` in nats, `D` being the responses with a reward of at least `threshold`: `KL(p || pi)` of the nearest
    /// `p` that answers with nothing else. Mean over the prompts that have such a response; `None` if there are none.
    pub fn surprise_at_desirable(&self, policy: &Table, threshold: f64) -> Option<f64> {
        let row = |(log_probs, rewards): (&Vec<f64>, &Vec<f64>)| {
            let desirable = log_probs.iter().zip(rewards).filter(|(_, r)| **r >= threshold);
            desirable.clone().next()?;
            Some(-log_sum_exp(desirable.map(|(l, _)| *l)))
        };
        mean(&policy.0.iter().zip(&self.rewards).filter_map(row).collect::<Vec<_>>())
    }

    /// Mean over the prompts of the expected reward.
    pub fn expected_reward(&self, policy: &Table) -> f64 {
        let row = |(log_probs, rewards): (&Vec<f64>, &Vec<f64>)| {
            log_probs.iter().zip(rewards).map(|(l, r)| l.exp() * r).sum::<f64>()
        };
        policy.0.iter().zip(&self.rewards).map(row).sum::<f64>() / policy.0.len() as f64
    }
}

impl Mass {
    /// Of log-probabilities by prompt and response.
    fn of(log_probs: &[Vec<f64>]) -> Self {
        let log_masses = log_probs.iter().map(|row| log_sum_exp(row.iter().copied()));
        let (sum, surprise) = log_masses.fold((0.0, 0.0), |(p, s), l| (p + l.exp(), s - l));
        // Rounding may have put the sum above one.
        Self { mean: sum / log_probs.len() as f64, surprise: (surprise / log_probs.len() as f64).max(0.0) }
    }
}

impl Table {
    /// Logits to log-probabilities.
    fn normalised(mut logits: Vec<Vec<f64>>) -> Self {
        for row in &mut logits {
            let z = log_sum_exp(row.iter().copied());
            row.iter_mut().for_each(|l| *l -= z);
        }
        Self(logits)
    }

    /// Proportional to `self(y|x) exp(rewards(x, y) / tau)`: the policy with the most of these rewards under a penalty of
    /// `tau KL(. || self)`. `rewards` by prompt and response.
    #[must_use]
    pub fn tilted(&self, rewards: &[Vec<f64>], tau: f64) -> Self {
        let row = |(log_probs, rewards): (&Vec<f64>, &Vec<f64>)| {
            log_probs.iter().zip(rewards).map(|(l, r)| l + r / tau).collect()
        };
        Self::normalised(self.0.iter().zip(rewards).map(row).collect())
    }

    /// `KL(self || other)` in nats, mean over the prompts.
    pub fn kl(&self, other: &Self) -> f64 {
        let row = |(a, b): (&Vec<f64>, &Vec<f64>)| a.iter().zip(b).map(|(a, b)| a.exp() * (a - b)).sum::<f64>();
        self.0.iter().zip(&other.0).map(row).sum::<f64>() / self.0.len() as f64
    }

    fn draw(&self, prompt: usize, rng: &mut impl Rng) -> usize {
        let mut left: f64 = rng.random();
        let row = &self.0[prompt];
        let found = row.iter().position(|l| {
            left -= l.exp();
            left < 0.0
        });
        found.unwrap_or(row.len() - 1)
    }
}

/// Every sequence of `length` of `n` words.
fn words(n: usize, length: usize) -> Vec<Vec<usize>> {
    (0..n.pow(length as u32)).map(|i| (0..length).map(|k| i / n.pow(k as u32) % n).collect()).collect()
}

/// With mean 0 and standard deviation 1 over all the values.
fn standardised(mut rows: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let all: Vec<f64> = rows.iter().flatten().copied().collect();
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    let sd = (all.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / all.len() as f64).sqrt();
    rows.iter_mut().flatten().for_each(|r| *r = (*r - mean) / sd);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_optimum_by_hand() {
        let mut problem = FiniteProblem::new(1, Lengths::Equal);
        problem.rewards = vec![vec![0.0, 2.0 * 3f64.ln()]];
        let reference = Table(vec![vec![0.75f64.ln(), 0.25f64.ln()]]);
        // 3/4 * 1 and 1/4 * 3 at tau = 2: one half each.
        let best = problem.optimum(&reference, 2.0);
        assert!(best.0[0].iter().all(|l| (l - 0.5f64.ln()).abs() < 1e-12));
        assert!((problem.expected_reward(&best) - 3f64.ln()).abs() < 1e-12);
        let kl = 0.5 * (0.5f64 / 0.75).ln() + 0.5 * (0.5f64 / 0.25).ln();
        assert!((best.kl(&reference) - kl).abs() < 1e-12);
    }

    #[test]
    fn what_a_policy_misses_is_tau_times_its_distance_to_the_optimum() {
        let problem = FiniteProblem::new(1, Lengths::Equal);
        let (reference, policy) = (problem.crowd.clone(), FiniteProblem::new(2, Lengths::Equal).crowd);
        for tau in [0.1, 1.0, 5.0] {
            let worth = |p: &Table| problem.expected_reward(p) - tau * p.kl(&reference);
            let best = problem.optimum(&reference, tau);
            let missed = worth(&best) - worth(&policy);
            assert!((missed - tau * policy.kl(&best)).abs() < 1e-9, "tau {tau}");
        }
    }

    #[test]
    fn draws_follow_their_distribution_and_repetitions_are_merged() {
        let problem = FiniteProblem::new(1, Lengths::Equal);
        let drawn = problem.feedback(&problem.crowd, Responses::Each(20_000), 0.0, 3);
        for (x, group) in drawn.groups.iter().enumerate().take(3) {
            let copies: usize = group.responses.iter().map(|r| r.copies).sum();
            assert_eq!(copies, 20_000);
            for r in &group.responses {
                let y = problem.responses.iter().position(|ids| *ids == r.ids).expect("a response");
                let share = r.copies as f64 / 20_000.0;
                assert!((share - problem.crowd.0[x][y].exp()).abs() < 0.015);
                assert!((r.reward - problem.rewards[x][y]).abs() < 1e-9);
            }
        }
        let unequal = problem.feedback(&problem.crowd, Responses::Unequal(4), 1.0, 3);
        let draws = |g: &PromptGroup| g.responses.iter().map(|r| r.copies).sum::<usize>();
        let total: usize = unequal.groups.iter().map(draws).sum();
        assert!((total as f64 / unequal.groups.len() as f64 - 4.0).abs() < 0.5);
        assert!(unequal.groups.iter().any(|g| draws(g) == 1) && unequal.groups.iter().any(|g| draws(g) == 7));
        assert_eq!(problem.feedback(&problem.crowd, Responses::All, 0.0, 3).responses(), 36 * 27);
    }

    #[test]
    fn off_policy_draws_are_equally_likely() {
        let problem = FiniteProblem::new(1, Lengths::Equal);
        let drawn = problem.feedback(&problem.crowd, Responses::Uniform(27_000), 0.0, 3);
        for group in drawn.groups.iter().take(3) {
            assert_eq!(group.responses.len(), 27);
            // A thousand each, standard deviation 31.
            assert!(group.responses.iter().all(|r| r.copies.abs_diff(1000) < 160));
        }
    }

    #[test]
    fn responses_of_unequal_length_are_all_sequences_of_one_to_three_words() {
        let problem = FiniteProblem::new(1, Lengths::Unequal);
        // With `</s>`: 3 of two tokens, 9 of three, 27 of four.
        let of = |length: usize| problem.responses.iter().filter(|ids| ids.len() == length).count();
        assert_eq!([of(1), of(2), of(3), of(4), of(5)], [0, 3, 9, 27, 0]);
        let different: std::collections::HashSet<_> = problem.responses.iter().collect();
        assert_eq!(different.len(), 39);
        let all: Vec<f64> = problem.rewards.iter().flatten().copied().collect();
        assert_eq!(all.len(), 36 * 39);
        let second_moment = all.iter().map(|r| r * r).sum::<f64>() / all.len() as f64;
        assert!(all.iter().sum::<f64>().abs() < 1e-9 && (second_moment - 1.0).abs() < 1e-9);
        // What a third word adds after two depends on it and its neighbour alone, not on the first word.
        let at = |ids: &[u32]| problem.responses.iter().position(|r| r == ids).expect("a response");
        let adds = |first: u32| problem.rewards[0][at(&[first, 10, 11, 1])] - problem.rewards[0][at(&[first, 10, 1])];
        assert!((adds(9) - adds(11)).abs() < 1e-9);
    }

    #[test]
    fn mass_and_surprise_by_hand() {
        // Half and an eighth of the probability: mean 5/16; -ln 1/2 and -ln 1/8: 1 and 3 times ln 2, mean 2 ln 2.
        let mass = Mass::of(&[vec![0.375f64.ln(), 0.125f64.ln()], vec![0.0625f64.ln(), 0.0625f64.ln()]]);
        assert!((mass.mean - 0.3125).abs() < 1e-12 && (mass.surprise - 2.0 * 2f64.ln()).abs() < 1e-12, "{mass:?}");
        assert_eq!(Mass::of(&[vec![1e-7]]).surprise, 0.0, "rounding is no gain");
    }

    /// Rewards 1, 3, 3 under probabilities 1/2, 1/4, 1/4.
    fn by_hand() -> (FiniteProblem, Table) {
        let mut problem = FiniteProblem::new(1, Lengths::Equal);
        problem.rewards = vec![vec![1.0, 3.0, 3.0]];
        (problem, Table(vec![vec![0.5f64.ln(), 0.25f64.ln(), 0.25f64.ln()]]))
    }

    #[test]
    fn quantiles_by_hand() {
        let (problem, reference) = by_hand();
        // Half of 1/2; then 1/2 below and half of the 1/2 that is tied.
        assert_eq!(problem.quantiles(&reference), [[0.25, 0.75, 0.75]]);
        // exp(0), exp(ln 2), exp(ln 2) at tau = 1: weights 1/2, 1/2, 1/2.
        let tilted = reference.tilted(&[vec![0.0, 2f64.ln(), 2f64.ln()]], 1.0);
        assert!(tilted.0[0].iter().all(|l| (l - (1f64 / 3.0).ln()).abs() < 1e-12));
    }

    #[test]
    fn the_probability_of_desirable_responses_by_hand() {
        let (problem, reference) = by_hand();
        let at = |threshold| problem.surprise_at_desirable(&reference, threshold);
        assert!(at(3.0).is_some_and(|s| (s - 2f64.ln()).abs() < 1e-12), "half of it");
        assert!(at(0.0).is_some_and(|s| s.abs() < 1e-12), "all of it");
        assert_eq!(at(4.0), None);
        // The nearest policy on them is the policy conditioned on them.
        let nearest = Table(vec![vec![-800.0, 0.5f64.ln(), 0.5f64.ln()]]);
        assert!((nearest.kl(&reference) - 2f64.ln()).abs() < 1e-12);
        // A prompt without any is left out.
        let mut problem = problem;
        problem.rewards.push(vec![0.0, 0.0, 0.0]);
        let two = Table(vec![reference.0[0].clone(), reference.0[0].clone()]);
        assert!(problem.surprise_at_desirable(&two, 3.0).is_some_and(|s| (s - 2f64.ln()).abs() < 1e-12));
    }
}
