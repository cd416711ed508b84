//! What the layers are made of.

use burn::tensor::Tensor;

/// What a gate's values go through. Both are `x sigmoid(scale x (1 + cubic x^2))`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// `gelu_new(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`, which is `x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3))`.
    Gelu,
    /// `silu(x) = x sigmoid(x)` (SwiGLU, arXiv 2002.05202).
    Silu,
}

impl Gate {
    /// `scale` and `cubic`.
    pub(crate) fn coefficients(self) -> [f32; 2] {
        match self {
            // 2 sqrt(2 / pi).
            Self::Gelu => [1.595_769, 0.044_715],
            Self::Silu => [1.0, 0.0],
        }
    }
}

/// Parameters of a feed-forward layer with a gate.
#[derive(Clone, Debug)]
pub struct GatedFeedForward {
    /// Weight of the norm, `(d_model)`.
    pub norm: Tensor<1>,
    /// Added to the mean square in the norm.
    pub epsilon: f64,
    /// What the gate's values go through.
    pub activation: Gate,
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
