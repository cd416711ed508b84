//! Attention, one segment, head and block of queries at a time: scores exist for one such block only (of each thread), and
//! are computed again for the gradients (as in FlashAttention, arXiv 2205.14135, without tiles of keys, which a CPU's cache
//! does not need).

use std::ops::Range;

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::memory::{Matrix, Store, Value, filled, multiply, rows_columns, tensor};
use super::pointwise::task;
use super::simd::{exp, exponentiate, sum, vectorised};
use crate::Segments;
use crate::parameters::Compute;
use crate::plan::{Plan, relative_position_bucket};
use crate::segments::MASKED;

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
    fn new(plan: &Plan, table: Option<&FlexTensor>) -> Option<Self> {
        let (position, table) = (plan.position?, table?.storage::<f32>());
        let zero = plan.queries.max_len().saturating_sub(1);
        let bucket = |place: usize| {
            let distance = place as i64 - zero as i64;
            relative_position_bucket(distance, !position.causal, position.buckets, position.max_distance)
        };
        let buckets: Vec<usize> = (0..zero + plan.keys().max_len()).map(bucket).collect();
        let values = (0..plan.heads).flat_map(|h| buckets.iter().map(move |b| table[b * plan.heads + h])).collect();
        Some(Self { buckets, values, zero, causal: position.causal })
    }

    /// The biases of query `i` and all keys.
    fn row(&self, head: usize, i: usize, keys: usize) -> &[f32] {
        &self.values[head * self.buckets.len() + self.zero - i..][..keys]
    }
}

/// Queries of a block: their scores stay in the cache, and under a causal mask the keys after the block are never touched.
const BLOCK: usize = 128;

/// The blocks of `queries` queries, each with the number of keys that it may see.
fn blocks(queries: usize, keys: usize, bias: Option<&Bias>) -> impl Iterator<Item = (Range<usize>, usize)> {
    let causal = bias.is_some_and(|b| b.causal);
    (0..queries).step_by(BLOCK).map(move |first| {
        let rows = first..(first + BLOCK).min(queries);
        let seen = if causal { rows.end } else { keys };
        (rows, seen)
    })
}

/// The part of a segment's rows that begins `rows.start` after its own beginning.
fn within(segment: &Range<usize>, rows: &Range<usize>) -> Range<usize> {
    segment.start + rows.start..segment.start + rows.end
}

/// A head's columns of some rows.
fn columns<'a, T: Value>(values: &'a [T], range: &Range<usize>, head: usize, width: usize, inner: usize) -> Matrix<'a> {
    Matrix::new(&values[range.start * inner + head * width..range.end * inner], range.len(), width, inner)
}

/// Adds the bias and hides the future; `scores` is `(queries, keys)`, its first query stands at `first`.
#[inline(always)]
fn add_bias(scores: &mut [f32], first: usize, keys: usize, head: usize, bias: &Bias) {
    for (i, row) in (first..).zip(scores.chunks_exact_mut(keys)) {
        row.iter_mut().zip(bias.row(head, i, keys)).for_each(|(s, b)| *s += b);
        if bias.causal && i + 1 < keys {
            row[i + 1..].fill(MASKED);
        }
    }
}

/// Every segment and head: what is done for one of them needs nothing of the others.
fn pairs(plan: &Plan) -> impl IndexedParallelIterator<Item = (usize, usize)> {
    let heads = plan.heads;
    (0..plan.queries.len() * heads).into_par_iter().map(move |i| (i / heads, i % heads))
}

