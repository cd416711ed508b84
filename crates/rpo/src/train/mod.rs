//! The only training loop: batches, gradients, steps, validation, checkpoints. What is minimised is the objective's
//! business, what is shown to people is the observers'.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::batch::{PackedBatch, Span, length_buckets, split_evenly};
use crate::checkpoint::{self, Checkpoint, StoredAs};
use crate::error::{Error, Result};
use crate::feedback::{FeedbackSet, Split};
use crate::files::write_file;
use crate::objective::{Loss, Needs, Objective, ObjectiveConfig, Seen, Step};
use crate::optim::{Flat, GradientSum, Optimizer, OptimizerConfig, linear_schedule};
use crate::recompute;
use crate::reference::{ReferenceScores, References};
use crate::score::{Learner, LogProb, Scores, score};
use crate::t5::{NamedParameters, T5, ValueNetwork};
use crate::tensor_file::{TensorFile, write_safetensors, write_values};

/// Settings of the loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct TrainConfig {
    /// Passes over the training responses.
    pub epochs: usize,
    /// Stop after this many optimizer steps instead.
    pub max_steps: Option<usize>,
    /// Responses of an optimizer step.
    pub batch_size: usize,
    /// Tokens, prompts included, of a micro-batch: bounds memory, changes nothing else.
    pub micro_batch_tokens: usize,
    /// Keep only what enters each block for the gradients and compute the rest again: less memory, a third more time.
    pub recompute: bool,
    /// Steps of linear warm-up; by default 150, but at most a tenth of all steps.
    pub warmup_steps: Option<usize>,
    /// Optimizer steps between validations, each of which also saves; by default a tenth of all steps.
    pub validate_every: Option<usize>,
    /// Decides the order of the data.
    pub seed: u64,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 1,
            max_steps: None,
            batch_size: 32,
            micro_batch_tokens: 4096,
            recompute: false,
            warmup_steps: None,
            validate_every: None,
            seed: 42,
            optimizer: OptimizerConfig::default(),
        }
    }
}

impl TrainConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first setting that is impossible.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in
            [("batch-size", self.batch_size), ("epochs", self.epochs), ("micro-batch-tokens", self.micro_batch_tokens)]
        {
            if value == 0 {
                return Err(Error::Setting { field, problem: "0 is not a positive number".into() });
            }
        }
        self.optimizer.validate()
    }

    /// Checks the ranges, and that an objective with these needs can be trained on this data.
    ///
    /// # Errors
    /// The first setting that is impossible.
    pub fn check(&self, needs: Needs, data: &Split) -> Result<()> {
        self.validate()?;
        let largest = data.train.groups.iter().map(|g| g.responses.len()).max().unwrap_or(0);
        if needs.whole_prompts && largest > self.batch_size {
            let problem = format!(
                "the objective compares all the responses of a prompt; one prompt has {largest}, a step only {}",
                self.batch_size
            );
            return Err(Error::Setting { field: "batch-size", problem });
        }
        Ok(())
    }
}

/// How far a run is; what is needed beside model and optimizer to go on as if it had never stopped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Optimizer steps done.
    pub step: usize,
    /// Lowest validation loss so far and its step.
    pub best: Option<(f64, usize)>,
    /// Validation loss before the first step.
    pub first_validation: Option<f64>,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// The loop begins, after `done` of `steps` steps.
    Start {
        /// Steps done in an earlier run.
        done: usize,
        /// Steps in all.
        steps: usize,
    },
    /// An optimizer step.
    Step(&'a StepReport),
    /// A good moment to look at the policy, which is outside any graph: before the first step, and wherever validation is
    /// due.
    Milestone {
        /// Steps done.
        step: usize,
        /// As it stands.
        policy: &'a T5,
    },
    /// Part of a pass over the validation responses.
    Validating {
        /// Responses scored so far.
        done: usize,
        /// Responses in all.
        total: usize,
    },
    /// A pass over the validation responses is complete.
    Validation {
        /// Steps done.
        step: usize,
        /// The objective's mean loss and metrics.
        means: &'a Means,
        /// Whether it is the lowest loss so far.
        best: bool,
    },
}

/// A mean loss with the objective's own metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Means {
    /// Mean over responses.
    pub loss: f64,
    /// Means over responses by name.
    pub metrics: Vec<(&'static str, f64)>,
}

