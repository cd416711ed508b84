//! Models as they are run to decode: without gradients, on the CPU, a row of activations for each token. All of a step is one
//! computation of threads that meet between its phases; weights are packed so that each of their bytes is read once a step, in
//! order.
//!
//! A [`Stack`] is an encoder or a decoder. Its rows belong to [`Sequence`]s, which hold the keys and values of what came before:
//! rows of one sequence are consecutive tokens of a text that is read, or the single next token of one that is written.

mod attend;
mod bytes;
mod held;
mod layers;
mod lines;
mod packed;
mod past;
mod product;
mod stack;
mod team;
mod weights;

pub use layers::Head;
pub use packed::Precision;
pub use past::Past;
pub use stack::{Sequence, Stack};
pub use weights::{AttentionWeights, Bias, FeedForwardWeights, Inward, LayerWeights, Map, NormWeights, Position};
