//! systemd, or who else has started us and speaks its protocol (sd_notify(3)). Without one, all
//! of this is silence.
//!
//! A supervisor that does not read what it is told makes whoever tells it wait: that is a thread of
//! its own, and nobody waits for the thread.

use std::convert::Infallible;
use std::env;
use std::fmt;
use std::future::pending;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};
use sd_notify::NotifyState::{
    self, Custom, ExtendTimeoutUsec, Ready, Reloading, Status, Stopping, Watchdog,
};
use tokio::time::{MissedTickBehavior, interval};

use crate::scan::Progress;

/// How often a scan is reported.
const REPORT: Duration = Duration::from_secs(5);
/// What a scan that gets on asks for, each time: far more than until the next report.
const EXTENSION: Duration = Duration::from_secs(30);
/// Messages that may wait to be told; those beyond are lost.
const MOST_WAITING: usize = 64;
/// How long the end may wait until it is told.
const PARTING: Duration = Duration::from_millis(100);

/// Whoever has started us.
#[derive(Debug)]
pub(super) struct Supervisor {
    /// How often it wants to hear that we are alive.
    watchdog: Option<Duration>,
    /// `None` where nobody listens.
    messages: Option<SyncSender<Message>>,
}

/// What is to be told.
#[derive(Debug)]
struct Message {
    text: String,
    /// Dropped when it is told.
    waiting: Option<SyncSender<()>>,
}

impl Supervisor {
    /// As the environment says.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub(super) fn from_env() -> io::Result<Self> {
        let (messages, told) = sync_channel(MOST_WAITING);
        let is_there = env::var_os("NOTIFY_SOCKET").is_some();
        if is_there {
            let name = "supervisor".to_owned();
            thread::Builder::new()
                .name(name)
                .spawn(move || tell(&told))?;
        }
        Ok(Self {
            watchdog: sd_notify::watchdog_enabled().filter(|every| !every.is_zero()),
            messages: is_there.then_some(messages),
        })
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
        let (waiting, told) = sync_channel(1);
        self.queue(&[Stopping, Status("draining")], Some(waiting));
        // Whatever comes of it.
        let _ = told.recv_timeout(PARTING);
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
        self.queue(states, None);
    }

    fn queue(&self, states: &[NotifyState<'_>], waiting: Option<SyncSender<()>>) {
        if let Some(messages) = &self.messages {
            let lines: Vec<_> = states.iter().map(ToString::to_string).collect();
            let text = lines.join("\n");
            // One that has no room is not missed: whoever does not listen hears no other either.
            let _ = messages.try_send(Message { text, waiting });
        }
    }
}

/// Tells all that is to be told. A supervisor that can't be reached is worth one message.
fn tell(messages: &Receiver<Message>) {
    let mut is_lost = false;
    for Message { text, waiting } in messages {
        if let Err(error) = sd_notify::notify(&[Custom(&text)])
            && !std::mem::replace(&mut is_lost, true)
        {
            tracing::warn!("cannot reach the supervisor (NOTIFY_SOCKET): {error}");
        }
        drop(waiting);
    }
}
