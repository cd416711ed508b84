//! Attention of a decoder-only model over packed prompts and their responses: every prompt's tokens pass once for all its
//! responses.

use burn::tensor::{Device, Tensor, TensorData, activation};

use crate::segments::MASKED;
use crate::{Segments, index_tensor};

/// How packed tokens lie: all prompts first, then all responses, each of which continues one of the prompts.
#[derive(Clone, Debug)]
pub struct Prefixed {
    /// The prompts.
    pub prompts: Segments,
    /// The responses, counted from the first of their tokens.
    pub responses: Segments,
    /// For each response which prompt it continues.
    pub prompt_of: Vec<usize>,
}

impl Prefixed {
    /// The position of every token: prompts count from 0, and their responses go on.
    pub fn positions(&self) -> Vec<usize> {
        let of_prompts = self.prompts.lengths().flat_map(|n| 0..n);
        let of_responses = self.responses.lengths().zip(&self.prompt_of).flat_map(|(n, &prompt)| {
            let before = self.prompts.range(prompt).len();
            before..before + n
        });
        of_prompts.chain(of_responses).collect()
    }
}

/// Rotary position embedding (RoPE, arXiv 2104.09864), in the arrangement of transformers: coordinate `i` of a head turns with
/// coordinate `i + width/2`, by `position * frequencies[i]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// Radians a position, one for each pair of coordinates.
    pub frequencies: Vec<f32>,
    /// Both cosine and sine are multiplied by this.
    pub magnitude: f32,
}

impl Rotary {
    /// Turns every head of `x`, `(tokens, heads * width)`, by the positions of its tokens.
    pub fn turn(&self, x: Tensor<2>, positions: &[usize]) -> Tensor<2> {
        let [tokens, inner] = x.dims();
        let half = self.frequencies.len();
        let heads = inner / (2 * half);
        let [cos, sin] = self.angles(positions, &x.device());
        let x = x.reshape([tokens, heads, 2 * half]);
        let (first, second) = (x.clone().narrow(2, 0, half), x.narrow(2, half, half));
        let turned = vec![first.clone() * cos.clone() - second.clone() * sin.clone(), second * cos + first * sin];
        Tensor::cat(turned, 2).reshape([tokens, inner])
    }

    /// Cosine and sine of every angle: `(tokens, 1, width / 2)`.
    fn angles(&self, positions: &[usize], device: &Device) -> [Tensor<3>; 2] {
        let angle = |f: fn(f32) -> f32| {
            // The angle in single precision, as transformers has it.
            let of = |&p: &usize| self.frequencies.iter().map(move |w| f(p as f32 * w) * self.magnitude);
            let values: Vec<f32> = positions.iter().flat_map(of).collect();
            Tensor::from_data(TensorData::new(values, [positions.len(), 1, self.frequencies.len()]), device)
        };
        [angle(f32::cos), angle(f32::sin)]
    }
}

/// `softmax(q k^T / sqrt(width)) v`, heads apart: each token of a prompt sees those of its prompt up to itself, each token of a
/// response all of its prompt and those of its response up to itself.
///
/// `q` is `(tokens, heads * width)`; `k` and `v` are `(tokens, key_heads * width)`, each of whose heads serves `heads /
/// key_heads` heads of the queries. The result is like `q`.
pub fn prefixed_attention(
    q: Tensor<2>,
    k: &Tensor<2>,
    v: &Tensor<2>,
    [heads, key_heads]: [usize; 2],
    view: &Prefixed,
) -> Tensor<2> {
    let n = view.prompts.total();
    let own = |segments: &Segments, from: usize| -> Vec<Vec<usize>> {
        (0..segments.len()).map(|i| segments.range(i).map(|row| from + row).collect()).collect()
    };
    let of_prompts = own(&view.prompts, 0);
    let of_responses = own(&view.responses, n);
    let seen: Vec<Vec<usize>> = of_responses
        .iter()
        .zip(&view.prompt_of)
        .map(|(own, &prompt)| [of_prompts[prompt].as_slice(), own].concat())
        .collect();
    let part = |q: Tensor<2>, segments: &Segments, keys: &[Vec<usize>]| {
        let before: Vec<usize> = segments.lengths().zip(keys).map(|(n, keys)| keys.len() - n).collect();
        padded(q, k, v, [heads, key_heads], segments, keys, &before)
    };
    let of_prompts = part(q.clone().narrow(0, 0, n), &view.prompts, &of_prompts);
    if view.responses.is_empty() {
        return of_prompts;
    }
    let of_responses = part(q.narrow(0, n, view.responses.total()), &view.responses, &seen);
    Tensor::cat(vec![of_prompts, of_responses], 0)
}

