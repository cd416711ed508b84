//! The settings of a run: a TOML file, then flags, which win; resolved once into plain data and saved with the run.

mod origin;
pub mod schema;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use chrono::{Local, NaiveDate};
use rpo::chat::{Chat, UseTemplate};
use rpo::device::Precision;
use rpo::feedback::{Limits, ReadOptions, Source};
use rpo::model::checkpoint::Checkpoint;
use rpo::objective::ObjectiveConfig;
use rpo::store::text_of;
use rpo::tokenizer::Cut;
use rpo::train::TrainConfig;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use toml::{Table, Value};

pub use origin::{Given, Origin};
use schema::problems;

/// Everything that decides a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Model directory or hub id to start from; for RPO also the reference.
    pub model: String,
    /// Rated responses: a file, a directory, a pattern or a data set of the hub, or a list of such.
    pub data: Source,
    /// Directory of the run.
    pub out: PathBuf,
    /// Where tokenized data and reference scores are kept between runs; by default the user's cache directory.
    #[serde(default = "cache")]
    pub cache: PathBuf,
    /// What computes: cpu, or cuda, rocm, metal or vulkan if compiled in.
    #[serde(default = "cpu")]
    pub device: String,
    /// What the factors of matrix products are rounded to: "f32" (they are not), "bf16", or "auto", which is bf16 where it is
    /// faster.
    #[serde(default)]
    pub precision: Precision,
    /// Rated responses to validate on, read like `data`; then nothing of `data` is held out.
    #[serde(default)]
    pub validation_data: Option<Source>,
    /// Share of the prompts that is only scored; 0 for none.
    #[serde(default = "tenth")]
    pub validation_fraction: f64,
    /// Decides which prompts are only scored.
    #[serde(default = "split_seed")]
    pub split_seed: u64,
    /// Longest prompt in tokens.
    #[serde(default = "longest")]
    pub max_prompt_tokens: usize,
    /// Longest response in tokens.
    #[serde(default = "longest")]
    pub max_response_tokens: usize,
    /// Which end of a longer prompt is cut: "end", as transformers does, or "start", which keeps what was said last.
    #[serde(default)]
    pub truncate_prompts: Cut,
    /// Whether the prompts of a decoder-only model go through its chat template: "auto" (chat messages do, plain texts do not),
    /// "always" (a plain text is what a user says) or "never" (chat messages are written out as plain text).
    #[serde(default)]
    pub chat_template: UseTemplate,
    /// The day that a chat template which asks for it is told, as "2024-07-26"; by default the one on which the run begins.
    #[serde(default, deserialize_with = "day")]
    #[schemars(with = "Option<String>")]
    pub chat_date: Option<NaiveDate>,
    /// Program that rates the policy's answers at every validation.
    #[serde(default)]
    pub judge: Option<String>,
    /// Seconds that this program may take at a validation, after which it is ended; by default ten minutes and one more for each
    /// answer.
    #[serde(default)]
    pub judge_timeout: Option<f64>,
    /// What is minimised.
    pub objective: ObjectiveConfig,
    /// The loop.
    #[serde(default)]
    pub train: TrainConfig,
    /// Format and columns of the data.
    #[serde(default)]
    pub columns: ReadOptions,
}

/// The user's cache directory.
pub fn cache() -> PathBuf {
    let home = |name: &str, below: &str| std::env::var_os(name).map(|dir| PathBuf::from(dir).join(below));
    home("XDG_CACHE_HOME", "rpo").or_else(|| home("HOME", ".cache/rpo")).unwrap_or_else(|| "rpo-cache".into())
}

/// The day it is here.
pub fn today() -> NaiveDate {
    Local::now().date_naive()
}

fn day<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<NaiveDate>, D::Error> {
    let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
    let no_day = |_| D::Error::custom(format!("`{text}` is no day; write it like 2024-07-26"));
    text.parse().map(Some).map_err(no_day)
}

fn cpu() -> String {
    "cpu".into()
}

fn tenth() -> f64 {
    0.1
}

fn split_seed() -> u64 {
    42
}

fn longest() -> usize {
    512
}

impl Settings {
    /// Merges the file, if any, with what the command line gives. A flag `published` wins over the file, the other flags over
    /// it.
    pub fn resolve(origin: Origin<'_>) -> Result<Self> {
        let asked = |given: &&Given| given.name == "published" && given.value.as_bool() == Some(true);
        let Some(flag) = origin.given.iter().find(asked) else {
            return Self::from_table(merge(origin)?, origin);
        };
        let others: Vec<Given> = origin.given.iter().filter(|given| *given != flag).cloned().collect();
        let published = published(&merge(Origin { given: &others, ..origin })?)?;
        let mut table = over(merge(Origin { given: &[], ..origin })?, published);
        others.into_iter().for_each(|given| set(&mut table, &given.name, given.value));
        Self::from_table(table, origin)
    }

