//! Models and adapters as directories that transformers and PEFT read.

use std::fs;
use std::path::Path;

use burn::tensor::Device;

use super::companions::Companions;
use super::names::{CONFIG, GENERATION, TOKENIZER};
use super::{Checkpoint, check_vocabulary};
use crate::error::{Error, Result};
use crate::model::lora::{self, Lora};
use crate::model::{Config, Model, NamedParameters, RandomWeights};
use crate::store::checksums;
use crate::store::files::{replace_dir, write_file};
use crate::store::shards::{self, StoredAs};
use crate::tokenizer::Tokenizer;

/// Makes a fresh model: weights decided by `seed`, tokenizer copied from `tokenizer`.
///
/// # Errors
/// If `out` exists, tokenizer and configuration do not fit, or writing fails.
pub fn init(config: &Config, tokenizer: &Path, seed: u64, stored_as: StoredAs, out: &Path) -> Result<usize> {
    if out.exists() {
        return Err(Error::Exists { path: out.into() });
    }
    let source =
        if tokenizer.is_dir() { tokenizer.to_path_buf() } else { tokenizer.parent().unwrap_or(tokenizer).into() };
    check_vocabulary(&Tokenizer::load(tokenizer)?, config, tokenizer)?;
    let companions = Companions::read(&source)?;
    let model = Model::new(config, &mut RandomWeights::new(seed), &Device::flex())?;
    replace_dir(out, |dir| {
        companions.write(dir)?;
        if tokenizer.is_file() {
            let json = fs::read(tokenizer).map_err(|e| Error::read(tokenizer, e))?;
            write_file(&dir.join(TOKENIZER), &json)?;
        }
        write_model(&model, stored_as, dir)?;
        checksums::write(dir)
    })?;
    Ok(model.parameters().iter().map(|p| p.shape.iter().product::<usize>()).sum())
}

/// Saves `model`, adapters merged, as a Hugging Face directory at `out`, with the tokenizer files of the model it came from; what
/// stood there before stays until the new one is complete. `more` may add files.
///
/// # Errors
/// If writing fails; then `out` is as it was.
pub fn save(
    model: &Model,
    origin: &Checkpoint,
    stored_as: StoredAs,
    out: &Path,
    more: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    replace_dir(out, |dir| write_whole(model, origin, stored_as, dir, more))
}

/// Fills the new directory `dir` as [`save`] does, with the checksums of all that is in it.
pub(crate) fn write_whole(
    model: &Model,
    origin: &Checkpoint,
    stored_as: StoredAs,
    dir: &Path,
    more: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    write_companions(origin, dir)?;
    write_model(model, stored_as, dir)?;
    more(dir)?;
    checksums::write(dir)
}

fn write_model(model: &Model, stored_as: StoredAs, dir: &Path) -> Result<()> {
    let dtype = match stored_as {
        StoredAs::F32 => "float32",
        StoredAs::Bf16 => "bfloat16",
        StoredAs::F16 => "float16",
    };
    write_file(&dir.join(CONFIG), model.config().to_json(dtype).as_bytes())?;
    // transformers 5 looks for the special tokens here alone.
    if !dir.join(GENERATION).exists() {
        write_file(&dir.join(GENERATION), model.config().generation_json().as_bytes())?;
    }
    shards::write(lora::merged(model), stored_as, dir)
}

/// Saves the adapters of `model` as a directory at `out` that PEFT reads, with the tokenizer files of the model that they
/// change; otherwise as [`save`].
///
/// # Errors
/// If writing fails; then `out` is as it was.
pub fn save_adapter(
    model: &Model,
    lora: &Lora,
    origin: &Checkpoint,
    out: &Path,
    more: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    replace_dir(out, |dir| write_adapter(model, lora, origin, dir, more))
}

/// Fills the new directory `dir` as [`save_adapter`] does, with the checksums of all that is in it.
pub(crate) fn write_adapter(
    model: &Model,
    lora: &Lora,
    origin: &Checkpoint,
    dir: &Path,
    more: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    write_companions(origin, dir)?;
    lora.write(model, origin.name(), dir)?;
    more(dir)?;
    checksums::write(dir)
}

/// Writes the tokenizer that `from` uses, with all that belongs to it, and its generation settings to `dir`, as they were when it was
/// opened: of an adapter its own or, failing that, those of what it changes.
///
/// # Errors
/// If a file cannot be written.
fn write_companions(from: &Checkpoint, dir: &Path) -> Result<()> {
    from.with_tokenizer().companions.write(dir)?;
    let mut chain = std::iter::successors(Some(from), |checkpoint| checkpoint.base.as_deref());
    let settled = chain.find(|checkpoint| checkpoint.companions.has(GENERATION));
    settled.map_or(Ok(()), |checkpoint| checkpoint.companions.write_one(GENERATION, dir))
}
