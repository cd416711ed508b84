//! Arm's unit: BFMMLA of Armv8.6 and later, which adds the product of 2 rows and 2 columns of 4 values to 4 sums. Rust has no stable
//! intrinsic for it.
//!
//! Both factors lie alike in their tiles, `[quad][two][2][4]`: 8 quads of neighbours in depth, for each 8 twos of rows or columns.
#![expect(unsafe_code, reason = "vector instructions")]

use std::arch::aarch64::{vcombine_f32, vdupq_n_f32, vget_high_f32, vget_low_f32, vld1q_f32, vst1q_f32};
use std::arch::{asm, is_aarch64_feature_detected};
use std::mem::MaybeUninit;

use half::bf16;

use super::tiles::{DEEP, Factor, Pair, Stage, Tile};
use super::{BLOCK, Store, Unit};
use crate::cpu::memory::Value;
use crate::dither;

/// Values of a quad.
const QUAD: usize = 4;

/// Values of a tile.
const TILE: usize = BLOCK / 2 * DEEP;

pub(super) fn detect() -> Option<Unit> {
    is_aarch64_feature_detected!("bf16").then_some(Unit::Quads)
}

#[cfg(test)]
pub(super) fn units() -> Vec<Unit> {
    detect().into_iter().collect()
}

pub(super) fn session(_: Unit, work: impl FnOnce()) {
    work();
}

/// Rounds `from` into `to` and fills that up with zeros.
pub(super) unsafe fn round<T: Value>(from: &[T], to: &mut [MaybeUninit<u16>]) {
    let (whole, rest) = to.split_at_mut(from.len());
    whole.iter_mut().zip(from).for_each(|(to, from)| _ = to.write(<bf16 as Value>::narrow(from.widen()).to_bits()));
    rest.fill(MaybeUninit::new(0));
}

/// The same for weights that lie side by side in a row, whose first has this threshold.
pub(super) unsafe fn dither(from: &[f32], threshold: u16, to: &mut [MaybeUninit<u16>]) {
    let (whole, rest) = to.split_at_mut(from.len());
    let thresholds = (0..).map(|i: u16| threshold.wrapping_add(i.wrapping_mul(dither::COLUMN)));
    whole.iter_mut().zip(from).zip(thresholds).for_each(|((to, from), threshold)| {
        to.write(dither::bf16_above(*from, threshold).to_bits());
    });
    rest.fill(MaybeUninit::new(0));
}

/// Where depth `d` of row or column `i` lies in a tile.
fn place(i: usize, d: usize) -> usize {
    (d / QUAD * (BLOCK / 4) + i / 2) * 2 * QUAD + i % 2 * QUAD + d % QUAD
}

/// Fills a tile from 16 rows of a stage, 32 values of each from `first` on.
pub(super) unsafe fn fill_along<const ROWS: usize, const WIDTH: usize>(
    stage: &Stage<ROWS, WIDTH>,
    first: usize,
    _: Factor,
    tile: &mut Tile,
) {
    let tile = values(tile);
    for (i, row) in stage.0.iter().enumerate() {
        for (quad, from) in row[first..first + DEEP].chunks_exact(QUAD).enumerate() {
            tile[place(i, quad * QUAD)..][..QUAD].copy_from_slice(from);
        }
    }
}

/// Fills a tile from 32 depths, 16 values of each from `first` on.
pub(super) unsafe fn fill_across<const ROWS: usize, const WIDTH: usize>(
    stage: &Stage<ROWS, WIDTH>,
    first: usize,
    _: Factor,
    tile: &mut Tile,
) {
    let tile = values(tile);
    for (d, row) in stage.0.iter().enumerate() {
        for (i, from) in row[first..first + BLOCK / 2].iter().enumerate() {
            tile[place(i, d)] = *from;
        }
    }
}

/// The values of a tile one after the other.
fn values(tile: &mut Tile) -> &mut [MaybeUninit<u16>; TILE] {
    // SAFETY: rows of a tile are arrays without gaps, and what may be uninitialised as a whole may be so value by value.
    unsafe { &mut *tile.as_mut_ptr().cast() }
}

/// `c = a b^T` or `c += a b^T` of a block or of those of its halves that are `wide`.
///
/// # Safety
/// `c` must be valid for the rows and columns of those halves, `stride` values apart, and initialised if added to; the
/// processor must have BF16.
pub(super) unsafe fn block(_: Unit, a: &[Pair], b: &[Pair], c: *mut f32, stride: usize, wide: [bool; 2], store: Store) {
    assert_eq!(a.len(), b.len(), "factors of one depth");
    if a.is_empty() {
        return;
    }
    let [rows, columns] = wide.map(|wide| if wide { BLOCK } else { BLOCK / 2 });
    for row in (0..rows).step_by(2 * TWOS) {
        for column in (0..columns).step_by(2 * TWOS) {
            // SAFETY: rows and columns of the block.
            unsafe { quads(a, b, [row, column], c.add(row * stride + column), stride, store == Store::Add) };
        }
    }
}

