//! Products of matrices in bfloat16: both factors are rounded, sums are kept in f32.
//!
//! The factors are packed into tiles of 16 by 32 values (`tiles.rs`), which Intel's matrix unit (AMX) takes whole and AVX-512's
//! dot products of pairs read row by row (`x86/`): at most 16 and, on AMD's processors, 2 times the rate of f32. Arm's BFMMLA (`arm.rs`)
//! takes 2 by 4 values. Which of them a processor has is found out when the program runs.

#[cfg(target_arch = "aarch64")]
#[path = "arm.rs"]
mod processor;
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
#[path = "elsewhere.rs"]
mod processor;
#[cfg(target_arch = "x86_64")]
#[path = "x86/mod.rs"]
mod processor;
mod tiles;

use std::ops::Range;
use std::sync::OnceLock;

use half::bf16;
use rayon::prelude::*;

pub(super) use tiles::Side;
use tiles::{Factor, Packed, Pair};

use super::memory::Store;

/// Rows and columns of a block of the result that one call of a kernel computes.
const BLOCK: usize = 32;

/// Tiles of the depth that are summed up before the next blocks: those of a task stay in the second cache.
const DEPTH: usize = 32;

/// Most blocks of rows of a task, which packs them itself, and of columns that it goes through at a time.
const TASK: [usize; 2] = [8, 16];

/// Products with fewer multiplications than this are not worth more than one thread.
const PARALLEL_FROM: usize = 1 << 24;

/// Instructions that multiply in bfloat16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "each processor has its own"))]
pub(super) enum Unit {
    /// Tiles: AMX.
    Tiles,
    /// Dot products of pairs: AVX-512 BF16.
    Pairs,
    /// Products of 2 rows and 2 columns of 4 values: Arm's BFMMLA.
    Quads,
}

impl Unit {
    /// Whether it was measured to be faster than f32. Arm's was run by an emulator only.
    pub(super) fn is_faster(self) -> bool {
        self != Self::Quads
    }
}

/// What this processor multiplies with in bfloat16, if it can.
pub(super) fn unit() -> Option<Unit> {
    static UNIT: OnceLock<Option<Unit>> = OnceLock::new();
    *UNIT.get_or_init(processor::detect)
}

/// Whether a product of these dimensions is faster on `unit` than in f32, its gradients counted: small ones do not pay for packing, the
/// less so the slower the unit is.
pub(super) fn pays(unit: Unit, rows: usize, columns: usize, depth: usize) -> bool {
    let (deep, wide) = match unit {
        Unit::Tiles => (32, 8),
        Unit::Pairs | Unit::Quads => (64, 32),
    };
    rows * columns * depth >= 1 << 15 && depth >= deep && rows.min(columns) >= wide
}

/// The result of a product: row-major, `stride` values from one row to the next.
#[derive(Clone, Copy)]
struct Target<T> {
    values: *mut T,
    stride: usize,
    rows: usize,
    columns: usize,
}

// SAFETY: tasks write to blocks of their own.
#[expect(unsafe_code, reason = "tasks write to blocks of one result")]
unsafe impl<T> Sync for Target<T> {}

/// Numbers of blocks, of rows and of columns.
type Blocks = [Range<usize>; 2];

/// `c = a b^T` or `c += a b^T` where `a` is `(rows, depth)` and `b` is `(columns, depth)`.
///
/// # Safety
/// `c` must be valid for `a`'s outer number of rows of `b`'s outer number of values, `stride` apart, and initialised if added
/// to. The processor must have `unit`.
#[expect(unsafe_code, reason = "kernels write through pointers")]
pub(super) unsafe fn multiply(unit: Unit, a: Side<'_>, b: Side<'_>, c: *mut f32, stride: usize, store: Store) {
    let target = Target { values: c, stride, rows: a.outer(), columns: b.outer() };
    run(unit, a, b, |a, b, [rows, columns]| {
        for first in (0..a.deep()).step_by(DEPTH) {
            let depth = first..(first + DEPTH).min(a.deep());
            let store = if first == 0 { store } else { Store::Add };
            for row in rows.clone() {
                for column in columns.clone() {
                    let (a, b) = (a.tiles(row, depth.clone()), b.tiles(column, depth.clone()));
                    // SAFETY: the block lies inside the target by the caller's promise, and no other task has it.
                    unsafe { target.block(unit, a, b, [row, column], store) };
                }
            }
        }
    });
}

