//! What the driver is told, and what it finds out by itself: from hints to paths that are dirty.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::commit::Waiting;
use super::{BLIND_SWEEP, Driver, Hint, Of, warn_blind};
use crate::disk::{self, Root};
use crate::scan::{self, Link};
use crate::staging;

/// A suspect is looked at almost at once; the pause lets the events of the same change arrive.
const SUSPECT_QUIET: Duration = Duration::from_millis(20);
/// How much longer than the longest quiet period a request waits for the truth about a suspect,
/// before it is told that there is none yet.
const SUSPECT_PATIENCE: Duration = Duration::from_millis(50);

impl Driver {
    pub(super) fn drain(&mut self) {
        while let Ok(hint) = self.watch.hints.try_recv() {
            self.note(hint);
        }
    }

    pub(super) fn note(&mut self, hint: Hint) {
        let (now, settle) = (Instant::now(), self.watch.options.settle);
        match hint {
            Hint::Path { path, of } => self.note_path(path, of, now),
            Hint::Suspect(path) => self.note_suspect(path, now),
            Hint::Lost => {
                self.watch.metrics.overflows.increment();
                tracing::warn!("changes came faster than they could be read: sweeping");
                self.pending.everything(now, settle);
            }
            Hint::Blind(path, reason) => {
                self.watch.metrics.watch_failures.increment();
                if !self.watch.is_blind {
                    warn_blind(&path, &reason);
                }
                // Watching a tree ends at the first directory that can't be watched, and only that
                // one is named.
                self.watch.is_blind = true;
                self.next_sweep = self.next_sweep.min(now + BLIND_SWEEP);
            }
            Hint::Sweep => {
                self.check_release(true, now);
                self.pending.join_everything(now);
            }
            Hint::WriteJob(commit) => self.waiting.push_back(Waiting::new(commit, now)),
        }
    }

    /// What a response found to be other than the manifest says belongs to a batch as any other
    /// change does: published alone it might be half of a deploy.
    fn note_suspect(&mut self, path: PathBuf, now: Instant) {
        self.answer_by
            .get_or_insert(now + self.watch.options.longest + SUSPECT_PATIENCE);
        if !self.suspects.insert(path.clone()) {
            return;
        }
        // Of an earlier state only what can be proven is kept.
        let over = self.site.forget(|old, _| old.without_file(&path));
        self.scanner.close(&over);
        // What is busy is tried again as it is.
        let mut names = self.site_paths(&path).into_iter();
        if !names.any(|name| self.busy.contains_key(&name)) {
            let quiet = self.watch.options.settle.min(SUSPECT_QUIET);
            self.pending.join_path(path, now, quiet);
        }
    }

    /// Whether what happens at a real path can change the site: it is below the root or where a
    /// link leads, and it is admitted, or links may lead through it.
    fn is_ours(&self, path: &Path) -> bool {
        let leads_here = |link: &Link| {
            let target = link.target.as_ref();
            target.is_some_and(|target| path.starts_with(target) || target.starts_with(path))
        };
        if path.file_name().is_some_and(staging::is_temp_file) {
            return false;
        }
        match path.strip_prefix(self.watch.root.path()) {
            Ok(own) if !scan::is_hidden(own.as_os_str().as_bytes()) => true,
            // A link that no request can name may be a step on the way of one that can.
            Ok(_) if !self.links.is_empty() => {
                let is_file_or_directory = path
                    .symlink_metadata()
                    .is_ok_and(|now| !now.file_type().is_symlink());
                !is_file_or_directory || self.links.iter().any(leads_here)
            }
            Ok(_) => false,
            Err(_) => self.links.iter().any(leads_here),
        }
    }

    fn note_path(&mut self, path: PathBuf, of: Of, now: Instant) {
        let settle = self.watch.options.settle;
        self.watch.metrics.hints.increment();
        if !path.starts_with(self.watch.root.path()) {
            // Perhaps one of the links that lead to the root.
            self.next_root_check = now;
        }
        if !self.is_ours(&path) {
            return;
        }
        // A rename tells of both names, and one of them is gone.
        let is_file = || path.symlink_metadata().is_ok_and(|now| now.is_file());
        if of == Of::Unknown && !is_file() {
            self.pending.moved(path, now, settle);
        } else if of == Of::Closed && self.is_alone(&path) {
            let settle = self.watch.options.settle_alone;
            self.pending.path(path, now, settle);
        } else {
            self.pending.path(path, now, settle);
        }
    }

