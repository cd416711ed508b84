//! Who attends to whom, and what position biases mean: what kernels of every kind are told.

use crate::Segments;

/// The bucket of a relative position, as T5 defines it (arXiv 1910.10683, section 2.1; `_relative_position_bucket` in
/// the reference implementation): exact for the near half, logarithmic up to `max_distance`, one bucket beyond.
///
/// `relative` is key position minus query position. Encoders are `bidirectional` (half of the buckets for keys that
/// follow the query); decoders are not.
pub fn relative_position_bucket(relative: i64, bidirectional: bool, buckets: usize, max_distance: usize) -> usize {
    let (buckets, first) = match bidirectional {
        true => (buckets / 2, if relative > 0 { buckets / 2 } else { 0 }),
        false => (buckets, 0),
    };
    let distance = if bidirectional { relative.unsigned_abs() } else { (-relative).max(0) as u64 } as usize;
    let exact = buckets / 2;
    if distance < exact {
        return first + distance;
    }
    // Single precision throughout, as the reference computes it: the truncation below is sensitive to the last bit.
    let log_ratio = (distance as f32 / exact as f32).ln() / ((max_distance as f64 / exact as f64).ln() as f32);
    let beyond = (log_ratio * (buckets - exact) as f32) as usize;
    first + (exact + beyond).min(buckets - 1)
}

/// Who attends to whom.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Number of heads.
    pub(crate) heads: usize,
    /// Segments of the queries.
    pub(crate) queries: Segments,
    /// Of what is attended to, if not the tokens themselves.
    pub(crate) memory: Option<Segments>,
    /// What the table of the position bias means; `None` without a bias.
    pub(crate) position: Option<Position>,
}

impl Plan {
    /// The segments of what is attended to.
    pub(crate) fn keys(&self) -> &Segments {
        self.memory.as_ref().unwrap_or(&self.queries)
    }
}

/// How positions become rows of the table of biases.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    pub(crate) buckets: usize,
    pub(crate) max_distance: usize,
    pub(crate) causal: bool,
}

/// How packed tokens lie: all prompts first, then all responses, each of which continues one of the prompts.
#[derive(Clone, Debug)]
pub struct Prefixed {
    /// The prompts.
    pub prompts: Segments,
    /// The responses, counted from the first of their tokens.
    pub responses: Segments,
    /// For each response which prompt it continues.
    pub prompt_of: Vec<usize>,
}

impl Prefixed {
    /// The position of every token: prompts count from 0, and their responses go on.
    pub fn positions(&self) -> Vec<usize> {
        let of_prompts = self.prompts.lengths().flat_map(|n| 0..n);
        let of_responses = self.responses.lengths().zip(&self.prompt_of).flat_map(|(n, &prompt)| {
            let before = self.prompts.range(prompt).len();
            before..before + n
        });
        of_prompts.chain(of_responses).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the definition with 32 buckets and distance 128: 8 exact and 8 logarithmic buckets each way.
    #[test]
    fn buckets_by_hand() {
        let both = |d| relative_position_bucket(d, true, 32, 128);
        assert_eq!([both(0), both(-1), both(-7), both(1), both(7)], [0, 1, 7, 17, 23]);
        // 8 + floor(ln(16/8) / ln(128/8) * 8) = 8 + 2
        assert_eq!([both(-8), both(-16), both(-127), both(-128), both(-5000)], [8, 10, 15, 15, 15]);
        let past = |d| relative_position_bucket(d, false, 32, 128);
        assert_eq!([past(3), past(0), past(-15), past(-16)], [0, 0, 15, 16]);
        // 16 + floor(ln(32/16) / ln(128/16) * 16) = 16 + 5
        assert_eq!([past(-32), past(-128), past(-100_000)], [21, 31, 31]);
    }
}
