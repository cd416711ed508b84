//! A T5 packed for decoding.

use rpo_ops::Gate;
use rpo_ops::decode::{
    AttentionWeights, Bias, FeedForwardWeights, Head, Inward, LayerWeights, Map, NormWeights, Position, Precision,
    Stack,
};

use super::config::{Config, Family, FeedForward};
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
    let embeddings = Head::new(config.d_model, &root.at("shared").get("weight", &table)?, precision);
    let encoder = stack(root.at("encoder"), config, false, precision)?;
    let decoder = stack(root.at("decoder"), config, true, precision)?;
    let head = match config.tie_word_embeddings {
        true => None,
        false => Some(Head::new(config.d_model, &root.at("lm_head").get("weight", &table)?, precision)),
    };
    Ok(PackedModel::from_parts(Some(encoder), decoder, embeddings, head))
}

fn stack(mut at: Names<'_>, config: &Config, decodes: bool, precision: Precision) -> Result<Stack> {
    let blocks = if decodes { config.num_decoder_layers } else { config.num_layers };
    let scale = match decodes && config.scale_decoder_outputs {
        true => (config.d_model as f32).powf(-0.5),
        false => 1.0,
    };
    let buckets = config.relative_attention_num_buckets;
    let owners = if config.family == Family::Umt5 { blocks } else { blocks.min(1) };
    let bias = |block| -> Result<Bias> {
        let mut attention = at.at(format!("block.{block}.layer.0.SelfAttention.relative_attention_bias"));
        let table = attention.get("weight", &[buckets, config.num_heads])?;
        Ok(Bias { table, buckets, max_distance: config.relative_attention_max_distance })
    };
    let biases = (0..owners).map(bias).collect::<Result<_>>()?;
    let norm = norm(at.at("final_layer_norm"), config)?;
    let layers = (0..blocks).map(|block| layer(at.at(format!("block.{block}.layer")), config, decodes));
    Stack::new(config.d_model, layers, norm, scale, decodes, Position::Bias(biases), precision)
}

fn layer(mut at: Names<'_>, config: &Config, decodes: bool) -> Result<LayerWeights> {
    let last = if decodes { 2 } else { 1 };
    Ok(LayerWeights {
        attention: attention(at.at(0), "SelfAttention", config)?,
        memory: if decodes { Some(attention(at.at(1), "EncDecAttention", config)?) } else { None },
        feed_forward: feed_forward(at.at(last), config)?,
    })
}

fn attention(mut at: Names<'_>, name: &str, config: &Config) -> Result<AttentionWeights> {
    let norm = norm(at.at("layer_norm"), config)?;
    let mut at = at.at(name);
    let inner = config.num_heads * config.d_kv;
    let mut map =
        |name, shape: [usize; 2]| -> Result<Map> { Ok(Map { weight: at.at(name).get("weight", &shape)?, bias: None }) };
    Ok(AttentionWeights {
        norm,
        heads: [config.num_heads; 2],
        q: map("q", [inner, config.d_model])?,
        k: map("k", [inner, config.d_model])?,
        v: map("v", [inner, config.d_model])?,
        o: map("o", [config.d_model, inner])?,
        head_norms: None,
        scale: 1.0,
    })
}

fn feed_forward(mut at: Names<'_>, config: &Config) -> Result<FeedForwardWeights> {
    let norm = norm(at.at("layer_norm"), config)?;
    let mut at = at.at("DenseReluDense");
    let mut map = |name, shape: [usize; 2]| at.at(name).get("weight", &shape);
    let Config { d_model, d_ff, .. } = *config;
    let inward = match config.feed_forward {
        FeedForward::GatedGelu => Inward::Gated {
            activation: Gate::Gelu,
            gate: map("wi_0", [d_ff, d_model])?,
            up: map("wi_1", [d_ff, d_model])?,
        },
        FeedForward::Relu => Inward::Relu(map("wi", [d_ff, d_model])?),
    };
    Ok(FeedForwardWeights { norm, inward, down: map("wo", [d_model, d_ff])? })
}

fn norm(mut at: Names<'_>, config: &Config) -> Result<NormWeights> {
    Ok(NormWeights { weight: at.get("weight", &[config.d_model])?, epsilon: config.layer_norm_epsilon })
}
