//! The file of an unfinished pass over the reference.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = rpo_fuzz::put("scores.parts", bytes);
    let bits =
        |(values, known): (Vec<f32>, Vec<bool>)| (values.into_iter().map(f32::to_bits).collect::<Vec<_>>(), known);
    let read = || bits(rpo::fuzzing::reference_parts(&path, 4, 2).expect("readable"));
    // What follows whole records is cut off, and nothing else.
    assert_eq!(read(), read());
});
