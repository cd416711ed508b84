//! Parquet and Arrow: columns in batches, read as rows.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use arrow_array::RecordBatch;
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{ArrowError, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{Problem, Record, Records, columns};

/// Rows that are decoded at once; texts may be long.
const BATCH: usize = 256;

/// The rows of a Parquet file, in every codec that `parquet` knows.
///
/// # Errors
/// If the file is not whole, is encrypted, or is not Parquet.
pub(super) fn parquet(mut file: File) -> Result<Records, Problem> {
    let unreadable = |e: std::io::Error| e.to_string();
    let mut end = [0; 4];
    file.seek(SeekFrom::End(-4)).and_then(|_| file.read_exact(&mut end)).map_err(unreadable)?;
    let length = file.stream_position().map_err(unreadable)?;
    file.rewind().map_err(unreadable)?;
    if &end != b"PAR1" || length < 12 {
        return Err("the end of the Parquet file is missing: it was cut off; get it once more".into());
    }
    let said = |e: parquet::errors::ParquetError| match e.to_string() {
        e if e.contains("encrypt") => format!("the Parquet file is encrypted; write it without encryption ({e})"),
        e => format!("a damaged Parquet file ({e}); get it once more"),
    };
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(said)?.with_batch_size(BATCH);
    distinct(builder.schema())?;
    Ok(Box::new(rows(builder.build().map_err(said)?)))
}

/// The rows of an Arrow file.
///
/// # Errors
/// If the file is not whole or not Arrow.
pub(super) fn arrow_file(file: File) -> Result<Records, Problem> {
    let said = |e: ArrowError| format!("an Arrow file that is damaged or was cut off ({e}); write or get it once more");
    let reader = FileReader::try_new(BufReader::new(file), None).map_err(said)?;
    distinct(&reader.schema())?;
    Ok(Box::new(rows(reader)))
}

/// The rows of an Arrow stream, which is what `datasets` saves under the name `.arrow`.
///
/// # Errors
/// If its beginning is not that of an Arrow stream.
pub(super) fn arrow_stream(file: File) -> Result<Records, Problem> {
    let said =
        |e: ArrowError| format!("an Arrow stream that is damaged or was cut off ({e}); write or get it once more");
    let reader = StreamReader::try_new(BufReader::new(file), None).map_err(said)?;
    distinct(&reader.schema())?;
    Ok(Box::new(rows(reader)))
}

fn distinct(schema: &Schema) -> Result<(), Problem> {
    let names: Vec<&String> = schema.fields().iter().map(|f| f.name()).collect();
    match (1..names.len()).find(|i| names[..*i].contains(&names[*i])) {
        Some(i) => Err(format!("two columns are called `{}`; rename or remove one of them", names[i])),
        None => Ok(()),
    }
}

/// Rows with their numbers, up to the first batch that cannot be read.
fn rows<B>(mut batches: B) -> impl Iterator<Item = Record> + Send
where
    B: Iterator<Item = Result<RecordBatch, ArrowError>> + Send,
{
    let (mut batch, mut at, mut number, mut failed) = (None::<RecordBatch>, 0, 0, false);
    std::iter::from_fn(move || {
        while !failed && batch.as_ref().is_none_or(|b| at == b.num_rows()) {
            at = 0;
            match batches.next()? {
                Ok(next) => batch = Some(next),
                Err(e) => {
                    failed = true;
                    return Some((
                        format!("row {} or soon after", number + 1),
                        Err(format!("damaged or cut off ({e})")),
                    ));
                }
            }
        }
        let row = batch.as_ref().filter(|_| !failed).map(|batch| columns::row(batch, at))?;
        (at, number) = (at + 1, number + 1);
        Some((format!("row {number}"), Ok(row)))
    })
}
