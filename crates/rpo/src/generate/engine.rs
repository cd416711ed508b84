//! The engine that answers prompts: as many rows together as fit, each of them an unfinished answer; finished ones leave after
//! every step and waiting prompts enter. It knows token ids, not texts.

use std::collections::VecDeque;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use rpo_ops::log_sum_exp;

use super::beam::{Continuation, Search};
use super::runner::Runner;
use super::{Choice, Decoding, MOST};
use crate::batch::Start;
use crate::burn::tensor::Device;
use crate::error::{Error, Result};
use crate::model::checkpoint::Checkpoint;
use crate::model::{Config, Model, PackedModel, Precision};

/// A prompt that is to be answered.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its token ids.
    pub prompt: Vec<u32>,
    /// How its answers are decoded.
    pub decoding: Decoding,
    /// Which of all prompts it is: decides the random numbers, together with the number of an answer, so that they depend on
    /// nothing that is answered beside it.
    pub index: u64,
    /// How many answers: drawn independently, or the best of a beam search (fewer where its beams find no more).
    pub answers: usize,
}

/// Names a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

/// A token of an answer. Those of a drawn or greedy answer come one by one, those of a beam search when it is over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Emitted {
    /// The request that it answers.
    pub request: RequestId,
    /// Which of the request's answers, from 0; those of a beam search have the best first.
    pub answer: usize,
    /// The token.
    pub token: u32,
    /// Its log-probability under the model, in nats: before anything shaped the distribution.
    pub log_prob: f32,
    /// Why it is the last of its answer, if it is.
    pub finish: Option<Finish>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// By a token that ends answers.
    End,
    /// By the limit of its length.
    Length,
}

/// Answers requests with a model.
pub struct Engine {
    runner: Runner,
    start: Start,
    vocabulary: usize,
    /// The model's own tokens that end answers.
    ends: Vec<u32>,
    /// Most rows that are worked on together.
    rows: usize,
    waiting: VecDeque<Waiting>,
    /// Whose rows they are, in the runner's order.
    groups: Vec<Group>,
    next: u64,
}

/// A request that is not begun.
struct Waiting {
    id: RequestId,
    request: Request,
    /// Which of its answers are wanted still.
    answers: Vec<usize>,
}

/// A request that is being answered.
struct Group {
    id: RequestId,
    decoding: Decoding,
    /// Tokens that end answers.
    ends: Vec<u32>,
    index: u64,
    work: Work,
}

enum Work {
    /// Answers that go on independently, each a row.
    Drafts(Vec<Draft>),
    /// A beam search, each beam a row.
    Search(Search),
}

/// An unfinished answer.
struct Draft {
    answer: usize,
    /// What the model was fed and is to be fed next, with what was there before the answer.
    ids: Vec<u32>,
    /// Tokens that were there before the answer.
    begun: usize,
}

/// What a row's logits come to.
enum Outcome {
    Next(Choice),
    /// The best continuations of a beam, best first.
    Beam(Vec<Continuation>),
    /// The logits are no finite numbers.
    Broken,
}

impl Engine {
    /// An engine of `model` that works on at most `rows` answers or beams together, or on a single request that needs more.
    ///
    /// # Errors
    /// If the model's device fails.
    pub fn new(model: &Model, rows: usize) -> Result<Self> {
        Ok(Self::with(Runner::new(model)?, &model.config(), rows))
    }

    /// An engine of the model in `checkpoint`, held in `precision`, and a hash of its weights, which does not depend on it.
    ///
    /// # Errors
    /// If it cannot be loaded, or `device` holds models in f32 alone.
    pub fn load(checkpoint: &Checkpoint, device: &Device, precision: Precision, rows: usize) -> Result<(Self, String)> {
        let (runner, config, fingerprint) = Runner::load(checkpoint, device, precision)?;
        Ok((Self::with(runner, &config, rows), fingerprint))
    }

    /// The same of a packed model with this configuration.
    pub fn packed(model: PackedModel, config: &Config, rows: usize) -> Self {
        Self::with(model.into(), config, rows)
    }

    fn with(runner: Runner, config: &Config, rows: usize) -> Self {
        Self {
            runner,
            start: config.start(),
            vocabulary: config.vocab_size(),
            ends: config.ends(),
            rows,
            waiting: VecDeque::new(),
            groups: Vec::new(),
            next: 0,
        }
    }

