//! Tables as text: CSV and its relatives, split into fields by `csv-core`.
//!
//! Around it stand what that leaves out: the separator is found in the header, a quote that is never closed is an error, and
//! a record has the number of the line where it begins, whatever ends the lines.

use std::collections::HashSet;
use std::io::{BufRead, Read};

use csv_core::ReadRecordResult;
use serde_json::{Map, Value};

use super::content::Text;
use super::lines::too_long;
use super::{LONGEST, Problem, Records, encoding};

/// Separators, the likeliest first.
const SEPARATORS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// Most fields of a record.
const WIDEST: usize = 1 << 16;

/// The records of a table with a header.
///
/// # Errors
/// If the header cannot be read or names a column twice.
pub(super) fn records(mut text: Text, tabs: bool) -> Result<Records, Problem> {
    let declared = declared(&text.head);
    let (separator, header_line) = match declared {
        Some((separator, bytes)) => {
            text.bytes.read_exact(&mut vec![0; bytes]).map_err(|e| e.to_string())?;
            (separator, 2)
        }
        None => (separator(&text.head, tabs), 1),
    };
    let mut table = Table::new(text.bytes, separator, header_line);
    let names = match table.record() {
        None => return Err("there is no header".into()),
        Some((line, Err(problem))) => return Err(format!("header, line {line}: {problem}")),
        Some((_, Ok(names))) => header(names)?,
    };
    let is_blank = |fields: &[String]| match fields {
        // What some editors and old systems leave at the end of a file.
        [only] => only.chars().all(|c| c.is_whitespace() || c == '\u{1a}'),
        _ => false,
    };
    Ok(Box::new(std::iter::from_fn(move || {
        let several = names.len() > 1;
        let (line, fields) = std::iter::from_fn(|| table.record())
            .find(|(_, fields)| !several || fields.as_ref().map_or(true, |fields| !is_blank(fields)))?;
        Some((format!("line {line}"), fields.and_then(|fields| named(&names, fields))))
    })))
}

/// Whether a text that no name calls a table begins with a header: several short names.
pub(super) fn has_header(head: &[u8]) -> bool {
    let Some(first) = head.split(|b| *b == b'\n' || *b == b'\r').next() else { return false };
    let separator = separator(head, false);
    let fields = first.split(|b| *b == separator);
    let is_name = |field: &[u8]| (1..=64).contains(&field.len()) && !field.contains(&b'.');
    fields.clone().count() > 1 && fields.clone().all(is_name)
}

/// The separator that a first line `sep=;` declares to Excel, and the length of that line.
fn declared(head: &[u8]) -> Option<(u8, usize)> {
    let line = head.split_inclusive(|b| *b == b'\n').next()?;
    match line.trim_ascii_end().strip_prefix(b"sep=")? {
        [separator] => Some((*separator, line.len())),
        [] if line.starts_with(b"sep=\t") => Some((b'\t', line.len())),
        _ => None,
    }
}

/// The separator that splits the header into most columns; a name that promises tabs is believed if there are any.
fn separator(head: &[u8], tabs: bool) -> u8 {
    if tabs && separated(head, b'\t') > 0 {
        return b'\t';
    }
    // Of equals the last wins, which is then the likeliest.
    SEPARATORS.into_iter().rev().max_by_key(|s| separated(head, *s)).unwrap_or(b',')
}

/// How often `separator` stands in the header outside of quotes.
fn separated(head: &[u8], separator: u8) -> usize {
    let (mut quoted, mut count) = (false, 0);
    for byte in head.iter().skip_while(|b| matches!(b, b'\n' | b'\r')) {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' | b'\r' if !quoted => break,
            _ => count += usize::from(!quoted && *byte == separator),
        }
    }
    count
}

fn header(names: Vec<String>) -> Result<Vec<String>, Problem> {
    let named = |(i, name): (usize, String)| match name.trim() {
        "" => format!("column {}", i + 1),
        name => name.to_string(),
    };
    let names: Vec<String> = names.into_iter().enumerate().map(named).collect();
    let mut seen = HashSet::new();
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        Some(twice) => Err(format!("two columns are called `{twice}`; rename or remove one of them")),
        None => Ok(names),
    }
}

fn named(names: &[String], fields: Vec<String>) -> Result<Map<String, Value>, Problem> {
    if fields.len() == names.len() {
        return Ok(names.iter().cloned().zip(fields.into_iter().map(Value::String)).collect());
    }
    Err(format!(
        "{} fields where the header has {}; a text that holds the separator or a quote must stand in quotes, and a quote \
         in it must be doubled",
        fields.len(),
        names.len()
    ))
}

/// Where in a record a byte stands.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Begin,
    Plain,
    Quoted,
    AfterQuote,
}

