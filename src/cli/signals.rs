//! The signals that a server acts on: SIGTERM, SIGINT, SIGHUP.

use std::io;

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SignalAction {
    /// SIGINT: finish the requests in flight, and end.
    Stop,
    /// SIGTERM: the same, after serving for a while longer as not ready (see `--drain`).
    Drain,
    /// SIGHUP: compare everything with the disk, and read certificate and tokens again.
    Reload,
}

/// The signals that a server acts on.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Replaces the default actions of these signals.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub(super) fn new() -> io::Result<Self> {
        // Without a handler, writing past `ulimit -f` kills the process (setrlimit(2)); with one,
        // the write fails with EFBIG.
        let _ = signal(SignalKind::from_raw(Number::XFSZ.as_raw()))?;
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.terminate.recv() => SignalAction::Drain,
            _ = self.interrupt.recv() => SignalAction::Stop,
            _ = self.hangup.recv() => SignalAction::Reload,
        }
    }

    /// Waits for a signal that ends the process.
    pub(super) async fn stop(&mut self) {
        while self.next().await == SignalAction::Reload {}
    }

    /// Waits for SIGINT: someone at a terminal does not want to wait any longer. A second SIGTERM is
    /// no hurry, since some supervisors send several.
    pub(super) async fn force(&mut self) {
        self.interrupt.recv().await;
    }
}
