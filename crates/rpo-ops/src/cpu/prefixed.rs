//! Attention with a shared prefix, one prompt with its responses and one head of the keys at a time: scores exist for one block
//! of queries only (of each thread), and are computed again for the gradients, as in `attention.rs`.

use std::ops::Range;

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::memory::{Matrix, Store, Value, filled, multiply, rows_columns, tensor};
use super::pointwise::task;
use super::simd::{exp, exponentiate, sum, vectorised};
use crate::parameters::Compute;
use crate::plan::Prefixed;
use crate::rotary::Rotary;
use crate::segments::MASKED;

/// What the kernels are told beside the tensors.
#[derive(Clone, Debug)]
pub(crate) struct PrefixPlan {
    heads: usize,
    key_heads: usize,
    groups: Vec<Group>,
    /// Cosine and sine of each token's angles: `(tokens, width / 2)`.
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// A prompt with its responses, as rows of the packed tensors.
#[derive(Clone, Debug)]
struct Group {
    prompt: Range<usize>,
    /// One after another, without a gap.
    responses: Vec<Range<usize>>,
}

impl Group {
    /// The rows of all responses.
    fn all_responses(&self) -> Range<usize> {
        match (self.responses.first(), self.responses.last()) {
            (Some(first), Some(last)) => first.start..last.end,
            _ => self.prompt.end..self.prompt.end,
        }
    }

    /// Number of rows.
    fn rows(&self) -> usize {
        self.prompt.len() + self.all_responses().len()
    }

    /// Rows of the group by their place in it.
    fn places(&self) -> impl Iterator<Item = usize> {
        self.prompt.clone().chain(self.all_responses())
    }

    /// Each segment: its rows, their first place in the group, and whether the prompt comes before it.
    fn segments(&self) -> impl Iterator<Item = (Range<usize>, usize, bool)> + '_ {
        let first = self.all_responses().start;
        let of_responses =
            self.responses.iter().map(move |rows| (rows.clone(), self.prompt.len() + rows.start - first, true));
        std::iter::once((self.prompt.clone(), 0, false)).chain(of_responses)
    }
}

impl PrefixPlan {
    /// # Panics
    /// If the responses of a prompt do not lie together.
    pub(crate) fn new([heads, key_heads]: [usize; 2], view: &Prefixed, rotary: &Rotary) -> Self {
        let n = view.prompts.total();
        let mut groups: Vec<Group> =
            (0..view.prompts.len()).map(|i| Group { prompt: view.prompts.range(i), responses: Vec::new() }).collect();
        for (i, &prompt) in view.prompt_of.iter().enumerate() {
            let rows = view.responses.range(i);
            let rows = n + rows.start..n + rows.end;
            let others = &mut groups[prompt].responses;
            assert!(others.last().is_none_or(|last| last.end == rows.start), "the responses of a prompt lie together");
            others.push(rows);
        }
        let [cos, sin] = rotary.angles(&view.positions());
        Self { heads, key_heads, groups, cos, sin }
    }

    /// Heads of the queries that share one of the keys.
    fn shared(&self) -> usize {
        self.heads / self.key_heads
    }

    /// Every group and head of the keys: what is done for one of them needs nothing of the others.
    fn pairs(&self) -> impl IndexedParallelIterator<Item = (&Group, usize)> {
        (0..self.groups.len() * self.key_heads)
            .into_par_iter()
            .map(|i| (&self.groups[i / self.key_heads], i % self.key_heads))
    }

    /// Queries and keys, turned by their positions, the queries also scaled by `1 / sqrt(width)`.
    pub(super) fn turned<T: Value>(&self, [q, k]: [FlexTensor; 2]) -> [FlexTensor; 2] {
        self.turn::<T>([q, k], 1.0)
    }

