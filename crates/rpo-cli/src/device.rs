//! Where tensors live: the CPU, or the GPU that this program was built for.

use anyhow::{Result, bail};
use rpo::burn::tensor::Device;

/// What a program may be built for; all but the first by a cargo feature of the same name.
pub const NAMES: [&str; 5] = ["cpu", "cuda", "rocm", "metal", "vulkan"];

/// The device called `name`: `cpu`, or `cuda`, `rocm`, `metal`, `vulkan` where compiled in.
pub fn find(name: &str) -> Result<Device> {
    match name {
        "cpu" => Ok(Device::flex()),
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Device::cuda(0)),
        #[cfg(feature = "rocm")]
        "rocm" => Ok(Device::rocm(0)),
        #[cfg(feature = "metal")]
        "metal" => Ok(Device::metal(rpo::burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "vulkan")]
        "vulkan" => Ok(Device::vulkan(rpo::burn::tensor::DeviceKind::DefaultDevice)),
        _ if NAMES.contains(&name) => {
            bail!("this program was built without {name}; build it with `cargo build --release --features {name}`")
        }
        other => bail!("no device `{other}`; there are cpu, cuda, rocm, metal and vulkan"),
    }
}
