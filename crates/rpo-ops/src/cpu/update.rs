//! What an optimizer does to a parameter, in one pass over its memory.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::memory::{dense, dims, tensor};
use super::simd::{sum, vectorised};
use super::supported;

/// Values that one task handles.
const TASK: usize = 64 * 1024;

/// A step of AdamW (Loshchilov and Hutter, arXiv 1711.05101).
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// By what gradients are multiplied first.
    pub scale: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the mean square.
    pub epsilon: f64,
    /// Number of the step, from 1.
    pub step: usize,
    /// Learning rate.
    pub rate: f64,
    /// Decoupled weight decay, as a multiple of the learning rate.
    pub weight_decay: f64,
}

impl AdamW {
    /// `1 - beta^step` for both moments.
    fn corrections(&self) -> [f64; 2] {
        [self.beta1, self.beta2].map(|beta| 1.0 - beta.powi(self.step as i32))
    }
}

/// Applies `step` to a parameter; returns the parameter, the mean and the mean square as they are then. All have the same
/// length and none tracks gradients. Memory that nobody else holds is used again.
pub fn adamw(value: Tensor<1>, gradient: Tensor<1>, mean: Tensor<1>, square: Tensor<1>, step: AdamW) -> [Tensor<1>; 3] {
    if supported(&value.device()) {
        let [value, gradient, mean, square] = [value, gradient, mean, square].map(Tensor::into_dispatch);
        let (value, mean, square) = Dispatch::fused_adamw(value, gradient, mean, square, step);
        return [value, mean, square].map(Tensor::from_dispatch);
    }
    let AdamW { scale, beta1, beta2, epsilon, rate, weight_decay, .. } = step;
    let [correction1, correction2] = step.corrections();
    let gradient = gradient.mul_scalar(scale);
    let mean = mean.mul_scalar(beta1) + gradient.clone().mul_scalar(1.0 - beta1);
    let square = square.mul_scalar(beta2) + gradient.square().mul_scalar(1.0 - beta2);
    let root = square.clone().div_scalar(correction2).sqrt().add_scalar(epsilon);
    let change = mean.clone().div(root).mul_scalar(rate / correction1);
    [value.mul_scalar(1.0 - rate * weight_decay) - change, mean, square]
}

/// Sum of the squares of all values.
pub fn sum_of_squares(x: Tensor<1>) -> f64 {
    let sum: Tensor<1> = match supported(&x.device()) {
        true => Tensor::from_dispatch(Dispatch::fused_sum_of_squares(x.into_dispatch())),
        false => x.square().sum(),
    };
    f64::from(sum.into_scalar::<f32>())
}

/// The same on a backend.
#[backend_extension(Flex)]
pub trait Update: Backend {
    /// See [`adamw`].
    fn fused_adamw(
        value: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        square: FloatTensor<Self>,
        step: AdamW,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
    /// See [`sum_of_squares`].
    fn fused_sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl Update for Flex {
    fn fused_adamw(
        value: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        square: FloatTensor<Self>,
        step: AdamW,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (mut value, gradient, mut mean, mut square) = (dense(value), dense(gradient), dense(mean), dense(square));
        let [correction1, correction2] = step.corrections();
        let [scale, beta1, beta2, epsilon] = [step.scale, step.beta1, step.beta2, step.epsilon].map(|v| v as f32);
        let (fresh1, fresh2) = ((1.0 - step.beta1) as f32, (1.0 - step.beta2) as f32);
        let keep = (1.0 - step.rate * step.weight_decay) as f32;
        let (rate, inverse2) = ((step.rate / correction1) as f32, (1.0 / correction2) as f32);
        value
            .storage_mut::<f32>()
            .par_chunks_mut(TASK)
            .zip(gradient.storage::<f32>().par_chunks(TASK))
            .zip(mean.storage_mut::<f32>().par_chunks_mut(TASK))
            .zip(square.storage_mut::<f32>().par_chunks_mut(TASK))
            .for_each(|(((value, gradient), mean), square)| {
                vectorised(
                    #[inline(always)]
                    || {
                        for (((v, g), m), s) in value.iter_mut().zip(gradient).zip(mean).zip(square) {
                            let g = g * scale;
                            *m = beta1 * *m + fresh1 * g;
                            *s = beta2 * *s + fresh2 * g * g;
                            *v = keep * *v - rate * *m / ((*s * inverse2).sqrt() + epsilon);
                        }
                    },
                );
            });
        (value, mean, square)
    }

    fn fused_sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let x = dense(x);
        debug_assert_eq!(dims(&x).len(), 1);
        let values: &[f32] = x.storage();
        let partial: Vec<f64> = values
            .par_chunks(1024)
            .map(|chunk| {
                f64::from(vectorised(
                    #[inline(always)]
                    || sum([chunk], |[x]| x * x),
                ))
            })
            .collect();
        tensor(vec![partial.iter().sum::<f64>() as f32], [1])
    }
}
