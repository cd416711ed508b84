//! The arguments of `rpo generate`, and what of them goes together.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::ValueEnum;
use rpo::device;
use rpo::feedback::Format;
use rpo::generate::EarlyStopping;
use rpo::model::Precision;
use rpo::tokenizer::Cut;
use serde::{Deserialize, Serialize};

use super::shard::Shard;
use crate::flags::ChatFlags;

/// Let a model answer prompts: `rpo generate --model DIR "PROMPT"`
///
/// Decodes as the model's generation_config.json says, where there is one, as transformers does; --preset and flags change
/// that. Answers go to standard output, all else to standard error; which settings were taken and how many answers were cut is
/// told on a terminal or with --verbose. A single prompt is answered as the words come.
///
/// With --output, answers are added to the file as they finish. A run that was stopped, killed or out of disk goes on with
/// the same command and --resume, without a lost or doubled answer; beside the file lies FILE.run.json, which says what the run
/// was begun with. Several machines share the work by --shard, and `rpo merge` puts their files together; processes that mpirun or
/// srun starts together do so by themselves.
#[derive(clap::Args, Clone)]
#[command(after_help = "\
Examples:
  rpo generate --model runs/first/best \"translate English to German: Good morning.\"
  rpo generate --model runs/first/best --input prompts.jsonl --output answers.jsonl
  rpo generate --model runs/first/best --input prompts.jsonl --output answers.jsonl --resume
  cat prompts.txt | rpo generate --model runs/first/best --preset published --input - --json
  rpo generate --model M --input prompts.parquet --prompt-column question --sample -n 4 --seed 7 --output drawn.jsonl
  rpo generate --model M --input prompts.jsonl --shard $SLURM_ARRAY_TASK_ID/8 --output part-$SLURM_ARRAY_TASK_ID.jsonl --resume
  rpo merge answers.jsonl part-*.jsonl
  rpo generate --model HuggingFaceTB/SmolLM2-135M-Instruct --chat")]
pub struct Arguments {
    /// Model directory or hub id
    #[arg(long)]
    pub model: String,
    /// The prompts
    #[arg(required_unless_present_any = ["input", "talk"])]
    pub prompts: Vec<String>,
    /// A file of prompts: one a line, or a column of JSON Lines, CSV, Parquet … with texts or chat messages; also a directory, a
    /// pattern, a data set of the hub, or - for standard input (may be repeated)
    #[arg(long, value_name = "FILE", conflicts_with = "prompts")]
    pub input: Option<Vec<String>>,
    /// Column of the prompts in --input
    #[arg(long, value_name = "NAME", default_value = "prompt")]
    pub prompt_column: String,
    /// Column of what the prompts are called, for the answers' `id` [default: id, if there is one; else they are counted from 0]
    #[arg(long, value_name = "NAME", requires = "input")]
    pub id_column: Option<String>,
    /// How --input is laid out [default: as its name and content say; what comes from standard input are lines or JSON]
    #[arg(long, value_name = "FORMAT", requires = "input", value_parser = format)]
    pub format: Option<Format>,
    /// Talk with a model that has a chat template: a line is what you say; /reset begins anew, /exit ends
    #[arg(long = "chat", id = "talk", conflicts_with_all = ["prompts", "input", "output", "json", "shard", "answers", "best_of",
        "in_order", "strict"])]
    pub talk: bool,
    /// What the model is told before a chat
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Refuse longer prompts instead of cutting them
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub out: OutputFlags,
    #[command(flatten)]
    pub how: AnsweringFlags,
}

