//! Files as users have them, whatever their format, compression, encoding and line ends: the same rows, or what is wrong and
//! where.

use std::io::Write;
use std::sync::Arc;

use arrow_array::types::Int8Type;
use arrow_array::{
    ArrayRef, BinaryArray, DictionaryArray, Float32Array, Float64Array, Int8Array, LargeStringArray, RecordBatch,
    StringArray,
};
use arrow_ipc::writer::{FileWriter, StreamWriter};
use parquet::arrow::ArrowWriter;
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::WriterProperties;
use rpo::feedback::{Feedback, Format, ReadOptions, Source, read_rows};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("temporary directory"))
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("create");
        std::fs::write(&path, bytes).expect("write");
        path.display().to_string()
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// What a file of this name and content holds.
    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> Result<Vec<Feedback>, String> {
        rows(&[&self.write(name, bytes)], None)
    }
}

fn rows(named: &[&str], format: Option<Format>) -> Result<Vec<Feedback>, String> {
    let source: Source = named.iter().map(ToString::to_string).collect::<Vec<_>>().into();
    let options = ReadOptions { format, ..ReadOptions::default() };
    let rows = read_rows(&source, &options).map_err(|e| e.to_string())?;
    rows.map(|row| row.map_err(|e| e.to_string())).collect()
}

fn row(prompt: &str, response: &str, reward: f64) -> Feedback {
    Feedback { prompt: prompt.into(), response: response.into(), reward }
}

fn two() -> Vec<Feedback> {
    vec![row("p", "a]}", 1.0), row("p", "b, \"c\"", 0.0)]
}

const A: &str = r#"{"prompt":"p","response":"a]}","reward":1}"#;
const B: &str = r#"{"prompt":"p","response":"b, \"c\"","reward":0}"#;

