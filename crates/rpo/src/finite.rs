//! A problem small enough to be solved exactly: every response can be enumerated, so that the optimum of reward under a
//! KL penalty, and how far any policy is from it, are sums. It is what objectives are judged on.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::feedback::{FeedbackSet, PromptGroup, Response};
use crate::objective::log_sum_exp;
use crate::score::score_set;
use crate::t5::{Config, T5};

/// The model's `</s>`.
const END: u32 = 1;
/// The first id of a word; below are `<pad>`, `</s>` and `<unk>`.
const FIRST_WORD: u32 = 3;
const PROMPT_WORDS: usize = 6;
const RESPONSE_WORDS: usize = 3;
const RESPONSE_LENGTH: usize = 3;

/// 36 prompts of two words, 27 responses of three, and a reward for each pair.
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

/// How many responses a prompt gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Responses {
    /// This many draws.
    Each(usize),
    /// As many draws as this on average: one or two for one half of the prompts, the rest for the other.
    Unequal(usize),
    /// Every response there is, once.
    All,
}

impl FiniteProblem {
    /// A problem whose rewards and crowd are decided by `seed`: sums of random terms for each word in its place beside
    /// each word of the prompt, and for each pair of neighbouring words.
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let words = |n: usize, length: usize| -> Vec<Vec<usize>> {
            (0..n.pow(length as u32)).map(|i| (0..length).map(|k| i / n.pow(k as u32) % n).collect()).collect()
        };
        let (prompts, responses) = (words(PROMPT_WORDS, 2), words(RESPONSE_WORDS, RESPONSE_LENGTH));
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
                let words: f64 = (0..RESPONSE_LENGTH).map(|k| by_word[word(0, k)] + by_word[word(1, k)]).sum();
                words + response.windows(2).map(|w| by_pair[w[0] * RESPONSE_WORDS + w[1]]).sum::<f64>()
            };
            let row = |prompt: &Vec<usize>| responses.iter().map(|response| value(prompt, response)).collect();
            prompts.iter().map(row).collect::<Vec<Vec<f64>>>()
        };
        let crowd = Table::normalised(random_table(0.5));
        let mut rewards = random_table(1.0);
        let all: Vec<f64> = rewards.iter().flatten().copied().collect();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let sd = (all.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / all.len() as f64).sqrt();
        rewards.iter_mut().flatten().for_each(|r| *r = (*r - mean) / sd);
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

    /// Rated responses drawn from `reference`, repetitions merged; `noise` is the standard deviation of what is added to
    /// each rating.
    pub fn feedback(&self, reference: &Table, responses: Responses, noise: f64, seed: u64) -> FeedbackSet {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let rows = (0..self.prompts.len()).map(|x| {
            let drawn: Vec<usize> = match responses {
                Responses::All => (0..self.responses.len()).collect(),
                Responses::Each(n) => (0..n).map(|_| reference.draw(x, &mut rng)).collect(),
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
            PromptGroup { prompt: prompt.clone(), prompt_truncated: false, responses }
        });
        FeedbackSet { groups: groups.collect() }
    }

    /// The probabilities that `model` gives to the responses, and the mean share of its probability that they have in
    /// all. `model` must not track gradients.
    pub fn table(&self, model: &T5) -> (Table, f64) {
        let every = vec![(0..self.responses.len()).map(|y| (y, 0.0)).collect(); self.prompts.len()];
        let data = self.set(every);
        let mut log_probs = vec![0.0; data.responses()];
        for (row, sum) in score_set(model, &data, 8192, &mut |_| ()) {
            log_probs[row] = f64::from(sum);
        }
        let rows: Vec<Vec<f64>> = log_probs.chunks(self.responses.len()).map(<[f64]>::to_vec).collect();
        let masses = rows.iter().map(|row| log_sum_exp(row.iter().copied()).exp());
        let mass = masses.sum::<f64>() / rows.len() as f64;
        (Table::normalised(rows), mass)
    }

    /// `pi*(y|x)`, proportional to `pi_ref(y|x) exp(r(x, y) / tau)`.
    pub fn optimum(&self, reference: &Table, tau: f64) -> Table {
        let row = |(log_probs, rewards): (&Vec<f64>, &Vec<f64>)| {
            log_probs.iter().zip(rewards).map(|(l, r)| l + r / tau).collect()
        };
        Table::normalised(reference.0.iter().zip(&self.rewards).map(row).collect())
    }

    /// Mean over the prompts of the expected reward.
    pub fn expected_reward(&self, policy: &Table) -> f64 {
        let row = |(log_probs, rewards): (&Vec<f64>, &Vec<f64>)| {
            log_probs.iter().zip(rewards).map(|(l, r)| l.exp() * r).sum::<f64>()
        };
        policy.0.iter().zip(&self.rewards).map(row).sum::<f64>() / policy.0.len() as f64
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_optimum_by_hand() {
        let mut problem = FiniteProblem::new(1);
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
        let problem = FiniteProblem::new(1);
        let (reference, policy) = (problem.crowd.clone(), FiniteProblem::new(2).crowd);
        for tau in [0.1, 1.0, 5.0] {
            let worth = |p: &Table| problem.expected_reward(p) - tau * p.kl(&reference);
            let best = problem.optimum(&reference, tau);
            let missed = worth(&best) - worth(&policy);
            assert!((missed - tau * policy.kl(&best)).abs() < 1e-9, "tau {tau}");
        }
    }

    #[test]
    fn draws_follow_their_distribution_and_repetitions_are_merged() {
        let problem = FiniteProblem::new(1);
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
}