/// Puts `(tokens, width)` parts, one for each of [`pairs`], together to `(tokens, heads * width)`.
fn join<T: Value>(parts: &[Vec<f32>], segments: &Segments, heads: usize, width: usize) -> FlexTensor {
    let inner = heads * width;
    // Which segment each token is of, and its place there.
    let tokens: Vec<(usize, usize)> =
        segments.lengths().enumerate().flat_map(|(segment, length)| (0..length).map(move |i| (segment, i))).collect();
    let whole = filled(tokens.len() * inner, task(inner), |first, rows: &mut [T]| {
        for (row, (segment, i)) in rows.chunks_exact_mut(inner).zip(&tokens[first / inner..]) {
            for (place, part) in row.chunks_exact_mut(width).zip(&parts[segment * heads..]) {
                place.iter_mut().zip(&part[i * width..][..width]).for_each(|(place, x)| *place = T::narrow(*x));
            }
        }
    });
    tensor(whole, [segments.total(), inner])
}

/// `softmax(q k^T + bias) v`, and the logarithm of each softmax's denominator, `(query tokens, heads)`. All are dense.
pub(super) fn forward<T: Value>(
    q: &FlexTensor,
    k: &FlexTensor,
    v: &FlexTensor,
    table: Option<&FlexTensor>,
    plan: &Plan,
    compute: Compute,
) -> (FlexTensor, FlexTensor) {
    let (_, inner) = rows_columns(q);
    let (heads, width) = (plan.heads, inner / plan.heads);
    let bias = Bias::new(plan, table);
    let (qs, ks, vs): (&[T], &[T], &[T]) = (q.storage(), k.storage(), v.storage());
    let (mixed, denominators): (Vec<_>, Vec<_>) = pairs(plan)
        .map(|(segment, head)| {
            let (queries, keys) = (plan.queries.range(segment), plan.keys().range(segment));
            let mut scores = vec![0f32; queries.len().min(BLOCK) * keys.len()];
            let mut mixed = vec![0f32; queries.len() * width];
            let mut denominators = vec![0f32; queries.len()];
            for (rows, seen) in blocks(queries.len(), keys.len(), bias.as_ref()) {
                let scores = &mut scores[..rows.len() * seen];
                let visible = within(&keys, &(0..seen));
                let q = columns(qs, &within(&queries, &rows), head, width, inner);
                let (k, v) = (columns(ks, &visible, head, width, inner), columns(vs, &visible, head, width, inner));
                multiply(q, k.t(), scores, seen, Store::Replace, compute);
                vectorised(
                    #[inline(always)]
                    || {
                        if let Some(bias) = &bias {
                            add_bias(scores, rows.start, seen, head, bias);
                        }
                        let rows = scores.chunks_exact_mut(seen).zip(&mut denominators[rows.clone()]);
                        for (row, denominator) in rows {
                            let (largest, total) = exponentiate(row);
                            *denominator = largest + total.ln();
                            let scale = 1.0 / total;
                            row.iter_mut().for_each(|s| *s *= scale);
                        }
                    },
                );
                let weights = Matrix::new(scores, rows.len(), seen, seen);
                multiply(weights, v, &mut mixed[rows.start * width..], width, Store::Replace, compute);
            }
            (mixed, denominators)
        })
        .unzip();
    (join::<T>(&mixed, &plan.queries, heads, width), join::<f32>(&denominators, &plan.queries, heads, 1))
}

