//! Files of every format as JSON-like records, so that layouts are understood once. It knows nothing of columns.
//!
//! What a file is, its content says; its name and a format that the user sets decide only where the content leaves it open.

mod announced;
mod columns;
mod content;
mod delimited;
mod encoding;
mod foreign;
mod json;
mod lines;
mod pages;
mod tables;

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use content::{Content, Text};

/// How a file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// JSON objects: one a line, in an array, or in a list under a key of one object.
    Jsonl,
    /// The same as `jsonl`.
    Json,
    /// A header and rows, separated by commas, semicolons, tabs or bars.
    Csv,
    /// The same as `csv`.
    Tsv,
    /// Parquet, flat or nested.
    Parquet,
    /// An Arrow file or stream, as `datasets` saves them; Feather 2 is one.
    Arrow,
    /// `openbmb/UltraFeedback`: `instruction` and rated `completions`, in any of these.
    Ultrafeedback,
}

/// Where a record stands (`line 3`) and its fields, or what is wrong with it.
pub(super) type Record = (String, std::result::Result<Map<String, Value>, String>);

/// Records in order, read as they are asked for.
pub(super) type Records = Box<dyn Iterator<Item = Record> + Send>;

/// What goes wrong in a file, without the file.
type Problem = String;

/// A line, an element of a list or a row of a table may have so many bytes.
const LONGEST: usize = 256 << 20;

/// The records of a file in order, which have some of `columns` if these are known.
///
/// # Errors
/// If the file cannot be opened, is empty, or holds something else than records of a format that is known.
pub(super) fn records(path: &Path, format: Option<Format>, columns: &[String]) -> Result<Records> {
    let bad = |problem| Error::File { path: path.into(), problem };
    let wanted = format.filter(|f| *f != Format::Ultrafeedback).or_else(|| by_name(path));
    match (content::open(path)?, wanted) {
        (Content::Parquet(file), _) => tables::parquet(file).map_err(bad),
        (Content::ArrowFile(file), _) => tables::arrow_file(file).map_err(bad),
        (Content::ArrowStream(file), _) => tables::arrow_stream(file).map_err(bad),
        (Content::Text(_), Some(Format::Parquet)) => {
            Err(bad("not a Parquet file: it does not begin as one (`PAR1`)".into()))
        }
        (Content::Text(_), Some(Format::Arrow)) => {
            Err(bad("neither an Arrow file nor an Arrow stream: it does not begin as one".into()))
        }
        (Content::Text(text), wanted) => {
            let begins_as_json = matches!(text.first(), Some(b'{' | b'['));
            match wanted {
                Some(Format::Csv | Format::Tsv) if format.is_some() || !begins_as_json => {
                    delimited::records(text, wanted == Some(Format::Tsv)).map_err(bad)
                }
                // A name may be wrong, unlike what the user says.
                Some(Format::Json | Format::Jsonl) if format.is_some() || begins_as_json || !delimited::has_header(&text.head) => {
                    json::records(text, columns).map_err(bad)
                }
                _ if begins_as_json => json::records(text, columns).map_err(bad),
                _ if delimited::has_header(&text.head) => delimited::records(text, false).map_err(bad),
                _ => Err(bad("neither content nor name say the format; set it (--format jsonl, json, csv, tsv, parquet, arrow or \
                              ultrafeedback)"
                    .into())),
            }
        }
    }
}

/// The records of JSON that is in memory already.
///
/// # Errors
/// As of a file, without the file.
pub(super) fn of_json(text: &str) -> std::result::Result<Records, Problem> {
    json::records(Text::of(text), &[])
}

/// What a file's name promises, without the ending of a compression.
fn by_name(path: &Path) -> Option<Format> {
    match extension(path).as_str() {
        "jsonl" | "ndjson" => Some(Format::Jsonl),
        "json" => Some(Format::Json),
        "csv" => Some(Format::Csv),
        "tsv" | "tab" => Some(Format::Tsv),
        "parquet" => Some(Format::Parquet),
        "arrow" | "feather" => Some(Format::Arrow),
        _ => None,
    }
}

/// The extension of a file's name in small letters, without that of a compression: `jsonl` of `train.jsonl.gz`.
pub(super) fn extension(path: &Path) -> String {
    let last = |path: &Path| path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    match last(path).as_str() {
        "gz" | "zst" | "zstd" => last(Path::new(path.file_stem().unwrap_or_default())),
        other => other.into(),
    }
}

/// Whether a file of this name is taken for data where a directory is given.
pub(super) fn is_data(path: &Path) -> bool {
    by_name(path).is_some()
}

pub(super) fn object(value: Value) -> std::result::Result<Map<String, Value>, String> {
    match value {
        Value::Object(map) => Ok(map),
        other => Err(format!("{} where an object was expected", kind(&other))),
    }
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
