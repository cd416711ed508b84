//! The only training loop: batches, gradients, steps, validation, checkpoints. What is minimised is the objective's
//! business, what is shown to people is the observers'.

mod answers;
mod config;
mod event;
mod order;
mod run_dir;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Tensor;

pub use answers::{Answered, Judge};
pub use config::{BestBy, TrainConfig};
pub use event::{Event, Means, Observer, Progress, StepReport, Summary};
pub use run_dir::{RunDir, Saving};

use crate::batch::{PackedBatch, Span, length_buckets, split_evenly};
use crate::diagnostics::{Diagnostics, Metrics};
use crate::error::{Error, Result};
use crate::feedback::{FeedbackSet, Split};
use crate::objective::{Loss, Needs, Objective, ObjectiveConfig, Seen, Step};
use crate::optim::{GradientSum, Optimizer, linear_schedule};
use crate::recompute;
use crate::reference::References;
use crate::score::{Learner, LogProb, Scores, score, score_set};
use crate::t5::{NamedParameters, T5, ValueNetwork};

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
    let mismatched = needs.mismatched.then(|| data.mismatched(config.seed)).transpose()?;
    let references = References::compute(&start.valid(), needs, &data, mismatched.as_ref(), config.micro_batch_tokens);
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
        judge: None,
        stop: &stop,
    };
    Ok(trainer.run(learner, optimizer, Progress::default(), observers)?.0.policy)
}

/// A training run under way.
pub struct Trainer<'a> {
    /// The objective, already prepared on `data`.
    pub objective: &'a mut dyn Objective,
    /// Training and validation responses.
    pub data: Split,
    /// [`Split::mismatched`] of `data`, where the objective needs it: the same that its reference scores are of.
    pub mismatched: Option<Split>,
    /// What the reference, from which the learner starts, gives to `data`: with it the first validation needs no pass, and
    /// those of [`crate::diagnostics`] that compare with the start are reported where it is known.
    pub references: &'a References,
    /// Settings.
    pub config: &'a TrainConfig,
    /// Where checkpoints go; `None` to keep nothing.
    pub saving: Option<Saving<'a>>,
    /// Rates the policy's own answers to held-out prompts at each validation.
    pub judge: Option<&'a Judge<'a>>,
    /// Set from outside to stop after the current micro-batch.
    pub stop: &'a AtomicBool,
}

