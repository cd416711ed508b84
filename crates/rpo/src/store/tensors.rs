//! Safetensors files, read one tensor at a time by name and written one tensor at a time. It knows nothing of models.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use half::{bf16, f16};
use safetensors::tensor::{Metadata, TensorInfo, TensorView};
use safetensors::{Dtype, View};

use super::within;
use crate::error::{Error, Result};
use crate::host::bytes;

/// Most bytes of a header, as safetensors' own library has it.
const HEADER: u64 = 100_000_000;
/// Most dimensions of a tensor.
const RANK: usize = 8;
/// Most bytes of a tensor's name.
const NAME: usize = 1024;

/// One parameter, outside any graph.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// The checkpoint's key.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its values in row-major order.
    pub values: Tensor<1>,
}

/// Writes named tensors; transformers insists on the `format` entry.
pub(crate) fn write_safetensors<V: View>(tensors: impl Iterator<Item = (String, V)>, path: &Path) -> Result<()> {
    write_noted(tensors, ["format", "pt"], path)
}

/// Writes named tensors with a note and its name.
fn write_noted<V: View>(tensors: impl Iterator<Item = (String, V)>, note: [&str; 2], path: &Path) -> Result<()> {
    let [name, text] = note.map(str::to_string);
    let metadata = HashMap::from([(name, text)]);
    // The library writes a temporary file that only its owner may read; give it the permissions of any new file.
    let ordinary = File::create(path).and_then(|f| f.metadata()).map_err(|e| Error::write(path, e))?.permissions();
    safetensors::serialize_to_file(tensors, Some(metadata), path).map_err(|e| match e {
        safetensors::SafeTensorError::IoError(e) => Error::write(path, e),
        other => Error::file(path, other.to_string()),
    })?;
    fs::set_permissions(path, ordinary).map_err(|e| Error::write(path, e))
}

/// Writes plain numbers as the only tensor, `name`, of a file.
pub(crate) fn write_values(name: &str, values: &[f32], path: &Path) -> Result<()> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![values.len()], &bytes).map_err(|e| Error::file(path, e.to_string()))?;
    write_safetensors(std::iter::once((name.to_string(), view)), path)
}

/// [`write_values`] with a checksum, which [`read_checked`] compares.
pub(crate) fn write_checked(name: &str, values: &[f32], path: &Path) -> Result<()> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![values.len()], &bytes).map_err(|e| Error::file(path, e.to_string()))?;
    write_noted(std::iter::once((name.to_string(), view)), [CHECKSUM, &checksum(values)], path)
}

/// The `n` numbers of [`write_checked`].
///
/// # Errors
/// If they are not what was written.
pub(crate) fn read_checked(name: &str, n: usize, path: &Path) -> Result<Vec<f32>> {
    let mut file = TensorFile::open(path)?;
    let missing = || Error::file(path, format!("tensor `{name}` is missing"));
    let values = file.read(name, &[n])?.ok_or_else(missing)?;
    let noted = file.metadata.metadata().as_ref().and_then(|notes| notes.get(CHECKSUM));
    match noted == Some(&checksum(&values)) {
        true => Ok(values),
        false => Err(Error::file(path, format!("tensor `{name}` is damaged: its checksum is another"))),
    }
}

/// The note that holds a checksum.
const CHECKSUM: &str = "blake3";

fn checksum(values: &[f32]) -> String {
    let mut hasher = blake3::Hasher::new();
    values.iter().for_each(|value| {
        hasher.update(&value.to_le_bytes());
    });
    hasher.finalize().to_hex().to_string()
}

/// Writes vectors that lie on a device, each read only when it is its turn.
pub(crate) fn write_flat(named: Vec<(String, Tensor<1>)>, path: &Path) -> Result<()> {
    let unread = Unread::default();
    let flat = named.into_iter().map(|(name, values)| {
        let shape = values.dims();
        (name, Flat { values, shape, unread: &unread })
    });
    write_safetensors(flat, path)?;
    unread.result()
}

/// Takes note of a tensor that could not be read while a file was written, which has no place for such an error.
#[derive(Default)]
pub(crate) struct Unread(OnceCell<Error>);

impl Unread {
    /// The bytes, or, where there are none, as many zeros as there should be: [`Unread::result`] then refuses the file.
    pub(crate) fn bytes(&self, read: Result<Vec<u8>>, length: usize) -> Cow<'static, [u8]> {
        Cow::Owned(read.unwrap_or_else(|problem| {
            let _ = self.0.set(problem);
            vec![0; length]
        }))
    }

    /// # Errors
    /// The first that was noted: what was written is not to be used.
    pub(crate) fn result(self) -> Result<()> {
        self.0.into_inner().map_or(Ok(()), Err)
    }
}

/// A vector on its way into a file.
struct Flat<'a> {
    values: Tensor<1>,
    shape: [usize; 1],
    unread: &'a Unread,
}

impl View for Flat<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.unread.bytes(bytes(self.values.clone()), self.data_len())
    }

    fn data_len(&self) -> usize {
        self.shape[0] * 4
    }
}

