//! A decoder-only model packed for decoding.

use rpo_ops::Gate;
use rpo_ops::decode::{
    AttentionWeights, FeedForwardWeights, Head, Inward, LayerWeights, Map, NormWeights, Position, Precision, Stack,
};

use super::config::{Config, Family};
use crate::error::Result;
use crate::model::packed::{Names, PackedModel};
use crate::model::weights::Weights;

/// The model that `config` describes.
///
/// # Errors
/// If a tensor is missing or has another shape.
pub(in crate::model) fn packed(
    config: &Config,
    weights: &mut dyn Weights,
    precision: Precision,
) -> Result<PackedModel> {
    let mut root = Names::new(weights);
    let table = [config.vocab_size, config.d_model];
    let mut at = root.at("model");
    let embeddings = Head::new(config.d_model, &at.at("embed_tokens").get("weight", &table)?, precision);
    let last = norm(at.at("norm"), config)?;
    let layers = (0..config.num_layers).map(|i| layer(at.at(format!("layers.{i}")), config));
    let position = Position::Rotary(config.rotary.clone());
    let decoder = Stack::new(config.d_model, layers, last, 1.0, true, position, precision)?;
    let head = match config.tie_word_embeddings {
        true => None,
        false => Some(Head::new(config.d_model, &root.at("lm_head").get("weight", &table)?, precision)),
    };
    Ok(PackedModel::from_parts(None, decoder, embeddings, head))
}

fn layer(mut at: Names<'_>, config: &Config) -> Result<LayerWeights> {
    let Config { d_model, d_ff, head_width, num_heads, num_key_heads, biased, biased_output, .. } = *config;
    let (queries, keys) = (num_heads * head_width, num_key_heads * head_width);
    let norm_before = norm(at.at("input_layernorm"), config)?;
    let mut of_attention = at.at("self_attn");
    let mut map = |name, [outputs, inputs]: [usize; 2], biased| -> Result<Map> {
        let mut at = of_attention.at(name);
        let bias = if biased { Some(at.get("bias", &[outputs])?) } else { None };
        Ok(Map { weight: at.get("weight", &[outputs, inputs])?, bias })
    };
    let q = map("q_proj", [queries, d_model], biased)?;
    let k = map("k_proj", [keys, d_model], biased)?;
    let v = map("v_proj", [keys, d_model], biased)?;
    let o = map("o_proj", [d_model, queries], biased_output)?;
    let mut head_norm = |name| of_attention.at(name).get("weight", &[head_width]);
    let head_norms = match config.family {
        Family::Qwen3 => Some([head_norm("q_norm")?, head_norm("k_norm")?]),
        Family::Llama | Family::Qwen2 => None,
    };
    let attention = AttentionWeights {
        norm: norm_before,
        heads: [num_heads, num_key_heads],
        q,
        k,
        v,
        o,
        head_norms,
        scale: (head_width as f32).powf(-0.5),
    };
    let norm = norm(at.at("post_attention_layernorm"), config)?;
    let mut mlp = at.at("mlp");
    let mut map = |name, shape: [usize; 2]| mlp.at(name).get("weight", &shape);
    let inward = Inward::Gated {
        activation: Gate::Silu,
        gate: map("gate_proj", [d_ff, d_model])?,
        up: map("up_proj", [d_ff, d_model])?,
    };
    let feed_forward = FeedForwardWeights { norm, inward, down: map("down_proj", [d_model, d_ff])? };
    Ok(LayerWeights { attention, memory: None, feed_forward })
}

fn norm(mut at: Names<'_>, config: &Config) -> Result<NormWeights> {
    Ok(NormWeights { weight: at.get("weight", &[config.d_model])?, epsilon: config.epsilon })
}
