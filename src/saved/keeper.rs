//! When to save: some seconds after a publication, and at the end.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{io, mem};

use super::StateFile;
use crate::disk::Root;
use crate::manifest::Manifest;
use crate::representation::Resource;
use crate::site::Site;

/// How long after its hashing a file must still have the same stamp to be trusted later: more than
/// the coarsest clock of a file system, and enough for a report of a change to arrive.
const REST: Duration = Duration::from_millis(2_500);
/// How often to look for something new; what is new is saved at the second look.
const LOOK: Duration = Duration::from_secs(3);
/// Time between two saves.
const BETWEEN: Duration = Duration::from_secs(10);
/// Saving may take this share of one core.
const SHARE: u32 = 20;

/// The thread that saves what a site publishes.
#[derive(Debug)]
pub struct Keeper {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Saves each state of `site`, which is in `directory` as the operator named it, in `file`.
    /// The first one only if it is not `saved` already.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn start(
        file: StateFile,
        directory: PathBuf,
        site: Arc<Site>,
        saved: bool,
    ) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let mut round = Round::new(file, directory, site, saved, Instant::now());
        let thread = thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || round.run(&stopped))?;
        Ok(Self { stop, thread })
    }

    /// Saves what is not saved yet, and ends. Nothing is published any more by then, or it is
    /// hashed again after the restart.
    pub fn finish(self) {
        drop(self.stop);
        // A panic has been reported by its hook.
        let _ = self.thread.join();
    }
}

/// What the thread knows from one look to the next.
struct Round {
    file: StateFile,
    directory: PathBuf,
    site: Arc<Site>,
    /// What is on disk. Weak, for it pins the bodies of a state that is over.
    saved: Weak<Manifest>,
    /// What was published at the last look and is not saved, with the time of that look.
    seen: Option<(Instant, Arc<Manifest>)>,
    not_before: Instant,
    warned: String,
}

impl Round {
    fn new(
        file: StateFile,
        directory: PathBuf,
        site: Arc<Site>,
        saved: bool,
        now: Instant,
    ) -> Self {
        let current = Arc::clone(&site.current());
        Self {
            saved: if saved {
                Arc::downgrade(&current)
            } else {
                Weak::new()
            },
            seen: (!saved).then_some((now, current)),
            file,
            directory,
            site,
            not_before: now,
            warned: String::new(),
        }
    }

    fn run(&mut self, stopped: &Receiver<()>) {
        while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            self.look(Instant::now());
        }
        self.finish(Instant::now());
    }

    /// Saves what was already there at the last look.
    fn look(&mut self, now: Instant) {
        let current = Arc::clone(&self.site.current());
        if self.is_saved(&current) || now < self.not_before {
            self.seen = None;
            return;
        }
        let earlier = self.seen.replace((now, Arc::clone(&current)));
        if let Some((since, earlier)) = earlier
            && now.duration_since(since) >= REST
        {
            self.save(&current, Some(&earlier));
            let spent = now.elapsed();
            self.not_before = now + spent + BETWEEN.max(spent * SHARE);
        }
    }

    fn finish(&mut self, now: Instant) {
        let current = Arc::clone(&self.site.current());
        if self.is_saved(&current) {
            return;
        }
        let is_old = |(since, _): &(Instant, _)| now.duration_since(*since) >= REST;
        let earlier = self.seen.take().filter(is_old);
        self.save(&current, earlier.as_ref().map(|(_, earlier)| earlier));
    }

    fn is_saved(&self, manifest: &Arc<Manifest>) -> bool {
        // The address can't be another manifest's, as long as the weak pointer is there.
        self.saved.as_ptr() == Arc::as_ptr(manifest)
    }

    /// Saves `current`. What `earlier` has of it was hashed long enough ago to be confirmed now.
    fn save(&mut self, current: &Arc<Manifest>, earlier: Option<&Arc<Manifest>>) {
        // Where the root is missing or being replaced, the watcher says so.
        let Ok(root) = Root::open(&self.directory) else {
            return;
        };
        if let Some(earlier) = earlier {
            confirm(current, earlier, &root);
        }
        match self.file.save(current, &root) {
            Ok(()) => {
                self.warned.clear();
                // What was published since is to be confirmed, and saved once more.
                if earlier.is_some_and(|earlier| Arc::ptr_eq(current, earlier)) {
                    self.saved = Arc::downgrade(current);
                    self.seen = None;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.warn(&error),
        }
    }

    /// Once for each reason: the next try comes soon.
    fn warn(&mut self, error: &io::Error) {
        let warning = error.to_string();
        if mem::replace(&mut self.warned, warning.clone()) != warning {
            let file = self.file.path().display();
            tracing::warn!("cannot save the manifest in {file}: {warning}: a restart hashes anew");
        }
    }
}

/// Marks the files of `current` that were hashed by the time of `earlier` and are still in the
/// state they were in.
fn confirm(current: &Manifest, earlier: &Manifest, root: &Root) {
    for resource in current.iter() {
        let is_open = resource.settled && resource.confirmed.get().is_none();
        let was_there = |then: &Arc<Resource>| {
            then.stamp == resource.stamp && then.identity.etag == resource.identity.etag
        };
        let path = Path::new(OsStr::from_bytes(&resource.path));
        if is_open
            && earlier.locate(&resource.path).is_some_and(was_there)
            && root
                .stamp_behind(path)
                .is_ok_and(|now| now == resource.stamp)
        {
            // Another thread can't have had another opinion.
            let _ = resource.confirmed.set(true);
        }
    }
}
