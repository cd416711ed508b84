//! The small files that belong to a model beside its weights. They are read once, when a checkpoint is opened, and held: what is saved
//! hours later has them, whatever has become of the directory since. It knows nothing of what stands in them.

use std::collections::BTreeMap;
use std::path::Path;

use super::names::{COMPANIONS, TOKENIZER_CONFIG};
use crate::error::Result;
use crate::store::files::write_file;
use crate::store::within;

/// Files by their names.
#[derive(Debug, Default)]
pub(super) struct Companions(BTreeMap<&'static str, Vec<u8>>);

impl Companions {
    /// Those in `dir`, of which all may be missing.
    ///
    /// # Errors
    /// If one is there and cannot be read, is no plain file of that directory, or is larger than any real one.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        for name in COMPANIONS {
            if let Some(bytes) = within::read_if_there(&dir.join(name), within::VOCABULARY)? {
                files.insert(name, bytes);
            }
        }
        Ok(Self(files))
    }

    /// Whether one of them is called `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Writes them to `dir`.
    ///
    /// # Errors
    /// If one cannot be written.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        self.0.keys().try_for_each(|name| self.write_one(name, dir))
    }

    /// Writes that called `name` to `dir`, if there is one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn write_one(&self, name: &str, dir: &Path) -> Result<()> {
        match self.0.get(name) {
            Some(bytes) if name == TOKENIZER_CONFIG => write_file(&dir.join(name), &readable_by_all(bytes)),
            Some(bytes) => write_file(&dir.join(name), bytes),
            None => Ok(()),
        }
    }
}

/// A `tokenizer_config.json` that transformers 4 and 5 both read: 5 writes class names and lists that stop 4.
fn readable_by_all(bytes: &[u8]) -> Vec<u8> {
    let Ok(serde_json::Value::Object(mut settings)) = serde_json::from_slice(bytes) else { return bytes.to_vec() };
    let mut changed = Vec::new();
    if settings.get("tokenizer_class").and_then(|c| c.as_str()) == Some("TokenizersBackend") {
        settings.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
        changed.push("tokenizer_class");
    }
    if settings.get("extra_special_tokens").is_some_and(serde_json::Value::is_array)
        && let Some(tokens) = settings.remove("extra_special_tokens")
    {
        settings.insert("additional_special_tokens".into(), tokens);
        changed.push("extra_special_tokens");
    }
    match (changed.is_empty(), serde_json::to_vec_pretty(&settings)) {
        (false, Ok(written)) => {
            tracing::debug!(
                "{TOKENIZER_CONFIG}: {} written so that transformers 4 reads it too",
                changed.join(" and ")
            );
            written
        }
        _ => bytes.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_tokenizer_are_written_for_all_versions_of_transformers() {
        let new =
            br#"{"tokenizer_class":"TokenizersBackend","extra_special_tokens":["<extra_id_0>"],"eos_token":"</s>"}"#;
        let written: serde_json::Value = serde_json::from_slice(&readable_by_all(new)).expect("JSON");
        assert_eq!(written["tokenizer_class"], "PreTrainedTokenizerFast");
        assert_eq!(written["additional_special_tokens"][0], "<extra_id_0>");
        assert!(written.get("extra_special_tokens").is_none() && written["eos_token"] == "</s>");
        let old = br#"{"tokenizer_class": "T5Tokenizer"}"#;
        assert_eq!(readable_by_all(old), old);
    }
}
