//! T5 (arXiv 1910.10683), versions 1.0, 1.1 and Flan, over packed sequences. It knows token ids, not texts or files.

mod cache;
mod config;
mod layers;
mod packed;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rpo_ops::{RelativeBias, Segments};

pub use cache::DecoderCache;
pub use config::{Config, Family, FeedForward};
pub use layers::{Attention, CrossAttentionLayer, Dense, FeedForwardLayer, LayerNorm, SelfAttentionLayer};
pub(super) use packed::packed;

use super::States;
use super::linear::{Linear, Visit, embed};
use super::weights::{Builder, Weights};
use crate::batch::PackedBatch;
use crate::error::Result;

/// Key of the head.
pub(super) const HEAD: &str = "lm_head.weight";
/// Keys of the embedding: its own, and those of copies, under which alone some exporters keep it.
pub(super) const EMBEDDINGS: &[&str] = &["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"];
/// Copies of the embedding under other names, and a table that T5 1.0 checkpoints carry but never use.
pub(super) const REDUNDANT: &[&str] = &[
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
];

/// An encoder block; the tuple's indices are the checkpoint's `layer.0` and `layer.1`.
#[derive(Module, Debug)]
pub struct EncoderBlock {
    layer: (SelfAttentionLayer, FeedForwardLayer),
}

/// A decoder block: self-attention, attention to the encoder, feed-forward.
#[derive(Module, Debug)]
pub struct DecoderBlock {
    layer: (SelfAttentionLayer, CrossAttentionLayer, FeedForwardLayer),
}

/// The encoder.
#[derive(Module, Debug)]
pub struct Encoder {
    block: Vec<EncoderBlock>,
    final_layer_norm: LayerNorm,
    #[module(skip)]
    max_distance: usize,
}

/// The decoder.
#[derive(Module, Debug)]
pub struct Decoder {
    block: Vec<DecoderBlock>,
    final_layer_norm: LayerNorm,
}

/// A T5 with its language-model head.
#[derive(Module, Debug)]
pub struct T5 {
    shared: Linear,
    encoder: Encoder,
    decoder: Decoder,
    /// Absent when the head is the embedding itself.
    lm_head: Option<Linear>,
    #[module(skip)]
    config: Config,
}

impl T5 {
    /// Builds the model that `config` describes from `weights`, ready for training if `device` is an autodiff device.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(config: &Config, weights: &mut dyn Weights, device: &Device) -> Result<Self> {
        let mut root = Builder::new(weights, device);
        let Config { vocab_size, d_model, initializer_factor: factor, .. } = *config;
        let owns_bias = |block: usize| block == 0 || config.family == Family::Umt5;
        let shared = Linear::new(root.at("shared"), [d_model, vocab_size], factor)?;
        let mut at = root.at("encoder");
        let encoder = Encoder {
            block: (0..config.num_layers)
                .map(|i| EncoderBlock::new(at.at(format!("block.{i}")), config, owns_bias(i)))
                .collect::<Result<_>>()?,
            final_layer_norm: LayerNorm::new(at.at("final_layer_norm"), config)?,
            max_distance: config.relative_attention_max_distance,
        };
        let mut at = root.at("decoder");
        let decoder = Decoder {
            block: (0..config.num_decoder_layers)
                .map(|i| DecoderBlock::new(at.at(format!("block.{i}")), config, owns_bias(i)))
                .collect::<Result<_>>()?,
            final_layer_norm: LayerNorm::new(at.at("final_layer_norm"), config)?,
        };
        // transformers draws an untied head at the embedding's scale, so that a fresh model is confidently wrong;
        // this scale starts it near the uniform distribution, as T5's own code does.
        let std = factor * (d_model as f64).powf(-0.5);
        let lm_head = match config.tie_word_embeddings {
            true => None,
            false => Some(Linear::new(root.at("lm_head"), [d_model, vocab_size], std)?),
        };
        Ok(Self { shared, encoder, decoder, lm_head, config: config.clone() })
    }

    /// The shape of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The device that holds the weights.
    pub fn device(&self) -> Device {
        self.shared.weight.val().device()
    }

    /// Encodes the packed prompts of `batch` and decodes its responses against them.
    pub fn forward(&self, batch: &PackedBatch) -> States {
        let (n, m) = (batch.prompt_ids.len(), batch.input_ids.len());
        // A single look-up leaves a single gradient as large as the table.
        let embedded = self.embed(&batch.all_ids());
        let memory = self.encoder.forward(embedded.clone().narrow(0, 0, n), &batch.prompts);
        let stage = self.decoder_stages(batch, memory.clone());
        let hidden = (0..=self.decoder.block.len()).fold(embedded.narrow(0, n, m), |x, i| stage(i, x));
        States { prompts: memory, responses: hidden }
    }

    /// Encodes packed prompts: `(prompt tokens)` ids to `(prompt tokens, d_model)`.
    pub fn encode(&self, ids: &[u32], prompts: &Segments) -> Tensor<2> {
        self.encoder.forward(self.embed(ids), prompts)
    }

    /// The embeddings of packed token ids: `(tokens, d_model)`.
    pub(crate) fn embed(&self, ids: &[u32]) -> Tensor<2> {
        embed(&self.shared, ids)
    }

    pub(crate) fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Embedding and encoder: what reads a prompt.
    pub(in crate::model) fn reader(&self) -> (&Linear, &Encoder) {
        (&self.shared, &self.encoder)
    }

    pub(crate) fn decoder_blocks(&self) -> usize {
        self.decoder.block.len()
    }

    /// What the decoder does to the embedded inputs of `batch`, stage by stage: its blocks, then [`Self::finish`].
    pub(crate) fn decoder_stages(
        &self,
        batch: &PackedBatch,
        memory: Tensor<2>,
    ) -> impl Fn(usize, Tensor<2>) -> Tensor<2> {
        let PackedBatch { responses, by_prompt, prompts, .. } = batch;
        let attentions = self.decoder.block.iter().map(|block| &block.layer.0.SelfAttention);
        let biases: Vec<_> = biases(attentions, self.config.relative_attention_max_distance, true)
            .map(|bias| bias.over(responses.max_len()))
            .collect();
        move |i, x| match self.decoder.block.get(i) {
            Some(DecoderBlock { layer }) => {
                let x = layer.0.forward(x, responses, &biases[i.min(biases.len() - 1)]);
                layer.2.forward(layer.1.forward(x, by_prompt, memory.clone(), prompts))
            }
            None => self.finish(x),
        }
    }

    /// The decoder's last norm, and the scaling of T5 1.0.
    fn finish(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.decoder.final_layer_norm.forward(x);
        match self.config.scale_decoder_outputs {
            true => x.mul_scalar((self.config.d_model as f64).powf(-0.5)),
            false => x,
        }
    }

    /// Visits the linear maps of all blocks.
    pub(in crate::model) fn visit_maps(&mut self, visit: Visit<'_>) -> Result<()> {
        for (i, EncoderBlock { layer }) in self.encoder.block.iter_mut().enumerate() {
            let at = |layer: usize| format!("encoder.block.{i}.layer.{layer}");
            layer.0.visit_maps(&at(0), visit)?;
            layer.1.visit_maps(&at(1), visit)?;
        }
        for (i, DecoderBlock { layer }) in self.decoder.block.iter_mut().enumerate() {
            let at = |layer: usize| format!("decoder.block.{i}.layer.{layer}");
            layer.0.visit_maps(&at(0), visit)?;
            layer.1.visit_maps(&at(1), visit)?;
            layer.2.visit_maps(&at(2), visit)?;
        }
        Ok(())
    }

    /// The head, which may be the embedding.
    pub(in crate::model) fn head_map(&self) -> &Linear {
        self.lm_head.as_ref().unwrap_or(&self.shared)
    }

    pub(in crate::model) fn head_map_mut(&mut self) -> &mut Linear {
        self.lm_head.as_mut().unwrap_or(&mut self.shared)
    }
}

