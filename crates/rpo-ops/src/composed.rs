//! The operations in terms of Burn's: for every device without kernels of our own, and what those kernels are tested against.

use burn::tensor::{Tensor, activation};

use crate::encoder::LayerNorm;
use crate::parameters::{Adapter, Affine, AttentionLayer, Gate, GatedFeedForward};
use crate::plan::Prefixed;
use crate::rotary::Rotary;
use crate::segments::MASKED;
use crate::{RelativeBias, Segments, index_tensor};

pub(crate) fn linear(x: Tensor<2>, map: Affine) -> Tensor<2> {
    let Affine { weight, bias, adapter, compute: _ } = map;
    // Only a frozen matrix is held in less than what is computed in.
    let mut y = x.clone().matmul(weight.cast(x.dtype()).transpose());
    if let Some(Adapter { a, b, scale }) = adapter {
        y = y + x.matmul(a.transpose()).matmul(b.transpose()).mul_scalar(scale);
    }
    match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    }
}

pub(crate) fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let ([rows, inner], [width]) = (x.dims(), weight.dims());
    let x = x.reshape([rows * inner / width, width]);
    let scale = x.clone().square().mean_dim(1).add_scalar(epsilon).sqrt().recip();
    (x * scale * weight.unsqueeze()).reshape([rows, inner])
}

pub(crate) fn gated_feed_forward(x: Tensor<2>, layer: GatedFeedForward) -> Tensor<2> {
    let GatedFeedForward { norm, epsilon, activation, gate, up, down } = layer;
    let h = rms_norm(x.clone(), norm, epsilon);
    x + linear(gated(activation, linear(h.clone(), gate), linear(h, up)), down)
}

fn gated(kind: Gate, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    let [scale, cubic] = kind.coefficients().map(f64::from);
    let inner = gate.clone().square().mul_scalar(cubic * scale).add_scalar(scale) * gate.clone();
    gate * activation::sigmoid(inner) * up
}

pub(crate) fn attention(
    x: Tensor<2>,
    layer: AttentionLayer,
    queries: &Segments,
    memory: Option<(Tensor<2>, &Segments)>,
    bias: Option<&RelativeBias>,
) -> Tensor<2> {
    let (memory, keys) = memory.unzip();
    around(x, layer, memory, |[q, k, v], [heads, _]| {
        padded_attention(q, k, v, heads, queries, keys.unwrap_or(queries), bias)
    })
}

/// The attention layer around what makes of queries, keys and values their mixture.
fn around(
    x: Tensor<2>,
    layer: AttentionLayer,
    memory: Option<Tensor<2>>,
    mix: impl FnOnce([Tensor<2>; 3], [usize; 2]) -> Tensor<2>,
) -> Tensor<2> {
    let AttentionLayer { norm, epsilon, heads, q, k, v, o, head_norms } = layer;
    let h = rms_norm(x.clone(), norm, epsilon);
    let source = memory.unwrap_or_else(|| h.clone());
    let (mut q, mut k, v) = (linear(h, q), linear(source.clone(), k), linear(source, v));
    if let Some([of_q, of_k]) = head_norms {
        [q, k] = [rms_norm(q, of_q, epsilon), rms_norm(k, of_k, epsilon)];
    }
    x + linear(mix([q, k, v], heads), o)
}

/// See [`crate::prefixed_self_attention`].
pub(crate) fn prefixed_self_attention(
    x: Tensor<2>,
    layer: AttentionLayer,
    view: &Prefixed,
    rotary: &Rotary,
) -> Tensor<2> {
    around(x, layer, None, |[q, k, v], heads| prefixed_attention(q, k, &v, heads, view, rotary))
}

pub(crate) fn add_norm(x: Tensor<2>, residual: Tensor<2>, norm: LayerNorm) -> Tensor<2> {
    let sum = x + residual;
    let centred = sum.clone() - sum.mean_dim(1);
    let scale = centred.clone().square().mean_dim(1).add_scalar(norm.epsilon).sqrt().recip();
    centred * scale * norm.weight.unsqueeze() + norm.bias.unsqueeze()
}

pub(crate) fn gelu(x: Tensor<2>) -> Tensor<2> {
    activation::gelu(x)
}

pub(crate) fn scaled_attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    heads: usize,
    segments: &Segments,
) -> Tensor<2> {
    let [_, inner] = q.dims();
    let q = q.mul_scalar(((inner / heads) as f64).powf(-0.5));
    padded_attention(q, k, v, heads, segments, segments, None)
}

/// `softmax(q k^T + bias) v` on padded sequences.
fn padded_attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    heads: usize,
    queries: &Segments,
    keys: &Segments,
    bias: Option<&RelativeBias>,
) -> Tensor<2> {
    let split = |x: Tensor<2>, segments: &Segments| {
        let [_, width] = x.dims();
        segments.pad(x).reshape([segments.len(), segments.max_len(), heads, width / heads]).swap_dims(1, 2)
    };
    let device = q.device();
    let [_, width] = q.dims();
    let mut scores = split(q, queries).matmul(split(k, keys).swap_dims(2, 3));
    if let Some(bias) = bias {
        scores = scores + bias.over_all(queries.max_len(), keys.max_len());
    }
    if !keys.even() {
        scores = scores + keys.padding_mask(&device);
    }
    let mixed = activation::softmax(scores, 3).matmul(split(v, keys));
    queries.unpad(mixed.swap_dims(1, 2).reshape([queries.len(), queries.max_len(), width]))
}

/// With all logits at once.
pub(crate) fn label_log_probs(hidden: Tensor<2>, weight: Tensor<2>, labels: &[u32]) -> Tensor<1> {
    let [tokens, _] = hidden.dims();
    let labels = index_tensor(labels.iter().map(|&l| l as usize), &hidden.device()).reshape([tokens, 1]);
    let logits = hidden.matmul(weight.transpose());
    activation::log_softmax(logits, 1).gather(1, labels).reshape([tokens])
}

/// `softmax(q k^T / sqrt(width)) v`, the prompts before their responses.
fn prefixed_attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: &Tensor<2>,
    [heads, key_heads]: [usize; 2],
    view: &Prefixed,
    rotary: &Rotary,
) -> Tensor<2> {
    let positions = view.positions();
    let (q, k) = (rotary.turn(q, &positions), &rotary.turn(k, &positions));
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
