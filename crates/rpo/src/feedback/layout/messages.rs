//! Chat messages as plain texts, which is what T5 reads.
//!
//! A single turn is its content. Several are written one below the other under the names of who speaks, the system's text
//! before them without a name and parted by an empty line:
//!
//! ```text
//! You are brief.
//!
//! User: Hi
//! Assistant: Hello!
//! User: And grass?
//! ```

use serde_json::{Map, Value};

use super::path::as_json;
use crate::feedback::records::kind;

type Result<T> = std::result::Result<T, String>;

/// What somebody said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// `User`, `Assistant`, `System`, `Tool` or another name.
    pub speaker: String,
    pub text: String,
}

/// A value as a text: texts as they are, messages rendered, null as nothing.
pub(in crate::feedback) fn text(value: &Value) -> Result<String> {
    if let Some(turns) = turns(value)? {
        return Ok(render(&turns));
    }
    match value {
        Value::Null => Ok(String::new()),
        Value::Array(list) if list.is_empty() => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Object(map) => match ["content", "text", "value"].iter().find_map(|name| map.get(*name)) {
            Some(inner) => content(inner),
            None => Err("an object, not a text".into()),
        },
        other => Err(format!("{}, not a text", kind(other))),
    }
}

/// The turns of a value that is a message, a list of messages, an object with a list `messages`, or JSON of one of the latter.
///
/// Messages have `role` and `content`, or `from` and `value`; the parts of a content must be texts. Blank turns are left out,
/// but for the last, which is an answer that is empty.
pub(super) fn turns(value: &Value) -> Result<Option<Vec<Turn>>> {
    match value {
        // An answer may itself be JSON; what is taken for messages are lists whose speakers are known.
        Value::String(_) => match as_json(value) {
            Some(Value::Array(list)) if list.iter().all(speaks) => turns(&Value::Array(list)),
            Some(Value::Object(map)) if list_within(&map).is_some_and(|list| list.iter().all(speaks)) => {
                turns(&Value::Object(map))
            }
            _ => Ok(None),
        },
        Value::Array(list) if !list.is_empty() && list.iter().all(is_message) => {
            let turns: Result<Vec<Turn>> = list.iter().filter_map(Value::as_object).map(turn).collect();
            let turns = turns?;
            let last = turns.len() - 1;
            let kept = turns.into_iter().enumerate().filter(|(i, turn)| *i == last || !turn.text.trim().is_empty());
            Ok(Some(kept.map(|(_, turn)| turn).collect()))
        }
        Value::Object(map) if is_message(value) => Ok(Some(vec![turn(map)?])),
        Value::Object(map) => match map.get("messages") {
            Some(messages @ Value::Array(_)) => turns(messages),
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

fn list_within(map: &Map<String, Value>) -> Option<&Vec<Value>> {
    map.get("messages").and_then(Value::as_array)
}

/// Whether a value is a message of a known speaker.
fn speaks(value: &Value) -> bool {
    let speaker = value.get("role").or_else(|| value.get("from")).and_then(Value::as_str);
    is_message(value) && speaker.is_some_and(|name| SPEAKERS.iter().any(|(known, _)| *known == named(name)))
}

fn is_message(value: &Value) -> bool {
    let has = |names: [&str; 2]| names.iter().all(|name| value.get(name).is_some());
    has(["role", "content"]) || has(["from", "value"])
}

fn turn(message: &Map<String, Value>) -> Result<Turn> {
    let field = |names: [&str; 2]| names.iter().find_map(|name| message.get(*name));
    let speaker = field(["role", "from"]).and_then(Value::as_str).unwrap_or_default();
    let text = field(["content", "value"]).map_or(Ok(String::new()), content)?;
    Ok(Turn { speaker: named(speaker), text })
}

/// A message's content: a text, or parts that are texts.
fn content(value: &Value) -> Result<String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let part = |part: &Value| match (part.as_str().or_else(|| part.get("text")?.as_str()), part.get("type")) {
                (Some(text), _) => Ok(text.to_string()),
                (None, Some(Value::String(other))) => {
                    Err(format!("a message with a part of type {other}; only texts can be read"))
                }
                _ => Err("a message whose content is no text".into()),
            };
            Ok(parts.iter().map(part).collect::<Result<Vec<String>>>()?.join("\n"))
        }
        other => Err(format!("a message whose content is {}, not a text", kind(other))),
    }
}

/// Who speaks, and what exports call them.
const SPEAKERS: [(&str, &[&str]); 4] = [
    ("User", &["user", "human", "prompter"]),
    (
        "Assistant",
        &["assistant", "gpt", "model", "bot", "chatbot", "ai", "chatgpt", "claude", "bard", "gemini", "bing", "llm"],
    ),
    ("System", &["system", "developer"]),
    ("Tool", &["tool", "function", "observation", "function_call", "function_response", "tool_call", "tool_response"]),
];

fn named(role: &str) -> String {
    let called = role.to_lowercase();
    let known = SPEAKERS.iter().find(|(_, names)| names.contains(&called.as_str()));
    known.map_or(role, |(speaker, _)| *speaker).into()
}

/// Turns as one text, as the head of this file says.
pub(super) fn render(turns: &[Turn]) -> String {
    let (system, spoken) = match turns {
        [first, rest @ ..] if first.speaker == "System" && !rest.is_empty() => (Some(&first.text), rest),
        all => (None, all),
    };
    let spoken = match spoken {
        [only] => only.text.clone(),
        several => several.iter().map(|turn| format!("{}: {}", turn.speaker, turn.text)).collect::<Vec<_>>().join("\n"),
    };
    system.map_or(spoken.clone(), |system| format!("{system}\n\n{spoken}"))
}

