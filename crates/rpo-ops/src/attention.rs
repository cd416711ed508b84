//! Attention over packed sequences, with T5's relative position bias.

use burn::tensor::{Device, Int, Tensor, TensorData, module::embedding};

use crate::cpu;
use crate::plan::{Position, relative_position_bucket};
use crate::segments::MASKED;

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
        let own_kernels = cpu::supported(&self.table.device());
        Self { expanded: (!own_kernels).then(|| self.scores(0..longest, longest)), ..self }
    }

    /// What the table's rows mean.
    pub(crate) fn position(&self) -> Position {
        let [buckets, _] = self.table.dims();
        Position { buckets, max_distance: self.max_distance, causal: self.causal }
    }

    /// What is added to the scores of all positions of a stack over sequences of at most `queries` and `keys` positions.
    pub(crate) fn over_all(&self, queries: usize, keys: usize) -> Tensor<4> {
        self.expanded.clone().unwrap_or_else(|| self.scores(0..queries, keys))
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

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;

    #[test]
    fn a_window_of_queries_equals_the_rows_of_the_whole() {
        let device = Device::flex();
        let table = Tensor::<2>::random([32, 2], Distribution::Normal(0.0, 1.0), &device);
        let bias = RelativeBias::new(table, 128, true);
        let (whole, last) = (bias.scores(0..200, 200), bias.scores(199..200, 200));
        assert_eq!(whole.slice([0..1, 0..2, 199..200, 0..200]).into_data(), last.into_data());
    }
}
