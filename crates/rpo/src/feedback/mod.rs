//! Rated responses: from rows of text in files to prompts with their tokenized responses, grouped and counted.
//!
//! ```
//! use rpo::feedback::{Feedback, FeedbackSet, Limits};
//! use rpo::tokenizer::{Cut, Tokenizer, word_level};
//!
//! let tokenizer = Tokenizer::parse(&word_level(&["say", "yes", "no"]))?;
//! let row = |response: &str, reward| Feedback { prompt: "say yes".into(), response: response.into(), reward };
//! let limits = Limits { prompt_tokens: 8, response_tokens: 8, cut_prompts: Cut::End };
//! let rows = [row("yes", 1.0), row("no", 0.0), row("yes", 0.5)];
//! let (data, summary) = FeedbackSet::from_rows(&rows, &tokenizer, limits)?;
//! assert_eq!((data.groups.len(), data.responses(), summary.conflicting_duplicates), (1, 2, 1));
//! assert_eq!(data.groups[0].responses[0].reward, 0.75);
//! # Ok::<(), rpo::Error>(())
//! ```

mod grouping;
pub(crate) mod kept;
mod layout;
mod notes;
mod opened;
mod prompts;
mod records;
mod rows;
mod source;
mod texts;

use std::collections::HashSet;
use std::path::Path;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

pub use layout::{ReadOptions, Score};
pub(crate) use notes::Wanted;
pub use notes::{Answer, Feedback, Notes};
pub use prompts::{Asked, ModelOutput, prompts_fingerprint, read_outputs, read_prompts};
pub use records::Format;
pub use rows::{AllRows, Rows, read_all_rows, read_rows};
pub(crate) use rows::{Answers, read_answers};
pub use source::Source;
pub use texts::held_out_prompts;

use crate::error::{Error, Result};
use crate::tokenizer::{Cut, Tokenizer};
pub(crate) use grouping::{Added, Grouping};

/// A rated response of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Number of this response in the data set, from 0; it stays when the set is split.
    pub row: usize,
    /// Token ids, ended by `</s>` unless truncated.
    pub ids: Vec<u32>,
    /// Whether the text was longer than allowed.
    pub truncated: bool,
    /// Its reward; the mean where the same response was rated several times.
    pub reward: f64,
    /// How many rows of the data it stands for.
    pub copies: usize,
}

impl Response {
    /// Counts another rating of the same response.
    pub(crate) fn merge(&mut self, reward: f64) {
        self.copies += 1;
        self.reward += (reward - self.reward) / self.copies as f64;
    }
}

/// A prompt and all its rated responses, no two of them equal.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptGroup {
    /// Token ids of the prompt.
    pub prompt: Vec<u32>,
    /// Number of the row, in reading order from 0, that brought this prompt: where its text stands.
    pub first_row: usize,
    /// At least one response.
    pub responses: Vec<Response>,
}

impl PromptGroup {
    /// Whether the rewards differ, so that they rank the responses.
    pub fn ranks(&self) -> bool {
        self.responses.iter().any(|r| r.reward != self.responses[0].reward)
    }
}

/// The largest number of tokens of a prompt and of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of a prompt.
    pub prompt_tokens: usize,
    /// Of a response.
    pub response_tokens: usize,
    /// Which end of a prompt is cut.
    pub cut_prompts: Cut,
}

impl Limits {
    /// Checks that something is left of every text.
    ///
    /// # Errors
    /// The limit that is 0.
    pub fn check(&self) -> Result<()> {
        let limits = [("max-prompt-tokens", self.prompt_tokens), ("max-response-tokens", self.response_tokens)];
        match limits.into_iter().find(|(_, limit)| *limit == 0) {
            Some((field, _)) => {
                let problem = "0 would leave nothing of a text; at least 1 token is needed".into();
                Err(Error::Setting { field, problem })
            }
            None => Ok(()),
        }
    }
}