/// Gradients of `q`, `k` and `v`, and of the table; beside `q`, `k` and `v` it gets the two results of [`forward`].
///
/// With `S = q k^T + bias`, `P = softmax(S)`, `o = P v` and the gradient `G` of `o`:
///
/// ```text
/// dv = P^T G        dP = G v^T        dS = P * (dP - rowsum(o * G))
/// dq = dS k         dk = dS^T q       dbias = dS, summed into the table by bucket
/// ```
///
/// because `rowsum(P * dP) = rowsum(o * G)`. `P` is computed again from `S` and the kept denominators.
pub(super) fn backward<T: Value>(
    [q, k, v, mixed, denominators]: &[FlexTensor; 5],
    table: Option<&FlexTensor>,
    gradient: &FlexTensor,
    plan: &Plan,
    compute: Compute,
) -> ([FlexTensor; 3], FlexTensor) {
    let (_, inner) = rows_columns(q);
    let (heads, width) = (plan.heads, inner / plan.heads);
    let bias = Bias::new(plan, table);
    let (qs, ks, vs): (&[T], &[T], &[T]) = (q.storage(), k.storage(), v.storage());
    let (os, gs, ds): (&[T], &[T], &[f32]) = (mixed.storage(), gradient.storage(), denominators.storage());
    let done: Vec<[Vec<f32>; 4]> = pairs(plan)
        .map(|(segment, head)| {
            let (queries, keys) = (plan.queries.range(segment), plan.keys().range(segment));
            let size = queries.len().min(BLOCK) * keys.len();
            let (mut weights, mut changes) = (vec![0f32; size], vec![0f32; size]);
            let mut of_distances = vec![0f32; bias.as_ref().map_or(0, |b| b.buckets.len())];
            let mut of_q = vec![0f32; queries.len() * width];
            let [mut of_k, mut of_v] = [0; 2].map(|_| vec![0f32; keys.len() * width]);
            for (rows, seen) in blocks(queries.len(), keys.len(), bias.as_ref()) {
                let (weights, changes) = (&mut weights[..rows.len() * seen], &mut changes[..rows.len() * seen]);
                let (here, visible) = (within(&queries, &rows), within(&keys, &(0..seen)));
                let (q, g) = (columns(qs, &here, head, width, inner), columns(gs, &here, head, width, inner));
                let (k, v) = (columns(ks, &visible, head, width, inner), columns(vs, &visible, head, width, inner));
                multiply(q, k.t(), weights, seen, Store::Replace, compute);
                multiply(g, v.t(), changes, seen, Store::Replace, compute);
                vectorised(
                    #[inline(always)]
                    || {
                        if let Some(bias) = &bias {
                            add_bias(weights, rows.start, seen, head, bias);
                        }
                        let both = weights.chunks_exact_mut(seen).zip(changes.chunks_exact_mut(seen));
                        for (i, (row, changes)) in here.zip(both) {
                            let at = i * inner + head * width;
                            let (o, g) = (&os[at..at + width], &gs[at..at + width]);
                            let mean = sum([o, g], |[o, g]| o * g);
                            let denominator = ds[i * heads + head];
                            for (weight, change) in row.iter_mut().zip(changes) {
                                *weight = exp(*weight - denominator);
                                *change = *weight * (*change - mean);
                            }
                        }
                        if let Some(bias) = &bias {
                            for (i, row) in rows.clone().zip(changes.chunks_exact(seen)) {
                                let sums = &mut of_distances[bias.zero - i..][..seen];
                                sums.iter_mut().zip(row).for_each(|(s, c)| *s += c);
                            }
                        }
                    },
                );
                let weights = Matrix::new(weights, rows.len(), seen, seen);
                let changes = Matrix::new(changes, rows.len(), seen, seen);
                multiply(changes, k, &mut of_q[rows.start * width..], width, Store::Replace, compute);
                multiply(changes.t(), q, &mut of_k, width, Store::Add, compute);
                multiply(weights.t(), g, &mut of_v, width, Store::Add, compute);
            }
            [of_q, of_k, of_v, of_distances]
        })
        .collect();
    let (buckets, _) = table.map_or((0, 0), rows_columns);
    let mut of_table = vec![0f32; buckets * heads];
    let [mut of_q, mut of_k, mut of_v] = [const { Vec::new() }; 3];
    for (i, [q, k, v, of_distances]) in done.into_iter().enumerate() {
        if let Some(bias) = &bias {
            let sums = of_distances.iter().zip(&bias.buckets);
            sums.for_each(|(sum, bucket)| of_table[bucket * heads + i % heads] += sum);
        }
        of_q.push(q);
        of_k.push(k);
        of_v.push(v);
    }
    let joined = [(&of_q, &plan.queries), (&of_k, plan.keys()), (&of_v, plan.keys())];
    (joined.map(|(parts, segments)| join::<T>(parts, segments, heads, width)), tensor(of_table, [buckets, heads]))
}
