//! What a template may take. It comes with a model that anybody may have made, and its engine follows values into each other
//! as deep as they lie: every step may put one into another, so there is stack for as many levels as there are steps.

use std::cell::RefCell;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use crate::border::{ended, start};

/// So many bytes may a template have; those that models have take some thousands.
pub(super) const SOURCE: usize = 1 << 20;
/// So many steps it may take for one conversation, in which 64 bytes of text count as one; those that models have take some
/// dozens a turn.
pub(super) const STEPS: u64 = 500_000;
/// So long it may take: what compares lists that hold each other many times over never ends, in however few steps.
const TIME: Duration = Duration::from_secs(5);
/// A KiB of stack for every step: printing or comparing takes half of that a level. Memory is taken for what is used.
const STACK: usize = STEPS as usize * 1024;

type Job = Box<dyn FnOnce() + Send>;

thread_local! {
    /// A thread with the stack that templates need, kept for the next conversation.
    static BESIDE: RefCell<Option<Sender<Job>>> = const { RefCell::new(None) };
}

/// What `work` gives, done on a thread with [`STACK`].
///
/// # Errors
/// What a template did that kept it from ending; there is nothing left to do but to leave its thread alone.
pub(super) fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let (give, take) = mpsc::sync_channel(1);
    BESIDE.with_borrow_mut(|beside| {
        let jobs = match beside.take() {
            Some(jobs) => jobs,
            None => started()?,
        };
        // Whether it was sent is seen by whether anything comes back. Nobody may wait for it any more.
        let _ = jobs.send(Box::new(move || drop(give.send(work()))));
        let given = take.recv_timeout(TIME).map_err(|why| ended(why, TIME))?;
        *beside = Some(jobs);
        Ok(given)
    })
}

/// A thread that does one job after another. Where addresses are scarce (`ulimit -v`) it has less stack: templates that models have
/// do with little.
fn started() -> Result<Sender<Job>, String> {
    let start = |stack| {
        let (jobs, queue) = mpsc::channel::<Job>();
        start("template", stack, move || queue.iter().for_each(|job| job())).map(|()| jobs)
    };
    start(STACK).or_else(|_| start(STACK / 64))
}
