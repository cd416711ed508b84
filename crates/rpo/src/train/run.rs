//! The directory of a run: what is saved there and how a run goes on from it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::tensor::Tensor;

use super::{BestBy, Progress, State, TrainConfig, learner};
use crate::error::{Error, Result};
use crate::model::checkpoint::{self, Checkpoint, StoredAs};
use crate::model::peft::Adapter;
use crate::model::{Model, NamedParameters, ValueNetwork};
use crate::objective::Objective;
use crate::score::Learner;
use crate::store::files::{previous, write_file};
use crate::store::tensors::{TensorFile, write_flat, write_values};
use crate::train::optim::Optimizer;

const OPTIMIZER: &str = "optimizer.safetensors";
const VALUE: &str = "value.safetensors";
const MEMORY: &str = "objective.safetensors";

/// The directory of a run: `best/`, where something was better than the start, and `last/` are Hugging Face directories, `last/resume/` holds what resuming needs.
#[derive(Clone, Debug)]
pub struct RunDir {
    dir: PathBuf,
}

impl RunDir {
    /// Makes a new directory for a run.
    ///
    /// # Errors
    /// If it exists or cannot be made.
    pub fn create(dir: &Path) -> Result<Self> {
        if dir.exists() {
            return Err(Error::Exists { path: dir.into() });
        }
        std::fs::create_dir_all(dir).map_err(|e| Error::write(dir, e))?;
        Ok(Self { dir: dir.into() })
    }

    /// That [`RunDir::create`] will find nothing in its way, before the work that comes first; nothing is left there.
    ///
    /// # Errors
    /// If `dir` exists, or a directory cannot be made in its place.
    pub fn check_new(dir: &Path) -> Result<()> {
        if dir.exists() {
            return Err(Error::Exists { path: dir.into() });
        }
        let missing: Vec<&Path> = dir.ancestors().take_while(|d| !d.as_os_str().is_empty() && !d.exists()).collect();
        std::fs::create_dir_all(dir).map_err(|e| Error::write(dir, e))?;
        missing.into_iter().try_for_each(std::fs::remove_dir).map_err(|e| Error::write(dir, e))
    }

    /// Opens the directory of a run that is to go on.
    ///
    /// # Errors
    /// If there is no such directory, or nothing was saved there.
    pub fn open(dir: &Path) -> Result<Self> {
        let problem = match dir.is_dir() {
            false => "there is no such run",
            true if [dir.join("last"), previous(&dir.join("last"))].iter().any(|last| last.is_dir()) => {
                return Ok(Self { dir: dir.into() });
            }
            true => "the run stopped before it had saved anything to go on from; remove it and begin again",
        };
        Err(Error::NoModel { name: dir.display().to_string(), problem: problem.into() })
    }

    /// A path inside.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The state to go on from of a run that began at `start`; the objective, which is prepared on the run's data, takes up
    /// what it had learned.
    ///
    /// # Errors
    /// If it is missing or unreadable.
    pub fn resume(&self, config: &TrainConfig, objective: &mut dyn Objective, start: Model) -> Result<State> {
        let last = Checkpoint::open(&self.path("last"))?;
        let resume = last.dir().join("resume");
        let path = resume.join("progress.json");
        let text = std::fs::read_to_string(&path).map_err(|e| Error::read(&path, e))?;
        let progress: Progress =
            serde_json::from_str(&text).map_err(|e| Error::file(&path, format!("unreadable: {e}")))?;
        if progress.best_by != config.best_by {
            let [was, is] = [progress.best_by, config.best_by].map(BestBy::metric);
            let problem = format!("this run has its best by {was}, which cannot be compared with {is}");
            return Err(Error::Setting { field: "best-by", problem });
        }
        let memory = objective.memory().len();
        if memory > 0 {
            let path = resume.join(MEMORY);
            let missing = || Error::file(&path, "tensor `memory` is missing");
            objective.recall(&TensorFile::open(&path)?.read("memory", &[memory])?.ok_or_else(missing)?);
        }
        let policy = match config.lora.is_on() {
            true => config.lora.attach(start, &mut Adapter::open(last.dir())?)?,
            false => {
                let device = start.device();
                drop(start);
                last.load(&device)?
            }
        };
        let mut learner = learner(policy, objective.needs(), config.seed)?;
        learner.value = learner.value.map(|value| load_value(value, &resume.join(VALUE))).transpose()?;
        let state = resume.join(OPTIMIZER);
        let optimizer = Optimizer::resume(config.optimizer.clone(), progress.step, &learner, &state)?;
        Ok(State { learner, optimizer, progress })
    }
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
        let (policy, out) = (&learner.policy, self.run.path("last"));
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
            write_file(&resume.join("progress.json"), text.as_bytes())
        };
        match config.lora.is_on() {
            true => checkpoint::save_adapter(policy, &config.lora, self.origin, &out, more),
            false => checkpoint::save(policy, self.origin, StoredAs::F32, &out, more),
        }
    }
}
