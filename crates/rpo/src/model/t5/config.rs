//! The shape of a T5, read from and written back to a Hugging Face `config.json`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::limits;
use super::super::raw::written;

/// What the feed-forward layers compute (`feed_forward_proj`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForward {
    /// `wo(relu(wi x))`: T5 1.0.
    Relu,
    /// `wo(gelu_new(wi_0 x) * wi_1 x)`: T5 1.1 and Flan-T5.
    GatedGelu,
}

/// Which of the T5 family a model is (`model_type`); they differ in names, defaults and who owns a position bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// T5, T5 1.1, Flan-T5.
    T5,
    /// mT5 and mT0: T5 1.1 with a head of its own.
    Mt5,
    /// umT5: as mT5, but every layer has a table of position biases.
    Umt5,
}

impl Family {
    /// Those that are supported, by their `model_type`.
    const ALL: [(&'static str, Self); 3] = [("t5", Self::T5), ("mt5", Self::Mt5), ("umt5", Self::Umt5)];

    pub(in crate::model) fn named(model_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(name, _)| *name == model_type).map(|(_, family)| family)
    }

    /// The class that transformers loads it with.
    fn architecture(self) -> &'static str {
        match self {
            Self::T5 => "T5ForConditionalGeneration",
            Self::Mt5 => "MT5ForConditionalGeneration",
            Self::Umt5 => "UMT5ForConditionalGeneration",
        }
    }
}

/// The fields of `config.json` that decide what the model computes. All others are kept for the way back.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which kind of T5.
    pub family: Family,
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
    feed_forward_proj: Option<String>,
    tie_word_embeddings: Option<bool>,
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
fn eos() -> u32 {
    1
}

