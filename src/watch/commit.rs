//! Changes that clients ask for, made between two looks at the disk.
//!
//! What decides is the disk: what has changed there is known to a commit, published or not. Its
//! own change is published alone, and before anybody hears of it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderValue;

use super::Driver;
use crate::commit::{CommitError, Committed, Operation, WriteJob};
use crate::representation::{Data, Fields, NO_STORE, Representation, Resource};
use crate::rules::RuleFile;
use crate::scan::{ScanOutcome, Scope, Unsettled};
use crate::semantics::coding::Coding;
use crate::semantics::etag::ETag;
use crate::staging::{Directory, ExpectedFile, StagingOutcome};

/// How long a commit waits for something bigger that is under way.
const MAX_SETTLE_TIME: Duration = Duration::from_secs(5);
/// How often it is tried meanwhile.
const PAUSE: Duration = Duration::from_millis(20);
/// How often others may come in between before a commit gives way.
const TRIES: usize = 5;

const IN_MOTION: CommitError = CommitError::Busy("the site is being replaced");
const BUSY: CommitError = CommitError::Busy("somebody is writing to it");

/// A commit that has not had its turn.
pub(super) struct Waiting {
    commit: WriteJob,
    until: Instant,
}

impl Waiting {
    pub(super) fn new(commit: WriteJob, now: Instant) -> Self {
        let until = now + MAX_SETTLE_TIME;
        Self { commit, until }
    }
}

impl Driver {
    /// When to try again what waits.
    pub(super) fn next_try(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then(|| Instant::now() + PAUSE)
    }

    /// Makes the changes that clients have asked for. What lies in a tree that is being replaced
    /// waits for that.
    pub(super) fn commit(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        self.watch.source.barrier();
        self.drain();
        self.check_root();
        let refusal = if self.is_root_missing {
            Some("the site's directory is not there")
        } else if self.is_held() {
            Some("publication is held back")
        } else {
            None
        };
        for Waiting { commit, until } in std::mem::take(&mut self.waiting) {
            let WriteJob {
                path,
                act,
                condition,
                reply,
            } = commit;
            if reply.is_closed() {
                continue;
            }
            let result = match refusal {
                Some(reason) => Err(CommitError::Busy(reason)),
                None if self.is_in_motion(&path) && Instant::now() < until => {
                    let commit = WriteJob {
                        path,
                        act,
                        condition,
                        reply,
                    };
                    self.waiting.push_back(Waiting { commit, until });
                    continue;
                }
                None if self.is_in_motion(&path) => Err(IN_MOTION),
                None => self.make(&path, act, &condition),
            };
            // Whoever does not wait any more finds out by asking.
            let _ = reply.send(result);
        }
    }

    /// Whether a path may be about to name something else, with all that is around it.
    fn is_in_motion(&self, path: &[u8]) -> bool {
        let moved = self.pending.moved.iter();
        let moved = moved.flat_map(|path| self.site_paths(path));
        let moved = Scope::Paths(moved.chain(self.moved_links()).collect());
        self.pending.everything || moved.covers(path)
    }

    /// Makes one change, and publishes it.
    fn make(
        &mut self,
        path: &[u8],
        mut act: Operation,
        condition: &dyn Fn(Option<&Resource>) -> bool,
    ) -> Result<Committed, CommitError> {
        let real = Path::new(OsStr::from_bytes(path));
        let (Some(parent), Some(name)) = (real.parent(), real.file_name()) else {
            return Err(CommitError::Blocked("a directory has the name"));
        };
        for _ in 0..TRIES {
            let now = self.on_disk(parent, name, path)?;
            let now = now.as_deref();
            if now.is_none() && matches!(act, Operation::Delete) {
                return Err(CommitError::Nothing);
            }
            if !condition(now) {
                return Err(CommitError::Failed(now.map(|now| now.identity.etag)));
            }
            let expected = now.map(|now| ExpectedFile {
                stamp: now.stamp,
                hash: *now.identity.etag.hash(),
            });
            let (directory, outcome) = match (&mut act, &expected) {
                (Operation::Put { temp_file, .. }, expected) => {
                    let directory = Directory::make(&self.watch.root, parent)?;
                    let outcome = temp_file.place(&directory, name, expected.as_ref())?;
                    (directory, outcome)
                }
                (Operation::Delete, Some(expected)) => {
                    let directory = Directory::open(&self.watch.root, parent)?;
                    let outcome = directory.remove_expected(name, expected)?;
                    (directory, outcome)
                }
                (Operation::Delete, None) => return Err(CommitError::Nothing),
            };
            match outcome {
                StagingOutcome::Done => {
                    let before = now.map(|now| now.identity.etag);
                    let now = self.publish_change(path, act);
                    return Ok(Committed {
                        before,
                        now,
                        directory,
                    });
                }
                StagingOutcome::Overtaken => {}
                StagingOutcome::Busy => return Err(BUSY),
            }
        }
        Err(BUSY)
    }

