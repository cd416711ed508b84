//! Chat messages in whatever way exports write them, as turns.

use serde_json::{Map, Value};

use super::path::as_json;
use crate::chat::{Prompt, Turn, plain};
use crate::feedback::records::kind;

type Result<T> = std::result::Result<T, String>;

/// A value as a prompt: texts as they are, messages as turns, null as nothing.
pub(in crate::feedback) fn prompt(value: &Value) -> Result<Prompt> {
    Ok(match turns(value)? {
        Some(turns) => Prompt::Turns(turns),
        None => Prompt::Text(no_messages(value)?),
    })
}

/// A value as a text: texts as they are, messages written plainly, null as nothing.
pub(super) fn text(value: &Value) -> Result<String> {
    match turns(value)? {
        Some(turns) => Ok(plain(&turns)),
        None => no_messages(value),
    }
}

/// A value that holds no messages as a text.
fn no_messages(value: &Value) -> Result<String> {
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
/// Messages have `role` and `content`, or `from` and `value`; the parts of a content must be texts.
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
            list.iter().filter_map(Value::as_object).map(turn).collect::<Result<Vec<Turn>>>().map(Some)
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
    // Tables fill what a message lacks with nulls.
    let field = |names: [&'static str; 2]| {
        names.into_iter().filter_map(|name| Some((name, message.get(name)?))).find(|(_, value)| !value.is_null())
    };
    let speaker = match field(["role", "from"]) {
        Some((_, Value::String(name))) => name,
        Some((name, other)) => return Err(format!("a message whose `{name}` is {}, not a text", kind(other))),
        None => return Err("a message whose `role` is null, not a text".into()),
    };
    let said = field(["content", "value"]);
    let text = said.map_or(Ok(String::new()), |(_, value)| content(value))?;
    let is_own = |name: &str, value: &Value| ["role", "from", "content", "value"].contains(&name) || value.is_null();
    let more = message.iter().filter(|(name, value)| !is_own(name, value)).map(|(name, v)| (name.clone(), v.clone()));
    Ok(Turn { role: named(speaker), text, silent: said.is_none(), more: more.collect() })
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
    ("user", &["user", "human", "prompter"]),
    (
        "assistant",
        // Calls are what the model says to tools.
        &[
            "assistant",
            "gpt",
            "model",
            "bot",
            "chatbot",
            "ai",
            "chatgpt",
            "claude",
            "bard",
            "gemini",
            "bing",
            "llm",
            "function_call",
            "tool_call",
        ],
    ),
    ("system", &["system", "developer"]),
    ("tool", &["tool", "function", "observation", "function_response", "tool_response"]),
];

fn named(role: &str) -> String {
    let called = role.to_lowercase();
    let known = SPEAKERS.iter().find(|(_, names)| names.contains(&called.as_str()));
    known.map_or(role, |(speaker, _)| *speaker).into()
}

/// A prompt and its response; if the response's messages repeat those of the prompt before its own, without these.
pub(super) fn prompt_and_response(asked: &Value, response: &Value) -> Result<(Prompt, String)> {
    let Some(answer) = turns(response)?.filter(|answer| answer.len() > 1) else {
        return Ok((prompt(asked)?, text(response)?));
    };
    let (before, last) = answer.split_at(answer.len() - 1);
    match prompt(asked)? {
        Prompt::Turns(asked) if answer.len() > asked.len() && asked.iter().zip(&answer).all(|(a, b)| a.says(b)) => {
            let response = plain(&answer[asked.len()..]);
            Ok((Prompt::Turns(asked), response))
        }
        Prompt::Text(_) if asked.as_str().is_some_and(|p| before.iter().any(|t| t.text.trim() == p.trim())) => {
            Ok((Prompt::Turns(before.to_vec()), plain(last)))
        }
        // Nothing but an empty answer follows what was asked.
        asked if last.iter().all(|turn| turn.text.trim().is_empty()) => Ok((asked, String::new())),
        asked => Ok((asked, plain(&answer))),
    }
}

