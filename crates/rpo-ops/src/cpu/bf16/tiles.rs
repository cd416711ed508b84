//! Factors of a product rounded to bfloat16 and laid out in tiles.

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use super::BLOCK;
use crate::cpu::memory::Values;

/// Depth of a tile.
pub(super) const DEEP: usize = 32;

/// Two tiles, one for each half of a block: 16 rows of 32 values, 64 bytes a row.
///
/// In [`Order::Rows`] a row holds 32 values of one row of the factor; in [`Order::Pairs`] the rows of the tile are 16 pairs of
/// neighbours in depth, for each of 16 columns of the result: `[pair][column][2]`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Pair(pub(super) [[[u16; DEEP]; BLOCK / 2]; 2]);

/// How a factor lies in its tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Rows,
    Pairs,
}

/// A factor of a product, `(outer, depth)`, inside a slice; `depth` is what is summed over.
#[derive(Clone, Copy)]
pub(in super::super) struct Side<'a> {
    values: Values<'a>,
    outer: usize,
    depth: usize,
    outer_stride: usize,
    depth_stride: usize,
}

impl<'a> Side<'a> {
    /// One of the two strides, of `outer` and of `depth`, is 1.
    ///
    /// # Panics
    /// If it does not lie inside `values`.
    pub(in super::super) fn new(values: Values<'a>, [outer, depth]: [usize; 2], strides: [usize; 2]) -> Self {
        let [outer_stride, depth_stride] = strides;
        assert!(outer_stride == 1 || depth_stride == 1, "values of a factor lie side by side");
        let last = outer.saturating_sub(1) * outer_stride + depth.saturating_sub(1) * depth_stride;
        assert!(outer * depth == 0 || last < values.len(), "outside its memory");
        Self { values, outer, depth, outer_stride, depth_stride }
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

    /// Fills the tile of a factor in `order` that begins at these places of `outer` and `depth`; what is missing is zero.
    fn fill(&self, tile: &mut [MaybeUninit<[u16; DEEP]>; BLOCK / 2], order: Order, outer: usize, depth: usize) {
        let part = Part {
            rows: self.outer.saturating_sub(outer).min(BLOCK / 2),
            deep: self.depth.saturating_sub(depth).min(DEEP),
            stride: if self.depth_stride == 1 { self.outer_stride } else { self.depth_stride },
            deep_first: self.depth_stride == 1,
        };
        let at = outer * self.outer_stride + depth * self.depth_stride;
        // SAFETY: the processor has AVX-512 BF16, without which nothing is packed, and the part lies inside the values.
        #[expect(unsafe_code, reason = "vector instructions")]
        unsafe {
            match self.values {
                Values::Floats(values) if part.rows > 0 => x86::fill(values.as_ptr().add(at), part, order, tile),
                Values::Halves(values) if part.rows > 0 => x86::fill(values.as_ptr().add(at), part, order, tile),
                _ => tile.fill(MaybeUninit::new([0; DEEP])),
            }
        }
    }
}

/// What of a factor goes into one tile.
#[derive(Clone, Copy)]
struct Part {
    /// Rows of the factor, at most 16.
    rows: usize,
    /// Values of each, at most 32.
    deep: usize,
    /// From one row to the next, or from one depth to the next.
    stride: usize,
    /// Whether neighbours in memory are neighbours in depth.
    deep_first: bool,
}

/// Blocks of a factor in tiles, `[block][deep]`.
pub(super) struct Packed {
    tiles: Vec<Pair>,
    first: usize,
    deep: usize,
}

/// Blocks that one task fills.
const TASK: usize = 8;

impl Packed {
    pub(super) fn new(side: Side<'_>, order: Order, blocks: Range<usize>, parallel: bool) -> Self {
        let deep = side.depth.div_ceil(DEEP);
        let n = blocks.len() * deep;
        let mut tiles: Vec<Pair> = Vec::with_capacity(n);
        let fill = |block: usize, depth: usize, pair: &mut MaybeUninit<Pair>| {
            // SAFETY: a pair is two tiles of 16 rows, and its rows may be uninitialised as it may be.
            #[expect(unsafe_code, reason = "memory is not zeroed first only to be overwritten")]
            let halves: &mut [[MaybeUninit<[u16; DEEP]>; BLOCK / 2]; 2] = unsafe { &mut *pair.as_mut_ptr().cast() };
            let [first, second] = halves;
            side.fill(first, order, block * BLOCK, depth * DEEP);
            side.fill(second, order, block * BLOCK + BLOCK / 2, depth * DEEP);
        };
        // Along what lies side by side in memory.
        let fill_blocks = |(task, pairs): (usize, &mut [MaybeUninit<Pair>])| {
            let first = blocks.start + task * TASK;
            if side.depth_stride == 1 {
                for (i, pair) in pairs.iter_mut().enumerate() {
                    fill(first + i / deep, i % deep, pair);
                }
            } else {
                for depth in 0..deep {
                    for (block, pair) in pairs[depth..].iter_mut().step_by(deep).enumerate() {
                        fill(first + block, depth, pair);
                    }
                }
            }
        };
        let room = &mut tiles.spare_capacity_mut()[..n];
        let each = (TASK * deep).max(1);
        match parallel {
            true => room.par_chunks_mut(each).enumerate().for_each(fill_blocks),
            false => room.chunks_mut(each).enumerate().for_each(fill_blocks),
        }
        // SAFETY: `fill` has written every row of all `n` pairs.
        #[expect(unsafe_code, reason = "as above")]
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

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector instructions")]
mod x86 {
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm256_maskz_loadu_epi16, _mm256_setzero_si256, _mm512_castsi256_si512, _mm512_cvtne2ps_pbh,
        _mm512_inserti64x4, _mm512_maskz_loadu_epi16, _mm512_maskz_loadu_ps, _mm512_permutexvar_epi16,
        _mm512_set_epi16, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_storeu_si512,
        _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
    };
    use std::mem::MaybeUninit;

    use half::bf16;

    use super::{DEEP, Order, Part};
    use crate::cpu::bf16::BLOCK;

    /// Values as they lie in memory.
    pub(super) trait Stored: Copy {
        /// 32 neighbours, of which the first `n` are there.
        unsafe fn neighbours(place: *const Self, n: usize) -> __m512i;
        /// 16 neighbours in each of two places, of which the first `n` are there: pairs of one from each, or from the first and zero.
        unsafe fn pairs(low: *const Self, high: Option<*const Self>, n: usize) -> __m512i;
    }

    /// A mask of the first `n` lanes of 16.
    fn first16(n: usize) -> u16 {
        if n >= 16 { u16::MAX } else { (1 << n) - 1 }
    }

    impl Stored for f32 {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
        #[inline]
        unsafe fn neighbours(place: *const f32, n: usize) -> __m512i {
            // SAFETY: lanes that are not there are not read.
            unsafe {
                let low = _mm512_maskz_loadu_ps(first16(n), place);
                let high = _mm512_maskz_loadu_ps(first16(n.saturating_sub(16)), place.wrapping_add(16));
                std::mem::transmute(_mm512_cvtne2ps_pbh(high, low))
            }
        }

        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
        #[inline]
        unsafe fn pairs(low: *const f32, high: Option<*const f32>, n: usize) -> __m512i {
            // SAFETY: lanes that are not there are not read.
            unsafe {
                let low = _mm512_maskz_loadu_ps(first16(n), low);
                let high = match high {
                    Some(high) => _mm512_maskz_loadu_ps(first16(n), high),
                    None => _mm512_setzero_ps(),
                };
                interleave(std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)))
            }
        }
    }

