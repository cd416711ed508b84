//! Attention of a few queries to the keys and values of a [`super::Past`].

use pulp::{Arch, Simd, WithSimd};

use super::past::BLOCK;
use crate::cpu::exponentiate;

/// Queries that are worked on together.
pub(super) const QUERIES: usize = 4;
/// Coordinates of values that are mixed at a time.
const WIDTH: usize = 64;

/// What a query sees.
#[derive(Clone, Copy)]
pub(super) struct Query<'a> {
    /// How many tokens, from the first.
    pub(super) sees: usize,
    /// What is added to its scores, token by token.
    pub(super) bias: Option<&'a [f32]>,
}

/// `softmax(queries keys^T + bias) values`, by query: `queries` and `mixed` are `(queries, width)`, at most [`QUERIES`] of them;
/// `parts` are the blocks of keys and values of one head, as many as the farthest query sees. `scores` is for use in between.
pub(super) fn attend(
    queries: &[f32],
    of: &[Query<'_>],
    width: usize,
    parts: &[&[f32]],
    scores: &mut Vec<f32>,
    mixed: &mut [f32],
) {
    let stride = parts.len() * BLOCK;
    scores.clear();
    scores.resize(of.len() * stride, 0.0);
    Arch::new().dispatch(Attend { queries, of, width, parts, scores, mixed });
}

struct Attend<'a> {
    queries: &'a [f32],
    of: &'a [Query<'a>],
    width: usize,
    parts: &'a [&'a [f32]],
    scores: &'a mut [f32],
    mixed: &'a mut [f32],
}

impl WithSimd for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        match (self.of.len(), S::F32_LANES) {
            (1, _) => self.each::<S, 1>(simd),
            (2, _) => self.each::<S, 2>(simd),
            (3, _) => self.each::<S, 3>(simd),
            _ => self.each::<S, QUERIES>(simd),
        }
    }
}

