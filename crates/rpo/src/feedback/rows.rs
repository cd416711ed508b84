//! Rows of texts, with their rewards or without, from files, one at a time. It knows nothing of tokens.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::layout::{Layout, ReadOptions, find};
use super::notes::{Answer, Feedback, Notes, Wanted};
use super::records::{Record, Records, records};
use super::source::Source;
use crate::error::{Error, Result};

/// So many records of a file decide how it is laid out.
const LOOKED_AT: usize = 200;

/// The rated responses of a source in order, read as they are asked for.
pub struct Rows(Answers);

/// All responses of a source in order, rated or not, read as they are asked for.
pub struct AllRows(Answers);

/// The responses of a source in order, read as they are asked for.
pub(crate) struct Answers {
    options: ReadOptions,
    wanted: Wanted,
    files: Files,
    open: Option<Opened>,
    ready: std::vec::IntoIter<Result<Answer>>,
    /// Records so far.
    records: usize,
    /// File and line or row of what is ready.
    at: (PathBuf, String),
    notes: Notes,
    given: bool,
}

/// The files that are not yet read.
struct Files {
    several: bool,
    files: std::vec::IntoIter<PathBuf>,
}

impl Files {
    /// Opens the next one. Of several, one without a byte is passed over, as programs that write in parts leave them.
    fn open(&mut self, options: &ReadOptions, rated: bool, notes: &mut Notes) -> Result<Option<Opened>> {
        let is_empty = |path: &PathBuf| path.metadata().is_ok_and(|file| file.is_file() && file.len() == 0);
        for path in self.files.by_ref() {
            match self.several && is_empty(&path) {
                true => notes.count(("file is empty", "files are empty"), 1),
                false => return open(path, !self.several, options, rated, notes).map(Some),
            }
        }
        Ok(None)
    }
}

/// A file whose layout is known.
struct Opened {
    path: PathBuf,
    head: std::vec::IntoIter<Record>,
    records: Records,
    layout: Layout,
}

/// The rated responses of `source` in order.
///
/// # Errors
/// If a file cannot be opened, is not of its format or lacks a column; the items say what is wrong with a row.
pub fn read_rows(source: &Source, options: &ReadOptions) -> Result<Rows> {
    read_answers(source.files()?, options, Wanted::Rated).map(Rows)
}

/// All responses of `source` in order, rated or not, each under what the record's column `id` calls it; by default `id`, where
/// there is one, else its number.
///
/// # Errors
/// As [`read_rows`].
pub fn read_all_rows(source: &Source, options: &ReadOptions, id: Option<&str>) -> Result<AllRows> {
    read_answers(source.files()?, options, Wanted::All { id: id.map(str::to_string) }).map(AllRows)
}

/// The responses of `files` in order that are `wanted`; as [`read_rows`].
pub(crate) fn read_answers(files: Vec<PathBuf>, options: &ReadOptions, wanted: Wanted) -> Result<Answers> {
    let mut files = Files { several: files.len() > 1, files: files.into_iter() };
    let mut notes = Notes::default();
    let open = files.open(options, wanted == Wanted::Rated, &mut notes)?;
    let (ready, at) = (Vec::new().into_iter(), Default::default());
    Ok(Answers { options: options.clone(), wanted, files, open, ready, records: 0, at, notes, given: false })
}

/// Opens a file; `alone` says that its rows are all there are.
fn open(path: PathBuf, alone: bool, options: &ReadOptions, rated: bool, notes: &mut Notes) -> Result<Opened> {
    // Asked again after its end, a reader of tables begins anew.
    let mut records: Records = Box::new(records(&path, options.format, &options.columns())?.fuse());
    let mut head = Vec::new();
    let mut whole = false;
    while head.len() < LOOKED_AT {
        let Some(record) = records.next() else {
            whole = true;
            break;
        };
        let broken = record.1.is_err();
        head.push(record);
        if broken {
            break;
        }
    }
    let sample = head.iter().filter_map(|(_, record)| record.as_ref().ok()).collect();
    let layout = Layout::of(sample, whole && alone, options, rated, notes)
        .map_err(|problem| Error::File { path: path.clone(), problem })?;
    Ok(Opened { path, head: head.into_iter(), records, layout })
}

