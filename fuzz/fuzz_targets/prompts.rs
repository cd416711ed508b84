//! Prompts and outputs of models in text files, one a line or as JSON.

#![no_main]

use rpo::feedback::{Source, read_outputs, read_prompts};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let source = Source::from(rpo_fuzz::put("prompts.txt", bytes).as_path());
    if let Ok(asked) = read_prompts(&source, "prompt", None, None) {
        assert!(!asked.is_empty() && asked.iter().all(|asked| !asked.prompt.is_blank()));
    }
    let source = Source::from(rpo_fuzz::put("outputs.jsonl", bytes).as_path());
    if let Ok(outputs) = read_outputs(&source, None, None) {
        assert!(!outputs.is_empty() && outputs.iter().all(|output| !output.asked.prompt.is_blank()));
    }
});
