//! What a model loses that is held in bfloat16 or eight bits: perplexity of responses, and agreement with the model as it is.
//!
//! `cargo bench --workspace --bench weights -- --model DIR --data FILE [--rows N]`: FILE has a JSON object in each line, with `prompt` and
//! `response` or rated `responses` (`text`), of which the first is taken. All tokens of the responses are scored by the same steps
//! that answers are made by, each given those before it.

mod common;

use std::path::Path;

use common::option;
use rpo::batch::Start;
use rpo::chat::Chat;
use rpo::model::Precision;
use rpo::model::checkpoint::Checkpoint;
use rpo::tokenizer::Cut;
use rpo_ops::{argmax, log_sum_exp};
use serde_json::Value;

/// Responses that are scored together.
const TOGETHER: usize = 16;

fn main() {
    common::begin();
    let (model, data) = (option("--model").expect("--model DIR"), option("--data").expect("--data FILE"));
    let rows: usize = option("--rows").map_or(64, |rows| rows.parse().expect("a number"));
    let checkpoint = Checkpoint::find(&model).expect("a model");
    let tokenizer = checkpoint.tokenizer(Chat::default()).expect("a tokenizer");
    let text = std::fs::read_to_string(Path::new(&data)).expect("data");
    let texts = text.lines().take(rows).map(|line| {
        let row: Value = serde_json::from_str(line).expect("a JSON object");
        let response = row["response"].as_str().or(row["responses"][0]["text"].as_str());
        let (prompt, response) = (row["prompt"].as_str().expect("a prompt"), response.expect("a response"));
        let prompt = tokenizer.prompt(prompt, 512, Cut::End).expect("encoded").ids;
        (prompt, tokenizer.response(response, 256).expect("encoded").ids)
    });
    let texts: Vec<(Vec<u32>, Vec<u32>)> = texts.collect();
    println!("{model}: {} responses of {data}", texts.len());
    let plain = score(&checkpoint, Precision::F32, &texts);
    for (name, precision) in [("f32", Precision::F32), ("bf16", Precision::Bf16), ("int8", Precision::Int8)] {
        let scored = score(&checkpoint, precision, &texts);
        let n = scored.len() as f64;
        let total: f64 = scored.iter().map(|(log_prob, _)| f64::from(*log_prob)).sum();
        let apart: f64 = scored.iter().zip(&plain).map(|((a, _), (b, _))| f64::from((a - b).abs())).sum();
        let agree = scored.iter().zip(&plain).filter(|((_, a), (_, b))| a == b).count();
        println!(
            "{name:5} perplexity {:.4}, log-probabilities differ by {:.4} nats a token, {:.2} % of most likely tokens agree ({n} tokens)",
            (-total / n).exp(),
            apart / n,
            100.0 * agree as f64 / n
        );
    }
}

/// The log-probability of every token of the responses, and the most likely token in its place.
fn score(checkpoint: &Checkpoint, precision: Precision, texts: &[(Vec<u32>, Vec<u32>)]) -> Vec<(f32, usize)> {
    let (mut model, config, _) = checkpoint.packed(precision).expect("a model");
    let mut all = Vec::new();
    for texts in texts.chunks(TOGETHER) {
        let (read, first): (Vec<Vec<u32>>, Vec<u32>) = match config.start() {
            Start::Token(token) => texts.iter().map(|(prompt, _)| (prompt.clone(), token)).unzip(),
            Start::EndOfPrompt => {
                let split = |(prompt, _): &(Vec<u32>, Vec<u32>)| {
                    let (last, read) = prompt.split_last().expect("a prompt");
                    (read.to_vec(), *last)
                };
                texts.iter().map(split).unzip()
            }
        };
        let mut sequences = model.read(&read);
        let mut left: Vec<usize> = (0..texts.len()).collect();
        let mut scored = vec![Vec::new(); texts.len()];
        for t in 0.. {
            let going: Vec<usize> = (0..left.len()).filter(|&place| t < texts[left[place]].1.len()).collect();
            sequences = going.iter().map(|&place| sequences[place].clone()).collect();
            left = going.iter().map(|&place| left[place]).collect();
            if left.is_empty() {
                break;
            }
            let fed: Vec<u32> = left.iter().map(|&i| if t == 0 { first[i] } else { texts[i].1[t - 1] }).collect();
            let labels: Vec<usize> = left.iter().map(|&i| texts[i].1[t] as usize).collect();
            let choices = model.step(&fed, &mut sequences, &|row, logits| {
                (logits[labels[row]] - log_sum_exp(logits, 1.0), argmax(logits))
            });
            left.iter().zip(choices).for_each(|(&i, choice)| scored[i].push(choice));
        }
        all.extend(scored.into_iter().flatten());
    }
    all
}
