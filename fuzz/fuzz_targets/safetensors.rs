//! Safetensors files: weights, adapters, optimizer state and reference scores.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = rpo_fuzz::put("model.safetensors", bytes);
    if let Ok(scores) = rpo::fuzzing::reference_scores(&path, 4) {
        assert_eq!(scores.len(), 4);
    }
    let Ok(tensors) = rpo::fuzzing::tensors(&path) else { return };
    let mut values = 0;
    for (name, shape, read) in tensors {
        let Ok(read) = read else { continue };
        assert_eq!(read.len(), shape.iter().product::<usize>(), "{name} {shape:?}");
        values += read.len();
    }
    // Two bytes a value at least: no tensor is larger than the file, and no two share bytes.
    assert!(2 * values <= bytes.len());
});