/// How a model is asked: what it reads, how it decodes, and what runs it.
#[derive(clap::Args, Clone)]
pub struct AnsweringFlags {
    /// Longest prompt in tokens; the rest is cut
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub max_prompt_tokens: usize,
    /// Which end of a longer prompt is cut
    #[arg(long, value_name = "end|start", default_value = "end", value_parser = crate::flags::cut)]
    pub truncate_prompts: Cut,
    #[command(flatten)]
    pub chat: ChatFlags,
    #[command(flatten)]
    pub decoding: DecodingFlags,
    /// Most answers (or beams) that are worked on together; changes no answer
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub batch_size: usize,
    /// What the CPU holds the model in while it answers: bf16 takes half the memory and says nearly the same as f32; int8 takes a
    /// quarter, is the fastest, and may say something else (BENCHMARKS.md tells how far)
    #[arg(long, value_enum, default_value_t = Weights::F32)]
    pub weights: Weights,
    /// What computes; all but the CPU must be compiled in
    #[arg(long, default_value = "cpu", value_parser = device::NAMES)]
    pub device: String,
}

/// Where answers go, and which of them.
#[derive(clap::Args, Clone)]
#[command(next_help_heading = "Output")]
pub struct OutputFlags {
    /// Write answers as JSON Lines to a new file, as they finish: id, prompt, response, log_prob (of all its tokens together,
    /// under the model), tokens, finish_reason (stop, or length if cut) and seed; answer with -n
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Go on with --output where it was left; begins if there is nothing
    #[arg(long, requires = "output")]
    pub resume: bool,
    /// Print such lines instead of texts
    #[arg(long, conflicts_with = "output")]
    pub json: bool,
    /// Keep the order of the prompts in --output; what is printed has it in any case
    #[arg(long)]
    pub in_order: bool,
    /// Answer every Nth prompt only, from the Ith on: the Ith of N parts, which together are the whole
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
}

/// How answers are made.
#[derive(clap::Args, Clone)]
#[command(next_help_heading = "Decoding")]
pub struct DecodingFlags {
    /// Answers to each prompt: drawn, or the best of so many beams
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1)]
    pub answers: usize,
    /// Draw so many answers to each prompt and keep the one (with -n, those) with the highest mean log-probability of its tokens
    #[arg(long, value_name = "N")]
    pub best_of: Option<usize>,
    /// Where settings come from that no flag gives
    #[arg(long, value_enum, default_value_t = Preset::Model)]
    pub preset: Preset,
    /// Draw tokens instead of taking the most likely
    #[arg(long)]
    pub sample: bool,
    /// Take the most likely token each time, whatever the preset says
    #[arg(long, conflicts_with_all = ["sample", "num_beams"])]
    pub greedy: bool,
    /// Longest answer in tokens [default: the preset's, else 128]
    #[arg(long, value_name = "N")]
    pub max_new_tokens: Option<usize>,
    /// Shortest answer in tokens
    #[arg(long, value_name = "N")]
    pub min_new_tokens: Option<usize>,
    /// End an answer before this text, or at this special token (may be repeated)
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub stop: Vec<String>,
    /// Follow so many answers at the same time and give the most likely; 1 follows one
    #[arg(long, value_name = "N")]
    pub num_beams: Option<usize>,
    /// Beams are compared by log-probability / length^penalty: above 0 favours longer answers
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub length_penalty: Option<f32>,
    /// When a beam search ends: true (as soon as every beam has an answer), false (when the best unfinished one is no better) or
    /// never (when none can become better), as in transformers
    #[arg(long, value_name = "true|false|never", value_parser = early_stopping)]
    pub early_stopping: Option<EarlyStopping>,
    /// Below 1 sharpens, above 1 flattens the distribution that is drawn from
    #[arg(long, value_name = "NUMBER")]
    pub temperature: Option<f32>,
    /// Draw from the k most likely tokens; 0 for all
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Draw from the most likely tokens that reach this probability together
    #[arg(long, value_name = "P")]
    pub top_p: Option<f32>,
    /// Draw from the tokens that are at least this part as likely as the most likely
    #[arg(long, value_name = "P")]
    pub min_p: Option<f32>,
    /// Never say this text, as the tokenizer writes it at the beginning and behind a blank, or this token (may be repeated)
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub ban: Vec<String>,
    /// Add this to the logit of a token, or of the last one of a text's where the others were said: above 0 makes it more likely
    /// (may be repeated)
    #[arg(long, value_name = "TOKEN=VALUE", value_parser = bias, allow_hyphen_values = true)]
    pub logit_bias: Vec<(String, f32)>,
    /// Above 1 makes repetition less likely
    #[arg(long, value_name = "NUMBER")]
    pub repetition_penalty: Option<f32>,
    /// Never repeat an n-gram of this length; 0 allows it
    #[arg(long, value_name = "N")]
    pub no_repeat_ngram_size: Option<usize>,
    /// Decides all draws, together with a prompt's place in the input and the number of the answer
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
}

