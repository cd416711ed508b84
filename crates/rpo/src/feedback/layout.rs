//! From the record of a file to the rated responses in it, by the names of its columns.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::records::{Format, kind, object};
use super::rows::{Feedback, Notes};

/// Which of UltraFeedback's ratings is the reward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Score {
    /// `overall_score`.
    #[default]
    OverallScore,
    /// The mean of the fine-grained ratings that are numbers.
    FineGrained,
}

/// Format and column names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct ReadOptions {
    /// By default what the file's extension says.
    pub format: Option<Format>,
    /// Column of the prompts.
    pub prompt: String,
    /// Column of the responses in flat rows.
    pub response: String,
    /// Column of the rewards.
    pub reward: String,
    /// Column of the list of responses in nested rows.
    pub responses: String,
    /// Field of a response's text inside that list.
    pub text: String,
    /// For UltraFeedback.
    pub score: Score,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            format: None,
            prompt: "prompt".into(),
            response: "response".into(),
            reward: "reward".into(),
            responses: "responses".into(),
            text: "text".into(),
            score: Score::OverallScore,
        }
    }
}

/// The rated responses of a record, or what is wrong with it. What is left out is counted in `notes`.
pub(super) fn rated(
    record: &Map<String, Value>,
    options: &ReadOptions,
    notes: &mut Notes,
) -> std::result::Result<Vec<Feedback>, String> {
    match options.format {
        Some(Format::Ultrafeedback) => ultrafeedback(record, options.score, notes),
        _ => ordinary(record, options),
    }
}

/// A flat row, or a prompt with a list of responses.
fn ordinary(record: &Map<String, Value>, o: &ReadOptions) -> std::result::Result<Vec<Feedback>, String> {
    let prompt = text(record, &o.prompt, "--prompt-column")?;
    let one = |record: &Map<String, Value>, field: &str, flag: &str| -> std::result::Result<Feedback, String> {
        let response = text(record, field, flag)?;
        Ok(Feedback { prompt: prompt.clone(), response, reward: reward(record, &o.reward)? })
    };
    let Some(list) = record.get(&o.responses) else {
        return Ok(vec![one(record, &o.response, "--response-column")?]);
    };
    let list = list.as_array().ok_or_else(|| format!("`{}` is {}, not a list", o.responses, kind(list)))?;
    if list.is_empty() {
        return Err(format!("`{}` is empty", o.responses));
    }
    let each = list.iter().enumerate().map(|(i, value)| {
        let located = |problem| format!("response {}: {problem}", i + 1);
        object(value.clone()).and_then(|r| one(&r, &o.text, "`text` under [columns]")).map_err(located)
    });
    each.collect()
}

/// A row of UltraFeedback. Completions without the wanted rating are left out, as that data set has some.
fn ultrafeedback(
    record: &Map<String, Value>,
    score: Score,
    notes: &mut Notes,
) -> std::result::Result<Vec<Feedback>, String> {
    let prompt = text(record, "instruction", "the format")?;
    let completions = record.get("completions").and_then(Value::as_array).ok_or("no list `completions`")?;
    let mut rows = Vec::new();
    for completion in completions {
        let completion = object(completion.clone())?;
        let rating = match score {
            Score::OverallScore => completion.get("overall_score").and_then(number),
            Score::FineGrained => fine_grained(&completion),
        };
        let response = completion.get("response").and_then(Value::as_str).unwrap_or("");
        match rating {
            _ if response.trim().is_empty() => notes.count("responses are empty and were left out", 1),
            None => notes.count("responses have no rating and were left out", 1),
            Some(reward) => rows.push(Feedback { prompt: prompt.clone(), response: response.into(), reward }),
        }
    }
    Ok(rows)
}

fn fine_grained(completion: &Map<String, Value>) -> Option<f64> {
    let annotations = completion.get("annotations")?.as_object()?;
    let ratings: Vec<f64> = annotations.values().filter_map(|a| number(a.get("Rating")?)).collect();
    (!ratings.is_empty()).then(|| ratings.iter().sum::<f64>() / ratings.len() as f64)
}

fn text(record: &Map<String, Value>, field: &str, flag: &str) -> std::result::Result<String, String> {
    match record.get(field).ok_or_else(|| missing(record, field, flag))? {
        Value::String(s) if s.trim().is_empty() => Err(format!("`{field}` is empty")),
        Value::String(s) => Ok(s.clone()),
        other => Err(format!("`{field}` is {}, not a text", kind(other))),
    }
}

fn reward(record: &Map<String, Value>, field: &str) -> std::result::Result<f64, String> {
    let value = record.get(field).ok_or_else(|| missing(record, field, "--reward-column"))?;
    number(value).ok_or_else(|| format!("`{field}` is {value}, not a finite number"))
}

/// A finite number, be it written as a text; thumbs (`true`, `false`) count as 1 and 0.
fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(n) => n.as_f64()?,
        Value::Bool(b) => f64::from(u8::from(*b)),
        Value::String(s) => match s.trim() {
            "true" | "True" => 1.0,
            "false" | "False" => 0.0,
            other => other.parse().ok()?,
        },
        _ => return None,
    };
    number.is_finite().then_some(number)
}

fn missing(record: &Map<String, Value>, field: &str, flag: &str) -> String {
    let found: Vec<&str> = record.keys().map(String::as_str).collect();
    format!("no `{field}`; there are: {}. Name the right one with {flag}", found.join(", "))
}
