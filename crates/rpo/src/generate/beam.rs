//! Beam search as transformers 4.57 does it (`GenerationMixin._beam_search`), so that models answer alike in both. Its rules:
//! each step keeps the most likely continuations of all beams together, twice as many as there are beams or more; those among
//! the first of them that end become answers, rated by `log-probability / length^penalty`; the others go on.

use serde::{Deserialize, Serialize};

use super::{Decoding, Processors, begin, forbid};
use crate::error::Result;
use crate::host::host;
use crate::model::Model;
use crate::stop::Stop;

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

/// An unfinished answer.
#[derive(Clone)]
struct Beam {
    /// The inputs so far, with what was there before the answer.
    ids: Vec<u32>,
    /// Sum of its tokens' log-probabilities, as the processors left them.
    score: f32,
}

/// The search for a prompt's answer.
struct Search {
    beams: Vec<Beam>,
    /// Answers with their rating, best first; at most as many as there are beams.
    answers: Vec<(f32, Vec<u32>)>,
    /// Tokens that were there before the answer.
    begun: usize,
}

/// A continuation of a beam.
struct Candidate {
    beam: usize,
    token: u32,
    score: f32,
}

/// What cannot be chosen, but is still a number: as in transformers, so that nothing finite is ever behind it.
const NEVER: f32 = -1e9;

/// The best answer to each prompt; see [`super::generate`].
pub(super) fn search(model: &Model, prompts: &[Vec<u32>], decoding: &Decoding, stop: &Stop) -> Result<Vec<Vec<u32>>> {
    let width = decoding.num_beams;
    let ends = decoding.ends(&model.config());
    // What shapes a distribution to draw from does not act where nothing is drawn.
    let processors = Processors { temperature: 1.0, top_k: 0, top_p: 1.0, ..decoding.processors.clone() };
    let decoding = &Decoding { processors, ..decoding.clone() };
    let (mut cache, inputs) = begin(model, prompts)?;
    cache.keep(&(0..prompts.len()).flat_map(|prompt| vec![prompt; width]).collect::<Vec<_>>());
    let head = model.head().transpose();
    let mut searches: Vec<Search> = inputs.iter().map(|ids| Search::new(ids, width)).collect();
    let mut active: Vec<usize> = (0..prompts.len()).collect();
    for length in 1..=decoding.max_new_tokens {
        stop.check()?;
        let beams = active.iter().flat_map(|&i| &searches[i].beams);
        let last: Vec<u32> = beams.map(|beam| beam.ids[beam.ids.len() - 1]).collect();
        let logits = model.step(&last, &mut cache).matmul(head.clone());
        let [_, vocabulary] = logits.dims();
        let mut logits = host(logits)?;
        let (mut unfinished, mut parents) = (Vec::new(), Vec::new());
        for (place, (&i, rows)) in active.iter().zip(logits.chunks_exact_mut(width * vocabulary)).enumerate() {
            let search = &mut searches[i];
            let candidates = search.candidates(rows, vocabulary, &ends, length, decoding);
            if let Some(beams) = search.advance(&candidates, &ends, length, decoding) {
                parents.extend(beams.into_iter().map(|beam| place * width + beam));
                unfinished.push(i);
            }
        }
        if unfinished.is_empty() {
            break;
        }
        cache.keep(&parents);
        active = unfinished;
    }
    Ok(searches.into_iter().map(Search::best).collect())
}

impl Search {
    fn new(begun: &[u32], width: usize) -> Self {
        // All beams are alike at first: only one of them may be continued.
        let beam = |i| Beam { ids: begun.to_vec(), score: if i == 0 { 0.0 } else { NEVER } };
        Self { beams: (0..width).map(beam).collect(), answers: Vec::new(), begun: begun.len() }
    }

    /// The most likely continuations of all beams together, best first. `rows` are the beams' logits.
    fn candidates(
        &self,
        rows: &mut [f32],
        vocabulary: usize,
        ends: &[u32],
        length: usize,
        decoding: &Decoding,
    ) -> Vec<Candidate> {
        for (beam, row) in self.beams.iter().zip(rows.chunks_exact_mut(vocabulary)) {
            log_softmax(row);
            if length <= decoding.min_new_tokens {
                forbid(ends, row);
            }
            decoding.processors.apply(&beam.ids, row);
            row.iter_mut().for_each(|value| *value += beam.score);
        }
        let wanted = (self.beams.len() * (ends.len() + 1).max(2)).min(rows.len());
        let mut order: Vec<usize> = (0..rows.len()).collect();
        let better = |a: &usize, b: &usize| rows[*b].total_cmp(&rows[*a]).then(a.cmp(b));
        if wanted < order.len() {
            order.select_nth_unstable_by(wanted - 1, better);
            order.truncate(wanted);
        }
        order.sort_unstable_by(better);
        let candidate = |i: usize| Candidate { beam: i / vocabulary, token: (i % vocabulary) as u32, score: rows[i] };
        order.into_iter().map(candidate).collect()
    }

    /// Takes up what ends as answers and what does not as beams. Returns which beam each new one continues, or `None` when
    /// the search is over.
    fn advance(
        &mut self,
        candidates: &[Candidate],
        ends: &[u32],
        length: usize,
        decoding: &Decoding,
    ) -> Option<Vec<usize>> {
        let width = self.beams.len();
        let ended = |c: &Candidate| length == decoding.max_new_tokens || ends.contains(&c.token);
        let continued = |c: &Candidate| [&self.beams[c.beam].ids[..], &[c.token]].concat();
        let rating = |score: f32, length: usize| score / (length as f32).powf(decoding.length_penalty);
        for candidate in candidates.iter().take(width).filter(|c| ended(c)) {
            let rated = rating(candidate.score, length);
            let place = self.answers.partition_point(|(other, _)| *other >= rated);
            self.answers.insert(place, (rated, continued(candidate)));
        }
        self.answers.truncate(width);
        let all_ended = candidates.iter().all(ended);
        let going = candidates.iter().filter(|c| !ended(c)).take(width);
        let (parents, beams): (Vec<usize>, Vec<Beam>) =
            going.map(|c| (c.beam, Beam { ids: continued(c), score: c.score })).unzip();
        if all_ended || beams.len() < width {
            return None;
        }
        let farthest = match decoding.early_stopping {
            EarlyStopping::Never if decoding.length_penalty > 0.0 => decoding.max_new_tokens,
            _ => length,
        };
        let full = self.answers.len() == width;
        let hopeless = self.answers.last().is_some_and(|(worst, _)| rating(beams[0].score, farthest) <= *worst);
        self.beams = beams;
        let over = full && (hopeless || decoding.early_stopping == EarlyStopping::Once);
        (!over).then_some(parents)
    }

    /// The best answer without what was there before it; of what is unfinished if there is none.
    fn best(self) -> Vec<u32> {
        let ids = self.answers.into_iter().map(|(_, ids)| ids).next();
        let unfinished = || self.beams.into_iter().next().map(|beam| beam.ids);
        ids.or_else(unfinished).map_or_else(Vec::new, |ids| ids[self.begun..].to_vec())
    }
}

/// Logits to log-probabilities.
fn log_softmax(row: &mut [f32]) {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = row.iter().map(|v| f64::from(v - largest).exp()).sum();
    let shift = f64::from(largest) + total.ln();
    row.iter_mut().for_each(|v| *v = (f64::from(*v) - shift) as f32);
}
