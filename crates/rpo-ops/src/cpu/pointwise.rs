//! RMS norm and gated GELU with their gradients.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::memory::{dense, rows_columns, tensor};
use super::simd::{sigmoid, sum, vectorised};
use crate::parameters::Gate;

/// Values that one task handles.
const TASK: usize = 16 * 1024;

/// Rows of `width` values that make up one task.
fn task(width: usize) -> usize {
    (TASK / width).max(1) * width
}

/// `1 / sqrt(mean(x^2) + epsilon)`.
#[inline(always)]
fn inverse_rms(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (sum(x.len(), |i| x[i] * x[i]) / x.len() as f32 + epsilon).sqrt()
}

/// `x / rms(x) * weight`.
pub(super) fn rms_norm(x: FlexTensor, weight: FlexTensor, epsilon: f64) -> FlexTensor {
    let (x, weight) = (dense(x), dense(weight));
    let (n, width) = rows_columns(&x);
    let (xs, ws): (&[f32], &[f32]) = (x.storage(), weight.storage());
    let mut y = vec![0f32; n * width];
    y.par_chunks_mut(task(width)).zip(xs.par_chunks(task(width))).for_each(|(y, x)| {
        vectorised(
            #[inline(always)]
            || {
                for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                    let scale = inverse_rms(x, epsilon as f32);
                    for i in 0..width {
                        y[i] = x[i] * scale * ws[i];
                    }
                }
            },
        );
    });
    tensor(y, [n, width])
}

/// Gradients of `x` and `weight`; that of `x` is added to `residual`, if there is one.
pub(super) fn rms_norm_backward(
    x: FlexTensor,
    weight: FlexTensor,
    gradient: FlexTensor,
    residual: Option<FlexTensor>,
    epsilon: f64,
) -> [FlexTensor; 2] {
    let (x, weight, mut gradient) = (dense(x), dense(weight), dense(gradient));
    let (_, width) = rows_columns(&x);
    let residual = residual.map(dense);
    let (xs, ws): (&[f32], &[f32]) = (x.storage(), weight.storage());
    let rs: Option<&[f32]> = residual.as_ref().map(FlexTensor::storage);
    let of_weight = gradient
        .storage_mut::<f32>()
        .par_chunks_mut(task(width))
        .zip(xs.par_chunks(task(width)))
        .enumerate()
        .map(|(i, (g, x))| {
            let mut of_weight = vec![0f32; width];
            vectorised(
                #[inline(always)]
                || {
                    for (g, x) in g.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                        let scale = inverse_rms(x, epsilon as f32);
                        let along = sum(width, |i| g[i] * ws[i] * x[i]) * scale * scale * scale / width as f32;
                        for i in 0..width {
                            of_weight[i] += g[i] * x[i] * scale;
                            g[i] = g[i] * ws[i] * scale - x[i] * along;
                        }
                    }
                    if let Some(rs) = rs {
                        g.iter_mut().zip(&rs[i * task(width)..]).for_each(|(g, r)| *g += r);
                    }
                },
            );
            of_weight
        })
        // In order, so that the sum is the same every time.
        .collect::<Vec<_>>()
        .into_iter()
        .reduce(|mut a, b| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
            a
        });
    [gradient, tensor(of_weight.unwrap_or_else(|| vec![0.0; width]), [width])]
}

/// `activation(gate) * up`.
pub(super) fn gated(activation: Gate, gate: FlexTensor, up: FlexTensor) -> FlexTensor {
    let [scale, cubic] = activation.coefficients();
    let (gate, up) = (dense(gate), dense(up));
    let (gs, us): (&[f32], &[f32]) = (gate.storage(), up.storage());
    let mut y = vec![0f32; gs.len()];
    y.par_chunks_mut(TASK).zip(gs.par_chunks(TASK)).zip(us.par_chunks(TASK)).for_each(|((y, g), u)| {
        vectorised(
            #[inline(always)]
            || {
                for ((y, &g), &u) in y.iter_mut().zip(g).zip(u) {
                    *y = g * sigmoid(scale * g * (cubic * g * g + 1.0)) * u;
                }
            },
        );
    });
    let (n, width) = rows_columns(&gate);
    tensor(y, [n, width])
}

/// `activation(gate) * up`, and the gradients of `gate` and `up` given its own.
pub(super) fn gated_backward(
    activation: Gate,
    gate: FlexTensor,
    up: FlexTensor,
    gradient: FlexTensor,
) -> [FlexTensor; 3] {
    let [scale, cubic] = activation.coefficients();
    let (mut gate, mut up, mut gradient) = (dense(gate), dense(up), dense(gradient));
    let (n, width) = rows_columns(&gate);
    debug_assert_eq!(rows_columns(&up), (n, width));
    // Each value takes the place of one that is not needed any more.
    gradient
        .storage_mut::<f32>()
        .par_chunks_mut(TASK)
        .zip(gate.storage_mut::<f32>().par_chunks_mut(TASK))
        .zip(up.storage_mut::<f32>().par_chunks_mut(TASK))
        .for_each(|((d, g), u)| {
            vectorised(
                #[inline(always)]
                || {
                    for ((d, g), u) in d.iter_mut().zip(g).zip(u) {
                        let s = sigmoid(scale * *g * (cubic * *g * *g + 1.0));
                        let slope = s + *g * s * (1.0 - s) * scale * (3.0 * cubic * *g * *g + 1.0);
                        let (value, of_gate, of_up) = (*g * s * *u, *d * *u * slope, *d * *g * s);
                        (*d, *g, *u) = (value, of_gate, of_up);
                    }
                },
            );
        });
    [gradient, gate, up]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_equal_their_definitions() {
        let xs = [-6.0f32, -1.0, -0.1, 0.0, 0.3, 2.0, 9.0];
        let y = gated(Gate::Gelu, tensor(xs.to_vec(), [1, 7]), tensor(vec![3.0; 7], [1, 7]));
        for (x, y) in xs.into_iter().zip(y.storage::<f32>()) {
            let x = f64::from(x);
            let want = 1.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh());
            assert!((f64::from(*y) - want).abs() < 1e-5, "gelu({x}): {y} instead of {want}");
        }
        let y = gated(Gate::Silu, tensor(xs.to_vec(), [1, 7]), tensor(vec![3.0; 7], [1, 7]));
        for (x, y) in xs.into_iter().zip(y.storage::<f32>()) {
            let want = 3.0 * f64::from(x) / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(*y) - want).abs() < 1e-5, "silu({x}): {y} instead of {want}");
        }
    }
}
