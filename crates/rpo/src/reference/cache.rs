//! What is computed under one reference, kept on disk under a fingerprint of all that decides it.

use std::path::{Path, PathBuf};

use super::parts::Parts;
use crate::error::{Error, Result};
use crate::feedback::{FeedbackSet, Split};
use crate::host::bytes;
use crate::model::{Compute, Model, NamedParameters};
use crate::store::files::{make_dir, rename, sync};
use crate::store::lock::Lock;
use crate::store::tensors::{read_checked, write_checked};
use crate::world::World;

/// Version of the cache; raised when the same inputs give other results.
const VERSION: &str = "rpo reference scores 3";

/// Where what is computed under one reference is kept between runs. The weights are hashed once for all that is asked of it.
#[derive(Clone, Debug)]
pub struct ReferenceCache {
    dir: PathBuf,
    /// What the names of all files have in common has gone into it.
    of_model: blake3::Hasher,
}

impl ReferenceCache {
    /// The cache in `dir` of what is computed under `model`. A name there is a hash of the weights and configuration, of the
    /// token ids (and with them of data, tokenizer and truncation), and of the device and number format of the computation.
    ///
    /// # Errors
    /// If the device fails.
    pub fn new(dir: &Path, model: &Model) -> Result<Self> {
        let model = &model.inference();
        let mut of_model = blake3::Hasher::new();
        of_model.update(VERSION.as_bytes());
        of_model.update(format!("{:?}", model.device()).as_bytes());
        if model.compute() == Compute::Bf16 {
            of_model.update(b"products in bf16, weights dithered");
        }
        update_with_model(&mut of_model, model)?;
        Ok(Self { dir: dir.into(), of_model })
    }

    /// The file of what is computed on `split`.
    pub(crate) fn path(&self, split: &Split, ending: &str) -> PathBuf {
        let mut hasher = self.of_model.clone();
        let mut ids = |ids: &[u32]| {
            hasher.update(&ids.len().to_le_bytes());
            ids.iter().for_each(|id| {
                hasher.update(&id.to_le_bytes());
            });
        };
        let sets: [&FeedbackSet; 2] = [&split.train, &split.validation];
        for group in sets.iter().flat_map(|set| &set.groups) {
            ids(&group.prompt);
            for response in &group.responses {
                ids(&[response.row as u32]);
                ids(&response.ids);
            }
        }
        self.dir.join(format!("{}.{ending}", hasher.finalize().to_hex()))
    }
}

/// Where results come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    /// They were in the cache.
    Found,
    /// They were computed and left there.
    Left,
    /// They were computed, and the cache could not be written, which was told.
    Failed,
}

/// [`kept`] of one number a row, where several ranks compute: the first finds or keeps them, and all go through `complete` if
/// something is to be computed, with what the first has of it already.
///
/// # Errors
/// Those of `complete` and of [`kept`], on all ranks.
pub(crate) fn kept_together(
    world: &dyn World,
    path: &Path,
    name: &str,
    n: usize,
    complete: impl FnOnce(&mut Parts) -> Result<()>,
) -> Result<(Vec<f32>, Cached)> {
    if world.size() == 1 {
        return kept(path, name, n, 1, complete);
    }
    // What is known where something is to be computed, and what came of it, as the first rank has it.
    let known = |first: Option<Vec<(usize, f32)>>| world.once(|| Ok(first));
    let found_by_first = |first: Result<Vec<f32>>| world.once(|| first);
    if !world.leads() {
        if let Some(known) = known(None)? {
            let mut parts = Parts::new(n, 1);
            known.iter().for_each(|(row, value)| parts.put(&[*row], &[*value]));
            complete(&mut parts)?;
        }
        return Ok((found_by_first(Ok(Vec::new()))?, Cached::Found));
    }
    // Whether the others compute too, and whether that failed, which they know then.
    let (mut begun, mut failed) = (false, false);
    let found = kept(path, name, n, 1, |parts| {
        begun = true;
        let all = known(Some(parts.known())).and_then(|_| complete(parts));
        failed = all.is_err();
        all
    });
    if failed {
        return found;
    }
    if !begun {
        known(None)?;
    }
    match found {
        Ok((values, cached)) => Ok((found_by_first(Ok(values))?, cached)),
        Err(problem) => found_by_first(Err(problem)).map(|values| (values, Cached::Failed)),
    }
}

