//! `generation_config.json`.

#![no_main]

use rpo::generate::{Decoding, StoredDecoding};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rpo_fuzz::put("generation_config.json", bytes);
    let Ok(stored) = StoredDecoding::read(rpo_fuzz::dir(), &Decoding::default()) else { return };
    let decoding = stored.expect("the file is there").decoding;
    if decoding.validate().is_ok() {
        let written = serde_json::to_string(&decoding).expect("settings");
        assert_eq!(serde_json::from_str::<Decoding>(&written).expect("what was written"), decoding);
    }
});