impl Encoder {
    /// Embedded packed prompts to encoder states, both `(prompt tokens, d_model)`.
    pub(in crate::model) fn forward(&self, x: Tensor<2>, prompts: &Segments) -> Tensor<2> {
        let stage = self.stages(prompts);
        (0..=self.block.len()).fold(x, |x, i| stage(i, x))
    }

    pub(crate) fn blocks(&self) -> usize {
        self.block.len()
    }

    /// What [`Self::forward`] does, stage by stage: the blocks, then the last norm.
    pub(crate) fn stages(&self, prompts: &Segments) -> impl Fn(usize, Tensor<2>) -> Tensor<2> {
        let attentions = self.block.iter().map(|block| &block.layer.0.SelfAttention);
        let biases: Vec<_> =
            biases(attentions, self.max_distance, false).map(|bias| bias.over(prompts.max_len())).collect();
        move |i, x| match self.block.get(i) {
            Some(EncoderBlock { layer }) => {
                layer.1.forward(layer.0.forward(x, prompts, &biases[i.min(biases.len() - 1)]))
            }
            None => self.final_layer_norm.forward(x),
        }
    }
}

/// The position biases of a stack's blocks: one that all share, or one for each.
fn biases<'a>(
    attentions: impl Iterator<Item = &'a Attention> + 'a,
    max_distance: usize,
    causal: bool,
) -> impl Iterator<Item = RelativeBias> + 'a {
    attentions.filter_map(move |attention| attention.bias(max_distance, causal))
}

impl EncoderBlock {
    fn new(mut at: Builder<'_>, config: &Config, owns_bias: bool) -> Result<Self> {
        let attention = SelfAttentionLayer::new(at.at("layer.0"), config, owns_bias)?;
        Ok(Self { layer: (attention, FeedForwardLayer::new(at.at("layer.1"), config)?) })
    }
}

impl DecoderBlock {
    fn new(mut at: Builder<'_>, config: &Config, owns_bias: bool) -> Result<Self> {
        let attention = SelfAttentionLayer::new(at.at("layer.0"), config, owns_bias)?;
        let cross = CrossAttentionLayer::new(at.at("layer.1"), config)?;
        Ok(Self { layer: (attention, cross, FeedForwardLayer::new(at.at("layer.2"), config)?) })
    }
}
