//! Disk to representations: walk, read, hash.
//!
//! [`scan`] reads a whole tree; what it returns is the difference to an empty manifest. Files are
//! hashed on all cores while the walk goes on. Nothing is published here.

mod hash;
mod media;
pub mod sidecar;
mod walk;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rayon::iter::{ParallelBridge, ParallelIterator};

use crate::config::Symlinks;
use crate::disk::{self, Opened, Root, Stamp};
use crate::manifest::{Changes, Settings};
use crate::memory::Memory;
use crate::representation::{Data, Representation, Resource, Source};
use crate::semantics::coding::Coding;
use crate::semantics::date::HttpDate;
use crate::semantics::etag::ETag;
use hash::Form;
use media::MediaTypes;
use walk::{Found, Unreadable};

/// How long a file may go on changing before its scan gives up on it.
const PATIENCE: Duration = Duration::from_secs(5);

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
    settings: Settings,
    memory: Option<Arc<Memory>>,
    media: MediaTypes,
}

impl Scanner {
    /// A scanner that keeps small bodies within `memory`, if there is one.
    pub fn new(symlinks: Symlinks, settings: Settings, memory: Option<Arc<Memory>>) -> Self {
        Self {
            symlinks,
            settings,
            memory,
            media: MediaTypes::default(),
        }
    }

    /// Reads every file of the site. A file that can't be read is no error of the scan: it is
    /// left out, and the changes say so.
    pub fn scan(&self, root: &Arc<Root>, progress: &Progress) -> Changes {
        let hashed = Mutex::new(HashMap::new());
        let now = SystemTime::now();
        let results: Vec<Result<Option<Resource>, Unreadable>> =
            walk::walk(root.path(), self.symlinks)
                .par_bridge()
                .map(|found| {
                    let found = found?;
                    let resource = self.resource(root, &found, &hashed, now);
                    if let Ok(Some(resource)) = &resource {
                        progress.files.fetch_add(1, Ordering::Relaxed);
                        progress
                            .bytes
                            .fetch_add(resource.stamp.size, Ordering::Relaxed);
                    }
                    resource.map_err(|error| Unreadable {
                        path: found.path,
                        reason: error.to_string(),
                    })
                })
                .collect();
        let mut changes = Changes::default();
        for result in results {
            match result {
                Ok(Some(resource)) => changes.changed.push(Arc::new(resource)),
                Ok(None) => {}
                Err(Unreadable { path, reason }) => {
                    changes.unreadable.insert(path, reason);
                }
            }
        }
        report(root, &changes.unreadable);
        changes
    }

    /// Reads and hashes one file; `None` where it is gone or no regular file any more.
    fn resource(
        &self,
        root: &Arc<Root>,
        found: &Found,
        hashed: &Mutex<HashMap<(u64, u64), Hashed>>,
        now: SystemTime,
    ) -> io::Result<Option<Resource>> {
        let opened = match root.open_file(&found.location) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(None),
            Err(error) => return Err(error),
        };
        // One inode under several paths is hashed once.
        let inode = (opened.device, opened.stamp.inode);
        let is_shared = found.linked || opened.shared;
        let known = is_shared
            .then(|| lock(hashed).get(&inode).cloned())
            .flatten();
        let content = match known {
            Some(known) if known.stamp == opened.stamp => known,
            _ => {
                let content = self.hash(root, found, opened)?;
                if is_shared {
                    lock(hashed).insert(inode, content.clone());
                }
                content
            }
        };
        let Hashed {
            stamp,
            hash,
            utf8,
            data,
        } = content;
        Ok(Some(Resource {
            path: found.path.clone(),
            fields: self.media.fields(&found.path, utf8),
            last_modified: self.last_modified(stamp, now),
            stamp,
            identity: Representation::new(Coding::Identity, ETag::new(hash), stamp.size, data),
            encoded: Box::default(),
            rendered_date: OnceLock::new(),
        }))
    }

    /// Hashes an open file between two stamps, again while it is changing.
    fn hash(&self, root: &Arc<Root>, found: &Found, opened: Opened) -> io::Result<Hashed> {
        let Opened {
            file, mut stamp, ..
        } = opened;
        let started = Instant::now();
        let mut pause = Duration::from_millis(10);
        loop {
            let content = hash::content(&file, stamp.size, self.keeps(stamp.size));
            let after = disk::stamp(&file)?;
            match content {
                Ok(content) if after == stamp => {
                    let data = self.data(root, found, content.form);
                    return Ok(Hashed {
                        stamp,
                        hash: content.hash,
                        utf8: content.utf8,
                        data,
                    });
                }
                Err(error) if after == stamp => return Err(error),
                _ if started.elapsed() >= PATIENCE => {
                    return Err(io::Error::other("it does not stop changing"));
                }
                _ => {}
            }
            stamp = after;
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    fn keeps(&self, length: u64) -> bool {
        self.memory
            .as_ref()
            .is_some_and(|memory| memory.has_room(length))
    }

    fn data(&self, root: &Arc<Root>, found: &Found, form: Form) -> Data {
        let groups = match form {
            Form::Small(body) => match self.memory.as_ref().and_then(|memory| memory.keep(body)) {
                Some(bytes) => return Data::Memory(bytes),
                None => Box::default(),
            },
            Form::Whole => Box::default(),
            Form::Groups(groups) => groups,
        };
        let path = found.location.clone().into_boxed_path();
        Data::File(Arc::new(Source {
            root: Arc::clone(root),
            path,
            groups,
        }))
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

/// What hashing a file has told; shared by all paths that lead to it.
#[derive(Clone)]
struct Hashed {
    stamp: Stamp,
    hash: [u8; 32],
    utf8: bool,
    data: Data,
}

/// Each unreadable path with its reason, up to a number that a person reads.
fn report(root: &Root, unreadable: &BTreeMap<Box<[u8]>, String>) {
    const SHOWN: usize = 20;
    for (path, reason) in unreadable.iter().take(SHOWN) {
        let path = root.path().join(String::from_utf8_lossy(path).as_ref());
        tracing::warn!("cannot read {}: {reason}: left out", path.display());
    }
    if let Some(more) = unreadable.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        tracing::warn!("{more} more files cannot be read: left out");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