/// A prompt and its response, if the response's messages repeat those of the prompt before its own.
pub(super) fn prompt_and_response(prompt: &Value, response: &Value) -> Result<(String, String)> {
    let Some(answer) = turns(response)?.filter(|answer| answer.len() > 1) else {
        return Ok((text(prompt)?, text(response)?));
    };
    let (before, last) = answer.split_at(answer.len() - 1);
    match turns(prompt)? {
        Some(asked) if answer.len() > asked.len() && answer.starts_with(&asked) => {
            Ok((render(&asked), render(&answer[asked.len()..])))
        }
        None if prompt.as_str().is_some_and(|p| before.iter().any(|t| t.text.trim() == p.trim())) => {
            Ok((render(before), render(last)))
        }
        // Nothing but an empty answer follows what was asked.
        _ if last.iter().all(|turn| turn.text.trim().is_empty()) => Ok((text(prompt)?, String::new())),
        _ => Ok((text(prompt)?, render(&answer))),
    }
}

/// What was said before a dialogue's last turn, and that turn if it is an answer; else all of it and nothing.
pub(super) fn dialogue(value: &Value) -> Result<(String, String)> {
    let turns = turns(value)?.ok_or_else(|| format!("{}, not a list of messages", kind(value)))?;
    match turns.split_last() {
        None => Ok((String::new(), String::new())),
        Some((last, before)) if last.speaker == "Assistant" => Ok((render(before), last.text.clone())),
        // It ends without an answer.
        Some(_) => Ok((render(&turns), String::new())),
    }
}

/// The turns of a dialogue written as `\n\nHuman: ...\n\nAssistant: ...`; `None` for any other text.
pub(super) fn transcript(text: &str) -> Option<Vec<Turn>> {
    const MARKS: [(&str, &str); 2] = [("\n\nHuman:", "User"), ("\n\nAssistant:", "Assistant")];
    let text = if text.starts_with("Human:") { format!("\n\n{text}") } else { text.to_string() };
    let mut marks: Vec<(usize, usize, &str)> = MARKS
        .iter()
        .flat_map(|(mark, speaker)| text.match_indices(mark).map(|(at, _)| (at, at + mark.len(), *speaker)))
        .collect();
    marks.sort_unstable();
    let begins = marks.first().is_some_and(|(at, ..)| text[..*at].trim().is_empty());
    if !begins || marks.len() < 2 {
        return None;
    }
    let ends = marks.iter().skip(1).map(|(at, ..)| *at).chain([text.len()]);
    let turn = |((_, from, speaker), to): (&(usize, usize, &str), usize)| Turn {
        speaker: (*speaker).into(),
        text: text[*from..to].trim().into(),
    };
    Some(marks.iter().zip(ends).map(turn).collect())
}

/// Whether a text looks like a list of messages that Python wrote, which is no JSON.
pub(super) fn python(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.trim_start().starts_with("[{'") || text.trim_start().starts_with("{'role'"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn turns_are_written_under_the_names_of_who_speaks() {
        let user = |text: &str| json!({"role": "user", "content": text});
        let assistant = |text: &str| json!({"role": "assistant", "content": text});
        let system = json!({"role": "system", "content": "Be brief."});
        for (value, said) in [
            (json!([user("Hi")]), "Hi"),
            (user("Hi"), "Hi"),
            (json!([system, user("Hi")]), "Be brief.\n\nHi"),
            (
                json!([system, user("Hi"), assistant("Hello!"), user("And?")]),
                "Be brief.\n\nUser: Hi\nAssistant: Hello!\nUser: And?",
            ),
            (json!({"messages": [user("Hi")]}), "Hi"),
            (json!([{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]), "User: a\nAssistant: b"),
            (
                json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]),
                "a\nb",
            ),
            (json!("[{\"role\": \"user\", \"content\": \"Hi\"}]"), "Hi"),
            (json!("[1]"), "[1]"),
            (json!(null), ""),
        ] {
            assert_eq!(text(&value).as_deref(), Ok(said), "{value}");
        }
        let picture = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]);
        assert!(text(&picture).expect_err("no text").contains("image_url"));
        assert!(text(&json!(["a"])).expect_err("no messages").contains("a list, not a text"));

        let both = json!([user("Hi"), assistant("Hello!")]);
        for prompt in [json!("Hi"), json!([user("Hi")])] {
            assert_eq!(prompt_and_response(&prompt, &both), Ok(("Hi".into(), "Hello!".into())));
        }
        assert_eq!(dialogue(&both), Ok(("Hi".into(), "Hello!".into())));
        assert_eq!(dialogue(&json!([user("Hi")])), Ok(("Hi".into(), String::new())));
        assert_eq!(dialogue(&json!([user("Hi"), assistant("")])), Ok(("Hi".into(), String::new())));
        for prompt in [json!("Hi"), json!([user("Hi")]), json!("other")] {
            let empty = json!([user("Hi"), assistant("")]);
            assert_eq!(prompt_and_response(&prompt, &empty).expect("texts").1, "", "an empty answer is no question");
        }
        // An answer that is JSON is not a message.
        for answer in [
            r#"{"from": "Berlin", "value": 12}"#,
            r#"{"role": "user", "content": "Hi"}"#,
            r#"[{"from": "a", "value": "b"}]"#,
        ] {
            assert_eq!(text(&json!(answer)).as_deref(), Ok(answer));
        }
    }
}
