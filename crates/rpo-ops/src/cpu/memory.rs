//! Tensors of the CPU backend as slices and matrices, and products of matrices: with those in bfloat16 (`bf16`) the only unsafe
//! code of training.

use std::borrow::Cow;
use std::ops::Range;

use burn::tensor::{Bytes, DType, Element, Shape};
use burn_flex::{FlexTensor, Layout};
use gemm::Parallelism;
use half::{bf16, slice::HalfFloatSliceExt};
use pulp::bytemuck::Pod;
use rayon::prelude::*;

use super::bf16::{self as rounded, Side};
use crate::parameters::Compute;

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

/// What tensors of the CPU hold: f32, or bfloat16 where matrices are held so or products take it.
pub(crate) trait Value: Element + Pod + Copy + Send + Sync {
    const DTYPE: DType;
    fn widen(self) -> f32;
    /// The nearest that there is.
    fn narrow(value: f32) -> Self;
    fn values(slice: &[Self]) -> Values<'_>;
    /// The product of matrices, computed in `compute`.
    fn product(a: Matrix<'_>, b: Matrix<'_>, compute: Compute) -> Vec<Self>;
    /// The nearest to each.
    fn of(values: &[f32]) -> Vec<Self>;
}

impl Value for f32 {
    const DTYPE: DType = DType::F32;

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }

    fn values(slice: &[Self]) -> Values<'_> {
        Values::Floats(slice)
    }

    fn product(a: Matrix<'_>, b: Matrix<'_>, compute: Compute) -> Vec<f32> {
        let mut c = Vec::new();
        append_product(&mut c, a, b, compute);
        c
    }

    fn of(values: &[f32]) -> Vec<f32> {
        values.to_vec()
    }
}

impl Value for bf16 {
    const DTYPE: DType = DType::BF16;

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        let bits = value.to_bits();
        let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        // What is no number stays none.
        let bits = if value.is_nan() { (bits >> 16) | 0x40 } else { nearest };
        Self::from_bits(bits as u16)
    }

    fn values(slice: &[Self]) -> Values<'_> {
        Values::Halves(slice)
    }

    fn product(a: Matrix<'_>, b: Matrix<'_>, compute: Compute) -> Vec<Self> {
        let n = a.rows * b.columns;
        let Some(unit) = unit_for(a, b, compute) else { return Self::of(&f32::product(a, b, compute)) };
        let mut c = Vec::with_capacity(n);
        // SAFETY: as for f32.
        #[expect(unsafe_code, reason = "memory is not zeroed first only to be overwritten")]
        unsafe {
            rounded::product(unit, a.left(), b.right(), c.as_mut_ptr(), b.columns);
            c.set_len(n);
        }
        c
    }

    fn of(values: &[f32]) -> Vec<Self> {
        filled(values.len(), TASK, |first, part| part.convert_from_f32_slice(&values[first..first + part.len()]))
    }
}

/// `n` values, made by `fill` on every core: it gets parts of at most `each` values with the place of their first. Nothing is zeroed
/// that lies outside the cache by the time it is written.
pub(super) fn filled<T: Value>(n: usize, each: usize, fill: impl Fn(usize, &mut [T]) + Sync) -> Vec<T> {
    let mut values: Vec<T> = Vec::with_capacity(n);
    values.spare_capacity_mut()[..n].par_chunks_mut(each).enumerate().for_each(|(task, part)| {
        part.iter_mut().for_each(|value| {
            value.write(T::narrow(0.0));
        });
        // SAFETY: all of the part was written just now.
        #[expect(unsafe_code, reason = "memory is zeroed part by part")]
        let part = unsafe { part.assume_init_mut() };
        fill(task * each, part);
    });
    // SAFETY: the parts are all of it.
    #[expect(unsafe_code, reason = "as above")]
    unsafe {
        values.set_len(n);
    }
    values
}

/// A copy, made on every core.
pub(super) fn copied(values: &[f32]) -> Vec<f32> {
    filled(values.len(), TASK, |first, part| part.copy_from_slice(&values[first..first + part.len()]))
}

/// Values of a matrix.
#[derive(Clone, Copy)]
pub(crate) enum Values<'a> {
    Floats(&'a [f32]),
    Halves(&'a [bf16]),
}

/// The values of a dense tensor.
pub(super) fn values(tensor: &FlexTensor) -> Values<'_> {
    match tensor.dtype() {
        DType::BF16 => Values::Halves(tensor.storage()),
        _ => Values::Floats(tensor.storage()),
    }
}

impl Values<'_> {
    pub(super) fn len(self) -> usize {
        match self {
            Self::Floats(values) => values.len(),
            Self::Halves(values) => values.len(),
        }
    }
}

/// The tensor, whose values are f32, in `T`.
pub(super) fn converted<T: Value>(tensor: FlexTensor) -> FlexTensor {
    if T::DTYPE == DType::F32 {
        return tensor;
    }
    FlexTensor::new(Bytes::from_elems(T::of(tensor.storage())), tensor.layout().clone(), T::DTYPE)
}

