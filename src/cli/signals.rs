//! The signals that are answers.

use std::io;

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SignalAction {
    /// Finish what is in flight, and end.
    Stop,
    /// The same, after a while in which others take over.
    Drain,
    /// Compare everything with the disk.
    Reload,
}

/// The signals that are answers.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        // A file that may not grow any more (`ulimit -f`) is a write that fails, not the end.
        let _ = signal(SignalKind::from_raw(Number::XFSZ.as_raw()))?;
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    pub(super) async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.terminate.recv() => SignalAction::Drain,
            _ = self.interrupt.recv() => SignalAction::Stop,
            _ = self.hangup.recv() => SignalAction::Reload,
        }
    }

    pub(super) async fn stop(&mut self) {
        while self.next().await == SignalAction::Reload {}
    }

    /// An interrupt: somebody at a terminal is tired of waiting. Supervisors repeat themselves
    /// with SIGTERM, which asks for nothing more.
    pub(super) async fn force(&mut self) {
        self.interrupt.recv().await;
    }
}
