//! `rpo card`: the README.md of a model, from what its run and its evaluation left behind.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rpo::chat::{ChatTemplate, UseTemplate};
use rpo::evaluate::card::{Card, Kind, Training, check_replaceable, license_of, write};
use rpo::evaluate::evaluation::Evaluation;
use rpo::model::checkpoint::Checkpoint;
use rpo::model::{Config, Precision};
use rpo::store::files::write_file;
use rpo::store::{hub, push, text_of};
use rpo::train::BestBy;
use serde_json::Value;
use toml::Table;

use crate::progress;
use crate::settings::{Origin, Settings};
use crate::version::version;

/// The settings of a run as resolved, beside its models.
const SETTINGS: &str = "config.toml";

/// Write the model card (README.md) of a trained model: `rpo card runs/first/best --license apache-2.0`
///
/// It says what the run's own settings and an evaluation say, and nothing else: a figure that was not measured is not in it, and
/// win rates by a judge that does not read what it is shown are struck out. A README.md that somebody wrote or changed is left
/// alone.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  rpo card runs/first/best --license apache-2.0 --language en
  rpo card runs/first/best --evaluation evaluation.json --repo user/flan-t5-small-rpo
  rpo push runs/first/best user/flan-t5-small-rpo --private")]
pub struct Arguments {
    /// Directory of the model: best/ or last/ of a run, or any other
    dir: PathBuf,
    /// evaluation.json that `rpo evaluate` wrote; this model must be among those evaluated
    #[arg(long, value_name = "FILE")]
    evaluation: Option<PathBuf>,
    /// Licence by the hub's identifier; by default that which the card of the base model names
    #[arg(long, value_name = "ID")]
    license: Option<String>,
    /// Language by its code, such as en; may be repeated
    #[arg(long = "language", value_name = "CODE")]
    languages: Vec<String>,
    /// Data set by its id on the hub; may be repeated; by default those of the run
    #[arg(long = "dataset", value_name = "ID")]
    datasets: Vec<String>,
    /// Id on the hub of the model that it was trained from; by default that of the run
    #[arg(long, value_name = "ID")]
    base_model: Option<String>,
    /// Id on the hub that it will have, for the code that loads it
    #[arg(long, value_name = "OWNER/NAME")]
    repo: Option<String>,
    /// What it is called; by default the name of --repo, or of the run
    #[arg(long)]
    name: Option<String>,
    /// Replace a README.md that somebody wrote or changed
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { dir, evaluation, license, languages, datasets, base_model, repo, name, force } = arguments;
    let model = Checkpoint::open(dir)?;
    if let Some(repo) = repo {
        push::check_repo(repo)?;
    }
    for id in datasets {
        push::check_repo(id).with_context(|| format!("--dataset {id}"))?;
    }
    let path = dir.join("README.md");
    if !force {
        check_replaceable(&path)?;
    }
    let run = Run::of(dir)?;
    let settings = run.as_ref().map(|run| &run.settings);
    let of_hub =
        |settings: &Settings| Some(without_revision(&settings.model).to_string()).filter(|model| is_hub_id(model));
    let base = base_model.clone().or_else(|| settings.and_then(of_hub));
    let evaluation = evaluation.as_deref().map(|path| evaluated(path, &model)).transpose()?;
    let license = license.clone().or_else(|| license_of_base(base.as_deref(), settings));
    let card = Card {
        name: name
            .clone()
            .or_else(|| repo.as_deref()?.split('/').next_back().map(Into::into))
            .unwrap_or_else(|| called(dir)),
        repo: repo.clone(),
        license,
        languages: languages.clone(),
        datasets: if datasets.is_empty() { settings.map(data_sets).unwrap_or_default() } else { datasets.clone() },
        base_model: base,
        kind: Kind { encoder_decoder: matches!(model.config()?, Config::T5(_)), adapter: model.is_adapter() },
        chat: is_chat(&model, settings)?,
        training: run.as_ref().map(|run| run.training(dir)).transpose()?,
        evaluation,
        version: version().split(' ').next().unwrap_or_default().into(),
    };
    write_file(&path, write(&card)?.as_bytes())?;
    println!("{}: written", path.display());
    missing(&card).iter().for_each(|line| eprintln!("{line}"));
    Ok(())
}

