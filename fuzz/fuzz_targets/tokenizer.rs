//! `tokenizer.json`, and what a tokenizer makes of texts.

#![no_main]

use rpo::tokenizer::{Cut, Tokenizer};

const TEXTS: [&str; 3] = ["Say yes,\nplease.", "</s> <pad>", "\u{1f600}é\u{0}"];

libfuzzer_sys::fuzz_target!(|json: &str| {
    rpo_fuzz::let_panics_be_caught();
    let Ok(tokenizer) = Tokenizer::parse(json) else { return };
    for text in TEXTS {
        if let Ok(response) = tokenizer.response(text, 4) {
            assert!(response.ids.len() <= 4 && response.length >= response.ids.len());
            let _ = tokenizer.decode(&response.ids);
        }
        if let Ok(prompt) = tokenizer.prompt(text, 4, Cut::Start) {
            assert!(prompt.ids.len() <= 4 && prompt.ids.ends_with(&[tokenizer.eos_id()]));
        }
    }
    let _ = tokenizer.decode(&[0, 1, u32::MAX]);
});
