//! The record of a run: lines of JSON and TensorBoard events, written by observers as it happens.

mod jsonl;
mod log;
mod reader;
mod tensorboard;
mod window;

pub use jsonl::MetricsLog;
pub use reader::Reader;
pub use tensorboard::TensorBoard;
