//! The shape of an encoder, read from a Hugging Face `config.json`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::model::limits;

/// Which kind of encoder a model is; they differ in names, in how positions are counted and in the head of a classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// BERT (arXiv 1810.04805).
    Bert,
    /// RoBERTa (arXiv 1907.11692), XLM-RoBERTa and CamemBERT: positions count from the one after the padding's id.
    Roberta,
    /// DistilBERT (arXiv 1910.01108): BERT without token types and pooler.
    DistilBert,
}

impl Family {
    const ALL: [(&'static str, Self); 5] = [
        ("bert", Self::Bert),
        ("roberta", Self::Roberta),
        ("xlm-roberta", Self::Roberta),
        ("camembert", Self::Roberta),
        ("distilbert", Self::DistilBert),
    ];
}

/// What the middle of a feed-forward layer goes through (`hidden_act`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// With the error function.
    Gelu,
    /// `max(x, 0)`.
    Relu,
}

/// How a classifier's logits become probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probabilities {
    /// Exactly one label is true.
    Softmax,
    /// Each label is true or not by itself.
    Sigmoid,
}

/// What decides what an encoder computes.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Which kind of encoder.
    pub family: Family,
    /// Rows of the table of tokens.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Layers of the whole model.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the feed-forward layers.
    pub d_ff: usize,
    /// What their middle goes through.
    pub activation: Activation,
    /// Rows of the table of positions.
    pub positions: usize,
    /// Rows of the table of token types, the first of which every token gets.
    pub token_types: usize,
    /// Added to the variance in all norms.
    pub epsilon: f64,
    /// Token that fills padding.
    pub pad: u32,
    /// The labels of a classifier, by number.
    pub labels: Vec<String>,
    /// How its logits become probabilities, as transformers' pipeline for texts decides it.
    pub probabilities: Probabilities,
}

/// The fields as the file spells them, with transformers' defaults.
#[derive(Deserialize)]
struct Raw {
    vocab_size: usize,
    #[serde(alias = "dim")]
    hidden_size: usize,
    #[serde(alias = "n_layers")]
    num_hidden_layers: usize,
    #[serde(alias = "n_heads")]
    num_attention_heads: usize,
    #[serde(alias = "hidden_dim")]
    intermediate_size: usize,
    #[serde(alias = "activation")]
    hidden_act: Option<String>,
    max_position_embeddings: usize,
    type_vocab_size: Option<usize>,
    layer_norm_eps: Option<f64>,
    pad_token_id: Option<u32>,
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
    #[serde(default)]
    id2label: BTreeMap<usize, String>,
    problem_type: Option<String>,
}