/// What an optimizer step did.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Number of the step, from 1.
    pub step: usize,
    /// Loss and metrics before the step.
    pub means: Means,
    /// Learning rate.
    pub learning_rate: f64,
    /// Norm of the gradients before clipping.
    pub grad_norm: f64,
    /// Responses in the step.
    pub responses: usize,
    /// Tokens in the step, prompts included.
    pub tokens: usize,
    /// Wall time.
    pub seconds: f64,
}

/// Hears of everything that happens.
pub trait Observer {
    /// Called as it happens.
    ///
    /// # Errors
    /// If what must be recorded cannot be; training then stops.
    fn observe(&mut self, event: &Event<'_>) -> Result<()>;
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Where it stands.
    pub progress: Progress,
    /// Loss at the last validation.
    pub last_validation: Option<f64>,
    /// Whether it was stopped before the last step.
    pub interrupted: bool,
}

/// The directory of a run: `best/` and `last/` are Hugging Face directories, `last/resume/` holds what resuming needs.
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

    /// Opens the directory of a run that is to go on.
    ///
    /// # Errors
    /// If there is no such directory.
    pub fn open(dir: &Path) -> Result<Self> {
        match dir.is_dir() {
            true => Ok(Self { dir: dir.into() }),
            false => Err(Error::NoModel { name: dir.display().to_string(), problem: "there is no such run".into() }),
        }
    }

    /// A path inside.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The state to go on from; `objective` is prepared on the run's data and takes up what it had learned.
    ///
    /// # Errors
    /// If it is missing or unreadable.
    pub fn resume(
        &self,
        config: &TrainConfig,
        objective: &mut dyn Objective,
        device: &Device,
    ) -> Result<(Learner, Optimizer, Progress)> {
        let last = Checkpoint::open(&self.path("last"))?;
        let resume = last.dir().join("resume");
        let path = resume.join("progress.json");
        let text = std::fs::read_to_string(&path).map_err(|e| Error::read(&path, e))?;
        let progress: Progress =
            serde_json::from_str(&text).map_err(|e| Error::weights(&path, format!("unreadable: {e}")))?;
        let memory = objective.memory().len();
        if memory > 0 {
            let path = resume.join(MEMORY);
            let missing = || Error::weights(&path, "tensor `memory` is missing");
            objective.recall(&TensorFile::open(&path)?.read("memory", &[memory])?.ok_or_else(missing)?)?;
        }
        let mut learner = learner(last.load(device)?, objective.needs(), config.seed)?;
        learner.value = learner.value.map(|value| load_value(value, &resume.join(VALUE))).transpose()?;
        let state = resume.join(OPTIMIZER);
        let optimizer = Optimizer::resume(config.optimizer.clone(), progress.step, &learner, &state)?;
        Ok((learner, optimizer, progress))
    }
}

const OPTIMIZER: &str = "optimizer.safetensors";
const VALUE: &str = "value.safetensors";
const MEMORY: &str = "objective.safetensors";

/// What an objective with these needs trains when it starts from `policy`; `seed` decides what is new.
///
/// # Errors
/// None with random weights.
pub fn learner(policy: T5, needs: Needs, seed: u64) -> Result<Learner> {
    let value = needs.value.map(|v| ValueNetwork::new(&policy, v.kind, seed)).transpose()?;
    Ok(Learner { policy, value })
}

/// Trains a copy of `start`, which is also the reference, in memory and keeps nothing but what it returns: reference
/// scores, objective and loop in one call. The device of `start` must track gradients.
///
/// # Errors
/// As [`Trainer::run`], and if the objective is not defined on the data.
pub fn fit(
    objective: &ObjectiveConfig,
    start: &T5,
    data: Split,
    config: &TrainConfig,
    observers: &mut [&mut dyn Observer],
) -> Result<T5> {
    let mut objective = objective.build()?;
    let needs = objective.needs();
    let reference = start.valid();
    let scores = |split: &Split| ReferenceScores::compute(&reference, split, config.micro_batch_tokens, &mut |_| ());
    let mismatched = needs.mismatched.then(|| data.mismatched(config.seed)).transpose()?;
    let matched = needs.reference.then(|| scores(&data));
    let references = References { matched, mismatched: mismatched.as_ref().map(scores) };
    objective.prepare(&data, &references)?;
    let learner = learner(start.clone(), needs, config.seed)?;
    let optimizer = Optimizer::new(config.optimizer.clone())?;
    let stop = AtomicBool::new(false);
    let trainer = Trainer {
        objective: objective.as_mut(),
        data,
        mismatched,
        references: &references,
        config,
        saving: None,
        stop: &stop,
    };
    Ok(trainer.run(learner, optimizer, Progress::default(), observers)?.0.policy)
}