    /// Turns every head of queries and keys, `(tokens, heads * width)`; back if `sign` is -1. Queries are scaled.
    fn turn<T: Value>(&self, [mut q, mut k]: [FlexTensor; 2], sign: f32) -> [FlexTensor; 2] {
        let width = rows_columns(&q).1 / self.heads;
        self.turn_heads::<T>(&mut q, width, (width as f32).powf(-0.5), sign);
        self.turn_heads::<T>(&mut k, width, 1.0, sign);
        [q, k]
    }

    fn turn_heads<T: Value>(&self, x: &mut FlexTensor, width: usize, scale: f32, sign: f32) {
        let (_, inner) = rows_columns(x);
        let half = width / 2;
        let angles = self.cos.par_chunks_exact(half).zip(self.sin.par_chunks_exact(half));
        x.storage_mut::<T>().par_chunks_exact_mut(inner).zip(angles).for_each(|(row, (cos, sin))| {
            vectorised(
                #[inline(always)]
                || {
                    for head in row.chunks_exact_mut(width) {
                        let (first, second) = head.split_at_mut(half);
                        for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                            let (sin, x, y) = (sign * sin, a.widen(), b.widen());
                            *a = T::narrow(scale * (x * cos - y * sin));
                            *b = T::narrow(scale * (y * cos + x * sin));
                        }
                    }
                },
            );
        });
    }
}

/// Queries of a block, as in `attention.rs`.
const BLOCK: usize = 128;

/// A head's columns of some rows.
fn columns<'a, T: Value>(values: &'a [T], rows: &Range<usize>, head: usize, width: usize, inner: usize) -> Matrix<'a> {
    // No rows have no beginning either.
    let within = values.get(rows.start * inner + head * width..rows.end * inner).unwrap_or_default();
    Matrix::new(within, rows.len(), width, inner)
}

/// A block of queries: rows of the packed tensors, and the keys that they see, those of the prompt before their own.
struct Block {
    queries: Range<usize>,
    before: Range<usize>,
    own: Range<usize>,
}

impl Block {
    /// The blocks of a group's segments, each with the first place of its queries in the group.
    fn of(group: &Group) -> impl Iterator<Item = (usize, Self)> + '_ {
        group.segments().flat_map(move |(rows, place, follows)| {
            let before = if follows { group.prompt.clone() } else { rows.start..rows.start };
            (rows.start..rows.end).step_by(BLOCK).map(move |first| {
                let queries = first..(first + BLOCK).min(rows.end);
                let own = rows.start..queries.end;
                (place + first - rows.start, Self { queries, before: before.clone(), own })
            })
        })
    }

    /// Keys that are seen by some query.
    fn keys(&self) -> usize {
        self.before.len() + self.own.len()
    }

    /// Hides from each query the keys that follow it.
    #[inline(always)]
    fn hide_future(&self, scores: &mut [f32]) {
        let first = self.before.len() + self.queries.start - self.own.start;
        for (i, row) in scores.chunks_exact_mut(self.keys()).enumerate() {
            row[first + i + 1..].fill(MASKED);
        }
    }

    /// The columns of `scores` for the prompt's keys, and those for its own.
    fn split<'a>(&self, scores: &'a [f32]) -> [Matrix<'a>; 2] {
        let (rows, keys) = (self.queries.len(), self.keys());
        let own = &scores[self.before.len()..];
        [Matrix::new(scores, rows, self.before.len(), keys), Matrix::new(own, rows, self.own.len(), keys)]
    }

    /// `a b^T` for all keys: of the queries with the rows of `b` that hold the prompt's keys and their own.
    fn against(&self, a: Matrix<'_>, [of_before, of_own]: [Matrix<'_>; 2], scores: &mut [f32], compute: Compute) {
        let keys = self.keys();
        if !self.before.is_empty() {
            multiply(a, of_before.t(), scores, keys, Store::Replace, compute);
        }
        multiply(a, of_own.t(), &mut scores[self.before.len()..], keys, Store::Replace, compute);
    }

    /// `scores b`, into rows of `width` values.
    fn mix(
        &self,
        scores: &[f32],
        [of_before, of_own]: [Matrix<'_>; 2],
        out: &mut [f32],
        width: usize,
        compute: Compute,
    ) {
        let [before, own] = self.split(scores);
        multiply(own, of_own, out, width, Store::Replace, compute);
        if !self.before.is_empty() {
            multiply(before, of_before, out, width, Store::Add, compute);
        }
    }
}

