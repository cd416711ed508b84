//! Encoders of BERT's kind over packed texts: BERT, RoBERTa, DistilBERT and their cousins, with or without a classifier's head. They
//! are read and never trained, so that they are no variant of [`super::Model`].

mod classifier;
mod config;
mod files;
mod layers;
mod texts;

use burn::tensor::{Device, Tensor};
use rpo_ops::{LayerNorm, Segments, add_norm};

pub use classifier::Classifier;
pub use config::{Activation, Config, Family, Probabilities};
pub use files::Files;
use layers::{FRESH, Layer};
pub use texts::{Batches, Texts, Tokens};

use super::linear::{Linear, embed};
use super::weights::{Builder, Weights};
use crate::error::{Error, Result};

/// Key of the table of tokens.
const WORDS: &str = "embeddings.word_embeddings.weight";

/// The first layers of an encoder, or all.
#[derive(Clone, Debug)]
pub struct Encoder {
    words: Linear,
    positions: Linear,
    /// The type of every token of a text that stands alone: `(1, d_model)`.
    token_type: Option<Tensor<2>>,
    norm: LayerNorm,
    layers: Vec<Layer>,
    config: Config,
}

impl Encoder {
    /// Builds the first `layers` layers of what `config` describes from `weights`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(config: &Config, layers: usize, weights: &mut dyn Weights, device: &Device) -> Result<Self> {
        let Config { vocab_size, d_model, positions, token_types, .. } = *config;
        let mut root = Builder::new(weights, device);
        let mut at = root.at("embeddings");
        let std = 0.02;
        let words = Linear::new(at.at("word_embeddings"), [d_model, vocab_size], std)?;
        let positions = Linear::new(at.at("position_embeddings"), [d_model, positions], std)?;
        let token_type = match token_types {
            0 => None,
            n => {
                let table = at.at("token_type_embeddings").param("weight", [n, d_model], FRESH)?;
                Some(table.val().slice([0..1, 0..d_model]))
            }
        };
        let norm = layers::norm(at.at("LayerNorm"), config)?;
        let mut at = root.at(if config.family == Family::DistilBert { "transformer" } else { "encoder" });
        let layers =
            (0..layers).map(|i| Layer::new(at.at(format!("layer.{i}")), config)).collect::<Result<Vec<_>>>()?;
        Ok(Self { words, positions, token_type, norm, layers, config: config.clone() })
    }

    /// The shape of the whole model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Packed texts to the states after the last of its layers: `(tokens)` ids to `(tokens, d_model)`.
    ///
    /// # Errors
    /// If a text is longer than the model reads or an id has no row.
    pub fn forward(&self, ids: &[u32], texts: &Segments) -> Result<Tensor<2>> {
        let embedded = self.embed(ids, texts)?;
        Ok(self.layers.iter().fold(embedded, |x, layer| layer.forward(x, &self.config, texts)))
    }

    /// The embeddings and the states after each layer, each `(tokens, d_model)`: transformers' `hidden_states`.
    ///
    /// # Errors
    /// Those of [`Self::forward`].
    pub fn states(&self, ids: &[u32], texts: &Segments) -> Result<Vec<Tensor<2>>> {
        let mut states = vec![self.embed(ids, texts)?];
        for layer in &self.layers {
            states.push(layer.forward(states[states.len() - 1].clone(), &self.config, texts));
        }
        Ok(states)
    }

    fn embed(&self, ids: &[u32], texts: &Segments) -> Result<Tensor<2>> {
        let (longest, vocabulary) = (self.config.longest(), self.config.vocab_size);
        if texts.max_len() > longest {
            return Err(Error::Data(format!("a text of {} tokens, but the encoder reads {longest}", texts.max_len())));
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocabulary) {
            return Err(Error::Data(format!("token id {id}, but the encoder has {vocabulary} tokens")));
        }
        let places: Vec<u32> = (0..texts.len()).flat_map(|i| self.config.places(&ids[texts.range(i)])).collect();
        let mut beside = embed(&self.positions, &places);
        if let Some(token_type) = &self.token_type {
            beside = beside + token_type.clone();
        }
        Ok(add_norm(embed(&self.words, ids), beside, self.norm.clone()))
    }
}