impl Trainer<'_> {
    /// Trains `learner`, whose device must track gradients, and saves it; returns it as it ends.
    ///
    /// # Errors
    /// If a setting asks for what is not there, a loss is not finite, a parameter gets no gradient, or a file cannot be
    /// written. What was saved stays.
    pub fn run(
        mut self,
        mut learner: Learner,
        mut optimizer: Optimizer,
        mut progress: Progress,
        observers: &mut [&mut dyn Observer],
    ) -> Result<(Learner, Summary)> {
        self.check()?;
        let watched = self.part();
        let value_rate = self.objective.needs().value.and_then(|v| v.learning_rate);
        let largest = [self.config.optimizer.learning_rate, value_rate.unwrap_or(self.config.optimizer.learning_rate)];
        let steps = self.steps();
        let warmup = self.config.warmup_steps.unwrap_or((steps / 10).min(150)).min(steps);
        let every = self.config.validate_every.unwrap_or(steps.div_ceil(10)).max(1);
        let mut tell = |event: Event<'_>| observers.iter_mut().try_for_each(|o| o.observe(&event));
        tell(Event::Start { done: progress.step, steps })?;
        if progress.step == 0 {
            progress.best_by = self.config.best_by;
            self.look(&learner, self.references, &watched, &mut progress, &mut tell)?;
            self.show(&learner, &watched, 0, false, &mut tell)?;
        }
        while !self.complete(&progress, steps) && !self.stop.load(Ordering::Relaxed) {
            let step = progress.step + 1;
            let share = linear_schedule(step, warmup, steps);
            let Some(Computed { gradients, seen, mut report }) = self.gradients(&learner, step)? else { break };
            let started = Instant::now();
            (learner, report.grad_norm) = optimizer.update(learner, gradients, largest.map(|rate| rate * share));
            self.objective.follow(&seen);
            report.means.metrics.extend(self.diagnose(&watched, &seen));
            report.seconds += started.elapsed().as_secs_f64();
            report.learning_rate = largest[0] * share;
            progress.step = step;
            tell(Event::Step(&report))?;
            let due = step.is_multiple_of(every) || step == steps;
            if due && self.look(&learner, &References::default(), &watched, &mut progress, &mut tell)? {
                self.saving.map_or(Ok(()), |saving| saving.best(&learner))?;
            }
            self.show(&learner, &watched, step, self.complete(&progress, steps), &mut tell)?;
            if due {
                self.save(&learner, &optimizer, &progress)?;
            }
        }
        let interrupted = !self.complete(&progress, steps);
        if interrupted {
            self.save(&learner, &optimizer, &progress)?;
        }
        let ran_out_of_patience = !interrupted && progress.step < steps;
        Ok((learner, Summary { progress, interrupted, ran_out_of_patience }))
    }

    /// That the settings can be met, before anything is done.
    fn check(&self) -> Result<()> {
        self.config.check(self.objective.needs(), &self.data)?;
        let refuse = |field, problem: &str| Err(Error::Setting { field, problem: problem.into() });
        match self.config.best_by {
            BestBy::Reward if self.judge.is_none() => {
                refuse("best-by", "`reward` needs a judge that rates answers, and there is none")
            }
            BestBy::TauB | BestBy::Mass if self.references.matched.is_none() => {
                refuse("best-by", "`tau-b` and `mass` need the start's scores of the held-out responses")
            }
            _ if self.judge.is_some() && self.data.validation.groups.is_empty() => refuse(
                "judge",
                "there are no held-out prompts whose answers could be rated; raise `validation-fraction`",
            ),
            _ => Ok(()),
        }
    }

    /// Leaves in `data` what the objective uses; what is looked at beside the loss stays in view.
    fn part(&mut self) -> Watched {
        let uses = |row| self.objective.uses(row);
        let Split { train, validation } = &self.data;
        let mut unused = validation.clone();
        unused.retain(|r| !uses(r.row));
        let watched = Watched {
            diagnostics: Diagnostics::new(&self.data),
            unused,
            judged: answers::some_prompts(validation, answers::JUDGED),
            shown: answers::some_prompts(if validation.groups.is_empty() { train } else { validation }, answers::SHOWN),
        };
        for split in std::iter::once(&mut self.data).chain(&mut self.mismatched) {
            split.train.retain(|r| uses(r.row));
            split.validation.retain(|r| uses(r.row));
            if self.objective.needs().whole_prompts {
                // As many responses as a step holds are compared with each other.
                split.train.part_groups(self.config.batch_size);
                split.validation.part_groups(self.config.batch_size);
            }
        }
        watched
    }

    /// Whether there is nothing left to do.
    fn complete(&self, progress: &Progress, steps: usize) -> bool {
        progress.step >= steps || self.config.patience.is_some_and(|patience| progress.waited >= patience)
    }

    /// Shows the policy to the observers, and validates; says whether it is the best so far and no longer the start.
    fn look(
        &self,
        learner: &Learner,
        known: &References,
        watched: &Watched,
        progress: &mut Progress,
        tell: &mut dyn FnMut(Event<'_>) -> Result<()>,
    ) -> Result<bool> {
        tell(Event::Milestone { step: progress.step, policy: &learner.policy.valid() })?;
        let Some(means) = self.validate(learner, known, watched, tell)? else { return Ok(false) };
        let best = progress.consider(&means);
        tell(Event::Validation { step: progress.step, means: &means, best })?;
        Ok(best)
    }

    /// Lets the policy answer a few prompts where that is due.
    fn show(
        &self,
        learner: &Learner,
        watched: &Watched,
        step: usize,
        last: bool,
        tell: &mut dyn FnMut(Event<'_>) -> Result<()>,
    ) -> Result<()> {
        if !self.config.sample_every.is_some_and(|every| step.is_multiple_of(every) || last) {
            return Ok(());
        }
        let answers = answers::answers(&learner.policy.valid(), &watched.shown, self.config.seed);
        tell(Event::Samples { step, prompts: &watched.shown, answers: &answers })
    }

    fn diagnose(&self, watched: &Watched, seen: &[Seen]) -> Metrics {
        watched.diagnostics.of(seen, self.references.matched.as_ref())
    }

    fn steps(&self) -> usize {
        let TrainConfig { epochs, max_steps, .. } = *self.config;
        max_steps.unwrap_or(epochs * order::steps_per_epoch(&self.data.train, self.config))
    }

    fn whole_prompts(&self) -> bool {
        self.objective.needs().whole_prompts
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
        let spans = order::batch(data, self.config, step, self.whole_prompts());
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

    /// Mean loss over the validation responses, if there are any, and what else they show. Scores of the policy that are
    /// `known` are not computed.
    fn validate(
        &self,
        learner: &Learner,
        known: &References,
        watched: &Watched,
        tell: &mut dyn FnMut(Event<'_>) -> Result<()>,
    ) -> Result<Option<Means>> {
        let data = &self.data.validation;
        if data.groups.is_empty() {
            return Ok(None);
        }
        let learner = learner.valid();
        let (total, mut seen) = self.held_out_loss(&learner, known, tell)?;
        match &known.matched {
            // Not what was computed again: at the start all log-ratios are 0, and rounding must not rank them.
            Some(known) => {
                let rows = data.iter().chain(watched.unused.iter()).map(|r| r.row);
                let of_row = |row| known.log_prob(row).map(|sum| Seen { row, log_prob: sum as f32 });
                seen = rows.filter_map(of_row).collect();
            }
            None => {
                let budget = self.config.micro_batch_tokens;
                let scores = score_set(&learner.policy, &watched.unused, budget, &mut |_| ());
                seen.extend(scores.into_iter().map(|(row, log_prob)| Seen { row, log_prob }));
            }
        }
        let mut means = total.means();
        means.metrics.extend(self.diagnose(watched, &seen));
        if let Some(judge) = self.judge {
            let reward = answers::reward(judge, &learner.policy, &watched.judged, self.config.seed)?;
            means.metrics.extend(reward.map(|reward| (BestBy::Reward.metric(), reward)));
        }
        Ok(Some(means))
    }

    fn held_out_loss(
        &self,
        learner: &Learner,
        known: &References,
        tell: &mut dyn FnMut(Event<'_>) -> Result<()>,
    ) -> Result<(Total, Vec<Seen>)> {
        let data = &self.data.validation;
        let rows: Vec<usize> = data.iter().map(|r| r.row).collect();
        let batches = length_buckets(data, self.config.micro_batch_tokens, self.whole_prompts());
        let mismatched = match &known.mismatched {
            Some(known) => rows.iter().map(|&row| known.ell(row, LogProb::Sum)).collect(),
            None => self.mismatched(&learner.policy, |m| &m.validation, &batches, &rows),
        };
        let whole = Step { rows: &rows, mismatched: &mismatched };
        let mut total = Total::default();
        let mut seen = Vec::with_capacity(rows.len());
        for spans in batches {
            let batch = PackedBatch::pack(data, &spans, learner.policy.config());
            let scores = match &known.matched {
                Some(known) if learner.value.is_none() => known.scores(&batch, &learner.policy.device()),
                _ => learner.score(&batch),
            };
            total.add(&self.objective.loss(&scores, whole));
            seen.extend(scores.seen());
            tell(Event::Validating { done: total.count, total: rows.len() })?;
        }
        Ok((total, seen))
    }

    fn save(&self, learner: &Learner, optimizer: &Optimizer, progress: &Progress) -> Result<()> {
        self.saving.map_or(Ok(()), |saving| saving.last(learner, optimizer, self.objective, progress))
    }
}

/// What is looked at beside the loss.
struct Watched {
    diagnostics: Diagnostics,
    /// Validation responses that the objective does not use.
    unused: FeedbackSet,
    /// Prompts whose answers are rated.
    judged: Vec<Vec<u32>>,
    /// Prompts whose answers are shown.
    shown: Vec<Vec<u32>>,
}

/// What a step needs to be taken.
struct Computed {
    gradients: GradientSum,
    /// What the policy said of the step's responses.
    seen: Vec<Seen>,
    report: StepReport,
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
