//! Prompts and responses laid end to end, each prompt once, with offsets in place of padding.
//!
//! ```
//! use rpo::batch::{PackedBatch, Span, Start};
//! use rpo::feedback::{FeedbackSet, PromptGroup, Response};
//!
//! let response = |row, ids: &[u32]| Response { row, ids: ids.to_vec(), truncated: false, reward: 0.0, copies: 1 };
//! let responses = vec![response(0, &[7, 8, 1]), response(1, &[9, 1])];
//! let data = FeedbackSet { groups: vec![PromptGroup { prompt: vec![5, 1], first_row: 0, responses }] };
//! let batch = PackedBatch::pack(&data, &[Span::whole(0, &data)], Start::Token(0));
//! assert_eq!(batch.prompt_ids, [5, 1]);
//! assert_eq!(batch.input_ids, [0, 7, 8, 0, 9]);
//! assert_eq!(batch.labels, [7, 8, 1, 9, 1]);
//! ```

use std::ops::Range;

use rpo_ops::Segments;

use crate::error::{Error, Result};
use crate::feedback::{FeedbackSet, PromptGroup};

/// Some responses of one prompt group, as a batch takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index of the group in its [`FeedbackSet`].
    pub group: usize,
    /// Which of its responses.
    pub responses: Range<usize>,
}

impl Span {
    /// Whether response `next` of `other` continues this span.
    fn adjoins(&self, other: &Self, next: usize) -> bool {
        self.group == other.group && self.responses.end == next
    }

    /// Tokens of the prompt and of these responses.
    pub fn tokens(&self, data: &FeedbackSet) -> usize {
        let group = &data.groups[self.group];
        group.prompt.len() + group.responses[self.responses.clone()].iter().map(|r| r.ids.len()).sum::<usize>()
    }

    /// All the responses of group `group`.
    pub fn whole(group: usize, data: &FeedbackSet) -> Self {
        Self { group, responses: 0..data.groups[group].responses.len() }
    }
}

/// What stands before a response's first token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// This token: models with a decoder of its own, as T5.
    Token(u32),
    /// The prompt's last token: decoder-only models. It moves from the prompt to the inputs of each of its responses.
    EndOfPrompt,
}

impl Start {
    /// Checks that something is left of every prompt of `data` once its last token has moved to the responses.
    ///
    /// # Errors
    /// If a prompt has a single token, naming the row that brought it.
    pub fn check(self, data: &FeedbackSet) -> Result<()> {
        let short = |group: &&PromptGroup| self == Self::EndOfPrompt && group.prompt.len() < 2;
        match data.groups.iter().find(short) {
            None => Ok(()),
            Some(group) => Err(Error::Data(format!(
                "the prompt of row {} has a single token, and a decoder-only model needs two: use a tokenizer that begins texts \
                 with a token of its own (BOS), or a longer prompt",
                group.first_row + 1
            ))),
        }
    }
}

/// What the model computes on in one pass: `P` prompts and `R >= P` responses.
#[derive(Clone, Debug)]
pub struct PackedBatch {
    /// Token ids of the prompts, end to end.
    pub prompt_ids: Vec<u32>,
    /// Where each of the `P` prompts lies in `prompt_ids`.
    pub prompts: Segments,
    /// Inputs of the responses: each shifted right behind what [`Start`] says.
    pub input_ids: Vec<u32>,
    /// What the decoder should say: the responses, end to end.
    pub labels: Vec<u32>,
    /// Where each of the `R` responses lies in `labels`.
    pub responses: Segments,
    /// Where the responses of each prompt, taken together, lie in `labels`: `P` segments.
    pub by_prompt: Segments,
    /// For each response which of the `P` prompts it answers.
    pub prompt_of: Vec<usize>,
    /// For each response its row in the data set.
    pub rows: Vec<usize>,
}

