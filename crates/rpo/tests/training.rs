//! The loop end to end on a tiny model and data that the tests write themselves.

mod common;

use std::path::{Path, PathBuf};

use common::device;

use rpo::chat::Chat;
use rpo::feedback::{FeedbackSet, Limits, ReadOptions, ReadSummary, Split};
use rpo::model::checkpoint::{Checkpoint, StoredAs, init};
use rpo::model::lora::Lora;
use rpo::model::{Config, NamedParameters};
use rpo::objective::{
    DroConfig, GroupCentredConfig, KtoConfig, Loss, Needs, Objective, ObjectiveConfig, Preparation, RpoConfig,
    SftConfig, SftRows, SingleResponse, Step,
};
use rpo::reference::{Cached, ReferenceCache, ReferenceScores, References};
use rpo::score::{LogProb, Scores, Seen};
use rpo::stop::Stop;
use rpo::tokenizer::word_level;
use rpo::train::optim::{Adafactor, Algorithm, OptimizerConfig};
use rpo::train::record::{MetricsLog, Reader};
use rpo::train::{
    Answered, BestBy, Event, Judge, Observer, OnBadStep, Passes, RunDir, SaveEvery, Saving, State, Summary, Task,
    TrainConfig, Trainer,
};
use rpo::world::{Alone, World};

const WORDS: [&str; 12] = ["red", "blue", "green", "one", "two", "three", "say", "yes", "no", "and", "or", "not"];

/// A directory with a tokenizer of whole words, data of 40 prompts with 1 to 3 responses, and a tiny fresh model.
struct Bench {
    dir: tempfile::TempDir,
    /// A row on which every objective's loss is infinite.
    poisoned: Option<usize>,
}

/// An objective whose loss is infinite on a row.
struct Poisoned(Box<dyn Objective>, usize);

impl Objective for Poisoned {
    fn needs(&self) -> Needs {
        self.0.needs()
    }

    fn prepare(&mut self, split: &Split, references: &References) -> rpo::Result<Preparation> {
        self.0.prepare(split, references)
    }

    fn uses(&self, row: usize) -> bool {
        self.0.uses(row)
    }

    fn loss(&self, scores: &Scores, step: Step<'_>) -> rpo::Result<Loss> {
        let loss = self.0.loss(scores, step)?;
        let factor = if scores.rows.contains(&self.1) { f32::INFINITY } else { 1.0 };
        Ok(Loss { sum: loss.sum * factor, ..loss })
    }

    fn follow(&mut self, policy: &[Seen]) {
        self.0.follow(policy);
    }

    fn memory(&self) -> &[f32] {
        self.0.memory()
    }

    fn recall(&mut self, memory: &[f32]) {
        self.0.recall(memory);
    }
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let bench = Self { dir, poisoned: None };
        std::fs::write(bench.path("tokenizer.json"), word_level(&WORDS)).expect("write");
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
        let tokenizer = self.checkpoint().tokenizer(Chat::default()).expect("tokenizer");
        let limits = Limits { prompt_tokens: 32, response_tokens: 32, cut_prompts: rpo::tokenizer::Cut::End };
        let path = self.path("data.jsonl");
        let (data, summary) =
            FeedbackSet::read(&path.as_path().into(), &ReadOptions::default(), &tokenizer, limits, &mut |_| ())
                .expect("data");
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
        self.try_train(out, objective, config, stop_after, None).expect("trains")
    }

    fn try_train(
        &self,
        out: &str,
        objective: &ObjectiveConfig,
        config: &TrainConfig,
        stop_after: Option<usize>,
        judge: Option<&Judge<'_>>,
    ) -> rpo::Result<Summary> {
        let stop = Stop::new();
        let mut stopper = Stopper { after: stop_after, stop: &stop };
        self.watched_train(out, objective, config, &stop, &mut stopper, judge)
    }

    /// With an observer that may wish to stop.
    fn watched_train(
        &self,
        out: &str,
        objective: &ObjectiveConfig,
        config: &TrainConfig,
        stop: &Stop,
        observer: &mut dyn Observer,
        judge: Option<&Judge<'_>>,
    ) -> rpo::Result<Summary> {
        self.joint_train(&Alone, out, objective, config, stop, observer, judge)
    }

    /// As one of the ranks of `world`, of which the first keeps the run.
    #[allow(clippy::too_many_arguments)] // Each is what a test varies.
    fn joint_train(
        &self,
        world: &dyn World,
        out: &str,
        objective: &ObjectiveConfig,
        config: &TrainConfig,
        stop: &Stop,
        observer: &mut dyn Observer,
        judge: Option<&Judge<'_>>,
    ) -> rpo::Result<Summary> {
        let device = device().autodiff();
        let origin = self.checkpoint();
        let (split, _) = self.data();
        let model = origin.load(&device).expect("model");
        let passes = |passes: &Passes<'_>| passes.compute(&model, 512);
        let mut task = Task::new(objective, split, 1, passes).expect("defined");
        if let Some(row) = self.poisoned {
            task.objective = Box::new(Poisoned(task.objective, row));
        }
        if !world.leads() {
            let state = State::begin(model, &task, config)?;
            let trainer = Trainer { task, config, saving: None, judge, stop, world };
            return Ok(trainer.run(state, &mut [observer])?.1);
        }
        let path = self.path(out);
        let (run, state) = if path.exists() {
            let run = RunDir::open(&path)?;
            let state = run.resume(config, &mut task, model)?;
            (run, state)
        } else {
            let state = State::begin(model, &task, config).expect("valid");
            (RunDir::create(&path).expect("run"), state)
        };
        let log = MetricsLog::open(&run.path("metrics.jsonl"), &state.progress).expect("log");
        let mut log = log.with_answers(Reader::new(origin.tokenizer(Chat::default()).expect("tokenizer")));
        let saving = Some(Saving { run: &run, origin: &origin });
        let trainer = Trainer { task, config, saving, judge, stop, world };
        Ok(trainer.run(state, &mut [&mut log, observer])?.1)
    }

    /// The lines of a part of the record.
    fn lines(&self, out: &str, split: &str) -> Vec<serde_json::Value> {
        self.metrics(out).into_iter().filter(|line| line["split"] == split).collect()
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

    /// The weights of a model or of an adapter.
    fn weights(&self, model: &str) -> Vec<u8> {
        let names = ["adapter_model.safetensors", "model.safetensors"].map(|name| self.path(model).join(name));
        std::fs::read(names.iter().find(|path| path.is_file()).expect("weights")).expect("readable")
    }
}

