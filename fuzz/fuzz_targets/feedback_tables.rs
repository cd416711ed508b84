//! Feedback as Parquet files, Arrow files and Arrow streams.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rpo_fuzz::let_panics_be_caught();
    rpo_fuzz::feedback("rows.parquet", bytes);
});
