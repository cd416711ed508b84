//! The loop end to end on a tiny model and data that the tests write themselves.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use burn::module::Module;
use burn::tensor::Device;
use rpo::burn;
use rpo::checkpoint::{Checkpoint, StoredAs, init};
use rpo::feedback::{FeedbackSet, Limits, ReadOptions, ReadSummary, Split};
use rpo::metrics::MetricsLog;
use rpo::objective::{DroConfig, GroupCentredConfig, KtoConfig, ObjectiveConfig, RpoConfig, SingleResponse};
use rpo::optim::{Adafactor, Algorithm, Optimizer, OptimizerConfig};
use rpo::reference::{ReferenceScores, References};
use rpo::score::LogProb;
use rpo::t5::Config;
use rpo::train::{Event, Observer, Progress, RunDir, Saving, Summary, TrainConfig, Trainer, learner};

const WORDS: [&str; 12] = ["red", "blue", "green", "one", "two", "three", "say", "yes", "no", "and", "or", "not"];

/// A directory with a tokenizer of whole words, data of 40 prompts with 1 to 3 responses, and a tiny fresh model.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let bench = Self { dir };
        std::fs::write(bench.path("tokenizer.json"), tokenizer_json()).expect("write");
        std::fs::write(bench.path("data.jsonl"), data()).expect("write");
        bench.init("model", 1);
        bench
    }

    fn init(&self, name: &str, seed: u64) {
        let text = r#"{"model_type":"t5","vocab_size":16,"d_model":16,"d_kv":8,"d_ff":32,"num_layers":1,"num_heads":2,
                       "feed_forward_proj":"gated-gelu","tie_word_embeddings":false}"#;
        let config = Config::parse(text).expect("valid");
        init(&config, &self.path("tokenizer.json"), seed, StoredAs::F32, &self.path(name)).expect("fresh model");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn data(&self) -> (Split, ReadSummary) {
        let tokenizer = self.checkpoint().tokenizer().expect("tokenizer");
        let limits = Limits { prompt_tokens: 32, response_tokens: 32 };
        let path = self.path("data.jsonl");
        let (data, summary) =
            FeedbackSet::read(&path, &ReadOptions::default(), &tokenizer, limits, &mut |_| ()).expect("data");
        (data.split(0.2, 1).expect("split"), summary)
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint::open(&self.path("model")).expect("model")
    }

    /// Trains into `out`, stopping after step `stop_after` if given, going on where `out` stopped if it exists.
    fn train(
        &self,
        out: &str,
        objective: &ObjectiveConfig,
        config: &TrainConfig,
        stop_after: Option<usize>,
    ) -> Summary {
        let device = Device::flex().autodiff();
        let origin = self.checkpoint();
        let (split, _) = self.data();
        let model = origin.load(&device).expect("model");
        let mut objective = objective.build().expect("valid");
        let needs = objective.needs();
        let mismatched = needs.mismatched.then(|| split.mismatched(1).expect("many prompts"));
        let scores = |split: &Split| ReferenceScores::compute(&model.valid(), split, 512, &mut |_| ());
        let references = References { matched: Some(scores(&split)), mismatched: mismatched.as_ref().map(scores) };
        objective.prepare(&split, &references).expect("defined");
        let path = self.path(out);
        let (run, (learner, optimizer, progress)) = if path.exists() {
            let run = RunDir::open(&path).expect("run");
            let state = run.resume(config, objective.as_mut(), &device).expect("resumes");
            (run, state)
        } else {
            let optimizer = Optimizer::new(config.optimizer.clone()).expect("valid");
            let learner = learner(model, needs, config.seed).expect("fresh");
            (RunDir::create(&path).expect("run"), (learner, optimizer, Progress::default()))
        };
        let mut log = MetricsLog::open(&run.path("metrics.jsonl"), progress.step).expect("log");
        let stop = AtomicBool::new(false);
        let mut stopper = Stopper { after: stop_after, stop: &stop };
        let saving = Some(Saving { run: &run, origin: &origin });
        let objective = objective.as_mut();
        let trainer = Trainer {
            objective,
            data: split,
            mismatched,
            references: &references,
            config,
            saving,
            judge: None,
            stop: &stop,
        };
        trainer.run(learner, optimizer, progress, &mut [&mut log, &mut stopper]).expect("trains").1
    }

    fn metrics(&self, out: &str) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.path(out).join("metrics.jsonl")).expect("metrics");
        let without_time = |line: &str| {
            let mut value: serde_json::Value = serde_json::from_str(line).expect("JSON");
            value.as_object_mut().expect("object").remove("seconds");
            value
        };
        text.lines().map(without_time).collect()
    }

    fn weights(&self, model: &str) -> Vec<u8> {
        std::fs::read(self.path(model).join("model.safetensors")).expect("weights")
    }
}

