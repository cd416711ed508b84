//! Where a command computes, and how precisely.

use anyhow::{Result, bail};
use rpo::burn::tensor::Device;
use rpo::device::{self, Precision};
use rpo::model::Compute;

/// The device called `name`, and what is computed in there: a precision that it lacks is told, or refused if `strict`.
pub fn find(name: &str, precision: Precision, strict: bool) -> Result<(Device, Compute)> {
    let device = device::find(name)?;
    match precision.lack(&device) {
        Some(lack) if strict => bail!("{lack}; --strict refuses that"),
        Some(lack) => tracing::warn!("{lack}"),
        None => {}
    }
    let compute = precision.on(&device);
    Ok((device, compute))
}
