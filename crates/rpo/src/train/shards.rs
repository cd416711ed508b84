//! Which part of a step is whose. A step's responses are cut into shards, whose number is a setting and does not depend on how many
//! processes there are; each process computes some of them, one after the other, and their gradients are added in order. Sums of
//! floating-point numbers depend on their order, and this one is the same for any number of processes.

use crate::batch::Span;
use crate::feedback::FeedbackSet;

/// Cuts the responses of `spans` into `n` contiguous parts of about equally many tokens, none of which is empty where there are enough
/// responses. With `whole`, spans are not parted.
pub(super) fn cut(data: &FeedbackSet, spans: &[Span], n: usize, whole: bool) -> Vec<Vec<Span>> {
    let mut items: Vec<(Span, usize)> = Vec::new();
    for span in spans {
        let step = if whole { span.responses.len().max(1) } else { 1 };
        for (i, from) in span.responses.clone().step_by(step).enumerate() {
            let part = Span { group: span.group, responses: from..from + step };
            let prompt = if i == 0 { 0 } else { data.groups[span.group].prompt.len() };
            let tokens = part.tokens(data) - prompt;
            items.push((part, tokens));
        }
    }
    let total: usize = items.iter().map(|(_, tokens)| tokens).sum();
    let mut parts: Vec<Vec<Span>> = vec![Vec::new(); n];
    let (mut part, mut before) = (0, 0);
    let count = items.len();
    for (i, (span, tokens)) in items.into_iter().enumerate() {
        let full = (2 * before + tokens) * n > 2 * (part + 1) * total;
        let scarce = count - i < n - part;
        if part + 1 < n && !parts[part].is_empty() && (full || scarce) {
            part += 1;
        }
        before += tokens;
        match parts[part].last_mut() {
            Some(last) if last.group == span.group && last.responses.end == span.responses.start => {
                last.responses.end = span.responses.end;
            }
            _ => parts[part].push(span),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::feedback::{PromptGroup, Response};

    fn data(prompts: &[(usize, Vec<usize>)]) -> FeedbackSet {
        let mut row = 0;
        let mut response = |n: &usize| {
            row += 1;
            Response { row: row - 1, ids: vec![1; *n], truncated: false, reward: 0.0, copies: 1 }
        };
        let groups = prompts.iter().map(|(prompt, lengths)| PromptGroup {
            prompt: vec![1; *prompt],
            first_row: 0,
            responses: lengths.iter().map(&mut response).collect(),
        });
        FeedbackSet { groups: groups.collect() }
    }

    fn all(data: &FeedbackSet) -> Vec<Span> {
        (0..data.groups.len()).map(|group| Span::whole(group, data)).collect()
    }

    #[test]
    fn one_part_is_the_step_itself_and_parts_are_about_equal() {
        let data = data(&[(3, vec![5, 5]), (2, vec![4]), (3, vec![5, 5, 5])]);
        assert_eq!(cut(&data, &all(&data), 1, false), [all(&data)]);
        let halves = cut(&data, &all(&data), 2, false);
        assert_eq!(
            halves,
            [vec![Span::whole(0, &data), Span::whole(1, &data)], vec![Span::whole(2, &data)]],
            "19 and 18 tokens"
        );
        let thirds = cut(&data, &all(&data), 3, true);
        assert_eq!(thirds, [vec![Span::whole(0, &data)], vec![Span::whole(1, &data)], vec![Span::whole(2, &data)]]);
    }

    proptest! {
        #[test]
        fn parts_in_order_are_the_step_and_none_is_empty_without_need(
            prompts in prop::collection::vec((1usize..9, prop::collection::vec(1usize..9, 1..5)), 1..9),
            n in 1usize..9,
            whole: bool,
        ) {
            let data = data(&prompts);
            let spans = all(&data);
            let parts = cut(&data, &spans, n, whole);
            prop_assert_eq!(parts.len(), n);
            let rows = |spans: &[Span]| -> Vec<usize> {
                spans.iter().flat_map(|s| data.groups[s.group].responses[s.responses.clone()].iter().map(|r| r.row)).collect()
            };
            let found: Vec<usize> = parts.iter().flat_map(|part| rows(part)).collect();
            prop_assert_eq!(found, rows(&spans));
            let items = if whole { spans.len() } else { data.responses() };
            prop_assert_eq!(parts.iter().filter(|part| !part.is_empty()).count(), n.min(items));
            if whole {
                let intact = |s: &Span| s.responses.len() == data.groups[s.group].responses.len();
                prop_assert!(parts.iter().flatten().all(intact));
            }
        }
    }
}
