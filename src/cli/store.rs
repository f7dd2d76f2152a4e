//! What the subcommands about stores share: how a store is opened and asked, what is said while it does not
//! answer, and how that is stopped.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::pending;
use std::path::PathBuf;

use indicatif::ProgressBar;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use super::Error;
use super::progress::{bytes_template, show_bytes, with_bar};
use super::usage::UsageError;
use crate::log::Printable;
use crate::progress::ByteProgress;
use crate::publish::{PublishError, PublisherId, abandon};
use crate::settings::StoreUrl;
use crate::store::{FailedRequests, Store, StoreError, StorePatience};
use crate::trust::Trust;

/// So many failed requests are worth a line: one or two happen every day. Ten times as many are worth another.
const MIN_REPORTED: u64 = 3;
const REPORT_FACTOR: u64 = 10;

/// A store, and what runs the requests to it.
pub(super) struct StoreSession {
    store: Store,
    /// There until it is dropped.
    runtime: Option<Runtime>,
    /// So many failed requests are reported next.
    next_report: Cell<u64>,
}

impl StoreSession {
    /// Opens a store, which has to be there.
    ///
    /// # Errors
    /// When it is a folder that is missing, or can't be reached with what the environment and `--ca` say.
    pub(super) fn open(url: &StoreUrl, ca: Option<PathBuf>) -> Result<Self, Error> {
        Self::start(url, ca, Store::open)
    }

    /// Opens the store that a release is about to be made in.
    ///
    /// # Errors
    /// As [`Self::open`], but a missing folder is made.
    pub(super) fn open_to_write(url: &StoreUrl, ca: Option<PathBuf>) -> Result<Self, Error> {
        let session = Self::start(url, ca, Store::open_to_write)?;
        // Its name may be mistyped.
        if matches!(url, StoreUrl::Folder(folder) if !folder.exists()) {
            tracing::info!(store = %url, "{url} is not there yet: the first release makes it");
        }
        Ok(session)
    }

    fn start(
        url: &StoreUrl,
        ca: Option<PathBuf>,
        open: fn(&StoreUrl, StorePatience, &Trust) -> Result<Store, StoreError>,
    ) -> Result<Self, Error> {
        if ca.is_some() && matches!(url, StoreUrl::Folder(_)) {
            return Err(UsageError::NoTls(url.clone()).into());
        }
        let store = open(url, StorePatience::default(), &ca.into());
        let runtime = Builder::new_current_thread().enable_all().build();
        Ok(Self {
            store: store.map_err(PublishError::Store)?,
            runtime: Some(runtime.map_err(PublishError::Start)?),
            next_report: Cell::new(MIN_REPORTED),
        })
    }

    /// The store.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Does some work to its end, and says if the store keeps it from getting on.
    pub(super) fn run<T>(
        &self,
        work: impl Future<Output = Result<T, PublishError>>,
    ) -> Result<T, PublishError> {
        let Some(runtime) = &self.runtime else {
            return Err(PublishError::Stopped);
        };
        runtime.block_on(async {
            tokio::select! {
                done = work => done,
                never = self.report_failures() => match never {},
            }
        })
    }

    /// Does some work under the locks of `id`, until it is done or a signal stops it: others need not wait
    /// then until a lock of a process that is gone has expired, unless what it has begun may still be under
    /// way.
    pub(super) fn run_until_stopped<T>(
        &self,
        id: &PublisherId,
        work: impl Future<Output = Result<T, PublishError>>,
    ) -> Result<T, PublishError> {
        self.run(async {
            let mut terminate = signal(SignalKind::terminate()).map_err(PublishError::Start)?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(PublishError::Start)?;
            tokio::select! {
                done = work => return done,
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if let Err(error) = abandon(&self.store, id).await {
                tracing::warn!(%error, "{error}");
            }
            Err(PublishError::Stopped)
        })
    }

    /// Says that requests fail and are made again, once there are some.
    async fn report_failures(&self) -> Infallible {
        let mut failures = self.store.failed_requests();
        while failures.changed().await.is_ok() {
            let FailedRequests { number, reason } = failures.borrow_and_update().clone();
            if number >= self.next_report.get() {
                self.next_report.set(number * REPORT_FACTOR);
                let store = self.store.url();
                tracing::warn!(
                    failed = number,
                    "retrying: {number} requests to {store} have failed so far, the last one because \
                     {reason}"
                );
            }
        }
        // A folder has no such requests.
        pending().await
    }

    /// Does some work with a bar of this template, which says in addition how many requests had to be made
    /// again.
    pub(super) fn with_bar<T>(
        &self,
        template: &str,
        update: impl Fn(&ProgressBar) + Send,
        work: impl FnOnce() -> T,
    ) -> T {
        let failures = self.store.failed_requests();
        let update = move |bar: &ProgressBar| {
            update(bar);
            bar.set_message(note(&failures.borrow()));
        };
        with_bar(&format!("{template}{{msg}}"), update, work)
    }

    /// Does some work with a bar that shows how many of its bytes are done.
    pub(super) fn with_bytes<T>(
        &self,
        what: &str,
        progress: &ByteProgress,
        work: impl FnOnce() -> T,
    ) -> T {
        let update = |bar: &ProgressBar| show_bytes(bar, progress);
        self.with_bar(&bytes_template(what), update, work)
    }
}

/// A thread that waits for a file system over a network that is gone must not keep the process.
impl Drop for StoreSession {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What the end of a progress bar says of failed requests.
fn note(failures: &FailedRequests) -> String {
    match failures.number {
        0 => String::new(),
        // A store may have said anything, and a terminal obeys it.
        number => format!("; {number} retried: {}", Printable(&failures.reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_says_why_requests_are_made_again() {
        assert_eq!(note(&FailedRequests::default()), "");
        let hostile = FailedRequests {
            number: 1,
            reason: "evil\u{1b}[31m\n".to_owned(),
        };
        let shown = note(&hostile);
        assert!(!shown.contains(char::is_control), "{shown:?}");
        let failures = FailedRequests {
            number: 4,
            reason: "the store answers 503 (SlowDown)".to_owned(),
        };
        assert_eq!(
            note(&failures),
            "; 4 retried: the store answers 503 (SlowDown)"
        );
    }
}