struct Stopper<'a> {
    after: Option<usize>,
    stop: &'a Stop,
}

impl Observer for Stopper<'_> {
    fn observe(&mut self, event: &Event<'_>) -> rpo::Result<()> {
        if let Event::Step(report) = event
            && Some(report.step) == self.after
        {
            self.stop.request();
        }
        Ok(())
    }
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
            saved.load(&device()).expect("loads");
            saved.tokenizer(Chat::default()).expect("carries its tokenizer");
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
    // A value network with its own optimizer state, mismatched pairs, whole prompts.
    let dro = ObjectiveConfig::Dro(DroConfig { value_learning_rate: Some(1e-2), ..DroConfig::default() });
    for (objective, optimizer, rank) in [
        (rpo(), config(8).optimizer, 0),
        (rpo(), config(8).optimizer, 2),
        (dro.clone(), adafactor.clone(), 0),
        (dro, adafactor, 2),
        (ObjectiveConfig::Kto(KtoConfig::default()), config(8).optimizer, 0),
        (ObjectiveConfig::GroupCentred(GroupCentredConfig::default()), config(8).optimizer, 0),
    ] {
        let bench = Bench::new();
        let lora = Lora { rank, ..Lora::default() };
        let config = TrainConfig { optimizer, lora, sample_every: Some(5), patience: Some(9), ..config(8) };
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

/// Wishes to stop when so many batches of a validation after step `step` are scored, or when its answers are shown.
struct StopsInValidation<'a> {
    step: usize,
    stop: &'a Stop,
    now: usize,
}

impl Observer for StopsInValidation<'_> {
    fn observe(&mut self, event: &Event<'_>) -> rpo::Result<()> {
        match event {
            Event::Milestone { step, .. } => self.now = *step,
            Event::Validating { .. } if self.now == self.step => self.stop.request(),
            _ => {}
        }
        Ok(())
    }
}

#[test]
fn a_run_stopped_in_the_midst_of_a_validation_repeats_it_once() {
    let bench = Bench::new();
    let config = TrainConfig { micro_batch_tokens: 8, sample_every: Some(3), ..config(6) };
    bench.train("whole", &rpo(), &config, None);
    for step in [0, 3, 6] {
        let out = format!("stopped-{step}");
        let stop = Stop::new();
        let mut observer = StopsInValidation { step, stop: &stop, now: usize::MAX };
        let stopped = bench.watched_train(&out, &rpo(), &config, &stop, &mut observer, None).expect("stops");
        assert!(stopped.interrupted && stopped.progress.step == step, "{stopped:?}");
        assert!(stopped.progress.pending.validation && stopped.progress.validated_at != Some(step));
        let ended = bench.train(&out, &rpo(), &config, None);
        assert!(!ended.interrupted && ended.progress.validated_at == Some(6));
        assert_eq!(bench.metrics(&out), bench.metrics("whole"), "stopped in the validation of step {step}");
        assert_eq!(bench.weights(&format!("{out}/last")), bench.weights("whole/last"));
    }
}