impl PackedBatch {
    /// Packs the given responses, each group's prompt once.
    ///
    /// # Panics
    /// If there is no response, or a prompt or response without tokens; [`FeedbackSet`] admits neither.
    pub fn pack(data: &FeedbackSet, spans: &[Span], start: Start) -> Self {
        let groups: Vec<(&PromptGroup, &Span)> = spans.iter().map(|s| (&data.groups[s.group], s)).collect();
        let responses = || groups.iter().flat_map(|(group, span)| &group.responses[span.responses.clone()]);
        // How many tokens a prompt keeps.
        let kept = |group: &PromptGroup| match start {
            Start::Token(_) => group.prompt.len(),
            Start::EndOfPrompt => group.prompt.len() - 1,
        };
        let mut input_ids = Vec::new();
        let mut labels = Vec::new();
        for (group, span) in &groups {
            for response in &group.responses[span.responses.clone()] {
                input_ids.push(match start {
                    Start::Token(token) => token,
                    Start::EndOfPrompt => group.prompt[group.prompt.len() - 1],
                });
                input_ids.extend(&response.ids[..response.ids.len() - 1]);
                labels.extend(&response.ids);
            }
        }
        let tokens = |group: &PromptGroup, span: &Span| -> usize {
            group.responses[span.responses.clone()].iter().map(|r| r.ids.len()).sum()
        };
        Self {
            prompt_ids: groups.iter().flat_map(|(group, _)| group.prompt[..kept(group)].iter().copied()).collect(),
            prompts: Segments::from_lengths(groups.iter().map(|(group, _)| kept(group))),
            input_ids,
            labels,
            responses: Segments::from_lengths(responses().map(|r| r.ids.len())),
            by_prompt: Segments::from_lengths(groups.iter().map(|(group, span)| tokens(group, span))),
            prompt_of: groups
                .iter()
                .enumerate()
                .flat_map(|(i, (_, span))| span.responses.clone().map(move |_| i))
                .collect(),
            rows: responses().map(|r| r.row).collect(),
        }
    }

    /// The ids of the prompts and after them the decoder's inputs.
    pub fn all_ids(&self) -> Vec<u32> {
        [self.prompt_ids.as_slice(), &self.input_ids].concat()
    }

    /// Prompt and response tokens together: what the work grows with.
    pub fn tokens(&self) -> usize {
        self.prompts.total() + self.responses.total()
    }
}

/// Cuts `spans` into pieces whose tokens, prompts included, stay within `budget` where the smallest part alone does: a
/// response, or all the responses of a span if `whole`.
pub fn split_by_tokens(data: &FeedbackSet, spans: &[Span], budget: usize, whole: bool) -> Vec<Vec<Span>> {
    let mut pieces: Vec<Vec<Span>> = Vec::new();
    let mut used = 0;
    for span in spans {
        let group = &data.groups[span.group];
        let step = if whole { span.responses.len().max(1) } else { 1 };
        for from in span.responses.clone().step_by(step) {
            let part = from..from + step;
            let tokens: usize = group.responses[part.clone()].iter().map(|r| r.ids.len()).sum();
            let last = pieces.last_mut().map(|piece| (piece.last().is_some_and(|s| s.adjoins(span, from)), piece));
            match last {
                Some((true, piece)) if used + tokens <= budget => {
                    used += tokens;
                    piece.last_mut().into_iter().for_each(|open| open.responses.end += step);
                }
                Some((false, piece)) if used + tokens + group.prompt.len() <= budget => {
                    used += tokens + group.prompt.len();
                    piece.push(Span { group: span.group, responses: part });
                }
                _ => {
                    used = tokens + group.prompt.len();
                    pieces.push(vec![Span { group: span.group, responses: part }]);
                }
            }
        }
    }
    pieces
}

/// As few pieces as [`split_by_tokens`] makes, but about equally large, so that none is small and none larger than need be.
pub fn split_evenly(data: &FeedbackSet, spans: &[Span], budget: usize, whole: bool) -> Vec<Vec<Span>> {
    let split = |budget| split_by_tokens(data, spans, budget, whole);
    let fewest = split(budget);
    // The smallest budget that does with as many.
    let (mut fails, mut does) = (0, budget);
    while does - fails > 1 {
        let between = fails.midpoint(does);
        match split(between).len() <= fewest.len() {
            true => does = between,
            false => fails = between,
        }
    }
    split(does)
}

