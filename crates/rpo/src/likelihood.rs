//! How likely given responses are under a model: from the rows of a file, rated or not, to log-probabilities, row by row. What
//! is the same to the model is computed once and told for each of its rows.

use serde_json::Value;

use crate::chat::Prompt;
use crate::error::{Error, Result};
use crate::evaluate::{Estimate, mean_tau_of};
use crate::feedback::{
    Added, Grouping, Limits, ReadOptions, ReadSummary, Response, Source, Split, Wanted, read_answers,
};
use crate::model::Model;
use crate::reference::{Cached, ReferenceCache, ReferenceScores, TokenScores};
use crate::statistics::kendall_tau_b;
use crate::tokenizer::Tokenizer;
use crate::world::World;

/// A response as it was given.
#[derive(Clone, Debug)]
pub struct Row {
    /// What its record calls itself, else the number of the record, from 0.
    pub id: Value,
    /// Its place in its record, from 0, if that may hold several responses.
    pub within: Option<usize>,
    /// What was asked.
    pub prompt: Prompt,
    /// What was answered.
    pub response: String,
    /// Its reward, if it is rated.
    pub reward: Option<f64>,
    /// Whether the prompt was cut at the limit.
    pub prompt_truncated: bool,
    /// Whether the response was cut at the limit.
    pub truncated: bool,
    /// Number of its prompt's group.
    group: usize,
    /// Its place in the group, and later its row in the data set.
    place: usize,
}

/// Responses to be scored.
#[derive(Clone, Debug)]
pub struct Given {
    /// In the order of the file.
    pub rows: Vec<Row>,
    /// What was counted while they were read.
    pub summary: ReadSummary,
    /// What is different to the model, all of it as what is trained on, so that a cache of reference scores serves.
    split: Split,
}

/// How a file is read.
#[derive(Clone, Debug)]
pub struct Reading<'a> {
    /// Format and columns.
    pub options: &'a ReadOptions,
    /// Column of what records are called; by default `id`, where there is one.
    pub id: Option<String>,
    /// The largest number of tokens of prompts and responses.
    pub limits: Limits,
    /// Whether the token that ends a response is scored as training does; else the response's text alone.
    pub end: bool,
}

impl Given {
    /// Reads `source`, which needs no rewards. Rows without a prompt or a response are left out and counted, as in training.
    /// `progress` hears how many rows are read.
    ///
    /// # Errors
    /// If the file cannot be read or a row is unusable (which, and why), or there is none.
    pub fn read(
        source: &Source,
        reading: &Reading<'_>,
        tokenizer: &Tokenizer,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        let answers = read_answers(source.files()?, reading.options, Wanted::All { id: reading.id.clone() })?;
        let mut grouping = Grouping::new(tokenizer, reading.limits)?;
        let mut rows = Vec::new();
        let notes = grouping.read(answers, &mut |added| rows.push(Row::of(added, reading.end)), progress)?;
        if rows.is_empty() {
            return Err(Error::Data(format!("{source}: no response in it")));
        }
        let (mut set, summary) = grouping.finish(&source.to_string())?;
        for row in &mut rows {
            row.place = set.groups[row.group].responses[row.place].row;
        }
        if !reading.end {
            let responses = set.groups.iter_mut().flat_map(|group| &mut group.responses);
            responses.filter(|response| !response.truncated).for_each(|response| _ = response.ids.pop());
        }
        let split = Split { train: set, ..Split::default() };
        Ok(Self { rows, summary: ReadSummary { notes, ..summary }, split })
    }

    /// A hash of the token ids and rewards, in hexadecimal: equal for equal responses alone.
    pub fn fingerprint(&self) -> String {
        self.split.fingerprint()
    }

    /// How many different responses there are to the model.
    pub fn distinct(&self) -> usize {
        self.split.train.responses()
    }

    /// The token ids that are scored of the row at `index`.
    pub fn ids(&self, index: usize) -> &[u32] {
        let Row { group, place, .. } = self.rows[index];
        let responses = &self.split.train.groups[group].responses;
        // Rows count up through a data set.
        &responses[place - responses[0].row].ids
    }

