//! Golden files, which Hugging Face transformers made: tensors, data and answers.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use rpo::batch::{PackedBatch, Span};
use rpo::burn;
use rpo::feedback::{FeedbackSet, PromptGroup, Response};
use rpo::generate::{Decoding, Processors, generate};
use rpo::model::Model;
use rpo::model::checkpoint::Checkpoint;
use rpo::stop::Stop;
use safetensors::SafeTensors;
use serde::Deserialize;

pub fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

/// The tensors of a golden file.
pub struct Golden(pub Vec<u8>);

impl Golden {
    pub fn of(model: &str) -> Self {
        Self(std::fs::read(goldens().join(model).join("golden.safetensors")).expect("golden file"))
    }

    pub fn words<T>(&self, name: &str, convert: impl Fn([u8; 4]) -> T) -> Vec<T> {
        let tensors = SafeTensors::deserialize(&self.0).expect("safetensors");
        let data = tensors.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}")).data().to_vec();
        data.chunks_exact(4).map(|b| convert([b[0], b[1], b[2], b[3]])).collect()
    }

    pub fn floats(&self, name: &str) -> Vec<f32> {
        self.words(name, f32::from_le_bytes)
    }

    pub fn ids(&self, name: &str, lengths: &str) -> Vec<Vec<u32>> {
        let mut rest = self.words(name, |b| i32::from_le_bytes(b) as u32);
        let lengths = self.words(lengths, |b| i32::from_le_bytes(b) as usize);
        lengths.into_iter().map(|n| rest.drain(..n).collect()).collect()
    }

    pub fn data(&self) -> FeedbackSet {
        let owners = self.words("response_prompt", |b| i32::from_le_bytes(b) as usize);
        data(&self.ids("prompt_ids", "prompt_lengths"), &self.ids("response_ids", "response_lengths"), &owners)
    }
}

/// Prompts with those of the responses that are theirs, in order.
pub fn data(prompts: &[Vec<u32>], responses: &[Vec<u32>], owners: &[usize]) -> FeedbackSet {
    let response =
        |(row, ids): (usize, &Vec<u32>)| Response { row, ids: ids.clone(), truncated: false, reward: 0.0, copies: 1 };
    let group = |(p, prompt): (usize, &Vec<u32>)| PromptGroup {
        prompt: prompt.clone(),
        first_row: 0,
        responses: responses.iter().enumerate().filter(|(i, _)| owners[*i] == p).map(response).collect(),
    };
    FeedbackSet { groups: prompts.iter().enumerate().map(group).collect() }
}

pub fn pack(model: &Model, data: &FeedbackSet) -> PackedBatch {
    let spans: Vec<Span> = (0..data.groups.len()).map(|i| Span::whole(i, data)).collect();
    PackedBatch::pack(data, &spans, model.start())
}

pub fn load(model: &str, device: &Device) -> Model {
    Checkpoint::open(&goldens().join(model)).and_then(|c| c.load(device)).expect("golden checkpoint")
}

/// Largest error relative to the largest value that was wanted.
pub fn relative_error(got: &TensorData, want: &[f32]) -> f32 {
    let got: Vec<f32> = got.try_to_vec().expect("f32");
    assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(0f32, |m, w| m.max(w.abs()));
    got.iter().zip(want).fold(0f32, |m, (g, w)| m.max((g - w).abs())) / scale
}

/// What transformers answers under these settings.
#[derive(Deserialize)]
pub struct Case {
    pub settings: Settings,
    pub outputs: Vec<Vec<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub max_new_tokens: usize,
    #[serde(default)]
    pub repetition_penalty: Option<f32>,
    #[serde(default)]
    pub no_repeat_ngram_size: usize,
    #[serde(default)]
    pub num_beams: Option<usize>,
    #[serde(default)]
    pub length_penalty: Option<f32>,
}

/// Checks that all prompts together and each by itself are answered as `cases` say.
pub fn check_answers(name: &str, model: &Model, prompts: &[Vec<u32>], cases: &[Case]) {
    for Case { settings, outputs } in cases {
        let processors = Processors {
            repetition_penalty: settings.repetition_penalty.unwrap_or(1.0),
            no_repeat_ngram_size: settings.no_repeat_ngram_size,
            ..Processors::default()
        };
        let decoding = Decoding {
            max_new_tokens: settings.max_new_tokens,
            num_beams: settings.num_beams.unwrap_or(1),
            length_penalty: settings.length_penalty.unwrap_or(1.0),
            processors,
            ..Decoding::default()
        };
        let answer = |prompts: &[Vec<u32>]| generate(model, prompts, 0, &decoding, &Stop::new()).expect("answers");
        assert_eq!(&answer(prompts), outputs, "{name}: {decoding:?}");
        for (prompt, output) in prompts.iter().zip(outputs) {
            assert_eq!(&answer(std::slice::from_ref(prompt))[0], output, "{name}, alone: {decoding:?}");
        }
    }
}

/// The answers of a golden model.
pub fn cases(model: &str) -> Vec<Case> {
    let text = std::fs::read_to_string(goldens().join(model).join("generation.json")).expect("generation.json");
    serde_json::from_str(&text).expect("JSON")
}

/// Log-probability of every token of the packed responses: `(response tokens)`.
pub fn token_log_probs(model: &Model, batch: &PackedBatch) -> Tensor<1> {
    rpo::score::score_tokens(model, batch)
}

/// Where the tests' models live: the CPU, or what the environment variable `RPO_DEVICE` names.
pub fn device() -> Device {
    let name = std::env::var("RPO_DEVICE").unwrap_or_else(|_| "cpu".into());
    rpo::device::find(&name).expect("a device that the tests were built for")
}
