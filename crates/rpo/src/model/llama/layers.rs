//! The layers of a decoder-only block. Field names are the checkpoint's keys, which is what makes them findable by name.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use rpo_ops::{Gate, GatedFeedForward, Prefixed, gated_feed_forward, linear, prefixed_attention, rms_norm};

use super::config::{Config, Family};
use crate::error::Result;
use crate::model::t5::Linear;
use crate::model::weights::{Builder, Init};

/// A matrix with or without bias, stored `(outputs, inputs)`.
#[derive(Module, Debug)]
pub struct Projection {
    weight: Param<Tensor<2>>,
    bias: Option<Param<Tensor<1>>>,
}

impl Projection {
    fn new(mut at: Builder<'_>, [inputs, outputs]: [usize; 2], std: f64, biased: bool) -> Result<Self> {
        let weight = at.param("weight", [outputs, inputs], Init::Normal(std))?;
        let bias = if biased { Some(at.param("bias", [outputs], Init::Constant(0.0))?) } else { None };
        Ok(Self { weight, bias })
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let y = linear(x, self.weight.val());
        match &self.bias {
            Some(bias) => y + bias.val().unsqueeze(),
            None => y,
        }
    }
}

/// RMS norm.
#[derive(Module, Debug)]
pub struct Norm {
    weight: Param<Tensor<1>>,
    #[module(skip)]
    epsilon: f64,
}

impl Norm {
    pub(super) fn new(mut at: Builder<'_>, width: usize, config: &Config) -> Result<Self> {
        Ok(Self { weight: at.param("weight", [width], Init::Constant(1.0))?, epsilon: config.epsilon })
    }

    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        rms_norm(x, self.weight.val(), self.epsilon)
    }

    /// Every head of `(tokens, heads * width)` by itself.
    fn of_heads(&self, x: Tensor<2>) -> Tensor<2> {
        let ([tokens, inner], [width]) = (x.dims(), self.weight.val().dims());
        self.forward(x.reshape([tokens * inner / width, width])).reshape([tokens, inner])
    }
}

/// Grouped-query attention with rotary positions.
#[derive(Module, Debug)]
pub struct Attention {
    q_proj: Projection,
    k_proj: Projection,
    v_proj: Projection,
    o_proj: Projection,
    /// Of every head of the queries, where the family has it.
    q_norm: Option<Norm>,
    k_norm: Option<Norm>,
}

impl Attention {
    fn new(mut at: Builder<'_>, config: &Config) -> Result<Self> {
        let Config { d_model, head_width, initializer_range: std, biased, biased_output, .. } = *config;
        let (queries, keys) = (config.num_heads * head_width, config.num_key_heads * head_width);
        let normed = config.family == Family::Qwen3;
        let norm = |at: Builder<'_>| normed.then(|| Norm::new(at, head_width, config)).transpose();
        Ok(Self {
            q_norm: norm(at.at("q_norm"))?,
            k_norm: norm(at.at("k_norm"))?,
            q_proj: Projection::new(at.at("q_proj"), [d_model, queries], std, biased)?,
            k_proj: Projection::new(at.at("k_proj"), [d_model, keys], std, biased)?,
            v_proj: Projection::new(at.at("v_proj"), [d_model, keys], std, biased)?,
            o_proj: Projection::new(at.at("o_proj"), [queries, d_model], std, biased_output)?,
        })
    }

    /// Queries, keys and values of normalised tokens, before they are turned by their positions.
    pub(super) fn project(&self, h: Tensor<2>) -> [Tensor<2>; 3] {
        let normed = |norm: &Option<Norm>, x: Tensor<2>| match norm {
            Some(norm) => norm.of_heads(x),
            None => x,
        };
        let q = normed(&self.q_norm, self.q_proj.forward(h.clone()));
        let k = normed(&self.k_norm, self.k_proj.forward(h.clone()));
        [q, k, self.v_proj.forward(h)]
    }

    /// `(tokens, heads * width)` back to `(tokens, d_model)`.
    pub(super) fn output(&self, x: Tensor<2>) -> Tensor<2> {
        self.o_proj.forward(x)
    }
}

/// Feed-forward layer with a gate (SwiGLU).
#[derive(Module, Debug)]
#[allow(clippy::struct_field_names, reason = "the checkpoint's keys")]
pub struct FeedForward {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

/// Attention and feed-forward layer, each normalised before and added to the residual stream after.
#[derive(Module, Debug)]
pub struct Block {
    input_layernorm: Norm,
    self_attn: Attention,
    post_attention_layernorm: Norm,
    mlp: FeedForward,
}

impl Block {
    pub(super) fn new(mut at: Builder<'_>, config: &Config) -> Result<Self> {
        let Config { d_model, d_ff, initializer_range: std, .. } = *config;
        let mut mlp = at.at("mlp");
        let mlp = FeedForward {
            gate_proj: Linear::new(mlp.at("gate_proj"), d_model, d_ff, std)?,
            up_proj: Linear::new(mlp.at("up_proj"), d_model, d_ff, std)?,
            down_proj: Linear::new(mlp.at("down_proj"), d_ff, d_model, std)?,
        };
        Ok(Self {
            input_layernorm: Norm::new(at.at("input_layernorm"), d_model, config)?,
            self_attn: Attention::new(at.at("self_attn"), config)?,
            post_attention_layernorm: Norm::new(at.at("post_attention_layernorm"), d_model, config)?,
            mlp,
        })
    }

    /// `(tokens, d_model)` through the block, the tokens lying as `view` says.
    pub(super) fn forward(&self, x: Tensor<2>, view: &Prefixed, config: &Config) -> Tensor<2> {
        self.around(x, |attention, h| {
            let [q, k, v] = attention.project(h);
            let heads = [config.num_heads, config.num_key_heads];
            attention.output(prefixed_attention(q, k, v, heads, view, &config.rotary))
        })
    }

    /// The block around what `attend` makes of the normalised tokens.
    pub(super) fn around(&self, x: Tensor<2>, attend: impl FnOnce(&Attention, Tensor<2>) -> Tensor<2>) -> Tensor<2> {
        let x = x.clone() + attend(&self.self_attn, self.input_layernorm.forward(x));
        let Norm { weight, epsilon } = &self.post_attention_layernorm;
        let [gate, up, down] =
            [&self.mlp.gate_proj, &self.mlp.up_proj, &self.mlp.down_proj].map(|matrix| matrix.weight.val());
        let layer = GatedFeedForward { norm: weight.val(), epsilon: *epsilon, activation: Gate::Silu, gate, up, down };
        gated_feed_forward(x, layer)
    }
}
