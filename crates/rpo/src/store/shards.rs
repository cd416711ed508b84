//! Named tensors in a directory: one `model.safetensors`, or several files with their index, as Hugging Face has them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use half::{bf16, f16};
use safetensors::{Dtype, View};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::files::write_file;
use super::tensors::{Parameter, TensorFile, Unread, write_safetensors};
use crate::error::{Error, Result};
use crate::host::host;

pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// What to do with weights in another format, which may run code when it is read.
pub(crate) const CONVERT: &str = "Weights in PyTorch's own format must be converted to safetensors first; load \
    them with transformers' class for the model, .from_pretrained(NAME), and save them, .save_pretrained(DIR)";
/// Files larger than this are split, as transformers does.
const SHARD_BYTES: usize = 5_000_000_000;

/// Number format of stored weights. Computation is in `f32` whatever the file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StoredAs {
    /// 32-bit floats.
    #[default]
    F32,
    /// bfloat16: half the size, eight bits of precision.
    Bf16,
    /// 16-bit floats; T5's larger weights may overflow when other programs compute in them.
    F16,
}

/// A tensor that is to be stored, whose values are asked for only when it is its turn.
pub(crate) struct Stored {
    /// Its key.
    pub(crate) name: String,
    /// Its dimensions.
    pub(crate) shape: Vec<usize>,
    /// Its values in row-major order.
    pub(crate) values: Box<dyn Fn() -> Tensor<1>>,
}

impl From<Parameter> for Stored {
    fn from(Parameter { name, shape, values }: Parameter) -> Self {
        Self { name, shape, values: Box::new(move || values.clone()) }
    }
}

/// Writes one file, or shards with their index.
///
/// # Errors
/// If a tensor cannot be read back from its device or a file not written.
pub(crate) fn write(tensors: Vec<Stored>, stored_as: StoredAs, dir: &Path) -> Result<()> {
    write_shards(tensors, stored_as, SHARD_BYTES, dir)
}

/// One file, or shards of at most `shard_bytes` with their index.
pub(crate) fn write_shards(tensors: Vec<Stored>, stored_as: StoredAs, shard_bytes: usize, dir: &Path) -> Result<()> {
    let unread = Unread::default();
    let converted = |tensor| Converted { tensor, format: stored_as, unread: &unread };
    let tensors: Vec<Converted> = tensors.into_iter().map(converted).collect();
    let total: usize = tensors.iter().map(View::data_len).sum();
    let mut shards: Vec<Vec<Converted>> = vec![Vec::new()];
    let mut used = 0;
    for tensor in tensors {
        let bytes = tensor.data_len();
        if used > 0 && used + bytes > shard_bytes {
            shards.push(Vec::new());
            used = 0;
        }
        used += bytes;
        let last = shards.len() - 1;
        shards[last].push(tensor);
    }
    let n = shards.len();
    let mut weight_map = BTreeMap::new();
    for (i, shard) in shards.into_iter().enumerate() {
        let file = if n == 1 { SINGLE.to_string() } else { format!("model-{:05}-of-{n:05}.safetensors", i + 1) };
        weight_map.extend(shard.iter().map(|t| (t.tensor.name.clone(), file.clone())));
        write_safetensors(shard.into_iter().map(|t| (t.tensor.name.clone(), t)), &dir.join(file))?;
    }
    if n > 1 {
        let index = serde_json::json!({"metadata": {"total_size": total}, "weight_map": weight_map});
        write_file(&dir.join(INDEX), format!("{index:#}\n").as_bytes())?;
    }
    unread.result()
}

/// Writes one file.
///
/// # Errors
/// As [`write`].
pub(crate) fn write_single(tensors: Vec<Stored>, stored_as: StoredAs, path: &Path) -> Result<()> {
    let unread = Unread::default();
    let converted = |tensor: Stored| (tensor.name.clone(), Converted { tensor, format: stored_as, unread: &unread });
    write_safetensors(tensors.into_iter().map(converted), path)?;
    unread.result()
}

/// A tensor on its way into a file, converted only when it is its turn.
struct Converted<'a> {
    tensor: Stored,
    format: StoredAs,
    unread: &'a Unread,
}

