//! Log-probabilities of labels under the head. Logits exist for a part of the vocabulary at a time, which the processor's caches hold, while
//! the denominators of the softmaxes add up; their exponentials are kept for the gradients if all fit into a fixed budget, else the logits
//! are computed again.

use std::ops::Range;

use burn_flex::FlexTensor;
use half::bf16;
use rayon::prelude::*;

use super::memory::{Matrix, Store, Value, append_product, converted, multiply, rows_columns, tensor, values};
use super::node::{OfInputs, Operation};
use super::simd::{exp, exponentiate, vectorised};
use crate::parameters::Compute;

#[derive(Clone, Copy)]
struct Budget {
    /// Most tokens of the vocabulary in a part, and most values of logits that exist at a time where parts can be smaller.
    part: usize,
    logits: usize,
    /// Values that may be kept: those of a default micro-batch fit.
    kept: usize,
}

/// 2,048 tokens of the vocabulary, or 128 MiB; 512 MiB in f32, half of it in bfloat16.
const BUDGET: Budget = Budget { part: 2048, logits: 32 << 20, kept: 128 << 20 };

/// The head and the labels.
#[derive(Debug)]
pub(super) struct LabelLogProbs {
    pub(super) hidden: usize,
    pub(super) weight: usize,
    pub(super) labels: Vec<u32>,
    pub(super) keep_logits: bool,
    pub(super) compute: Compute,
}

/// What the gradients need beside inputs.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// The logarithm of each softmax's denominator.
    denominators: Vec<f32>,
    /// That of each label.
    log_probs: Vec<f32>,
    /// One for each part of the vocabulary, if they fit into the budget.
    parts: Option<Vec<Exponentials>>,
}

/// `exp(logits - largest)` of a part of the vocabulary, `(tokens, part)`, and the largest of each token there.
#[derive(Clone, Debug)]
struct Exponentials {
    values: FlexTensor,
    largest: Vec<f32>,
}

impl Operation for LabelLogProbs {
    type Kept = Kept;

    /// `log softmax(hidden weight^T)[label]` by token.
    fn forward(&self, inputs: &[FlexTensor], tracked: bool) -> (FlexTensor, Kept) {
        let Self { hidden, weight, labels, keep_logits, compute } = self;
        let (hidden, weight) = (&inputs[*hidden], &inputs[*weight]);
        Head { hidden, weight, labels, budget: BUDGET, compute: *compute }.forward(tracked && *keep_logits)
    }

    fn backward(&self, of: &mut OfInputs<'_>, kept: Kept, gradient: FlexTensor) {
        let Self { hidden, weight, labels, compute, .. } = self;
        let head = Head {
            hidden: &of.inputs[*hidden],
            weight: &of.inputs[*weight],
            labels,
            budget: BUDGET,
            compute: *compute,
        };
        let (of_hidden, of_weight) = head.backward(kept, &gradient, of.wants(*weight));
        of.put(*hidden, of_hidden);
        if let Some(of_weight) = of_weight {
            of.put(*weight, of_weight);
        }
    }
}

impl Budget {
    /// Whether something may be kept of the logits of all `n` tokens.
    fn keeps(self, n: usize, vocabulary: usize) -> bool {
        n * vocabulary <= self.kept
    }

    /// The parts of the vocabulary. They are the same for every number of tokens that fits, and with them every bit of the results.
    fn parts(self, n: usize, vocabulary: usize) -> impl Iterator<Item = Range<usize>> {
        let size = (self.logits / n.max(1)).clamp(1, self.part);
        (0..vocabulary).step_by(size).map(move |first| first..(first + size).min(vocabulary))
    }
}

/// What is known of a head and the tokens that it predicts.
struct Head<'a> {
    hidden: &'a FlexTensor,
    weight: &'a FlexTensor,
    labels: &'a [u32],
    budget: Budget,
    compute: Compute,
}

/// What is known of a token's softmax after some parts of the vocabulary.
#[derive(Clone, Copy)]
struct Sofar {
    largest: f32,
    /// Of `exp(logit - largest)`.
    sum: f32,
    /// That of the label, if it was there.
    logit: f32,
}

impl Sofar {
    /// With a part whose largest logit and sum these are.
    fn with(&mut self, largest: f32, sum: f32) {
        // Two numbers that are none, or infinite, leave a sum that is none.
        let both = if largest > self.largest { largest } else { self.largest };
        self.sum = self.sum * exp(self.largest - both) + sum * exp(largest - both);
        self.largest = both;
    }
}

impl<'a> Head<'a> {
    /// The hidden states `(tokens, features)` and the matrix `(vocabulary, features)`.
    fn matrices(&self) -> [Matrix<'a>; 2] {
        [self.hidden, self.weight].map(|x| {
            let (rows, features) = rows_columns(x);
            Matrix::of(values(x), rows, features, features)
        })
    }

    /// Exponentials are kept only if `keep`.
    fn forward(&self, keep: bool) -> (FlexTensor, Kept) {
        let Self { labels, budget, compute, .. } = *self;
        let [hidden, weight] = self.matrices();
        let (n, vocabulary) = (hidden.rows(), weight.rows());
        let mut sofar = vec![Sofar { largest: f32::NEG_INFINITY, sum: 0.0, logit: f32::NAN }; n];
        let mut parts = (keep && budget.keeps(n, vocabulary)).then(Vec::new);
        for part in budget.parts(n, vocabulary) {
            let mut logits = f32::product(hidden, weight.some(part.clone()).t(), compute);
            let mut largest = vec![0f32; n];
            logits.par_chunks_exact_mut(part.len()).zip(labels).zip(&mut sofar).zip(&mut largest).for_each(
                |(((row, label), sofar), largest)| {
                    let label = *label as usize;
                    if part.contains(&label) {
                        sofar.logit = row[label - part.start];
                    }
                    let (most, sum) = vectorised(
                        #[inline(always)]
                        || exponentiate(row),
                    );
                    sofar.with(most, sum);
                    *largest = most;
                },
            );
            if let Some(parts) = &mut parts {
                let values = tensor(logits, [n, part.len()]);
                let values = match compute {
                    Compute::F32 => values,
                    Compute::Bf16 => converted::<bf16>(values),
                };
                parts.push(Exponentials { values, largest });
            }
        }
        let denominators: Vec<f32> = sofar.iter().map(|s| s.largest + s.sum.ln()).collect();
        let log_probs: Vec<f32> = sofar.iter().zip(&denominators).map(|(s, d)| s.logit - d).collect();
        (tensor(log_probs.clone(), [n]), Kept { denominators, log_probs, parts })
    }

