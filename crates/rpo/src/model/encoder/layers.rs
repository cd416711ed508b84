//! The layers of an encoder, for reading and never for training.

use burn::tensor::Tensor;
use rpo_ops::{LayerNorm, Segments, add_norm, gelu, relu, scaled_attention};

use super::config::{Activation, Config, Family};
use crate::error::Result;
use crate::model::linear::Linear;
use crate::model::weights::{Builder, Init};

/// Of a fresh initialisation.
pub(super) const FRESH: Init = Init::Normal(0.02);

/// A map with a bias.
pub(super) fn map(at: Builder<'_>, shape: [usize; 2]) -> Result<Linear> {
    Linear::biased(at, shape, FRESH, true)
}

pub(super) fn norm(mut at: Builder<'_>, config: &Config) -> Result<LayerNorm> {
    Ok(LayerNorm {
        weight: at.param("weight", [config.d_model], Init::Constant(1.0))?.val(),
        bias: at.param("bias", [config.d_model], Init::Constant(0.0))?.val(),
        epsilon: config.epsilon,
    })
}

/// Attention, then a feed-forward layer, each followed by the residual add and a norm.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    norm: LayerNorm,
}

/// The names of a layer's parts in the order of [`Layer`].
const BERT: [&str; 8] = [
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
];
const DISTILBERT: [&str; 8] = [
    "attention.q_lin",
    "attention.k_lin",
    "attention.v_lin",
    "attention.out_lin",
    "sa_layer_norm",
    "ffn.lin1",
    "ffn.lin2",
    "output_layer_norm",
];

impl Layer {
    pub(super) fn new(mut at: Builder<'_>, config: &Config) -> Result<Self> {
        let Config { d_model, d_ff, .. } = *config;
        let [query, key, value, output, attention_norm, up, down, last] = match config.family {
            Family::Bert | Family::Roberta => BERT,
            Family::DistilBert => DISTILBERT,
        };
        Ok(Self {
            query: map(at.at(query), [d_model; 2])?,
            key: map(at.at(key), [d_model; 2])?,
            value: map(at.at(value), [d_model; 2])?,
            output: map(at.at(output), [d_model; 2])?,
            attention_norm: norm(at.at(attention_norm), config)?,
            up: map(at.at(up), [d_model, d_ff])?,
            down: map(at.at(down), [d_ff, d_model])?,
            norm: norm(at.at(last), config)?,
        })
    }

    /// `(tokens, d_model)` to the same.
    pub(super) fn forward(&self, x: Tensor<2>, config: &Config, segments: &Segments) -> Tensor<2> {
        let [q, k, v] = [&self.query, &self.key, &self.value].map(|map| map.forward(x.clone()));
        let mixed = scaled_attention(q, k, v, config.heads, segments);
        let x = add_norm(self.output.forward(mixed), x, self.attention_norm.clone());
        let middle = self.up.forward(x.clone());
        let middle = match config.activation {
            Activation::Gelu => gelu(middle),
            Activation::Relu => relu(middle),
        };
        add_norm(self.down.forward(middle), x, self.norm.clone())
    }
}
