//! Kernels of encoders of BERT's kind with their gradients.

use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::affine::scaled;
use super::attention;
use super::memory::{rows_columns, tensor};
use super::node::{Inputs, OfInputs, Operation};
use super::pointwise::{TASK, added, task};
use super::simd::{exp, sum, vectorised};
use crate::encoder::LayerNorm;
use crate::parameters::Compute;
use crate::plan::Plan;
use crate::segments::Segments;

/// `layer_norm(x + residual)`.
#[derive(Debug)]
struct AddNorm {
    x: usize,
    residual: usize,
    weight: usize,
    bias: usize,
    epsilon: f32,
}

pub(crate) fn add_norm(x: Tensor<2>, residual: Tensor<2>, norm: LayerNorm) -> Tensor<2> {
    let mut inputs = Inputs::new();
    let (x, residual) = (inputs.add(x), inputs.add(residual));
    let (weight, bias) = (inputs.add(norm.weight), inputs.add(norm.bias));
    inputs.run(AddNorm { x, residual, weight, bias, epsilon: norm.epsilon as f32 })
}

/// Makes of a sum its deviation from the mean in units of the standard deviation; returns the inverse of that.
#[inline(always)]
fn standardise(row: &mut [f32], epsilon: f32) -> f32 {
    let n = row.len() as f32;
    let mean = sum([row], |[x]| x) / n;
    row.iter_mut().for_each(|x| *x -= mean);
    let scale = 1.0 / (sum([row], |[x]| x * x) / n + epsilon).sqrt();
    row.iter_mut().for_each(|x| *x *= scale);
    scale
}

impl Operation for AddNorm {
    type Kept = ();

    fn forward(&self, inputs: &[FlexTensor], _: bool) -> (FlexTensor, ()) {
        let [xs, rs, ws, bs] = [self.x, self.residual, self.weight, self.bias].map(|i| inputs[i].storage::<f32>());
        let width = ws.len();
        let mut y = xs.to_vec();
        y.par_chunks_mut(task(width)).zip(rs.par_chunks(task(width))).for_each(|(y, r)| {
            vectorised(
                #[inline(always)]
                || {
                    for (y, r) in y.chunks_exact_mut(width).zip(r.chunks_exact(width)) {
                        y.iter_mut().zip(r).for_each(|(y, r)| *y += r);
                        standardise(y, self.epsilon);
                        y.iter_mut().zip(ws).zip(bs).for_each(|((y, w), b)| *y = *y * w + b);
                    }
                },
            );
        });
        (tensor(y, <[usize; 2]>::from(rows_columns(&inputs[self.x]))), ())
    }

    /// With the standardised sum `n`, its inverse deviation `s` and `d = weight * gradient`:
    /// `s (d - mean(d) - n mean(d n))` for the sum.
    fn backward(&self, of: &mut OfInputs<'_>, (): (), mut gradient: FlexTensor) {
        let [xs, rs, ws] = [self.x, self.residual, self.weight].map(|i| of.inputs[i].storage::<f32>());
        let width = ws.len();
        let of_parameters = gradient
            .storage_mut::<f32>()
            .par_chunks_mut(task(width))
            .zip(xs.par_chunks(task(width)).zip(rs.par_chunks(task(width))))
            .map(|(g, (x, r))| {
                let mut of_parameters = vec![0f32; 2 * width];
                vectorised(
                    #[inline(always)]
                    || {
                        let (of_weight, of_bias) = of_parameters.split_at_mut(width);
                        let mut n = vec![0f32; width];
                        let rows = g.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(r.chunks_exact(width));
                        for ((g, x), r) in rows {
                            n.iter_mut().zip(x).zip(r).for_each(|((n, x), r)| *n = x + r);
                            let scale = standardise(&mut n, self.epsilon);
                            for (((g, n), w), (of_weight, of_bias)) in
                                g.iter_mut().zip(&n).zip(ws).zip(of_weight.iter_mut().zip(of_bias.iter_mut()))
                            {
                                *of_weight += *g * n;
                                *of_bias += *g;
                                *g *= w;
                            }
                            let mean = sum([g], |[d]| d) / width as f32;
                            let along = sum([g, &n], |[d, n]| d * n) / width as f32;
                            g.iter_mut().zip(&n).for_each(|(g, n)| *g = scale * (*g - mean - n * along));
                        }
                    },
                );
                of_parameters
            })
            // In order, so that the sum is the same every time.
            .collect::<Vec<_>>()
            .into_iter()
            .reduce(added);
        let mut of_weight = of_parameters.unwrap_or_else(|| vec![0.0; 2 * width]);
        let of_bias = of_weight.split_off(width);
        of.put(self.weight, tensor(of_weight, [width]));
        of.put(self.bias, tensor(of_bias, [width]));
        of.put(self.x, gradient.clone());
        of.put(self.residual, gradient);
    }
}

