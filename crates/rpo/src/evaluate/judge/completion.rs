//! What servers of chat completions send: a JSON object, or the same in pieces as server-sent events. It knows nothing of
//! connections.

use serde_json::Value;

use super::{Usage, excerpt};

/// A reply that was understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completion {
    pub text: String,
    pub usage: Option<Usage>,
    /// The likeliest tokens at each place, with their log-probabilities.
    pub tokens: Vec<Vec<(String, f64)>>,
}

/// What is wrong with one that was not.
#[derive(Clone, Debug, PartialEq)]
pub enum Garbage {
    /// A page for people, as from a wrong address or a proxy.
    Html,
    /// An error that came as if it were a reply, with the status that it names.
    Error(String, Option<u64>),
    /// Anything else.
    Other(String),
}

/// At most so many places of a reply are looked at for log-probabilities.
const PLACES: usize = 64;

/// Reads the body of a reply.
pub fn read(body: &str) -> Result<Completion, Garbage> {
    let text = body.trim_start_matches('\u{feff}').trim();
    let begins = |with: &str| text.get(..with.len()).is_some_and(|head| head.eq_ignore_ascii_case(with));
    if text.is_empty() {
        return Err(Garbage::Other("it is empty".into()));
    }
    if begins("<!doctype") || begins("<html") || begins("<head") || begins("<?xml") {
        return Err(Garbage::Html);
    }
    if ["data:", "event:", "id:", "retry:", ":"].iter().any(|field| begins(field)) {
        return streamed(text);
    }
    let value: Value = serde_json::from_str(text).map_err(|e| {
        let what = if e.is_eof() { "half a JSON object" } else { "no JSON" };
        Garbage::Other(format!("{what}: {}", excerpt(text)))
    })?;
    let mut completion = Completion::default();
    match completion.add(&value)? {
        true => Ok(completion),
        false => Err(Garbage::Other(format!("there is no choices[0].message in it: {}", excerpt(text)))),
    }
}

/// Puts the pieces of a stream together.
fn streamed(text: &str) -> Result<Completion, Garbage> {
    let (mut completion, mut over) = (Completion::default(), false);
    for line in text.lines() {
        let Some(data) = line.strip_prefix("data:").map(str::trim) else { continue };
        if data == "[DONE]" {
            over = true;
            break;
        }
        let value: Value = serde_json::from_str(data)
            .map_err(|_| Garbage::Other(format!("a stream with a piece that is no JSON: {}", excerpt(data))))?;
        completion.add(&value)?;
        over |= value["choices"][0]["finish_reason"].is_string();
    }
    match over {
        true => Ok(completion),
        false => Err(Garbage::Other(format!("a stream that breaks off: {}", excerpt(text)))),
    }
}

impl Completion {
    /// Adds what a whole reply or a piece of one says, and tells whether it said anything.
    fn add(&mut self, value: &Value) -> Result<bool, Garbage> {
        if let Some(error) = value.get("error").filter(|error| !error.is_null()) {
            let said = error.get("message").and_then(Value::as_str).map_or_else(|| error.to_string(), str::to_string);
            return Err(Garbage::Error(excerpt(&said), error.get("code").and_then(Value::as_u64)));
        }
        let number = |name: &str| value["usage"][name].as_u64();
        if let (Some(input), Some(output)) = (number("prompt_tokens"), number("completion_tokens")) {
            self.usage = Some(Usage { input, output });
        }
        let choice = &value["choices"][0];
        let message = ["message", "delta"].iter().find_map(|name| choice.get(name)).filter(|it| it.is_object());
        let content = message.map(|message| match (&message["content"], &message["refusal"]) {
            (Value::String(text), _) => text.clone(),
            (Value::Array(parts), _) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
            (_, Value::String(refusal)) => refusal.clone(),
            _ => String::new(),
        });
        let content = content.or_else(|| choice["text"].as_str().map(str::to_string));
        self.text.extend(content.as_deref());
        let places = choice["logprobs"]["content"].as_array().into_iter().flatten();
        for place in places.take(PLACES - self.tokens.len().min(PLACES)) {
            let likeliest = place["top_logprobs"].as_array().into_iter().flatten();
            let pair = |it: &Value| Some((it["token"].as_str()?.to_string(), it["logprob"].as_f64()?));
            self.tokens.push(likeliest.filter_map(pair).collect());
        }
        Ok(content.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read_whole_or_in_pieces() {
        let whole = r#"{"choices":[{"message":{"role":"assistant","content":"A"},"finish_reason":"stop","logprobs":{"content":
            [{"token":"A","logprob":-0.1,"top_logprobs":[{"token":"A","logprob":-0.1},{"token":"B","logprob":-2.5}]}]}}],
            "usage":{"prompt_tokens":12,"completion_tokens":1,"total_tokens":13}}"#;
        let read_whole = read(whole).expect("a reply");
        assert_eq!((read_whole.text.as_str(), read_whole.usage), ("A", Some(Usage { input: 12, output: 1 })));
        assert_eq!(read_whole.tokens, [vec![("A".to_string(), -0.1), ("B".to_string(), -2.5)]]);
        let pieces = ": ping\n\nevent: x\ndata: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n\
                      data: {\"choices\":[{\"delta\":{\"content\":\"[[\"}}]}\r\n\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"B]]\"}}]}\n\n\
                      data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
                      data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3}}\n\ndata: [DONE]\n\n";
        let streamed = read(pieces).expect("a reply");
        assert_eq!((streamed.text.as_str(), streamed.usage), ("[[B]]", Some(Usage { input: 5, output: 3 })));
        let parts = r#"{"choices":[{"message":{"content":[{"type":"text","text":"A"},{"type":"text","text":"!"}]}}]}"#;
        assert_eq!(read(parts).expect("a reply").text, "A!");
        assert_eq!(read(r#"{"choices":[{"message":{"content":null}}]}"#).expect("a reply").text, "");
    }

    #[test]
    fn garbage_is_told_for_what_it_is() {
        let other = |body: &str| match read(body) {
            Err(Garbage::Other(said)) => said,
            it => panic!("{body}: {it:?}"),
        };
        assert_eq!(other(" \n"), "it is empty");
        assert!(other(r#"{"choices":[{"message":{"cont"#).starts_with("half a JSON object: {\"choices\""));
        assert!(other("Bad gateway").starts_with("no JSON: Bad gateway"));
        assert!(other("{\"ok\":true}").contains("no choices[0].message"));
        assert!(other("data: {\"choices\":[{\"delta\":{\"content\":\"A\"}}]}\n").contains("breaks off"));
        assert!(other("data: {\"choi").contains("a piece that is no JSON"));
        assert_eq!(read("<!DOCTYPE html><p>hello"), Err(Garbage::Html));
        let error = r#"{"error":{"message":"overloaded","code":503}}"#;
        assert_eq!(read(error), Err(Garbage::Error("overloaded".into(), Some(503))));
    }
}
