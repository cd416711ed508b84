//! The layers of a decoder-only block. Field names are the checkpoint's keys, which is what makes them findable by name.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use rpo_ops::{
    AttentionLayer, Gate, GatedFeedForward, Prefixed, gated_feed_forward, prefixed_self_attention, rms_norm,
};

use super::config::{Config, Family};
use crate::error::Result;
use crate::model::linear::{self, Linear, Visit};
use crate::model::weights::{Builder, Init};

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
}

/// Every head of `(tokens, heads * width)` by itself through `norm`, if there is one.
fn normed(norm: Option<&Norm>, x: Tensor<2>) -> Tensor<2> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}

/// Grouped-query attention with rotary positions.
#[derive(Module, Debug)]
pub struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    /// Of every head of the queries, where the family has it.
    q_norm: Option<Norm>,
    k_norm: Option<Norm>,
}

impl Attention {
    fn new(mut at: Builder<'_>, config: &Config) -> Result<Self> {
        let Config { d_model, head_width, initializer_range, biased, biased_output, .. } = *config;
        let init = Init::Normal(initializer_range);
        let (queries, keys) = (config.num_heads * head_width, config.num_key_heads * head_width);
        let normed = config.family == Family::Qwen3;
        let norm = |at: Builder<'_>| normed.then(|| Norm::new(at, head_width, config)).transpose();
        Ok(Self {
            q_norm: norm(at.at("q_norm"))?,
            k_norm: norm(at.at("k_norm"))?,
            q_proj: Linear::biased(at.at("q_proj"), [d_model, queries], init, biased)?,
            k_proj: Linear::biased(at.at("k_proj"), [d_model, keys], init, biased)?,
            v_proj: Linear::biased(at.at("v_proj"), [d_model, keys], init, biased)?,
            o_proj: Linear::biased(at.at("o_proj"), [queries, d_model], init, biased_output)?,
        })
    }

    /// Queries of normalised tokens, before they are turned by their positions.
    pub(super) fn queries(&self, h: Tensor<2>) -> Tensor<2> {
        normed(self.q_norm.as_ref(), self.q_proj.forward(h))
    }

    /// Keys, before they are turned, and values.
    pub(super) fn keys_values(&self, h: Tensor<2>) -> [Tensor<2>; 2] {
        [normed(self.k_norm.as_ref(), self.k_proj.forward(h.clone())), self.v_proj.forward(h)]
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
            gate_proj: Linear::new(mlp.at("gate_proj"), [d_model, d_ff], std)?,
            up_proj: Linear::new(mlp.at("up_proj"), [d_model, d_ff], std)?,
            down_proj: Linear::new(mlp.at("down_proj"), [d_ff, d_model], std)?,
        };
        Ok(Self {
            input_layernorm: Norm::new(at.at("input_layernorm"), d_model, config)?,
            self_attn: Attention::new(at.at("self_attn"), config)?,
            post_attention_layernorm: Norm::new(at.at("post_attention_layernorm"), d_model, config)?,
            mlp,
        })
    }

    /// Visits the block's linear maps; `at` is its name.
    pub(super) fn visit_maps(&mut self, at: &str, visit: Visit<'_>) -> Result<()> {
        let Attention { q_proj: q, k_proj: k, v_proj: v, o_proj: o, .. } = &mut self.self_attn;
        let of_attention = [("q_proj", q), ("k_proj", k), ("v_proj", v), ("o_proj", o)];
        linear::visit(&format!("{at}.self_attn"), of_attention, visit)?;
        let FeedForward { gate_proj: gate, up_proj: up, down_proj: down } = &mut self.mlp;
        linear::visit(&format!("{at}.mlp"), [("gate_proj", gate), ("up_proj", up), ("down_proj", down)], visit)
    }

    /// `(tokens, d_model)` through the block, the tokens lying as `view` says.
    pub(super) fn forward(&self, x: Tensor<2>, view: &Prefixed, config: &Config) -> Tensor<2> {
        let Attention { q_proj, k_proj, v_proj, o_proj, q_norm, k_norm } = &self.self_attn;
        let [q, k, v, o] = [q_proj, k_proj, v_proj, o_proj].map(Linear::affine);
        let Norm { weight, epsilon } = &self.input_layernorm;
        let layer = AttentionLayer {
            norm: weight.val(),
            epsilon: *epsilon,
            heads: [config.num_heads, config.num_key_heads],
            q,
            k,
            v,
            o,
            head_norms: q_norm.as_ref().zip(k_norm.as_ref()).map(|(q, k)| [q.weight.val(), k.weight.val()]),
        };
        self.feed_forward(prefixed_self_attention(x, layer, view, &config.rotary))
    }

    /// The block around what `attend` makes of the normalised tokens.
    pub(super) fn around(&self, x: Tensor<2>, attend: impl FnOnce(&Attention, Tensor<2>) -> Tensor<2>) -> Tensor<2> {
        let mixed = attend(&self.self_attn, self.input_layernorm.forward(x.clone()));
        self.feed_forward(x + mixed)
    }

    /// Keys, before they are turned, and values of the residual stream.
    pub(super) fn keys_values(&self, x: Tensor<2>) -> [Tensor<2>; 2] {
        self.self_attn.keys_values(self.input_layernorm.forward(x))
    }

    /// The block's second layer.
    fn feed_forward(&self, x: Tensor<2>) -> Tensor<2> {
        let FeedForward { gate_proj, up_proj, down_proj } = &self.mlp;
        let Norm { weight, epsilon } = &self.post_attention_layernorm;
        let [gate, up, down] = [gate_proj, up_proj, down_proj].map(Linear::affine);
        let layer = GatedFeedForward { norm: weight.val(), epsilon: *epsilon, activation: Gate::Silu, gate, up, down };
        gated_feed_forward(x, layer)
    }
}