/// Rounded results go through memory.
pub(super) unsafe fn rounded(_: Unit, _: &[Pair], _: &[Pair], _: *mut bf16, _: usize, _: [bool; 2]) -> bool {
    false
}

/// Rounds the first `n` values.
///
/// # Safety
/// `to` must be valid for `n` values.
pub(super) unsafe fn narrow(from: &[f32], to: *mut bf16, n: usize) {
    for (i, from) in from[..n].iter().enumerate() {
        // SAFETY: by the caller's promise.
        unsafe { to.add(i).write(Value::narrow(*from)) };
    }
}

/// Twos of rows and of columns whose sums are in the registers at a time: 16 of 32, beside 8 of the factors.
const TWOS: usize = 4;

/// The products of 8 rows and 8 columns, the first of which are given.
#[target_feature(enable = "neon,bf16")]
unsafe fn quads(a: &[Pair], b: &[Pair], first: [usize; 2], c: *mut f32, stride: usize, add: bool) {
    // Each holds two values of one row and below them two of the next.
    let mut sums = [[vdupq_n_f32(0.0); TWOS]; TWOS];
    let [a_first, b_first] = first.map(|i| (i / (BLOCK / 2), place(i % (BLOCK / 2), 0)));
    // SAFETY: rows and columns of the block by the caller's promise; the tiles of `a` and `b` are whole.
    unsafe {
        if add {
            for (i, sums) in sums.iter_mut().enumerate() {
                for (j, sums) in sums.chunks_exact_mut(2).enumerate() {
                    let place = c.add(2 * i * stride + 4 * j);
                    let (upper, lower) = (vld1q_f32(place), vld1q_f32(place.add(stride)));
                    sums[0] = vcombine_f32(vget_low_f32(upper), vget_low_f32(lower));
                    sums[1] = vcombine_f32(vget_high_f32(upper), vget_high_f32(lower));
                }
            }
        }
        let [a_at, b_at] =
            [(a, a_first), (b, b_first)].map(|(tiles, (half, at))| tiles.as_ptr().cast::<u16>().add(half * TILE + at));
        asm!(
            "2:",
            "mov {quads}, 8",
            "3:",
            "ld1 {{v16.8h, v17.8h, v18.8h, v19.8h}}, [{a}], {step}",
            "ld1 {{v20.8h, v21.8h, v22.8h, v23.8h}}, [{b}], {step}",
            "bfmmla v0.4s, v16.8h, v20.8h",
            "bfmmla v1.4s, v16.8h, v21.8h",
            "bfmmla v2.4s, v16.8h, v22.8h",
            "bfmmla v3.4s, v16.8h, v23.8h",
            "bfmmla v4.4s, v17.8h, v20.8h",
            "bfmmla v5.4s, v17.8h, v21.8h",
            "bfmmla v6.4s, v17.8h, v22.8h",
            "bfmmla v7.4s, v17.8h, v23.8h",
            "bfmmla v8.4s, v18.8h, v20.8h",
            "bfmmla v9.4s, v18.8h, v21.8h",
            "bfmmla v10.4s, v18.8h, v22.8h",
            "bfmmla v11.4s, v18.8h, v23.8h",
            "bfmmla v12.4s, v19.8h, v20.8h",
            "bfmmla v13.4s, v19.8h, v21.8h",
            "bfmmla v14.4s, v19.8h, v22.8h",
            "bfmmla v15.4s, v19.8h, v23.8h",
            "subs {quads}, {quads}, 1",
            "b.ne 3b",
            // Past the other half.
            "add {a}, {a}, 1024",
            "add {b}, {b}, 1024",
            "subs {n}, {n}, 1",
            "b.ne 2b",
            a = inout(reg) a_at => _,
            b = inout(reg) b_at => _,
            n = inout(reg) a.len() => _,
            quads = out(reg) _,
            step = in(reg) 2 * 2 * QUAD * BLOCK / 4,
            inout("v0") sums[0][0],
            inout("v1") sums[0][1],
            inout("v2") sums[0][2],
            inout("v3") sums[0][3],
            inout("v4") sums[1][0],
            inout("v5") sums[1][1],
            inout("v6") sums[1][2],
            inout("v7") sums[1][3],
            inout("v8") sums[2][0],
            inout("v9") sums[2][1],
            inout("v10") sums[2][2],
            inout("v11") sums[2][3],
            inout("v12") sums[3][0],
            inout("v13") sums[3][1],
            inout("v14") sums[3][2],
            inout("v15") sums[3][3],
            out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            options(nostack, readonly),
        );
        for (i, sums) in sums.iter().enumerate() {
            for (j, sums) in sums.chunks_exact(2).enumerate() {
                let place = c.add(2 * i * stride + 4 * j);
                vst1q_f32(place, vcombine_f32(vget_low_f32(sums[0]), vget_low_f32(sums[1])));
                vst1q_f32(place.add(stride), vcombine_f32(vget_high_f32(sums[0]), vget_high_f32(sums[1])));
            }
        }
    }
}
