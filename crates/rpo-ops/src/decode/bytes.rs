//! Products of integers of eight bits: weights with a scale for each output, rows with a scale each. Sums are exact in 32 bits,
//! so that every processor gives the same.

use super::lines::{Ahead, Arena, LINE, Lines};
use super::packed::{PANEL, Sums};
use crate::cpu::vectorised;

/// Inputs that are multiplied by one instruction.
const GROUP: usize = 4;
/// The values of a row for so many inputs.
pub(super) type Group = [i8; GROUP];
/// What is added to weights, so that they are not negative, as the instruction demands of one of its factors.
const SHIFT: i32 = 128;

/// Panels of weights: `[panel][input / 4][output]` of four bytes each, that of the first input lowest.
pub(super) struct Bytes {
    inputs: usize,
    weights: Lines,
    /// By output.
    scales: Vec<f32>,
}

/// What is to be known of a row that is rounded.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rounded {
    scale: f32,
    /// What the weights' shift adds to every sum.
    shift: i32,
}

/// Groups of a row of so many inputs.
pub(super) fn groups(inputs: usize) -> usize {
    inputs.div_ceil(GROUP)
}

/// Rounds a row.
pub(super) fn round(x: &[f32], groups: &mut [Group]) -> Rounded {
    let bytes = groups.as_flattened_mut();
    let mut rounded = Rounded::default();
    vectorised(
        #[inline(always)]
        || {
            let mut lanes = [0f32; 16];
            let chunks = x.chunks_exact(16);
            let rest = chunks.remainder().iter().fold(0f32, |largest, x| largest.max(x.abs()));
            for chunk in chunks {
                for (lane, x) in lanes.iter_mut().zip(chunk) {
                    *lane = if x.abs() > *lane { x.abs() } else { *lane };
                }
            }
            let largest = lanes.into_iter().fold(rest, f32::max);
            let inverse = if largest == 0.0 { 0.0 } else { 127.0 / largest };
            let mut sum = 0;
            for (byte, x) in bytes.iter_mut().zip(x) {
                // Added to 1.5 * 2^23, a number is rounded to an integer, which then stands in the lowest bits.
                *byte = x.mul_add(inverse, 12_582_912.0).to_bits() as i8;
                sum += i32::from(*byte);
            }
            rounded = Rounded { scale: largest / 127.0, shift: SHIFT * sum };
        },
    );
    bytes[x.len()..].fill(0);
    rounded
}

impl Bytes {
    pub(super) fn new(outputs: usize, inputs: usize, weights: &[f32], arena: &mut Arena) -> Self {
        let (panels, groups) = (outputs.div_ceil(PANEL), groups(inputs));
        let largest = |row: &[f32]| row.iter().fold(0f32, |largest, weight| largest.max(weight.abs()));
        let mut scales: Vec<f32> = weights.chunks_exact(inputs.max(1)).map(|row| largest(row) / 127.0).collect();
        scales.resize(panels * PANEL, 0.0);
        let byte = |output: usize, input: usize| -> u8 {
            let value = match scales[output] {
                scale if scale > 0.0 && input < inputs => (weights[output * inputs + input] / scale).round_ties_even(),
                _ => 0.0,
            };
            (value as i32 + SHIFT) as u8
        };
        let four = |output, group| u32::from_le_bytes(std::array::from_fn(|i| byte(output, group * GROUP + i)));
        let of_panel = |panel| (0..groups).flat_map(move |group| (0..PANEL).map(move |o| (panel * PANEL + o, group)));
        let places = (0..panels).flat_map(of_panel).map(|(output, group)| four(output, group));
        Self { inputs, weights: arena.filled(panels * groups * PANEL / LINE, places), scales }
    }

    /// Row `output` of the matrix.
    pub(super) fn row(&self, output: usize, row: &mut [f32]) {
        let panel = &self.weights.places()[output / PANEL * PANEL * groups(self.inputs) + output % PANEL..];
        for (values, place) in row.chunks_mut(GROUP).zip(panel.iter().step_by(PANEL)) {
            for (value, byte) in values.iter_mut().zip(place.to_le_bytes()) {
                *value = (i32::from(byte) - SHIFT) as f32 * self.scales[output];
            }
        }
    }

    /// A panel times a tile of these rows, which is one of several.
    pub(super) fn panel_times(
        &self,
        panel: usize,
        tile: &[Group],
        of_rows: &[Rounded],
        part: (usize, usize),
        sums: &mut Sums,
    ) {
        let (groups, places) = (groups(self.inputs), self.weights.places());
        let size = PANEL * groups;
        let weights = &places[panel * size..(panel + 1) * size];
        let scales = &self.scales[panel * PANEL..(panel + 1) * PANEL];
        multiply(weights, scales, Ahead::of(places, panel, size, part, groups), tile, of_rows, sums);
    }
}

