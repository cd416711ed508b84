//! Attention, one segment and head at a time: scores exist for one pair of them only, and are computed again for the
//! gradients (as in FlashAttention, arXiv 2205.14135, without its tiles, which a CPU's cache does not need).

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::memory::{Matrix, Store, multiply, parts, rows_columns, tensor};
use super::simd::{exp, exponentiate, sum, vectorised};
use crate::Segments;
use crate::attention::{MASKED, relative_position_bucket};

/// Who attends to whom.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) heads: usize,
    /// Whether keys and values come from a memory, not from the tokens themselves.
    pub(crate) memory: bool,
    pub(crate) queries: Segments,
    pub(crate) keys: Segments,
    /// What the table of the position bias means; `None` without a bias.
    pub(crate) position: Option<Position>,
}

/// How positions become rows of the table of biases.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    pub(crate) buckets: usize,
    pub(crate) max_distance: usize,
    pub(crate) causal: bool,
}

/// The bias of every distance: distance `key - query` stands at `key - query + longest query - 1`.
struct Bias {
    /// Bucket by place.
    buckets: Vec<usize>,
    /// `(heads, places)`.
    values: Vec<f32>,
    /// Place of distance 0.
    zero: usize,
    causal: bool,
}

impl Bias {
    fn new(plan: &Plan, table: &[f32]) -> Option<Self> {
        let position = plan.position?;
        let zero = plan.queries.max_len().saturating_sub(1);
        let bucket = |place: usize| {
            let distance = place as i64 - zero as i64;
            relative_position_bucket(distance, !position.causal, position.buckets, position.max_distance)
        };
        let buckets: Vec<usize> = (0..zero + plan.keys.max_len()).map(bucket).collect();
        let values = (0..plan.heads).flat_map(|h| buckets.iter().map(move |b| table[b * plan.heads + h])).collect();
        Some(Self { buckets, values, zero, causal: position.causal })
    }

    /// The biases of query `i` and all keys.
    fn row(&self, head: usize, i: usize, keys: usize) -> &[f32] {
        &self.values[head * self.buckets.len() + self.zero - i..][..keys]
    }
}

/// A head's columns of a segment's rows.
fn columns<'a>(
    values: &'a [f32],
    range: &std::ops::Range<usize>,
    head: usize,
    width: usize,
    inner: usize,
) -> Matrix<'a> {
    Matrix::new(&values[range.start * inner + head * width..range.end * inner], range.len(), width, inner)
}

/// Adds the bias and hides the future; `scores` is `(queries, keys)`.
#[inline(always)]
fn add_bias(scores: &mut [f32], keys: usize, head: usize, bias: &Bias) {
    for (i, row) in scores.chunks_exact_mut(keys).enumerate() {
        row.iter_mut().zip(bias.row(head, i, keys)).for_each(|(s, b)| *s += b);
        if bias.causal && i + 1 < keys {
            row[i + 1..].fill(MASKED);
        }
    }
}

/// `softmax(q k^T + bias) v`, and the logarithm of each softmax's denominator, `(query tokens, heads)`. All are dense.
pub(super) fn forward(
    q: &FlexTensor,
    k: &FlexTensor,
    v: &FlexTensor,
    table: &FlexTensor,
    plan: &Plan,
) -> (FlexTensor, FlexTensor) {
    let (n, inner) = rows_columns(q);
    let (heads, width) = (plan.heads, inner / plan.heads);
    let bias = Bias::new(plan, table.storage());
    let (qs, ks, vs): (&[f32], &[f32], &[f32]) = (q.storage(), k.storage(), v.storage());
    let mut mixed = vec![0f32; n * inner];
    let mut denominators = vec![0f32; n * heads];
    let outputs = parts(&mut mixed, plan.queries.lengths(), inner);
    let rest = parts(&mut denominators, plan.queries.lengths(), heads);
    outputs.into_par_iter().zip(rest).enumerate().for_each(|(segment, (output, denominators))| {
        let (queries, keys) = (plan.queries.range(segment), plan.keys.range(segment));
        let mut scores = vec![0f32; queries.len() * keys.len()];
        for head in 0..heads {
            let (q, k) = (columns(qs, &queries, head, width, inner), columns(ks, &keys, head, width, inner));
            multiply(q, k.t(), &mut scores, keys.len(), Store::Replace);
            vectorised(
                #[inline(always)]
                || {
                    if let Some(bias) = &bias {
                        add_bias(&mut scores, keys.len(), head, bias);
                    }
                    for (i, row) in scores.chunks_exact_mut(keys.len()).enumerate() {
                        let (largest, total) = exponentiate(row);
                        denominators[i * heads + head] = largest + total.ln();
                        let scale = 1.0 / total;
                        row.iter_mut().for_each(|s| *s *= scale);
                    }
                },
            );
            let weights = Matrix::new(&scores, queries.len(), keys.len(), keys.len());
            multiply(
                weights,
                columns(vs, &keys, head, width, inner),
                &mut output[head * width..],
                inner,
                Store::Replace,
            );
        }
    });
    (tensor(mixed, [n, inner]), tensor(denominators, [n, heads]))
}

