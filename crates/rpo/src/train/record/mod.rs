//! The record of a run: lines of JSON and TensorBoard events, written by observers as it happens.

mod jsonl;
mod tensorboard;

pub use jsonl::MetricsLog;
pub use tensorboard::TensorBoard;
