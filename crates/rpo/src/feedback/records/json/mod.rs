//! JSON in all the ways in which rows are written: one a line, one after another, in a list, in a list under a key.

mod scan;
mod strict;
mod wrapped;

use serde_json::{Map, Value};

use super::content::Text;
use super::lines::Lines;
use super::{Problem, Record, Records, object};
use scan::Scanner;

/// The records of a JSON text, which have some of `columns` if these are known. All but columns in a single object are
/// streamed.
///
/// # Errors
/// If one object holds everything and the rows in it are not to be found.
pub(super) fn records(text: Text, columns: &[String]) -> Result<Records, Problem> {
    match text.first() {
        Some(b'[') => {
            let end = text.line_end();
            Ok(Box::new(Elements::new(Scanner::new(text.bytes, end), None)))
        }
        Some(b'{') => {
            if let Some(way) = Way::of(&text) {
                return Ok(way.read(text));
            }
            let mut scanner = Scanner::new(text.again()?, text.line_end());
            match wrapped::survey(&mut scanner) {
                // Lines of which the first is malformed, which is told when it is read.
                Err(_) if lines_follow(&text) => Ok(Way::Lines.read(text)),
                Err(problem) => Err(problem),
                Ok(_) if scanner.line == 1 && scanner.peek()?.is_some() => Ok(Way::Lines.read(text)),
                Ok(_) if scanner.peek()?.is_some() => Ok(Way::Values.read(text)),
                Ok(entries) => wrapped::records(&text, &entries, columns),
            }
        }
        _ => Ok(Way::Lines.read(text)),
    }
}

/// Whether the first line is the only one, or is followed by one that is an object by itself.
fn lines_follow(text: &Text) -> bool {
    let end = text.line_end();
    let mut lines = text.head.split(|b| *b == end).map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    lines.nth(1).is_none_or(|second| second.starts_with(b"{") && scan::is_whole(second))
}

/// How several values stand in a file.
enum Way {
    /// One on each line.
    Lines,
    /// One after another, each perhaps on several lines.
    Values,
}

impl Way {
    /// Lines, if the first one is an object by itself and is not the only one.
    fn of(text: &Text) -> Option<Self> {
        let (head, end) = (text.head.trim_ascii_start(), text.line_end());
        let first = head.iter().position(|b| *b == end)?;
        let more = !head[first..].trim_ascii().is_empty();
        (more && scan::is_whole(head[..first].trim_ascii_end())).then_some(Self::Lines)
    }

    fn read(self, text: Text) -> Records {
        match self {
            Self::Lines => Box::new(json_lines(Lines::new(text))),
            Self::Values => {
                let end = text.line_end();
                Box::new(Values { scanner: Scanner::new(text.bytes, end), ended: false })
            }
        }
    }
}

fn json_lines(mut lines: Lines) -> impl Iterator<Item = Record> {
    std::iter::from_fn(move || {
        let parsed = lines.next()?.and_then(|line| strict::parse(line, None)).and_then(object);
        Some((format!("line {}", lines.number), parsed))
    })
}

/// Values one after another.
struct Values {
    scanner: Scanner,
    ended: bool,
}

impl Iterator for Values {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        if self.ended {
            return None;
        }
        let there = self.scanner.peek();
        let line = self.scanner.line;
        let parsed = match there {
            Ok(None) => return None,
            Ok(Some(_)) => one(&mut self.scanner).and_then(object),
            Err(problem) => Err(problem),
        };
        self.ended = parsed.is_err();
        Some((format!("line {line}"), parsed))
    }
}

fn one(scanner: &mut Scanner) -> Result<Value, Problem> {
    let (line, mut bytes) = (scanner.line, Vec::new());
    scanner.value(Some(&mut bytes))?;
    match bytes.is_empty() {
        true => Err(format!("malformed JSON: a value was expected (line {line})")),
        false => strict::parse(&bytes, Some(line)),
    }
}

/// The elements of a list, or of lists one after another, as some programs write the pages of an answer.
struct Elements {
    scanner: Scanner,
    /// The key that the list stands under, with whatever follows it.
    key: Option<String>,
    number: usize,
    inside: bool,
    ended: bool,
}

impl Elements {
    fn new(scanner: Scanner, key: Option<String>) -> Self {
        Self { scanner, key, number: 0, inside: false, ended: false }
    }

    /// Goes to the next element; false after the last.
    fn begin(&mut self) -> Result<bool, Problem> {
        while !self.inside {
            match self.scanner.peek()? {
                None => return Ok(false),
                Some(_) if self.ended => return Ok(false),
                Some(b'[') => {
                    self.scanner.eat(b'[')?;
                    self.inside = !self.scanner.eat(b']')?;
                    self.ended = !self.inside && self.key.is_some();
                }
                Some(other) => {
                    let (other, line) = (char::from(other), self.scanner.line);
                    return Err(format!("malformed JSON: `{other}` after the end of the list (line {line})"));
                }
            }
        }
        self.scanner.peek().map(|_| true)
    }

    /// The element that begins here, with the comma or bracket after it.
    fn element(&mut self) -> Result<Value, Problem> {
        let value = one(&mut self.scanner)?;
        match self.scanner.peek()? {
            Some(b',') => self.scanner.eat(b',').map(|_| ())?,
            Some(b']') => {
                self.scanner.eat(b']')?;
                self.inside = false;
                self.ended = self.key.is_some();
            }
            Some(other) => {
                let (other, line) = (char::from(other), self.scanner.line);
                return Err(format!("malformed JSON: `{other}` where a comma or `]` was expected (line {line})"));
            }
            None => return Err("malformed JSON: the file ends inside the list".into()),
        }
        Ok(value)
    }
}

impl Iterator for Elements {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        let begun = self.begin();
        let line = self.scanner.line;
        self.number += 1;
        let parsed = match begun {
            Ok(false) => return None,
            Ok(true) => self.element(),
            Err(problem) => Err(problem),
        };
        if parsed.is_err() {
            (self.inside, self.ended) = (false, true);
        }
        let within = self.key.as_ref().map_or_else(String::new, |key| format!(" of `{key}`"));
        Some((format!("element {}{within} (line {line})", self.number), parsed.and_then(object).and_then(viewed)))
    }
}

/// The row of an element as the hub's data set viewer gives it, and any other element as it is.
fn viewed(mut element: Map<String, Value>) -> Result<Map<String, Value>, Problem> {
    const VIEWER: [&str; 3] = ["row", "row_idx", "truncated_cells"];
    let is_viewer = element.contains_key("row_idx") && element.keys().all(|key| VIEWER.contains(&key.as_str()));
    if !is_viewer {
        return Ok(element);
    }
    if let Some(Value::Array(cut)) = element.get("truncated_cells")
        && !cut.is_empty()
    {
        let cut = Value::Array(cut.clone());
        return Err(format!("the data set viewer cut the texts of {cut}; take the data set itself by its hub id"));
    }
    element.remove("row").map_or_else(|| Err("no `row` in it".into()), object)
}
