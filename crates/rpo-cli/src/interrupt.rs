//! Ctrl-C and requests to end. Where there is nothing to save, the program ends at once; a training run that is under way is
//! saved first. What is said of signals here is state of the process, as signals are.

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use anyhow::Result;
use rpo::stop::Stop;

/// Heard by training.
static STOP: Stop = Stop::new();
/// Training runs that are under way.
static SAVING: AtomicUsize = AtomicUsize::new(0);
/// The signal that was heard, or 0.
static HEARD: AtomicI32 = AtomicI32::new(0);

/// What stops training when a signal is heard.
pub fn stop() -> &'static Stop {
    &STOP
}

/// The exit status of a program that a signal ended, as shells have it: 130 after Ctrl-C (SIGINT), 143 after SIGTERM; `None` if
/// no signal was heard.
pub fn status() -> Option<u8> {
    match HEARD.load(Ordering::Relaxed) {
        0 => None,
        signal => Some(exit_status(signal) as u8),
    }
}

fn exit_status(signal: i32) -> i32 {
    128 + signal
}

/// While it lives, a signal lets what works save before it stops; another one ends the program at once.
pub struct Saving(());

/// Begins such a time.
pub fn saving() -> Saving {
    SAVING.fetch_add(1, Ordering::SeqCst);
    Saving(())
}

impl Drop for Saving {
    fn drop(&mut self) {
        SAVING.fetch_sub(1, Ordering::SeqCst);
    }
}

fn hear(signal: i32) {
    let again = HEARD.swap(signal, Ordering::SeqCst) != 0;
    STOP.request();
    if again || SAVING.load(Ordering::SeqCst) == 0 {
        std::process::exit(exit_status(signal));
    }
    eprintln!("saving before stopping; press Ctrl-C again to stop at once");
}

/// Begins to listen; once for the program.
#[cfg(unix)]
pub fn listen() -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    // `nohup` has it ignored, which must remain so.
    if !is_ignored(SIGHUP) {
        signals.add_signal(SIGHUP)?;
    }
    std::thread::spawn(move || signals.forever().for_each(hear));
    Ok(())
}

/// Whether the program was started with this signal ignored, where the system says so.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

/// Begins to listen; once for the program.
#[cfg(not(unix))]
pub fn listen() -> Result<()> {
    const CTRL_C: i32 = 2;
    Ok(ctrlc::set_handler(|| hear(CTRL_C))?)
}
