//! Beam search as transformers 4.57 does it (`GenerationMixin._beam_search`), so that models answer alike in both. Its rules:
//! each step keeps the most likely continuations of all beams together, twice as many as there are beams or more; those among
//! the first of them that end become answers, rated by `log-probability / length^penalty`; the others go on.

use rpo_ops::largest;
use serde::{Deserialize, Serialize};

use super::Decoding;
use super::processors::Edited;

/// When a search ends whose beams have all found an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EarlyStopping {
    /// When the best unfinished one, rated by its present length, is no better than the worst answer (`false` in
    /// transformers).
    #[default]
    Heuristic,
    /// At once (`true`).
    Once,
    /// When no unfinished one can become better at any length (`"never"`).
    Never,
}

/// An unfinished answer, or a finished one.
#[derive(Clone)]
struct Beam {
    /// The inputs so far, with what was there before the answer.
    ids: Vec<u32>,
    /// Log-probability of each of the answer's tokens under the model.
    log_probs: Vec<f32>,
    /// Sum of its tokens' log-probabilities, as the processors left them.
    score: f32,
}

/// The search for a prompt's answers.
pub(super) struct Search {
    beams: Vec<Beam>,
    /// Finished ones with their rating, best first; at most as many as there are beams.
    answers: Vec<(f32, Beam)>,
    /// Tokens that were there before the answer.
    begun: usize,
    /// Most beams.
    width: usize,
    /// How many answers are wanted.
    wanted: usize,
}

/// A token that may continue a beam.
pub(super) struct Continuation {
    token: u32,
    /// Of the beam with this token.
    score: f32,
    /// Of the token under the model.
    log_prob: f32,
}

impl Search {
    pub(super) fn new(begun: &[u32], width: usize, wanted: usize) -> Self {
        // One beam at first, as all would be alike. transformers has the others rated -1e9 instead, and as much for whatever
        // must not be: these matter only where nothing else is left.
        let beam = Beam { ids: begun.to_vec(), log_probs: Vec::new(), score: 0.0 };
        Self { beams: vec![beam], answers: Vec::new(), begun: begun.len(), width, wanted }
    }

    pub(super) fn rows(&self) -> usize {
        self.beams.len()
    }

    /// Most rows that it may come to.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// The inputs of a beam.
    pub(super) fn ids(&self, beam: usize) -> &[u32] {
        &self.beams[beam].ids
    }

    /// The most likely continuations of a beam, best first: as many as can matter. `total` is the logarithm of the sum of the logits'
    /// exponentials.
    pub(super) fn continuations(
        &self,
        beam: usize,
        (logits, total): (&mut [f32], f32),
        ends: &[u32],
        decoding: &Decoding,
    ) -> Vec<Continuation> {
        let Beam { ids, log_probs, score } = &self.beams[beam];
        logits.iter_mut().for_each(|logit| *logit -= total);
        let mut edited = Edited::new(logits);
        decoding.edit(ids, log_probs.len(), ends, &mut edited);
        let wanted = self.considered(ends);
        let continuation = |token: usize| Continuation {
            token: token as u32,
            score: edited.logits()[token] + score,
            log_prob: edited.original(token as u32),
        };
        let mut found: Vec<_> = largest(edited.logits(), wanted).into_iter().map(continuation).collect();
        // In order before, so that among equals the first token stays first.
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found.truncate(wanted);
        found
    }

    /// How many continuations of all beams together are looked at.
    fn considered(&self, ends: &[u32]) -> usize {
        self.width * (ends.len() + 1).max(2)
    }

    /// Takes up what ends as answers and what does not as beams. Returns which beam each new one continues, or `None` when
    /// the search is over.
    pub(super) fn advance(
        &mut self,
        continuations: Vec<Vec<Continuation>>,
        ends: &[u32],
        decoding: &Decoding,
    ) -> Option<Vec<usize>> {
        let width = self.width;
        let length = self.beams[0].log_probs.len() + 1;
        let of_beam = |(beam, found): (usize, Vec<Continuation>)| found.into_iter().map(move |c| (beam, c));
        let mut candidates: Vec<(usize, Continuation)> =
            continuations.into_iter().enumerate().flat_map(of_beam).collect();
        // Stable: among equals the first beam's first token stays first.
        candidates.sort_by(|(_, a), (_, b)| b.score.total_cmp(&a.score));
        candidates.truncate(self.considered(ends));
        let ended = |c: &Continuation| length == decoding.max_new_tokens || ends.contains(&c.token);
        let continued = |beam: usize, c: &Continuation| {
            let Beam { ids, log_probs, .. } = &self.beams[beam];
            Beam {
                ids: [&ids[..], &[c.token]].concat(),
                log_probs: [&log_probs[..], &[c.log_prob]].concat(),
                score: c.score,
            }
        };
        let rating = |score: f32, length: usize| score / (length as f32).powf(decoding.length_penalty);
        for (beam, candidate) in candidates.iter().take(width).filter(|(_, c)| ended(c)) {
            let rated = rating(candidate.score, length);
            let place = self.answers.partition_point(|(other, _)| *other >= rated);
            self.answers.insert(place, (rated, continued(*beam, candidate)));
        }
        self.answers.truncate(width);
        let going = candidates.iter().filter(|(_, c)| !ended(c)).take(width);
        let (parents, beams): (Vec<usize>, Vec<Beam>) = going.map(|(beam, c)| (*beam, continued(*beam, c))).unzip();
        let best = beams.first()?.score;
        let farthest = match decoding.early_stopping {
            EarlyStopping::Never if decoding.length_penalty > 0.0 => decoding.max_new_tokens,
            _ => length,
        };
        let full = self.answers.len() == width;
        let hopeless = self.answers.last().is_some_and(|(worst, _)| rating(best, farthest) <= *worst);
        self.beams = beams;
        let over = full && (hopeless || decoding.early_stopping == EarlyStopping::Once);
        (!over).then_some(parents)
    }

    /// The best answers, each token with its log-probability under the model; of what is unfinished if there are not enough.
    pub(super) fn best(&mut self) -> Vec<Vec<(u32, f32)>> {
        let answers = std::mem::take(&mut self.answers).into_iter().map(|(_, beam)| beam);
        let all = answers.chain(std::mem::take(&mut self.beams)).take(self.wanted);
        all.map(|beam| beam.ids[self.begun..].iter().copied().zip(beam.log_probs).collect()).collect()
    }
}
