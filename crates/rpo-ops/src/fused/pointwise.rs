//! Linear maps, RMS norm and gated GELU with their gradients.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::memory::{Matrix, dense, dims, product, rows_columns, tensor};
use super::simd::{sigmoid, sum, vectorised};

/// Values that one task handles.
const TASK: usize = 16 * 1024;

/// `x weight^T`.
pub(super) fn linear(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
    let (x, weight) = (dense(x), dense(weight));
    let ((n, inputs), (outputs, _)) = (rows_columns(&x), rows_columns(&weight));
    let weight = Matrix::new(weight.storage(), outputs, inputs, inputs);
    tensor(product(Matrix::new(x.storage(), n, inputs, inputs), weight.t()), [n, outputs])
}

/// Gradients of `x` and `weight`, each if asked for.
pub(super) fn linear_backward(
    x: FlexTensor,
    weight: FlexTensor,
    gradient: FlexTensor,
    wanted: [bool; 2],
) -> [Option<FlexTensor>; 2] {
    let (x, weight, gradient) = (dense(x), dense(weight), dense(gradient));
    let ((n, inputs), (outputs, _)) = (rows_columns(&x), rows_columns(&weight));
    let g = Matrix::new(gradient.storage(), n, outputs, outputs);
    let of_x = || tensor(product(g, Matrix::new(weight.storage(), outputs, inputs, inputs)), [n, inputs]);
    let of_weight = || tensor(product(g.t(), Matrix::new(x.storage(), n, inputs, inputs)), [outputs, inputs]);
    [wanted[0].then(of_x), wanted[1].then(of_weight)]
}

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

/// Gradients of `x` and `weight`.
pub(super) fn rms_norm_backward(
    x: FlexTensor,
    weight: FlexTensor,
    gradient: FlexTensor,
    epsilon: f64,
) -> [FlexTensor; 2] {
    let (x, weight, mut gradient) = (dense(x), dense(weight), dense(gradient));
    let (_, width) = rows_columns(&x);
    let (xs, ws): (&[f32], &[f32]) = (x.storage(), weight.storage());
    let of_weight = gradient
        .storage_mut::<f32>()
        .par_chunks_mut(task(width))
        .zip(xs.par_chunks(task(width)))
        .map(|(g, x)| {
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

/// `2 sqrt(2 / pi)`.
const C: f32 = 1.595_769;
const CUBIC: f32 = 0.044_715;

/// `gelu_new(gate) * up`.
pub(super) fn gated_gelu(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
    let (gate, up) = (dense(gate), dense(up));
    let (gs, us): (&[f32], &[f32]) = (gate.storage(), up.storage());
    let mut y = vec![0f32; gs.len()];
    y.par_chunks_mut(TASK).zip(gs.par_chunks(TASK)).zip(us.par_chunks(TASK)).for_each(|((y, g), u)| {
        vectorised(
            #[inline(always)]
            || {
                for ((y, &g), &u) in y.iter_mut().zip(g).zip(u) {
                    *y = g * sigmoid(C * g * (CUBIC * g * g + 1.0)) * u;
                }
            },
        );
    });
    let (n, width) = rows_columns(&gate);
    tensor(y, [n, width])
}

/// Gradients of `gate` and `up`.
pub(super) fn gated_gelu_backward(gate: FlexTensor, up: FlexTensor, gradient: FlexTensor) -> [FlexTensor; 2] {
    let (gate, up, mut gradient) = (dense(gate), dense(up), dense(gradient));
    let (gs, us): (&[f32], &[f32]) = (gate.storage(), up.storage());
    let mut of_up = vec![0f32; gs.len()];
    gradient
        .storage_mut::<f32>()
        .par_chunks_mut(TASK)
        .zip(of_up.par_chunks_mut(TASK))
        .zip(gs.par_chunks(TASK))
        .zip(us.par_chunks(TASK))
        .for_each(|(((d, of_up), g), u)| {
            vectorised(
                #[inline(always)]
                || {
                    for (((d, of_up), &g), &u) in d.iter_mut().zip(of_up).zip(g).zip(u) {
                        let s = sigmoid(C * g * (CUBIC * g * g + 1.0));
                        *of_up = *d * g * s;
                        *d *= u * (s + g * s * (1.0 - s) * C * (3.0 * CUBIC * g * g + 1.0));
                    }
                },
            );
        });
    debug_assert_eq!(dims(&gate), dims(&up));
    let (n, width) = rows_columns(&gate);
    [gradient, tensor(of_up, [n, width])]
}
