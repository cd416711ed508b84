//! Rounding of weights to 16 bits that keeps small changes of them.
//!
//! Published weights often are numbers of bfloat16 already. A step of training moves most of them by less than half the way to the next
//! such number, and rounding to the nearest undoes that: what is computed or stored is the model before training. So each weight has a
//! threshold of its own, by its row and column, and is rounded up in magnitude if the part of the way that it has gone is greater.
//! Thresholds are spread evenly, along rows and along columns, so that a sum over weights sees their changes in the mean (ordered dither), and
//! they never change: wherever a weight is rounded, it becomes the same number. Numbers of the format stay themselves. The price: weights
//! between such numbers are off by 1.4 times as much as from the nearest (root of the mean square), at most by twice as much.

use half::{bf16, f16};

/// What thresholds grow by from one row to the next, in units of 2^-16, and from one column to the next: the inverses of the root of
/// `x^3 = x + 1` and of its square, whose multiples are spread evenly over squares (M. Roberts' sequence R2), as odd numbers.
const ROW: u16 = 49471;
pub(crate) const COLUMN: u16 = 37345;

/// The part of the way to the next number, in units of 2^-16, above which a weight is rounded up: half in the first row and column.
pub(crate) fn threshold(row: usize, column: usize) -> u16 {
    let further = (row as u16).wrapping_mul(ROW).wrapping_add((column as u16).wrapping_mul(COLUMN));
    further.wrapping_add(1 << 15)
}

/// Weights in bfloat16, those of each row of their matrix being `width` long: each becomes one of the two numbers beside it, in the mean
/// over places itself. Infinity stays, and what is no number stays none.
pub fn to_bf16(weights: &[f32], width: usize) -> impl Iterator<Item = bf16> {
    by_place(weights, width, bf16_above)
}

/// The same in half precision. What lies beyond its largest number becomes infinite.
pub fn to_f16(weights: &[f32], width: usize) -> impl Iterator<Item = f16> {
    by_place(weights, width, f16_above)
}

fn by_place<T>(weights: &[f32], width: usize, round: fn(f32, u16) -> T) -> impl Iterator<Item = T> {
    weights.chunks(width.max(1)).enumerate().flat_map(move |(row, weights)| {
        weights.iter().enumerate().map(move |(column, weight)| round(*weight, threshold(row, column)))
    })
}

/// Makes of weights the numbers of [`to_bf16`].
pub fn round_to_bf16(weights: &mut [f32], width: usize) {
    for (row, weights) in weights.chunks_mut(width.max(1)).enumerate() {
        let columns = weights.iter_mut().enumerate();
        columns.for_each(|(column, weight)| *weight = bf16_above(*weight, threshold(row, column)).to_f32());
    }
}

/// The weight in bfloat16, rounded up above this threshold.
pub(crate) fn bf16_above(weight: f32, threshold: u16) -> bf16 {
    let bits = weight.to_bits();
    let (lower, beyond) = ((bits >> 16) as u16, bits as u16);
    bf16::from_bits(if weight.is_nan() { lower | 0x40 } else { lower + u16::from(beyond > threshold) })
}

fn f16_above(weight: f32, threshold: u16) -> f16 {
    let nearest = f16::from_f32(weight);
    if !nearest.is_finite() {
        return nearest;
    }
    let size = |x: f16| x.to_f32().abs();
    let lower = f16::from_bits(nearest.to_bits() - u16::from(size(nearest) > weight.abs()));
    let upper = f16::from_bits(lower.to_bits() + 1);
    let gone = (weight.abs() - size(lower)) / (size(upper) - size(lower));
    if gone * 65536.0 > f32::from(threshold) { upper } else { lower }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_over_places_is_the_weight_and_numbers_of_the_format_stay() {
        for weight in [0.1f32, -0.1, 1.000_1, -3.999, 1e-30, 1e-40, 0.0, 65504.0, 6e-8, 1e-5] {
            // Whose thresholds are spread nearly evenly.
            let square = vec![weight; 1 << 16];
            let mean = |sum: f64| sum / square.len() as f64;
            let got = mean(to_bf16(&square, 256).map(f64::from).sum());
            assert!((got - f64::from(weight)).abs() <= f64::from(weight.abs()) * 1e-5 + 1e-41, "{weight}: {got}");
            let got = mean(to_f16(&square, 256).map(f64::from).sum());
            assert!((got - f64::from(weight)).abs() <= f64::from(weight.abs()) * 1e-5 + 1e-10, "{weight}: {got}");
            let (wide, half) = (bf16::from_f32(weight), f16::from_f32(weight));
            assert!(to_bf16(&[wide.to_f32(); 1000], 30).all(|x| x == wide), "{weight}");
            assert!(to_f16(&[half.to_f32(); 1000], 30).all(|x| x == half), "{weight}");
        }
    }

    /// Sums along a row, down a column and over a small square are off by less than rounding at random would be.
    #[test]
    fn thresholds_are_spread_evenly_along_rows_down_columns_and_over_squares() {
        let share = |row, column| f64::from(threshold(row, column)) / 65536.0;
        for first in [0, 1000, 12345] {
            let along = (0..512).map(|i| share(first, i)).sum::<f64>() / 512.0;
            let across = (0..512).map(|i| share(i, first)).sum::<f64>() / 512.0;
            let square = (0..1024).map(|i| share(first + i / 32, first + i % 32)).sum::<f64>() / 1024.0;
            for mean in [along, across, square] {
                assert!((mean - 0.5).abs() < 0.003, "{along}, {across}, {square}");
            }
        }
    }

    #[test]
    fn infinity_stays_and_what_is_no_number_stays_none() {
        let odd = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::from_bits(u32::MAX), f32::from_bits(0x7f80_0001)];
        for weight in odd {
            let same = |x: f64| x == f64::from(weight) || x.is_nan() && weight.is_nan();
            assert!(to_bf16(&[weight; 1000], 30).all(|x| same(x.into())), "{weight}");
            assert!(to_f16(&[weight; 1000], 30).all(|x| same(x.into())), "{weight}");
        }
        assert!(to_f16(&[1e6], 1).all(|x| x == f16::INFINITY));
    }

    #[test]
    fn rounded_in_place_is_the_same_and_the_first_weight_becomes_the_nearest() {
        let mut weights: Vec<f32> = (0..1000).map(|i| (i as f32).sin()).collect();
        let want: Vec<f32> = to_bf16(&weights, 30).map(f32::from).collect();
        assert_eq!(want[0], bf16::from_f32(weights[0]).to_f32());
        assert_ne!(want, weights.iter().map(|x| bf16::from_f32(*x).to_f32()).collect::<Vec<_>>());
        round_to_bf16(&mut weights, 30);
        assert_eq!(weights, want);
        assert_eq!(to_bf16(&[], 0).count(), 0);
    }
}
