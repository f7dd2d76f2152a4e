//! One reconciliation while it goes on: what it works with, and what it has seen so far.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use super::walk::{self, FoundFile};
use super::{Progress, ScanOutcome, Scope, Unsettled};
use crate::disk::{Opened, Root, Stamp};
use crate::manifest::{Manifest, ancestors};
use crate::representation::{Data, FileSource, Resource};
use crate::rules::RuleFile;

/// What a reconciliation works with.
pub(super) struct Pass<'a> {
    pub(super) root: &'a Arc<Root>,
    pub(super) base: &'a Manifest,
    pub(super) scope: &'a Scope,
    pub(super) unsettled: Unsettled,
    pub(super) progress: &'a Progress,
    /// Whether nothing is served yet, and the base is what an earlier process knew. What can't be
    /// read is left out then, whatever the base has of it: nothing of it is held that could be sent.
    pub(super) is_start: bool,
    pub(super) now: SystemTime,
    /// Files that have several paths, as this run has seen them.
    pub(super) shared: Mutex<HashMap<Inode, FileState>>,
    /// The same as the manifest has them, by inode; made when it is first needed.
    pub(super) known: OnceLock<HashMap<u64, &'a Arc<Resource>>>,
}

/// What names a file on this machine: its device and its inode.
pub(super) type Inode = (u64, u64);

/// What a file is.
#[derive(Clone)]
pub(super) struct FileState {
    pub(super) stamp: Stamp,
    pub(super) hash: [u8; 32],
    pub(super) sha256: Option<[u8; 32]>,
    pub(super) utf8: bool,
    pub(super) settled: bool,
    /// As the resource that it was known by has it.
    pub(super) confirmed: OnceLock<bool>,
    pub(super) data: Data,
    /// BLAKE3 of the file, where `hash` and `data` are of it and a tail.
    pub(super) plain: Option<[u8; 32]>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(
        root: &'a Arc<Root>,
        base: &'a Manifest,
        scope: &'a Scope,
        unsettled: Unsettled,
        progress: &'a Progress,
    ) -> Self {
        Self {
            root,
            base,
            scope,
            unsettled,
            progress,
            is_start: false,
            now: SystemTime::now(),
            shared: Mutex::default(),
            known: OnceLock::new(),
        }
    }

    /// Whether a file that was in one state is in it `now`. Devices may have been numbered anew
    /// since an earlier process saw them: NFS, overlays and btrfs do that.
    pub(super) fn is_still(&self, known: &Stamp, now: &Stamp) -> bool {
        let device = if self.is_start {
            now.device
        } else {
            known.device
        };
        *now == Stamp { device, ..*known }
    }

    /// A file that was read under another path: in this run, or, where its stamp can be trusted,
    /// before.
    pub(super) fn recall(&self, opened: &Opened, rereads: bool) -> Option<FileState> {
        let inode = (opened.stamp.device, opened.stamp.inode);
        let seen = lock(&self.shared).get(&inode).cloned();
        if let Some(seen) = seen.filter(|seen| seen.stamp == opened.stamp) {
            return Some(seen);
        }
        if rereads {
            return None;
        }
        let by_inode = || {
            let all = self.base.iter().filter(|known| known.plain.is_none());
            all.map(|known| (known.stamp.inode, known)).collect()
        };
        let known = self.known.get_or_init(by_inode).get(&opened.stamp.inode)?;
        (self.is_still(&known.stamp, &opened.stamp) && known.settled).then(|| FileState {
            stamp: opened.stamp,
            hash: *known.identity.etag.hash(),
            sha256: known.identity.sha256.as_deref().copied(),
            utf8: known.utf8,
            settled: true,
            confirmed: known.confirmed.clone(),
            data: known.identity.data.clone(),
            plain: None,
        })
    }
}

/// Whether content is where a walk has found it, so that it can be read again from there.
pub(super) fn is_at(data: &Data, root: &Arc<Root>, found: &FoundFile) -> bool {
    match data {
        Data::Memory(_) => true,
        Data::File(source) => Arc::ptr_eq(&source.root, root) && *source.path == *found.location,
    }
}

/// The same content, to be read from where a walk has found it.
pub(super) fn relocated(data: &Data, root: &Arc<Root>, found: &FoundFile) -> Data {
    match data {
        Data::File(source) if !is_at(data, root, found) => Data::File(Arc::new(FileSource {
            root: Arc::clone(root),
            path: found.location.clone().into_boxed_path(),
            groups: Arc::clone(&source.groups),
        })),
        _ => data.clone(),
    }
}

/// What the base has within the scope and the disk has no more. What can't be looked at is not
/// gone.
pub(super) fn removed(
    pass: &Pass<'_>,
    unchanged: &[Box<[u8]>],
    outcome: &ScanOutcome,
    unreadable: &BTreeMap<Box<[u8]>, String>,
) -> Vec<Box<[u8]>> {
    if pass.base.is_empty() {
        return Vec::new();
    }
    let changed = outcome.changes.changed.iter().map(|new| &*new.path);
    let others = changed.chain(outcome.busy.iter().map(AsRef::as_ref));
    let was_there = |path: &&[u8]| pass.base.locate(path).is_some();
    // A walk meets each path once: where it has met as many as there were, none is gone.
    if unchanged.len() + others.clone().filter(was_there).count() == pass.base.len() {
        return Vec::new();
    }
    let present: HashSet<&[u8]> = others.chain(unchanged.iter().map(AsRef::as_ref)).collect();
    let is_unreadable = |path: &[u8]| {
        unreadable.contains_key(path) || ancestors(path).any(|above| unreadable.contains_key(above))
    };
    let is_kept = |path: &[u8]| present.contains(path) || (!pass.is_start && is_unreadable(path));
    let starts = pass.scope.starts();
    // Where nothing was below the starts, one look-up for each will do.
    if !starts.iter().any(|start| pass.base.has_below(start)) {
        let is_gone = |start: &&[u8]| pass.base.locate(start).is_some() && !is_kept(start);
        return starts.into_iter().filter(is_gone).map(Box::from).collect();
    }
    let paths = pass.base.iter().map(|resource| &resource.path);
    paths
        .filter(|path| pass.scope.covers(path) && !is_kept(path))
        .cloned()
        .collect()
}

/// Each path that can't be read and could before, with the reason, up to a number that a person
/// reads.
pub(super) fn report(pass: &Pass<'_>, unreadable: &BTreeMap<Box<[u8]>, String>) {
    const MAX_SHOWN: usize = 20;
    let known = pass.base.unreadable();
    let all = unreadable.iter();
    let new: Vec<_> = all
        .filter(|(path, reason)| known.get(*path) != Some(*reason))
        .collect();
    for (path, reason) in new.iter().take(MAX_SHOWN) {
        let shown = walk::join(pass.root.path(), path);
        let is_known = pass.base.locate(path).is_some() || RuleFile::named(path).is_some();
        let stays = if !pass.is_start && is_known {
            "its last state stays"
        } else {
            "left out"
        };
        tracing::warn!("cannot read {}: {reason}: {stays}", shown.display());
    }
    if let Some(more) = new.len().checked_sub(MAX_SHOWN).filter(|more| *more > 0) {
        tracing::warn!("{more} more paths cannot be read");
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
