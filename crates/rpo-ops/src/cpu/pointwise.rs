//! Norm, gates and biases with their gradients.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::memory::{Value, filled, rows_columns, tensor, widened};
use super::node::{OfInputs, Operation};
use super::simd::{sigmoid, sum, vectorised};
use crate::parameters::Gate;

/// Values that one task handles.
pub(super) const TASK: usize = 16 * 1024;

/// Rows of `width` values that make up one task.
pub(super) fn task(width: usize) -> usize {
    (TASK / width).max(1) * width
}

/// `1 / sqrt(mean(x^2) + epsilon)`.
#[inline(always)]
pub(crate) fn inverse_rms<T: Value>(x: &[T], epsilon: f32) -> f32 {
    1.0 / (sum([x], |[x]| x * x) / x.len() as f32 + epsilon).sqrt()
}

/// `x / rms(x) * weight` of every row of `x`, or of every part of one as long as `weight`.
pub(super) fn rms_norm<S: Value, T: Value>(x: &FlexTensor, weight: &FlexTensor, epsilon: f64) -> FlexTensor {
    let (xs, ws): (&[S], &[f32]) = (x.storage(), weight.storage());
    let width = ws.len();
    let y = filled(xs.len(), task(width), |first, y: &mut [T]| {
        let x = &xs[first..first + y.len()];
        vectorised(
            #[inline(always)]
            || {
                for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                    let scale = inverse_rms(x, epsilon as f32);
                    for ((y, x), w) in y.iter_mut().zip(x).zip(ws) {
                        *y = T::narrow(x.widen() * scale * w);
                    }
                }
            },
        );
    });
    tensor(y, <[usize; 2]>::from(rows_columns(x)))
}

