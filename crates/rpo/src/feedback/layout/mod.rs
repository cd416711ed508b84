//! From the record of a file to the rated responses in it, by the names of its columns.

mod exports;
mod known;
mod lists;
pub(super) mod messages;
mod nested;
mod pairs;
mod path;
pub(super) mod reward;
mod sample;
mod written;

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::notes::{Answer, Notes};
use super::records::{Format, object};
use crate::chat::Prompt;
use known::recognise;
use lists::elements;
use pairs::Pair;
pub(super) use path::find;
use reward::Terms;
use sample::{Sample, missing};

type Result<T> = std::result::Result<T, String>;

/// Which of UltraFeedback's ratings is the reward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Score {
    /// `overall_score`.
    #[default]
    OverallScore,
    /// The mean of the fine-grained ratings that are numbers.
    FineGrained,
}

/// Format and columns. Columns are names or dotted paths; those that are not given are those of a known export, else bear the
/// name of the field here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct ReadOptions {
    /// How the files are laid out; by default what their content says.
    pub format: Option<Format>,
    /// Column of the prompts: texts, or chat messages.
    pub prompt: Option<String>,
    /// Column of the responses in flat rows.
    pub response: Option<String>,
    /// Column of the rewards; the mean of several (`a,b`) or their weighted sum (`a*0.65,b*-0.4`).
    pub reward: Option<String>,
    /// Column of the list of responses in nested rows.
    pub responses: Option<String>,
    /// Field of a response's text inside the list of responses.
    pub text: Option<String>,
    /// Which of UltraFeedback's ratings is the reward.
    pub score: Score,
    /// Whether rows without a rating, a prompt or a response are errors instead of being left out and counted.
    pub strict: bool,
    /// What the words in the reward column count; by default thumbs and the usual words are 1 and 0.
    pub reward_map: BTreeMap<String, f64>,
}

impl ReadOptions {
    /// The columns that the user named.
    pub(super) fn columns(&self) -> Vec<String> {
        let rewards = self.reward.as_deref().and_then(|reward| Terms::parse(reward).ok());
        let rewards = rewards.into_iter().flat_map(|terms| terms.0).map(|(column, _)| column);
        let named = [&self.prompt, &self.response, &self.responses].into_iter().flatten().cloned();
        named.chain(rewards).collect()
    }
}

/// Where the responses of a record stand.
#[derive(Clone, Debug, PartialEq)]
enum Shape {
    /// One in a column, or several in a list of objects (or texts) or an object of lists.
    Rows {
        response: Option<String>,
        responses: Option<String>,
        text: Option<String>,
    },
    Pair(Pair),
    /// The last turn of a list of messages.
    Dialogue(String),
    OpenWebUi,
}

#[derive(Clone, Debug, PartialEq)]
enum Reward {
    Columns(Terms),
    Ultrafeedback(Score),
    LabelStudio(Option<String>),
}

/// What is counted when a row or a response is left out.
type Lack = (&'static str, &'static str);
const UNRATED: [Lack; 2] = [
    ("row has no rating and was left out", "rows have no rating and were left out"),
    ("response has no rating and was left out", "responses have no rating and were left out"),
];
const NO_RESPONSE: [Lack; 2] = [
    ("row has an empty response and was left out", "rows have an empty response and were left out"),
    ("response is empty and was left out", "responses are empty and were left out"),
];
const NO_PROMPT: Lack = ("row has an empty prompt and was left out", "rows have an empty prompt and were left out");
const TEN: Lack = (
    "response has an overall_score of 10 beside fine-grained ratings of 2 or less, a known fault of UltraFeedback; --set \
     columns.score=fine-grained takes the mean of those",
    "responses have an overall_score of 10 beside fine-grained ratings of 2 or less, a known fault of UltraFeedback; --set \
     columns.score=fine-grained takes the mean of those",
);
const PYTHON: Lack = (
    "text is a list of messages as Python prints it and was taken as it stands; export JSON instead",
    "texts are lists of messages as Python prints them and were taken as they stand; export JSON instead",
);

