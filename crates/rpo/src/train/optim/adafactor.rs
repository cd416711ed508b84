//! Adafactor (Shazeer and Stern, arXiv 1804.04235) without momentum and with an external learning rate, as T5 is
//! fine-tuned. A matrix keeps only the means of its rows and columns, so that the state is negligible.
//!
//! ```text
//! beta   = 1 - t^-decay
//! R, C   = beta R + (1 - beta) row means of (g^2 + epsilon), the same for columns
//! V      = R C^T / mean(R)                      (a vector keeps V itself)
//! u      = g / sqrt(V)
//! x      = x - rate (weight_decay x + u / max(1, RMS(u) / clip))
//! ```

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Now, Updated, check};
use crate::error::Result;

/// Settings of Adafactor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Adafactor {
    /// How fast the decay of the mean squares approaches 1.
    pub decay: f64,
    /// Added to squared gradients.
    pub epsilon: f64,
    /// Largest root mean square of a parameter's update, in units of the learning rate.
    pub clip: f64,
}

impl Default for Adafactor {
    fn default() -> Self {
        Self { decay: 0.8, epsilon: 1e-30, clip: 1.0 }
    }
}

impl Adafactor {
    pub(super) fn validate(&self) -> Result<()> {
        let Self { decay, epsilon, clip } = *self;
        check("decay", decay, decay > 0.0, "positive")?;
        check("epsilon", epsilon, epsilon > 0.0, "positive")?;
        check("clip", clip, clip > 0.0, "positive")
    }

    pub(super) fn state(shape: &[usize]) -> Vec<(&'static str, usize)> {
        match *shape {
            [rows, columns] => vec![("rows", rows), ("columns", columns)],
            _ => vec![("square", shape.iter().product())],
        }
    }

    pub(super) fn update(
        &self,
        value: Tensor<1>,
        gradient: Tensor<1>,
        shape: &[usize],
        mut state: Vec<Tensor<1>>,
        now: Now,
    ) -> Updated {
        let Now { step, scale, rate, weight_decay } = now;
        let gradient = gradient.mul_scalar(scale);
        let beta = 1.0 - (step as f64).powf(-self.decay);
        let mix = |old: &Tensor<1>, new: Tensor<1>| old.clone().mul_scalar(beta) + new.mul_scalar(1.0 - beta);
        let squares = gradient.clone().square().add_scalar(self.epsilon);
        let [n] = gradient.dims();
        let update = match (shape, &mut state[..]) {
            (&[rows, columns], [by_row, by_column]) => {
                let squares = squares.reshape([rows, columns]);
                *by_row = mix(by_row, squares.clone().mean_dim(1).reshape([rows]));
                *by_column = mix(by_column, squares.mean_dim(0).reshape([columns]));
                // 1 / sqrt(V) is a product of a factor for the row and one for the column; the mean divides one of them
                // before they meet, so that no tiny product underflows.
                let row_factor = (by_row.clone() / by_row.clone().mean()).sqrt().recip().reshape([rows, 1]);
                let column_factor = by_column.clone().sqrt().recip().reshape([1, columns]);
                (gradient.reshape([rows, columns]) * row_factor * column_factor).reshape([n])
            }
            (_, [square]) => {
                *square = mix(square, squares);
                gradient * square.clone().sqrt().recip()
            }
            _ => unreachable!("see `state`"),
        };
        let rms = f64::from(update.clone().square().mean().into_scalar::<f32>()).sqrt();
        let change = update.mul_scalar(rate / (rms / self.clip).max(1.0));
        (value.mul_scalar(1.0 - rate * weight_decay) - change, state)
    }
}
