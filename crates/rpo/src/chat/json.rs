//! The filter `tojson` as transformers gives it to templates: Python's `json.dumps`, which escapes no HTML.

use std::fmt::Write;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::python::number;

/// So deep may lists and dictionaries lie in each other; Python gives up at about a thousand.
const DEEPEST: usize = 200;
/// So many bytes are written of one value.
const LONGEST: usize = 64 << 20;
/// So long may what a level is indented by be.
const INDENT: usize = 64;

/// How it is written.
struct Style {
    ensure_ascii: bool,
    /// What a level is indented by; on one line without.
    indent: Option<String>,
    between: String,
    colon: String,
    sort_keys: bool,
}

/// `value` as JSON. `options` are `ensure_ascii`, `indent`, `separators` and `sort_keys`, as for `json.dumps`.
///
/// # Errors
/// If an option is unknown or not what it should be, something in the value has no JSON, or it is too deep or too long.
pub(super) fn tojson(value: &Value, options: &Kwargs) -> Result<String, Error> {
    let wrong = |problem: &'static str| Error::new(ErrorKind::InvalidOperation, format!("tojson: {problem}"));
    let indent = match options.get::<Option<Value>>("indent")?.filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) => Some(match (indent.as_str(), indent.as_i64()) {
            (Some(text), _) if text.len() > INDENT => return Err(wrong("indent is longer than 64 bytes")),
            (Some(text), _) => text.to_string(),
            (None, Some(n)) => " ".repeat(n.clamp(0, INDENT as i64) as usize),
            _ => return Err(wrong("indent is neither a number nor a text")),
        }),
    };
    let between = if indent.is_some() { "," } else { ", " };
    let (between, colon) = match options.get::<Option<Value>>("separators")?.filter(|given| !given.is_none()) {
        None => (between.to_string(), ": ".to_string()),
        Some(given) => match given.try_iter()?.collect::<Vec<_>>().as_slice() {
            [between, colon] => (between.to_string(), colon.to_string()),
            _ => return Err(wrong("separators are not two texts")),
        },
    };
    let flag = |name: &str| options.get::<Option<bool>>(name).map(Option::unwrap_or_default);
    let style = Style { ensure_ascii: flag("ensure_ascii")?, indent, between, colon, sort_keys: flag("sort_keys")? };
    options.assert_all_used()?;
    let mut out = String::new();
    write(value, &style, 0, &mut out)?;
    Ok(out)
}

fn write(value: &Value, style: &Style, level: usize, out: &mut String) -> Result<(), Error> {
    // What a template can make in a few steps, such as a list that holds another a thousand times, may be of any size.
    let too_much = match () {
        () if level > DEEPEST => Some(format!("more than {DEEPEST} lists and dictionaries lie in each other")),
        () if out.len() > LONGEST => Some(format!("it is longer than {} MiB", LONGEST >> 20)),
        () => None,
    };
    if let Some(problem) = too_much {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("tojson: {problem}")));
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => match number(value).as_str() {
            "inf" => out.push_str("Infinity"),
            "-inf" => out.push_str("-Infinity"),
            "nan" => out.push_str("NaN"),
            number => out.push_str(number),
        },
        ValueKind::String => text(value.as_str().unwrap_or_default(), style, out),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            all(&items, ['[', ']'], style, level, out, |item, out| write(item, style, level + 1, out))?;
        }
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if style.sort_keys {
                keys.sort_by_key(ToString::to_string);
            }
            all(&keys, ['{', '}'], style, level, out, |key, out| {
                text(&key.to_string(), style, out);
                out.push_str(&style.colon);
                write(&value.get_item(key)?, style, level + 1, out)
            })?;
        }
        kind => {
            let problem = format!("tojson: a value of type {kind} has no JSON");
            return Err(Error::new(ErrorKind::InvalidOperation, problem));
        }
    }
    Ok(())
}

/// All of `items` between brackets.
fn all(
    items: &[Value],
    [open, close]: [char; 2],
    style: &Style,
    level: usize,
    out: &mut String,
    mut each: impl FnMut(&Value, &mut String) -> Result<(), Error>,
) -> Result<(), Error> {
    let line = |level: usize, out: &mut String| {
        if let (Some(indent), false) = (&style.indent, items.is_empty()) {
            out.push('\n');
            out.push_str(&indent.repeat(level));
        }
    };
    out.push(open);
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push_str(&style.between);
        }
        line(level + 1, out);
        each(item, out)?;
    }
    line(level, out);
    out.push(close);
    Ok(())
}

fn text(text: &str, style: &Style, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || style.ensure_ascii && c > '~' => {
                // What lies beyond 16 bits is two surrogates.
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a text cannot fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
