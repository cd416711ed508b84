//! Threads that go through the phases of one computation side by side. A decoding step is a hundred phases of a few
//! microseconds each: to start tasks for every one of them would take as long again.

use std::cell::{Cell, UnsafeCell};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How often a thread looks whether a phase is over before it lets other programs run.
const LOOKS: usize = 4096;

/// What the threads share.
struct Meeting {
    threads: usize,
    /// For each phase: of each thread's share, how many pieces were taken; and how many of all are done.
    phases: Vec<AtomicUsize>,
    /// A thread has panicked: what it took will not be done.
    broken: AtomicBool,
}

/// One of the threads.
pub(super) struct Worker<'a> {
    meeting: &'a Meeting,
    index: usize,
    /// The phase that it comes to next.
    phase: Cell<usize>,
}

/// Runs `work` on every thread of the pool at the same time; all must come to the same phases, of which there are at most so
/// many.
pub(super) fn together(phases: usize, work: impl Fn(&Worker<'_>) + Sync) {
    let threads = rayon::current_num_threads();
    let phases = (0..phases * (threads + 1)).map(|_| AtomicUsize::new(0)).collect();
    let meeting = Meeting { threads, phases, broken: AtomicBool::new(false) };
    rayon::broadcast(|thread| work(&Worker { meeting: &meeting, index: thread.index(), phase: Cell::new(0) }));
}

impl Worker<'_> {
    /// Does pieces `0..n` of a phase together with the others; what they wrote can be read after it. A thread takes the pieces of its
    /// own share in order, which are the same every time, and then helps the others. The phase is over when all pieces are done,
    /// and a thread that comes later goes on to the next: nobody waits for one that has no time from the system.
    ///
    /// # Panics
    /// If more phases come than were announced, or another thread has panicked.
    pub(super) fn phase(&self, n: usize, mut work: impl FnMut(usize)) {
        let Meeting { threads, phases, broken } = self.meeting;
        let phase = self.phase.replace(self.phase.get() + 1) * (threads + 1);
        let (taken, done) = (&phases[phase..phase + threads], &phases[phase + threads]);
        if done.load(Ordering::Acquire) == n {
            return;
        }
        let mut own = 0;
        for other in 0..*threads {
            let thread = (self.index + other) % threads;
            let share = thread * n / threads..(thread + 1) * n / threads;
            loop {
                let piece = share.start + taken[thread].fetch_add(1, Ordering::Relaxed);
                if piece >= share.end {
                    break;
                }
                work(piece);
                own += 1;
            }
        }
        done.fetch_add(own, Ordering::AcqRel);
        let mut looks = 0;
        while done.load(Ordering::Acquire) < n {
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
        together(2 * phases, |worker| {
            for _ in 0..phases {
                worker.phase(n, |i| {
                    // SAFETY: `b` is written in the other phase, and each piece of `a` by one thread.
                    #[expect(unsafe_code, reason = "the test's own pieces")]
                    let (to, from) = unsafe { (a.write(i..i + 1), b.read()) };
                    to[0] += 1 + from[n - 1 - i];
                });
                worker.phase(n, |i| {
                    // SAFETY: the same with the roles changed.
                    #[expect(unsafe_code, reason = "the test's own pieces")]
                    let (to, from) = unsafe { (b.write(i..i + 1), a.read()) };
                    to[0] = from[n - 1 - i];
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
            together(1, |worker| worker.phase(64, |piece| assert!(piece < 63, "the last piece")));
        });
        assert!(caught.is_err());
    }
}
