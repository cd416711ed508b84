//! A model's chat template, rendered as transformers' `apply_chat_template(messages, tokenize=False,
//! add_generation_prompt=True)` renders it: Jinja with blocks trimmed, Python's methods, and the functions that transformers adds.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::NaiveDate;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, Error as Jinja, ErrorKind, context};
use serde_json::{Map, Value as Json};

use super::limits::{self, SOURCE, STEPS};
use super::{Turn, json, python, source};
use crate::error::{Error, Result};
use crate::store::within;

const FILE: &str = "chat_template.jinja";
const SETTINGS: &str = "tokenizer_config.json";
const NAME: &str = "chat template";
/// The special tokens that templates may name.
const TOKENS: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A model's own way to write a conversation.
#[derive(Debug)]
pub struct ChatTemplate {
    /// The file that holds it.
    path: PathBuf,
    /// It, or why it cannot be used: a template that no prompt goes through may be broken.
    environment: std::result::Result<Arc<Environment<'static>>, String>,
    /// The special tokens by name.
    tokens: Map<String, Json>,
    /// Whether it asks what day it is.
    asks_for_the_day: bool,
    /// Whether it did not end once: it is not tried again.
    endless: AtomicBool,
    /// A hash of all that decides what it writes.
    fingerprint: blake3::Hash,
}

impl ChatTemplate {
    /// The template in `dir`: `chat_template.jinja` or, failing that, `chat_template` of `tokenizer_config.json`, of several
    /// the one called `default`. None if there is none. What is wrong with it is said when it is used. If it asks what day it
    /// is, it hears `today`; without, there is no `strftime_now`, which many templates meet with a date of their own.
    pub fn find(dir: &Path, today: Option<NaiveDate>) -> Option<Self> {
        // What is wrong with the settings themselves, the tokenizer tells, which reads them too.
        let settings = within::read_if_there(&dir.join(SETTINGS), within::SETTINGS).ok().flatten();
        let settings: Json = settings.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let path = dir.join(FILE);
        let (path, source) = match path.exists() {
            true => (path.clone(), within::text(&path, within::SETTINGS).map_err(|e| format!("cannot be read: {e}"))),
            false => (dir.join(SETTINGS), of_settings(settings.get("chat_template")?)),
        };
        let tokens = tokens(&settings);
        let asks_for_the_day = source.as_ref().is_ok_and(|source| source.contains("strftime_now"));
        let day = today.filter(|_| asks_for_the_day);
        let fingerprint = blake3::hash(format!("{source:?} {tokens:?} {day:?}").as_bytes());
        let compile = |source: String| limits::run(move || compiled(&source, day).map(Arc::new));
        let environment =
            source.and_then(|source| compile(source).unwrap_or_else(|said| Err(format!("the chat template {said}"))));
        Some(Self { path, environment, tokens, asks_for_the_day, endless: AtomicBool::new(false), fingerprint })
    }

    /// Whether it asks what day it is.
    pub fn asks_for_the_day(&self) -> bool {
        self.asks_for_the_day
    }

    /// A hash of all that decides what it writes: itself, the special tokens, and the day if it asks for it.
    pub fn fingerprint(&self) -> blake3::Hash {
        self.fingerprint
    }

    /// What the model reads before it answers the conversation. Fields that messages have beside role and content, and those of
    /// objects in them, such as a tool call's arguments, come by name and not in the order in which they were written.
    ///
    /// # Errors
    /// If the template is broken (file and line), or if it refuses the conversation (with its own words), fails on it,
    /// does not end, or writes nothing or too much.
    pub fn prompt(&self, turns: &[Turn]) -> Result<String> {
        self.render(turns, true)
    }

    /// What it writes behind the last turn, an answer that is `said`, before anybody speaks again; nothing if that cannot be
    /// told apart.
    pub(crate) fn behind_an_answer(&self) -> Option<String> {
        const ANSWER: &str = "an-answer-of-the-model";
        let turns = [Turn::new("user", "a question"), Turn::new("assistant", ANSWER)];
        let whole = self.render(&turns, false).ok()?;
        Some(whole.rsplit_once(ANSWER)?.1.to_string())
    }

    fn render(&self, turns: &[Turn], add_generation_prompt: bool) -> Result<String> {
        let environment = match &self.environment {
            Ok(environment) => Arc::clone(environment),
            Err(problem) => return Err(Error::file(&self.path, problem.clone())),
        };
        let bad = |problem: &str| Error::Prompt(format!("{}: {problem}", self.path.display()));
        if self.endless.load(Ordering::Relaxed) {
            return Err(bad("the chat template did not end for another conversation"));
        }
        let messages: Vec<Value> = turns.iter().map(|turn| Value::from(Serde(turn))).collect();
        let conversation = context! { messages, tools => (), documents => (), add_generation_prompt };
        let context = context! { ..conversation, ..Value::from(Serde(&self.tokens)) };
        let rendered = limits::run(move || {
            environment
                .get_template(NAME)
                .and_then(|template| template.render(context))
                .map_err(|problem| said(&problem))
        });
        let rendered = rendered.inspect_err(|_| self.endless.store(true, Ordering::Relaxed));
        match rendered.map_err(|problem| format!("the chat template {problem}")).flatten() {
            Ok(text) if text.is_empty() => Err(bad("the chat template writes nothing for this conversation")),
            Ok(text) => Ok(text),
            Err(problem) => Err(bad(&problem)),
        }
    }
}