/// A dense tensor in `f32`.
pub(super) fn widened(tensor: &FlexTensor) -> FlexTensor {
    match values(tensor) {
        Values::Floats(_) => tensor.clone(),
        Values::Halves(halves) => {
            let widen = |first: usize, part: &mut [f32]| halves[first..first + part.len()].convert_to_f32_slice(part);
            let wide = filled(halves.len(), TASK, widen);
            FlexTensor::new(Bytes::from_elems(wide), tensor.layout().clone(), DType::F32)
        }
    }
}

/// A tensor of these values.
pub(super) fn tensor<T: Value, const D: usize>(values: Vec<T>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(Shape::from(shape)), T::DTYPE)
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

/// How values of f32 are rounded where they enter a product in bfloat16.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rounding {
    /// To the nearest: activations, gradients, and the factors of adapters.
    Nearest,
    /// By [`dither`](crate::dither), the rows being those from `first_row` on: matrices of weights.
    Dithered { first_row: usize },
}

/// A matrix inside a slice.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: Values<'a>,
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
    rounding: Rounding,
}

impl<'a> Matrix<'a> {
    /// Row-major, `row_stride` values from one row to the next.
    ///
    /// # Panics
    /// If it does not lie inside `values`.
    pub(super) fn new<T: Value>(values: &'a [T], rows: usize, columns: usize, row_stride: usize) -> Self {
        Self::of(T::values(values), rows, columns, row_stride)
    }

    /// The same.
    pub(super) fn of(values: Values<'a>, rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(rows == 0 || columns == 0 || values.len() >= (rows - 1) * row_stride + columns, "outside its memory");
        Self { values, rows, columns, row_stride, column_stride: 1, rounding: Rounding::Nearest }
    }

    /// The same as a matrix of weights: all of it, before [`Self::some`] of its rows are taken.
    pub(super) fn dithered(self) -> Self {
        Self { rounding: Rounding::Dithered { first_row: 0 }, ..self }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// Some of its rows, which must be row-major.
    pub(super) fn some(self, rows: Range<usize>) -> Self {
        let from = rows.start * self.row_stride;
        let values = match self.values {
            Values::Floats(values) => Values::Floats(&values[from..]),
            Values::Halves(values) => Values::Halves(&values[from..]),
        };
        debug_assert_eq!(self.column_stride, 1, "row-major");
        let rounding = match self.rounding {
            Rounding::Nearest => Rounding::Nearest,
            Rounding::Dithered { first_row } => Rounding::Dithered { first_row: first_row + rows.start },
        };
        Self { rounding, ..Self::of(values, rows.len(), self.columns, self.row_stride) }
    }

    /// Its transpose.
    pub(super) fn t(self) -> Self {
        let Self { rows, columns, row_stride, column_stride, .. } = self;
        Self { rows: columns, columns: rows, row_stride: column_stride, column_stride: row_stride, ..self }
    }

    /// The same matrix in f32, and from one row and from one column to the next: its own memory, or some that holds nothing else.
    fn widened(self) -> (Cow<'a, [f32]>, [usize; 2]) {
        let Self { values, rows, columns, row_stride, column_stride, .. } = self;
        let halves = match values {
            Values::Floats(values) => return (Cow::Borrowed(values), [row_stride, column_stride]),
            Values::Halves(values) => values,
        };
        if column_stride != 1 {
            let (wide, [column_stride, row_stride]) = self.t().widened();
            return (wide, [row_stride, column_stride]);
        }
        let task = (TASK / columns.max(1)).max(1) * columns.max(1);
        let wide = filled(rows * columns, task, |first, part| {
            for (row, part) in (first / columns..).zip(part.chunks_exact_mut(columns)) {
                halves[row * row_stride..][..columns].convert_to_f32_slice(part);
            }
        });
        (Cow::Owned(wide), [columns, 1])
    }

    /// As the left factor of a product.
    fn left(self) -> Side<'a> {
        Side::new(self.values, [self.rows, self.columns], [self.row_stride, self.column_stride], self.rounding)
    }

    /// As the right factor.
    fn right(self) -> Side<'a> {
        self.t().left()
    }
}

/// What becomes of the values that are already where a product goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Store {
    Replace,
    Add,
}

/// `c = a b` or `c += a b`, `c` being row-major with `row_stride` values from one row to the next.
///
/// # Panics
/// If the dimensions do not fit or `c` is too short.
pub(super) fn multiply(a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32], row_stride: usize, store: Store, compute: Compute) {
    assert!(a.rows == 0 || b.columns == 0 || c.len() >= (a.rows - 1) * row_stride + b.columns, "outside its memory");
    // SAFETY: the result lies inside `c`, which is borrowed alone and initialised.
    #[expect(unsafe_code, reason = "the interface of gemm")]
    unsafe {
        multiply_into(a, b, c.as_mut_ptr(), row_stride, store, compute);
    }
}

