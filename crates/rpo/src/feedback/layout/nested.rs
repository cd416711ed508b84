//! Rows that hold several responses, rated by fields of their own or by lists beside them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::path::find;
use super::reward::Terms;
use super::{Layout, Result, Reward, messages};
use crate::chat::Prompt;
use crate::feedback::notes::{Answer, Notes};

impl Layout {
    /// The responses among `elements`, whose texts stand in their field `text`.
    pub(super) fn nested(
        &self,
        record: &Map<String, Value>,
        prompt: &Prompt,
        elements: Vec<Value>,
        text: &str,
        notes: &mut Notes,
    ) -> Result<Vec<Answer>> {
        if elements.is_empty() {
            return Ok(self.complete((prompt.clone(), String::new()), None, None, notes)?.into_iter().collect());
        }
        let total = elements.len();
        let mut beside = None;
        let mut rows = Vec::new();
        for (i, element) in elements.into_iter().enumerate() {
            let located = |problem| format!("response {}: {problem}", i + 1);
            let own = element.as_object().filter(|element| find(element, text).is_some());
            let response = match own.and_then(|element| find(element, text)) {
                Some(value) => messages::text(&value).map_err(|p| located(format!("`{text}` is {p}")))?,
                None => match &element {
                    // An object that has no text is one that is empty, as is null.
                    Value::Object(_) if messages::turns(&element).map_err(located)?.is_none() => String::new(),
                    _ => messages::text(&element).map_err(located)?,
                },
            };
            let rated = element.as_object().map(|element| self.reward(element, notes)).transpose().map_err(located)?;
            let reward = match (rated.flatten(), &self.reward) {
                (None, Reward::Columns(terms)) => {
                    if beside.is_none() {
                        beside = Some(Beside::of(record, terms, total, !element.is_object())?);
                    }
                    let rate = |lists: &Beside| lists.rate(i, terms, &self.options.reward_map, notes);
                    beside.as_ref().map_or(Ok(None), rate).map_err(located)?
                }
                (rated, _) => rated,
            };
            rows.extend(self.complete((prompt.clone(), response), reward, Some(i), notes).map_err(located)?);
        }
        Ok(rows)
    }
}

/// Lists of ratings beside a list of responses, one for each column of the reward.
struct Beside(Vec<Option<Vec<Value>>>);

impl Beside {
    /// Those of a record with `total` responses; `needed` if these cannot hold their ratings themselves.
    fn of(record: &Map<String, Value>, Terms(terms): &Terms, total: usize, needed: bool) -> Result<Self> {
        let list = |column: &String| match find(record, column).as_deref() {
            Some(Value::Array(list)) if list.len() == total => Ok(Some(list.clone())),
            None | Some(Value::Null) => Ok(None),
            Some(_) if needed => Err(format!("{total} responses, but `{column}` is no list of so many")),
            Some(_) => Ok(None),
        };
        Ok(Self(terms.iter().map(|(column, _)| list(column)).collect::<Result<_>>()?))
    }

    /// The reward of response `i`.
    fn rate(&self, i: usize, terms: &Terms, map: &BTreeMap<String, f64>, notes: &mut Notes) -> Result<Option<f64>> {
        let mut lists = self.0.iter();
        notes.rewarded |= self.0.iter().any(Option::is_some);
        terms.combine(|column| match lists.next().and_then(Option::as_ref) {
            Some(list) => notes.scales.rate(column, &list[i], map),
            None => Ok(None),
        })
    }
}
