//! Disk to representations: walk, read, hash, compare.
//!
//! [`Scanner::reconcile`] is the one way from the disk to a manifest: at start, after a change,
//! after lost events and for a sweep it brings a manifest in line with some paths, or with all.
//! Files are hashed on all cores while the walk goes on. Nothing is published here.

mod codings;
mod document;
pub(crate) mod hash;
pub(crate) mod media;
mod pass;
mod restore;
mod rules;
mod scope;
pub mod sidecar;
pub(crate) mod walk;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use std::{io, iter};

use rayon::iter::{ParallelBridge, ParallelIterator};

use crate::config::Symlinks;
use crate::config::{ReprDigest, Settings};
use crate::disk::{self, Opened, Root, Stamp};
use crate::lease::{self, Writers};
use crate::manifest::{Manifest, ancestors};
use crate::memory::Memory;
use crate::representation::{Data, Fields, FileSource, Plain, Representation, Resource};
use crate::rules::RuleFile;
use crate::semantics::coding::Coding;
use crate::semantics::date::HttpDate;
use crate::semantics::etag::ETag;
use hash::{HashOptions, Retained};
use media::{Keeping, MediaTypes};
use pass::{FileState, Pass, is_at, lock, relocated, removed, report};
use walk::{FoundFile, WalkStep};

pub use codings::stem;
pub use restore::SavedFile;
pub use rules::report as report_rules;
pub use scope::{ScanOutcome, Scope, Unsettled};
pub use walk::{Link, is_admitted, is_beside_rules, is_hidden};

/// How long a file may go on changing before it is published as it was read.
pub const MAX_SETTLE_TIME: Duration = Duration::from_secs(5);
/// A file whose times are younger may still have a writer that no stamp shows.
const RECENT: Duration = Duration::from_secs(2);
/// The coarsest clock of a file system (FAT's), and something for clocks that disagree.
const MAX_CLOCK_STEP: Duration = Duration::from_millis(2_500);

/// So many files at a time go from the walk to a thread that hashes.
const BATCH_SIZE: usize = 32;

/// How far a scan has come; readable from other threads.
#[derive(Debug, Default)]
pub struct Progress {
    files: AtomicU64,
    bytes: AtomicU64,
}

impl Progress {
    /// Files hashed so far.
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// Bytes hashed so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Everything a scan needs to know beside the tree itself.
#[derive(Debug)]
pub struct Scanner {
    symlinks: Symlinks,
    settings: Arc<Settings>,
    memory: Option<Arc<Memory>>,
    media: MediaTypes,
}

/// What has become of a step of the walk.
enum Visit {
    Unchanged(Box<[u8]>),
    File(Arc<Resource>),
    Rules(RuleFile, Vec<u8>),
    Busy(Box<[u8]>),
    Unreadable(Box<[u8]>, String),
    Link(Link),
    Gone,
}

impl Scanner {
    /// A scanner that keeps small bodies within `memory`, if there is one.
    pub fn new(
        symlinks: Symlinks,
        settings: impl Into<Arc<Settings>>,
        memory: Option<Arc<Memory>>,
    ) -> Self {
        Self {
            symlinks,
            settings: settings.into(),
            memory,
            media: MediaTypes::default(),
        }
    }

    /// Whether a link may lead to this real path.
    pub fn follows(&self, root: &Root, target: &Path) -> bool {
        self.symlinks.allow(root.path(), target)
    }

    /// Gives back the descriptors that were kept for these resources.
    pub fn close(&self, resources: &[Arc<Resource>]) {
        if let Some(memory) = &self.memory {
            let representations = resources.iter().flat_map(|each| each.representations());
            representations.for_each(|each| memory.close(each.etag.hash()));
        }
    }

    /// Whether what a link leads to is no part of the site.
    pub fn excludes(&self, root: &Root, link: &Link) -> bool {
        let allowed = |target: &PathBuf| self.symlinks.allow(root.path(), target);
        !link.target.as_ref().is_some_and(allowed)
    }

    /// The whole site for the first time; waits for files that are being written, for
    /// [`MAX_SETTLE_TIME`] at most.
    pub fn scan(&self, root: &Arc<Root>, progress: &Progress) -> (Manifest, Vec<Link>) {
        self.scan_from(Manifest::empty(Arc::clone(&self.settings)), root, progress)
    }

