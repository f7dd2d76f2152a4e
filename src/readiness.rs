//! Whether a balancer may send requests here (promise P9).

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

/// Where the process stands between its start and its end. It only goes forward.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Phase {
    /// The manifest is not complete.
    Scanning = 0,
    /// Requests are answered.
    Serving = 1,
    /// Requests are answered for a little while; new ones should go elsewhere.
    Draining = 2,
}

/// The phase, shared by all who ask for it.
#[derive(Debug, Default)]
pub struct Readiness {
    phase: AtomicU8,
    reason: Mutex<Option<String>>,
}

impl Readiness {
    /// Goes on to `phase`; back is no way.
    pub fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::SeqCst);
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Scanning,
            1 => Phase::Serving,
            _ => Phase::Draining,
        }
    }

    /// Says what stands in the way beside the phase, or that nothing does.
    pub fn explain(&self, reason: Option<String>) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// What stands in the way beside the phase.
    pub fn reason(&self) -> Option<String> {
        let reason = self.reason.lock();
        reason.unwrap_or_else(PoisonError::into_inner).clone()
    }
}
