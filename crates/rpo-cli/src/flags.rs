//! The flags that every command which trains has in common, as settings.

use std::path::Path;

use anyhow::{Result, bail};
use chrono::NaiveDate;
use rpo::chat::{Chat, UseTemplate};
use rpo::device::{self, Precision};
use rpo::feedback::ReadOptions;
use rpo::tokenizer::Cut;
use toml::Value;

use crate::settings::{self, Given, Origin, schema};

/// What is trained on what, and how long.
#[derive(clap::Args)]
#[command(next_help_heading = "Data, loop and output")]
pub struct Flags {
    /// Model directory or hub id (owner/name, owner/name@revision) to start from, which is also the reference
    #[arg(long)]
    model: Option<String>,
    /// Rated responses: files (JSON, CSV, Parquet, Arrow), directories, patterns or a data set of the hub; several are one
    #[arg(long, value_name = "FILE", num_args = 1..)]
    data: Option<Vec<String>>,
    /// Rated responses to validate on, instead of a share of the data
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "validation_fraction")]
    validation_data: Option<Vec<String>>,
    /// New directory for the results
    #[arg(long, value_name = "DIR")]
    out: Option<String>,
    /// Passes over the data [default: 1]
    #[arg(long)]
    epochs: Option<i64>,
    /// Stop after this many optimizer steps
    #[arg(long)]
    max_steps: Option<i64>,
    /// Responses of an optimizer step [default: 32]
    #[arg(long)]
    batch_size: Option<i64>,
    /// Tokens computed at once: bounds memory, changes nothing else [default: 4096]
    #[arg(long)]
    micro_batch_tokens: Option<i64>,
    /// Parts of a step whose gradients are computed apart and added in order: any number of processes that divides it comes to the
    /// same weights, and may go on with the run [default: the number of processes (mpirun -n N) when the run begins]
    #[arg(long, value_name = "N")]
    shards: Option<i64>,
    /// Keep less for the gradients and compute it again: less memory, a third more time
    #[arg(long)]
    recompute: bool,
    /// Largest learning rate [default: 1e-4]; adapters (--lora-rank) usually need about ten times that of a whole model
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Train adapters of this rank (LoRA) instead of the whole model: a third less time and far less memory. best/ is the model
    /// with them merged, best/adapter/ they alone, as PEFT reads them
    #[arg(long, value_name = "RANK")]
    lora_rank: Option<i64>,
    /// The product B A of an adapter is multiplied by ALPHA / RANK [default: twice the rank]
    #[arg(long, value_name = "ALPHA")]
    lora_alpha: Option<f64>,
    /// Linear maps that get adapters, such as q,v of T5 or q_proj,v_proj [default: all of the blocks]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    lora_targets: Option<Vec<String>>,
    /// Number format of the weights in best/, bf16 and f16 keeping changes smaller than their steps in the mean over weights; with
    /// --lora-rank, bf16 also halves the memory of the frozen model [default: f32]
    #[arg(long, value_name = "FORMAT", value_parser = ["f32", "bf16", "f16"])]
    store: Option<String>,
    /// Steps of linear warm-up [default: 150, but at most a tenth of all]
    #[arg(long)]
    warmup_steps: Option<i64>,
    /// Steps between validations, each of which also saves [default: a tenth of all]
    #[arg(long)]
    validate_every: Option<i64>,
    /// Also save after so many steps (500), so much time (10m, 90s, 2h), or whichever comes first (500,10m); or never [default: 10m]
    #[arg(long, value_name = "WHEN")]
    save_every: Option<String>,
    /// States that are kept to go on from: last/ and what was last/ before, in case it is damaged [default: 2]
    #[arg(long, value_name = "N")]
    keep: Option<i64>,
    /// What becomes of a step whose loss or gradients are not finite: stop ends the run, skip learns nothing from it. Its prompts
    /// are in bad-steps.jsonl either way [default: stop]
    #[arg(long, value_name = "WHAT", value_parser = ["stop", "skip"])]
    on_bad_step: Option<String>,
    /// Share of the prompts that is only scored; 0 for none [default: 0.1]
    #[arg(long)]
    validation_fraction: Option<f64>,
    /// Longest prompt in tokens [default: 512]
    #[arg(long)]
    max_prompt_tokens: Option<i64>,
    /// Longest response in tokens [default: 512]
    #[arg(long)]
    max_response_tokens: Option<i64>,
    /// Which end of a longer prompt is cut; start keeps what was said last [default: end]
    #[arg(long, value_name = "END", value_parser = ["end", "start"])]
    truncate_prompts: Option<String>,
    /// Whether the prompts of a decoder-only model go through its chat template: auto (chat messages do, plain texts do not),
    /// always (a plain text is what a user says) or never (messages are written out as plain text) [default: auto]
    #[arg(long, value_name = "WHEN", value_parser = ["auto", "always", "never"])]
    chat_template: Option<String>,
    /// The day that a chat template which asks for it is told [default: the day on which the run begins]
    #[arg(long, value_name = "YYYY-MM-DD")]
    chat_date: Option<String>,
    /// Decides the order of the data [default: 42]
    #[arg(long)]
    seed: Option<i64>,
    /// Decides which prompts are only scored [default: 42]
    #[arg(long)]
    split_seed: Option<i64>,
    /// Where tokenized data and reference scores are kept between runs [default: the user's cache directory]
    #[arg(long, value_name = "DIR")]
    cache: Option<String>,
    /// What computes; all but the CPU must be compiled in [default: cpu]
    #[arg(long, value_parser = device::NAMES)]
    device: Option<String>,
    /// What the factors of matrix products are rounded to, weights so that small updates count in the mean; auto is bf16 where
    /// that is faster (AMX, AMD's AVX-512 BF16; d_model from 256 on) [default: auto]
    #[arg(long, value_name = "FORMAT", value_parser = Precision::NAMES)]
    precision: Option<String>,
    /// Any other setting, as in the TOML file: --set train.optimizer.weight-decay=0 (may be repeated)
    #[arg(long = "set", value_name = "NAME=VALUE")]
    more: Vec<String>,
    #[command(flatten)]
    columns: Columns,
}

