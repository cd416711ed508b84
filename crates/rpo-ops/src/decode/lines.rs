//! Memory for weights: in whole lines of the processor's memory, on large pages where the system gives them. Decoding reads all
//! of it once a step, which small pages slow down.

use super::held::fetch;

/// Places of a line.
pub(super) const LINE: usize = 16;

/// A line of memory.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; LINE]);

/// Lines that are filled once.
pub(super) struct Lines(Vec<Line>);

impl Lines {
    /// Lines whose places have the values that `values` gives, in order.
    pub(super) fn filled(lines: usize, mut values: impl Iterator<Item = u32>) -> Self {
        let mut filled = Vec::with_capacity(lines);
        on_large_pages(&mut filled);
        for _ in 0..lines {
            filled.push(Line(std::array::from_fn(|_| values.next().unwrap_or_default())));
        }
        Self(filled)
    }

    /// All places.
    pub(super) fn places(&self) -> &[u32] {
        // SAFETY: a line is its places one after another.
        #[expect(unsafe_code, reason = "a line is aligned as its places are not")]
        unsafe {
            std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * LINE)
        }
    }
}

/// Asks for large pages under memory that nothing was written to.
fn on_large_pages(lines: &mut Vec<Line>) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const PAGE: usize = 4096;
        const LARGE: usize = 512 * PAGE;
        let (start, bytes) = (lines.as_mut_ptr() as usize, lines.capacity() * size_of::<Line>());
        let (first, end) = (start.next_multiple_of(PAGE), (start + bytes) / PAGE * PAGE);
        if bytes >= LARGE {
            // SAFETY: the pages lie inside the vector's memory, and the advice does not change what is in them.
            #[expect(unsafe_code, reason = "the interface of the system")]
            unsafe {
                // That it is not heeded makes nothing wrong.
                libc::madvise(first as *mut libc::c_void, end - first, libc::MADV_HUGEPAGE);
            }
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = lines;
}

/// What is to be read after what is read now: fetched bit by bit meanwhile, so that the memory is never idle.
#[derive(Clone, Copy)]
pub(super) struct Ahead<'a> {
    places: &'a [u32],
    step: usize,
}

impl<'a> Ahead<'a> {
    /// The part of the block of `size` places after block `block` that falls to one of `parts`, in so many steps.
    pub(super) fn of(
        places: &'a [u32],
        block: usize,
        size: usize,
        (part, parts): (usize, usize),
        steps: usize,
    ) -> Self {
        let step = (size / (parts * steps).max(1)).max(1);
        let first = (block + 1) * size + part * steps * step;
        Self { places: places.get(first..).unwrap_or_default(), step }
    }

    /// Fetches what falls to a step.
    #[inline(always)]
    pub(super) fn fetch(&self, step: usize) {
        if let Some(place) = self.places.get(step * self.step) {
            fetch(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_hold_what_they_were_filled_with() {
        let n = 40_000;
        let lines = Lines::filled(n, 0..(n * LINE) as u32 - 3);
        assert_eq!(lines.places().as_ptr() as usize % 64, 0);
        let want = |i: usize| if i < n * LINE - 3 { i as u32 } else { 0 };
        assert!(lines.places().iter().enumerate().all(|(i, place)| *place == want(i)));
    }
}
