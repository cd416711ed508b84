//! Rounding of weights to 16 bits that keeps small changes of them.
//!
//! Published weights often are numbers of bfloat16 already. A step of training moves most of them by less than half the way to the next
//! such number, and rounding to the nearest undoes that: what is computed or stored is the model before training. So each weight has a threshold of
//! its own, by its row and column, and is rounded up in magnitude if its share of that way is greater. Thresholds are spread
//! evenly, along rows and along columns, so that a sum over weights sees their changes in the mean (ordered dither), and
//! they never change, so that gradients, validation and what is stored are of one model. Numbers of the format stay themselves.

use half::{bf16, f16};

/// What thresholds grow by from one row and from one column to the next, in shares of 2^16: the inverses of the root of `x^3 = x + 1` and
/// of its square, whose multiples are spread evenly over squares (M. Roberts' sequence R2), as odd numbers.
const STEPS: [u16; 2] = [49471, 37345];

/// From one column to the next.
pub(crate) const COLUMN: u16 = STEPS[1];

/// The share of the way to the next number, of 2^16, above which a weight is rounded up.
pub(crate) fn threshold(row: usize, column: usize) -> u16 {
    (row as u16).wrapping_mul(STEPS[0]).wrapping_add((column as u16).wrapping_mul(COLUMN))
}

/// Weights in bfloat16, those of each row of their matrix being `width` long: each becomes one of the two numbers beside it, in the mean
/// over places itself. What is not finite stays so.
pub fn to_bf16(weights: &[f32], width: usize) -> impl Iterator<Item = bf16> {
    by_place(weights, width, bf16_above)
}

/// The same in half precision. What lies beyond its largest number becomes infinite.
pub fn to_f16(weights: &[f32], width: usize) -> impl Iterator<Item = f16> {
    by_place(weights, width, f16_above)
}

fn by_place<T>(weights: &[f32], width: usize, round: impl Fn(f32, u16) -> T) -> impl Iterator<Item = T> {
    weights.iter().enumerate().map(move |(i, weight)| round(*weight, threshold(i / width, i % width)))
}

/// The weight in bfloat16, rounded up above this threshold.
pub(crate) fn bf16_above(weight: f32, threshold: u16) -> bf16 {
    let bits = weight.to_bits();
    let (lower, beyond) = ((bits >> 16) as u16, bits as u16);
    bf16::from_bits(lower + u16::from(beyond > threshold && weight.is_finite()))
}

fn f16_above(weight: f32, threshold: u16) -> f16 {
    let nearest = f16::from_f32(weight);
    if !nearest.is_finite() {
        return nearest;
    }
    let size = |x: f16| x.to_f32().abs();
    let lower = f16::from_bits(nearest.to_bits() - u16::from(size(nearest) > weight.abs()));
    let upper = f16::from_bits(lower.to_bits() + 1);
    let beyond = (weight.abs() - size(lower)) / (size(upper) - size(lower));
    if beyond * 65536.0 > f32::from(threshold) { upper } else { lower }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_over_places_is_the_weight_and_numbers_of_the_format_stay() {
        for weight in [0.1f32, -0.1, 1.000_1, -3.999, 1e-30, 1e-40, 0.0, 65504.0, 6e-8, 1e-5] {
            // A square of 256 rows and columns has each threshold about once.
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
    fn thresholds_are_spread_evenly_in_every_direction() {
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
    fn what_is_not_finite_stays_so() {
        let odd = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::from_bits(u32::MAX), f32::from_bits(0x7f80_0001)];
        for weight in odd {
            assert!(to_bf16(&[weight; 1000], 30).all(|x| !x.is_finite()), "{weight}");
            assert!(to_f16(&[weight; 1000], 30).all(|x| !x.is_finite()), "{weight}");
        }
        assert!(to_f16(&[1e6], 1).all(|x| x == f16::INFINITY));
    }
}
