//! Where each sequence of a packed batch begins and ends.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor};

use crate::index_tensor;

/// Added to the score of a key that a query must not see. Finite, so that no `inf - inf` can arise, and far below any
/// score, so that the softmax gives exactly 0.
pub(crate) const MASKED: f32 = -1e30;

/// Consecutive, non-empty spans that cover `0..total()`: sequence `i` is `range(i)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    offsets: Vec<usize>,
}

impl Segments {
    /// Segments of the given lengths, one after the other.
    ///
    /// # Panics
    /// If a length is zero: an empty sequence has no softmax and no mean.
    pub fn from_lengths(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut offsets = vec![0];
        let mut end = 0;
        for length in lengths {
            assert!(length > 0, "a segment of a packed batch is empty");
            end += length;
            offsets.push(end);
        }
        Self { offsets }
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// True if there is no sequence at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of tokens of all sequences.
    pub fn total(&self) -> usize {
        self.offsets[self.len()]
    }

    /// The tokens of sequence `i`.
    pub fn range(&self, i: usize) -> Range<usize> {
        self.offsets[i]..self.offsets[i + 1]
    }

    /// The lengths in order.
    pub fn lengths(&self) -> impl Iterator<Item = usize> + '_ {
        self.offsets.windows(2).map(|w| w[1] - w[0])
    }

    /// Length of the longest sequence; 0 if there is none.
    pub fn max_len(&self) -> usize {
        self.lengths().max().unwrap_or(0)
    }

    /// True if every sequence has the same length, so that packed and padded layouts coincide.
    pub(crate) fn even(&self) -> bool {
        self.lengths().all(|l| l == self.max_len())
    }

    /// `(tokens, features)` to `(sequences, max_len, features)`. What stands in the padding is unspecified but finite.
    pub fn pad(&self, x: Tensor<2>) -> Tensor<3> {
        let [_, features] = x.dims();
        let (n, longest) = (self.len(), self.max_len());
        if self.even() {
            return x.reshape([n, longest, features]);
        }
        let source = (0..n).flat_map(|i| {
            let Range { start, end } = self.range(i);
            (0..longest).map(move |t| (start + t).min(end - 1))
        });
        let source = index_tensor(source, &x.device());
        x.select(0, source).reshape([n, longest, features])
    }

    /// `(sequences, max_len, features)` to `(tokens, features)`, dropping the padding.
    pub(crate) fn unpad(&self, x: Tensor<3>) -> Tensor<2> {
        let [n, longest, features] = x.dims();
        let x = x.reshape([n * longest, features]);
        if self.even() {
            return x;
        }
        let kept = self.padded_positions(&x.device());
        x.select(0, kept)
    }

    /// For every token its row in the padded `(sequences * max_len)` layout.
    fn padded_positions(&self, device: &Device) -> Tensor<1, Int> {
        let longest = self.max_len();
        let rows = self.lengths().enumerate().flat_map(|(i, l)| (0..l).map(move |t| i * longest + t));
        index_tensor(rows, device)
    }

    /// What to add to attention scores so that padding is not seen: `(sequences, 1, 1, max_len)`.
    pub fn padding_mask(&self, device: &Device) -> Tensor<4> {
        let penalty = self.token_mask(device).sub_scalar(1.0).mul_scalar(-MASKED);
        penalty.reshape([self.len(), 1, 1, self.max_len()])
    }

    /// 1 where a padded position holds a token, 0 in the padding: `(sequences, max_len)`.
    pub(crate) fn token_mask(&self, device: &Device) -> Tensor<2> {
        let longest = self.max_len();
        let mask: Vec<f32> =
            self.lengths().flat_map(|l| (0..longest).map(move |t| if t < l { 1.0 } else { 0.0 })).collect();
        Tensor::<1>::from_floats(mask.as_slice(), device).reshape([self.len(), longest])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pad_and_unpad_are_inverse() {
        let device = Device::flex();
        for lengths in [vec![2, 1, 3], vec![2, 2]] {
            let segments = Segments::from_lengths(lengths);
            let n = segments.total();
            let x = Tensor::<1, Int>::arange(0..2 * n as i64, &device).float().reshape([n, 2]);
            let padded = segments.pad(x.clone());
            assert_eq!(padded.dims(), [segments.len(), segments.max_len(), 2]);
            assert_eq!(segments.unpad(padded).into_data(), x.into_data());
        }
    }

    #[test]
    #[should_panic(expected = "empty")]
    fn an_empty_segment_is_refused() {
        Segments::from_lengths([3, 0]);
    }
}