/// Appends the rows of `a b` to `c`.
pub(super) fn append_product(c: &mut Vec<f32>, a: Matrix<'_>, b: Matrix<'_>, compute: Compute) {
    let (before, n) = (c.len(), a.rows * b.columns);
    if a.columns == 0 {
        c.resize(before + n, 0.0);
        return;
    }
    c.reserve_exact(n);
    // SAFETY: there is memory for `n` more values, and `Replace` writes all of them without reading any.
    #[expect(unsafe_code, reason = "memory is not zeroed first only to be overwritten")]
    unsafe {
        multiply_into(a, b, c.as_mut_ptr().add(before), b.columns, Store::Replace, compute);
        c.set_len(before + n);
    }
}

/// What computes `a b` in bfloat16, where that is asked for and faster.
fn unit_for(a: Matrix<'_>, b: Matrix<'_>, compute: Compute) -> Option<rounded::Unit> {
    assert_eq!(a.columns, b.rows, "a product of matrices that do not fit");
    if compute == Compute::F32 {
        return None;
    }
    rounded::unit().filter(|&unit| rounded::pays(unit, a.rows, b.columns, a.columns))
}

/// # Safety
/// `c` must be valid for `a.rows` rows of `b.columns` values, `row_stride` apart, and initialised if added to.
#[expect(unsafe_code, reason = "the interface of gemm")]
unsafe fn multiply_into(a: Matrix<'_>, b: Matrix<'_>, c: *mut f32, row_stride: usize, store: Store, compute: Compute) {
    if let Some(unit) = unit_for(a, b, compute) {
        // SAFETY: by the caller's promise; `unit` is what the processor has.
        return unsafe { rounded::multiply(unit, a.left(), b.right(), c, row_stride, store) };
    }
    let parallel = a.rows * a.columns * b.columns >= PARALLEL_FROM;
    let ((of_a, strides_a), (of_b, strides_b)) = (a.widened(), b.widened());
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
            of_a.as_ptr(),
            strides_a[1] as isize,
            strides_a[0] as isize,
            of_b.as_ptr(),
            strides_b[1] as isize,
            strides_b[0] as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            if parallel { Parallelism::Rayon(0) } else { Parallelism::None },
        );
    }
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
            let got = f32::product(ma, mb, Compute::F32);
            let mut added = vec![1.0; m * n];
            multiply(ma, mb, &mut added, n, Store::Add, Compute::F32);
            let turned = f32::product(mb.t(), ma.t(), Compute::F32);
            let (a, b) = (bf16::of(&a), bf16::of(&b));
            let (ma, mb) = (Matrix::new(&a, m, k, k + extra), Matrix::new(&b, k, n, n + extra));
            assert_eq!(f32::product(ma, mb, Compute::F32), got, "small integers are exact in bfloat16");
            assert_eq!(f32::product(mb.t(), ma.t(), Compute::F32), turned);
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
    fn rounding_to_bfloat16_is_to_the_nearest_and_keeps_what_is_no_number() {
        let odd = [
            0.0,
            -0.0,
            f32::MAX,
            f32::MIN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MIN_POSITIVE,
            1.003_906_2,
            1.011_718_8,
        ];
        let many = (0..10_000u32).map(|i| f32::from_bits(i.wrapping_mul(429_497)));
        for x in odd.into_iter().chain(many).chain([f32::NAN, f32::from_bits(u32::MAX), f32::from_bits(0x7f80_0001)]) {
            let got = <bf16 as Value>::narrow(x);
            assert_eq!(got.is_nan(), x.is_nan(), "{x}");
            assert!(x.is_nan() || got == bf16::from_f32(x), "{x}: {got}");
            assert!(x.is_nan() || Value::widen(got) == got.to_f32(), "{x}");
        }
    }

    #[test]
    #[should_panic(expected = "outside its memory")]
    fn a_matrix_must_lie_inside_its_memory() {
        Matrix::new(&[0f32; 5], 2, 3, 3);
    }

    /// Times the matrix that changes nothing, whole, in parts and transposed.
    #[test]
    fn weights_are_dithered_by_their_own_places_whatever_is_taken_of_them() {
        if rounded::unit().is_none() {
            return;
        }
        let (rows, columns) = (200, 96);
        let weights: Vec<f32> = (0..rows * columns).map(|i| (i as f32).sin()).collect();
        let rounded: Vec<f32> = crate::dither::to_bf16(&weights, columns).map(f32::from).collect();
        let matrix = Matrix::new(&weights, rows, columns, columns).dithered();
        let one = |n: usize| -> Vec<f32> { (0..n * n).map(|i| if i % (n + 1) == 0 { 1.0 } else { 0.0 }).collect() };
        for some in [0..200, 64..128, 72..200] {
            let n = some.len();
            let want = &rounded[some.start * columns..some.end * columns];
            let got = f32::product(Matrix::new(&one(n), n, n, n), matrix.some(some.clone()), Compute::Bf16);
            assert_eq!(got, want, "{some:?}");
            let got = f32::product(
                Matrix::new(&one(columns), columns, columns, columns),
                matrix.some(some.clone()).t(),
                Compute::Bf16,
            );
            let turned: Vec<f32> = (0..columns).flat_map(|j| (0..n).map(move |i| want[i * columns + j])).collect();
            assert_eq!(got, turned, "{some:?}, transposed");
        }
    }
}