/// What a reader of the card will look for in vain.
fn missing(card: &Card) -> Vec<&'static str> {
    [
        (card.license.is_none(), "it names no licence: --license"),
        (card.base_model.is_none(), "it names no base model of the hub: --base-model"),
        (card.repo.is_none(), "its code loads `.`, the model's own directory: --repo OWNER/NAME"),
        (card.evaluation.is_none(), "it says that nothing was measured: --evaluation"),
        (
            card.training.is_none(),
            "there is no config.toml of a run beside the model, so it says nothing of the training",
        ),
    ]
    .into_iter()
    .filter_map(|(is, said)| is.then_some(said))
    .collect()
}

/// A run, as it lies on disk.
struct Run {
    dir: PathBuf,
    settings: Settings,
    table: Table,
}

impl Run {
    /// The run that a model's directory belongs to: best/, last/ and best/adapter/ are in it.
    fn of(model: &Path) -> Result<Option<Self>> {
        let whole = model.canonicalize().with_context(|| format!("cannot read {}", model.display()))?;
        let Some(dir) = whole.ancestors().skip(1).take(2).find(|dir| dir.join(SETTINGS).is_file()) else {
            return Ok(None);
        };
        let path = dir.join(SETTINGS);
        let text = text_of(&path)?;
        let table: Table = text.parse().with_context(|| path.display().to_string())?;
        let settings = Settings::from_table(table.clone(), Origin::file(&path))?;
        Ok(Some(Self { dir: dir.into(), settings, table }))
    }

    fn training(&self, model: &Path) -> Result<Training> {
        let mut facts = self.losses(model)?;
        let path = self.dir.join("run.json");
        if path.is_file() {
            let text = text_of(&path)?;
            let begun: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
            for (name, what) in [
                ("version", "version of rpo"),
                ("data_fingerprint", "fingerprint of the data"),
                ("reference_fingerprint", "fingerprint of the start"),
            ] {
                facts.extend(begun[name].as_str().map(|value| (what.to_string(), value.to_string())));
            }
        }
        Ok(Training {
            objective: self.settings.objective.name().into(),
            from: self.settings.model.clone(),
            data: self.settings.data.to_string(),
            facts,
            settings: toml::to_string_pretty(&public(self.table.clone()))?,
        })
    }

    /// Held-out losses of the record: before training, and of the model in this directory, if that can be told.
    fn losses(&self, model: &Path) -> Result<Vec<(String, String)>> {
        let path = self.dir.join("metrics.jsonl");
        if !path.is_file() {
            return Ok(Vec::new());
        }
        let text = text_of(&path)?;
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let validations = lines.filter(|line| line["split"] == "validation");
        let losses: Vec<(u64, f64)> =
            validations.filter_map(|line| Some((line["step"].as_u64()?, line["loss"].as_f64()?))).collect();
        let is = |name: &str| model.canonicalize().is_ok_and(|m| m.starts_with(self.dir.join(name)));
        let of_model = match self.settings.train.best_by {
            BestBy::Loss if is("best") => {
                losses.iter().filter(|(step, _)| *step > 0).min_by(|a, b| a.1.total_cmp(&b.1))
            }
            _ if is("last") => losses.last().filter(|(step, _)| *step > 0),
            _ => None,
        };
        let before = losses.first().filter(|(step, _)| *step == 0);
        let told = |what: &str, value: &(u64, f64)| (what.to_string(), format!("{:.5}", value.1));
        let mut facts: Vec<(String, String)> =
            before.map(|before| told("held-out loss before", before)).into_iter().collect();
        facts.extend(of_model.map(|found| told(&format!("held-out loss after {} steps", found.0), found)));
        Ok(facts)
    }
}

/// Settings without what is of this machine alone: where things lie, and what it calls.
fn public(mut table: Table) -> Table {
    ["out", "cache", "device", "judge", "judge-timeout"].iter().for_each(|name| drop(table.remove(*name)));
    for name in ["model", "data", "validation-data"] {
        if let Some(value) = table.get_mut(name) {
            shorten(value);
        }
    }
    table
}

/// Leaves of paths their last part.
fn shorten(value: &mut toml::Value) {
    match value {
        toml::Value::String(text) if data_set(text).is_none() && !is_hub_id(without_revision(text)) => {
            let name = Path::new(text.as_str()).file_name().map(|name| name.to_string_lossy().into_owned());
            *text = name.unwrap_or_default();
        }
        toml::Value::Array(values) => values.iter_mut().for_each(shorten),
        _ => {}
    }
}

/// A model's id without the commit that a run has fixed.
fn without_revision(model: &str) -> &str {
    model.split_once('@').map_or(model, |(id, _)| id)
}