/// The normal distribution's `Phi(x)` within 1e-7 (Abramowitz and Stegun 7.1.26), and `exp(-x^2 / 2)`.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let bell = exp(-z * z);
    let t = 1.0 / 0.327_591_1f32.mul_add(z, 1.0);
    let p = 1.061_405_4f32;
    let p = p.mul_add(t, -1.453_152_1);
    let p = p.mul_add(t, 1.421_413_8);
    let p = p.mul_add(t, -0.284_496_72);
    let p = p.mul_add(t, 0.254_829_6);
    let beyond = 0.5 * p * t * bell;
    (if x < 0.0 { beyond } else { 1.0 - beyond }, bell)
}

/// `x Phi(x)`.
#[derive(Debug)]
struct Gelu;

pub(crate) fn gelu(x: Tensor<2>) -> Tensor<2> {
    let mut inputs = Inputs::new();
    inputs.add(x);
    inputs.run(Gelu)
}

impl Operation for Gelu {
    type Kept = ();

    fn forward(&self, inputs: &[FlexTensor], _: bool) -> (FlexTensor, ()) {
        let xs: &[f32] = inputs[0].storage();
        let mut y = vec![0f32; xs.len()];
        y.par_chunks_mut(TASK).zip(xs.par_chunks(TASK)).for_each(|(y, x)| {
            vectorised(
                #[inline(always)]
                || y.iter_mut().zip(x).for_each(|(y, &x)| *y = x * normal(x).0),
            );
        });
        (tensor(y, <[usize; 2]>::from(rows_columns(&inputs[0]))), ())
    }

    /// `Phi(x) + x exp(-x^2/2) / sqrt(2 pi)`.
    fn backward(&self, of: &mut OfInputs<'_>, (): (), mut gradient: FlexTensor) {
        let xs: &[f32] = of.inputs[0].storage();
        gradient.storage_mut::<f32>().par_chunks_mut(TASK).zip(xs.par_chunks(TASK)).for_each(|(g, x)| {
            vectorised(
                #[inline(always)]
                || {
                    for (g, &x) in g.iter_mut().zip(x) {
                        let (below, bell) = normal(x);
                        *g *= below + x * bell * 0.398_942_3;
                    }
                },
            );
        });
        of.put(0, gradient);
    }
}

/// `softmax(q k^T / sqrt(width)) v`; the inputs are queries, keys and values.
#[derive(Debug)]
struct ScaledAttention {
    plan: Plan,
}

pub(crate) fn scaled_attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    heads: usize,
    segments: &Segments,
) -> Tensor<2> {
    let mut inputs = Inputs::new();
    for x in [q, k, v] {
        inputs.add(x);
    }
    inputs.run(ScaledAttention { plan: Plan { heads, queries: segments.clone(), memory: None, position: None } })
}

impl ScaledAttention {
    /// `1 / sqrt(width)`.
    fn scale(&self, q: &FlexTensor) -> f32 {
        ((rows_columns(q).1 / self.plan.heads) as f32).sqrt().recip()
    }
}

impl Operation for ScaledAttention {
    /// The scaled queries, the mixture and the softmax's denominators.
    type Kept = [FlexTensor; 3];

    fn forward(&self, inputs: &[FlexTensor], _: bool) -> (FlexTensor, Self::Kept) {
        let [q, k, v] = inputs else { unreachable!("three inputs were added") };
        let q = scaled(q, self.scale(q));
        let (mixed, denominators) = attention::forward::<f32>(&q, k, v, None, &self.plan, Compute::F32);
        (mixed.clone(), [q, mixed, denominators])
    }

    fn backward(&self, of: &mut OfInputs<'_>, [q, mixed, denominators]: Self::Kept, gradient: FlexTensor) {
        let scale = self.scale(&q);
        let kept = [q, of.inputs[1].clone(), of.inputs[2].clone(), mixed, denominators];
        let ([of_q, of_k, of_v], _) = attention::backward::<f32>(&kept, None, &gradient, &self.plan, Compute::F32);
        of.put(0, scaled(&of_q, scale));
        of.put(1, of_k);
        of.put(2, of_v);
    }
}
