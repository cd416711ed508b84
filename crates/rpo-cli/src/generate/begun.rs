//! What a run of `rpo generate` was begun with: beside its answers, so that these are lines of answers and nothing else to every
//! program that reads them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use chrono::NaiveDate;
use rpo::chat::UseTemplate;
use rpo::generate::Decoding;
use rpo::store::files::write_file;
use rpo::store::text_of;
use rpo::tokenizer::Cut;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::arguments::Weights;
use super::shard::Shard;

/// What decides the answers of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Begun {
    /// Of the program.
    pub version: String,
    /// The model's hub id or directory; it may lie elsewhere later.
    pub model: String,
    /// Hash of its weights and configuration.
    pub model_fingerprint: String,
    /// What it is held in.
    pub weights: Weights,
    /// Hash of its tokenizer and of how it writes prompts.
    pub tokenizer_fingerprint: String,
    /// How many prompts all parts have.
    pub prompts: u64,
    /// Hash of them.
    pub prompts_fingerprint: String,
    /// Which part of them is answered here.
    pub shard: Shard,
    /// Answers to each.
    pub answers: usize,
    /// Of so many, the best.
    pub drawn: usize,
    pub decoding: Decoding,
    pub stop: Vec<String>,
    pub max_prompt_tokens: usize,
    pub truncate_prompts: Cut,
    pub chat_template: UseTemplate,
    /// If the template asks for it.
    pub chat_date: Option<NaiveDate>,
    /// Whether answers stand in the order of the prompts.
    pub in_order: bool,
}

impl Begun {
    /// Where it stands for the answers in a file.
    pub fn beside(output: &Path) -> PathBuf {
        let mut name = output.file_name().unwrap_or_default().to_os_string();
        name.push(".run.json");
        output.with_file_name(name)
    }

    /// What the answers in `output` were begun with; `None` if that is not told.
    pub fn read(output: &Path) -> Result<Option<Self>> {
        let path = Self::beside(output);
        if !path.exists() {
            return Ok(None);
        }
        let begun = serde_json::from_str(&text_of(&path)?);
        begun.with_context(|| format!("{}: not written by this `rpo generate`", path.display())).map(Some)
    }

    /// Leaves it beside `output`.
    pub fn write(&self, output: &Path) -> Result<()> {
        Ok(write_file(&Self::beside(output), format!("{}\n", serde_json::to_string_pretty(self)?).as_bytes())?)
    }

    /// Checks that the run in `output`, begun with `then`, can go on as `self` says.
    pub fn check(&self, then: &Self, output: &Path) -> Result<()> {
        let found = self.differences(then)?;
        if found.is_empty() {
            return Ok(());
        }
        let path = output.display();
        bail!("{path} was begun otherwise:\n  {}\ngo on as it was begun, or name a new file", found.join("\n  "))
    }

    /// What differs between two runs but for the program's version and where the model lies.
    pub fn differences(&self, then: &Self) -> Result<Vec<String>> {
        // By way of text, for a number may have fewer digits as text.
        let table = |begun: &Self| -> Result<Map<String, Value>> {
            let mut table: Map<String, Value> = serde_json::from_str(&serde_json::to_string(begun)?)?;
            table.remove("version");
            table.remove("model");
            Ok(table)
        };
        Ok(differences(&table(then)?, &table(self)?))
    }
}

/// The fields in which two objects differ, as paths, with both values.
fn differences(then: &Map<String, Value>, now: &Map<String, Value>) -> Vec<String> {
    let names = now.keys().chain(then.keys().filter(|name| !now.contains_key(*name)));
    let of_name = names.flat_map(|name| match (then.get(name), now.get(name)) {
        (Some(Value::Object(then)), Some(Value::Object(now))) => {
            differences(then, now).into_iter().map(|inner| format!("{name}.{inner}")).collect()
        }
        (then, now) if then == now => vec![],
        (then, now) => {
            let [then, now] = [then, now].map(|v| v.map_or_else(|| "nothing".into(), Value::to_string));
            vec![format!("{name}: {then} then, {now} now")]
        }
    });
    of_name.collect()
}
