//! Rows of two responses, as preference data have them, as two rated responses.

use serde_json::{Map, Value};

use super::messages::{Turn, render, text, transcript, turns};
use super::path::find;

type Result<T> = std::result::Result<T, String>;

/// The columns of a pair.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pair {
    pub responses: [String; 2],
    /// Of their ratings; without them the first counts 1 and the second 0.
    pub scores: Option<[String; 2]>,
}

impl Pair {
    /// The prompt and both responses. What both dialogues have in common before their last turns is the prompt.
    pub(super) fn texts(
        &self,
        record: &Map<String, Value>,
        prompt: Option<&str>,
        named: bool,
    ) -> Result<(String, [String; 2])> {
        let null = || std::borrow::Cow::Owned(Value::Null);
        let [a, b] = self.responses.each_ref().map(|column| find(record, column).unwrap_or_else(null));
        let asked = prompt.and_then(|column| find(record, column)).map(|value| text(&value)).transpose()?;
        match (spoken(&a)?, spoken(&b)?) {
            (Some(a), Some(b)) if a.len() > 1 && b.len() > 1 => {
                let most = a.len().min(b.len()) - 1;
                let common = a[..most].iter().zip(&b[..most]).take_while(|(a, b)| a == b).count();
                let before = if named { asked.filter(|asked| !asked.trim().is_empty()) } else { None };
                Ok((before.unwrap_or_else(|| render(&a[..common])), [&a, &b].map(|turns| render(&turns[common..]))))
            }
            _ => {
                let (a, b) = (text(&a)?, text(&b)?);
                match asked {
                    Some(asked) => Ok((asked, [a, b])),
                    None => Ok(common_beginning(&a, &b)),
                }
            }
        }
    }
}

fn spoken(value: &Value) -> Result<Option<Vec<Turn>>> {
    Ok(turns(value)?.or_else(|| transcript(value.as_str()?)))
}

/// Texts that begin alike, parted before the first word in which they differ.
fn common_beginning(a: &str, b: &str) -> (String, [String; 2]) {
    let same = a.char_indices().zip(b.chars()).take_while(|((_, x), y)| x == y);
    let end = same.last().map_or(0, |((at, c), _)| at + c.len_utf8());
    let cut = a[..end].rfind(char::is_whitespace).unwrap_or(0);
    (a[..cut].trim().into(), [a[cut..].trim().into(), b[cut..].trim().into()])
}
