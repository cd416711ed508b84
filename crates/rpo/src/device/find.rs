//! Devices by name.

use burn::tensor::Device;

use crate::error::Error;

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
        // Opening one that is not there would panic.
        "cuda" if !Device::enumerate(burn::tensor::DeviceType::Cuda).is_empty() => return Ok(Device::cuda(0)),
        #[cfg(feature = "cuda")]
        "cuda" => "no card of NVIDIA's, or no driver for it, is found (nvidia-smi lists what is there)".into(),
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

/// What the hardware behind `device` calls itself, as `NVIDIA H200`, with what kernels are compiled for; `None` for the CPU. Opens the
/// device, and panics where it cannot be opened.
#[allow(unused_variables, reason = "without a GPU no device has a name")]
pub fn adapter(device: &Device) -> Option<String> {
    #[cfg(any(feature = "cuda", feature = "rocm", feature = "metal", feature = "vulkan"))]
    return device.identity().map(|identity| format!("{} ({})", identity.name, identity.fingerprint));
    #[cfg(not(any(feature = "cuda", feature = "rocm", feature = "metal", feature = "vulkan")))]
    None
}