    /// The same where an earlier process has left what it knew: see [`Scanner::restore`].
    pub fn scan_from(
        &self,
        base: Manifest,
        root: &Arc<Root>,
        progress: &Progress,
    ) -> (Manifest, Vec<Link>) {
        let compare = |base: &Manifest, scope: &Scope, unsettled| {
            let pass = Pass {
                is_start: true,
                ..Pass::new(root, base, scope, unsettled, progress)
            };
            self.compare(&pass)
        };
        let scope = Scope::Everything;
        let ScanOutcome {
            changes,
            links,
            mut busy,
        } = compare(&base, &scope, Unsettled::Report);
        let before = Arc::clone(base.rules());
        let mut manifest = base.with(changes);
        let (started, mut pause) = (Instant::now(), Duration::from_millis(20));
        if let Some(first) = busy.first() {
            let first = walk::join(root.path(), first);
            let others = match busy.len() - 1 {
                0 => String::new(),
                number => format!(" and {number} more"),
            };
            let first = first.display();
            tracing::info!("waiting for {first}{others}: somebody is writing to it");
        }
        while !busy.is_empty() {
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(1));
            let is_over = started.elapsed() >= MAX_SETTLE_TIME;
            let unsettled = if is_over {
                Unsettled::Publish
            } else {
                Unsettled::Report
            };
            let scope = Scope::Paths(busy.into_iter().collect());
            let outcome = compare(&manifest, &scope, unsettled);
            manifest = manifest.with(outcome.changes);
            busy = outcome.busy;
        }
        report_rules(manifest.rules(), &before);
        (manifest, links)
    }

    /// Compares `scope` on the disk with `base`. A file that can't be read is no error: what
    /// `base` has of it stays, and the changes say so.
    pub fn reconcile(
        &self,
        root: &Arc<Root>,
        base: &Manifest,
        scope: &Scope,
        unsettled: Unsettled,
        progress: &Progress,
    ) -> ScanOutcome {
        self.compare(&Pass::new(root, base, scope, unsettled, progress))
    }

    fn compare(&self, pass: &Pass<'_>) -> ScanOutcome {
        let mut steps = pass
            .scope
            .starts()
            .into_iter()
            .flat_map(|start| walk::walk(pass.root.path(), start, self.symlinks));
        // The walk is one; its results go out by the handful, or the threads would wait for it in
        // turns.
        let handfuls = iter::from_fn(move || {
            let handful: Vec<WalkStep> = steps.by_ref().take(BATCH_SIZE).collect();
            (!handful.is_empty()).then_some(handful)
        });
        let look = |step| match step {
            WalkStep::File(found) => self.look(pass, found),
            WalkStep::Rules(file, found) => rules::look(pass, file, found),
            WalkStep::Link(link) => Visit::Link(link),
            WalkStep::Unreadable(path, reason) => Visit::Unreadable(path, reason),
        };
        let seen: Vec<Visit> = handfuls
            .par_bridge()
            .flat_map_iter(|handful| handful.into_iter().map(look))
            .collect();
        self.conclude(pass, seen)
    }

    /// Looks at one file, and reads it if it may have changed.
    fn look(&self, pass: &Pass<'_>, found: FoundFile) -> Visit {
        let old = pass.base.locate(&found.path);
        let rereads = pass.scope.rereads(&found.path);
        if let Some(old) = old.filter(|old| !rereads && old.settled)
            && is_at(&old.identity.data, pass.root, &found)
            && let Ok(stamp) = pass.root.stamp(&found.location)
            && pass.is_still(&old.stamp, &stamp)
        {
            if stamp == old.stamp {
                return Visit::Unchanged(found.path);
            }
            let old = Resource::clone(old);
            return Visit::File(Arc::new(Resource { stamp, ..old }));
        }
        let result = pass.root.open_file(&found.location).and_then(|opened| {
            let inode = (opened.stamp.device, opened.stamp.inode);
            // By another name the same bytes may be no document.
            let has_tail = self.tail(&found.path, opened.stamp.size).is_some();
            let is_shared = (found.linked || opened.shared) && !has_tail;
            if is_shared && let Some(file) = pass.recall(&opened, rereads) {
                let data = relocated(&file.data, pass.root, &found);
                return Ok(Some(FileState { data, ..file }));
            }
            let file = self.read(pass, &found, opened, rereads)?;
            if is_shared && let Some(file) = &file {
                lock(&pass.shared).insert(inode, file.clone());
            }
            Ok(file)
        });
        match result {
            Ok(Some(file)) => {
                let old = pass.base.locate(&found.path);
                Visit::File(Arc::new(self.resource(found.path, file, old, pass.now)))
            }
            Ok(None) => Visit::Busy(found.path),
            // Deleted, or replaced by something that is no file, since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Visit::Gone,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Visit::Gone,
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Visit::Gone,
            Err(error) => Visit::Unreadable(found.path, error.to_string()),
        }
    }

