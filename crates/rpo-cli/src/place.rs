//! Where a command computes, how precisely, and whether the place is to be trusted.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};
use rpo::burn::tensor::Device;
use rpo::device::{self, Precision, Subject};

use crate::progress;

/// Threads that this process may run at once.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The device called `name`, on which `precision` is to be had: one that it lacks is told, or refused if `strict`.
pub fn find(name: &str, precision: Precision, strict: bool) -> Result<Device> {
    let device = device::find(name)?;
    match precision.lack(&device) {
        Some(lack) if strict => bail!("{lack}; --strict refuses that"),
        Some(lack) => tracing::warn!("{lack}"),
        None => {}
    }
    Ok(device)
}

/// Refuses a device that does not compute what the CPU does, by a small likeness of `subject`; the same is tried once while the program
/// runs. The CPU is what others are compared with.
pub fn trust(name: &str, subject: &Subject) -> Result<()> {
    static TRUSTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let trusted = || TRUSTED.lock().unwrap_or_else(PoisonError::into_inner);
    let key = format!("{name}: {subject:?}");
    if name == "cpu" || trusted().contains(&key) {
        return Ok(());
    }
    let bar = progress::busy("comparing the device with the CPU, for which its kernels are compiled");
    let check = device::check(name, subject);
    bar.finish_and_clear();
    let check = check?;
    check.verdict()?;
    let (adapter, [_, took]) = (check.adapter.as_deref().unwrap_or("unnamed"), check.took);
    tracing::info!(
        "{name}, {adapter}, computes what the CPU does to within the rounding of {}: {} quantities of a small model in {:.1} s",
        check.arithmetic.name(),
        check.compared.len(),
        took.as_secs_f64()
    );
    trusted().insert(key);
    Ok(())
}
