//! Log-probabilities of labels under a language-model head, and their sums per sequence.

use burn::tensor::Tensor;

use crate::{Compute, Segments, composed, cpu};

/// `log softmax(hidden weight^T)[label]` for every token.
///
/// `hidden` is `(tokens, features)`, `weight` is `(vocabulary, features)`, `labels` has one id per token; the result is
/// `(tokens)`, in nats. For the gradients the logits are kept (up to a fixed budget) if `keep_logits`, else computed again. The
/// products are computed in `compute`.
///
/// # Panics
/// If there is not one label for each token, or one is outside the vocabulary.
pub fn label_log_probs(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    labels: &[u32],
    keep_logits: bool,
    compute: Compute,
) -> Tensor<1> {
    let ([tokens, _], [vocabulary, _]) = (hidden.dims(), weight.dims());
    assert_eq!(labels.len(), tokens, "one label for each token");
    assert!(labels.iter().all(|&l| (l as usize) < vocabulary), "a label is outside the vocabulary of {vocabulary}");
    match cpu::supported(&hidden.device()) {
        true => cpu::label_log_probs(hidden, weight, labels, keep_logits, compute),
        false => composed::label_log_probs(hidden, weight, labels),
    }
}

/// Sum of the values of each segment: `(tokens)` to `(segments)`.
pub fn segment_sum(x: Tensor<1>, segments: &Segments) -> Tensor<1> {
    let [tokens] = x.dims();
    let padded = segments.pad(x.reshape([tokens, 1]));
    let (n, longest) = (segments.len(), segments.max_len());
    let padded = padded.reshape([n, longest]);
    let kept = if segments.even() { padded } else { padded.clone() * segments.token_mask(&padded.device()) };
    kept.sum_dim(1).reshape([n])
}

/// Mean of the rows of each segment: `(tokens, features)` to `(segments, features)`.
pub fn segment_mean(x: Tensor<2>, segments: &Segments) -> Tensor<2> {
    let (n, tokens) = (segments.len(), segments.total());
    let mut weights = vec![0.0f32; n * tokens];
    for i in 0..n {
        let range = segments.range(i);
        let share = 1.0 / range.len() as f32;
        weights[i * tokens..][range].fill(share);
    }
    Tensor::<1>::from_floats(weights.as_slice(), &x.device()).reshape([n, tokens]).matmul(x)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tolerance};

    use super::*;

    #[test]
    fn label_log_probs_by_hand() {
        let device = Device::flex();
        // One feature; logits are hidden * [0, ln 3]: probabilities 1/4 and 3/4 at hidden 1, 1/10 and 9/10 at hidden 2.
        let hidden = Tensor::<2>::from_floats([[1.0], [2.0]], &device);
        let weight = Tensor::<2>::from_floats([[0.0], [3f32.ln()]], &device);
        let got = label_log_probs(hidden, weight, &[0, 1], true, Compute::F32);
        let want = Tensor::<1>::from_floats([0.25f32.ln(), 0.9f32.ln()], &device);
        got.into_data().assert_approx_eq::<f32>(&want.into_data(), Tolerance::relative(1e-6));
    }

    #[test]
    fn segment_sum_ignores_padding() {
        let device = Device::flex();
        let x = Tensor::<1>::from_floats([1.0, 2.0, 3.0, 4.0], &device);
        let got = segment_sum(x, &Segments::from_lengths([1, 3]));
        assert_eq!(got.into_data().try_to_vec::<f32>().expect("f32"), [1.0, 9.0]);
    }

    #[test]
    fn segment_mean_ignores_its_neighbours() {
        let x = Tensor::<2>::from_floats([[1.0, 5.0], [2.0, 0.0], [4.0, 2.0]], &Device::flex());
        let got = segment_mean(x, &Segments::from_lengths([1, 2]));
        assert_eq!(got.into_data().try_to_vec::<f32>().expect("f32"), [1.0, 5.0, 3.0, 1.0]);
    }
}
