//! Rewards from the columns of a record: one or several, weighted or not, of one annotator or several.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::path::{as_json, discarded, find};
use super::written::{Kind, Rating, Written, read};

type Result<T> = std::result::Result<T, String>;

/// Columns whose mean, or weighted sum, is the reward.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Terms(pub Vec<(String, Option<f64>)>);

impl Terms {
    /// Reads `a`, `a,b` (the mean) or `a*0.65,b*-0.4` (the sum with weights).
    pub(super) fn parse(columns: &str) -> Result<Self> {
        let term = |term: &str| match term.trim().rsplit_once('*') {
            None => Ok((term.trim().to_string(), None)),
            Some((column, weight)) => match weight.trim().parse::<f64>() {
                Ok(weight) if weight.is_finite() => Ok((column.trim().to_string(), Some(weight))),
                _ => Err(format!("`{term}` in the reward column: `{weight}` is not a weight; write COLUMN*NUMBER")),
            },
        };
        Ok(Self(columns.split(',').map(term).collect::<Result<_>>()?))
    }

    /// The reward of a record; `None` if it is not rated. `scales` remember how each column was read.
    pub(super) fn rate(
        &self,
        record: &Map<String, Value>,
        map: &BTreeMap<String, f64>,
        scales: &mut Scales,
    ) -> Result<Option<f64>> {
        self.combine(|column| {
            let value = find(record, column);
            let submitted = value.as_deref().map(|value| submitted(record, column, value));
            submitted.as_ref().map_or(Ok(None), |value| scales.rate(column, value, map))
        })
    }

    /// The reward from what `rate` says of each column.
    pub(super) fn combine(&self, mut rate: impl FnMut(&str) -> Result<Option<f64>>) -> Result<Option<f64>> {
        let mut rated = Vec::new();
        for (column, weight) in &self.0 {
            rated.push(rate(column)?.map(|rating| (rating, *weight)));
        }
        let present: Vec<(f64, Option<f64>)> = rated.iter().flatten().copied().collect();
        match self.0.iter().any(|(_, weight)| weight.is_some()) {
            true if present.len() < rated.len() => Ok(None),
            true => Ok(Some(present.iter().map(|(rating, weight)| rating * weight.unwrap_or(1.0)).sum())),
            false => Ok(mean(present.iter().map(|(rating, _)| *rating))),
        }
    }
}

/// Ratings of several annotators without those that a status, in a column beside, discards.
fn submitted(record: &Map<String, Value>, column: &str, value: &Value) -> Value {
    let status = record.get(&format!("{column}.status")).and_then(Value::as_array);
    match (value.as_array(), status) {
        (Some(list), Some(status)) if list.len() == status.len() => kept(list, status),
        _ => value.clone(),
    }
}

/// The values whose status does not discard them.
fn kept(list: &[Value], status: &[Value]) -> Value {
    let kept = list.iter().zip(status).filter(|(_, status)| !discarded(status));
    Value::Array(kept.map(|(value, _)| value.clone()).collect())
}

pub(super) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// How the ratings of each column were read so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::feedback) struct Scales(Vec<(String, Scale)>);

#[derive(Clone, Debug, Default, PartialEq)]
struct Scale {
    /// A rating of each kind, as it was written.
    seen: Vec<(Kind, String, f64)>,
    /// Words, what they count as, and how often they were met.
    words: Vec<(String, f64, usize)>,
    /// Whether ratings that come first have a decimal comma.
    decimal_comma: bool,
}

impl Scales {
    fn of(&mut self, column: &str) -> &mut Scale {
        let place = self.0.iter().position(|(name, _)| name == column).unwrap_or_else(|| {
            self.0.push((column.into(), Scale::default()));
            self.0.len() - 1
        });
        &mut self.0[place].1
    }

    /// Looks ahead at the first ratings of a column, so that it does not matter which of them comes first.
    pub(super) fn look(&mut self, column: &str, values: &[Cow<'_, Value>]) {
        let comma = |value: &&Cow<'_, Value>| match value.as_str().map(read) {
            Some(Written::Clear(rating)) => rating.kind == Kind::Comma,
            _ => false,
        };
        if values.iter().any(|value| comma(&value)) {
            self.of(column).decimal_comma = true;
        }
    }

    /// The rating in `value`, the mean if it holds several.
    pub(super) fn rate(&mut self, column: &str, value: &Value, map: &BTreeMap<String, f64>) -> Result<Option<f64>> {
        match value {
            Value::Null => Ok(None),
            Value::Array(list) => {
                let each: Result<Vec<Option<f64>>> = list.iter().map(|v| self.rate(column, v, map)).collect();
                Ok(mean(each?.into_iter().flatten()))
            }
            Value::Object(fields) if fields.get("status").is_some_and(discarded) => Ok(None),
            Value::Object(fields) => match ["value", "rating", "score"].iter().find_map(|name| fields.get(*name)) {
                Some(Value::Array(list)) => match fields.get("status").and_then(Value::as_array) {
                    Some(status) if status.len() == list.len() => self.rate(column, &kept(list, status), map),
                    _ => self.rate(column, &Value::Array(list.clone()), map),
                },
                Some(value) => self.rate(column, value, map),
                None => {
                    Err(format!("`{column}` is an object, not a rating; name a field of it, as in `{column}.FIELD`"))
                }
            },
            Value::String(text) => match as_json(value) {
                Some(json) => self.rate(column, &json, map),
                None => self.of(column).text(column, text, map),
            },
            Value::Bool(yes) if map.is_empty() => {
                let rating = Rating { value: f64::from(u8::from(*yes)), kind: Kind::Word };
                self.of(column).keep(column, &yes.to_string(), rating).map(Some)
            }
            Value::Number(n) if map.is_empty() => match n.as_f64().filter(|n| n.is_finite()) {
                Some(value) => {
                    self.of(column).keep(column, &n.to_string(), Rating { value, kind: Kind::Number }).map(Some)
                }
                None => Err(format!("`{column}` is {n}, not a finite number")),
            },
            Value::Bool(_) | Value::Number(_) => self.of(column).text(column, &value.to_string(), map),
        }
    }

