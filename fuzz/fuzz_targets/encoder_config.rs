//! `config.json` of encoders.

#![no_main]

use rpo::model::encoder::Config;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(config) = Config::parse(text) else { return };
    assert!(config.longest() >= 3 && config.d_model.is_multiple_of(config.heads) && !config.labels.is_empty());
});
