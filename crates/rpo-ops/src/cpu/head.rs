//! Log-probabilities of labels under the head. Logits never exceed a fixed budget: they are kept for the gradients if all fit
//! into it, else they exist for a chunk of tokens at a time and are computed again.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::memory::{Matrix, Store, dense, multiply, product, rows_columns, tensor};
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

/// What the gradients need beside inputs.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    /// The logarithm of each softmax's denominator.
    denominators: Vec<f32>,
    /// `softmax(logits)`, `(tokens, vocabulary)`, if they fit into the budget.
    probabilities: Option<FlexTensor>,
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

/// `log softmax(hidden weight^T)[label]` by token; probabilities are kept only if `keep`.
pub(super) fn forward(hidden: FlexTensor, weight: FlexTensor, labels: &[u32], keep: bool) -> (FlexTensor, Saved) {
    forward_within(hidden, weight, labels, keep, BUDGET)
}

fn forward_within(
    hidden: FlexTensor,
    weight: FlexTensor,
    labels: &[u32],
    keep: bool,
    budget: Budget,
) -> (FlexTensor, Saved) {
    let (hidden, weight) = (dense(hidden), dense(weight));
    let ((n, features), (vocabulary, _)) = (rows_columns(&hidden), rows_columns(&weight));
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
    (tensor(log_probs, [n]), Saved { denominators, probabilities })
}

/// Gradients of `hidden` and `weight`.
pub(super) fn backward(
    hidden: FlexTensor,
    weight: FlexTensor,
    labels: &[u32],
    saved: Saved,
    gradient: FlexTensor,
) -> [FlexTensor; 2] {
    backward_within(hidden, weight, labels, saved, gradient, BUDGET)
}

fn backward_within(
    hidden: FlexTensor,
    weight: FlexTensor,
    labels: &[u32],
    saved: Saved,
    gradient: FlexTensor,
    budget: Budget,
) -> [FlexTensor; 2] {
    let (hidden, weight, gradient) = (dense(hidden), dense(weight), dense(gradient));
    let ((n, features), (vocabulary, _)) = (rows_columns(&hidden), rows_columns(&weight));
    let (hs, head): (&[f32], _) = (hidden.storage(), Matrix::new(weight.storage(), vocabulary, features, features));
    let gs: &[f32] = gradient.storage();
    let Saved { denominators, mut probabilities } = saved;
    let kept = probabilities.is_some();
    let size = if kept { n } else { budget.tokens(vocabulary) };
    let mut of_hidden = vec![0f32; n * features];
    let mut of_weight = Vec::new();
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
        if first == 0 {
            of_weight = product(changes.t(), hidden);
        } else {
            multiply(changes.t(), hidden, &mut of_weight, features, Store::Add);
        }
    }
    [tensor(of_hidden, [n, features]), tensor(of_weight, [vocabulary, features])]
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
            let (log_probs, saved) = forward_within(hidden(), weight(), &labels, keep, budget);
            assert_eq!(saved.probabilities.is_some(), keep && 2 * chunk >= 77);
            let [h, w] = backward_within(hidden(), weight(), &labels, saved, gradient(), budget);
            [log_probs, h, w].map(|t| t.storage::<f32>().to_vec())
        };
        let whole = run(1000, false);
        for (chunk, keep) in [(1000, true), (50, true), (22, true), (22, false), (1, false)] {
            for (a, b) in run(chunk, keep).iter().zip(&whole) {
                assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6), "chunk {chunk}, keep {keep}");
            }
        }
    }
}