    /// Checks that the tokens, which `tokenizer` made, mean the same to another model with tokenizer `other`.
    ///
    /// # Errors
    /// If they do not; the message names a token or a text. If the model of a tokenizer fails.
    pub fn check_tokenizer(&self, tokenizer: &Tokenizer, other: &Tokenizer) -> Result<()> {
        let groups = &self.split.train.groups;
        let all = groups.iter().flat_map(|g| g.prompt.iter().chain(g.responses.iter().flat_map(|r| &r.ids)));
        let mut ids: Vec<u32> = all.copied().collect();
        ids.sort_unstable();
        ids.dedup();
        let texts = self.rows.iter().flat_map(|row| row.prompt.said().chain([row.response.as_str()]));
        match tokenizer.differs_from(other, &ids, &texts.collect::<Vec<&str>>())? {
            None => Ok(()),
            Some(how) => Err(Error::Data(format!(
                "model and reference have different tokenizers: {how}; log-probabilities can be compared token by token alone, \
                 so take a reference with the model's tokenizer"
            ))),
        }
    }

    /// Scores all responses under `model` in batches of at most `budget` tokens: taken from `cache`, which is of `model`, or
    /// computed and left there; nothing is kept without one. Token by token if `per_token`. The ranks of `world` share the pass, and
    /// each gets all scores. `progress` hears how many distinct responses are done, and may end the pass by an error.
    ///
    /// # Errors
    /// If the device fails, a prompt is too short for the model, and those of `progress`.
    pub fn score(
        &self,
        model: &Model,
        budget: usize,
        per_token: bool,
        cache: Option<&ReferenceCache>,
        world: &dyn World,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<(Likelihoods, Option<Cached>)> {
        model.start().check(&self.split.train)?;
        let places = || self.rows.iter().map(|row| row.place);
        if per_token {
            let (scores, cached) = TokenScores::cached(model, &self.split, budget, cache, world, progress)?;
            let sum = |row: usize| scores.of(row).iter().map(|&token| f64::from(token)).sum();
            let sums = places().map(sum).collect();
            let tokens = places().map(|row| scores.of(row).to_vec()).collect();
            return Ok((Likelihoods { sums, tokens: Some(tokens) }, cached));
        }
        let (scores, cached) = match cache {
            Some(cache) => {
                let (scores, cached) = ReferenceScores::cached(model, &self.split, budget, cache, world, progress)?;
                (scores, Some(cached))
            }
            None => (ReferenceScores::compute_together(model, &self.split, budget, world, progress)?, None),
        };
        let sums = places().filter_map(|row| scores.log_prob(row)).collect();
        Ok((Likelihoods { sums, tokens: None }, cached))
    }

    /// How values of the rows rank the rated responses of each prompt: mean of Kendall's tau-b with the rewards, over the prompts
    /// on which it is defined. Copies of a response count once, with the mean of their rewards.
    pub fn rank_correlation(&self, values: &[f64]) -> Option<Estimate> {
        let prompts = self.rated(values);
        mean_tau_of(prompts.iter().map(|(values, rewards)| (&values[..], &rewards[..])))
    }

    /// The same of each prompt; `None` where it is not defined.
    pub fn rank_correlations(&self, values: &[f64]) -> Vec<Option<f64>> {
        self.rated(values).iter().map(|(values, rewards)| kendall_tau_b(values, rewards)).collect()
    }

    /// The values and rewards of each prompt's rated responses.
    fn rated(&self, values: &[f64]) -> Vec<(Vec<f64>, Vec<f64>)> {
        let mut rated: Vec<(f64, usize, f64)> = vec![(0.0, 0, 0.0); self.distinct()];
        for (row, value) in self.rows.iter().zip(values) {
            if let (Some(reward), (sum, n, of)) = (row.reward, &mut rated[row.place]) {
                (*sum, *n, *of) = (*sum + reward, *n + 1, *value);
            }
        }
        let of_prompt = |responses: &[Response]| -> (Vec<f64>, Vec<f64>) {
            let rated = responses.iter().map(|response| rated[response.row]).filter(|(_, n, _)| *n > 0);
            rated.map(|(sum, n, value)| (value, sum / n as f64)).unzip()
        };
        self.split.train.groups.iter().map(|group| of_prompt(&group.responses)).collect()
    }
}

impl Row {
    fn of(added: &Added<'_>, end: bool) -> Self {
        let (answer, response) = (added.answer, added.response);
        Self {
            id: answer.id.clone(),
            within: answer.within,
            prompt: answer.prompt.clone(),
            response: answer.response.clone(),
            reward: answer.reward,
            prompt_truncated: added.cut_prompt,
            // Where the end is not scored, it is not missed.
            truncated: response.length - usize::from(!end) > response.ids.len(),
            group: added.group,
            place: added.place,
        }
    }
}

/// How likely responses are under one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Likelihoods {
    /// `log p(y|x)` of each row, summed over tokens, in nats.
    pub sums: Vec<f64>,
    /// Those of the tokens of each row, if they were asked for.
    pub tokens: Option<Vec<Vec<f32>>>,
}
