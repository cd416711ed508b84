//! Linear maps, norm and activation.

use burn::tensor::{Tensor, activation};

use crate::{Affine, composed, cpu};

/// `x weight^T + bias`: `(tokens, inputs)` to `(tokens, outputs)`.
pub fn linear(x: Tensor<2>, map: impl Into<Affine>) -> Tensor<2> {
    match cpu::supported(&x.device()) {
        true => cpu::linear(x, map.into()),
        false => composed::linear(x, map.into()),
    }
}

/// RMS norm, without mean subtraction or bias: `x / sqrt(mean(x^2) + epsilon) * weight`.
///
/// `x` is `(tokens, features)`, `weight` is `(features)`, or shorter: then each part of a token as long as it, such as a head, is
/// normalised by itself.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    match cpu::supported(&x.device()) {
        true => cpu::rms_norm(x, weight, epsilon),
        false => composed::rms_norm(x, weight, epsilon),
    }
}

/// `max(x, 0)`.
pub fn relu(x: Tensor<2>) -> Tensor<2> {
    activation::relu(x)
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
}
