//! Reward Partitioning Optimization (RPO, arXiv 2506.13702): alignment of language models from scalar feedback.
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
//! | [`model`] | the models by family, and Hugging Face directories in and out |
//! | [`score`] | log-probabilities of responses: the only place that computes them |
//! | [`reference`](mod@reference) | what the reference model says of responses and prompts, cached on disk |
//! | [`objective`] | RPO and its rivals, one file each |
//! | [`train`] | the only training loop, with optimizers and the record of a run |
//! | [`generate`] | answers to prompts |
//! | [`evaluate`] | what a policy is worth: rankings, and a problem that can be solved exactly |
//! | [`diagnostics`] | whether a policy gets better or worse, beside its loss |
//! | [`statistics`] | intervals, rank correlations, win rates |
//! | [`stop`] | ending a pass or a run early |
//! | [`store`] | writing whole files or nothing |

pub mod advice;
pub mod batch;
pub mod diagnostics;
pub mod error;
pub mod evaluate;
pub mod feedback;
pub mod generate;
mod host;
pub mod inspect;
pub mod model;
pub mod objective;
pub mod reference;
pub mod score;
pub mod statistics;
pub mod stop;
pub mod store;
pub mod tokenizer;
pub mod train;

pub use error::{Error, Result};

/// The engine, for devices and tensors.
pub use burn;
/// For programs that train on the CPU.
pub use rpo_ops::keep_freed_memory;
