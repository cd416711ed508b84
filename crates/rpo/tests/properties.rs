//! What holds for any data: packing, the parts of a data set, grouping, the schedule of learning rates, and rows through files.
//! The cases are the same in every run; `PROPTEST_RNG_SEED=N PROPTEST_CASES=10000 cargo test` tries others.

use std::collections::BTreeSet;
use std::fs;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rpo::batch::{PackedBatch, Span, Start, length_buckets, split_by_tokens, split_evenly};
use rpo::feedback::{Feedback, FeedbackSet, Limits, PromptGroup, ReadOptions, Response, Source, Split, read_rows};
use rpo::tokenizer::{Cut, Tokenizer, word_level};
use rpo::train::optim::linear_schedule;

/// The same cases in every run, unless the environment asks for others.
fn config() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(1);
    }
    config
}

fn tokens(most: usize) -> impl Strategy<Value = Vec<u32>> {
    vec(2..50u32, 1..most)
}

/// Prompts of 2 to 20 tokens, no two alike, with 1 to 6 responses of 1 to 12 tokens.
fn data() -> impl Strategy<Value = FeedbackSet> {
    let responses = vec((tokens(12), -5.0..5.0f64, 1..4usize), 1..7);
    vec((tokens(19), responses), 1..10).prop_map(|groups| {
        let mut row = 0;
        let mut response = |(ids, reward, copies)| {
            row += 1;
            Response { row: row - 1, ids, truncated: false, reward, copies }
        };
        let group = |(i, (mut prompt, responses)): (usize, (Vec<u32>, Vec<_>))| {
            // What begins a prompt tells it from the others.
            prompt.insert(0, 100 + i as u32);
            PromptGroup { prompt, first_row: i, responses: responses.into_iter().map(&mut response).collect() }
        };
        FeedbackSet { groups: groups.into_iter().enumerate().map(group).collect() }
    })
}

fn rows<'a>(responses: impl Iterator<Item = &'a Response>) -> Vec<usize> {
    responses.map(|r| r.row).collect()
}

fn whole_spans(data: &FeedbackSet) -> Vec<Span> {
    (0..data.groups.len()).map(|group| Span::whole(group, data)).collect()
}

