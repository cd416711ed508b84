//! Factors into tiles of 16 rows of 64 bytes. On the left a row holds 32 values of one row of the factor; on the right the rows are 16 pairs
//! of neighbours in depth, for each of 16 columns of the result: `[pair][column][2]`.

use std::arch::x86_64::{
    __m512, __m512i, _mm256_loadu_si256, _mm512_add_epi16, _mm512_add_epi32, _mm512_castps_si512,
    _mm512_castsi256_si512, _mm512_cvtne2ps_pbh, _mm512_inserti64x4, _mm512_loadu_si512, _mm512_maskz_loadu_epi16,
    _mm512_maskz_loadu_ps, _mm512_permutex2var_epi16, _mm512_permutexvar_epi16, _mm512_set_epi16, _mm512_set1_epi32,
    _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_storeu_si512, _mm512_sub_epi16, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64, _mm512_xor_si512,
};
use std::mem::MaybeUninit;

use half::bf16;

use super::super::tiles::{DEEP, Factor, Stage, Tile};
use crate::dither::COLUMN;

/// Values as they lie in memory.
pub(in super::super) trait Stored: Copy {
    /// 32 neighbours, rounded, of which the first `n` are there; the others are zero.
    unsafe fn neighbours(place: *const Self, n: usize) -> __m512i;
}

impl Stored for f32 {
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[inline]
    unsafe fn neighbours(place: *const f32, n: usize) -> __m512i {
        // SAFETY: by the caller's promise; both are vectors.
        unsafe {
            let [low, high] = floats(place, n);
            std::mem::transmute(_mm512_cvtne2ps_pbh(high, low))
        }
    }
}

impl Stored for bf16 {
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[inline]
    unsafe fn neighbours(place: *const bf16, n: usize) -> __m512i {
        let mask = if n >= 32 { u32::MAX } else { (1 << n) - 1 };
        // SAFETY: lanes that are not there are not read.
        unsafe { _mm512_maskz_loadu_epi16(mask, place.cast()) }
    }
}

/// Rounds `from` into `to`, whose length is a multiple of 32, and fills that up with zeros.
///
/// # Safety
/// The processor must have AVX-512 BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(in super::super) unsafe fn round<T: Stored>(from: &[T], to: &mut [MaybeUninit<u16>]) {
    // SAFETY: `by_vectors` asks for values that are there.
    by_vectors(from, to, |place, n| unsafe { T::neighbours(place, n) });
}

/// The same for weights that lie side by side in a row, whose first has this threshold, as by [`bf16_above`](crate::dither::bf16_above):
/// `65535 - threshold` is added to the bits, so that the lower 16 carry into the upper 16, which are kept, exactly if they are above it.
/// What is no number must have zeros in the lower ones, as arithmetic makes it; files with others are refused.
///
/// # Safety
/// The same.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(in super::super) unsafe fn dither(from: &[f32], threshold: u16, to: &mut [MaybeUninit<u16>]) {
    /// How much the thresholds of 32 neighbours are above the first.
    const FURTHER: [u32; DEEP] = {
        let (mut further, mut i) = ([0; DEEP], 0);
        while i < DEEP {
            further[i] = COLUMN.wrapping_mul(i as u16) as u32;
            i += 1;
        }
        further
    };
    let every = |x: u16| _mm512_set1_epi32(u32::from(x).cast_signed());
    let mut carries = [0, DEEP / 2].map(|i| {
        // SAFETY: half of them is a vector.
        let further = unsafe { _mm512_loadu_si512(FURTHER[i..i + DEEP / 2].as_ptr().cast()) };
        // The upper halves stay zero.
        _mm512_xor_si512(_mm512_add_epi16(further, every(threshold)), every(u16::MAX))
    });
    let less = every(COLUMN.wrapping_mul(DEEP as u16));
    by_vectors(from, to, |place, n| {
        // SAFETY: `by_vectors` asks for values that are there.
        let [low, high] = unsafe { floats(place, n) };
        let [of_low, of_high] = carries;
        carries = [_mm512_sub_epi16(of_low, less), _mm512_sub_epi16(of_high, less)];
        let (low, high) = (_mm512_castps_si512(low), _mm512_castps_si512(high));
        upper_halves(_mm512_add_epi32(low, of_low), _mm512_add_epi32(high, of_high))
    });
}

