//! The layers of a block: norm, what the layer does, residual add.

use burn::tensor::Tensor;

use crate::parameters::{AttentionLayer, GatedFeedForward};
use crate::plan::{Plan, Prefixed};
use crate::{RelativeBias, Rotary, Segments, composed, cpu};

/// `x + (activation(h gate^T) * h up^T) down^T` with `h = rms_norm(x)`. `x` and the result are `(tokens, d_model)`.
pub fn gated_feed_forward(x: Tensor<2>, layer: GatedFeedForward) -> Tensor<2> {
    if !cpu::supported(&x.device()) {
        return composed::gated_feed_forward(x, layer);
    }
    cpu::feed_forward(x, layer)
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

/// `x + attention(h) o^T` with `h = rms_norm(x)` of a decoder-only model: `softmax(q k^T / sqrt(width)) v`, queries and keys
/// turned by their positions. Each token of a prompt sees those of its prompt up to itself, each token of a response all of its
/// prompt and those of its response up to itself. `x` and the result are `(tokens, d_model)`.
pub fn prefixed_self_attention(x: Tensor<2>, layer: AttentionLayer, view: &Prefixed, rotary: &Rotary) -> Tensor<2> {
    if !cpu::supported(&x.device()) {
        return composed::prefixed_self_attention(x, layer, view, rotary);
    }
    let plan = cpu::PrefixPlan::new(layer.heads, view, rotary);
    cpu::prefixed_layer(x, layer, plan)
}

pub(crate) fn attention(
    x: Tensor<2>,
    layer: AttentionLayer,
    queries: &Segments,
    memory: Option<(Tensor<2>, &Segments)>,
    bias: Option<&RelativeBias>,
) -> Tensor<2> {
    if !cpu::supported(&x.device()) {
        return composed::attention(x, layer, queries, memory, bias);
    }
    let (memory, keys) = memory.map(|(memory, keys)| (memory, keys.clone())).unzip();
    let position = bias.map(RelativeBias::position);
    let plan = Plan { heads: layer.heads[0], queries: queries.clone(), memory: keys, position };
    cpu::attention_layer(x, layer, plan, memory, bias)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tolerance};

    use super::*;
    use crate::index_tensor;

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 0.3), &Device::flex())
    }

    #[test]
    fn a_packed_batch_equals_its_segments_alone() {
        let table = random([32, 2]);
        let layer = AttentionLayer {
            norm: random([4]),
            epsilon: 1e-6,
            heads: [2, 2],
            q: random([6, 4]).into(),
            k: random([6, 4]).into(),
            v: random([6, 4]).into(),
            o: random([4, 6]).into(),
            head_norms: None,
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

    #[test]
    fn a_shared_prompt_equals_one_for_each_response() {
        let rotary = Rotary { frequencies: vec![1.0, 0.1], magnitude: 1.0 };
        let layer = AttentionLayer {
            norm: random([6]),
            epsilon: 1e-6,
            heads: [4, 2],
            q: random([16, 6]).into(),
            k: random([8, 6]).into(),
            v: random([8, 6]).into(),
            o: random([6, 16]).into(),
            head_norms: Some([random([4]), random([4])]),
        };
        let view = Prefixed {
            prompts: Segments::from_lengths([3, 2]),
            responses: Segments::from_lengths([2, 4, 1]),
            prompt_of: vec![0, 0, 1],
        };
        let x = random([12, 6]);
        assert_eq!(view.positions(), [0, 1, 2, 0, 1, 3, 4, 3, 4, 5, 6, 2]);
        let all = prefixed_self_attention(x.clone(), layer.clone(), &view, &rotary);
        for (i, &prompt) in view.prompt_of.iter().enumerate() {
            let own = view.responses.range(i);
            let rows: Vec<usize> = view.prompts.range(prompt).chain(own.start + 5..own.end + 5).collect();
            let pick = |x: &Tensor<2>| x.clone().select(0, index_tensor(rows.iter().copied(), &x.device()));
            let one = Prefixed {
                prompts: Segments::from_lengths([rows.len()]),
                responses: Segments::from_lengths([]),
                prompt_of: vec![],
            };
            let alone = prefixed_self_attention(pick(&x), layer.clone(), &one, &rotary);
            alone.into_data().assert_approx_eq::<f32>(&pick(&all).into_data(), Tolerance::absolute(1e-5));
        }
    }
}