#[test]
fn a_pass_that_was_stopped_goes_on_where_it_was() {
    let bench = Bench::new();
    let (split, _) = bench.data();
    let model = bench.checkpoint().load(&device()).expect("model");
    let whole = ReferenceScores::compute(&model, &split, 64, &mut |_| Ok(())).expect("scored");
    let dir = bench.path("cache");
    let cache = ReferenceCache::new(&dir, &model).expect("hashed");
    let stop = Stop::new();
    let mut last = 0;
    let stopped = ReferenceScores::cached(&model, &split, 64, &cache, &Alone, &mut |done| {
        last = done;
        stop.request();
        stop.check()
    });
    assert!(matches!(stopped, Err(rpo::Error::Stopped)));
    assert!(last > 0 && last < whole.len(), "{last} of {}", whole.len());
    let kept = |ending: &str| {
        let names = std::fs::read_dir(&dir).expect("cache").map(|e| e.expect("entry").path());
        names.filter(|path| path.extension().is_some_and(|found| found == ending)).collect::<Vec<_>>()
    };
    assert_eq!((kept("parts").len(), kept("safetensors").len()), (1, 0));
    let (scores, cached) =
        ReferenceScores::cached(&model, &split, 64, &cache, &Alone, &mut |_| Ok(())).expect("scored");
    assert!(cached == Cached::Left && scores == whole, "the same bits as in one go");
    assert_eq!((kept("parts").len(), kept("safetensors").len()), (0, 1));
    assert!(ReferenceScores::are_cached(&split, &cache));
    // What was damaged since is computed again, and so is what is not a number.
    let [file] = &kept("safetensors")[..] else { panic!("one file") };
    let good = std::fs::read(file).expect("read");
    let mut flipped = good.clone();
    let last = flipped.len() - 3;
    flipped[last] ^= 1;
    let nan = [&good[..good.len() - 4], &f32::NAN.to_le_bytes()].concat();
    for damaged in [&flipped[..], &nan, &good[..good.len() - 4], b"", &[0; 4096]] {
        std::fs::write(file, damaged).expect("write");
        let (again, cached) =
            ReferenceScores::cached(&model, &split, 64, &cache, &Alone, &mut |_| Ok(())).expect("scored");
        assert!(cached == Cached::Left && again == whole);
        assert_eq!(std::fs::read(file).expect("read"), good);
        assert_eq!(kept("lock").len(), 0);
    }
}

#[test]
fn programs_that_want_the_same_scores_wait_for_the_first() {
    let bench = Bench::new();
    let (split, _) = bench.data();
    let model = bench.checkpoint().load(&device()).expect("model");
    let cache = ReferenceCache::new(&bench.path("cache"), &model).expect("hashed");
    let one = || ReferenceScores::cached(&model, &split, 64, &cache, &Alone, &mut |_| Ok(())).expect("scored");
    let found = std::thread::scope(|scope| {
        let all: Vec<_> = (0..3).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|each| each.join().expect("scored")).collect::<Vec<_>>()
    });
    assert_eq!(found.iter().filter(|(_, cached)| *cached == Cached::Left).count(), 1, "one computed");
    assert!(found.iter().all(|(scores, _)| *scores == found[0].0));
}

#[test]
fn what_would_be_saved_is_finite_or_the_run_ends() {
    let bench = Bench::new();
    let optimizer = OptimizerConfig { learning_rate: 1e38, ..OptimizerConfig::default() };
    let config = TrainConfig { optimizer, validate_every: Some(1), warmup_steps: Some(0), ..config(4) };
    let said = bench.try_train("run", &rpo(), &config, None, None).expect_err("diverges").to_string();
    assert!(said.starts_with("step ") && said.contains("lower the learning rate"), "{said}");
    for dir in ["best", "last"].map(|name| bench.path("run").join(name)).iter().filter(|dir| dir.exists()) {
        let model = Checkpoint::open(dir).and_then(|saved| saved.load(&device())).expect("loads");
        let finite = |values: Vec<f32>| values.iter().all(|v| v.is_finite());
        assert!(model.parameters().into_iter().all(|p| finite(p.values.into_data().try_to_vec().expect("f32"))));
    }
}

/// Flips the lowest bit of a byte in the middle of a file.
fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).expect("write");
}

