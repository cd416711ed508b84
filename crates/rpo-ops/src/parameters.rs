//! What the layers are made of.

use burn::tensor::Tensor;

/// Parameters of a feed-forward layer with a gate.
#[derive(Clone, Debug)]
pub struct GatedFeedForward {
    /// Weight of the norm, `(d_model)`.
    pub norm: Tensor<1>,
    /// Added to the mean square in the norm.
    pub epsilon: f64,
    /// `(d_ff, d_model)`.
    pub gate: Tensor<2>,
    /// `(d_ff, d_model)`.
    pub up: Tensor<2>,
    /// `(d_model, d_ff)`.
    pub down: Tensor<2>,
}

/// Parameters of an attention layer.
#[derive(Clone, Debug)]
pub struct AttentionLayer {
    /// Weight of the norm, `(d_model)`.
    pub norm: Tensor<1>,
    /// Added to the mean square in the norm.
    pub epsilon: f64,
    /// Number of heads.
    pub heads: usize,
    /// Matrix of the queries, `(heads * d_kv, d_model)`.
    pub q: Tensor<2>,
    /// Matrix of the keys, of the same shape.
    pub k: Tensor<2>,
    /// Matrix of the values, of the same shape.
    pub v: Tensor<2>,
    /// Matrix of the output, `(d_model, heads * d_kv)`.
    pub o: Tensor<2>,
}
