//! BERTScore: pairs of texts a second.
//!
//! `cargo bench --workspace --bench bertscore -- --model DIR [--layer L] [--pairs N] [--rounds N] [--json FILE] [--peer NAME=COMMAND]...`:
//! N pairs, 2,000 if not given, of texts of 5 to 59 words, all of them different. A peer measures the same in its own process, in turn:
//! `scripts/bertscore_peer.py`; its task is `FILE LAYER`, the file being JSON of candidates and references, and it leaves its F1 values in
//! `FILE.f1`, which must be those found here. `scripts/get_minilm.py` gives a model.

mod common;

use std::time::Instant;

use burn::tensor::Device;
use common::{Peer, least, median, option, options, peak_memory};
use rpo::burn;
use rpo::evaluate::metric::{BertScore, BertScoreOptions, Case, Metric};
use serde_json::json;

fn main() {
    common::begin();
    let model = option("--model").expect("--model is missing; see the top of this bench");
    let number = |name: &str, otherwise| option(name).map_or(otherwise, |value| value.parse().expect("a number"));
    let (layer, pairs, rounds) = (number("--layer", 5), number("--pairs", 2000), number("--rounds", 3));
    let cases: Vec<Case> = (0..pairs)
        .map(|i| Case { response: text(2 * i), references: vec![text(2 * i + 1)], ..Case::default() })
        .collect();
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("pairs.json");
    let candidates: Vec<&str> = cases.iter().map(|case| case.response.as_str()).collect();
    let references: Vec<&str> = cases.iter().map(|case| case.references[0].as_str()).collect();
    std::fs::write(&file, json!({ "candidates": candidates, "references": references }).to_string()).expect("written");
    let mut peers: Vec<(Peer, Vec<f64>)> =
        options("--peer").iter().map(|command| (Peer::start(command), Vec::new())).collect();
    let options = BertScoreOptions { layer: Some(layer), ..BertScoreOptions::default() };
    let metric = BertScore::load(&model, &options, &Device::flex()).expect("a model");
    println!("{}", common::machine());
    println!("{pairs} pairs, {}", metric.about().version);
    metric.measure(&cases[..pairs.min(50)]).expect("measured");
    let mut own = Vec::new();
    for _ in 0..rounds {
        let started = Instant::now();
        let found = metric.measure(&cases).expect("measured").each();
        own.push(started.elapsed().as_secs_f64());
        for (peer, seconds) in &mut peers {
            let task = format!("{} {layer}", file.display());
            seconds.extend(peer.ask(&task).map(|(seconds, _)| seconds));
            let theirs = std::fs::read_to_string(dir.path().join("pairs.json.f1")).expect("the peer's values");
            let theirs: Vec<f64> = serde_json::from_str(&theirs).expect("JSON");
            let apart = found.iter().zip(&theirs).map(|(own, theirs)| (own.unwrap_or(f64::NAN) - theirs).abs());
            let apart =
                apart.fold(0.0, |worst: f64, apart| if apart > worst || apart.is_nan() { apart } else { worst });
            assert!(apart < 1e-4, "{} differs by {apart}", peer.name);
        }
    }
    let rate = |seconds: f64| pairs as f64 / seconds;
    let own_peak = peak_memory();
    let line = |name: &str, seconds: &[f64], peak: f64| {
        let (middle, most) = (rate(median(seconds)), rate(least(seconds)));
        println!("{name:12} {middle:7.0} pairs/s (most {most:.0}), {peak:.0} MiB");
    };
    line("rpo", &own, own_peak);
    let mut results = vec![json!({ "name": "rpo", "seconds": own, "peak_mib": own_peak })];
    for (peer, seconds) in peers {
        let name = peer.name.clone();
        let peak = peer.finish();
        line(&name, &seconds, peak);
        println!("rpo / {name}: {:.2}", median(&seconds) / median(&own));
        results.push(json!({ "name": name, "seconds": seconds, "peak_mib": peak }));
    }
    common::write_json(json!({ "pairs": pairs, "layer": layer, "results": results }));
}

/// A text of 5 to 59 words; what it says does not matter.
fn text(number: usize) -> String {
    const WORDS: [&str; 32] = [
        "the",
        "answer",
        "is",
        "not",
        "known",
        "to",
        "anybody",
        "who",
        "reads",
        "this",
        "because",
        "of",
        "an",
        "unforeseeable",
        "change",
        "in",
        "rules",
        "and",
        "we",
        "think",
        "that",
        "Berlin",
        "42",
        "chrysanthemums",
        "grow",
        "well",
        "under",
        "water",
        "however",
        "sometimes",
        "never",
        "again",
    ];
    let mut state = number as u64 * 2 + 1;
    let mut draw = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let words: Vec<&str> = (0..5 + draw(55)).map(|_| WORDS[draw(WORDS.len())]).collect();
    format!("{} ({number}).", words.join(" "))
}
