//! `rpo demo`: the whole method on a task of its own in a minute, without network or data.

mod task;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rpo::chat::UseTemplate;
use rpo::device::Precision;
use rpo::feedback::ReadOptions;
use rpo::generate::Decoding;
use rpo::model::Config;
use rpo::model::checkpoint::{StoredAs, init};
use rpo::objective::{DroConfig, KtoConfig, ObjectiveConfig, RpoConfig, SftConfig, SftRows};
use rpo::train::TrainConfig;
use rpo::train::optim::OptimizerConfig;
use rpo::world::Alone;
use task::Prompt;

use crate::compare::Comparison;
use crate::interrupt;
use crate::settings::Settings;
use crate::train::{prepare, train};

const CONFIG: &str = r#"{"model_type": "t5", "vocab_size": 64, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2,
    "num_decoder_layers": 2, "num_heads": 4, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false}"#;
const PROMPTS: usize = 1100;
const RESPONSES: usize = 4;
const HELD_OUT: f64 = 0.18;

/// See the whole method at work in about a minute, without network or data
///
/// A fresh T5 learns by SFT to answer customers as a mixed crowd did; then RPO and its rivals learn from rated answers which
/// of them to give, and are judged by an exact rule on customers that they never saw. Writes report.html.
#[derive(clap::Args)]
pub struct Arguments {
    /// New directory for models, data and report
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    out: PathBuf,
    /// Decides data, weights and draws
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { out, seed } = arguments;
    if out.exists() {
        bail!("{} already exists; remove it or choose another place with --out", out.display());
    }
    let stop = interrupt::stop();
    make(out, *seed)?;

    println!("== SFT: learn to answer as the crowd does ==");
    let mut sft = settings(out, "fresh", "sft", ObjectiveConfig::Sft(SftConfig::default()), 3e-3, *seed);
    let split = prepare(&mut sft, false, &Alone)?.split;
    train(&sft, split, false, &Alone, stop, &mut [])?;
    stop.check()?;
    println!("\n== Learn from the ratings which answers to give ==");
    let contestants = objectives().map(|(label, objective)| {
        let run = settings(out, "sft/best", label, objective, 1e-3, *seed);
        (label.to_string(), vec![vec![run]])
    });
    let comparison = Comparison {
        title: "Learning from ratings: SFT, then RPO and its rivals".into(),
        introduction: format!(
            "A small T5 first learned to answer customers as a mixed crowd did: that is the start. From the same start and \
             ratings, each objective then learned which answers to give. Every held-out customer gets one drawn answer, \
             rated by an exact rule; the best possible reward is {}.",
            task::BEST
        ),
        out: out.clone(),
        contestants: contestants.into(),
        decoding: Decoding { sample: true, max_new_tokens: 24, seed: *seed, ..Decoding::default() },
        judged_by: Some("an exact rule".into()),
        judge_timeout: None,
        best_reward: Some(task::BEST),
        resume: false,
    };
    let by_text: HashMap<String, Prompt> = Prompt::all().into_iter().map(|p| (p.text(), p)).collect();
    let judge = |answers: &[(String, String)]| -> Result<Vec<f64>> {
        let rate = |(prompt, answer): &(String, String)| {
            let prompt = by_text.get(prompt).with_context(|| format!("`{prompt}` is no customer"))?;
            Ok(prompt.reward(answer))
        };
        answers.iter().map(rate).collect()
    };
    comparison.run(Some(&judge), &Alone, stop)?;
    println!("the best possible reward is {}", task::BEST);
    let model = ["best", "last"].map(|name| out.join("rpo").join(name)).into_iter().find(|dir| dir.is_dir());
    if let Some(model) = model {
        println!("try it: rpo generate --model {} \"eva says the green kettle never came\"", model.display());
    }
    Ok(())
}

/// Writes tokenizer, data and a fresh model.
fn make(out: &Path, seed: u64) -> Result<()> {
    let write = |name: &str, text: &str| {
        let path = out.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut prompts = Prompt::all();
    prompts.shuffle(&mut rng);
    let mut data = String::new();
    for prompt in &prompts[..PROMPTS] {
        let rated = |answer: String| serde_json::json!({"reward": prompt.reward(&answer), "text": answer});
        let responses: Vec<_> = (0..RESPONSES).map(|_| rated(prompt.answer(&mut rng))).collect();
        data += &serde_json::json!({"prompt": prompt.text(), "responses": responses}).to_string();
        data.push('\n');
    }
    write("tokenizer.json", &task::tokenizer())?;
    write("data.jsonl", &data)?;
    let config = Config::parse(CONFIG).map_err(anyhow::Error::msg)?;
    let parameters = init(&config, &out.join("tokenizer.json"), seed, StoredAs::F32, &out.join("fresh"))?;
    println!("a fresh T5 of {parameters} parameters; {PROMPTS} customers with {RESPONSES} rated answers each\n");
    Ok(())
}

/// What is compared: RPO at its defaults and as its authors published it, DRO at the same temperature, KTO at its own.
fn objectives() -> [(&'static str, ObjectiveConfig); 5] {
    let rpo = RpoConfig::default();
    let dro = DroConfig { tau: rpo.tau, ..DroConfig::default() };
    [
        ("sft-best", ObjectiveConfig::Sft(SftConfig { rows: SftRows::Best, ..SftConfig::default() })),
        ("rpo", ObjectiveConfig::Rpo(rpo)),
        ("rpo-published", ObjectiveConfig::Rpo(RpoConfig::published())),
        ("dro", ObjectiveConfig::Dro(dro)),
        ("kto", ObjectiveConfig::Kto(KtoConfig::default())),
    ]
}

fn settings(
    out: &Path,
    model: &str,
    label: &str,
    objective: ObjectiveConfig,
    learning_rate: f64,
    seed: u64,
) -> Settings {
    let optimizer = OptimizerConfig { learning_rate, ..OptimizerConfig::default() };
    Settings {
        model: out.join(model).display().to_string(),
        data: out.join("data.jsonl").as_path().into(),
        out: out.join(label),
        cache: out.join("cache"),
        device: "cpu".into(),
        precision: Precision::default(),
        validation_data: None,
        validation_fraction: HELD_OUT,
        split_seed: seed,
        max_prompt_tokens: 64,
        truncate_prompts: rpo::tokenizer::Cut::End,
        max_response_tokens: 64,
        chat_template: UseTemplate::default(),
        chat_date: None,
        judge: None,
        judge_timeout: None,
        objective,
        train: TrainConfig { epochs: 6, seed, optimizer, ..TrainConfig::default() },
        columns: ReadOptions::default(),
    }
}
