//! Rows of text and reward from files, one at a time. It knows nothing of tokens.

use std::path::PathBuf;

use super::layout::{ReadOptions, rated};
use super::records::{Record, records};
use super::source::Source;

/// A response to a prompt with its reward.
#[derive(Clone, Debug, PartialEq)]
pub struct Feedback {
    /// What was asked.
    pub prompt: String,
    /// What was answered.
    pub response: String,
    /// How good that is; more is better.
    pub reward: f64,
}

/// Feedback that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FeedbackError {
    /// The file cannot be opened or read.
    #[error("cannot read {}: {cause}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// There is no row.
    #[error("{}: no rated response in it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Neither the file's content nor its name tells the format.
    #[error(
        "{}: neither content nor name say the format; set it (--format jsonl, json, csv, tsv, parquet, arrow or \
         ultrafeedback)",
        path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// The file is not of its format.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A row is unusable.
    #[error("{}, {}: {problem}", path.display(), place)]
    Row {
        /// The file.
        path: PathBuf,
        /// Line or row, from 1.
        place: String,
        /// Which field, what is wrong and what to do.
        problem: String,
    },
}

pub(super) type Result<T> = std::result::Result<T, FeedbackError>;

/// What was noticed while rows were read, for the user to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// What to say, each with how many rows it concerns, in the order in which they were met.
    counts: Vec<(&'static str, usize)>,
}

impl Notes {
    /// Counts `n` more rows that `what` is said of.
    pub(super) fn count(&mut self, what: &'static str, n: usize) {
        match self.counts.iter_mut().find(|(said, _)| *said == what) {
            Some((_, count)) => *count += n,
            None if n > 0 => self.counts.push((what, n)),
            None => {}
        }
    }

    /// A sentence for each kind of thing that was noticed.
    pub fn lines(&self) -> Vec<String> {
        self.counts.iter().map(|(what, n)| format!("{n} {what}")).collect()
    }
}

/// The rated responses of a source in order, read as they are asked for.
pub struct Rows {
    options: ReadOptions,
    files: std::vec::IntoIter<PathBuf>,
    open: Option<Opened>,
    ready: std::vec::IntoIter<Result<Feedback>>,
    notes: Notes,
}

/// The rated responses of `source` in order.
///
/// # Errors
/// If a file cannot be opened or is not of its format; the items say what is wrong with a row.
pub fn read_rows(source: &Source, options: &ReadOptions) -> Result<Rows> {
    let mut files = source.files()?.into_iter();
    let open = files.next().map(|path| records_of(path, options)).transpose()?;
    Ok(Rows { options: options.clone(), files, open, ready: Vec::new().into_iter(), notes: Notes::default() })
}

type Opened = (PathBuf, Box<dyn Iterator<Item = Record>>);

fn records_of(path: PathBuf, options: &ReadOptions) -> Result<Opened> {
    let records = records(&path, options.format)?;
    Ok((path, records))
}

impl Rows {
    /// What was noticed so far.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// The rows of the next record; `None` when no file has one left.
    fn next_record(&mut self) -> Option<Vec<Result<Feedback>>> {
        loop {
            let (path, records) = self.open.as_mut()?;
            if let Some((place, record)) = records.next() {
                return Some(match record.and_then(|record| rated(&record, &self.options, &mut self.notes)) {
                    Ok(rows) => rows.into_iter().map(Ok).collect(),
                    Err(problem) => vec![Err(FeedbackError::Row { path: path.clone(), place, problem })],
                });
            }
            self.open = None;
            let path = self.files.next()?;
            match records_of(path, &self.options) {
                Ok(open) => self.open = Some(open),
                Err(problem) => return Some(vec![Err(problem)]),
            }
        }
    }
}

impl Iterator for Rows {
    type Item = Result<Feedback>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.ready.next() {
                return Some(row);
            }
            self.ready = self.next_record()?.into_iter();
        }
    }
}