fn size(piece: &[Span], data: &FeedbackSet) -> usize {
    piece.iter().map(|span| span.tokens(data)).sum()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn pieces_hold_every_response_once_within_the_budget(data in data(), budget in 1..150usize, whole: bool) {
        let spans = whole_spans(&data);
        let in_order = [split_by_tokens(&data, &spans, budget, whole), split_evenly(&data, &spans, budget, whole)];
        for pieces in &in_order {
            let all = pieces.iter().flatten().flat_map(|s| &data.groups[s.group].responses[s.responses.clone()]);
            prop_assert_eq!(rows(all), (0..data.responses()).collect::<Vec<_>>());
        }
        let buckets = length_buckets(&data, budget, whole);
        let all: BTreeSet<usize> =
            buckets.iter().flatten().flat_map(|s| rows(data.groups[s.group].responses[s.responses.clone()].iter())).collect();
        prop_assert_eq!(all.len(), data.responses());
        for piece in in_order.iter().flatten().chain(&buckets) {
            let one_part = piece.len() == 1 && (whole || piece[0].responses.len() == 1);
            prop_assert!(size(piece, &data) <= budget || one_part, "{piece:?} in {budget}");
            if whole {
                prop_assert!(piece.iter().all(|span| *span == Span::whole(span.group, &data)), "{piece:?}");
            }
        }
        let largest = |pieces: &[Vec<Span>]| pieces.iter().map(|piece| size(piece, &data)).max();
        prop_assert_eq!(in_order[0].len(), in_order[1].len(), "as few");
        prop_assert!(largest(&in_order[1]) <= largest(&in_order[0]));
    }

    #[test]
    fn a_batch_says_what_its_spans_do(data in data(), budget in 20..150usize, starts_with_token: bool) {
        let start = if starts_with_token { Start::Token(0) } else { Start::EndOfPrompt };
        for piece in split_by_tokens(&data, &whole_spans(&data), budget, false) {
            let batch = PackedBatch::pack(&data, &piece, start);
            let moved = if starts_with_token { 0 } else { piece.len() };
            prop_assert_eq!(batch.tokens() + moved, size(&piece, &data));
            prop_assert_eq!((batch.prompts.total(), batch.responses.total()), (batch.prompt_ids.len(), batch.labels.len()));
            prop_assert_eq!(batch.by_prompt.lengths().sum::<usize>(), batch.labels.len());
            let mut from = 0;
            for ((&row, &prompt), length) in batch.rows.iter().zip(&batch.prompt_of).zip(batch.responses.lengths()) {
                let group = &data.groups[piece[prompt].group];
                let response = group.responses.iter().find(|r| r.row == row).expect("of its prompt");
                let (labels, inputs) = (&batch.labels[from..from + length], &batch.input_ids[from..from + length]);
                prop_assert_eq!(labels, &response.ids);
                prop_assert_eq!(&inputs[1..], &response.ids[..length - 1]);
                prop_assert_eq!(inputs[0], if starts_with_token { 0 } else { group.prompt[group.prompt.len() - 1] });
                from += length;
            }
        }
    }

    #[test]
    fn held_out_prompts_are_apart_and_every_row_is_in_one_part(
        data in data(), fraction in 0.0..0.9f64, seed: u64, turn in 0..10usize,
    ) {
        let Ok(split) = data.clone().split(fraction, seed) else {
            prop_assert!((data.groups.len() as f64 * fraction).round().max(1.0) >= data.groups.len() as f64);
            return Ok(());
        };
        let prompts = |set: &FeedbackSet| set.groups.iter().map(|g| g.prompt.clone()).collect::<BTreeSet<_>>();
        prop_assert!(prompts(&split.train).is_disjoint(&prompts(&split.validation)));
        let all: BTreeSet<usize> = rows(split.train.iter().chain(split.validation.iter())).into_iter().collect();
        prop_assert_eq!((all.len(), split.train.responses() + split.validation.responses()), (data.responses(), data.responses()));
        prop_assert_eq!(split.validation.groups.is_empty(), fraction == 0.0);
        // In whatever order the prompts come.
        let mut turned = data.clone();
        turned.groups.rotate_left(turn % data.groups.len());
        prop_assert_eq!(prompts(&turned.split(fraction, seed).expect("as before").validation), prompts(&split.validation));
        if let Ok(other) = split.mismatched(seed) {
            let same = |a: &PromptGroup, b: &PromptGroup| a.responses == b.responses;
            let pairs = || split.train.groups.iter().zip(&other.train.groups);
            prop_assert!(pairs().all(|(a, b)| same(a, b) && a.prompt != b.prompt));
            prop_assert_eq!(prompts(&other.train), prompts(&split.train));
        }
    }

    #[test]
    fn sets_read_apart_share_no_prompt(train in data(), validation in data(), shift in 0..10u32) {
        let mut validation = validation;
        validation.groups.iter_mut().for_each(|g| g.prompt[0] += shift);
        // What both have in common.
        validation.groups.iter_mut().zip(&train.groups).step_by(2).for_each(|(v, t)| v.prompt.clone_from(&t.prompt));
        let (kept, held_out) = (train.groups.len(), validation.responses());
        let Ok((split, dropped)) = Split::of(train, validation) else { return Ok(()) };
        prop_assert_eq!(split.train.groups.len() + dropped, kept);
        prop_assert_eq!(split.validation.responses(), held_out);
        let all = rows(split.train.iter().chain(split.validation.iter()));
        prop_assert_eq!(all, (0..split.rows()).collect::<Vec<_>>());
        let held: BTreeSet<&Vec<u32>> = split.validation.groups.iter().map(|g| &g.prompt).collect();
        prop_assert!(split.train.groups.iter().all(|g| !held.contains(&g.prompt)));
    }

    #[test]
    fn parts_of_groups_are_about_equally_large(mut data in data(), most in 1..7usize) {
        let before: Vec<(Vec<u32>, usize)> = data.groups.iter().map(|g| (g.prompt.clone(), g.responses.len())).collect();
        let all = rows(data.iter());
        data.part_groups(most);
        prop_assert_eq!(rows(data.iter()), all);
        for (prompt, n) in before {
            let sizes = data.groups.iter().filter(|g| g.prompt == prompt).map(|g| g.responses.len());
            let (least, largest) = (sizes.clone().min().expect("there"), sizes.clone().max().expect("there"));
            prop_assert!(largest <= most && largest - least <= 1 && sizes.count() == n.div_ceil(most));
        }
    }

    #[test]
    fn grouping_counts_every_row_once(texts in vec((0..4usize, vec(0..4usize, 0..4), -4..4i32), 1..40)) {
        const WORDS: [&str; 4] = ["a", "b", "c", "</s>"];
        let tokenizer = Tokenizer::parse(&word_level(&["a", "b", "c"])).expect("valid");
        let row = |(prompt, response, reward): &(usize, Vec<usize>, i32)| Feedback {
            prompt: WORDS[*prompt].into(),
            response: response.iter().map(|word| WORDS[*word]).collect::<Vec<_>>().join(" "),
            reward: f64::from(*reward),
        };
        let rows: Vec<Feedback> = texts.iter().map(row).collect();
        let limits = Limits { prompt_tokens: 4, response_tokens: 8, cut_prompts: Cut::End };
        let Ok((set, summary)) = FeedbackSet::from_rows(&rows, &tokenizer, limits) else { return Ok(()) };
        let copies: usize = set.iter().map(|r| r.copies).sum();
        prop_assert_eq!((summary.rows, summary.rows + summary.without_tokens), (copies, rows.len()));
        prop_assert_eq!(summary.duplicates, summary.rows - set.responses());
        let sum: f64 = set.iter().map(|r| r.reward * r.copies as f64).sum();
        let is_text = |text: &str| text.split(' ').any(|word| ["a", "b", "c"].contains(&word));
        let kept = rows.iter().filter(|row| is_text(&row.prompt.text()) && is_text(&row.response));
        prop_assert!((sum - kept.map(|row| row.reward).sum::<f64>()).abs() < 1e-9);
        for group in &set.groups {
            let different: BTreeSet<&Vec<u32>> = group.responses.iter().map(|r| &r.ids).collect();
            prop_assert_eq!(different.len(), group.responses.len());
        }
    }

    #[test]
    fn the_schedule_rises_to_one_and_falls_without_jumps(total in 1..5000usize, part in 0.0..=1.0f64) {
        let warmup = (total as f64 * part) as usize;
        let shares: Vec<f64> = (1..=total).map(|step| linear_schedule(step, warmup, total)).collect();
        prop_assert!(shares.iter().all(|share| *share > 0.0 && *share <= 1.0), "{shares:?}");
        prop_assert_eq!(shares[warmup.max(1) - 1], 1.0);
        let steepest = 1.0 / warmup.max(1).min((total - warmup).max(1)) as f64;
        for (step, pair) in (1..).zip(shares.windows(2)) {
            prop_assert!((pair[1] - pair[0]).abs() <= steepest + 1e-12);
            prop_assert!(if step < warmup { pair[1] > pair[0] } else { pair[1] <= pair[0] }, "{step} of {shares:?}");
        }
    }
}

