//! `rpo demo`: the whole method on a task of its own in a few minutes, without network or data.

mod report;
mod task;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rpo::burn::tensor::Device;
use rpo::checkpoint::{Checkpoint, StoredAs, init};
use rpo::feedback::ReadOptions;
use rpo::objective::{ObjectiveConfig, RpoConfig, SftConfig};
use rpo::optim::OptimizerConfig;
use rpo::sample::{Decoding, generate};
use rpo::score::LogProb;
use rpo::t5::Config;
use rpo::train::TrainConfig;
use task::Prompt;

use crate::settings::Settings;
use crate::train::{stop_on_interrupt, train};

const CONFIG: &str = r#"{"model_type": "t5", "vocab_size": 64, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2,
    "num_decoder_layers": 2, "num_heads": 4, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false}"#;
const TRAIN_PROMPTS: usize = 900;
const RESPONSES: usize = 4;
const HELD_OUT: usize = 200;

/// See the whole method at work in less than a minute, without network or data
///
/// A fresh T5 learns by SFT to answer customers as a mixed crowd did; then RPO learns from rated answers which of them to
/// give. Writes report.html.
#[derive(clap::Args)]
pub struct Arguments {
    /// New directory for models, data and report
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    out: PathBuf,
    /// Decides data, weights and draws
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What a model's answers to held-out prompts are worth.
pub struct Verdict {
    /// Reward of each answer, drawn from the model once for each prompt.
    rewards: Vec<f64>,
    answers: Vec<String>,
}

impl Verdict {
    /// Mean reward with its 95 % interval (normal approximation).
    fn interval(&self) -> [f64; 3] {
        mean_interval(&self.rewards)
    }
}

fn mean_interval(values: &[f64]) -> [f64; 3] {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = 1.96 * (variance / n).sqrt();
    [mean, mean - half, mean + half]
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { out, seed } = arguments;
    if out.exists() {
        bail!("{} already exists; remove it or choose another place with --out", out.display());
    }
    let stop = stop_on_interrupt()?;
    let held_out = prepare(out, *seed)?;

    println!("== SFT: learn to answer as the crowd does ==");
    let sft = settings(out, "fresh", "sft", *seed);
    train(&sft, false, &stop)?;
    check(&stop)?;
    println!("\n== RPO: learn from the ratings which answers to give ==");
    let rpo = settings(out, "sft/best", "rpo", *seed);
    train(&rpo, false, &stop)?;
    check(&stop)?;

    println!("\n== Held-out customers ==");
    let before = judge(&out.join("sft/best"), &held_out, *seed)?;
    let after = judge(&out.join("rpo/last"), &held_out, *seed)?;
    let difference: Vec<f64> = after.rewards.iter().zip(&before.rewards).map(|(a, b)| a - b).collect();
    for (name, [mean, low, high]) in [
        ("before (SFT)", before.interval()),
        ("after (RPO)", after.interval()),
        ("difference", mean_interval(&difference)),
    ] {
        println!("{name:>13}: mean reward {mean:5.2}   95 % interval {low:5.2} to {high:5.2}");
    }
    println!(
        "the best possible reward is {}; {HELD_OUT} prompts that were never trained on, one drawn answer each\n",
        task::BEST
    );
    for (i, prompt) in held_out.iter().take(3).enumerate() {
        let show = |v: &Verdict| format!("{} ({:+.2})", v.answers[i], v.rewards[i]);
        println!("{}\n  before: {}\n  after:  {}", prompt.text(), show(&before), show(&after));
    }
    let path = out.join("report.html");
    let prompts: Vec<String> = held_out.iter().map(|p| p.text()).collect();
    report::write(&path, out, &prompts, &before, &after, mean_interval(&difference))?;
    println!("\nreport: {}", path.display());
    println!("try it: rpo generate --model {}/rpo/last \"eva says the green kettle never came\"", out.display());
    Ok(())
}

fn check(stop: &AtomicBool) -> Result<()> {
    if stop.load(Ordering::Relaxed) {
        bail!("stopped");
    }
    Ok(())
}

/// Writes tokenizer, data and a fresh model; returns the prompts that are kept for the end.
fn prepare(out: &Path, seed: u64) -> Result<Vec<Prompt>> {
    let write = |name: &str, text: &str| {
        let path = out.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut prompts = Prompt::all();
    prompts.shuffle(&mut rng);
    let mut data = String::new();
    for prompt in &prompts[..TRAIN_PROMPTS] {
        let rated = |answer: String| serde_json::json!({"reward": prompt.reward(&answer), "text": answer});
        let responses: Vec<_> = (0..RESPONSES).map(|_| rated(prompt.answer(&mut rng))).collect();
        data += &serde_json::json!({"prompt": prompt.text(), "responses": responses}).to_string();
        data.push('\n');
    }
    write("tokenizer.json", &task::tokenizer())?;
    write("data.jsonl", &data)?;
    let config = Config::parse(CONFIG).map_err(anyhow::Error::msg)?;
    let parameters = init(&config, &out.join("tokenizer.json"), seed, StoredAs::F32, &out.join("fresh"))?;
    println!("a fresh T5 of {parameters} parameters; {TRAIN_PROMPTS} customers with {RESPONSES} rated answers each\n");
    Ok(prompts[TRAIN_PROMPTS..TRAIN_PROMPTS + HELD_OUT].to_vec())
}

fn settings(out: &Path, model: &str, name: &str, seed: u64) -> Settings {
    let (objective, epochs, learning_rate) = match name {
        "sft" => (ObjectiveConfig::Sft(SftConfig::default()), 6, 3e-3),
        // Sums of log-probabilities and the paper's partition make the targets a distribution over a prompt's answers.
        _ => (ObjectiveConfig::Rpo(RpoConfig { tau: 0.3, log_prob: LogProb::Sum, ..RpoConfig::default() }), 6, 1e-3),
    };
    let optimizer = OptimizerConfig { learning_rate, ..OptimizerConfig::default() };
    Settings {
        model: out.join(model).display().to_string(),
        data: out.join("data.jsonl"),
        out: out.join(name),
        cache: out.join("cache"),
        device: "cpu".into(),
        validation_fraction: 0.1,
        max_prompt_tokens: 64,
        max_response_tokens: 64,
        objective,
        train: TrainConfig { epochs, seed, optimizer, ..TrainConfig::default() },
        columns: ReadOptions::default(),
    }
}

/// Lets the model in `dir` answer and rates the answers.
fn judge(dir: &Path, prompts: &[Prompt], seed: u64) -> Result<Verdict> {
    let checkpoint = Checkpoint::open(dir)?;
    let tokenizer = checkpoint.tokenizer()?;
    let model = checkpoint.load(&Device::flex())?;
    let ids = prompts.iter().map(|p| Ok(tokenizer.encode(&p.text(), 64)?.ids)).collect::<Result<Vec<_>>>()?;
    let decoding = Decoding { sample: true, max_new_tokens: 24, seed, ..Decoding::default() };
    let answers = generate(&model, &ids, 0, &decoding)
        .iter()
        .map(|ids| Ok(tokenizer.decode(ids)?))
        .collect::<Result<Vec<String>>>()?;
    let rewards = prompts.iter().zip(&answers).map(|(prompt, answer)| prompt.reward(answer)).collect();
    Ok(Verdict { rewards, answers })
}
