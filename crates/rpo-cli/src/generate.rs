//! `rpo generate`: answers to prompts.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use rpo::chat::Prompt;
use rpo::feedback::read_prompts;
use rpo::generate::{Decoding, EarlyStopping, StoredDecoding, generate};
use rpo::model::checkpoint::Checkpoint;
use rpo::tokenizer::Cut;
use serde_json::json;

use crate::flags::ChatFlags;
use crate::remarks::plain_beside_template;
use crate::{device, interrupt, progress};

/// Let a model answer prompts: `rpo generate --model DIR "PROMPT"`
///
/// Decodes as the model's generation_config.json says, where there is one, as transformers does; --preset and flags change
/// that. Answers go to standard output, all else to standard error; which settings were taken and how many answers were cut is
/// told on a terminal or with --verbose.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  rpo generate --model runs/first/best \"translate English to German: Good morning.\"
  rpo generate --model runs/first/best --input prompts.jsonl --output answers.jsonl
  cat prompts.txt | rpo generate --model runs/first/best --preset published --input - --json")]
pub struct Arguments {
    /// Model directory or hub id
    #[arg(long)]
    model: String,
    /// The prompts
    #[arg(required_unless_present = "input")]
    prompts: Vec<String>,
    /// A file of prompts: one a line, or a column of JSON Lines, CSV, Parquet … with texts or chat messages; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "prompts")]
    input: Option<PathBuf>,
    /// Column of the prompts in --input
    #[arg(long, value_name = "NAME", default_value = "prompt")]
    prompt_column: String,
    /// Write answers as JSON Lines with prompt, response, tokens and finish_reason (stop, or length if cut) to a new file
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print such lines instead of texts
    #[arg(long, conflicts_with = "output")]
    json: bool,
    /// Where settings come from that no flag gives
    #[arg(long, value_enum, default_value_t = Preset::Model)]
    preset: Preset,
    /// Draw tokens instead of taking the most likely
    #[arg(long)]
    sample: bool,
    /// Take the most likely token each time, whatever the preset says
    #[arg(long, conflicts_with_all = ["sample", "num_beams"])]
    greedy: bool,
    /// Longest answer in tokens [default: the preset's, else 128]
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// Shortest answer in tokens
    #[arg(long, value_name = "N")]
    min_new_tokens: Option<usize>,
    /// Follow so many answers at the same time and give the most likely; 1 follows one
    #[arg(long, value_name = "N")]
    num_beams: Option<usize>,
    /// Beams are compared by log-probability / length^penalty: above 0 favours longer answers
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    length_penalty: Option<f32>,
    /// When a beam search ends: true (as soon as every beam has an answer), false (when the best unfinished one is no better) or
    /// never (when none can become better), as in transformers
    #[arg(long, value_name = "true|false|never", value_parser = early_stopping)]
    early_stopping: Option<EarlyStopping>,
    /// Below 1 sharpens, above 1 flattens the distribution that is drawn from
    #[arg(long, value_name = "NUMBER")]
    temperature: Option<f32>,
    /// Draw from the k most likely tokens; 0 for all
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Draw from the most likely tokens that reach this probability together
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Above 1 makes repetition less likely
    #[arg(long, value_name = "NUMBER")]
    repetition_penalty: Option<f32>,
    /// Never repeat an n-gram of this length; 0 allows it
    #[arg(long, value_name = "N")]
    no_repeat_ngram_size: Option<usize>,
    /// Decides all draws
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Longest prompt in tokens; the rest is cut
    #[arg(long, value_name = "N", default_value_t = 512)]
    max_prompt_tokens: usize,
    /// Which end of a longer prompt is cut
    #[arg(long, value_name = "end|start", default_value = "end", value_parser = crate::flags::cut)]
    truncate_prompts: Cut,
    #[command(flatten)]
    chat: ChatFlags,
    /// Prompts answered together
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch_size: usize,
    /// What computes; all but the CPU must be compiled in
    #[arg(long, default_value = "cpu", value_parser = device::NAMES)]
    device: String,
}

/// Where settings come from that no flag gives.
#[derive(Clone, Copy, ValueEnum)]
enum Preset {
    /// The model's generation_config.json, where there is one
    Model,
    /// The published sampling of RPO: temperature 0.7, top-k 50, top-p 0.95, repetition penalty 1.2, no trigram twice
    Published,
    /// Greedy, with nothing set
    Plain,
}