/// What was said before a dialogue's last turn, and that turn if it is an answer; else all of it and nothing.
pub(super) fn dialogue(value: &Value) -> Result<(Prompt, String)> {
    let mut turns = turns(value)?.ok_or_else(|| format!("{}, not a list of messages", kind(value)))?;
    let answer = turns.pop_if(|last| last.role == "assistant");
    Ok((Prompt::Turns(turns), answer.map(|turn| turn.text).unwrap_or_default()))
}

/// The turns of a dialogue written as `\n\nHuman: ...\n\nAssistant: ...`; `None` for any other text.
pub(super) fn transcript(text: &str) -> Option<Vec<Turn>> {
    const MARKS: [(&str, &str); 2] = [("\n\nHuman:", "user"), ("\n\nAssistant:", "assistant")];
    let text = if text.starts_with("Human:") { format!("\n\n{text}") } else { text.to_string() };
    let mut marks: Vec<(usize, usize, &str)> = MARKS
        .iter()
        .flat_map(|(mark, role)| text.match_indices(mark).map(|(at, _)| (at, at + mark.len(), *role)))
        .collect();
    marks.sort_unstable();
    let begins = marks.first().is_some_and(|(at, ..)| text[..*at].trim().is_empty());
    if !begins || marks.len() < 2 {
        return None;
    }
    let ends = marks.iter().skip(1).map(|(at, ..)| *at).chain([text.len()]);
    let turn = |((_, from, role), to): (&(usize, usize, &str), usize)| Turn::new(role, text[*from..to].trim());
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

    fn plainly(found: Result<(Prompt, String)>) -> (String, String) {
        let (prompt, response) = found.expect("texts");
        (prompt.text().into_owned(), response)
    }

    #[test]
    fn turns_keep_who_speaks_what_is_said_and_what_else_a_message_has() {
        let called = json!([{"function": {"name": "f"}}]);
        let found = turns(&json!([
            {"from": "human", "value": "Hi", "weight": null},
            {"role": "assistant", "content": null, "tool_calls": called},
        ]));
        let [asked, answered] = found.expect("messages").expect("messages").try_into().expect("two");
        assert_eq!(asked, Turn::new("user", "Hi"));
        assert_eq!((answered.text.as_str(), &answered.more["tool_calls"]), ("", &called));
        let written = json!({"role": "assistant", "content": null, "tool_calls": called});
        assert_eq!(serde_json::to_value(&answered).expect("JSON"), written);
        let spoken = json!([{"from": "function_call", "value": "f()"}, {"from": "observation", "value": "1"}]);
        let roles: Vec<String> =
            turns(&spoken).expect("messages").expect("messages").into_iter().map(|t| t.role).collect();
        assert_eq!(roles, ["assistant", "tool"]);
        let asked = prompt(&json!([{"role": "user", "content": "Hi"}])).expect("a prompt");
        assert_eq!(asked, Prompt::Turns(vec![Turn::new("user", "Hi")]));
    }

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
        for (role, problem) in [(json!(7), "a number"), (json!(null), "null")] {
            let said = text(&json!([{"role": role, "content": "Hi"}])).expect_err("nobody speaks");
            assert_eq!(said, format!("a message whose `role` is {problem}, not a text"));
        }
        assert!(text(&json!(["a"])).expect_err("no messages").contains("a list, not a text"));

        let both = json!([user("Hi"), assistant("Hello!")]);
        for prompt in [json!("Hi"), json!([user("Hi")])] {
            assert_eq!(plainly(prompt_and_response(&prompt, &both)), ("Hi".into(), "Hello!".into()));
        }
        assert_eq!(plainly(dialogue(&both)), ("Hi".into(), "Hello!".into()));
        assert_eq!(plainly(dialogue(&json!([user("Hi")]))), ("Hi".into(), String::new()));
        assert_eq!(plainly(dialogue(&json!([user("Hi"), assistant("")]))), ("Hi".into(), String::new()));
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
