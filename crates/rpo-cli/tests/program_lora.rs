//! Adapters through the program: trained, gone on with, merged, loaded and published.

mod common;

use common::{Place, names};

const FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

#[test]
fn adapters_are_trained_gone_on_with_and_merged() {
    let place = Place::with_model();
    let bytes = |path: &str| std::fs::read(place.path(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    let text = |path: &str| String::from_utf8(bytes(path)).expect("text");
    let base = bytes("model/model.safetensors");
    let train =
        "train rpo --model model --data data.jsonl --batch-size 8 --learning-rate 1e-2 --lora-rank 2 --lora-alpha 3";
    let said = place.ok(&format!("{train} --out run --max-steps 6 --store bf16"));
    assert!(said.contains("frozen but for adapters of rank 2 (5376)"), "{said}");
    place.ok("train --resume run --max-steps 8");
    let last = names(&place.path("run/last"));
    assert!(FILES.iter().all(|name| last.contains(&(*name).to_string())), "{last:?}");
    assert!(!last.contains(&"model.safetensors".to_string()), "adapters alone: {last:?}");
    assert!(text("run/last/adapter_config.json").contains("\"lora_alpha\": 3.0"));
    assert_eq!(bytes("model/model.safetensors"), base, "the base model is as it was");

    let best = names(&place.path("run/best"));
    assert!(best.contains(&"model.safetensors".to_string()) && best.contains(&"adapter".to_string()), "{best:?}");
    assert!(text("run/best/config.json").contains("bfloat16"));
    let asked = |from: &str| place.ok(&format!("generate --model {from} say\u{a0}yes please --max-new-tokens 5"));
    assert_eq!(asked("run/best").lines().count(), asked("run/best/adapter").lines().count());
    assert!(!asked("run/last").is_empty());

    // What was adapted can be trained again, and adapted when it is merged.
    place.ok("train kto --model run/best --data data.jsonl --batch-size 8 --out again --max-steps 2 --lora-rank 1");
    place.ok("train sft --model again/last --data data.jsonl --batch-size 8 --out whole --max-steps 2");
    let said = place.complaint("train kto --model run/last --data data.jsonl --out chain --lora-rank 1");
    assert!(said.contains("run/last is an adapter") && said.contains("start from the merged model"), "{said}");
    for name in ["run/last", "run/best", "run/best/adapter"] {
        let said = place.ok(&format!("inspect data data.jsonl --tokenizer {name}"));
        assert!(said.contains("20 prompts"), "{said}");
    }
    let compare = "compare --model model --data data.jsonl --out compared --objectives sft,rpo,dro --max-steps 2";
    place.ok(&format!("{compare} --validation-fraction 0.3 --batch-size 8 --lora-rank 2"));
    std::fs::remove_dir_all(place.path("model")).expect("removed");
    let said = place.complaint("generate --model run/last say");
    assert!(said.contains("base_model_name_or_path") && said.contains("adapter_config.json"), "{said}");
}

#[test]
fn what_adapters_cannot_be_is_told() {
    let place = Place::with_model();
    let train = "train rpo --model model --data data.jsonl --out run --lora-rank 2";
    let said = place.complaint(&format!("{train} --lora-targets q,attn"));
    assert!(said.contains("no linear map of this model is called `attn`; there are k, o, q, v, wi_0"), "{said}");
    let said = place.complaint(&format!("{train} --lora-alpha -1"));
    assert!(said.contains("--lora-alpha") || said.contains("lora.alpha"), "{said}");
    let said = place.complaint("train rpo --model model --data data.jsonl --out run --lora-alpha 3");
    assert!(said.contains("`lora.rank` is 0, which trains the whole model"), "{said}");
    let said = place.complaint("train rpo --model model --data data.jsonl --out run --lora-rank 9223372036854775807");
    assert!(said.contains("above the rank of any matrix that is adapted, 32 at most"), "{said}");
    assert!(!place.path("run").exists());
    let said = place.complaint("train rpo --model model --data data.jsonl --out run --lora-rank -3");
    assert!(said.contains("--lora-rank"), "{said}");
}
