//! What of Python templates use and the template engine does not have.

use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Error, Output, State, escape_formatter};
use minijinja_contrib::pycompat::unknown_method_callback;

type Result<T> = std::result::Result<T, Error>;

/// Python's methods of texts, lists and dictionaries.
pub(super) fn method(state: &mut State<'_, '_>, value: &Value, method: &str, arguments: &[Value]) -> Result<Value> {
    let Some(text) = value.as_str() else { return unknown_method_callback(state, value, method, arguments) };
    let parts = |found: Option<(&str, &str)>, mark: &str, whole: [&str; 3]| {
        Value::from(found.map_or(whole.map(str::to_string), |(a, b)| [a, mark, b].map(str::to_string)).to_vec())
    };
    Ok(match method {
        "rsplit" => {
            let (mark, most): (&str, Option<usize>) = from_args(arguments)?;
            let most = most.map_or(usize::MAX, |most| most.saturating_add(1));
            let mut parts: Vec<String> = text.rsplitn(most, mark).map(str::to_string).collect();
            parts.reverse();
            Value::from(parts)
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(arguments)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(arguments)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "partition" => {
            let (mark,): (&str,) = from_args(arguments)?;
            parts(text.split_once(mark), mark, [text, "", ""])
        }
        "rpartition" => {
            let (mark,): (&str,) = from_args(arguments)?;
            parts(text.rsplit_once(mark), mark, ["", "", text])
        }
        _ => return unknown_method_callback(state, value, method, arguments),
    })
}

/// A number as Python writes it: with a power of ten where it is very small or very large.
pub(super) fn number(value: &Value) -> String {
    let float = if value.is_integer() { None } else { f64::try_from(value.clone()).ok() };
    let Some(float) = float else { return value.to_string() };
    if !float.is_finite() {
        return float.to_string().to_lowercase();
    }
    let scientific = format!("{float:e}");
    match scientific.split_once('e').and_then(|(digits, power)| Some((digits, power.parse::<i32>().ok()?))) {
        Some((digits, power)) if !(-4..16).contains(&power) => {
            let sign = if power < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", power.abs())
        }
        _ => format!("{float:?}"),
    }
}

/// Prints a value: True, False and None have capitals.
pub(super) fn print(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<()> {
    let capital = match value.kind() {
        ValueKind::Bool if value.is_true() => "True",
        ValueKind::Bool => "False",
        ValueKind::None => "None",
        ValueKind::Number => return out.write_str(&number(value)).map_err(Error::from),
        _ => return escape_formatter(out, state, value),
    };
    out.write_str(capital).map_err(Error::from)
}
