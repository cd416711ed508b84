//! What is no data, and several files as one set.

use super::{A, B, Place, rows, two};

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
