//! The model against Hugging Face transformers: hidden states, logits, log-probabilities, the gradient of every
//! parameter, greedy generation. The values were made by `goldens/make_goldens.py`.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use common::{Golden, cases, check_answers, device, goldens, load, pack, relative_error, token_log_probs};
use rpo::batch::{PackedBatch, length_buckets};
use rpo::burn;
use rpo::feedback::{FeedbackSet, PromptGroup, Response};
use rpo::generate::{Decoding, Processors, StoredDecoding, generate};
use rpo::model::checkpoint::{Checkpoint, StoredAs, save};
use rpo::model::{NamedParameters, States};
use rpo::score::{LogProb, score};
use rpo::stop::Stop;
use safetensors::SafeTensors;
use serde::Deserialize;

const MODELS: [&str; 2] = ["gated_untied", "relu_tied"];

fn values(x: &TensorData) -> Vec<f32> {
    x.try_to_vec().expect("f32")
}

#[test]
fn hidden_states_logits_and_log_probs_equal_transformers() {
    for name in MODELS {
        let golden = Golden::of(name);
        let model = load(name, &device());
        let batch = pack(&model, &golden.data());
        let States { prompts: memory, responses: hidden } = model.forward(&batch);
        let error = relative_error(&memory.to_data(), &golden.floats("encoder_hidden"));
        assert!(error < 1e-5, "{name}: encoder differs by {error}");
        let logits = hidden.matmul(model.head().transpose());
        let error = relative_error(&logits.into_data(), &golden.floats("logits"));
        assert!(error < 1e-5, "{name}: logits differ by {error}");
        let error = relative_error(&token_log_probs(&model, &batch).into_data(), &golden.floats("token_log_probs"));
        assert!(error < 1e-5, "{name}: log-probabilities differ by {error}");
    }
}

#[test]
fn the_gradient_of_every_parameter_equals_pytorch() {
    for name in MODELS {
        let golden = Golden::of(name);
        let model = load(name, &device().autodiff());
        let scores = score(&model, &pack(&model, &golden.data()));
        let loss: Tensor<1> = (scores.ell(LogProb::Mean) * scores.constant(&golden.floats("loss_weights"))).sum();
        let error = relative_error(&loss.to_data(), &golden.floats("loss"));
        assert!(error < 1e-5, "{name}: loss differs by {error}");
        let gradients: BTreeMap<_, _> = model.gradients(&mut loss.backward()).into_iter().collect();
        let tensors = SafeTensors::deserialize(&golden.0).expect("safetensors");
        let wanted: Vec<&str> = tensors.names().into_iter().filter_map(|n| n.strip_prefix("grad.")).collect();
        assert_eq!(wanted.len(), gradients.len(), "{name}: the same parameters");
        for parameter in wanted {
            let got = gradients.get(parameter).cloned().flatten().unwrap_or_else(|| panic!("{name}: no {parameter}"));
            let error = relative_error(&got.into_data(), &golden.floats(&format!("grad.{parameter}")));
            assert!(error < 1e-4, "{name}: gradient of {parameter} differs by {error}");
        }
    }
}

#[test]
fn forward_passes_without_tracking_give_the_same_scores() {
    for name in MODELS {
        let tracking = load(name, &device().autodiff());
        let batch = pack(&tracking, &Golden::of(name).data());
        let with = score(&tracking, &batch).log_probs.into_data();
        let without = values(&score(&tracking.valid(), &batch).log_probs.into_data());
        let error = relative_error(&with, &without);
        assert!(error < 1e-6, "{name}: differs by {error}");
    }
}