#[test]
fn a_damaged_state_is_told_and_the_one_before_it_goes_on_to_the_same_end() {
    let bench = Bench::new();
    let dro = ObjectiveConfig::Dro(DroConfig { value_learning_rate: Some(1e-2), ..DroConfig::default() });
    let config = TrainConfig { save_every: SaveEvery::steps(2), keep: 3, ..config(8) };
    bench.train("whole", &dro, &config, None);
    for name in
        ["model.safetensors", "resume/optimizer.safetensors", "resume/value.safetensors", "resume/progress.json"]
    {
        let out = format!("run-{}", name.replace('/', "-"));
        bench.train(&out, &dro, &config, Some(7));
        let steps = |dir: PathBuf| {
            let mut names: Vec<_> =
                std::fs::read_dir(dir).expect("states").map(|e| e.expect("entry").file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(steps(bench.path(&out).join("earlier")), ["step-00000005", "step-00000006"], "{name}");
        flip(&bench.path(&out).join("last").join(name));
        let model = || Checkpoint::open(&bench.path(&out).join("last")).and_then(|c| c.load(&device())).map(drop);
        let told = model().map_err(|problem| problem.to_string());
        match name.contains('/') {
            true => told.expect("the state is not the model's"),
            false => assert!(told.expect_err("damaged").contains(&format!("{name}: damaged or changed"))),
        }
        bench.train(&out, &dro, &config, None);
        assert_eq!(bench.weights(&format!("{out}/last")), bench.weights("whole/last"), "{name}");
        assert_eq!(bench.metrics(&out), bench.metrics("whole"), "{name}");
        assert!(bench.path(&out).join("last.damaged").is_dir(), "what is damaged stays");
    }
    // Where nothing is intact, nothing is begun anew either.
    bench.train("lost", &dro, &TrainConfig { keep: 1, ..config.clone() }, Some(7));
    assert_eq!(std::fs::read_dir(bench.path("lost/earlier")).expect("states").count(), 0);
    flip(&bench.path("lost/last/model.safetensors"));
    let said = bench.try_train("lost", &dro, &config, None, None).expect_err("damaged").to_string();
    assert!(said.contains("model.safetensors: damaged") && bench.path("lost/last").is_dir(), "{said}");
}

/// Looks whether there is a state when the first validation begins.
struct Looks<'a>(&'a Path, &'a mut dyn Observer);
impl Observer for Looks<'_> {
    fn observe(&mut self, event: &Event<'_>) -> rpo::Result<()> {
        if matches!(event, Event::Milestone { step: 0, .. }) {
            assert!(self.0.join("last/resume/progress.json").is_file());
            let said = RunDir::open(self.0).expect_err("in use").to_string();
            assert!(said.contains(&format!("is in use by process {}", std::process::id())), "{said}");
        }
        self.1.observe(event)
    }
}

#[test]
fn a_run_is_saved_before_its_first_step_and_used_by_one_program() {
    let bench = Bench::new();
    let stop = Stop::new();
    let mut observer = StopsInValidation { step: 0, stop: &stop, now: usize::MAX };
    let micro = TrainConfig { micro_batch_tokens: 8, ..config(3) };
    let path = bench.path("run");
    bench.watched_train("run", &rpo(), &micro, &stop, &mut Looks(&path, &mut observer), None).expect("stops");
    bench.train("run", &rpo(), &micro, None);
    bench.train("whole", &rpo(), &micro, None);
    assert_eq!(bench.weights("run/last"), bench.weights("whole/last"));
    // A run that was killed before it had saved anything goes on from the start, or begins again.
    for begun in [true, false] {
        let out = if begun { "begun" } else { "again" };
        drop(RunDir::create(&bench.path(out)).expect("new"));
        std::fs::write(bench.path(out).join("metrics.jsonl.partial"), "").expect("write");
        match begun {
            true => std::fs::write(bench.path(out).join("config.toml"), "").expect("write"),
            false => {
                drop(RunDir::create(&bench.path(out)).expect("nothing is lost"));
                std::fs::remove_dir_all(bench.path(out)).expect("removed");
            }
        }
        bench.train(out, &rpo(), &micro, None);
        assert_eq!(bench.weights(&format!("{out}/last")), bench.weights("whole/last"));
    }
}

#[test]
fn a_bad_step_is_named_and_ends_the_run_or_is_skipped() {
    let mut bench = Bench::new();
    let group = bench.data().0.train.groups[5].clone();
    bench.poisoned = Some(group.responses[0].row);
    let config = TrainConfig { batch_size: 4, epochs: 1, max_steps: None, validate_every: Some(100), ..config(0) };
    let said = bench.try_train("stops", &rpo(), &config, None, None).expect_err("bad").to_string();
    assert!(said.contains("the loss is inf, with the prompts of rows "), "{said}");
    assert!(said.contains("lower the learning rate"), "{said}");
    let named = |out: &str| std::fs::read_to_string(bench.path(out).join("bad-steps.jsonl")).expect("bad steps");
    let lines: Vec<serde_json::Value> =
        named("stops").lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let row = |line: &serde_json::Value| line["row"].as_u64().map(|row| row as usize);
    let bad = lines.iter().find(|line| row(line) == Some(group.first_row + 1)).expect("the prompt");
    assert!(bad["prompt"].as_str().is_some_and(|p| p.starts_with("say")) && bad["response"].is_string(), "{bad}");
    assert!(lines.len() >= 3 && said.contains(&format!("{}", group.first_row + 1)), "{said}: {lines:?}");
    // What was good before it is saved.
    let step = bad["step"].as_u64().expect("a step");
    let progress = std::fs::read_to_string(bench.path("stops/last/resume/progress.json")).expect("saved");
    let progress: serde_json::Value = serde_json::from_str(&progress).expect("JSON");
    assert_eq!(progress["step"].as_u64(), Some(step - 1));
    // The same run that skips goes on from there, and ends as one that skipped from the beginning.
    let skips = TrainConfig { on_bad_step: OnBadStep::Skip, ..config.clone() };
    let summary = bench.train("skips", &rpo(), &skips, None);
    assert_eq!(summary.progress.skipped, 1);
    assert_eq!(bench.lines("skips", "train").len(), summary.progress.step - 1);
    bench.train("stops", &rpo(), &skips, None);
    assert_eq!(bench.weights("stops/last"), bench.weights("skips/last"));
    assert_eq!(named("stops"), named("skips"));

    // A validation is looked at alike, before anything is saved of it.
    bench.poisoned = Some(bench.data().0.validation.groups[0].responses[0].row);
    let said = bench.try_train("held-out", &rpo(), &config, None, None).expect_err("bad").to_string();
    assert!(said.starts_with("step 0: the held-out loss is inf, with the prompt"), "{said}");
    assert!(!bench.path("held-out/best").exists() && bench.path("held-out/last").exists());
    let summary = bench.train("held-out-skips", &rpo(), &skips, None);
    assert!(summary.progress.best.is_none() && summary.progress.skipped == 0);
    bench.train("held-out-skips", &rpo(), &skips, None);
}

#[test]
fn a_run_that_is_lost_ends_though_bad_steps_are_skipped() {
    let bench = Bench::new();
    let optimizer = OptimizerConfig { learning_rate: 1e19, ..OptimizerConfig::default() };
    let config = TrainConfig {
        optimizer,
        warmup_steps: Some(0),
        on_bad_step: OnBadStep::Skip,
        validate_every: Some(1000),
        ..config(100)
    };
    let said = bench.try_train("lost", &rpo(), &config, None, None).expect_err("lost").to_string();
    assert!(said.contains("the last of 10 bad steps in a row"), "{said}");
    let saved = Checkpoint::open(&bench.path("lost/last")).and_then(|saved| saved.load(&device())).expect("loads");
    let finite = |values: Vec<f32>| values.iter().all(|v| v.is_finite());
    assert!(saved.parameters().into_iter().all(|p| finite(p.values.into_data().try_to_vec().expect("f32"))));
}

#[test]
fn single_responses_can_be_left_out() {
    let bench = Bench::new();
    let config = TrainConfig { max_steps: None, epochs: 1, batch_size: 1, validate_every: Some(1000), ..config(0) };
    let with = |single_response| ObjectiveConfig::Rpo(RpoConfig { single_response, ..RpoConfig::published() });
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
        let model = Checkpoint::open(model).and_then(|c| c.load(&device())).expect("model");
        let cache = ReferenceCache::new(&cache, &model).expect("hashed");
        ReferenceScores::cached(&model, split, 512, &cache, &Alone, &mut |_| Ok(())).expect("scores")
    };
    let (first, cached) = scores(&bench.path("model"), &split);
    assert_eq!(cached, Cached::Left);
    assert_eq!(scores(&bench.path("model"), &split), (first.clone(), Cached::Found));
    bench.init("other", 2);
    let (other, cached) = scores(&bench.path("other"), &split);
    assert!(cached == Cached::Left && other != first, "other weights");
    let mut changed = split.clone();
    changed.train.groups[0].responses[0].ids[0] = 5;
    assert_eq!(scores(&bench.path("model"), &changed).1, Cached::Left, "other data");
    // A batch budget is no input: it must not change the values.
    let model = bench.checkpoint().load(&device()).expect("model");
    let small = ReferenceScores::compute(&model, &split, 1, &mut |_| Ok(())).expect("scored");
    for row in 0..first.len() {
        let (a, b) = (first.ell(row, LogProb::Sum), small.ell(row, LogProb::Sum));
        assert!((a - b).abs() < 1e-4, "row {row}: {a} and {b}");
    }
    // A damaged file is computed again.
    for file in std::fs::read_dir(&cache).expect("cache") {
        std::fs::write(file.expect("entry").path(), b"damaged").expect("write");
    }
    assert_eq!(scores(&bench.path("model"), &split), (first.clone(), Cached::Left));
    // Where nothing can be written, scores are computed all the same.
    let model = bench.checkpoint().load(&device()).expect("model");
    std::fs::write(bench.path("file"), b"").expect("write");
    let nowhere = ReferenceCache::new(&bench.path("file"), &model).expect("hashed");
    let scored = ReferenceScores::cached(&model, &split, 512, &nowhere, &Alone, &mut |_| Ok(())).expect("scores");
    assert_eq!(scored, (first, Cached::Failed));
}

