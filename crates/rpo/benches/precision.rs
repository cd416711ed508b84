//! What products in bfloat16 change of scores and gradients of a trained model.
//!
//! `cargo bench --workspace --bench precision -- --model DIR --data FILE [--rows N] [--json FILE]`: FILE has a JSON object in each
//! line, with a `prompt` and rated `responses`. The loss is RPO's with the model as its own reference, whose gradient is that of
//! the log-probabilities weighted by how far each response is from its target.

mod common;

use common::option;
use rpo::batch::{PackedBatch, Span};
use rpo::burn::tensor::{Device, Tensor};
use rpo::chat::Chat;
use rpo::feedback::{Feedback, FeedbackSet, Limits};
use rpo::model::checkpoint::Checkpoint;
use rpo::model::{Compute, Model, NamedParameters};
use rpo::score::{LogProb, score};
use rpo::tokenizer::Cut;
use serde_json::{Value, json};

/// Gradients by the names of their parameters.
type Gradients = Vec<(String, Vec<f32>)>;

fn main() {
    common::begin();
    let (model, data) = (option("--model").expect("--model DIR"), option("--data").expect("--data FILE"));
    let rows: usize = option("--rows").map_or(8, |rows| rows.parse().expect("a number"));
    let checkpoint = Checkpoint::find(&model).expect("a model");
    let data = read(&checkpoint, &data, rows);
    let [(scores, gradients), (rounded_scores, rounded)] = [Compute::F32, Compute::Bf16].map(|compute| {
        let model = checkpoint.load(&Device::flex().autodiff()).expect("a model").with_compute(compute);
        assert!(compute == Compute::F32 || rpo_ops::computes_bf16(&model.device()), "no products in bf16 here");
        run(&model, &data)
    });
    println!("{}: {} responses", checkpoint.name(), scores.len());
    let apart: Vec<f64> = scores.iter().zip(&rounded_scores).map(|(a, b)| f64::from((a - b).abs())).collect();
    let sorted = sorted(&apart);
    println!(
        "mean log-probability of a token of each response, nats apart: median {:.5}, most {:.5}",
        sorted[sorted.len() / 2],
        sorted[sorted.len() - 1]
    );
    let mut found: Vec<(String, f64, f64)> = gradients
        .iter()
        .zip(&rounded)
        .map(|((name, a), (other, b))| {
            assert_eq!(name, other);
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            let [aa, bb, ab] = [dot(a, a), dot(b, b), dot(a, b)];
            (name.clone(), ab / (aa * bb).sqrt(), ((aa + bb - 2.0 * ab).max(0.0) / aa).sqrt())
        })
        .collect();
    found.sort_by(|a, b| a.1.total_cmp(&b.1));
    let cosines: Vec<f64> = found.iter().map(|(_, cosine, _)| *cosine).collect();
    println!(
        "gradients of {} tensors: cosine at least {:.5}, median {:.5}",
        found.len(),
        cosines[0],
        cosines[found.len() / 2]
    );
    for (name, cosine, error) in found.iter().take(8) {
        println!("  {name:<50} cosine {cosine:.5}, relative error {error:.4}");
    }
    common::write_json(json!({ "apart": apart, "tensors": found }));
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

fn read(checkpoint: &Checkpoint, path: &str, rows: usize) -> FeedbackSet {
    let text = std::fs::read_to_string(path).expect("data");
    let rated: Vec<Feedback> = text
        .lines()
        .take(rows)
        .flat_map(|line| {
            let row: Value = serde_json::from_str(line).expect("a JSON object");
            let prompt = row["prompt"].as_str().expect("a prompt").to_string();
            let responses = row["responses"].as_array().expect("responses").clone();
            responses.into_iter().map(move |response| Feedback {
                prompt: prompt.clone().into(),
                response: response["text"].as_str().expect("a text").into(),
                reward: response["reward"].as_f64().expect("a reward"),
            })
        })
        .collect();
    let limits = Limits { prompt_tokens: 256, response_tokens: 128, cut_prompts: Cut::End };
    let tokenizer = checkpoint.tokenizer(Chat::default()).expect("a tokenizer");
    FeedbackSet::from_rows(&rated, &tokenizer, limits).expect("rows").0
}

/// `ell` of every response, and the gradient of their sum weighted by reward less its mean.
fn run(model: &Model, data: &FeedbackSet) -> (Vec<f32>, Gradients) {
    let spans: Vec<Span> = (0..data.groups.len()).map(|i| Span::whole(i, data)).collect();
    let batch = PackedBatch::pack(data, &spans, model.start());
    let scores = score(model, &batch);
    let rewards: Vec<f32> = data.iter().map(|response| response.reward as f32).collect();
    let mean = rewards.iter().sum::<f32>() / rewards.len() as f32;
    let weights: Vec<f32> = rewards.iter().map(|reward| reward - mean).collect();
    let ell = scores.ell(LogProb::Mean);
    let loss: Tensor<1> = (ell.clone() * scores.constant(&weights)).sum();
    let host = |x: rpo::burn::tensor::TensorData| x.try_to_vec::<f32>().expect("f32");
    let mut gradients = Vec::new();
    for (name, gradient) in model.gradients(&mut loss.backward()) {
        gradients.extend(gradient.map(|gradient| (name, host(gradient.into_data()))));
    }
    (host(ell.into_data()), gradients)
}
