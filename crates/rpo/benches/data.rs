//! From a file of rated responses to token ids: read and tokenized on one thread and on all, and taken from the cache.
//!
//! `cargo bench --workspace --bench data -- --data FILE --tokenizer DIR [--times 4] [--rounds 3] [--json FILE]`: the rows of
//! the file `times` times over, each time with other prompts; every way in turn, each in a process of its own, whose peak
//! memory it is.

mod common;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use common::{median, option, peak_memory};
use rpo::feedback::{FeedbackSet, Limits, ReadOptions, Source, read_rows};
use rpo::tokenizer::{Cut, Tokenizer};
use serde_json::{Value, json};

const WAYS: [(&str, &str); 3] = [("one thread", "1"), ("all threads", "0"), ("from the cache", "0")];

fn main() {
    common::begin();
    let data = PathBuf::from(option("--data").expect("--data FILE"));
    if let Some(way) = option("--way") {
        return one(&data, &way);
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("data.jsonl");
    let times = option("--times").map_or(4, |n| n.parse().expect("a number"));
    multiply(&data, times, &file);
    println!("{}", common::machine());
    println!("{:.0} MB", std::fs::metadata(&file).expect("file").len() as f64 / 1e6);
    let rounds = option("--rounds").map_or(3, |n| n.parse().expect("a number"));
    // The cache is filled before it is measured.
    run(&file, dir.path(), WAYS[2]);
    let mut seen = WAYS.map(|_| Vec::new());
    for _ in 0..rounds {
        for (way, seen) in WAYS.into_iter().zip(&mut seen) {
            seen.push(run(&file, dir.path(), way));
        }
    }
    println!("{:>15} {:>10} {:>12} {:>10}", "", "seconds", "responses/s", "peak MiB");
    let mut table = serde_json::Map::new();
    for ((name, _), seen) in WAYS.into_iter().zip(seen) {
        let of =
            |field: &str| median(&seen.iter().map(|case| case[field].as_f64().expect("a number")).collect::<Vec<_>>());
        println!("{name:>15} {:>10.2} {:>12.0} {:>10.0}", of("seconds"), of("rows") / of("seconds"), of("peak_mib"));
        table.insert(name.into(), seen.into());
    }
    common::write_json(table.into());
}

/// Writes the rows of `data` to `file`, `times` times with other prompts.
fn multiply(data: &Path, times: usize, file: &Path) {
    let mut text = String::new();
    for i in 0..times {
        for row in read_rows(&Source::from(data), &ReadOptions::default()).expect("readable") {
            let row = row.expect("a rated response");
            let row = json!({"prompt": format!("{i}: {}", row.prompt), "response": row.response, "reward": row.reward});
            writeln!(text, "{row}").expect("a text");
        }
    }
    std::fs::write(file, text).expect("written");
}

/// One way, in a process of its own.
fn run(file: &Path, cache: &Path, (way, threads): (&str, &str)) -> Value {
    let this = std::env::current_exe().expect("its own path");
    let tokenizer = option("--tokenizer").expect("--tokenizer DIR");
    let [file, cache] = [file, cache].map(|path| path.to_str().expect("UTF-8"));
    let mut command = Command::new(this);
    command.args(["--data", file, "--tokenizer", &tokenizer, "--cache", cache, "--way", way]);
    let output = command.env("RAYON_NUM_THREADS", threads).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)))
}

fn one(file: &Path, way: &str) {
    let tokenizer = Tokenizer::load(Path::new(&option("--tokenizer").expect("--tokenizer DIR"))).expect("a tokenizer");
    let limits = Limits { prompt_tokens: 512, response_tokens: 512, cut_prompts: Cut::End };
    let (source, options) = (Source::from(file), ReadOptions::default());
    let cache = PathBuf::from(option("--cache").expect("--cache DIR"));
    let begin = Instant::now();
    let (set, summary) = match way == WAYS[2].0 {
        false => FeedbackSet::read(&source, &options, &tokenizer, limits, &mut |_| ()).expect("readable"),
        true => {
            let (set, summary, _) =
                FeedbackSet::cached(&source, &options, &tokenizer, limits, &cache, &mut |_| ()).expect("readable");
            (set, summary)
        }
    };
    let seconds = begin.elapsed().as_secs_f64();
    assert!(set.responses() > 0);
    println!("{}", json!({"seconds": seconds, "rows": summary.rows, "peak_mib": peak_memory()}));
}
