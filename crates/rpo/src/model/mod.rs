//! The models that are trained: one folder a family, and one enum over them that all else names. A family is chosen by the
//! `model_type` of `config.json`.
//!
//! To add a family, write its folder (configuration, layers, decoding) and name it in [`Model`], [`Config`] and [`Cache`]; the
//! compiler then names the few places that treat families differently.

pub mod checkpoint;
pub mod encoder;
mod limits;
mod linear;
pub mod llama;
pub mod lora;
mod packed;
mod parameters;
pub(crate) mod peft;
mod raw;
mod size;
pub mod t5;
mod value;
mod weights;

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
pub use rpo_ops::Compute;
use rpo_ops::Segments;
use serde_json::{Map, Value};

pub use linear::Linear;
pub(crate) use linear::embed;
pub use llama::Llama;
pub(crate) use packed::fingerprint;
pub use packed::{PackedModel, Precision};
pub use parameters::{NamedParameters, Parameter};
pub use t5::T5;
pub(crate) use value::{Reader, ValueEncoder};
pub use value::{ValueKind, ValueNetwork};
pub use weights::{Init, RandomWeights, Weights};

use crate::batch::{PackedBatch, Start};
use crate::error::{Error, Result};
use crate::store::within;

/// A language model with its head.
#[derive(Module, Debug)]
pub enum Model {
    /// T5 and its cousins.
    T5(T5),
    /// Decoder-only models.
    Llama(Llama),
}

/// What `config.json` says of a model.
#[derive(Clone, Debug)]
pub enum Config {
    /// Of T5 and its cousins.
    T5(t5::Config),
    /// Of decoder-only models.
    Llama(llama::Config),
}

/// What a model makes of a batch.
#[derive(Clone, Debug)]
pub struct States {
    /// Hidden states of the prompts: `(prompt tokens, d_model)`.
    pub prompts: Tensor<2>,
    /// Final hidden states from which the head predicts each token of the responses: `(response tokens, d_model)`.
    pub responses: Tensor<2>,
}

/// What is remembered of unfinished sequences while they are decoded.
pub enum Cache {
    /// Of T5 and its cousins.
    T5(t5::DecoderCache),
    /// Of decoder-only models.
    Llama(llama::DecoderCache),
}

