//! Normalisation and activations of T5.

use burn::tensor::{Tensor, activation};

use crate::fused;

/// `x weight^T`: `(tokens, inputs)` and `(outputs, inputs)` to `(tokens, outputs)`.
pub fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    match fused::supported(&x.device()) {
        true => fused::linear(x, weight),
        false => composed::linear(x, weight),
    }
}

/// T5's RMS norm without mean subtraction or bias: `x / sqrt(mean(x^2) + epsilon) * weight`.
///
/// `x` is `(tokens, features)`, `weight` is `(features)`.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    match fused::supported(&x.device()) {
        true => fused::rms_norm(x, weight, epsilon),
        false => composed::rms_norm(x, weight, epsilon),
    }
}

/// `gelu_new(gate) * up`, where `gelu_new(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
///
/// Computed as `x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3))`, which is the same function.
pub fn gated_gelu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    match fused::supported(&gate.device()) {
        true => fused::gated_gelu(gate, up),
        false => composed::gated_gelu(gate, up),
    }
}

/// `max(x, 0)`.
pub fn relu(x: Tensor<2>) -> Tensor<2> {
    activation::relu(x)
}

/// In terms of Burn's operations.
pub(crate) mod composed {
    use burn::tensor::{Tensor, activation};

    pub(crate) fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
        x.matmul(weight.transpose())
    }

    pub(crate) fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
        let scale = x.clone().square().mean_dim(1).add_scalar(epsilon).sqrt().recip();
        x * scale * weight.unsqueeze()
    }

    pub(crate) fn gated_gelu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
        let c = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
        let inner = gate.clone().square().mul_scalar(0.044_715 * c).add_scalar(c) * gate.clone();
        gate * activation::sigmoid(inner) * up
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tolerance};

    use super::*;

    #[test]
    fn rms_norm_by_hand() {
        let device = Device::flex();
        // mean(3^2, 4^2) = 12.5
        let y = rms_norm(Tensor::from_floats([[3.0, 4.0]], &device), Tensor::from_floats([2.0, 1.0], &device), 0.0);
        let want = Tensor::<2>::from_floats([[6.0 / 12.5f32.sqrt(), 4.0 / 12.5f32.sqrt()]], &device);
        y.into_data().assert_approx_eq::<f32>(&want.into_data(), Tolerance::relative(1e-6));
    }

    #[test]
    fn gated_gelu_equals_the_tanh_form() {
        let device = Device::flex();
        let xs = [-6.0f32, -1.0, -0.1, 0.0, 0.3, 2.0, 9.0];
        let x = Tensor::<1>::from_floats(xs, &device).reshape([1, 7]);
        let y: Vec<f32> = gated_gelu(x.clone(), x.ones_like() * 3.0).into_data().try_to_vec().expect("f32");
        for (x, y) in xs.into_iter().zip(y) {
            let x = f64::from(x);
            let want = 1.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh());
            assert!((f64::from(y) - want).abs() < 1e-5, "gelu({x}): {y} instead of {want}");
        }
    }
}
