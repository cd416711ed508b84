//! The shape of a T5, read from and written back to a Hugging Face `config.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// What the feed-forward layers compute (`feed_forward_proj`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForward {
    /// `wo(relu(wi x))`: T5 1.0.
    Relu,
    /// `wo(gelu_new(wi_0 x) * wi_1 x)`: T5 1.1 and Flan-T5.
    GatedGelu,
}

/// The fields of `config.json` that decide what the model computes. All others are kept for the way back.
#[derive(Clone, Debug)]
pub struct Config {
    /// Rows of the embedding; at least the tokenizer's vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of one attention head; `num_heads * d_kv` need not equal `d_model`.
    pub d_kv: usize,
    /// Width of the feed-forward layers.
    pub d_ff: usize,
    /// Encoder layers.
    pub num_layers: usize,
    /// Decoder layers.
    pub num_decoder_layers: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Buckets of the relative position bias.
    pub relative_attention_num_buckets: usize,
    /// Distance from which positions share the last bucket.
    pub relative_attention_max_distance: usize,
    /// Epsilon of the RMS norms.
    pub layer_norm_epsilon: f64,
    /// Scale of a fresh initialisation.
    pub initializer_factor: f64,
    /// Kind of feed-forward layer.
    pub feed_forward: FeedForward,
    /// Whether the head is the transposed embedding.
    pub tie_word_embeddings: bool,
    /// Whether decoder outputs are multiplied by `d_model^-1/2` before the head (T5 1.0).
    pub scale_decoder_outputs: bool,
    /// Token that fills padding.
    pub pad_token_id: u32,
    /// Token that ends a sequence.
    pub eos_token_id: u32,
    /// First input of the decoder.
    pub decoder_start_token_id: u32,
    /// The whole file, so that what we do not read survives a round trip.
    raw: Map<String, Value>,
}

/// The fields as the file spells them, with transformers' defaults.
#[derive(Deserialize, Serialize)]
struct Raw {
    model_type: Option<String>,
    vocab_size: usize,
    d_model: usize,
    d_kv: usize,
    d_ff: usize,
    num_layers: usize,
    num_decoder_layers: Option<usize>,
    num_heads: usize,
    #[serde(default = "buckets")]
    relative_attention_num_buckets: usize,
    #[serde(default = "max_distance")]
    relative_attention_max_distance: usize,
    #[serde(default = "epsilon")]
    layer_norm_epsilon: f64,
    #[serde(default = "one")]
    initializer_factor: f64,
    #[serde(default = "relu")]
    feed_forward_proj: String,
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
    scale_decoder_outputs: Option<bool>,
    #[serde(default)]
    pad_token_id: u32,
    #[serde(default = "eos")]
    eos_token_id: u32,
    decoder_start_token_id: Option<u32>,
}

fn buckets() -> usize {
    32
}
fn max_distance() -> usize {
    128
}
fn epsilon() -> f64 {
    1e-6
}
fn one() -> f64 {
    1.0
}
fn relu() -> String {
    "relu".into()
}
fn yes() -> bool {
    true
}
fn eos() -> u32 {
    1
}