/// Gradients of `x` and `weight`; that of `x` is added to `residual`, if there is one.
pub(super) fn rms_norm_backward<S: Value>(
    x: &FlexTensor,
    weight: &FlexTensor,
    mut gradient: FlexTensor,
    residual: Option<&FlexTensor>,
    epsilon: f64,
) -> [FlexTensor; 2] {
    let (xs, ws): (&[S], &[f32]) = (x.storage(), weight.storage());
    let width = ws.len();
    let rs: Option<&[f32]> = residual.map(FlexTensor::storage);
    let of_weight = gradient
        .storage_mut::<f32>()
        .par_chunks_mut(task(width))
        .zip(xs.par_chunks(task(width)))
        .enumerate()
        .map(|(i, (g, x))| {
            let [mut of_weight, mut wide] = [0; 2].map(|_| vec![0f32; width]);
            vectorised(
                #[inline(always)]
                || {
                    for (g, x) in g.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                        let scale = inverse_rms(x, epsilon as f32);
                        wide.iter_mut().zip(x).for_each(|(wide, x)| *wide = x.widen());
                        let along = sum([g, ws, &wide], |[g, w, x]| g * w * x) * scale * scale * scale / width as f32;
                        for (((g, x), w), of_weight) in g.iter_mut().zip(&wide).zip(ws).zip(&mut of_weight) {
                            *of_weight += *g * x * scale;
                            *g = *g * w * scale - x * along;
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
        .reduce(added);
    [gradient, tensor(of_weight.unwrap_or_else(|| vec![0.0; width]), [width])]
}

/// `a + b`.
pub(super) fn added(mut a: Vec<f32>, b: Vec<f32>) -> Vec<f32> {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    a
}

/// `n` rows, each equal to `row`.
pub(super) fn repeated(row: &[f32], n: usize) -> Vec<f32> {
    row.iter().copied().cycle().take(n * row.len()).collect()
}

/// The sum of the rows of `x`: `(rows, width)` to `(width)`.
pub(super) fn column_sums(x: &FlexTensor) -> FlexTensor {
    let (_, width) = rows_columns(x);
    let parts: Vec<Vec<f32>> = widened(x)
        .storage::<f32>()
        .par_chunks(task(width))
        .map(|rows| rows.chunks_exact(width).fold(vec![0f32; width], |sum, row| added(sum, row.to_vec())))
        .collect();
    tensor(parts.into_iter().reduce(added).unwrap_or_else(|| vec![0.0; width]), [width])
}

/// A norm alone.
#[derive(Debug)]
pub(super) struct RmsNorm {
    pub(super) x: usize,
    pub(super) weight: usize,
    pub(super) epsilon: f64,
}

impl Operation for RmsNorm {
    type Kept = ();

    fn forward(&self, inputs: &[FlexTensor], _: bool) -> (FlexTensor, ()) {
        (rms_norm::<f32, f32>(&inputs[self.x], &inputs[self.weight], self.epsilon), ())
    }

    fn backward(&self, of: &mut OfInputs<'_>, (): (), gradient: FlexTensor) {
        let Self { x, weight, epsilon } = *self;
        let [of_x, of_weight] = rms_norm_backward::<f32>(&of.inputs[x], &of.inputs[weight], gradient, None, epsilon);
        of.put(x, of_x);
        of.put(weight, of_weight);
    }
}

/// `activation(gate) * up`.
pub(super) fn gated<T: Value>(activation: Gate, gate: &FlexTensor, up: &FlexTensor) -> FlexTensor {
    let [scale, cubic] = activation.coefficients();
    let (gs, us): (&[T], &[T]) = (gate.storage(), up.storage());
    let y = filled(gs.len(), TASK, |first, y: &mut [T]| {
        let [g, u] = [gs, us].map(|values| &values[first..first + y.len()]);
        vectorised(
            #[inline(always)]
            || {
                for ((y, g), u) in y.iter_mut().zip(g).zip(u) {
                    let (g, u) = (g.widen(), u.widen());
                    *y = T::narrow(g * sigmoid(scale * g * (cubic * g * g + 1.0)) * u);
                }
            },
        );
    });
    tensor(y, <[usize; 2]>::from(rows_columns(gate)))
}

/// `activation(gate) * up`, and the gradients of `gate` and `up` given its own.
pub(super) fn gated_backward<T: Value>(
    activation: Gate,
    mut gate: FlexTensor,
    mut up: FlexTensor,
    mut gradient: FlexTensor,
) -> [FlexTensor; 3] {
    let [scale, cubic] = activation.coefficients();
    debug_assert_eq!(rows_columns(&up), rows_columns(&gate));
    // Each value takes the place of one that is not needed any more.
    gradient
        .storage_mut::<T>()
        .par_chunks_mut(TASK)
        .zip(gate.storage_mut::<T>().par_chunks_mut(TASK))
        .zip(up.storage_mut::<T>().par_chunks_mut(TASK))
        .for_each(|((d, g), u)| {
            vectorised(
                #[inline(always)]
                || {
                    for ((d, g), u) in d.iter_mut().zip(g).zip(u) {
                        let [of_y, x, y] = [d.widen(), g.widen(), u.widen()];
                        let s = sigmoid(scale * x * (cubic * x * x + 1.0));
                        let slope = s + x * s * (1.0 - s) * scale * (3.0 * cubic * x * x + 1.0);
                        let (value, of_gate, of_up) = (x * s * y, of_y * y * slope, of_y * x * s);
                        (*d, *g, *u) = (T::narrow(value), T::narrow(of_gate), T::narrow(of_up));
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
        let y = gated::<f32>(Gate::Gelu, &tensor(xs.to_vec(), [1, 7]), &tensor(vec![3.0; 7], [1, 7]));
        for (x, y) in xs.into_iter().zip(y.storage::<f32>()) {
            let x = f64::from(x);
            let want = 1.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh());
            assert!((f64::from(*y) - want).abs() < 1e-5, "gelu({x}): {y} instead of {want}");
        }
        let y = gated::<f32>(Gate::Silu, &tensor(xs.to_vec(), [1, 7]), &tensor(vec![3.0; 7], [1, 7]));
        for (x, y) in xs.into_iter().zip(y.storage::<f32>()) {
            let want = 3.0 * f64::from(x) / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(*y) - want).abs() < 1e-5, "silu({x}): {y} instead of {want}");
        }
    }
}
