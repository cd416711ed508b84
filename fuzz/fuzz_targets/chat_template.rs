//! Chat templates: `chat_template.jinja` or, where an input is a JSON object, `tokenizer_config.json`.

#![no_main]

use std::fs;

use rpo::chat::{ChatTemplate, Turn};
use serde_json::{Map, Value};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (own, other) = match serde_json::from_slice::<Map<String, Value>>(bytes).is_ok() {
        true => ("tokenizer_config.json", "chat_template.jinja"),
        false => ("chat_template.jinja", "tokenizer_config.json"),
    };
    rpo_fuzz::put(own, bytes);
    let _ = fs::remove_file(rpo_fuzz::dir().join(other));
    let Some(template) = ChatTemplate::find(rpo_fuzz::dir(), None) else { return };
    let turns = [Turn::new("system", "Be brief."), Turn::new("user", "Hi"), Turn::new("assistant", "Hello!")];
    for turns in [&turns[..2], &turns[1..]] {
        if let Ok(text) = template.prompt(turns) {
            assert!(!text.is_empty());
            assert_eq!(template.prompt(turns).ok(), Some(text), "the same conversation");
        }
    }
});
