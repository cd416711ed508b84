//! The record of a run: lines of JSON and TensorBoard events, written by observers as it happens.

mod jsonl;
mod reader;
mod tensorboard;

pub use jsonl::MetricsLog;
pub use reader::Reader;
pub use tensorboard::TensorBoard;
