//! A decoder-only model through the program: made, trained, gone on with, compared and asked, like a T5.

mod common;

use common::{Place, names};

const CONFIG: &str = r#"{"model_type":"llama","vocab_size":16,"hidden_size":16,"intermediate_size":32,"num_hidden_layers":2,
    "num_attention_heads":4,"num_key_value_heads":2,"bos_token_id":3,"eos_token_id":1,"initializer_range":0.2}"#;

/// A place with a tokenizer that begins texts with `<s>`, if it `begins`.
fn place(begins: bool) -> Place {
    let place = Place::new();
    let json = rpo::tokenizer::word_level(&["<s>", "say", "yes", "no", "please", "thanks"]);
    let mut tokenizer: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    tokenizer["post_processor"] = match begins {
        true => serde_json::json!({
            "type": "TemplateProcessing", "pair": [],
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [3], "tokens": ["<s>"]}}
        }),
        false => serde_json::Value::Null,
    };
    place.write("config.json", CONFIG);
    place.write("tokenizer.json", &tokenizer.to_string());
    place.ok("init --config config.json --tokenizer tokenizer.json --out model");
    place
}

#[test]
fn it_trains_goes_on_and_answers() {
    let place = place(true);
    let report = place.ok("inspect data data.jsonl --tokenizer model --json");
    assert!(report.contains("\"prompts\": 20"), "{report}");
    let train = "train rpo --model model --data data.jsonl --batch-size 8 --learning-rate 1e-2";
    let said = place.ok(&format!("{train} --out whole --max-steps 6 --recompute"));
    assert!(said.contains("reference scores: computed and cached"), "{said}");
    place.ok(&format!("{train} --out parts --max-steps 6"));
    let weights = |run: &str| std::fs::read(place.path(run).join("last/model.safetensors")).expect("weights");
    assert_eq!(weights("whole").len(), weights("parts").len());
    place.ok("train --resume parts --max-steps 8");
    assert!(names(&place.path("parts/last")).contains(&"tokenizer.json".to_string()));
    let config = std::fs::read_to_string(place.path("parts/last/config.json")).expect("config");
    assert!(config.contains("\"LlamaForCausalLM\"") && config.contains("\"eos_token_id\": 1"), "{config}");
    for decoding in ["", " --num-beams 3", " --preset published --seed 4"] {
        let arguments = format!("generate --model parts/last say\u{a0}yes please --max-new-tokens 5{decoding}");
        assert!(!place.ok(&arguments).is_empty(), "{decoding}");
    }
    let compare = "compare --model model --data data.jsonl --out compared --objectives sft,rpo,dro,kto --max-steps 2";
    let said = place.ok(&format!("{compare} --validation-fraction 0.3 --batch-size 8"));
    assert!(place.path("compared/report.html").exists() && said.contains("dro"), "{said}");
}

#[test]
fn what_such_a_model_cannot_do_is_told() {
    let place = place(false);
    let said = place.complaint("train rpo --model model --data data.jsonl --out run");
    assert!(said.contains("the prompt of row 1 has a single token") && said.contains("BOS"), "{said}");
    for (setting, said) in [
        (
            "\"rope_scaling\":{\"rope_type\":\"longrope\",\"factor\":4}",
            "rope_scaling of type `longrope`; supported are",
        ),
        ("\"hidden_act\":\"gelu\"", "hidden_act `gelu`"),
    ] {
        place.write("model/config.json", &CONFIG.replace("\"bos_token_id\":3", setting));
        let complaint = place.complaint("generate --model model say\u{a0}yes");
        assert!(complaint.contains("config.json") && complaint.contains(said), "{complaint}");
    }
    place.write("model/config.json", &CONFIG.replace("llama", "mistral"));
    let said = place.complaint("generate --model model say");
    assert!(said.contains("model_type `mistral`") && said.contains("`qwen3`"), "{said}");
}
