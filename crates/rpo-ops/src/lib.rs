//! Differentiable operations of packed T5, decoder-only models and encoders: with kernels and gradients of our own on the CPU, and in terms of Burn's
//! operations on every other device.
//!
//! Sequences are *packed*: a batch of texts is one `(tokens, features)` tensor and a [`Segments`] that says where each
//! text begins. Only attention looks at the boundaries. This crate knows tensors; it never knows models or files.

mod attention;
mod composed;
mod cpu;
pub mod decode;
pub mod dither;
mod elementwise;
mod encoder;
mod layers;
mod log_prob;
mod parameters;
mod plan;
mod process;
mod rotary;
mod segments;
mod select;

pub use attention::RelativeBias;
pub use cpu::{AdamW, adamw, composed as with_composed, instructions, sum_of_squares};
pub use elementwise::{linear, relu, rms_norm};
pub use encoder::{LayerNorm, add_norm, best_matches, gelu, scaled_attention};
pub use layers::{cross_attention, gated_feed_forward, prefixed_self_attention, self_attention};
pub use log_prob::{label_log_probs, segment_mean, segment_sum};
pub use parameters::{Adapter, Affine, AttentionLayer, Compute, Gate, GatedFeedForward};
pub use plan::{Prefixed, relative_position_bucket};
pub use process::{compute_on_this_thread, keep_freed_memory};
pub use rotary::Rotary;
pub use segments::Segments;
pub use select::{argmax, at_least, largest, log_sum_exp, quantile};

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Whether tensors on `device` lie in this program's memory and have kernels of our own, and these are not switched off (feature
/// `composed`, [`with_composed`]).
pub fn is_host(device: &Device) -> bool {
    cpu::supported(device)
}

/// Whether products of tensors on `device` can be computed in bfloat16: on CPUs with AMX, on AMD's with AVX-512 BF16 and on Arm's with
/// BF16.
pub fn computes_bf16(device: &Device) -> bool {
    is_host(device) && cpu::multiplies_bf16()
}

/// Whether they were measured to be faster so than in f32: Arm's were not.
pub fn favours_bf16(device: &Device) -> bool {
    is_host(device) && cpu::favours_bf16()
}

/// A one-dimensional index tensor of `values` on `device`.
pub fn index_tensor(values: impl IntoIterator<Item = usize>, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = values.into_iter().map(|v| v as i32).collect();
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}
