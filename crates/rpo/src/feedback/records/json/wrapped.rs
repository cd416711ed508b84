//! One object that holds all rows: in a list under a key, as an API answers, or as columns, as pandas writes by default.

use serde_json::{Map, Value};

use super::super::content::Text;
use super::super::{Problem, Records, kind};
use super::scan::Scanner;
use super::{Elements, one};

/// A key of the object, with those above it, and what stands there.
pub(super) struct Entry {
    path: Vec<String>,
    what: What,
}

#[derive(PartialEq)]
enum What {
    Object,
    /// Whether its first element is an object.
    List {
        objects: bool,
    },
    Other,
}

/// Most keys of one object that holds everything.
const KEYS: usize = 1 << 22;

/// Keys that lists of rows stand under, the likeliest first.
const ROWS: [&str; 12] = [
    "data",
    "rows",
    "train",
    "records",
    "items",
    "results",
    "examples",
    "samples",
    "entries",
    "instances",
    "dataset",
    "traces",
];

/// Keys of lists that belong to a single row.
const OF_A_ROW: [&str; 32] = [
    "prompt",
    "response",
    "completion",
    "input",
    "output",
    "question",
    "answer",
    "query",
    "context",
    "instruction",
    "responses",
    "completions",
    "answers",
    "messages",
    "conversation",
    "conversations",
    "chat",
    "turns",
    "dialog",
    "dialogue",
    "scores",
    "annotations",
    "ratings",
    "feedback",
    "choices",
    "chosen",
    "rejected",
    "generations",
    "candidates",
    "outputs",
    "replies",
    "history",
];

/// Other keys of a single row.
const RATINGS: [&str; 4] = ["reward", "rating", "score", "label"];

/// What the object that comes next is made of, two levels deep; the scanner stands after it.
pub(super) fn survey(scanner: &mut Scanner) -> Result<Vec<Entry>, Problem> {
    let mut entries = Vec::new();
    walk(scanner, &mut Vec::new(), &mut |scanner, path| {
        let what = match scanner.peek()? {
            Some(b'{') => What::Object,
            Some(b'[') => list(scanner)?,
            _ => What::Other,
        };
        let deeper = what == What::Object && path.len() < 2;
        if !matches!(what, What::List { .. }) && !deeper {
            scanner.value(None)?;
        }
        // Of what is deeper, only lists matter; there may be as many other keys as rows.
        if path.len() == 1 || matches!(what, What::List { .. }) {
            if entries.len() >= KEYS {
                return Err(format!("one object of more than {KEYS} keys; write its rows one a line (JSON Lines)"));
            }
            entries.push(Entry { path: path.to_vec(), what });
        }
        Ok(if deeper { Next::Deeper } else { Next::On })
    })?;
    Ok(entries)
}

enum Next {
    On,
    Deeper,
    Stop,
}

type Hear<'a> = dyn FnMut(&mut Scanner, &[String]) -> Result<Next, Problem> + 'a;

/// Hears of every key of the object that comes next, before its value, until told to stop.
fn walk(scanner: &mut Scanner, path: &mut Vec<String>, hear: &mut Hear<'_>) -> Result<bool, Problem> {
    let malformed = |scanner: &Scanner, expected: &str| {
        Err(format!("malformed JSON: {expected} was expected (line {})", scanner.line))
    };
    scanner.eat(b'{')?;
    if scanner.eat(b'}')? {
        return Ok(false);
    }
    loop {
        let Value::String(key) = one(scanner)? else {
            return malformed(scanner, "a key");
        };
        if !scanner.eat(b':')? {
            return malformed(scanner, "a colon");
        }
        path.push(key);
        let stop = match hear(scanner, path)? {
            Next::On => false,
            Next::Stop => true,
            Next::Deeper => walk(scanner, path, hear)?,
        };
        path.pop();
        if stop {
            return Ok(true);
        }
        if scanner.eat(b'}')? {
            return Ok(false);
        }
        if !scanner.eat(b',')? {
            return malformed(scanner, "a comma or `}`");
        }
    }
}

