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
mod processors;
mod stored;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rpo_ops::Segments;
use serde::{Deserialize, Serialize};

pub use beam::EarlyStopping;
pub use processors::{Processors, draw, greedy};
pub use stored::StoredDecoding;

use crate::batch::Start;
use crate::error::{Error, Result};
use crate::host::host;
use crate::model::{Cache, Config, Model};
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

impl Default for Decoding {
    fn default() -> Self {
        Self {
            sample: false,
            max_new_tokens: 128,
            min_new_tokens: 0,
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
        let processors =
            Processors { repetition_penalty: 1.2, no_repeat_ngram_size: 3, temperature: 0.7, top_k: 50, top_p: 0.95 };
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

    /// The tokens that end an answer of a model with this configuration.
    pub fn ends(&self, config: &Config) -> Vec<u32> {
        if self.end_ids.is_empty() { config.ends() } else { self.end_ids.clone() }
    }
}

/// Continues each prompt: token ids up to and including the one that ends the answer, or `max_new_tokens` of them.
///
/// `first` is the index of the first prompt among all that are to be answered; it decides the random numbers. `stop` is heard
/// before each token.
///
/// # Errors
/// If the device fails, or somebody wishes to stop.
pub fn generate(
    model: &Model,
    prompts: &[Vec<u32>],
    first: usize,
    decoding: &Decoding,
    stop: &Stop,
) -> Result<Vec<Vec<u32>>> {
    let model = &model.inference();
    if decoding.num_beams > 1 {
        return beam::search(model, prompts, decoding, stop);
    }
    let ends = decoding.ends(&model.config());
    let (mut cache, mut inputs) = begin(model, prompts)?;
    let begun: Vec<usize> = inputs.iter().map(Vec::len).collect();
    let head = model.head().transpose();
    let mut rngs: Vec<ChaCha8Rng> = (first..first + prompts.len()).map(|i| stream(decoding.seed, i)).collect();
    let mut active: Vec<usize> = (0..prompts.len()).collect();
    for done in 0..decoding.max_new_tokens {
        stop.check()?;
        let last: Vec<u32> = active.iter().map(|&i| inputs[i][inputs[i].len() - 1]).collect();
        let logits = model.step(&last, &mut cache).matmul(head.clone());
        let [_, vocabulary] = logits.dims();
        let mut logits = host(logits)?;
        let mut unfinished = Vec::new();
        for (place, (&i, row)) in active.iter().zip(logits.chunks_exact_mut(vocabulary)).enumerate() {
            if done < decoding.min_new_tokens {
                forbid(&ends, row);
            }
            decoding.processors.apply(&inputs[i], row);
            let next = if decoding.sample { draw(row, &mut rngs[i]) } else { greedy(row) };
            inputs[i].push(next);
            if !ends.contains(&next) {
                unfinished.push(place);
            }
        }
        if unfinished.is_empty() {
            break;
        }
        if unfinished.len() < active.len() {
            cache.keep(&unfinished);
            active = unfinished.into_iter().map(|place| active[place]).collect();
        }
    }
    Ok(inputs.into_iter().zip(begun).map(|(ids, begun)| ids[begun..].to_vec()).collect())
}

/// A cache that has read `prompts`, and what counts as said before each answer, as in transformers: the start token, or the
/// prompt whose last token is still to be fed.
///
/// # Errors
/// If a prompt is too short to begin with.
fn begin(model: &Model, prompts: &[Vec<u32>]) -> Result<(Cache, Vec<Vec<u32>>)> {
    let (read, inputs): (Vec<&[u32]>, Vec<Vec<u32>>) = match model.start() {
        Start::Token(token) => prompts.iter().map(|prompt| (&prompt[..], vec![token])).unzip(),
        Start::EndOfPrompt => {
            if let Some(i) = prompts.iter().position(|prompt| prompt.len() < 2) {
                return Err(Error::Data(format!(
                    "prompt {} has a single token, and a decoder-only model needs two: use a tokenizer that begins texts with \
                     a token of its own (BOS), or a longer prompt",
                    i + 1
                )));
            }
            prompts.iter().map(|prompt| (&prompt[..prompt.len() - 1], prompt.clone())).unzip()
        }
    };
    let segments = Segments::from_lengths(read.iter().map(|ids| ids.len()));
    Ok((model.begin(&read.concat(), &segments), inputs))
}

/// Keeps `ids` from being chosen.
fn forbid(ids: &[u32], logits: &mut [f32]) {
    for &id in ids {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// The random numbers of prompt `index`.
fn stream(seed: u64, index: usize) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(index as u64);
    rng
}