/// Batches for passes without gradients: groups of similar length together, cut as [`split_by_tokens`] does.
pub fn length_buckets(data: &FeedbackSet, budget: usize, whole: bool) -> Vec<Vec<Span>> {
    let mut order: Vec<usize> = (0..data.groups.len()).collect();
    let longest = |g: &PromptGroup| g.responses.iter().map(|r| r.ids.len()).max().unwrap_or(0);
    order.sort_by_key(|&i| (longest(&data.groups[i]), data.groups[i].prompt.len(), i));
    let spans: Vec<Span> = order.into_iter().map(|i| Span::whole(i, data)).collect();
    split_by_tokens(data, &spans, budget, whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feedback::Response;

    fn data() -> FeedbackSet {
        let mut row = 0;
        let mut response = |ids: &[u32]| {
            row += 1;
            Response { row: row - 1, ids: ids.to_vec(), truncated: false, reward: row as f64, copies: 1 }
        };
        let group = |prompt: &[u32], responses| PromptGroup { prompt: prompt.to_vec(), first_row: 0, responses };
        FeedbackSet {
            groups: vec![
                group(&[5, 6, 1], vec![response(&[7, 8, 1]), response(&[9, 1])]),
                group(&[4, 1], vec![response(&[3, 3, 3, 1])]),
            ],
        }
    }

    const START: Start = Start::Token(0);

    #[test]
    fn each_prompt_is_packed_once_and_inputs_are_shifted() {
        let data = data();
        let batch = PackedBatch::pack(&data, &[Span::whole(0, &data), Span::whole(1, &data)], START);
        assert_eq!(batch.prompt_ids, [5, 6, 1, 4, 1]);
        assert_eq!(batch.labels, [7, 8, 1, 9, 1, 3, 3, 3, 1]);
        assert_eq!(batch.input_ids, [0, 7, 8, 0, 9, 0, 3, 3, 3]);
        assert_eq!(batch.responses.lengths().collect::<Vec<_>>(), [3, 2, 4]);
        assert_eq!(batch.by_prompt.lengths().collect::<Vec<_>>(), [5, 4]);
        assert_eq!(batch.rows, [0, 1, 2]);
        assert_eq!(batch.tokens(), 14);
    }

    #[test]
    fn the_last_token_of_a_prompt_begins_each_of_its_responses() {
        let data = data();
        let batch = PackedBatch::pack(&data, &[Span::whole(0, &data), Span::whole(1, &data)], Start::EndOfPrompt);
        assert_eq!(batch.prompt_ids, [5, 6, 4]);
        assert_eq!(batch.input_ids, [1, 7, 8, 1, 9, 1, 3, 3, 3]);
        assert_eq!(batch.labels, [7, 8, 1, 9, 1, 3, 3, 3, 1]);
        let mut short = data.clone();
        short.groups[1].prompt = vec![4];
        short.groups[1].first_row = 6;
        assert!(Start::EndOfPrompt.check(&data).is_ok() && Start::Token(0).check(&short).is_ok());
        let said = Start::EndOfPrompt.check(&short).expect_err("one token").to_string();
        assert!(said.contains("row 7") && said.contains("BOS"), "{said}");
    }

    #[test]
    fn a_token_budget_is_kept_and_nothing_is_lost() {
        let data = data();
        let all = [Span::whole(0, &data), Span::whole(1, &data)];
        for budget in 1..20 {
            let pieces = split_by_tokens(&data, &all, budget, false);
            let rows: Vec<usize> = pieces.iter().flat_map(|p| PackedBatch::pack(&data, p, START).rows).collect();
            assert_eq!(rows, [0, 1, 2], "budget {budget}");
            for piece in &pieces {
                let batch = PackedBatch::pack(&data, piece, START);
                assert!(batch.tokens() <= budget || batch.rows.len() == 1, "budget {budget}: {piece:?}");
            }
        }
        assert_eq!(split_by_tokens(&data, &all, 100, false).len(), 1);
    }

    #[test]
    fn pieces_are_about_equally_large() {
        let mut data = data();
        data.groups = [&data.groups[..], &data.groups[..1], &data.groups[..1]].concat();
        let all: Vec<Span> = (0..4).map(|i| Span::whole(i, &data)).collect();
        let sizes = |pieces: Vec<Vec<Span>>| -> Vec<usize> {
            pieces.iter().map(|p| PackedBatch::pack(&data, p, START).tokens()).collect()
        };
        // Groups of 3 + 5, 2 + 4, 3 + 5 and 3 + 5 tokens.
        assert_eq!(sizes(split_by_tokens(&data, &all, 22, false)), [22, 8]);
        assert_eq!(sizes(split_evenly(&data, &all, 22, false)), [14, 16]);
        assert_eq!(sizes(split_evenly(&data, &all, 100, false)), [30]);
    }
}
