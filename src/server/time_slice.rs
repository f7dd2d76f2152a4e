//! Has the threads that answer requests run as soon as they are woken, whatever else the process does.
//!
//! Since version 6.6 (EEVDF), Linux lets the running thread use up its slice before a woken one gets the
//! core, however far the running one stands back, and finds out at a tick that it is used up: with a tick
//! every 4 ms, each request that arrived while a change was compressed waited for up to that long. A woken
//! thread whose own slice is shorter gets the core at once. That can be asked for since version 6.12,
//! without any privilege (`sched_runtime` in sched_setattr(2)); no safe crate offers it, hence the `unsafe`
//! below. It changes nothing about how much of a core a thread gets.
#![cfg_attr(target_os = "linux", allow(unsafe_code))]

/// The shortest slice that the kernel grants, in nanoseconds.
#[cfg(target_os = "linux")]
const SLICE: u64 = 100_000;

/// Shortens the slice of the calling thread. Where the kernel does not know that, or forbids it, nothing
/// changes.
#[cfg(target_os = "linux")]
pub(super) fn shorten() {
    if let Some(attributes) = attributes()
        && attributes.sched_policy == libc::SCHED_OTHER as u32
    {
        set(&libc::sched_attr {
            sched_runtime: SLICE,
            ..attributes
        });
    }
}

/// Other systems have other schedulers.
#[cfg(not(target_os = "linux"))]
pub(super) fn shorten() {}

#[cfg(target_os = "linux")]
const LENGTH: u32 = size_of::<libc::sched_attr>() as u32;

/// How the calling thread is scheduled.
#[cfg(target_os = "linux")]
fn attributes() -> Option<libc::sched_attr> {
    let mut attributes = libc::sched_attr {
        size: LENGTH,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel writes at most `LENGTH` bytes to `attributes`, which outlives the call.
    let failed =
        unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, LENGTH, 0) };
    (failed == 0).then_some(attributes)
}

#[cfg(target_os = "linux")]
fn set(attributes: &libc::sched_attr) {
    // SAFETY: the kernel reads `attributes.size` bytes of `attributes`, which has so many: the kernel
    // itself has set it, to no more than it was told.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const *attributes, 0) };
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_has_the_shortest_slice_and_keeps_its_niceness() {
        let shortened = thread::spawn(|| {
            let before = attributes().expect("one of this thread");
            shorten();
            (before, attributes().expect("one of this thread"))
        });
        let (before, after) = shortened.join().expect("no panic");
        // Kernels that know no slices say 0.
        let wanted = if before.sched_runtime == 0 { 0 } else { SLICE };
        assert_eq!(after.sched_runtime, wanted);
        assert_eq!(after.sched_policy, before.sched_policy);
        assert_eq!(after.sched_nice, before.sched_nice);
    }
}
