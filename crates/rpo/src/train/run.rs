//! The directory of a run: what is saved there and how a run goes on from it.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use burn::tensor::Tensor;

use super::{BestBy, Progress, State, Task, TrainConfig, learner};
use crate::error::{Error, Result};
use crate::model::checkpoint::{self, Checkpoint, StoredAs};
use crate::model::peft::Adapter;
use crate::model::{Model, NamedParameters, ValueNetwork};
use crate::objective::Objective;
use crate::score::Learner;
use crate::store::checksums::{self, Holds};
use crate::store::files::{make_dir, previous, remove_dir, rename, replace_dir_moving, write_file};
use crate::store::lock::{Lock, Wish};
use crate::store::tensors::{TensorFile, write_flat, write_values};
use crate::store::text_of;
use crate::train::optim::Optimizer;

/// The settings that a run was begun with.
pub const SETTINGS: &str = "config.toml";
/// What else it was begun with.
pub const BEGUN_WITH: &str = "run.json";
/// The record of a run.
pub const METRICS: &str = "metrics.jsonl";
/// The record of a run as TensorBoard reads it.
pub const TENSORBOARD: &str = "tensorboard";
const LOCK: &str = "run.lock";
const LAST: &str = "last";
const EARLIER: &str = "earlier";
const OPTIMIZER: &str = "optimizer.safetensors";
const VALUE: &str = "value.safetensors";
const MEMORY: &str = "objective.safetensors";
const PROGRESS: &str = "progress.json";

/// The directory of a run, which no other program may use meanwhile: `best/`, where something was better than the start, and
/// `last/` are Hugging Face directories with checksums, `last/resume/` holds what resuming needs, and `earlier/` the states that
/// were `last/` before.
#[derive(Debug)]
pub struct RunDir {
    dir: PathBuf,
    _lock: Lock,
}

impl RunDir {
    /// Makes a new directory for a run, or takes one in which a run ended before it had saved anything.
    ///
    /// # Errors
    /// If it exists and is none of these, cannot be made, or another program uses it.
    pub fn create(dir: &Path) -> Result<Self> {
        Self::check_absent(dir)?;
        make_dir(dir)?;
        let run = Self::locked(dir)?;
        // Another program may have come first.
        Self::check_absent(dir)?;
        Ok(run)
    }

    /// That [`RunDir::create`] will find nothing in its way, before the work that comes first; nothing is left there.
    ///
    /// # Errors
    /// If `dir` exists and holds anything that a run saved or that is not a run's, or a directory cannot be made in its place.
    pub fn check_new(dir: &Path) -> Result<()> {
        Self::check_absent(dir)?;
        let missing: Vec<&Path> = dir.ancestors().take_while(|d| !d.as_os_str().is_empty() && !d.exists()).collect();
        std::fs::create_dir_all(dir).map_err(|e| Error::write(dir, e))?;
        missing.into_iter().try_for_each(std::fs::remove_dir).map_err(|e| Error::write(dir, e))
    }

    /// Fails if there is anything at `dir` that could be lost; what a run leaves before its first save could not.
    fn check_absent(dir: &Path) -> Result<()> {
        let begins = |name: &str| {
            [SETTINGS, BEGUN_WITH, METRICS, TENSORBOARD, LOCK].contains(&name)
                || Path::new(name).extension().is_some_and(|e| e == "partial")
        };
        let lost = match std::fs::read_dir(dir) {
            Ok(entries) => {
                let names: Vec<String> =
                    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
                // An empty directory may be somebody's; one with the lock is a run's.
                names.iter().any(|name| !begins(name)) || !names.iter().any(|name| name == LOCK) && !names.is_empty()
            }
            Err(e) if e.kind() == ErrorKind::NotFound => false,
            Err(_) => true,
        };
        if lost { Err(Error::Exists { path: dir.into() }) } else { Ok(()) }
    }

    /// Opens the directory of a run that is to go on.
    ///
    /// # Errors
    /// If there is no such directory, or another program uses it.
    pub fn open(dir: &Path) -> Result<Self> {
        Self::check_begun(dir)?;
        Self::locked(dir)
    }

