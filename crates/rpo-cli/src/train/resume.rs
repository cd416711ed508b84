//! Going on with a run: what its directory says of it, what may change, and what must not be mixed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rpo::feedback::Split;
use rpo::model::Model;
use rpo::reference::model_fingerprint;
use rpo::store::files::write_file;
use rpo::store::text_of;
use rpo::train::{BEGUN_WITH, RunDir, SETTINGS, TrainConfig};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::settings::{Origin, Settings, differences, merge, over, published};

/// The setting that runs of earlier versions do not have.
const CHAT_TEMPLATE: &str = "chat-template";

/// What a run was begun with; in its directory from the start.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct BegunWith {
    /// Version of the program.
    pub version: String,
    /// Hash of token ids, rewards and which prompts are held out.
    pub data_fingerprint: String,
    /// Hash of weights and configuration of the model that was started from.
    pub reference_fingerprint: String,
}

impl BegunWith {
    /// What a run on this data from this model is begun with.
    pub fn of(split: &Split, reference: &Model) -> Result<Self> {
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").into(),
            data_fingerprint: split.fingerprint(),
            reference_fingerprint: model_fingerprint(reference)?,
        })
    }

    /// Leaves it in the run's directory.
    pub fn write(&self, run: &RunDir) -> Result<()> {
        Ok(write_file(&run.path(BEGUN_WITH), format!("{}\n", serde_json::to_string_pretty(self)?).as_bytes())?)
    }

    /// What was written; nothing for runs of versions that did not.
    fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(BEGUN_WITH);
        if !path.exists() {
            return Ok(None);
        }
        let text = text_of(&path)?;
        Ok(Some(
            serde_json::from_str(&text).with_context(|| format!("{}: not written by `rpo train`", path.display()))?,
        ))
    }
}

/// The settings to go on with in `dir`: those saved there, over them what the file and the flags give.
pub fn settings(dir: &Path, origin: Origin<'_>) -> Result<Settings> {
    RunDir::check_begun(dir)?;
    let (path, mut base) = saved(dir)?;
    // Before there was the setting, messages were written out.
    base.entry(CHAT_TEMPLATE).or_insert_with(|| "never".into());
    let mut given = merge(origin)?;
    if matches!(given.remove("published"), Some(Value::Boolean(true))) {
        let published = published(&over(base.clone(), given.clone()))?;
        base = over(base, published);
    }
    let name = |table: &Table| table.get("objective").and_then(|o| o.get("name")).cloned();
    if name(&given).is_some_and(|named| Some(named) != name(&base)) {
        // Settings of one objective mean nothing to another.
        base.remove("objective");
    }
    let mut settings = Settings::from_table(over(base, given), Origin { file: Some(&path), ..origin })?;
    settings.out = dir.into();
    Ok(settings)
}

fn saved(dir: &Path) -> Result<(PathBuf, Table)> {
    let path = dir.join(SETTINGS);
    let text = text_of(&path).context("the settings of the run are not known")?;
    let table = text.parse().with_context(|| path.display().to_string())?;
    Ok((path, table))
}

/// What of `now` is not as the run in `now.out` was begun, but for what may change: where things lie, the device, how it is saved
/// and told, and how long the run is, which is told.
pub fn changed_settings(now: &Settings) -> Result<Vec<String>> {
    let (path, table) = saved(&now.out)?;
    let knew_templates = table.contains_key(CHAT_TEMPLATE);
    let then = Settings::from_table(table, Origin::file(&path))?;
    let expected = Settings {
        model: now.model.clone(),
        data: now.data.clone(),
        validation_data: now.validation_data.clone(),
        out: now.out.clone(),
        cache: now.cache.clone(),
        device: now.device.clone(),
        precision: now.precision,
        judge_timeout: now.judge_timeout,
        chat_template: if knew_templates { then.chat_template } else { now.chat_template },
        train: TrainConfig {
            epochs: now.train.epochs,
            max_steps: now.train.max_steps,
            ..then.train.saved_as(&now.train)
        },
        ..then
    };
    let mut found = differences(&expected.to_toml()?.parse()?, &now.to_toml()?.parse()?);
    if expected.objective.name() != now.objective.name() {
        found.retain(|d| !d.starts_with("objective.") || d.starts_with("objective.name:"));
    }
    Ok(found)
}

/// Checks that the run in `now.out` was begun with these settings, this data and this reference.
///
/// # Errors
/// If it was not, naming all that differs.
pub fn check(now: &Settings, with: &BegunWith) -> Result<()> {
    let mut found = changed_settings(now)?;
    match BegunWith::read(&now.out)? {
        Some(then) => {
            if then.data_fingerprint != with.data_fingerprint {
                let what = "other rows, texts, rewards or order, or cut, tokenized or parted otherwise";
                found.push(format!("the data ({}): {what}", now.data));
            }
            if then.reference_fingerprint != with.reference_fingerprint {
                found.push(format!("the model that was started from ({}): other weights or configuration", now.model));
            }
        }
        None => tracing::warn!(
            "{} was begun by a version that kept no fingerprints (no {BEGUN_WITH}): whether data and model are still the \
             same is not checked",
            now.out.display()
        ),
    }
    refuse(&now.out, &found)
}

