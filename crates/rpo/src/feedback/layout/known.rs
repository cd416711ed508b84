//! Known exports by their columns, and what is said when columns are missing.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::pairs::Pair;
use super::path::find;
use super::{ReadOptions, Reward, Shape, Terms};
use crate::feedback::records::Format;

/// The first records of a file.
pub(super) struct Sample<'a>(pub Vec<&'a Map<String, Value>>);

impl<'a> Sample<'a> {
    pub(super) fn has(&self, path: &str) -> bool {
        self.0.iter().any(|record| find(record, path).is_some())
    }

    /// The first value that is not null.
    pub(super) fn value(&self, path: &str) -> Option<Cow<'a, Value>> {
        self.0.iter().find_map(|record| find(record, path).filter(|value| !value.is_null()))
    }

    /// All columns in order; of objects, their fields.
    fn columns(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (name, value) in self.0.iter().flat_map(|record| record.iter()) {
            let fields = match value {
                Value::Object(fields) if !fields.is_empty() && fields.len() <= 12 => {
                    fields.keys().map(|field| format!("{name}.{field}")).collect()
                }
                _ => vec![name.clone()],
            };
            fields.into_iter().for_each(|field| {
                if !names.contains(&field) {
                    names.push(field);
                }
            });
        }
        names
    }
}

/// An export that is known.
pub(super) struct Known {
    pub said: String,
    pub prompt: Option<String>,
    pub shape: Shape,
    pub reward: Reward,
}

const PROMPT: [&str; 12] = [
    "prompt",
    "instruction",
    "question",
    "query",
    "input",
    "inputs",
    "user_input",
    "user_message",
    "request",
    "context",
    "history",
    "post",
];
const RESPONSE: [&str; 11] = [
    "response",
    "completion",
    "output",
    "answer",
    "reply",
    "generation",
    "generated_text",
    "model_output",
    "prediction",
    "assistant",
    "completions",
];
const REWARD: [&str; 14] = [
    "reward",
    "rating",
    "score",
    "label",
    "feedback",
    "overall_score",
    "stars",
    "thumb",
    "thumbs",
    "vote",
    "quality",
    "user_feedback",
    "grade",
    "helpfulness",
];

/// The column that bears one of these names, by itself or at the end of a path.
fn alias(columns: &[String], names: &[&str]) -> Option<String> {
    let last = |column: &str| column.rsplit('.').next().unwrap_or(column).to_lowercase().replace(['-', ' '], "_");
    names.iter().find_map(|name| columns.iter().find(|column| last(column) == **name).cloned())
}

fn rows(response: &str) -> Shape {
    Shape::Rows { response: Some(response.into()), responses: None, text: None }
}

fn one(column: &str) -> Reward {
    Reward::Columns(Terms(vec![(column.into(), None)]))
}