/// `a b^T`, rounded.
///
/// # Safety
/// As for [`multiply`], without anything added.
#[expect(unsafe_code, reason = "kernels write through pointers")]
pub(super) unsafe fn product(unit: Unit, a: Side<'_>, b: Side<'_>, c: *mut bf16, stride: usize) {
    let target = Target { values: c, stride, rows: a.outer(), columns: b.outer() };
    run(unit, a, b, |a, b, [rows, columns]| {
        for row in rows {
            for column in columns.clone() {
                let (a, b) = (a.tiles(row, 0..a.deep()), b.tiles(column, 0..a.deep()));
                // SAFETY: as above.
                unsafe { target.block(unit, a, b, [row, column]) };
            }
        }
    });
}

/// Packs the factors, and lets `task` compute the blocks of the result, some at a time, on every core.
fn run(unit: Unit, a: Side<'_>, b: Side<'_>, task: impl Fn(&Packed, &Packed, Blocks) + Sync) {
    let parallel = a.outer() * b.outer() * a.depth() >= PARALLEL_FROM;
    // SAFETY: by the promise of the callers of `multiply` and `product`, which alone call this, the processor has `unit`.
    #[expect(unsafe_code, reason = "vector instructions")]
    let pack = |side, factor, blocks, parallel| unsafe { Packed::new(side, factor, blocks, parallel) };
    let b_packed = pack(b, Factor::Right, 0..b.blocks(), parallel);
    let wanted = if parallel { 2 * rayon::current_num_threads() } else { 1 };
    let rows = (a.blocks() / wanted).clamp(1, TASK[0]);
    let groups = a.blocks().div_ceil(rows);
    // Few rows are parted by columns too.
    let columns = b.blocks().div_ceil(wanted.div_ceil(groups)).max(1);
    let parts = b.blocks().div_ceil(columns);
    let run = |number: usize| {
        let (row, column) = (number / parts * rows, number % parts * columns);
        let rows = row..(row + rows).min(a.blocks());
        let columns = column..(column + columns).min(b.blocks());
        let packed = pack(a, Factor::Left, rows.clone(), false);
        processor::session(unit, || {
            for first in columns.clone().step_by(TASK[1]) {
                task(&packed, &b_packed, [rows.clone(), first..(first + TASK[1]).min(columns.end)]);
            }
        });
    };
    match parallel {
        true => (0..groups * parts).into_par_iter().for_each(run),
        false => (0..groups * parts).for_each(run),
    }
}

impl<T> Target<T> {
    /// The first value of a block, and how many rows and columns it has.
    ///
    /// # Safety
    /// The block must lie inside the result.
    #[expect(unsafe_code, reason = "kernels write through pointers")]
    unsafe fn place(self, [row, column]: [usize; 2]) -> (*mut T, [usize; 2]) {
        let size = [(self.rows - row * BLOCK).min(BLOCK), (self.columns - column * BLOCK).min(BLOCK)];
        // SAFETY: by the caller's promise.
        (unsafe { self.values.add(row * BLOCK * self.stride + column * BLOCK) }, size)
    }
}

impl Target<f32> {
    /// One block of the result.
    ///
    /// # Safety
    /// As for [`multiply`]; it must run in a [`processor::session`].
    #[expect(unsafe_code, reason = "kernels write through pointers")]
    unsafe fn block(self, unit: Unit, a: &[Pair], b: &[Pair], at: [usize; 2], store: Store) {
        // SAFETY: the block lies inside the result, whole halves too if there are such; `sums` holds every half.
        unsafe {
            let (place, [rows, columns]) = self.place(at);
            let halves = [rows, columns].map(|n| n > BLOCK / 2);
            if rows % (BLOCK / 2) == 0 && columns % (BLOCK / 2) == 0 {
                processor::block(unit, a, b, place, self.stride, halves, store);
                return;
            }
            let mut sums = [0f32; BLOCK * BLOCK];
            processor::block(unit, a, b, sums.as_mut_ptr(), BLOCK, halves, Store::Replace);
            for (i, sums) in sums.chunks_exact(BLOCK).take(rows).enumerate() {
                for (j, sum) in sums[..columns].iter().enumerate() {
                    let value = place.add(i * self.stride + j);
                    *value = if store == Store::Add { *value + sum } else { *sum };
                }
            }
        }
    }
}

