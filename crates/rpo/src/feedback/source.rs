//! What a user names as data: one file or several, read as one set.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::rows::{FeedbackError, Result};

/// Where rated responses come from; in settings a text or a list of texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OneOrSeveral", into = "OneOrSeveral")]
pub struct Source {
    named: Vec<String>,
}

#[derive(Clone, Serialize, Deserialize)]
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
    /// The files to read, in order, at least one.
    pub(super) fn files(&self) -> Result<Vec<PathBuf>> {
        match self.named.is_empty() {
            true => Err(FeedbackError::Empty { path: "an empty list of files".into() }),
            false => Ok(self.named.iter().map(PathBuf::from).collect()),
        }
    }
}
