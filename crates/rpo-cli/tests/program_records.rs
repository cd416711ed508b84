//! Data that are named as people name them, with the program: from the hub's local cache, from a pipe, in a directory.

mod common;

use std::io::Write;
use std::process::{Output, Stdio};

use common::Place;

const A: &str = "{\"prompt\":\"say\",\"response\":\"yes\",\"reward\":1}\n";
const B: &str = "{\"prompt\":\"say\",\"response\":\"no\",\"reward\":0}\n";

/// What `inspect data` answers about `data`, to which `input` is given.
fn inspect(place: &Place, data: &str, input: &str) -> Output {
    let mut command = place.command(env!("CARGO_BIN_EXE_rpo"));
    command.args(["inspect", "data", data, "--tokenizer", "tokenizer.json", "--json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    // A program that refuses does not read to the end.
    let _ = child.stdin.take().expect("input").write_all(input.as_bytes());
    child.wait_with_output().expect("ends")
}

/// How many rows `data` has, and what else was said.
fn counted(place: &Place, data: &str, input: &str) -> (u64, String) {
    let output = inspect(place, data, input);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{data}: {said}"));
    (report["rows"].as_u64().expect("rows"), said)
}

/// What is said when `data` must be refused.
fn complaint(place: &Place, data: &str) -> String {
    let output = inspect(place, data, "");
    assert!(!output.status.success(), "{data} was read");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_data_set_of_the_hub_is_read_from_the_local_cache() {
    let place = Place::new();
    let said = complaint(&place, "some/ratings");
    assert!(said.contains("no such file or directory here") && said.contains("HF_HUB_OFFLINE"), "{said}");
    let repo = "hub/hub/datasets--some--ratings";
    place.write(&format!("{repo}/refs/main"), "abc");
    for (name, text) in
        [("README.md", "# Ratings"), ("data/train-0.jsonl", A), ("data/train-1.jsonl", B), ("data/test-0.jsonl", A)]
    {
        place.write(&format!("{repo}/snapshots/abc/{name}"), text);
    }
    let (rows, said) = counted(&place, "some/ratings", "");
    assert_eq!(rows, 2);
    assert!(said.contains("some/ratings at revision abc") && said.contains("left out: data/test-0.jsonl"), "{said}");
    assert_eq!(counted(&place, "hf://datasets/some/ratings@abc/data/t*.jsonl", "").0, 3);
    assert!(complaint(&place, "some/ratings@v2").contains("local cache has none"));
    assert!(complaint(&place, "some/ratings.jsonl").contains("No such file"), "a path is not asked of the hub");
}

#[cfg(unix)]
#[test]
fn rows_may_come_from_a_pipe() {
    let place = Place::new();
    assert_eq!(counted(&place, "-", &format!("{A}{B}")).0, 2);
    assert_eq!(counted(&place, "/dev/stdin", &format!("[{A},{B}]")).0, 2);
    let long = format!("{{\"data\":[{}]}}", vec![A.trim(); 8000].join(","));
    let said = String::from_utf8_lossy(&inspect(&place, "-", &long).stderr).into_owned();
    assert!(said.contains("cannot be read from a pipe"), "{said}");
    assert_eq!(counted(&place, "-", "prompt;response;reward\nsay;yes;1\n").0, 1);
}

#[test]
fn a_directory_says_what_of_it_is_read() {
    let place = Place::new();
    place.write("ratings/train.jsonl", A);
    place.write("ratings/validation.jsonl", B);
    let (rows, said) = counted(&place, "ratings", "");
    assert_eq!(rows, 1);
    assert!(said.contains("ratings: reading train.jsonl; left out: validation.jsonl"), "{said}");
}