    /// What the path names on the disk at this moment.
    fn on_disk(
        &self,
        parent: &Path,
        name: &OsStr,
        path: &[u8],
    ) -> Result<Option<Arc<Resource>>, CommitError> {
        let directory = match Directory::open(&self.watch.root, parent) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !CommitError::look(&directory, name)? {
            return Ok(None);
        }
        if RuleFile::named(path).is_some() {
            return self.rules_on_disk(&directory, name);
        }
        let scope = Scope::Paths(BTreeSet::from([path.into()]));
        let current = self.site.current();
        let ScanOutcome {
            mut changes, busy, ..
        } = self.reconcile(&current, &scope, Unsettled::Report);
        if !busy.is_empty() {
            return Err(BUSY);
        }
        if let Some(reason) = changes.unreadable.remove(path) {
            let error = io::Error::other(format!("it cannot be read: {reason}"));
            return Err(CommitError::Io(error));
        }
        let now = changes.changed.iter().find(|now| *now.path == *path);
        // Its tag, as whoever reads it is told.
        Ok(now.map(|now| current.resource_at_path(now, path, None).into_owned()))
    }

    /// A file of rules as if it were one of the others.
    fn rules_on_disk(
        &self,
        directory: &Directory,
        name: &OsStr,
    ) -> Result<Option<Arc<Resource>>, CommitError> {
        let Some((stamp, hash)) = directory.hash(name)? else {
            return Err(BUSY);
        };
        let fields = Fields::new(HeaderValue::from_static("text/plain"), NO_STORE);
        let data = Data::Memory(Bytes::new());
        let identity = Representation::new(Coding::Identity, ETag::new(hash), stamp.size, data);
        let path = name.as_bytes().into();
        Ok(Some(Arc::new(Resource {
            stamp,
            ..Resource::new(path, Arc::new(fields), identity)
        })))
    }

    /// Publishes what a path names now, under all its names, and returns the tag of what was put
    /// there, if that is still so.
    fn publish_change(&mut self, path: &[u8], act: Operation) -> Option<ETag> {
        let hash = match &act {
            Operation::Put { hash, .. } => Some(*hash),
            Operation::Delete => None,
        };
        // A file that is open for writing is not published.
        drop(act);
        let root = self.watch.root.path();
        let real = root.join(OsStr::from_bytes(path));
        let scope = Scope::Paths(self.site_paths(&real).into_iter().collect());
        let outcome = self.reconcile(&self.site.current(), &scope, Unsettled::Report);
        self.publish(&scope, outcome, Instant::now());
        let Some(hash) = hash else {
            // Nor is it answered as what a deploy has left behind: whoever deleted it wants it gone.
            let keep = |old: &Arc<Resource>, _| (*old.path != *path).then(|| Arc::clone(old));
            let over = self.site.forget(keep);
            self.scanner.close(&over);
            return None;
        };
        if RuleFile::named(path).is_some() {
            return Some(ETag::new(hash));
        }
        let current = self.site.current();
        let now = current.locate(path)?.identity.etag;
        (*now.hash() == hash).then_some(now)
    }
}
