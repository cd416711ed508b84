//! Attention over packed sequences, with T5's relative position bias.

use burn::tensor::{Device, Int, Tensor, TensorData, activation, module::embedding};

use crate::{Segments, fused};

/// Added to the score of a key that a query must not see. Finite, so that no `inf - inf` can arise, and far below any
/// score, so that the softmax gives exactly 0.
pub(crate) const MASKED: f32 = -1e30;

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

/// The relative position bias of a stack: a table, and what its rows mean.
#[derive(Clone, Debug)]
pub struct RelativeBias {
    /// `(buckets, heads)`.
    table: Tensor<2>,
    max_distance: usize,
    causal: bool,
    /// For devices without kernels of our own, expanded once for all layers of the stack.
    expanded: Option<Tensor<4>>,
}

impl RelativeBias {
    /// Bias from `table` of shape `(buckets, heads)`.
    ///
    /// A causal stack uses unidirectional buckets and masks keys after the query; the other kind does neither.
    pub fn new(table: Tensor<2>, max_distance: usize, causal: bool) -> Self {
        Self { table, max_distance, causal, expanded: None }
    }

    /// Ready for all the layers of a stack over sequences of at most `longest` positions.
    #[must_use]
    pub fn over(self, longest: usize) -> Self {
        let own_kernels = fused::supported(&self.table.device());
        Self { expanded: (!own_kernels).then(|| self.scores(0..longest, longest)), ..self }
    }

    /// What the table's rows mean.
    pub(crate) fn position(&self) -> fused::Position {
        let [buckets, _] = self.table.dims();
        fused::Position { buckets, max_distance: self.max_distance, causal: self.causal }
    }

    /// `(buckets, heads)`.
    pub(crate) fn table(&self) -> Tensor<2> {
        self.table.clone()
    }

    /// What is added to the attention scores of the positions `queries` against keys `0..keys`:
    /// `(1, heads, queries, keys)`.
    pub fn scores(&self, queries: std::ops::Range<usize>, keys: usize) -> Tensor<4> {
        let Self { table, max_distance, causal, .. } = self;
        let device = table.device();
        let [buckets, heads] = table.dims();
        let (first, n) = (queries.start, queries.len());
        let relative = |q: usize, k: usize| k as i64 - (first + q) as i64;
        // Only `n + keys - 1` different distances occur: bucket each once.
        let by_distance: Vec<i32> = (0..n + keys)
            .map(|i| {
                relative_position_bucket(i as i64 - (first + n) as i64 + 1, !causal, buckets, *max_distance) as i32
            })
            .collect();
        let ids: Vec<i32> = (0..n * keys)
            .map(|i| by_distance[(relative(i / keys, i % keys) + (first + n) as i64 - 1) as usize])
            .collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, n * keys]), &device);
        let bias = embedding(table.clone(), ids).reshape([1, n, keys, heads]).permute([0, 3, 1, 2]);
        let future = *causal && keys > first + 1;
        if future { bias + causal_mask(first, n, keys, &device) } else { bias }
    }
}

/// `(1, 1, queries, keys)`: 0 where key <= query, [`MASKED`] elsewhere.
fn causal_mask(first: usize, queries: usize, keys: usize, device: &Device) -> Tensor<4> {
    let mask: Vec<f32> = (0..queries * keys).map(|i| if i % keys > first + i / keys { MASKED } else { 0.0 }).collect();
    Tensor::<1>::from_floats(mask.as_slice(), device).reshape([1, 1, queries, keys])
}

/// `softmax(q k^T + bias) v` in terms of Burn's operations, padded.
pub(crate) fn padded_attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    heads: usize,
    queries: &Segments,
    keys: &Segments,
    bias: Option<&RelativeBias>,
) -> Tensor<2> {
    let split = |x: Tensor<2>, segments: &Segments| {
        let [_, width] = x.dims();
        segments.pad(x).reshape([segments.len(), segments.max_len(), heads, width / heads]).swap_dims(1, 2)
    };
    let device = q.device();
    let [_, width] = q.dims();
    let mut scores = split(q, queries).matmul(split(k, keys).swap_dims(2, 3));
    if let Some(bias) = bias {
        let expand = || bias.scores(0..queries.max_len(), keys.max_len());
        scores = scores + bias.expanded.clone().unwrap_or_else(expand);
    }
    if !keys.even() {
        scores = scores + keys.padding_mask(&device);
    }
    let mixed = activation::softmax(scores, 3).matmul(split(v, keys));
    queries.unpad(mixed.swap_dims(1, 2).reshape([queries.len(), queries.max_len(), width]))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

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

    #[test]
    fn a_window_of_queries_equals_the_rows_of_the_whole() {
        let device = Device::flex();
        let table = Tensor::<2>::random([32, 2], Distribution::Normal(0.0, 1.0), &device);
        let bias = RelativeBias::new(table, 128, true);
        let (whole, last) = (bias.scores(0..200, 200), bias.scores(199..200, 200));
        assert_eq!(whole.slice([0..1, 0..2, 199..200, 0..200]).into_data(), last.into_data());
    }
}
