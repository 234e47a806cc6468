//! How the agent keeps memory: one process, a few threads, and a list of leases that is read once.

use nix::libc;

/// Heaps of the allocator. Eight for each CPU is its default, and each keeps what it once had.
const ARENAS: i32 = 2;

/// Keeps the allocator to a few heaps (mallopt(3)). Before there is a second thread.
pub fn few_heaps() {
    #[expect(unsafe_code, reason = "the C library has no safe interface for it")]
    // SAFETY: called before there is a second thread, with a parameter that it knows.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

/// Gives back what the start needed and nobody needs any more (malloc_trim(3)).
pub fn give_back() {
    #[expect(unsafe_code, reason = "the C library has no safe interface for it")]
    // SAFETY: it takes the allocator's own locks, and changes nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
