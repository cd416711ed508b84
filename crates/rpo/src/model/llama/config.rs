//! The shape of a decoder-only model, read from and written back to a Hugging Face `config.json`.

use rpo_ops::Rotary;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::rope::rotary;
use crate::model::limits;
use crate::model::raw::written;

type Result<T> = std::result::Result<T, String>;

/// Which family a model is of (`model_type`); they differ in biases, norms of heads and defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Llama, SmolLM2 and others that call themselves so.
    Llama,
    /// Qwen2 and Qwen2.5: queries, keys and values have biases.
    Qwen2,
    /// Qwen3: every head of queries and keys is normalised.
    Qwen3,
}

impl Family {
    /// The family of a `model_type`.
    pub(in crate::model) fn named(model_type: &str) -> Option<Self> {
        match model_type {
            "llama" => Some(Self::Llama),
            "qwen2" => Some(Self::Qwen2),
            "qwen3" => Some(Self::Qwen3),
            _ => None,
        }
    }

    fn architecture(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
        }
    }
}

/// The shape of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Which family.
    pub family: Family,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of the feed-forward layers.
    pub d_ff: usize,
    /// Blocks.
    pub num_layers: usize,
    /// Heads of the queries.
    pub num_heads: usize,
    /// Heads of keys and values, each of which serves equally many heads of the queries.
    pub num_key_heads: usize,
    /// Width of a head.
    pub head_width: usize,
    /// Added to the mean square in norms.
    pub epsilon: f64,
    /// How positions turn queries and keys.
    pub rotary: Rotary,
    /// For texts of how many tokens the model is made (`max_position_embeddings`), if the file says.
    pub context: Option<usize>,
    /// Whether the projections to queries, keys and values have biases.
    pub biased: bool,
    /// Whether that to the output has one.
    pub biased_output: bool,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// What begins a text, if anything.
    pub bos_token_id: Option<u32>,
    /// What ends a response.
    pub eos_token_ids: Vec<u32>,
    /// Everything that the file said.
    raw: Map<String, Value>,
}