/// How the records of a file are read.
pub(super) struct Layout {
    prompt: Option<String>,
    shape: Shape,
    reward: Reward,
    options: ReadOptions,
    /// Whether responses without a rating are left out.
    rated: bool,
    /// What to say if no row has the reward.
    pub unrewarded: Option<String>,
}

/// Columns that some sets keep beside the prompt and that belong to it.
const CONTEXT: [&str; 5] = ["input", "context", "system", "system_prompt", "history"];

impl Layout {
    /// Decides on the first records of a file; `whole` says that there are no others, `rated` that only rated responses are
    /// wanted.
    ///
    /// # Errors
    /// If none of them has a column that is needed: all such columns, what there is, and the flags to set.
    pub(super) fn of(
        records: Vec<&Map<String, Value>>,
        whole: bool,
        o: &ReadOptions,
        rated: bool,
        notes: &mut Notes,
    ) -> Result<Self> {
        let sample = Sample(records);
        let known = recognise(&sample, o)?;
        let owned = |name: &Option<String>, default: &str| name.clone().unwrap_or_else(|| default.into());
        let (mut prompt, mut shape, mut reward) = match known {
            Some(known) => {
                notes.say(known.said);
                (known.prompt, known.shape, known.reward)
            }
            None => {
                let shape = Shape::Rows {
                    response: Some(owned(&o.response, "response")),
                    responses: Some(owned(&o.responses, "responses")).filter(|_| o.response.is_none()),
                    text: o.text.clone(),
                };
                (Some("prompt".into()), shape, Reward::Columns(Terms::parse("reward")?))
            }
        };
        prompt = o.prompt.clone().or(prompt);
        if let Some(column) = &o.responses {
            shape = Shape::Rows { response: None, responses: Some(column.clone()), text: o.text.clone() };
        } else if let Some(response) = &o.response {
            shape = Shape::Rows { response: Some(response.clone()), responses: None, text: o.text.clone() };
            if o.prompt.as_ref() == Some(response) {
                shape = Shape::Dialogue(response.clone());
            }
        }
        if let (Some(column), false) = (&o.reward, matches!(reward, Reward::LabelStudio(_))) {
            let argilla = format!("{column}.responses");
            reward = Reward::Columns(match sample.has(column) {
                true => Terms(vec![(column.clone(), None)]),
                false if sample.0.iter().any(|r| r.contains_key(&argilla)) => Terms(vec![(argilla, None)]),
                false => Terms::parse(column)?,
            });
        }
        let mut layout = Self { prompt, shape, reward, options: o.clone(), rated, unrewarded: None };
        if !sample.0.is_empty() {
            layout.check(&sample, whole, notes)?;
        }
        notes.say_all(layout.unused_context(&sample));
        if let Reward::Columns(Terms(terms)) = &layout.reward {
            for (column, _) in terms {
                let values: Vec<Cow<'_, Value>> = sample.0.iter().filter_map(|record| find(record, column)).collect();
                notes.scales.look(column, &values);
            }
        }
        Ok(layout)
    }

    /// What to say of columns that belong to a prompt, as Alpaca's `input` does, and are not read.
    fn unused_context(&self, sample: &Sample<'_>) -> Vec<String> {
        let read: Vec<&str> = match &self.shape {
            Shape::Rows { response, responses, text } => {
                [&self.prompt, response, responses, text].into_iter().filter_map(Option::as_deref).collect()
            }
            Shape::Pair(pair) => self.prompt.iter().chain(&pair.responses).map(String::as_str).collect(),
            Shape::Dialogue(column) => vec![column],
            Shape::OpenWebUi => return Vec::new(),
        };
        let within = |path: &str, column: &str| path.split('.').next() == Some(column);
        let filled = |column: &str| {
            let texts = sample.0.iter().filter_map(|record| record.get(column)?.as_str());
            texts.into_iter().any(|text| !text.trim().is_empty())
        };
        let unused = CONTEXT.iter().filter(|column| filled(column) && !read.iter().any(|path| within(path, column)));
        unused
            .map(|column| format!("column `{column}` is not read: join it to the prompt yourself if it belongs there"))
            .collect()
    }

