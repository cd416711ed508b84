//! An answer as a line of JSON, and which answer a line holds.

use anyhow::Result;
use rpo::generate::{Answer, Finish};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::questions::Question;

/// Which answer to which of all prompts, both from 0.
pub type Key = (u64, usize);

/// An answer as it is written.
#[derive(Serialize)]
pub struct Row<'a> {
    id: Value,
    /// The prompt's place from 0, where prompts have names of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<usize>,
    prompt: &'a str,
    response: &'a str,
    log_prob: f64,
    tokens: usize,
    finish_reason: &'static str,
    seed: u64,
}

/// What all rows have in common.
#[derive(Clone, Copy)]
pub struct Form {
    /// Whether prompts have names of their own.
    pub named: bool,
    /// Whether prompts have several answers.
    pub several: bool,
    pub seed: u64,
}

/// The line of an answer, with its end.
pub fn line(question: &Question, answer: &Answer, form: Form) -> Result<String> {
    let index = question.index;
    let row = Row {
        id: question.id.clone().unwrap_or_else(|| index.into()),
        index: form.named.then_some(index),
        answer: form.several.then_some(answer.answer),
        prompt: &question.text,
        response: &answer.text,
        log_prob: answer.log_prob,
        tokens: answer.tokens,
        finish_reason: match answer.finish {
            Finish::End => "stop",
            Finish::Length => "length",
        },
        seed: form.seed,
    };
    Ok(serde_json::to_string(&row)? + "\n")
}

/// Which answer a line holds; `None` if it is no whole line of this program.
pub fn key(line: &[u8]) -> Option<Key> {
    /// Of all fields those that tell which it is, and two that tell that it is one.
    #[derive(Deserialize)]
    struct Found {
        id: Value,
        index: Option<u64>,
        #[serde(default)]
        answer: usize,
        #[serde(rename = "response")]
        _response: String,
        #[serde(rename = "seed")]
        _seed: u64,
    }
    let found: Found = serde_json::from_slice(line.strip_suffix(b"\n")?).ok()?;
    Some((found.index.or_else(|| found.id.as_u64())?, found.answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_which_answer_it_is_and_a_torn_one_does_not() {
        let question = Question { index: 7, id: Some("ä".into()), text: "say\nyes".into(), ids: vec![1] };
        let answer =
            Answer { index: 7, answer: 2, text: "no".into(), log_prob: -1.5, tokens: 3, finish: Finish::Length };
        let plain = Form { named: false, several: false, seed: 9 };
        let of = |id: Option<Value>, form| {
            let question = Question { id, text: question.text.clone(), ids: Vec::new(), ..question };
            line(&question, &answer, form).expect("a line")
        };
        let unnamed = of(None, plain);
        let expected = r#"{"id":7,"prompt":"say\nyes","response":"no","log_prob":-1.5,"tokens":3,"finish_reason":"length","seed":9}"#;
        assert_eq!(unnamed, format!("{expected}\n"));
        assert_eq!(key(unnamed.as_bytes()), Some((7, 0)));
        let named = of(question.id.clone(), Form { named: true, several: true, ..plain });
        assert!(named.starts_with(r#"{"id":"ä","index":7,"answer":2,"#), "{named}");
        assert_eq!(key(named.as_bytes()), Some((7, 2)));
        assert!((0..named.len()).all(|n| key(&named.as_bytes()[..n]).is_none()), "torn anywhere");
        assert_eq!(key(b"{\"id\":1}\n"), None);
    }
}
