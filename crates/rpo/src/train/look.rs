//! What is done between steps: validation, and answers for a judge and for people.

use std::borrow::Cow;

use burn::module::Module;

use super::answers;
use super::step::{Piece, Total, suspects};
use super::{BadStep, BestBy, Event, Means, Progress, Trainer};
use crate::batch::{PackedBatch, length_buckets};
use crate::diagnostics::{Diagnostics, Metrics};
use crate::error::Result;
use crate::feedback::FeedbackSet;
use crate::objective::Step;
use crate::reference::References;
use crate::score::{Learner, LogProb, Seen, score_batches};

/// What is looked at beside the loss.
pub(super) struct Watched {
    diagnostics: Diagnostics,
    /// Validation responses that the objective does not use.
    pub unused: FeedbackSet,
    /// Prompts whose answers are rated.
    judged: Vec<Vec<u32>>,
    /// Prompts whose answers are shown.
    shown: Vec<Vec<u32>>,
}

impl Trainer<'_> {
    /// Leaves in `data` what the objective uses; what is looked at beside the loss stays in view.
    pub(super) fn part(&mut self) -> Watched {
        let uses = |row| self.task.objective.uses(row);
        let ids = |set: FeedbackSet| set.groups.into_iter().map(|group| group.prompt).collect();
        let validation = &self.task.data.validation;
        let mut unused = validation.clone();
        unused.retain(|r| !uses(r.row));
        let watched = Watched {
            diagnostics: Diagnostics::new(&self.task.data),
            unused,
            judged: ids(answers::some_prompts(validation, answers::JUDGED)),
            shown: ids(answers::shown_prompts(&self.task.data)),
        };
        for split in std::iter::once(&mut self.task.data).chain(&mut self.task.mismatched) {
            split.train.retain(|r| uses(r.row));
            split.validation.retain(|r| uses(r.row));
            if self.task.objective.needs().whole_prompts {
                // As many responses as a step holds are compared with each other.
                split.train.part_groups(self.config.batch_size);
                split.validation.part_groups(self.config.batch_size);
            }
        }
        watched
    }

    /// Does what is to be done before the next step, and takes note of each part that is done.
    pub(super) fn attend(
        &self,
        learner: &Learner,
        watched: &Watched,
        steps: usize,
        progress: &mut Progress,
        tell: &mut dyn FnMut(Event<'_>) -> Result<()>,
    ) -> Result<()> {
        if progress.pending.validation {
            let nothing = References::default();
            let known = if progress.step == 0 { &self.task.references } else { &nothing };
            if self.look(learner, known, watched, progress, tell)? {
                self.world.once(|| self.saving.map_or(Ok(()), |saving| saving.best(learner, self.config)))?;
            }
            progress.pending.validation = false;
        }
        if progress.pending.samples {
            let last = self.all_steps_done(progress, steps);
            self.world.once(|| self.show(learner, watched, progress.step, last, tell))?;
            progress.pending.samples = false;
        }
        Ok(())
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
        let milestone = Event::Milestone { step: progress.step, policy: &learner.policy.inference() };
        self.world.once(|| tell(milestone))?;
        let Some(means) = self.validate(progress.step, learner, known, watched, tell)? else { return Ok(false) };
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
        let answers = answers::answers(&learner.policy.inference(), &watched.shown, self.config.seed, self.stop)?;
        tell(Event::Samples { step, prompts: &watched.shown, answers: &answers })
    }

    pub(super) fn diagnose(&self, watched: &Watched, seen: &[Seen]) -> Metrics {
        watched.diagnostics.of(seen, self.task.references.matched.as_ref())
    }

    /// Mean loss over the validation responses, if there are any, and what else they show. Scores of the policy that are
    /// `known` are not computed.
    fn validate(
        &self,
        step: usize,
        learner: &Learner,
        known: &References,
        watched: &Watched,
        tell: &mut dyn FnMut(Event<'_>) -> Result<()>,
    ) -> Result<Option<Means>> {
        let data = &self.task.data.validation;
        if data.groups.is_empty() {
            return Ok(None);
        }
        let learner = learner.valid();
        let (total, mut seen) = self.held_out_loss(step, &learner, known, tell)?;
        match &known.matched {
            // Not what was computed again: at the start all log-ratios are 0, and rounding must not rank them.
            Some(known) => {
                let rows = data.iter().chain(watched.unused.iter()).map(|r| r.row);
                let of_row = |row| known.log_prob(row).map(|sum| Seen { row, log_prob: sum as f32 });
                seen = rows.filter_map(of_row).collect();
            }
            None => {
                let batches = length_buckets(&watched.unused, self.config.micro_batch_tokens, false);
                let own = &batches[self.world.share(batches.len())];
                let scores = score_batches(&learner.policy, &watched.unused, own, &mut |_| self.stop.check());
                let scores = self.world.together(scores)?.into_iter().flatten();
                seen.extend(scores.map(|(row, log_prob)| Seen { row, log_prob }));
            }
        }
        let mut means = total.means();
        means.metrics.extend(self.diagnose(watched, &seen).into_iter().map(named));
        if let Some(judge) = self.judge {
            let reward = || answers::reward(judge, &learner.policy, &watched.judged, self.config.seed, self.stop);
            let reward = self.world.once(reward)?;
            means.metrics.extend(reward.map(|reward| named((BestBy::Reward.metric(), reward))));
        }
        Ok(Some(means))
    }

    fn held_out_loss(
        &self,
        step: usize,
        learner: &Learner,
        known: &References,
        tell: &mut dyn FnMut(Event<'_>) -> Result<()>,
    ) -> Result<(Total, Vec<Seen>)> {
        let data = &self.task.data.validation;
        let rows: Vec<usize> = data.iter().map(|r| r.row).collect();
        let batches = length_buckets(data, self.config.micro_batch_tokens, self.whole_prompts());
        let own = &batches[self.world.share(batches.len())];
        let mismatched = match &known.mismatched {
            Some(known) => rows.iter().map(|&row| known.ell(row, LogProb::Sum)).collect(),
            None => self.mismatched(&learner.policy, |m| &m.validation, own, &rows)?,
        };
        let whole = Step { rows: &rows, mismatched: &mismatched };
        let responses = own.iter().flatten().map(|span| span.responses.len()).sum();
        let mut compute = || -> Result<Vec<(Piece, Vec<Seen>)>> {
            let mut done = 0;
            let mut pieces = Vec::with_capacity(own.len());
            for spans in own {
                self.stop.check()?;
                let batch = PackedBatch::pack(data, spans, learner.policy.start());
                let scores = match &known.matched {
                    Some(known) if learner.value.is_none() => known.scores(&batch, &learner.policy.device()),
                    _ => learner.score(&batch),
                };
                pieces.push((Piece::of(&self.task.objective.loss(&scores, whole)?)?, scores.seen()?));
                done += batch.rows.len();
                tell(Event::Validating { done, total: responses })?;
            }
            Ok(pieces)
        };
        let pieces = self.world.together(compute())?;
        let mut total = Total::default();
        let mut seen = Vec::with_capacity(rows.len());
        let mut bad = None;
        for ((piece, of_piece), spans) in pieces.into_iter().flatten().zip(&batches) {
            total.add(&piece);
            seen.extend(of_piece);
            if !total.loss.is_finite() && bad.is_none() {
                let responses = suspects(data, spans, &seen);
                let problem = format!("the held-out loss is {}", total.loss);
                bad = Some(BadStep { step, validation: true, problem, responses });
            }
        }
        if let Some(bad) = bad {
            self.hear_of(&bad, tell)?;
        }
        Ok((total, seen))
    }
}

/// A metric with its name.
pub(super) fn named((name, value): (&'static str, f64)) -> (Cow<'static, str>, f64) {
    (name.into(), value)
}
