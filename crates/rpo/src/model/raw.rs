//! What a `config.json` says as it stands.

use serde_json::{Map, Value};

/// The text of a `config.json`: what was read, with what was `resolved` in its place, in the dtype of the weights beside it.
pub(super) fn written(raw: &Map<String, Value>, dtype: &str, resolved: Value) -> String {
    let mut raw = raw.clone();
    // transformers 4.x reads `torch_dtype`, 5.x `dtype`; keep whichever is there and write one that both accept.
    raw.remove("dtype");
    raw.insert("torch_dtype".into(), dtype.into());
    if let Value::Object(resolved) = resolved {
        raw.extend(resolved);
    }
    let mut text = serde_json::to_string_pretty(&raw).unwrap_or_default();
    text.push('\n');
    text
}
