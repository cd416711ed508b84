//! Log-probabilities of labels under the head. Logits never exceed a fixed budget: they are kept for the gradients if all fit
//! into it, else they exist for a chunk of tokens at a time and are computed again.

use burn_flex::FlexTensor;
use half::bf16;
use rayon::prelude::*;

use super::memory::{Matrix, Store, Value, converted, multiply, rows_columns, tensor, values};
use super::node::{OfInputs, Operation};
use super::simd::{exp, exponentiate, vectorised};
use crate::parameters::Compute;

/// Values of logits that exist at a time, and how many may be kept. A product with fewer tokens costs more time for each;
/// what is kept covers the tokens of a default micro-batch.
#[derive(Clone, Copy)]
struct Budget {
    chunk: usize,
    kept: usize,
}

/// 128 MiB and 512 MiB.
const BUDGET: Budget = Budget { chunk: 32 << 20, kept: 128 << 20 };

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
    /// `softmax(logits)`, `(tokens, vocabulary)`, if they fit into the budget.
    probabilities: Option<FlexTensor>,
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
    /// Whether the logits of all `n` tokens may be kept.
    fn keeps(self, n: usize, vocabulary: usize) -> bool {
        n * vocabulary <= self.kept
    }

    /// Tokens of a chunk.
    fn tokens(self, vocabulary: usize) -> usize {
        (self.chunk / vocabulary).max(1)
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

impl Head<'_> {
    /// Probabilities are kept only if `keep`.
    fn forward(&self, keep: bool) -> (FlexTensor, Kept) {
        let Self { hidden, weight, labels, budget, compute } = *self;
        let ((n, features), (vocabulary, _)) = (rows_columns(hidden), rows_columns(weight));
        let (hs, head): (&[f32], _) = (hidden.storage(), Matrix::of(values(weight), vocabulary, features, features));
        let keep = keep && budget.keeps(n, vocabulary);
        let size = if keep { n } else { budget.tokens(vocabulary) };
        let mut log_probs = vec![0f32; n];
        let mut denominators = vec![0f32; n];
        let mut probabilities = None;
        for first in (0..n).step_by(size) {
            let rows = size.min(n - first);
            let hidden = Matrix::new(&hs[first * features..], rows, features, features);
            let mut logits = f32::product(hidden, head.t(), compute);
            logits
                .par_chunks_exact_mut(vocabulary)
                .zip(&labels[first..first + rows])
                .zip(&mut log_probs[first..first + rows])
                .zip(&mut denominators[first..first + rows])
                .for_each(|(((row, &label), log_prob), denominator)| {
                    let logit = row[label as usize];
                    let (largest, total) = vectorised(
                        #[inline(always)]
                        || exponentiate(row),
                    );
                    *denominator = largest + total.ln();
                    *log_prob = logit - *denominator;
                    if keep {
                        let scale = 1.0 / total;
                        vectorised(
                            #[inline(always)]
                            || row.iter_mut().for_each(|p| *p *= scale),
                        );
                    }
                });
            if keep {
                let values = tensor(logits, [rows, vocabulary]);
                probabilities = Some(match compute {
                    Compute::F32 => values,
                    Compute::Bf16 => converted::<bf16>(values),
                });
            }
        }
        (tensor(log_probs.clone(), [n]), Kept { denominators, log_probs, probabilities })
    }

    /// Gradients of `hidden` and, if it is `wanted`, `weight`.
    fn backward(&self, kept: Kept, gradient: &FlexTensor, wanted: bool) -> (FlexTensor, Option<FlexTensor>) {
        let Self { hidden, weight, labels, budget, compute } = *self;
        let ((n, features), (vocabulary, _)) = (rows_columns(hidden), rows_columns(weight));
        let (hs, head): (&[f32], _) = (hidden.storage(), Matrix::of(values(weight), vocabulary, features, features));
        let gs: &[f32] = gradient.storage();
        let Kept { denominators, log_probs, mut probabilities } = kept;
        let size = if probabilities.is_some() { n } else { budget.tokens(vocabulary) };
        let mut of_hidden = vec![0f32; n * features];
        let mut of_weight: Option<Vec<f32>> = None;
        for first in (0..n).step_by(size) {
            let rows = first..n.min(first + size);
            let hidden = Matrix::new(&hs[first * features..], rows.len(), features, features);
            let of_labels = OfLabels {
                labels: &labels[rows.clone()],
                log_probs: &log_probs[rows.clone()],
                denominators: &denominators[rows.clone()],
                gradient: &gs[rows.clone()],
            };
            let changes = match probabilities.take() {
                None => {
                    let mut logits = f32::product(hidden, head.t(), compute);
                    of_labels.changes(&mut logits, |logit, denominator| exp(logit - denominator));
                    tensor(logits, [rows.len(), vocabulary])
                }
                Some(mut kept) => {
                    match compute {
                        Compute::F32 => of_labels.changes::<f32>(kept.storage_mut(), |p, _| p),
                        Compute::Bf16 => of_labels.changes::<bf16>(kept.storage_mut(), |p, _| p),
                    }
                    kept
                }
            };
            let changes = Matrix::of(values(&changes), rows.len(), vocabulary, vocabulary);
            multiply(changes, head, &mut of_hidden[first * features..], features, Store::Replace, compute);
            match &mut of_weight {
                _ if !wanted => {}
                None => of_weight = Some(f32::product(changes.t(), hidden, compute)),
                Some(of_weight) => multiply(changes.t(), hidden, of_weight, features, Store::Add, compute),
            }
        }
        (tensor(of_hidden, [n, features]), of_weight.map(|values| tensor(values, [vocabulary, features])))
    }
}

