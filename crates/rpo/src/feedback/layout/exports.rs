//! Exports whose ratings and dialogues no path leads to.

use serde_json::{Map, Value};

use super::messages::{dialogue, turns};
use super::path::find;
use super::reward::mean;
use crate::chat::Prompt;

type Result<T> = std::result::Result<T, String>;

/// The mean of a completion's fine-grained ratings that are numbers.
pub(super) fn fine_grained(completion: &Map<String, Value>) -> Option<f64> {
    let number = |v: &Value| v.as_f64().or_else(|| v.as_str()?.trim().parse().ok()).filter(|n: &f64| n.is_finite());
    mean(completion.get("annotations")?.as_object()?.values().filter_map(|a| number(a.get("Rating")?)))
}

/// What the annotators of a Label Studio task chose or rated, without cancelled annotations; `name` is the control's.
pub(super) fn label_studio(record: &Map<String, Value>, name: Option<&str>) -> Result<Value> {
    let annotations = record.get("annotations").and_then(Value::as_array);
    let mut found: Vec<(&str, Value)> = Vec::new();
    for annotation in annotations.into_iter().flatten() {
        if annotation.get("was_cancelled") == Some(&Value::Bool(true)) {
            continue;
        }
        for result in annotation.get("result").and_then(Value::as_array).into_iter().flatten() {
            let from = result.get("from_name").and_then(Value::as_str).unwrap_or_default();
            let value = result.get("value");
            let value =
                value.and_then(|v| v.get("rating").or_else(|| v.get("number")).or_else(|| v.get("choices")?.get(0)));
            if let Some(value) = value.filter(|_| name.is_none_or(|name| name == from)) {
                found.push((from, value.clone()));
            }
        }
    }
    match found.iter().find(|(from, _)| *from != found[0].0) {
        Some((other, _)) => Err(format!(
            "annotations have several ratings, `{}` and `{other}`; choose with --reward-column {}",
            found[0].0, found[0].0
        )),
        None => Ok(Value::Array(found.into_iter().map(|(_, value)| value).collect())),
    }
}

/// The names of the controls that the annotations of these tasks rate by.
pub(super) fn controls(tasks: &[&Map<String, Value>]) -> Vec<String> {
    let mut names = Vec::new();
    for name in tasks.iter().filter_map(|task| find(task, "annotations.result.from_name")) {
        flat(&name, &mut names);
    }
    names
}

/// The different texts in a value and the lists in it.
fn flat(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) if !texts.contains(text) => texts.push(text.clone()),
        Value::Array(list) => list.iter().for_each(|value| flat(value, texts)),
        _ => {}
    }
}

/// The answer that an Open WebUI feedback rates, and what was said before it.
pub(super) fn open_webui(record: &Map<String, Value>) -> Result<(Prompt, String)> {
    let chat = ["snapshot.chat.chat", "snapshot.chat"].iter().find_map(|path| find(record, path));
    // A feedback without its chat is left out like any other row without a prompt.
    let Some(chat) = chat.filter(|chat| !chat.is_null()) else {
        return Ok((Prompt::Text(String::new()), String::new()));
    };
    let rated = find(record, "meta.message_id");
    let rated = rated.as_deref().and_then(Value::as_str);
    let history = chat.get("history");
    let messages = history.and_then(|h| h.get("messages")).and_then(Value::as_object);
    let current = history.and_then(|h| h.get("currentId")).and_then(Value::as_str);
    if let (Some(messages), Some(mut id)) =
        (messages, rated.filter(|id| messages.is_some_and(|m| m.contains_key(*id))).or(current))
    {
        let mut branch = Vec::new();
        while let Some(message) = messages.get(id).filter(|_| branch.len() < messages.len()) {
            branch.push(message.clone());
            match message.get("parentId").and_then(Value::as_str) {
                Some(parent) => id = parent,
                None => break,
            }
        }
        branch.reverse();
        return dialogue(&Value::Array(branch));
    }
    let list = chat.get("messages").and_then(Value::as_array).ok_or("`snapshot.chat` holds no messages")?;
    let is_rated = |message: &Value| message.get("id").and_then(Value::as_str).is_some_and(|id| Some(id) == rated);
    let end = list.iter().position(is_rated).map_or(list.len(), |at| at + 1);
    let said = Value::Array(list[..end].to_vec());
    match turns(&said)? {
        Some(_) => dialogue(&said),
        None => Err("`snapshot.chat` holds no messages".into()),
    }
}