impl View for Converted<'_> {
    fn dtype(&self) -> Dtype {
        match self.format {
            StoredAs::F32 => Dtype::F32,
            StoredAs::Bf16 => Dtype::BF16,
            StoredAs::F16 => Dtype::F16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let bytes = host((self.tensor.values)()).and_then(|values| {
            let (bytes, largest): (Vec<u8>, f32) = match self.format {
                StoredAs::F32 => (values.iter().flat_map(|v| v.to_le_bytes()).collect(), f32::MAX),
                StoredAs::Bf16 => {
                    (values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(), bf16::MAX.to_f32())
                }
                StoredAs::F16 => {
                    (values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(), f16::MAX.to_f32())
                }
            };
            match values.iter().find(|value| value.is_finite() && value.abs() > largest) {
                None => Ok(bytes),
                Some(value) => Err(Error::Data(format!(
                    "tensor `{}` holds {value}, beyond what this number format can, {largest}; store it as bf16 or f32",
                    self.tensor.name
                ))),
            }
        });
        self.unread.bytes(bytes, self.data_len())
    }

    fn data_len(&self) -> usize {
        let bytes = if self.format == StoredAs::F32 { 4 } else { 2 };
        self.tensor.shape.iter().product::<usize>() * bytes
    }
}

/// The tensors of a directory, in one file or several.
pub(crate) struct Shards {
    dir: PathBuf,
    files: Vec<TensorFile>,
    /// File of each tensor that was not taken yet.
    left: BTreeMap<String, usize>,
}

impl Shards {
    /// # Errors
    /// If there is no file of tensors, or one that cannot be read.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let names = match (dir.join(SINGLE).is_file(), dir.join(INDEX).is_file()) {
            (true, _) => vec![SINGLE.to_string()],
            (false, true) => names(&dir.join(INDEX))?,
            (false, false) => {
                let old = if dir.join("pytorch_model.bin").is_file() {
                    format!("; it has a pytorch_model.bin. {CONVERT}")
                } else {
                    String::new()
                };
                return Err(Error::file(dir, format!("no {SINGLE} and no {INDEX}{old}")));
            }
        };
        let files = names.iter().map(|name| TensorFile::open(&dir.join(name))).collect::<Result<Vec<_>>>()?;
        let left = files.iter().enumerate().flat_map(|(i, f)| f.names().into_iter().map(move |n| (n, i))).collect();
        Ok(Self { dir: dir.into(), files, left })
    }

    /// The names of all tensors that were not taken yet.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.left.keys().map(String::as_str)
    }

    /// Values of `name`, if it is stored; it stays to be taken.
    pub(crate) fn read(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>> {
        self.left.get(name).map_or(Ok(None), |&file| self.files[file].read(name, shape))
    }

    /// Takes the first of `names` that is stored.
    ///
    /// # Errors
    /// If none is, or it has another shape.
    pub(crate) fn take(&mut self, names: &[&str], shape: &[usize]) -> Result<Vec<f32>> {
        for name in names {
            if let Some(file) = self.left.remove(*name)
                && let Some(values) = self.files[file].read(name, shape)?
            {
                return Ok(values);
            }
        }
        let name = names.first().copied().unwrap_or_default();
        Err(Error::file(&self.dir, format!("tensor `{name}` of shape {shape:?} is missing")))
    }

    /// Checks that all tensors were taken but those that `may_stay`.
    ///
    /// # Errors
    /// How many were not, and the first of them.
    pub(crate) fn check_all_taken(&self, may_stay: impl Fn(&str) -> bool) -> Result<()> {
        let unexpected: Vec<&String> = self.left.keys().filter(|name| !may_stay(name)).collect();
        match unexpected.first() {
            None => Ok(()),
            Some(first) => Err(Error::file(
                &self.dir,
                format!("{} tensors that config.json has no place for, the first being `{first}`", unexpected.len()),
            )),
        }
    }
}

/// The names of the files that an index lists.
pub(crate) fn names(index: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = fs::read_to_string(index).map_err(|e| Error::read(index, e))?;
    let parsed: Index =
        serde_json::from_str(&text).map_err(|e| Error::file(index, format!("not an index of shards: {e}")))?;
    let mut names: Vec<String> = parsed.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    Ok(names)
}
