//! `rpo doctor`: what the machine has, and the CPU's own kernels beside the engine's operations.

mod common;

use common::Place;

#[test]
fn the_cpu_is_well_and_the_machine_is_told() {
    let place = Place::new();
    let said = place.ok("doctor --precision f32 --lora");
    for told in
        ["rpo 0.1.0 (commit ", "processor: ", " threads; ", "memory: ", "precision auto: ", "devices compiled in: cpu"]
    {
        assert!(said.contains(told), "{told}: {said}");
    }
    assert!(said.contains(&format!("cache: {}, ", place.path("cache/rpo").display())), "{said}");
    for tried in ["cpu: a small T5 (", "cpu: a small Llama (", "in bfloat16 with adapters, products in f32"] {
        assert!(said.contains(tried), "{tried}: {said}");
    }
    for quantity in ["log-probabilities ", "loss ", "gradient of ", "greedy answers "] {
        assert!(said.contains(&format!("\n{quantity}")), "{quantity}: {said}");
    }
    assert!(
        said.contains("beyond the tolerance: 0 of ") && said.contains(" comparisons are within rounding"),
        "{said}"
    );
    assert!(!said.contains("WRONG") && !place.path("cache").exists(), "{said}");
}

#[test]
fn a_model_of_ones_own_is_tried_with_every_gradient() {
    let place = Place::with_model();
    let said = place.ok("doctor --model model --precision f32 --all");
    assert!(said.contains("T5 (gatedgelu, untied, width 32)") && !said.contains("Llama"), "{said}");
    for tensor in
        ["encoder.block.1.layer.1.DenseReluDense.wi_0.weight", "decoder.block.0.layer.1.EncDecAttention.q.weight"]
    {
        assert!(said.contains(&format!("gradient of {tensor} ")), "{tensor}: {said}");
    }
    assert!(place.complaint("doctor --model nowhere").contains("nowhere"));
}

#[test]
fn a_device_that_is_not_there_is_told() {
    let place = Place::new();
    if cfg!(not(feature = "cuda")) {
        assert!(place.complaint("doctor --device cuda").contains("this program was built without cuda"));
    }
}
