//! The index of a model in several files.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = rpo_fuzz::put("model.safetensors.index.json", bytes);
    if let Ok(names) = rpo::fuzzing::shard_index(&path) {
        assert!(names.is_sorted());
    }
});
