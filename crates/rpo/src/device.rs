//! Where tensors live, the CPU or a GPU that this program was built for, and how precisely matrices are multiplied there.

use std::str::FromStr;

use burn::tensor::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::model::Compute;

/// What a program may be built for; all but the first by a cargo feature of the same name.
pub const NAMES: [&str; 5] = ["cpu", "cuda", "rocm", "metal", "vulkan"];

/// The device called `name`: `cpu`, or the first of `cuda`, `rocm`, `metal`, `vulkan` where compiled in.
///
/// # Errors
///
/// [`Error::Setting`] for another name, and for a device that this program was built without.
pub fn find(name: &str) -> crate::Result<Device> {
    let problem = match name {
        "cpu" => return Ok(Device::flex()),
        #[cfg(feature = "cuda")]
        "cuda" => return Ok(Device::cuda(0)),
        #[cfg(feature = "rocm")]
        "rocm" => return Ok(Device::rocm(0)),
        #[cfg(feature = "metal")]
        "metal" => return Ok(Device::metal(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "vulkan")]
        "vulkan" => return Ok(Device::vulkan(burn::tensor::DeviceKind::DefaultDevice)),
        _ if NAMES.contains(&name) => {
            format!("this program was built without {name}; build it with `cargo build --release --features {name}`")
        }
        other => format!("no device `{other}`; there are cpu, cuda, rocm, metal and vulkan"),
    };
    Err(Error::Setting { field: "device", problem })
}

/// What the factors of matrix products are rounded to; sums are in f32, as are weights, norms, softmaxes, losses and the
/// optimizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// bfloat16 where that was measured to be faster than f32, which it was on processors with AMX and on AMD's with AVX-512 BF16.
    #[default]
    Auto,
    /// They are not rounded.
    F32,
    /// bfloat16; f32 where the device has no products of it.
    Bf16,
}

impl Precision {
    /// Its names.
    pub const NAMES: [&str; 3] = ["auto", "f32", "bf16"];

    /// What is computed in on `device`.
    pub fn on(self, device: &Device) -> Compute {
        match self {
            Self::Auto | Self::Bf16 if rpo_ops::computes_bf16(device) => Compute::Bf16,
            Self::Auto | Self::F32 | Self::Bf16 => Compute::F32,
        }
    }

    /// What to say where it is not to be had on `device`.
    pub fn lack(self, device: &Device) -> Option<&'static str> {
        (self == Self::Bf16 && self.on(device) == Compute::F32).then_some(
            "precision bf16: computed in f32, since this device has no products in bfloat16 (they take a CPU with AMX, or AMD's AVX-512 BF16)",
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
