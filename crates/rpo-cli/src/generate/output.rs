//! Where answers go: into a file or to standard output, as they finish or in the order of the prompts.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use rpo::generate::Answer;

use super::file::AnswerFile;
use super::questions::Question;
use super::row::{self, Form, Key};
use crate::messages;

/// Where answers go.
pub enum To {
    /// Lines of JSON into a file.
    File(AnswerFile),
    /// The same to standard output.
    Json,
    /// Texts to standard output, behind their prompts if there are several.
    Texts { several_prompts: bool },
    /// The text of the only answer to standard output, as it comes.
    Stream,
}

/// Answers on their way out.
pub struct Output {
    to: To,
    form: Form,
    /// What is expected next and, below it, what came before its turn; if answers go out in order.
    order: Option<Order>,
}

struct Order {
    expected: std::vec::IntoIter<Key>,
    next: Option<Key>,
    early: BTreeMap<Key, String>,
}

impl Output {
    /// Answers go `to` there, in the order of `expected` if that is given.
    pub fn new(to: To, form: Form, expected: Option<Vec<Key>>) -> Self {
        let order = expected.map(|expected| {
            let mut expected = expected.into_iter();
            Order { next: expected.next(), expected, early: BTreeMap::new() }
        });
        Self { to, form, order }
    }

    /// Whether text is wanted before its answer is over.
    pub fn streams(&self) -> bool {
        matches!(self.to, To::Stream)
    }

    /// Takes up an answer; those whose turn it is go out.
    pub fn answer(&mut self, question: &Question, answer: &Answer, bar: &ProgressBar) -> Result<()> {
        let key = (answer.index, answer.answer);
        let mut text = self.written(question, answer)?;
        let Some(order) = &mut self.order else { return self.write(&text, bar) };
        order.early.insert(key, text);
        while let Some(order) = &mut self.order
            && let Some(next) = order.next.and_then(|next| order.early.remove(&next))
        {
            order.next = order.expected.next();
            text = next;
            self.write(&text, bar)?;
        }
        Ok(())
    }

    fn written(&self, question: &Question, answer: &Answer) -> Result<String> {
        let response = &answer.text;
        Ok(match &self.to {
            To::File(_) | To::Json => row::line(question, answer, self.form)?,
            To::Stream => "\n".into(),
            To::Texts { several_prompts } => match (several_prompts, self.form.several) {
                (true, _) if answer.answer == 0 => format!("{}\n  -> {response}\n", question.text),
                (true, _) => format!("  -> {response}\n"),
                (false, true) => format!("-> {response}\n"),
                (false, false) => format!("{response}\n"),
            },
        })
    }

    fn write(&mut self, text: &str, bar: &ProgressBar) -> Result<()> {
        match &mut self.to {
            To::File(file) => file.write(text),
            _ => bar.suspend(|| print(text)),
        }
    }

    /// What to do if not all answers are out.
    pub fn how_to_go_on(&self) -> Option<String> {
        match &self.to {
            To::File(file) => Some(file.how_to_go_on()),
            _ => None,
        }
    }

    /// All answers are out.
    pub fn close(self) -> Result<()> {
        match self.to {
            To::File(file) => file.close(),
            _ => Ok(()),
        }
    }
}

/// Writes to standard output at once; ends with its reader.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    let written = written.context("cannot write the answers to standard output");
    written.or_else(|problem| if messages::is_broken_pipe(&problem) { messages::end_unread() } else { Err(problem) })
}
