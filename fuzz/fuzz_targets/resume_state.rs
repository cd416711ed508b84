//! `progress.json`, from which a run goes on.

#![no_main]

use rpo::train::Progress;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(progress) = serde_json::from_slice::<Progress>(bytes) else { return };
    let written = serde_json::to_vec(&progress).expect("plain numbers");
    assert_eq!(serde_json::from_slice::<Progress>(&written).expect("what was written"), progress);
});
