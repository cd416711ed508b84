//! How a verdict is read from what a judge says: strictly, so that no verdict is made up.

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use super::{Choice, Kind};

/// Where in a reply the verdict stands, and in which forms.
///
/// With `pattern`, in the first group of each of its matches; with `field`, in that field of a reply that is a JSON object; else
/// the reply as a whole is the verdict, but for blanks and marks around it. Several verdicts must agree. What a reasoning model
/// thought (`<think>…</think>`) is no part of its reply.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Reading {
    #[serde(default, deserialize_with = "regex")]
    pattern: Option<Regex>,
    field: Option<String>,
    /// Forms that stand for the first response.
    #[serde(default)]
    first: Vec<String>,
    #[serde(default)]
    second: Vec<String>,
    #[serde(default)]
    tie: Vec<String>,
}

fn regex<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Regex>, D::Error> {
    let text = String::deserialize(from)?;
    Regex::new(&text).map(Some).map_err(|e| serde::de::Error::custom(format!("verdict.pattern: {e}")))
}

/// What may stand around a verdict: blanks, and the marks that models like to put there.
fn is_frame(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '*' | '_' | '.' | ':' | '(' | ')' | '[' | ']')
}

impl Reading {
    /// Checks that a verdict of this kind can be read.
    pub fn check(&self, kind: Kind) -> Result<(), String> {
        if self.pattern.is_some() && self.field.is_some() {
            return Err("field: a pattern is given too; one of them can say where it stands".into());
        }
        let forms = [("first", &self.first), ("second", &self.second), ("tie", &self.tie)];
        if kind == Kind::Pointwise {
            return match forms.iter().find(|(_, forms)| !forms.is_empty()) {
                Some((name, _)) => Err(format!("{name}: a pointwise verdict is a number")),
                None => Ok(()),
            };
        }
        let mut seen: Vec<&String> = Vec::new();
        for (name, forms) in forms {
            if forms.is_empty() && name != "tie" {
                return Err(format!("{name}: at least one form is needed"));
            }
            if let Some(again) = forms.iter().find(|form| seen.contains(form)) {
                return Err(format!("{name}: `{again}` stands for another choice too"));
            }
            seen.extend(forms);
        }
        Ok(())
    }

    /// Which response a reply prefers.
    pub fn choice(&self, reply: &str) -> Choice {
        self.agreed(reply, |found| self.form(found)).unwrap_or(Choice::Unparsed)
    }

    /// Which rating from `low` to `high` a reply gives.
    pub fn rating(&self, reply: &str, [low, high]: [f64; 2]) -> Option<f64> {
        let number = |found: &str| {
            let plain = found.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '-' | '+'));
            found.parse().ok().filter(|number: &f64| plain && (low..=high).contains(number))
        };
        self.agreed(reply, number)
    }

    /// The probability of the first response among the likeliest tokens of a place where both may stand.
    pub fn preference(&self, likeliest: &[(String, f64)]) -> Option<f64> {
        let mass = |choice| {
            let tokens = likeliest.iter().filter(|(token, _)| self.form(token.trim()) == Some(choice));
            tokens.map(|(_, log_prob)| log_prob.exp()).sum::<f64>()
        };
        let (first, second) = (mass(Choice::First), mass(Choice::Second));
        (first > 0.0 && second > 0.0).then(|| first / (first + second))
    }

    fn form(&self, found: &str) -> Option<Choice> {
        let is = |forms: &[String]| forms.iter().any(|form| form == found);
        match () {
            () if is(&self.first) => Some(Choice::First),
            () if is(&self.second) => Some(Choice::Second),
            () if is(&self.tie) => Some(Choice::Tie),
            () => None,
        }
    }

    /// What all verdicts in a reply say, if there is one and they agree.
    fn agreed<T: PartialEq>(&self, reply: &str, of: impl Fn(&str) -> Option<T>) -> Option<T> {
        let reply = reply.rsplit_once("</think>").map_or(reply, |(_, said)| said);
        let found: Vec<String> = match (&self.pattern, &self.field) {
            (Some(pattern), _) => {
                let groups = pattern.captures_iter(reply);
                let of_match = groups.filter_map(|found| found.iter().skip(1).flatten().next().or(found.get(0)));
                of_match.map(|found| found.as_str().trim().to_string()).collect()
            }
            (_, Some(field)) => {
                let object: Value = serde_json::from_str(reply.trim()).ok()?;
                match object.get(field)? {
                    Value::String(text) => vec![text.trim().to_string()],
                    number @ Value::Number(_) => vec![number.to_string()],
                    _ => return None,
                }
            }
            _ => vec![reply.trim_matches(is_frame).to_string()],
        };
        let mut said = found.iter().map(|found| of(found));
        let first = said.next()??;
        said.all(|other| other.as_ref() == Some(&first)).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_a_json_reply_may_hold_the_verdict() {
        let text = "field = \"better\"\nfirst = [\"one\", \"1\"]\nsecond = [\"two\"]\ntie = [\"none\"]";
        let reading: Reading = toml::from_str(text).expect("valid");
        for (reply, choice) in [
            ("{\"why\": \"…\", \"better\": \"one\"}", Choice::First),
            (" {\"better\": 1}\n", Choice::First),
            ("{\"better\": \"none\"}", Choice::Tie),
            ("{\"better\": null}", Choice::Unparsed),
            ("{\"worse\": \"one\"}", Choice::Unparsed),
            ("{\"better\": \"one\"} {\"better\": \"two\"}", Choice::Unparsed),
            ("one", Choice::Unparsed),
        ] {
            assert_eq!(reading.choice(reply), choice, "{reply}");
        }
    }
}