fn load_value(value: ValueNetwork, path: &Path) -> Result<ValueNetwork> {
    let mut file = TensorFile::open(path)?;
    let mut problem = None;
    let value = value.map_parameters(|name, shape, old| {
        let missing = || Error::weights(path, format!("tensor `{name}` is missing"));
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

/// A training run under way.
pub struct Trainer<'a> {
    /// The objective, already prepared on `data`.
    pub objective: &'a mut dyn Objective,
    /// Training and validation responses.
    pub data: Split,
    /// [`Split::mismatched`] of `data`, where the objective needs it: the same that its reference scores are of.
    pub mismatched: Option<Split>,
    /// What the reference, from which the learner starts, gives to `data`: with it the first validation needs no pass.
    pub references: &'a References,
    /// Settings.
    pub config: &'a TrainConfig,
    /// Where checkpoints go; `None` to keep nothing.
    pub saving: Option<Saving<'a>>,
    /// Set from outside to stop after the current micro-batch.
    pub stop: &'a AtomicBool,
}

impl Trainer<'_> {
    /// Trains `learner`, whose device must track gradients, and saves it; returns it as it ends.
    ///
    /// # Errors
    /// If a loss is not finite, a parameter gets no gradient, or a file cannot be written. What was saved stays.
    pub fn run(
        mut self,
        mut learner: Learner,
        mut optimizer: Optimizer,
        mut progress: Progress,
        observers: &mut [&mut dyn Observer],
    ) -> Result<(Learner, Summary)> {
        for split in std::iter::once(&mut self.data).chain(&mut self.mismatched) {
            split.train.retain(|r| self.objective.uses(r.row));
            split.validation.retain(|r| self.objective.uses(r.row));
        }
        let value_rate = self.objective.needs().value.and_then(|v| v.learning_rate);
        let largest = [self.config.optimizer.learning_rate, value_rate.unwrap_or(self.config.optimizer.learning_rate)];
        let steps = self.steps()?;
        let warmup = self.config.warmup_steps.unwrap_or((steps / 10).min(150)).min(steps);
        let every = self.config.validate_every.unwrap_or(steps.div_ceil(10)).max(1);
        let mut tell = |event: Event<'_>| observers.iter_mut().try_for_each(|o| o.observe(&event));
        tell(Event::Start { done: progress.step, steps })?;
        if progress.step == 0 {
            tell(Event::Milestone { step: 0, policy: &learner.policy.valid() })?;
            if let Some(means) = self.validate(&learner, self.references, &mut tell)? {
                progress.first_validation = Some(means.loss);
                tell(Event::Validation { step: 0, means: &means, best: false })?;
            }
        }
        let mut last_validation = progress.first_validation;
        while progress.step < steps && !self.stop.load(Ordering::Relaxed) {
            let step = progress.step + 1;
            let share = linear_schedule(step, warmup, steps);
            let Some(Computed { gradients, seen, mut report }) = self.gradients(&learner, step)? else { break };
            let started = Instant::now();
            (learner, report.grad_norm) = optimizer.update(learner, gradients, largest.map(|rate| rate * share));
            self.objective.follow(&seen);
            report.seconds += started.elapsed().as_secs_f64();
            report.learning_rate = largest[0] * share;
            progress.step = step;
            tell(Event::Step(&report))?;
            if step.is_multiple_of(every) || step == steps {
                tell(Event::Milestone { step, policy: &learner.policy.valid() })?;
                if let Some(means) = self.validate(&learner, &References::default(), &mut tell)? {
                    last_validation = Some(means.loss);
                    let best = progress.best.is_none_or(|(lowest, _)| means.loss < lowest);
                    if best {
                        progress.best = Some((means.loss, step));
                        self.save_best(&learner)?;
                    }
                    tell(Event::Validation { step, means: &means, best })?;
                }
                self.save(&learner, &optimizer, &progress)?;
            }
        }
        let interrupted = progress.step < steps;
        if interrupted {
            self.save(&learner, &optimizer, &progress)?;
        }
        Ok((learner, Summary { progress, last_validation, interrupted }))
    }

    fn steps(&self) -> Result<usize> {
        let TrainConfig { epochs, max_steps, .. } = *self.config;
        self.config.check(self.objective.needs(), &self.data)?;
        Ok(max_steps.unwrap_or(epochs * self.steps_per_epoch()))
    }

    fn whole_prompts(&self) -> bool {
        self.objective.needs().whole_prompts
    }

    fn steps_per_epoch(&self) -> usize {
        self.data.train.responses().div_ceil(self.config.batch_size)
    }

    /// The responses of optimizer step `step` (from 1): a pure function of data, settings and step, so that a resumed
    /// run goes on where the other stopped.
    fn batch(&self, step: usize) -> Vec<Span> {
        let (epoch, place) = ((step - 1) / self.steps_per_epoch(), (step - 1) % self.steps_per_epoch());
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.seed);
        rng.set_stream(epoch as u64);
        let mut order: Vec<usize> = (0..self.data.train.groups.len()).collect();
        order.shuffle(&mut rng);
        let size = self.config.batch_size;
        cut(&self.data.train, &order, place * size..(place + 1) * size, self.whole_prompts())
    }

    /// `log p(y|x')` of each of `rows`, which `batches` of a mismatched set hold; nothing where none are needed.
    fn mismatched(
        &self,
        policy: &T5,
        part: fn(&Split) -> &FeedbackSet,
        batches: &[Vec<Span>],
        rows: &[usize],
    ) -> Vec<f64> {
        let Some(set) = self.mismatched.as_ref().map(part) else { return Vec::new() };
        let policy = policy.valid();
        let mut found = HashMap::new();
        for spans in batches {
            let scored = score(&policy, &PackedBatch::pack(set, spans, policy.config()));
            let sums: Vec<f32> = scored.log_probs.into_data().try_to_vec().unwrap_or_default();
            found.extend(scored.rows.into_iter().zip(sums));
        }
        rows.iter().map(|row| f64::from(found[row])).collect()
    }

    /// Gradients of the mean loss of a step, or `None` if stopped before they are complete.
    fn gradients(&self, learner: &Learner, step: usize) -> Result<Option<Computed>> {
        let started = Instant::now();
        let bad = |problem: String| Error::Step { step, problem };
        let data = &self.data.train;
        let spans = self.batch(step);
        let rows: Vec<usize> = spans
            .iter()
            .flat_map(|s| data.groups[s.group].responses[s.responses.clone()].iter().map(|r| r.row))
            .collect();
        let pieces = split_evenly(data, &spans, self.config.micro_batch_tokens, self.whole_prompts());
        let mismatched = self.mismatched(&learner.policy, |m| &m.train, &pieces, &rows);
        let whole = Step { rows: &rows, mismatched: &mismatched };
        let mut gradients = GradientSum::default();
        let mut total = Total::default();
        let mut seen = Vec::with_capacity(rows.len());
        let mut tokens = 0;
        for piece in pieces {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let batch = PackedBatch::pack(data, &piece, learner.policy.config());
            tokens += batch.tokens();
            let mut mean = |scores: &Scores| -> Result<Tensor<1>> {
                let loss = self.objective.loss(scores, whole);
                total.add(&loss);
                seen.extend(scores.seen());
                match total.loss.is_finite() {
                    true => Ok(loss.sum.div_scalar(rows.len() as f64)),
                    false => Err(bad(format!(
                        "the loss is {}; lower the learning rate or look at the rewards. What was saved is unharmed",
                        total.loss
                    ))),
                }
            };
            match self.config.recompute {
                true => recompute::gradients(learner, &batch, mean, &mut gradients)?,
                false => gradients.add(learner.gradients(&mut mean(&learner.score(&batch))?.backward())),
            }
        }
        gradients.complete(learner).map_err(bad)?;
        let report = StepReport {
            step,
            means: total.means(),
            learning_rate: 0.0,
            grad_norm: 0.0,
            responses: rows.len(),
            tokens,
            seconds: started.elapsed().as_secs_f64(),
        };
        Ok(Some(Computed { gradients, seen, report }))
    }

    /// Mean loss over the validation responses, if there are any. Scores of the policy that are `known` are not computed.
    fn validate(
        &self,
        learner: &Learner,
        known: &References,
        tell: &mut dyn FnMut(Event<'_>) -> Result<()>,
    ) -> Result<Option<Means>> {
        let data = &self.data.validation;
        if data.groups.is_empty() {
            return Ok(None);
        }
        let rows: Vec<usize> = data.iter().map(|r| r.row).collect();
        let learner = learner.valid();
        let batches = length_buckets(data, self.config.micro_batch_tokens, self.whole_prompts());
        let mismatched = match &known.mismatched {
            Some(known) => rows.iter().map(|&row| known.ell(row, LogProb::Sum)).collect(),
            None => self.mismatched(&learner.policy, |m| &m.validation, &batches, &rows),
        };
        let whole = Step { rows: &rows, mismatched: &mismatched };
        let mut total = Total::default();
        for spans in batches {
            let batch = PackedBatch::pack(data, &spans, learner.policy.config());
            let scores = match &known.matched {
                Some(known) if learner.value.is_none() => known.scores(&batch, &learner.policy.device()),
                _ => learner.score(&batch),
            };
            total.add(&self.objective.loss(&scores, whole));
            tell(Event::Validating { done: total.count, total: rows.len() })?;
        }
        Ok(Some(total.means()))
    }

    fn save_best(&self, learner: &Learner) -> Result<()> {
        let Some(Saving { run, origin }) = self.saving else { return Ok(()) };
        checkpoint::save(&learner.policy, origin, StoredAs::F32, &run.path("best"), |_| Ok(()))
    }

    fn save(&self, learner: &Learner, optimizer: &Optimizer, progress: &Progress) -> Result<()> {
        let Some(Saving { run, origin }) = self.saving else { return Ok(()) };
        checkpoint::save(&learner.policy, origin, StoredAs::F32, &run.path("last"), |dir| {
            let resume = dir.join("resume");
            std::fs::create_dir(&resume).map_err(|e| Error::write(&resume, e))?;
            optimizer.save(learner, &resume.join(OPTIMIZER))?;
            if let Some(value) = &learner.value {
                let named = value.parameters().into_iter().map(|p| (p.name, Flat::of(&p.values)));
                write_safetensors(named.collect::<Vec<_>>().into_iter(), &resume.join(VALUE))?;
            }
            let memory = self.objective.memory();
            if !memory.is_empty() {
                write_values("memory", memory, &resume.join(MEMORY))?;
            }
            let text = serde_json::to_string_pretty(progress).unwrap_or_default();
            write_file(&resume.join("progress.json"), text.as_bytes())
        })
    }
}

/// What a step needs to be taken.
struct Computed {
    gradients: GradientSum,
    /// What the policy said of the step's responses.
    seen: Vec<Seen>,
    report: StepReport,
}

/// Responses `wanted` of the groups in `order`, laid end to end; if `whole`, all the responses of the groups that end
/// there, of which there is at least one where no group is longer than `wanted`.
fn cut(data: &FeedbackSet, order: &[usize], wanted: Range<usize>, whole: bool) -> Vec<Span> {
    let mut begin = 0;
    let mut spans = Vec::new();
    for &group in order {
        let n = data.groups[group].responses.len();
        let inside = |at: usize| at.clamp(begin, begin + n) - begin;
        let responses = match whole {
            true if wanted.contains(&(begin + n - 1)) => 0..n,
            true => 0..0,
            false => inside(wanted.start)..inside(wanted.end),
        };
        if !responses.is_empty() {
            spans.push(Span { group, responses });
        }
        begin += n;
    }
    spans
}

/// Running sums over responses.
#[derive(Default)]
struct Total {
    loss: f64,
    count: usize,
    metrics: Vec<(&'static str, f64)>,
}

impl Total {
    fn add(&mut self, loss: &Loss) {
        self.loss += f64::from(loss.sum.clone().into_scalar::<f32>());
        self.count += loss.count;
        for (name, value) in &loss.metrics {
            match self.metrics.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += value,
                None => self.metrics.push((name, *value)),
            }
        }
    }

    fn means(&self) -> Means {
        let n = self.count as f64;
        Means { loss: self.loss / n, metrics: self.metrics.iter().map(|(name, sum)| (*name, sum / n)).collect() }
    }
}