/// What was read, for the user to see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadSummary {
    /// Rated responses in the files.
    pub rows: usize,
    /// Rows that were left out because no token is left of the prompt or the response, but perhaps `</s>`.
    pub without_tokens: usize,
    /// Different prompts.
    pub prompts: usize,
    /// Prompts that differ as texts and are the same to the model, but for the first of each.
    pub folded_prompts: usize,
    /// Those among them that differ behind the cut.
    pub folded_by_cut: usize,
    /// Rows that repeat a response of the same prompt and were merged into it. Responses that are alike only up to the cut
    /// are no copies.
    pub duplicates: usize,
    /// Those among them whose reward differs from the first one's.
    pub conflicting_duplicates: usize,
    /// Responses that are, by the cut, the same to the model as another of the prompt, but for the first of each.
    pub alike_by_cut: usize,
    /// Those among them whose reward differs.
    pub conflicting_by_cut: usize,
    /// Prompts with several responses that all have the same reward.
    pub tied_prompts: usize,
    /// Prompts whose responses were all cut at the limit.
    pub cut_prompts: usize,
    /// Prompts with a single response.
    pub single_responses: usize,
    /// Prompts that the model's chat template wrote.
    pub templated_prompts: usize,
    /// Prompts that are plain text although the model has a chat template.
    pub prompts_beside_template: usize,
    /// Prompts that were cut at the limit.
    pub truncated_prompts: usize,
    /// Responses that were cut at the limit.
    pub truncated_responses: usize,
    /// Tokens of all prompts and responses.
    pub tokens: usize,
    /// How many of them are `<unk>`.
    pub unknown_tokens: usize,
    /// Prompts and responses that spell out special tokens inside, such as `<extra_id_1>`.
    pub special_texts: usize,
    /// Prompts and responses with line breaks that the tokenizer does not keep.
    pub folded_line_breaks: usize,
    /// What was noticed while the rows were read, as sentences.
    pub notes: Vec<String>,
}

/// Prompts in the order in which they first appear.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeedbackSet {
    /// The prompts with their responses.
    pub groups: Vec<PromptGroup>,
}

/// A data set in two parts that share no prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Split {
    /// What is trained on.
    pub train: FeedbackSet,
    /// What is only scored.
    pub validation: FeedbackSet,
}