    /// That there is a run to go on with.
    ///
    /// # Errors
    /// If there is no such directory, or it was left before the run had begun.
    pub fn check_begun(dir: &Path) -> Result<()> {
        let problem = match dir.is_dir() {
            false => "there is no such run to go on with",
            true if dir.join(SETTINGS).is_file() || !Self::saved_in(dir).is_empty() => return Ok(()),
            true => "the run stopped before it had begun; begin it again",
        };
        Err(Error::file(dir, problem))
    }

    fn locked(dir: &Path) -> Result<Self> {
        match Lock::take(&dir.join(LOCK))? {
            Wish::Granted(lock) => Ok(Self { dir: dir.into(), _lock: lock }),
            Wish::Held(who) => Err(Error::InUse { path: dir.into(), who }),
        }
    }

    /// A path inside.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Whether there is anything to go on from but the start.
    pub(super) fn has_saved(&self) -> bool {
        !Self::saved_in(&self.dir).is_empty()
    }

    /// What was saved in `dir` to go on from, the newest first.
    fn saved_in(dir: &Path) -> Vec<PathBuf> {
        let last = dir.join(LAST);
        let newest = [last.clone(), previous(&last)].into_iter().filter(|dir| dir.is_dir());
        newest.chain(Self::earlier_in(dir).into_iter().rev()).collect()
    }

    /// The states that were `last/` before, in order.
    fn earlier_in(dir: &Path) -> Vec<PathBuf> {
        let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.parse::<u64>().ok();
        let entries = std::fs::read_dir(dir.join(EARLIER)).into_iter().flatten().flatten();
        let mut found: Vec<(u64, PathBuf)> =
            entries.map(|entry| entry.path()).filter_map(|path| Some((step(&path)?, path))).collect();
        found.sort();
        found.into_iter().map(|(_, path)| path).collect()
    }

    /// The newest state that is as it was saved; those that are not stay under another name, which is told. Nothing if nothing
    /// was ever saved.
    fn intact(&self) -> Result<Option<PathBuf>> {
        let saved = Self::saved_in(&self.dir);
        let mut damaged: Vec<(&Path, Error)> = Vec::new();
        for dir in &saved {
            match checksums::verify(dir, Holds::State, |_| true) {
                Ok(()) => {
                    for (damaged, problem) in &damaged {
                        let kept = set_aside(damaged)?;
                        tracing::warn!(
                            "{problem}. Going on from {}, which was saved before; the damaged one is kept as {}",
                            dir.display(),
                            kept.display()
                        );
                    }
                    return Ok(Some(dir.clone()));
                }
                Err(problem) => damaged.push((dir, problem)),
            }
        }
        damaged.into_iter().next().map_or(Ok(None), |(_, problem)| Err(problem))
    }

    /// The state in which a run of `task` goes on that began at `start`; its objective takes up what it had learned. A run that
    /// had saved nothing begins.
    ///
    /// # Errors
    /// If nothing that was saved is intact, or it is unreadable.
    pub fn resume(&self, config: &TrainConfig, task: &mut Task, start: Model) -> Result<State> {
        let Some(dir) = self.intact()? else { return State::begin(start, task, config) };
        let last = Checkpoint::open(&dir)?;
        let resume = last.dir().join("resume");
        let progress = read_progress(&dir)?;
        if progress.best_by != config.best_by {
            let [was, is] = [progress.best_by, config.best_by].map(BestBy::metric);
            let problem = format!("this run has its best by {was}, which cannot be compared with {is}");
            return Err(Error::Setting { field: "best-by", problem });
        }
        let objective = task.objective.as_mut();
        let memory = objective.memory().len();
        if memory > 0 {
            let path = resume.join(MEMORY);
            let missing = || Error::file(&path, "tensor `memory` is missing");
            objective.recall(&TensorFile::open(&path)?.read("memory", &[memory])?.ok_or_else(missing)?);
        }
        let needs = objective.needs();
        let policy = match config.lora.is_on() {
            true => config.lora.attach(start, &mut Adapter::open(last.dir())?)?,
            false => {
                let (device, compute) = (start.device(), start.compute());
                drop(start);
                last.load_verified(&device)?.with_compute(compute)
            }
        };
        let mut learner = learner(policy, needs, config.seed)?;
        learner.value = learner.value.map(|value| load_value(value, &resume.join(VALUE))).transpose()?;
        let state = resume.join(OPTIMIZER);
        let optimizer = Optimizer::resume(config.optimizer.clone(), &progress, &learner, &state)?;
        Ok(State { learner, optimizer, progress })
    }

