//! An encoder with a head that tells labels apart, read from the state of a text's first token.

use burn::tensor::{Device, Tensor, activation};
use rpo_ops::{Segments, index_tensor};

use super::Encoder;
use super::config::{Config, Family, Probabilities};
use super::layers::map;
use crate::error::Result;
use crate::model::linear::Linear;
use crate::model::weights::{Builder, Weights};

/// A classifier of texts.
#[derive(Clone, Debug)]
pub struct Classifier {
    encoder: Encoder,
    /// From `d_model` to `d_model`.
    inner: Linear,
    /// From `d_model` to the labels.
    outer: Linear,
}

impl Classifier {
    /// Builds the classifier that `config` describes from `weights`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(config: &Config, weights: &mut dyn Weights, device: &Device) -> Result<Self> {
        let encoder = Encoder::new(config, config.layers, weights, device)?;
        let [inner, outer] = match config.family {
            Family::Bert => ["pooler.dense", "classifier"],
            Family::Roberta => ["classifier.dense", "classifier.out_proj"],
            Family::DistilBert => ["pre_classifier", "classifier"],
        };
        let mut root = Builder::new(weights, device);
        let inner = map(root.at(inner), [config.d_model; 2])?;
        let outer = map(root.at(outer), [config.d_model, config.labels.len()])?;
        Ok(Self { encoder, inner, outer })
    }

    /// The shape of its encoder, and its labels.
    pub fn config(&self) -> &Config {
        self.encoder.config()
    }

    /// Packed texts to the logits of the labels: `(texts, labels)`.
    ///
    /// # Errors
    /// Those of [`Encoder::forward`].
    pub fn logits(&self, ids: &[u32], texts: &Segments) -> Result<Tensor<2>> {
        let states = self.encoder.forward(ids, texts)?;
        let first = index_tensor((0..texts.len()).map(|i| texts.range(i).start), &states.device());
        let x = self.inner.forward(states.select(0, first));
        let x = match self.config().family {
            Family::Bert | Family::Roberta => activation::tanh(x),
            Family::DistilBert => activation::relu(x),
        };
        Ok(self.outer.forward(x))
    }

    /// The probability of each label: `(texts, labels)`.
    ///
    /// # Errors
    /// Those of [`Encoder::forward`].
    pub fn probabilities(&self, ids: &[u32], texts: &Segments) -> Result<Tensor<2>> {
        let logits = self.logits(ids, texts)?;
        Ok(match self.config().probabilities {
            Probabilities::Softmax => activation::softmax(logits, 1),
            Probabilities::Sigmoid => activation::sigmoid(logits),
        })
    }
}
