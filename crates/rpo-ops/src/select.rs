//! What is asked of a row of logits when a token is chosen. None of it sorts the row.

use crate::cpu::{LANES, exp, max, vectorised};

/// Values that are passed over together if none of them is large enough.
const CHUNK: usize = 4 * LANES;

/// `log(sum(exp(scale * values)))`; `scale` is positive.
pub fn log_sum_exp(values: &[f32], scale: f32) -> f32 {
    vectorised(
        #[inline(always)]
        || {
            let largest = max(values);
            if largest == f32::NEG_INFINITY {
                return largest;
            }
            let mut lanes = [0f32; LANES];
            let chunks = values.chunks_exact(LANES);
            let rest: f32 = chunks.remainder().iter().map(|value| exp(scale * (value - largest))).sum();
            for chunk in chunks {
                for (lane, value) in lanes.iter_mut().zip(chunk) {
                    *lane += exp(scale * (value - largest));
                }
            }
            scale * largest + (lanes.iter().sum::<f32>() + rest).ln()
        },
    )
}

/// Where the largest value stands, the first of several; 0 for none.
pub fn argmax(values: &[f32]) -> usize {
    let largest = vectorised(
        #[inline(always)]
        || max(values),
    );
    values.iter().position(|value| *value == largest).unwrap_or(0)
}

/// Where values stand that are at least `bound`, in order.
pub fn at_least(values: &[f32], bound: f32) -> Vec<usize> {
    let mut found = Vec::new();
    vectorised(
        #[inline(always)]
        || {
            for (c, chunk) in values.chunks(CHUNK).enumerate() {
                if max(chunk) >= bound {
                    found.extend((c * CHUNK..).zip(chunk).filter(|(_, value)| **value >= bound).map(|(i, _)| i));
                }
            }
        },
    );
    found
}

/// Where the `k` largest values stand and those that equal the last of them, in order; negative infinity is not among them.
pub fn largest(values: &[f32], k: usize) -> Vec<usize> {
    // The largest so far. What is not above the least of the first `k` of them is passed over, most of the time by chunks.
    let mut seen: Vec<f32> = Vec::new();
    let room = 2 * k.max(CHUNK);
    let descending = |a: &f32, b: &f32| b.total_cmp(a);
    vectorised(
        #[inline(always)]
        || {
            let mut bound = f32::NEG_INFINITY;
            for chunk in values.chunks(CHUNK) {
                if max(chunk) > bound {
                    seen.extend(chunk.iter().filter(|value| **value > bound));
                    if k > 0 && seen.len() >= room {
                        bound = *seen.select_nth_unstable_by(k - 1, descending).1;
                        seen.truncate(k);
                    }
                }
            }
        },
    );
    if k > 0 && seen.len() > k {
        seen.select_nth_unstable_by(k - 1, descending);
    }
    seen.truncate(k);
    seen.into_iter().reduce(f32::min).map_or_else(Vec::new, |least| at_least(values, least))
}

/// Where the running sum of `exp(scale * values)` passes `part` of the whole, 0 to 1: a draw in proportion to these if `part` is
/// drawn evenly. `None` if all are negative infinity or there are none; `scale` is positive.
pub fn quantile(values: &[f32], scale: f32, part: f64) -> Option<usize> {
    let mut sums: Vec<f64> = Vec::with_capacity(values.len().div_ceil(CHUNK));
    let largest = vectorised(
        #[inline(always)]
        || {
            let largest = max(values);
            for chunk in values.chunks(CHUNK) {
                let mut lanes = [0f32; LANES];
                for run in chunk.chunks(LANES) {
                    for (lane, value) in lanes.iter_mut().zip(run) {
                        *lane += exp(scale * (value - largest));
                    }
                }
                sums.push(f64::from(lanes.iter().sum::<f32>()));
            }
            largest
        },
    );
    if largest == f32::NEG_INFINITY {
        return None;
    }
    let mut left = part * sums.iter().sum::<f64>();
    // What is passed by rounding alone is taken for the last that is passed at all.
    let mut found = None;
    for (chunk, sum) in sums.iter().enumerate() {
        if left >= *sum {
            left -= sum;
            continue;
        }
        let start = chunk * CHUNK;
        for (i, value) in values.iter().enumerate().skip(start).take(CHUNK) {
            let weight = f64::from(exp(scale * (value - largest)));
            if weight > 0.0 {
                found = Some(i);
            }
            left -= weight;
            if left < 0.0 {
                return found;
            }
        }
        return found;
    }
    values.iter().rposition(|value| *value > f32::NEG_INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values without an order, many of them equal.
    fn values(n: usize, kinds: usize) -> Vec<f32> {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        (0..n).map(|_| if next() % 5 == 0 { f32::NEG_INFINITY } else { (next() % kinds) as f32 / 7.0 - 3.0 }).collect()
    }

    #[test]
    fn the_largest_are_those_of_a_sorted_row() {
        for (n, kinds) in [(0, 1), (1, 9), (63, 5), (64, 1000), (1000, 7), (5000, 100_000)] {
            let values = values(n, kinds);
            let mut sorted: Vec<f32> = values.iter().copied().filter(|v| *v > f32::NEG_INFINITY).collect();
            sorted.sort_by(|a, b| b.total_cmp(a));
            for k in [0, 1, 2, 50, 127, 128, 129, 900, 6000] {
                let least = sorted[..k.min(sorted.len())].last();
                let want: Vec<usize> = (0..n)
                    .filter(|&i| least.is_some_and(|l| values[i] >= *l && values[i] > f32::NEG_INFINITY))
                    .collect();
                assert_eq!(largest(&values, k), want, "{k} of {n}");
            }
            assert_eq!(argmax(&values), values.iter().position(|v| Some(v) == sorted.first()).unwrap_or(0));
        }
    }

    #[test]
    fn sums_of_exponentials_equal_those_in_double_precision() {
        for n in [1, 15, 16, 17, 4000] {
            let values = values(n, 1000);
            for scale in [1.0, 0.5] {
                let want = values.iter().map(|v| f64::from(scale * *v).exp()).sum::<f64>().ln();
                let got = f64::from(log_sum_exp(&values, scale));
                assert!(got == want || (got - want).abs() < 1e-5, "{n}: {got} for {want}");
            }
        }
        assert_eq!(log_sum_exp(&[], 1.0), f32::NEG_INFINITY);
    }

    #[test]
    fn quantiles_part_a_row_in_proportion_to_its_exponentials() {
        for (n, scale) in [(1, 1.0), (3, 1.0), (64, 2.0), (200, 0.5), (4000, 1.0)] {
            // Within a range in which none is lost beside the largest.
            let mut values: Vec<f32> = values(n, 1000).iter().map(|v| v / 50.0).collect();
            values[0] = 0.5;
            let weight = |value: f32| f64::from(scale * value).exp();
            let total: f64 = values.iter().map(|v| weight(*v)).sum();
            let mut below = 0.0;
            for (i, value) in values.iter().enumerate().filter(|(_, v)| **v > f32::NEG_INFINITY) {
                let middle = (below + weight(*value) / 2.0) / total;
                assert_eq!(quantile(&values, scale, middle), Some(i), "{middle} of {n}");
                below += weight(*value);
            }
            let last = values.iter().rposition(|v| *v > f32::NEG_INFINITY);
            assert_eq!(quantile(&values, scale, 1.0), last);
        }
        assert_eq!(quantile(&[f32::NEG_INFINITY; 70], 1.0, 0.5), None);
        assert_eq!(quantile(&[], 1.0, 0.5), None);
    }
}