    impl Stored for bf16 {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
        #[inline]
        unsafe fn neighbours(place: *const bf16, n: usize) -> __m512i {
            let mask = if n >= 32 { u32::MAX } else { (1 << n) - 1 };
            // SAFETY: lanes that are not there are not read.
            unsafe { _mm512_maskz_loadu_epi16(mask, place.cast()) }
        }

        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
        #[inline]
        unsafe fn pairs(low: *const bf16, high: Option<*const bf16>, n: usize) -> __m512i {
            // SAFETY: lanes that are not there are not read.
            unsafe {
                let low = _mm256_maskz_loadu_epi16(first16(n), low.cast());
                let high = match high {
                    Some(high) => _mm256_maskz_loadu_epi16(first16(n), high.cast()),
                    None => _mm256_setzero_si256(),
                };
                interleave(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1))
            }
        }
    }

    /// `[a0 .. a15, b0 .. b15]` to `[a0, b0, a1, b1, ..]`.
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn interleave(x: __m512i) -> __m512i {
        #[rustfmt::skip]
        let order = _mm512_set_epi16(
            31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,
            23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0,
        );
        _mm512_permutexvar_epi16(order, x)
    }

    /// Transposes 16 rows of 16 pairs.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn transpose(rows: &[__m512i; 16]) -> [__m512i; 16] {
        let zero = _mm512_setzero_si512();
        let (mut a, mut b) = ([zero; 16], [zero; 16]);
        for i in 0..8 {
            a[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
            a[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
        }
        for i in 0..4 {
            for j in 0..2 {
                b[4 * i + 2 * j] = _mm512_unpacklo_epi64(a[4 * i + j], a[4 * i + j + 2]);
                b[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(a[4 * i + j], a[4 * i + j + 2]);
            }
        }
        // Now lane `l` of `b[4 i + j]` holds column `4 l + j` of rows `4 i ..`.
        let mut columns = [zero; 16];
        for j in 0..4 {
            let low = _mm512_shuffle_i32x4(b[j], b[4 + j], 0b10_00_10_00);
            let high = _mm512_shuffle_i32x4(b[j], b[4 + j], 0b11_01_11_01);
            let low2 = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0b10_00_10_00);
            let high2 = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0b11_01_11_01);
            columns[j] = _mm512_shuffle_i32x4(low, low2, 0b10_00_10_00);
            columns[8 + j] = _mm512_shuffle_i32x4(low, low2, 0b11_01_11_01);
            columns[4 + j] = _mm512_shuffle_i32x4(high, high2, 0b10_00_10_00);
            columns[12 + j] = _mm512_shuffle_i32x4(high, high2, 0b11_01_11_01);
        }
        columns
    }

    /// Fills a tile.
    ///
    /// # Safety
    /// The processor must have AVX-512 BF16, and `part` must be there at `place`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) unsafe fn fill<T: Stored>(
        place: *const T,
        part: Part,
        order: Order,
        tile: &mut [MaybeUninit<[u16; DEEP]>; BLOCK / 2],
    ) {
        let Part { rows, deep, stride, deep_first } = part;
        let mut vectors = [_mm512_setzero_si512(); 16];
        // SAFETY: rows and depths below those that are there.
        unsafe {
            if deep_first {
                for (i, vector) in vectors.iter_mut().enumerate().take(rows) {
                    *vector = T::neighbours(place.add(i * stride), deep);
                }
            } else {
                for (i, vector) in vectors.iter_mut().enumerate().take(deep.div_ceil(2)) {
                    let first = place.add(2 * i * stride);
                    let second = (2 * i + 1 < deep).then(|| first.add(stride));
                    *vector = T::pairs(first, second, rows);
                }
            }
            if deep_first == (order == Order::Pairs) {
                vectors = transpose(&vectors);
            }
            for (row, vector) in tile.iter_mut().zip(vectors) {
                _mm512_storeu_si512(row.as_mut_ptr().cast(), vector);
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod x86 {
    use std::mem::MaybeUninit;

    use super::{DEEP, Order, Part};
    use crate::cpu::bf16::BLOCK;

    #[expect(unsafe_code, reason = "as where there are kernels")]
    pub(super) unsafe fn fill<T>(_: *const T, _: Part, _: Order, _: &mut [MaybeUninit<[u16; DEEP]>; BLOCK / 2]) {
        unreachable!("no unit was detected");
    }
}
