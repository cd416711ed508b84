//! What a step needs to be taken: gradients of the mean loss over its responses, micro-batch by micro-batch.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Instant;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::exchange::{Owners, Reached};
use super::optim::Squares;
use super::{BadStep, Means, StepReport, Suspect, Trainer, order, shards};
use crate::batch::{PackedBatch, Span, split_evenly};
use crate::error::{Error, Result};
use crate::feedback::{FeedbackSet, Split};
use crate::host::{host, scalar};
use crate::model::{Model, NamedParameters};
use crate::objective::{Loss, Step};
use crate::score::{Learner, Scores, Seen, score};
use crate::train::optim::GradientSum;
use crate::train::recompute;

/// What came of a step before it is taken.
pub(super) enum Outcome {
    /// It can be taken.
    Good(Computed),
    /// It must not be taken.
    Bad(BadStep),
}

/// What a step needs to be taken.
pub(super) struct Computed {
    pub gradients: GradientSum,
    /// See [`GradientSum::norms`].
    pub norms: [f64; 2],
    /// What the policy said of the step's responses.
    pub seen: Vec<Seen>,
    pub report: StepReport,
}

/// What a rank says of its share of a step.
#[derive(Default, Serialize, Deserialize)]
struct Share {
    pieces: Vec<Piece>,
    seen: Vec<Seen>,
    tokens: usize,
    reached: Reached,
    /// Why the step must not be taken, as far as this rank can tell.
    bad: Option<String>,
}

impl Trainer<'_> {
    /// `log p(y|x')` of each of `rows`, of which `batches` of a mismatched set hold this rank's; nothing where none are needed.
    pub(super) fn mismatched(
        &self,
        policy: &Model,
        part: fn(&Split) -> &FeedbackSet,
        batches: &[Vec<Span>],
        rows: &[usize],
    ) -> Result<Vec<f64>> {
        let Some(set) = self.task.mismatched.as_ref().map(part) else { return Ok(Vec::new()) };
        let own = || -> Result<Vec<(usize, f32)>> {
            let policy = policy.inference();
            let mut found = Vec::new();
            for spans in batches {
                self.stop.check()?;
                let scored = score(&policy, &PackedBatch::pack(set, spans, policy.start()));
                found.extend(scored.rows.into_iter().zip(host(scored.log_probs)?));
            }
            Ok(found)
        };
        let found: HashMap<usize, f32> = self.world.together(own())?.into_iter().flatten().collect();
        Ok(rows.iter().map(|row| f64::from(found[row])).collect())
    }

    /// Gradients of the mean loss of a step, which are finite, or what is wrong with it. Each rank computes its shards; the gradients
    /// that come back are of the parameters that it owns, and all else is of the whole step.
    pub(super) fn gradients(&self, learner: &Learner, owners: &Owners, step: usize) -> Result<Outcome> {
        let started = Instant::now();
        let data = &self.task.data.train;
        let spans = order::batch(data, self.config, step, self.whole_prompts());
        let rows: Vec<usize> = spans
            .iter()
            .flat_map(|s| data.groups[s.group].responses[s.responses.clone()].iter().map(|r| r.row))
            .collect();
        let shards = shards::cut(data, &spans, self.config.shards(), self.whole_prompts());
        let own = &shards[self.world.share(shards.len())];
        let split = |spans: &Vec<Span>| split_evenly(data, spans, self.config.micro_batch_tokens, self.whole_prompts());
        let own: Vec<Vec<Vec<Span>>> = own.iter().map(split).collect();
        let mismatched = self.mismatched(&learner.policy, |m| &m.train, &own.concat(), &rows)?;
        let whole = Step { rows: &rows, mismatched: &mismatched };
        let mut sums: Vec<GradientSum> = Vec::new();
        let share =
            self.share(learner, &own, whole, &mut sums).map(|share| Share { reached: owners.reached(&sums), ..share });
        let shares = self.world.together(share)?;

        let bad = |problem, seen: &[Seen]| {
            let responses = suspects(data, &spans, seen);
            Ok(Outcome::Bad(BadStep { step, validation: false, problem, responses }))
        };
        let mut total = Total::default();
        let mut seen = Vec::with_capacity(rows.len());
        let (mut tokens, mut reached) = (0, Vec::with_capacity(shares.len()));
        for share in shares {
            share.pieces.iter().for_each(|piece| total.add(piece));
            seen.extend(share.seen);
            tokens += share.tokens;
            reached.push(share.reached);
            if let Some(problem) = share.bad {
                return bad(problem, &seen);
            }
        }
        let gradients = owners.fold(self.world, sums, &reached)?;
        let squares = Squares::of_all(self.world.together(Ok(gradients.squares()))?);
        squares.complete(learner).map_err(|problem| Error::Step { step, problem })?;
        let norms = squares.norms();
        if norms.iter().any(|norm| !norm.is_finite()) {
            let whose = if norms[0].is_finite() { " of the value network" } else { "" };
            return bad(format!("the gradients{whose} are not finite"), &seen);
        }
        let report = StepReport {
            step,
            means: total.means(),
            learning_rate: 0.0,
            grad_norm: norms[0],
            responses: rows.len(),
            tokens,
            seconds: started.elapsed().as_secs_f64(),
        };
        Ok(Outcome::Good(Computed { gradients, norms, seen, report }))
    }

    /// Computes the shards of this rank, whose pieces are `own`. `sums` gets the gradients of each, and on the first rank, whose come
    /// first in the order of the sum, of all together.
    fn share(
        &self,
        learner: &Learner,
        own: &[Vec<Vec<Span>>],
        whole: Step<'_>,
        sums: &mut Vec<GradientSum>,
    ) -> Result<Share> {
        let data = &self.task.data.train;
        let mut share = Share::default();
        let mut total = Total::default();
        for pieces in own {
            let mut sum = GradientSum::default();
            for piece in pieces {
                self.stop.check()?;
                let batch = PackedBatch::pack(data, piece, learner.policy.start());
                share.tokens += batch.tokens();
                let mean = |scores: &Scores| -> Result<Tensor<1>> {
                    let loss = self.task.objective.loss(scores, whole)?;
                    let told = Piece::of(&loss)?;
                    total.add(&told);
                    share.pieces.push(told);
                    share.seen.extend(scores.seen()?);
                    match total.loss.is_finite() {
                        true => Ok(loss.sum.div_scalar(whole.rows.len() as f64)),
                        false => Err(Error::Step { step: 0, problem: format!("the loss is {}", total.loss) }),
                    }
                };
                match self.backward(learner, &batch, mean, &mut sum) {
                    Err(Error::Step { problem, .. }) => {
                        share.bad = Some(problem);
                        return Ok(share);
                    }
                    computed => computed?,
                }
            }
            match sums.pop() {
                Some(first) if self.world.leads() => sums.push(first.plus(sum)),
                last => sums.extend(last.into_iter().chain([sum])),
            }
        }
        Ok(share)
    }

    /// Adds to `sum` the gradients of the loss that `loss` makes of the scores of `batch`, in little memory if the settings say
    /// so.
    pub(super) fn backward(
        &self,
        learner: &Learner,
        batch: &PackedBatch,
        loss: impl FnOnce(&Scores) -> Result<Tensor<1>>,
        sum: &mut GradientSum,
    ) -> Result<()> {
        match self.config.recompute {
            true => recompute::gradients(learner, batch, loss, sum),
            false => {
                sum.add(learner.gradients(&mut loss(&learner.score(batch))?.backward()));
                Ok(())
            }
        }
    }
}

