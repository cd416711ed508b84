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
