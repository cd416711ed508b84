//! The checksums of a directory.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rpo_fuzz::put("rpo.sha256", bytes);
    rpo_fuzz::put("saved", b"saved");
    let _ = rpo::fuzzing::checksums(rpo_fuzz::dir());
});
