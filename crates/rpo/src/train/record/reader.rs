//! Token ids as people read them.

use std::collections::HashMap;

use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// Turns answers into texts, and prompts into the user's own texts where these are known.
#[derive(Clone, Debug)]
pub struct Reader {
    tokenizer: Tokenizer,
    /// By token ids.
    own: HashMap<Vec<u32>, String>,
}

impl Reader {
    /// A reader that knows no texts of the user's.
    pub fn new(tokenizer: Tokenizer) -> Self {
        Self { tokenizer, own: HashMap::new() }
    }

    /// The same one, which knows the texts of these prompts.
    #[must_use]
    pub fn with_prompts(mut self, own: impl IntoIterator<Item = (Vec<u32>, String)>) -> Self {
        self.own.extend(own);
        self
    }

    /// A prompt as the user wrote it, or else as its tokens say.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub fn prompt(&self, ids: &[u32]) -> Result<String> {
        self.own.get(ids).map_or_else(|| self.tokenizer.decode(ids), |text| Ok(text.clone()))
    }

    /// An answer.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub fn answer(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer.decode(ids)
    }
}
