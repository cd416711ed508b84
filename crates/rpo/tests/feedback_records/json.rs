//! JSON, however its rows are arranged.

use rpo::feedback::Format;

use super::{A, B, Place, rows, two};

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
        (
            format!("{A}\r\n\r\n{{\"prompt\":\r\n"),
            "x.json, line 3: malformed JSON: EOF while parsing a value (column 10): it ends too early",
        ),
        (format!("{A}\r{{\r{B}"), "line 2: malformed JSON"),
        (format!("{{\"prompt\":\n{A}\n"), "line 1: malformed JSON"),
        (format!("{A}\n{{\"prompt\":\"p\",\"prompt\":\"q\"}}"), "line 2: one object has two keys `prompt`"),
        (format!("{A}\n{{\"prompt\":\"\\ud83d\"}}"), "line 2: half of a character (a lone surrogate) (column"),
        (
            format!("{A}\n{{'prompt': 'p'}}"),
            "line 2: malformed JSON: key must be a string (column 2): this is how Python prints",
        ),
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
