//! Named tensors in a directory: one `model.safetensors`, or several files with their index, as Hugging Face has them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use half::{bf16, f16};
use rpo_ops::dither;
use safetensors::{Dtype, View};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::files::write_file;
use super::tensors::{Parameter, TensorFile, Unread, bad_number, write_safetensors};
use super::within;
use crate::error::{Error, Result};
use crate::host::host;

pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// What to do with weights in another format, which may run code when it is read.
pub(crate) const CONVERT: &str = "Weights in PyTorch's own format must be converted to safetensors first; load \
    them with transformers' class for the model, .from_pretrained(NAME), and save them, .save_pretrained(DIR)";
/// Files larger than this are split, as transformers does.
const SHARD_BYTES: usize = 5_000_000_000;
/// Most files that an index may list, all of which are open together.
const SHARDS: usize = 1000;

/// Number format of stored weights. Changes that are smaller than its steps are kept in the mean over weights, not each by itself.
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
        let width = self.tensor.shape.last().copied().unwrap_or(1);
        let bytes = host((self.tensor.values)()).and_then(|values| {
            let (bytes, largest): (Vec<u8>, f32) = match self.format {
                StoredAs::F32 => (values.iter().flat_map(|v| v.to_le_bytes()).collect(), f32::MAX),
                StoredAs::Bf16 => {
                    (dither::to_bf16(&values, width).flat_map(bf16::to_le_bytes).collect(), bf16::MAX.to_f32())
                }
                StoredAs::F16 => {
                    (dither::to_f16(&values, width).flat_map(f16::to_le_bytes).collect(), f16::MAX.to_f32())
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
        let is_there = |name| within::is_there(&dir.join(name));
        let names = match (is_there(SINGLE), is_there(INDEX)) {
            (true, _) => vec![SINGLE.to_string()],
            (false, true) => names(&dir.join(INDEX))?,
            (false, false) => {
                let old = if is_there("pytorch_model.bin") {
                    format!("; it has a pytorch_model.bin. {CONVERT}")
                } else {
                    String::new()
                };
                return Err(Error::file(dir, format!("no {SINGLE} and no {INDEX}{old}")));
            }
        };
        let files = names.iter().map(|name| TensorFile::open(&dir.join(name))).collect::<Result<Vec<_>>>()?;
        let mut left: BTreeMap<String, usize> = BTreeMap::new();
        for (i, file) in files.iter().enumerate() {
            for name in file.names() {
                if let Some(first) = left.insert(name.clone(), i) {
                    let problem = format!("tensor `{name}` is also in {}; which one is meant?", names[first]);
                    return Err(Error::file(file.path(), problem));
                }
            }
        }
        Ok(Self { dir: dir.into(), files, left })
    }

    /// The names of all tensors that were not taken yet.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.left.keys().map(String::as_str)
    }

    /// Values of `name`, if it is stored; it stays to be taken.
    ///
    /// # Errors
    /// If it has another shape, cannot be read, or holds a value that is no finite number.
    pub(crate) fn read(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>> {
        let Some(&file) = self.left.get(name) else { return Ok(None) };
        let values = self.files[file].read(name, shape)?;
        match values.as_ref().and_then(|values| bad_number(values, shape)) {
            None => Ok(values),
            Some((place, value)) => {
                let problem =
                    format!("tensor `{name}` holds {value} at {place}: the model is broken; get it once more");
                Err(Error::file(self.files[file].path(), problem))
            }
        }
    }

    /// Takes the first of `names` that is stored.
    ///
    /// # Errors
    /// If none is, and those of [`Self::read`].
    pub(crate) fn take(&mut self, names: &[&str], shape: &[usize]) -> Result<Vec<f32>> {
        for name in names {
            if let Some(values) = self.read(name, shape)? {
                self.left.remove(*name);
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

/// The names of the files that an index lists, which lie beside it.
///
/// # Errors
/// If it cannot be read, lists nothing or too many, or names what is no file of tensors beside it.
pub(crate) fn names(index: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = within::read(index, within::VOCABULARY)?;
    let parsed: Index =
        serde_json::from_slice(&text).map_err(|e| Error::file(index, format!("not an index of shards: {e}")))?;
    let mut names: Vec<String> = parsed.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    if let Some(name) = names.iter().find(|name| !within::is_plain_name(name) || !name.ends_with(".safetensors")) {
        let shown: String = name.chars().take(80).flat_map(char::escape_default).collect();
        let problem = format!("weight_map names `{shown}`, where only files NAME.safetensors beside it may be named");
        return Err(Error::file(index, problem));
    }
    match names.len() {
        0 => Err(Error::file(index, "weight_map names no file")),
        n if n > SHARDS => Err(Error::file(index, format!("weight_map names {n} files; at most {SHARDS} are read"))),
        _ => Ok(names),
    }
}
