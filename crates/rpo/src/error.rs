//! Everything that can go wrong, said so that a person knows which file, tensor or field to look at.

use std::path::{Path, PathBuf};

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Any error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}: {cause}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// A file or directory that is not what it should be.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// Which field, tensor or part, what was expected and what was found, and what to do.
        problem: String,
    },
    /// A row of data that is unusable.
    #[error("{}, {place}: {problem}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Line or row, from 1.
        place: String,
        /// Which field, what is wrong and what to do.
        problem: String,
    },
    /// Something that must not exist yet does.
    #[error("{} already exists; choose another output directory or remove it", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// Something that another program uses.
    #[error("{} is in use by {who}; wait for it to end, or stop it", path.display())]
    InUse {
        /// The file or directory.
        path: PathBuf,
        /// Who uses it.
        who: String,
    },
    /// A model was not found locally or on the hub.
    #[error("no model `{name}`: {problem}")]
    NoModel {
        /// Path or hub id as given.
        name: String,
        /// What was tried.
        problem: String,
    },
    /// A setting with an impossible value.
    #[error("{field}: {problem}")]
    Setting {
        /// The setting's name as written in the configuration file.
        field: &'static str,
        /// What is wrong with it, and what is allowed.
        problem: String,
    },
    /// Data on which the chosen objective is not defined.
    #[error("{0}")]
    Data(String),
    /// A training step that must not be applied.
    #[error("step {step}: {problem}")]
    Step {
        /// Optimizer step, counted from 1.
        step: usize,
        /// What is wrong.
        problem: String,
    },
    /// A judge that cannot be asked, or does not reply.
    #[error("the judge {judge}: {problem}")]
    Judge {
        /// What it is called.
        judge: String,
        /// What it said or did, and what to do.
        problem: String,
    },
    /// A device that failed to compute or to return numbers.
    #[error("cannot read a tensor back from its device: {0}")]
    Device(String),
    /// A device whose numbers are not those of the CPU.
    #[error(
        "{device} does not compute what the CPU does: {problem}. Nothing was computed with it; see all with `rpo doctor --device \
         {device}`, update its driver, or use --device cpu"
    )]
    Untrusted {
        /// Its name.
        device: String,
        /// What differs, by how much, and how much would be rounding.
        problem: String,
    },
    /// A pass or a run was stopped from outside (see [`crate::stop::Stop`]) before it was done.
    #[error("stopped")]
    Stopped,
    /// A failure of one of several processes that work together.
    #[error("rank {rank} ({place}): {problem}")]
    Rank {
        /// Which of them.
        rank: usize,
        /// Where it runs.
        place: String,
        /// What failed there.
        problem: String,
    },
    /// Processes that do not reach or do not understand each other.
    #[error("the processes of this run cannot work together: {0}")]
    World(String),
    /// A prompt that cannot be written for the model: what is wrong with it, and what to do.
    #[error("{0}")]
    Prompt(String),
    /// A text that a tokenizer cannot encode, or ids that it cannot decode.
    #[error("tokenizer: {0}")]
    Text(String),
    /// Something that the hub did not take or do.
    #[error("{what}: {problem}")]
    Hub {
        /// What was asked of it, with the address.
        what: String,
        /// What it answered, and what to do.
        problem: String,
    },
}

impl Error {
    /// [`Error::Read`] for `path`.
    pub(crate) fn read(path: &Path, cause: std::io::Error) -> Self {
        Self::Read { path: path.into(), cause }
    }

    /// [`Error::Write`] for `path`.
    pub(crate) fn write(path: &Path, cause: std::io::Error) -> Self {
        Self::Write { path: path.into(), cause }
    }

    /// [`Error::File`] for `path`.
    pub(crate) fn file(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::File { path: path.into(), problem: problem.into() }
    }
}