/// Texts with what separates fields, quotes and lines.
fn text() -> impl Strategy<Value = String> {
    let letter =
        prop_oneof![any::<char>(), prop::sample::select(vec!['"', ',', ';', '\t', '|', '\n', '\r', '\\', '\'', ' '])];
    vec(letter, 1..12).prop_map(|letters| letters.into_iter().collect::<String>()).prop_filter(
        "something to read",
        |text| {
            // Lists and objects may be messages; a zero byte makes a table of few letters look like UTF-16.
            !text.trim().is_empty() && !text.trim_start().starts_with(['[', '{']) && !text.contains('\0')
        },
    )
}

fn feedback() -> impl Strategy<Value = Vec<Feedback>> {
    let reward = prop_oneof![(-100..100i32).prop_map(f64::from), any::<f64>().prop_filter("finite", |r| r.is_finite())];
    let row = (text(), text(), reward);
    vec(row.prop_map(|(prompt, response, reward)| Feedback { prompt: prompt.into(), response, reward }), 1..6)
}

fn read(name: &str, text: &str) -> Result<Vec<Feedback>, String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let path = dir.path().join(name);
    fs::write(&path, text).map_err(|e| e.to_string())?;
    let rows = read_rows(&Source::from(path.as_path()), &ReadOptions::default()).map_err(|e| e.to_string())?;
    rows.collect::<rpo::Result<_>>().map_err(|e| e.to_string())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn rows_come_back_from_every_text_format(rows in feedback()) {
        let json = |row: &Feedback| serde_json::json!({"prompt": row.prompt, "response": row.response, "reward": row.reward});
        let objects: Vec<_> = rows.iter().map(json).collect();
        let lines: String = objects.iter().map(|row| format!("{row}\n")).collect();
        prop_assert_eq!(read("x.jsonl", &lines), Ok(rows.clone()));
        prop_assert_eq!(read("x.json", &serde_json::json!(objects).to_string()), Ok(rows.clone()));
        prop_assert_eq!(read("x.json", &serde_json::json!({"n": 1, "data": objects}).to_string()), Ok(rows.clone()));
        for separator in [',', ';', '\t', '|'] {
            let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
            let line = |row: &Feedback| {
                let fields = [quoted(&row.prompt.text()), quoted(&row.response), row.reward.to_string()];
                fields.join(&separator.to_string()) + "\n"
            };
            let header = ["prompt", "response", "reward"].join(&separator.to_string()) + "\n";
            let table = rows.iter().fold(header, |table, row| table + &line(row));
            prop_assert_eq!(read("x.csv", &table), Ok(rows.clone()));
        }
    }
}
