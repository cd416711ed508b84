//! Parquet and Arrow.

use std::sync::Arc;

use arrow_array::types::Int8Type;
use arrow_array::{
    ArrayRef, BinaryArray, DictionaryArray, Float32Array, Float64Array, Int8Array, LargeStringArray, RecordBatch,
    StringArray, new_null_array,
};
use arrow_ipc::writer::{FileWriter, StreamWriter};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::{A, B, Place, row, two};

/// Two rows in columns of the types that files have.
fn batch() -> RecordBatch {
    let responses: DictionaryArray<Int8Type> = ["a]}", "b, \"c\""].into_iter().collect();
    RecordBatch::try_from_iter([
        ("prompt", Arc::new(LargeStringArray::from(vec!["p", "p"])) as ArrayRef),
        ("response", Arc::new(responses)),
        ("reward", Arc::new(Int8Array::from(vec![1, 0]))),
        ("picture", Arc::new(BinaryArray::from(vec![&b"\xff\0"[..], b"\xfe"]))),
    ])
    .expect("columns of equal length")
}

fn parquet(batches: &[RecordBatch], properties: WriterProperties) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batches[0].schema(), Some(properties)).expect("writer");
    batches.iter().for_each(|batch| writer.write(batch).expect("write"));
    writer.close().expect("close");
    bytes
}

#[test]
fn parquet_is_read_in_every_codec() {
    let place = Place::new();
    for codec in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
        Compression::ZSTD(ZstdLevel::default()),
    ] {
        let properties = WriterProperties::builder().set_compression(codec).build();
        let bytes = parquet(&[batch()], properties);
        assert_eq!(place.file("x.parquet", &bytes), Ok(two()), "{codec:?}");
        assert_eq!(place.file("any-name", &bytes), Ok(two()), "{codec:?}");
    }
    let groups = WriterProperties::builder().set_max_row_group_row_count(Some(3)).build();
    let read = place.file("x.parquet", parquet(&vec![batch(); 600], groups)).expect("row groups");
    assert_eq!(read, vec![two(); 600].concat());
    let none = place.file("x.parquet", parquet(&[batch().slice(0, 0)], WriterProperties::default()));
    assert_eq!(none, Ok(vec![]));
}

#[test]
fn parquet_texts_need_not_be_declared_and_narrow_floats_are_what_was_written() {
    let batch = RecordBatch::try_from_iter([
        ("prompt", Arc::new(BinaryArray::from(vec![&b"p"[..], b"q"])) as ArrayRef),
        ("response", Arc::new(StringArray::from(vec!["a", "b"]))),
        ("reward", Arc::new(Float32Array::from(vec![4.1, -0.3]))),
    ])
    .expect("columns");
    let read = Place::new().file("x.parquet", parquet(&[batch], WriterProperties::default()));
    assert_eq!(read, Ok(vec![row("p", "a", 4.1), row("q", "b", -0.3)]));
}

#[test]
fn parquet_that_cannot_be_read_is_explained() {
    let place = Place::new();
    let bytes = parquet(&[batch()], WriterProperties::default());
    for (name, bytes, said) in [
        ("cut.parquet", &bytes[..bytes.len() / 2], "the end of the Parquet file is missing"),
        ("cut.parquet", &b"PAR1"[..], "the end of the Parquet file is missing"),
        ("no.parquet", b"no", "not a Parquet file"),
        ("no.arrow", b"no", "neither an Arrow file nor an Arrow stream"),
        ("bad.parquet", b"PAR1xxxxxxxxxxxx\x03\0\0\0PAR1", "a damaged Parquet file"),
        ("e.parquet", b"PARE\x01\x02\x03\0\0\0PARE", "an encrypted Parquet file"),
    ] {
        let problem = place.file(name, bytes).expect_err(said);
        assert!(problem.contains(name) && problem.contains(said), "{problem}");
    }
}

