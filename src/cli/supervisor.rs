//! systemd, or who else has started us and speaks its protocol (sd_notify(3)). Without one, all
//! of this is silence.

use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};
use sd_notify::NotifyState::{
    self, ExtendTimeoutUsec, Ready, Reloading, Status, Stopping, Watchdog,
};
use tokio::time::{MissedTickBehavior, interval};

use crate::scan::Progress;

/// How often a scan is reported.
const REPORT: Duration = Duration::from_secs(5);
/// What a scan that gets on asks for, each time: far more than until the next report.
const EXTENSION: Duration = Duration::from_secs(30);

/// Whoever has started us.
#[derive(Debug)]
pub(super) struct Supervisor {
    /// How often it wants to hear that we are alive.
    watchdog: Option<Duration>,
    /// A supervisor that can't be reached is worth one message.
    is_lost: AtomicBool,
}

impl Supervisor {
    /// As the environment says.
    pub(super) fn from_env() -> Self {
        Self {
            watchdog: sd_notify::watchdog_enabled().filter(|every| !every.is_zero()),
            is_lost: AtomicBool::new(false),
        }
    }

    /// Reports how far a scan has come. As long as it gets on, it may take its time. Never ends.
    pub(super) async fn report(&self, progress: &Progress) -> Infallible {
        let mut ticks = interval(REPORT);
        let mut before = None;
        loop {
            ticks.tick().await;
            let (files, bytes) = (progress.files(), progress.bytes());
            let (count, size) = (HumanCount(files), HumanBytes(bytes));
            let status = format!("hashing: {count} files, {size}");
            let now = Some((files, bytes));
            let extension = ExtendTimeoutUsec(EXTENSION.as_micros() as u32);
            match before != now {
                true => self.tell(&[Status(&status), extension]),
                false => self.tell(&[Status(&status)]),
            }
            before = now;
        }
    }

    /// Requests are answered.
    pub(super) fn ready(&self) {
        self.tell(&[Ready]);
    }

    /// Where we stand, in one line.
    pub(super) fn status(&self, status: impl fmt::Display) {
        self.tell(&[Status(&status.to_string())]);
    }

    /// What can be read again is being read; [`Supervisor::ready`] follows.
    pub(super) fn reloading(&self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            self.tell(&[Reloading, now]);
        }
    }

    /// The end has begun.
    pub(super) fn stopping(&self) {
        self.tell(&[Stopping, Status("draining")]);
    }

    /// Shows that the thread that accepts connections gets its turn. Never ends.
    pub(super) async fn show_life(&self) -> Infallible {
        let Some(every) = self.watchdog else {
            return pending().await;
        };
        let mut ticks = interval(every / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tell(&[Watchdog]);
        }
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states)
            && !self.is_lost.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("cannot reach the supervisor (NOTIFY_SOCKET): {error}");
        }
    }
}
