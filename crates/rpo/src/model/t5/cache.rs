//! Decoding one token at a time: keys and values of what was already decoded are kept instead of computed again.

use burn::tensor::{Tensor, activation};
use rpo_ops::{Segments, index_tensor};

use super::{Attention, DecoderBlock, T5, biases};

/// What the decoder remembers of a batch of unfinished sequences, all of the same length.
pub struct DecoderCache {
    layers: Vec<LayerCache>,
    /// `(batch, 1, 1, prompt length)`: 0 for a token of the prompt, hugely negative for padding.
    prompt_mask: Tensor<4>,
    length: usize,
    batch: usize,
}

struct LayerCache {
    /// Keys and values of the tokens decoded so far, `(batch, heads, length, d_kv)`.
    own: Option<(Tensor<4>, Tensor<4>)>,
    /// Keys and values of the prompts, `(batch, heads, prompt length, d_kv)`.
    prompt: (Tensor<4>, Tensor<4>),
}

impl T5 {
    /// Encodes packed prompts and prepares to decode one response for each.
    pub fn start_decoding(&self, ids: &[u32], prompts: &Segments) -> DecoderCache {
        let memory = self.encode(ids, prompts);
        let layers = self
            .decoder
            .block
            .iter()
            .map(|DecoderBlock { layer }| {
                let attention = &layer.1.EncDecAttention;
                let (k, v) = attention.keys_values(memory.clone());
                let split = |x: Tensor<2>| split_heads(prompts.pad(x), attention.heads);
                LayerCache { own: None, prompt: (split(k), split(v)) }
            })
            .collect();
        DecoderCache { layers, prompt_mask: prompts.padding_mask(&self.device()), length: 0, batch: prompts.len() }
    }

    /// Feeds the next token of every sequence and returns what the head multiplies: `(batch, d_model)`.
    pub fn decode_step(&self, tokens: &[u32], cache: &mut DecoderCache) -> Tensor<2> {
        debug_assert_eq!(tokens.len(), cache.batch);
        let position = cache.length;
        let attentions = self.decoder.block.iter().map(|block| &block.layer.0.SelfAttention);
        let biases: Vec<_> = biases(attentions, self.config.relative_attention_max_distance, true)
            .map(|bias| bias.scores(position..position + 1, position + 1))
            .collect();
        let mut x = self.embed(tokens);
        for (i, (DecoderBlock { layer }, cached)) in self.decoder.block.iter().zip(&mut cache.layers).enumerate() {
            let attention = &layer.0.SelfAttention;
            let h = layer.0.layer_norm.forward(x.clone());
            let (k, v) = attention.keys_values(h.clone());
            let append = |old: Option<Tensor<4>>, new: Tensor<2>| {
                let new = split_heads(new.unsqueeze_dim(1), attention.heads);
                match old {
                    Some(old) => Tensor::cat(vec![old, new], 2),
                    None => new,
                }
            };
            let (old_k, old_v) = cached.own.take().unzip();
            let (k, v) = (append(old_k, k), append(old_v, v));
            x = x + attend(attention, h, &k, &v, &biases[i.min(biases.len() - 1)]);
            cached.own = Some((k, v));

            let h = layer.1.layer_norm.forward(x.clone());
            let (k, v) = &cached.prompt;
            x = x + attend(&layer.1.EncDecAttention, h, k, v, &cache.prompt_mask);
            x = layer.2.forward(x);
        }
        cache.length += 1;
        self.finish(x)
    }
}

impl DecoderCache {
    /// Keeps only the sequences `rows`, in that order: finished ones need no further work.
    pub fn keep(&mut self, rows: &[usize]) {
        let rows_index = index_tensor(rows.iter().copied(), &self.prompt_mask.device());
        let keep = |x: &mut Tensor<4>| *x = x.clone().select(0, rows_index.clone());
        keep(&mut self.prompt_mask);
        for layer in &mut self.layers {
            keep(&mut layer.prompt.0);
            keep(&mut layer.prompt.1);
            if let Some((k, v)) = &mut layer.own {
                keep(k);
                keep(v);
            }
        }
        self.batch = rows.len();
    }
}

/// `(batch, length, heads * d_kv)` to `(batch, heads, length, d_kv)`.
fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, length, width] = x.dims();
    x.reshape([batch, length, heads, width / heads]).swap_dims(1, 2)
}

/// One query a sequence, normalised residual `h` of `(batch, d_model)`, against cached keys and values.
fn attend(attention: &Attention, h: Tensor<2>, k: &Tensor<4>, v: &Tensor<4>, bias: &Tensor<4>) -> Tensor<2> {
    let [batch, heads, _, width] = k.dims();
    let q = split_heads(attention.queries(h).unsqueeze_dim(1), attention.heads);
    let scores = q.matmul(k.clone().swap_dims(2, 3)) + bias.clone();
    let mixed = activation::softmax(scores, 3).matmul(v.clone());
    attention.output(mixed.swap_dims(1, 2).reshape([batch, heads * width]))
}
