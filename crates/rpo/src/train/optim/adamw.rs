//! AdamW (Loshchilov and Hutter, arXiv 1711.05101).
//!
//! ```text
//! m = beta1 m + (1 - beta1) g,   s = beta2 s + (1 - beta2) g^2
//! x = x - rate (weight_decay x + (m / (1 - beta1^t)) / (sqrt(s / (1 - beta2^t)) + epsilon))
//! ```

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Now, Updated, check};
use crate::error::Result;

/// Settings of AdamW.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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

    pub(super) fn update(&self, value: Tensor<1>, gradient: Tensor<1>, state: Vec<Tensor<1>>, now: Now) -> Updated {
        let Self { beta1, beta2, epsilon } = *self;
        let Ok([mean, square]) = <[_; 2]>::try_from(state) else { unreachable!("see `state`") };
        let Now { step, scale, rate, weight_decay } = now;
        let [value, mean, square] = rpo_ops::adamw(
            value,
            gradient,
            mean,
            square,
            rpo_ops::AdamW { scale, beta1, beta2, epsilon, step, rate, weight_decay },
        );
        (value, vec![mean, square])
    }
}
