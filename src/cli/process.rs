//! What lives as long as a process that serves.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::counted;
use super::supervisor::Supervisor;
use crate::beat::WatchThread;
use crate::metrics::Metrics;
use crate::readiness::{Readiness, stall_message};
use crate::server::tls::Tls;
use crate::settings::Expectation;
use crate::site::Site;
use crate::write::Writer;

const FILE_SYSTEM_ANSWERS: &str = "the file system answers";
/// How often to check whether the watcher gets on.
const STALL_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What lives as long as the process: its supervisor, its readiness and its counters.
pub(super) struct Process {
    pub(super) supervisor: Arc<Supervisor>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) metrics: Arc<Metrics>,
}

impl Process {
    /// Must be called within a tokio runtime: a task of it answers the supervisor's watchdog.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub(super) fn new(expectation: Option<Expectation>) -> io::Result<Self> {
        let supervisor = Arc::new(Supervisor::from_env()?);
        let readiness = Arc::new(Readiness::new(expectation));
        let metrics = Arc::<Metrics>::default();
        let (told, checked) = (Arc::clone(&supervisor), Arc::clone(&readiness));
        tokio::spawn(async move { told.keep_alive(&checked).await });
        let (counted, checked) = (Arc::clone(&metrics), Arc::clone(&readiness));
        tokio::spawn(async move { report_stalls(&checked, &counted).await });
        Ok(Self {
            supervisor,
            readiness,
            metrics,
        })
    }

    /// Compares each published state with `--expect`, and reports it to the supervisor. Never ends.
    pub(super) async fn follow(&self, site: &Site) -> Infallible {
        let mut publications = site.subscribe();
        loop {
            // Not held over the wait below: a manifest pins the content of its site.
            let (digest, files) = {
                let manifest = site.current();
                (manifest.digest(), counted(manifest.len(), "file"))
            };
            if let Err(mismatch) = self.readiness.observe(digest) {
                self.metrics.unexpected.increment();
                let expected = mismatch.expected.hash();
                tracing::warn!(%digest, %expected, "{mismatch}");
            }
            self.supervisor
                .status(format_args!("serving {files}, site digest {digest}"));
            if publications.changed().await.is_err() {
                return pending().await;
            }
        }
    }

    /// Reloads whenever `requested` says so. Never ends.
    pub(super) async fn reload(&self, requested: &Notify, sources: &Reloadable) -> Infallible {
        loop {
            requested.notified().await;
            self.supervisor.reloading();
            (sources.look)();
            if let Some(tls) = &sources.tls {
                tls.reload_aside().await;
            }
            if let Some(writer) = &sources.writer {
                writer.reload_aside().await;
            }
            // systemd.service(5), Type=notify-reload: RELOADING=1 has to be followed by READY=1.
            self.supervisor.ready();
        }
    }
}

/// What is read again on SIGHUP: the site, the certificate and the tokens.
pub(super) struct Reloadable {
    /// Has somebody look now whether the site has changed.
    pub(super) look: Box<dyn Fn()>,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) writer: Option<Arc<Writer>>,
}

/// Says when the watcher, or who works for it, does not get on, and when it does again. Never ends.
async fn report_stalls(readiness: &Readiness, metrics: &Metrics) -> Infallible {
    let mut were_stalled = Vec::new();
    loop {
        sleep(STALL_CHECK_INTERVAL).await;
        let stalled = readiness.stalled();
        let is_any =
            |is_it: fn(WatchThread) -> bool| stalled.iter().any(|stall| is_it(stall.thread));
        let is_watch = is_any(|thread| thread != WatchThread::Scrubber);
        let is_scrub = is_any(|thread| thread == WatchThread::Scrubber);
        metrics.watch_stalled.store(is_watch, Ordering::Relaxed);
        metrics.scrub_stalled.store(is_scrub, Ordering::Relaxed);
        for stall in &stalled {
            if !were_stalled.contains(&stall.thread) {
                let message = stall_message(stall);
                let seconds = stall.waited.as_secs();
                tracing::warn!(seconds, "{message}");
            }
        }
        let are_stalled: Vec<_> = stalled.iter().map(|stall| stall.thread).collect();
        for thread in were_stalled {
            if !are_stalled.contains(&thread) {
                let (before, now) = match thread {
                    WatchThread::Watcher => (FILE_SYSTEM_ANSWERS, "changes are published"),
                    WatchThread::Hasher => (FILE_SYSTEM_ANSWERS, "large files are hashed"),
                    WatchThread::Scrubber => (FILE_SYSTEM_ANSWERS, "files are read again"),
                    WatchThread::Follower => {
                        ("what follows the store gets on", "releases are taken")
                    }
                };
                tracing::info!("{before} again: {now}");
            }
        }
        were_stalled = are_stalled;
    }
}
