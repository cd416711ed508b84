//! AdamW (Loshchilov and Hutter, arXiv 1711.05101), whose decoupled weight decay is in the common part.
//!
//! ```text
//! m = beta1 m + (1 - beta1) g,   s = beta2 s + (1 - beta2) g^2
//! change = (m / (1 - beta1^t)) / (sqrt(s / (1 - beta2^t)) + epsilon)
//! ```

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::check;
use crate::error::Result;

/// Settings of AdamW.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct AdamW {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the mean square.
    pub epsilon: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

impl AdamW {
    pub(super) fn validate(&self) -> Result<()> {
        let Self { beta1, beta2, epsilon } = *self;
        check("beta1", beta1, (0.0..1.0).contains(&beta1), "in [0, 1)")?;
        check("beta2", beta2, (0.0..1.0).contains(&beta2), "in [0, 1)")?;
        check("epsilon", epsilon, epsilon > 0.0, "positive")
    }

    pub(super) fn state(shape: &[usize]) -> Vec<(&'static str, usize)> {
        let n = shape.iter().product();
        vec![("mean", n), ("square", n)]
    }

    pub(super) fn change(&self, step: usize, gradient: Tensor<1>, state: &mut [Tensor<1>]) -> Tensor<1> {
        let Self { beta1, beta2, epsilon } = *self;
        let correction = |beta: f64| 1.0 - beta.powi(step as i32);
        let [mean, square] = state else { unreachable!("see `state`") };
        *mean = mean.clone().mul_scalar(beta1) + gradient.clone().mul_scalar(1.0 - beta1);
        *square = square.clone().mul_scalar(beta2) + gradient.square().mul_scalar(1.0 - beta2);
        let root = square.clone().div_scalar(correction(beta2)).sqrt().add_scalar(epsilon);
        mean.clone().div(root).div_scalar(correction(beta1))
    }
}