struct Stopper<'a> {
    after: Option<usize>,
    stop: &'a AtomicBool,
}

impl Observer for Stopper<'_> {
    fn observe(&mut self, event: &Event<'_>) -> rpo::Result<()> {
        if let Event::Step(report) = event
            && Some(report.step) == self.after
        {
            self.stop.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn tokenizer_json() -> String {
    let tokens: Vec<&str> = ["<pad>", "</s>", "<unk>"].into_iter().chain(WORDS).collect();
    let vocab: serde_json::Map<String, serde_json::Value> =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_string(), id.into())).collect();
    let special = |id: usize| {
        serde_json::json!({"id": id, "content": tokens[id], "single_word": false, "lstrip": false, "rstrip": false,
                           "normalized": false, "special": true})
    };
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special(0), special(1), special(2)],
        "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}
    })
    .to_string()
}

/// The more often a response says "yes", the better.
fn data() -> String {
    let mut text = String::new();
    for i in 0..40 {
        let prompt = format!("say {} {} {}", WORDS[i % 3], WORDS[3 + i / 3 % 3], WORDS[9 + i / 9 % 3]);
        let prompt = if i < 27 { prompt } else { format!("{prompt} {}", WORDS[i % 12]) };
        let responses: Vec<serde_json::Value> = [("yes yes", 2.0), ("no", -1.0), ("yes no or", 0.5)]
            .into_iter()
            .take(1 + i % 3)
            .map(|(text, reward)| serde_json::json!({"text": text, "reward": reward}))
            .collect();
        text += &serde_json::json!({"prompt": prompt, "responses": responses}).to_string();
        text += "\n";
    }
    text
}

fn rpo() -> ObjectiveConfig {
    ObjectiveConfig::Rpo(RpoConfig { tau: 1.0, ..RpoConfig::default() })
}

fn config(max_steps: usize) -> TrainConfig {
    let optimizer = OptimizerConfig { learning_rate: 3e-3, ..OptimizerConfig::default() };
    TrainConfig {
        max_steps: Some(max_steps),
        batch_size: 16,
        validate_every: Some(3),
        optimizer,
        ..TrainConfig::default()
    }
}

#[test]
fn every_objective_lowers_its_held_out_loss() {
    let bench = Bench::new();
    for (name, _) in ObjectiveConfig::ALL {
        let objective = if name == "rpo" { rpo() } else { ObjectiveConfig::named(name).expect("listed") };
        let summary = bench.train(name, &objective, &config(30), None);
        let first = summary.progress.first_validation.expect("validated");
        let (best, step) = summary.progress.best.expect("validated");
        // KTO's loss is bounded and saturates slowly at its default beta.
        let share = if name == "kto" { 0.95 } else { 0.5 };
        assert!(best < share * first, "{name}: {first} before, {best} at step {step}");
        assert!(!summary.interrupted);
        for model in ["best", "last"] {
            let saved = Checkpoint::open(&bench.path(name).join(model)).expect("saved");
            saved.load(&Device::flex()).expect("loads");
            saved.tokenizer().expect("carries its tokenizer");
        }
    }
}

