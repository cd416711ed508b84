//! Data that are named as people name them, with the program: from the hub's local cache, from a pipe, in a directory.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const A: &str = "{\"prompt\":\"say\",\"response\":\"yes\",\"reward\":1}\n";
const B: &str = "{\"prompt\":\"say\",\"response\":\"no\",\"reward\":0}\n";

/// A directory with a tokenizer, in which the program is run.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("temporary directory"));
        let tokenizer = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
            "model": {
                "type": "WordLevel", "unk_token": "<unk>",
                "vocab": {"<pad>": 0, "</s>": 1, "<unk>": 2, "say": 3, "yes": 4, "no": 5}
            }
        });
        place.write("tokenizer.json", &tokenizer.to_string());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.path(name).parent().expect("parent")).expect("create");
        std::fs::write(self.path(name), text).expect("write");
    }

    /// What `inspect data` answers about `data`, to which `input` is given.
    fn inspect(&self, data: &str, input: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rpo"));
        command.current_dir(self.0.path()).env("HF_HUB_OFFLINE", "1").env("HF_HOME", self.path("hub"));
        command.args(["inspect", "data", data, "--tokenizer", "tokenizer.json", "--json"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
        // A program that refuses does not read to the end.
        let _ = child.stdin.take().expect("input").write_all(input.as_bytes());
        child.wait_with_output().expect("ends")
    }

    /// How many rows `data` has, and what else was said.
    fn rows(&self, data: &str, input: &str) -> (u64, String) {
        let output = self.inspect(data, input);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let report: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{data}: {said}"));
        (report["rows"].as_u64().expect("rows"), said)
    }

    fn complaint(&self, data: &str) -> String {
        let output = self.inspect(data, "");
        assert!(!output.status.success(), "{data} was read");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

#[test]
fn a_data_set_of_the_hub_is_read_from_the_local_cache() {
    let place = Place::new();
    let said = place.complaint("some/ratings");
    assert!(said.contains("no such file or directory here") && said.contains("HF_HUB_OFFLINE"), "{said}");
    let repo = "hub/hub/datasets--some--ratings";
    place.write(&format!("{repo}/refs/main"), "abc");
    for (name, text) in
        [("README.md", "# Ratings"), ("data/train-0.jsonl", A), ("data/train-1.jsonl", B), ("data/test-0.jsonl", A)]
    {
        place.write(&format!("{repo}/snapshots/abc/{name}"), text);
    }
    let (rows, said) = place.rows("some/ratings", "");
    assert_eq!(rows, 2);
    assert!(said.contains("some/ratings at revision abc") && said.contains("left out: data/test-0.jsonl"), "{said}");
    assert_eq!(place.rows("hf://datasets/some/ratings@abc/data/t*.jsonl", "").0, 3);
    assert!(place.complaint("some/ratings@v2").contains("local cache has none"));
    assert!(place.complaint("some/ratings.jsonl").contains("No such file"), "a path is not asked of the hub");
}

#[cfg(unix)]
#[test]
fn rows_may_come_from_a_pipe() {
    let place = Place::new();
    assert_eq!(place.rows("-", &format!("{A}{B}")).0, 2);
    assert_eq!(place.rows("/dev/stdin", &format!("[{A},{B}]")).0, 2);
    let long = format!("{{\"data\":[{}]}}", vec![A.trim(); 8000].join(","));
    let said = String::from_utf8_lossy(&place.inspect("-", &long).stderr).into_owned();
    assert!(said.contains("cannot be read from a pipe"), "{said}");
    assert_eq!(place.rows("-", "prompt;response;reward\nsay;yes;1\n").0, 1);
}

#[test]
fn a_directory_says_what_of_it_is_read() {
    let place = Place::new();
    place.write("ratings/train.jsonl", A);
    place.write("ratings/validation.jsonl", B);
    let (rows, said) = place.rows("ratings", "");
    assert_eq!(rows, 1);
    assert!(said.contains("ratings: reading train.jsonl; left out: validation.jsonl"), "{said}");
}
