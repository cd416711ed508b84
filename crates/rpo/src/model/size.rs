//! How large models are and what they cost, by their configuration alone.

use super::Config;
use super::t5::FeedForward;

impl Config {
    /// Numbers of the model's weights, norms included.
    pub fn parameters(&self) -> usize {
        match self {
            Self::T5(c) => {
                let inner = c.num_heads * c.d_kv;
                let attention = 4 * c.d_model * inner + c.d_model;
                let feed_forward = wide(c.feed_forward) * c.d_model * c.d_ff + c.d_model;
                let tables =
                    if c.family == super::t5::Family::Umt5 { [c.num_layers, c.num_decoder_layers] } else { [1, 1] };
                let biases = tables.iter().sum::<usize>() * c.relative_attention_num_buckets * c.num_heads;
                let encoder = c.num_layers * (attention + feed_forward) + c.d_model;
                let decoder = c.num_decoder_layers * (2 * attention + feed_forward) + c.d_model;
                let embeddings = if c.tie_word_embeddings { 1 } else { 2 } * c.vocab_size * c.d_model;
                embeddings + encoder + decoder + biases
            }
            Self::Llama(c) => {
                let (queries, keys) = (c.num_heads * c.head_width, c.num_key_heads * c.head_width);
                let biases =
                    if c.biased { queries + 2 * keys } else { 0 } + if c.biased_output { c.d_model } else { 0 };
                let attention = 2 * c.d_model * (queries + keys) + biases;
                let layer = attention + 3 * c.d_model * c.d_ff + 2 * c.d_model;
                let embeddings = if c.tie_word_embeddings { 1 } else { 2 } * c.vocab_size * c.d_model;
                embeddings + c.num_layers * layer + c.d_model
            }
        }
    }

    /// Floating-point operations of the matrix products of a forward pass over so many tokens of prompts, each prompt once, and of
    /// responses; attention's own, which are few where texts are short, are left out.
    pub fn forward_operations(&self, prompts: usize, responses: usize) -> f64 {
        let [prompts, responses] = [prompts, responses].map(|n| n as f64);
        let of = |n: usize| n as f64;
        match self {
            Self::T5(c) => {
                let map = of(c.d_model) * of(c.num_heads * c.d_kv);
                let feed_forward = of(wide(c.feed_forward)) * of(c.d_model) * of(c.d_ff);
                let encoder = of(c.num_layers) * (4.0 * map + feed_forward);
                // Keys and values of what the encoder says are computed once a prompt.
                let memory = of(c.num_decoder_layers) * 2.0 * map;
                let decoder = of(c.num_decoder_layers) * (6.0 * map + feed_forward);
                let head = of(c.d_model) * of(c.vocab_size);
                2.0 * (prompts * (encoder + memory) + responses * (decoder + head))
            }
            Self::Llama(c) => {
                let width = of((c.num_heads + c.num_key_heads) * c.head_width);
                let layer = 2.0 * of(c.d_model) * width + 3.0 * of(c.d_model) * of(c.d_ff);
                let head = of(c.d_model) * of(c.vocab_size);
                2.0 * ((prompts + responses) * of(c.num_layers) * layer + responses * head)
            }
        }
    }

    /// Bytes that a forward pass leaves for the gradients of each token that it reads or scores, in all layers that the token passes:
    /// states of the model's width, heads and feed-forward layers, in bfloat16 if `rounded`. The factors are a fit to the peak memory of
    /// training adapters of models of the shapes of flan-t5-small, -base, -large and SmolLM2-135M, from which it is off by a tenth at most
    /// in bfloat16 and by a fifth in f32.
    pub fn kept_bytes(&self, rounded: bool) -> f64 {
        let of = |n: usize| n as f64;
        let (width, heads, inner, factor) = match self {
            Self::T5(c) => (c.d_model, c.num_heads * c.d_kv, c.d_ff, 1.0),
            Self::Llama(c) => (c.d_model, c.num_heads * c.head_width, c.d_ff, 0.61),
        };
        let layer = factor * (8.0 * of(width) + 6.0 * of(heads) + 4.5 * of(inner));
        layer * of(self.layers()) * if rounded { 1.0 } else { 1.35 }
    }

    /// The same model with at most so many layers a stack, and as wide as before.
    #[must_use]
    pub fn with_layers(&self, most: usize) -> Self {
        let mut config = self.clone();
        match &mut config {
            Self::T5(c) => {
                c.num_layers = c.num_layers.min(most);
                c.num_decoder_layers = c.num_decoder_layers.min(most);
            }
            Self::Llama(c) => c.num_layers = c.num_layers.min(most),
        }
        config
    }

    /// Layers that a token of a prompt or response passes, whichever are more.
    pub fn layers(&self) -> usize {
        match self {
            Self::T5(c) => c.num_layers.max(c.num_decoder_layers),
            Self::Llama(c) => c.num_layers,
        }
    }
}

/// Matrices of a feed-forward layer.
fn wide(feed_forward: FeedForward) -> usize {
    match feed_forward {
        FeedForward::Relu => 2,
        FeedForward::GatedGelu => 3,
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::model::{Model, NamedParameters, RandomWeights};

    #[test]
    fn parameters_are_those_of_the_model() {
        for text in [
            r#"{"model_type":"t5","vocab_size":11,"d_model":8,"d_kv":4,"d_ff":16,"num_layers":2,"num_decoder_layers":3,
                "num_heads":2,"feed_forward_proj":"gated-gelu","tie_word_embeddings":false}"#,
            r#"{"model_type":"t5","vocab_size":11,"d_model":8,"d_kv":4,"d_ff":16,"num_layers":2,"num_heads":2}"#,
            r#"{"model_type":"umt5","vocab_size":11,"d_model":8,"d_kv":4,"d_ff":16,"num_layers":2,"num_heads":2,
                "feed_forward_proj":"gated-gelu","tie_word_embeddings":false}"#,
            r#"{"model_type":"llama","vocab_size":10,"hidden_size":8,"intermediate_size":16,"num_hidden_layers":2,
                "num_attention_heads":4,"num_key_value_heads":2,"attention_bias":true,"eos_token_id":1}"#,
            r#"{"model_type":"llama","vocab_size":10,"hidden_size":8,"intermediate_size":16,"num_hidden_layers":2,
                "num_attention_heads":4,"num_key_value_heads":2,"tie_word_embeddings":true,"eos_token_id":1}"#,
        ] {
            let config = Config::parse(text).expect("valid");
            let model = Model::new(&config, &mut RandomWeights::new(0), &Device::flex()).expect("random");
            let counted: usize = model.parameters().iter().map(|p| p.shape.iter().product::<usize>()).sum();
            assert_eq!(config.parameters(), counted, "{text}");
        }
    }

    #[test]
    fn operations_by_hand() {
        let t5 = Config::parse(
            r#"{"model_type":"t5","vocab_size":100,"d_model":10,"d_kv":5,"d_ff":20,"num_layers":1,"num_heads":2}"#,
        );
        // 10 x 10 maps: four in the encoder and two of its states for the decoder, six in the decoder; 10 x 20 twice; 10 x 100.
        let (encoder, decoder) = (4.0 * 100.0 + 2.0 * 200.0 + 2.0 * 100.0, 6.0 * 100.0 + 2.0 * 200.0 + 1000.0);
        assert_eq!(t5.expect("valid").forward_operations(3, 2), 2.0 * (3.0 * encoder + 2.0 * decoder));
    }
}
