//! The genuine T5 tokenizer, real rated data and a real checkpoint, found through the environment variable
//! `RPO_ASSETS`. Without it these tests say that they were skipped.

mod common;

use std::path::PathBuf;

use common::device;

use rpo::batch::{PackedBatch, Span};
use rpo::feedback::{FeedbackSet, Limits, PromptGroup, ReadOptions, Response};
use rpo::model::checkpoint::Checkpoint;
use rpo::tokenizer::{Cut, TextStream, Tokenizer};
use serde::Deserialize;

fn assets() -> Option<PathBuf> {
    let found = std::env::var_os("RPO_ASSETS").map(PathBuf::from);
    if found.is_none() {
        eprintln!("skipped: RPO_ASSETS is not set");
    }
    found
}

#[test]
fn all_gold_encodings_are_reproduced() {
    let Some(assets) = assets() else { return };
    let tokenizer = Tokenizer::load(&assets.join("tokenizer/hf-flan-t5-small")).expect("tokenizer");
    let text = std::fs::read_to_string(assets.join("tokenizer/t5-base-tests.json")).expect("gold encodings");
    let gold: Vec<(String, Vec<u32>, String)> = serde_json::from_str(&text).expect("gold encodings");
    assert_eq!(gold.len(), 1995);
    for (text, ids, decoded) in gold {
        let encoded = tokenizer.response(&text, usize::MAX).expect("encodes");
        assert_eq!(encoded.ids, ids, "{text}");
        assert_eq!(encoded.length, ids.len());
        assert_eq!(encoded.unknown, ids.iter().filter(|id| **id == 2).count());
        // The gold texts went through transformers' clean-up, which removes spaces before punctuation and sets some
        // around `<unk>`; we give back what the tokenizer says.
        let unspaced = |s: &str| s.replace(' ', "");
        let got = tokenizer.decode_with_special(&ids).expect("decodes");
        assert_eq!(unspaced(&got), unspaced(&decoded), "{text}");
        if ids.len() > 3 {
            let cut = tokenizer.response(&text, 3).expect("encodes");
            assert!(cut.truncated() && cut.ids == ids[..3], "{text}: cut without a faked end");
            let cut = tokenizer.prompt(&text, 3, Cut::End).expect("encodes");
            assert!(cut.ids == [ids[0], ids[1], 1], "{text}: a prompt keeps its end, as in transformers");
        }
    }
}

/// What is shown of a text while its tokens come is what they say together.
#[test]
fn texts_that_come_token_by_token_are_those_of_all_tokens() {
    let Some(assets) = assets() else { return };
    for dir in ["tokenizer/hf-flan-t5-small", "decoder/stories260k-hf"] {
        let tokenizer = Tokenizer::load(&assets.join(dir)).expect("tokenizer");
        let text = "  The café,  the 大きな 猫 and the 👩‍👩‍👧 \n\n said: \"I'm here\" (twice) . ";
        let encoded = tokenizer.response(&text.repeat(3), usize::MAX).expect("encodes").ids;
        // Words in an order that nobody wrote; those before 300 are bytes in one of the two.
        let shuffled = (0..200_u64).map(|i| 300 + (i * 7919 % 211) as u32).collect();
        for ids in [encoded, shuffled] {
            let (mut stream, mut before) = (TextStream::default(), String::new());
            for n in 1..=ids.len() {
                let now = stream.push(ids[n - 1], &tokenizer).expect("decodes").to_string();
                assert!(now.starts_with(&before) && !now.contains('\u{fffd}'), "{dir}: {now}");
                let whole = tokenizer.decode(&ids[..n]).expect("decodes");
                assert!(whole.contains('\u{fffd}') || now == whole, "{dir}: {now} for {whole}");
                before = now;
            }
            assert_eq!(before, tokenizer.decode(&ids).expect("decodes"), "{dir}");
        }
    }
}

/// Texts of more than a mebibyte are encoded piece by piece; the ids must not tell.
#[test]
fn long_texts_have_the_ids_of_their_parts() {
    let Some(assets) = assets() else { return };
    let tokenizer = Tokenizer::load(&assets.join("tokenizer/hf-flan-t5-small")).expect("tokenizer");
    let sentence = "The parcel  left today,\n at \"noon\" {or so}; it's café-au-lait for 12,345 people\t(not 6). ";
    let ids = |text: &str| tokenizer.response(text, usize::MAX).expect("encodes").ids;
    let one = ids(sentence);
    let times = (3 << 20) / sentence.len();
    let many = ids(&sentence.repeat(times));
    assert_eq!(many.len(), times * (one.len() - 1) + 1);
    assert!(many.chunks_exact(one.len() - 1).take(times).all(|part| part == &one[..one.len() - 1]));
}

#[test]
fn real_feedback_is_read_whole() {
    let Some(assets) = assets() else { return };
    let tokenizer = Tokenizer::load(&assets.join("tokenizer/hf-flan-t5-small")).expect("tokenizer");
    let limits = Limits { prompt_tokens: 512, response_tokens: 512, cut_prompts: Cut::End };
    for (name, prompts) in
        [("mqm_ted_ende_k4", 523), ("summeval_op_k4", 32), ("mt_bench_k4", 80), ("prometheus_vicuna_eval_k4", 80)]
    {
        let path = assets.join(format!("feedback/{name}.jsonl"));
        let (data, summary) =
            FeedbackSet::read(&path.as_path().into(), &ReadOptions::default(), &tokenizer, limits, &mut |_| ())
                .expect(name);
        assert_eq!(summary.prompts, prompts, "{name}");
        assert_eq!(summary.rows, data.responses() + summary.duplicates, "{name}");
        assert!(data.iter().all(|r| r.truncated != (r.ids.last() == Some(&1))), "{name}: only cut ones lack an end");
    }
}

#[derive(Deserialize)]
struct Case {
    prompt: Vec<u32>,
    response: Vec<u32>,
    token_log_probs: Vec<f32>,
}

#[test]
fn a_checkpoint_from_elsewhere_scores_as_in_transformers() {
    let Some(assets) = assets() else { return };
    let checkpoint = Checkpoint::open(&assets.join("weights/t5x-tiny-hf")).expect("checkpoint");
    let model = checkpoint.load(&device()).expect("every tensor is there and none is left");
    let cases: Vec<Case> = serde_json::from_str(include_str!("goldens/tiny_real.json")).expect("golden values");
    let responses = cases.iter().enumerate().map(|(row, case)| Response {
        row,
        ids: case.response.clone(),
        truncated: true,
        reward: 0.0,
        copies: 1,
    });
    let groups = cases.iter().zip(responses).map(|(case, response)| PromptGroup {
        prompt: case.prompt.clone(),
        first_row: 0,
        responses: vec![response],
    });
    let data = FeedbackSet { groups: groups.collect() };
    let batch = PackedBatch::pack(&data, &[Span::whole(0, &data), Span::whole(1, &data)], model.start());
    let got: Vec<f32> = common::token_log_probs(&model, &batch).into_data().try_to_vec().expect("f32");
    let want: Vec<f32> = cases.iter().flat_map(|case| case.token_log_probs.clone()).collect();
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() < 1e-5 * want.abs(), "token {i}: {got} for {want}");
    }
}