#[test]
fn json_is_read_however_its_rows_are_arranged() {
    let place = Place::new();
    let pretty = |row: &str| row.replace(",\"", ",\n  \"").replace('{', "{\n  ").replace("1}", "1\n}");
    let viewer = |i: usize, row: &str| format!(r#"{{"row_idx":{i},"row":{row},"truncated_cells":[]}}"#);
    let texts = [
        ("lines", format!("{A}\n{B}\n")),
        ("blank lines, no last line end", format!("\n\n  {A}  \r\n\r\n{B}")),
        ("lines of old Macs", format!("{A}\r{B}\r")),
        ("list", format!("[{A},\n{B}]\n")),
        ("pages of a list", format!("[{A}]\n[]\n[{B}]")),
        ("objects on several lines", format!("{}\n{}", pretty(A), pretty(B))),
        ("under a key", format!(r#"{{"version":"1","data":[{A},{B}],"next":null}}"#)),
        ("under a key, on several lines", format!("{{\"data\":[\n{A},\n{B}\n]}}\n")),
        ("under a key of any name", format!(r#"{{"meta":{{"n":2}},"things":[{A},{B}]}}"#)),
        ("deeper", format!(r#"{{"status":"ok","result":{{"n":2,"records":[{A},{B}]}}}}"#)),
        (
            "known name first",
            format!(r#"{{"features":[{{"name":"prompt"}}],"rows":[{},{}]}}"#, viewer(0, A), viewer(1, B)),
        ),
        ("known name, nearest", format!(r#"{{"links":[{{}}],"more":{{"rows":[{{}}]}},"items":[{A},{B}]}}"#)),
        ("marked files, joined", format!("\u{feff}{A}\n\u{feff}{B}\n")),
        (
            "columns by index",
            r#"{"prompt":{"0":"p","10":"p"},"response":{"0":"a]}","10":"b, \"c\""},"reward":{"0":1,"10":0}}"#.into(),
        ),
        ("rows by index", format!(r#"{{"2":{A},"10":{B}}}"#)),
        ("columns", r#"{"prompt":["p","p"],"response":["a]}","b, \"c\""],"reward":[1,0]}"#.into()),
        (
            "split",
            r#"{"columns":["prompt","response","reward"],"index":[0,1],"data":[["p","a]}",1],["p","b, \"c\"",0]]}"#
                .into(),
        ),
        ("one row", r#"{"prompt":"p","responses":[{"text":"a]}","reward":1},{"text":"b, \"c\"","reward":0}]}"#.into()),
    ];
    for (what, text) in texts {
        for name in ["x.jsonl", "x.json", "x.txt", "x", "x.csv"] {
            assert_eq!(place.file(name, &text), Ok(two()), "{what} in {name}");
        }
        assert_eq!(rows(&[&place.write("x.dat", &text)], Some(Format::Json)), Ok(two()), "{what}");
    }
}

#[test]
fn json_that_is_malformed_is_told_with_its_place() {
    let place = Place::new();
    for (text, said) in [
        (format!("{A}\r\n\r\n{{\"prompt\":\r\n"), "x.json, line 3: malformed JSON: EOF"),
        (format!("{A}\r{{\r{B}"), "line 2: malformed JSON"),
        (format!("{{\"prompt\":\n{A}\n"), "line 1: malformed JSON"),
        (format!("{A}\n{{\"prompt\":\"p\",\"prompt\":\"q\"}}"), "line 2: one object has two keys `prompt`"),
        (format!("{A}\n{{\"prompt\":\"\\ud83d\"}}"), "line 2: half of a character (a lone surrogate) (column"),
        (format!("{A}\n{{'prompt': 'p'}}"), "line 2: key must be a string (column 2): this is how Python prints"),
        (
            format!("[{A},\n{{\"prompt\":\n\"p\" \"q\"}}]"),
            "element 2 (line 2): malformed JSON: expected `,` or `}` (line 3",
        ),
        (format!("[{A},\n{B}"), "element 2 (line 2): malformed JSON: the file ends inside the list"),
        (format!("[{A},\n{{\"prompt\""), "the file ends inside the value that begins on line 2"),
        (format!("[{A}]\nx"), "malformed JSON: `x` after the end of the list (line 2)"),
        (format!("[{A}\n{B}]"), "element 1 (line 1): malformed JSON: `{` where a comma"),
        (format!("[{A},]"), "element 2 (line 1): malformed JSON: a value was expected"),
        (format!("{{\"data\":[{A},3]}}"), "element 2 of `data` (line 1): a number where an object was expected"),
        (format!("{{\"data\":[{A}],\"data\":[{B}]}}"), "one object has two keys `data`"),
        (format!("{{\"one\":[{A}],\"two\":[{B}]}}"), "several lists of objects (`one`, `two`)"),
        (format!("{{\"one\":{A},\"two\":{B}}}"), "the rows must be a list"),
        ("[\"p\"]".into(), "element 1 (line 1): a text where an object was expected"),
        (
            r#"[{"row_idx":0,"row":{},"truncated_cells":["prompt"]}]"#.into(),
            "the data set viewer cut the texts of [\"prompt\"]",
        ),
        (" \n".into(), "no rated response"),
    ] {
        let problem = place
            .file("x.json", &text)
            .and_then(|rows| if rows.is_empty() { Err("no rated response".into()) } else { Ok(rows) });
        let problem = problem.expect_err(said);
        assert!(problem.contains(said), "{text}: {problem}");
    }
}

#[test]
fn a_missing_number_of_python_is_no_malformed_json() {
    let problem = Place::new().file("x.jsonl", format!("{A}\n{}\n", B.replace("0}", "NaN}")));
    // Whether rows without a reward are left out is for the columns to say.
    assert!(!format!("{problem:?}").contains("malformed"), "{problem:?}");
    let infinite =
        Place::new().file("x.jsonl", format!("{A}\n{}\n", B.replace("0}", "-Infinity}"))).expect_err("infinite");
    assert!(infinite.contains("line 2") && infinite.contains("-Infinity"), "{infinite}");
}

/// More than what is looked at first, with brackets and quotes in texts, so that every boundary of a chunk is met.
fn many() -> (Vec<Feedback>, Vec<String>) {
    let rows: Vec<Feedback> = (0..4000)
        .map(|i| row(&format!("p{i} \\ \"[{{ä\u{1f600}"), &"}] ,\n".repeat(1 + i % 5), f64::from(i as u32)))
        .collect();
    let json = rows
        .iter()
        .map(|r| serde_json::json!({"prompt": r.prompt, "response": r.response, "reward": r.reward}).to_string());
    let json = json.collect();
    (rows, json)
}

#[test]
fn long_files_are_read_in_every_arrangement_compression_and_encoding() {
    let place = Place::new();
    let (expected, json) = many();
    let lines = json.join("\n");
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).expect("compress");
        encoder.finish().expect("compress")
    };
    let zstd = |text: &str| zstd::encode_all(text.as_bytes(), 1).expect("compress");
    let (half, rest) = lines.split_at(lines.len() / 3 + lines[lines.len() / 3..].find('\n').expect("line"));
    let wide = |text: &str, bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    for (name, bytes) in [
        ("x.jsonl", lines.clone().into_bytes()),
        ("list.json", format!("[{}]", json.join(",")).into_bytes()),
        ("key.json", format!("{{\"total\":4000,\"data\":[{}]}}", json.join(",\n")).into_bytes()),
        ("spaced.json", json.join("\n\n ").replacen('{', "{\n", 1).into_bytes()),
        ("x.jsonl.gz", gzip(&lines)),
        ("members.jsonl.gz", [gzip(half), gzip(rest)].concat()),
        ("no-name", gzip(&lines)),
        ("x.jsonl.zst", zstd(&lines)),
        ("frames.zst", [zstd(half), zstd(rest)].concat()),
        ("key.json.gz", gzip(&format!("{{\"data\":[{}]}}", json.join(",")))),
        ("marked.jsonl", format!("\u{feff}{lines}").into_bytes()),
        ("little.jsonl", wide(&format!("\u{feff}{lines}"), u16::to_le_bytes)),
        ("big.jsonl", wide(&format!("\u{feff}{lines}"), u16::to_be_bytes)),
        ("unmarked.jsonl", wide(&lines, u16::to_le_bytes)),
        ("unmarked.json", wide(&format!("{{\"data\":[{}]}}", json.join(",")), u16::to_be_bytes)),
    ] {
        let read = place.file(name, bytes);
        assert!(read.as_ref() == Ok(&expected), "{name}: {:?}", read.map(|rows| rows.len()));
    }
    let whole = gzip(&lines);
    for (name, bytes, said) in [
        ("cut.jsonl.gz", whole[..whole.len() / 2].to_vec(), "its gzip compression ends in the middle"),
        ("cut.zst", zstd(&lines)[..2000].to_vec(), "its zstd compression ends in the middle"),
        ("x.gz", gzip(""), "nothing in it but gzip"),
        ("x.parquet.gz", gzip("PAR1...."), "Parquet or Arrow file behind gzip compression; decompress it first"),
        ("x.tar.gz", gzip(&format!("{}ustar", "\0".repeat(257))), "behind gzip compression: a tar archive"),
    ] {
        let problem = place.file(name, bytes).expect_err(said);
        assert!(problem.contains(name) && problem.contains(said), "{problem}");
    }
}

#[test]
fn encodings_that_are_not_read_are_named_with_the_line() {
    let place = Place::new();
    let latin = |text: &str| encoding_rs::WINDOWS_1252.encode(text).0.into_owned();
    let csv =
        place.file("x.csv", latin("prompt,response,reward\r\nWo?,Hier,1\r\nWo?,Schöne Straße,4\r\n")).expect_err("CSV");
    assert!(csv.contains("x.csv, line 3: not UTF-8: byte 0xf6") && csv.contains("Schöne Straße"), "{csv}");
    assert!(csv.contains("iconv -f WINDOWS-1252 -t UTF-8"), "{csv}");
    let json = place.file("x.jsonl", latin(&format!("{A}\n{}\n", B.replace('b', "ß")))).expect_err("JSON");
    assert!(json.contains("x.jsonl, line 2: not UTF-8"), "{json}");
    let list = place.file("x.json", latin(&format!("[{A},\n{}]", B.replace('b', "ß")))).expect_err("list");
    assert!(list.contains("element 2 (line 2): not UTF-8"), "{list}");
    let wide = place.file("x.jsonl", b"\xff\xfe\0\0{\0\0\0").expect_err("UTF-32");
    assert!(wide.contains("UTF-32"), "{wide}");
    let broken = place.file("x.jsonl", b"\xff\xfe{\0\x3d\xd8}\0\n\0").expect_err("UTF-16");
    assert!(broken.contains("UTF-16"), "{broken}");
}

#[test]
fn tables_are_read_with_any_separator_and_line_end() {
    let place = Place::new();
    let expected =
        vec![row("Where, exactly; to?", "He said \"here\".\nNothing | else.", 4.0), row("When?", "Now", 2.0)];
    let table = |separator: &str, end: &str| {
        let header = ["prompt", "response", "reward", "note, other"].map(|name| format!("\"{name}\"")).join(separator);
        let first = ["\"Where, exactly; to?\"", "\"He said \"\"here\"\".\nNothing | else.\"", "4", "-"].join(separator);
        let second = ["When?", "Now", "2", "\"\t\""].join(separator);
        [header, first, second].join(end)
    };
    for separator in [",", ";", "\t", "|"] {
        for end in ["\n", "\r\n", "\r", "\n\n"] {
            for (name, text) in [
                ("x.csv", table(separator, end)),
                ("x.tsv", table(separator, end)),
                ("x.csv", format!("\u{feff}{}{end}", table(separator, end))),
                ("x.csv", format!("sep={separator}\r\n{}", table(separator, end))),
            ] {
                assert_eq!(place.file(name, &text), Ok(expected.clone()), "{text:?}");
            }
        }
    }
    let plain = "prompt;response;reward\np;a;1\n";
    assert_eq!(place.file("x.txt", plain), Ok(vec![row("p", "a", 1.0)]), "a header is known without a name");
    let indexed = ",prompt,response,reward\n0,p,a,1\n";
    assert_eq!(place.file("x.csv", indexed), Ok(vec![row("p", "a", 1.0)]), "pandas does not name its index");
}

#[test]
fn tables_that_are_wrong_are_told_with_the_line() {
    let place = Place::new();
    for end in ["\n", "\r\n", "\r"] {
        for (lines, said) in [
            (vec!["p,\"a\nb\",1", "", "p,a,1,2"], "x.csv, line 5: 4 fields where the header has 3"),
            (vec!["p,a,1", "p,a"], "x.csv, line 3: 2 fields where the header has 3"),
            (vec!["p,a,1", "\"p\nq\",\"a,1", "p,b,2"], "x.csv, line 3: a quote that opens on line 4 is never closed"),
            (
                vec!["p,a,1", "p,\"a\nb \\\"c\\\"\",1"],
                "x.csv, line 3: text after the quote that closes a field (line 4)",
            ),
            (vec!["p,a,1", "p,\"a\" b,1"], "x.csv, line 3: text after the quote"),
            (vec!["p,a,1", "p,a,x"], "x.csv, line 3: `reward`"),
        ] {
            let text = format!("prompt,response,reward{end}{}{end}", lines.join(end));
            let problem = place.file("x.csv", &text).expect_err(said);
            assert!(problem.contains(said), "{text:?}: {problem}");
        }
    }
    let twice = place.file("x.csv", "prompt,response,reward, reward\na,b,4,1\n").expect_err("repeated");
    assert!(twice.contains("two columns are called `reward`"), "{twice}");
    let open = place.file("x.csv", "prompt,\"response,reward\na,b,1\n").expect_err("open");
    assert!(open.contains("header, line 1: a quote that opens on line 1"), "{open}");
}

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

#[test]
fn files_that_hold_no_rows_are_told_apart() {
    let place = Place::new();
    for (name, bytes, said) in [
        ("x.xlsx", &b"PK\x03\x04....xl/worksheets"[..], "save it as CSV"),
        ("renamed.csv", b"PK\x03\x04....xl/worksheets", "save it as CSV"),
        ("x.ods", b"PK\x03\x04....", "save it as CSV"),
        ("x.xls", b"\xd0\xcf\x11\xe0\xa1\xb1", "save it as CSV"),
        ("x.zip", b"PK\x03\x04....data.csv", "zip archive; unpack"),
        ("x.pt", b"PK\x03\x04....archive/data.pkl", "pickle"),
        ("x.pkl", b"\x80\x04\x95", "to_json"),
        ("x.jsonl.bz2", b"BZh91AY&SY", "bunzip2"),
        ("x.jsonl.xz", b"\xfd7zXZ\0", "unxz"),
        ("x.7z", b"7z\xbc\xaf\x27\x1c", "7-Zip"),
        ("x.db", b"SQLite format 3\0", "sqlite3 -header -csv"),
        ("x.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("x.jsonl", b"\n<!DOCTYPE html>\n<html>", "a web page (HTML)"),
        ("x.xml", b"<?xml version=\"1.0\"?><rows/>", "XML, which is not read"),
        ("x.jsonl", b"", "the file is empty"),
        ("x.txt", b"Once upon a time.\n", "--format"),
    ] {
        let problem = place.file(name, bytes).expect_err(said);
        assert!(problem.contains(name) && problem.contains(said), "{problem}");
    }
}

#[test]
fn several_files_directories_and_patterns_are_one_set() {
    let place = Place::new();
    for (name, text) in [
        ("data/train-2.jsonl", B),
        ("data/train-1.jsonl", A),
        ("data/test-1.jsonl", "{\"prompt\":\"held out\",\"response\":\"x\",\"reward\":1}"),
        ("data/state.json", "{}"),
        ("data/README.md", "# Data"),
        ("data/.hidden/train-0.jsonl", A),
        ("empty/README.md", "# Data"),
    ] {
        place.write(name, text);
    }
    let path = |name: &str| place.path(name);
    for named in [
        vec![path("data")],
        vec![path("data/train-1.jsonl"), path("data/train-2.jsonl")],
        vec![path("data/train-*.jsonl")],
        vec![path("da*")],
        vec![path("**/train-[12].jsonl")],
    ] {
        let named: Vec<&str> = named.iter().map(String::as_str).collect();
        assert_eq!(rows(&named, None), Ok(two()), "{named:?}");
    }
    for (named, said) in [
        (vec![path("data"), path("data/train-1.jsonl")], "named twice"),
        (vec![path("nowhere/*.jsonl")], "no file matches"),
        (vec![path("empty")], "no data file in it"),
        (vec![path("nowhere")], "No such file"),
        (vec!["nowhere/x.jsonl".into()], "No such file"),
        (vec!["https://example.org/x.jsonl".into()], "download the file"),
        (vec!["hf://models/some/model".into()], "hf://datasets/OWNER/NAME"),
        (vec![], "empty list"),
    ] {
        let named: Vec<&str> = named.iter().map(String::as_str).collect();
        let problem = rows(&named, None).expect_err(said);
        assert!(problem.contains(said), "{problem}");
    }
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
        for at in (0..bytes.len()).step_by(1 + bytes.len() / 150) {
            let mut damaged = bytes.clone();
            for value in [0, 0xff, b'"'] {
                damaged[at] = value;
                let _ = place.file("x", &damaged);
            }
            let _ = place.file("x", &bytes[..at]);
        }
    }
}