/// A table of which nothing is known but its separator.
struct Table {
    bytes: Box<dyn BufRead + Send>,
    parser: csv_core::Reader,
    separator: u8,
    /// The line of the next byte, from 1.
    line: usize,
    after_return: bool,
    place: Place,
    /// Where the last quote that opens a field stands.
    opened: usize,
    /// Where text follows a quote that closes a field, if it does.
    stray: Option<usize>,
    ended: bool,
    fields: Vec<u8>,
    ends: Vec<usize>,
}

impl Table {
    fn new(bytes: Box<dyn BufRead + Send>, separator: u8, line: usize) -> Self {
        let parser = csv_core::ReaderBuilder::new().delimiter(separator).build();
        let (fields, ends) = (vec![0; 1 << 13], vec![0; 64]);
        let (after_return, place, opened, stray, ended) = (false, Place::Begin, 0, None, false);
        Self { bytes, parser, separator, line, after_return, place, opened, stray, ended, fields, ends }
    }

    /// The line where the next record begins, and its fields.
    fn record(&mut self) -> Option<(usize, Result<Vec<String>, Problem>)> {
        if self.ended {
            return None;
        }
        match self.skip_blank_lines() {
            Ok(true) => {}
            Ok(false) => return None,
            Err(problem) => return Some((self.line, Err(problem))),
        }
        let line = self.line;
        let fields = self.read().and_then(|n| self.texts(n));
        self.ended = fields.is_err();
        Some((line, fields))
    }

    /// Goes to the next record; false at the end.
    fn skip_blank_lines(&mut self) -> Result<bool, Problem> {
        loop {
            let chunk = self.bytes.fill_buf().map_err(|e| e.to_string())?;
            match chunk.first() {
                None => return Ok(false),
                Some(b'\r' | b'\n') => self.pass(1),
                Some(_) => return Ok(true),
            }
        }
    }

    /// Reads a record into `fields` and `ends`; how many fields there are.
    fn read(&mut self) -> Result<usize, Problem> {
        let (mut written, mut ended) = (0, 0);
        loop {
            let chunk = self.bytes.fill_buf().map_err(|e| e.to_string())?;
            // The last record may lack its line's end. Inside quotes that end would be one more letter.
            let (is_end, input) = (chunk.is_empty(), if chunk.is_empty() { b"\n" } else { chunk });
            let (result, read, wrote, ends) =
                self.parser.read_record(input, &mut self.fields[written..], &mut self.ends[ended..]);
            if !is_end {
                self.pass(read);
            }
            (written, ended) = (written + wrote, ended + ends);
            match result {
                ReadRecordResult::Record => break,
                ReadRecordResult::InputEmpty if is_end => {
                    return Err(format!("a quote that opens on line {} is never closed", self.opened));
                }
                ReadRecordResult::OutputFull if self.fields.len() > LONGEST => return Err(too_long("record")),
                ReadRecordResult::OutputFull => self.fields.resize(2 * self.fields.len(), 0),
                ReadRecordResult::OutputEndsFull if self.ends.len() >= WIDEST => {
                    return Err(format!("a record of more than {WIDEST} fields, as no table of rated responses has"));
                }
                ReadRecordResult::OutputEndsFull => self.ends.resize(2 * self.ends.len(), 0),
                ReadRecordResult::InputEmpty | ReadRecordResult::End => {}
            }
        }
        match self.stray {
            Some(line) => Err(format!(
                "text after the quote that closes a field (line {line}); a quote inside of quotes must be doubled: \"\""
            )),
            None => Ok(ended),
        }
    }

    fn texts(&mut self, fields: usize) -> Result<Vec<String>, Problem> {
        let mut from = 0;
        let texts = self.ends[..fields].iter().map(|end| {
            let text = encoding::utf8(&self.fields[std::mem::replace(&mut from, *end)..*end]);
            text.map(Into::into)
        });
        let texts = texts.collect();
        // One long record must not stay in memory for the rest of the file.
        if self.fields.len() > 1 << 24 {
            self.fields = vec![0; 1 << 13];
        }
        texts
    }

    /// Goes past `n` bytes, counts the lines that end there, with `\n`, `\r\n` or `\r`, and follows the quotes.
    fn pass(&mut self, n: usize) {
        let chunk = self.bytes.fill_buf().unwrap_or_default();
        for byte in &chunk[..n] {
            self.line += usize::from(*byte == b'\r' || (*byte == b'\n' && !self.after_return));
            self.after_return = *byte == b'\r';
            self.place = match (self.place, *byte) {
                (Place::Begin, b'"') => {
                    self.opened = self.line;
                    Place::Quoted
                }
                (Place::Quoted, b'"') => Place::AfterQuote,
                (Place::AfterQuote, b'"') | (Place::Quoted, _) => Place::Quoted,
                (_, b'\r' | b'\n') => Place::Begin,
                (_, byte) if byte == self.separator => Place::Begin,
                (Place::AfterQuote, _) => {
                    self.stray = self.stray.or(Some(self.line));
                    Place::Plain
                }
                (Place::Begin | Place::Plain, _) => Place::Plain,
            };
        }
        self.bytes.consume(n);
    }
}
