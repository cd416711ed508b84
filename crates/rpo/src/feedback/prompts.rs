//! Prompts alone, to be answered: one a line, or a column of any file that rated responses are read from.

use std::path::Path;

use serde_json::{Map, Value};

use super::layout::{find, messages};
use super::opened;
use super::records::{self, Format, Records, kind, of_json, records};
use super::source::Source;
use crate::chat::Prompt;
use crate::error::{Error, Result};

/// A prompt that is to be answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// It.
    pub prompt: Prompt,
    /// What its record calls it: a text or a number.
    pub id: Option<Value>,
    /// Where it stands, for messages: `prompts.jsonl, line 3`.
    pub place: String,
}

/// Most bytes of a file that is not read row by row.
const WHOLE: u64 = 1 << 30;
/// Where the names of prompts are looked for if nobody says.
const ID: &str = "id";

/// The prompts of `source`: the column `column` of data files, JSON under any name among them, as for rated responses a name or
/// a path to a text or to chat messages; and the lines that are not blank of all other files. A record's own name for its prompt
/// stands in its column `ids`, or in `id` if it has that.
///
/// # Errors
/// If a file cannot be read, a record lacks a column that is named or has nothing there that is fit (which, and what to do), or
/// there is no prompt.
pub fn read_prompts(source: &Source, column: &str, ids: Option<&str>, format: Option<Format>) -> Result<Vec<Asked>> {
    let mut all = Vec::new();
    for path in source.files()? {
        let found = read(&path, column, ids, format)?;
        if found.is_empty() {
            return Err(Error::file(path, "it holds no prompt; write one a line"));
        }
        all.extend(found);
    }
    Ok(all)
}

/// A response as it stands in a file, to be judged: rated or not, and empty where a model said nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelOutput {
    /// What was asked.
    pub asked: Asked,
    /// What was answered.
    pub response: String,
}

/// Columns in which prompts and responses are looked for if nobody says.
const PROMPTS: [&str; 3] = ["prompt", "instruction", "question"];
const RESPONSES: [&str; 4] = ["response", "output", "answer", "completion"];

/// The responses of `source`, one a record, in order: in the columns that are named, else in those that are usual. A record's
/// own name is in its column `id`, if it has that.
///
/// # Errors
/// If a file cannot be read, a record lacks a column or has nothing there that is fit (which, and what to do), or there is none.
pub fn read_outputs(source: &Source, prompts: Option<&str>, responses: Option<&str>) -> Result<Vec<ModelOutput>> {
    let mut all = Vec::new();
    for path in source.files()? {
        let usual = PROMPTS.iter().chain(&RESPONSES).copied();
        let wanted: Vec<String> = prompts.into_iter().chain(responses).chain(usual).map(str::to_string).collect();
        for (within, record) in records(&path, None, &wanted)? {
            let row = |problem| Error::Row { path: path.clone(), place: within.clone(), problem };
            let record = record.map_err(row)?;
            let column = |named: Option<&str>, usual: &[&'static str]| match named {
                Some(name) => name.to_string(),
                None => usual.iter().find(|name| find(&record, name).is_some()).unwrap_or(&usual[0]).to_string(),
            };
            let (asked, answered) = (column(prompts, &PROMPTS), column(responses, &RESPONSES));
            let response = match find(&record, &answered).as_deref() {
                Some(Value::String(text)) => Ok(text.clone()),
                Some(other) => Err(format!("`{answered}` is {}, not a text", kind(other))),
                None => Err(lacking(&record, &answered, "--response-column")),
            };
            let asked = Asked {
                prompt: prompt(&record, &asked).map_err(row)?,
                id: id(&record, None).map_err(row)?,
                place: place(&path, &within),
            };
            all.push(ModelOutput { asked, response: response.map_err(row)? });
        }
    }
    match all.is_empty() {
        true => Err(Error::Data(format!("{source}: no response in it"))),
        false => Ok(all),
    }
}

/// A hash of what is asked, in this order.
pub fn prompts_fingerprint(asked: &[Asked]) -> String {
    let mut hasher = blake3::Hasher::new();
    for Asked { prompt, id, .. } in asked {
        hasher.update(serde_json::json!([id, prompt]).to_string().as_bytes()).update(b"\n");
    }
    hasher.finalize().to_hex().to_string()
}

