//! systemd, or another supervisor that speaks its protocol (sd_notify(3)). Without one nothing is
//! sent.
//!
//! Sending to a supervisor that does not read its socket blocks, so a thread of its own does that,
//! and nothing waits for the thread.

use std::convert::Infallible;
use std::env;
use std::fmt;
use std::future::pending;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use indicatif::HumanBytes;
use sd_notify::NotifyState::{
    self, Custom, ExtendTimeoutUsec, Ready, Reloading, Status, Stopping, Watchdog,
};
use tokio::time::{MissedTickBehavior, interval};

use super::counted;
use crate::progress::ByteProgress;
use crate::readiness::Readiness;
use crate::scan::Progress;

/// How often the progress of a scan is reported.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// How often the progress of what is fetched is reported: the operator asks for it at any time.
const FETCH_REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The time a scan that makes progress asks for with each report, far longer than until the next.
const START_EXTENSION: Duration = Duration::from_secs(30);
/// Messages that may wait to be sent; more are dropped.
const MAX_QUEUED: usize = 64;
/// How long shutdown waits for its message to be sent.
const MAX_STOPPING_WAIT: Duration = Duration::from_millis(100);

/// The supervisor that has started this process, if any.
#[derive(Debug)]
pub(super) struct Supervisor {
    /// How long it waits for a sign of life (WATCHDOG_USEC).
    watchdog: Option<Duration>,
    /// `None` without a supervisor.
    messages: Option<SyncSender<Message>>,
}

/// A message to send.
#[derive(Debug)]
struct Message {
    text: String,
    /// Dropped once the message is sent, which the sender may wait for.
    sent: Option<SyncSender<()>>,
}

impl Supervisor {
    /// The supervisor that the environment names (NOTIFY_SOCKET).
    ///
    /// # Errors
    /// When the system has no more threads.
    pub(super) fn from_env() -> io::Result<Self> {
        let (messages, queue) = sync_channel(MAX_QUEUED);
        let is_supervised = env::var_os("NOTIFY_SOCKET").is_some();
        if is_supervised {
            thread::Builder::new()
                .name("supervisor".to_owned())
                .spawn(move || send_all(&queue))?;
        }
        Ok(Self {
            watchdog: sd_notify::watchdog_enabled().filter(|every| !every.is_zero()),
            messages: is_supervised.then_some(messages),
        })
    }

    /// Reports how far a scan has come. As long as it makes progress, its time is extended: systemd
    /// would kill it at TimeoutStartSec. Never ends.
    pub(super) async fn report(
        &self,
        progress: &Progress,
        compression: Option<&ByteProgress>,
    ) -> Infallible {
        let mut ticks = interval(REPORT_INTERVAL);
        let mut before = None;
        loop {
            ticks.tick().await;
            let (files, bytes) = (progress.files(), progress.bytes());
            let status = match compression.and_then(ByteProgress::percent) {
                Some(percent) => format!("compressing: {percent} %"),
                None => format!("hashing: {}, {}", counted(files, "file"), HumanBytes(bytes)),
            };
            let now = Some((files, bytes, compression.map(ByteProgress::done)));
            let extension = ExtendTimeoutUsec(START_EXTENSION.as_micros() as u32);
            if before == now {
                self.send(&[Status(&status)]);
            } else {
                self.send(&[Status(&status), extension]);
            }
            before = now;
        }
    }

    /// Reports how far the first release of a store has come, to the operator as well, or what it waits
    /// for. Its time is extended as long as it makes progress, and while it waits: each attempt to reach the
    /// store has an end. Never ends.
    pub(super) async fn report_fetching(
        &self,
        what: &str,
        progress: &ByteProgress,
        readiness: &Readiness,
    ) -> Infallible {
        let mut ticks = interval(FETCH_REPORT_INTERVAL);
        let mut before = None;
        loop {
            ticks.tick().await;
            let extension = ExtendTimeoutUsec(START_EXTENSION.as_micros() as u32);
            let Some(percent) = progress.percent() else {
                let status = readiness.obstacle().to_string();
                self.send(&[Status(&status), extension]);
                continue;
            };
            let status = format!("fetching {what}: {percent} %");
            let now = Some(progress.done());
            if before == now {
                self.send(&[Status(&status)]);
            } else {
                self.send(&[Status(&status), extension]);
            }
            readiness.explain(Some(status));
            before = now;
        }
    }

    /// Reports that requests are answered.
    pub(super) fn ready(&self) {
        self.send(&[Ready]);
    }

    /// One line about the state of the process (`systemctl status`).
    pub(super) fn status(&self, status: impl fmt::Display) {
        self.send(&[Status(&status.to_string())]);
    }

    /// Reports that files are read again; [`Supervisor::ready`] has to follow.
    pub(super) fn reloading(&self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            self.send(&[Reloading, now]);
        }
    }

    /// Reports that the process is about to end.
    pub(super) fn stopping(&self) {
        let (sent, is_sent) = sync_channel(1);
        self.queue(&[Stopping, Status("draining")], Some(sent));
        // Sent or not, shutdown goes on.
        let _ = is_sent.recv_timeout(MAX_STOPPING_WAIT);
    }

    /// Answers the watchdog, from the thread that accepts connections: as long as that one gets its
    /// turn, new clients are served. Not while the watcher does not get on: a restart may help it.
    /// Never ends.
    pub(super) async fn keep_alive(&self, readiness: &Readiness) -> Infallible {
        let Some(every) = self.watchdog else {
            return pending().await;
        };
        let mut ticks = interval(every / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if readiness.check_watcher().is_ok() {
                self.send(&[Watchdog]);
            }
        }
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        self.queue(states, None);
    }

    fn queue(&self, states: &[NotifyState<'_>], sent: Option<SyncSender<()>>) {
        if let Some(messages) = &self.messages {
            let lines: Vec<_> = states.iter().map(ToString::to_string).collect();
            let text = lines.join("\n");
            // With a full queue the supervisor reads nothing, so the message is dropped.
            let _ = messages.try_send(Message { text, sent });
        }
    }
}

/// Sends all messages. A supervisor that can't be reached is reported once.
fn send_all(messages: &Receiver<Message>) {
    let mut is_reported = false;
    for Message { text, sent } in messages {
        if let Err(error) = sd_notify::notify(&[Custom(&text)])
            && !std::mem::replace(&mut is_reported, true)
        {
            tracing::warn!(%error, "cannot reach the supervisor (NOTIFY_SOCKET): {error}");
        }
        drop(sent);
    }
}
