//! Attention of a decoder-only model over packed prompts and their responses: every prompt's tokens pass once for all its
//! responses.

use burn::tensor::Tensor;

use crate::plan::Prefixed;
use crate::rotary::Rotary;
use crate::{composed, cpu};

/// `softmax(q k^T / sqrt(width)) v`, heads apart, queries and keys turned by their positions: each token of a prompt sees those of its prompt up to itself, each token of a
/// response all of its prompt and those of its response up to itself.
///
/// `q` is `(tokens, heads * width)`; `k` and `v` are `(tokens, key_heads * width)`, each of whose heads serves `heads /
/// key_heads` heads of the queries. The result is like `q`.
pub fn prefixed_attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    heads: [usize; 2],
    view: &Prefixed,
    rotary: &Rotary,
) -> Tensor<2> {
    if !cpu::supported(&q.device()) {
        return composed::prefixed_attention(q, k, &v, heads, view, rotary);
    }
    cpu::prefixed_attention([q, k, v], cpu::PrefixPlan::new(heads, view, rotary))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tolerance};

    use super::*;
    use crate::{Segments, index_tensor};

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
        let all = prefixed_attention(q.clone(), k.clone(), v.clone(), heads, &view, &rotary);
        for (i, &prompt) in view.prompt_of.iter().enumerate() {
            let own = view.responses.range(i);
            let rows: Vec<usize> = view.prompts.range(prompt).chain(own.start + 5..own.end + 5).collect();
            let pick = |x: &Tensor<2>| x.clone().select(0, index_tensor(rows.iter().copied(), &x.device()));
            let one = Prefixed {
                prompts: Segments::from_lengths([rows.len()]),
                responses: Segments::from_lengths([]),
                prompt_of: vec![],
            };
            let alone = prefixed_attention(pick(&q), pick(&k), pick(&v), heads, &one, &rotary);
            alone.into_data().assert_approx_eq::<f32>(&pick(&all).into_data(), Tolerance::absolute(1e-5));
        }
    }
}
