//! The layers of a T5 block. Field names are the checkpoint's keys, which is what makes them findable by name.

#![allow(non_snake_case, reason = "the checkpoint's keys")]

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use rpo_ops::{
    AttentionLayer, Gate, GatedFeedForward, RelativeBias, Segments, cross_attention, gated_feed_forward, relu,
    rms_norm, self_attention,
};

use super::config::{Config, FeedForward};
use crate::error::Result;
use crate::model::linear::{self, Linear, Visit};
use crate::model::weights::{Builder, Init};

/// T5's RMS norm.
#[derive(Module, Debug)]
pub struct LayerNorm {
    weight: Param<Tensor<1>>,
    #[module(skip)]
    epsilon: f64,
}

impl LayerNorm {
    pub(crate) fn new(mut at: Builder<'_>, config: &Config) -> Result<Self> {
        let weight = at.param("weight", [config.d_model], Init::Constant(config.initializer_factor))?;
        Ok(Self { weight, epsilon: config.layer_norm_epsilon })
    }

    /// Normalises each token of `(tokens, d_model)`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        rms_norm(x, self.weight.val(), self.epsilon)
    }
}

/// Multi-head attention; the first layer of a stack, or every one, also owns a table of relative position biases.
#[derive(Module, Debug)]
pub struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    relative_attention_bias: Option<Linear>,
    #[module(skip)]
    pub(crate) heads: usize,
}

impl Attention {
    pub(crate) fn new(mut at: Builder<'_>, config: &Config, with_bias: bool) -> Result<Self> {
        let Config { d_model, d_kv, num_heads: heads, initializer_factor: factor, .. } = *config;
        let inner = heads * d_kv;
        let std = factor * (d_model as f64).powf(-0.5);
        let buckets = config.relative_attention_num_buckets;
        Ok(Self {
            q: Linear::new(at.at("q"), [d_model, inner], factor * ((d_model * d_kv) as f64).powf(-0.5))?,
            k: Linear::new(at.at("k"), [d_model, inner], std)?,
            v: Linear::new(at.at("v"), [d_model, inner], std)?,
            o: Linear::new(at.at("o"), [inner, d_model], factor * (inner as f64).powf(-0.5))?,
            // A table of (buckets, heads), of the same form as a matrix that maps heads to buckets.
            relative_attention_bias: match with_bias {
                true => Some(Linear::new(at.at("relative_attention_bias"), [heads, buckets], std)?),
                false => None,
            },
            heads,
        })
    }

    /// The position bias, if this layer has the table: in T5 and mT5 the first of a stack, in umT5 every one.
    pub(crate) fn bias(&self, max_distance: usize, causal: bool) -> Option<RelativeBias> {
        let table = self.relative_attention_bias.as_ref()?;
        Some(RelativeBias::new(table.table(), max_distance, causal))
    }

    /// Queries `(query tokens, inner)` of a residual stream.
    pub(crate) fn queries(&self, x: Tensor<2>) -> Tensor<2> {
        self.q.forward(x)
    }

    /// Keys and values `(key tokens, inner)` of what is attended to.
    pub(crate) fn keys_values(&self, x: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        (self.k.forward(x.clone()), self.v.forward(x))
    }

    /// `(tokens, inner)` back to `(tokens, d_model)`.
    pub(crate) fn output(&self, x: Tensor<2>) -> Tensor<2> {
        self.o.forward(x)
    }

    fn visit_maps(&mut self, at: &str, visit: Visit<'_>) -> Result<()> {
        let Self { q, k, v, o, .. } = self;
        linear::visit(at, [("q", q), ("k", k), ("v", v), ("o", o)], visit)
    }

    /// The whole layer with the norm before it.
    fn layer(&self, norm: &LayerNorm) -> AttentionLayer {
        let [q, k, v, o] = [&self.q, &self.k, &self.v, &self.o].map(Linear::affine);
        let (norm, epsilon, heads) = (norm.weight.val(), norm.epsilon, [self.heads; 2]);
        AttentionLayer { norm, epsilon, heads, q, k, v, o, head_norms: None }
    }
}

/// Attention of a stack to itself, normalised before and added to the residual stream after.
#[derive(Module, Debug)]
pub struct SelfAttentionLayer {
    pub(crate) SelfAttention: Attention,
    pub(crate) layer_norm: LayerNorm,
}

impl SelfAttentionLayer {
    /// Visits its linear maps; `at` is its name.
    pub(super) fn visit_maps(&mut self, at: &str, visit: Visit<'_>) -> Result<()> {
        self.SelfAttention.visit_maps(&format!("{at}.SelfAttention"), visit)
    }

