//! Files of every format as JSON-like records, so that layouts are understood once. It knows nothing of columns.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::rows::{FeedbackError, Result};

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

/// Where a record stands (`line 3`) and its fields, or what is wrong with it.
pub(super) type Record = (String, std::result::Result<Map<String, Value>, String>);

/// The records of a file in order, read as they are asked for (a JSON array is read whole).
pub(super) fn records(path: &Path, format: Option<Format>) -> Result<Box<dyn Iterator<Item = Record>>> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    let by_name = || match extension.as_str() {
        "jsonl" | "ndjson" => Ok(Format::Jsonl),
        "json" => Ok(Format::Json),
        "csv" | "tsv" => Ok(Format::Csv),
        "parquet" => Ok(Format::Parquet),
        _ => Err(FeedbackError::UnknownFormat { path: path.into() }),
    };
    let file = || File::open(path).map_err(|cause| FeedbackError::Open { path: path.into(), cause });
    let bad = |problem: String| FeedbackError::File { path: path.into(), problem };
    match format.map_or_else(by_name, Ok)? {
        Format::Ultrafeedback if extension == "parquet" => parquet_records(file()?).map_err(bad),
        Format::Parquet => parquet_records(file()?).map_err(bad),
        Format::Jsonl | Format::Ultrafeedback => Ok(Box::new(json_lines(file()?))),
        Format::Json => json_array(file()?).map_err(bad),
        Format::Csv => csv_records(file()?, if extension == "tsv" { b'\t' } else { b',' }).map_err(bad),
    }
}

pub(super) fn object(value: Value) -> std::result::Result<Map<String, Value>, String> {
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

/// What a value is, for messages.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
