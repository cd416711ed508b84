//! Threads that go through the phases of one computation side by side. A decoding step is a hundred phases of a few
//! microseconds each: to start tasks for every one of them would take as long again.

use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How often a thread looks whether the others have come before it lets other programs run.
const LOOKS: usize = 4096;

/// What the threads share.
struct Meeting {
    threads: usize,
    arrived: AtomicUsize,
    /// How often all of them have met.
    met: AtomicUsize,
    /// The first piece of the present phase that nobody has taken.
    next: AtomicUsize,
    /// A thread has panicked and will not come.
    broken: AtomicBool,
}

/// One of the threads.
pub(super) struct Worker<'a> {
    meeting: &'a Meeting,
}

/// Runs `work` on every thread of the pool at the same time; all must meet equally often.
pub(super) fn together(work: impl Fn(&Worker<'_>) + Sync) {
    let meeting = Meeting {
        threads: rayon::current_num_threads(),
        arrived: AtomicUsize::new(0),
        met: AtomicUsize::new(0),
        next: AtomicUsize::new(0),
        broken: AtomicBool::new(false),
    };
    rayon::broadcast(|_| work(&Worker { meeting: &meeting }));
}

impl Worker<'_> {
    /// Takes pieces `0..n` of a phase, some at a time, until none is left, and then waits for the others: what they wrote can be
    /// read after it.
    pub(super) fn phase(&self, n: usize, some: usize, mut work: impl FnMut(Range<usize>)) {
        let some = some.max(1);
        loop {
            let first = self.meeting.next.fetch_add(some, Ordering::Relaxed);
            if first >= n {
                break;
            }
            work(first..n.min(first + some));
        }
        self.meet();
    }

    /// How many threads there are.
    pub(super) fn threads(&self) -> usize {
        self.meeting.threads
    }

    /// Waits until all threads have come here.
    fn meet(&self) {
        let Meeting { threads, arrived, met, next, broken } = self.meeting;
        let before = met.load(Ordering::Acquire);
        if arrived.fetch_add(1, Ordering::AcqRel) + 1 == *threads {
            arrived.store(0, Ordering::Relaxed);
            next.store(0, Ordering::Relaxed);
            met.store(before + 1, Ordering::Release);
            return;
        }
        let mut looks = 0;
        while met.load(Ordering::Acquire) == before {
            assert!(!broken.load(Ordering::Relaxed), "another thread has panicked");
            looks += 1;
            match looks % LOOKS {
                0 => std::thread::yield_now(),
                _ => std::hint::spin_loop(),
            }
        }
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.meeting.broken.store(true, Ordering::Relaxed);
        }
    }
}

/// Memory that the threads write different parts of during a phase, and read in others.
#[derive(Default)]
pub(super) struct Shared<T> {
    values: Box<[UnsafeCell<T>]>,
}

// SAFETY: it gives out references by methods whose callers promise that no two of them collide.
#[expect(unsafe_code, reason = "access is by the contracts of its methods")]
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T: Clone> Shared<T> {
    /// `n` times `value`.
    pub(super) fn new(value: T, n: usize) -> Self {
        vec![value; n].into()
    }

    /// Makes it at least `n` long; what was in it is lost then.
    pub(super) fn reach(&mut self, value: T, n: usize) {
        if self.values.len() < n {
            *self = Self::new(value, n);
        }
    }

    /// What was computed.
    pub(super) fn into_inner(self) -> Vec<T> {
        self.values.into_vec().into_iter().map(UnsafeCell::into_inner).collect()
    }

    /// All of it.
    ///
    /// # Safety
    /// Nobody writes to it while the slice lives: another phase did, or will.
    #[expect(unsafe_code, reason = "threads share it")]
    pub(super) unsafe fn read(&self) -> &[T] {
        // SAFETY: a cell lies in memory as its value does; that nobody writes is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.values.as_ptr().cast(), self.values.len()) }
    }

    /// The part `range` of it.
    ///
    /// # Safety
    /// Nobody else reads or writes this part while the slice lives: each piece of a phase has parts of its own.
    ///
    /// # Panics
    /// If it is not inside.
    #[expect(unsafe_code, reason = "threads share it")]
    #[expect(clippy::mut_from_ref, reason = "the caller's promise takes the place of the borrow checker")]
    pub(super) unsafe fn write(&self, range: Range<usize>) -> &mut [T] {
        let cells = &self.values[range];
        // SAFETY: cells may be written through a shared reference; that the part is the caller's alone is its promise.
        unsafe { std::slice::from_raw_parts_mut(cells.as_ptr().cast::<T>().cast_mut(), cells.len()) }
    }
}

impl<T> From<Vec<T>> for Shared<T> {
    fn from(values: Vec<T>) -> Self {
        Self { values: values.into_iter().map(UnsafeCell::new).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once_and_seen_after_the_phase() {
        let (n, phases) = (1000, 50);
        let (a, b) = (Shared::new(0usize, n), Shared::new(0usize, n));
        together(|worker| {
            for _ in 0..phases {
                worker.phase(n, 7, |range| {
                    // SAFETY: `b` is written in the other phase, and each piece of `a` by one thread.
                    #[expect(unsafe_code, reason = "the test's own pieces")]
                    let (to, from) = unsafe { (a.write(range.clone()), b.read()) };
                    for (to, i) in to.iter_mut().zip(range) {
                        *to += 1 + from[n - 1 - i];
                    }
                });
                worker.phase(n, 3, |range| {
                    // SAFETY: the same with the roles changed.
                    #[expect(unsafe_code, reason = "the test's own pieces")]
                    let (to, from) = unsafe { (b.write(range.clone()), a.read()) };
                    for (to, i) in to.iter_mut().zip(range) {
                        *to = from[n - 1 - i];
                    }
                });
            }
        });
        // b(t)[i] = a(t)[n-1-i] and a(t)[i] = a(t-1)[i] + 1 + b(t-1)[n-1-i] = 2 a(t-1)[i] + 1, as all numbers wrap alike.
        let want = (0..phases).fold(0usize, |a, _| a.wrapping_mul(2).wrapping_add(1));
        assert!(a.into_inner().iter().all(|a| *a == want));
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        let caught = std::panic::catch_unwind(|| {
            together(|worker| worker.phase(64, 1, |range| assert!(range.start < 63, "the last piece")));
        });
        assert!(caught.is_err());
    }
}