#[test]
fn an_output_directory_that_exists_is_refused() {
    let bench = Bench::new();
    let said = RunDir::create(&bench.path("model")).expect_err("exists").to_string();
    assert!(said.contains("already exists"), "{said}");
}

fn centred() -> ObjectiveConfig {
    ObjectiveConfig::GroupCentred(GroupCentredConfig::default())
}

/// So large a learning rate that nothing gets better.
fn harmful() -> TrainConfig {
    let optimizer = OptimizerConfig { learning_rate: 0.3, ..OptimizerConfig::default() };
    TrainConfig { optimizer, validate_every: Some(1), warmup_steps: Some(0), ..config(5) }
}

#[test]
fn the_start_is_best_where_training_does_harm() {
    let bench = Bench::new();
    let summary = bench.train("run", &centred(), &harmful(), None);
    let start = summary.progress.first_validation.expect("validated");
    assert_eq!((summary.progress.best, summary.progress.start), (Some((start, 0)), Some(start)));
    assert!(!bench.path("run/best").exists() && bench.path("run/last").exists());
}

#[test]
fn patience_ends_a_run_and_more_of_it_goes_on() {
    let bench = Bench::new();
    let config = TrainConfig { patience: Some(2), ..harmful() };
    let first = bench.train("run", &centred(), &config, None);
    assert!(first.ran_out_of_patience && !first.interrupted && first.progress.step == 2);
    let (weights, metrics) = (bench.weights("run/last"), bench.metrics("run"));
    let again = bench.train("run", &centred(), &config, None);
    assert_eq!(first, again);
    assert!(weights == bench.weights("run/last") && metrics == bench.metrics("run"), "nothing was done");
    let more = bench.train("run", &centred(), &TrainConfig { patience: Some(4), ..config }, None);
    assert!(more.ran_out_of_patience && more.progress.step == 4);
}