/// What we save is read by transformers with no key missing or too many and gives the golden values. Needs a Python
/// with transformers (`RPO_PYTHON`, by default `python3`); says so when there is none.
#[test]
fn saved_models_load_in_transformers() {
    let python = std::env::var("RPO_PYTHON").unwrap_or_else(|_| "python3".into());
    let ready = Command::new(&python).args(["-c", "import torch, transformers"]).output();
    if !ready.is_ok_and(|o| o.status.success()) {
        eprintln!("skipped: {python} has no transformers (set RPO_PYTHON)");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/check_export.py");
    for name in MODELS {
        let dir = tempfile::tempdir().expect("temporary directory");
        let out = dir.path().join("saved");
        let origin = Checkpoint::open(&goldens().join(name)).expect("golden checkpoint");
        save(&load(name, &device()), &origin, StoredAs::F32, &out, |_| Ok(())).expect("saves");
        let golden = goldens().join(name).join("golden.safetensors");
        let mut check = Command::new(&python);
        let output = check.arg(&script).arg(&out).arg("--golden").arg(golden).output().expect("runs");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn greedy_generation_equals_transformers_token_for_token() {
    for name in MODELS {
        let prompts = Golden::of(name).ids("prompt_ids", "prompt_lengths");
        let cases = cases(name);
        assert_eq!(cases.len(), 4);
        check_answers(name, &load(name, &device()), &prompts, &cases);
    }
}

/// mT5 and umT5, made by `goldens/make_cousins.py`: past the last bucket of the position bias, of which umT5 has one a layer.
#[test]
fn cousins_equal_transformers() {
    #[derive(Deserialize)]
    struct Cousin {
        prompt: Vec<u32>,
        response: Vec<u32>,
        log_prob: f64,
        answer: Vec<u32>,
    }
    for name in ["mt5", "umt5"] {
        let text = std::fs::read_to_string(goldens().join(name).join("golden.json")).expect("golden file");
        let Cousin { prompt, response, log_prob, answer } = serde_json::from_str(&text).expect("golden file");
        let model = load(name, &device());
        let response = Response { row: 0, ids: response, truncated: false, reward: 0.0, copies: 1 };
        let group = PromptGroup { prompt: prompt.clone(), first_row: 0, responses: vec![response] };
        let set = FeedbackSet { groups: vec![group] };
        let spans = &length_buckets(&set, usize::MAX, true)[0];
        let scores = score(&model, &PackedBatch::pack(&set, spans, model.start()));
        let found: Vec<f32> = scores.log_probs.into_data().try_to_vec().expect("numbers");
        assert!((f64::from(found[0]) - log_prob).abs() < 1e-5 * log_prob.abs(), "{name}: {} for {log_prob}", found[0]);
        let decoding = Decoding { max_new_tokens: 20, ..Decoding::default() };
        assert_eq!(generate(&model, &[prompt], 0, &decoding, &Stop::new()).expect("answers"), [answer], "{name}");
    }
}

#[test]
fn beam_search_equals_transformers_token_for_token() {
    for name in MODELS {
        let model = load(name, &device());
        let prompts = Golden::of(name).ids("prompt_ids", "prompt_lengths");
        let text = std::fs::read_to_string(goldens().join(name).join("beams.json")).expect("golden file");
        let cases: Vec<serde_json::Value> = serde_json::from_str(&text).expect("golden file");
        assert_eq!(cases.len(), 29);
        for case in cases {
            let dir = tempfile::tempdir().expect("temporary directory");
            // The settings are those of a generation_config.json.
            std::fs::write(dir.path().join("generation_config.json"), case["settings"].to_string()).expect("write");
            let stored = StoredDecoding::read(dir.path(), &Decoding::default()).expect("valid").expect("there");
            assert_eq!(stored.unsupported, Vec::<String>::new());
            let outputs: Vec<Vec<u32>> = serde_json::from_value(case["outputs"].clone()).expect("golden file");
            let together = generate(&model, &prompts, 0, &stored.decoding, &Stop::new()).expect("answers");
            assert_eq!(together, outputs, "{name}: {}", case["settings"]);
        }
    }
}

#[test]
fn sampling_depends_on_seed_and_prompt_but_not_on_the_batch() {
    let model = load("gated_untied", &device());
    let prompts: Vec<Vec<u32>> = vec![vec![5, 6, 7, 1], vec![9, 1], vec![9, 1]];
    let processors = Processors { temperature: 3.0, ..Processors::default() };
    let decoding = Decoding { sample: true, max_new_tokens: 30, seed: 7, processors, ..Decoding::default() };
    let together = generate(&model, &prompts, 0, &decoding, &Stop::new()).expect("answers");
    let apart: Vec<_> =
        (0..3).flat_map(|i| generate(&model, &prompts[i..=i], i, &decoding, &Stop::new()).expect("answers")).collect();
    assert_eq!(together, apart);
    assert_ne!(together[1], together[2], "equal prompts get different draws");
    let other = generate(&model, &prompts, 0, &Decoding { seed: 8, ..decoding }, &Stop::new()).expect("answers");
    assert_ne!(together, other);
}