impl Config {
    /// What the fields of a `config.json` of this family say.
    ///
    /// # Errors
    /// What is wrong, as a sentence without the file's name.
    pub(in crate::model) fn of(family: Family, raw: Map<String, Value>) -> std::result::Result<Self, String> {
        let fields: Raw = serde_json::from_value(Value::Object(raw.clone())).map_err(|e| e.to_string())?;
        // As transformers fills in what a file leaves out.
        let (proj, tied) = match family {
            Family::T5 => ("relu", true),
            Family::Mt5 => ("gated-gelu", false),
            Family::Umt5 => ("gated-gelu", true),
        };
        let tied = fields.tie_word_embeddings.unwrap_or(tied);
        let feed_forward = match fields.feed_forward_proj.as_deref().unwrap_or(proj) {
            "relu" => FeedForward::Relu,
            "gated-gelu" => FeedForward::GatedGelu,
            other => {
                return Err(format!("feed_forward_proj `{other}`, but only `relu` and `gated-gelu` are supported"));
            }
        };
        let config = Self {
            family,
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
            tie_word_embeddings: tied,
            scale_decoder_outputs: fields.scale_decoder_outputs.unwrap_or(tied),
            pad_token_id: fields.pad_token_id,
            eos_token_id: fields.eos_token_id,
            decoder_start_token_id: fields.decoder_start_token_id.unwrap_or(fields.pad_token_id),
            raw,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> std::result::Result<(), String> {
        let buckets = self.relative_attention_num_buckets;
        limits::sizes(&[
            ("vocab_size", self.vocab_size, limits::VOCABULARY),
            ("d_model", self.d_model, limits::WIDTH),
            ("d_kv", self.d_kv, limits::WIDTH),
            ("d_ff", self.d_ff, limits::FEED_FORWARD),
            ("num_layers", self.num_layers, limits::LAYERS),
            ("num_decoder_layers", self.num_decoder_layers, limits::LAYERS),
            ("num_heads", self.num_heads, limits::HEADS),
            ("relative_attention_num_buckets", buckets, limits::WIDTH),
            ("relative_attention_max_distance", self.relative_attention_max_distance, limits::CONTEXT as usize),
        ])?;
        let width = ("d_model", self.d_model);
        limits::matrix(("vocab_size", self.vocab_size), width)?;
        limits::matrix(("d_ff", self.d_ff), width)?;
        limits::product(("num_heads", self.num_heads), ("d_kv", self.d_kv), width)?;
        limits::epsilon("layer_norm_epsilon", self.layer_norm_epsilon)?;
        limits::number("initializer_factor", self.initializer_factor, 0.0..=1e6)?;
        limits::dropout("dropout_rate", self.raw.get("dropout_rate"))?;
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

    /// The same model with a head of its own, which is what a checkpoint holds that has one beside a tied `config.json`.
    #[must_use]
    pub(in crate::model) fn with_own_head(&self) -> Self {
        Self { tie_word_embeddings: false, ..self.clone() }
    }

    /// The file's text: everything that was read, with all that was resolved, so that no other program's defaults decide, in
    /// the dtype that the weights beside it have.
    pub fn to_json(&self, dtype: &str) -> String {
        let resolved = serde_json::json!({
            "architectures": [self.family.architecture()],
            "is_encoder_decoder": true,
            "tie_word_embeddings": self.tie_word_embeddings,
            "scale_decoder_outputs": self.scale_decoder_outputs,
            "num_decoder_layers": self.num_decoder_layers,
            "feed_forward_proj": match self.feed_forward {
                FeedForward::Relu => "relu",
                FeedForward::GatedGelu => "gated-gelu",
            },
            "pad_token_id": self.pad_token_id,
            "eos_token_id": self.eos_token_id,
            "decoder_start_token_id": self.decoder_start_token_id,
        });
        written(&self.raw, dtype, resolved)
    }

    /// The text of a `generation_config.json` that says nothing but the special tokens.
    pub(in crate::model) fn generation_json(&self) -> String {
        let ids = serde_json::json!({
            "decoder_start_token_id": self.decoder_start_token_id,
            "eos_token_id": self.eos_token_id,
            "pad_token_id": self.pad_token_id,
        });
        format!("{ids:#}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> std::result::Result<Config, String> {
        match crate::model::Config::parse(text)? {
            crate::model::Config::T5(config) => Ok(config),
            crate::model::Config::Llama(_) => Err("no T5".into()),
        }
    }

    const MINIMAL: &str =
        r#"{"model_type":"t5","vocab_size":9,"d_model":4,"d_kv":2,"d_ff":8,"num_layers":2,"num_heads":2,"custom":[1]}"#;

    #[test]
    fn defaults_are_those_of_transformers() {
        let config = parse(MINIMAL).expect("valid");
        assert_eq!(config.num_decoder_layers, 2);
        assert_eq!(config.feed_forward, FeedForward::Relu);
        assert!(config.tie_word_embeddings && config.scale_decoder_outputs);
        assert_eq!((config.pad_token_id, config.eos_token_id, config.decoder_start_token_id), (0, 1, 0));
        assert!(config.to_json("float32").contains("custom"), "unknown fields survive");
        assert_eq!(config.dropout_rate(), 0.0);
        let dropout = MINIMAL.replace("\"custom\":[1]", "\"dropout_rate\":0.1");
        assert_eq!(parse(&dropout).expect("valid").dropout_rate(), 0.1);
    }

    #[test]
    fn cousins_have_defaults_and_architectures_of_their_own() {
        let mt5 = parse(&MINIMAL.replace("\"t5\"", "\"mt5\"")).expect("valid");
        assert_eq!(
            (mt5.family, mt5.feed_forward, mt5.tie_word_embeddings),
            (Family::Mt5, FeedForward::GatedGelu, false)
        );
        assert!(!mt5.scale_decoder_outputs && mt5.to_json("float32").contains("MT5ForConditionalGeneration"));
        let umt5 = parse(&MINIMAL.replace("\"t5\"", "\"umt5\"")).expect("valid");
        assert!(umt5.tie_word_embeddings && umt5.to_json("float32").contains("\"UMT5ForConditionalGeneration\""));
    }

    #[test]
    fn all_that_was_resolved_is_written() {
        let text = parse(MINIMAL).expect("valid").to_json("float32");
        let written: Value = serde_json::from_str(&text).expect("JSON");
        for (field, value) in [
            ("decoder_start_token_id", Value::from(0)),
            ("eos_token_id", Value::from(1)),
            ("pad_token_id", Value::from(0)),
            ("is_encoder_decoder", Value::from(true)),
            ("tie_word_embeddings", Value::from(true)),
            ("num_decoder_layers", Value::from(2)),
        ] {
            assert_eq!(written[field], value, "{field}");
        }
        assert_eq!(parse(&text).expect("reads back").to_json("float32"), text);
    }

    #[test]
    fn what_is_not_a_t5_is_refused_with_a_reason() {
        for (from, to, said) in [
            ("\"t5\"", "\"bert\"", "model_type `bert`"),
            ("\"t5\"", "\"longt5\"", "attention is another network"),
            ("\"d_kv\":2,", "", "d_kv"),
            ("\"d_ff\":8", "\"d_ff\":0", "d_ff is 0"),
            ("\"d_ff\":8", "\"d_ff\":8,\"feed_forward_proj\":\"gated-silu\"", "gated-silu"),
            ("\"vocab_size\":9", "\"vocab_size\":1", "eos_token_id 1"),
            ("{", "", "JSON"),
        ] {
            let problem = parse(&MINIMAL.replacen(from, to, 1)).expect_err(said);
            assert!(problem.contains(said), "{problem}");
        }
    }
}
