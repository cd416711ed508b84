//! Log-probabilities of labels under the head. Logits never exceed a fixed budget: they are kept for the gradients if all fit
//! into it, else they exist for a chunk of tokens at a time and are computed again.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::memory::{Matrix, Store, multiply, product, rows_columns, tensor};
use super::node::{OfInputs, Operation};
use super::simd::{exp, exponentiate, vectorised};

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
}

/// What the gradients need beside inputs.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// The logarithm of each softmax's denominator.
    denominators: Vec<f32>,
    /// `softmax(logits)`, `(tokens, vocabulary)`, if they fit into the budget.
    probabilities: Option<FlexTensor>,
}

impl Operation for LabelLogProbs {
    type Kept = Kept;

    /// `log softmax(hidden weight^T)[label]` by token.
    fn forward(&self, inputs: &[FlexTensor], tracked: bool) -> (FlexTensor, Kept) {
        let Self { hidden, weight, labels, keep_logits } = self;
        forward_within(&inputs[*hidden], &inputs[*weight], labels, tracked && *keep_logits, BUDGET)
    }

    fn backward(&self, of: &mut OfInputs<'_>, kept: Kept, gradient: FlexTensor) {
        let Self { hidden, weight, labels, .. } = self;
        let wanted = of.wants(*weight);
        let [h, w] = [*hidden, *weight].map(|place| &of.inputs[place]);
        let (of_hidden, of_weight) = backward_within(h, w, labels, kept, &gradient, BUDGET, wanted);
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

/// Probabilities are kept only if `keep`.
fn forward_within(
    hidden: &FlexTensor,
    weight: &FlexTensor,
    labels: &[u32],
    keep: bool,
    budget: Budget,
) -> (FlexTensor, Kept) {
    let ((n, features), (vocabulary, _)) = (rows_columns(hidden), rows_columns(weight));
    let (hs, head): (&[f32], _) = (hidden.storage(), Matrix::new(weight.storage(), vocabulary, features, features));
    let keep = keep && budget.keeps(n, vocabulary);
    let size = if keep { n } else { budget.tokens(vocabulary) };
    let mut log_probs = vec![0f32; n];
    let mut denominators = vec![0f32; n];
    let mut probabilities = None;
    for first in (0..n).step_by(size) {
        let rows = size.min(n - first);
        let mut logits = product(Matrix::new(&hs[first * features..], rows, features, features), head.t());
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
            probabilities = Some(tensor(logits, [rows, vocabulary]));
        }
    }
    (tensor(log_probs, [n]), Kept { denominators, probabilities })
}

/// Gradients of `hidden` and, if it is `wanted`, `weight`.
fn backward_within(
    hidden: &FlexTensor,
    weight: &FlexTensor,
    labels: &[u32],
    kept: Kept,
    gradient: &FlexTensor,
    budget: Budget,
    wanted: bool,
) -> (FlexTensor, Option<FlexTensor>) {
    let ((n, features), (vocabulary, _)) = (rows_columns(hidden), rows_columns(weight));
    let (hs, head): (&[f32], _) = (hidden.storage(), Matrix::new(weight.storage(), vocabulary, features, features));
    let gs: &[f32] = gradient.storage();
    let Kept { denominators, mut probabilities } = kept;
    let kept = probabilities.is_some();
    let size = if kept { n } else { budget.tokens(vocabulary) };
    let mut of_hidden = vec![0f32; n * features];
    let mut of_weight: Option<Vec<f32>> = None;
    for first in (0..n).step_by(size) {
        let rows = size.min(n - first);
        let hidden = Matrix::new(&hs[first * features..], rows, features, features);
        let mut changes = probabilities.take().unwrap_or_else(|| tensor(product(hidden, head.t()), [rows, vocabulary]));
        changes
            .storage_mut::<f32>()
            .par_chunks_exact_mut(vocabulary)
            .zip(&labels[first..first + rows])
            .zip(&gs[first..first + rows])
            .zip(&denominators[first..first + rows])
            .for_each(|(((row, &label), &g), &denominator)| {
                vectorised(
                    #[inline(always)]
                    || {
                        if kept {
                            row.iter_mut().for_each(|p| *p *= -g);
                        } else {
                            row.iter_mut().for_each(|l| *l = -g * exp(*l - denominator));
                        }
                    },
                );
                row[label as usize] += g;
            });
        let changes = Matrix::new(changes.storage(), rows, vocabulary, vocabulary);
        multiply(changes, head, &mut of_hidden[first * features..], features, Store::Replace);
        match &mut of_weight {
            _ if !wanted => {}
            None => of_weight = Some(product(changes.t(), hidden)),
            Some(of_weight) => multiply(changes.t(), hidden, of_weight, features, Store::Add),
        }
    }
    (tensor(of_hidden, [n, features]), of_weight.map(|values| tensor(values, [vocabulary, features])))
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
            let (log_probs, kept) = forward_within(&hidden(), &weight(), &labels, keep, budget);
            assert_eq!(kept.probabilities.is_some(), keep && 2 * chunk >= 77);
            let (h, w) = backward_within(&hidden(), &weight(), &labels, kept, &gradient(), budget, true);
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