impl Model {
    /// Builds the model that `config` describes from `weights`, ready for training if `device` is an autodiff device.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(config: &Config, weights: &mut dyn Weights, device: &Device) -> Result<Self> {
        match config {
            Config::T5(config) => T5::new(config, weights, device).map(Self::T5),
            Config::Llama(config) => Llama::new(config, weights, device).map(Self::Llama),
        }
    }

    /// The same model outside of any graph: what runs it without gradients takes this form of it first.
    #[must_use]
    pub fn inference(&self) -> Self {
        if self.device().is_autodiff() { self.valid() } else { self.clone() }
    }

    /// Its configuration.
    pub fn config(&self) -> Config {
        match self {
            Self::T5(t5) => Config::T5(t5.config().clone()),
            Self::Llama(llama) => Config::Llama(llama.config().clone()),
        }
    }

    /// What stands before a response's first token.
    pub fn start(&self) -> Start {
        self.config().start()
    }

    /// Width of the hidden states.
    pub fn d_model(&self) -> usize {
        match self {
            Self::T5(t5) => t5.config().d_model,
            Self::Llama(llama) => llama.config().d_model,
        }
    }

    /// The device that holds the weights.
    pub fn device(&self) -> Device {
        match self {
            Self::T5(t5) => t5.device(),
            Self::Llama(llama) => llama.device(),
        }
    }

    /// The hidden states of the packed prompts and responses of `batch`.
    pub fn forward(&self, batch: &PackedBatch) -> States {
        match self {
            Self::T5(t5) => t5.forward(batch),
            Self::Llama(llama) => llama.forward(batch),
        }
    }

    /// Hidden states of packed prompts alone: `(prompt tokens)` ids to `(prompt tokens, d_model)`.
    pub fn encode(&self, ids: &[u32], prompts: &Segments) -> Tensor<2> {
        match self {
            Self::T5(t5) => t5.encode(ids, prompts),
            Self::Llama(llama) => llama.encode(ids, prompts),
        }
    }

    /// Visits the linear maps of all blocks.
    fn visit_maps(&mut self, visit: linear::Visit<'_>) -> Result<()> {
        match self {
            Self::T5(t5) => t5.visit_maps(visit),
            Self::Llama(llama) => llama.visit_maps(visit),
        }
    }

    /// The same model with all its products computed in `compute`, those of attention and the head among them.
    #[must_use]
    pub fn with_compute(mut self, compute: Compute) -> Self {
        let Ok(()) = self.visit_maps(&mut |_, map| {
            map.compute = compute;
            Ok(())
        }) else {
            unreachable!("no map is refused")
        };
        self.head_map_mut().compute = compute;
        self
    }

    /// What its products are computed in.
    pub fn compute(&self) -> Compute {
        self.head_map().compute
    }

    fn head_map(&self) -> &Linear {
        match self {
            Self::T5(t5) => t5.head_map(),
            Self::Llama(llama) => llama.head_map(),
        }
    }

    fn head_map_mut(&mut self) -> &mut Linear {
        match self {
            Self::T5(t5) => t5.head_map_mut(),
            Self::Llama(llama) => llama.head_map_mut(),
        }
    }

    /// The matrix of the head: `(vocabulary, d_model)`.
    pub fn head(&self) -> Tensor<2> {
        self.head_map().table()
    }

    /// Reads packed prompts and prepares to decode one response for each.
    pub fn begin(&self, ids: &[u32], prompts: &Segments) -> Cache {
        match self {
            Self::T5(t5) => Cache::T5(t5.start_decoding(ids, prompts)),
            Self::Llama(llama) => Cache::Llama(llama.start_decoding(ids, prompts)),
        }
    }

    /// Feeds the next token of every sequence of `cache`, which this model began, and returns the final hidden states:
    /// `(sequences, d_model)`.
    pub fn step(&self, tokens: &[u32], cache: &mut Cache) -> Tensor<2> {
        match (self, cache) {
            (Self::T5(t5), Cache::T5(cache)) => t5.decode_step(tokens, cache),
            (Self::Llama(llama), Cache::Llama(cache)) => llama.decode_step(tokens, cache),
            _ => unreachable!("the cache was begun by a model of another family"),
        }
    }
}

impl Cache {
    /// Keeps only the sequences `rows`, in that order: finished ones need no further work.
    pub fn keep(&mut self, rows: &[usize]) {
        match self {
            Self::T5(cache) => cache.keep(rows),
            Self::Llama(cache) => cache.keep(rows),
        }
    }
}

impl Config {
    /// Reads the file at `path`, a `config.json` that the user named.
    ///
    /// # Errors
    /// If the file cannot be read, is not JSON, lacks a field, or describes a model that is not supported; the message names the
    /// file and the field.
    pub fn read(path: &Path) -> Result<Self> {
        let text = within::given_text(path, within::SETTINGS)?;
        Self::parse(&text).map_err(|problem| Error::file(path, problem))
    }

    /// Reads the `config.json` at `path` in the directory of a model.
    ///
    /// # Errors
    /// Those of [`Self::read`], and if it is no plain file of that directory.
    fn of_model(path: &Path) -> Result<Self> {
        let text = within::text(path, within::SETTINGS)?;
        Self::parse(&text).map_err(|problem| Error::file(path, problem))
    }