/// How data are laid out: shared by all commands that read them.
#[derive(clap::Args, Clone)]
#[command(next_help_heading = "Layout of the data")]
pub struct Columns {
    /// Column of the prompts, texts or chat messages; all columns may be paths: input.messages, choices.0.text
    #[arg(long, value_name = "NAME")]
    prompt_column: Option<String>,
    /// Column of the responses
    #[arg(long, value_name = "NAME")]
    response_column: Option<String>,
    /// Column of the rewards; of several the mean (a,b) or the sum by weights (a*0.65,b*-0.4)
    #[arg(long, value_name = "NAMES")]
    reward_column: Option<String>,
    /// Column of the list of responses, where a row holds several
    #[arg(long, value_name = "NAME")]
    responses_column: Option<String>,
    /// Field of a response's text in that list
    #[arg(long, value_name = "NAME")]
    text_column: Option<String>,
    /// What words in the reward column count [default: thumbs, yes, good, up ... 1 and their opposites 0]
    #[arg(long, value_name = "WORD=NUMBER", value_delimiter = ',', value_parser = worth)]
    reward_map: Option<Vec<(String, f64)>>,
    /// Refuse rows without a rating, a prompt or a response, which are left out and counted otherwise
    #[arg(long)]
    strict: bool,
    /// How the file is laid out [default: what its content says]
    #[arg(long, value_parser = ["jsonl", "json", "csv", "tsv", "parquet", "arrow", "ultrafeedback"])]
    format: Option<String>,
}

/// The columns, and `--set` for commands that have no other settings.
#[derive(clap::Args, Clone)]
pub struct Layout {
    #[command(flatten)]
    columns: Columns,
    /// Any setting of columns, as in the TOML file: --set columns.score=fine-grained (may be repeated)
    #[arg(long = "set", value_name = "NAME=VALUE")]
    more: Vec<String>,
}

fn worth(text: &str) -> Result<(String, f64), String> {
    let (word, number) = text.rsplit_once('=').ok_or("not of the form WORD=NUMBER")?;
    match number.trim().parse::<f64>() {
        Ok(number) if number.is_finite() => Ok((word.trim().into(), number)),
        _ => Err(format!("`{number}` is not a finite number")),
    }
}

impl Columns {
    /// The given flags as settings.
    fn given(self) -> [Setting; 8] {
        let map = |pairs: Vec<(String, f64)>| {
            Value::Table(pairs.into_iter().map(|(word, number)| (word, Value::Float(number))).collect())
        };
        [
            ("columns.prompt", text(self.prompt_column)),
            ("columns.response", text(self.response_column)),
            ("columns.reward", text(self.reward_column)),
            ("columns.responses", text(self.responses_column)),
            ("columns.text", text(self.text_column)),
            ("columns.reward-map", self.reward_map.map(map)),
            ("columns.strict", self.strict.then_some(Value::Boolean(true))),
            ("columns.format", text(self.format)),
        ]
    }
}

impl Layout {
    /// The flags alone; --set comes last and wins.
    pub fn options(&self) -> Result<ReadOptions> {
        let mut given: Vec<Given> = Vec::new();
        for (name, value) in self.columns.clone().given() {
            given.extend(value.map(|value| Given::by_flag(name, value)));
        }
        for assigned in &self.more {
            let assigned = settings::assignment(assigned)?;
            let is_column = assigned.name.starts_with("columns.");
            anyhow::ensure!(is_column, "{}: only settings of columns apply here", assigned.by);
            given.push(assigned);
        }
        let origin = Origin { file: None, given: &given };
        let mut table = settings::merge(origin)?;
        origin.refuse(&schema::problems(&table))?;
        let columns = table.remove("columns").unwrap_or_else(|| Value::Table(toml::Table::new()));
        Ok(columns.try_into()?)
    }
}