/// A template that parses, with the functions that it may call.
fn compiled(source: &str, today: Option<NaiveDate>) -> std::result::Result<Environment<'static>, String> {
    if source.len() > SOURCE {
        return Err(format!("the chat template has {} bytes; at most {SOURCE} are read", source.len()));
    }
    let mut environment = Environment::new();
    // They show what lies in each other, the deeper the wider, and no template has a use for them.
    environment.remove_filter("pprint");
    environment.remove_global("debug");
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(|e| e.to_string())?;
    environment.set_syntax(syntax.clone());
    environment.set_fuel(Some(STEPS));
    environment.set_unknown_method_callback(python::method);
    environment.set_formatter(python::print);
    environment.add_filter("tojson", |value: &Value, options: Kwargs| json::tojson(value, &options));
    environment.add_function("raise_exception", |message: String| -> std::result::Result<Value, Jinja> {
        Err(Jinja::new(ErrorKind::InvalidOperation, "refused").with_source(Refused(message)))
    });
    if let Some(today) = today {
        environment.add_function("strftime_now", move |format: String| strftime(today, &format));
    }
    // Jinja reads every line break as one character.
    let source = source::prepared(&source.replace("\r\n", "\n").replace('\r', "\n"), syntax)?;
    environment.add_template_owned(NAME, source).map_err(|problem| said(&problem))?;
    Ok(environment)
}

/// Midnight of `day` as Python's `strftime` writes it.
fn strftime(day: NaiveDate, format: &str) -> std::result::Result<String, Jinja> {
    let mut out = String::new();
    let unknown = |_| Jinja::new(ErrorKind::InvalidOperation, format!("strftime_now: not all of `{format}` is known"));
    write!(out, "{}", day.and_time(chrono::NaiveTime::MIN).format(format)).map_err(unknown)?;
    Ok(out)
}

/// What a template said when it raised an exception.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// What went wrong, and on which line of the template.
fn said(problem: &minijinja::Error) -> String {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(problem);
    // Macros and included blocks wrap what went wrong in them: the innermost says it best.
    let (mut innermost, mut refused) = (problem, None);
    while let Some(error) = cause {
        innermost = error.downcast_ref().unwrap_or(innermost);
        refused = error.downcast_ref::<Refused>().or(refused);
        cause = error.source();
    }
    if let Some(Refused(message)) = refused {
        return format!("the chat template refuses this conversation: {message}");
    }
    let what = innermost.detail().map_or_else(|| innermost.kind().to_string(), str::to_string);
    let line = innermost.line().or_else(|| problem.line());
    let place = line.map_or_else(|| "the chat template".into(), |line| format!("line {line} of the chat template"));
    match innermost.kind() {
        ErrorKind::OutOfFuel => {
            format!("{place} does not end, or makes more than it could write: it was stopped after {STEPS} steps")
        }
        ErrorKind::SyntaxError => format!("{place} is not valid Jinja: {what}"),
        kind => format!("{place} fails: {kind}: {what}"),
    }
}

/// The template of `tokenizer_config.json`.
fn of_settings(value: &Json) -> std::result::Result<String, String> {
    let wrong = || "chat_template is neither a text nor a list of {name, template}".to_string();
    match value {
        Json::String(source) => Ok(source.clone()),
        Json::Array(list) => {
            let name = |entry: &Json| entry.get("name").and_then(Json::as_str).map(str::to_string);
            match list.iter().find(|entry| name(entry).as_deref() == Some("default")) {
                Some(entry) => entry.get("template").and_then(Json::as_str).map(str::to_string).ok_or_else(wrong),
                None => {
                    let names: Vec<String> = list.iter().filter_map(name).collect();
                    Err(format!("chat_template has none called `default`; there are: {}", names.join(", ")))
                }
            }
        }
        _ => Err(wrong()),
    }
}

/// The special tokens of `tokenizer_config.json`, which are texts or objects with one.
fn tokens(settings: &Json) -> Map<String, Json> {
    let text = |value: &Json| value.as_str().or_else(|| value.get("content")?.as_str()).map(Json::from);
    let mut tokens: Map<String, Json> =
        TOKENS.iter().filter_map(|name| Some(((*name).to_string(), text(settings.get(*name)?)?))).collect();
    if let Some(more) = settings.get("additional_special_tokens").and_then(Json::as_array) {
        tokens.insert("additional_special_tokens".into(), more.iter().filter_map(text).collect());
    }
    if let Some(more) = settings.get("extra_special_tokens").and_then(Json::as_object) {
        tokens.extend(more.iter().filter_map(|(name, value)| Some((name.clone(), text(value)?))));
    }
    tokens
}