/// Gradients of `q`, `k`, `v` and the table; beside `q`, `k` and `v` it gets the two results of [`forward`].
pub(super) fn backward(
    [q, k, v, mixed, denominators]: &[FlexTensor; 5],
    table: &FlexTensor,
    gradient: &FlexTensor,
    plan: &Plan,
) -> [FlexTensor; 4] {
    let ((n, inner), (keys_n, _)) = (rows_columns(q), rows_columns(k));
    let (heads, width) = (plan.heads, inner / plan.heads);
    let bias = Bias::new(plan, table.storage());
    let (qs, ks, vs): (&[f32], &[f32], &[f32]) = (q.storage(), k.storage(), v.storage());
    let (os, gs, ds): (&[f32], &[f32], &[f32]) = (mixed.storage(), gradient.storage(), denominators.storage());
    let mut of_q = vec![0f32; n * inner];
    let mut of_k = vec![0f32; keys_n * inner];
    let mut of_v = vec![0f32; keys_n * inner];
    let outputs = parts(&mut of_q, plan.queries.lengths(), inner)
        .into_par_iter()
        .zip(parts(&mut of_k, plan.keys.lengths(), inner))
        .zip(parts(&mut of_v, plan.keys.lengths(), inner));
    let of_distances: Vec<Vec<f32>> = outputs
        .enumerate()
        .map(|(segment, ((of_q, of_k), of_v))| {
            let (queries, keys) = (plan.queries.range(segment), plan.keys.range(segment));
            let size = queries.len() * keys.len();
            let (mut weights, mut changes) = (vec![0f32; size], vec![0f32; size]);
            let places = bias.as_ref().map_or(0, |b| b.buckets.len());
            let mut of_distances = vec![0f32; heads * places];
            for head in 0..heads {
                let (q, k) = (columns(qs, &queries, head, width, inner), columns(ks, &keys, head, width, inner));
                let (g, v) = (columns(gs, &queries, head, width, inner), columns(vs, &keys, head, width, inner));
                multiply(q, k.t(), &mut weights, keys.len(), Store::Replace);
                multiply(g, v.t(), &mut changes, keys.len(), Store::Replace);
                vectorised(
                    #[inline(always)]
                    || {
                        if let Some(bias) = &bias {
                            add_bias(&mut weights, keys.len(), head, bias);
                        }
                        let rows = weights.chunks_exact_mut(keys.len()).zip(changes.chunks_exact_mut(keys.len()));
                        for (i, (row, changes)) in rows.enumerate() {
                            let at = (queries.start + i) * inner + head * width;
                            let (o, g) = (&os[at..at + width], &gs[at..at + width]);
                            let mean = sum(width, |j| o[j] * g[j]);
                            let denominator = ds[(queries.start + i) * heads + head];
                            for (weight, change) in row.iter_mut().zip(changes) {
                                *weight = exp(*weight - denominator);
                                *change = *weight * (*change - mean);
                            }
                        }
                        if let Some(bias) = &bias {
                            for (i, row) in changes.chunks_exact(keys.len()).enumerate() {
                                let sums = &mut of_distances[head * places + bias.zero - i..][..keys.len()];
                                sums.iter_mut().zip(row).for_each(|(s, c)| *s += c);
                            }
                        }
                    },
                );
                let weights = Matrix::new(&weights, queries.len(), keys.len(), keys.len());
                let changes = Matrix::new(&changes, queries.len(), keys.len(), keys.len());
                multiply(changes, k, &mut of_q[head * width..], inner, Store::Replace);
                multiply(changes.t(), q, &mut of_k[head * width..], inner, Store::Replace);
                multiply(weights.t(), g, &mut of_v[head * width..], inner, Store::Replace);
            }
            of_distances
        })
        .collect();
    let (buckets, table_heads) = rows_columns(table);
    let mut of_table = vec![0f32; buckets * table_heads];
    if let Some(bias) = &bias {
        for of_distances in &of_distances {
            for (head, sums) in of_distances.chunks_exact(bias.buckets.len()).enumerate() {
                sums.iter().zip(&bias.buckets).for_each(|(sum, bucket)| of_table[bucket * heads + head] += sum);
            }
        }
    }
    [
        tensor(of_q, [n, inner]),
        tensor(of_k, [keys_n, inner]),
        tensor(of_v, [keys_n, inner]),
        tensor(of_table, [buckets, table_heads]),
    ]
}