    pub(crate) fn new(mut at: Builder<'_>, config: &Config, with_bias: bool) -> Result<Self> {
        Ok(Self {
            SelfAttention: Attention::new(at.at("SelfAttention"), config, with_bias)?,
            layer_norm: LayerNorm::new(at.at("layer_norm"), config)?,
        })
    }

    /// `x + attention(norm(x))`.
    pub fn forward(&self, x: Tensor<2>, segments: &Segments, bias: &RelativeBias) -> Tensor<2> {
        self_attention(x, self.SelfAttention.layer(&self.layer_norm), segments, bias)
    }
}

/// Attention of the decoder to the encoder.
#[derive(Module, Debug)]
pub struct CrossAttentionLayer {
    pub(crate) EncDecAttention: Attention,
    pub(crate) layer_norm: LayerNorm,
}

impl CrossAttentionLayer {
    /// Visits its linear maps; `at` is its name.
    pub(super) fn visit_maps(&mut self, at: &str, visit: Visit<'_>) -> Result<()> {
        self.EncDecAttention.visit_maps(&format!("{at}.EncDecAttention"), visit)
    }

    pub(crate) fn new(mut at: Builder<'_>, config: &Config) -> Result<Self> {
        Ok(Self {
            EncDecAttention: Attention::new(at.at("EncDecAttention"), config, false)?,
            layer_norm: LayerNorm::new(at.at("layer_norm"), config)?,
        })
    }

    /// `x + attention(norm(x), memory)`: position does not matter here, so that all the responses of a prompt form one
    /// segment of queries and its keys and values are computed once.
    pub fn forward(&self, x: Tensor<2>, queries: &Segments, memory: Tensor<2>, keys: &Segments) -> Tensor<2> {
        cross_attention(x, self.EncDecAttention.layer(&self.layer_norm), queries, memory, keys)
    }
}

/// The feed-forward matrices of either kind.
#[derive(Module, Debug)]
pub struct Dense {
    wi: Option<Linear>,
    wi_0: Option<Linear>,
    wi_1: Option<Linear>,
    wo: Linear,
}

impl Dense {
    fn new(mut at: Builder<'_>, config: &Config) -> Result<Self> {
        let Config { d_model, d_ff, initializer_factor: factor, feed_forward, .. } = *config;
        let gated = feed_forward == FeedForward::GatedGelu;
        let std = factor * (d_model as f64).powf(-0.5);
        let mut inward = |name, present| match present {
            true => Linear::new(at.at(name), [d_model, d_ff], std).map(Some),
            false => Ok(None),
        };
        Ok(Self {
            wi: inward("wi", !gated)?,
            wi_0: inward("wi_0", gated)?,
            wi_1: inward("wi_1", gated)?,
            wo: Linear::new(at.at("wo"), [d_ff, d_model], factor * (d_ff as f64).powf(-0.5))?,
        })
    }
}

/// Feed-forward layer with its norm and residual.
#[derive(Module, Debug)]
pub struct FeedForwardLayer {
    DenseReluDense: Dense,
    layer_norm: LayerNorm,
}

impl FeedForwardLayer {
    /// Visits its linear maps; `at` is its name.
    pub(super) fn visit_maps(&mut self, at: &str, visit: Visit<'_>) -> Result<()> {
        let Dense { wi, wi_0, wi_1, wo } = &mut self.DenseReluDense;
        let inward = [("wi", wi), ("wi_0", wi_0), ("wi_1", wi_1)];
        let maps = inward.into_iter().filter_map(|(name, map)| map.as_mut().map(|map| (name, map)));
        linear::visit(&format!("{at}.DenseReluDense"), maps.chain([("wo", wo)]), visit)
    }

    pub(crate) fn new(mut at: Builder<'_>, config: &Config) -> Result<Self> {
        Ok(Self {
            DenseReluDense: Dense::new(at.at("DenseReluDense"), config)?,
            layer_norm: LayerNorm::new(at.at("layer_norm"), config)?,
        })
    }

    /// `x + dense(norm(x))`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let Dense { wi, wi_0, wi_1, wo } = &self.DenseReluDense;
        match (wi, wi_0, wi_1) {
            (None, Some(gate), Some(up)) => {
                let (norm, epsilon) = (self.layer_norm.weight.val(), self.layer_norm.epsilon);
                let [gate, up, down] = [gate, up, wo].map(Linear::affine);
                gated_feed_forward(x, GatedFeedForward { activation: Gate::Gelu, norm, epsilon, gate, up, down })
            }
            (Some(wi), None, None) => x.clone() + wo.forward(relu(wi.forward(self.layer_norm.forward(x)))),
            _ => unreachable!("built with either `wi` or `wi_0` and `wi_1`"),
        }
    }
}
