//! The border to other people's readers: some of them panic on files that are damaged or made to harm, where an error belongs. It knows
//! nothing of what they read.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

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

/// The first line of a panic's message.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.and_then(|text| text.lines().next()).unwrap_or("the reader did not say why")
}

#[cfg(test)]
mod tests {
    use super::*;

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
