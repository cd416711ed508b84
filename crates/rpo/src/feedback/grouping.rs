//! From rows of text to prompts with their tokenized responses. What is the same to the model is one: groups are told apart by
//! token ids, not by texts.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use blake3::Hash;
use rayon::prelude::*;

use super::{Answer, Answers, FeedbackSet, Limits, PromptGroup, ReadSummary, Response};
use crate::error::{Error, Result};
use crate::tokenizer::{Encoded, Tokenizer};

/// Rows that are tokenized at the same time, on all cores.
pub(super) const TOGETHER: usize = 2048;
/// No more rows are gathered than have so many bytes, unless a single one has more.
const TOGETHER_BYTES: usize = 16 << 20;

/// A data set under construction.
pub(crate) struct Grouping<'a> {
    tokenizer: &'a Tokenizer,
    limits: Limits,
    /// Group of each prompt and whether it was cut, by a hash of its text: the texts themselves are not kept.
    by_text: HashMap<Hash, (usize, bool)>,
    /// Group of each prompt, by its token ids.
    by_ids: HashMap<Vec<u32>, usize>,
    /// The prompts before any cut.
    uncut: HashSet<Hash>,
    /// Place in its group of each response and its first reward, by group and token ids before any cut.
    places: HashMap<(usize, Hash), (usize, f64)>,
    /// Rows so far, those without a token among them.
    read: usize,
    groups: Vec<PromptGroup>,
    summary: ReadSummary,
    /// Whether a line break is a blank to the tokenizer.
    folds_line_breaks: bool,
}

/// What became of a row.
pub(crate) struct Added<'a> {
    /// It as it was read.
    pub answer: &'a Answer,
    /// Number of its prompt's group.
    pub group: usize,
    /// Its place in the group, which it shares with its copies.
    pub place: usize,
    /// The prompt, if its text is a new one.
    pub prompt: Option<&'a Encoded>,
    /// Whether the prompt was cut at the limit.
    pub cut_prompt: bool,
    /// The response.
    pub response: &'a Encoded,
    /// Its reward; 0 if it is not rated.
    pub reward: f64,
}

const NO_TOKEN: &str = "the prompt or the response holds no token, only such as control characters or </s>; without \
                        --strict (columns.strict) such rows are left out and counted";

impl<'a> Grouping<'a> {
    /// An empty set.
    ///
    /// # Errors
    /// If a limit is 0, or the tokenizer fails.
    pub(crate) fn new(tokenizer: &'a Tokenizer, limits: Limits) -> Result<Self> {
        limits.check()?;
        let ids = |text| tokenizer.response(text, usize::MAX).map(|encoded| encoded.ids);
        Ok(Self {
            tokenizer,
            limits,
            by_text: HashMap::new(),
            by_ids: HashMap::new(),
            uncut: HashSet::new(),
            places: HashMap::new(),
            read: 0,
            groups: Vec::new(),
            summary: ReadSummary::default(),
            folds_line_breaks: ids("a\nb")? == ids("a b")?,
        })
    }