    /// Gradients of `hidden` and, if it is `wanted`, `weight`.
    fn backward(&self, kept: Kept, gradient: &FlexTensor, wanted: bool) -> (FlexTensor, Option<FlexTensor>) {
        let Self { labels, budget, compute, .. } = *self;
        let [hidden, weight] = self.matrices();
        let (n, vocabulary, features) = (hidden.rows(), weight.rows(), hidden.columns());
        let Kept { denominators, log_probs, parts } = kept;
        let of_labels = OfLabels { labels, log_probs: &log_probs, gradient: gradient.storage() };
        let mut parts = parts.map(Vec::into_iter);
        let mut of_hidden = vec![0f32; n * features];
        let mut of_weight = Vec::with_capacity(if wanted { vocabulary * features } else { 0 });
        for part in budget.parts(n, vocabulary) {
            let weight = weight.some(part.clone());
            let changes = match parts.as_mut().and_then(Iterator::next) {
                None => {
                    let mut logits = f32::product(hidden, weight.t(), compute);
                    of_labels.changes(&mut logits, &part, &denominators, |logit, denominator| exp(logit - denominator));
                    tensor(logits, [n, part.len()])
                }
                Some(Exponentials { mut values, largest }) => {
                    let scales: Vec<f32> = largest.iter().zip(&denominators).map(|(l, d)| exp(l - d)).collect();
                    let p = |exponential: f32, scale: f32| exponential * scale;
                    match compute {
                        Compute::F32 => of_labels.changes::<f32>(values.storage_mut(), &part, &scales, p),
                        Compute::Bf16 => of_labels.changes::<bf16>(values.storage_mut(), &part, &scales, p),
                    }
                    values
                }
            };
            let changes = Matrix::of(values(&changes), n, part.len(), part.len());
            let store = if part.start == 0 { Store::Replace } else { Store::Add };
            multiply(changes, weight, &mut of_hidden, features, store, compute);
            if wanted {
                append_product(&mut of_weight, changes.t(), hidden, compute);
            }
        }
        (tensor(of_hidden, [n, features]), wanted.then(|| tensor(of_weight, [vocabulary, features])))
    }
}

/// What the gradients of logits need.
struct OfLabels<'a> {
    labels: &'a [u32],
    log_probs: &'a [f32],
    gradient: &'a [f32],
}

impl OfLabels<'_> {
    /// Makes of each token's logits in a part of the vocabulary, or of what is kept of them, the gradient `g (onehot(label) - p)`; `p` makes
    /// a probability of a value and what belongs `with` the token.
    fn changes<T: Value>(
        &self,
        values: &mut [T],
        part: &Range<usize>,
        with: &[f32],
        p: impl Fn(f32, f32) -> f32 + Sync,
    ) {
        let of_rows = self.labels.par_iter().zip(self.log_probs).zip(self.gradient.par_iter().zip(with));
        values.par_chunks_exact_mut(part.len()).zip(of_rows).for_each(|(row, ((label, &log_prob), (&g, &with)))| {
            vectorised(
                #[inline(always)]
                || row.iter_mut().for_each(|value| *value = T::narrow(-g * p(value.widen(), with))),
            );
            let label = *label as usize;
            if part.contains(&label) {
                // Not from `p`, which may be rounded to 1.
                row[label - part.start] = T::narrow(-g * log_prob.exp_m1());
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_kept_exponentials_give_the_same() {
        let values = |n: usize, k: usize| -> Vec<f32> { (0..n).map(|i| ((i * k) % 13) as f32 / 13.0 - 0.5).collect() };
        let hidden = || tensor(values(7 * 5, 3), [7, 5]);
        let weight = || tensor(values(11 * 5, 7), [11, 5]);
        let gradient = || tensor(values(7, 5), [7]);
        let labels = [0, 10, 3, 3, 7, 1, 2];
        let run = |part, logits, keep| {
            let budget = Budget { part, logits, kept: 77 };
            let (hidden, weight) = (&hidden(), &weight());
            let head = Head { hidden, weight, labels: &labels, budget, compute: Compute::F32 };
            let (log_probs, kept) = head.forward(keep);
            assert_eq!(kept.parts.is_some(), keep);
            let (h, w) = head.backward(kept, &gradient(), true);
            [log_probs, h, w.expect("wanted")].map(|t| t.storage::<f32>().to_vec())
        };
        let whole = run(100, 1000, false);
        for (part, logits, keep) in
            [(100, 1000, true), (4, 1000, true), (4, 1000, false), (100, 21, true), (100, 14, false), (1, 1, true)]
        {
            for (a, b) in run(part, logits, keep).iter().zip(&whole) {
                assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6), "part {part}, {logits}, keep {keep}");
            }
        }
        let head = |kept| Budget { kept, ..BUDGET }.keeps(7, 11);
        assert!(head(77) && !head(76));
    }
}
