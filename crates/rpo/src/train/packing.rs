//! A check before the first step that packing changes nothing, on the run's own model, data and device.

use crate::batch::{PackedBatch, Span};
use crate::error::{Error, Result};
use crate::feedback::FeedbackSet;
use crate::model::Model;
use crate::score::{Seen, score};

/// Prompts that are looked at.
const PROMPTS: usize = 2;
/// Responses of each.
const RESPONSES: usize = 2;
/// Largest difference, relative to the log-probability, or absolute for small ones: far above what rounding does, far below
/// what a token that sees its neighbour's would.
const TOLERANCE: f32 = 1e-2;

/// Checks that a few responses, packed behind the prompts that they share, have the log-probabilities that each has by itself.
///
/// # Errors
/// If one has not, or the device fails.
pub(super) fn check(policy: &Model, data: &FeedbackSet) -> Result<()> {
    let policy = policy.inference();
    let mut groups: Vec<usize> = (0..data.groups.len()).collect();
    // Those that share a prompt first, and short ones.
    groups.sort_by_key(|&i| (data.groups[i].responses.len() < RESPONSES, Span::whole(i, data).tokens(data)));
    let spans: Vec<Span> = groups
        .into_iter()
        .take(PROMPTS)
        .map(|group| Span { group, responses: 0..data.groups[group].responses.len().min(RESPONSES) })
        .collect();
    let scored = |spans: &[Span]| score(&policy, &PackedBatch::pack(data, spans, policy.start())).seen();
    let alone = spans.iter().flat_map(|span| {
        span.responses.clone().map(|response| Span { group: span.group, responses: response..response + 1 })
    });
    let alone: Vec<Seen> = alone.map(|span| scored(&[span])).collect::<Result<Vec<_>>>()?.concat();
    compare(&scored(&spans)?, &alone)
}

fn compare(packed: &[Seen], alone: &[Seen]) -> Result<()> {
    let bad = |problem: String| Err(Error::Data(problem));
    for (packed, alone) in packed.iter().zip(alone) {
        debug_assert_eq!(packed.row, alone.row);
        let (row, [a, b]) = (packed.row + 1, [packed.log_prob, alone.log_prob]);
        if !(a.is_finite() && b.is_finite()) {
            return bad(format!(
                "the model to start from gives the response of row {row} the log-probability {a}: its weights are broken, or too \
                 large for this number format"
            ));
        }
        if (a - b).abs() > TOLERANCE * b.abs().max(1.0) {
            return bad(format!(
                "the response of row {row} has log-probability {a} in a batch, but {b} by itself: this device or this program \
                 computes wrongly. Please report it, with the model's config.json"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::feedback::{PromptGroup, Response};
    use crate::model::{Config, RandomWeights};

    fn data() -> FeedbackSet {
        let response =
            |row: usize, ids: &[u32]| Response { row, ids: ids.into(), truncated: false, reward: 0.0, copies: 1 };
        let group = |first_row, prompt: &[u32], responses: &[&[u32]]| PromptGroup {
            prompt: prompt.into(),
            first_row,
            responses: responses.iter().enumerate().map(|(i, ids)| response(first_row + i, ids)).collect(),
        };
        FeedbackSet { groups: vec![group(0, &[3, 4, 5], &[&[2, 6], &[7, 1], &[1]]), group(3, &[6, 2], &[&[5, 1]])] }
    }

    #[test]
    fn packing_changes_nothing_and_what_would_is_told() {
        let texts = [
            r#"{"model_type":"t5","vocab_size":8,"d_model":4,"d_kv":2,"d_ff":4,"num_layers":1,"num_heads":2}"#,
            r#"{"model_type":"llama","vocab_size":8,"hidden_size":8,"intermediate_size":8,"num_hidden_layers":1,
                "num_attention_heads":2,"bos_token_id":0,"eos_token_id":1,"initializer_range":0.5}"#,
        ];
        for text in texts {
            let config = Config::parse(text).expect("valid");
            let model = Model::new(&config, &mut RandomWeights::new(1), &Device::flex()).expect("random");
            check(&model, &data()).expect("the same");
        }
        let seen = |log_prob| vec![Seen { row: 4, log_prob }];
        let said = compare(&seen(-3.0), &seen(-3.1)).expect_err("differs").to_string();
        assert!(said.contains("row 5 has log-probability -3 in a batch, but -3.1 by itself"), "{said}");
        assert!(
            compare(&seen(f32::NAN), &seen(-3.0))
                .expect_err("no number")
                .to_string()
                .contains("log-probability NaN: its weights")
        );
        compare(&seen(-300.0), &seen(-301.0)).expect("rounding");
    }
}
