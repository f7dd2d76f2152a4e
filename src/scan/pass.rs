//! The state of one reconciliation: its inputs, and the files read so far.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::site_path;
use super::walk::FoundFile;
use super::{Progress, ScanOutcome, Scope, Unsettled};
use crate::disk::{self, Opened, Root, Stamp};
use crate::locks::lock;
use crate::manifest::{Changes, Manifest, ancestors};
use crate::representation::{Confirmation, Data, FileSource, TextKind};
use crate::rules::RuleFile;

/// Unreadable paths that are named one by one; beyond this number they are only counted.
const MAX_SHOWN: usize = 20;

/// One reconciliation of some paths with the disk.
pub struct Pass<'a> {
    pub(super) root: &'a Arc<Root>,
    pub(super) base: &'a Manifest,
    pub(super) scope: &'a Scope,
    pub(super) unsettled: Unsettled,
    /// Files that are published as they are read, as under [`Unsettled::Publish`].
    pub(super) given_up: Option<&'a BTreeSet<Box<[u8]>>>,
    /// Where changes are dropped that an earlier look has found: that look has said what is wrong.
    pub(super) dropped: Option<&'a Scope>,
    pub(super) progress: &'a Progress,
    /// Whether nothing is served yet and `base` comes from an earlier process. Unreadable files
    /// are then left out even if `base` knows them: this process has no bytes of them to send.
    pub(super) is_start: bool,
    /// Whether what is found is compared and never published: nothing is compressed for that.
    pub(super) is_compared: bool,
    pub(super) now: SystemTime,
    /// Files that are left for later, see [`Unsettled::Defer`].
    pub(super) long: Mutex<Vec<PathBuf>>,
    /// Files with several paths that this pass has read.
    pub(super) shared: Mutex<HashMap<Inode, FileState>>,
}

/// Identifies a file on this machine: device and inode number.
pub(super) type Inode = (u64, u64);

/// What is known of a file after reading it, or after recognising it.
#[derive(Clone)]
pub(super) struct FileState {
    pub(super) stamp: Stamp,
    pub(super) hash: [u8; 32],
    pub(super) sha256: Option<[u8; 32]>,
    pub(super) text: TextKind,
    pub(super) settled: bool,
    /// As [`Resource::confirmed`].
    pub(super) confirmed: Confirmation,
    pub(super) data: Data,
    /// BLAKE3 of the file, where `hash` and `data` are of it and a tail.
    pub(super) plain: Option<[u8; 32]>,
}

impl<'a> Pass<'a> {
    /// A pass that compares `scope` on the disk with `base`.
    pub fn new(
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
            given_up: None,
            dropped: None,
            progress,
            is_start: false,
            is_compared: false,
            now: SystemTime::now(),
            long: Mutex::default(),
            shared: Mutex::default(),
        }
    }

    /// This pass, with files that are published as they are read, though somebody writes to them.
    #[must_use]
    pub fn giving_up(self, given_up: &'a BTreeSet<Box<[u8]>>) -> Self {
        let given_up = Some(given_up);
        Self { given_up, ..self }
    }

    /// Whether this path is published as it is read, though somebody writes to it.
    pub(super) fn publishes(&self, path: &[u8]) -> bool {
        self.unsettled == Unsettled::Publish
            || self.given_up.is_some_and(|paths| paths.contains(path))
    }

    /// Whether this path is compared with the disk, and what is found is not dropped.
    pub(super) fn covers(&self, path: &[u8]) -> bool {
        self.scope.covers(path) && !self.dropped.is_some_and(|dropped| dropped.covers(path))
    }

    /// Whether the stamp `now` equals the `known` one. At a start device numbers are not compared:
    /// NFS, overlayfs and btrfs assign them anew at each mount.
    pub(super) fn is_still(&self, known: &Stamp, now: &Stamp) -> bool {
        let device = if self.is_start {
            now.device
        } else {
            known.device
        };
        *now == Stamp { device, ..*known }
    }

    /// Whether a state without this path was published, because the disk had failed for too long.
    pub(super) fn has_given_up(&self, path: &[u8], error: &io::Error) -> bool {
        !self.is_start && !disk::is_exhaustion(error) && self.base.unreadable().contains_key(path)
    }

    /// The state of a file that was already read under another path: in this pass or, if its
    /// stamp can be trusted, in an earlier one.
    pub(super) fn recall(&self, opened: &Opened, rereads: bool) -> Option<FileState> {
        let inode = (opened.stamp.device, opened.stamp.inode);
        let seen = lock(&self.shared).get(&inode).cloned();
        if let Some(seen) = seen.filter(|seen| seen.stamp == opened.stamp) {
            return Some(seen);
        }
        if rereads {
            return None;
        }
        let known = self.base.with_inode(opened.stamp.inode).find(|known| {
            // What is sent of some is the file and a tail: another path may get no tail.
            known.plain().is_none() && known.settled && self.is_still(&known.stamp, &opened.stamp)
        })?;
        Some(FileState {
            stamp: opened.stamp,
            hash: *known.identity.etag.hash(),
            sha256: known.identity.sha256().copied(),
            text: known.text,
            settled: true,
            confirmed: known.confirmed.clone(),
            data: known.identity.data.clone(),
            plain: None,
        })
    }
}

