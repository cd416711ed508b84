//! Parquet and Arrow: columns in batches, read as rows.

use std::collections::HashSet;
use std::fmt::Display;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{ArrowError, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::schema::types::ColumnDescPtr;

use super::pages::Pages;
use super::{Problem, Record, Records, announced, columns};
use crate::border::{self, beside};

/// Rows that are decoded at once; texts may be long.
const BATCH: usize = 256;
/// So many bytes may the footer of a Parquet file have.
const FOOTER: u64 = 16 << 20;
/// So many bytes of it a column takes at least.
const COLUMN: usize = 5;
/// So much stack its reader takes for each column that lies in another.
const STACK: usize = 1536;
/// So long it may take to understand it.
const OPENING: Duration = Duration::from_secs(10);
/// So deep columns may lie in each other.
const DEEPEST: usize = 100;

/// The rows of a Parquet file, in every codec that `parquet` knows.
///
/// # Errors
/// If the file is not whole, is encrypted, or is not Parquet.
pub(super) fn parquet(mut file: File) -> Result<Records, Problem> {
    let unreadable = |e: std::io::Error| e.to_string();
    let cut_off = || Err("the end of the Parquet file is missing: it was cut off; get it once more".into());
    let size = file.metadata().map_err(unreadable)?.len();
    if size < 12 {
        return cut_off();
    }
    let mut end = [0; 8];
    file.seek(SeekFrom::End(-8)).and_then(|_| file.read_exact(&mut end)).map_err(unreadable)?;
    let Some((length, b"PAR1")) = end.split_first_chunk::<4>() else { return cut_off() };
    let length = u64::from(u32::from_le_bytes(*length));
    if length > FOOTER {
        return Err(format!(
            "its footer has {length} bytes; at most {FOOTER} are read: write it with fewer row groups"
        ));
    }
    file.rewind().map_err(unreadable)?;
    // So many bytes a column takes at least, and so much stack as it lies in another. The reader follows columns into each other without a
    // bound, and passes over what it does not know value by value, of which some take no byte.
    let stack = length as usize / COLUMN * STACK + (2 << 20);
    let damaged = |e: Problem| match e.contains("encrypt") {
        true => format!("the Parquet file is encrypted; write it without encryption ({e})"),
        false => format!("a damaged Parquet file ({e}); get it once more"),
    };
    let opened = beside("parquet", stack, OPENING, move || {
        let builder = guarded(|| ParquetRecordBatchReaderBuilder::try_new(Pages::of(file))).map_err(damaged)?;
        let deep = |column: &ColumnDescPtr| column.path().parts().len() > DEEPEST;
        match builder.parquet_schema().columns().iter().any(deep) {
            true => Err(format!(
                "more than {DEEPEST} columns lie in each other; write what is needed of them as columns of their own"
            )),
            false => Ok(builder),
        }
    });
    let builder = opened.unwrap_or_else(|problem| Err(damaged(format!("its footer {problem}"))))?;
    distinct(builder.schema())?;
    let reader = guarded(|| builder.with_batch_size(BATCH).build());
    Ok(Box::new(rows(reader.map_err(|e| format!("a damaged Parquet file ({e}); get it once more"))?)))
}

/// The rows of an Arrow file.
///
/// # Errors
/// If the file is not whole or not Arrow.
pub(super) fn arrow_file(mut file: File) -> Result<Records, Problem> {
    announced::check_file(&mut file)?;
    let reader = guarded(|| FileReader::try_new(BufReader::new(file), None));
    let reader =
        reader.map_err(|e| format!("an Arrow file that is damaged or was cut off ({e}); write or get it once more"))?;
    distinct(&reader.schema())?;
    Ok(Box::new(rows(reader)))
}

/// The rows of an Arrow stream, which is what `datasets` saves under the name `.arrow`.
///
/// # Errors
/// If its beginning is not that of an Arrow stream.
pub(super) fn arrow_stream(mut file: File) -> Result<Records, Problem> {
    let mut end = [0; 8];
    let at_end = file.seek(SeekFrom::End(-8)).and_then(|_| file.read_exact(&mut end)).and_then(|()| file.rewind());
    at_end.map_err(|e| e.to_string())?;
    // A writer may close a stream without this mark, but mostly it was stopped.
    if end != [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0] {
        tracing::warn!("an Arrow stream lacks the mark of its end: rows at its end may be missing");
    }
    announced::check_stream(&mut file)?;
    let reader = guarded(|| StreamReader::try_new(BufReader::new(file), None));
    let reader = reader
        .map_err(|e| format!("an Arrow stream that is damaged or was cut off ({e}); write or get it once more"))?;
    distinct(&reader.schema())?;
    Ok(Box::new(rows(reader)))
}

fn distinct(schema: &Schema) -> Result<(), Problem> {
    let mut seen = HashSet::new();
    match schema.fields().iter().find(|field| !seen.insert(field.name())) {
        Some(twice) => Err(format!("two columns are called `{}`; rename or remove one of them", twice.name())),
        None => Ok(()),
    }
}

/// What `read` gives. The readers of both formats panic on some damaged files, where an error belongs.
fn guarded<T, E: Display>(read: impl FnOnce() -> Result<T, E>) -> Result<T, Problem> {
    border::guarded(read)?.map_err(|e| e.to_string())
}

/// Rows with their numbers, up to the first batch that cannot be read.
fn rows<B>(mut batches: B) -> impl Iterator<Item = Record> + Send
where
    B: Iterator<Item = Result<RecordBatch, ArrowError>> + Send,
{
    let (mut batch, mut at, mut number) = (None::<RecordBatch>, 0, 0);
    let mut next = move || {
        while batch.as_ref().is_none_or(|b| at == b.num_rows()) {
            at = 0;
            batch = match guarded(|| batches.next().transpose()) {
                Ok(None) => return None,
                Ok(batch) => batch,
                Err(e) => return Some((format!("row {} or soon after", number + 1), Err(damaged(&e)))),
            };
        }
        (at, number) = (at + 1, number + 1);
        let batch = batch.as_ref()?;
        let row = guarded(|| Ok::<_, Problem>(columns::row(batch, at - 1)));
        Some((format!("row {number}"), row.map_err(|e| damaged(&e))))
    };
    let mut failed = false;
    std::iter::from_fn(move || {
        let record = if failed { None } else { next() };
        failed = record.as_ref().is_some_and(|(_, row)| row.is_err());
        record
    })
}

fn damaged(problem: &str) -> Problem {
    format!("damaged or cut off ({problem}); get the file once more")
}
