//! Memory for weights: in whole lines of the processor's memory, on large pages where the system gives them. Decoding reads all
//! of it once a step, which small pages slow down.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::Arc;

use super::held::fetch;

/// Places of a line.
pub(super) const LINE: usize = 16;

/// Bytes of a large page.
const LARGE: usize = 2 << 20;
/// Lines of a chunk.
const CHUNK: usize = (16 << 20) / size_of::<Line>();

/// A line of memory.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; LINE]);

/// Lines of a piece of memory that are filled once.
pub(super) struct Lines {
    chunk: Arc<Chunk>,
    first: usize,
    count: usize,
}

/// Gives lines out of large pieces of memory, so that also small matrices lie on large pages.
#[derive(Default)]
pub(super) struct Arena {
    chunk: Option<Arc<Chunk>>,
    /// Lines of it that were given out.
    used: usize,
}

/// A piece of memory on large pages, nothing in it at first.
struct Chunk {
    start: NonNull<Line>,
    lines: usize,
    _memory: Memory,
}

// SAFETY: it is memory alone, whose parts belong to those who were given them.
#[expect(unsafe_code, reason = "memory of its own")]
unsafe impl Send for Chunk {}
// SAFETY: what a part holds is written before it is shared.
#[expect(unsafe_code, reason = "memory of its own")]
unsafe impl Sync for Chunk {}

impl Chunk {
    /// Room for so many lines at least.
    fn new(lines: usize) -> Self {
        let bytes = (lines * size_of::<Line>()).next_multiple_of(LARGE).max(LARGE);
        let (start, memory) = Memory::new(bytes);
        Self { start: start.cast(), lines: bytes / size_of::<Line>(), _memory: memory }
    }
}

/// Memory that comes from the system itself: what the allocator gives may have been used before, on small pages.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
struct Memory {
    mapped: *mut libc::c_void,
    bytes: usize,
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
impl Memory {
    /// So many bytes from the beginning of a large page on.
    fn new(bytes: usize) -> (NonNull<u8>, Self) {
        let all = bytes + LARGE;
        // SAFETY: new memory that nobody else knows; the advice does not change what is in it, and that it is not heeded makes
        // nothing wrong.
        #[expect(unsafe_code, reason = "the interface of the system")]
        unsafe {
            let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let mapped = libc::mmap(std::ptr::null_mut(), all, access, kind, -1, 0);
            let refused =
                || std::alloc::handle_alloc_error(Layout::from_size_align(all, LARGE).unwrap_or(Layout::new::<Line>()));
            if mapped == libc::MAP_FAILED {
                refused();
            }
            let start = mapped.cast::<u8>().add(mapped.cast::<u8>().align_offset(LARGE));
            libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE);
            (NonNull::new(start).unwrap_or_else(refused), Self { mapped, bytes: all })
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it was mapped so, and lines need no dropping.
        #[expect(unsafe_code, reason = "the interface of the system")]
        unsafe {
            libc::munmap(self.mapped, self.bytes);
        }
    }
}

/// Memory of the allocator.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
struct Memory(NonNull<u8>, Layout);

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
impl Memory {
    fn new(bytes: usize) -> (NonNull<u8>, Self) {
        let layout = Layout::from_size_align(bytes, LARGE).expect("less than all memory");
        // SAFETY: the size is not zero.
        #[expect(unsafe_code, reason = "memory that is not zeroed first")]
        let start = NonNull::new(unsafe { std::alloc::alloc(layout) });
        let start = start.unwrap_or_else(|| std::alloc::handle_alloc_error(layout));
        (start, Self(start, layout))
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and lines need no dropping.
        #[expect(unsafe_code, reason = "memory of its own")]
        unsafe {
            std::alloc::dealloc(self.0.as_ptr(), self.1);
        }
    }
}

impl Arena {
    /// Lines whose places have the values that `values` gives, in order.
    pub(super) fn filled(&mut self, lines: usize, mut values: impl Iterator<Item = u32>) -> Lines {
        let (chunk, first) = self.room(lines);
        for line in first..first + lines {
            let line_of = Line(std::array::from_fn(|_| values.next().unwrap_or_default()));
            // SAFETY: the lines lie in the chunk, and nobody else was given them.
            #[expect(unsafe_code, reason = "memory of its own")]
            unsafe {
                chunk.start.add(line).write(line_of);
            }
        }
        Lines { chunk, first, count: lines }
    }

    /// A chunk and the first of so many lines of it that nobody was given.
    fn room(&mut self, lines: usize) -> (Arc<Chunk>, usize) {
        if let Some(chunk) = self.chunk.as_ref().filter(|chunk| chunk.lines - self.used >= lines) {
            let first = self.used;
            self.used += lines;
            return (Arc::clone(chunk), first);
        }
        if lines > CHUNK / 2 {
            return (Arc::new(Chunk::new(lines)), 0);
        }
        let chunk = Arc::new(Chunk::new(CHUNK));
        self.chunk = Some(Arc::clone(&chunk));
        self.used = lines;
        (chunk, 0)
    }
}

impl Lines {
    /// All places.
    pub(super) fn places(&self) -> &[u32] {
        // SAFETY: the lines were filled, lie in the chunk, and are their places one after another.
        #[expect(unsafe_code, reason = "a line is aligned as its places are not")]
        unsafe {
            std::slice::from_raw_parts(self.chunk.start.add(self.first).as_ptr().cast(), self.count * LINE)
        }
    }
}

/// What is to be read after what is read now: fetched bit by bit meanwhile, so that the memory is never idle.
#[derive(Clone, Copy, Default)]
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
        let mut arena = Arena::default();
        let sizes = [1, 40_000, 200_000, 3, 150_000, 0, 7];
        let all = sizes.map(|n| arena.filled(n, 0..(n * LINE) as u32 - (n > 0) as u32 * 3));
        drop(arena);
        for (n, lines) in sizes.into_iter().zip(&all) {
            let places = lines.places();
            assert_eq!((places.len(), places.as_ptr() as usize % 64), (n * LINE, 0));
            let want = |i: usize| if i + 3 < n * LINE { i as u32 } else { 0 };
            assert!(places.iter().enumerate().all(|(i, place)| *place == want(i)));
        }
    }
}
