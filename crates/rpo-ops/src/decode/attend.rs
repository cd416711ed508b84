//! Attention of a few queries to the keys and values of a [`super::Past`].

use std::marker::PhantomData;

use pulp::{Arch, Simd, WithSimd};

use super::held::{Held, Pairs, Whole, fetch, value};
use super::past::{BLOCK, Shape};
use crate::cpu::exponentiate;

/// Queries that are worked on together.
pub(super) const QUERIES: usize = 4;
/// Places of a line of memory.
const LINE: usize = 16;

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
    shape: Shape,
    parts: &[&[u32]],
    scores: &mut Vec<f32>,
    mixed: &mut [f32],
) {
    let stride = parts.len() * BLOCK;
    scores.clear();
    scores.resize(of.len() * stride, 0.0);
    let attend = Attend { queries, of, width: shape.width, parts, scores, mixed };
    match shape.pairs {
        true => Arch::new().dispatch(Of(attend, PhantomData::<Pairs>)),
        false => Arch::new().dispatch(Of(attend, PhantomData::<Whole>)),
    }
}

struct Attend<'a> {
    queries: &'a [f32],
    of: &'a [Query<'a>],
    width: usize,
    parts: &'a [&'a [u32]],
    scores: &'a mut [f32],
    mixed: &'a mut [f32],
}

/// With keys and values that are held so.
struct Of<'a, H>(Attend<'a>, PhantomData<H>);

impl<H: Held> WithSimd for Of<'_, H> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        match self.0.of.len() {
            1 => self.0.each::<S, H, 1>(simd),
            2 => self.0.each::<S, H, 2>(simd),
            3 => self.0.each::<S, H, 3>(simd),
            _ => self.0.each::<S, H, QUERIES>(simd),
        }
    }
}

