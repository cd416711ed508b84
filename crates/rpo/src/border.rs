//! The border to other people's readers: some of them panic on files that are damaged or made to harm, where an error belongs, follow them
//! deeper than the stack, or never end. It knows nothing of what they read.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

thread_local! {
    /// Whether a panic of this thread is caught by [`guarded`], which tells it in its own way.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// What `read` gives, or what it said when it panicked. Nothing is printed. What it was reading is not to be used again.
pub(crate) fn guarded<T>(read: impl FnOnce() -> T) -> Result<T, String> {
    static SILENCED: Once = Once::new();
    SILENCED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !CAUGHT.get() {
                before(info);
            }
        }));
    });
    let outer = CAUGHT.replace(true);
    let result = catch_unwind(AssertUnwindSafe(read));
    CAUGHT.set(outer);
    result.map_err(|panic| format!("its parts do not fit together: {}", said(panic.as_ref())))
}

/// What `work` gives, done on a thread of its own called `name` with so much `stack`, of which memory is taken as it is used.
///
/// # Errors
/// If there is no such stack, or it takes longer than `most`; then there is nothing left to do but to leave it alone.
pub(crate) fn beside<T: Send + 'static>(
    name: &str,
    stack: usize,
    most: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (give, take) = mpsc::sync_channel(1);
    start(name, stack, move || drop(give.send(work())))?;
    take.recv_timeout(most).map_err(|why| ended(why, most))
}

/// Starts a thread with so much stack.
///
/// # Errors
/// If there is none.
pub(crate) fn start(name: &str, stack: usize, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let started = thread::Builder::new().name(name.into()).stack_size(stack).spawn(work);
    started.map(drop).map_err(|e| format!("needs a thread with {} MiB of stack: {e}", stack >> 20))
}

/// Why nothing came back from a thread within `most`.
pub(crate) fn ended(why: RecvTimeoutError, most: Duration) -> String {
    match why {
        RecvTimeoutError::Timeout => format!("does not end: it was stopped after {} seconds", most.as_secs()),
        RecvTimeoutError::Disconnected => "broke what reads it".to_string(),
    }
}

/// The first line of a panic's message.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.and_then(|text| text.lines().next()).unwrap_or("the reader did not say why")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(n: u32) -> u32 {
        if n == 0 { 0 } else { std::hint::black_box(1 + depth(n - 1)) }
    }

    #[test]
    fn what_does_not_end_is_left_and_what_is_deep_has_room() {
        let brief = Duration::from_millis(20);
        assert!(
            beside("slow", 1 << 20, brief, move || thread::sleep(brief * 20))
                .expect_err("slow")
                .contains("does not end")
        );
        assert_eq!(beside("deep", 1 << 30, Duration::from_mins(1), || depth(1_000_000)), Ok(1_000_000));
        assert!(beside("huge", 1 << 60, brief, || ()).expect_err("no room").contains("of stack: "));
    }

    #[test]
    fn a_panic_becomes_an_error_with_its_message() {
        assert_eq!(guarded(|| 7), Ok(7));
        let values = [1, 2];
        let problem = guarded(|| values[values.len()]).expect_err("beyond");
        assert!(problem.contains("do not fit together: index out of bounds"), "{problem}");
        let inner = guarded(|| guarded(|| panic!("within")).is_err()).expect("the inner one is caught");
        assert!(inner && !CAUGHT.get());
    }
}
