//! Products with matrices of weights, stored `(outputs, inputs)`, and their gradients. All tensors are dense.

use burn_flex::FlexTensor;

use super::memory::{Matrix, Store, multiply, product, rows_columns, tensor};

fn matrix(x: &FlexTensor) -> Matrix<'_> {
    let (rows, columns) = rows_columns(x);
    Matrix::new(x.storage(), rows, columns, columns)
}

fn result(a: Matrix<'_>, b: Matrix<'_>) -> FlexTensor {
    let shape = [a.rows(), b.columns()];
    tensor(product(a, b), shape)
}

/// `x weight^T`.
pub(super) fn linear(x: &FlexTensor, weight: &FlexTensor) -> FlexTensor {
    result(matrix(x), matrix(weight).t())
}

/// `residual + x weight^T`.
pub(super) fn linear_onto(residual: &FlexTensor, x: &FlexTensor, weight: &FlexTensor) -> FlexTensor {
    let (n, width) = rows_columns(residual);
    let mut sum = residual.storage::<f32>().to_vec();
    multiply(matrix(x), matrix(weight).t(), &mut sum, width, Store::Add);
    tensor(sum, [n, width])
}

/// Gradient of `x`, given that of `x weight^T`.
pub(super) fn of_input(gradient: &FlexTensor, weight: &FlexTensor) -> FlexTensor {
    result(matrix(gradient), matrix(weight))
}

/// Adds [`of_input`] to `sum`.
pub(super) fn of_input_onto(sum: &mut FlexTensor, gradient: &FlexTensor, weight: &FlexTensor) {
    let (_, width) = rows_columns(sum);
    multiply(matrix(gradient), matrix(weight), sum.storage_mut(), width, Store::Add);
}

/// Gradient of `weight`, given that of `x weight^T`.
pub(super) fn of_weight(gradient: &FlexTensor, x: &FlexTensor) -> FlexTensor {
    result(matrix(gradient).t(), matrix(x))
}
