//! The only training loop: batches, gradients, steps, validation, checkpoints. What is minimised is the objective's
//! business, what is shown to people is the observers'.

mod answers;
mod config;
mod event;
mod exchange;
mod look;
mod measure;
pub mod optim;
mod order;
mod packing;
pub mod recompute;
pub mod record;
mod run;
mod saves;
mod shards;
mod step;
mod task;

use std::time::Instant;

use burn::tensor::Tensor;

pub use answers::{Answered, Judge, shown_prompts};
pub use config::{BestBy, OnBadStep, TrainConfig};
pub use event::{BadStep, Event, Means, Observer, Pending, Progress, StepReport, Summary, Suspect};
use exchange::{Owners, gather};
pub use measure::Costs;
pub use run::{BEGUN_WITH, METRICS, RunDir, SETTINGS, Saving, TENSORBOARD};
use saves::SaveClock;
pub use saves::SaveEvery;
use step::{Computed, Outcome};
pub use task::{Passes, State, Task, learner};

use crate::error::{Error, Result};
use crate::feedback::Split;
use crate::host::host;
use crate::model::{Model, NamedParameters};
use crate::objective::ObjectiveConfig;
use crate::score::Learner;
use crate::stop::Stop;
use crate::train::optim::{Optimizer, linear_schedule};
use crate::world::{Alone, World};

/// Trains a copy of `start`, which is also the reference, in memory and keeps nothing but what it returns: reference
/// scores, objective and loop in one call. The device of `start` must track gradients.
///
/// # Errors
/// As [`Trainer::run`], and if the objective is not defined on the data.
pub fn fit(
    objective: &ObjectiveConfig,
    start: &Model,
    data: Split,
    config: &TrainConfig,
    observers: &mut [&mut dyn Observer],
) -> Result<Model> {
    start.start().check(&data.train)?;
    let task = Task::new(objective, data, config.seed, |passes| passes.compute(start, config.micro_batch_tokens))?;
    let state = State::begin(start.clone(), &task, config)?;
    let stop = Stop::new();
    let trainer = Trainer { task, config, saving: None, judge: None, stop: &stop, world: &Alone };
    Ok(trainer.run(state, observers)?.0.learner.policy)
}

/// What to do when losses, gradients or weights are no longer numbers.
const DIVERGED: &str = "lower the learning rate or look at the rewards. What was saved is unharmed";
/// So many bad steps in a row end a run that skips them: nothing is learned any more.
const BAD_IN_A_ROW: usize = 10;

/// Whether work was left because somebody wished to stop.
fn stopped(work: Result<()>) -> Result<bool> {
    match work {
        Err(Error::Stopped) => Ok(true),
        work => work.map(|()| false),
    }
}

/// A training run under way.
pub struct Trainer<'a> {
    /// The objective on its data.
    pub task: Task,
    /// Settings.
    pub config: &'a TrainConfig,
    /// Where checkpoints go; `None` to keep nothing.
    pub saving: Option<Saving<'a>>,
    /// Rates the policy's own answers to held-out prompts at each validation.
    pub judge: Option<&'a Judge<'a>>,
    /// Heard after each micro-batch of training and validation and before each token of an answer. What was done is saved.
    pub stop: &'a Stop,
    /// The processes that train together, each with the same task, settings and state. The first of them has `saving` and tells
    /// observers.
    pub world: &'a dyn World,
}