#[test]
fn every_line_says_what_a_loss_does_not() {
    let bench = Bench::new();
    let all = ["log_prob_best", "log_prob_worst", "mass_kept", "kl_estimate", "reward_weighted_log_ratio"];
    let has = |line: &serde_json::Value, names: &[&str]| names.iter().all(|name| line[name].is_f64());
    bench.train("rpo", &rpo(), &config(6), None);
    let (train, held_out) = (bench.lines("rpo", "train"), bench.lines("rpo", "validation"));
    assert_eq!((train.len(), held_out.len()), (6, 3));
    assert!(train.iter().chain(&held_out).all(|line| has(line, &all)), "{train:?} {held_out:?}");
    assert_eq!((&held_out[0]["mass_kept"], &held_out[0]["kl_estimate"]), (&1.0.into(), &0.0.into()));
    assert!(held_out[0].get("tau_b").is_none(), "the start ranks nothing");
    assert!(has(&held_out[1], &["tau_b", "spearman"]) && has(&train[5], &["tau_b", "spearman"]));
    // The first step sees the start.
    assert!((train[0]["mass_kept"].as_f64().expect("number") - 1.0).abs() < 1e-4);

    // SFT on the best responses has scores of the start for the held-out responses only, the others among them.
    let sft = ObjectiveConfig::Sft(SftConfig { rows: SftRows::Best, ..SftConfig::default() });
    bench.train("sft", &sft, &config(6), None);
    let (train, held_out) = (bench.lines("sft", "train"), bench.lines("sft", "validation"));
    assert!(train.iter().all(|line| line.get("mass_kept").is_none() && line.get("log_prob_best").is_none()));
    assert!(held_out.iter().all(|line| has(line, &all)) && has(&held_out[2], &["tau_b"]));
    assert_eq!(held_out[0]["log_prob_worst"], bench.lines("rpo", "validation")[0]["log_prob_worst"]);
}