/// Attention of the segments of `q` to rows `keys` of `k` and `v`, of which the first `before` are seen by all queries of the
/// segment and the others up to the query's own place.
fn padded(
    q: Tensor<2>,
    k: &Tensor<2>,
    v: &Tensor<2>,
    [heads, key_heads]: [usize; 2],
    segments: &Segments,
    keys: &[Vec<usize>],
    before: &[usize],
) -> Tensor<2> {
    let device = q.device();
    let [_, inner] = q.dims();
    let width = inner / heads;
    let (n, queries) = (segments.len(), segments.max_len());
    let longest = keys.iter().map(Vec::len).max().unwrap_or(0);
    let rows = keys.iter().flat_map(|rows| (0..longest).map(|i| rows[i.min(rows.len() - 1)]));
    let rows = index_tensor(rows, &device);
    // Each head of the keys once for every head of the queries that it serves.
    let gathered = |x: &Tensor<2>| {
        let x = x.clone().select(0, rows.clone()).reshape([n, longest, key_heads, width]).swap_dims(1, 2);
        let x: Tensor<5> = x.unsqueeze_dim(2);
        x.repeat_dim(2, heads / key_heads).reshape([n, heads, longest, width])
    };
    let q = segments.pad(q).reshape([n, queries, heads, width]).swap_dims(1, 2);
    let mut mask = Vec::with_capacity(n * queries * longest);
    for before in before {
        for i in 0..queries {
            mask.extend((0..longest).map(|key| if key <= before + i { 0.0 } else { MASKED }));
        }
    }
    let mask = Tensor::<1>::from_floats(mask.as_slice(), &device).reshape([n, 1, queries, longest]);
    let scores = q.matmul(gathered(k).swap_dims(2, 3)).mul_scalar((width as f64).powf(-0.5)) + mask;
    let mixed = activation::softmax(scores, 3).matmul(gathered(v));
    segments.unpad(mixed.swap_dims(1, 2).reshape([n, queries, inner]))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Distribution, Tolerance};

    use super::*;

    fn random(shape: [usize; 2]) -> Tensor<2> {
        Tensor::random(shape, Distribution::Normal(0.0, 0.5), &Device::flex())
    }

    #[test]
    fn a_shared_prompt_equals_one_for_each_response() {
        let rotary = Rotary { frequencies: vec![1.0, 0.1], magnitude: 1.0 };
        let heads = [4, 2];
        let view = Prefixed {
            prompts: Segments::from_lengths([3, 2]),
            responses: Segments::from_lengths([2, 4, 1]),
            prompt_of: vec![0, 0, 1],
        };
        let (q, k, v) = (random([12, 16]), random([12, 8]), random([12, 8]));
        let positions = view.positions();
        assert_eq!(positions, [0, 1, 2, 0, 1, 3, 4, 3, 4, 5, 6, 2]);
        let turn = |x: &Tensor<2>| rotary.turn(x.clone(), &positions);
        let all = prefixed_attention(turn(&q), &turn(&k), &v, heads, &view);
        for (i, &prompt) in view.prompt_of.iter().enumerate() {
            let own = view.responses.range(i);
            let rows: Vec<usize> = view.prompts.range(prompt).chain(own.start + 5..own.end + 5).collect();
            let pick = |x: &Tensor<2>| x.clone().select(0, index_tensor(rows.iter().copied(), &x.device()));
            let turned = |x: &Tensor<2>| rotary.turn(pick(x), &(0..rows.len()).collect::<Vec<_>>());
            let one = Prefixed {
                prompts: Segments::from_lengths([rows.len()]),
                responses: Segments::from_lengths([]),
                prompt_of: vec![],
            };
            let alone = prefixed_attention(turned(&q), &turned(&k), &pick(&v), heads, &one);
            alone.into_data().assert_approx_eq::<f32>(&pick(&all).into_data(), Tolerance::absolute(1e-5));
        }
    }

    #[test]
    fn a_quarter_turn_by_hand() {
        let rotary = Rotary { frequencies: vec![std::f32::consts::FRAC_PI_2], magnitude: 2.0 };
        let x = Tensor::<2>::from_floats([[3.0, 4.0], [3.0, 4.0]], &Device::flex());
        let want = Tensor::<2>::from_floats([[6.0, 8.0], [-8.0, 6.0]], &Device::flex());
        rotary.turn(x, &[0, 1]).into_data().assert_approx_eq::<f32>(&want.into_data(), Tolerance::absolute(1e-5));
    }
}
