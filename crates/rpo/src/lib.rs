//! Reward Partitioning Optimization (RPO, arXiv 2506.13702): alignment of language models from scalar feedback.
//!
//! The types tell the story:
//!
//! ```text
//! Feedback -> PromptGroup -> PackedBatch -> Scores -> Loss
//! ```
//!
//! From rated rows to an answer:
//!
//! ```
//! use rpo::burn::tensor::Device;
//! use rpo::feedback::{Feedback, FeedbackSet, Limits};
//! use rpo::generate::{Decoding, generate};
//! use rpo::model::{Config, Model, RandomWeights};
//! use rpo::objective::ObjectiveConfig;
//! use rpo::stop::Stop;
//! use rpo::tokenizer::{Cut, Tokenizer, word_level};
//! use rpo::train::{TrainConfig, fit};
//!
//! let tokenizer = Tokenizer::parse(&word_level(&["greet", "part", "hello", "bye"]))?;
//! let rated = [("greet", "hello", 1.0), ("greet", "bye", 0.0), ("part", "bye", 1.0), ("part", "hello", 0.0)];
//! let rows = rated.map(|(prompt, response, reward)| Feedback { prompt: prompt.into(), response: response.into(), reward });
//! let limits = Limits { prompt_tokens: 8, response_tokens: 8, cut_prompts: Cut::End };
//! let (data, _) = FeedbackSet::from_rows(&rows, &tokenizer, limits)?;
//!
//! // A fresh model; `model::checkpoint::Checkpoint::find("google/flan-t5-small")?.load(&device)?` gives a trained one.
//! let config = r#"{"model_type": "t5", "vocab_size": 8, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1,
//!                  "num_heads": 2, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false}"#;
//! let config = Config::parse(config).expect("a configuration");
//! let start = Model::new(&config, &mut RandomWeights::new(1), &Device::flex().autodiff())?;
//! let mut train = TrainConfig { epochs: 60, ..TrainConfig::default() };
//! train.optimizer.learning_rate = 3e-2;
//! let objective = ObjectiveConfig::named("rpo").expect("an objective");
//! let policy = fit(&objective, &start, data.split(0.0, 42)?, &train, &mut [])?;
//!
//! let prompt = tokenizer.prompt("part", 8, Cut::End)?.ids;
//! let decoding = Decoding { max_new_tokens: 4, ..Decoding::default() };
//! let answers = generate(&policy, &[prompt], 0, &decoding, &Stop::new())?;
//! assert_eq!(tokenizer.decode(&answers[0])?, "bye");
//! # Ok::<(), rpo::Error>(())
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`feedback`] | rows of `(prompt, response, reward)` from files, grouped by prompt |
//! | [`mod@inspect`] | what a file of feedback holds |
//! | [`advice`] | what it is fit for, and what would do harm |
//! | [`chat`] | conversations, plainly and by a model's chat template |
//! | [`tokenizer`] | text to token ids and back |
//! | [`batch`] | prompts and responses laid end to end, each prompt once |
//! | [`model`] | the models by family, and Hugging Face directories in and out |
//! | [`score`] | log-probabilities of responses: the only place that computes them |
//! | [`reference`](mod@reference) | what the reference model says of responses and prompts, cached on disk |
//! | [`likelihood`] | how likely given responses are: log-probabilities and their ratios row by row |
//! | [`objective`] | RPO and its rivals, one file each |
//! | [`train`] | the only training loop, with optimizers and the record of a run |
//! | [`generate`] | answers to prompts |
//! | [`evaluate`] | what a policy is worth: rankings, and a problem that can be solved exactly |
//! | [`device`] | the CPU, or a GPU that the program was built for |
//! | [`diagnostics`] | whether a policy gets better or worse, beside its loss |
//! | [`statistics`] | intervals, rank correlations, win rates |
//! | [`stop`] | ending a pass or a run early |
//! | [`store`] | writing whole files or nothing |
//! | [`world`] | processes that work on one run together |

pub mod advice;
pub mod batch;
mod border;
pub mod chat;
pub mod device;
pub mod diagnostics;
pub mod error;
pub mod evaluate;
pub mod feedback;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod generate;
mod host;
pub mod inspect;
pub mod likelihood;
pub mod model;
pub mod objective;
pub mod reference;
pub mod score;
pub mod statistics;
pub mod stop;
pub mod store;
pub mod tokenizer;
pub mod train;
pub mod world;

pub use error::{Error, Result};

/// The engine, for devices and tensors.
pub use burn;
/// For programs that train on the CPU.
pub use rpo_ops::{compute_on_this_thread, keep_freed_memory};
