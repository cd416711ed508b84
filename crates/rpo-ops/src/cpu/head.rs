//! Log-probabilities of labels under the head. Logits exist for a part of the vocabulary at a time, which caches hold up to some thousand
//! tokens, while the denominators of the softmaxes add up; their exponentials are kept for the gradients if all fit into a fixed budget,
//! else the logits are computed again.

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
    softmaxes: Vec<Softmax>,
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

    /// The parts of the vocabulary: the same for every number of tokens that fits, else in whole blocks of products.
    fn parts(self, n: usize, vocabulary: usize) -> impl Iterator<Item = Range<usize>> {
        let fits = (self.logits / n.max(1)).clamp(1, self.part);
        let size = if fits > 32 { fits / 32 * 32 } else { fits };
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
#[derive(Clone, Copy, Debug)]
struct Softmax {
    largest: f32,
    /// Of `exp(logit - largest)`.
    sum: f32,
    /// That of the label, once its part was there.
    logit: f32,
}

impl Softmax {
    const NOTHING: Self = Self { largest: f32::NEG_INFINITY, sum: 0.0, logit: f32::NAN };

    /// Adds a part: makes of its logits their exponentials and returns the largest.
    fn add(&mut self, logits: &mut [f32]) -> f32 {
        // Their largest would be taken from itself, which gives no number.
        if logits.iter().all(|logit| *logit == f32::NEG_INFINITY) {
            logits.fill(0.0);
            return f32::NEG_INFINITY;
        }
        let (largest, sum) = vectorised(
            #[inline(always)]
            || exponentiate(logits),
        );
        let both = if largest > self.largest { largest } else { self.largest };
        self.sum = self.sum * exp(self.largest - both) + sum * exp(largest - both);
        self.largest = both;
        largest
    }

    /// That of the label. Not from a denominator, which is rounded where logits are large.
    fn log_prob(&self) -> f32 {
        self.logit - self.largest - self.sum.ln()
    }
}

impl<'a> Head<'a> {
    /// The hidden states `(tokens, features)` and the matrix `(vocabulary, features)`.
    fn matrices(&self) -> [Matrix<'a>; 2] {
        let [hidden, weight] = [self.hidden, self.weight].map(|x| {
            let (rows, features) = rows_columns(x);
            Matrix::of(values(x), rows, features, features)
        });
        [hidden, weight.dithered()]
    }

    /// Exponentials are kept only if `keep`.
    fn forward(&self, keep: bool) -> (FlexTensor, Kept) {
        let Self { labels, budget, compute, .. } = *self;
        let [hidden, weight] = self.matrices();
        let (n, vocabulary) = (hidden.rows(), weight.rows());
        let mut softmaxes = vec![Softmax::NOTHING; n];
        let mut parts = (keep && budget.keeps(n, vocabulary)).then(Vec::new);
        for part in budget.parts(n, vocabulary) {
            let mut logits = f32::product(hidden, weight.some(part.clone()).t(), compute);
            let mut largest = vec![0f32; n];
            let of_rows = labels.par_iter().zip(&mut softmaxes).zip(&mut largest);
            logits.par_chunks_exact_mut(part.len()).zip(of_rows).for_each(|(row, ((label, softmax), largest))| {
                let label = *label as usize;
                if part.contains(&label) {
                    softmax.logit = row[label - part.start];
                }
                *largest = softmax.add(row);
            });
            if let Some(parts) = &mut parts {
                let values = tensor(logits, [n, part.len()]);
                let values = match compute {
                    Compute::F32 => values,
                    Compute::Bf16 => converted::<bf16>(values),
                };
                parts.push(Exponentials { values, largest });
            }
        }
        (tensor(softmaxes.iter().map(Softmax::log_prob).collect(), [n]), Kept { softmaxes, parts })
    }

    /// Gradients of `hidden` and, if it is `wanted`, `weight`.
    fn backward(&self, kept: Kept, gradient: &FlexTensor, wanted: bool) -> (FlexTensor, Option<FlexTensor>) {
        let Self { labels, budget, compute, .. } = *self;
        let [hidden, weight] = self.matrices();
        let (n, vocabulary, features) = (hidden.rows(), weight.rows(), hidden.columns());
        let Kept { softmaxes, parts } = kept;
        let of_labels = OfLabels { labels, softmaxes: &softmaxes, gradient: gradient.storage() };
        let mut parts = parts.map(Vec::into_iter);
        let mut of_hidden = vec![0f32; n * features];
        let mut of_weight = Vec::with_capacity(if wanted { vocabulary * features } else { 0 });
        for part in budget.parts(n, vocabulary) {
            let weight = weight.some(part.clone());
            let changes = match parts.as_mut().and_then(Iterator::next) {
                None => {
                    let mut logits = f32::product(hidden, weight.t(), compute);
                    let scales: Vec<f32> = softmaxes.iter().map(|s| 1.0 / s.sum).collect();
                    of_labels.changes(&mut logits, &part, &scales, |logit, largest| exp(logit - largest));
                    tensor(logits, [n, part.len()])
                }
                Some(Exponentials { mut values, largest }) => {
                    let scale = |(s, largest): (&Softmax, &f32)| exp(largest - s.largest) / s.sum;
                    let scales: Vec<f32> = softmaxes.iter().zip(&largest).map(scale).collect();
                    match compute {
                        Compute::F32 => of_labels.changes::<f32>(values.storage_mut(), &part, &scales, |e, _| e),
                        Compute::Bf16 => of_labels.changes::<bf16>(values.storage_mut(), &part, &scales, |e, _| e),
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
    softmaxes: &'a [Softmax],
    gradient: &'a [f32],
}

impl OfLabels<'_> {
    /// Makes of each token's logits in a part of the vocabulary, or of what is kept of them, the gradient `g (onehot(label) - p)`: `p` is what
    /// `exponential` makes of a value and the token's largest logit, times its scale.
    fn changes<T: Value>(
        &self,
        values: &mut [T],
        part: &Range<usize>,
        scales: &[f32],
        exponential: impl Fn(f32, f32) -> f32 + Sync,
    ) {
        let of_rows = self.labels.par_iter().zip(self.softmaxes).zip(self.gradient.par_iter().zip(scales));
        values.par_chunks_exact_mut(part.len()).zip(of_rows).for_each(|(row, ((label, softmax), (&g, &scale)))| {
            let largest = softmax.largest;
            vectorised(
                #[inline(always)]
                || {
                    for value in row.iter_mut() {
                        *value = T::narrow(-g * (exponential(value.widen(), largest) * scale));
                    }
                },
            );
            let label = *label as usize;
            if part.contains(&label) {
                // Not from `p`, which may be rounded to 1.
                row[label - part.start] = T::narrow(-g * softmax.log_prob().exp_m1());
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

    /// Logits from -40 to 40, so that parts differ in their largest ones by much.
    #[test]
    fn parts_in_bfloat16_are_near_the_whole_in_f32() {
        let (n, features, vocabulary) = (70, 64, 300);
        let values = |n: usize, k: usize| -> Vec<f32> { (0..n).map(|i| ((i * k) % 31) as f32 / 8.0 - 1.9).collect() };
        let hidden = &tensor(values(n * features, 7), [n, features]);
        let weight = &tensor(values(vocabulary * features, 11), [vocabulary, features]);
        let labels: Vec<u32> = (0..n).map(|i| (i * 37 % vocabulary) as u32).collect();
        let gradient = tensor(values(n, 5), [n]);
        let run = |part, compute, keep| {
            let budget = Budget { part, logits: 1 << 20, kept: 1 << 20 };
            let head = Head { hidden, weight, labels: &labels, budget, compute };
            let (log_probs, kept) = head.forward(keep);
            let (h, w) = head.backward(kept, &gradient, true);
            [log_probs, h, w.expect("wanted")].map(|t| t.storage::<f32>().to_vec())
        };
        let whole = run(vocabulary, Compute::F32, false);
        for (compute, most) in [(Compute::F32, 1e-4), (Compute::Bf16, 0.03)] {
            for (part, keep) in [(96, true), (96, false), (64, true), (300, true)] {
                for (which, (a, b)) in run(part, compute, keep).iter().zip(&whole).enumerate() {
                    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                    let apart = norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied());
                    assert!(apart < most, "{compute:?}, parts of {part}, keep {keep}, {which}: {apart}");
                }
            }
        }
    }

    #[test]
    fn parts_without_a_finite_logit_count_nothing_and_what_is_no_number_stays_none() {
        let softmax = |parts: &[&[f32]]| {
            let mut softmax = Softmax::NOTHING;
            parts.iter().for_each(|part| _ = softmax.add(&mut part.to_vec()));
            Softmax { logit: 1.0, ..softmax }.log_prob()
        };
        let none = f32::NEG_INFINITY;
        let want = softmax(&[&[1.0, 2.0]]);
        assert!((want + (1.0 + 1f32.exp()).ln()).abs() < 1e-6);
        for parts in [[[none, none], [1.0, 2.0]], [[1.0, 2.0], [none, none]]] {
            assert_eq!(softmax(&parts.each_ref().map(<[f32; 2]>::as_slice)), want);
        }
        for odd in [[f32::NAN, 1.0], [f32::NAN, f32::NAN], [f32::INFINITY, 1.0]] {
            for parts in [[odd, [1.0, 2.0]], [[1.0, 2.0], odd]] {
                assert!(softmax(&parts.each_ref().map(<[f32; 2]>::as_slice)).is_nan(), "{parts:?}");
            }
        }
    }
}