/// The fields that matter, as files have them.
#[derive(Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "so many has the file")]
struct Raw {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    hidden_act: Option<String>,
    rms_norm_eps: Option<f64>,
    max_position_embeddings: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
    partial_rotary_factor: Option<f64>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    use_sliding_window: bool,
    #[serde(default)]
    tie_word_embeddings: bool,
    initializer_range: Option<f64>,
    bos_token_id: Option<u32>,
    eos_token_id: Option<OneOrSeveral>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrSeveral {
    One(u32),
    Several(Vec<u32>),
}

impl Config {
    /// What the fields of a `config.json` of this family say.
    ///
    /// # Errors
    /// What is wrong or not supported, as a sentence without the file's name.
    pub(in crate::model) fn of(family: Family, raw: Map<String, Value>) -> Result<Self> {
        let fields: Raw = serde_json::from_value(Value::Object(raw.clone())).map_err(|e| e.to_string())?;
        let heads = fields.num_attention_heads;
        let usual_width = if family == Family::Qwen3 { 128 } else { fields.hidden_size / heads.max(1) };
        let head_width = fields.head_dim.unwrap_or(usual_width);
        let refused = [
            (fields.mlp_bias, "mlp_bias is true, but feed-forward layers with biases are not supported"),
            (fields.use_sliding_window, "use_sliding_window is true, but only full attention is supported"),
            (
                fields.partial_rotary_factor.is_some_and(|factor| factor != 1.0),
                "partial_rotary_factor is not 1, but heads that are turned in part are not supported",
            ),
        ];
        if let Some((_, problem)) = refused.iter().find(|(is, _)| *is) {
            return Err((*problem).into());
        }
        match fields.hidden_act.as_deref() {
            None | Some("silu") => {}
            Some(other) => return Err(format!("hidden_act `{other}`, but only `silu` is supported")),
        }
        let scaling = fields.rope_parameters.or(fields.rope_scaling).unwrap_or_default();
        let of_scaling = |name: &str| scaling.get(name).and_then(Value::as_f64);
        let theta = of_scaling("rope_theta").or(fields.rope_theta).unwrap_or(10_000.0);
        // Before the frequencies of its coordinates are worked out.
        limits::sizes(&[("head_dim", head_width, limits::WIDTH)])?;
        if let Some(context) = fields.max_position_embeddings {
            limits::number("max_position_embeddings", context, 1.0..=limits::CONTEXT)?;
        }
        let config = Self {
            family,
            vocab_size: fields.vocab_size,
            d_model: fields.hidden_size,
            d_ff: fields.intermediate_size,
            num_layers: fields.num_hidden_layers,
            num_heads: heads,
            num_key_heads: fields.num_key_value_heads.unwrap_or(if family == Family::Llama { heads } else { 32 }),
            head_width,
            epsilon: fields.rms_norm_eps.unwrap_or(1e-6),
            rotary: rotary(head_width, theta, fields.max_position_embeddings, &scaling)?,
            context: fields.max_position_embeddings.map(|tokens| tokens as usize),
            biased: fields.attention_bias || family == Family::Qwen2,
            biased_output: fields.attention_bias && family != Family::Qwen2,
            tie_word_embeddings: fields.tie_word_embeddings,
            initializer_range: fields.initializer_range.unwrap_or(0.02),
            bos_token_id: fields.bos_token_id,
            eos_token_ids: match fields.eos_token_id {
                None if family == Family::Llama => vec![2],
                None => Vec::new(),
                Some(OneOrSeveral::One(id)) => vec![id],
                Some(OneOrSeveral::Several(ids)) => ids,
            },
            raw,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let (width, head) = (("hidden_size", self.d_model), ("head_dim", self.head_width));
        limits::sizes(&[
            ("vocab_size", self.vocab_size, limits::VOCABULARY),
            ("hidden_size", self.d_model, limits::WIDTH),
            ("intermediate_size", self.d_ff, limits::FEED_FORWARD),
            ("num_hidden_layers", self.num_layers, limits::LAYERS),
            ("num_attention_heads", self.num_heads, limits::HEADS),
            ("num_key_value_heads", self.num_key_heads, limits::HEADS),
        ])?;
        limits::matrix(("vocab_size", self.vocab_size), width)?;
        limits::matrix(("intermediate_size", self.d_ff), width)?;
        limits::product(("num_attention_heads", self.num_heads), head, width)?;
        limits::product(("num_key_value_heads", self.num_key_heads), head, width)?;
        limits::epsilon("rms_norm_eps", self.epsilon)?;
        limits::number("initializer_range", self.initializer_range, 0.0..=1e6)?;
        limits::dropout("attention_dropout", self.raw.get("attention_dropout"))?;
        if !self.num_heads.is_multiple_of(self.num_key_heads) {
            return Err(format!(
                "num_attention_heads {} is no multiple of num_key_value_heads {}",
                self.num_heads, self.num_key_heads
            ));
        }
        if !self.head_width.is_multiple_of(2) {
            return Err(format!("head_dim {} is odd: its coordinates cannot turn in pairs", self.head_width));
        }
        let special = self.eos_token_ids.iter().chain(&self.bos_token_id);
        match special.into_iter().find(|id| **id as usize >= self.vocab_size) {
            Some(id) => Err(format!("the special token {id} is outside the vocabulary of {}", self.vocab_size)),
            None => Ok(()),
        }
    }

    /// The same model with a head of its own.
    #[must_use]
    pub(in crate::model) fn with_own_head(&self) -> Self {
        Self { tie_word_embeddings: false, ..self.clone() }
    }

    /// See [`crate::model::Config::dropout_rate`].
    pub(in crate::model) fn dropout_rate(&self) -> f64 {
        self.raw.get("attention_dropout").and_then(Value::as_f64).unwrap_or(0.0)
    }

    /// The file's text: everything that was read, with what was resolved, in the dtype of the weights beside it.
    pub(in crate::model) fn to_json(&self, dtype: &str) -> String {
        let resolved = serde_json::json!({
            "architectures": [self.family.architecture()],
            "num_key_value_heads": self.num_key_heads,
            "head_dim": self.head_width,
            "rms_norm_eps": self.epsilon,
            "tie_word_embeddings": self.tie_word_embeddings,
            "eos_token_id": ids(&self.eos_token_ids),
        });
        written(&self.raw, dtype, resolved)
    }

    /// The text of a `generation_config.json` that says nothing but the special tokens.
    pub(in crate::model) fn generation_json(&self) -> String {
        let mut said = serde_json::json!({ "eos_token_id": ids(&self.eos_token_ids) });
        if let Some(bos) = self.bos_token_id {
            said["bos_token_id"] = bos.into();
        }
        format!("{said:#}\n")
    }
}

/// One id as a number, several as a list.
fn ids(ids: &[u32]) -> Value {
    match ids {
        [one] => (*one).into(),
        several => several.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"{"model_type":"llama","vocab_size":9,"hidden_size":8,"intermediate_size":12,
        "num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"custom":[1]}"#;

    fn parse(text: &str) -> Result<Config> {
        match crate::model::Config::parse(text)? {
            crate::model::Config::Llama(config) => Ok(config),
            crate::model::Config::T5(_) => Err("a T5".into()),
        }
    }

    #[test]
    fn what_a_file_leaves_out_is_as_in_transformers() {
        let config = parse(MINIMAL).expect("valid");
        assert_eq!((config.head_width, config.epsilon, &config.eos_token_ids[..]), (2, 1e-6, &[2][..]));
        assert!(!config.tie_word_embeddings && !config.biased);
        let written = config.to_json("float32");
        assert!(written.contains("custom") && written.contains("\"eos_token_id\": 2"), "{written}");
        assert_eq!(parse(&written).expect("reads back").to_json("float32"), written);
        let qwen = parse(&MINIMAL.replace("llama", "qwen2").replace("\"custom\":[1]", "\"eos_token_id\":[3,4]"));
        let qwen = qwen.expect("valid");
        assert!(qwen.biased && !qwen.biased_output && qwen.eos_token_ids == [3, 4]);
        assert_eq!(parse(&MINIMAL.replace("llama", "qwen3")).expect("valid").head_width, 128);
    }

    #[test]
    fn what_is_not_supported_is_refused_with_a_reason() {
        for (from, to, said) in [
            ("\"llama\"", "\"mistral\"", "model_type `mistral`"),
            ("\"hidden_size\":8,", "", "hidden_size"),
            ("\"num_key_value_heads\":2", "\"num_key_value_heads\":3", "no multiple of num_key_value_heads 3"),
            ("\"custom\":[1]", "\"hidden_act\":\"gelu\"", "hidden_act `gelu`"),
            ("\"custom\":[1]", "\"mlp_bias\":true", "mlp_bias"),
            ("\"custom\":[1]", "\"use_sliding_window\":true", "use_sliding_window"),
            ("\"custom\":[1]", "\"eos_token_id\":9", "outside the vocabulary"),
            ("\"custom\":[1]", "\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}", "`dynamic`"),
        ] {
            let problem = parse(&MINIMAL.replacen(from, to, 1)).expect_err(said);
            assert!(problem.contains(said), "{problem}");
        }
    }
}