fn early_stopping(value: &str) -> Result<EarlyStopping, String> {
    match value {
        "true" => Ok(EarlyStopping::Once),
        "false" => Ok(EarlyStopping::Heuristic),
        "never" => Ok(EarlyStopping::Never),
        _ => Err("it is true, false or never".into()),
    }
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    for (flag, value) in [("--batch-size", arguments.batch_size), ("--max-prompt-tokens", arguments.max_prompt_tokens)]
    {
        if value == 0 {
            bail!("{flag} 0: at least 1 is needed");
        }
    }
    if let Some(path) = arguments.output.as_ref().filter(|path| path.exists()) {
        bail!("{} already exists; name a new file or remove it", path.display());
    }
    let checkpoint = Checkpoint::find(&arguments.model)?;
    let decoding = decoding(arguments, &checkpoint)?;
    let prompts = match &arguments.input {
        Some(path) => read_prompts(path, &arguments.prompt_column, None)?,
        None => arguments.prompts.iter().map(|text| Prompt::from(text.as_str())).collect(),
    };
    let tokenizer = checkpoint.tokenizer(arguments.chat.chat())?;
    let mut ids = Vec::new();
    let (mut cut, mut plain) = (0, 0);
    for (i, prompt) in prompts.iter().enumerate() {
        if prompt.is_blank() {
            bail!("prompt {} is empty", i + 1);
        }
        let encoded = tokenizer.ask(prompt, arguments.max_prompt_tokens, arguments.truncate_prompts);
        let encoded = encoded.with_context(|| format!("prompt {}", i + 1))?;
        cut += usize::from(encoded.truncated());
        plain += usize::from(!encoded.templated);
        ids.push(encoded.ids);
    }
    if cut > 0 {
        let (of, limit) = (prompts.len(), arguments.max_prompt_tokens);
        tracing::warn!("{cut} of {of} prompts were cut at {limit} tokens (--max-prompt-tokens)");
    }
    if plain > 0 && tokenizer.writing().has_template() {
        tracing::warn!("{}", plain_beside_template(plain, prompts.len()));
    }
    let model = checkpoint.load(&device::find(&arguments.device)?)?;
    let ends = decoding.ends(&model.config());
    let mut file = arguments.output.as_deref().map(create).transpose()?;
    let bar = progress::pass("answering", ids.len());
    let mut unfinished = 0;
    for (batch, texts) in ids.chunks(arguments.batch_size).zip(prompts.chunks(arguments.batch_size)) {
        let first = bar.position() as usize;
        let answers = generate(&model, batch, first, &decoding, interrupt::stop())?;
        for (prompt, answer) in texts.iter().zip(answers) {
            let ended = answer.last().is_some_and(|id| ends.contains(id));
            unfinished += usize::from(!ended);
            let response = tokenizer.decode(&answer)?;
            let reason = if ended { "stop" } else { "length" };
            let record =
                json!({"prompt": prompt.text(), "response": response, "tokens": answer.len(), "finish_reason": reason});
            match &mut file {
                Some(file) => writeln!(file, "{record}").context("cannot write the answers")?,
                None => bar.suspend(|| match (arguments.json, prompts.len() > 1) {
                    (true, _) => println!("{record}"),
                    (false, true) => println!("{prompt}\n  -> {response}"),
                    (false, false) => println!("{response}"),
                }),
            }
        }
        file.as_mut().map_or(Ok(()), Write::flush).context("cannot write the answers")?;
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    if unfinished > 0 {
        let (of, limit) = (prompts.len(), decoding.max_new_tokens);
        note(&format!("{unfinished} of {of} answers were cut at {limit} tokens (--max-new-tokens)"));
    }
    Ok(())
}

/// Tells people; programs, which have no terminal, with --verbose alone: they have the finish_reason of JSON Lines.
fn note(said: &str) {
    match std::io::stderr().is_terminal() {
        true => tracing::info!("{said}"),
        false => tracing::debug!("{said}"),
    }
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    Ok(BufWriter::new(File::create_new(path).with_context(|| format!("cannot write {}", path.display()))?))
}

/// The settings of the preset with the flags in their places; says what was taken from the model's own.
fn decoding(arguments: &Arguments, checkpoint: &Checkpoint) -> Result<Decoding> {
    let base = match arguments.preset {
        Preset::Model => match StoredDecoding::read(checkpoint.dir(), &Decoding::default())? {
            Some(stored) => {
                if !stored.taken.is_empty() {
                    note(&format!("as the model's generation_config.json says: {}", stored.taken.join(", ")));
                }
                if !stored.unsupported.is_empty() {
                    let named = stored.unsupported.join(", ");
                    tracing::warn!("generation_config.json asks for what is not supported: {named}");
                }
                stored.decoding
            }
            None => Decoding::default(),
        },
        Preset::Published => Decoding::published(),
        Preset::Plain => Decoding::default(),
    };
    let mut d = Decoding { seed: arguments.seed, ..base };
    d.sample = (d.sample || arguments.sample) && !arguments.greedy;
    match arguments.num_beams {
        Some(beams) => d.num_beams = beams,
        // The beams of a preset are no wish against the flag.
        None if arguments.sample || arguments.greedy => d.num_beams = 1,
        None => {}
    }
    let set = |place: &mut usize, value: Option<usize>| value.into_iter().for_each(|value| *place = value);
    let set_real = |place: &mut f32, value: Option<f32>| value.into_iter().for_each(|value| *place = value);
    set(&mut d.max_new_tokens, arguments.max_new_tokens);
    set(&mut d.min_new_tokens, arguments.min_new_tokens);
    set_real(&mut d.length_penalty, arguments.length_penalty);
    arguments.early_stopping.into_iter().for_each(|when| d.early_stopping = when);
    let drawn = [
        ("--temperature", arguments.temperature.is_some()),
        ("--top-k", arguments.top_k.is_some()),
        ("--top-p", arguments.top_p.is_some()),
    ];
    if let Some((flag, _)) = drawn.into_iter().find(|(_, given)| *given && !d.sample) {
        bail!("{flag} shapes what is drawn from, and nothing is drawn; add --sample");
    }
    let p = &mut d.processors;
    set_real(&mut p.temperature, arguments.temperature);
    set(&mut p.top_k, arguments.top_k);
    set_real(&mut p.top_p, arguments.top_p);
    set_real(&mut p.repetition_penalty, arguments.repetition_penalty);
    set(&mut p.no_repeat_ngram_size, arguments.no_repeat_ngram_size);
    d.validate()?;
    Ok(d)
}