    /// Hashes an open file between two stamps; `None` where it is not at rest.
    fn read(
        &self,
        pass: &Pass<'_>,
        found: &FoundFile,
        opened: Opened,
        rereads: bool,
    ) -> io::Result<Option<FileState>> {
        let Opened { file, stamp, .. } = opened;
        let publish = pass.unsettled == Unsettled::Publish;
        let may_have_writers = rereads || stamp.is_younger(pass.now, RECENT);
        let has_writers = may_have_writers && lease::writers(&file) == Writers::Some;
        if has_writers && !publish {
            return Ok(None);
        }
        let wanted = HashOptions {
            body: self.keeps(stamp.size),
            sha256: self.digests(),
        };
        let content = match self.tail(&found.path, stamp.size) {
            Some(tail) => hash::content_with_tail(&file, stamp.size, tail, wanted),
            None => hash::content(&file, stamp.size, wanted),
        };
        pass.progress.files.fetch_add(1, Ordering::Relaxed);
        pass.progress.bytes.fetch_add(stamp.size, Ordering::Relaxed);
        let settled = !has_writers && disk::stamp(&file)? == stamp;
        let content = match content {
            Ok(content) if settled || publish => content,
            Err(error) if settled => return Err(error),
            Err(_) if publish => return Err(io::Error::other("it does not stop changing")),
            _ => return Ok(None),
        };
        let plain = match &content.form {
            Retained::Tailed { plain, .. } => Some(*plain),
            Retained::Small(_) | Retained::Whole | Retained::Groups(_) => None,
        };
        let data = self.data(pass.root, found, content.form);
        let hash::HashedFile {
            hash, sha256, utf8, ..
        } = content;
        let confirmed = OnceLock::new();
        if stamp.is_coarse() && stamp.is_younger(pass.now, MAX_CLOCK_STEP) {
            // The next change may leave the same stamp.
            let _ = confirmed.set(false);
        }
        Ok(Some(FileState {
            stamp,
            hash,
            sha256,
            utf8,
            settled,
            confirmed,
            data,
            plain,
        }))
    }

