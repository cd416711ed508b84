//! Tokenized data that are kept between runs.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = rpo_fuzz::put("x.tokens", bytes);
    let Some(data) = rpo::fuzzing::kept_tokens(&path) else { return };
    rpo::fuzzing::keep_tokens(&path, &data).expect("written");
    let same = |a: f64, b: f64| a == b || a.is_nan() && b.is_nan();
    let again = rpo::fuzzing::kept_tokens(&path).expect("what was written");
    assert_eq!((data.0.tokens(), &data.1), (again.0.tokens(), &again.1));
    assert!(
        data.0.iter().zip(again.0.iter()).all(|(a, b)| a.row == b.row && a.ids == b.ids && same(a.reward, b.reward))
    );
});
