//! Products of integers of eight bits: weights with a scale for each output, rows with a scale each. Sums are exact in 32 bits,
//! so that every processor gives the same.

use super::packed::{PANEL, Sums};
use crate::cpu::vectorised;

/// Inputs that are multiplied by one instruction.
const GROUP: usize = 4;
/// What is added to the values of rows, so that they are not negative.
const SHIFT: i32 = 128;

/// Panels of weights: `[panel][input / 4][output][input % 4]`.
pub(super) struct Bytes {
    inputs: usize,
    values: Vec<i8>,
    /// By output, as are the sums of weights times [`SHIFT`].
    scales: Vec<f32>,
    shifts: Vec<i32>,
}

/// Bytes of a row of so many inputs.
pub(super) fn stride(inputs: usize) -> usize {
    inputs.next_multiple_of(GROUP)
}

/// The largest magnitude of `x`, and by what it must be multiplied so that it becomes 127.
fn scales(x: &[f32]) -> (f32, f32) {
    let largest = x.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    if largest == 0.0 { (0.0, 0.0) } else { (largest / 127.0, 127.0 / largest) }
}

/// Rounds a row; returns its scale.
pub(super) fn round(x: &[f32], bytes: &mut [u8]) -> f32 {
    let mut scale = 0.0;
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
            scale = largest / 127.0;
            let inverse = if largest == 0.0 { 0.0 } else { 127.0 / largest };
            for (byte, x) in bytes.iter_mut().zip(x) {
                // Added to 1.5 * 2^23, a number is rounded to an integer, which then stands in the lowest bits.
                *byte = (x.mul_add(inverse, 12_582_912.0).to_bits() as i32).wrapping_add(SHIFT) as u8;
            }
        },
    );
    bytes[x.len()..].fill(SHIFT as u8);
    scale
}

impl Bytes {
    pub(super) fn new(outputs: usize, inputs: usize, weights: &[f32]) -> Self {
        let (panels, stride) = (outputs.div_ceil(PANEL), stride(inputs));
        let mut values = vec![0i8; panels * PANEL * stride];
        let (mut of_outputs, mut shifts) = (vec![0f32; panels * PANEL], vec![0i32; panels * PANEL]);
        for (o, row) in weights.chunks_exact(inputs.max(1)).enumerate() {
            let (scale, inverse) = scales(row);
            of_outputs[o] = scale;
            let panel = &mut values[o / PANEL * PANEL * stride..];
            for (i, weight) in row.iter().enumerate() {
                let value = (weight * inverse).round_ties_even() as i8;
                panel[i / GROUP * PANEL * GROUP + o % PANEL * GROUP + i % GROUP] = value;
                shifts[o] += SHIFT * i32::from(value);
            }
        }
        Self { inputs, values, scales: of_outputs, shifts }
    }

    /// Row `o` of a panel.
    pub(super) fn row(&self, panel: usize, o: usize, row: &mut [f32]) {
        let values = &self.values[panel * PANEL * stride(self.inputs)..];
        for (i, value) in row.iter_mut().enumerate() {
            let byte = values[i / GROUP * PANEL * GROUP + o * GROUP + i % GROUP];
            *value = f32::from(byte) * self.scales[panel * PANEL + o];
        }
    }

    /// A panel times a few rows with these scales.
    pub(super) fn panel_times(&self, panel: usize, rows: &[u8], scales: &[f32], sums: &mut Sums) {
        let size = PANEL * stride(self.inputs);
        let weights = &self.values[panel * size..(panel + 1) * size];
        let of = panel * PANEL..(panel + 1) * PANEL;
        let (of_outputs, shifts) = (&self.scales[of.clone()], &self.shifts[of]);
        let mut whole = [[0i32; PANEL]; 6];
        multiply(weights, rows, scales.len(), &mut whole);
        vectorised(
            #[inline(always)]
            || {
                for ((sums, whole), scale) in sums.iter_mut().zip(&whole).zip(scales) {
                    for (((sum, whole), of_output), shift) in sums.iter_mut().zip(whole).zip(of_outputs).zip(shifts) {
                        *sum = (whole - shift) as f32 * (scale * of_output);
                    }
                }
            },
        );
    }
}

/// Sums of products of a panel and `n` rows.
fn multiply(weights: &[i8], rows: &[u8], n: usize, sums: &mut [[i32; PANEL]; 6]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
        // SAFETY: the processor has the instructions.
        #[expect(unsafe_code, reason = "instructions that are not on every processor")]
        unsafe {
            match n {
                1 => x86::multiply::<1>(weights, rows, sums),
                2 => x86::multiply::<2>(weights, rows, sums),
                3 => x86::multiply::<3>(weights, rows, sums),
                4 => x86::multiply::<4>(weights, rows, sums),
                5 => x86::multiply::<5>(weights, rows, sums),
                _ => x86::multiply::<6>(weights, rows, sums),
            }
        }
        return;
    }
    plainly(weights, rows, n, sums);
}