/// Writes what `vector` makes of 32 values after another, of the place of the first and the number of those that are there.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
#[inline]
fn by_vectors<T>(from: &[T], to: &mut [MaybeUninit<u16>], mut vector: impl FnMut(*const T, usize) -> __m512i) {
    debug_assert!(to.len().is_multiple_of(DEEP) && from.len() <= to.len(), "a row of the stage");
    let whole = from.len() / DEEP * DEEP;
    for (i, to) in (0..).step_by(DEEP).zip(to.chunks_exact_mut(DEEP)) {
        let place = from.as_ptr().wrapping_add(i);
        let values = match i < whole {
            true => vector(place, DEEP),
            false => vector(place, from.len().saturating_sub(i)),
        };
        // SAFETY: a vector is 32 values.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), values) };
    }
}

/// 32 neighbours, of which the first `n` are there; the others are zero.
///
/// # Safety
/// They must be there.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn floats(place: *const f32, n: usize) -> [__m512; 2] {
    let first16 = |n: usize| if n >= 16 { u16::MAX } else { (1 << n) - 1 };
    // SAFETY: lanes that are not there are not read.
    unsafe {
        [
            _mm512_maskz_loadu_ps(first16(n), place),
            _mm512_maskz_loadu_ps(first16(n.saturating_sub(16)), place.wrapping_add(16)),
        ]
    }
}

/// The upper 16 bits of 32 values.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn upper_halves(low: __m512i, high: __m512i) -> __m512i {
    #[rustfmt::skip]
    let order = _mm512_set_epi16(
        63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33,
        31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1,
    );
    _mm512_permutex2var_epi16(low, order, high)
}

/// Fills a tile from 16 rows of the factor, 32 values of each from `first` on.
///
/// # Safety
/// The processor must have AVX-512 BF16; the values must be there.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(in super::super) unsafe fn fill_along<const ROWS: usize, const WIDTH: usize>(
    stage: &Stage<ROWS, WIDTH>,
    first: usize,
    factor: Factor,
    tile: &mut Tile,
) {
    let mut vectors = [_mm512_setzero_si512(); 16];
    for (vector, row) in vectors.iter_mut().zip(&stage.0) {
        // SAFETY: by the caller's promise.
        *vector = unsafe { _mm512_loadu_si512(row[first..first + DEEP].as_ptr().cast()) };
    }
    write(vectors, factor == Factor::Right, tile);
}

/// Fills a tile from 32 depths of the factor, 16 values of each from `first` on.
///
/// # Safety
/// The same.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(in super::super) unsafe fn fill_across<const ROWS: usize, const WIDTH: usize>(
    stage: &Stage<ROWS, WIDTH>,
    first: usize,
    factor: Factor,
    tile: &mut Tile,
) {
    let mut vectors = [_mm512_setzero_si512(); 16];
    for (vector, pair) in vectors.iter_mut().zip(stage.0.chunks_exact(2)) {
        // SAFETY: by the caller's promise.
        unsafe {
            let low = _mm256_loadu_si256(pair[0][first..first + 16].as_ptr().cast());
            let high = _mm256_loadu_si256(pair[1][first..first + 16].as_ptr().cast());
            *vector = interleave(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
        }
    }
    write(vectors, factor == Factor::Left, tile);
}

/// Writes the rows of a tile, transposed first if they are those of the other order.
#[target_feature(enable = "avx512f")]
#[inline]
fn write(mut vectors: [__m512i; 16], other: bool, tile: &mut Tile) {
    if other {
        vectors = transpose(&vectors);
    }
    for (row, vector) in tile.iter_mut().zip(vectors) {
        // SAFETY: a row of a tile is as long as a vector.
        unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast(), vector) };
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
