//! Rows of text and reward from files, one at a time. Every format is read as JSON-like records, so that layouts
//! (flat, nested, UltraFeedback) are understood once. It knows nothing of tokens.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader, SerializedFileReader};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A response to a prompt with its reward.
#[derive(Clone, Debug, PartialEq)]
pub struct Feedback {
    /// What was asked.
    pub prompt: String,
    /// What was answered.
    pub response: String,
    /// How good that is; more is better.
    pub reward: f64,
}

/// How a file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// One JSON object a line: flat, or one prompt with a list of responses.
    Jsonl,
    /// A JSON array of such objects, or a single one. Read whole.
    Json,
    /// Comma-separated with a header.
    Csv,
    /// Parquet, flat or nested.
    Parquet,
    /// `openbmb/UltraFeedback`: `instruction` and rated `completions`, in JSONL or Parquet.
    Ultrafeedback,
}

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

/// Feedback that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FeedbackError {
    /// The file cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no row.
    #[error("{}: no rated response in it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The format cannot be told from the file's name.
    #[error(
        "{}: the name does not say the format; set it (--format jsonl, json, csv, parquet or ultrafeedback)",
        path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// The file is not of its format.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A row is unusable.
    #[error("{}, {}: {problem}", path.display(), place)]
    Row {
        /// The file.
        path: PathBuf,
        /// Line or row, from 1.
        place: String,
        /// Which field, what is wrong and what to do.
        problem: String,
    },
}

type Result<T> = std::result::Result<T, FeedbackError>;
type Record = (String, std::result::Result<Map<String, Value>, String>);

/// The rated responses of a file in order, read as they are asked for (a JSON array is read whole).
///
/// # Errors
/// If the file cannot be opened or is not of its format; the items say what is wrong with a row.
pub fn read_rows(path: &Path, options: &ReadOptions) -> Result<impl Iterator<Item = Result<Feedback>> + use<>> {
    let records = records(path, options.format)?;
    let (path, options) = (path.to_path_buf(), options.clone());
    Ok(records.flat_map(move |(place, record)| {
        let feedback = record.and_then(|record| match options.format {
            Some(Format::Ultrafeedback) => ultrafeedback(&record, options.score),
            _ => ordinary(&record, &options),
        });
        let rows = match feedback {
            Ok(rows) => rows.into_iter().map(Ok).collect(),
            Err(problem) => vec![Err(problem)],
        };
        let located = |problem| FeedbackError::Row { path: path.clone(), place: place.clone(), problem };
        rows.into_iter().map(|row| row.map_err(located)).collect::<Vec<_>>()
    }))
}

fn records(path: &Path, format: Option<Format>) -> Result<Box<dyn Iterator<Item = Record>>> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    let by_name = || match extension.as_str() {
        "jsonl" | "ndjson" => Ok(Format::Jsonl),
        "json" => Ok(Format::Json),
        "csv" | "tsv" => Ok(Format::Csv),
        "parquet" => Ok(Format::Parquet),
        _ => Err(FeedbackError::UnknownFormat { path: path.into() }),
    };
    let file = || File::open(path).map_err(|source| FeedbackError::Open { path: path.into(), source });
    let bad = |problem: String| FeedbackError::File { path: path.into(), problem };
    match format.map_or_else(by_name, Ok)? {
        Format::Ultrafeedback if extension == "parquet" => parquet_records(file()?).map_err(bad),
        Format::Parquet => parquet_records(file()?).map_err(bad),
        Format::Jsonl | Format::Ultrafeedback => Ok(Box::new(json_lines(file()?))),
        Format::Json => json_array(file()?).map_err(bad),
        Format::Csv => csv_records(file()?, if extension == "tsv" { b'\t' } else { b',' }).map_err(bad),
    }
}

fn object(value: Value) -> std::result::Result<Map<String, Value>, String> {
    match value {
        Value::Object(map) => Ok(map),
        other => Err(format!("{} where an object was expected", kind(&other))),
    }
}

fn json_lines(file: File) -> impl Iterator<Item = Record> {
    let lines = BufReader::new(file).lines().enumerate();
    let used = lines.filter(|(_, line)| !line.as_ref().is_ok_and(|l| l.trim().is_empty()));
    used.map(|(i, line)| {
        let parsed = line.map_err(|e| e.to_string()).and_then(|line| {
            let line = line.trim_start_matches('\u{feff}');
            serde_json::from_str(line).map_err(|e| format!("malformed JSON: {e}")).and_then(object)
        });
        (format!("line {}", i + 1), parsed)
    })
}

fn json_array(file: File) -> std::result::Result<Box<dyn Iterator<Item = Record>>, String> {
    let whole: Value = serde_json::from_reader(BufReader::new(file)).map_err(|e| format!("malformed JSON: {e}"))?;
    let elements = match whole {
        Value::Array(elements) => elements,
        single => vec![single],
    };
    Ok(Box::new(elements.into_iter().enumerate().map(|(i, v)| (format!("element {}", i + 1), object(v)))))
}

fn csv_records(file: File, delimiter: u8) -> std::result::Result<Box<dyn Iterator<Item = Record>>, String> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(file);
    let header: Vec<String> = reader
        .headers()
        .map_err(|e| format!("malformed header: {e}"))?
        .iter()
        .map(|name| name.trim_start_matches('\u{feff}').trim().to_string())
        .collect();
    Ok(Box::new(reader.into_records().map(move |record| match record {
        Ok(record) => {
            let line = record.position().map_or(0, csv::Position::line);
            let fields = header.iter().cloned().zip(record.iter().map(Value::from));
            (format!("line {line}"), Ok(fields.collect()))
        }
        Err(e) => (format!("line {}", e.position().map_or(0, csv::Position::line)), Err(format!("malformed CSV: {e}"))),
    })))
}

fn parquet_records(file: File) -> std::result::Result<Box<dyn Iterator<Item = Record>>, String> {
    let reader = SerializedFileReader::new(file).map_err(|e| format!("not a Parquet file: {e}"))?;
    if reader.metadata().file_metadata().num_rows() == 0 {
        return Ok(Box::new(std::iter::empty()));
    }
    let rows = parquet::record::reader::RowIter::from_file_into(Box::new(reader));
    Ok(Box::new(rows.enumerate().map(|(i, row)| {
        let parsed = row.map_err(|e| format!("unreadable: {e}")).and_then(|row| object(row.to_json_value()));
        (format!("row {}", i + 1), parsed)
    })))
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
fn ultrafeedback(record: &Map<String, Value>, score: Score) -> std::result::Result<Vec<Feedback>, String> {
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
        if let Some(reward) = rating.filter(|_| !response.trim().is_empty()) {
            rows.push(Feedback { prompt: prompt.clone(), response: response.into(), reward });
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

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
