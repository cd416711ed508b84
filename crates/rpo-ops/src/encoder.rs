//! What encoders of BERT's kind are made of beside linear maps (arXiv 1810.04805): a norm after the residual add, GELU, and attention
//! of every token to all of its own segment; and how tokens of two texts match best.

use burn::tensor::Tensor;

use crate::cpu::{max, product, vectorised};
use crate::{Segments, composed, cpu};

/// Parameters of a layer norm (arXiv 1607.06450).
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// `(features)`.
    pub weight: Tensor<1>,
    /// `(features)`.
    pub bias: Tensor<1>,
    /// Added to the variance.
    pub epsilon: f64,
}

/// `(s - mean(s)) / sqrt(variance(s) + epsilon) * weight + bias` with `s = x + residual`, token by token. All are
/// `(tokens, features)`.
pub fn add_norm(x: Tensor<2>, residual: Tensor<2>, norm: LayerNorm) -> Tensor<2> {
    match cpu::supported(&x.device()) {
        true => cpu::add_norm(x, residual, norm),
        false => composed::add_norm(x, residual, norm),
    }
}

/// `x Phi(x)` with the normal distribution's `Phi`, exact to single precision and not by a hyperbolic tangent (arXiv 1606.08415).
pub fn gelu(x: Tensor<2>) -> Tensor<2> {
    match cpu::supported(&x.device()) {
        true => cpu::gelu(x),
        false => composed::gelu(x),
    }
}

/// `softmax(q k^T / sqrt(width)) v` for each of `heads` heads: every token attends to those of its own segment. All are
/// `(tokens, heads * width)`.
pub fn scaled_attention(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, heads: usize, segments: &Segments) -> Tensor<2> {
    match cpu::supported(&q.device()) {
        true => cpu::scaled_attention(q, k, v, heads, segments),
        false => composed::scaled_attention(q, k, v, heads, segments),
    }
}

/// The largest product of each row of `a` with any row of `b`, and of each row of `b` with any of `a`; rows have `width` values.
///
/// # Panics
/// If a slice is empty or no whole number of rows.
pub fn best_matches(a: &[f32], b: &[f32], width: usize) -> [Vec<f32>; 2] {
    let rows = |x: &[f32]| {
        assert!(!x.is_empty() && x.len().is_multiple_of(width), "rows of {width} values were expected");
        x.len() / width
    };
    let (n, m) = (rows(a), rows(b));
    let products = product(a, b, width);
    vectorised(
        #[inline(always)]
        || {
            let mut of_b = vec![f32::NEG_INFINITY; m];
            let mut of_a = Vec::with_capacity(n);
            for row in products.chunks_exact(m) {
                of_a.push(max(row));
                for (best, value) in of_b.iter_mut().zip(row) {
                    *best = if *value > *best { *value } else { *best };
                }
            }
            [of_a, of_b]
        },
    )
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tolerance};

    use super::*;

    #[test]
    fn a_norm_by_hand() {
        let device = Device::flex();
        let row = |values: [f32; 2]| Tensor::<1>::from_floats(values, &device);
        let norm = LayerNorm { weight: row([2.0, 1.0]), bias: row([0.5, 0.0]), epsilon: 0.0 };
        // The sum is [1, 5]: mean 3, standard deviation 2.
        let (x, residual) = (row([1.0, 2.0]).unsqueeze(), row([0.0, 3.0]).unsqueeze());
        let want = Tensor::<2>::from_floats([[-1.5, 1.0]], &device);
        add_norm(x, residual, norm).into_data().assert_approx_eq::<f32>(&want.into_data(), Tolerance::relative(1e-6));
    }

    /// Of the definition, in double precision: `x/2 (1 + erf(x/sqrt(2)))`.
    #[test]
    fn gelu_by_its_definition() {
        let cases =
            [(-3.0, -0.004_049_694), (-1.0, -0.158_655_25), (0.0, 0.0), (0.5, 0.345_731_23), (2.0, 1.954_499_7)];
        for (x, want) in cases {
            let y: f32 = gelu(Tensor::from_floats([[x]], &Device::flex())).into_scalar();
            assert!((y - want).abs() < 3e-7, "gelu({x}) is {y}");
        }
    }

    #[test]
    fn best_matches_by_hand() {
        // Products: [1, 2], [-3, -1], [0, 5].
        let [of_a, of_b] = best_matches(&[1.0, 0.0, -3.0, 2.5, 0.0, 5.0], &[1.0, 0.0, 2.0, 1.0], 2);
        assert_eq!((of_a, of_b), (vec![2.0, -3.0, 5.0], vec![1.0, 5.0]));
    }
}