/// Where settings come from that no flag gives.
#[derive(Clone, Copy, ValueEnum)]
pub enum Preset {
    /// The model's generation_config.json, where there is one
    Model,
    /// The published sampling of RPO: temperature 0.7, top-k 50, top-p 0.95, repetition penalty 1.2, no trigram twice
    Published,
    /// Greedy, with nothing set
    Plain,
}

/// What a model is held in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    /// As it is stored
    F32,
    /// Rounded to bfloat16, so that small changes of weights count in the mean
    Bf16,
    /// Eight bits with a scale for each output
    Int8,
}

impl From<Weights> for Precision {
    fn from(weights: Weights) -> Self {
        match weights {
            Weights::F32 => Self::F32,
            Weights::Bf16 => Self::Bf16,
            Weights::Int8 => Self::Int8,
        }
    }
}

fn bias(value: &str) -> Result<(String, f32), String> {
    let (token, number) = value.rsplit_once('=').ok_or("it is TOKEN=VALUE, such as yes=2.5")?;
    match number.trim().parse::<f32>() {
        _ if token.is_empty() => Err("there is no token before the =".into()),
        Ok(number) if number.is_finite() => Ok((token.into(), number)),
        _ => Err(format!("`{number}` is not a finite number")),
    }
}

fn format(value: &str) -> Result<Format, String> {
    match value {
        "jsonl" => Ok(Format::Jsonl),
        "json" => Ok(Format::Json),
        "csv" => Ok(Format::Csv),
        "tsv" => Ok(Format::Tsv),
        "parquet" => Ok(Format::Parquet),
        "arrow" => Ok(Format::Arrow),
        _ => Err("it is jsonl, json, csv, tsv, parquet or arrow".into()),
    }
}

fn early_stopping(value: &str) -> Result<EarlyStopping, String> {
    match value {
        "true" => Ok(EarlyStopping::Once),
        "false" => Ok(EarlyStopping::Heuristic),
        "never" => Ok(EarlyStopping::Never),
        _ => Err("it is true, false or never".into()),
    }
}

impl Arguments {
    /// Whether several processes can share it: not a conversation, and not one part of several already.
    pub fn can_be_shared(&self) -> bool {
        !self.talk && self.out.shard.is_none()
    }

    /// Checks what can be checked without a model.
    pub fn check(&self) -> Result<()> {
        let DecodingFlags { answers, best_of, stop, .. } = &self.how.decoding;
        for (flag, value) in [
            ("--batch-size", self.how.batch_size),
            ("--max-prompt-tokens", self.how.max_prompt_tokens),
            ("--answers", *answers),
            ("--best-of", best_of.unwrap_or(1)),
        ] {
            if value == 0 {
                bail!("{flag} 0: at least 1 is needed");
            }
        }
        if self.how.weights != Weights::F32 && self.how.device != "cpu" {
            bail!(
                "--weights: only the CPU holds a model otherwise than in f32; leave it out with --device {}",
                self.how.device
            );
        }
        if self.system.is_some() && !self.talk {
            bail!("--system is what a model is told before a chat; add --chat, or begin the prompt with it");
        }
        if stop.iter().any(String::is_empty) {
            bail!("--stop: an empty text is in every answer from its beginning; say which text ends answers");
        }
        if self.how.decoding.ban.iter().any(String::is_empty) {
            bail!("--ban: an empty text is in every answer; say which text is not to be in one");
        }
        if let Some(drawn) = best_of.filter(|drawn| drawn < answers) {
            bail!("--best-of {drawn}: {answers} answers cannot be kept of {drawn} (-n)");
        }
        Ok(())
    }
}