/// Takes the `n` rows of `width` numbers of tensor `name` from the file at `path`, or lets `complete` compute what is missing
/// and leaves them there. One program computes at a time; others that want the same wait for it.
pub(crate) fn kept(
    path: &Path,
    name: &str,
    n: usize,
    width: usize,
    complete: impl FnOnce(&mut Parts) -> Result<()>,
) -> Result<(Vec<f32>, Cached)> {
    let find =
        || path.exists().then(|| read_checked(name, n * width, path).and_then(|values| finite(values, width, path)));
    if let Some(Ok(values)) = find() {
        return Ok((values, Cached::Found));
    }
    let dir = path.parent().unwrap_or(path);
    let (log, locked) = (path.with_extension("parts"), path.with_extension("lock"));
    let waits = |who: &str| tracing::warn!("{who} computes the same scores of the reference; waiting for it");
    let opened = make_dir(dir).and_then(|()| Lock::wait(&locked, waits));
    let lock =
        opened.inspect_err(|problem| tracing::warn!("{problem}; what is computed is not kept for other runs")).ok();
    match find() {
        Some(Ok(values)) => return Ok((values, Cached::Found)),
        Some(Err(problem)) => tracing::warn!("{problem}; computing it again"),
        None => {}
    }
    let kept = lock.is_some().then(|| Parts::kept_in(&log, n, width)).and_then(|kept| {
        kept.inspect_err(|problem| tracing::warn!("{problem}; what is computed is not kept for other runs")).ok()
    });
    let writable = kept.is_some();
    let mut parts = kept.unwrap_or_else(|| Parts::new(n, width));
    complete(&mut parts)?;
    let values = finite(parts.into_values(), width, path).map_err(|_| {
        // What is not a number is never taken up again.
        let _ = std::fs::remove_file(&log);
        Error::Data(
            "the reference's scores of the data are not all finite numbers: its weights are damaged, or it cannot be computed in \
             this precision; try --precision f32, or another copy of the model"
                .into(),
        )
    })?;
    if !writable {
        return Ok((values, Cached::Failed));
    }
    let partial = path.with_extension("partial");
    let written =
        write_checked(name, &values, &partial).and_then(|()| sync(&partial)).and_then(|()| rename(&partial, path));
    if let Err(problem) = written {
        tracing::warn!("{problem}; what was computed is not kept for other runs");
        let _ = std::fs::remove_file(&partial);
        return Ok((values, Cached::Failed));
    }
    // Who waits for the lock finds the scores. The lock is still held while its file goes.
    for done in [&log, &locked] {
        let _ = std::fs::remove_file(done);
    }
    drop(lock);
    Ok((values, Cached::Left))
}

/// `values`, if all of them are finite.
fn finite(values: Vec<f32>, width: usize, path: &Path) -> Result<Vec<f32>> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(at) => Err(Error::file(path, format!("row {} holds {}", at / width.max(1) + 1, values[at]))),
    }
}

/// A hash of a model's weights and configuration, in hexadecimal: the same on every device.
///
/// # Errors
/// If the device fails.
pub fn model_fingerprint(model: &Model) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    update_with_model(&mut hasher, model)?;
    Ok(hasher.finalize().to_hex().to_string())
}

fn update_with_model(hasher: &mut blake3::Hasher, model: &Model) -> Result<()> {
    hasher.update(model.config().to_json("float32").as_bytes());
    for parameter in model.parameters() {
        hasher.update(format!("{} {:?}", parameter.name, parameter.shape).as_bytes());
        hasher.update_rayon(&bytes(parameter.values)?);
    }
    Ok(())
}
