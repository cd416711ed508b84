//! `rpo generate`: answers to prompts.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use rpo::checkpoint::Checkpoint;
use rpo::sample::{Decoding, Processors, generate};

use crate::{device, interrupt, progress};

/// Let a model answer prompts
///
/// Greedily, or by drawing tokens as soon as --sample is given. The settings published with RPO are --sample
/// --temperature 0.7 --top-k 50 --top-p 0.95 --repetition-penalty 1.2 --no-repeat-ngram-size 3.
#[derive(clap::Args)]
pub struct Arguments {
    /// Model directory or hub id
    #[arg(long)]
    model: String,
    /// The prompts
    #[arg(required_unless_present = "input")]
    prompts: Vec<String>,
    /// A file of prompts, one a line
    #[arg(long, value_name = "FILE", conflicts_with = "prompts")]
    input: Option<PathBuf>,
    /// Draw tokens instead of taking the most likely
    #[arg(long)]
    sample: bool,
    /// Longest answer in tokens
    #[arg(long, default_value_t = 128)]
    max_new_tokens: usize,
    /// Below 1 sharpens, above 1 flattens the distribution
    #[arg(long, default_value_t = 1.0, requires = "sample")]
    temperature: f32,
    /// Keep only the k most likely tokens; 0 keeps all
    #[arg(long, default_value_t = 0, requires = "sample")]
    top_k: usize,
    /// Keep only the most likely tokens that reach this probability together
    #[arg(long, default_value_t = 1.0, requires = "sample")]
    top_p: f32,
    /// Above 1 makes repetition less likely
    #[arg(long, default_value_t = 1.0)]
    repetition_penalty: f32,
    /// Never repeat an n-gram of this length; 0 allows it
    #[arg(long, default_value_t = 0)]
    no_repeat_ngram_size: usize,
    /// Decides all draws
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Longest prompt in tokens; the rest is cut
    #[arg(long, default_value_t = 512)]
    max_prompt_tokens: usize,
    /// Prompts answered together
    #[arg(long, default_value_t = 16)]
    batch_size: usize,
    /// cpu, cuda, rocm, metal or vulkan
    #[arg(long, default_value = "cpu")]
    device: String,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let prompts = match &arguments.input {
        Some(path) => read_prompts(path)?,
        None => arguments.prompts.clone(),
    };
    if arguments.batch_size == 0 {
        bail!("--batch-size 0: at least one prompt must be answered at a time");
    }
    let decoding = Decoding {
        sample: arguments.sample,
        max_new_tokens: arguments.max_new_tokens,
        seed: arguments.seed,
        processors: Processors {
            repetition_penalty: arguments.repetition_penalty,
            no_repeat_ngram_size: arguments.no_repeat_ngram_size,
            temperature: arguments.temperature,
            top_k: arguments.top_k,
            top_p: arguments.top_p,
        },
    };
    decoding.processors.validate()?;
    let checkpoint = Checkpoint::find(&arguments.model)?;
    let tokenizer = checkpoint.tokenizer()?;
    let model = checkpoint.load(&device::find(&arguments.device)?)?;
    let mut ids = Vec::new();
    for prompt in &prompts {
        if prompt.trim().is_empty() {
            bail!("a prompt is empty");
        }
        let encoded = tokenizer.encode(prompt, arguments.max_prompt_tokens)?;
        if encoded.truncated {
            tracing::warn!("a prompt was cut at {} tokens (--max-prompt-tokens)", arguments.max_prompt_tokens);
        }
        ids.push(encoded.ids);
    }
    let bar = progress::bar("answering", ids.len());
    for (batch, texts) in ids.chunks(arguments.batch_size).zip(prompts.chunks(arguments.batch_size)) {
        let first = bar.position() as usize;
        for (prompt, answer) in texts.iter().zip(generate(&model, batch, first, &decoding, interrupt::stop())?) {
            let answer = tokenizer.decode(&answer)?;
            let labelled = prompts.len() > 1;
            bar.suspend(|| if labelled { println!("{prompt}\n  -> {answer}") } else { println!("{answer}") });
        }
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    Ok(())
}

fn read_prompts(path: &PathBuf) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let prompts: Vec<String> = text.lines().filter(|l| !l.trim().is_empty()).map(str::to_string).collect();
    if prompts.is_empty() {
        bail!("{} holds no prompt; write one a line", path.display());
    }
    Ok(prompts)
}
