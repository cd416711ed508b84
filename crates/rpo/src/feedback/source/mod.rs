//! What a user names as data: files, directories, patterns and data sets of the hub, read as one set.

mod choose;
mod hub;

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::records::extension;
use crate::error::{Error, Result};
use hub::DataSet;

/// The file that `-` stands for.
pub(super) const STANDARD_INPUT: &str = "/dev/stdin";

/// Where rated responses come from; in settings a text or a list of texts.
///
/// Each names a file, a directory (its data files, of which those for training if they are told apart), a pattern such as
/// `data/train-*.parquet`, `-` for standard input, or a data set of the hub: `owner/name`, `owner/name@revision`,
/// `hf://datasets/owner/name/path`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "OneOrSeveral", into = "OneOrSeveral")]
pub struct Source {
    named: Vec<String>,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum OneOrSeveral {
    One(String),
    Several(Vec<String>),
}

impl From<OneOrSeveral> for Source {
    fn from(named: OneOrSeveral) -> Self {
        match named {
            OneOrSeveral::One(name) => Self { named: vec![name] },
            OneOrSeveral::Several(named) => Self { named },
        }
    }
}

impl From<Source> for OneOrSeveral {
    fn from(mut source: Source) -> Self {
        match source.named.len() {
            1 => Self::One(source.named.remove(0)),
            _ => Self::Several(source.named),
        }
    }
}

impl From<Vec<String>> for Source {
    fn from(named: Vec<String>) -> Self {
        Self { named }
    }
}

impl From<&Path> for Source {
    fn from(path: &Path) -> Self {
        Self { named: vec![path.display().to_string()] }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.named.join(", "))
    }
}

impl Source {
    /// Whether the file at `path` is among those that are read.
    ///
    /// # Errors
    /// If there is nothing to read.
    pub fn reads(&self, path: &Path) -> Result<bool> {
        let Ok(path) = fs::canonicalize(path) else { return Ok(false) };
        Ok(self.files()?.iter().any(|file| fs::canonicalize(file).is_ok_and(|file| file == path)))
    }

    /// The files to read, in order, at least one; those of the hub are downloaded, if they are not in its local cache.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>> {
        if self.named.is_empty() {
            return Err(Error::Data("an empty list of files: there is nothing to read".into()));
        }
        let mut files = Vec::new();
        for name in &self.named {
            files.extend(named(name)?);
        }
        let mut seen = HashSet::new();
        match files.iter().find(|file| !seen.insert(fs::canonicalize(file).unwrap_or_else(|_| (*file).clone()))) {
            Some(twice) => Err(bad(twice, "named twice: its rows would count double; name it once".into())),
            None => Ok(files),
        }
    }

    /// The same source, with the revision that a data set of the hub has now, so that it can be found again.
    ///
    /// # Errors
    /// If the hub does not tell the revision and its local cache does not hold the data set.
    pub fn pinned(&self) -> Result<Self> {
        let pin = |name: &String| match DataSet::of(name).filter(|_| !Path::new(name).exists()) {
            Some(set) => set.pinned().map_err(|problem| bad(Path::new(name), problem)),
            None => Ok(name.clone()),
        };
        Ok(Self { named: self.named.iter().map(pin).collect::<Result<_>>()? })
    }
}

fn bad(path: &Path, problem: String) -> Error {
    Error::File { path: path.into(), problem }
}

/// The files that one name stands for.
fn named(name: &str) -> Result<Vec<PathBuf>> {
    let path = Path::new(name);
    if name == "-" {
        return Ok(vec![STANDARD_INPUT.into()]);
    }
    if path.is_dir() {
        return directory(path);
    }
    if path.exists() {
        return Ok(vec![path.into()]);
    }
    if let Some(set) = DataSet::of(name) {
        return set.files().map_err(|problem| bad(path, problem));
    }
    if name.starts_with("hf://") {
        return Err(bad(path, "not the address of a data set, which is hf://datasets/OWNER/NAME@REVISION/PATH".into()));
    }
    if name.contains("://") {
        return Err(bad(path, "an address, from which nothing is read; download the file and name it".into()));
    }
    match name.contains(['*', '?', '[']) {
        true => pattern(name),
        // The system says it best.
        false => match fs::metadata(path) {
            Err(cause) => Err(Error::Read { path: path.into(), cause }),
            Ok(_) => Ok(vec![path.into()]),
        },
    }
}

/// The data files of a directory.
fn directory(dir: &Path) -> Result<Vec<PathBuf>> {
    let names = list(dir).map_err(|cause| Error::Read { path: dir.into(), cause })?;
    let choice = choose::choose(&names).map_err(|problem| bad(dir, problem))?;
    if let Some(said) = &choice.said {
        tracing::info!("{}: {said}", dir.display());
    }
    Ok(choice.files.iter().map(|name| dir.join(name)).collect())
}

/// The plain files below `dir`, as paths from it with slashes.
fn list(dir: &Path) -> io::Result<Vec<String>> {
    let (mut names, mut left) = (Vec::new(), MOST);
    list_below(dir, "", &mut names, &mut left, 0)?;
    Ok(names)
}

/// Directories are gone into so deep, which also ends those that links lead back into.
const DEEPEST: usize = 8;
/// So much is looked at below a directory.
const MOST: usize = 1_000_000;

fn list_below(dir: &Path, below: &str, names: &mut Vec<String>, left: &mut usize, depth: usize) -> io::Result<()> {
    for entry in fs::read_dir(dir.join(below))? {
        *left = left.checked_sub(1).ok_or_else(|| {
            io::Error::other(format!("more than {MOST} files and directories are in it; name those that hold data"))
        })?;
        let name = entry?.file_name().to_string_lossy().into_owned();
        let name = if below.is_empty() { name } else { format!("{below}/{name}") };
        match fs::metadata(dir.join(&name)) {
            Ok(kind) if kind.is_dir() => {
                if depth < DEEPEST && !choose::is_hidden(&name) {
                    list_below(dir, &name, names, left, depth + 1)?;
                }
            }
            // Of a link that leads nowhere, reading it tells.
            Err(_) => names.push(name),
            Ok(kind) if kind.is_file() => names.push(name),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// The files that a pattern matches; a directory that it matches stands for its data files.
fn pattern(pattern: &str) -> Result<Vec<PathBuf>> {
    let path = Path::new(pattern);
    let matches = glob::glob(pattern).map_err(|e| bad(path, format!("not a pattern of file names: {e}")))?;
    let mut found: Vec<PathBuf> =
        matches.collect::<std::result::Result<_, _>>().map_err(|e| bad(path, format!("cannot be searched: {e}")))?;
    found.sort_by(|a, b| choose::naturally(&a.to_string_lossy(), &b.to_string_lossy()));
    let mut files = Vec::new();
    for path in found {
        match path.is_dir() {
            true => files.extend(directory(&path)?),
            false => files.push(path),
        }
    }
    match files.is_empty() {
        true => Err(bad(path, "no file matches this pattern".into())),
        false => Ok(files),
    }
}