impl Config {
    /// Parses the text of a `config.json`.
    ///
    /// # Errors
    /// What is wrong, as a sentence without the file's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let raw: Value = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
        let model_type = raw["model_type"].as_str().unwrap_or_default().to_string();
        let Some((_, family)) = Family::ALL.into_iter().find(|(name, _)| *name == model_type) else {
            let found =
                if model_type.is_empty() { "no model_type".into() } else { format!("model_type `{model_type}`") };
            let known: Vec<_> = Family::ALL.iter().map(|(name, _)| format!("`{name}`")).collect();
            return Err(format!("{found}, but an encoder is needed; supported are {}", known.join(", ")));
        };
        let raw: Raw = serde_json::from_value(raw).map_err(|e| e.to_string())?;
        let activation = match raw.hidden_act.as_deref() {
            None | Some("gelu") => Activation::Gelu,
            Some("relu") => Activation::Relu,
            Some(other) => return Err(format!("hidden_act `{other}`, but only `gelu` and `relu` are supported")),
        };
        if let Some(other) = raw.position_embedding_type.filter(|kind| kind != "absolute") {
            return Err(format!("position_embedding_type `{other}`, but only `absolute` is supported"));
        }
        if raw.is_decoder {
            return Err("is_decoder is true, but a model whose tokens see all of their text is needed".into());
        }
        let distil = family == Family::DistilBert;
        let pad = raw.pad_token_id.unwrap_or(u32::from(family == Family::Roberta));
        let probabilities = match raw.problem_type.as_deref() {
            Some("regression") => return Err("problem_type `regression`, but probabilities are needed".into()),
            Some("multi_label_classification") => Probabilities::Sigmoid,
            _ if raw.id2label.len() == 1 => Probabilities::Sigmoid,
            _ => Probabilities::Softmax,
        };
        let labels: Vec<String> = match raw.id2label.is_empty() {
            true => vec!["LABEL_0".into(), "LABEL_1".into()],
            false if raw.id2label.keys().copied().eq(0..raw.id2label.len()) => raw.id2label.into_values().collect(),
            false => return Err("id2label does not number its labels from 0 without a gap".into()),
        };
        let config = Self {
            family,
            vocab_size: raw.vocab_size,
            d_model: raw.hidden_size,
            layers: raw.num_hidden_layers,
            heads: raw.num_attention_heads,
            d_ff: raw.intermediate_size,
            activation,
            positions: raw.max_position_embeddings,
            token_types: if distil { 0 } else { raw.type_vocab_size.unwrap_or(2) },
            epsilon: if distil { 1e-12 } else { raw.layer_norm_eps.unwrap_or(1e-12) },
            pad,
            labels,
            probabilities,
        };
        config.check().map(|()| config)
    }

    fn check(&self) -> Result<(), String> {
        let width = ("hidden_size", self.d_model);
        limits::sizes(&[
            ("vocab_size", self.vocab_size, limits::VOCABULARY),
            ("hidden_size", self.d_model, limits::WIDTH),
            ("num_hidden_layers", self.layers, limits::LAYERS),
            ("num_attention_heads", self.heads, limits::HEADS),
            ("intermediate_size", self.d_ff, limits::FEED_FORWARD),
            ("max_position_embeddings", self.positions, limits::VOCABULARY),
            ("type_vocab_size", self.token_types.max(1), limits::VOCABULARY),
        ])?;
        limits::matrix(("vocab_size", self.vocab_size), width)?;
        limits::matrix(("max_position_embeddings", self.positions), width)?;
        limits::matrix(("type_vocab_size", self.token_types), width)?;
        limits::matrix(("intermediate_size", self.d_ff), width)?;
        limits::epsilon("layer_norm_eps", self.epsilon)?;
        if !self.d_model.is_multiple_of(self.heads) {
            let Self { d_model, heads, .. } = self;
            return Err(format!("hidden_size {d_model} is no multiple of num_attention_heads {heads}"));
        }
        if self.positions < self.first_position() + 3 {
            return Err(format!("max_position_embeddings {} leaves no room for a text", self.positions));
        }
        Ok(())
    }

    /// The row of a text's first token in the table of positions.
    fn first_position(&self) -> usize {
        if self.family == Family::Roberta { self.pad as usize + 1 } else { 0 }
    }

    /// Tokens of the longest text that it reads, those that begin and end it among them.
    pub fn longest(&self) -> usize {
        self.positions - self.first_position()
    }

    /// The rows of the tokens of a text in the table of positions. RoBERTa does not count padding, not even where a text spells it
    /// out.
    pub(super) fn places(&self, ids: &[u32]) -> Vec<u32> {
        let mut next = self.first_position() as u32;
        let place = |id: &u32| {
            if self.family == Family::Roberta && *id == self.pad {
                return self.pad;
            }
            next += 1;
            next - 1
        };
        ids.iter().map(place).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: &str = r#""vocab_size":9,"hidden_size":8,"num_hidden_layers":2,"num_attention_heads":2,
        "intermediate_size":12,"max_position_embeddings":20"#;

    fn with(fields: &str) -> Result<Config, String> {
        Config::parse(&format!("{{{SHAPE},{fields}}}"))
    }

    #[test]
    fn positions_of_roberta_follow_the_padding() {
        let roberta = with(r#""model_type":"roberta""#).expect("valid");
        assert_eq!((roberta.places(&[0, 5, 1, 6, 2]), roberta.longest()), (vec![2, 3, 1, 4, 5], 18));
        let bert = with(r#""model_type":"bert""#).expect("valid");
        assert_eq!((bert.places(&[2, 0, 3]), bert.longest()), (vec![0, 1, 2], 20));
    }

    #[test]
    fn what_the_pipeline_makes_of_logits() {
        let of = |fields: &str| with(&format!(r#""model_type":"bert",{fields}"#)).expect("valid").probabilities;
        assert_eq!(of(r#""id2label":{"0":"a","1":"b"}"#), Probabilities::Softmax);
        assert_eq!(of(r#""id2label":{"0":"a"}"#), Probabilities::Sigmoid);
        let multi = r#""id2label":{"0":"a","1":"b"},"problem_type":"multi_label_classification""#;
        assert_eq!(of(multi), Probabilities::Sigmoid);
        let labels: String = (0..11).map(|i| format!(r#","{i}":"label {i}""#)).collect();
        let many = with(&format!(r#""model_type":"bert","id2label":{{{}}}"#, &labels[1..])).expect("valid");
        assert_eq!(many.labels[10], "label 10");
    }

    #[test]
    fn what_cannot_be_computed_is_refused() {
        for (fields, word) in [
            (r#""model_type":"t5""#, "encoder is needed"),
            (r#""model_type":"bert","hidden_act":"gelu_new""#, "hidden_act"),
            (r#""model_type":"bert","position_embedding_type":"relative_key""#, "relative_key"),
            (r#""model_type":"bert","is_decoder":true"#, "is_decoder"),
            (r#""model_type":"bert","id2label":{"1":"a"}"#, "id2label"),
            (r#""model_type":"bert","problem_type":"regression""#, "regression"),
        ] {
            let said = with(fields).expect_err("refused");
            assert!(said.contains(word), "{said}");
        }
    }
}
