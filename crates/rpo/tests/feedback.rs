//! Feedback files of every format, and what is said of bad ones.

use std::path::{Path, PathBuf};

use parquet::data_type::{ByteArrayType, DoubleType};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use rpo::feedback::{Feedback, Format, ReadOptions, Score, read_rows};

fn write(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join(name);
    std::fs::write(&path, text).expect("write");
    (dir, path)
}

fn read(name: &str, text: &str, options: &ReadOptions) -> Result<Vec<Feedback>, String> {
    let (_dir, path) = write(name, text);
    read_rows(&path.as_path().into(), options)
        .map_err(|e| e.to_string())?
        .map(|row| row.map_err(|e| e.to_string()))
        .collect()
}

fn row(prompt: &str, response: &str, reward: f64) -> Feedback {
    Feedback { prompt: prompt.into(), response: response.into(), reward }
}

fn expected() -> Vec<Feedback> {
    vec![row("p", "a", 1.5), row("p", "b", -2.0), row("q, \"r\"", "c\nd", 0.0)]
}

#[test]
fn every_layout_gives_the_same_rows() {
    let o = ReadOptions::default();
    let nested = "\u{feff}{\"prompt\":\"p\",\"responses\":[{\"text\":\"a\",\"reward\":1.5},{\"text\":\"b\",\"reward\":\"-2\"}]}\n\n";
    let flat = "{\"prompt\":\"q, \\\"r\\\"\",\"response\":\"c\\nd\",\"reward\":false}\n";
    assert_eq!(read("x.jsonl", &format!("{nested}{flat}"), &o), Ok(expected()));
    let array = format!("[{},{flat}]", nested.trim_start_matches('\u{feff}'));
    assert_eq!(read("x.json", &array, &o), Ok(expected()));
    let csv = "prompt,response,reward,extra\np,a,1.5,\np,b,-2,\n\"q, \"\"r\"\"\",\"c\nd\",0,x\n";
    assert_eq!(read("x.csv", csv, &o), Ok(expected()));
    let mapped = ReadOptions { prompt: "in".into(), response: "out".into(), reward: "stars".into(), ..o.clone() };
    assert_eq!(read("x.csv", &csv.replacen("prompt,response,reward", "in,out,stars", 1), &mapped), Ok(expected()));
    let other_name = ReadOptions { format: Some(Format::Csv), ..o };
    assert_eq!(read("x.data", csv, &other_name), Ok(expected()));
}

#[test]
fn parquet_is_read_by_rows() {
    let (_dir, path) = write("x.parquet", "");
    let schema =
        "message m { required binary prompt (UTF8); required binary response (UTF8); required double reward; }";
    let schema = parse_message_type(schema).expect("schema").into();
    let file = std::fs::File::create(&path).expect("create");
    let mut writer = SerializedFileWriter::new(file, schema, std::sync::Arc::default()).expect("writer");
    let rows = expected();
    let mut group = writer.next_row_group().expect("group");
    for text in [|r: &Feedback| r.prompt.clone(), |r: &Feedback| r.response.clone()] {
        let mut column = group.next_column().expect("column").expect("column");
        let values: Vec<_> = rows.iter().map(|r| text(r).as_str().into()).collect();
        column.typed::<ByteArrayType>().write_batch(&values, None, None).expect("write");
        column.close().expect("close");
    }
    let mut column = group.next_column().expect("column").expect("column");
    let values: Vec<f64> = rows.iter().map(|r| r.reward).collect();
    column.typed::<DoubleType>().write_batch(&values, None, None).expect("write");
    column.close().expect("close");
    group.close().expect("close");
    writer.close().expect("close");
    let read: Result<Vec<_>, _> = read_rows(&path.as_path().into(), &ReadOptions::default()).expect("opens").collect();
    assert_eq!(read.expect("readable"), rows);
}

#[test]
fn ultrafeedback_is_read_by_either_score() {
    let rating = |r: &str| format!("{{\"Rating\":\"{r}\"}}");
    let text = format!(
        "{{\"instruction\":\"p\",\"completions\":[\
         {{\"response\":\"a\",\"overall_score\":7.5,\"annotations\":{{\"helpfulness\":{},\"honesty\":{}}}}},\
         {{\"response\":\"b\",\"overall_score\":null,\"annotations\":{{\"helpfulness\":{},\"honesty\":{}}}}}]}}\n",
        rating("4"),
        rating("5"),
        rating("2"),
        rating("N/A")
    );
    let with = |score| ReadOptions { format: Some(Format::Ultrafeedback), score, ..ReadOptions::default() };
    assert_eq!(read("x.jsonl", &text, &with(Score::OverallScore)), Ok(vec![row("p", "a", 7.5)]));
    let fine = vec![row("p", "a", 4.5), row("p", "b", 2.0)];
    assert_eq!(read("x.jsonl", &text, &with(Score::FineGrained)), Ok(fine));
}

#[test]
fn bad_rows_are_told_with_line_field_and_remedy() {
    let good = "{\"prompt\":\"p\",\"response\":\"a\",\"reward\":1}\n";
    for (bad, said) in [
        ("{\"prompt\":\"p\",", "line 2: malformed JSON"),
        ("[1]", "a list where an object was expected"),
        ("{\"prompt\":\"p\",\"response\":\"a\",\"score\":1}", "no `reward`; there are: prompt, response, score"),
        ("{\"prompt\":\" \",\"response\":\"a\",\"reward\":1}", "`prompt` is empty"),
        ("{\"prompt\":\"p\",\"response\":\"\",\"reward\":1}", "`response` is empty"),
        ("{\"prompt\":\"p\",\"response\":7,\"reward\":1}", "`response` is a number, not a text"),
        ("{\"prompt\":\"p\",\"response\":\"a\",\"reward\":null}", "not a finite number"),
        ("{\"prompt\":\"p\",\"response\":\"a\",\"reward\":\"NaN\"}", "not a finite number"),
        ("{\"prompt\":\"p\",\"responses\":[]}", "`responses` is empty"),
        ("{\"prompt\":\"p\",\"responses\":[{\"text\":\"a\"}]}", "response 1: no `reward`"),
    ] {
        let problem = read("x.jsonl", &format!("{good}{bad}\n"), &ReadOptions::default()).expect_err(said);
        assert!(problem.contains("x.jsonl, line 2: ") && problem.contains(said), "{problem}");
    }
    let csv = read("x.csv", "prompt,response,reward\np,a,1\np,b,inf\n", &ReadOptions::default()).expect_err("inf");
    assert!(csv.contains("x.csv, line 3: `reward`"), "{csv}");
}

#[test]
fn bad_files_are_told_apart() {
    let o = ReadOptions::default();
    let missing = read_rows(&Path::new("nowhere.jsonl").into(), &o).err().expect("missing").to_string();
    assert!(missing.contains("cannot read nowhere.jsonl"), "{missing}");
    assert!(read("x.txt", "Once upon a time", &o).expect_err("unknown").contains("--format"));
    assert!(read("x.parquet", "no", &o).expect_err("no parquet").contains("not a Parquet file"));
    assert!(read("x.json", "[", &o).expect_err("no JSON").contains("malformed JSON"));
}
