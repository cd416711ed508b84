//! Elementwise arithmetic that compilers vectorise, compiled for what the processor has, chosen at run time.

use pulp::Arch;

use super::memory::Value;

/// Runs `work`, which must be made of inlined code, with the widest vector instructions that this processor has.
pub(crate) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(work)
}

/// Numbers that a sum or maximum keeps side by side, so that it vectorises without reordering on its own.
pub(crate) const LANES: usize = 16;

/// `exp(x)` within about 2 units in the last place, 0 or infinity beyond the range of `f32`; without branches, so that it
/// vectorises (Cephes' polynomial).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let clamped = x.clamp(-87.3, 88.3);
    // Added to 1.5 * 2^23, a number is rounded to an integer, which then stands in the lowest bits: a conversion to `i32`,
    // which must saturate, would take longer than all the rest.
    let shifted = clamped * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = shifted - 12_582_912.0;
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-0.693_359_4, clamped));
    let p = 1.987_569_1e-4f32;
    let p = p.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 0.5);
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    let y = p.mul_add(r * r, r + 1.0) * power;
    if x < -87.3 { 0.0 } else { y }
}

/// `1 / (1 + exp(-x))`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The sum of `term` over the values of slices of one length.
#[inline(always)]
pub(super) fn sum<T: Value, const N: usize>(slices: [&[T]; N], term: impl Fn([f32; N]) -> f32) -> f32 {
    let n = slices[0].len();
    let mut lanes = [0f32; LANES];
    let whole = n / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        // One check of the bounds for each chunk of each slice.
        let chunks = slices.map(|slice| &slice[start..start + LANES]);
        for (j, lane) in lanes.iter_mut().enumerate() {
            *lane += term(chunks.map(|chunk| chunk[j].widen()));
        }
    }
    lanes.iter().sum::<f32>() + (whole..n).map(|i| term(slices.map(|slice| slice[i].widen()))).sum::<f32>()
}

/// The largest value; negative infinity for none.
#[inline(always)]
pub(crate) fn max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Replaces `row` by `exp(row - max(row))` and returns the maximum and the sum.
#[inline(always)]
pub(crate) fn exponentiate(row: &mut [f32]) -> (f32, f32) {
    let largest = max(row);
    let mut lanes = [0f32; LANES];
    let mut chunks = row.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *value = exp(*value - largest);
            *lane += *value;
        }
    }
    let mut rest = 0.0;
    for value in chunks.into_remainder() {
        *value = exp(*value - largest);
        rest += *value;
    }
    (largest, lanes.iter().sum::<f32>() + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_and_finite_everywhere() {
        for i in -8800..8800 {
            let x = i as f32 / 100.0;
            let (got, want) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((got - want).abs() <= 4e-7 * want + 2e-38, "{x}: {got} for {want}");
        }
        assert_eq!(exp(-1e30), 0.0);
        assert!(exp(1e30) > 1e38 && exp(0.0) == 1.0);
    }

    #[test]
    fn sums_and_maxima_cover_every_length() {
        for n in 0..50 {
            let values: Vec<f32> = (0..n).map(|i| ((i * 37) % 50) as f32 - 25.0).collect();
            assert_eq!(sum([&values, &values], |[a, b]| 2.0 * a - b), values.iter().sum::<f32>());
            assert_eq!(max(&values), values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