fn list(scanner: &mut Scanner) -> Result<What, Problem> {
    scanner.eat(b'[')?;
    if scanner.eat(b']')? {
        return Ok(What::List { objects: false });
    }
    let objects = scanner.peek()? == Some(b'{');
    loop {
        scanner.value(None)?;
        if scanner.eat(b']')? {
            return Ok(What::List { objects });
        }
        if !scanner.eat(b',')? {
            return Err(format!("malformed JSON: a comma or `]` was expected (line {})", scanner.line));
        }
    }
}

/// The rows of the single object of a text, which is made of `entries`; it is a row itself if it has one of the `columns` that
/// the user named.
///
/// # Errors
/// If it is not clear where the rows are.
pub(super) fn records(text: &Text, entries: &[Entry], columns: &[String]) -> Result<Records, Problem> {
    let is_column = |entry: &Entry| {
        entry.path.len() == 1
            && columns.iter().any(|c| *c == entry.path[0] || c.split('.').next() == Some(&entry.path[0]))
    };
    let is_row = entries.iter().any(is_column);
    if let Some(path) = if is_row { None } else { rows_under(entries)? } {
        let others = entries.iter().filter(|e| is_rows(e) && e.path != path);
        let others: Vec<String> = others.map(|e| format!("`{}`", e.path.join("."))).collect();
        if !others.is_empty() {
            tracing::info!("rows are read from `{}`; left out: {}", path.join("."), others.join(", "));
        }
        let mut scanner = Scanner::new(text.again()?, text.line_end());
        walk(&mut scanner, &mut Vec::new(), &mut |scanner, at| {
            if at == path {
                return Ok(Next::Stop);
            }
            if path.starts_with(at) {
                return Ok(Next::Deeper);
            }
            scanner.value(None).map(|()| Next::On)
        })?;
        return Ok(Box::new(Elements::new(scanner, Some(path.join(".")))));
    }
    let mut scanner = Scanner::new(text.again()?, text.line_end());
    scanner.peek()?;
    let line = scanner.line;
    let whole = one(&mut scanner)?;
    let Value::Object(whole) = whole else {
        return Err(format!("{} where an object was expected", kind(&whole)));
    };
    let rows = match of_columns(&whole).filter(|_| !is_row) {
        Some(rows) => rows?,
        None => return Ok(Box::new(std::iter::once((format!("line {line}"), Ok(whole))))),
    };
    Ok(Box::new(rows.into_iter().enumerate().map(|(i, row)| (format!("row {}", i + 1), Ok(row)))))
}

fn is_rows(entry: &Entry) -> bool {
    let name = entry.path.last().map_or("", String::as_str);
    matches!(entry.what, What::List { objects: true }) && !OF_A_ROW.contains(&name)
}

/// The key of the list that holds the rows, if one does.
fn rows_under(entries: &[Entry]) -> Result<Option<Vec<String>>, Problem> {
    let candidates: Vec<&Entry> = entries.iter().filter(|e| is_rows(e)).collect();
    let named_again = |entry: &Entry| candidates.iter().filter(|e| e.path == entry.path).count() > 1;
    if let Some(twice) = candidates.iter().find(|entry| named_again(entry)) {
        return Err(format!("one object has two keys `{}`: rename or remove one of them", twice.path.join(".")));
    }
    // A row of its own, one of whose columns may be a list of objects, as annotators' ratings are.
    let of_a_row = |e: &&Entry| e.path.len() == 1 && OF_A_ROW.iter().chain(&RATINGS).any(|name| *name == e.path[0]);
    if entries.iter().filter(of_a_row).count() >= 2 {
        return Ok(None);
    }
    let at = |depth: usize| candidates.iter().copied().filter(move |e| e.path.len() == depth);
    let known = |depth| ROWS.iter().find_map(|name| at(depth).find(|e| e.path.last().is_some_and(|key| key == name)));
    if let Some(entry) = known(1).or_else(|| known(2)) {
        return Ok(Some(entry.path.clone()));
    }
    let nearest: Vec<&Entry> = if at(1).next().is_some() { at(1).collect() } else { at(2).collect() };
    match nearest.as_slice() {
        // The only list there is, whatever it is called.
        [] => match entries.iter().filter(|e| matches!(e.what, What::List { objects: true })).collect::<Vec<_>>()[..] {
            [only] if entries.iter().all(|e| e.path.len() == 1 && e.what != What::Object) => {
                Ok(Some(only.path.clone()))
            }
            _ => Ok(None),
        },
        [entry] => Ok(Some(entry.path.clone())),
        several => {
            let names: Vec<String> = several.iter().map(|e| format!("`{}`", e.path.join("."))).collect();
            Err(format!(
                "it holds several lists of objects ({}); write the list of rows alone into a file: jq '.{}' FILE",
                names.join(", "),
                several[0].path.join(".")
            ))
        }
    }
}

