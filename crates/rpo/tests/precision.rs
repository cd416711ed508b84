//! Products in bfloat16: scores and gradients stay near those in f32, what is trained goes on alike, and the reference's scores are
//! kept apart.

mod common;

use std::collections::BTreeMap;

use common::{Golden, data, device, goldens, load, pack};
use rpo::burn::module::Module;
use rpo::burn::tensor::{FloatDType, Tensor};
use rpo::device::Precision;
use rpo::feedback::{FeedbackSet, Split};
use rpo::model::checkpoint::Checkpoint;
use rpo::model::{Compute, Config, Model, NamedParameters, RandomWeights};
use rpo::objective::ObjectiveConfig;
use rpo::reference::{Cached, ReferenceCache, ReferenceScores};
use rpo::score::{Learner, LogProb, score};
use rpo::train::optim::GradientSum;
use rpo::train::recompute::gradients as recomputed;
use rpo::train::{TrainConfig, fit};

/// Whether there is something to test here; says so if not.
fn computes() -> bool {
    let computes = Precision::Bf16.on(&device(), 0) == Compute::Bf16;
    if !computes {
        eprintln!("skipped: this device has no products in bfloat16");
    }
    computes
}

/// `ell` of every response, and the gradients of their weighted sum.
fn of(model: &Model, data: &FeedbackSet, weights: &[f32], recompute: bool) -> (Vec<f32>, BTreeMap<String, Vec<f32>>) {
    let batch = pack(model, data);
    let loss = |ell: Tensor<1>| -> Tensor<1> {
        let weights = Tensor::from_floats(weights, &ell.device());
        (ell * weights).sum()
    };
    let host = |x: Tensor<1>| x.into_data().try_to_vec::<f32>().expect("f32");
    let ell = score(model, &batch).ell(LogProb::Mean);
    let mut found = BTreeMap::new();
    if recompute {
        let learner = Learner { policy: model.clone(), value: None };
        let mut sum = GradientSum::default();
        recomputed(&learner, &batch, |scores| Ok(loss(scores.ell(LogProb::Mean))), &mut sum).expect("computed");
        for (name, gradient) in sum.by_name() {
            found.insert(name.trim_start_matches("policy.").to_string(), host(gradient.clone()));
        }
    } else {
        for (name, gradient) in model.gradients(&mut loss(ell.clone()).backward()) {
            found.insert(name, host(gradient.expect("reached")));
        }
    }
    (host(ell), found)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// A T5 and a Llama wide enough that all their products are worth rounding.
fn wide() -> Vec<(&'static str, Model)> {
    let t5 = r#"{"model_type": "t5", "vocab_size": 300, "d_model": 96, "d_kv": 16, "d_ff": 160, "num_layers": 2, "num_decoder_layers": 2,
        "num_heads": 6, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false}"#;
    let llama = r#"{"model_type": "llama", "vocab_size": 300, "hidden_size": 96, "head_dim": 32, "intermediate_size": 160, "num_hidden_layers": 2,
        "num_attention_heads": 6, "num_key_value_heads": 3, "tie_word_embeddings": true, "rms_norm_eps": 1e-5}"#;
    [("t5", t5), ("llama", llama)]
        .map(|(name, config)| {
            let config = Config::parse(config).expect("valid");
            (name, Model::new(&config, &mut RandomWeights::new(3), &device().autodiff()).expect("random"))
        })
        .into()
}

fn texts() -> FeedbackSet {
    let ids =
        |seed: usize, n: usize| -> Vec<u32> { (0..n).map(|i| (3 + (i * 79 + seed * 131) % 290) as u32).collect() };
    let prompts: Vec<Vec<u32>> = (0..6).map(|i| ids(i, 20 + 7 * i)).collect();
    let responses: Vec<Vec<u32>> = (0..18).map(|i| ids(100 + i, 5 + 3 * i)).collect();
    let mut set = data(&prompts, &responses, &(0..18).map(|i| i / 3).collect::<Vec<_>>());
    let all = set.groups.iter_mut().flat_map(|group| &mut group.responses);
    all.enumerate().for_each(|(i, response)| response.reward = (i * 7 % 5) as f64);
    set
}