/// A setting's name and value, if it was given.
pub type Setting = (&'static str, Option<Value>);

/// A flag that holds a text.
pub fn text(value: Option<String>) -> Option<Value> {
    value.map(Value::String)
}

/// A flag that holds one text or several.
pub fn list(values: Option<Vec<String>>) -> Option<Value> {
    values.map(|mut values| match values.len() {
        1 => Value::String(values.remove(0)),
        _ => Value::Array(values.into_iter().map(Value::String).collect()),
    })
}

/// Fails where there is no directory for an output, before anything is done for it.
pub fn check_directory(output: &Path) -> Result<()> {
    let dir = output.parent().filter(|dir| !dir.as_os_str().is_empty() && !dir.is_dir());
    dir.map_or(Ok(()), |dir| bail!("cannot write {}: there is no directory {}", output.display(), dir.display()))
}

/// Which end of a longer prompt is cut.
pub fn cut(value: &str) -> Result<Cut, String> {
    match value {
        "end" => Ok(Cut::End),
        "start" => Ok(Cut::Start),
        _ => Err("it is end or start".into()),
    }
}

/// How prompts are written, for commands that are no runs.
#[derive(clap::Args, Clone)]
pub struct ChatFlags {
    /// Whether the prompts of a decoder-only model go through its chat template: auto (chat messages do, plain texts do not),
    /// always (a plain text is what a user says) or never (messages are written out as plain text)
    #[arg(long, value_name = "auto|always|never", default_value = "auto", value_parser = use_template)]
    pub chat_template: UseTemplate,
    /// The day that a chat template which asks for it is told [default: today]
    #[arg(long, value_name = "YYYY-MM-DD")]
    chat_date: Option<NaiveDate>,
}

impl ChatFlags {
    /// How prompts are written today, if no day is given.
    pub fn chat(&self) -> Chat {
        self.chat_on(None)
    }

    /// The same on another day than today, if no day is given.
    pub fn chat_on(&self, day: Option<NaiveDate>) -> Chat {
        let date = self.chat_date.or(day).unwrap_or_else(settings::today);
        Chat { template: self.chat_template, date: Some(date) }
    }
}

fn use_template(value: &str) -> Result<UseTemplate, String> {
    match value {
        "auto" => Ok(UseTemplate::Auto),
        "always" => Ok(UseTemplate::Always),
        "never" => Ok(UseTemplate::Never),
        _ => Err("it is auto, always or never".into()),
    }
}

/// A flag that holds a number.
pub fn real(value: Option<f64>) -> Option<Value> {
    value.map(Value::Float)
}

/// A flag that holds a whole number.
pub fn whole(value: Option<i64>) -> Option<Value> {
    value.map(Value::Integer)
}

impl Flags {
    /// What was given, with what the command has of its own; --set comes last and wins.
    pub fn settings(self, own: impl IntoIterator<Item = Setting>) -> Result<Vec<Given>> {
        let common = [
            ("model", text(self.model)),
            ("data", list(self.data)),
            ("validation-data", list(self.validation_data)),
            ("out", text(self.out)),
            ("cache", text(self.cache)),
            ("device", text(self.device)),
            ("precision", text(self.precision)),
            ("validation-fraction", real(self.validation_fraction)),
            ("split-seed", whole(self.split_seed)),
            ("max-prompt-tokens", whole(self.max_prompt_tokens)),
            ("max-response-tokens", whole(self.max_response_tokens)),
            ("truncate-prompts", text(self.truncate_prompts)),
            ("chat-template", text(self.chat_template)),
            ("chat-date", text(self.chat_date)),
            ("train.epochs", whole(self.epochs)),
            ("train.max-steps", whole(self.max_steps)),
            ("train.batch-size", whole(self.batch_size)),
            ("train.micro-batch-tokens", whole(self.micro_batch_tokens)),
            ("train.shards", whole(self.shards)),
            ("train.recompute", self.recompute.then_some(Value::Boolean(true))),
            ("train.warmup-steps", whole(self.warmup_steps)),
            ("train.validate-every", whole(self.validate_every)),
            ("train.save-every", text(self.save_every)),
            ("train.keep", whole(self.keep)),
            ("train.on-bad-step", text(self.on_bad_step)),
            ("train.seed", whole(self.seed)),
            ("train.optimizer.learning-rate", real(self.learning_rate)),
            ("train.lora.rank", whole(self.lora_rank)),
            ("train.lora.alpha", real(self.lora_alpha)),
            (
                "train.lora.targets",
                self.lora_targets.map(|names| Value::Array(names.into_iter().map(Value::String).collect())),
            ),
            ("train.store", text(self.store)),
        ];
        let given = common
            .into_iter()
            .chain(self.columns.given())
            .chain(own)
            .filter_map(|(name, value)| value.map(|value| Ok(Given::by_flag(name, value))));
        given.chain(self.more.iter().map(|text| settings::assignment(text))).collect()
    }
}
