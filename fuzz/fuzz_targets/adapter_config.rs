//! `adapter_config.json` of PEFT.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rpo_fuzz::put("adapter_config.json", bytes);
    if let Ok(base) = rpo::fuzzing::adapter_base(rpo_fuzz::dir()) {
        assert!(!base.is_empty());
    }
});