/// What the sample is an export of, if it is known; an error if it is known to hold no rated responses.
pub(super) fn recognise(sample: &Sample<'_>, o: &ReadOptions) -> Result<Option<Known>, String> {
    let has = |names: &[&str]| names.iter().all(|name| sample.has(name));
    let given = o.response.is_some() || o.responses.is_some() || o.reward.is_some();
    let known = |said: &str, prompt: Option<&str>, shape, reward| {
        Ok(Some(Known { said: format!("recognised as {said}"), prompt: prompt.map(Into::into), shape, reward }))
    };
    let completions = sample.value("completions");
    let first = completions.as_deref().and_then(|list| list.get(0));
    let rated = first.is_some_and(|first| first.get("annotations").is_some() && first.get("response").is_some());
    if o.format == Some(Format::Ultrafeedback) || (!given && has(&["instruction"]) && rated) {
        let said = match o.score {
            super::Score::OverallScore => "UltraFeedback: the reward is overall_score",
            super::Score::FineGrained => "UltraFeedback: the reward is the mean of the fine-grained ratings",
        };
        let completions =
            Shape::Rows { response: None, responses: Some("completions".into()), text: Some("response".into()) };
        return known(said, Some("instruction"), completions, Reward::Ultrafeedback(o.score));
    }
    let plain = has(&["prompt"]) && (has(&["response", "reward"]) || has(&["responses"]));
    if plain {
        return Ok(None);
    }
    if has(&["message_id", "parent_id", "role", "text"]) && o.prompt.is_none() {
        return Err(format!(
            "no `prompt`; there are: {}. These are messages of OpenAssistant trees, one a row: write for each answer a row \
             with the text of its parent (`parent_id`) as prompt, its own as response and one of its labels as reward",
            sample.columns().join(", ")
        ));
    }
    if has(&["data.rating", "snapshot.chat"]) && o.response.is_none() {
        return known("feedback of Open WebUI: the reward is data.rating", None, Shape::OpenWebUi, one("data.rating"));
    }
    let columns = sample.columns();
    let annotations = sample.value("annotations");
    let annotated =
        annotations.as_deref().and_then(|list| list.get(0)).is_some_and(|first| first.get("result").is_some());
    if annotated && has(&["data"]) {
        let data: Vec<String> = columns.iter().filter(|column| column.starts_with("data.")).cloned().collect();
        let (prompt, response) = (alias(&data, &PROMPT), alias(&data, &RESPONSE));
        let response = response.unwrap_or_else(|| "data.response".into());
        let prompt = prompt.unwrap_or_else(|| "data.prompt".into());
        return known(
            "an export of Label Studio",
            Some(&prompt),
            rows(&response),
            Reward::LabelStudio(o.reward.clone()),
        );
    }
    if has(&["fields", "responses"]) && o.responses.is_none() {
        let within = |outer: &str| columns.iter().filter(|c| c.starts_with(outer)).cloned().collect::<Vec<_>>();
        let (fields, questions) = (within("fields."), within("responses."));
        let (prompt, response) = (alias(&fields, &PROMPT), alias(&fields, &RESPONSE));
        let reward =
            alias(&questions, &REWARD).or_else(|| questions.first().cloned()).unwrap_or_else(|| "reward".into());
        let response = response.unwrap_or_else(|| "response".into());
        return known(
            &format!("records of Argilla 2: the reward is {reward}"),
            prompt.as_deref(),
            rows(&response),
            one(&reward),
        );
    }
    let question =
        |c: &&String| c.ends_with(".responses") && (has(&[&format!("{c}.status")]) || has(&[&format!("{c}.users")]));
    let questions: Vec<&String> = columns.iter().filter(question).collect();
    let wanted = |c: &&&String| o.reward.as_ref().is_none_or(|r| *r == ***c || format!("{r}.responses") == ***c);
    if let Some(reward) = questions.iter().find(wanted) {
        let (prompt, response) = (alias(&columns, &PROMPT), alias(&columns, &RESPONSE));
        let response = response.unwrap_or_else(|| "response".into());
        let said = format!("an export of Argilla 2: the reward is the mean of {reward}");
        return known(&said, prompt.as_deref(), rows(&response), one(reward));
    }
    let of_annotators = |c: &&String| {
        sample
            .0
            .iter()
            .filter_map(|r| r.get(*c)?.get(0))
            .any(|v| v.get("user_id").is_some() && v.get("value").is_some())
    };
    let wanted = |c: &&String| o.reward.as_ref().is_none_or(|r| r == *c);
    if let Some(reward) = columns.iter().filter(of_annotators).find(wanted) {
        let (prompt, response) = (alias(&columns, &PROMPT), alias(&columns, &RESPONSE));
        let said = format!("an export of Argilla 1: the reward is the mean of {reward}");
        let response = response.unwrap_or_else(|| "response".into());
        return known(&said, prompt.as_deref(), rows(&response), one(reward));
    }
    if !given && let Some(found) = pairs(sample, &columns) {
        return Ok(Some(found));
    }
    if has(&["prompt", "response", "helpfulness", "verbosity"]) {
        let said = "HelpSteer or HelpSteer2: the reward is helpfulness; --reward-column takes others, also weighted";
        return known(said, Some("prompt"), rows("response"), one("helpfulness"));
    }
    if has(&["prompt", "completion", "label"]) && !has(&["response"]) {
        return known("unpaired preferences of TRL", Some("prompt"), rows("completion"), one("label"));
    }
    let scores: Vec<String> = match sample.value("scores").as_deref() {
        Some(Value::Array(list)) => {
            list.iter().filter_map(|s| Some(format!("scores.{}", s.get("name")?.as_str()?))).collect()
        }
        _ => columns.iter().filter(|c| c.starts_with("scores.")).cloned().collect(),
    };
    if has(&["input", "output"]) && !scores.is_empty() {
        return match (&o.reward, &scores[..]) {
            (None, [_, _, ..]) => Err(format!(
                "several scores, as Langfuse exports them: {}; choose with --reward-column",
                scores.join(", ")
            )),
            _ => known(
                &format!("an export of Langfuse: the reward is {}", scores[0]),
                Some("input"),
                rows("output"),
                one(&scores[0]),
            ),
        };
    }
    let dialogues = ["messages", "conversations", "conversation"].into_iter().find(|c| has(&[c]));
    if let Some(column) = dialogues.filter(|_| o.response.is_none() && alias(&columns, &RESPONSE).is_none()) {
        let reward = ["reward", "label", "kto_tag"].into_iter().find(|c| has(&[c])).unwrap_or("reward");
        return known(&format!("dialogues in `{column}`"), None, Shape::Dialogue(column.into()), one(reward));
    }
    Ok(None)
}

