//! Judges: who says which of two responses is better, or how good one is.
//!
//! A [`Template`] makes a [`Question`] of a [`Case`] and reads a verdict from the reply; a [`Judge`] replies: an
//! [`Endpoint`] over HTTP, a [`Program`] of the user's, verdicts that were [`Stored`], or a [`Local`] model. A [`Court`] puts many
//! questions to one judge, several at a time, tries again what fails in passing, and keeps every reply in a [`Store`], so that
//! nothing is asked twice.
//!
//! ```
//! use rpo::evaluate::judge::{Case, Choice, Template, Verdict};
//!
//! let template = Template::named("short")?;
//! let case = Case::Pair { prompt: "Say hello.".into(), first: "Hello!".into(), second: "{prompt}".into() };
//! let question = template.fill(case)?;
//! assert!(question.user.contains("Say hello.") && question.user.contains("{prompt}"), "filled once");
//! assert_eq!(template.read("A"), Verdict::Choice(Choice::First));
//! assert_eq!(template.read("A or B, who knows"), Verdict::Choice(Choice::Unparsed));
//! # Ok::<(), rpo::Error>(())
//! ```

pub(crate) mod completion;
mod court;
mod endpoint;
mod local;
mod pairs;
pub mod program;
mod store;
mod stored;
mod tally;
mod template;
mod verdict;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use court::{Court, Heard, Limits, Outcome};
pub use endpoint::{Endpoint, EndpointSettings, key_of_environment};
pub use local::{Local, LocalSettings};
pub use pairs::{Judged, pairwise, questions};
pub use program::Program;
pub use store::Store;
pub use stored::Stored;
pub use tally::Tally;
pub use template::{Kind, Template};

use crate::stop::Stop;

/// Which of two responses a judge prefers, by the place in which it was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// The one shown first.
    First,
    /// The one shown second.
    Second,
    /// Neither.
    Tie,
    /// The judge did not answer as it was asked to.
    Unparsed,
}

/// Two models' responses to one prompt, judged in both orders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pairwise {
    /// Which prompt, from 0.
    pub prompt: usize,
    /// Which run of the models: responses are paired with those of the same seed.
    pub seed: usize,
    /// The two models, by number, the smaller one first.
    pub models: [usize; 2],
    /// The judge's choice where `models[0]` is shown first.
    pub forward: Choice,
    /// Its choice where `models[1]` is shown first.
    pub backward: Choice,
    /// How long the two responses are, in characters.
    pub lengths: [usize; 2],
}

impl Pairwise {
    /// What `models[0]` has won: 1 if both orders prefer it, 0 if both prefer the other, else 1/2, for a choice that turns with
    /// the order is none; `None` where the judge did not answer both as it was asked to.
    pub fn points(&self) -> Option<f64> {
        match (self.forward, self.backward) {
            (Choice::Unparsed, _) | (_, Choice::Unparsed) => None,
            (Choice::First, Choice::Second) => Some(1.0),
            (Choice::Second, Choice::First) => Some(0.0),
            _ => Some(0.5),
        }
    }
}

/// What a judge is to look at: texts as their authors wrote them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Case {
    /// Two responses to a prompt, of which the better one is wanted.
    Pair {
        /// What was asked.
        prompt: String,
        /// The response shown first.
        first: String,
        /// The response shown second.
        second: String,
    },
    /// One response, to be rated.
    Single {
        /// What was asked.
        prompt: String,
        /// What was answered.
        response: String,
    },
}

/// A case in the words of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What is asked about.
    pub case: Case,
    /// What the judge is told to be, if anything.
    pub system: Option<String>,
    /// What it is asked.
    pub user: String,
}

/// What a reply says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Of a pair.
    Choice(Choice),
    /// Of a single response; `None` if the judge did not answer as it was asked to.
    Rating(Option<f64>),
}