/// The same without special instructions, on every processor.
fn plainly(weights: &[i8], rows: &[u8], n: usize, sums: &mut [[i32; PANEL]; 6]) {
    let stride = rows.len() / n;
    vectorised(
        #[inline(always)]
        || {
            for (row, sums) in rows.chunks_exact(stride).zip(sums.iter_mut()) {
                *sums = [0; PANEL];
                for (values, weights) in row.chunks_exact(GROUP).zip(weights.chunks_exact(PANEL * GROUP)) {
                    let values: [i16; GROUP] = std::array::from_fn(|i| i16::from(values[i]));
                    for (sum, weights) in sums.iter_mut().zip(weights.chunks_exact(GROUP)) {
                        let product = |i: usize| i32::from(values[i]) * i32::from(i16::from(weights[i]));
                        *sum += (product(0) + product(1)) + (product(2) + product(3));
                    }
                }
            }
        },
    );
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m512i, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_storeu_si512,
    };

    use super::{GROUP, PANEL};

    /// Vectors of a panel.
    const VECTORS: usize = PANEL / 16;

    /// Sums of products of a panel and `ROWS` rows.
    ///
    /// # Safety
    /// The processor has AVX-512 with VNNI.
    #[target_feature(enable = "avx512f,avx512vnni")]
    #[expect(unsafe_code, reason = "vectors are read from and written to slices")]
    pub(super) unsafe fn multiply<const ROWS: usize>(weights: &[i8], rows: &[u8], sums: &mut [[i32; PANEL]; 6]) {
        let stride = rows.len() / ROWS;
        let rows: [&[u8]; ROWS] = std::array::from_fn(|row| &rows[row * stride..(row + 1) * stride]);
        let mut all: [[__m512i; VECTORS]; ROWS] = [[_mm512_setzero_si512(); VECTORS]; ROWS];
        for (group, weights) in weights.chunks_exact(PANEL * GROUP).enumerate() {
            // SAFETY: a chunk is as long as four vectors.
            let weights: [__m512i; VECTORS] =
                std::array::from_fn(|v| unsafe { _mm512_loadu_si512(weights.as_ptr().add(64 * v).cast()) });
            for (sums, row) in all.iter_mut().zip(rows) {
                let at = group * GROUP;
                let bytes = [row[at], row[at + 1], row[at + 2], row[at + 3]];
                let values = _mm512_set1_epi32(i32::from_le_bytes(bytes));
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm512_dpbusd_epi32(*sum, values, weights);
                }
            }
        }
        for (sums, all) in sums.iter_mut().zip(all) {
            for (v, sum) in all.into_iter().enumerate() {
                // SAFETY: a row of sums is as long as four vectors.
                unsafe { _mm512_storeu_si512(sums.as_mut_ptr().add(16 * v).cast(), sum) };
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
            let weights: Vec<i8> = (0..groups * PANEL * GROUP).map(|i| ((i * 91) % 255) as i8).collect();
            for n in 1..=6 {
                let rows: Vec<u8> = (0..n * groups * GROUP).map(|i| ((i * 57) % 256) as u8).collect();
                let [mut got, mut plain] = [[[1i32; PANEL]; 6]; 2];
                multiply(&weights, &rows, n, &mut got);
                plainly(&weights, &rows, n, &mut plain);
                for (row, values) in rows.chunks_exact(groups * GROUP).enumerate() {
                    for o in 0..PANEL {
                        let at = |i: usize| weights[i / GROUP * PANEL * GROUP + o * GROUP + i % GROUP];
                        let want: i64 = values.iter().enumerate().map(|(i, v)| i64::from(*v) * i64::from(at(i))).sum();
                        assert_eq!((i64::from(got[row][o]), i64::from(plain[row][o])), (want, want));
                    }
                }
            }
        }
    }

    #[test]
    fn rows_are_rounded_within_half_a_step() {
        let x: Vec<f32> = (0..37).map(|i| ((i * 17) % 31) as f32 / 7.0 - 2.0).collect();
        let mut bytes = vec![0; stride(37)];
        let scale = round(&x, &mut bytes);
        for (x, byte) in x.iter().zip(&bytes) {
            let back = (i32::from(*byte) - SHIFT) as f32 * scale;
            assert!((x - back).abs() <= scale * 0.5001, "{x} became {back}");
        }
        assert_eq!((round(&[0.0; 5], &mut bytes), bytes[0]), (0.0, 128));
    }
}
