//! What the benches share: shapes, a timed training run, other programs that do the same in turn, and reporting.
#![allow(dead_code, reason = "no bench uses all of it")]

use rpo::stop::Stop;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use burn::tensor::Device;
use rpo::burn;
use rpo::feedback::{FeedbackSet, PromptGroup, Response, Split};
use rpo::model::{Compute, Config, Model, RandomWeights};
use rpo::objective::{ObjectiveConfig, RpoConfig};
use rpo::train::{Observer, State, Task, TrainConfig, Trainer};

/// What every bench does first: paths are those of the workspace, memory is kept as the program keeps it.
pub fn begin() {
    std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).expect("the workspace");
    rpo::keep_freed_memory();
    rpo::compute_on_this_thread();
}

/// The values of all arguments called `name`.
pub fn options(name: &str) -> Vec<String> {
    let arguments: Vec<String> = std::env::args().collect();
    arguments.windows(2).filter(|w| w[0] == name).map(|w| w[1].clone()).collect()
}

/// The value of the argument called `name`.
pub fn option(name: &str) -> Option<String> {
    options(name).pop()
}

/// Whether there is an argument called `name`.
pub fn flag(name: &str) -> bool {
    std::env::args().any(|a| a == name)
}

/// The shape of `flan-t5-SIZE`, or of SmolLM2-135M.
pub fn shape(size: &str) -> Config {
    if size == "smollm2" {
        let text = r#"{"model_type":"llama","vocab_size":49152,"hidden_size":576,"intermediate_size":1536,"num_hidden_layers":30,
            "num_attention_heads":9,"num_key_value_heads":3,"tie_word_embeddings":true,"rms_norm_eps":1e-5}"#;
        return Config::parse(text).expect("valid");
    }
    let (d_model, d_ff, layers, heads) = match size {
        "small" => (512, 1024, 8, 6),
        "base" => (768, 2048, 12, 12),
        "large" => (1024, 2816, 24, 16),
        other => panic!("--size {other}: small, base, large and smollm2 are known"),
    };
    let text = format!(
        r#"{{"model_type":"t5","vocab_size":32128,"d_model":{d_model},"d_kv":64,"d_ff":{d_ff},"num_layers":{layers},
        "num_decoder_layers":{layers},"num_heads":{heads},"feed_forward_proj":"gated-gelu","tie_word_embeddings":false}}"#
    );
    Config::parse(&text).expect("valid")
}

/// The CPU, or the device that the argument `--device` names.
pub fn device() -> Device {
    rpo::device::find(&option("--device").unwrap_or_else(|| "cpu".into())).expect("a device")
}

/// What products are computed in: f32, or bfloat16 with `--precision bf16`.
pub fn compute() -> Compute {
    match option("--precision").as_deref() {
        None | Some("f32") => Compute::F32,
        Some("bf16") => Compute::Bf16,
        Some(other) => panic!("--precision {other}: f32 and bf16 are known"),
    }
}

/// A fresh model for training.
pub fn fresh(config: &Config) -> Model {
    let model = Model::new(config, &mut RandomWeights::new(1), &device().autodiff()).expect("random");
    model.with_compute(compute())
}

/// Prompts with so many responses each, of these lengths in tokens by number; what they say does not matter.
pub fn data(
    prompts: usize,
    responses: usize,
    prompt_length: impl Fn(usize) -> usize,
    response_length: impl Fn(usize) -> usize,
) -> FeedbackSet {
    let group = |group: usize| {
        let response = |k: usize| {
            let row = group * responses + k;
            let ids = ids(row + 100_000, response_length(row));
            Response { row, ids, truncated: false, reward: (row % 5) as f64, copies: 1 }
        };
        let prompt = ids(group, prompt_length(group));
        PromptGroup { prompt, first_row: 0, responses: (0..responses).map(response).collect() }
    };
    FeedbackSet { groups: (0..prompts).map(group).collect() }
}

/// Token ids of a text.
fn ids(seed: usize, n: usize) -> Vec<u32> {
    (0..n).map(|i| (3 + (i * 7919 + seed * 104_729) % 32_000) as u32).collect()
}

/// Trains `policy` by RPO; returns the seconds of the reference pass before it.
pub fn train(policy: Model, data: FeedbackSet, config: &TrainConfig, observer: &mut dyn Observer) -> f64 {
    let data = Split { train: data, ..Split::default() };
    let mut seconds = 0.0;
    let objective = ObjectiveConfig::Rpo(RpoConfig::published());
    let task = Task::new(&objective, data, config.seed, |passes| {
        let started = Instant::now();
        let references = passes.compute(&policy, config.micro_batch_tokens);
        seconds = started.elapsed().as_secs_f64();
        references
    });
    let task = task.expect("defined");
    let stop = Stop::new();
    let state = State::begin(policy, &task, config).expect("valid");
    let trainer = Trainer { task, config, saving: None, judge: None, stop: &stop, world: &rpo::world::Alone };
    trainer.run(state, &mut [observer]).expect("trains");
    seconds
}

/// Another program that does the same: it gets a word for each task and answers with the seconds and responses that it
/// took; a line with one number, its peak memory in MiB, ends it.
pub struct Peer {
    pub name: String,
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    peak: Option<f64>,
}

impl Peer {
    /// Starts `command`, which may stand behind `NAME=`.
    pub fn start(command: &str) -> Self {
        let (name, command) = match command.split_once('=') {
            Some((name, command)) if !name.contains(' ') => (name, command),
            _ => ("peer", command),
        };
        let mut child = Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the peer starts");
        let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Self { name: name.into(), child, input: Some(input), output: BufReader::new(output).lines(), peak: None }
    }

    /// Seconds and responses of a task; nothing once it has ended.
    pub fn ask(&mut self, task: &str) -> Option<(f64, f64)> {
        if self.peak.is_some() {
            return None;
        }
        // A peer that has ended by itself does not listen; its last line says so.
        writeln!(self.input.as_mut()?, "{task}").ok();
        self.answer()
    }

    fn answer(&mut self) -> Option<(f64, f64)> {
        let line = self.output.next().expect("the peer answers").expect("a line");
        let numbers: Vec<f64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        match numbers[..] {
            [seconds, responses] => Some((seconds, responses)),
            [peak] => {
                self.peak = Some(peak);
                None
            }
            _ => panic!("{} says `{line}`", self.name),
        }
    }

    /// Its peak memory in MiB.
    pub fn finish(mut self) -> f64 {
        drop(self.input.take());
        if self.peak.is_none() {
            self.answer();
        }
        self.child.wait().expect("the peer ends");
        self.peak.expect("its last line")
    }
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

pub fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// Largest resident memory of this process so far, in MiB; 0 where the system does not say.
pub fn peak_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// The processor and how many threads it offers.
pub fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    format!("{}, {} threads", model.unwrap_or("unknown processor"), rayon::current_num_threads())
}

/// Writes `result` where `--json` says.
pub fn write_json(mut result: serde_json::Value) {
    result["machine"] = machine().into();
    if let Some(path) = option("--json") {
        std::fs::write(&path, format!("{result:#}\n")).expect("JSON written");
    }
}
