//! What a comparison leaves on disk so that it can go on after a stop: the start's part in `start.json`, each finished run's
//! in its `judged.json`, an unfinished run's curve in its `ranks.json`. Also what must not be mixed.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use chrono::NaiveDate;
use rpo::generate::Decoding;
use rpo::store::files::write_file;
use rpo::store::text_of;
use rpo::train::SETTINGS;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::settings::{Origin, Settings, differences};

/// In the comparison's directory: what it rests on.
pub const START: &str = "start.json";
/// In a run's directory: what a verdict needs of it, written when it is judged.
pub const JUDGED: &str = "judged.json";
/// In a run's directory: the curve so far.
pub const RANKS: &str = "ranks.json";
/// What all runs and all judgements of a comparison have in common.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Basis {
    /// Of token ids, rewards and which prompts are held out.
    pub data_fingerprint: String,
    /// Whether one half of the held-out prompts chooses learning rates.
    pub chooses_learning_rates: bool,
    /// Who rates answers.
    pub judge: Option<String>,
    /// How answers are drawn; the seed is the first draw's.
    pub decoding: Decoding,
    /// The day that a chat template which asks for it is told.
    #[serde(default)]
    pub chat_date: Option<NaiveDate>,
}

impl Basis {
    /// What differs from `self`, the basis of the comparison in `out`, `now`.
    ///
    /// # Errors
    /// If anything does, naming it.
    pub fn check(&self, now: &Self, out: &Path) -> Result<()> {
        refuse(&differences(&Table::try_from(self)?, &Table::try_from(now)?), out)
    }
}

/// What was found of the start.
#[derive(Debug, Serialize, Deserialize)]
pub struct Start {
    /// What the comparison rests on.
    pub basis: Basis,
    /// `log p(y|x)` of the held-out responses, in their order.
    pub log_probs: Vec<f64>,
    /// As many as any contestant has; none without a judge.
    pub draws: Vec<Draw>,
}

impl Start {
    /// Checks that the start's log-probabilities are still the same, but for the rounding of another device.
    ///
    /// # Errors
    /// If they are not: then its weights have changed.
    pub fn check(&self, log_probs: &[f64], model: &str, out: &Path) -> Result<()> {
        let same = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-3 * a.abs().max(1.0);
        match self.log_probs.len() == log_probs.len() && self.log_probs.iter().zip(log_probs).all(same) {
            true => Ok(()),
            false => bail!(
                "{}: the model {model} is not the one that this comparison began with; choose another --out",
                out.display()
            ),
        }
    }
}

/// One answer to every held-out prompt, with its reward.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draw {
    /// In the order of the prompts.
    pub answers: Vec<String>,
    /// Their rewards.
    pub rewards: Vec<f64>,
}

/// Which of a run's models is judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedModel {
    /// `best` or `last`.
    pub name: String,
    /// After how many optimizer steps.
    pub step: usize,
}

impl fmt::Display for SavedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (step {})", self.name, self.step)
    }
}

/// A point of a run's curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Optimizer steps.
    pub step: usize,
    /// Mean tau-b within the judged prompts; none where it is defined on none of them, as at the start.
    pub tau_b: Option<f64>,
    /// How many prompts entered it.
    pub n: usize,
}

/// What a verdict needs of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// Which model everything but the curve is of.
    pub model: SavedModel,
    /// `log p(y|x) - log p_start(y|x)` of the held-out responses, in their order.
    pub log_ratios: Vec<f64>,
    /// Over the judged prompts.
    pub curve: Vec<Point>,
    /// Wall time of the optimizer steps.
    pub seconds: f64,
    /// None without a judge.
    pub draw: Option<Draw>,
}

/// Reads what [`write()`] wrote.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = text_of(path)?;
    serde_json::from_str(&text).with_context(|| format!("{}: not written by this version", path.display()))
}

/// Writes all or nothing.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    Ok(write_file(path, serde_json::to_string(value)?.as_bytes())?)
}

/// Checks that the run in `settings.out`, if any, was begun with these settings; where it and its reference scores lie may
/// differ.
///
/// # Errors
/// If its saved settings are others, naming them.
pub fn check_settings(settings: &Settings) -> Result<()> {
    let path = settings.out.join(SETTINGS);
    if !path.is_file() {
        let judged = settings.out.join(JUDGED);
        return match judged.exists() {
            true => bail!("{}: its settings are not known without {}", judged.display(), path.display()),
            false => Ok(()),
        };
    }
    let text = text_of(&path)?;
    let saved = Settings::from_table(text.parse().with_context(|| path.display().to_string())?, Origin::file(&path))?;
    let train = saved.train.clone().saved_as(&settings.train);
    let moved = Settings { out: settings.out.clone(), cache: settings.cache.clone(), train, ..saved };
    refuse(&differences(&moved.to_toml()?.parse()?, &settings.to_toml()?.parse()?), &path)
}

fn refuse(differences: &[String], place: &Path) -> Result<()> {
    match differences {
        [] => Ok(()),
        found => bail!(
            "{}: going on would mix what is not alike: {}. Repeat the command as it was, or choose another --out",
            place.display(),
            found.join("; ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_judge_or_start_is_refused_by_name() {
        let basis = |judge: Option<&str>| Basis {
            data_fingerprint: "0a".into(),
            chooses_learning_rates: false,
            judge: judge.map(str::to_string),
            decoding: Decoding::default(),
            chat_date: None,
        };
        let (mine, out) = (basis(Some("sh a")), Path::new("out"));
        mine.check(&basis(Some("sh a")), out).expect("the same");
        let said = mine.check(&basis(None), out).expect_err("none").to_string();
        assert!(said.contains("out: ") && said.contains("judge: \"sh a\" then, nothing now"), "{said}");
        let start = Start { basis: mine, log_probs: vec![-10.0, -0.1], draws: vec![] };
        start.check(&[-10.001, -0.1001], "m", out).expect("rounding");
        assert!(start.check(&[-10.2, -0.1], "m", out).is_err());
    }
}
