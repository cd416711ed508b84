//! The Hugging Face hub and its local cache: whether the hub may be asked, and with whose token.

use hf_hub::Cache;
use hf_hub::api::sync::{Api, ApiBuilder};

/// Whether `HF_HUB_OFFLINE` forbids to ask the hub.
pub(crate) fn is_offline() -> bool {
    is_set("HF_HUB_OFFLINE")
}

/// Whether a variable of the environment is set to something else than 0.
pub(crate) fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| value != "0")
}

/// The local cache, where the environment says that it is.
pub(crate) fn cache() -> Cache {
    Cache::from_env()
}

/// The hub, with the token of `HF_TOKEN` or of a login.
///
/// # Errors
/// If it cannot be prepared.
pub(crate) fn api() -> Result<Api, String> {
    ApiBuilder::from_env().with_token(token()).build().map_err(|e| e.to_string())
}

/// The token of `HF_TOKEN` or of a login.
pub(crate) fn token() -> Option<String> {
    std::env::var("HF_TOKEN").ok().filter(|token| !token.is_empty()).or_else(|| cache().token())
}

/// A file of a model that lies in the hub's local cache.
pub fn cached(model: &str, file: &str) -> Option<std::path::PathBuf> {
    cache().model(model.into()).get(file)
}
