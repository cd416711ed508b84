//! `config.json` of the models that are trained.

#![no_main]

use rpo::model::Config;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(config) = Config::parse(text) else { return };
    assert!(config.vocab_size() > 0 && config.d_model() > 0);
    // What is written of it says the same.
    let written = config.to_json("float32");
    let again = Config::parse(&written).expect("what was written");
    assert_eq!(again.to_json("float32"), written);
});