#[test]
fn the_first_validation_needs_no_pass_and_says_the_same() {
    let bench = Bench::new();
    // At this rate nothing moves: the validation after the step scores what is still the reference.
    let optimizer = OptimizerConfig { learning_rate: 1e-12, ..OptimizerConfig::default() };
    let config = TrainConfig { optimizer, ..config(1) };
    for (name, _) in ObjectiveConfig::ALL {
        let objective = ObjectiveConfig::named(name).expect("listed");
        let summary = bench.train(name, &objective, &config, None);
        let (first, last) = (summary.progress.first_validation, summary.progress.last_validation);
        let (first, last) = (first.expect("validated"), last.expect("validated"));
        assert!((first - last).abs() < 1e-4 * (1.0 + last.abs()), "{name}: {first} and {last}");
    }
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one_bit_for_bit() {
    let adafactor = OptimizerConfig { algorithm: Algorithm::Adafactor(Adafactor::default()), ..config(8).optimizer };
    for (objective, optimizer) in [
        (rpo(), config(8).optimizer),
        // A value network with its own optimizer state, mismatched pairs, whole prompts.
        (ObjectiveConfig::Dro(DroConfig { value_learning_rate: Some(1e-2), ..DroConfig::default() }), adafactor),
        (ObjectiveConfig::Kto(KtoConfig::default()), config(8).optimizer),
        (ObjectiveConfig::GroupCentred(GroupCentredConfig::default()), config(8).optimizer),
    ] {
        let bench = Bench::new();
        let config = TrainConfig { optimizer, ..config(8) };
        bench.train("whole", &objective, &config, None);
        // Step 4 is no validation step: what was saved there is saved because of the interruption.
        let stopped = bench.train("parts", &objective, &config, Some(4));
        assert!(stopped.interrupted && stopped.progress.step == 4);
        bench.train("parts", &objective, &config, None);
        assert_eq!(bench.weights("parts/last"), bench.weights("whole/last"), "{}", objective.name());
        assert_eq!(bench.weights("parts/best"), bench.weights("whole/best"), "{}", objective.name());
        assert_eq!(bench.metrics("parts"), bench.metrics("whole"), "{}", objective.name());
    }
}

#[test]
fn single_responses_can_be_left_out() {
    let bench = Bench::new();
    let config = TrainConfig { max_steps: None, epochs: 1, batch_size: 1, validate_every: Some(1000), ..config(0) };
    let with = |single_response| ObjectiveConfig::Rpo(RpoConfig { single_response, ..RpoConfig::default() });
    let all = bench.train("all", &with(SingleResponse::Global), &config, None);
    let some = bench.train("some", &with(SingleResponse::Drop), &config, None);
    let (split, _) = bench.data();
    let singles = split.train.groups.iter().filter(|g| g.responses.len() == 1).count();
    assert!(singles > 0);
    assert_eq!(all.progress.step, split.train.responses());
    assert_eq!(some.progress.step, split.train.responses() - singles);
}

#[test]
fn reference_scores_are_cached_and_never_stale() {
    let bench = Bench::new();
    let cache = bench.path("cache");
    let (split, _) = bench.data();
    let scores = |model: &Path, split: &Split| {
        let model = Checkpoint::open(model).and_then(|c| c.load(&Device::flex())).expect("model");
        ReferenceScores::cached(&model, split, 512, &cache, &mut |_| ()).expect("scores")
    };
    let (first, cached) = scores(&bench.path("model"), &split);
    assert!(!cached);
    assert_eq!(scores(&bench.path("model"), &split), (first.clone(), true));
    bench.init("other", 2);
    let (other, cached) = scores(&bench.path("other"), &split);
    assert!(!cached && other != first, "other weights");
    let mut changed = split.clone();
    changed.train.groups[0].responses[0].ids[0] = 5;
    assert!(!scores(&bench.path("model"), &changed).1, "other data");
    // A batch budget is no input: it must not change the values.
    let model = bench.checkpoint().load(&Device::flex()).expect("model");
    let small = ReferenceScores::compute(&model, &split, 1, &mut |_| ());
    for row in 0..first.len() {
        let (a, b) = (first.ell(row, LogProb::Sum), small.ell(row, LogProb::Sum));
        assert!((a - b).abs() < 1e-4, "row {row}: {a} and {b}");
    }
    // A damaged file is computed again.
    for file in std::fs::read_dir(&cache).expect("cache") {
        std::fs::write(file.expect("entry").path(), b"damaged").expect("write");
    }
    assert_eq!(scores(&bench.path("model"), &split), (first, false));
}

#[test]
fn an_output_directory_that_exists_is_refused() {
    let bench = Bench::new();
    let said = RunDir::create(&bench.path("model")).expect_err("exists").to_string();
    assert!(said.contains("already exists"), "{said}");
}
