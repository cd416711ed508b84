//! How precisely matrices are multiplied, and how far that moves results.

use std::str::FromStr;

use burn::tensor::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::compare::Kind;
use crate::model::Compute;

/// What the factors of matrix products are rounded to; sums are in f32, as are weights, norms, softmaxes, losses and the
/// optimizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// bfloat16 where that was measured to be faster than f32: on processors with AMX and on AMD's with AVX-512 BF16, for models
    /// whose hidden states are at least 256 wide.
    #[default]
    Auto,
    /// They are not rounded.
    F32,
    /// bfloat16; f32 where the device has no products of it.
    Bf16,
}

/// From this width on a step is faster in bfloat16. With 64 it took as long as in f32 (2 layers, vocabulary of 32,128, AMD Zen 4),
/// with 256 (4 layers) two thirds of the time.
pub const WIDE: usize = 256;

impl Precision {
    /// Its names.
    pub const NAMES: [&str; 3] = ["auto", "f32", "bf16"];

    /// What is computed in on `device`, for a model of this width (`d_model`).
    pub fn on(self, device: &Device, width: usize) -> Compute {
        let wanted = match self {
            Self::Auto => width >= WIDE && rpo_ops::favours_bf16(device),
            Self::F32 => false,
            Self::Bf16 => true,
        };
        if wanted && rpo_ops::computes_bf16(device) { Compute::Bf16 } else { Compute::F32 }
    }

    /// What to say where it is not to be had on `device`.
    pub fn lack(self, device: &Device) -> Option<&'static str> {
        (self == Self::Bf16 && !rpo_ops::computes_bf16(device)).then_some(
            "precision bf16: computed in f32, since this device has no products in bfloat16 (they take a CPU with AMX, AMD's AVX-512 BF16 or Arm's BF16)",
        )
    }
}

impl From<Compute> for Precision {
    fn from(compute: Compute) -> Self {
        match compute {
            Compute::F32 => Self::F32,
            Compute::Bf16 => Self::Bf16,
        }
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            other => Err(format!("no precision `{other}`; there are {}", Self::NAMES.join(", "))),
        }
    }
}

/// What the factors of products end up in on a device, which decides how far its results are from exact ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Single precision: 24 bits.
    F32,
    /// What NVIDIA's tensor cores make of f32: 11 bits.
    Tf32,
    /// bfloat16: 8 bits.
    Bf16,
}

impl Arithmetic {
    /// What products in `compute` are made in on the device called `device`.
    pub fn on(device: &str, compute: Compute) -> Self {
        match compute {
            Compute::Bf16 => Self::Bf16,
            // Burn's kernels take the tensor cores for products of f32.
            Compute::F32 if device == "cuda" => Self::Tf32,
            Compute::F32 => Self::F32,
        }
    }

    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "TF32",
            Self::Bf16 => "bf16",
        }
    }

    /// The largest relative difference that rounding explains, for tokens the largest share that may differ: three times (bf16) to fifty
    /// times (f32) what was measured of the CPU's kernels, between the two for TF32, and far below 1, about which wrong ones are off.
    pub(super) fn tolerance(self, kind: Kind) -> f64 {
        match (self, kind) {
            (Self::F32, Kind::Value) => 1e-4,
            (Self::F32, Kind::Gradient) => 1e-3,
            (Self::F32, Kind::Tokens) => 0.0,
            (Self::Tf32, Kind::Value) => 1e-2,
            (Self::Tf32, Kind::Gradient) | (Self::Bf16, Kind::Value) => 5e-2,
            (Self::Bf16, Kind::Gradient) => 0.2,
            (Self::Tf32 | Self::Bf16, Kind::Tokens) => f64::INFINITY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_models_are_computed_in_f32() {
        let device = Device::flex();
        assert_eq!(Precision::Auto.on(&device, WIDE - 1), Compute::F32);
        assert_eq!(Precision::Auto.on(&device, WIDE) == Compute::Bf16, rpo_ops::favours_bf16(&device));
        assert_eq!(Precision::Bf16.on(&device, WIDE) == Compute::Bf16, rpo_ops::computes_bf16(&device));
        assert_eq!(Precision::F32.on(&device, WIDE), Compute::F32);
    }
}
