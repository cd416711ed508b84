//! Reward Partitioning Optimization (RPO, arXiv 2506.13702): alignment of T5 models from scalar feedback.
//!
//! The types tell the story:
//!
//! ```text
//! Feedback -> PromptGroup -> PackedBatch -> Scores -> Loss
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`feedback`] | rows of `(prompt, response, reward)` from files, grouped by prompt |
//! | [`mod@inspect`] | what a file of feedback holds |
//! | [`advice`] | what it is fit for, and what would do harm |
//! | [`tokenizer`] | text to token ids and back |
//! | [`batch`] | prompts and responses laid end to end, each prompt once |
//! | [`t5`] | the model |
//! | [`score`] | log-probabilities of responses: the only place that computes them |
//! | [`reference`](mod@reference) | log-probabilities under the reference model, cached on disk |
//! | [`features`] | what the reference's encoder says of prompts |
//! | [`objective`] | RPO and its rivals, one file each |
//! | [`optim`] | AdamW, Adafactor, the learning-rate schedule |
//! | [`train`] | the only training loop |
//! | [`mod@recompute`] | gradients in less memory |
//! | [`sample`] | generation |
//! | [`checkpoint`] | Hugging Face directories in and out |
//! | [`finite`] | a problem that can be solved exactly, to judge objectives on |
//! | [`diagnostics`] | whether a policy gets better or worse, beside its loss |
//! | [`statistics`] | intervals, rank correlations, win rates |
//! | [`metrics`], [`tensorboard`] | the record of a run |
//! | [`stop`] | ending a pass or a run early |
//! | [`files`] | writing whole files or nothing |

pub mod advice;
pub mod batch;
pub mod checkpoint;
pub mod diagnostics;
pub mod error;
pub mod features;
pub mod feedback;
pub mod files;
pub mod finite;
mod host;
pub mod inspect;
pub mod metrics;
pub mod objective;
pub mod optim;
mod parts;
pub mod recompute;
pub mod reference;
pub mod sample;
pub mod score;
pub mod statistics;
pub mod stop;
pub mod t5;
mod tensor_file;
pub mod tensorboard;
pub mod tokenizer;
pub mod train;

pub use error::{Error, Result};

/// The engine, for devices and tensors.
pub use burn;
/// For programs that train on the CPU.
pub use rpo_ops::keep_freed_memory;