impl FeedbackSet {
    /// Reads `source`. Texts are tokenized as they come and dropped, so that memory holds token ids only.
    ///
    /// # Errors
    /// If the file cannot be read or a row is unusable (which, and why), or nothing is left.
    pub fn read(
        source: &Source,
        options: &ReadOptions,
        tokenizer: &Tokenizer,
        limits: Limits,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(Self, ReadSummary)> {
        let rows = read_answers(source.files()?, options, Wanted::Rated)?;
        Self::tokenized(rows, source, tokenizer, limits, progress)
    }

    /// Takes the data set from `cache`, or reads it and leaves it there. The flag says whether it was there.
    ///
    /// # Errors
    /// As [`Self::read`]. A cache that cannot be written is told and no error.
    pub fn cached(
        source: &Source,
        options: &ReadOptions,
        tokenizer: &Tokenizer,
        limits: Limits,
        cache: &Path,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(Self, ReadSummary, bool)> {
        let files = source.files()?;
        let place = kept::place(cache, &files, options, tokenizer, limits)?;
        if let Some((set, summary)) = place.as_deref().and_then(kept::find) {
            return Ok((set, summary, true));
        }
        let rows = read_answers(files, options, Wanted::Rated)?;
        let (set, summary) = Self::tokenized(rows, source, tokenizer, limits, progress)?;
        if let Some(Err(problem)) = place.map(|path| kept::keep(&path, &set, &summary)) {
            tracing::warn!("{problem}; the tokens are not kept and will be made again by the next run");
        }
        Ok((set, summary, false))
    }

    fn tokenized(
        rows: Answers,
        source: &Source,
        tokenizer: &Tokenizer,
        limits: Limits,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(Self, ReadSummary)> {
        let mut grouping = Grouping::new(tokenizer, limits)?;
        let notes = grouping.read(rows, &mut |_| (), progress)?;
        let (set, summary) = grouping.finish(&source.to_string())?;
        Ok((set, ReadSummary { notes, ..summary }))
    }

    /// Groups rows that are already in memory.
    ///
    /// # Errors
    /// If a text cannot be tokenized or there is no row.
    pub fn from_rows(rows: &[Feedback], tokenizer: &Tokenizer, limits: Limits) -> Result<(Self, ReadSummary)> {
        let mut grouping = Grouping::new(tokenizer, limits)?;
        for rows in rows.chunks(grouping::TOGETHER) {
            let rows: Vec<Answer> = rows.iter().map(Answer::from).collect();
            grouping.add(&rows, &mut |_| ()).map_err(|(_, problem)| problem)?;
        }
        grouping.finish("rows in memory")
    }

    /// Parts the prompts at random, so that about `fraction` of them validate: the same ones for the same prompts and
    /// seed, whatever their order.
    ///
    /// # Errors
    /// If `fraction` is not in `[0, 1)` or a positive fraction leaves one part empty.
    pub fn split(self, fraction: f64, seed: u64) -> Result<Split> {
        if !(0.0..1.0).contains(&fraction) {
            let problem = format!("{fraction} is not in [0, 1)");
            return Err(Error::Setting { field: "validation-fraction", problem });
        }
        let prompts = self.groups.len();
        let wanted = if fraction > 0.0 { ((prompts as f64 * fraction).round() as usize).max(1) } else { 0 };
        if wanted > 0 && wanted >= prompts {
            return Err(Error::Data(format!(
                "{prompts} different prompts cannot be parted into training and validation; \
                 add data or set `validation-fraction = 0`"
            )));
        }
        let hashes: Vec<[u8; 32]> = self.groups.iter().map(|g| split_hash(&g.prompt, seed)).collect();
        let mut order: Vec<usize> = (0..prompts).collect();
        order.sort_by_key(|&i| hashes[i]);
        let mut validates = vec![false; prompts];
        order[..wanted].iter().for_each(|&i| validates[i] = true);
        let mut split = Split::default();
        for (group, validates) in self.groups.into_iter().zip(validates) {
            if validates { &mut split.validation } else { &mut split.train }.groups.push(group);
        }
        Ok(split)
    }

    /// The groups, each under the prompt of the next one in an order that `seed` decides.
    fn under_other_prompts(&self, seed: u64) -> Self {
        let mut order: Vec<usize> = (0..self.groups.len()).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let mut other = self.clone();
        for (i, &group) in order.iter().enumerate() {
            let next = &self.groups[order[(i + 1) % order.len()]];
            other.groups[group].prompt.clone_from(&next.prompt);
            other.groups[group].first_row = next.first_row;
        }
        other
    }

    /// All responses in order.
    pub fn iter(&self) -> impl Iterator<Item = &Response> {
        self.groups.iter().flat_map(|g| &g.responses)
    }

    /// Number of responses.
    pub fn responses(&self) -> usize {
        self.groups.iter().map(|g| g.responses.len()).sum()
    }

    /// Tokens of prompts (each once) and responses.
    pub fn tokens(&self) -> usize {
        self.groups.iter().map(|g| g.prompt.len()).sum::<usize>() + self.iter().map(|r| r.ids.len()).sum::<usize>()
    }

    /// Mean and population standard deviation of the rewards.
    pub fn reward_mean_sd(&self) -> (f64, f64) {
        let n = self.responses() as f64;
        let mean = self.iter().map(|r| r.reward).sum::<f64>() / n;
        let variance = self.iter().map(|r| (r.reward - mean).powi(2)).sum::<f64>() / n;
        (mean, variance.sqrt())
    }

    /// Parts groups of more than `most` responses into groups of the same prompt that differ by one response at most.
    pub fn part_groups(&mut self, most: usize) {
        let parts = |group: PromptGroup| {
            let n = group.responses.len();
            let count = n.div_ceil(most);
            if count < 2 {
                return vec![group];
            }
            let part = |i: usize| {
                let responses = group.responses[i * n / count..(i + 1) * n / count].to_vec();
                PromptGroup { prompt: group.prompt.clone(), first_row: group.first_row, responses }
            };
            (0..count).map(part).collect()
        };
        self.groups = std::mem::take(&mut self.groups).into_iter().flat_map(parts).collect();
    }

    /// Drops the responses that `keep` refuses, and prompts that have none left.
    pub fn retain(&mut self, keep: impl Fn(&Response) -> bool) {
        self.groups.iter_mut().for_each(|g| g.responses.retain(&keep));
        self.groups.retain(|g| !g.responses.is_empty());
    }
}

impl Split {
    /// Two sets that were read apart. Prompts that validate are dropped from `train`, so that the parts share none; returns how
    /// many these were.
    ///
    /// # Errors
    /// If nothing is left to train on.
    pub fn of(mut train: FeedbackSet, mut validation: FeedbackSet) -> Result<(Self, usize)> {
        let held_out: HashSet<&[u32]> = validation.groups.iter().map(|group| &group.prompt[..]).collect();
        let prompts = train.groups.len();
        train.groups.retain(|group| !held_out.contains(&group.prompt[..]));
        let dropped = prompts - train.groups.len();
        if train.groups.is_empty() {
            return Err(Error::Data(format!("all {prompts} prompts to train on are among those that validate")));
        }
        let all = [&mut train, &mut validation].into_iter().flat_map(|set| &mut set.groups);
        all.flat_map(|group| &mut group.responses).enumerate().for_each(|(row, response)| response.row = row);
        Ok((Self { train, validation }, dropped))
    }

    /// One more than the largest row of the data.
    pub fn rows(&self) -> usize {
        self.train.iter().chain(self.validation.iter()).map(|r| r.row + 1).max().unwrap_or(0)
    }

    /// Whether most training prompts have one response, so that there is little but other prompts to compare it with.
    pub fn mostly_single(&self) -> bool {
        2 * self.train.groups.iter().filter(|g| g.responses.len() == 1).count() > self.train.groups.len()
    }

    /// The same training part with only these of the held-out prompts. Rows are counted anew in their old order, so that
    /// there are no gaps.
    #[must_use]
    pub fn with_held_out(&self, prompts: &[usize]) -> Self {
        let groups = prompts.iter().map(|&i| self.validation.groups[i].clone()).collect();
        let mut split = Self { train: self.train.clone(), validation: FeedbackSet { groups } };
        let parts = [&mut split.train, &mut split.validation];
        let mut all: Vec<&mut Response> =
            parts.into_iter().flat_map(|part| &mut part.groups).flat_map(|group| &mut group.responses).collect();
        all.sort_by_key(|response| response.row);
        all.into_iter().enumerate().for_each(|(row, response)| response.row = row);
        split
    }

    /// A hash of token ids, rewards and which prompts are held out, in hexadecimal: equal for equal splits alone.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let ids = |hasher: &mut blake3::Hasher, ids: &[u32]| {
            hasher.update(&(ids.len() as u64).to_le_bytes());
            ids.iter().for_each(|id| _ = hasher.update(&id.to_le_bytes()));
        };
        for part in [&self.train, &self.validation] {
            hasher.update(&(part.groups.len() as u64).to_le_bytes());
            for group in &part.groups {
                ids(&mut hasher, &group.prompt);
                hasher.update(&(group.responses.len() as u64).to_le_bytes());
                for response in &group.responses {
                    ids(&mut hasher, &response.ids);
                    hasher.update(&(response.row as u64).to_le_bytes());
                    hasher.update(&response.reward.to_le_bytes());
                }
            }
        }
        hasher.finalize().to_hex().to_string()
    }

    /// That there is another prompt for each training prompt ([`Self::mismatched`]).
    ///
    /// # Errors
    /// If there is only one.
    pub fn check_mismatched(&self) -> Result<()> {
        let n = self.train.groups.len();
        if n < 2 {
            return Err(Error::Data(format!(
                "pairs of prompts with responses to other prompts need at least two training prompts, and there is {n}"
            )));
        }
        Ok(())
    }

    /// The same responses in the same groups, each group under another group's prompt, decided by `seed`. Both parts stay
    /// among themselves, but a single validation prompt takes one from training.
    ///
    /// # Errors
    /// If there is only one training prompt.
    pub fn mismatched(&self, seed: u64) -> Result<Self> {
        self.check_mismatched()?;
        let train = self.train.under_other_prompts(seed);
        let mut validation = self.validation.under_other_prompts(seed);
        if let [single] = &mut validation.groups[..] {
            single.prompt.clone_from(&self.train.groups[0].prompt);
        }
        Ok(Self { train, validation })
    }
}

/// Decides a prompt's place in the split.
fn split_hash(prompt: &[u32], seed: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    prompt.iter().for_each(|id| {
        hasher.update(&id.to_le_bytes());
    });
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_read_apart_share_no_prompt() {
        let group = |prompt, rewards: &[f64]| PromptGroup {
            prompt: vec![prompt, 1],
            first_row: 0,
            responses: rewards
                .iter()
                .enumerate()
                .map(|(row, &reward)| Response { row, ids: vec![1], truncated: false, reward, copies: 1 })
                .collect(),
        };
        let set = |groups: &[PromptGroup]| FeedbackSet { groups: groups.to_vec() };
        let train = set(&[group(5, &[1.0, 2.0]), group(6, &[3.0]), group(7, &[4.0])]);
        let (split, dropped) = Split::of(train.clone(), set(&[group(6, &[5.0]), group(8, &[6.0])])).expect("apart");
        assert_eq!((dropped, split.train.groups.len(), split.validation.groups.len()), (1, 2, 2));
        let rows: Vec<usize> = split.train.iter().chain(split.validation.iter()).map(|r| r.row).collect();
        assert_eq!(rows, [0, 1, 2, 3, 4]);
        assert!(Split::of(train.clone(), train).is_err(), "nothing is left");
    }

    #[test]
    fn fewer_held_out_prompts_leave_no_gaps_in_the_rows() {
        let group = |rows: &[usize]| PromptGroup {
            prompt: vec![1],
            first_row: 0,
            responses: rows
                .iter()
                .map(|&row| Response { row, ids: vec![1], truncated: false, reward: row as f64, copies: 1 })
                .collect(),
        };
        let train = FeedbackSet { groups: vec![group(&[0, 1]), group(&[4])] };
        let split = Split { train, validation: FeedbackSet { groups: vec![group(&[2, 3]), group(&[5, 6])] } };
        let fewer = split.with_held_out(&[1]);
        let rows = |set: &FeedbackSet| set.iter().map(|r| (r.row, r.reward)).collect::<Vec<_>>();
        assert_eq!(rows(&fewer.train), [(0, 0.0), (1, 1.0), (2, 4.0)]);
        assert_eq!(rows(&fewer.validation), [(3, 5.0), (4, 6.0)]);
        assert_ne!(split.fingerprint(), fewer.fingerprint());
        assert_eq!(split.fingerprint(), split.clone().fingerprint());
        let mut rated = split.clone();
        rated.validation.groups[0].responses[0].reward = 2.5;
        assert_ne!(split.fingerprint(), rated.fingerprint());
    }
}
