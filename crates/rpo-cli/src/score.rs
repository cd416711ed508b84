//! `rpo score`: how likely given responses are under a model, and how much likelier than under a reference.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rpo::batch::Start;
use rpo::burn::tensor::Device;
use rpo::chat::{Chat, Prompt, UseTemplate};
use rpo::device::{self, Precision, Subject};
use rpo::feedback::{Limits, ReadSummary};
use rpo::likelihood::{Given, Likelihoods, Reading, Row};
use rpo::model::Compute;
use rpo::model::checkpoint::Checkpoint;
use rpo::reference::{Cached, ReferenceCache, model_fingerprint};
use rpo::store::files::fill_file;
use rpo::tokenizer::{Cut, Tokenizer};
use rpo::world::World;
use serde::Serialize;
use serde_json::Value;

use crate::flags::{ChatFlags, Layout};
use crate::messages::quiet;
use crate::remarks::{remarks, warnings};
use crate::version::version;
use crate::world::{agree, once_any, refuse_standard_input};
use crate::{interrupt, place, progress, settings};

/// Say how likely given responses are under a model: `rpo score --model DIR FILE`
///
/// Reads what `rpo train` reads, but needs no rewards, and gives one JSON line for each response in the order of the file: id
/// (the record's own, else its number from 0), response_index where a record holds several responses, prompt, response, reward
/// if it is rated, tokens (how many are scored), log_prob (their sum, in nats), mean_log_prob (each token's), perplexity, and
/// prompt_truncated and truncated, which tell what was cut at the limits. With --reference also reference_log_prob, log_ratio
/// (log_prob less reference_log_prob) and log_ratio_per_token. Prompts and responses become tokens as in training: the token that
/// ends a response is scored and counted too, unless the response was cut or --no-end is given.
///
/// Rows without a prompt or a response are left out and counted; --strict refuses them. Scores are kept in the cache of
/// reference scores, so that a second call is immediate and a stopped one goes on. Processes that mpirun or srun starts together
/// share the work.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  rpo score --model runs/first/best held_out.jsonl --output scores.jsonl
  rpo score --model runs/first/best --reference google/flan-t5-small ratings.csv --reward-column stars
  rpo score --model runs/first/best answers.jsonl --per-token | jq .token_log_probs")]
pub struct Arguments {
    /// Responses: files (JSON, CSV, Parquet, Arrow), directories, patterns, a data set of the hub or - for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Model directory or hub id
    #[arg(long, value_name = "DIR|ID")]
    model: String,
    /// Model to compare with, which has the same tokenizer: log-ratios are told too
    #[arg(long, value_name = "DIR|ID")]
    reference: Option<String>,
    /// Write the lines to a new file instead of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Column of what records are called [default: id, where there is one, else their number from 0]
    #[arg(long, value_name = "NAME")]
    id_column: Option<String>,
    /// Also give each token as the vocabulary spells it (token_texts) and its log-probability (token_log_probs,
    /// token_reference_log_probs)
    #[arg(long)]
    per_token: bool,
    /// Score responses without the token that ends them
    #[arg(long)]
    no_end: bool,
    /// Longest prompt in tokens; the rest is cut
    #[arg(long, value_name = "N", default_value_t = 512)]
    max_prompt_tokens: usize,
    /// Longest response in tokens; the rest is cut
    #[arg(long, value_name = "N", default_value_t = 512)]
    max_response_tokens: usize,
    /// Which end of a longer prompt is cut
    #[arg(long, value_name = "end|start", default_value = "end", value_parser = crate::flags::cut)]
    truncate_prompts: Cut,
    #[command(flatten)]
    chat: ChatFlags,
    /// Tokens computed at once: bounds memory, changes nothing else
    #[arg(long, value_name = "N", default_value_t = 4096)]
    micro_batch_tokens: usize,
    /// Where scores are kept between calls [default: the user's cache directory]
    #[arg(long, value_name = "DIR", conflicts_with = "no_cache")]
    cache: Option<PathBuf>,
    /// Neither take scores from the cache nor leave them there
    #[arg(long)]
    no_cache: bool,
    /// What computes; all but the CPU must be compiled in
    #[arg(long, default_value = "cpu", value_parser = device::NAMES)]
    device: String,
    /// What the factors of matrix products are rounded to; auto is bf16 where that is faster (AMX, AMD's AVX-512
    /// BF16; d_model from 256 on)
    #[arg(long, value_name = "FORMAT", default_value = "f32", value_parser = clap::value_parser!(Precision))]
    precision: Precision,
    #[command(flatten)]
    columns: Layout,
}

