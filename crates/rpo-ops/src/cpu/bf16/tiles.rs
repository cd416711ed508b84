//! Factors of a product rounded to bfloat16 and laid out in tiles.

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use super::{BLOCK, processor};
use crate::cpu::memory::{Rounding, Values};
use crate::dither::threshold;

/// Depth of a tile.
pub(super) const DEEP: usize = 32;

/// Two tiles, one for each half of a block: 16 rows or columns of the result with 32 values of each, in the order in which the processor
/// takes them.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Pair(pub(super) [[[u16; DEEP]; BLOCK / 2]; 2]);

/// A tile that is not written yet.
pub(super) type Tile = [MaybeUninit<[u16; DEEP]>; BLOCK / 2];

/// A factor by its place in the product, on which the order of its tiles may depend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Factor {
    Left,
    Right,
}

/// A factor of a product, `(outer, depth)`, inside a slice; `depth` is what is summed over.
#[derive(Clone, Copy)]
pub(in super::super) struct Side<'a> {
    values: Values<'a>,
    outer: usize,
    depth: usize,
    outer_stride: usize,
    depth_stride: usize,
    rounding: Rounding,
}

impl<'a> Side<'a> {
    /// One of the two strides, of `outer` and of `depth`, is 1.
    ///
    /// # Panics
    /// If it does not lie inside `values`.
    pub(in super::super) fn new(
        values: Values<'a>,
        [outer, depth]: [usize; 2],
        strides: [usize; 2],
        rounding: Rounding,
    ) -> Self {
        let [outer_stride, depth_stride] = strides;
        assert!(outer_stride == 1 || depth_stride == 1, "values of a factor lie side by side");
        let last = outer.saturating_sub(1) * outer_stride + depth.saturating_sub(1) * depth_stride;
        assert!(outer * depth == 0 || last < values.len(), "outside its memory");
        Self { values, outer, depth, outer_stride, depth_stride, rounding }
    }

    pub(super) fn outer(&self) -> usize {
        self.outer
    }

    /// Blocks along `outer`.
    pub(super) fn blocks(&self) -> usize {
        self.outer.div_ceil(BLOCK)
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Rounds `n` neighbours in memory from these places of `outer` and `depth` on into a row of a stage and fills that up with zeros;
    /// all are zero where nothing is there.
    ///
    /// # Safety
    /// The processor must have a unit.
    #[expect(unsafe_code, reason = "vector instructions")]
    unsafe fn round(&self, [outer, depth]: [usize; 2], n: usize, to: &mut [MaybeUninit<u16>]) {
        if outer >= self.outer || depth >= self.depth {
            to.fill(MaybeUninit::new(0));
            return;
        }
        let at = outer * self.outer_stride + depth * self.depth_stride;
        // SAFETY: by the caller's promise.
        unsafe {
            match (self.values, self.rounding) {
                (Values::Floats(values), Rounding::Nearest) => processor::round(&values[at..at + n], to),
                (Values::Floats(values), Rounding::Dithered { first_row }) => {
                    // Were both strides 1, its one column would be taken for a row; products of such do not come here.
                    let [row, column] = if self.depth_stride == 1 { [outer, depth] } else { [depth, outer] };
                    processor::dither(&values[at..at + n], threshold(first_row + row, column), to);
                }
                (Values::Halves(values), _) => processor::round(&values[at..at + n], to),
            }
        }
    }
}

/// A part of a factor on its way into tiles, rounded. Reading long pieces of its rows is what a processor does fast; a tile takes 64 or
/// 128 bytes of each of many rows, which may fall upon one place of the first cache. The stage fits into that.
#[repr(align(64))]
pub(super) struct Stage<const ROWS: usize, const WIDTH: usize>(pub(super) [[MaybeUninit<u16>; WIDTH]; ROWS]);

/// Depth that is staged for the 16 rows of a tile.
const STAGED: usize = 16 * DEEP;

/// Most blocks that one task fills: so many are staged for the 32 depths of a tile.
const TASK: usize = 8;

/// Blocks of a factor in tiles, `[block][deep]`.
pub(super) struct Packed {
    tiles: Vec<Pair>,
    first: usize,
    deep: usize,
}

impl Packed {
    /// # Safety
    /// The processor must have a unit.
    #[expect(unsafe_code, reason = "vector instructions")]
    pub(super) unsafe fn new(side: Side<'_>, factor: Factor, blocks: Range<usize>, parallel: bool) -> Self {
        let deep = side.depth.div_ceil(DEEP);
        let n = blocks.len() * deep;
        let mut tiles: Vec<Pair> = Vec::with_capacity(n);
        let tasks = if parallel { 2 * rayon::current_num_threads() } else { 1 };
        let each = blocks.len().div_ceil(tasks).clamp(1, TASK);
        let fill = |(task, pairs): (usize, &mut [MaybeUninit<Pair>])| {
            let first = blocks.start + task * each;
            // SAFETY: by the caller's promise.
            unsafe {
                match side.depth_stride == 1 {
                    true => fill_along_depth(side, factor, first, deep, pairs),
                    false => fill_across_depth(side, factor, first, deep, pairs),
                }
            }
        };
        let room = &mut tiles.spare_capacity_mut()[..n];
        let each = (each * deep).max(1);
        match parallel {
            true => room.par_chunks_mut(each).enumerate().for_each(fill),
            false => room.chunks_mut(each).enumerate().for_each(fill),
        }
        // SAFETY: every row of all `n` pairs was written.
        unsafe {
            tiles.set_len(n);
        }
        Self { tiles, first: blocks.start, deep }
    }