    /// Puts what `fill` writes in the place of `last/`; what stood there joins the earlier ones, of which all but the newest
    /// `keep - 1` are removed, last of all.
    fn replace_last(&self, keep: usize, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let last = self.path(LAST);
        replace_dir_moving(&last, fill, || {
            let earlier = self.path(EARLIER);
            make_dir(&earlier)?;
            let step = read_progress(&last).map_or(0, |progress| progress.step);
            let aside = earlier.join(format!("step-{step:08}"));
            remove_dir(&aside)?;
            Ok(Some(aside))
        })?;
        remove_dir(&previous(&last))?;
        let earlier = Self::earlier_in(&self.dir);
        earlier[..earlier.len().saturating_sub(keep - 1)].iter().try_for_each(|dir| remove_dir(dir))
    }
}

fn read_progress(state: &Path) -> Result<Progress> {
    let path = state.join("resume").join(PROGRESS);
    let text = text_of(&path)?;
    serde_json::from_str(&text).map_err(|e| Error::file(&path, format!("unreadable: {e}")))
}

/// Gives a damaged directory a name under which it is not taken for a state.
fn set_aside(dir: &Path) -> Result<PathBuf> {
    let (mut n, mut free) = (1, dir.with_added_extension("damaged"));
    while free.exists() {
        n += 1;
        free = dir.with_added_extension(format!("damaged-{n}"));
    }
    rename(dir, &free)?;
    Ok(free)
}

fn load_value(value: ValueNetwork, path: &Path) -> Result<ValueNetwork> {
    let mut file = TensorFile::open(path)?;
    let mut problem = None;
    let trained: BTreeSet<String> = value.trained().into_iter().map(|p| p.name).collect();
    let value = value.map_parameters(|name, shape, old| {
        if !trained.contains(name) {
            return old;
        }
        let missing = || Error::file(path, format!("tensor `{name}` is missing"));
        let device = old.device();
        match file.read(name, &[shape.iter().product()]).and_then(|values| values.ok_or_else(missing)) {
            Ok(values) => Tensor::from_floats(values.as_slice(), &device),
            Err(e) => {
                problem.get_or_insert(e);
                old
            }
        }
    });
    problem.map_or(Ok(value), Err)
}

/// Where a run leaves its models.
#[derive(Clone, Copy, Debug)]
pub struct Saving<'a> {
    /// Where checkpoints go.
    pub run: &'a RunDir,
    /// The model that was started from; its tokenizer is saved with each checkpoint.
    pub origin: &'a Checkpoint,
}

impl Saving<'_> {
    /// Puts the policy into `best/`, with its adapters beside it in PEFT's format where there are some.
    pub(super) fn best(&self, learner: &Learner, config: &TrainConfig) -> Result<()> {
        let TrainConfig { lora, store, .. } = config;
        checkpoint::save(&learner.policy, self.origin, *store, &self.run.path("best"), |dir| match lora.is_on() {
            true => lora.write(&learner.policy, self.origin.name(), &dir.join("adapter")),
            false => Ok(()),
        })
    }

    /// Puts the policy, of which only the adapters where there are some, and all that resuming needs into `last/`.
    pub(super) fn last(
        &self,
        learner: &Learner,
        optimizer: &Optimizer,
        objective: &dyn Objective,
        progress: &Progress,
        config: &TrainConfig,
    ) -> Result<()> {
        let policy = &learner.policy;
        let more = |dir: &Path| {
            let resume = dir.join("resume");
            std::fs::create_dir(&resume).map_err(|e| Error::write(&resume, e))?;
            optimizer.save(learner, &resume.join(OPTIMIZER))?;
            if let Some(value) = &learner.value {
                let named = value.trained().into_iter().map(|p| (p.name, p.values));
                write_flat(named.collect(), &resume.join(VALUE))?;
            }
            let memory = objective.memory();
            if !memory.is_empty() {
                write_values("memory", memory, &resume.join(MEMORY))?;
            }
            let text = serde_json::to_string_pretty(progress).unwrap_or_default();
            write_file(&resume.join(PROGRESS), text.as_bytes())
        };
        self.run.replace_last(config.keep, |dir| match config.lora.is_on() {
            true => checkpoint::write_adapter(policy, &config.lora, self.origin, dir, more),
            false => checkpoint::write_whole(policy, self.origin, StoredAs::F32, dir, more),
        })
    }
}