    /// Parses the text of a `config.json`.
    ///
    /// # Errors
    /// What is wrong, as a sentence without the file's name.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let raw: Map<String, Value> = serde_json::from_str(text).map_err(|e| format!("not a JSON object: {e}"))?;
        let model_type = raw.get("model_type").and_then(Value::as_str).unwrap_or_default().to_string();
        match (t5::Family::named(&model_type), llama::Family::named(&model_type)) {
            (Some(family), _) => t5::Config::of(family, raw).map(Self::T5),
            (_, Some(family)) => llama::Config::of(family, raw).map(Self::Llama),
            (None, None) => Err(unsupported(&model_type)),
        }
    }

    /// What stands before a response's first token.
    pub fn start(&self) -> Start {
        match self {
            Self::T5(config) => Start::Token(config.decoder_start_token_id),
            Self::Llama(_) => Start::EndOfPrompt,
        }
    }

    /// Rows of the embedding and of the head.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::T5(config) => config.vocab_size,
            Self::Llama(config) => config.vocab_size,
        }
    }

    /// Width of the hidden states.
    pub fn d_model(&self) -> usize {
        match self {
            Self::T5(config) => config.d_model,
            Self::Llama(config) => config.d_model,
        }
    }

    /// The tokens that end a response.
    pub fn ends(&self) -> Vec<u32> {
        match self {
            Self::T5(config) => vec![config.eos_token_id],
            Self::Llama(config) => config.eos_token_ids.clone(),
        }
    }

    /// For texts of how many tokens, prompt and response together, the model is made; `None` where nothing bounds them.
    pub fn context(&self) -> Option<usize> {
        match self {
            Self::T5(_) => None,
            Self::Llama(config) => config.context,
        }
    }

    /// The file's `dropout_rate`, which is not applied: what the model was trained with before.
    pub fn dropout_rate(&self) -> f64 {
        match self {
            Self::T5(config) => config.dropout_rate(),
            Self::Llama(config) => config.dropout_rate(),
        }
    }

    /// The file's text: everything that was read, with all that was resolved, so that no other program's defaults decide, in
    /// the dtype that the weights beside it have.
    pub fn to_json(&self, dtype: &str) -> String {
        match self {
            Self::T5(config) => config.to_json(dtype),
            Self::Llama(config) => config.to_json(dtype),
        }
    }

    /// The text of a `generation_config.json` that says nothing but the special tokens.
    fn generation_json(&self) -> String {
        match self {
            Self::T5(config) => config.generation_json(),
            Self::Llama(config) => config.generation_json(),
        }
    }

    /// The key of a head that may be stored beside a tied embedding, and the keys under which that embedding may be.
    fn tied_head(&self) -> Option<(&'static str, &'static [&'static str])> {
        match self {
            Self::T5(config) => config.tie_word_embeddings.then_some((t5::HEAD, t5::EMBEDDINGS)),
            Self::Llama(config) => config.tie_word_embeddings.then_some((llama::HEAD, llama::EMBEDDINGS)),
        }
    }

    /// The same model with a head of its own, which is what a checkpoint holds that has one beside a tied `config.json`.
    #[must_use]
    fn with_own_head(&self) -> Self {
        match self {
            Self::T5(config) => Self::T5(config.with_own_head()),
            Self::Llama(config) => Self::Llama(config.with_own_head()),
        }
    }

    /// Keys that a checkpoint may hold beside those of the model: copies, and tables that are never used.
    fn redundant(&self) -> &'static [&'static str] {
        match self {
            Self::T5(_) => t5::REDUNDANT,
            Self::Llama(_) => &[],
        }
    }

    /// Other keys under which some programs store the tensor `name`.
    fn aliases(&self, name: &str) -> &'static [&'static str] {
        match self {
            Self::T5(_) if name == t5::EMBEDDINGS[0] => &t5::EMBEDDINGS[1..],
            Self::T5(_) | Self::Llama(_) => &[],
        }
    }
}

/// Why a model of this type cannot be used.
fn unsupported(model_type: &str) -> String {
    let found = if model_type.is_empty() { "no model_type".into() } else { format!("model_type `{model_type}`") };
    let why = match model_type {
        "longt5" => ": its local and global attention is another network",
        "switch_transformers" | "nllb-moe" => ": its layers of experts are another network",
        "bart" | "mbart" | "pegasus" | "marian" => ": it is an encoder-decoder, but not of the T5 family",
        _ => "",
    };
    format!(
        "{found}{why}; supported are `t5` (T5, T5 1.1, Flan-T5), `mt5` (mT5, mT0), `umt5`, and `llama` (Llama, SmolLM2), `qwen2` \
         and `qwen3`"
    )
}