    /// What is worth saying of how ratings were read.
    pub(in crate::feedback) fn lines(&self) -> Vec<String> {
        let mut said = Vec::new();
        for (column, scale) in &self.0 {
            let word = |(word, value, n): &(String, f64, usize)| {
                format!("{word} -> {value} ({n} {})", if *n == 1 { "row" } else { "rows" })
            };
            let words: Vec<String> = scale.words.iter().map(word).collect();
            if !words.is_empty() {
                said.push(format!("`{column}` by word: {}", words.join(", ")));
            }
            let unusual = scale.seen.iter().filter(|(kind, ..)| !matches!(kind, Kind::Number | Kind::Word));
            said.extend(unusual.map(|(_, text, value)| format!("`{column}`: `{text}` is read as {value}")));
        }
        said
    }
}

impl Scale {
    fn text(&mut self, column: &str, text: &str, map: &BTreeMap<String, f64>) -> Result<Option<f64>> {
        let written = read(text);
        if !map.is_empty() {
            let name = text.trim();
            let number = |text: &str| text.trim().parse::<f64>().ok();
            let same = |(word, _): &(&String, &f64)| {
                word.trim().to_lowercase() == name.to_lowercase()
                    || number(word).is_some() && number(word) == number(name)
            };
            return match (map.get(name).or_else(|| map.iter().find(same).map(|(_, value)| value)), written) {
                (Some(value), _) => {
                    self.count(name, *value);
                    Ok(Some(*value))
                }
                (None, Written::Nothing) => Ok(None),
                _ => Err(format!(
                    "`{column}` is `{name}`, which the reward map does not have (there are: {}); add {name}=NUMBER to \
                     --reward-map",
                    map.keys().cloned().collect::<Vec<_>>().join(", ")
                )),
            };
        }
        match written {
            Written::Nothing => Ok(None),
            Written::Clear(rating) if rating.kind == Kind::Number && self.has_commas() && thousands(text) => {
                Err(format!(
                    "`{column}` is `{text}`, whose point parts thousands, as the other ratings have decimal commas, or is \
                     a decimal point; write all ratings alike"
                ))
            }
            Written::Clear(rating) => self.keep(column, text.trim(), rating).map(Some),
            Written::EitherComma(value) if self.has_commas() => Ok(Some(value)),
            Written::EitherComma(_) => Err(format!(
                "`{column}` is `{text}`, whose comma is either a decimal comma or parts thousands; write it with a decimal \
                 point or without a comma"
            )),
            Written::Unknown => Err(format!(
                "`{column}` is `{text}`, not a finite number nor a word of known meaning; say what words mean with \
                 --reward-map WORD=NUMBER,..., and write numbers without thousands separators"
            )),
        }
    }

    fn has_commas(&self) -> bool {
        self.decimal_comma || self.seen.iter().any(|(kind, ..)| *kind == Kind::Comma)
    }

    /// The rating's value, if it is of a kind with those before it.
    fn keep(&mut self, column: &str, text: &str, rating: Rating) -> Result<f64> {
        let Rating { value, kind } = rating;
        let new = (kind, text, value);
        if let Some((_, other, _)) = self.seen.iter().find(|(k, _, v)| !alike((*k, *v), (kind, value))) {
            return Err(format!(
                "`{column}` holds ratings of two kinds, `{other}` and `{text}`; write them alike, or say what each means \
                 with --reward-map"
            ));
        }
        // Of numbers, one that is neither 0 nor 1 tells that the column does not hold thumbs.
        let known = |(k, _, v): &(Kind, String, f64)| *k == kind && (kind != Kind::Number || thumb(*v) == thumb(value));
        if !self.seen.iter().any(known) {
            self.seen.push((new.0, new.1.into(), new.2));
        }
        if kind == Kind::Word {
            self.count(text, value);
        }
        Ok(value)
    }

    fn count(&mut self, word: &str, value: f64) {
        match self.words.iter_mut().find(|(known, ..)| known == word) {
            Some((.., n)) => *n += 1,
            None => self.words.push((word.into(), value, 1)),
        }
    }
}

/// Whether the point of a number has exactly three digits behind it, and one to three before.
fn thousands(text: &str) -> bool {
    let digits = |text: &str, n: std::ops::RangeInclusive<usize>| {
        n.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
    };
    let (before, behind) = text.trim().trim_start_matches(['-', '+']).split_once('.').unwrap_or_default();
    digits(before, 1..=3) && digits(behind, 3..=3) && !before.starts_with('0')
}

fn thumb(value: f64) -> bool {
    value == 0.0 || value == 1.0
}

/// Whether two ratings may stand in one column: 0 and 1 go with words, 0 with shares, stars with numbers.
fn alike(a: (Kind, f64), b: (Kind, f64)) -> bool {
    let one_way = |(a, x): (Kind, f64), (b, _): (Kind, f64)| match (a, b) {
        (Kind::Number, Kind::Word) => thumb(x),
        (Kind::Number, Kind::Share) => x == 0.0,
        (Kind::Number | Kind::Comma, Kind::Number | Kind::Comma | Kind::Stars) => true,
        (a, b) => a == b,
    };
    one_way(a, b) || one_way(b, a)
}