/// What the gradients of some tokens' logits need.
struct OfLabels<'a> {
    labels: &'a [u32],
    log_probs: &'a [f32],
    denominators: &'a [f32],
    gradient: &'a [f32],
}

impl OfLabels<'_> {
    /// Makes of each row of logits, or of what is kept of them, the gradient `g (onehot(label) - p)`; `p` makes a probability of
    /// a value and the row's denominator.
    fn changes<T: Value>(&self, values: &mut [T], p: impl Fn(f32, f32) -> f32 + Sync) {
        let vocabulary = values.len() / self.labels.len();
        let of_rows = self.labels.par_iter().zip(self.log_probs).zip(self.denominators.par_iter().zip(self.gradient));
        values.par_chunks_exact_mut(vocabulary).zip(of_rows).for_each(
            |(row, ((&label, &log_prob), (&denominator, &g)))| {
                vectorised(
                    #[inline(always)]
                    || row.iter_mut().for_each(|value| *value = T::narrow(-g * p(value.widen(), denominator))),
                );
                // Not from `p`, which may be rounded to 1.
                row[label as usize] = T::narrow(-g * log_prob.exp_m1());
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_and_kept_probabilities_give_the_same() {
        let values = |n: usize, k: usize| -> Vec<f32> { (0..n).map(|i| ((i * k) % 13) as f32 / 13.0 - 0.5).collect() };
        let hidden = || tensor(values(7 * 5, 3), [7, 5]);
        let weight = || tensor(values(11 * 5, 7), [11, 5]);
        let gradient = || tensor(values(7, 5), [7]);
        let labels = [0, 10, 3, 3, 7, 1, 2];
        let run = |chunk, keep| {
            let budget = Budget { chunk, kept: 2 * chunk };
            let (hidden, weight) = (&hidden(), &weight());
            let head = Head { hidden, weight, labels: &labels, budget, compute: Compute::F32 };
            let (log_probs, kept) = head.forward(keep);
            assert_eq!(kept.probabilities.is_some(), keep && 2 * chunk >= 77);
            let (h, w) = head.backward(kept, &gradient(), true);
            [log_probs, h, w.expect("wanted")].map(|t| t.storage::<f32>().to_vec())
        };
        let whole = run(1000, false);
        for (chunk, keep) in [(1000, true), (50, true), (22, true), (22, false), (1, false)] {
            for (a, b) in run(chunk, keep).iter().zip(&whole) {
                assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6), "chunk {chunk}, keep {keep}");
            }
        }
    }
}