    fn check(&mut self, sample: &Sample<'_>, whole: bool, notes: &mut Notes) -> Result<()> {
        let mut wanted: Vec<(&str, &str)> = Vec::new();
        let mut inner: Vec<Map<String, Value>> = Vec::new();
        match &self.shape {
            Shape::Rows { response, responses, .. } => {
                wanted.extend(self.prompt.as_deref().map(|p| ("prompt", p)));
                match responses.as_deref().filter(|r| response.is_none() || sample.has(r)) {
                    Some(responses) => {
                        wanted.push(("responses", responses));
                        let lists = sample.0.iter().filter_map(|r| elements(&*find(r, responses)?).ok()).flatten();
                        inner = lists.filter_map(|e| object(e).ok()).collect();
                    }
                    None => wanted.extend(response.as_deref().map(|r| ("response", r))),
                }
            }
            Shape::Dialogue(column) => wanted.push(("response", column)),
            Shape::Pair(_) | Shape::OpenWebUi => {}
        }
        let mut rewards: Vec<(&str, &str)> = Vec::new();
        if let (Reward::Columns(Terms(terms)), false) = (&self.reward, matches!(self.shape, Shape::Pair(_))) {
            rewards = terms.iter().map(|(column, _)| ("reward", column.as_str())).collect();
        }
        let elements = Sample(inner.iter().collect());
        if !inner.is_empty() {
            if let Some(problem) = missing(sample, &wanted) {
                return Err(problem);
            }
            let Shape::Rows { text, .. } = &self.shape else { return Ok(()) };
            wanted = vec![("text", text.as_deref().unwrap_or("text"))];
        }
        if !inner.is_empty() && rewards.iter().all(|(_, column)| sample.value(column).is_some_and(|v| v.is_array())) {
            // A list of ratings beside that of the responses.
            rewards.clear();
        }
        let has_text =
            |element: &Map<String, Value>| messages::turns(&Value::Object(element.clone())).is_ok_and(|t| t.is_some());
        if inner.iter().any(has_text) {
            wanted.clear();
        }
        let sample = if inner.is_empty() { sample } else { &elements };
        // Ratings that nobody asked for may be missing.
        if !self.rated && self.options.reward.is_none() && missing(sample, &rewards).is_some() {
            rewards.clear();
            notes.say_all(sample.reward_alias().map(|column| {
                format!("no `reward`; if `{column}` rates the responses, name it: --reward-column {column}")
            }));
        }
        let all: Vec<(&str, &str)> = wanted.iter().chain(&rewards).copied().collect();
        self.unrewarded = missing(sample, &rewards);
        match (missing(sample, &wanted), &self.unrewarded) {
            (Some(_), _) => Err(missing(sample, &all).unwrap_or_default()),
            // Rows that are rated may come later, unless the ratings have another name.
            (None, Some(problem)) if whole || self.options.reward.is_none() && sample.reward_alias().is_some() => {
                Err(problem.clone())
            }
            _ => Ok(()),
        }
    }