impl Trainer<'_> {
    /// Goes on from `state` to the end of the run, and saves what it comes to; returns the state in which it ends.
    ///
    /// # Errors
    /// If a setting asks for what is not there, numbers are not finite and the settings do not say to go on, a parameter gets no
    /// gradient, or a model cannot be saved. What was saved stays.
    pub fn run(mut self, state: State, observers: &mut [&mut dyn Observer]) -> Result<(State, Summary)> {
        self.check()?;
        let owners = Owners::new(&state.learner, self.world.size());
        let State { mut learner, mut optimizer, mut progress } = match self.world.size() {
            1 => state,
            _ => {
                let memory = self.world.once(|| Ok(self.task.objective.memory().to_vec()))?;
                if !self.world.leads() && !memory.is_empty() {
                    self.task.objective.recall(&memory);
                }
                owners.begin(self.world, state)?
            }
        };
        let watched = self.part();
        let value_rate = self.task.objective.needs().value.and_then(|v| v.learning_rate);
        let largest = [self.config.optimizer.learning_rate, value_rate.unwrap_or(self.config.optimizer.learning_rate)];
        let steps = self.steps();
        let (warmup, every) = (self.config.warmup(steps), self.config.validates_every(steps));
        let due = |step: usize| step > 0 && (step.is_multiple_of(every) || step == steps);
        let log_every = self.config.logs_every(steps);
        let mut tell = |event: Event<'_>| observers.iter_mut().try_for_each(|o| o.observe(&event));
        tell(Event::Start { done: progress.step, steps, log_every })?;
        if progress.step == 0 {
            progress.best_by = self.config.best_by;
        }
        let keeps = self.world.once(|| Ok(self.saving.is_some()))?;
        let new = self.world.once(|| Ok(self.saving.is_some_and(|saving| !saving.run.has_saved())))?;
        if new {
            self.save(&learner, &optimizer, &progress, &mut tell)?;
        }
        let mut clock = SaveClock::new(self.config.save_every, progress.step);
        let mut bad_in_a_row = 0;
        loop {
            // Time passes differently for each rank, and a wish to stop is heard by one alone; they go by what the first knows of
            // the one, and anybody of the other.
            let is_time = match self.world.together(self.stop.check().map(|()| clock.is_due(progress.step))) {
                Err(Error::Stopped) => break,
                told => told?.first().is_some_and(|&first| first),
            };
            let saves = keeps && (due(progress.step) && progress.pending != Pending::NOTHING || is_time);
            if saves {
                self.check_finite(&learner, &optimizer, progress.step)?;
            }
            if stopped(self.attend(&learner, &watched, steps, &mut progress, &mut tell))? {
                break;
            }
            if saves {
                self.save(&learner, &optimizer, &progress, &mut tell)?;
                clock.saved(progress.step);
            }
            if self.complete(&progress, steps) {
                break;
            }
            let step = progress.step + 1;
            let share = linear_schedule(step, warmup, steps);
            let outcome = match self.gradients(&learner, &owners, step) {
                Err(Error::Stopped) => break,
                outcome => outcome?,
            };
            let Computed { gradients, norms, seen, mut report } = match outcome {
                Outcome::Good(computed) => computed,
                Outcome::Bad(bad) => {
                    bad_in_a_row += 1;
                    let ends = bad_in_a_row == BAD_IN_A_ROW;
                    let heard = self.hear_of(&bad, &mut tell);
                    // What was good before it is saved, if it was.
                    let ending = heard.is_err() || ends;
                    let stale = keeps && self.world.once(|| Ok(clock.is_stale(progress.step)))?;
                    if ending && stale && self.check_finite(&learner, &optimizer, step).is_ok() {
                        self.save(&learner, &optimizer, &progress, &mut tell)?;
                    }
                    heard?;
                    if ends {
                        let problem =
                            format!("the last of {BAD_IN_A_ROW} bad steps in a row: {}; {DIVERGED}", bad.problem);
                        return Err(Error::Step { step, problem });
                    }
                    optimizer.skip();
                    progress.step = step;
                    progress.skipped += 1;
                    progress.pending = Pending { validation: due(step), samples: true };
                    continue;
                }
            };
            bad_in_a_row = 0;
            let started = Instant::now();
            learner = optimizer.update(learner, gradients, norms, largest.map(|rate| rate * share));
            learner = owners.share(self.world, learner)?;
            self.task.objective.follow(&seen);
            report.means.metrics.extend(self.diagnose(&watched, &seen).into_iter().map(look::named));
            report.seconds += started.elapsed().as_secs_f64();
            report.learning_rate = largest[0] * share;
            progress.step = step;
            progress.pending = Pending { validation: due(step), samples: true };
            tell(Event::Step(&report))?;
        }
        let interrupted = !self.complete(&progress, steps);
        if interrupted && keeps {
            self.check_finite(&learner, &optimizer, progress.step)?;
            self.save(&learner, &optimizer, &progress, &mut tell)?;
        }
        let ran_out_of_patience = !interrupted && progress.step < steps;
        let summary = Summary { progress: progress.clone(), interrupted, ran_out_of_patience };
        Ok((State { learner, optimizer, progress }, summary))
    }

    /// That the settings can be met, before anything is done.
    fn check(&self) -> Result<()> {
        self.config.check(self.task.objective.needs(), &self.task.data)?;
        self.config.check_shared(self.world.size())?;
        let refuse = |field, problem: &str| Err(Error::Setting { field, problem: problem.into() });
        match self.config.best_by {
            BestBy::Reward if self.judge.is_none() => {
                refuse("best-by", "`reward` needs a judge that rates answers, and there is none")
            }
            BestBy::TauB | BestBy::Mass if self.task.references.matched.is_none() => {
                refuse("best-by", "`tau-b` and `mass` need the start's scores of the held-out responses")
            }
            _ if self.judge.is_some() && self.task.data.validation.groups.is_empty() => refuse(
                "judge",
                "there are no held-out prompts whose answers could be rated; raise `validation-fraction`",
            ),
            _ => Ok(()),
        }
    }

    /// Whether there is nothing left to do.
    fn complete(&self, progress: &Progress, steps: usize) -> bool {
        progress.pending == Pending::NOTHING && self.all_steps_done(progress, steps)
    }

    fn all_steps_done(&self, progress: &Progress, steps: usize) -> bool {
        progress.step >= steps || self.config.patience.is_some_and(|patience| progress.waited >= patience)
    }

    /// That what would be saved after `step` steps are numbers.
    fn check_finite(&self, learner: &Learner, optimizer: &Optimizer, step: usize) -> Result<()> {
        let finite = |values: &Tensor<1>| host(values.clone()).map(|values| values.iter().all(|v| v.is_finite()));
        let parameters = learner.trained();
        let first_bad = || -> Result<Option<String>> {
            let weights = parameters.iter().map(|p| (p.name.as_str(), &p.values));
            for (name, values) in weights.chain(optimizer.state()) {
                if !finite(values)? {
                    return Ok(Some(name.to_string()));
                }
            }
            Ok(None)
        };
        match self.world.together(first_bad())?.into_iter().flatten().next() {
            None => Ok(()),
            Some(name) => {
                let problem = format!(
                    "after it `{name}` or what the optimizer remembers of it is not finite: training has diverged; {DIVERGED}"
                );
                Err(Error::Step { step, problem })
            }
        }
    }

    fn steps(&self) -> usize {
        self.config.steps(self.task.data.train.responses())
    }

    fn whole_prompts(&self) -> bool {
        self.task.objective.needs().whole_prompts
    }

    /// Tells of a bad step.
    ///
    /// # Errors
    /// What is wrong, if the settings say that the run ends.
    fn hear_of(&self, bad: &BadStep, tell: &mut dyn FnMut(Event<'_>) -> Result<()>) -> Result<()> {
        // Others than the first tell nobody, and must know if that failed.
        self.world.agreed(tell(Event::Bad(bad)))?;
        let BadStep { step, problem, .. } = bad;
        match self.config.on_bad_step {
            OnBadStep::Skip => Ok(()),
            OnBadStep::Stop => {
                let problem = format!("{problem}, with {}; {DIVERGED}", bad.prompts());
                Err(Error::Step { step: *step, problem })
            }
        }
    }

    fn save(
        &self,
        learner: &Learner,
        optimizer: &Optimizer,
        progress: &Progress,
        tell: &mut dyn FnMut(Event<'_>) -> Result<()>,
    ) -> Result<()> {
        let gathered = match self.world.size() {
            1 => None,
            _ => gather(self.world, optimizer)?,
        };
        self.world.once(|| {
            let Some(saving) = self.saving else { return Ok(()) };
            tell(Event::Saving { step: progress.step })?;
            let optimizer = gathered.as_ref().unwrap_or(optimizer);
            saving.last(learner, optimizer, self.task.objective.as_ref(), progress, self.config)?;
            tracing::debug!("saved after step {}", progress.step);
            Ok(())
        })
    }
}
