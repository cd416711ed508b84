//! Files of verdicts: those that were given before by anybody, and the store of replies.

#![no_main]

use rpo::evaluate::judge::{Store, Stored};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = rpo_fuzz::put("verdicts.jsonl", bytes);
    let _ = Stored::open(&path, None);
    let count = || Store::open(&path).map(|store| store.replies()).ok();
    // A torn line is cut off, and nothing else.
    assert_eq!(count(), count());
});
