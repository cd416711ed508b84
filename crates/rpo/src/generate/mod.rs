//! Generation: a model continues prompts, greedily, by sampling or by beam search, with keys and values cached.
//!
//! ```
//! use rpo::burn::tensor::Device;
//! use rpo::generate::{Decoding, generate};
//! use rpo::model::{Config, Model, RandomWeights};
//! use rpo::stop::Stop;
//!
//! let config = r#"{"model_type": "t5", "vocab_size": 8, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}"#;
//! let model = Model::new(&Config::parse(config).expect("valid"), &mut RandomWeights::new(1), &Device::flex())?;
//! let search = Decoding { num_beams: 2, max_new_tokens: 3, ..Decoding::default() };
//! let answers = generate(&model, &[vec![5, 6, 1], vec![7, 1]], 0, &search, &Stop::new())?;
//! assert!(answers.len() == 2 && answers.iter().all(|ids| ids.len() <= 3));
//! # Ok::<(), rpo::Error>(())
//! ```

mod beam;
mod engine;
mod processors;
mod runner;
mod sampling;
mod stored;
mod texts;

use std::collections::BTreeMap;

use rand::Rng;
use rpo_ops::argmax;
use serde::{Deserialize, Serialize};

pub use beam::EarlyStopping;
pub use engine::{Emitted, Engine, Finish, Request, RequestId};
pub use processors::Processors;
use processors::{Edited, Place};
pub use stored::StoredDecoding;
pub use texts::{Answer, Said, Texts};

use crate::error::{Error, Result};
use crate::model::Model;
use crate::stop::Stop;

/// How to decode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Decoding {
    /// Draw tokens instead of taking the most likely.
    pub sample: bool,
    /// Most tokens to add, `</s>` among them.
    pub max_new_tokens: usize,
    /// Fewest tokens to add before an answer may end.
    pub min_new_tokens: usize,
    /// In the place of `max_new_tokens`: most tokens with what stood before the answer, which is the start token or, for a
    /// decoder-only model, the prompt.
    pub max_length: Option<usize>,
    /// Fewest tokens counted so, if that is more than `min_new_tokens`.
    pub min_length: Option<usize>,
    /// Answers that are followed at the same time, the most likely of which is given; 1 follows one. Not for sampling.
    pub num_beams: usize,
    /// Answers of a beam search are compared by `log-probability / length^penalty`: above 0 favours longer ones.
    pub length_penalty: f32,
    /// When a beam search ends.
    pub early_stopping: EarlyStopping,
    /// Tokens that end an answer; the model's `eos_token_id` if there are none.
    pub end_ids: Vec<u32>,
    /// Decides all draws together with a prompt's index, so that batching changes nothing.
    pub seed: u64,
    /// What shapes the distribution.
    pub processors: Processors,
}

/// Most answers to a prompt, and most beams.
const MOST: usize = 1 << 16;

impl Default for Decoding {
    fn default() -> Self {
        Self {
            sample: false,
            max_new_tokens: 128,
            min_new_tokens: 0,
            max_length: None,
            min_length: None,
            num_beams: 1,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::default(),
            end_ids: Vec::new(),
            seed: 0,
            processors: Processors::default(),
        }
    }
}

