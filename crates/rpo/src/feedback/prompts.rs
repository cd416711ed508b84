//! Prompts alone, to be answered: one a line, or a column of any file that rated responses are read from.

use std::path::Path;

use serde_json::{Map, Value};

use super::layout::{find, messages};
use super::records::{self, Format, Records, of_json, records};
use crate::chat::Prompt;
use crate::error::{Error, Result};

/// The prompts at `path`, `-` being standard input: the column `column` of data files, JSON Lines under any name among them, as
/// for rated responses a name or a path to a text or to chat messages; and the lines that are not blank of all other files.
///
/// # Errors
/// If the file cannot be read, a record lacks the column or has no text there (which, and what to do), or there is none.
pub fn read_prompts(path: &Path, column: &str, format: Option<Format>) -> Result<Vec<Prompt>> {
    let open = |cause| Error::Read { path: path.into(), cause };
    let bad = |problem| Error::File { path: path.into(), problem };
    let nothing = || bad("it holds no prompt; write one a line".into());
    if path.metadata().is_ok_and(|file| file.is_file() && file.len() == 0) {
        return Err(nothing());
    }
    let prompts = match format.is_some() || records::is_data(path) {
        true => of_records(path, column, records(path, format, &[column.to_string()])?)?,
        false => {
            let text = match path == Path::new("-") {
                true => std::io::read_to_string(std::io::stdin()),
                false => std::fs::read_to_string(path),
            };
            let text = text.map_err(open)?;
            match holds_json(&text) {
                true => of_records(path, column, of_json(&text).map_err(bad)?)?,
                false => lines(&text),
            }
        }
    };
    match prompts.is_empty() {
        true => Err(nothing()),
        false => Ok(prompts),
    }
}

fn lines(text: &str) -> Vec<Prompt> {
    text.trim_start_matches('\u{feff}').lines().filter(|line| !line.trim().is_empty()).map(Prompt::from).collect()
}

/// Whether the first line is a JSON object: then it is not what a person would ask.
fn holds_json(text: &str) -> bool {
    let first = text.trim_start_matches('\u{feff}').lines().find(|line| !line.trim().is_empty());
    first.is_some_and(|line| serde_json::from_str::<Map<String, Value>>(line).is_ok())
}

fn of_records(path: &Path, column: &str, records: Records) -> Result<Vec<Prompt>> {
    let row = |place, problem| Error::Row { path: path.into(), place, problem };
    let prompts = records.map(|(place, record)| {
        record.and_then(|record| prompt(&record, column)).map_err(|problem| row(place, problem))
    });
    prompts.collect()
}

fn prompt(record: &Map<String, Value>, column: &str) -> std::result::Result<Prompt, String> {
    match find(record, column).map(|value| messages::prompt(&value)) {
        Some(Ok(prompt)) if prompt.is_blank() => Err(format!("`{column}` is empty")),
        Some(prompt) => prompt.map_err(|problem| format!("`{column}` is {problem}")),
        None => {
            let found: Vec<&str> = record.keys().map(String::as_str).collect();
            Err(format!("no `{column}`; there are: {}. Name the right one with --prompt-column", found.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Turn;

    #[test]
    fn prompts_come_as_lines_or_in_a_column() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let read = |name: &str, text: &str, column: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("write");
            read_prompts(&path, column, None).map_err(|e| e.to_string())
        };
        assert_eq!(read("a.txt", "tell me\r\n\nsay {no}\n", "prompt"), Ok(vec!["tell me".into(), "say {no}".into()]));
        let json = "{\"prompt\":\"tell\\nme\"}\n{\"prompt\":\"no\",\"x\":1}\n";
        for name in ["a.jsonl", "b.txt", "prompts"] {
            assert_eq!(read(name, json, "prompt"), Ok(vec!["tell\nme".into(), "no".into()]), "{name}");
        }
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
    }
}