    /// Reads settings that were merged already; `origin` is where they come from.
    ///
    /// # Errors
    /// All that is missing, unknown or not what it should be.
    pub fn from_table(mut table: Table, origin: Origin<'_>) -> Result<Self> {
        match table.remove("published") {
            None | Some(Value::Boolean(false)) => {}
            Some(Value::Boolean(true)) => table = over(published(&table)?, table),
            Some(other) => bail!("{}: published: {other} is neither true nor false", origin.name()),
        }
        // TOML has days of its own.
        if let Some(day @ Value::Datetime(_)) = table.get_mut("chat-date") {
            *day = Value::String(day.to_string());
        }
        origin.refuse(&problems(&table))?;
        let missing = REQUIRED.iter().filter(|(name, _)| !table.contains_key(*name));
        let missing: Vec<String> = missing.map(|(name, flag)| format!("{name} ({flag})")).collect();
        if !missing.is_empty() {
            bail!("{}: missing: {}", origin.name(), missing.join(", "));
        }
        table.try_into().map_err(|problem: toml::de::Error| {
            anyhow::anyhow!("{}: {}", origin.name(), problem.to_string().trim_end().replace('\n', ", "))
        })
    }

    /// As TOML, for the run's directory.
    pub fn to_toml(&self) -> Result<String> {
        Ok(toml::to_string_pretty(self)?)
    }

    /// Where the held-out prompts are.
    pub fn held_out_source(&self) -> &Source {
        self.validation_data.as_ref().unwrap_or(&self.data)
    }

    /// How prompts are written.
    pub fn chat(&self) -> Chat {
        Chat { template: self.chat_template, date: self.chat_date }
    }

    /// Settles what day the chat template of `model` is told if it asks: today, unless it is given.
    pub fn settle_day(&mut self, model: &Checkpoint) -> Result<()> {
        if self.chat_date.is_none() && model.asks_for_the_day(self.chat_template)? {
            self.chat_date = Some(today());
        }
        Ok(())
    }

    /// Limits of the tokenized texts.
    pub fn limits(&self) -> Limits {
        Limits {
            prompt_tokens: self.max_prompt_tokens,
            response_tokens: self.max_response_tokens,
            cut_prompts: self.truncate_prompts,
        }
    }
}

/// What every run needs, and the flag that gives it.
const REQUIRED: [(&str, &str); 4] =
    [("objective", "rpo train NAME"), ("model", "--model"), ("data", "--data"), ("out", "--out")];

/// What the authors' script sets for the objective that `given` names.
pub fn published(given: &Table) -> Result<Table> {
    let name = given.get("objective").and_then(|o| o.get("name")).and_then(Value::as_str).unwrap_or("rpo");
    let objective = ObjectiveConfig::published(name).with_context(|| format!("no objective `{name}`"))?;
    let mut base = Table::from_iter([("objective".to_string(), Value::try_from(objective)?)]);
    for (setting, value) in [
        ("max-prompt-tokens", Value::Integer(512)),
        ("max-response-tokens", Value::Integer(512)),
        ("train.epochs", Value::Integer(1)),
        ("train.batch-size", Value::Integer(32)),
        ("train.warmup-steps", Value::Integer(150)),
        ("train.optimizer.learning-rate", Value::Float(1e-4)),
    ] {
        set(&mut base, setting, value);
    }
    Ok(base)
}

/// `base` with what `given` has in its places.
pub fn over(mut base: Table, given: Table) -> Table {
    for (name, value) in given {
        let merged = match (base.remove(&name), value) {
            (Some(Value::Table(below)), Value::Table(value)) => Value::Table(over(below, value)),
            (_, value) => value,
        };
        base.insert(name, merged);
    }
    base
}

/// The settings of a file, if any, with what the command line gives in its places.
pub fn merge(origin: Origin<'_>) -> Result<Table> {
    let mut table = match origin.file {
        Some(path) => text_of(path)?.parse::<Table>().with_context(|| format!("{}", path.display()))?,
        None => Table::new(),
    };
    for given in origin.given {
        set(&mut table, &given.name, given.value.clone());
    }
    Ok(table)
}