/// Whether it is meant for a model on the hub: `owner/name` that is no path here.
fn is_hub_id(name: &str) -> bool {
    push::check_repo(name).is_ok() && !Path::new(name).exists()
}

/// The id of the data set that a source names, if it is one of the hub.
fn data_set(source: &str) -> Option<String> {
    let rest =
        source.strip_prefix("hf://datasets/").or_else(|| source.strip_prefix("https://huggingface.co/datasets/"));
    let id = match rest {
        Some(rest) => rest.split('/').take(2).collect::<Vec<_>>().join("/"),
        None if Path::new(source).exists() || Path::new(source).extension().is_some_and(|e| e.len() < 6) => {
            return None;
        }
        None => source.into(),
    };
    let id = id.split('@').next().unwrap_or_default();
    push::check_repo(id).is_ok().then(|| id.to_string())
}

fn data_sets(settings: &Settings) -> Vec<String> {
    settings.data.to_string().split(", ").filter_map(data_set).collect()
}

/// What a model is called if nobody says: its run, or its directory.
fn called(dir: &Path) -> String {
    let whole = dir.canonicalize().unwrap_or_else(|_| dir.into());
    let parts: Vec<String> = whole.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let own = parts.iter().rev().find(|part| !["best", "last", "adapter"].contains(&part.as_str()));
    own.cloned().unwrap_or_else(|| "model".into())
}

/// The licence that the card of the base model names, if that card lies here.
fn license_of_base(base: Option<&str>, settings: Option<&Settings>) -> Option<String> {
    let beside = settings.map(|s| Path::new(&s.model).join("README.md")).filter(|path| path.is_file());
    let card = beside.or_else(|| hub::cached(base?, "README.md"))?;
    license_of(&std::fs::read_to_string(card).ok()?)
}

/// Whether prompts go through a chat template.
fn is_chat(model: &Checkpoint, settings: Option<&Settings>) -> Result<bool> {
    let use_template = settings.map_or(UseTemplate::Auto, |s| s.chat_template);
    let decoder = !matches!(model.config()?, Config::T5(_));
    Ok(decoder && use_template != UseTemplate::Never && ChatTemplate::find(model.dir(), None).is_some())
}

/// The evaluation, with the number of the model there.
fn evaluated(path: &Path, model: &Checkpoint) -> Result<(Evaluation, usize)> {
    let evaluation = Evaluation::read(path)?;
    let bar = progress::busy("reading the model");
    let (_, _, fingerprint) = model.packed(Precision::Bf16)?;
    bar.finish_and_clear();
    let Some(number) = evaluation.model(&fingerprint) else {
        let told = |fingerprint: &Option<String>| {
            fingerprint.as_ref().map_or_else(|| "of unknown weights".into(), |f| format!("fingerprint {}", short(f)))
        };
        let of = evaluation.models.iter().map(|model| format!("{} ({})", model.name, told(&model.fingerprint)));
        bail!(
            "{}: an evaluation of {}; the model in {} (fingerprint {}) is not among them. Evaluate it: a card has no figures of \
             another model",
            path.display(),
            of.collect::<Vec<_>>().join(", "),
            model.dir().display(),
            short(&fingerprint)
        );
    };
    Ok((evaluation, number))
}

fn short(fingerprint: &str) -> &str {
    fingerprint.get(..12).unwrap_or(fingerprint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_sets_and_paths_are_told_apart() {
        assert_eq!(data_set("openbmb/UltraFeedback").as_deref(), Some("openbmb/UltraFeedback"));
        assert_eq!(data_set("hf://datasets/a/b@v1/x/*.parquet").as_deref(), Some("a/b"));
        assert_eq!(data_set("a/b@main").as_deref(), Some("a/b"));
        assert_eq!(
            (data_set("ratings.jsonl"), data_set("/home/me/x.jsonl"), data_set("runs/x.csv")),
            (None, None, None)
        );
    }

    #[test]
    fn what_is_of_this_machine_stays_here() {
        let table: Table =
            "model = \"/home/me/models/t5\"\ndata = [\"/home/me/x.jsonl\", \"a/b\"]\nout = \"runs/x\"\njudge = \
                            \"/home/me/judge --key 1\"\n[train]\nepochs = 2\n"
                .parse()
                .expect("TOML");
        let left: Table = "data = [\"x.jsonl\", \"a/b\"]\nmodel = \"t5\"\n[train]\nepochs = 2\n".parse().expect("TOML");
        assert_eq!(public(table), left);
    }
}
