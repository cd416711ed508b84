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
