//! Keeps the manifest true: hints -> dirty paths -> quiet period -> look -> publish.
//!
//! One thread does it all, so that two changes never race. A *hint* says where something may have
//! changed: an event of the kernel, a *suspect* (a file that a response found to be different from the
//! manifest), or the operator's SIGHUP. A *look* scans the dirty paths and judges what it has found; a
//! *sweep* is a look at the whole site, for the changes that no event reports. A place is *blind* if
//! nothing reports its changes: only sweeps find them. A file is *busy* while somebody has it open for
//! writing. What is seen half-way (a busy file, a directory that is being replaced) is not published:
//! the last good state stays.
//!
//! | File | Subject |
//! |---|---|
//! | `source` | where hints come from: the kernel, through notify |
//! | `coverage` | what is watched, and which parts of it are blind |
//! | `batch` | the changes that are published together; pure |
//! | `schedule` | what is due when, and what becomes of a batch; pure |
//! | `parking` | batches that wait for their large files to be hashed; pure |
//! | `publisher` | what may be published, and what is closed afterwards |
//! | `commit` | writes of clients, made between two looks |
//! | `driver` | the thread that brings these together |

#[cfg(test)]
mod agreement;
mod batch;
mod commit;
mod coverage;
mod driver;
#[cfg(test)]
mod faults;
pub mod immutable;
mod parking;
mod publisher;
mod schedule;
mod scrub;
mod source;
#[cfg(test)]
mod turns;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::beat::{Beats, WatchThread};
use crate::disk::Root;
use crate::exclude::ExcludePatterns;
use crate::metrics::Metrics;
use crate::release::Release;
use crate::scan::{Link, Progress, Scanner};
use crate::site::Site;
use coverage::Coverage;
pub use coverage::HOLD_FILE;
use driver::Driver;
use publisher::Publisher;
use schedule::{Periods, Schedule};

pub use source::{ChangeSource, EventKind, Hint, WatchError};

/// How a site is watched.
#[derive(Clone, Debug)]
pub struct WatcherOptions {
    /// The site's directory as it was given: it may be a link, and lead elsewhere later.
    pub directory: PathBuf,
    /// The operator's patterns for what is left out.
    pub exclude: Arc<ExcludePatterns>,
    /// How long nothing may change before a batch is published.
    pub settle: Duration,
    /// The same after one file of the site was saved in place, and nothing else.
    pub settle_alone: Duration,
    /// How long a batch may wait at most while something changes all the time.
    pub max_batch_age: Duration,
    /// How often everything is compared with the disk.
    pub sweep: Duration,
    /// How often every file is read again, if at all.
    pub scrub: Option<Duration>,
    /// How long a path that is gone is still answered, if at all.
    pub keep_old: Option<Duration>,
    /// Whether pages are, too.
    pub keep_pages: bool,
    /// How long a site of which nothing is left stays as it was, if at all: a build may be about
    /// to write all of it again.
    pub hold_empty: Option<Duration>,
    /// How long the watcher may be without getting on before it counts as stalled.
    pub max_step: Duration,
}

/// A watch that is armed, so that no change after this is missed, but not yet acted upon.
pub struct Watch {
    options: WatcherOptions,
    coverage: Coverage,
    hints: Receiver<Hint>,
    sender: Sender<Hint>,
    metrics: Arc<Metrics>,
    release: Option<Release>,
    beats: Arc<Beats>,
    busy: Vec<Box<[u8]>>,
}

impl Watch {
    /// Watches `root` with what the kernel offers. Where it can't, sweeps have to do, and a
    /// warning says so.
    pub fn arm(options: WatcherOptions, root: Arc<Root>, metrics: Arc<Metrics>) -> Self {
        let (sender, hints) = channel();
        let source: Box<dyn ChangeSource> = match source::Notify::new(sender.clone()) {
            Ok(notify) => Box::new(notify),
            Err(error) => {
                tracing::warn!(%error, "cannot watch files: {error}; sweeping instead");
                metrics.watch_failures.increment();
                Box::new(source::NoReports)
            }
        };
        Self::arm_with(source, options, root, metrics, (sender, hints))
    }

    /// Watches `root` with a given source, which sends its hints to `sender`.
    pub fn arm_with(
        source: Box<dyn ChangeSource>,
        options: WatcherOptions,
        root: Arc<Root>,
        metrics: Arc<Metrics>,
        (sender, hints): (Sender<Hint>, Receiver<Hint>),
    ) -> Self {
        let (directory, exclude) = (options.directory.clone(), Arc::clone(&options.exclude));
        Self {
            coverage: Coverage::new(source, directory, root, exclude, Arc::clone(&metrics)),
            beats: Arc::new(Beats::new(options.max_step)),
            options,
            hints,
            sender,
            metrics,
            release: None,
            busy: Vec::new(),
        }
    }

    /// Publishes only what is in this release, and only when the tree proves it.
    #[must_use]
    pub fn proving(self, release: Option<Release>) -> Self {
        Self { release, ..self }
    }

    /// Publishes these files, which the scan has left out, when nobody writes to them any more.
    #[must_use]
    pub fn awaiting(self, busy: Vec<Box<[u8]>>) -> Self {
        Self { busy, ..self }
    }

    /// Where to send hints of one's own.
    pub fn hints(&self) -> Sender<Hint> {
        self.sender.clone()
    }

    /// Whether the watcher and those who work for it get on.
    pub fn beats(&self) -> Arc<Beats> {
        Arc::clone(&self.beats)
    }

    /// Keeps `site` true to the disk on a thread of its own, from the state that a scan has found,
    /// for the life of the process.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn spawn(
        self,
        site: Arc<Site>,
        scanner: Scanner,
        links: Vec<Link>,
    ) -> io::Result<JoinHandle<()>> {
        let options = self.options;
        if let Some(every) = options.scrub {
            let (site, directory) = (Arc::clone(&site), self.coverage.directory().to_path_buf());
            let hints = self.sender.clone();
            let beat = self.beats.begin(WatchThread::Scrubber);
            thread::Builder::new()
                .name("scrubber".to_owned())
                .spawn(move || scrub::scrub(&site, &directory, every, &hints, &beat))?;
        }
        let periods = Periods {
            settle: options.settle,
            settle_alone: options.settle_alone,
            max_age: options.max_batch_age,
            sweep: options.sweep,
            hold_empty: options.hold_empty,
            keeps_removed: options.keep_old.is_some(),
        };
        let beat = self.beats.begin(WatchThread::Watcher);
        let publisher = Publisher {
            site,
            scanner: Arc::new(scanner),
            metrics: self.metrics,
            release: self.release,
            keep_old: options.keep_old,
            keep_pages: options.keep_pages,
            progress: Progress::of(Arc::clone(&beat)),
        };
        let schedule = Schedule::new(periods, Instant::now());
        let hints = (self.sender, self.hints);
        let beats = (self.beats, beat);
        let driver = Driver::new(hints, beats, self.coverage, schedule, publisher, links)
            .awaiting(self.busy);
        thread::Builder::new()
            .name("watcher".to_owned())
            .spawn(move || driver.run())
    }
}
