//! The operations in terms of Burn's: for every device without kernels of our own, and what those kernels are tested against.

use burn::tensor::{Tensor, activation};

use crate::parameters::{AttentionLayer, Gate, GatedFeedForward};
use crate::{RelativeBias, Segments, index_tensor};

pub(crate) fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    x.matmul(weight.transpose())
}

pub(crate) fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let scale = x.clone().square().mean_dim(1).add_scalar(epsilon).sqrt().recip();
    x * scale * weight.unsqueeze()
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
    let AttentionLayer { norm, epsilon, heads, q, k, v, o } = layer;
    let h = rms_norm(x.clone(), norm, epsilon);
    let (source, keys) = memory.unwrap_or_else(|| (h.clone(), queries));
    let (q, k, v) = (linear(h, q), linear(source.clone(), k), linear(source, v));
    x + linear(padded_attention(q, k, v, heads, queries, keys, bias), o)
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