#[test]
fn a_judge_rates_answers_and_may_decide_what_is_best() {
    let bench = Bench::new();
    // The shorter the better.
    let judge = |answers: &[Answered]| Ok(answers.iter().map(|(_, answer)| -(answer.len() as f64)).collect());
    let config = TrainConfig { best_by: BestBy::Reward, ..config(12) };
    let summary = bench.try_train("run", &rpo(), &config, None, Some(&judge)).expect("trains");
    let rewards: Vec<f64> =
        bench.lines("run", "validation").iter().map(|line| line["reward"].as_f64().expect("rated")).collect();
    assert_eq!((rewards.len(), summary.progress.start), (5, Some(rewards[0])));
    let (best, step) = summary.progress.best.expect("rated");
    let highest = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    assert_eq!((best, rewards[step / 3]), (highest, highest));
    assert_eq!(bench.path("run/best").exists(), step > 0);
    let broken = |_: &[Answered]| Err(rpo::Error::Data("no opinion".into()));
    let said = bench.try_train("broken", &rpo(), &config, None, Some(&broken)).expect_err("broken").to_string();
    assert!(said.contains("no opinion"), "{said}");
}

#[test]
fn measures_that_cannot_be_had_are_refused_by_name() {
    let bench = Bench::new();
    let by = |best_by| TrainConfig { best_by, ..config(1) };
    let said = |out: &str, config: &TrainConfig| match bench.try_train(out, &rpo(), config, None, None) {
        Ok(_) => String::new(),
        Err(problem) => problem.to_string(),
    };
    let complaint = said("a", &by(BestBy::Reward));
    assert!(complaint.contains("best-by") && complaint.contains("judge"), "{complaint}");
    assert_eq!(said("b", &by(BestBy::TauB)), "");
    let complaint = said("b", &by(BestBy::Mass));
    assert!(complaint.contains("best by tau_b"), "another measure on resuming: {complaint}");
    let mut split = bench.data().0;
    split.validation.groups.iter_mut().for_each(|g| g.responses.truncate(1));
    let checked = |config: TrainConfig, split: &Split| match config.check(Needs::default(), split) {
        Ok(()) => String::new(),
        Err(problem) => problem.to_string(),
    };
    assert!(checked(by(BestBy::TauB), &split).contains("no held-out prompt has two with different rewards"));
    assert_eq!(checked(by(BestBy::Mass), &split), "");
    split.validation.groups.clear();
    assert!(checked(by(BestBy::Mass), &split).contains("no held-out prompts"));
    assert!(
        checked(TrainConfig { patience: Some(3), ..config(1) }, &split).contains("patience: there are no held-out")
    );
    assert!(checked(TrainConfig { sample_every: Some(0), ..config(1) }, &split).contains("sample-every: 0"));
}

#[test]
fn answers_are_shown_at_the_start_at_the_end_and_between() {
    let bench = Bench::new();
    bench.train("run", &rpo(), &TrainConfig { sample_every: Some(3), ..config(5) }, None);
    let lines = bench.lines("run", "sample");
    let steps: Vec<u64> = lines.iter().filter_map(|line| line["step"].as_u64()).collect();
    assert_eq!(steps, [0, 0, 0, 0, 3, 3, 3, 3, 5, 5, 5, 5]);
    assert!(lines.iter().all(|line| line["prompt"].as_str().is_some_and(|p| p.starts_with("say"))));
    assert!(lines.iter().all(|line| line["answer"].is_string()));
    assert_eq!(lines[0]["prompt"], lines[4]["prompt"]);
}

/// The weights, the optimizer's state and the record of a run on so many ranks; after step `stop.0` rank `stop.1` wishes to stop.
fn on_ranks(
    bench: &Bench,
    out: &str,
    ranks: usize,
    objective: &ObjectiveConfig,
    config: &TrainConfig,
    wish: Option<(usize, usize)>,
) -> (Vec<u8>, Vec<u8>, Vec<serde_json::Value>) {
    let summaries = rpo::world::threads::run(ranks, |world| {
        let stop = Stop::new();
        let after = wish.filter(|(_, rank)| *rank == world.rank()).map(|(step, _)| step);
        let mut stopper = Stopper { after, stop: &stop };
        bench.joint_train(world, out, objective, config, &stop, &mut stopper, None).expect("trains")
    });
    assert!(summaries.iter().all(|summary| summary.progress == summaries[0].progress), "all know how far they are");
    assert!(summaries.iter().all(|summary| summary.interrupted == wish.is_some()));
    let state = std::fs::read(bench.path(out).join("last/resume/optimizer.safetensors")).expect("state");
    (bench.weights(&format!("{out}/last")), state, bench.metrics(out))
}

