//! What a process knows of its own lock: whether others still respect it, and whether what it was taken for
//! has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// For so long a process may rely on its own lock after it was written: half of what others grant it.
const MAX_HELD: Duration = Duration::from_secs(60);

/// What a process knows of its own lock; clones are about the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct LockHold(Arc<HoldState>);

#[derive(Debug, Default)]
struct HoldState {
    /// The uptime in milliseconds when the lock was last about to be written.
    renewed: AtomicU64,
    has_open_step: AtomicBool,
}

impl LockHold {
    /// Notes that the lock has been written by a request that began at this uptime.
    pub(super) fn renew(&self, began: u64) {
        self.0.renewed.store(began, Ordering::Relaxed);
    }

    /// Whether everybody else still takes it for a lock that somebody holds.
    pub(super) fn is_current(&self) -> bool {
        let age = uptime_ms().saturating_sub(self.0.renewed.load(Ordering::Relaxed));
        Duration::from_millis(age) < MAX_HELD
    }

    /// Notes that something begins that must not happen once somebody else goes on.
    pub(super) fn begin_step(&self) {
        self.0.has_open_step.store(true, Ordering::Relaxed);
    }

    /// Notes that it has ended, with nothing on its way any more.
    pub(super) fn end_step(&self) {
        self.0.has_open_step.store(false, Ordering::Relaxed);
    }

    /// Whether something may still be on its way: nobody has waited for its end.
    pub(super) fn has_open_step(&self) -> bool {
        self.0.has_open_step.load(Ordering::Relaxed)
    }

    /// As if the machine had slept for a minute.
    #[cfg(test)]
    pub(super) fn expire(&self) {
        self.renew(uptime_ms().saturating_sub(61_000));
    }
}

/// Milliseconds since the system was started, with the time that it slept: meanwhile others have gone on.
#[cfg(target_os = "linux")]
pub(super) fn uptime_ms() -> u64 {
    milliseconds(rustix::time::clock_gettime(rustix::time::ClockId::Boottime))
}

/// Milliseconds since some moment.
#[cfg(not(target_os = "linux"))]
pub(super) fn uptime_ms() -> u64 {
    milliseconds(rustix::time::clock_gettime(
        rustix::time::ClockId::Monotonic,
    ))
}

fn milliseconds(time: rustix::time::Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds * 1000 + u64::try_from(time.tv_nsec).unwrap_or_default() / 1_000_000
}