impl Attend<'_> {
    #[inline(always)]
    fn each<S: Simd, const N: usize>(&mut self, simd: S) {
        let stride = self.parts.len() * BLOCK;
        let keys = self.width * BLOCK;
        for (b, part) in self.parts.iter().enumerate() {
            self.score::<S, N>(simd, &part[..keys], b * BLOCK, stride);
        }
        let mut scales = [0f32; N];
        for (query, (row, scale)) in self.of.iter().zip(self.scores.chunks_exact_mut(stride).zip(&mut scales)) {
            let (seen, unseen) = row.split_at_mut(query.sees);
            if let Some(bias) = query.bias {
                seen.iter_mut().zip(bias).for_each(|(score, bias)| *score += bias);
            }
            let (_, total) = exponentiate(seen);
            unseen.fill(0.0);
            *scale = 1.0 / total;
        }
        for first in (0..self.width).step_by(WIDTH) {
            let some = WIDTH.min(self.width - first);
            // Narrow heads have no whole vectors on every processor.
            match some % S::F32_LANES {
                0 => self.mix::<S, N>(simd, first, some / S::F32_LANES, stride, scales),
                _ => self.mix_one_by_one(first, some, stride, &scales),
            }
        }
    }

    /// The scores of a block's tokens.
    #[inline(always)]
    fn score<S: Simd, const N: usize>(&mut self, simd: S, keys: &[f32], first: usize, stride: usize) {
        const { assert!(S::F32_LANES <= BLOCK, "a block holds whole vectors") };
        let width = S::F32_LANES;
        for at in (0..BLOCK).step_by(width) {
            let mut sums = [simd.splat_f32s(0.0); N];
            for (d, keys) in keys.chunks_exact(BLOCK).enumerate() {
                let (keys, _) = S::as_simd_f32s(&keys[at..at + width]);
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum = simd.mul_add_f32s(simd.splat_f32s(self.queries[n * self.width + d]), keys[0], *sum);
                }
            }
            for (n, sum) in sums.iter().enumerate() {
                let at = n * stride + first + at;
                let (places, _) = S::as_mut_simd_f32s(&mut self.scores[at..at + width]);
                places[0] = *sum;
            }
        }
    }

    /// The weighted mean of values, for `vectors` vectors of their coordinates from `first`.
    #[inline(always)]
    fn mix<S: Simd, const N: usize>(&mut self, simd: S, first: usize, vectors: usize, stride: usize, scales: [f32; N]) {
        match vectors {
            4 => self.mix_vectors::<S, N, 4>(simd, first, 1, stride, scales),
            2 => self.mix_vectors::<S, N, 2>(simd, first, 1, stride, scales),
            n if n % 4 == 0 => self.mix_vectors::<S, N, 4>(simd, first, n / 4, stride, scales),
            n => self.mix_vectors::<S, N, 1>(simd, first, n, stride, scales),
        }
    }

    /// For `VECTORS` vectors at a time, so many times.
    #[inline(always)]
    fn mix_vectors<S: Simd, const N: usize, const VECTORS: usize>(
        &mut self,
        simd: S,
        first: usize,
        times: usize,
        stride: usize,
        scales: [f32; N],
    ) {
        let (width, some) = (self.width, VECTORS * S::F32_LANES);
        for first in (first..).step_by(some).take(times) {
            let mut sums = [[simd.splat_f32s(0.0); VECTORS]; N];
            for (b, part) in self.parts.iter().enumerate() {
                let farthest = self.of.iter().map(|query| query.sees).max().unwrap_or(0);
                let tokens = BLOCK.min(farthest.saturating_sub(b * BLOCK));
                for (t, values) in part[width * BLOCK..].chunks_exact(width).take(tokens).enumerate() {
                    let (values, _) = S::as_simd_f32s(&values[first..first + some]);
                    for (n, sums) in sums.iter_mut().enumerate() {
                        let weight = simd.splat_f32s(self.scores[n * stride + b * BLOCK + t]);
                        for (sum, values) in sums.iter_mut().zip(values) {
                            *sum = simd.mul_add_f32s(weight, *values, *sum);
                        }
                    }
                }
            }
            for (n, (sums, scale)) in sums.into_iter().zip(scales).enumerate() {
                let at = n * width + first;
                let (places, _) = S::as_mut_simd_f32s(&mut self.mixed[at..at + some]);
                for (place, sum) in places.iter_mut().zip(sums) {
                    *place = simd.mul_f32s(sum, simd.splat_f32s(scale));
                }
            }
        }
    }

    /// The same for `some` coordinates from `first`, without vectors.
    #[inline(always)]
    fn mix_one_by_one(&mut self, first: usize, some: usize, stride: usize, scales: &[f32]) {
        let width = self.width;
        for (n, scale) in scales.iter().enumerate() {
            for d in first..first + some {
                let mut sum = 0f32;
                for (t, weight) in self.scores[n * stride..][..self.of[n].sees].iter().enumerate() {
                    sum = weight.mul_add(self.parts[t / BLOCK][width * BLOCK + t % BLOCK * width + d], sum);
                }
                self.mixed[n * width + d] = sum * scale;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_attend_as_the_formula_says_beside_others_as_alone() {
        for (width, tokens) in [(3, 5), (16, 16), (64, 40), (48, 33), (128, 17)] {
            let values =
                |n: usize, k: usize| -> Vec<f32> { (0..n).map(|i| ((i * k) % 31) as f32 / 31.0 - 0.5).collect() };
            let (keys, of_tokens) = (values(tokens * width, 7), values(tokens * width, 13));
            let mut blocks = vec![vec![0f32; 2 * BLOCK * width]; tokens.div_ceil(BLOCK)];
            for t in 0..tokens {
                for d in 0..width {
                    blocks[t / BLOCK][d * BLOCK + t % BLOCK] = keys[t * width + d];
                    blocks[t / BLOCK][(BLOCK + t % BLOCK) * width + d] = of_tokens[t * width + d];
                }
            }
            let parts: Vec<&[f32]> = blocks.iter().map(Vec::as_slice).collect();
            let (queries, bias) = (values(QUERIES * width, 5), values(tokens, 3));
            let of: Vec<Query<'_>> = (0..QUERIES)
                .map(|n| Query { sees: tokens - n % tokens, bias: (n != 1).then_some(&bias[..]) })
                .collect();
            let run = |range: std::ops::Range<usize>| {
                let mut mixed = vec![0.0; range.len() * width];
                let queries = &queries[range.start * width..range.end * width];
                attend(queries, &of[range], width, &parts, &mut Vec::new(), &mut mixed);
                mixed
            };
            let all = run(0..QUERIES);
            for n in 0..QUERIES {
                let alone = run(n..n + 1);
                assert_eq!(alone, all[n * width..(n + 1) * width]);
                let score = |t: usize| -> f64 {
                    let dot: f64 = (0..width).map(|d| f64::from(queries[n * width + d] * keys[t * width + d])).sum();
                    dot + of[n].bias.map_or(0.0, |bias| f64::from(bias[t]))
                };
                let weights: Vec<f64> = (0..of[n].sees).map(|t| score(t).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (d, got) in alone.iter().enumerate() {
                    let mean = |(t, w): (usize, &f64)| w * f64::from(of_tokens[t * width + d]);
                    let want: f64 = weights.iter().enumerate().map(mean).sum::<f64>() / total;
                    assert!((f64::from(*got) - want).abs() < 1e-5, "{got} for {want}");
                }
            }
        }
    }
}