/// A setting given as `name=value`; what is no TOML value is a text.
pub fn assignment(text: &str) -> Result<Given> {
    let (name, value) = text.split_once('=').with_context(|| format!("--set {text}: not of the form NAME=VALUE"))?;
    let parsed = format!("value = {value}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
    let (name, value) = (name.trim().to_string(), parsed.unwrap_or_else(|| Value::String(value.trim().into())));
    Ok(Given { by: format!("--set {name}"), name, value })
}

/// Sets `name`, such as `train.batch-size`, making tables on the way.
pub fn set(table: &mut Table, name: &str, value: Value) {
    match name.split_once('.') {
        None => {
            table.insert(name.into(), value);
        }
        Some((outer, inner)) => {
            // A value that is no table gives way, or what is set inside it would be lost without a word.
            let below = table.entry(outer).or_insert_with(|| Value::Table(Table::new()));
            if !below.is_table() {
                *below = Value::Table(Table::new());
            }
            if let Value::Table(below) = below {
                set(below, inner, value);
            }
        }
    }
}

/// What `then` and `now` do not have in common, each as `name: value then, value now`.
pub fn differences(then: &Table, now: &Table) -> Vec<String> {
    unlike(then, now, "then", "now")
}

/// What differs between two tables, with both values and whose they are.
pub fn unlike(one: &Table, other: &Table, whose: &str, others: &str) -> Vec<String> {
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let of_name = names.into_iter().flat_map(|name| match (one.get(name), other.get(name)) {
        (Some(Value::Table(one)), Some(Value::Table(other))) => {
            unlike(one, other, whose, others).into_iter().map(|inner| format!("{name}.{inner}")).collect()
        }
        (one, other) if one == other => vec![],
        (one, other) => {
            let [one, other] = [one, other].map(|v| v.map_or_else(|| "nothing".into(), Value::to_string));
            vec![format!("{name}: {one} {whose}, {other} {others}")]
        }
    });
    of_name.collect()
}

#[cfg(test)]
mod tests {
    use rpo::objective::RpoConfig;

    use super::*;

    fn text(value: &str) -> Value {
        Value::String(value.into())
    }

    #[test]
    fn flags_win_over_the_file_and_the_result_reads_back() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("run.toml");
        let written = "model = \"a\"\ndata = \"d\"\nout = \"o\"\n[objective]\nname = \"rpo\"\ntau = 2.0\n[train.optimizer]\nlearning-rate = 0.5\n";
        std::fs::write(&file, written).expect("write");
        let flags = [Given::by_flag("model", text("b")), assignment("train.batch-size=8").expect("valid")];
        let settings = Settings::resolve(Origin { file: Some(&file), given: &flags }).expect("valid");
        assert_eq!((settings.model.as_str(), settings.train.batch_size), ("b", 8));
        assert_eq!(settings.train.optimizer.learning_rate, 0.5);
        assert_eq!(settings.objective, ObjectiveConfig::Rpo(RpoConfig { tau: 2.0, ..RpoConfig::default() }));
        std::fs::write(&file, settings.to_toml().expect("TOML")).expect("write");
        assert_eq!(Settings::resolve(Origin::file(&file)).expect("valid"), settings);
    }

    #[test]
    fn published_settings_win_over_a_file_and_flags_over_them() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("run.toml");
        let written = "model = \"a\"\ndata = \"d\"\nout = \"o\"\n[objective]\nname = \"rpo\"\ntau = 0.3\n[train]\nbatch-size = 8\n";
        std::fs::write(&file, written).expect("write");
        let flags = |more: &[&str]| more.iter().map(|text| assignment(text).expect("valid")).collect::<Vec<_>>();
        let settings =
            Settings::resolve(Origin { file: Some(&file), given: &flags(&["published=true", "train.epochs=3"]) })
                .expect("valid");
        assert_eq!(settings.objective, ObjectiveConfig::Rpo(RpoConfig::published()));
        let train = &settings.train;
        assert_eq!((train.batch_size, train.warmup_steps, train.epochs), (32, Some(150), 3));
        // In the file it fills what the file leaves open.
        std::fs::write(&file, format!("published = true\n{written}")).expect("write");
        let settings = Settings::resolve(Origin::file(&file)).expect("valid");
        let tau = RpoConfig { tau: 0.3, ..RpoConfig::published() };
        assert_eq!((settings.objective, settings.train.batch_size), (ObjectiveConfig::Rpo(tau), 8));
    }

    #[test]
    fn assignments_are_toml_or_text() {
        let value = |text| assignment(text).expect("valid").value;
        assert_eq!(value("a=0.5"), Value::Float(0.5));
        assert_eq!(value("a=prompt-mean"), text("prompt-mean"));
        assert!(value("a={ at-least = 3 }").is_table());
        assert!(assignment("a").is_err());
    }

    #[test]
    fn differences_are_named_with_both_values() {
        let table = |text: &str| text.parse::<Table>().expect("TOML");
        let then = table("model = \"a\"\n[train]\nseed = 1\nmax-steps = 2\n");
        let now = table("model = \"a\"\n[train]\nseed = 3\n");
        assert_eq!(differences(&then, &now), ["train.max-steps: 2 then, nothing now", "train.seed: 1 then, 3 now"]);
        assert!(differences(&then, &then).is_empty());
    }

    #[test]
    fn what_is_set_inside_a_value_is_not_lost() {
        let given = ["model=m", "data=d", "out=o", "objective.name=rpo", "data.path=x", "objective.tua=1"];
        let given: Vec<Given> = given.iter().map(|text| assignment(text).expect("valid")).collect();
        let said = format!("{:#}", Settings::resolve(Origin { file: None, given: &given }).expect_err("no path"));
        assert!(said.contains("--set data.path: data: a table is not a text or a list"), "{said}");
        assert!(said.contains("--set objective.tua: objective.tua: there is no such setting of rpo"), "{said}");
    }
}
