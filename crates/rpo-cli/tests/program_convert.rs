//! `rpo convert`: any layout in, plain rows out.

mod common;

use common::{Place, names};

#[test]
fn any_layout_becomes_plain_rows_and_a_failure_leaves_nothing() {
    let place = Place::new();
    place.write("in.jsonl", "{\"q\":\"p\",\"a\":\"x\",\"thumb\":\"up\"}\n{\"q\":\"p\",\"a\":\"y\",\"thumb\":null}\n");
    let flags = "convert in.jsonl --prompt-column q --response-column a --reward-column thumb --reward-map up=2";
    let row = "{\"prompt\":\"p\",\"response\":\"x\",\"reward\":2.0}\n";
    assert_eq!(place.ok(&format!("{flags} --out -")), row);
    place.ok(&format!("{flags} --out rows.jsonl"));
    assert_eq!(std::fs::read_to_string(place.path("rows.jsonl")).expect("written"), row);
    assert!(place.complaint(&format!("{flags} --out in.jsonl")).contains("cannot be written"));
    let strict = place.complaint(&format!("{flags} --strict --out other.jsonl"));
    assert!(strict.contains("line 2") && strict.contains("no rating"), "{strict}");
    assert!(!names(place.0.path()).iter().any(|name| name.starts_with("other")));
}

#[cfg(unix)]
#[test]
fn what_it_wrote_is_not_read_again_and_a_reader_may_leave() {
    let place = Place::new();
    place.write("d/a.jsonl", "{\"prompt\":\"p\",\"response\":\"x\",\"reward\":1}\n");
    place.ok("convert d --out d/out.jsonl");
    let said = place.complaint("convert d --out d/out.jsonl");
    assert!(said.contains("d/out.jsonl: is read and cannot be written"), "{said}");
    let row = |i: usize| format!("{{\"prompt\":\"p{i}\",\"response\":\"{}\",\"reward\":1}}\n", "x ".repeat(50));
    place.write("many.jsonl", &(0..20_000).map(row).collect::<String>());
    let line = format!("{} convert many.jsonl --out - | head -1", env!("CARGO_BIN_EXE_rpo"));
    let output = place.command("sh").args(["-c", &line]).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.stdout.starts_with(b"{\"prompt\":\"p0\"") && !said.contains("error"), "{said}");
}

#[test]
fn prompts_are_held_out_by_their_texts_alone() {
    let place = Place::new();
    let row = |i: usize| format!("{{\"prompt\":\"p{}\",\"response\":\"r{i}\",\"reward\":{}}}\n", i % 40, i % 3);
    place.write("all.jsonl", &(0..200).map(row).collect::<String>());
    let said = place.ok("convert all.jsonl --out train.jsonl --held-out test.jsonl --fraction 0.25");
    let read = |name: &str| std::fs::read_to_string(place.path(name)).expect("there");
    let prompts = |name: &str| -> std::collections::BTreeSet<String> {
        let prompt = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["prompt"].to_string();
        read(name).lines().map(prompt).collect()
    };
    let (train, test) = (prompts("train.jsonl"), prompts("test.jsonl"));
    assert!(train.is_disjoint(&test) && train.len() + test.len() == 40 && (4..=16).contains(&test.len()), "{said}");
    assert_eq!(read("train.jsonl").lines().count() + read("test.jsonl").lines().count(), 200);
    // The same prompts in another order and among others.
    place.write("more.jsonl", &(0..400).rev().map(|i| row(i).replace("p3", "q3")).collect::<String>());
    place.ok("convert more.jsonl --out a.jsonl --held-out b.jsonl --fraction 0.25");
    let kept = |all: &std::collections::BTreeSet<String>| {
        all.iter().filter(|p| !p.contains("p3")).cloned().collect::<Vec<_>>()
    };
    assert!(kept(&test).iter().all(|prompt| prompts("b.jsonl").contains(prompt)));
    for (arguments, complaint) in [
        ("--held-out c.jsonl", "name a file of its own"),
        ("--held-out d.jsonl --fraction 1.5", "a share between 0 and 1"),
        ("--held-out d.jsonl --fraction 0.000001", "fall on one side"),
    ] {
        let said = place.complaint(&format!("convert all.jsonl --out c.jsonl {arguments}"));
        assert!(said.contains(complaint), "{said}");
        assert!(!place.path("c.jsonl").exists() && !place.path("d.jsonl").exists(), "nothing is half written");
    }
}
