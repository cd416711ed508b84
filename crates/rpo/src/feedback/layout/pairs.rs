//! Rows of two responses, as preference data have them, as two rated responses.

use serde_json::{Map, Value};

use super::messages::{self, prompt_and_response, text, transcript, turns};
use super::path::find;
use crate::chat::{Prompt, Turn, plain};

type Result<T> = std::result::Result<T, String>;

/// The columns of a pair.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pair {
    pub responses: [String; 2],
    /// Of their ratings; without them the first counts 1 and the second 0.
    pub scores: Option<[String; 2]>,
}

impl Pair {
    /// The prompt and both responses. The prompt is that of its column, or what both dialogues have in common before their last
    /// turns, or what both texts begin with; `named` says that the user named the column.
    pub(super) fn texts(
        &self,
        record: &Map<String, Value>,
        prompt: Option<&str>,
        named: bool,
    ) -> Result<(Prompt, [String; 2])> {
        let null = || std::borrow::Cow::Owned(Value::Null);
        let [a, b] = self.responses.each_ref().map(|column| find(record, column).unwrap_or_else(null));
        let asked = prompt.and_then(|column| find(record, column));
        let asked_prompt = asked.as_deref().map(messages::prompt).transpose()?.filter(|asked| !asked.is_blank());
        let dialogue = |turns: &Option<Vec<Turn>>| turns.as_ref().is_some_and(|turns| turns.len() > 1);
        let (a_spoken, b_spoken) = (spoken(&a)?, spoken(&b)?);
        if let (Some(a), Some(b), true) = (&a_spoken, &b_spoken, dialogue(&a_spoken) && dialogue(&b_spoken)) {
            let most = a.len().min(b.len()) - 1;
            let common = a[..most].iter().zip(&b[..most]).take_while(|(a, b)| a.says(b)).count();
            let repeats_prompt = a[..common].iter().any(|turn| turn.role == "user");
            let own = asked_prompt.as_ref().filter(|_| named || !repeats_prompt);
            let common = if repeats_prompt { common } else { 0 };
            let asked = own.cloned().unwrap_or_else(|| Prompt::Turns(a[..common].to_vec()));
            return Ok((asked, [a, b].map(|turns| plain(&turns[common..]))));
        }
        if let (Some(asked), Some(_)) = (&asked, &asked_prompt) {
            let (prompt, a) = prompt_and_response(asked, &a)?;
            return Ok((prompt, [a, prompt_and_response(asked, &b)?.1]));
        }
        // One dialogue, and nothing beside it.
        let alone = match (&a_spoken, &b_spoken) {
            (Some(turns), _) if turns.len() > 1 && b.is_null() => Some((turns, 0)),
            (_, Some(turns)) if turns.len() > 1 && a.is_null() => Some((turns, 1)),
            _ => None,
        };
        let Some((turns, at)) = alone else { return Ok(common_beginning(&text(&a)?, &text(&b)?)) };
        let (before, last) = turns.split_at(turns.len() - 1);
        let mut answers = [String::new(), String::new()];
        answers[at] = plain(last);
        Ok((Prompt::Turns(before.to_vec()), answers))
    }
}

/// The turns of a dialogue, as messages or as a transcript.
pub(super) fn spoken(value: &Value) -> Result<Option<Vec<Turn>>> {
    Ok(turns(value)?.or_else(|| transcript(value.as_str()?)))
}

/// Texts that begin alike, parted before the first word in which they differ.
fn common_beginning(a: &str, b: &str) -> (Prompt, [String; 2]) {
    let same = a.char_indices().zip(b.chars()).take_while(|((_, x), y)| x == y);
    let end = same.last().map_or(0, |((at, c), _)| at + c.len_utf8());
    let cut = a[..end].rfind(char::is_whitespace).unwrap_or(0);
    (a[..cut].trim().into(), [a[cut..].trim().into(), b[cut..].trim().into()])
}
