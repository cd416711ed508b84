//! What a run would cost, told from a few of its own micro-batches. Nothing of it is kept.

use std::time::Instant;

use burn::module::Module;

use super::{State, Trainer, order};
use crate::batch::{PackedBatch, Span, length_buckets, split_evenly};
use crate::error::Result;
use crate::feedback::FeedbackSet;
use crate::host::host;
use crate::model::NamedParameters;
use crate::objective::Step;
use crate::score::{Learner, score};
use crate::train::optim::GradientSum;

/// Steps whose micro-batches are looked at.
const STEPS: usize = 32;
/// Micro-batches that are timed, beside the largest, which comes first and warms up.
const TIMED: usize = 4;
/// No more of them are begun after so many seconds.
const ENOUGH: f64 = 10.0;

/// What a run consists of, and what its parts take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// Optimizer steps.
    pub steps: usize,
    /// Mean tokens of a step, prompts included.
    pub step_tokens: f64,
    /// Seconds of a step.
    pub step_seconds: f64,
    /// Seconds of it in which the optimizer updates the weights.
    pub update_seconds: f64,
    /// Validations that need a pass over the held-out responses.
    pub validations: usize,
    /// Seconds of one of them, without what a judge takes.
    pub validation_seconds: f64,
    /// Seconds that a token, prompts included, takes in a pass without gradients.
    pub token_seconds: f64,
    /// Tokens of the largest micro-batch that was found, which was among the measured ones.
    pub largest: usize,
    /// Micro-batches that were measured.
    pub measured: usize,
}

impl Trainer<'_> {
    /// Takes the gradients of a few micro-batches, the largest of some steps among them, and an update. Afterwards the
    /// process has held all that training holds in memory at a time. Scores of the reference are not looked at: they may be
    /// [`crate::reference::References::zeros`].
    ///
    /// # Errors
    /// If a setting asks for what is not there, or the device fails.
    pub fn measure(mut self, state: State) -> Result<Costs> {
        let State { learner, mut optimizer, .. } = state;
        self.check()?;
        let watched = self.part();
        let (steps, whole) = (self.steps(), self.whole_prompts());
        let data = &self.task.data.train;
        let seen = steps.min(order::steps_per_epoch(data, self.config)).min(STEPS);
        let split = |spans: Vec<Span>| split_evenly(data, &spans, self.config.micro_batch_tokens, whole);
        let pieces: Vec<Vec<Span>> =
            (1..=seen).flat_map(|step| split(order::batch(data, self.config, step, whole))).collect();
        let step_tokens = pieces.iter().map(|piece| tokens(data, piece)).sum::<usize>() as f64 / seen.max(1) as f64;
        let largest = pieces.iter().max_by_key(|piece| tokens(data, piece)).cloned().unwrap_or_default();
        let others: Vec<&Vec<Span>> = pieces.iter().take(TIMED).collect();

        let mut gradients = GradientSum::default();
        self.add(&learner, &largest, &mut gradients)?;
        let (gradient_seconds, count) = timed(data, &others, |piece| self.add(&learner, piece, &mut gradients))?;
        let plain = learner.valid();
        let pass = |piece: &[Span]| -> Result<()> {
            host(score(&plain.policy, &PackedBatch::pack(data, piece, plain.policy.start())).log_probs).map(|_| ())
        };
        pass(&largest)?;
        let (token_seconds, _) = timed(data, &others, pass)?;

        let started = Instant::now();
        let norms = gradients.norms();
        let learner = optimizer.update(learner, gradients, norms.map(|_| 0.0), [0.0; 2]);
        // Reading something back waits for a device that works beside the program.
        learner.parameters().pop().map_or(Ok(Vec::new()), |p| host(p.values))?;
        let update_seconds = started.elapsed().as_secs_f64();

        let held_out = |data: &FeedbackSet| {
            length_buckets(data, self.config.micro_batch_tokens, whole).iter().map(|b| tokens(data, b)).sum::<usize>()
        };
        let passes = if self.task.mismatched.is_some() { 2.0 } else { 1.0 };
        let held_out = held_out(&self.task.data.validation) as f64 * passes + held_out(&watched.unused) as f64;
        Ok(Costs {
            steps,
            step_tokens,
            step_seconds: step_tokens * (gradient_seconds + (passes - 1.0) * token_seconds) + update_seconds,
            update_seconds,
            validations: if held_out > 0.0 { steps.div_ceil(self.config.validates_every(steps)) } else { 0 },
            validation_seconds: held_out * token_seconds,
            token_seconds,
            largest: tokens(data, &largest),
            measured: count + 1,
        })
    }

    /// Adds the gradients of a micro-batch for itself.
    fn add(&self, learner: &Learner, piece: &[Span], gradients: &mut GradientSum) -> Result<()> {
        let batch = PackedBatch::pack(&self.task.data.train, piece, learner.policy.start());
        let mismatched = vec![0.0; batch.rows.len()];
        let step = Step { rows: &batch.rows, mismatched: &mismatched };
        self.backward(learner, &batch, |scores| Ok(self.task.objective.loss(scores, step)?.sum), gradients)
    }
}

fn tokens(data: &FeedbackSet, spans: &[Span]) -> usize {
    spans.iter().map(|span| span.tokens(data)).sum()
}

/// Seconds of `work` for a token of these micro-batches, and how many there was time for, which is at least one.
fn timed(
    data: &FeedbackSet,
    pieces: &[&Vec<Span>],
    mut work: impl FnMut(&[Span]) -> Result<()>,
) -> Result<(f64, usize)> {
    let started = Instant::now();
    let (mut count, mut worked) = (0, 0);
    for piece in pieces {
        if count > 0 && started.elapsed().as_secs_f64() > ENOUGH {
            break;
        }
        work(piece)?;
        worked += tokens(data, piece);
        count += 1;
    }
    Ok((started.elapsed().as_secs_f64() / worked.max(1) as f64, count))
}