/// A panel times a tile.
fn multiply(weights: &[u32], scales: &[f32], ahead: Ahead<'_>, tile: &[Group], of_rows: &[Rounded], sums: &mut Sums) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
        let places = tile.len() / (weights.len() / PANEL).max(1);
        // SAFETY: the processor has the instructions.
        #[expect(unsafe_code, reason = "instructions that are not on every processor")]
        unsafe {
            match places {
                1 => x86::multiply::<1>(weights, scales, ahead, tile, of_rows, sums),
                2 => x86::multiply::<2>(weights, scales, ahead, tile, of_rows, sums),
                3 => x86::multiply::<3>(weights, scales, ahead, tile, of_rows, sums),
                4 => x86::multiply::<4>(weights, scales, ahead, tile, of_rows, sums),
                6 => x86::multiply::<6>(weights, scales, ahead, tile, of_rows, sums),
                8 => x86::multiply::<8>(weights, scales, ahead, tile, of_rows, sums),
                10 => x86::multiply::<10>(weights, scales, ahead, tile, of_rows, sums),
                12 => x86::multiply::<12>(weights, scales, ahead, tile, of_rows, sums),
                n => unreachable!("a tile of {n} rows"),
            }
        }
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has the instructions.
        #[expect(unsafe_code, reason = "instructions that are not on every processor")]
        unsafe {
            avx2::multiply(weights, scales, ahead, tile, of_rows, sums);
        }
        return;
    }
    // Plain code fetches nothing ahead.
    let _ = ahead;
    plainly(weights, scales, tile, of_rows, sums);
}