impl Decoding {
    /// As the RPO authors draw answers: temperature 0.7, top-k 50, top-p 0.95, repetition penalty 1.2, no trigram twice, 128
    /// tokens.
    pub fn published() -> Self {
        let processors = Processors {
            repetition_penalty: 1.2,
            no_repeat_ngram_size: 3,
            temperature: 0.7,
            top_k: 50,
            top_p: 0.95,
            ..Processors::default()
        };
        Self { sample: true, processors, ..Self::default() }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// The first setting outside its range.
    pub fn validate(&self) -> Result<()> {
        let refuse = |field, problem: &str| Err(Error::Setting { field, problem: problem.into() });
        self.processors.validate()?;
        match self {
            Self { max_new_tokens: 0, .. } => refuse("max-new-tokens", "0 would leave nothing of an answer"),
            Self { num_beams: 0, .. } => refuse("num-beams", "0 is not a positive number"),
            Self { num_beams: beams, .. } if *beams > MOST => refuse("num-beams", "more than 65536 cannot be followed"),
            Self { length_penalty, .. } if !length_penalty.is_finite() => {
                refuse("length-penalty", "it is not a finite number")
            }
            Self { sample: true, num_beams: 2.., .. } => {
                refuse("num-beams", "a beam search is not drawn; sample with one beam, or search without sampling")
            }
            _ if self.min_new_tokens > self.max_new_tokens => refuse("min-new-tokens", "it is above max-new-tokens"),
            _ => Ok(()),
        }
    }

    /// Checks that a model of so many tokens has every token that is named.
    ///
    /// # Errors
    /// The first setting that names a token beyond them.
    pub fn validate_for(&self, vocabulary: usize) -> Result<()> {
        let ends = self.end_ids.iter().map(|id| ("end-ids", *id));
        match ends.chain(self.processors.named()).find(|(_, id)| *id as usize >= vocabulary) {
            Some((field, id)) => {
                Err(Error::Setting { field, problem: format!("token {id} is beyond the model's {vocabulary}") })
            }
            None => Ok(()),
        }
    }

    /// The tokens that end an answer, `of_model` being the model's own.
    pub fn ends(&self, of_model: &[u32]) -> Vec<u32> {
        if self.end_ids.is_empty() { of_model.to_vec() } else { self.end_ids.clone() }
    }
}

/// A token that was chosen.
struct Choice {
    token: u32,
    /// Its log-probability under the model, in nats.
    log_prob: f32,
}

impl Decoding {
    /// Forbids and changes what the settings say in the logits of an answer's token `done`; `ids` are the decoder's inputs so
    /// far, `ends` end answers.
    fn edit(&self, ids: &[u32], done: usize, ends: &[u32], logits: &mut Edited<'_>) {
        let (may_end, last) = (done >= self.min_new_tokens, done + 1 == self.max_new_tokens);
        self.processors.edit(&Place { ids, done, ends, may_end, last }, logits);
    }

    /// Chooses the token `done` of an answer: one drawn with `rng`, or the most likely. `total` is the logarithm of the sum of the
    /// logits' exponentials.
    fn next(
        &self,
        ids: &[u32],
        done: usize,
        ends: &[u32],
        (logits, total): (&mut [f32], f32),
        rng: Option<impl Rng>,
    ) -> Choice {
        let mut logits = Edited::new(logits);
        self.edit(ids, done, ends, &mut logits);
        let drawn = rng.and_then(|mut rng| self.processors.draw(logits.logits(), &mut rng));
        let token = drawn.unwrap_or_else(|| argmax(logits.logits()) as u32);
        Choice { token, log_prob: logits.original(token) - total }
    }
}

/// Continues each prompt: token ids up to and including the one that ends the answer, or `max_new_tokens` of them.
///
/// `first` is the index of the first prompt among all that are to be answered; it decides the random numbers. `stop` is heard
/// before each token.
///
/// # Errors
/// If the device fails, a prompt is too short, or somebody wishes to stop.
pub fn generate(
    model: &Model,
    prompts: &[Vec<u32>],
    first: usize,
    decoding: &Decoding,
    stop: &Stop,
) -> Result<Vec<Vec<u32>>> {
    let mut engine = Engine::new(model, prompts.len() * decoding.num_beams)?;
    let mut places = BTreeMap::new();
    for (i, prompt) in prompts.iter().enumerate() {
        let (prompt, decoding, index) = (prompt.clone(), decoding.clone(), (first + i) as u64);
        places.insert(engine.add(Request { prompt, decoding, index, answers: 1 })?, i);
    }
    let mut answers = vec![Vec::new(); prompts.len()];
    while !engine.idle() {
        stop.check()?;
        for emitted in engine.step()? {
            answers[places[&emitted.request]].push(emitted.token);
        }
    }
    Ok(answers)
}