#[test]
fn scores_and_gradients_stay_near_those_in_f32() {
    if !computes() {
        return;
    }
    let goldens = ["gated_untied", "relu_tied", "llama", "qwen3"].map(|name| {
        let golden = Golden::of(name);
        (name, load(name, &device().autodiff()), golden.data(), golden.floats("loss_weights"))
    });
    let weights: Vec<f32> = (0..18).map(|i| (i % 5) as f32 - 2.0).collect();
    let wide = wide().into_iter().map(|(name, model)| (name, model, texts(), weights.clone()));
    for (name, model, data, weights) in goldens.into_iter().chain(wide) {
        let (ell, plain) = of(&model, &data, &weights, false);
        let model = model.with_compute(Compute::Bf16);
        for recompute in [false, true] {
            let (rounded, gradients) = of(&model, &data, &weights, recompute);
            let apart = ell.iter().zip(&rounded).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
            // The goldens have large random weights.
            assert!(apart > 0.0 && apart < 0.06, "{name}: {apart} nats a token apart");
            assert_eq!(gradients.len(), plain.len(), "{name}");
            for (parameter, gradient) in &plain {
                let cosine = cosine(gradient, &gradients[parameter]);
                assert!(cosine > 0.99, "{name}, recompute {recompute}: {parameter} has cosine {cosine}");
            }
        }
        assert_eq!(model.valid().compute(), Compute::Bf16, "{name}: out of the graph too");
    }
}

#[test]
fn training_goes_as_in_f32_and_every_run_is_the_same() {
    if !computes() {
        return;
    }
    for (name, start) in wide() {
        let rounded = start.clone().with_compute(Compute::Bf16);
        let mut config = TrainConfig { epochs: 4, batch_size: 6, ..TrainConfig::default() };
        config.optimizer.learning_rate = 3e-3;
        for objective in ["rpo", "sft", "dro", "kto"] {
            let objective = ObjectiveConfig::named(objective).expect("an objective");
            let train = |start: &Model| {
                let split = Split { train: texts(), ..Split::default() };
                fit(&objective, start, split, &config, &mut []).expect("trains")
            };
            let [plain, once, twice] = [train(&start), train(&rounded), train(&rounded)];
            let ell = |model: &Model| -> Vec<f32> {
                let model = model.valid().with_compute(Compute::F32);
                let ell = score(&model, &pack(&model, &texts())).ell(LogProb::Mean);
                ell.into_data().try_to_vec().expect("f32")
            };
            let [before, plain, once, twice] = [ell(&start), ell(&plain), ell(&once), ell(&twice)];
            assert_eq!(once, twice, "{name}, {objective:?}: the same run twice");
            let moved = |to: &[f32]| -> Vec<f32> { to.iter().zip(&before).map(|(to, from)| to - from).collect() };
            let along = cosine(&moved(&plain), &moved(&once));
            assert!(along > 0.9, "{name}, {objective:?}: scores move along each other by {along}");
        }
    }
}

/// Most published models are numbers of bfloat16, which a step moves by far less than the way to the next.
#[test]
fn small_changes_of_weights_in_bfloat16_are_seen() {
    if !computes() {
        return;
    }
    for (name, start) in wide() {
        let start = start.map_parameters(|_, _, values| values.cast(FloatDType::BF16).cast(FloatDType::F32));
        let mut config = TrainConfig { epochs: 1, batch_size: 6, ..TrainConfig::default() };
        config.optimizer.learning_rate = 2e-5;
        config.warmup_steps = Some(0);
        let ell = |model: &Model| -> Vec<f32> {
            let model = model.valid();
            score(&model, &pack(&model, &texts())).ell(LogProb::Sum).into_data().try_to_vec().expect("f32")
        };
        let [plain, rounded] = [Compute::F32, Compute::Bf16].map(|compute| {
            let start = start.clone().with_compute(compute);
            let split = Split { train: texts(), ..Split::default() };
            let objective = ObjectiveConfig::named("sft").expect("an objective");
            let trained = fit(&objective, &start, split, &config, &mut []).expect("trains");
            ell(&trained).iter().zip(ell(&start)).map(|(to, from)| to - from).collect::<Vec<f32>>()
        });
        let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let (along, far) = (cosine(&plain, &rounded), norm(&rounded) / norm(&plain));
        assert!(along > 0.98 && (far - 1.0).abs() < 0.1, "{name}: {along} along and {far} as far as in f32");
    }
}

#[test]
fn reference_scores_are_kept_by_precision() {
    if !computes() {
        return;
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    let model = Checkpoint::open(&goldens().join("llama")).and_then(|c| c.load(&device())).expect("golden");
    let split = Split { train: Golden::of("llama").data(), ..Split::default() };
    let cached = |compute| {
        let model = model.clone().with_compute(compute);
        let cache = ReferenceCache::new(dir.path(), &model).expect("a cache");
        ReferenceScores::cached(&model, &split, 1000, &cache, &rpo::world::Alone, &mut |_| Ok(())).expect("scores").1
    };
    let seen = [Compute::F32, Compute::Bf16, Compute::F32, Compute::Bf16].map(cached);
    assert_eq!(seen, [Cached::Left, Cached::Left, Cached::Found, Cached::Found]);
}