/// The same without special instructions, on every processor.
fn plainly(weights: &[u32], scales: &[f32], tile: &[Group], of_rows: &[Rounded], sums: &mut Sums) {
    let places = tile.len() / (weights.len() / PANEL).max(1);
    vectorised(
        #[inline(always)]
        || {
            for (row, (Rounded { scale, shift }, sums)) in of_rows.iter().zip(sums.iter_mut()).enumerate() {
                let mut whole = [-shift; PANEL];
                let values = tile[row..].iter().step_by(places);
                for (values, weights) in values.zip(weights.chunks_exact(PANEL)) {
                    for (sum, weights) in whole.iter_mut().zip(weights) {
                        let product = |i: usize| i32::from(values[i]) * (*weights >> (8 * i) & 0xff) as i32;
                        *sum += (product(0) + product(1)) + (product(2) + product(3));
                    }
                }
                for ((sum, whole), of_output) in sums.iter_mut().zip(whole).zip(scales) {
                    *sum = whole as f32 * (scale * of_output);
                }
            }
        },
    );
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi32,
        _mm512_set1_ps, _mm512_storeu_ps,
    };

    use super::{Group, PANEL, Rounded, Sums};
    use crate::decode::lines::{Ahead, LINE};

    /// A panel times a tile with `N` places.
    ///
    /// # Safety
    /// The processor has AVX-512 with VNNI.
    #[target_feature(enable = "avx512f,avx512vnni")]
    #[expect(unsafe_code, reason = "vectors are read from and written to slices")]
    pub(super) unsafe fn multiply<const N: usize>(
        weights: &[u32],
        scales: &[f32],
        ahead: Ahead<'_>,
        tile: &[Group],
        of_rows: &[Rounded],
        sums: &mut Sums,
    ) {
        assert!(of_rows.len() <= N && scales.len() >= PANEL, "a panel of other rows");
        let mut all = [[_mm512_set1_epi32(0); 2]; N];
        for (sum, row) in all.iter_mut().zip(of_rows) {
            *sum = [_mm512_set1_epi32(-row.shift); 2];
        }
        for (group, (weights, values)) in weights.chunks_exact(PANEL).zip(tile.chunks_exact(N)).enumerate() {
            ahead.fetch(group);
            // SAFETY: a group of a panel is as long as two vectors.
            let (first, second) = unsafe {
                let weights = weights.as_ptr();
                (_mm512_loadu_si512(weights.cast()), _mm512_loadu_si512(weights.add(LINE).cast()))
            };
            for ([a, b], values) in all.iter_mut().zip(values) {
                let values = _mm512_set1_epi32(i32::from_le_bytes(values.map(i8::cast_unsigned)));
                *a = _mm512_dpbusd_epi32(*a, first, values);
                *b = _mm512_dpbusd_epi32(*b, second, values);
            }
        }
        for ((all, row), sums) in all.into_iter().zip(of_rows).zip(sums.iter_mut()) {
            for (half, sum) in all.into_iter().enumerate() {
                // SAFETY: scales, as asserted, and sums are as long as two vectors.
                unsafe {
                    let scales = _mm512_loadu_ps(scales.as_ptr().add(half * LINE));
                    let scale = _mm512_mul_ps(_mm512_set1_ps(row.scale), scales);
                    _mm512_storeu_ps(sums.as_mut_ptr().add(half * LINE), _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale));
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_cvtepi32_ps, _mm256_loadu_ps, _mm256_loadu_si256,
        _mm256_madd_epi16, _mm256_mul_ps, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_slli_epi16,
        _mm256_srai_epi16, _mm256_srli_epi16, _mm256_storeu_ps,
    };

    use super::{Group, PANEL, Rounded, Sums};
    use crate::decode::lines::Ahead;

    /// Outputs in a vector.
    const WIDTH: usize = 8;
    /// Rows whose sums fit into registers beside those of others.
    const FEW: usize = 4;

    /// A panel times a tile. Products of bytes are exact as those of 16 bits, of which an instruction adds pairs in 32.
    ///
    /// # Safety
    /// The processor has AVX2.
    #[target_feature(enable = "avx2")]
    #[expect(unsafe_code, reason = "instructions that are not on every processor")]
    pub(super) unsafe fn multiply(
        weights: &[u32],
        scales: &[f32],
        ahead: Ahead<'_>,
        tile: &[Group],
        of_rows: &[Rounded],
        sums: &mut Sums,
    ) {
        let places = tile.len() / (weights.len() / PANEL).max(1);
        if let [_] = of_rows {
            let sums = sums[..1].iter_mut().map(|sums| &mut sums[..]);
            // SAFETY: the processor has the instructions.
            unsafe {
                columns::<1, 4>(weights, scales, tile, places, of_rows, sums, ahead);
            }
            return;
        }
        let mut ahead = Some(ahead);
        for (few, (rows, sums)) in of_rows.chunks(FEW).zip(sums.chunks_mut(FEW)).enumerate() {
            let tile = &tile[few * FEW..];
            for from in (0..PANEL).step_by(2 * WIDTH) {
                let sums = sums.iter_mut().map(|sums| &mut sums[from..from + 2 * WIDTH]);
                let (weights, scales) = (&weights[from..], &scales[from..from + 2 * WIDTH]);
                let ahead = ahead.take().unwrap_or_default();
                // SAFETY: the processor has the instructions.
                unsafe {
                    match rows.len() {
                        1 => columns::<1, 2>(weights, scales, tile, places, rows, sums, ahead),
                        2 => columns::<2, 2>(weights, scales, tile, places, rows, sums, ahead),
                        3 => columns::<3, 2>(weights, scales, tile, places, rows, sums, ahead),
                        _ => columns::<FEW, 2>(weights, scales, tile, places, rows, sums, ahead),
                    }
                }
            }
        }
    }

    /// `V` vectors of outputs, the first of `weights` and after each group, times `N` rows.
    #[target_feature(enable = "avx2")]
    #[expect(unsafe_code, reason = "vectors are read from and written to slices")]
    unsafe fn columns<'a, const N: usize, const V: usize>(
        weights: &[u32],
        scales: &[f32],
        tile: &[Group],
        places: usize,
        rows: &[Rounded],
        sums: impl Iterator<Item = &'a mut [f32]>,
        ahead: Ahead<'_>,
    ) {
        assert!(rows.len() == N && scales.len() >= V * WIDTH, "as many rows as sums");
        let low = _mm256_set1_epi16(0xff);
        let mut all = [[_mm256_set1_epi32(0); V]; N];
        for (sum, row) in all.iter_mut().zip(rows) {
            *sum = [_mm256_set1_epi32(-row.shift); V];
        }
        for (group, (weights, values)) in weights.chunks(PANEL).zip(tile.chunks(places)).enumerate() {
            assert!(weights.len() >= V * WIDTH, "so many vectors");
            ahead.fetch(group);
            // The bytes of even places and those of odd ones, as 16 bits each.
            let parts: [_; V] = std::array::from_fn(|vector| {
                // SAFETY: as asserted.
                let four: __m256i = unsafe { _mm256_loadu_si256(weights.as_ptr().add(vector * WIDTH).cast()) };
                [_mm256_and_si256(four, low), _mm256_srli_epi16(four, 8)]
            });
            for (sum, values) in all.iter_mut().zip(values) {
                let four = _mm256_set1_epi32(i32::from_le_bytes(values.map(i8::cast_unsigned)));
                let (even, odd) = (_mm256_srai_epi16(_mm256_slli_epi16(four, 8), 8), _mm256_srai_epi16(four, 8));
                for (sum, [evens, odds]) in sum.iter_mut().zip(parts) {
                    let pairs = _mm256_add_epi32(_mm256_madd_epi16(evens, even), _mm256_madd_epi16(odds, odd));
                    *sum = _mm256_add_epi32(*sum, pairs);
                }
            }
        }
        for ((all, row), sums) in all.into_iter().zip(rows).zip(sums) {
            assert!(sums.len() >= V * WIDTH, "so many vectors");
            for (vector, sum) in all.into_iter().enumerate() {
                // SAFETY: scales and sums are as long as `V` vectors, as asserted.
                unsafe {
                    let scales = _mm256_loadu_ps(scales.as_ptr().add(vector * WIDTH));
                    let scale = _mm256_mul_ps(_mm256_set1_ps(row.scale), scales);
                    _mm256_storeu_ps(
                        sums.as_mut_ptr().add(vector * WIDTH),
                        _mm256_mul_ps(_mm256_cvtepi32_ps(sum), scale),
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::packed::ROWS;

    #[test]
    fn every_processor_gives_the_exact_sums() {
        for groups in [1, 2, 37] {
            let weights: Vec<u32> = (0..groups * PANEL).map(|i| (i as u32).wrapping_mul(2_654_435_761)).collect();
            for n in [1, 2, 3, 4, 6, 8, 10, 12] {
                let byte = |i: usize| ((i * 57) % 255) as i8;
                let tile: Vec<Group> = (0..n * groups).map(|i| std::array::from_fn(|j| byte(i * GROUP + j))).collect();
                let of_rows: Vec<Rounded> =
                    (0..n - n / 5).map(|row| Rounded { scale: 1.0, shift: row as i32 * 1000 }).collect();
                let [mut got, mut plain] = [[[f32::NAN; PANEL]; ROWS]; 2];
                let ahead = || Ahead::of(&weights, 0, weights.len(), (0, 1), groups);
                multiply(&weights, &[1.0; PANEL], ahead(), &tile, &of_rows, &mut got);
                #[cfg(target_arch = "x86_64")]
                if is_x86_feature_detected!("avx2") {
                    let mut narrower = [[f32::NAN; PANEL]; ROWS];
                    // SAFETY: the processor has the instructions.
                    #[expect(unsafe_code, reason = "instructions that are not on every processor")]
                    unsafe {
                        avx2::multiply(&weights, &[1.0; PANEL], ahead(), &tile, &of_rows, &mut narrower);
                    }
                    let values = |sums: &Sums| sums.as_flattened()[..of_rows.len() * PANEL].to_vec();
                    assert_eq!(values(&narrower), values(&got));
                }
                plainly(&weights, &[1.0; PANEL], &tile, &of_rows, &mut plain);
                for row in 0..of_rows.len() {
                    for o in 0..PANEL {
                        let term = |input: usize| {
                            let weight = weights[input / GROUP * PANEL + o].to_le_bytes()[input % GROUP];
                            i64::from(tile[input / GROUP * n + row][input % GROUP]) * i64::from(weight)
                        };
                        let want = ((0..groups * GROUP).map(term).sum::<i64>() - 1000 * row as i64) as f32;
                        assert_eq!((got[row][o], plain[row][o]), (want, want));
                    }
                }
            }
        }
    }

    #[test]
    fn rows_are_rounded_within_half_a_step() {
        let x: Vec<f32> = (0..37).map(|i| ((i * 17) % 31) as f32 / 7.0 - 2.0).collect();
        let mut bytes = vec![Group::default(); groups(37)];
        let Rounded { scale, shift } = round(&x, &mut bytes);
        for (x, byte) in x.iter().zip(bytes.as_flattened()) {
            let back = f32::from(*byte) * scale;
            assert!((x - back).abs() <= scale * 0.5001, "{x} became {back}");
        }
        assert_eq!(shift, SHIFT * bytes.as_flattened().iter().map(|b| i32::from(*b)).sum::<i32>());
        assert_eq!((round(&[0.0; 5], &mut bytes).scale, bytes[0]), (0.0, [0; GROUP]));
    }
}
