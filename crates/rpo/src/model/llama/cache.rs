//! Decoding one token at a time: keys and values of what was already read are kept instead of computed again.

use burn::tensor::{Tensor, activation};
use rpo_ops::{Segments, index_tensor};

use super::{Config, Llama, alone, embed};

/// What is remembered of a batch of unfinished sequences, whose prompts may be of different lengths.
pub struct DecoderCache {
    layers: Vec<LayerCache>,
    /// `(batch, 1, 1, prompt length)`: 0 for a token of the prompt, hugely negative for padding.
    prompt_mask: Tensor<4>,
    /// Position of each sequence's next token.
    positions: Vec<usize>,
}

/// Keys and values `(batch, key heads, length, width)`, keys turned by their positions.
struct LayerCache {
    prompt: [Tensor<4>; 2],
    /// Of the tokens decoded so far.
    own: Option<[Tensor<4>; 2]>,
}

impl Llama {
    /// Reads packed prompts and prepares to decode one response for each.
    pub fn start_decoding(&self, ids: &[u32], prompts: &Segments) -> DecoderCache {
        let (config, view) = (&self.config, alone(prompts));
        let positions = view.positions();
        let split = |x: Tensor<2>| split_heads(prompts.pad(x), config.num_key_heads);
        let mut layers = Vec::with_capacity(self.model.layers.len());
        let mut x = embed(&self.model.embed_tokens, ids);
        for block in &self.model.layers {
            let [k, v] = block.keys_values(x.clone());
            layers.push(LayerCache { prompt: [split(config.rotary.turn(k, &positions)), split(v)], own: None });
            x = block.forward(x, &view, config);
        }
        DecoderCache {
            layers,
            prompt_mask: prompts.padding_mask(&self.device()),
            positions: prompts.lengths().collect(),
        }
    }

    /// Feeds the next token of every sequence and returns the final hidden states: `(batch, d_model)`.
    pub fn decode_step(&self, tokens: &[u32], cache: &mut DecoderCache) -> Tensor<2> {
        let DecoderCache { layers, prompt_mask, positions } = cache;
        debug_assert_eq!(tokens.len(), positions.len());
        let config = &self.config;
        let mut x = embed(&self.model.embed_tokens, tokens);
        for (block, cached) in self.model.layers.iter().zip(layers) {
            x = block.around(x, |attention, h| {
                let q = attention.queries(h.clone());
                let [k, v] = attention.keys_values(h);
                let [q, k] = [q, k].map(|x| config.rotary.turn(x, positions));
                let new = [k, v].map(|x| split_heads(x.unsqueeze_dim(1), config.num_key_heads));
                let append = |old: Tensor<4>, new: Tensor<4>| Tensor::cat(vec![old, new], 2);
                let own = match (cached.own.take(), new) {
                    (Some([old_k, old_v]), [k, v]) => [append(old_k, k), append(old_v, v)],
                    (None, new) => new,
                };
                let mixed = attend(q, &cached.prompt, &own, prompt_mask, config);
                cached.own = Some(own);
                attention.output(mixed)
            });
        }
        positions.iter_mut().for_each(|position| *position += 1);
        self.model.norm.forward(x)
    }
}

impl DecoderCache {
    /// Keeps only the sequences `rows`, in that order: finished ones need no further work.
    pub fn keep(&mut self, rows: &[usize]) {
        let index = index_tensor(rows.iter().copied(), &self.prompt_mask.device());
        let keep = |x: &mut Tensor<4>| *x = x.clone().select(0, index.clone());
        keep(&mut self.prompt_mask);
        for layer in &mut self.layers {
            layer.prompt.iter_mut().chain(layer.own.iter_mut().flatten()).for_each(keep);
        }
        self.positions = rows.iter().map(|&row| self.positions[row]).collect();
    }
}

/// `(batch, length, heads * width)` to `(batch, heads, length, width)`.
fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, length, inner] = x.dims();
    x.reshape([batch, length, heads, inner / heads]).swap_dims(1, 2)
}

/// One query a sequence, `(batch, heads * width)`, over the prompt and what was decoded.
fn attend(
    q: Tensor<2>,
    [prompt_k, prompt_v]: &[Tensor<4>; 2],
    [own_k, own_v]: &[Tensor<4>; 2],
    prompt_mask: &Tensor<4>,
    config: &Config,
) -> Tensor<2> {
    let ([batch, inner], key_heads, width) = (q.dims(), config.num_key_heads, config.head_width);
    // The heads that share keys are queries of one head.
    let q = q.mul_scalar((width as f64).powf(-0.5)).reshape([batch, key_heads, config.num_heads / key_heads, width]);
    let scores = |k: &Tensor<4>| q.clone().matmul(k.clone().swap_dims(2, 3));
    let [_, _, before, _] = prompt_k.dims();
    let scores = Tensor::cat(vec![scores(prompt_k) + prompt_mask.clone(), scores(own_k)], 3);
    let weights = activation::softmax(scores, 3);
    let [_, _, _, all] = weights.dims();
    let of_prompt = weights.clone().narrow(3, 0, before).matmul(prompt_v.clone());
    let mixed = of_prompt + weights.narrow(3, before, all - before).matmul(own_v.clone());
    mixed.reshape([batch, inner])
}
