//! Decoder-only models (Llama, arXiv 2302.13971, and its relatives SmolLM2, Qwen2 and Qwen3) over packed sequences: a prompt's
//! tokens pass once for all its responses. It knows token ids, not texts or files.

mod cache;
mod config;
mod layers;
mod packed;
mod rope;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rpo_ops::{Prefixed, Segments};

pub use cache::DecoderCache;
pub use config::{Config, Family};
pub use layers::{Attention, Block, FeedForward, Norm};
pub(super) use packed::packed;

use super::States;
use super::linear::{Linear, Visit, embed};
use super::weights::{Builder, Weights};
use crate::batch::PackedBatch;
use crate::error::Result;

/// Key of the head.
pub(super) const HEAD: &str = "lm_head.weight";
/// Key of the embedding.
pub(super) const EMBEDDINGS: &[&str] = &["model.embed_tokens.weight"];

/// A decoder-only model with its head.
#[derive(Module, Debug)]
pub struct Llama {
    model: Trunk,
    /// Absent when the head is the embedding itself.
    lm_head: Option<Linear>,
    #[module(skip)]
    config: Config,
}

/// The model without its head.
#[derive(Module, Debug)]
pub struct Trunk {
    embed_tokens: Linear,
    layers: Vec<Block>,
    norm: Norm,
}

impl Llama {
    /// Builds the model that `config` describes from `weights`, ready for training if `device` is an autodiff device.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(config: &Config, weights: &mut dyn Weights, device: &Device) -> Result<Self> {
        let mut root = Builder::new(weights, device);
        let Config { vocab_size, d_model, initializer_range: std, .. } = *config;
        let mut at = root.at("model");
        let model = Trunk {
            embed_tokens: Linear::new(at.at("embed_tokens"), [d_model, vocab_size], std)?,
            layers: (0..config.num_layers)
                .map(|i| Block::new(at.at(format!("layers.{i}")), config))
                .collect::<Result<_>>()?,
            norm: Norm::new(at.at("norm"), d_model, config)?,
        };
        let lm_head = match config.tie_word_embeddings {
            true => None,
            false => Some(Linear::new(root.at("lm_head"), [d_model, vocab_size], std)?),
        };
        Ok(Self { model, lm_head, config: config.clone() })
    }

    /// The shape of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The device that holds the weights.
    pub fn device(&self) -> Device {
        self.model.embed_tokens.weight.val().device()
    }

    /// Final hidden states of the prompts of `batch` and of its responses, which continue them.
    pub fn forward(&self, batch: &PackedBatch) -> States {
        let hidden = self.hidden(&batch.all_ids(), &view(batch));
        let (n, m) = (batch.prompts.total(), batch.responses.total());
        States { prompts: hidden.clone().narrow(0, 0, n), responses: hidden.narrow(0, n, m) }
    }

    /// Final hidden states of packed prompts alone: `(prompt tokens, d_model)`.
    pub fn encode(&self, ids: &[u32], prompts: &Segments) -> Tensor<2> {
        self.hidden(ids, &alone(prompts))
    }

    fn hidden(&self, ids: &[u32], view: &Prefixed) -> Tensor<2> {
        let stage = self.stages(view);
        (0..=self.blocks()).fold(self.embed(ids), |x, i| stage(i, x))
    }

    /// The embeddings of packed token ids: `(tokens, d_model)`.
    pub(crate) fn embed(&self, ids: &[u32]) -> Tensor<2> {
        embed(&self.model.embed_tokens, ids)
    }

    pub(crate) fn blocks(&self) -> usize {
        self.model.layers.len()
    }

    /// What becomes of embedded tokens that lie as `view` says, stage by stage: the blocks, then the last norm.
    pub(crate) fn stages(&self, view: &Prefixed) -> impl Fn(usize, Tensor<2>) -> Tensor<2> {
        move |i, x| match self.model.layers.get(i) {
            Some(block) => block.forward(x, view, &self.config),
            None => self.model.norm.forward(x),
        }
    }

    /// Visits the linear maps of all blocks.
    pub(in crate::model) fn visit_maps(&mut self, visit: Visit<'_>) -> Result<()> {
        let mut blocks = self.model.layers.iter_mut().enumerate();
        blocks.try_for_each(|(i, block)| block.visit_maps(&format!("model.layers.{i}"), visit))
    }

    /// The same model without a head of its own: what reads a prompt.
    pub(in crate::model) fn reader(&self) -> Self {
        Self { lm_head: None, ..self.clone() }
    }

    /// The head, which may be the embedding.
    pub(in crate::model) fn head_map(&self) -> &Linear {
        self.lm_head.as_ref().unwrap_or(&self.model.embed_tokens)
    }

    pub(in crate::model) fn head_map_mut(&mut self) -> &mut Linear {
        self.lm_head.as_mut().unwrap_or(&mut self.model.embed_tokens)
    }
}

/// How the tokens of a batch lie.
pub(crate) fn view(batch: &PackedBatch) -> Prefixed {
    let PackedBatch { prompts, responses, prompt_of, .. } = batch;
    Prefixed { prompts: prompts.clone(), responses: responses.clone(), prompt_of: prompt_of.clone() }
}

/// Prompts without responses.
pub(crate) fn alone(prompts: &Segments) -> Prefixed {
    Prefixed { prompts: prompts.clone(), responses: Segments::from_lengths([]), prompt_of: Vec::new() }
}
