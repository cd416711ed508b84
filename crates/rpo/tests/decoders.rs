//! Decoder-only models against Hugging Face transformers: logits, log-probabilities, the gradient of every parameter, answers;
//! and prompts that are shared by their responses against ones that are not. The values were made by
//! `goldens/make_decoders.py`.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Tensor;
use common::{Case, Golden, cases, check_answers, data, device, goldens, load, pack, relative_error, token_log_probs};
use rpo::burn;
use rpo::feedback::{FeedbackSet, PromptGroup, Response};
use rpo::generate::{Decoding, generate};
use rpo::model::checkpoint::{Checkpoint, StoredAs, save};
use rpo::model::{Model, NamedParameters, PackedModel, Parameter, Precision};
use rpo::score::{Learner, LogProb, Scores, score, score_set};
use rpo::stop::Stop;
use rpo::train::optim::GradientSum;
use rpo::train::recompute::gradients;
use safetensors::SafeTensors;
use serde::Deserialize;

const MODELS: [&str; 5] = ["llama", "llama3", "qwen2", "qwen3", "yarn"];

#[test]
fn logits_and_log_probs_equal_transformers() {
    for name in MODELS {
        let (golden, model) = (Golden::of(name), load(name, &device()));
        let batch = pack(&model, &golden.data());
        let logits = model.forward(&batch).responses.matmul(model.head().transpose());
        let error = relative_error(&logits.into_data(), &golden.floats("logits"));
        assert!(error < 1e-5, "{name}: logits differ by {error}");
        let error = relative_error(&token_log_probs(&model, &batch).into_data(), &golden.floats("token_log_probs"));
        assert!(error < 1e-5, "{name}: log-probabilities differ by {error}");
    }
}

/// The gradients of the golden loss, plainly or recomputed.
fn gradients_of(model: Model, golden: &Golden, recompute: bool) -> BTreeMap<String, Option<Tensor<1>>> {
    let batch = pack(&model, &golden.data());
    let weights = golden.floats("loss_weights");
    let learner = Learner { policy: model, value: None };
    let loss = |scores: &Scores| (scores.ell(LogProb::Mean) * scores.constant(&weights)).sum();
    if recompute {
        let mut sum = GradientSum::default();
        gradients(&learner, &batch, |scores| Ok(loss(scores)), &mut sum).expect("computed");
        let named = |(name, gradient): (&String, &Tensor<1>)| {
            (name.trim_start_matches("policy.").to_string(), Some(gradient.clone()))
        };
        return sum.by_name().iter().map(named).collect();
    }
    let loss: Tensor<1> = loss(&score(&learner.policy, &batch));
    let error = relative_error(&loss.to_data(), &golden.floats("loss"));
    assert!(error < 1e-5, "loss differs by {error}");
    learner.policy.gradients(&mut loss.backward()).into_iter().collect()
}

#[test]
fn the_gradient_of_every_parameter_equals_pytorch() {
    for name in MODELS {
        let golden = Golden::of(name);
        for recompute in [false, true] {
            let got = gradients_of(load(name, &device().autodiff()), &golden, recompute);
            let tensors = SafeTensors::deserialize(&golden.0).expect("safetensors");
            let wanted: Vec<&str> = tensors.names().into_iter().filter_map(|n| n.strip_prefix("grad.")).collect();
            assert_eq!(wanted.len(), got.len(), "{name}: the same parameters");
            for parameter in wanted {
                let got = got.get(parameter).cloned().flatten().unwrap_or_else(|| panic!("{name}: no {parameter}"));
                let error = relative_error(&got.into_data(), &golden.floats(&format!("grad.{parameter}")));
                assert!(error < 1e-4, "{name}, recompute {recompute}: gradient of {parameter} differs by {error}");
            }
        }
    }
}

#[test]
fn a_shared_prompt_changes_no_score() {
    for name in MODELS {
        let (golden, model) = (Golden::of(name), load(name, &device()));
        let shared = golden.data();
        let mut apart = FeedbackSet::default();
        for group in &shared.groups {
            let alone = |r: &Response| PromptGroup { responses: vec![r.clone()], ..group.clone() };
            apart.groups.extend(group.responses.iter().map(alone));
        }
        let scores = |data: &FeedbackSet| {
            let mut scores = score_set(&model, data, 10_000, &mut |_| Ok(())).expect("scored");
            scores.sort_unstable_by_key(|(row, _)| *row);
            scores
        };
        for ((row, shared), (_, apart)) in scores(&shared).into_iter().zip(scores(&apart)) {
            assert!((shared - apart).abs() < 1e-4 * apart.abs(), "{name}, {row}: {shared} and {apart}");
        }
    }
}