#[test]
fn columns_may_lie_only_so_deep_in_each_other() {
    let place = Place::new();
    let nested = |levels: usize| {
        let kind =
            (1..levels).fold(DataType::Utf8, |kind, _| DataType::Struct(vec![Field::new("a", kind, true)].into()));
        let columns = batch().columns().iter().cloned().chain([new_null_array(&kind, batch().num_rows())]).collect();
        let fields = batch()
            .schema()
            .fields()
            .iter()
            .cloned()
            .chain([Arc::new(Field::new("deep", kind, true))])
            .collect::<Vec<_>>();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("columns");
        let mut bytes = Vec::new();
        // Arrow's own description of the columns has a bound of its own.
        let options = ArrowWriterOptions::new().with_skip_arrow_metadata(true);
        let mut writer = ArrowWriter::try_new_with_options(&mut bytes, batch.schema(), options).expect("writer");
        writer.write(&batch).expect("write");
        writer.close().expect("close");
        place.file("deep.parquet", bytes)
    };
    assert_eq!(nested(60).map(|rows| rows.len()), Ok(2));
    let problem = nested(120).expect_err("deep");
    assert!(problem.contains("deep.parquet: more than 100 columns lie in each other"), "{problem}");
}

#[test]
fn arrow_files_and_streams_are_read() {
    let place = Place::new();
    let batch = batch();
    let mut file = FileWriter::try_new(Vec::new(), &batch.schema()).expect("writer");
    let mut stream = StreamWriter::try_new(Vec::new(), &batch.schema()).expect("writer");
    for _ in 0..2 {
        file.write(&batch).expect("write");
        stream.write(&batch).expect("write");
    }
    let (file, stream) = (file.into_inner().expect("file"), stream.into_inner().expect("stream"));
    for name in ["x.arrow", "x.feather", "x"] {
        assert_eq!(place.file(name, &file), Ok(vec![two(); 2].concat()), "file {name}");
        assert_eq!(place.file(name, &stream), Ok(vec![two(); 2].concat()), "stream {name}");
    }
    for bytes in [&file, &stream] {
        let problem = place.file("cut.arrow", &bytes[..bytes.len() * 2 / 3]).expect_err("cut");
        assert!(problem.contains("cut.arrow") && problem.contains("cut off"), "{problem}");
    }
}

#[test]
fn a_float_that_is_no_number_is_no_reward() {
    let place = Place::new();
    let rewards = Float64Array::from(vec![f64::INFINITY]);
    let columns = [
        ("prompt", Arc::new(StringArray::from(vec!["p"])) as ArrayRef),
        ("response", Arc::new(StringArray::from(vec!["a"]))),
        ("reward", Arc::new(rewards)),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("columns");
    let problem = place.file("x.parquet", parquet(&[batch], WriterProperties::default())).expect_err("infinite");
    assert!(problem.contains("row 1") && problem.contains("Infinity"), "{problem}");
}

/// Damage of every kind must end in rows or in words.
#[test]
fn damaged_files_are_never_a_crash() {
    let place = Place::new();
    let mut stream = StreamWriter::try_new(Vec::new(), &batch().schema()).expect("writer");
    stream.write(&batch()).expect("write");
    let mut file = FileWriter::try_new(Vec::new(), &batch().schema()).expect("writer");
    file.write(&batch()).expect("write");
    let parquet = parquet(&[batch()], WriterProperties::default());
    let zstd = zstd::encode_all(format!("{A}\n{B}").as_bytes(), 1).expect("compress");
    let sound = [
        stream.into_inner().expect("stream"),
        file.into_inner().expect("file"),
        parquet,
        zstd,
        format!("{{\"data\":[{A},{B}],\"n\":1}}").into_bytes(),
        b"prompt;response;reward\r\np;\"a\nb\";1\r\n".to_vec(),
    ];
    for bytes in sound {
        for at in (0..bytes.len()).step_by(1 + bytes.len() / 80) {
            let mut damaged = bytes.clone();
            for value in [0, 0xff, b'"'] {
                damaged[at] = value;
                let _ = place.file("x", &damaged);
            }
            let _ = place.file("x", &bytes[..at]);
        }
    }
}