/// What queries and keys, [`PrefixPlan::turned`], make of the values, and the logarithm of each softmax's denominator,
/// `(tokens, heads)`.
pub(super) fn forward<T: Value>(
    q: &FlexTensor,
    k: &FlexTensor,
    v: &FlexTensor,
    plan: &PrefixPlan,
    compute: Compute,
) -> (FlexTensor, FlexTensor) {
    let (tokens, inner) = rows_columns(q);
    let (_, key_inner) = rows_columns(k);
    let (width, shared) = (inner / plan.heads, plan.shared());
    let (qs, ks, vs): (&[T], &[T], &[T]) = (q.storage(), k.storage(), v.storage());
    let done: Vec<[Vec<f32>; 2]> = plan
        .pairs()
        .map(|(group, key_head)| {
            let mut mixed = vec![0f32; group.rows() * shared * width];
            let mut denominators = vec![0f32; group.rows() * shared];
            let mut scores = Vec::new();
            let mut part = vec![0f32; BLOCK * width];
            for (place, block) in Block::of(group) {
                let of =
                    |values| [&block.before, &block.own].map(|rows| columns(values, rows, key_head, width, key_inner));
                let (of_k, of_v) = (of(ks), of(vs));
                for j in 0..shared {
                    let head = key_head * shared + j;
                    scores.resize(block.queries.len() * block.keys(), 0f32);
                    block.against(columns(qs, &block.queries, head, width, inner), of_k, &mut scores, compute);
                    vectorised(
                        #[inline(always)]
                        || {
                            block.hide_future(&mut scores);
                            for (i, row) in scores.chunks_exact_mut(block.keys()).enumerate() {
                                let (largest, total) = exponentiate(row);
                                denominators[(place + i) * shared + j] = largest + total.ln();
                                let scale = 1.0 / total;
                                row.iter_mut().for_each(|s| *s *= scale);
                            }
                        },
                    );
                    block.mix(&scores, of_v, &mut part, width, compute);
                    put(&part, &mut mixed[place * shared * width..], block.queries.len(), j, shared, width);
                }
            }
            [mixed, denominators]
        })
        .collect();
    let mixed = join::<T, 2>(plan, &done, 0, tokens, shared * width);
    (mixed, join::<f32, 2>(plan, &done, 1, tokens, shared))
}

/// Puts `rows` rows of `width` values to head `j` of rows of `shared` heads.
fn put(part: &[f32], rows: &mut [f32], n: usize, j: usize, shared: usize, width: usize) {
    for (row, part) in rows.chunks_exact_mut(shared * width).zip(part.chunks_exact(width)).take(n) {
        row[j * width..][..width].copy_from_slice(part);
    }
}

/// Puts the parts of [`PrefixPlan::pairs`], rows of `width` values in the order of a group's places, together to
/// `(tokens, key_heads * width)`.
fn join<T: Value, const N: usize>(
    plan: &PrefixPlan,
    parts: &[[Vec<f32>; N]],
    which: usize,
    tokens: usize,
    width: usize,
) -> FlexTensor {
    let mut source = vec![(0, 0); tokens];
    for (i, group) in plan.groups.iter().enumerate() {
        group.places().enumerate().for_each(|(place, row)| source[row] = (i, place));
    }
    let inner = plan.key_heads * width;
    let whole = filled(tokens * inner, task(inner), |first, rows: &mut [T]| {
        for (row, (group, place)) in rows.chunks_exact_mut(inner).zip(&source[first / inner..]) {
            for (key_head, row) in row.chunks_exact_mut(width).enumerate() {
                let part = &parts[group * plan.key_heads + key_head][which][place * width..][..width];
                row.iter_mut().zip(part).for_each(|(value, x)| *value = T::narrow(*x));
            }
        }
    });
    tensor(whole, [tokens, inner])
}

