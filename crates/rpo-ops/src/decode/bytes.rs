//! Products of integers of eight bits: weights with a scale for each output, rows with a scale each. Sums are exact in 32 bits,
//! so that every processor gives the same.

use super::packed::{PANEL, ROWS, STRIP, Sums};
use crate::cpu::vectorised;

/// Inputs that are multiplied by one instruction.
const GROUP: usize = 4;
/// What is added to weights, so that they are not negative, as the instruction demands of one of its factors.
const SHIFT: i32 = 128;

/// Strips of weights: `[strip][input / 4][output][input % 4]`.
pub(super) struct Bytes {
    inputs: usize,
    values: Vec<u8>,
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

/// Bytes of a row of so many inputs.
pub(super) fn stride(inputs: usize) -> usize {
    inputs.next_multiple_of(GROUP)
}

/// Rounds a row.
pub(super) fn round(x: &[f32], bytes: &mut [i8]) -> Rounded {
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
    pub(super) fn new(outputs: usize, inputs: usize, weights: &[f32]) -> Self {
        let (padded, stride) = (outputs.next_multiple_of(PANEL), stride(inputs));
        let mut values = vec![SHIFT as u8; padded * stride];
        let mut scales = vec![0f32; padded];
        for (o, (row, scale)) in weights.chunks_exact(inputs.max(1)).zip(&mut scales).enumerate() {
            let largest = row.iter().fold(0f32, |largest, weight| largest.max(weight.abs()));
            *scale = largest / 127.0;
            let inverse = if largest == 0.0 { 0.0 } else { 127.0 / largest };
            let strip = &mut values[o / STRIP * STRIP * stride..];
            for (i, weight) in row.iter().enumerate() {
                strip[place(o, i)] = ((weight * inverse).round_ties_even() as i32 + SHIFT) as u8;
            }
        }
        Self { inputs, values, scales }
    }

    /// Row `output` of the matrix.
    pub(super) fn row(&self, output: usize, row: &mut [f32]) {
        let strip = &self.values[output / STRIP * STRIP * stride(self.inputs)..];
        for (i, value) in row.iter_mut().enumerate() {
            *value = (i32::from(strip[place(output, i)]) - SHIFT) as f32 * self.scales[output];
        }
    }

    /// A panel times a few rows.
    pub(super) fn panel_times(&self, panel: usize, rows: &[i8], of_rows: &[Rounded], sums: &mut Sums) {
        let size = STRIP * stride(self.inputs);
        let strips = self.values[panel * PANEL / STRIP * size..].chunks_exact(size);
        let scales = self.scales[panel * PANEL..(panel + 1) * PANEL].chunks_exact(STRIP);
        for (half, (weights, scales)) in strips.zip(scales).enumerate() {
            multiply(weights, scales, rows, of_rows, sums, half * STRIP);
        }
    }
}

/// Where the weight of an output for an input stands in its strip.
fn place(output: usize, input: usize) -> usize {
    input / GROUP * STRIP * GROUP + output % STRIP * GROUP + input % GROUP
}

/// A strip times a few rows, for the outputs from `at` on.
fn multiply(weights: &[u8], scales: &[f32], rows: &[i8], of_rows: &[Rounded], sums: &mut Sums, at: usize) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
        // SAFETY: the processor has the instructions.
        #[expect(unsafe_code, reason = "instructions that are not on every processor")]
        unsafe {
            match of_rows.len() {
                1 => x86::multiply::<1>(weights, scales, rows, of_rows, sums, at),
                2 => x86::multiply::<2>(weights, scales, rows, of_rows, sums, at),
                3..=4 => x86::multiply::<4>(weights, scales, rows, of_rows, sums, at),
                5..=8 => x86::multiply::<8>(weights, scales, rows, of_rows, sums, at),
                9..=12 => x86::multiply::<12>(weights, scales, rows, of_rows, sums, at),
                13..=16 => x86::multiply::<16>(weights, scales, rows, of_rows, sums, at),
                17..=20 => x86::multiply::<20>(weights, scales, rows, of_rows, sums, at),
                _ => x86::multiply::<ROWS>(weights, scales, rows, of_rows, sums, at),
            }
        }
        return;
    }
    plainly(weights, scales, rows, of_rows, sums, at);
}

