//! What floats are held in: themselves, or two in bfloat16 in the place of one. Memory is of `u32` for both.

use half::bf16;
use pulp::Simd;

/// Places between the two values of a pair in a row of values.
pub(super) const APART: usize = 16;

/// How floats are held.
pub(super) trait Held {
    /// Values in one place.
    const EACH: usize;

    /// The `N` vectors that `places` hold, those of one vector of places after another.
    fn vectors<S: Simd, const N: usize>(simd: S, places: &[u32]) -> [S::f32s; N];
}

/// As f32.
pub(super) struct Whole;
/// Two in bfloat16, the first in the lower bits.
pub(super) struct Pairs;

impl Held for Whole {
    const EACH: usize = 1;

    #[inline(always)]
    fn vectors<S: Simd, const N: usize>(simd: S, places: &[u32]) -> [S::f32s; N] {
        let (vectors, _) = S::as_simd_u32s(places);
        std::array::from_fn(|i| simd.transmute_f32s_u32s(vectors[i]))
    }
}

impl Held for Pairs {
    const EACH: usize = 2;

    #[inline(always)]
    fn vectors<S: Simd, const N: usize>(simd: S, places: &[u32]) -> [S::f32s; N] {
        let (pairs, _) = S::as_simd_u32s(places);
        let (shift, mask) = (simd.splat_u32s(16), simd.splat_u32s(0xffff_0000));
        std::array::from_fn(|i| {
            let pair = pairs[i / 2];
            let bits = if i % 2 == 0 { simd.wrapping_dyn_shl_u32s(pair, shift) } else { simd.and_u32s(pair, mask) };
            simd.transmute_f32s_u32s(bits)
        })
    }
}

/// The first value of vector number `vector` of those that the places from `at` on hold, where rows of values are held as by
/// [`row`].
#[inline(always)]
pub(super) fn value<H: Held>(at: usize, vector: usize, lanes: usize) -> usize {
    match H::EACH {
        1 => at + vector * lanes,
        _ => {
            let place = at + vector / 2 * lanes;
            place / APART * 2 * APART + place % APART + vector % 2 * APART
        }
    }
}

/// The place of a value in a row of pairs, and how many bits its own must be moved up to become those of the f32.
pub(super) fn place(value: usize) -> (usize, u32) {
    let second = value / APART % 2;
    (value / (2 * APART) * APART + value % APART, 16 * (1 - second as u32))
}

/// Two values as a pair.
#[inline(always)]
pub(super) fn pair(first: f32, second: f32) -> u32 {
    let bits = |value| u32::from(bf16::from_f32(value).to_bits());
    bits(first) | bits(second) << 16
}

/// A row of values in pairs: those of the values `32 i + j` and `32 i + 16 + j` lie in place `16 i + j`.
pub(super) fn row(values: &[f32]) -> impl Iterator<Item = u32> {
    values.chunks_exact(2 * APART).flat_map(|some| (0..APART).map(|j| pair(some[j], some[APART + j])))
}

/// Tells the processor that the memory of `place` will be read.
#[inline(always)]
pub(super) fn fetch(place: &u32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: it changes nothing but what is cached.
    #[expect(unsafe_code, reason = "the interface of the processor")]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
