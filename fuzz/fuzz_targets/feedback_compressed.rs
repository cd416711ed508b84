//! Feedback behind gzip and zstd, and in UTF-16.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rpo_fuzz::feedback("rows", bytes));