impl Verdict {
    /// Whether the judge did not answer as it was asked to.
    pub fn is_unparsed(self) -> bool {
        matches!(self, Self::Choice(Choice::Unparsed) | Self::Rating(None))
    }
}

/// Tokens that a judge read and wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Of the question.
    pub input: u64,
    /// Of the reply.
    pub output: u64,
}

/// What a judge replied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reply {
    /// All of it, as it came.
    pub raw: String,
    /// What the judge says in it.
    pub text: String,
    /// What it took, where that is told.
    pub usage: Option<Usage>,
    /// The likeliest tokens at each place of the reply with their log-probabilities, where asked for and offered.
    pub tokens: Vec<Vec<(String, f64)>>,
    /// Parameters that were wished for and that the judge does without.
    pub without: Vec<&'static str>,
}

/// Why there is no reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// It may come if the question is asked again, after `wait` if the judge says so.
    Passing {
        /// What happened.
        problem: String,
        /// How long the judge wants to be left alone.
        wait: Option<Duration>,
    },
    /// The judge refused a parameter that it does without from now on: ask again at once.
    Adjusted,
    /// This question has no reply, and asking again is no use.
    Question(String),
    /// No verdict on it was stored.
    Absent(String),
    /// No question will get one.
    Fatal(String),
    /// Somebody wishes to stop.
    Stopped,
}

/// When to leave off: at a wish from outside, or because the whole hearing has ended.
#[derive(Clone, Copy)]
pub struct Until<'a> {
    stop: &'a Stop,
    ended: &'a AtomicBool,
}

/// A call that is under way when somebody wishes to stop may end within this time, so that what was paid for is kept.
const GRACE: Duration = Duration::from_secs(1);
/// How often a wish to stop is looked for.
const GLANCE: Duration = Duration::from_millis(50);

impl<'a> Until<'a> {
    /// Until `stop` is requested or `ended` is true.
    pub fn new(stop: &'a Stop, ended: &'a AtomicBool) -> Self {
        Self { stop, ended }
    }

    /// Whether to leave off.
    pub fn over(&self) -> bool {
        self.stop.requested() || self.ended.load(Ordering::Relaxed)
    }

    /// Sleeps for `time`, but not beyond the end.
    pub fn sleep(&self, time: Duration) {
        let end = Instant::now() + time;
        while !self.over() {
            match end.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return,
                left => std::thread::sleep(left.min(GLANCE)),
            }
        }
    }

    /// What comes through `channel`; `None` if whoever writes it is gone, or a second after the end.
    fn receive<T>(&self, channel: &std::sync::mpsc::Receiver<T>) -> Option<T> {
        use std::sync::mpsc::RecvTimeoutError::Timeout;
        let mut left = None;
        loop {
            match channel.recv_timeout(GLANCE) {
                Ok(it) => return Some(it),
                Err(Timeout) if !self.over() => {}
                Err(Timeout) if *left.get_or_insert_with(Instant::now) + GRACE > Instant::now() => {}
                Err(_) => return None,
            }
        }
    }
}

/// Who replies to questions; asked from several threads at a time.
pub trait Judge: Send + Sync {
    /// What it is called, in messages and in the store; decides, with [`Self::request`], whether a stored reply serves.
    fn name(&self) -> &str;

    /// What it is, in words.
    fn kind(&self) -> &'static str;

    /// What it is sent: everything that decides the reply.
    fn request(&self, question: &Question, template: &Template) -> Value;

    /// Asks once.
    ///
    /// # Errors
    /// Why there is no reply, and what is to be done about it.
    fn ask(&self, question: &Question, template: &Template, until: Until<'_>) -> Result<Reply, Fault>;

    /// Whether replies are worth keeping; not those that come from where they were kept.
    fn keeps(&self) -> bool {
        true
    }
}

/// The beginning of a text in a line, for messages.
pub(crate) fn excerpt(text: &str) -> String {
    const SHOWN: usize = 200;
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.retain(|c| !c.is_control());
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
