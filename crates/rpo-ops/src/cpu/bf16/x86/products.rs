//! The products of one block: what the tiles of 32 rows and of 32 columns give.

use std::arch::asm;
use std::arch::x86_64::{
    __m256bh, __m256i, __m512, __m512bh, __m512i, _MM_HINT_ET0, _mm_prefetch, _mm256_storeu_si256, _mm512_cvtne2ps_pbh,
    _mm512_cvtneps_pbh, _mm512_dpbf16_ps, _mm512_load_si512, _mm512_loadu_ps, _mm512_mask_storeu_epi16,
    _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
};

use half::bf16;

use super::super::tiles::Pair;
use super::super::{BLOCK, Store, Unit};

/// Eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

/// Runs `work` with the tiles' shapes set, which belong to a thread.
pub(in super::super) fn session(unit: Unit, work: impl FnOnce()) {
    if unit != Unit::Tiles {
        return work();
    }
    let mut shapes = Shapes { palette: 1, start: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
    shapes.bytes[..8].fill(64);
    shapes.rows[..8].fill(16);
    // SAFETY: `Unit::Tiles` says that the instructions are there and permitted.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack, readonly)) };
    work();
    // SAFETY: as above.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// `c = a b^T` or `c += a b^T` of a block or of those of its halves that are `wide`.
///
/// # Safety
/// `c` must be valid for the rows and columns of those halves, `stride` values apart, and initialised if added to; the
/// processor must have `unit`, and a [`session`] must be under way.
pub(in super::super) unsafe fn block(
    unit: Unit,
    a: &[Pair],
    b: &[Pair],
    c: *mut f32,
    stride: usize,
    wide: [bool; 2],
    store: Store,
) {
    debug_assert_eq!(a.len(), b.len(), "factors of one depth");
    if a.is_empty() {
        return;
    }
    // SAFETY: by the caller's promise.
    unsafe {
        match unit {
            Unit::Tiles => tiles_block(a, b, c, stride, wide, store == Store::Add),
            _ => pairs_block(a, b, c, stride, wide, store == Store::Add),
        }
    }
}

/// `a b^T` of a block or of those of its halves that are `wide`, rounded; false where `unit` cannot round what it has in registers.
///
/// # Safety
/// As for [`block`], without anything added.
pub(in super::super) unsafe fn rounded(
    unit: Unit,
    a: &[Pair],
    b: &[Pair],
    c: *mut bf16,
    stride: usize,
    wide: [bool; 2],
) -> bool {
    debug_assert_eq!(a.len(), b.len(), "factors of one depth");
    if unit != Unit::Pairs {
        return false;
    }
    // SAFETY: by the caller's promise.
    unsafe { pairs_block(a, b, c, stride, wide, false) };
    true
}

/// Sums of four tiles: `0` and `1` of the first 16 rows, `2` and `3` of the others.
macro_rules! tiles {
    ($a:expr, $b:expr, $c:expr, $stride:expr, $add:expr,
     start: [$($start:literal),*], zero: [$($zero:literal),*], step: [$($step:literal),*], end: [$($end:literal),*]) => {
        asm!(
            "test {add:e}, {add:e}",
            "jz 2f",
            $($start,)*
            "jmp 3f",
            "2:",
            $($zero,)*
            "3:",
            $($step,)*
            "add {a}, 2048",
            "add {b}, 2048",
            "dec {n}",
            "jnz 3b",
            $($end,)*
            a = inout(reg) $a.as_ptr() => _,
            b = inout(reg) $b.as_ptr() => _,
            n = inout(reg) $a.len() => _,
            c = in(reg) $c,
            d = in(reg) $c.wrapping_add(16 * $stride),
            s = in(reg) 4 * $stride,
            w = in(reg) 64usize,
            add = in(reg) u32::from($add),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

unsafe fn tiles_block(a: &[Pair], b: &[Pair], c: *mut f32, stride: usize, wide: [bool; 2], add: bool) {
    // SAFETY: the tiles of `a` and `b` are whole; `c` by the caller's promise.
    unsafe {
        match wide {
            [true, true] => tiles!(a, b, c, stride, add,
                start: ["tileloadd tmm0, [{c}+{s}*1]", "tileloadd tmm1, [{c}+{s}*1+64]",
                    "tileloadd tmm2, [{d}+{s}*1]", "tileloadd tmm3, [{d}+{s}*1+64]"],
                zero: ["tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3"],
                step: ["tileloadd tmm4, [{a}+{w}*1]", "tileloadd tmm6, [{b}+{w}*1]",
                    "tdpbf16ps tmm0, tmm4, tmm6", "tileloadd tmm7, [{b}+{w}*1+1024]",
                    "tdpbf16ps tmm1, tmm4, tmm7", "tileloadd tmm5, [{a}+{w}*1+1024]",
                    "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7"],
                end: ["tilestored [{c}+{s}*1], tmm0", "tilestored [{c}+{s}*1+64], tmm1",
                    "tilestored [{d}+{s}*1], tmm2", "tilestored [{d}+{s}*1+64], tmm3"]),
            [true, false] => tiles!(a, b, c, stride, add,
                start: ["tileloadd tmm0, [{c}+{s}*1]", "tileloadd tmm2, [{d}+{s}*1]"],
                zero: ["tilezero tmm0", "tilezero tmm2"],
                step: ["tileloadd tmm4, [{a}+{w}*1]", "tileloadd tmm6, [{b}+{w}*1]",
                    "tdpbf16ps tmm0, tmm4, tmm6", "tileloadd tmm5, [{a}+{w}*1+1024]", "tdpbf16ps tmm2, tmm5, tmm6"],
                end: ["tilestored [{c}+{s}*1], tmm0", "tilestored [{d}+{s}*1], tmm2"]),
            [false, true] => tiles!(a, b, c, stride, add,
                start: ["tileloadd tmm0, [{c}+{s}*1]", "tileloadd tmm1, [{c}+{s}*1+64]"],
                zero: ["tilezero tmm0", "tilezero tmm1"],
                step: ["tileloadd tmm4, [{a}+{w}*1]", "tileloadd tmm6, [{b}+{w}*1]",
                    "tdpbf16ps tmm0, tmm4, tmm6", "tileloadd tmm7, [{b}+{w}*1+1024]", "tdpbf16ps tmm1, tmm4, tmm7"],
                end: ["tilestored [{c}+{s}*1], tmm0", "tilestored [{c}+{s}*1+64], tmm1", "/* {d} */"]),
            [false, false] => tiles!(a, b, c, stride, add,
                start: ["tileloadd tmm0, [{c}+{s}*1]"],
                zero: ["tilezero tmm0"],
                step: ["tileloadd tmm4, [{a}+{w}*1]", "tileloadd tmm6, [{b}+{w}*1]", "tdpbf16ps tmm0, tmm4, tmm6"],
                end: ["tilestored [{c}+{s}*1], tmm0", "/* {d} */"]),
        }
    }
}

/// Rounds the first `n` of 32 values.
///
/// # Safety
/// The processor must have AVX-512 BF16, and `to` must be valid for `n` values.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(in super::super) unsafe fn narrow(from: &[f32], to: *mut bf16, n: usize) {
    debug_assert_eq!(from.len(), BLOCK, "the sums of a row");
    // SAFETY: `from` has 32 values; lanes beyond `n` are not written.
    unsafe {
        let (low, high) = (_mm512_loadu_ps(from.as_ptr()), _mm512_loadu_ps(from.as_ptr().add(16)));
        let mask = if n >= BLOCK { u32::MAX } else { (1 << n) - 1 };
        let rounded = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
        _mm512_mask_storeu_epi16(to.cast(), mask, rounded);
    }
}

/// What 16 results side by side are.
trait Result16: Copy {
    unsafe fn load(place: *const Self) -> __m512;
    unsafe fn store(place: *mut Self, sums: __m512);
}

impl Result16 for f32 {
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn load(place: *const f32) -> __m512 {
        // SAFETY: by the caller's promise.
        unsafe { _mm512_loadu_ps(place) }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn store(place: *mut f32, sums: __m512) {
        // SAFETY: by the caller's promise.
        unsafe { _mm512_storeu_ps(place, sums) }
    }
}

impl Result16 for bf16 {
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn load(_: *const bf16) -> __m512 {
        unreachable!("nothing is added to what is rounded");
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    #[inline]
    unsafe fn store(place: *mut bf16, sums: __m512) {
        // SAFETY: by the caller's promise.
        unsafe { _mm256_storeu_si256(place.cast(), std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(sums))) }
    }
}

/// Rows whose sums are in the registers at a time.
const ROWS: usize = 8;

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn pairs_block<T: Result16>(a: &[Pair], b: &[Pair], c: *mut T, stride: usize, wide: [bool; 2], add: bool) {
    let rows = if wide[0] { BLOCK } else { BLOCK / 2 };
    for first in (0..rows).step_by(ROWS) {
        // SAFETY: rows of the block.
        unsafe {
            let c = c.add(first * stride);
            match wide[1] {
                true => pairs::<T, 2>(a, b, first, c, stride, add),
                false => pairs::<T, 1>(a, b, first, c, stride, add),
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
unsafe fn pairs<T: Result16, const VECTORS: usize>(
    a: &[Pair],
    b: &[Pair],
    first: usize,
    c: *mut T,
    stride: usize,
    add: bool,
) {
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
    // SAFETY: all bits zero are values.
    let zero: __m512bh = unsafe { std::mem::transmute(_mm512_setzero_ps()) };
    let (half, row) = (first / (BLOCK / 2), first % (BLOCK / 2));
    // SAFETY: rows and columns of the block by the caller's promise; places of the tiles are within their bounds.
    unsafe {
        if add {
            for (i, sums) in sums.iter_mut().enumerate() {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = T::load(c.add(i * stride + 16 * j));
                }
            }
        } else {
            // Where the results go is in the cache by the time that they are there.
            for i in 0..ROWS {
                _mm_prefetch::<_MM_HINT_ET0>(c.add(i * stride).cast());
                _mm_prefetch::<_MM_HINT_ET0>(c.add(i * stride + 16 * VECTORS - 1).cast());
            }
        }
        for (a, b) in a.iter().zip(b) {
            let of_rows: *const i32 = a.0[half][row].as_ptr().cast();
            for pair in 0..16 {
                // In loops, since `std::array::from_fn` is not compiled for these instructions.
                let mut columns = [zero; VECTORS];
                for (column, half) in columns.iter_mut().zip(&b.0) {
                    *column = std::mem::transmute::<__m512i, __m512bh>(_mm512_load_si512(half[pair].as_ptr().cast()));
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let value: __m512bh = std::mem::transmute(_mm512_set1_epi32(*of_rows.add(16 * i + pair)));
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum = _mm512_dpbf16_ps(*sum, value, column);
                    }
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                T::store(c.add(i * stride + 16 * j), *sum);
            }
        }
    }
}