/// Refuses to go on if anything differs.
pub fn refuse(out: &Path, found: &[String]) -> Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    bail!(
        "{}: the run was begun otherwise, and going on would mix what is not alike. These differ: {}. Repeat the command as \
         it was, leave the changed settings out (`rpo train --resume {}`), or begin a new run with another --out. Only \
         train.max-steps, train.epochs, train.save-every, train.keep, train.log-every, train.on-bad-step, judge-timeout, device, precision, \
         model, data, cache and out may change, and the contents of model and data may not",
        out.display(),
        found.join("; "),
        out.display()
    )
}

/// What a changed length does to a run, if it was changed.
pub fn lengthened(now: &Settings) -> Result<Option<String>> {
    let then = Settings::from_table(saved(&now.out)?.1, Origin::default())?;
    let length = |s: &Settings| -> Result<Table> {
        let TrainConfig { epochs, max_steps, .. } = s.train;
        Ok(Table::try_from(TrainConfig { epochs, max_steps, ..TrainConfig::default() })?)
    };
    let found = differences(&length(&then)?, &length(now)?);
    Ok((!found.is_empty()).then(|| {
        format!(
            "{}: the rest of the learning-rate schedule, and validations whose distance is not set, follow the new number of \
             steps, so that this run is not the one that would have been that long from the start",
            found.join("; ")
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::assignment;

    const BEGUN: &str =
        "model = \"m\"\ndata = \"d\"\nout = \"o\"\n[objective]\nname = \"rpo\"\ntau = 0.5\n[train]\nmax-steps = 6\n";

    /// The directory of a run with these settings.
    fn run() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::create_dir(dir.path().join("last")).expect("create");
        std::fs::write(dir.path().join(SETTINGS), BEGUN).expect("write");
        dir
    }

    fn with(dir: &Path, flags: &[&str]) -> Settings {
        let given: Vec<_> = flags.iter().map(|text| assignment(text).expect("valid")).collect();
        settings(dir, Origin { file: None, given: &given }).expect("valid")
    }

    #[test]
    fn what_is_not_given_is_as_it_was_and_what_differs_is_named() {
        let dir = run();
        let same = with(dir.path(), &[]);
        assert_eq!((same.out.as_path(), same.train.max_steps), (dir.path(), Some(6)));
        assert!(changed_settings(&same).expect("saved").is_empty() && lengthened(&same).expect("saved").is_none());
        let free = [
            "model=other",
            "data=elsewhere",
            "cache=c",
            "judge-timeout=5.0",
            "train.max-steps=8",
            "train.epochs=2",
            "train.save-every=5",
            "out=moved",
        ];
        let moved = with(dir.path(), &free);
        assert!(changed_settings(&moved).expect("saved").is_empty());
        let note = lengthened(&moved).expect("saved").expect("longer");
        assert!(note.contains("max-steps: 6 then, 8 now") && note.contains("epochs: 1 then, 2 now"), "{note}");
        for (flag, said) in [
            ("objective.tau=0.1", "objective.tau: 0.5 then, 0.1 now"),
            ("train.seed=7", "train.seed: 42 then, 7 now"),
            ("split-seed=7", "split-seed: 42 then, 7 now"),
            ("train.batch-size=5", "train.batch-size: 32 then, 5 now"),
            ("train.optimizer.learning-rate=1.0", "train.optimizer.learning-rate: 0.0001 then, 1.0 now"),
            ("max-response-tokens=8", "max-response-tokens: 512 then, 8 now"),
            ("columns.reward=score", "columns.reward"),
            ("judge=cat", "judge: nothing then, \"cat\" now"),
        ] {
            let found = changed_settings(&with(dir.path(), &[flag])).expect("saved");
            assert!(found.len() == 1 && found[0].contains(said), "{flag}: {found:?}");
        }
        let other = changed_settings(&with(dir.path(), &["objective.name=sft", "train.seed=1"])).expect("saved");
        assert_eq!(other, ["objective.name: \"rpo\" then, \"sft\" now", "train.seed: 42 then, 1 now"]);
        assert!(!changed_settings(&with(dir.path(), &["published=true"])).expect("saved").is_empty());
        let said = refuse(dir.path(), &other).expect_err("differs").to_string();
        assert!(
            said.contains("objective.name") && said.contains("train.seed") && said.contains("another --out"),
            "{said}"
        );
    }
}