/// The responses of `spans`, of which the policy said what is in `seen`: first those whose own log-probability is not finite.
pub(super) fn suspects(data: &FeedbackSet, spans: &[Span], seen: &[Seen]) -> Vec<Suspect> {
    let known: HashMap<usize, f32> = seen.iter().map(|seen| (seen.row, seen.log_prob)).collect();
    let mut found: Vec<Suspect> = Vec::new();
    for span in spans {
        let group = &data.groups[span.group];
        found.extend(group.responses[span.responses.clone()].iter().map(|response| Suspect {
            row: group.first_row,
            prompt: group.prompt.clone(),
            response: response.ids.clone(),
            reward: response.reward,
            log_prob: known.get(&response.row).copied(),
        }));
    }
    found.sort_by_key(|suspect| suspect.log_prob.is_none_or(f32::is_finite));
    found
}

/// What a loss says of its micro-batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Piece {
    loss: f64,
    count: usize,
    metrics: Vec<(Cow<'static, str>, f64)>,
}

impl Piece {
    pub fn of(loss: &Loss) -> Result<Self> {
        let metrics = loss.metrics.iter().map(|&(name, value)| (name.into(), value)).collect();
        Ok(Self { loss: f64::from(scalar(loss.sum.clone())?), count: loss.count, metrics })
    }
}

/// Running sums over responses.
#[derive(Default)]
pub(super) struct Total {
    pub loss: f64,
    pub count: usize,
    metrics: Vec<(Cow<'static, str>, f64)>,
}

impl Total {
    pub fn add(&mut self, piece: &Piece) {
        self.loss += piece.loss;
        self.count += piece.count;
        for (name, value) in &piece.metrics {
            match self.metrics.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += value,
                None => self.metrics.push((name.clone(), *value)),
            }
        }
    }

    pub fn means(&self) -> Means {
        let n = self.count as f64;
        Means { loss: self.loss / n, metrics: self.metrics.iter().map(|(name, sum)| (name.clone(), sum / n)).collect() }
    }
}