    /// What is added to a file at this path and of this length, if it is a document.
    fn tail(&self, path: &[u8], length: u64) -> Option<&'static str> {
        let tail = self.settings.additions.tail?;
        document::may_be(path, length).then_some(tail)
    }

    fn keeps(&self, length: u64) -> bool {
        self.memory
            .as_ref()
            .is_some_and(|memory| memory.has_room(length))
    }

    fn digests(&self) -> bool {
        self.settings.repr_digest != ReprDigest::Off
    }

    fn data(&self, root: &Arc<Root>, found: &FoundFile, form: Retained) -> Data {
        let groups = match form {
            Retained::Small(body) => {
                match self.memory.as_ref().and_then(|memory| memory.keep(body)) {
                    Some(bytes) => return Data::Memory(bytes),
                    None => Arc::default(),
                }
            }
            // No file has these bytes, so that they are kept whatever the budget says.
            Retained::Tailed { body, .. } => return Data::Memory(body.into()),
            Retained::Whole => Arc::default(),
            Retained::Groups(groups) => groups,
        };
        let path = found.location.clone().into_boxed_path();
        Data::File(Arc::new(FileSource {
            root: Arc::clone(root),
            path,
            groups,
        }))
    }

    /// Puts together what has been seen.
    fn conclude(&self, pass: &Pass<'_>, seen: Vec<Visit>) -> ScanOutcome {
        let mut outcome = ScanOutcome::default();
        let (mut unreadable, mut unchanged) = (BTreeMap::new(), Vec::new());
        let mut rules = Vec::new();
        for seen in seen {
            match seen {
                Visit::File(resource) => outcome.changes.changed.push(resource),
                Visit::Unchanged(path) => unchanged.push(path),
                Visit::Rules(file, text) => rules.push((file, text)),
                Visit::Busy(path) => outcome.busy.push(path),
                Visit::Unreadable(path, reason) => {
                    unreadable.insert(path, reason);
                }
                Visit::Link(link) => outcome.links.push(link),
                Visit::Gone => {}
            }
        }
        report(pass, &unreadable);
        // What has never been published is missing from the digest.
        for path in &outcome.busy {
            if pass.base.locate(path).is_none() {
                unreadable.insert(path.clone(), "somebody is writing to it".to_owned());
            }
        }
        outcome.changes.removed = removed(pass, &unchanged, &outcome, &unreadable);
        let dialect = rules::dialect(&self.settings);
        outcome.changes.rules = rules::changed(pass, &rules, &outcome.busy, &unreadable, dialect);
        let outside = |path: &[u8]| !pass.scope.covers(path);
        let other = pass
            .base
            .unreadable()
            .iter()
            .filter(|(path, _)| outside(path));
        unreadable.extend(other.map(|(path, reason)| (path.clone(), reason.clone())));
        outcome.changes.unreadable = unreadable;
        codings::attach(pass, &mut outcome.changes);
        outcome
    }

    fn resource(
        &self,
        path: Box<[u8]>,
        file: FileState,
        old: Option<&Arc<Resource>>,
        now: SystemTime,
    ) -> Resource {
        let FileState {
            stamp,
            hash,
            sha256,
            utf8,
            settled,
            confirmed,
            data,
            plain,
        } = file;
        let etag = ETag::new(hash);
        let (length, plain) = match (&data, plain) {
            (Data::Memory(body), Some(plain)) => {
                let own = Data::Memory(body.slice(..stamp.size as usize));
                let tag = ETag::new(plain);
                let identity = Representation::new(Coding::Identity, tag, stamp.size, own);
                let encoded = Box::default();
                (
                    body.len() as u64,
                    Some(Box::new(Plain { identity, encoded })),
                )
            }
            _ => (stamp.size, None),
        };
        let newest = old.and_then(|old| old.newest_date);
        let last_modified = match old {
            // Touched, or moved and moved back: the content is as old as it was.
            Some(old) if old.identity.etag.hash() == etag.hash() => old.last_modified,
            // Content that claims not to be newer than other content was: no date can tell them
            // apart.
            _ => self
                .last_modified(stamp, now)
                .filter(|date| newest.is_none_or(|newest| newest < *date)),
        };
        Resource {
            clean: None,
            fields: self.fields(&path, utf8, settled),
            path,
            last_modified,
            newest_date: last_modified.max(newest),
            stamp,
            settled,
            confirmed,
            utf8,
            identity: Representation::new(Coding::Identity, etag, length, data).with_sha256(sha256),
            encoded: Box::default(),
            plain,
            rendered_date: OnceLock::new(),
        }
    }

    fn fields(&self, path: &[u8], utf8: bool, settled: bool) -> Arc<Fields> {
        let keeping = match settled {
            false => Keeping::Never,
            true if self.settings.is_immutable(path) => Keeping::Ever,
            true => Keeping::UntilAsked,
        };
        self.media.fields(path, utf8, keeping)
    }

    /// RFC 9110 section 8.8.2, left out where the file system's word is worth nothing: pinned by
    /// a build tool (0 or 1), or from the future.
    fn last_modified(&self, stamp: Stamp, now: SystemTime) -> Option<HttpDate> {
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let modified = stamp.modified();
        let is_true = modified > 1 && modified.unsigned_abs() <= now;
        (self.settings.last_modified && is_true)
            .then(|| HttpDate::from_unix(modified))
            .flatten()
    }
}
