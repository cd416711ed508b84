//! Feedback as JSON: lines, arrays, objects of columns, in every layout that is known.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rpo_fuzz::feedback("rows.json", bytes));
