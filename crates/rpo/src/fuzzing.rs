//! Ways for the fuzz targets (`fuzz/`) to parsers that are no part of the library's interface. Compiled for them alone
//! (`--cfg fuzzing`).

use std::path::Path;

use crate::error::Result;
use crate::evaluate::judge::completion;
use crate::feedback::{FeedbackSet, ReadSummary, kept};
use crate::model::peft::Adapter;
use crate::reference::parts::Parts;
use crate::store::tensors::{TensorFile, read_checked};
use crate::store::{checksums, shards};

/// Name, shape and values of each tensor of a safetensors file, or what is wrong with it; the outer error is that of the file.
///
/// # Errors
/// If the file is no safetensors file.
pub fn tensors(path: &Path) -> Result<Vec<(String, Vec<usize>, Result<Vec<f32>>)>> {
    let mut file = TensorFile::open(path)?;
    let names = file.names();
    let read = |name: String| {
        let shape = file.shape(&name).unwrap_or_default().to_vec();
        let values = file.read(&name, &shape).map(Option::unwrap_or_default);
        (name, shape, values)
    };
    Ok(names.into_iter().map(read).collect())
}

/// The `n` numbers in a file of the reference cache.
///
/// # Errors
/// If they are not what was left there.
pub fn reference_scores(path: &Path, n: usize) -> Result<Vec<f32>> {
    read_checked("log_probs", n, path)
}

/// Compares the files in `dir` with their checksums.
///
/// # Errors
/// If one is not what was saved, or the file of checksums holds something else.
pub fn checksums(dir: &Path) -> Result<()> {
    checksums::verify(dir, checksums::Holds::Model, |_| true)
}

/// The files that an index of shards names.
///
/// # Errors
/// If it is no such index.
pub fn shard_index(path: &Path) -> Result<Vec<String>> {
    shards::names(path)
}

/// The model that the adapter in `dir` changes.
///
/// # Errors
/// If its settings are not those of an adapter that is supported.
pub fn adapter_base(dir: &Path) -> Result<String> {
    Adapter::base(dir)
}

/// What is known of `n` rows of `width` numbers by the file of an unfinished pass over the reference: all numbers, and whether each row is known.
///
/// # Errors
/// If the file cannot be read or written.
pub fn reference_parts(path: &Path, n: usize, width: usize) -> Result<(Vec<f32>, Vec<bool>)> {
    let parts = Parts::kept_in(path, n, width)?;
    let known = (0..n).map(|row| parts.have(&[row])).collect();
    Ok((parts.into_values(), known))
}

/// The tokenized data that are kept in a file.
pub fn kept_tokens(path: &Path) -> Option<(FeedbackSet, ReadSummary)> {
    kept::find(path)
}

/// Keeps tokenized data in a file.
///
/// # Errors
/// If it cannot be written.
pub fn keep_tokens(path: &Path, (set, summary): &(FeedbackSet, ReadSummary)) -> Result<()> {
    kept::keep(path, set, summary)
}

/// The text and the likeliest tokens of a reply of a server of chat completions.
pub fn completion(body: &str) -> Option<(String, Vec<Vec<(String, f64)>>)> {
    completion::read(body).ok().map(|completion| (completion.text, completion.tokens))
}
