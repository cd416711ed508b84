//! Everything that can go wrong, said so that a person knows which file, tensor or field to look at.

use std::path::{Path, PathBuf};

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Any error of this crate.
#[derive(Debug, thiserror::Error)]
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
    /// A `config.json` that we cannot use.
    #[error("{}: {problem}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A checkpoint's weights that we cannot use.
    #[error("{}: {problem}", path.display())]
    Weights {
        /// The file or directory.
        path: PathBuf,
        /// Which tensor, what was expected and what was found.
        problem: String,
    },
    /// Something that must not exist yet does.
    #[error("{} already exists; choose another output directory or remove it", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
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
    /// A device that failed to compute or to return numbers.
    #[error("cannot read a tensor back from its device: {0}")]
    Device(String),
    /// A pass or a run was stopped from outside (see [`crate::stop::Stop`]) before it was done.
    #[error("stopped")]
    Stopped,
    /// Feedback that cannot be read.
    #[error(transparent)]
    Feedback(#[from] crate::feedback::FeedbackError),
    /// A tokenizer that cannot be read or used.
    #[error(transparent)]
    Tokenizer(#[from] crate::tokenizer::TokenizerError),
    /// Decoding settings with an impossible value.
    #[error(transparent)]
    Processor(#[from] crate::sample::ProcessorError),
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

    /// [`Error::Weights`] for `path`.
    pub(crate) fn weights(path: &Path, problem: impl Into<String>) -> Self {
        Self::Weights { path: path.into(), problem: problem.into() }
    }
}
