//! The operations that decide the speed of a step, each as one node of the graph with kernels and gradients of our own on
//! the CPU. Each kernel has a twin built from Burn operations (`composed.rs`), used on other devices and as the test oracle.

mod affine;
mod attention;
mod bf16;
mod encoder;
mod head;
mod layers;
mod memory;
mod node;
mod pointwise;
mod prefixed;
mod simd;
#[cfg(test)]
mod tests;
mod update;

use std::cell::Cell;

use burn::backend::DispatchDevice;
use burn::tensor::{Device, Tensor};
use head::LabelLogProbs;
use memory::Value;
use node::Inputs;
use pointwise::RmsNorm;

pub(crate) use encoder::{add_norm, gelu, scaled_attention};
pub(crate) use layers::{attention_layer, feed_forward, prefixed_layer};
pub(crate) use pointwise::inverse_rms;
pub(crate) use prefixed::PrefixPlan;
pub(crate) use simd::{LANES, exp, exponentiate, max, sigmoid, vectorised};
pub use update::{AdamW, adamw, sum_of_squares};

use crate::parameters::{Affine, Compute};

thread_local! {
    /// Whether the kernels are switched off on this thread; see [`composed`].
    static OFF: Cell<bool> = const { Cell::new(cfg!(feature = "composed")) };
}

/// Whether tensors on `device` have kernels of our own, and they are not switched off.
pub(crate) fn supported(device: &Device) -> bool {
    !OFF.get() && matches!(device.clone().inner().as_dispatch(), DispatchDevice::Flex(_))
}

/// Does `work` in terms of Burn's operations alone, on the CPU too, as the feature `composed` makes a whole program do: to compare our
/// kernels with them while a program runs. It holds for what this thread builds meanwhile; tensors from outside may be used.
pub fn composed<R>(work: impl FnOnce() -> R) -> R {
    struct Restored(bool);
    impl Drop for Restored {
        fn drop(&mut self) {
            OFF.set(self.0);
        }
    }
    let _restored = Restored(OFF.replace(true));
    work()
}

/// Instructions of this processor that make our kernels fast, by name; none where none are known.
pub fn instructions() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let found = [
        ("AVX2", is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")),
        ("AVX-512", is_x86_feature_detected!("avx512f")),
        ("AVX-512 BF16", is_x86_feature_detected!("avx512bf16")),
        ("AMX BF16", bf16::unit() == Some(bf16::Unit::Tiles)),
    ];
    #[cfg(target_arch = "aarch64")]
    let found = [("Arm BF16", bf16::unit().is_some())];
    #[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
    let found: [(&str, bool); 0] = [];
    found.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
}

/// Whether this processor multiplies matrices in bfloat16.
pub(crate) fn multiplies_bf16() -> bool {
    bf16::unit().is_some()
}

/// Whether it was measured to do so faster than in f32.
pub(crate) fn favours_bf16() -> bool {
    bf16::unit().is_some_and(bf16::Unit::is_faster)
}

pub(crate) fn linear(x: Tensor<2>, map: Affine) -> Tensor<2> {
    let mut inputs = Inputs::new();
    let x = inputs.add(x);
    let map = affine::Affine::of(map, &mut inputs);
    inputs.run(affine::Linear { x, map })
}

pub(crate) fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let mut inputs = Inputs::new();
    let (x, weight) = (inputs.add(x), inputs.add(weight));
    inputs.run(RmsNorm { x, weight, epsilon })
}

pub(crate) fn label_log_probs(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    labels: &[u32],
    keep_logits: bool,
    compute: Compute,
) -> Tensor<1> {
    let mut inputs = Inputs::new();
    let (hidden, weight) = (inputs.add(hidden), inputs.add(weight));
    inputs.run(LabelLogProbs { hidden, weight, labels: labels.to_vec(), keep_logits, compute })
}

/// `a b^T` of row-major matrices whose rows have `width` values.
pub(crate) fn product(a: &[f32], b: &[f32], width: usize) -> Vec<f32> {
    fn rows(x: &[f32], width: usize) -> memory::Matrix<'_> {
        memory::Matrix::new(x, x.len() / width, width, width)
    }
    f32::product(rows(a, width), rows(b, width).t(), Compute::F32)
}