/// Whether a tensor may be called so.
fn is_name(name: &str) -> bool {
    (1..=NAME).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// Where the first of `values` that is no finite number stands in a tensor of this shape, as `[row, column]`, and what it is.
pub(crate) fn bad_number(values: &[f32], shape: &[usize]) -> Option<(String, f32)> {
    let mut at = values.iter().position(|value| !value.is_finite())?;
    let value = values[at];
    let mut place: Vec<usize> = Vec::new();
    for size in shape.iter().rev() {
        place.push(at % size);
        at /= size;
    }
    place.reverse();
    Some((format!("{place:?}"), value))
}

/// The tensors of a safetensors file, found by name and read one at a time.
pub(crate) struct TensorFile {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    /// Where the tensors' bytes begin.
    start: u64,
}

impl TensorFile {
    /// Opens the file at `path`, a plain one of its directory, and reads what tensors it holds.
    ///
    /// # Errors
    /// If it is no such file, has a header that is malformed or too large, or if its tensors are not laid end to end through all of
    /// it, each as large as its shape and type say; the message names the tensor where it is one.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let io = |e| Error::read(path, e);
        let bad = |problem: String| Error::file(path, problem);
        let mut file = within::open(path)?;
        let size = file.metadata().map_err(io)?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|_| bad("not a safetensors file: shorter than its header".into()))?;
        let header = u64::from_le_bytes(length);
        if header > size.saturating_sub(8) {
            return Err(bad(format!(
                "not a safetensors file, or cut short: a header of {header} bytes in a file of {size}"
            )));
        }
        if header > HEADER {
            return Err(bad(format!("a header of {header} bytes, of which a safetensors file has at most {HEADER}")));
        }
        let mut text = Vec::new();
        file.by_ref().take(header).read_to_end(&mut text).map_err(io)?;
        // Reading it so, the library checks that tensors follow each other without gap or overlap, and that each has as many bytes as
        // its shape and type say.
        let metadata: Metadata = serde_json::from_slice(&text).map_err(|e| bad(format!("unreadable header: {e}")))?;
        let start = 8 + header;
        let end = |info: &TensorInfo| start.saturating_add(info.data_offsets.1 as u64);
        let tensors = metadata.tensors();
        if let Some(name) = tensors.keys().find(|name| !is_name(name)) {
            let shown: String = name.chars().take(40).flat_map(char::escape_default).collect();
            return Err(bad(format!(
                "a tensor is called `{shown}`, which is no name: empty, too long, or not to be shown"
            )));
        }
        if let Some((name, info)) = tensors.iter().find(|(_, info)| info.shape.len() > RANK) {
            return Err(bad(format!("tensor `{name}` has {} dimensions; at most {RANK} are read", info.shape.len())));
        }
        if let Some((name, info)) = tensors.iter().filter(|(_, i)| end(i) > size).min_by_key(|(_, i)| i.data_offsets.0)
        {
            return Err(bad(format!(
                "cut short: tensor `{name}` should end at byte {} but the file has {size}; copy or download it again",
                end(info)
            )));
        }
        let last = start.saturating_add(metadata.data_len() as u64);
        if last < size {
            return Err(bad(format!(
                "its tensors end at byte {last} but the file has {size}: what follows belongs to none; copy or download it again"
            )));
        }
        Ok(Self { path: path.into(), file, metadata, start })
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// The dimensions of `name`, if there is such a tensor.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.metadata.info(name).map(|info| info.shape.as_slice())
    }

    /// Values of `name` as `f32`, or `None` if there is no such tensor.
    pub(crate) fn read(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>> {
        let Some(info) = self.metadata.info(name).cloned() else { return Ok(None) };
        if info.shape != shape {
            let problem = format!("tensor `{name}` has shape {:?}, but config.json calls for {shape:?}", info.shape);
            return Err(Error::file(&self.path, problem));
        }
        let (from, to) = info.data_offsets;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(to - from).map_err(|_| {
            Error::file(&self.path, format!("tensor `{name}` has {} bytes, for which there is no memory", to - from))
        })?;
        bytes.resize(to - from, 0);
        let io = |e| Error::read(&self.path, e);
        self.file.seek(SeekFrom::Start(self.start + from as u64)).map_err(io)?;
        self.file.read_exact(&mut bytes).map_err(io)?;
        let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
        match info.dtype {
            Dtype::F32 => {
                Ok(Some(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()))
            }
            Dtype::BF16 => Ok(Some(pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect())),
            Dtype::F16 => Ok(Some(pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect())),
            other => Err(Error::file(
                &self.path,
                format!("tensor `{name}` is stored as {other:?}; expected F32, BF16 or F16"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn a_tensor_that_could_not_be_read_is_an_error_and_never_an_empty_file() {
        let unread = Unread::default();
        assert_eq!(unread.bytes(Ok(vec![1, 2]), 2).as_ref(), [1, 2]);
        assert_eq!(unread.bytes(Err(Error::Device("lost".into())), 4).as_ref(), [0; 4]);
        assert!(unread.result().expect_err("noted").to_string().contains("lost"));
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("x.safetensors");
        write_flat(vec![("a".into(), Tensor::from_floats([1.5, -2.0], &Device::flex()))], &path).expect("written");
        assert_eq!(TensorFile::open(&path).expect("file").read("a", &[2]).expect("f32"), Some(vec![1.5, -2.0]));
    }
}
