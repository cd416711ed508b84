//! What a program that computes on the CPU sets once for all its process: where memory goes, and which threads compute.

/// Keeps freed memory in the process instead of giving it back, so that the same pages are not asked for, zeroed and mapped
/// again in every step. Call it once, before memory is used. It does something where the C library is glibc.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const MIB: libc::c_int = 1024 * 1024;
        // SAFETY: these calls set options of the allocator and nothing else; they may be made at any time.
        #[expect(unsafe_code, reason = "a function of the C library")]
        unsafe {
            // Large blocks come from the heap, which is kept, and not from maps of their own, which are not.
            libc::mallopt(libc::M_MMAP_MAX, 0);
            libc::mallopt(libc::M_TRIM_THRESHOLD, 1536 * MIB);
            libc::mallopt(libc::M_TOP_PAD, 64 * MIB);
        }
    }
}

/// Makes the calling thread one of those that compute, so that it need not wake others and wait for them whenever something is
/// computed: a step is thousands of small parts. Call it once, on the thread that trains or scores, before anything is computed; later
/// calls do nothing. Where there is one thread only, it stays apart: others that ask for something could wait for it forever.
pub fn compute_on_this_thread() {
    let asked = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
    let threads = asked.or_else(|| std::thread::available_parallelism().ok().map(usize::from));
    if threads.is_some_and(|n| n > 1) {
        // Fails where the threads were started already.
        let _ = rayon::ThreadPoolBuilder::new().use_current_thread().build_global();
    }
}