/// Gradients of queries and keys before they were turned, and of values; beside the three it gets the two results of
/// [`forward`]. The formulas are those of `attention.rs`; keys of a prompt gather what all its responses give.
pub(super) fn backward<T: Value>(
    [q, k, v, mixed, denominators]: &[FlexTensor; 5],
    gradient: &FlexTensor,
    plan: &PrefixPlan,
    compute: Compute,
) -> [FlexTensor; 3] {
    let (tokens, inner) = rows_columns(q);
    let (_, key_inner) = rows_columns(k);
    let (width, shared) = (inner / plan.heads, plan.shared());
    let (qs, ks, vs): (&[T], &[T], &[T]) = (q.storage(), k.storage(), v.storage());
    let (os, gs, ds): (&[T], &[T], &[f32]) = (mixed.storage(), gradient.storage(), denominators.storage());
    let done: Vec<[Vec<f32>; 3]> = plan
        .pairs()
        .map(|(group, key_head)| {
            let mut of_q = vec![0f32; group.rows() * shared * width];
            let [mut of_k, mut of_v] = [0; 2].map(|_| vec![0f32; group.rows() * width]);
            let (mut weights, mut changes) = (Vec::new(), Vec::new());
            let mut part = vec![0f32; BLOCK * width];
            for (place, block) in Block::of(group) {
                let of =
                    |values| [&block.before, &block.own].map(|rows| columns(values, rows, key_head, width, key_inner));
                let (of_keys, of_values) = (of(ks), of(vs));
                // Where the rows of its own keys begin in the group; those of the prompt begin it.
                let own = (place + block.own.start - block.queries.start) * width;
                for j in 0..shared {
                    let head = key_head * shared + j;
                    let size = block.queries.len() * block.keys();
                    weights.resize(size, 0f32);
                    changes.resize(size, 0f32);
                    let q = columns(qs, &block.queries, head, width, inner);
                    let g = columns(gs, &block.queries, head, width, inner);
                    block.against(q, of_keys, &mut weights, compute);
                    block.against(g, of_values, &mut changes, compute);
                    vectorised(
                        #[inline(always)]
                        || {
                            block.hide_future(&mut weights);
                            let keys = block.keys();
                            let both = weights.chunks_exact_mut(keys).zip(changes.chunks_exact_mut(keys));
                            for (row, (weights, changes)) in block.queries.clone().zip(both) {
                                let at = row * inner + head * width;
                                let (o, g) = (&os[at..at + width], &gs[at..at + width]);
                                let mean = sum([o, g], |[o, g]| o * g);
                                let denominator = ds[row * plan.heads + head];
                                for (weight, change) in weights.iter_mut().zip(changes) {
                                    *weight = exp(*weight - denominator);
                                    *change = *weight * (*change - mean);
                                }
                            }
                        },
                    );
                    block.mix(&changes, of_keys, &mut part, width, compute);
                    put(&part, &mut of_q[place * shared * width..], block.queries.len(), j, shared, width);
                    let ([w_before, w_own], [c_before, c_own]) = (block.split(&weights), block.split(&changes));
                    if !block.before.is_empty() {
                        multiply(c_before.t(), q, &mut of_k, width, Store::Add, compute);
                        multiply(w_before.t(), g, &mut of_v, width, Store::Add, compute);
                    }
                    multiply(c_own.t(), q, &mut of_k[own..], width, Store::Add, compute);
                    multiply(w_own.t(), g, &mut of_v[own..], width, Store::Add, compute);
                }
            }
            [of_q, of_k, of_v]
        })
        .collect();
    let of_q = join::<f32, 3>(plan, &done, 0, tokens, shared * width);
    let [of_k, of_v] = [1, 2].map(|which| join::<f32, 3>(plan, &done, which, tokens, width));
    let [of_q, of_k] = plan.turn::<f32>([of_q, of_k], -1.0);
    [of_q, of_k, of_v]
}
