//! Text to token ids and back, by a Hugging Face `tokenizer.json`. It knows nothing of models or feedback.

use std::path::{Path, PathBuf};

use tokenizers::Tokenizer as Inner;

/// A tokenizer that cannot be read or used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file cannot be read or is no tokenizer.
    #[error("{}: not a usable tokenizer.json: {problem}", path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A text could not be encoded or ids not decoded.
    #[error("tokenizer: {0}")]
    Apply(String),
}

/// Token ids of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Ids, ended by `</s>` unless truncated.
    pub ids: Vec<u32>,
    /// Whether the text was longer than allowed; then there is no `</s>`, for the text does not end here.
    pub truncated: bool,
    /// How many ids are `<unk>`.
    pub unknown: usize,
}

/// A tokenizer with the special tokens that T5 needs.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Inner,
    pad: u32,
    eos: u32,
    unk: Option<u32>,
}

impl Tokenizer {
    /// Loads `path`, a `tokenizer.json` or a directory that holds one.
    ///
    /// # Errors
    /// If the file is missing or malformed, or has no `<pad>` or `</s>`.
    pub fn load(path: &Path) -> Result<Self, TokenizerError> {
        let path = if path.is_dir() { path.join("tokenizer.json") } else { path.to_path_buf() };
        let bad = |problem: String| TokenizerError::Load { path: path.clone(), problem };
        let bytes = std::fs::read(&path).map_err(|e| bad(e.to_string()))?;
        let mut inner = Inner::from_bytes(bytes).map_err(|e| bad(e.to_string()))?;
        // Length limits stored in the file would cut in front of `</s>` and add it back; ours must not fake an end.
        inner.with_truncation(None).map_err(|e| bad(e.to_string()))?;
        inner.with_padding(None);
        let id = |token: &str| inner.token_to_id(token).ok_or_else(|| bad(format!("it has no token `{token}`")));
        let (pad, eos, unk) = (id("<pad>")?, id("</s>")?, inner.token_to_id("<unk>"));
        Ok(Self { inner, pad, eos, unk })
    }

    /// Encodes `text` in at most `max_tokens` ids.
    ///
    /// # Errors
    /// If the tokenizer's own model fails on the text.
    pub fn encode(&self, text: &str, max_tokens: usize) -> Result<Encoded, TokenizerError> {
        let encoding = self.inner.encode_fast(text, true).map_err(|e| TokenizerError::Apply(e.to_string()))?;
        let mut ids = encoding.get_ids().to_vec();
        if ids.last() != Some(&self.eos) {
            ids.push(self.eos);
        }
        let truncated = ids.len() > max_tokens;
        ids.truncate(max_tokens);
        let unknown = ids.iter().filter(|&&id| Some(id) == self.unk).count();
        Ok(Encoded { ids, truncated, unknown })
    }

    /// The text of `ids`, without special tokens.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        self.inner.decode(ids, true).map_err(|e| TokenizerError::Apply(e.to_string()))
    }

    /// The text of `ids` with special tokens spelled out.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub fn decode_with_special(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        self.inner.decode(ids, false).map_err(|e| TokenizerError::Apply(e.to_string()))
    }

    /// Number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Id of `<pad>`.
    pub fn pad_id(&self) -> u32 {
        self.pad
    }

    /// Id of `</s>`.
    pub fn eos_id(&self) -> u32 {
        self.eos
    }
}
