//! What lies on disk and on the hub: files that are whole or not there, tensors by name. It knows nothing of models or runs.

pub mod checksums;
pub mod files;
pub mod hub;
pub(crate) mod lock;
pub mod push;
pub(crate) mod shards;
pub(crate) mod tensors;
pub(crate) mod within;

/// The text of a file that the user named, or that this program wrote: settings, records, tables.
///
/// # Errors
/// If it cannot be read, is not UTF-8, or is larger than 256 MiB.
pub fn text_of(path: &std::path::Path) -> crate::Result<String> {
    within::given_text(path, within::VOCABULARY)
}