/// Runs the command.
pub fn run(arguments: &Arguments, world: &dyn World) -> Result<()> {
    if arguments.micro_batch_tokens == 0 {
        bail!("--micro-batch-tokens 0: at least 1 is needed");
    }
    refuse_standard_input(world, &arguments.files)?;
    once_any(world, || arguments.output.as_deref().map_or(Ok(()), check_output))?;
    let device = place::find(&arguments.device, arguments.precision, arguments.columns.options()?.strict)?;
    let checkpoint = Checkpoint::find(&arguments.model)?;
    let compute = arguments.precision.on(&device, checkpoint.config()?.d_model());
    let place = (device, compute);
    let reference = arguments.reference.as_deref().map(Checkpoint::find).transpose()?;
    let tokenizer = checkpoint.tokenizer(arguments.chat.chat())?;
    let given = read(arguments, &tokenizer)?;
    if let Some(reference) = &reference {
        check_reference(&given, &checkpoint, &tokenizer, reference)?;
    }
    let Arguments { device, micro_batch_tokens, per_token, no_cache, .. } = arguments;
    let how = format!(
        "--device {device} in {compute:?}, --micro-batch-tokens {micro_batch_tokens}, --per-token {per_token}, --no-cache {no_cache}, \
         --reference {}",
        arguments.reference.as_deref().unwrap_or("none")
    );
    agree(world, &[("program", version().into()), ("data", given.fingerprint()), ("settings", how)])?;
    let policy = score(arguments, &given, &checkpoint, "scoring", &place, world)?;
    let under =
        |checkpoint: &Checkpoint| score(arguments, &given, checkpoint, "scoring by the reference", &place, world);
    let reference = reference.as_ref().map(under).transpose()?;
    let scored = Scored { given, policy, reference, tokenizer };
    once_any(world, || scored.tell(arguments))
}

/// Fails before anything is computed where nothing could be written.
fn check_output(path: &Path) -> Result<()> {
    if path.exists() {
        bail!("{} already exists; name a new file or remove it", path.display());
    }
    crate::flags::check_directory(path)
}

/// Reads the responses and says what is worth knowing of them.
fn read(arguments: &Arguments, tokenizer: &Tokenizer) -> Result<Given> {
    let options = arguments.columns.options()?;
    let limits = Limits {
        prompt_tokens: arguments.max_prompt_tokens,
        response_tokens: arguments.max_response_tokens,
        cut_prompts: arguments.truncate_prompts,
    };
    let reading = Reading { options: &options, id: arguments.id_column.clone(), limits, end: !arguments.no_end };
    let bar = progress::counter("responses read");
    let count = &mut |rows: usize| bar.set_position(rows as u64);
    let given = Given::read(&arguments.files.clone().into(), &reading, tokenizer, count)?;
    bar.finish_and_clear();
    // Nothing is merged or left aside for what matters to training alone.
    let summary = ReadSummary {
        folded_prompts: 0,
        folded_by_cut: 0,
        duplicates: 0,
        alike_by_cut: 0,
        single_responses: 0,
        tied_prompts: 0,
        cut_prompts: 0,
        ..given.summary.clone()
    };
    remarks(&summary).iter().for_each(|remark| tracing::info!("{remark}"));
    warnings(&summary).iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(given)
}

/// Checks that the reference reads the same tokens as the model, in the same way.
fn check_reference(given: &Given, model: &Checkpoint, ours: &Tokenizer, reference: &Checkpoint) -> Result<()> {
    let continues =
        |checkpoint: &Checkpoint| -> rpo::Result<bool> { Ok(checkpoint.config()?.start() == Start::EndOfPrompt) };
    if continues(model)? != continues(reference)? {
        bail!(
            "--reference {}: one of it and {} is an encoder-decoder model and the other continues its prompts, which it reads as \
             other tokens",
            reference.name(),
            model.name()
        );
    }
    // It reads what the model's own template wrote.
    let theirs = reference.tokenizer(Chat { template: UseTemplate::Never, date: None })?;
    given.check_tokenizer(ours, &theirs).with_context(|| format!("--reference {}", reference.name()))
}

/// Scores everything under one model.
fn score(
    arguments: &Arguments,
    given: &Given,
    checkpoint: &Checkpoint,
    what: &'static str,
    (device, compute): &(Device, Compute),
    world: &dyn World,
) -> Result<Likelihoods> {
    place::trust(&arguments.device, &Subject::of(checkpoint.config()?).with_compute(*compute))?;
    let model = checkpoint.load(device)?.with_compute(*compute);
    if world.size() > 1 {
        agree(world, &[("model", model_fingerprint(&model)?)])?;
    }
    let dir = arguments.cache.clone().unwrap_or_else(settings::cache).join("reference");
    let cache = (!arguments.no_cache).then(|| ReferenceCache::new(&dir, &model)).transpose()?;
    let bar = progress::bar(what, given.distinct());
    let mut count = |done: usize| {
        bar.set_position(done as u64);
        interrupt::stop().check()
    };
    let budget = arguments.micro_batch_tokens;
    let (scores, cached) = given.score(&model, budget, arguments.per_token, cache.as_ref(), world, &mut count)?;
    bar.finish_and_clear();
    let name = checkpoint.name();
    match cached {
        Some(Cached::Found) => tracing::info!("scores by {name}: taken from the cache in {}", dir.display()),
        Some(Cached::Left) => tracing::debug!("scores by {name}: computed and cached in {}", dir.display()),
        Some(Cached::Failed) | None => tracing::debug!("scores by {name}: computed, not cached"),
    }
    Ok(scores)
}