impl Config {
    /// Reads `config.json` at `path`.
    ///
    /// # Errors
    /// If the file cannot be read, is not JSON, lacks a field, or describes a model that is not a T5 which we support;
    /// the message names the file and the field.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::read(path, e))?;
        Self::parse(&text).map_err(|problem| Error::Config { path: path.into(), problem })
    }

    /// Parses the text of a `config.json`.
    ///
    /// # Errors
    /// What is wrong, as a sentence without the file's name.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let raw: Map<String, Value> = serde_json::from_str(text).map_err(|e| format!("not a JSON object: {e}"))?;
        let model_type = raw.get("model_type").and_then(Value::as_str).unwrap_or("");
        if model_type != "t5" {
            let found =
                if model_type.is_empty() { "no model_type".into() } else { format!("model_type `{model_type}`") };
            return Err(format!("{found}, but only `t5` models (T5, T5 1.1, Flan-T5) are supported"));
        }
        let fields: Raw = serde_json::from_value(Value::Object(raw.clone())).map_err(|e| e.to_string())?;
        let feed_forward = match fields.feed_forward_proj.as_str() {
            "relu" => FeedForward::Relu,
            "gated-gelu" => FeedForward::GatedGelu,
            other => {
                return Err(format!("feed_forward_proj `{other}`, but only `relu` and `gated-gelu` are supported"));
            }
        };
        let config = Self {
            vocab_size: fields.vocab_size,
            d_model: fields.d_model,
            d_kv: fields.d_kv,
            d_ff: fields.d_ff,
            num_layers: fields.num_layers,
            num_decoder_layers: fields.num_decoder_layers.unwrap_or(fields.num_layers),
            num_heads: fields.num_heads,
            relative_attention_num_buckets: fields.relative_attention_num_buckets,
            relative_attention_max_distance: fields.relative_attention_max_distance,
            layer_norm_epsilon: fields.layer_norm_epsilon,
            initializer_factor: fields.initializer_factor,
            feed_forward,
            tie_word_embeddings: fields.tie_word_embeddings,
            scale_decoder_outputs: fields.scale_decoder_outputs.unwrap_or(fields.tie_word_embeddings),
            pad_token_id: fields.pad_token_id,
            eos_token_id: fields.eos_token_id,
            decoder_start_token_id: fields.decoder_start_token_id.unwrap_or(fields.pad_token_id),
            raw,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> std::result::Result<(), String> {
        let positive = [
            ("vocab_size", self.vocab_size),
            ("d_model", self.d_model),
            ("d_kv", self.d_kv),
            ("d_ff", self.d_ff),
            ("num_layers", self.num_layers),
            ("num_decoder_layers", self.num_decoder_layers),
            ("num_heads", self.num_heads),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{name} is 0"));
        }
        let buckets = self.relative_attention_num_buckets;
        if buckets < 4 || self.relative_attention_max_distance <= buckets / 2 {
            return Err(format!(
                "relative_attention_num_buckets {buckets} with relative_attention_max_distance {} leave no logarithmic buckets",
                self.relative_attention_max_distance
            ));
        }
        let special = [
            ("pad_token_id", self.pad_token_id),
            ("eos_token_id", self.eos_token_id),
            ("decoder_start_token_id", self.decoder_start_token_id),
        ];
        match special.iter().find(|(_, id)| *id as usize >= self.vocab_size) {
            Some((name, id)) => Err(format!("{name} {id} is outside the vocabulary of {}", self.vocab_size)),
            None => Ok(()),
        }
    }

    /// The file's `dropout_rate`, which we do not apply: what it was trained with before.
    pub fn dropout_rate(&self) -> f64 {
        self.raw.get("dropout_rate").and_then(Value::as_f64).unwrap_or(0.0)
    }

    /// The file's text: everything that was read, in the dtype that the weights beside it have.
    pub fn to_json(&self, dtype: &str) -> String {
        let mut raw = self.raw.clone();
        raw.insert("architectures".into(), Value::from(vec!["T5ForConditionalGeneration"]));
        // transformers 4.x reads `torch_dtype`, 5.x `dtype`; keep whichever is there and write one that both accept.
        raw.remove("dtype");
        raw.insert("torch_dtype".into(), Value::from(dtype));
        let mut text = serde_json::to_string_pretty(&raw).unwrap_or_default();
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str =
        r#"{"model_type":"t5","vocab_size":9,"d_model":4,"d_kv":2,"d_ff":8,"num_layers":2,"num_heads":2,"custom":[1]}"#;

    #[test]
    fn defaults_are_those_of_transformers() {
        let config = Config::parse(MINIMAL).expect("valid");
        assert_eq!(config.num_decoder_layers, 2);
        assert_eq!(config.feed_forward, FeedForward::Relu);
        assert!(config.tie_word_embeddings && config.scale_decoder_outputs);
        assert_eq!((config.pad_token_id, config.eos_token_id, config.decoder_start_token_id), (0, 1, 0));
        assert!(config.to_json("float32").contains("custom"), "unknown fields survive");
        assert_eq!(config.dropout_rate(), 0.0);
        let dropout = MINIMAL.replace("\"custom\":[1]", "\"dropout_rate\":0.1");
        assert_eq!(Config::parse(&dropout).expect("valid").dropout_rate(), 0.1);
    }

    #[test]
    fn what_is_not_a_t5_is_refused_with_a_reason() {
        for (from, to, said) in [
            ("\"t5\"", "\"bert\"", "model_type `bert`"),
            ("\"d_kv\":2,", "", "d_kv"),
            ("\"d_ff\":8", "\"d_ff\":0", "d_ff is 0"),
            ("\"d_ff\":8", "\"d_ff\":8,\"feed_forward_proj\":\"gated-silu\"", "gated-silu"),
            ("\"vocab_size\":9", "\"vocab_size\":1", "eos_token_id 1"),
            ("{", "", "JSON"),
        ] {
            let problem = Config::parse(&MINIMAL.replacen(from, to, 1)).expect_err(said);
            assert!(problem.contains(said), "{problem}");
        }
    }
}