impl Target<bf16> {
    /// One block of the result.
    ///
    /// # Safety
    /// As for [`multiply`]; it must run in a [`processor::session`].
    #[expect(unsafe_code, reason = "kernels write through pointers")]
    unsafe fn block(self, unit: Unit, a: &[Pair], b: &[Pair], at: [usize; 2]) {
        // SAFETY: as above.
        unsafe {
            let (place, [rows, columns]) = self.place(at);
            let halves = [rows, columns].map(|n| n > BLOCK / 2);
            let whole = rows % (BLOCK / 2) == 0 && columns % (BLOCK / 2) == 0;
            if whole && processor::rounded(unit, a, b, place, self.stride, halves) {
                return;
            }
            let mut sums = [0f32; BLOCK * BLOCK];
            processor::block(unit, a, b, sums.as_mut_ptr(), BLOCK, halves, Store::Replace);
            for (i, sums) in sums.chunks_exact(BLOCK).take(rows).enumerate() {
                processor::narrow(sums, place.add(i * self.stride), columns);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;

    use super::*;
    use crate::cpu::memory::{Rounding, Values};
    use crate::dither::{COLUMN, bf16_above, threshold};

    /// Small integers, whose products and sums are exact.
    fn values(n: usize, k: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * k) % 17) as f32 - 8.0).collect()
    }

    #[test]
    fn every_layout_and_size_is_exact() {
        let sizes = [
            (1, 1, 1),
            (3, 5, 7),
            (16, 16, 32),
            (17, 33, 31),
            (32, 32, 64),
            (45, 70, 130),
            (300, 530, 40),
            (40, 9, 2100),
            // On several threads, and the second with columns in parts.
            (300, 700, 90),
            (40, 900, 500),
        ];
        for unit in processor::units() {
            for (m, n, k) in sizes {
                let (a, b) = (values(m * k, 7), values(n * k, 11));
                let turned = |x: &[f32], rows: usize| -> Vec<f32> {
                    (0..k).flat_map(|l| (0..rows).map(move |r| x[r * k + l])).collect()
                };
                let (a_turned, b_turned) = (turned(&a, m), turned(&b, n));
                let narrow = |x: &[f32]| -> Vec<bf16> { x.iter().map(|x| bf16::from_f32(*x)).collect() };
                let halves = [&a, &a_turned, &b, &b_turned].map(|x| narrow(x));
                let want: Vec<f32> =
                    (0..m * n).map(|i| (0..k).map(|l| a[i / n * k + l] * b[i % n * k + l]).sum()).collect();
                // Rows with something between them.
                let apart: Vec<f32> = a.chunks(k).flat_map(|row| row.iter().copied().chain([9.0; 3])).collect();
                let sides_a = [
                    Side::new(Values::Floats(&apart), [m, k], [k + 3, 1], Rounding::Nearest),
                    Side::new(Values::Floats(&a), [m, k], [k, 1], Rounding::Nearest),
                    Side::new(Values::Floats(&a_turned), [m, k], [1, m], Rounding::Nearest),
                    Side::new(Values::Halves(&halves[0]), [m, k], [k, 1], Rounding::Nearest),
                    Side::new(Values::Halves(&halves[1]), [m, k], [1, m], Rounding::Nearest),
                ];
                let sides_b = [
                    Side::new(Values::Floats(&b), [n, k], [k, 1], Rounding::Nearest),
                    Side::new(Values::Floats(&b_turned), [n, k], [1, n], Rounding::Nearest),
                    Side::new(Values::Halves(&halves[2]), [n, k], [k, 1], Rounding::Nearest),
                    Side::new(Values::Halves(&halves[3]), [n, k], [1, n], Rounding::Nearest),
                ];
                let stride = n + 3;
                for (i, a) in sides_a.into_iter().enumerate() {
                    for (j, b) in sides_b.into_iter().enumerate() {
                        let mut rounded = vec![bf16::from_f32(5.0); m * stride];
                        // SAFETY: as below.
                        #[expect(unsafe_code, reason = "the kernels' interface")]
                        unsafe {
                            product(unit, a, b, rounded.as_mut_ptr(), stride);
                        }
                        for (at, c) in rounded.iter().enumerate() {
                            let want = if at % stride < n { want[at / stride * n + at % stride] } else { 5.0 };
                            assert_eq!(*c, bf16::from_f32(want), "{unit:?} {m}x{n}x{k}, layouts {i} and {j} at {at}");
                        }
                        for store in [Store::Replace, Store::Add] {
                            let mut c = vec![5f32; m * stride];
                            // SAFETY: `c` has `m` rows of `stride` values.
                            #[expect(unsafe_code, reason = "the kernels' interface")]
                            unsafe {
                                multiply(unit, a, b, c.as_mut_ptr(), stride, store);
                            }
                            let before = if store == Store::Add { 5.0 } else { 0.0 };
                            for (at, c) in c.iter().enumerate() {
                                let want = match at % stride {
                                    column if column < n => want[at / stride * n + column] + before,
                                    _ => 5.0,
                                };
                                assert_eq!(*c, want, "{unit:?} {m}x{n}x{k}, layouts {i} and {j}, {store:?} at {at}");
                            }
                        }
                    }
                }
            }
        }
    }