    /// Tiles along the depth.
    pub(super) fn deep(&self) -> usize {
        self.deep
    }

    /// Some of those of a block.
    pub(super) fn tiles(&self, block: usize, deep: Range<usize>) -> &[Pair] {
        &self.tiles[(block - self.first) * self.deep..][deep]
    }
}

/// Fills the tiles of blocks from `first` on, `[block][deep]`, of a factor whose neighbours in memory are neighbours in depth.
///
/// # Safety
/// The processor must have a unit.
#[expect(unsafe_code, reason = "vector instructions")]
unsafe fn fill_along_depth(side: Side<'_>, factor: Factor, first: usize, deep: usize, pairs: &mut [MaybeUninit<Pair>]) {
    let mut stage = Stage([[MaybeUninit::uninit(); STAGED]; BLOCK / 2]);
    for (block, pairs) in (first..).zip(pairs.chunks_exact_mut(deep)) {
        for half in 0..2 {
            let outer = block * BLOCK + half * BLOCK / 2;
            for (depth, pairs) in (0..).step_by(STAGED).zip(pairs.chunks_mut(STAGED / DEEP)) {
                let n = (side.depth - depth).min(STAGED);
                // SAFETY: by the caller's promise.
                unsafe {
                    for (i, row) in stage.0.iter_mut().enumerate() {
                        side.round([outer + i, depth], n, &mut row[..pairs.len() * DEEP]);
                    }
                    for (i, pair) in pairs.iter_mut().enumerate() {
                        processor::fill_along(&stage, i * DEEP, factor, &mut halves(pair)[half]);
                    }
                }
            }
        }
    }
}

/// The same of a factor whose neighbours in memory are neighbours along `outer`.
///
/// # Safety
/// The same.
#[expect(unsafe_code, reason = "vector instructions")]
unsafe fn fill_across_depth(
    side: Side<'_>,
    factor: Factor,
    first: usize,
    deep: usize,
    pairs: &mut [MaybeUninit<Pair>],
) {
    let mut stage = Stage([[MaybeUninit::uninit(); TASK * BLOCK]; DEEP]);
    let (outer, blocks) = (first * BLOCK, pairs.len() / deep.max(1));
    let n = (side.outer - outer).min(blocks * BLOCK);
    for depth in 0..deep {
        // SAFETY: by the caller's promise.
        unsafe {
            for (i, row) in stage.0.iter_mut().enumerate() {
                side.round([outer, depth * DEEP + i], n, &mut row[..blocks * BLOCK]);
            }
            for (block, pair) in pairs[depth..].iter_mut().step_by(deep).enumerate() {
                for (half, tile) in halves(pair).iter_mut().enumerate() {
                    processor::fill_across(&stage, block * BLOCK + half * BLOCK / 2, factor, tile);
                }
            }
        }
    }
}

/// The halves of a pair that is not written yet.
fn halves(pair: &mut MaybeUninit<Pair>) -> &mut [Tile; 2] {
    // SAFETY: a pair is two tiles, whose rows may be uninitialised as it may be.
    #[expect(unsafe_code, reason = "memory is not zeroed first only to be overwritten")]
    unsafe {
        &mut *pair.as_mut_ptr().cast()
    }
}
