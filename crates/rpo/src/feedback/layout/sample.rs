//! The first records of a file: which columns they have, and which of those bear a usual name.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::{Map, Value};

use super::path::{as_json, find};

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

    /// Whether something stands there in any record: neither nothing nor a list of nothing.
    pub(super) fn holds(&self, path: &str) -> bool {
        let is_something = |value: &Value| match value {
            Value::Null => false,
            Value::Array(list) => !list.is_empty(),
            _ => true,
        };
        self.0.iter().any(|record| find(record, path).is_some_and(|value| is_something(&value)))
    }

    /// All columns in order; of objects, their fields.
    pub(super) fn columns(&self) -> Vec<String> {
        let (mut names, mut known) = (Vec::new(), HashSet::new());
        for (name, value) in self.0.iter().flat_map(|record| record.iter()) {
            let fields = match value {
                Value::Object(fields) if !fields.is_empty() && fields.len() <= 12 => {
                    fields.keys().map(|field| format!("{name}.{field}")).collect()
                }
                _ => vec![name.clone()],
            };
            fields.into_iter().for_each(|field| {
                if known.insert(field.clone()) {
                    names.push(field);
                }
            });
        }
        names
    }

    /// The names of the scores in `scores`, as Langfuse exports them: objects with a name, fields of an object, or JSON of either.
    pub(super) fn scores(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for record in &self.0 {
            let Some(value) = record.get("scores") else { continue };
            let value = as_json(value).map_or(Cow::Borrowed(value), Cow::Owned);
            let found: Vec<&str> = match &*value {
                Value::Array(list) => list.iter().filter_map(|score| score.get("name")?.as_str()).collect(),
                Value::Object(fields) => fields.keys().map(String::as_str).collect(),
                _ => Vec::new(),
            };
            let path = |name: &str| format!("scores.{name}");
            found.into_iter().map(path).for_each(|name| {
                if !names.contains(&name) {
                    names.push(name);
                }
            });
        }
        names
    }

    /// The column that could be the reward, which the user did not name.
    pub(super) fn reward_alias(&self) -> Option<String> {
        alias(&self.columns(), &REWARD)
    }

    /// A column beside `others` that holds texts of several words.
    pub(super) fn other_text(&self, others: &[&str]) -> Option<String> {
        let columns = self.columns().into_iter().filter(|column| !others.contains(&column.as_str()));
        let is_text = |column: &String| {
            self.0.iter().filter_map(|record| record.get(column)?.as_str()).any(|text| text.trim().contains(' '))
        };
        columns.into_iter().find(is_text)
    }
}

/// A column's name as it can be told from others: with what cannot be seen in it written out.
fn shown(name: &str) -> String {
    let seen = name.trim() == name && !name.chars().any(|c| c.is_control() || ('\u{200b}'..='\u{200f}').contains(&c));
    if seen { name.into() } else { format!("{name:?}") }
}

pub(super) fn listed(columns: &[String]) -> String {
    match columns {
        [] => "none".into(),
        columns => columns.iter().map(|name| shown(name)).collect::<Vec<_>>().join(", "),
    }
}

pub(super) const PROMPT: [&str; 12] = [
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
pub(super) const RESPONSE: [&str; 11] = [
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
pub(super) const REWARD: [&str; 14] = [
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

/// Fields that hold the text of what a column is called.
pub(super) const TEXTS: [&str; 4] = ["text", "full_text", "content", "value"];

/// The column that bears one of these names, by itself, at the end of a path or before a field for its text.
pub(super) fn alias(columns: &[String], names: &[&str]) -> Option<String> {
    let plain = |name: &str| name.to_lowercase().replace(['-', ' '], "_");
    let is = |column: &str, name: &str| {
        let mut path = column.rsplit('.').map(plain);
        let last = path.next().unwrap_or_default();
        last == name || TEXTS.contains(&last.as_str()) && path.next().as_deref() == Some(name)
    };
    names.iter().find_map(|name| columns.iter().find(|column| is(column, name)).cloned())
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
    Some(format!("{}; there are: {}. Name the right ones: {}", names.join(", "), listed(&columns), remedies.join(" ")))
}