    /// Times the matrix that changes nothing, on either side and however they lie in memory.
    #[test]
    fn weights_are_dithered_by_their_places() {
        for unit in processor::units() {
            for (n, k) in [(9, 700), (70, 130), (300, 70)] {
                let of_weights: Vec<f32> = (0..n * k).map(|i| ((i * 31) % 1009) as f32 / 997.0 - 0.5).collect();
                let one: Vec<f32> = (0..k * k).map(|i| if i % (k + 1) == 0 { 1.0 } else { 0.0 }).collect();
                let one = Side::new(Values::Floats(&one), [k, k], [k, 1], Rounding::Nearest);
                let first_row = 2048;
                let values = Values::Floats(&of_weights);
                // By rows and, if the same memory is taken for `(k, n)`, by columns.
                for by_rows in [true, false] {
                    let (strides, width) = if by_rows { ([k, 1], k) } else { ([1, n], n) };
                    let weights = Side::new(values, [n, k], strides, Rounding::Dithered { first_row });
                    for right in [false, true] {
                        let (a, b) = if right { (one, weights) } else { (weights, one) };
                        let mut c = vec![0f32; n * k];
                        // SAFETY: `c` has as many rows and columns as the factors.
                        #[expect(unsafe_code, reason = "the kernels' interface")]
                        unsafe {
                            multiply(unit, a, b, c.as_mut_ptr(), b.outer(), Store::Replace);
                        }
                        for (i, l) in (0..n).flat_map(|i| (0..k).map(move |l| (i, l))) {
                            let (row, column) = if by_rows { (i, l) } else { (l, i) };
                            let weight = of_weights[row * width + column];
                            let want = bf16_above(weight, threshold(first_row + row, column)).to_f32();
                            let got = if right { c[l * n + i] } else { c[i * k + l] };
                            assert_eq!(got, want, "{unit:?} {n}x{k}, by rows {by_rows}, right {right}: {i}, {l}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn odd_weights_and_rows_that_end_anywhere_are_dithered_as_one_by_one() {
        if processor::units().is_empty() {
            return;
        }
        let odd = [0.0, -0.0, f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN, 1e-40, -1.01];
        for n in [1, 10, 15, 16, 17, 31, 32, 33, 100] {
            for first in [0, 1, 40_000, u16::MAX] {
                let weights: Vec<f32> = odd.iter().copied().cycle().take(n).collect();
                let mut got = vec![MaybeUninit::new(1); n.next_multiple_of(32)];
                // SAFETY: there is a unit; all is initialised.
                #[expect(unsafe_code, reason = "the kernels' interface")]
                let got: Vec<u16> = unsafe {
                    processor::dither(&weights, first, &mut got);
                    got.iter().map(|x| x.assume_init()).collect()
                };
                for (i, got) in got.into_iter().enumerate() {
                    let threshold = first.wrapping_add((i as u16).wrapping_mul(COLUMN));
                    let want = weights.get(i).map_or(0, |weight| bf16_above(*weight, threshold).to_bits());
                    assert_eq!(got, want, "{i} of {n} from {first}");
                }
            }
        }
    }
}