impl Attend<'_> {
    #[inline(always)]
    fn each<S: Simd, H: Held, const N: usize>(&mut self, simd: S) {
        let stride = self.parts.len() * BLOCK;
        for b in 0..self.parts.len() {
            self.score::<S, H, N>(simd, b, stride);
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
        let (places, lanes) = (self.width / H::EACH, S::F32_LANES);
        // As many vectors of coordinates at a time as leave room in the registers.
        match H::EACH {
            _ if places % (4 * lanes / H::EACH) == 0 => self.mix::<S, H, N, 4>(simd, stride, scales),
            _ if places % (2 * lanes / H::EACH).max(1) == 0 => self.mix::<S, H, N, 2>(simd, stride, scales),
            1 if places % lanes == 0 => self.mix::<S, H, N, 1>(simd, stride, scales),
            // Narrow heads have no whole vectors on every processor.
            _ => self.mix_one_by_one(stride, &scales),
        }
    }

    /// The scores of a block's tokens.
    #[inline(always)]
    fn score<S: Simd, H: Held, const N: usize>(&mut self, simd: S, block: usize, stride: usize) {
        const { assert!(S::F32_LANES <= BLOCK, "a block holds whole vectors") };
        let size = self.width / H::EACH * BLOCK;
        let keys = &self.parts[block][..size];
        // What is read next: the next block's keys, at last the first values.
        let ahead = self.parts.get(block + 1).map_or(&self.parts[0][size..], |next| &next[..size]);
        for at in (0..BLOCK).step_by(S::F32_LANES) {
            let mut sums = [simd.splat_f32s(0.0); N];
            for (i, (keys, ahead)) in keys.chunks_exact(BLOCK).zip(ahead.chunks_exact(BLOCK)).enumerate() {
                fetch(&ahead[0]);
                let keys = &keys[at..at + S::F32_LANES];
                let mut add = |d: usize, keys: S::f32s| {
                    for (n, sum) in sums.iter_mut().enumerate() {
                        *sum = simd.mul_add_f32s(simd.splat_f32s(self.queries[n * self.width + d]), keys, *sum);
                    }
                };
                match H::EACH {
                    1 => {
                        let [keys] = H::vectors::<S, 1>(simd, keys);
                        add(i, keys);
                    }
                    _ => {
                        let [first, second] = H::vectors::<S, 2>(simd, keys);
                        add(2 * i, first);
                        add(2 * i + 1, second);
                    }
                }
            }
            for (n, sum) in sums.iter().enumerate() {
                let at = n * stride + block * BLOCK + at;
                let (places, _) = S::as_mut_simd_f32s(&mut self.scores[at..at + S::F32_LANES]);
                places[0] = *sum;
            }
        }
    }

    /// The weighted mean of values, `VECTORS` vectors of coordinates at a time.
    #[inline(always)]
    fn mix<S: Simd, H: Held, const N: usize, const VECTORS: usize>(
        &mut self,
        simd: S,
        stride: usize,
        scales: [f32; N],
    ) {
        let (width, places, some) = (self.width, self.width / H::EACH, VECTORS * S::F32_LANES / H::EACH);
        let farthest = self.of.iter().map(|query| query.sees).max().unwrap_or(0);
        for first in (0..places).step_by(some) {
            let mut sums = [[simd.splat_f32s(0.0); VECTORS]; N];
            for (b, part) in self.parts.iter().enumerate() {
                let values = &part[places * BLOCK..];
                let ahead = self.parts.get(b + 1).map_or(values, |next| &next[places * BLOCK..]);
                let tokens = BLOCK.min(farthest.saturating_sub(b * BLOCK));
                let of_tokens = values.chunks_exact(places).zip(ahead.chunks_exact(places)).take(tokens);
                for (t, (values, ahead)) in of_tokens.enumerate() {
                    ahead[first..first + some].iter().step_by(LINE).for_each(fetch);
                    let values: [S::f32s; VECTORS] = H::vectors(simd, &values[first..first + some]);
                    for (n, sums) in sums.iter_mut().enumerate() {
                        let weight = simd.splat_f32s(self.scores[n * stride + b * BLOCK + t]);
                        for (sum, values) in sums.iter_mut().zip(values) {
                            *sum = simd.mul_add_f32s(weight, values, *sum);
                        }
                    }
                }
            }
            for (n, (sums, scale)) in sums.into_iter().zip(scales).enumerate() {
                for (vector, sum) in sums.into_iter().enumerate() {
                    let at = n * width + value::<H>(first, vector, S::F32_LANES);
                    let (places, _) = S::as_mut_simd_f32s(&mut self.mixed[at..at + S::F32_LANES]);
                    places[0] = simd.mul_f32s(sum, simd.splat_f32s(scale));
                }
            }
        }
    }

    /// The same of whole values without vectors.
    #[inline(always)]
    fn mix_one_by_one(&mut self, stride: usize, scales: &[f32]) {
        let width = self.width;
        for (n, scale) in scales.iter().enumerate() {
            for d in 0..width {
                let mut sum = 0f32;
                for (t, weight) in self.scores[n * stride..][..self.of[n].sees].iter().enumerate() {
                    let value = self.parts[t / BLOCK][width * BLOCK + t % BLOCK * width + d];
                    sum = weight.mul_add(f32::from_bits(value), sum);
                }
                self.mixed[n * width + d] = sum * scale;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::past::{Past, parts, write};

    #[test]
    fn queries_attend_as_the_formula_says_beside_others_as_alone() {
        for (width, tokens, pairs) in [
            (3, 5, false),
            (16, 16, false),
            (64, 40, false),
            (48, 33, false),
            (128, 17, false),
            (32, 20, true),
            (64, 40, true),
        ] {
            let values =
                |n: usize, k: usize| -> Vec<f32> { (0..n).map(|i| ((i * k) % 31) as f32 / 31.0 - 0.5).collect() };
            let (keys, of_tokens) = (values(tokens * width, 7), values(tokens * width, 13));
            let shape = Shape::new(1, 1, width, pairs);
            assert_eq!(shape.pairs, pairs);
            let mut past = Past::new(shape);
            past.grow(tokens);
            for (t, (k, v)) in keys.chunks_exact(width).zip(of_tokens.chunks_exact(width)).enumerate() {
                // SAFETY: there is no other thread.
                #[expect(unsafe_code, reason = "blocks are shared memory")]
                unsafe {
                    write(&past, 0, 0, t, k, v);
                }
            }
            // SAFETY: nobody writes any more.
            #[expect(unsafe_code, reason = "blocks are shared memory")]
            let parts = unsafe { parts(&past, 0, 0, tokens) };
            let tolerance = if pairs { 2e-3 } else { 1e-5 };
            let (queries, bias) = (values(QUERIES * width, 5), values(tokens, 3));
            let of: Vec<Query<'_>> = (0..QUERIES)
                .map(|n| Query { sees: tokens - n % tokens, bias: (n != 1).then_some(&bias[..]) })
                .collect();
            let run = |range: std::ops::Range<usize>| {
                let mut mixed = vec![0.0; range.len() * width];
                let queries = &queries[range.start * width..range.end * width];
                attend(queries, &of[range], shape, &parts, &mut Vec::new(), &mut mixed);
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
                    assert!((f64::from(*got) - want).abs() < tolerance, "{got} for {want}");
                }
            }
        }
    }
}
