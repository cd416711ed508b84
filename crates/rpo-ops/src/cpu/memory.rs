//! Tensors of the CPU backend as slices and matrices, and products of matrices: the only unsafe code of training.

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use gemm::Parallelism;
use half::{bf16, slice::HalfFloatSliceExt};
use rayon::prelude::*;

/// Values that one task widens.
const TASK: usize = 64 * 1024;

/// Products with fewer multiplications than this are not worth more than one thread.
const PARALLEL_FROM: usize = 192 * 192 * 192;

/// The tensor with its values in row-major order from the beginning of its memory; copied only if they are not.
pub(super) fn dense(tensor: FlexTensor) -> FlexTensor {
    let bytes = tensor.layout().num_elements() * tensor.dtype().size();
    let whole = tensor.layout().start_offset() == 0 && tensor.is_contiguous() && tensor.bytes().len() == bytes;
    if whole { tensor } else { tensor.to_contiguous() }
}

/// A dense tensor in `f32`; only a frozen matrix is held in less.
pub(super) fn widened(tensor: &FlexTensor) -> FlexTensor {
    if tensor.dtype() == DType::F32 {
        return tensor.clone();
    }
    let values: &[bf16] = tensor.storage();
    let mut wide = vec![0f32; values.len()];
    wide.par_chunks_mut(TASK).zip(values.par_chunks(TASK)).for_each(|(wide, values)| values.convert_to_f32_slice(wide));
    FlexTensor::new(Bytes::from_elems(wide), tensor.layout().clone(), DType::F32)
}

/// A tensor of these values.
pub(super) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(Shape::from(shape)), DType::F32)
}

/// Its dimensions.
pub(super) fn dims(tensor: &FlexTensor) -> &[usize] {
    tensor.layout().shape().as_slice()
}

/// The dimensions of a matrix.
pub(super) fn rows_columns(tensor: &FlexTensor) -> (usize, usize) {
    match *dims(tensor) {
        [rows, columns] => (rows, columns),
        ref other => panic!("a matrix was expected, not {other:?}"),
    }
}

/// A matrix inside a slice.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major, `row_stride` values from one row to the next.
    ///
    /// # Panics
    /// If it does not lie inside `values`.
    pub(super) fn new(values: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(rows == 0 || columns == 0 || values.len() >= (rows - 1) * row_stride + columns, "outside its memory");
        Self { values, rows, columns, row_stride, column_stride: 1 }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// Its transpose.
    pub(super) fn t(self) -> Self {
        let Self { values, rows, columns, row_stride, column_stride } = self;
        Self { values, rows: columns, columns: rows, row_stride: column_stride, column_stride: row_stride }
    }
}

/// What becomes of the values that are already where a product goes.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Store {
    Replace,
    Add,
}

/// `c = a b` or `c += a b`, `c` being row-major with `row_stride` values from one row to the next.
///
/// # Panics
/// If the dimensions do not fit or `c` is too short.
pub(super) fn multiply(a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32], row_stride: usize, store: Store) {
    assert!(a.rows == 0 || b.columns == 0 || c.len() >= (a.rows - 1) * row_stride + b.columns, "outside its memory");
    // SAFETY: the result lies inside `c`, which is borrowed alone and initialised.
    #[expect(unsafe_code, reason = "the interface of gemm")]
    unsafe {
        gemm_into(a, b, c.as_mut_ptr(), row_stride, store);
    }
}

/// `a b` in memory of its own.
pub(super) fn product(a: Matrix<'_>, b: Matrix<'_>) -> Vec<f32> {
    let n = a.rows * b.columns;
    let mut c = Vec::with_capacity(n);
    // SAFETY: the memory holds `n` values, and `Replace` writes all of them without reading any.
    #[expect(unsafe_code, reason = "memory is not zeroed first only to be overwritten")]
    unsafe {
        if a.columns == 0 {
            c.resize(n, 0.0);
        } else {
            gemm_into(a, b, c.as_mut_ptr(), b.columns, Store::Replace);
            c.set_len(n);
        }
    }
    c
}

/// # Safety
/// `c` must be valid for `a.rows` rows of `b.columns` values, `row_stride` apart, and initialised if added to.
#[expect(unsafe_code, reason = "the interface of gemm")]
unsafe fn gemm_into(a: Matrix<'_>, b: Matrix<'_>, c: *mut f32, row_stride: usize, store: Store) {
    assert_eq!(a.columns, b.rows, "a product of matrices that do not fit");
    let parallel = a.rows * a.columns * b.columns >= PARALLEL_FROM;
    // SAFETY: `a` and `b` lie inside their slices by construction, `c` by the caller's promise.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            c,
            1,
            row_stride as isize,
            store == Store::Add,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            if parallel { Parallelism::Rayon(0) } else { Parallelism::None },
        );
    }
}

/// Parts `values` into one slice for each of the given lengths, times `width`.
pub(super) fn parts(mut values: &mut [f32], lengths: impl Iterator<Item = usize>, width: usize) -> Vec<&mut [f32]> {
    let mut parts = Vec::new();
    for length in lengths {
        let (part, rest) = values.split_at_mut(length * width);
        parts.push(part);
        values = rest;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_odd_shapes_and_strides() {
        for (m, k, n, extra) in [(1, 1, 1, 0), (3, 5, 7, 2), (17, 33, 9, 1), (4, 0, 3, 0)] {
            let values = |n: usize| -> Vec<f32> { (0..n).map(|i| (i % 11) as f32 - 5.0).collect() };
            let (a, b) = (values(m * (k + extra) + extra), values(k * (n + extra) + extra));
            let want =
                |i: usize, j: usize| -> f32 { (0..k).map(|l| a[i * (k + extra) + l] * b[l * (n + extra) + j]).sum() };
            let (ma, mb) = (Matrix::new(&a, m, k, k + extra), Matrix::new(&b, k, n, n + extra));
            let got = product(ma, mb);
            let mut added = vec![1.0; m * n];
            multiply(ma, mb, &mut added, n, Store::Add);
            let turned = product(mb.t(), ma.t());
            for i in 0..m {
                for j in 0..n {
                    assert_eq!(got[i * n + j], want(i, j));
                    assert_eq!(added[i * n + j], 1.0 + want(i, j));
                    assert_eq!(turned[j * m + i], want(i, j));
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "outside its memory")]
    fn a_matrix_must_lie_inside_its_memory() {
        Matrix::new(&[0.0; 5], 2, 3, 3);
    }
}