/// The same without special instructions, on every processor.
fn plainly(weights: &[u8], scales: &[f32], rows: &[i8], of_rows: &[Rounded], sums: &mut Sums, at: usize) {
    let stride = rows.len() / of_rows.len();
    vectorised(
        #[inline(always)]
        || {
            for ((row, Rounded { scale, shift }), sums) in rows.chunks_exact(stride).zip(of_rows).zip(sums.iter_mut()) {
                let mut whole = [-shift; STRIP];
                for (values, weights) in row.chunks_exact(GROUP).zip(weights.chunks_exact(STRIP * GROUP)) {
                    let values: [i32; GROUP] = std::array::from_fn(|i| i32::from(values[i]));
                    for (sum, weights) in whole.iter_mut().zip(weights.chunks_exact(GROUP)) {
                        let product = |i: usize| values[i] * i32::from(weights[i]);
                        *sum += (product(0) + product(1)) + (product(2) + product(3));
                    }
                }
                for ((sum, whole), of_output) in sums[at..at + STRIP].iter_mut().zip(whole).zip(scales) {
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

    use super::{GROUP, Rounded, STRIP, Sums};

    /// A strip times at most `N` rows.
    ///
    /// # Safety
    /// The processor has AVX-512 with VNNI.
    #[target_feature(enable = "avx512f,avx512vnni")]
    #[expect(unsafe_code, reason = "vectors are read from and written to slices")]
    pub(super) unsafe fn multiply<const N: usize>(
        weights: &[u8],
        scales: &[f32],
        rows: &[i8],
        of_rows: &[Rounded],
        sums: &mut Sums,
        at: usize,
    ) {
        let n = of_rows.len();
        let stride = rows.len() / n;
        let groups = stride / GROUP;
        assert!(
            n <= N
                && weights.len() >= groups * STRIP * GROUP
                && scales.len() >= STRIP
                && sums.len() >= N
                && at + STRIP <= sums[0].len(),
            "a strip of other rows"
        );
        let mut all = [_mm512_set1_epi32(0); N];
        let mut starts = [rows.as_ptr(); N];
        for (row, (start, sum)) in starts.iter_mut().zip(&mut all).enumerate() {
            // Those that are computed for nothing are like the last.
            let row = row.min(n - 1);
            *start = rows[row * stride..].as_ptr();
            *sum = _mm512_set1_epi32(-of_rows[row].shift);
        }
        for group in 0..groups {
            // SAFETY: a group of a strip is as long as a vector, and of a row as long as the number that is read; all lie inside
            // their slices, as asserted.
            unsafe {
                let weights = _mm512_loadu_si512(weights.as_ptr().add(group * STRIP * GROUP).cast());
                for (sum, start) in all.iter_mut().zip(starts) {
                    let values = start.add(group * GROUP).cast::<i32>().read_unaligned();
                    *sum = _mm512_dpbusd_epi32(*sum, weights, _mm512_set1_epi32(values));
                }
            }
        }
        // SAFETY: scales and sums are as long as a vector there, as asserted.
        unsafe {
            let scales = _mm512_loadu_ps(scales.as_ptr());
            for ((sum, row), sums) in all.into_iter().zip(of_rows).zip(sums.iter_mut()) {
                let scale = _mm512_mul_ps(_mm512_set1_ps(row.scale), scales);
                let value = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale);
                _mm512_storeu_ps(sums[at..at + STRIP].as_mut_ptr(), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_processor_gives_the_exact_sums() {
        for groups in [1, 2, 37] {
            let weights: Vec<u8> = (0..groups * STRIP * GROUP).map(|i| ((i * 91) % 256) as u8).collect();
            for n in [1, 2, 3, 5, 8, 9, 13, 17, 24] {
                let rows: Vec<i8> = (0..n * groups * GROUP).map(|i| ((i * 57) % 255) as i8).collect();
                let of_rows: Vec<Rounded> =
                    (0..n).map(|row| Rounded { scale: 1.0, shift: row as i32 * 1000 }).collect();
                let [mut got, mut plain] = [[[f32::NAN; PANEL]; ROWS]; 2];
                multiply(&weights, &[1.0; STRIP], &rows, &of_rows, &mut got, STRIP);
                plainly(&weights, &[1.0; STRIP], &rows, &of_rows, &mut plain, STRIP);
                for (row, values) in rows.chunks_exact(groups * GROUP).enumerate().take(n) {
                    for o in 0..STRIP {
                        let term = |(i, v): (usize, &i8)| i64::from(*v) * i64::from(weights[place(o, i)]);
                        let want = (values.iter().enumerate().map(term).sum::<i64>() - 1000 * row as i64) as f32;
                        assert_eq!((got[row][STRIP + o], plain[row][STRIP + o]), (want, want));
                    }
                }
            }
        }
    }

    #[test]
    fn rows_are_rounded_within_half_a_step() {
        let x: Vec<f32> = (0..37).map(|i| ((i * 17) % 31) as f32 / 7.0 - 2.0).collect();
        let mut bytes = vec![0; stride(37)];
        let Rounded { scale, shift } = round(&x, &mut bytes);
        for (x, byte) in x.iter().zip(&bytes) {
            let back = f32::from(*byte) * scale;
            assert!((x - back).abs() <= scale * 0.5001, "{x} became {back}");
        }
        assert_eq!(shift, SHIFT * bytes.iter().map(|b| i32::from(*b)).sum::<i32>());
        assert_eq!((round(&[0.0; 5], &mut bytes).scale, bytes[0]), (0.0, 0));
    }
}