    /// Takes up a request, to be answered by the following steps.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn add(&mut self, request: Request) -> Result<RequestId> {
        self.check(&request)?;
        let id = RequestId(self.next);
        self.next += 1;
        let answers = (0..request.answers).collect();
        self.waiting.push_back(Waiting { id, request, answers });
        Ok(id)
    }

    /// Checks that a request can be answered.
    ///
    /// # Errors
    /// If its settings or ids are out of range, or its prompt is too short for the model to begin with.
    pub fn check(&self, request: &Request) -> Result<()> {
        let Request { prompt, decoding, index, answers } = request;
        decoding.validate()?;
        decoding.validate_for(self.vocabulary)?;
        let refuse = |field, problem: String| Err(Error::Setting { field, problem });
        if *answers == 0 || *answers > MOST {
            return refuse("answers", format!("{answers} is not between 1 and {MOST}"));
        }
        if decoding.num_beams > 1 && *answers > decoding.num_beams {
            let beams = decoding.num_beams;
            return refuse("answers", format!("a search with {beams} beams gives at most as many answers"));
        }
        if !decoding.sample && decoding.num_beams == 1 && *answers > 1 {
            return refuse("answers", "without sampling or beams all of them would be alike".into());
        }
        let vocabulary = self.vocabulary;
        if let Some(id) = prompt.iter().find(|id| **id as usize >= vocabulary) {
            return Err(Error::Data(format!("token {id} of prompt {} is beyond the model's {vocabulary}", index + 1)));
        }
        let number = index + 1;
        match prompt.len() {
            0 => Err(Error::Data(format!("prompt {number} has no token"))),
            1 if matches!(self.start, Start::EndOfPrompt) && !self.runner.may_read_nothing() => {
                Err(Error::Data(format!(
                    "prompt {number} has a single token, and a decoder-only model needs two on this device: use a tokenizer that \
                     begins texts with a token of its own (BOS), or a longer prompt"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Ends one answer of a request, or a whole beam search: no more of its tokens come.
    pub fn cancel(&mut self, id: RequestId, answer: usize) {
        self.waiting.retain_mut(|waiting| {
            if waiting.id == id {
                let search = waiting.request.decoding.num_beams > 1;
                waiting.answers.retain(|other| *other != answer && !search);
            }
            !waiting.answers.is_empty()
        });
        let (mut kept, mut row) = (Vec::new(), 0);
        for group in &mut self.groups {
            let rows = row..row + group.rows();
            row = rows.end;
            let leaves = group.id == id;
            match &mut group.work {
                Work::Search(_) if leaves => group.work = Work::Drafts(Vec::new()),
                Work::Drafts(drafts) if leaves => {
                    kept.extend(rows.zip(drafts.iter()).filter(|(_, d)| d.answer != answer).map(|(row, _)| row));
                    drafts.retain(|draft| draft.answer != answer);
                }
                _ => kept.extend(rows),
            }
        }
        self.leave(&kept, row);
    }

    /// Forgets prompts that were read for the beginnings of others.
    pub fn forget(&mut self) {
        self.runner.forget();
    }

    /// Whether there is nothing left to do.
    pub fn idle(&self) -> bool {
        self.waiting.is_empty() && self.groups.is_empty()
    }

    /// Requests that wait for others to be answered.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// One more token of every answer that is worked on.
    ///
    /// # Errors
    /// If the device fails.
    pub fn step(&mut self) -> Result<Vec<Emitted>> {
        self.admit();
        let rows: Vec<(usize, usize)> =
            self.groups.iter().enumerate().flat_map(|(g, group)| (0..group.rows()).map(move |row| (g, row))).collect();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let tokens: Vec<u32> = rows.iter().map(|&(g, row)| self.groups[g].last(row)).collect();
        let groups = &self.groups;
        let outcomes = self.runner.step(&tokens, &|row, logits| {
            let (g, row) = rows[row];
            groups[g].choose(row, logits)
        })?;
        if let Some(row) = outcomes.iter().position(|outcome| matches!(outcome, Outcome::Broken)) {
            let number = self.groups[rows[row].0].index + 1;
            return Err(Error::Data(format!(
                "prompt {number}: the model's logits are no finite numbers; the model is damaged, or its numbers overflow"
            )));
        }
        let mut emitted = Vec::new();
        let (mut outcomes, mut kept, mut first) = (outcomes.into_iter(), Vec::new(), 0);
        for group in &mut self.groups {
            let n = group.rows();
            let of_group: Vec<Outcome> = outcomes.by_ref().take(n).collect();
            kept.extend(group.advance(of_group, &mut emitted).into_iter().map(|row| first + row));
            first += n;
        }
        self.leave(&kept, first);
        Ok(emitted)
    }

    /// Keeps the rows `kept` of so many, in that order, and the groups that have rows.
    fn leave(&mut self, kept: &[usize], rows: usize) {
        self.groups.retain(|group| group.rows() > 0);
        if !kept.iter().copied().eq(0..rows) {
            self.runner.keep(kept);
        }
    }

    /// Lets waiting requests enter as far as there are rows for them.
    fn admit(&mut self) {
        let mut busy: usize = self.groups.iter().map(Group::needed).sum();
        if busy > 0 && !self.runner.may_enter() {
            return;
        }
        let mut entering = Vec::new();
        while let Some(Waiting { request, answers, .. }) = self.waiting.front() {
            let needed = request.decoding.num_beams.max(answers.len());
            if busy > 0 && busy + needed > self.rows {
                break;
            }
            busy += needed;
            entering.extend(self.waiting.pop_front());
        }
        if entering.is_empty() {
            return;
        }
        let read = |prompt: &[u32]| match self.start {
            Start::Token(_) => prompt.to_vec(),
            Start::EndOfPrompt => prompt[..prompt.len() - 1].to_vec(),
        };
        let prompts: Vec<Vec<u32>> = entering.iter().map(|waiting| read(&waiting.request.prompt)).collect();
        let groups: Vec<Group> =
            entering.into_iter().map(|waiting| Group::new(waiting, self.start, &self.ends)).collect();
        let copies: Vec<usize> = groups.iter().map(Group::rows).collect();
        self.runner.enter(&prompts, &copies);
        self.groups.extend(groups);
    }
}

impl Group {
    fn new(waiting: Waiting, start: Start, ends: &[u32]) -> Self {
        let Waiting { id, request: Request { prompt, mut decoding, index, .. }, answers } = waiting;
        // As transformers counts what was said before the answer: the start token, or the prompt.
        let ids = match start {
            Start::Token(token) => vec![token],
            Start::EndOfPrompt => prompt,
        };
        if let Some(length) = decoding.max_length {
            decoding.max_new_tokens = length.saturating_sub(ids.len()).max(1);
        }
        let least = decoding.min_length.map_or(0, |length| length.saturating_sub(ids.len()));
        decoding.min_new_tokens = decoding.min_new_tokens.max(least);
        let ends = decoding.ends(ends);
        let work = match decoding.num_beams {
            1 => {
                let draft = |answer| Draft { answer, begun: ids.len(), ids: ids.clone() };
                Work::Drafts(answers.into_iter().map(draft).collect())
            }
            width => Work::Search(Search::new(&ids, width, answers.len())),
        };
        Self { id, decoding, ends, index, work }
    }

    fn rows(&self) -> usize {
        match &self.work {
            Work::Drafts(drafts) => drafts.len(),
            Work::Search(search) => search.rows(),
        }
    }

    /// Most rows that it may come to.
    fn needed(&self) -> usize {
        match &self.work {
            Work::Drafts(drafts) => drafts.len(),
            Work::Search(search) => search.width(),
        }
    }

    /// What a row is fed next.
    fn last(&self, row: usize) -> u32 {
        let ids = match &self.work {
            Work::Drafts(drafts) => &drafts[row].ids,
            Work::Search(search) => search.ids(row),
        };
        ids[ids.len() - 1]
    }

    /// What the logits of a row's next token come to.
    fn choose(&self, row: usize, logits: &mut [f32]) -> Outcome {
        let Self { decoding, ends, .. } = self;
        let total = log_sum_exp(logits, 1.0);
        if !total.is_finite() {
            return Outcome::Broken;
        }
        match &self.work {
            Work::Drafts(drafts) => {
                let Draft { answer, ids, begun } = &drafts[row];
                let done = ids.len() - begun;
                let rng = decoding.sample.then(|| numbers(decoding.seed, self.index, *answer, done));
                Outcome::Next(decoding.next(ids, done, ends, (logits, total), rng))
            }
            Work::Search(search) => Outcome::Beam(search.continuations(row, (logits, total), ends, decoding)),
        }
    }

    /// Takes up what was chosen. Returns which row each of the new ones continues.
    fn advance(&mut self, outcomes: Vec<Outcome>, emitted: &mut Vec<Emitted>) -> Vec<usize> {
        let Self { id, decoding, ends, work, .. } = self;
        match work {
            Work::Drafts(drafts) => {
                let mut kept = Vec::new();
                for (row, (draft, outcome)) in drafts.iter_mut().zip(outcomes).enumerate() {
                    let Outcome::Next(Choice { token, log_prob }) = outcome else { continue };
                    draft.ids.push(token);
                    let finish = match ends.contains(&token) {
                        true => Some(Finish::End),
                        false => (draft.ids.len() - draft.begun >= decoding.max_new_tokens).then_some(Finish::Length),
                    };
                    emitted.push(Emitted { request: *id, answer: draft.answer, token, log_prob, finish });
                    if finish.is_none() {
                        kept.push(row);
                    }
                }
                let mut row = 0..;
                drafts.retain(|_| row.next().is_some_and(|row| kept.contains(&row)));
                kept
            }
            Work::Search(search) => {
                let beams = outcomes.into_iter().filter_map(|outcome| match outcome {
                    Outcome::Beam(continuations) => Some(continuations),
                    Outcome::Next(_) | Outcome::Broken => None,
                });
                if let Some(parents) = search.advance(beams.collect(), ends, decoding) {
                    return parents;
                }
                for (answer, tokens) in search.best().into_iter().enumerate() {
                    let last = tokens.len().saturating_sub(1);
                    for (i, (token, log_prob)) in tokens.into_iter().enumerate() {
                        let end = if ends.contains(&token) { Finish::End } else { Finish::Length };
                        let finish = (i == last).then_some(end);
                        emitted.push(Emitted { request: *id, answer, token, log_prob, finish });
                    }
                }
                *work = Work::Drafts(Vec::new());
                Vec::new()
            }
        }
    }
}

/// The random numbers of the token `done` of an answer to prompt `index`: they depend on nothing else, so that batching
/// changes no answer.
fn numbers(seed: u64, index: u64, answer: usize, done: usize) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(index ^ ((answer as u64) << 40));
    // A draw takes two words.
    rng.set_word_pos(2 * done as u128);
    rng
}
