//! Gives free memory back to the system. glibc keeps the free pages between those in use, and a first
//! scan leaves a sixth of what a large site needs there. Only malloc_trim(3) gives them back, and no safe
//! crate offers it, hence the `unsafe` below.
#![allow(unsafe_code)]

/// Gives memory that is not used any more back to the system: after work that needed much of it for a
/// short time. Takes about a tenth of a second for each 500 MB, in which other threads may wait for
/// memory. Does nothing where the allocator is not glibc's.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: any thread may call it at any time (it locks what it looks at), and it takes no pointer.
    // What it returns says whether there was anything to give.
    unsafe {
        libc::malloc_trim(0);
    }
}