    /// The responses of a record, or what is wrong with it. What is left out is counted in `notes`.
    pub(super) fn answers(&self, record: &Map<String, Value>, notes: &mut Notes) -> Result<Vec<Answer>> {
        let nothing = || Cow::Owned(Value::Null);
        let at = |column: &str| find(record, column).unwrap_or_else(nothing);
        let asked = || self.prompt.as_deref().map_or_else(nothing, at);
        let said = |column: &str, problem: String| format!("`{column}` is {problem}");
        match &self.shape {
            Shape::Rows { response, responses, text } => {
                let prompt = asked();
                let name = self.prompt.as_deref().unwrap_or("prompt");
                let list = responses.as_deref().and_then(|r| Some((r, find(record, r)?)));
                // Where both columns are, one that holds no list is another thing.
                let flat =
                    || response.as_deref().and_then(|response| find(record, response)).is_some_and(|r| !r.is_null());
                let list = list.filter(|(_, list)| elements(list).is_ok_and(|list| !list.is_empty()) || !flat());
                if let Some((name_of_list, list)) = list {
                    let prompt = messages::prompt(&prompt).map_err(|p| said(name, p))?;
                    let elements = elements(&list).map_err(|p| said(name_of_list, p))?;
                    let text = text.as_deref().unwrap_or("text");
                    return self.nested(record, &prompt, elements, text, notes);
                }
                let column = response.as_deref().or(responses.as_deref()).unwrap_or("response");
                let answer = at(column);
                let python = [&prompt, &answer].into_iter().filter(|v| messages::python(v)).count();
                notes.count(PYTHON, python);
                messages::prompt(&prompt).map_err(|p| said(name, p))?;
                let texts = messages::prompt_and_response(&prompt, &answer).map_err(|p| said(column, p))?;
                let reward = self.reward(record, notes)?;
                Ok(self.complete(texts, reward, None, notes)?.into_iter().collect())
            }
            Shape::Dialogue(column) => {
                let texts = messages::dialogue(&at(column)).map_err(|p| said(column, p))?;
                let reward = self.reward(record, notes)?;
                Ok(self.complete(texts, reward, None, notes)?.into_iter().collect())
            }
            Shape::OpenWebUi => {
                let reward = self.reward(record, notes)?;
                Ok(self.complete(exports::open_webui(record)?, reward, None, notes)?.into_iter().collect())
            }
            Shape::Pair(pair) => {
                let (prompt, texts) = pair.texts(record, self.prompt.as_deref(), self.options.prompt.is_some())?;
                let mut rows = Vec::new();
                for (i, text) in texts.into_iter().enumerate() {
                    let reward = match &pair.scores {
                        Some(scores) => {
                            notes.rewarded = true;
                            notes.scales.rate(&scores[i], &at(&scores[i]), &self.options.reward_map)?
                        }
                        None => Some(1.0 - i as f64),
                    };
                    rows.extend(self.complete((prompt.clone(), text), reward, Some(i), notes)?);
                }
                Ok(rows)
            }
        }
    }

    fn reward(&self, record: &Map<String, Value>, notes: &mut Notes) -> Result<Option<f64>> {
        let map = &self.options.reward_map;
        match &self.reward {
            Reward::Columns(terms) => {
                notes.rewarded |= terms.0.iter().any(|(column, _)| find(record, column).is_some());
                terms.rate(record, map, &mut notes.scales)
            }
            Reward::Ultrafeedback(score) => {
                notes.rewarded = true;
                let fine = exports::fine_grained(record);
                match score {
                    Score::FineGrained => Ok(fine),
                    Score::OverallScore => {
                        let overall =
                            Terms(vec![("overall_score".into(), None)]).rate(record, map, &mut notes.scales)?;
                        let faulty = overall == Some(10.0) && fine.is_some_and(|fine| fine <= 2.0);
                        notes.count(TEN, usize::from(faulty));
                        Ok(overall)
                    }
                }
            }
            Reward::LabelStudio(name) => {
                notes.rewarded = true;
                let value = exports::label_studio(record, name.as_deref())?;
                notes.scales.rate(name.as_deref().unwrap_or("rating"), &value, map)
            }
        }
    }

    /// A response, unless it lacks something, which is counted; `within` is its place where a record may hold several.
    fn complete(
        &self,
        (prompt, response): (Prompt, String),
        reward: Option<f64>,
        within: Option<usize>,
        notes: &mut Notes,
    ) -> Result<Option<Answer>> {
        let unit = usize::from(within.is_some());
        let lack = match reward {
            _ if prompt.is_blank() => NO_PROMPT,
            _ if response.trim().is_empty() => NO_RESPONSE[unit],
            None if self.rated => UNRATED[unit],
            reward => return Ok(Some(Answer { prompt, response, reward, id: Value::Null, within })),
        };
        if self.options.strict {
            let what = lack.0.replace(" and was left out", "");
            return Err(format!("the {what}; without --strict (columns.strict) such are left out and counted"));
        }
        notes.count(lack, 1);
        Ok(None)
    }
}
