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

/// What the factors of a product of matrices are rounded to. Sums are in f32 whatever it is, as is all that is no product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compute {
    /// They are not.
    #[default]
    F32,
    /// To bfloat16 (weights by [`dither`](crate::dither)), on the CPU where its processor multiplies that (see [`crate::computes_bf16`]), and so is what the gradients
    /// need of the forward pass. Elsewhere as [`Self::F32`].
    Bf16,
}

/// A linear map `x weight^T + bias`, or `x (weight + scale b a)^T + bias` with an adapter.
#[derive(Clone, Debug)]
pub struct Affine {
    /// `(outputs, inputs)`.
    pub weight: Tensor<2>,
    /// `(outputs)`.
    pub bias: Option<Tensor<1>>,
    /// What is added to the matrix.
    pub adapter: Option<Adapter>,
    /// What its products are computed in.
    pub compute: Compute,
}

/// A change of a matrix of low rank, `scale b a` (LoRA, arXiv 2106.09685).
#[derive(Clone, Debug)]
pub struct Adapter {
    /// `(rank, inputs)`.
    pub a: Tensor<2>,
    /// `(outputs, rank)`.
    pub b: Tensor<2>,
    /// By what the product is multiplied.
    pub scale: f64,
}

impl From<Tensor<2>> for Affine {
    /// The map by a matrix alone.
    fn from(weight: Tensor<2>) -> Self {
        Self { weight, bias: None, adapter: None, compute: Compute::F32 }
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
    /// From `d_model` to `d_ff`.
    pub gate: Affine,
    /// From `d_model` to `d_ff`.
    pub up: Affine,
    /// From `d_ff` to `d_model`.
    pub down: Affine,
}

/// Parameters of an attention layer.
#[derive(Clone, Debug)]
pub struct AttentionLayer {
    /// Weight of the norm, `(d_model)`.
    pub norm: Tensor<1>,
    /// Added to the mean square in all norms.
    pub epsilon: f64,
    /// Number of heads of the queries, and of keys and values, each of which serves as many of the queries.
    pub heads: [usize; 2],
    /// From `d_model` to the queries, `heads * width`.
    pub q: Affine,
    /// From `d_model` to the keys, `key heads * width`.
    pub k: Affine,
    /// From `d_model` to the values, as many.
    pub v: Affine,
    /// From `heads * width` to `d_model`.
    pub o: Affine,
    /// Weights of the norms of each head of the queries and of the keys, `(width)`.
    pub head_norms: Option<[Tensor<1>; 2]>,
}
