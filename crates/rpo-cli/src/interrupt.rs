//! Ctrl-C and requests to end. Where there is nothing to save, the program ends at once; a training run that is under way is
//! saved first. What is said of signals here is state of the process, as signals are.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

use anyhow::Result;
use rpo::stop::Stop;

/// Heard by training.
static STOP: Stop = Stop::new();
/// Training runs that are under way.
static SAVING: AtomicUsize = AtomicUsize::new(0);
/// The signal that was heard, or 0.
static HEARD: AtomicI32 = AtomicI32::new(0);

/// Whether Ctrl-C only breaks off what is at hand, and whether it did.
static BREAKABLE: AtomicBool = AtomicBool::new(false);
static BROKEN: AtomicBool = AtomicBool::new(false);

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

/// While it lives, Ctrl-C breaks off what is at hand and nothing else; a second one ends the program.
pub struct Breakable(&'static AtomicBool);

/// Begins such a time.
pub fn breakable() -> Breakable {
    BROKEN.store(false, Ordering::SeqCst);
    BREAKABLE.store(true, Ordering::SeqCst);
    Breakable(&BROKEN)
}

impl Breakable {
    /// Whether Ctrl-C was pressed in it.
    pub fn broken(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Breakable {
    fn drop(&mut self) {
        BREAKABLE.store(false, Ordering::SeqCst);
    }
}

/// The signal of Ctrl-C.
const CTRL_C: i32 = 2;

fn hear(signal: i32) {
    if signal == CTRL_C && BREAKABLE.load(Ordering::SeqCst) && !BROKEN.swap(true, Ordering::SeqCst) {
        return;
    }
    let again = HEARD.swap(signal, Ordering::SeqCst) != 0;
    STOP.request();
    if again || SAVING.load(Ordering::SeqCst) == 0 {
        std::process::exit(exit_status(signal));
    }
    // Of several processes the first speaks.
    if !crate::messages::quiet() {
        let again = if signal == CTRL_C { "press Ctrl-C again" } else { "a second signal" };
        eprintln!("saving before stopping; {again} to stop at once");
    }
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
    Ok(ctrlc::set_handler(|| hear(CTRL_C))?)
}