#[test]
fn any_number_of_ranks_comes_to_the_same_bytes() {
    let bench = Bench::new();
    for (name, _) in ObjectiveConfig::ALL {
        let objective = if name == "rpo" { rpo() } else { ObjectiveConfig::named(name).expect("listed") };
        for (recompute, micro_batch_tokens) in [(false, 4096), (true, 40)] {
            let config = TrainConfig { recompute, micro_batch_tokens, shards: Some(4), ..config(5) };
            let run = |ranks: usize| {
                on_ranks(&bench, &format!("{name}-{recompute}-{ranks}"), ranks, &objective, &config, None)
            };
            let alone = run(1);
            for ranks in [2, 4] {
                let together = run(ranks);
                assert_eq!(together.2, alone.2, "{name}: the record on {ranks} ranks");
                assert!(together.0 == alone.0 && together.1 == alone.1, "{name}: weights and state on {ranks} ranks");
            }
        }
    }
}

#[test]
fn ranks_share_the_pass_over_the_reference_and_the_first_keeps_it() {
    let bench = Bench::new();
    let (split, _) = bench.data();
    let pass = |ranks: usize, name: &str, stop_at: Option<usize>| {
        rpo::world::threads::run(ranks, |world| {
            let model = bench.checkpoint().load(&device()).expect("model");
            // Each rank has a cache of its own; others than the first leave nothing there.
            let dir = bench.path(&format!("{name}-{}", world.rank()));
            let cache = ReferenceCache::new(&dir, &model).expect("hashed");
            let progress = &mut |done| match stop_at {
                Some(at) if done >= at && world.rank() == 1 => Err(rpo::Error::Stopped),
                _ => Ok(()),
            };
            let found = ReferenceScores::cached(&model, &split, 16, &cache, world, progress);
            assert!(world.leads() || !dir.exists());
            found
        })
    };
    let (alone, cached) = pass(1, "alone", None).remove(0).expect("scored");
    assert_eq!(cached, Cached::Left);
    for found in pass(3, "cut", Some(1)) {
        assert!(matches!(found, Err(rpo::Error::Stopped)));
    }
    for (rank, found) in pass(3, "cut", None).into_iter().enumerate() {
        let (scores, cached) = found.expect("scored");
        assert!(scores == alone && (rank > 0 || cached == Cached::Left));
    }
    for found in pass(2, "cut", None) {
        assert_eq!(found.expect("found"), (alone.clone(), Cached::Found));
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks_whoever_wished_it_to_stop() {
    let bench = Bench::new();
    let adapters = Lora { rank: 2, ..Lora::default() };
    let adafactor = OptimizerConfig { algorithm: Algorithm::Adafactor(Adafactor::default()), ..config(8).optimizer };
    let plain = TrainConfig { shards: Some(4), ..config(8) };
    for (name, config) in [
        ("plain", plain.clone()),
        ("adafactor", TrainConfig { optimizer: adafactor, ..plain.clone() }),
        ("adapters", TrainConfig { lora: adapters, ..plain }),
    ] {
        let at_once = format!("{name}-at-once");
        let whole = on_ranks(&bench, &at_once, 1, &rpo(), &config, None);
        let out = format!("{name}-in-parts");
        on_ranks(&bench, &out, 4, &rpo(), &config, Some((2, 3)));
        on_ranks(&bench, &out, 1, &rpo(), &config, Some((4, 0)));
        on_ranks(&bench, &out, 2, &rpo(), &config, Some((5, 1)));
        let parts = on_ranks(&bench, &out, 4, &rpo(), &config, None);
        assert_eq!(parts.2, whole.2, "{name}: the record");
        assert!(parts.0 == whole.0 && parts.1 == whole.1, "{name}: weights and state");
        assert_eq!(bench.weights(&format!("{out}/best")), bench.weights(&format!("{at_once}/best")), "{name}");
    }
}

#[test]
fn ranks_that_do_not_divide_the_shards_are_refused_and_a_failure_is_everybodys() {
    let bench = Bench::new();
    let config = TrainConfig { shards: Some(4), ..config(3) };
    let run = |bench: &Bench, ranks: usize, out: &str| {
        rpo::world::threads::run(ranks, |world| {
            let stop = Stop::new();
            let mut nothing = Stopper { after: None, stop: &stop };
            bench.joint_train(world, out, &rpo(), &config, &stop, &mut nothing, None).expect_err("fails").to_string()
        })
    };
    for said in run(&bench, 3, "three") {
        assert!(said.contains("shards") && said.contains("(1, 2, 4)"), "{said}");
    }
    let poisoned = Bench { poisoned: Some(0), ..Bench::new() };
    let alone = run(&poisoned, 1, "alone").remove(0);
    assert!(alone.contains("the loss is inf") || alone.contains("the held-out loss is inf"), "{alone}");
    for said in run(&poisoned, 2, "two") {
        assert_eq!(said, alone);
    }
    let named = |out: &str| std::fs::read_to_string(poisoned.path(out).join("bad-steps.jsonl")).expect("bad steps");
    assert_eq!(named("two"), named("alone"));
}