impl Rows {
    /// What was noticed so far.
    pub fn notes(&self) -> &Notes {
        &self.0.notes
    }
}

impl AllRows {
    /// What was noticed so far.
    pub fn notes(&self) -> &Notes {
        &self.0.notes
    }
}

impl Answers {
    /// What was noticed so far.
    pub(super) fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Whether rows without a rating, a prompt or a response are errors.
    pub(super) fn strict(&self) -> bool {
        self.options.strict
    }

    /// File and line or row of the row that came last.
    pub(super) fn at(&self) -> (PathBuf, String) {
        self.at.clone()
    }

    /// The rows of the next record; `None` when no file has one left.
    fn next_record(&mut self) -> Option<Vec<Result<Answer>>> {
        loop {
            let Opened { path, head, records, layout } = self.open.as_mut()?;
            if let Some((place, record)) = head.next().or_else(|| records.next()) {
                let number = self.records;
                self.records += 1;
                let answers = record.and_then(|record| {
                    let id = self.wanted.id(&record, number)?;
                    let answers = layout.answers(&record, &mut self.notes)?;
                    Ok(answers.into_iter().map(move |answer| Answer { id: id.clone(), ..answer }))
                });
                return Some(match answers {
                    Ok(answers) => {
                        self.at = (path.clone(), place);
                        answers.map(Ok).collect()
                    }
                    Err(problem) => vec![Err(Error::Row { path: path.clone(), place, problem })],
                });
            }
            let last = self.open.take()?;
            match self.files.open(&self.options, self.wanted == Wanted::Rated, &mut self.notes) {
                Ok(None) => return self.end(last).map(|problem| vec![Err(problem)]),
                Ok(open) => self.open = open,
                Err(problem) => return Some(vec![Err(problem)]),
            }
        }
    }

    /// What to say if all records are read and none had what is wanted.
    fn end(&self, last: Opened) -> Option<Error> {
        let Opened { path, layout, .. } = last;
        let left_out: Vec<String> = self.notes.lines();
        match (self.given, layout.unrewarded) {
            (true, _) => None,
            (false, Some(problem)) if !self.notes.rewarded => Some(Error::File { path, problem }),
            (false, _) if left_out.is_empty() => None,
            (false, _) => {
                let rated = if self.wanted == Wanted::Rated { "rated " } else { "" };
                let problem = format!("no {rated}response in it: {}", left_out.join("; "));
                Some(Error::File { path, problem })
            }
        }
    }
}

impl Wanted {
    /// What record `number` is called.
    fn id(&self, record: &Map<String, Value>, number: usize) -> std::result::Result<Value, String> {
        let Self::All { id } = self else { return Ok(Value::Null) };
        let own = find(record, id.as_deref().unwrap_or("id")).filter(|id| id.is_string() || id.is_number());
        match (own, id) {
            (Some(own), _) => Ok(own.into_owned()),
            (None, None) => Ok(number.into()),
            (None, Some(column)) => {
                let found: Vec<&str> = record.keys().map(String::as_str).collect();
                Err(format!("no text or number in `{column}` (--id-column); there are: {}", found.join(", ")))
            }
        }
    }
}

impl Iterator for Rows {
    type Item = Result<Feedback>;

    fn next(&mut self) -> Option<Self::Item> {
        // All of them have a reward, since no others are wanted.
        let rated = |Answer { prompt, response, reward, .. }| Some(Feedback { prompt, response, reward: reward? });
        self.0.find_map(|row| row.map(rated).transpose())
    }
}

impl Iterator for AllRows {
    type Item = Result<Answer>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

impl Iterator for Answers {
    type Item = Result<Answer>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.ready.next() {
                self.given = true;
                return Some(row);
            }
            self.ready = self.next_record()?.into_iter();
        }
    }
}
