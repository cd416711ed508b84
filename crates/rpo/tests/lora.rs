//! Adapters against PEFT: scores and gradients, files in and out; and what becomes of the model that they change. The values
//! were made by `goldens/make_lora.py`.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use common::{Golden, data, device, goldens, load, pack, relative_error, token_log_probs};
use rpo::burn;
use rpo::feedback::{FeedbackSet, Split};
use rpo::generate::{Decoding, generate};
use rpo::model::checkpoint::{Checkpoint, StoredAs, save, save_adapter};
use rpo::model::lora::Lora;
use rpo::model::{Init, Model, NamedParameters, RandomWeights, Weights};
use rpo::objective::{DroConfig, ObjectiveConfig, RpoConfig};
use rpo::score::{LogProb, Scores, score};
use rpo::stop::Stop;
use rpo::train::optim::GradientSum;
use rpo::train::{State, Task, TrainConfig, fit, recompute};
use safetensors::SafeTensors;

const ADAPTED: [&str; 3] = ["gated_untied", "llama", "qwen2"];

fn adapter(name: &str) -> Golden {
    Golden::of(&format!("lora_{name}"))
}

/// The matrices of an adapter of PEFT by their names in an adapted model.
struct Peft(Vec<u8>);

impl Weights for Peft {
    fn get(&mut self, name: &str, shape: &[usize], _: Init) -> rpo::Result<Vec<f32>> {
        let tensors = SafeTensors::deserialize(&self.0).expect("safetensors");
        let tensor = tensors.tensor(&format!("base_model.model.{name}")).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(tensor.shape(), shape, "{name}");
        Ok(tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }
}

/// A golden model with the adapter of PEFT beside its matrices.
fn adapted(name: &str, lora: &Lora, device: &Device) -> Model {
    let file = goldens().join(format!("lora_{name}/adapter_model.safetensors"));
    lora.attach(load(name, device), &mut Peft(std::fs::read(file).expect("adapter"))).expect("fits")
}

fn settings(name: &str) -> Lora {
    match name {
        "gated_untied" => {
            Lora { rank: 4, alpha: Some(6.0), targets: ["q", "v", "wi_0", "wo"].map(String::from).to_vec() }
        }
        _ => Lora { rank: 3, ..Lora::default() },
    }
}

fn check(name: &str, model: &Model) {
    let batch = pack(model, &Golden::of(name).data());
    let (got, want) = (token_log_probs(model, &batch).into_data(), adapter(name).floats("token_log_probs"));
    let error = relative_error(&got, &want);
    assert!(error < 1e-5, "{name}: log-probabilities differ by {error}");
    let plain = token_log_probs(&load(name, &model.device()), &batch).into_data();
    assert!(relative_error(&plain, &want) > 1e-2, "{name}: the adapter changes something");
}

#[test]
fn an_adapter_of_peft_is_loaded_with_its_base_model() {
    for name in ADAPTED {
        let checkpoint = Checkpoint::open(&goldens().join(format!("lora_{name}"))).expect("an adapter");
        check(name, &checkpoint.load(&device()).expect("merged"));
    }
}

#[test]
fn scores_and_gradients_equal_peft_and_the_rest_is_frozen() {
    for name in ["gated_untied", "llama"] {
        let (base, golden) = (Golden::of(name), adapter(name));
        let tensors = SafeTensors::deserialize(&golden.0).expect("safetensors");
        let wanted: Vec<&str> = tensors.names().into_iter().filter_map(|n| n.strip_prefix("grad.")).collect();
        let weights = base.floats("loss_weights");
        let loss = |scores: &Scores| (scores.ell(LogProb::Mean) * scores.constant(&weights)).sum();
        for recomputed in [false, true] {
            let model = adapted(name, &settings(name), &device().autodiff());
            check(name, &model.inference());
            let batch = pack(&model, &base.data());
            let learner = rpo::score::Learner { policy: model, value: None };
            let mut sum = GradientSum::default();
            if recomputed {
                recompute::gradients(&learner, &batch, |scores| Ok(loss(scores)), &mut sum).expect("computed");
            } else {
                let loss: Tensor<1> = loss(&score(&learner.policy, &batch));
                assert!(relative_error(&loss.to_data(), &golden.floats("loss")) < 1e-5);
                sum.add(learner.gradients(&mut loss.backward()));
            }
            sum.squares().complete(&learner).expect("every trained parameter");
            let got: BTreeMap<&str, &Tensor<1>> =
                sum.by_name().iter().map(|(n, g)| (n.trim_start_matches("policy."), g)).collect();
            assert_eq!(got.len(), wanted.len(), "{name}: nothing else");
            for parameter in &wanted {
                let got: TensorData = got[parameter].clone().into_data();
                let error = relative_error(&got, &golden.floats(&format!("grad.{parameter}")));
                assert!(error < 1e-4, "{name}, {recomputed}: gradient of {parameter} differs by {error}");
            }
        }
    }
}

#[test]
fn few_tokens_and_many_are_adapted_alike() {
    // Few tokens go through the adapter by itself, many through the matrix with the adapter in it.
    for name in ["gated_untied", "llama"] {
        let (model, merged) = (adapted(name, &settings(name), &device()), merged(name));
        let prompts = Golden::of(name).ids("prompt_ids", "prompt_lengths");
        let answers =
            |model: &Model| generate(model, &prompts, 0, &Decoding::default(), &Stop::new()).expect("answers");
        assert_eq!(answers(&model), answers(&merged), "{name}");
    }
}

fn merged(name: &str) -> Model {
    Checkpoint::open(&goldens().join(format!("lora_{name}"))).and_then(|c| c.load(&device())).expect("merged")
}

fn values(model: &Model) -> BTreeMap<String, Vec<f32>> {
    let wide = |x: Tensor<1>| x.cast(FloatDType::F32).into_data().try_to_vec().expect("f32");
    model.parameters().into_iter().map(|p| (p.name, wide(p.values))).collect()
}

#[test]
fn a_saved_adapter_is_the_same_again_and_a_saved_model_is_merged() {
    for name in ["gated_untied", "llama"] {
        let dir = tempfile::tempdir().expect("temporary directory");
        let [alone, whole] = ["alone", "whole"].map(|n| dir.path().join(n));
        let (lora, base) = (settings(name), Checkpoint::open(&goldens().join(name)).expect("golden"));
        let model = adapted(name, &lora, &device());
        save_adapter(&model, &lora, &base, &alone, |_| Ok(())).expect("saved");
        save(&model, &base, StoredAs::F32, &whole, |_| Ok(())).expect("saved");
        for path in [&alone, &whole] {
            check(name, &Checkpoint::open(path).and_then(|c| c.load(&device())).expect("loads"));
        }
        let tensors = |path: &Path| std::fs::read(path).expect("adapter");
        let theirs = tensors(&goldens().join(format!("lora_{name}/adapter_model.safetensors")));
        let ours = tensors(&alone.join("adapter_model.safetensors"));
        let (theirs, ours) =
            (SafeTensors::deserialize(&theirs).expect("file"), SafeTensors::deserialize(&ours).expect("file"));
        assert_eq!(ours.names().len(), theirs.names().len());
        for key in theirs.names() {
            assert_eq!(ours.tensor(key).expect("the same keys").data(), theirs.tensor(key).expect("listed").data());
        }
    }
}

#[test]
fn adapters_of_some_layers_are_named_in_full() {
    let targets = vec!["layers.0.self_attn.q_proj".to_string(), "down_proj".to_string()];
    let lora = Lora { rank: 2, targets, ..Lora::default() };
    let base = Checkpoint::open(&goldens().join("llama")).expect("golden");
    let model = lora.attach(base.load(&device()).expect("loads"), &mut RandomWeights::new(0)).expect("fits");
    let dir = tempfile::tempdir().expect("temporary directory");
    save_adapter(&model, &lora, &base, &dir.path().join("a"), |_| Ok(())).expect("saved");
    let text = std::fs::read_to_string(dir.path().join("a/adapter_config.json")).expect("settings");
    let settings: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(settings["target_modules"], serde_json::json!(["down_proj", "model.layers.0.self_attn.q_proj"]));
}

#[test]
fn training_changes_adapters_alone_and_begins_at_the_base_model() {
    for name in ["gated_untied", "llama"] {
        let data = Split { train: rated(name), ..Split::default() };
        let start = load(name, &device().autodiff());
        let lora = Lora { rank: 2, ..Lora::default() };
        let config = TrainConfig { max_steps: Some(3), lora: lora.clone(), ..TrainConfig::default() };
        let fresh = lora.attach(start.clone(), &mut RandomWeights::new(config.seed)).expect("attached");
        let scores = |model: &Model| {
            let model = model.inference();
            token_log_probs(&model, &pack(&model, &data.train)).into_data().try_to_vec::<f32>().expect("f32")
        };
        assert_eq!(scores(&fresh), scores(&start), "{name}: an adapter begins as no change");
        let before = values(&start);
        for objective in [ObjectiveConfig::Rpo(RpoConfig::default()), ObjectiveConfig::Dro(DroConfig::default())] {
            let trained = fit(&objective, &start, data.clone(), &config, &mut []).expect("trains");
            let after = values(&trained);
            assert!(after.len() > before.len() && before.iter().all(|(name, values)| &after[name] == values), "{name}");
            assert_ne!(scores(&trained), scores(&start), "{name}");
            assert_eq!(values(&start), before);
            let task = Task::new(&objective, data.clone(), 1, |passes| passes.compute(&start, 512)).expect("defined");
            let state = State::begin(start.clone(), &task, &config).expect("valid");
            let adapters = state.learner.trained();
            assert!(adapters.iter().all(|p| p.name.contains("lora_") || p.name.starts_with("value.head")), "{name}");
        }
    }
}

fn rated(name: &str) -> FeedbackSet {
    with_rewards(Golden::of(name).data())
}

/// Two prompts with three responses each, of tokens that `model` has.
fn rated_by(model: &Model) -> FeedbackSet {
    let ids = |from: u32, n: u32| (from..from + n).map(|i| 2 + i * 7 % 19).collect::<Vec<u32>>();
    let prompts = [ids(1, 5), ids(4, 3)];
    let responses: Vec<Vec<u32>> = (0..6).map(|i| ids(i * 5, 2 + i)).collect();
    assert!(model.config().vocab_size() > 20);
    with_rewards(data(&prompts, &responses, &[0, 0, 0, 1, 1, 1]))
}

fn with_rewards(mut data: FeedbackSet) -> FeedbackSet {
    let responses = data.groups.iter_mut().flat_map(|group| &mut group.responses);
    responses.enumerate().for_each(|(i, response)| response.reward = [1.0, 0.0, 0.25][i % 3]);
    data
}

/// A model that is held in bfloat16 scores, learns and is saved as the same one in `f32` whose matrices were rounded before.
#[test]
fn a_model_held_in_bfloat16_is_its_rounded_self() {
    for name in ["gated_untied", "llama", "umt5"] {
        let dir = tempfile::tempdir().expect("temporary directory");
        let base = Checkpoint::open(&goldens().join(name)).expect("golden");
        let [rounded, saved] = ["rounded", "saved"].map(|n| dir.path().join(n));
        let wide = base.load(&device()).expect("loads");
        save(&wide, &base, StoredAs::Bf16, &rounded, |_| Ok(())).expect("saved");
        let training = device().autodiff();
        let held = Checkpoint::open(&rounded).expect("a model").load_rounded(&training).expect("loads");
        let want = Checkpoint::open(&rounded).and_then(|c| c.load(&training)).expect("loads");
        let [of_want, of_wide] = [values(&want), values(&wide)];
        assert_ne!(of_want, of_wide, "{name}: rounding changes something");
        // What is rounded when it is loaded is what is stored so.
        for p in base.load_rounded(&training).expect("loads").parameters() {
            if p.values.dtype() == DType::BF16 {
                let got: Vec<f32> = p.values.cast(FloatDType::F32).into_data().try_to_vec().expect("f32");
                assert_eq!(got, of_want[&p.name], "{name}: {}", p.name);
            }
        }
        let lora = Lora { rank: 2, ..Lora::default() };
        let config = TrainConfig { max_steps: Some(2), lora: lora.clone(), ..TrainConfig::default() };
        let data = Split { train: rated_by(&wide), ..Split::default() };
        let train = |start: &Model| {
            fit(&ObjectiveConfig::Dro(DroConfig::default()), start, data.clone(), &config, &mut []).expect("trains")
        };
        let (held, want) = (train(&held), train(&want));
        assert!(held.parameters().iter().any(|p| p.values.dtype() == DType::BF16), "{name}");
        for (key, values) in values(&want) {
            let got = &self::values(&held)[&key];
            let error = relative_error(&TensorData::new(got.clone(), [got.len()]), &values);
            assert!(error < 1e-5 || values.iter().all(|v| *v == 0.0), "{name}: {key} differs by {error}");
        }
        // Both are answered from and saved alike.
        let prompts: Vec<Vec<u32>> = data.train.groups.iter().map(|group| group.prompt.clone()).collect();
        let answers = |model: &Model| {
            generate(&model.inference(), &prompts, 0, &Decoding::default(), &Stop::new()).expect("answers")
        };
        assert_eq!(answers(&held), answers(&want), "{name}");
        save(&held, &base, StoredAs::Bf16, &saved, |_| Ok(())).expect("saved");
        Checkpoint::open(&saved).and_then(|c| c.load(&device())).expect("loads");
    }
}

/// Weights that are all this number.
struct Same(f32);

impl Weights for Same {
    fn get(&mut self, _: &str, shape: &[usize], _: Init) -> rpo::Result<Vec<f32>> {
        Ok(vec![self.0; shape.iter().product()])
    }
}

/// The weights are numbers of 16 bits, and what the adapter adds to each is far less than the way to the next.
#[test]
fn what_adapters_change_by_little_is_kept_in_the_mean_in_sixteen_bits() {
    for (stored_as, change) in [(StoredAs::Bf16, 1e-4), (StoredAs::F16, 2e-5)] {
        let dir = tempfile::tempdir().expect("temporary directory");
        let [start, whole, alone] = ["start", "whole", "alone"].map(|n| dir.path().join(n));
        let golden = Checkpoint::open(&goldens().join("llama")).expect("golden");
        save(&golden.load(&device()).expect("loads"), &golden, stored_as, &start, |_| Ok(())).expect("saved");
        let base = Checkpoint::open(&start).expect("a model");
        let before = base.load(&device()).expect("loads");
        let lora = Lora { rank: 1, alpha: Some(1.0), ..Lora::default() };
        let adapted = lora.attach(before.clone(), &mut Same(f32::sqrt(change))).expect("fits");
        save(&adapted, &base, stored_as, &whole, |_| Ok(())).expect("saved");
        save_adapter(&adapted, &lora, &base, &alone, |_| Ok(())).expect("saved");
        let mut after = vec![Checkpoint::open(&whole).and_then(|c| c.load(&device())).expect("loads")];
        if stored_as == StoredAs::Bf16 {
            after.push(Checkpoint::open(&alone).and_then(|c| c.load_rounded(&device())).expect("loads"));
        }
        for after in after {
            let (before, after) = (values(&before), values(&after));
            let maps = before.iter().filter(|(name, _)| name.contains("_proj"));
            let changes: Vec<f64> =
                maps.flat_map(|(name, w)| w.iter().zip(&after[name]).map(|(w, to)| f64::from(to - w))).collect();
            let mean = changes.iter().sum::<f64>() / changes.len() as f64;
            let moved = changes.iter().filter(|change| **change != 0.0).count();
            assert!(moved * 2 < changes.len(), "{stored_as:?}: {moved} of {} moved", changes.len());
            assert!((mean / f64::from(change) - 1.0).abs() < 0.1, "{stored_as:?}: {mean} for {change}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let model = || load("llama", &device());
    let lora = Lora { rank: 2, targets: vec!["q_proj".into(), "wi_0".into()], ..Lora::default() };
    let said = lora.attach(model(), &mut RandomWeights::new(0)).expect_err("no such map").to_string();
    assert!(said.contains("`wi_0`") && said.contains("down_proj, gate_proj, k_proj, o_proj, q_proj"), "{said}");
    let said = Lora { rank: 25, ..Lora::default() }.attach(model(), &mut RandomWeights::new(0)).expect_err("too high");
    assert!(said.to_string().contains("25 is above the rank of any matrix that is adapted, 24 at most"), "{said}");
    for off in [Lora { alpha: Some(2.0), ..Lora::default() }, Lora { targets: vec!["q".into()], ..Lora::default() }] {
        assert!(off.validate().expect_err("off").to_string().contains("`lora.rank` is 0"), "{off:?}");
    }

    let dir = tempfile::tempdir().expect("temporary directory");
    let copy = |name: &str| {
        let from = goldens().join("lora_llama").join(name);
        std::fs::copy(from, dir.path().join(name)).expect("copied");
    };
    copy("adapter_model.safetensors");
    let config = std::fs::read_to_string(goldens().join("lora_llama/adapter_config.json")).expect("settings");
    let load_with = |changes: &[(&str, &str)]| {
        let base = goldens();
        let text = changes.iter().fold(config.clone(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        let text = text.replace("../", &format!("{}/", base.display()));
        let text = text.replace("\"adapter\"", &format!("\"{}\"", dir.path().display()));
        std::fs::write(dir.path().join("adapter_config.json"), text).expect("written");
        Checkpoint::open(dir.path()).and_then(|c| c.load(&device())).map(|_| ()).map_err(|e| e.to_string())
    };
    load_with(&[]).expect("as it is");
    for (changes, wanted) in [
        (&[("../llama", "../qwen3")][..], "of the base model, which is 32 by 16: the adapter belongs to another model"),
        (&[("../llama", "../gated_untied")], "28 tensors change nothing that the base model has"),
        (&[("../llama", "../nothing")], "base_model_name_or_path is"),
        (&[("\"use_dora\": false", "\"use_dora\": true")], "use_dora is true, which is not supported"),
        (&[("\"LORA\"", "\"IA3\"")], "peft_type is `IA3`"),
        (&[("\"init_lora_weights\": false", "\"init_lora_weights\": \"pissa\"")], "also changes the base model"),
        (&[("\"lora_alpha\": 6", "\"lora_alpha\": null")], "lora_alpha is missing"),
        (
            &[("\"alpha_pattern\": {}", "\"alpha_pattern\": {\"^model.*q_proj\": 3}")],
            "`^model.*q_proj`, but only names",
        ),
        (
            &[("\"alpha_pattern\": {}", "\"alpha_pattern\": {\"q_proj\": 3, \"self_attn.q_proj\": 4}")],
            "two values in alpha_pattern, of `q_proj` and `self_attn.q_proj`",
        ),
        (&[("\"bias\": \"none\"", "\"bias\": \"lora_only\"")], "bias is \"lora_only\""),
        (&[("\"revision\": null", "\"revision\": \"v2\"")], "revision is \"v2\", which is not supported"),
        (&[("../llama", "adapter")], "8 adapters that change each other; is it a circle?"),
    ] {
        let said = load_with(changes).expect_err("refused");
        assert!(said.contains(wanted), "{said}");
    }
    let file = dir.path().join("adapter_model.safetensors");
    let whole = std::fs::read(&file).expect("tensors");
    let mut broken = whole.clone();
    let last = broken.len() - 4;
    broken[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&file, broken).expect("written");
    assert!(load_with(&[]).expect_err("broken").contains("holds NaN"));
    std::fs::write(&file, [2u64.to_le_bytes().as_slice(), b"{}"].concat()).expect("written");
    assert!(load_with(&[]).expect_err("empty").contains("it holds no tensor"));
    // A whole model beside an adapter is used as it is; with its settings alone, the adapter is.
    std::fs::write(&file, whole).expect("written");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(goldens().join("llama").join(name), dir.path().join(name)).expect("copied");
        let found = Checkpoint::open(dir.path()).expect("a model");
        assert_eq!(found.is_adapter(), name == "config.json");
    }
    for name in ["config.json", "model.safetensors"] {
        std::fs::remove_file(dir.path().join(name)).expect("removed");
    }
    std::fs::remove_file(&file).expect("removed");
    assert!(load_with(&[]).expect_err("gone").contains("adapter_model.safetensors"));
}