/// Whether the content can be read again from where the walk found the file.
pub(super) fn is_at(data: &Data, root: &Arc<Root>, found: &FoundFile) -> bool {
    match data {
        Data::Memory(_) | Data::Spooled(_) => true,
        Data::Remote(_) => false,
        Data::File(source) => Arc::ptr_eq(&source.root, root) && *source.path == *found.location,
    }
}

/// `data`, to be read from where the walk found the file.
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

/// The paths of `base` within the scope that are no longer on the disk. An unreadable path is not
/// a removed one.
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
    // The walk yields each path once: if it has yielded as many known paths as there were, none
    // is missing, and the sets below need not be built. This is the usual sweep.
    if unchanged.len() + others.clone().filter(was_there).count() == pass.base.len() {
        return Vec::new();
    }
    let present: HashSet<&[u8]> = others.chain(unchanged.iter().map(AsRef::as_ref)).collect();
    let is_kept =
        |path: &[u8]| present.contains(path) || (!pass.is_start && is_unreadable(path, unreadable));
    let starts = pass.scope.starts();
    let named = starts.iter().filter_map(|start| pass.base.locate(start));
    named
        .chain(pass.base.below(&starts))
        .map(|resource| &resource.path)
        .filter(|path| !is_kept(path))
        .cloned()
        .collect()
}

/// Whether a path can't be read, or a folder above it.
fn is_unreadable(path: &[u8], unreadable: &BTreeMap<Box<[u8]>, String>) -> bool {
    unreadable.contains_key(path) || ancestors(path).any(|above| unreadable.contains_key(above))
}

/// Adds to `changes` the folders within the scope that `base` does not have, in order, and those
/// that are no longer on the disk. One that can't be read is neither: nobody knows whether it is
/// empty.
pub(super) fn add_folders(
    pass: &Pass<'_>,
    found: &HashSet<Box<[u8]>>,
    unreadable: &BTreeMap<Box<[u8]>, String>,
    changes: &mut Changes,
) {
    let is_new = |path: &&[u8]| !pass.base.has_folder(path) && !unreadable.contains_key(*path);
    let new = found.iter().map(AsRef::as_ref).filter(is_new);
    changes.new_folders.extend(new.map(Box::from));
    changes.new_folders.sort_unstable();
    let is_gone = |path: &&[u8]| {
        let is_kept = !pass.is_start && is_unreadable(path, unreadable);
        pass.scope.covers(path) && !found.contains(*path) && !is_kept
    };
    let starts = pass.scope.starts();
    // Below a start that is no folder, there is none.
    let is_known = |start: &&[u8]| start.is_empty() || pass.base.has_folder(start);
    if starts.iter().any(is_known) {
        let gone = pass.base.folders().filter(is_gone);
        changes.removed_folders.extend(gone.map(Box::from));
    }
}

/// Warns of each path that has become unreadable, up to [`MAX_SHOWN`] of them.
pub(super) fn report(pass: &Pass<'_>, unreadable: &BTreeMap<Box<[u8]>, String>) {
    let known = pass.base.unreadable();
    let new: Vec<_> = unreadable
        .iter()
        .filter(|(path, reason)| known.get(*path) != Some(*reason))
        .collect();
    for (path, reason) in new.iter().take(MAX_SHOWN) {
        let shown = site_path::join(pass.root.path(), path);
        let is_known = pass.base.locate(path).is_some() || RuleFile::named(path).is_some();
        let consequence = if !pass.is_start && is_known {
            "keeping its last state"
        } else {
            "left out"
        };
        let shown = shown.display();
        tracing::warn!(path = %shown, reason, "cannot read {shown}: {reason}: {consequence}");
    }
    match new.len().saturating_sub(MAX_SHOWN) {
        0 => {}
        1 => tracing::warn!(count = 1, "1 more path cannot be read"),
        count => tracing::warn!(count, "{count} more paths cannot be read"),
    }
}