fn read(path: &Path, column: &str, ids: Option<&str>, format: Option<Format>) -> Result<Vec<Asked>> {
    let bad = |problem| Error::File { path: path.into(), problem };
    if path.metadata().is_ok_and(|file| file.is_file() && file.len() == 0) {
        return Ok(Vec::new());
    }
    if format.is_some() || records::is_data(path) {
        let named: Vec<String> = [column].into_iter().chain(ids).map(str::to_string).collect();
        return of_records(path, column, ids, records(path, format, &named)?);
    }
    let text = opened::text(path, WHOLE)?;
    match holds_json(&text) {
        true => of_records(path, column, ids, of_json(&text).map_err(bad)?),
        false => Ok(lines(path, &text)),
    }
}

fn lines(path: &Path, text: &str) -> Vec<Asked> {
    let lines = text.trim_start_matches('\u{feff}').lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let asked = |(i, line): (usize, &str)| Asked {
        prompt: line.into(),
        id: None,
        place: place(path, &format!("line {}", i + 1)),
    };
    lines.map(asked).collect()
}

fn place(path: &Path, within: &str) -> String {
    format!("{}, {within}", path.display())
}

/// Whether the first line is a JSON object, or all of it a list of such: then it is not what a person would ask.
fn holds_json(text: &str) -> bool {
    type Object = Map<String, Value>;
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let first = text.lines().next().is_some_and(|line| serde_json::from_str::<Object>(line).is_ok());
    first || (text.starts_with('[') && serde_json::from_str::<Vec<Object>>(text).is_ok())
}

fn of_records(path: &Path, column: &str, ids: Option<&str>, records: Records) -> Result<Vec<Asked>> {
    let row = |place, problem| Error::Row { path: path.into(), place, problem };
    let asked = records.map(|(within, record)| {
        let asked = record.and_then(|record| Ok((prompt(&record, column)?, id(&record, ids)?)));
        let (prompt, id) = asked.map_err(|problem| row(within.clone(), problem))?;
        Ok(Asked { prompt, id, place: place(path, &within) })
    });
    asked.collect()
}

fn prompt(record: &Map<String, Value>, column: &str) -> std::result::Result<Prompt, String> {
    match find(record, column).map(|value| messages::prompt(&value)) {
        Some(Ok(prompt)) if prompt.is_blank() => Err(format!("`{column}` is empty")),
        Some(prompt) => prompt.map_err(|problem| format!("`{column}` is {problem}")),
        None => Err(lacking(record, column, "--prompt-column")),
    }
}

/// What a record calls its prompt; it must, if somebody said where.
fn id(record: &Map<String, Value>, column: Option<&str>) -> std::result::Result<Option<Value>, String> {
    let value = find(record, column.unwrap_or(ID));
    match (value.as_deref(), column) {
        (Some(value @ Value::Number(_)), _) => Ok(Some(value.clone())),
        (Some(Value::String(name)), _) if !name.trim().is_empty() => Ok(Some(name.as_str().into())),
        (_, None) => Ok(None),
        (Some(other), Some(column)) => Err(format!(
            "`{column}` is {}, not a name or a number",
            match other {
                Value::String(_) => "empty",
                other => kind(other),
            }
        )),
        (None, Some(column)) => Err(lacking(record, column, "--id-column")),
    }
}