/// Layouts with two responses a row.
fn pairs(sample: &Sample<'_>, columns: &[String]) -> Option<Known> {
    let has = |names: &[String; 2]| names.iter().all(|name| sample.has(name));
    let prompt = alias(columns, &PROMPT);
    let [a, b] = [["human_ref_A", "human_ref_B"], ["chosen", "rejected"], ["answer_0", "answer_1"]]
        .map(|names| names.map(String::from))
        .into_iter()
        .find(has)?;
    let named = |form: &dyn Fn(&str) -> String| [a.as_str(), b.as_str()].map(form);
    let tail = |name: &str| name.rsplit('_').next().unwrap_or(name).to_string();
    let mut forms = vec![named(&|name| format!("score_{}", tail(name)))];
    for kind in ["score", "rating", "reward"] {
        forms.extend([
            named(&|name| format!("{kind}_{name}")),
            named(&|name| format!("{name}_{kind}")),
            named(&|name| format!("{name}-{kind}")),
        ]);
    }
    let scores = forms.into_iter().find(has);
    let (said, prompt) = match (a.as_str(), &scores, &prompt) {
        ("human_ref_A", ..) => ("SHP: two answers a row", Some("history".to_string())),
        ("chosen", Some(_), _) => ("pairs with scores, as in UltraFeedback binarized", prompt),
        ("chosen", None, Some(_)) => ("preferences as in TRL: chosen counts 1, rejected 0", prompt),
        ("chosen", None, None) => ("pairs of dialogues as in hh-rlhf: chosen counts 1, rejected 0", None),
        _ => ("two rated answers a row", prompt),
    };
    // Without scores only the names of the columns tell the better one.
    if a != "chosen" && scores.is_none() {
        return None;
    }
    let said = format!("recognised as {said}");
    Some(Known { said, prompt, shape: Shape::Pair(Pair { responses: [a, b], scores }), reward: one("reward") })
}

/// Says which of the wanted columns (`role`, name) no record has, what there is, and which flags to set.
pub(super) fn missing(sample: &Sample<'_>, wanted: &[(&str, &str)]) -> Option<String> {
    let absent: Vec<_> = wanted.iter().filter(|(_, name)| !sample.has(name)).collect();
    let columns = sample.columns();
    let names: Vec<String> = absent.iter().map(|(_, name)| format!("no `{name}`")).collect();
    if names.is_empty() {
        return None;
    }
    let mut remedies = Vec::new();
    for (role, _) in absent {
        let tried: &[&str] = match *role {
            "prompt" => &PROMPT,
            "reward" => &REWARD,
            _ => &RESPONSE,
        };
        remedies.push(match alias(&columns, tried) {
            Some(column) => format!("--{role}-column {column}"),
            None => format!("--{role}-column NAME (none of {} is there)", tried.join(", ")),
        });
    }
    Some(format!(
        "{}; there are: {}. Name the right ones: {}",
        names.join(", "),
        columns.join(", "),
        remedies.join(" ")
    ))
}

/// Whether a column could be the reward that the user did not name.
pub(super) fn reward_alias(sample: &Sample<'_>) -> bool {
    alias(&sample.columns(), &REWARD).is_some()
}