/// Rows from columns: lists of equal length, or objects by index; also rows by index. `None` for a single row.
fn of_columns(whole: &Map<String, Value>) -> Option<Result<Vec<Map<String, Value>>, Problem>> {
    if let (Some(Value::Array(names)), Some(Value::Array(rows))) = (whole.get("columns"), whole.get("data")) {
        return Some(split(names, rows));
    }
    let all_numbered = |object: &Map<String, Value>| object.keys().all(|key| key.parse::<u64>().is_ok());
    let objects: Vec<&Map<String, Value>> = whole.values().filter_map(Value::as_object).collect();
    let lists: Vec<&Vec<Value>> = whole.values().filter_map(Value::as_array).collect();
    let names = || whole.keys().cloned();
    if objects.len() == whole.len() && !objects.is_empty() {
        if all_numbered(whole) {
            return Some(Ok(in_order(whole).into_iter().filter_map(|(_, row)| row.as_object().cloned()).collect()));
        }
        if objects.iter().all(|o| !o.is_empty() && all_numbered(o) && o.keys().eq(objects[0].keys())) {
            let row = |index: &String| names().zip(objects.iter().map(|o| o[index.as_str()].clone())).collect();
            return Some(Ok(in_order(objects[0]).into_iter().map(|(index, _)| row(index)).collect()));
        }
        // Rows by name are alike; the columns of a single row are not.
        if objects.len() > 1 && objects.iter().all(|o| o.keys().eq(objects[0].keys())) {
            return Some(Err(
                "it holds objects by name; the rows must be a list: [{...}, {...}], or one object a line \
                             (in pandas: to_json(FILE, orient=\"records\"))"
                    .into(),
            ));
        }
        return None;
    }
    let of_one_length =
        lists.len() == whole.len() && lists.len() > 1 && lists.iter().all(|l| l.len() == lists[0].len());
    // A single row may hold lists of objects, or one of responses; columns hold texts and numbers too.
    if whole.contains_key("responses") || whole.contains_key("completions") {
        return None;
    }
    let simple = lists.iter().any(|l| l.iter().all(|v| !v.is_object() && !v.is_array()));
    (of_one_length && simple).then(|| {
        let row = |i: usize| names().zip(lists.iter().map(|l| l[i].clone())).collect();
        Ok((0..lists[0].len()).map(row).collect())
    })
}

/// By index as numbers: 2 before 10.
fn in_order(object: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = object.iter().collect();
    entries.sort_by_key(|(index, _)| index.parse::<u64>().unwrap_or(u64::MAX));
    entries
}

/// Rows as pandas writes them with `orient="split"`.
fn split(names: &[Value], rows: &[Value]) -> Result<Vec<Map<String, Value>>, Problem> {
    let names: Vec<String> = names.iter().filter_map(|n| n.as_str().map(Into::into)).collect();
    let row = |(i, row): (usize, &Value)| match row.as_array().filter(|row| row.len() == names.len()) {
        Some(row) => Ok(names.iter().cloned().zip(row.iter().cloned()).collect()),
        None => {
            Err(format!("row {} of `data` is not a list of {} values, one for each of `columns`", i + 1, names.len()))
        }
    };
    rows.iter().enumerate().map(row).collect()
}
