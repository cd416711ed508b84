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
    let flat = "{\"prompt\":\"q, \\\"r\\\"\",\"response\":\"c\\nd\",\"reward\":0}\n";
    assert_eq!(read("x.jsonl", &format!("{nested}{flat}"), &o), Ok(expected()));
    let array = format!("[{},{flat}]", nested.trim_start_matches('\u{feff}'));
    assert_eq!(read("x.json", &array, &o), Ok(expected()));
    let csv = "prompt,response,reward,extra\np,a,1.5,\np,b,-2,\n\"q, \"\"r\"\"\",\"c\nd\",0,x\n";
    assert_eq!(read("x.csv", csv, &o), Ok(expected()));
    let mapped = ReadOptions {
        prompt: Some("in".into()),
        response: Some("out".into()),
        reward: Some("stars".into()),
        ..o.clone()
    };
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
    for text in [|r: &Feedback| r.prompt.text().into_owned(), |r: &Feedback| r.response.clone()] {
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
        ("{\"prompt\":\"p\",\"response\":7,\"reward\":1}", "`response` is a number, not a text"),
        ("{\"prompt\":\"p\",\"response\":\"a\",\"reward\":\"neutral\"}", "not a finite number"),
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

/// The rows of JSON lines and what was noticed.
fn noticed(text: &str, options: &ReadOptions) -> (Vec<(String, String, f64)>, String) {
    let (_dir, path) = write("x.jsonl", text);
    let mut rows = read_rows(&path.as_path().into(), options).expect("opens");
    let all = rows
        .by_ref()
        .map(|row| row.expect("readable"))
        .map(|f| (f.prompt.text().into_owned(), f.response, f.reward))
        .collect();
    (all, rows.notes().lines().join("\n"))
}

#[test]
fn known_exports_are_named_and_read() {
    let turns = |text: &str| format!(r#"[{{"role":"user","content":"p"}},{{"role":"assistant","content":"{text}"}}]"#);
    let webui = r#"{"data":{"rating":-1},"meta":{"message_id":"b"},"snapshot":{"chat":{"chat":{"history":{"currentId":"d",
        "messages":{"a":{"role":"user","content":"p","parentId":null},"b":{"role":"assistant","content":"x","parentId":"a"},
        "c":{"role":"user","content":"?","parentId":"b"},"d":{"role":"assistant","content":"!","parentId":"c"}}}}}}}"#
        .replace('\n', "");
    for (line, name, rewards) in [
        (r#"{"prompt":"p","completion":"x","label":true}"#.to_string(), "TRL", &[1.0][..]),
        (r#"{"prompt":"p","chosen":"x","rejected":"y"}"#.into(), "TRL", &[1.0, 0.0]),
        (
            format!(r#"{{"prompt":"p","chosen":{},"rejected":{},"score_chosen":9,"score_rejected":3}}"#, turns("x"), turns("y")),
            "binarized",
            &[9.0, 3.0],
        ),
        (r#"{"chosen":"\n\nHuman: p\n\nAssistant: x","rejected":"\n\nHuman: p\n\nAssistant: y"}"#.into(), "hh-rlhf", &[1.0, 0.0]),
        (r#"{"history":"p","human_ref_A":"x","human_ref_B":"y","score_A":7,"score_B":2}"#.into(), "SHP", &[7.0, 2.0]),
        (r#"{"prompt":"p","response":"x","helpfulness":4,"correctness":1,"verbosity":2}"#.into(), "HelpSteer", &[4.0]),
        (
            r#"{"prompt":"p","response":"x","rating":[{"user_id":"a","value":5,"status":"submitted"},{"user_id":"b","value":2,"status":"submitted"},{"user_id":"c","value":1,"status":"discarded"}]}"#.into(),
            "Argilla 1",
            &[3.5],
        ),
        (
            r#"{"prompt":"p","response":"x","rating.responses":[5,1],"rating.responses.status":["submitted","draft"]}"#.into(),
            "Argilla 2",
            &[5.0],
        ),
        (r#"{"input":"p","output":{"role":"assistant","content":"x"},"scores":{"thumb":"up"}}"#.into(), "Langfuse", &[1.0]),
        (
            r#"{"data":{"prompt":"p","response":"x"},"annotations":[{"result":[{"from_name":"r","value":{"rating":4}}]},{"result":[{"from_name":"r","value":{"rating":2}}]}]}"#.into(),
            "Label Studio",
            &[3.0],
        ),
        (webui, "Open WebUI", &[-1.0]),
    ] {
        let (rows, notes) = noticed(&format!("{line}\n{line}\n"), &ReadOptions::default());
        let expected: Vec<_> = rewards.iter().zip(["x", "y"]).map(|(r, text)| ("p".into(), text.into(), *r)).collect();
        assert_eq!(rows, [expected.clone(), expected.clone()].concat(), "{line}");
        assert!(notes.contains(name), "{line}: {notes}");
        // A file of a single row is no list of what stands in that row.
        let (single, _) = noticed(&format!("{line}\n"), &ReadOptions::default());
        assert_eq!(single, expected, "{line} alone");
    }
}

#[test]
fn rows_that_lack_something_are_counted_or_refused() {
    let text = "{\"prompt\":\"p\",\"response\":\"a\",\"reward\":\"up\"}\n{\"prompt\":\"p\",\"response\":\"b\",\"reward\":\"down\"}\n\
        {\"prompt\":\"p\",\"response\":\"c\",\"reward\":null}\n{\"prompt\":\"p\",\"response\":\"d\"}\n\
        {\"prompt\":\"p\",\"response\":\" \",\"reward\":\"up\"}\n{\"prompt\":\"\",\"response\":\"e\",\"reward\":\"up\"}\n";
    let (rows, notes) = noticed(text, &ReadOptions::default());
    assert_eq!(rows, [("p".into(), "a".into(), 1.0), ("p".into(), "b".into(), 0.0)]);
    for said in ["2 rows have no rating and were left out", "1 row has an empty response", "1 row has an empty prompt"]
    {
        assert!(notes.contains(said), "{notes}");
    }
    let strict = ReadOptions { strict: true, ..ReadOptions::default() };
    assert!(read("x.jsonl", text, &strict).expect_err("strict").contains("line 3: the row has no rating"));
    let map = [("up".to_string(), 5.0), ("down".to_string(), -2.0)].into();
    let (rows, _) = noticed(text, &ReadOptions { reward_map: map, ..ReadOptions::default() });
    assert_eq!(rows.iter().map(|row| row.2).collect::<Vec<_>>(), [5.0, -2.0]);
}

#[test]
fn columns_are_combined_and_mixed_scales_refused() {
    let text = "{\"prompt\":\"p\",\"response\":\"a\",\"h\":4,\"s\":{\"c\":1}}\n";
    for (columns, reward) in [("h", 4.0), ("s.c", 1.0), ("h,s.c", 2.5), ("h*0.5,s.c*-2", 0.0)] {
        let (rows, _) = noticed(text, &ReadOptions { reward: Some(columns.into()), ..ReadOptions::default() });
        assert_eq!(rows, [("p".into(), "a".into(), reward)], "{columns}");
    }
    let row = |reward: &str| format!("{{\"prompt\":\"p\",\"response\":\"a\",\"reward\":\"{reward}\"}}\n");
    for (a, b) in [("4/5", "80"), ("up", "4.5"), ("3 stars", "good")] {
        let problem = read("x.jsonl", &(row(a) + &row(b)), &ReadOptions::default()).expect_err("mixed");
        assert!(problem.contains("line 2") && problem.contains("two kinds"), "{problem}");
    }
    let absent = read("x.jsonl", "{\"question\":\"p\",\"answer\":\"a\",\"stars\":4}\n", &ReadOptions::default());
    let absent = absent.expect_err("no column");
    for said in [
        "no `prompt`, no `response`, no `reward`",
        "--prompt-column question --response-column answer --reward-column stars",
    ] {
        assert!(absent.contains(said), "{absent}");
    }
    let (rows, _) = noticed(
        "{\"prompt\":\"p\",\"responses\":{\"text\":[\"a\",\"b\"],\"reward\":[1,0]}}\n\
        {\"prompt\":\"p\",\"responses\":[\"c\"],\"reward\":[2]}\n",
        &ReadOptions::default(),
    );
    assert_eq!(
        rows.iter().map(|row| (row.1.as_str(), row.2)).collect::<Vec<_>>(),
        [("a", 1.0), ("b", 0.0), ("c", 2.0)]
    );
}

#[test]
fn columns_that_belong_to_a_prompt_and_are_not_read_are_told() {
    let row = r#"{"prompt":"Translate.","input":"Guten Tag","system":"","response":"Good day","reward":1}"#;
    let (rows, notes) = noticed(&format!("{row}\n"), &ReadOptions::default());
    assert_eq!(rows.len(), 1);
    assert!(notes.contains("column `input` is not read") && !notes.contains("`system`"), "{notes}");
    let own = ReadOptions { prompt: Some("input".into()), ..ReadOptions::default() };
    assert!(!noticed(&format!("{row}\n"), &own).1.contains("is not read"));
}