#[test]
fn answers_equal_transformers_token_for_token() {
    for name in MODELS {
        let prompts = Golden::of(name).ids("prompt_ids", "prompt_lengths");
        check_answers(name, &load(name, &device()), &prompts, &cases(name));
    }
}

/// Of one token nothing is read before the first step.
#[test]
fn a_prompt_of_one_token_is_answered() {
    let model = load("llama", &device());
    let decoding = Decoding { max_new_tokens: 6, ..Decoding::default() };
    let answer = |prompts: &[Vec<u32>]| generate(&model, prompts, 0, &decoding, &Stop::new()).expect("answers");
    let first = answer(&[vec![3]])[0].clone();
    // What goes on from the prompt and its answer's first token is what went on before.
    assert_eq!(answer(&[vec![3, first[0]]])[0][..5], first[1..]);
    let said = generate(&model, &[vec![3], vec![]], 0, &decoding, &Stop::new()).expect_err("nothing");
    assert!(said.to_string().contains("prompt 2 has no token"), "{said}");
}

/// Lengths of a generation_config.json count the prompt of a decoder-only model.
#[test]
fn lengths_count_the_prompt() {
    let model = load("llama", &device());
    let decoding = Decoding { max_length: Some(7), min_length: Some(7), ..Decoding::default() };
    let answers = generate(&model, &[vec![3, 4, 5], vec![3; 9]], 0, &decoding, &Stop::new()).expect("answers");
    assert_eq!(answers.iter().map(Vec::len).collect::<Vec<_>>(), [4, 1]);
}

/// Rounding must not make numbers of what is none.
#[test]
fn a_model_with_broken_weights_is_refused() {
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        let broken = load("llama", &device()).map_parameters(|name, _, values| match name {
            "model.layers.0.mlp.down_proj.weight" => values * f32::NAN,
            _ => values,
        });
        let said = PackedModel::of(&broken, precision).map(drop).expect_err("broken").to_string();
        assert!(said.contains("model.layers.0.mlp.down_proj.weight") && said.contains("NaN"), "{said}");
    }
}

#[test]
fn a_saved_model_is_the_same_again() {
    for name in MODELS {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (origin, out) = (Checkpoint::open(&goldens().join(name)).expect("golden"), dir.path().join("saved"));
        let model = origin.load(&device()).expect("loads");
        save(&model, &origin, StoredAs::F32, &out, |_| Ok(())).expect("saved");
        let again = Checkpoint::open(&out).and_then(|c| c.load(&device())).expect("loads");
        let values = |model: &Model| -> Vec<(String, Vec<f32>)> {
            let of = |p: Parameter| (p.name, p.values.into_data().try_to_vec().expect("f32"));
            model.parameters().into_iter().map(of).collect()
        };
        assert_eq!(values(&again), values(&model), "{name}");
    }
}

/// What `make_decoders.py NAME=DIRECTORY` wrote of a checkpoint elsewhere.
#[derive(Deserialize)]
struct Elsewhere {
    prompts: Vec<Vec<u32>>,
    responses: Vec<Vec<u32>>,
    response_prompt: Vec<usize>,
    log_probs: Vec<f64>,
    generation: Vec<Case>,
}

fn check_elsewhere(name: &str, dir: &Path) {
    let model = Checkpoint::open(dir).and_then(|c| c.load(&device())).expect("a model");
    let text = std::fs::read_to_string(goldens().join(name).with_extension("json")).expect("a golden file");
    let golden: Elsewhere = serde_json::from_str(&text).expect("JSON");
    let data = data(&golden.prompts, &golden.responses, &golden.response_prompt);
    for (row, sum) in score_set(&model, &data, 10_000, &mut |_| Ok(())).expect("scored") {
        let want = golden.log_probs[row];
        assert!((f64::from(sum) - want).abs() < 1e-5 * want.abs(), "{name}, {row}: {sum} instead of {want}");
    }
    check_answers(name, &model, &golden.prompts, &golden.generation);
}

/// A real model of 260,000 parameters.
#[test]
fn the_stories_model_scores_and_answers_as_transformers() {
    match std::env::var_os("RPO_ASSETS") {
        Some(assets) => check_elsewhere("stories", &Path::new(&assets).join("decoder/stories260k-hf")),
        None => eprintln!("skipped: RPO_ASSETS is not set"),
    }
}

/// SmolLM2-135M-Instruct, where `RPO_SMOLLM2` names its directory.
#[test]
fn smollm2_scores_and_answers_as_transformers() {
    match std::env::var_os("RPO_SMOLLM2") {
        Some(dir) => check_elsewhere("smollm2", Path::new(&dir)),
        None => eprintln!("skipped: RPO_SMOLLM2 is not set"),
    }
}