    /// Whether a file of the site is all that has changed.
    fn is_alone(&self, path: &Path) -> bool {
        let own = path.strip_prefix(self.watch.root.path()).ok();
        let own = own.map(|own| own.as_os_str().as_bytes());
        own.is_some_and(|own| self.site.current().locate(own).is_some())
            && self.pending.is_at_most(path)
    }

    /// Takes notice of what is mounted within the site, or where its links lead: what reports
    /// nothing is swept, and what has come since the last time is watched.
    pub(super) fn find_mounts(&mut self) {
        let root = self.watch.root.path();
        let outside: Vec<_> = self
            .links
            .iter()
            .filter_map(|link| link.target.clone())
            .filter(|target| !target.starts_with(root))
            .filter(|target| self.scanner.follows(&self.watch.root, target))
            .collect();
        let is_here = |mount: &PathBuf| {
            let below = |above: &Path| mount != above && mount.starts_with(above);
            below(root) || outside.iter().any(|target| below(target))
        };
        let mounts: BTreeSet<_> = disk::mount_points().into_iter().filter(is_here).collect();
        let silent = |path: &&PathBuf| disk::is_silent_at(path);
        let silent: BTreeSet<_> = mounts
            .iter()
            .chain(&outside)
            .filter(silent)
            .cloned()
            .collect();
        for path in silent.difference(&self.blind) {
            self.watch.metrics.watch_failures.increment();
            warn_blind(path, "its file system does not report what others change");
        }
        let new: Vec<_> = mounts.difference(&self.mounts).cloned().collect();
        for mount in new.into_iter().filter(|mount| !silent.contains(mount)) {
            if let Err(reason) = self.watch.source.watch(&mount, true) {
                self.note(Hint::Blind(mount, reason));
            }
        }
        self.mounts = mounts;
        self.blind = silent;
        self.next_blind_sweep = self.next_blind_sweep.min(Instant::now() + BLIND_SWEEP);
    }

    /// Finds out whether the root is still the directory it was.
    pub(super) fn check_root(&mut self) {
        match self.watch.root.is_still(&self.watch.options.directory) {
            Ok(true) if !self.is_root_missing => {}
            // A root that was away has lost its watches, even if it is the same.
            Ok(_) => self.swap_root(),
            Err(error) => {
                if !std::mem::replace(&mut self.is_root_missing, true) {
                    let root = self.watch.options.directory.display();
                    tracing::warn!("cannot find {root}: {error}; its last state stays");
                }
            }
        }
    }

    /// Finds out whether another release is to be served. It is proven by what is on disk then.
    pub(super) fn check_release(&mut self, always: bool, now: Instant) {
        let Some(release) = &mut self.watch.release else {
            return;
        };
        release.catch_up();
        if release.look(always) {
            self.pending.join_everything(now);
        }
    }

    /// Turns to another root: one batch, published when all of it is hashed.
    fn swap_root(&mut self) {
        let root = match Root::open(&self.watch.options.directory) {
            Ok(root) => Arc::new(root),
            // It is being replaced at this moment; the next look will tell.
            Err(_) => return,
        };
        self.watch.metrics.root_changes.increment();
        tracing::info!("the site is {} now", root.path().display());
        self.is_root_missing = false;
        let old = std::mem::replace(&mut self.watch.root, root);
        self.watch.source.unwatch(old.path());
        let new = self.watch.root.path().to_path_buf();
        self.watch.is_blind = self.watch.root.is_silent();
        self.blind.clear();
        self.mounts.clear();
        if let Err(reason) = self.watch.source.watch(&new, true) {
            self.note(Hint::Blind(new, reason));
        }
        self.watch.watch_root_links();
        self.links.clear();
        self.busy.clear();
        let (now, settle) = (Instant::now(), self.watch.options.settle);
        self.pending
            .moved(self.watch.root.path().to_path_buf(), now, settle);
        self.pending.everything(now, settle);
    }
}
