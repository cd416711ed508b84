//! A wish to stop, made from outside and heard between two pieces of work: the only way to end a pass or a run early.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// Shared by who may wish to stop and by what works. What works asks between two batches, or two tokens of an answer, so
/// that it stops within one of these: on the CPU a batch of 4096 tokens takes a fraction of a second for small models and
/// several seconds for large ones.
#[derive(Debug, Default)]
pub struct Stop(AtomicBool);

impl Stop {
    /// Nobody wishes to stop yet.
    pub const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Wishes to stop; this is never taken back.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody wishes to stop.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// To be called with `?` wherever work can be left.
    ///
    /// # Errors
    /// [`Error::Stopped`] if somebody wishes to stop.
    pub fn check(&self) -> Result<()> {
        if self.requested() { Err(Error::Stopped) } else { Ok(()) }
    }
}
