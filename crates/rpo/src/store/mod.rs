//! What lies on disk and on the hub: files that are whole or not there, tensors by name. It knows nothing of models or runs.

pub mod checksums;
pub mod files;
pub mod hub;
pub(crate) mod lock;
pub mod push;
pub(crate) mod shards;
pub(crate) mod tensors;
pub(crate) mod within;