fn lacking(record: &Map<String, Value>, column: &str, flag: &str) -> String {
    let found: Vec<&str> = record.keys().map(String::as_str).collect();
    format!("no `{column}`; there are: {}. Name the right one with {flag}", found.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Turn;

    #[test]
    fn prompts_come_as_lines_or_in_a_column() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let asked = |name: &str, text: &str, column: &str, ids: Option<&str>| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("write");
            read_prompts(&path.as_path().into(), column, ids, None).map_err(|e| e.to_string())
        };
        let read = |name: &str, text: &str, column: &str| {
            asked(name, text, column, None).map(|all| all.into_iter().map(|asked| asked.prompt).collect::<Vec<_>>())
        };
        assert_eq!(read("a.txt", "tell me\r\n\nsay {no}\n", "prompt"), Ok(vec!["tell me".into(), "say {no}".into()]));
        let json = "{\"prompt\":\"tell\\nme\"}\n{\"prompt\":\"no\",\"x\":1}\n";
        for name in ["a.jsonl", "b.txt", "prompts"] {
            assert_eq!(read(name, json, "prompt"), Ok(vec!["tell\nme".into(), "no".into()]), "{name}");
        }
        assert_eq!(
            read("list", "[\n{\"prompt\":\"a\"},\n{\"prompt\":\"b\"}]", "prompt"),
            Ok(vec!["a".into(), "b".into()])
        );
        assert_eq!(read("brackets", "[1] what is this?\n", "prompt"), Ok(vec!["[1] what is this?".into()]));
        let chat = r#"{"input":{"messages":[{"role":"user","content":"tell me"}]}}"#;
        let messages = Prompt::Turns(vec![Turn::new("user", "tell me")]);
        assert_eq!(read("chat.jsonl", chat, "input.messages"), Ok(vec![messages]));
        assert_eq!(read("a.csv", "q,a\n\"tell, me\",x\n", "q"), Ok(vec!["tell, me".into()]));
        let said = read("c.jsonl", json, "question").expect_err("no such column");
        assert!(
            said.contains("line 1: no `question`; there are: prompt") && said.contains("--prompt-column"),
            "{said}"
        );
        assert!(read("d.txt", "\n", "prompt").expect_err("empty").contains("one a line"));

        let named = "{\"id\":\"a\",\"prompt\":\"x\"}\n{\"id\":7,\"prompt\":\"x\"}\n{\"id\":null,\"prompt\":\"y\"}\n";
        let all = asked("named.jsonl", named, "prompt", None).expect("prompts");
        assert_eq!(all.iter().map(|a| a.id.clone()).collect::<Vec<_>>(), [Some("a".into()), Some(7.into()), None]);
        assert!(all[1].place.ends_with("named.jsonl, line 2"), "{}", all[1].place);
        let said = asked("named.jsonl", named, "prompt", Some("id")).expect_err("null");
        assert!(said.contains("line 3: `id` is null, not a name or a number"), "{said}");
        assert!(asked("named.jsonl", named, "prompt", Some("key")).expect_err("none").contains("--id-column"));
        let other = asked("other.jsonl", &named.replace("\"a\"", "\"b\""), "prompt", None).expect("prompts");
        assert_ne!(prompts_fingerprint(&all), prompts_fingerprint(&other));
        assert_ne!(prompts_fingerprint(&all), prompts_fingerprint(&all[..2]));
    }

    #[test]
    fn responses_stand_in_usual_columns_or_in_named_ones_and_may_be_empty() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let read = |text: &str, prompts: Option<&str>, responses: Option<&str>| {
            let path = dir.path().join("answers.jsonl");
            std::fs::write(&path, text).expect("write");
            let read = read_outputs(&path.as_path().into(), prompts, responses).map_err(|e| e.to_string());
            read.map(|all| {
                all.into_iter().map(|r| (r.asked.prompt.text().into_owned(), r.response)).collect::<Vec<_>>()
            })
        };
        let pair = |a: &str, b: &str| (a.to_string(), b.to_string());
        let own =
            "{\"id\":0,\"prompt\":\"say\",\"response\":\"\"}\n{\"id\":1,\"prompt\":\"tell\",\"response\":\"b\"}\n";
        assert_eq!(read(own, None, None), Ok(vec![pair("say", ""), pair("tell", "b")]));
        let others = "{\"instruction\":\"say\",\"output\":\"a\",\"generator\":\"x\"}\n";
        assert_eq!(read(others, None, None), Ok(vec![pair("say", "a")]));
        assert_eq!(read(others, Some("instruction"), Some("generator")), Ok(vec![pair("say", "x")]));
        let said = read(others, None, Some("text")).expect_err("no such column");
        assert!(said.contains("line 1: no `text`; there are: ") && said.contains("--response-column"), "{said}");
        let said = read("{\"prompt\":\"say\",\"response\":null}\n", None, None).expect_err("no text");
        assert!(said.contains("`response` is null, not a text"), "{said}");
    }
}
