//! The flags that every command which trains has in common, as settings.

use anyhow::Result;
use rpo::feedback::ReadOptions;
use rpo::tokenizer::Cut;
use toml::Value;

use crate::settings;

/// What is trained on what, and how long.
#[derive(clap::Args)]
pub struct Flags {
    /// Model directory or hub id to start from, which is also the reference
    #[arg(long)]
    model: Option<String>,
    /// Rated responses: JSONL, JSON, CSV or Parquet; several files are read as one
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
    /// Keep less for the gradients and compute it again: less memory, a third more time
    #[arg(long)]
    recompute: bool,
    /// Largest learning rate [default: 1e-4]
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Steps of linear warm-up [default: 150, but at most a tenth of all]
    #[arg(long)]
    warmup_steps: Option<i64>,
    /// Steps between validations, each of which also saves [default: a tenth of all]
    #[arg(long)]
    validate_every: Option<i64>,
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
    #[arg(long, value_name = "end|start")]
    truncate_prompts: Option<String>,
    #[command(flatten)]
    columns: Columns,
    /// Decides the order of the data [default: 42]
    #[arg(long)]
    seed: Option<i64>,
    /// Decides which prompts are only scored [default: 42]
    #[arg(long)]
    split_seed: Option<i64>,
    /// Where reference scores are kept between runs [default: the user's cache directory]
    #[arg(long, value_name = "DIR")]
    cache: Option<String>,
    /// cpu, cuda, rocm, metal or vulkan [default: cpu]
    #[arg(long)]
    device: Option<String>,
    /// Any other setting, as in the TOML file: --set train.optimizer.weight-decay=0 (may be repeated)
    #[arg(long = "set", value_name = "NAME=VALUE")]
    more: Vec<String>,
}

/// How data are laid out: shared by all commands that read them.
#[derive(clap::Args, Clone)]
pub struct Columns {
    /// Column of the prompts
    #[arg(long)]
    prompt_column: Option<String>,
    /// Column of the responses
    #[arg(long)]
    response_column: Option<String>,
    /// Column of the rewards
    #[arg(long)]
    reward_column: Option<String>,
    /// jsonl, json, csv, parquet or ultrafeedback; by default what the file's name says
    #[arg(long)]
    format: Option<String>,
}

impl Columns {
    /// The given flags as settings.
    fn given(self) -> [Given; 4] {
        [
            ("columns.prompt", text(self.prompt_column)),
            ("columns.response", text(self.response_column)),
            ("columns.reward", text(self.reward_column)),
            ("columns.format", text(self.format)),
        ]
    }

    /// The given flags alone, for commands that have no settings.
    pub fn options(&self) -> Result<ReadOptions> {
        let mut table = toml::Table::new();
        for (name, value) in self.clone().given() {
            value.into_iter().for_each(|value| settings::set(&mut table, name, value));
        }
        let columns = table.remove("columns").unwrap_or_else(|| Value::Table(toml::Table::new()));
        Ok(columns.try_into()?)
    }
}

/// A setting's name and value, if it was given.
pub type Given = (&'static str, Option<Value>);

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

/// Which end of a longer prompt is cut.
pub fn cut(value: &str) -> Result<Cut, String> {
    match value {
        "end" => Ok(Cut::End),
        "start" => Ok(Cut::Start),
        _ => Err("it is end or start".into()),
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
    pub fn settings(self, own: impl IntoIterator<Item = Given>) -> Result<Vec<(String, Value)>> {
        let common = [
            ("model", text(self.model)),
            ("data", list(self.data)),
            ("validation-data", list(self.validation_data)),
            ("out", text(self.out)),
            ("cache", text(self.cache)),
            ("device", text(self.device)),
            ("validation-fraction", real(self.validation_fraction)),
            ("split-seed", whole(self.split_seed)),
            ("max-prompt-tokens", whole(self.max_prompt_tokens)),
            ("max-response-tokens", whole(self.max_response_tokens)),
            ("truncate-prompts", text(self.truncate_prompts)),
            ("train.epochs", whole(self.epochs)),
            ("train.max-steps", whole(self.max_steps)),
            ("train.batch-size", whole(self.batch_size)),
            ("train.micro-batch-tokens", whole(self.micro_batch_tokens)),
            ("train.recompute", self.recompute.then_some(Value::Boolean(true))),
            ("train.warmup-steps", whole(self.warmup_steps)),
            ("train.validate-every", whole(self.validate_every)),
            ("train.seed", whole(self.seed)),
            ("train.optimizer.learning-rate", real(self.learning_rate)),
        ];
        let given = common
            .into_iter()
            .chain(self.columns.given())
            .chain(own)
            .filter_map(|(name, value)| value.map(|v| Ok((name.to_string(), v))));
        given.chain(self.more.iter().map(|text| settings::assignment(text))).collect()
    }
}
