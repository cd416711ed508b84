//! Feedback as CSV and its relatives.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rpo_fuzz::feedback("rows.csv", bytes));