/// A line of the output.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_index: Option<usize>,
    prompt: &'a Prompt,
    response: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reward: Option<f64>,
    tokens: usize,
    log_prob: f32,
    mean_log_prob: f32,
    perplexity: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference_log_prob: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_ratio: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_ratio_per_token: Option<f32>,
    prompt_truncated: bool,
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_texts: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_log_probs: Option<&'a [f32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_reference_log_probs: Option<&'a [f32]>,
}

/// Everything that is known of the responses.
struct Scored {
    given: Given,
    policy: Likelihoods,
    reference: Option<Likelihoods>,
    tokenizer: Tokenizer,
}

impl Scored {
    fn line(&self, i: usize) -> Line<'_> {
        let Row { id, within, prompt, response, reward, prompt_truncated, truncated, .. } = &self.given.rows[i];
        let ids = self.given.ids(i);
        let (tokens, sum) = (ids.len(), self.policy.sums[i]);
        let mean = sum / tokens as f64;
        let ratio = self.log_ratio(i);
        let spelt = |_| ids.iter().map(|&id| self.tokenizer.token(id).unwrap_or_default()).collect();
        Line {
            id,
            response_index: *within,
            prompt,
            response,
            reward: *reward,
            tokens,
            log_prob: sum as f32,
            mean_log_prob: mean as f32,
            perplexity: (-mean).exp(),
            reference_log_prob: self.reference.as_ref().map(|scores| scores.sums[i] as f32),
            log_ratio: ratio.map(|ratio| ratio as f32),
            log_ratio_per_token: ratio.map(|ratio| (ratio / tokens as f64) as f32),
            prompt_truncated: *prompt_truncated,
            truncated: *truncated,
            token_texts: self.policy.tokens.as_ref().map(spelt),
            token_log_probs: of_tokens(&self.policy, i),
            token_reference_log_probs: self.reference.as_ref().and_then(|scores| of_tokens(scores, i)),
        }
    }

    fn log_ratio(&self, i: usize) -> Option<f64> {
        self.reference.as_ref().map(|scores| self.policy.sums[i] - scores.sums[i])
    }

    fn lines(&self) -> impl Iterator<Item = serde_json::Result<String>> {
        (0..self.given.rows.len()).map(|i| serde_json::to_string(&self.line(i)))
    }

    /// Writes or prints the lines, and what they come to.
    fn tell(&self, arguments: &Arguments) -> Result<()> {
        match &arguments.output {
            Some(path) => {
                fill_file(path, |file| self.write(file, path))?;
                self.summary().iter().for_each(|line| println!("{line}"));
                println!("scores: {}", path.display());
            }
            None => {
                self.print()?;
                if !quiet() {
                    self.summary().iter().for_each(|line| eprintln!("{line}"));
                }
            }
        }
        Ok(())
    }

    fn write(&self, file: &mut std::fs::File, path: &Path) -> Result<()> {
        let failed = || format!("cannot write {}", path.display());
        let mut out = BufWriter::new(file);
        self.lines().try_for_each(|line| writeln!(out, "{}", line?).with_context(failed))?;
        out.flush().with_context(failed)
    }

    fn print(&self) -> Result<()> {
        self.lines().try_for_each(|line| {
            println!("{}", line?);
            Ok(())
        })
    }

    /// What all of it comes to.
    fn summary(&self) -> Vec<String> {
        let rows = self.given.rows.len();
        let tokens: usize = (0..rows).map(|i| self.given.ids(i).len()).sum();
        let mean = self.policy.sums.iter().sum::<f64>() / tokens as f64;
        let mut said = vec![
            format!(
                "{} of {}, {} scored",
                counted(rows, "response"),
                counted(self.given.summary.prompts, "prompt"),
                counted(tokens, "token")
            ),
            format!("log-probability of a token: {mean:.4}, perplexity {:.4}", (-mean).exp()),
        ];
        let ratios: Option<Vec<f64>> = (0..rows).map(|i| self.log_ratio(i)).collect();
        said.extend(ratios.as_ref().map(|ratios| {
            format!("log-ratio of a token to the reference: {:.4}", ratios.iter().sum::<f64>() / tokens as f64)
        }));
        if ratios.as_ref().is_some_and(|ratios| ratios.iter().all(|ratio| *ratio == 0.0)) {
            said.push("every log-ratio is 0: model and reference are the same".into());
        }
        let (what, values) = match &ratios {
            Some(ratios) => ("log-ratio", ratios),
            None => ("log-probability", &self.policy.sums),
        };
        said.extend(self.given.rank_correlation(values).map(|tau| {
            let interval = match tau.interval.low.is_finite() {
                true => format!("95 % interval {:.3} to {:.3}, ", tau.interval.low, tau.interval.high),
                false => String::new(),
            };
            let prompts = counted(tau.n, "prompt");
            format!(
                "rank correlation (tau-b) of {what} and reward within prompts: {:.3} ({interval}{prompts})",
                tau.interval.mean
            )
        }));
        said
    }
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn of_tokens(scores: &Likelihoods, i: usize) -> Option<&[f32]> {
    scores.tokens.as_ref().map(|tokens| &tokens[i][..])
}