    /// Adds all `rows` and returns what was noticed. `observe` hears of each row, `progress` how many there were.
    pub(crate) fn read(
        &mut self,
        mut rows: Answers,
        observe: &mut dyn FnMut(&Added<'_>),
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<String>> {
        loop {
            let (mut chunk, mut places, mut bytes) = (Vec::new(), Vec::new(), 0);
            while chunk.len() < TOGETHER && bytes < TOGETHER_BYTES {
                let Some(row) = rows.next() else { break };
                let row = row?;
                bytes += row.prompt.size() + row.response.len();
                chunk.push(row);
                places.push(rows.at());
            }
            if chunk.is_empty() {
                return Ok(rows.notes().lines());
            }
            let without_tokens = self.add(&chunk, observe).map_err(|(row, problem)| match problem {
                Error::Prompt(problem) => {
                    let (path, place) = places[row].clone();
                    Error::Row { path, place, problem }
                }
                other => other,
            })?;
            if let (Some(&row), true) = (without_tokens.first(), rows.strict()) {
                let (path, place) = places.swap_remove(row);
                return Err(Error::Row { path, place, problem: NO_TOKEN.into() });
            }
            progress(self.read);
        }
    }

    /// Adds rows in order, but for those without a token in prompt or response, which it counts and returns.
    ///
    /// # Errors
    /// The number of a row that cannot be written or tokenized, and why.
    pub(crate) fn add(
        &mut self,
        rows: &[Answer],
        observe: &mut dyn FnMut(&Added<'_>),
    ) -> std::result::Result<Vec<usize>, (usize, Error)> {
        let writing = self.tokenizer.writing();
        let hash = |row: &Answer| writing.text(&row.prompt).map(|text| blake3::hash(text.as_bytes()));
        let texts: Vec<Result<Hash>> = rows.par_iter().map(hash).collect();
        // The first row that cannot be written is told, whichever was tried first.
        let texts = texts.into_iter().enumerate().map(|(i, text)| text.map_err(|problem| (i, problem)));
        let texts = texts.collect::<std::result::Result<Vec<Hash>, _>>()?;
        // Of each new prompt text, the first row that has it.
        let mut new = HashSet::new();
        let is_new: Vec<bool> =
            texts.iter().map(|text| !self.by_text.contains_key(text) && new.insert(*text)).collect();
        let (tokenizer, limits) = (self.tokenizer, self.limits);
        let encode = |(row, is_new): (&Answer, &bool)| -> Result<_> {
            let prompt = is_new.then(|| tokenizer.ask(&row.prompt, limits.prompt_tokens, limits.cut_prompts));
            Ok((prompt.transpose()?, tokenizer.answer(&row.prompt, &row.response, limits.response_tokens)?))
        };
        let encoded: Vec<_> = rows.par_iter().zip(&is_new).map(encode).collect();
        let mut left_out = Vec::new();
        // New prompts of which no row was added yet.
        let mut prompts: HashMap<Hash, Encoded> = HashMap::new();
        for (i, ((row, text), encoded)) in rows.iter().zip(texts).zip(encoded).enumerate() {
            let (prompt, response) = encoded.map_err(|problem| (i, problem))?;
            prompts.extend(prompt.map(|prompt| (text, prompt)));
            let number = self.read;
            self.read += 1;
            if response.blank || prompts.get(&text).is_some_and(|prompt| prompt.blank) {
                left_out.push(i);
                continue;
            }
            let prompt = prompts.remove(&text);
            let (group, cut_prompt) = match &prompt {
                Some(prompt) => (self.group(prompt, number), prompt.truncated()),
                None => self.by_text[&text],
            };
            self.by_text.insert(text, (group, cut_prompt));
            let broken = |text: &str| self.folds_line_breaks && text.trim().contains(['\n', '\r']);
            let asked = prompt.is_some() && row.prompt.said().any(broken);
            self.summary.folded_line_breaks += usize::from(asked) + usize::from(broken(&row.response));
            let reward = row.reward.unwrap_or(0.0);
            let place = self.place(group, &response, reward);
            self.summary.rows += 1;
            self.summary.special_texts += usize::from(response.special > 0);
            self.summary.truncated_responses += usize::from(response.truncated());
            let (prompt, response) = (prompt.as_ref(), &response);
            observe(&Added { answer: row, group, place, prompt, cut_prompt, response, reward });
        }
        self.summary.without_tokens += left_out.len();
        Ok(left_out)
    }

    /// The group of a prompt whose text is new and stands in the row of this number.
    fn group(&mut self, prompt: &Encoded, first_row: usize) -> usize {
        self.summary.special_texts += usize::from(prompt.special > 0);
        let is_uncut_new = self.uncut.insert(prompt.whole);
        if let Some(&group) = self.by_ids.get(&prompt.ids) {
            self.summary.folded_prompts += 1;
            self.summary.folded_by_cut += usize::from(is_uncut_new);
            return group;
        }
        let beside_template = self.tokenizer.writing().has_template() && !prompt.templated;
        self.summary.templated_prompts += usize::from(prompt.templated);
        self.summary.prompts_beside_template += usize::from(beside_template);
        self.summary.unknown_tokens += prompt.unknown;
        self.summary.truncated_prompts += usize::from(prompt.truncated());
        self.by_ids.insert(prompt.ids.clone(), self.groups.len());
        self.groups.push(PromptGroup { prompt: prompt.ids.clone(), first_row, responses: Vec::new() });
        self.groups.len() - 1
    }

    /// Puts a response into its group and says where.
    fn place(&mut self, group: usize, response: &Encoded, reward: f64) -> usize {
        let responses = &mut self.groups[group].responses;
        let (place, first) = *self.places.entry((group, response.whole)).or_insert((responses.len(), reward));
        match responses.get_mut(place) {
            Some(known) => {
                known.merge(reward);
                self.summary.duplicates += 1;
                self.summary.conflicting_duplicates += usize::from(reward != first);
            }
            None => {
                self.summary.unknown_tokens += response.unknown;
                let (ids, truncated) = (response.ids.clone(), response.truncated());
                responses.push(Response { row: 0, ids, truncated, reward, copies: 1 });
            }
        }
        place
    }

    /// The data set, and its counts but for the notes.
    pub(crate) fn finish(mut self, source: &str) -> Result<(FeedbackSet, ReadSummary)> {
        if self.groups.is_empty() {
            return Err(Error::Data(format!("{source}: no rated response in it")));
        }
        let responses = self.groups.iter_mut().flat_map(|g| &mut g.responses);
        responses.enumerate().for_each(|(row, response)| response.row = row);
        let set = FeedbackSet { groups: self.groups };
        let count = |is: fn(&PromptGroup) -> bool| set.groups.iter().filter(|group| is(group)).count();
        let mut summary = ReadSummary {
            prompts: set.groups.len(),
            tokens: set.tokens(),
            single_responses: count(|group| group.responses.len() == 1),
            tied_prompts: count(|group| group.responses.len() > 1 && !group.ranks()),
            cut_prompts: count(|group| group.responses.iter().all(|r| r.truncated)),
            ..self.summary
        };
        for group in &set.groups {
            let mut rewards: HashMap<&[u32], f64> = HashMap::new();
            for response in group.responses.iter().filter(|response| response.truncated) {
                match rewards.entry(&response.ids) {
                    Entry::Occupied(first) => {
                        summary.alike_by_cut += 1;
                        summary.conflicting_by_cut += usize::from(*first.get() != response.reward);
                    }
                    Entry::Vacant(first) => _ = first.insert(response.reward),
                }
            }
        }
        Ok((set, summary))
    }
}
