//! The layers of a T5 block: norm, what the layer does, residual add.

use burn::tensor::Tensor;

use crate::parameters::{AttentionLayer, GatedFeedForward};
use crate::plan::Plan;
use crate::{RelativeBias, Segments, composed, cpu};

/// `x + (activation(h gate^T) * h up^T) down^T` with `h = rms_norm(x)`. `x` and the result are `(tokens, d_model)`.
pub fn gated_feed_forward(x: Tensor<2>, layer: GatedFeedForward) -> Tensor<2> {
    if !cpu::supported(&x.device()) {
        return composed::gated_feed_forward(x, layer);
    }
    let GatedFeedForward { norm, epsilon, activation, gate, up, down } = layer;
    cpu::feed_forward([x, gate, up, down], norm, cpu::Settings { epsilon, activation })
}

/// `x + attention(h, h) o^T` with `h = rms_norm(x)`: every token attends to those of its own segment, with T5's bias and
/// without scaling, `softmax(q k^T + bias) v`. `x` and the result are `(tokens, d_model)`.
pub fn self_attention(x: Tensor<2>, layer: AttentionLayer, segments: &Segments, bias: &RelativeBias) -> Tensor<2> {
    attention(x, layer, segments, None, Some(bias))
}

/// `x + attention(rms_norm(x), memory) o^T`: the tokens of segment `i` of `queries` attend to those of segment `i` of
/// `keys` in `memory`. `x` and the result are `(query tokens, d_model)`, `memory` is `(key tokens, d_model)`.
///
/// # Panics
/// If the two segmentations have different numbers of segments.
pub fn cross_attention(
    x: Tensor<2>,
    layer: AttentionLayer,
    queries: &Segments,
    memory: Tensor<2>,
    keys: &Segments,
) -> Tensor<2> {
    assert_eq!(queries.len(), keys.len(), "queries and keys have different numbers of segments");
    attention(x, layer, queries, Some((memory, keys)), None)
}

pub(crate) fn attention(
    x: Tensor<2>,
    layer: AttentionLayer,
    queries: &Segments,
    memory: Option<(Tensor<2>, &Segments)>,
    bias: Option<&RelativeBias>,
) -> Tensor<2> {
    let device = x.device();
    if !cpu::supported(&device) {
        return composed::attention(x, layer, queries, memory, bias);
    }
    let AttentionLayer { norm, epsilon, heads, q, k, v, o } = layer;
    let plan = Plan {
        heads,
        queries: queries.clone(),
        memory: memory.as_ref().map(|(_, keys)| (*keys).clone()),
        position: bias.map(RelativeBias::position),
    };
    // Where there is no memory or no bias, something stands in that nothing reads.
    let nothing = || Tensor::zeros([1, heads], &device);
    let memory = memory.map_or_else(nothing, |(memory, _)| memory);
    let table = bias.map_or_else(nothing, RelativeBias::table);
    cpu::attention_layer([x, memory, q, k, v, o, table], norm, plan, epsilon)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tolerance};

    use super::*;

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 0.3), &Device::flex())
    }

    #[test]
    fn a_packed_batch_equals_its_segments_alone() {
        let table = random([32, 2]);
        let layer = AttentionLayer {
            norm: random([4]),
            epsilon: 1e-6,
            heads: 2,
            q: random([6, 4]),
            k: random([6, 4]),
            v: random([6, 4]),
            o: random([4, 6]),
        };
        let segments = Segments::from_lengths([3, 1, 5]);
        let x = random([9, 4]);
        for causal in [false, true] {
            let bias = RelativeBias::new(table.clone(), 128, causal);
            let all = self_attention(x.clone(), layer.clone(), &segments, &bias);
            for i in 0..segments.len() {
                let range = segments.range(i);
                let part = |x: &Tensor<2>| x.clone().slice([range.clone(), 0..4]);
                let one = Segments::from_lengths([range.len()]);
                let alone = self_attention(part(&x), layer.clone(), &one, &bias);
                alone.into_data().assert_approx_eq::<f32>(&part(&all).into_data(), Tolerance::absolute(1e-6));
            }
        }
    }
}
