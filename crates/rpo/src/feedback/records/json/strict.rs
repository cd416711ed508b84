//! JSON as Python writes it, without ever losing a value: `NaN` is read as null, a key that stands twice is an error.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::super::{Problem, encoding};

/// The value that `bytes` hold; an error tells its place by line, counted from `first_line`, where they have several.
pub(super) fn parse(bytes: &[u8], first_line: Option<usize>) -> Result<Value, Problem> {
    // Where marked files were joined, a byte order mark stands before a line.
    let text = encoding::utf8(bytes)?.trim_start_matches('\u{feff}');
    let parsed = match serde_json::from_str(text) {
        Ok(Strict(value)) => return Ok(value),
        Err(e) => match as_json(text) {
            Some(rewritten) => serde_json::from_str(&rewritten),
            None => Err(e),
        },
    };
    parsed.map(|Strict(value)| value).map_err(|e: serde_json::Error| {
        let whole = e.to_string();
        let place = match first_line {
            Some(first) => format!("line {}, column {}", first + e.line().max(1) - 1, e.column()),
            None => format!("column {}", e.column()),
        };
        let said = match whole.split(" at line ").next().unwrap_or(&whole) {
            "lone leading surrogate in hex escape" | "unexpected end of hex escape" => HALF.to_string(),
            twice if twice.starts_with(TWICE) => twice.to_string(),
            other => format!("malformed JSON: {other}"),
        };
        match explain(&said, text) {
            Some(remedy) => format!("{said} ({place}): {remedy}"),
            None => format!("{said} ({place})"),
        }
    })
}

fn explain(said: &str, text: &str) -> Option<&'static str> {
    match said {
        HALF => Some(
            "as is left where a text was cut inside an emoji; remove the `\\ud...` there, or write the text again without it",
        ),
        _ if said.starts_with(TWICE) => Some("rename or remove one of them"),
        _ if said.ends_with("key must be a string") && text.contains("{'") => {
            Some("this is how Python prints a dictionary; write it with json.dumps")
        }
        _ if said.ends_with("trailing characters") => {
            Some("a row is one object on a line of its own, with nothing after it, or an element of a list")
        }
        _ if said.contains("EOF while parsing") => Some("it ends too early; was the file cut off?"),
        _ => None,
    }
}

const HALF: &str = "half of a character (a lone surrogate)";
const TWICE: &str = "one object has two keys";

/// Python's `NaN` as null and its `Infinity` as a text, which is no reward; `None` if there is neither outside of strings.
fn as_json(text: &str) -> Option<String> {
    if !["NaN", "Infinity"].iter().any(|name| text.contains(name)) {
        return None;
    }
    let (mut out, mut from, mut inside, mut escaped) = (String::with_capacity(text.len()), 0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if at < from => {}
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            b'N' | b'I' | b'-' if !inside => {
                let bare = [("NaN", "null"), ("-Infinity", "\"-Infinity\""), ("Infinity", "\"Infinity\"")];
                if let Some((name, json)) = bare.iter().find(|(name, _)| text[at..].starts_with(name)) {
                    out.push_str(&text[from..at]);
                    out.push_str(json);
                    from = at + name.len();
                }
            }
            _ => {}
        }
    }
    out.push_str(&text[from..]);
    (from > 0).then_some(out)
}

/// A value no object of which has a key twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(element)) = elements.next_element()? {
            list.push(element);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(de::Error::custom(format!("{TWICE} `{key}`")));
            }
            let Strict(value) = entries.next_value()?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_that_python_alone_knows_are_read_outside_of_strings() {
        let text = br#"{"a":NaN,"b":[-Infinity,Infinity],"NaN":"NaN, \"NaN","c":-1}"#;
        let expected = json!({"a": null, "b": ["-Infinity", "Infinity"], "NaN": "NaN, \"NaN", "c": -1});
        assert_eq!(parse(text, None), Ok(expected));
        assert!(parse(br#"{"a":NaNa}"#, None).expect_err("no number").contains("malformed JSON"));
    }

    #[test]
    fn a_key_that_stands_twice_is_named() {
        let problem = parse(b"{\"a\":{\"b\":1,\n\"b\":2}}", Some(7)).expect_err("twice");
        assert!(problem.contains("two keys `b` (line 8, column"), "{problem}");
        assert!(parse(br#"[{"a":1},{"a":2}]"#, None).is_ok(), "not in one object");
    }

    #[test]
    fn half_a_character_and_a_printed_dictionary_are_explained() {
        for half in [r#"{"a":"\ud83d"}"#, r#"{"a":"\ud83dx"}"#, r#"{"a":"\ude00"}"#] {
            let problem = parse(half.as_bytes(), None).expect_err("lone surrogate");
            assert!(problem.contains("half of a character"), "{problem}");
        }
        assert_eq!(parse(br#""\ud83d\ude00""#, None), Ok(json!("😀")));
        assert!(parse(b"{'a': 1}", None).expect_err("no JSON").contains("json.dumps"));
    }
}
