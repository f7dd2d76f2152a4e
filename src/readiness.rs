//! Whether a balancer may send requests here (promise P9).

use std::sync::atomic::{AtomicU8, Ordering};

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
pub struct Readiness(AtomicU8);

impl Readiness {
    /// Goes on to `phase`; back is no way.
    pub fn enter(&self, phase: Phase) {
        self.0.fetch_max(phase as u8, Ordering::SeqCst);
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::SeqCst) {
            0 => Phase::Scanning,
            1 => Phase::Serving,
            _ => Phase::Draining,
        }
    }
}
