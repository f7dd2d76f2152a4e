//! From dirty paths to a publication: one look at the disk, and what may be shown of it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pending::DirtyPaths;
use super::{BLIND_SWEEP, Busy, Driver, Hint, ROOT_CHECK, immutable};
use crate::disk;
use crate::manifest::{Changes, Manifest};
use crate::release::Release;
use crate::representation::Resource;
use crate::scan::{self, Link, Progress, ScanOutcome, Scope, Unsettled};

/// A sweep may take this share of one core, whatever the interval.
const SWEEP_SHARE: u32 = 20;
/// Bytes a second at which files that never rest are hashed.
const UNHURRIED: u64 = 64 << 20;
/// First and longest pause before a busy file is tried again.
const BUSY_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// While a file of this name is in the root, nothing is published.
const HOLD: &str = ".etagd-hold";
/// What is written into an emptied folder is published when it has been quiet for so long: it is
/// all of a site.
const REBUILD_QUIET: Duration = Duration::from_millis(100);

impl Driver {
    /// Looks at what is pending and publishes it, unless that would be half of something.
    pub(super) fn work(&mut self, now: Instant) {
        self.check_root();
        if self.is_root_missing || self.is_held() {
            self.postpone(now + ROOT_CHECK);
            self.answer();
            return;
        }
        // New directories are watched from here on, so that listing them misses nothing.
        self.watch.source.barrier();
        self.drain();
        if !self.is_due(Instant::now()) {
            return;
        }
        // A file that is tried again does not make a batch due that still waits for quiet.
        let is_batch_due = self.pending.due().is_some_and(|due| Instant::now() >= due);
        let batch = is_batch_due.then(|| self.pending.take());
        let batch = batch.unwrap_or_else(|| DirtyPaths::new(self.watch.options.longest));
        let was_overdue = batch.is_overdue(now);
        self.suspects.clear();
        let root = Arc::clone(&self.watch.root);
        let scope = self.scope(&batch, now);
        let mut outcome = self.look(&scope, now);
        let finished = Instant::now();
        let metrics = &self.watch.metrics;
        match scope {
            Scope::Everything => {
                metrics.site_scans.observe(finished - now);
                metrics.sweeps.increment();
                self.next_sweep = finished + self.sweep_interval(finished - now);
                self.find_mounts();
            }
            Scope::Paths(_) => metrics.change_scans.observe(finished - now),
        }
        if !self.blind.is_empty() && is_batch_due {
            let spent = (finished - now) * SWEEP_SHARE;
            self.next_blind_sweep = finished + BLIND_SWEEP.min(self.watch.options.sweep).max(spent);
        }
        // What has happened meanwhile is known when its reports have been read.
        self.watch.source.barrier();
        self.drain();
        self.check_root();
        let is_other_site = self.is_root_missing || !Arc::ptr_eq(&root, &self.watch.root);
        let moving = self.moving(&outcome.links);
        let may_be_half = !self.pending.is_empty() || !moving.is_empty();
        let is_early = may_be_half && !batch.is_overdue(finished);
        // What was lost while a look took long can't be told from what it saw.
        let is_unknown = self.pending.everything && !was_overdue;
        if self.waits_for_busy(&batch, &outcome, finished) {
            self.remember_busy(outcome.busy, &scope, finished);
            let pause = BUSY_PAUSE.0.max((finished - now) * 4);
            self.pending.put_back(batch, finished, pause);
            return;
        }
        if let Some(hold) = self.watch.options.hold_empty
            && !batch.is_older(finished, hold)
            && self.is_emptied(&outcome)
        {
            self.remember_busy(outcome.busy, &scope, finished);
            self.pending.hold(batch, finished, hold, REBUILD_QUIET);
            return;
        }
        if is_other_site || is_early || is_unknown || self.is_held() {
            let settle = self.watch.options.settle;
            self.pending.put_back(batch, finished, settle);
            self.postpone_busy(finished + settle.max(BUSY_PAUSE.0));
            return;
        }
        if !was_overdue {
            // It has come of age by a long look alone: what began meanwhile is another batch.
            let begun = self.pending.paths.iter();
            let begun = begun.flat_map(|path| self.site_paths(path)).collect();
            outcome.exclude(&begun);
        }
        // What does not come to rest is left as it is, and holds up nothing else.
        outcome.exclude(&moving);
        self.publish(&scope, outcome, now);
        for path in moving {
            let path = self.watch.root.path().join(OsStr::from_bytes(&path));
            self.pending
                .moved(path, finished, self.watch.options.settle);
        }
    }

    /// What leads elsewhere than it did when it was looked at, as paths of the site.
    fn moving(&self, links: &[Link]) -> BTreeSet<Box<[u8]>> {
        let moved = self.pending.moved.iter();
        let moved = moved.flat_map(|path| self.site_paths(path));
        let is_moving = |link: &&Link| self.target(link) != link.target;
        let links = links.iter().filter(is_moving);
        moved.chain(links.map(|link| link.path.clone())).collect()
    }

    /// Whether something is still being written in a tree that has come as a whole, and is to be
    /// published as one.
    fn waits_for_busy(&self, batch: &DirtyPaths, outcome: &ScanOutcome, now: Instant) -> bool {
        let moved = batch.moved.iter();
        let moved = Scope::Paths(moved.flat_map(|path| self.site_paths(path)).collect());
        outcome.busy.iter().any(|path| moved.covers(path))
            && !batch.is_older(now, scan::MAX_SETTLE_TIME)
    }

    /// Whether nothing would be left of a site.
    fn is_emptied(&self, outcome: &ScanOutcome) -> bool {
        let (changes, files) = (&outcome.changes, self.site.current().len());
        files > 0 && changes.changed.is_empty() && changes.removed.len() >= files
    }

    fn postpone_busy(&mut self, until: Instant) {
        for busy in self.busy.values_mut() {
            busy.next = busy.next.max(until);
        }
    }

    /// Whether the operator holds publication back.
    pub(super) fn is_held(&mut self) -> bool {
        let is_held = self.watch.root.path().join(HOLD).symlink_metadata().is_ok();
        if is_held != std::mem::replace(&mut self.is_held, is_held) {
            let state = if is_held { "held" } else { "released" };
            tracing::info!("publication is {state} by {HOLD}");
        }
        is_held
    }

    /// Does nothing of what is due before `until`.
    fn postpone(&mut self, until: Instant) {
        self.pending.postpone(until);
        self.postpone_busy(until);
    }

    /// What was on disk at the last look: with a release, more than what is published.
    fn known<'a>(&'a self, current: &'a Manifest) -> &'a Manifest {
        self.watch.release.as_ref().map_or(current, Release::tree)
    }

    pub(super) fn look(&self, scope: &Scope, now: Instant) -> ScanOutcome {
        let current = self.site.current();
        let known = self.known(&current);
        let mut outcome = self.reconcile(known, scope, Unsettled::Report);
        // What has been busy for too long is published as it is read.
        let is_lost = |path: &[u8]| {
            let busy = self.busy.get(path);
            busy.is_some_and(|busy| now >= busy.since + self.patience(path))
        };
        let lost: BTreeSet<_> = outcome.busy.extract_if(.., |path| is_lost(path)).collect();
        if !lost.is_empty() {
            let base = known.with(outcome.changes.clone());
            let forced = self.reconcile(&base, &Scope::Paths(lost), Unsettled::Publish);
            let seen = &mut outcome.changes;
            let again: HashSet<_> = forced.changes.changed.iter().map(|new| &new.path).collect();
            seen.changed.retain(|new| !again.contains(&new.path));
            seen.removed.extend(forced.changes.removed);
            seen.changed.extend(forced.changes.changed);
            seen.unreadable = forced.changes.unreadable;
            seen.rules = forced.changes.rules.or(seen.rules.take());
        }
        outcome
    }

    pub(super) fn reconcile(
        &self,
        base: &Manifest,
        scope: &Scope,
        unsettled: Unsettled,
    ) -> ScanOutcome {
        let progress = Progress::default();
        self.scanner
            .reconcile(&self.watch.root, base, scope, unsettled, &progress)
    }

    /// How long a file may be busy before it is published as it is read: the longer, the more
    /// there is to read, so that a huge one that never rests leaves time for the others.
    fn patience(&self, path: &[u8]) -> Duration {
        let file = self.watch.root.path().join(OsStr::from_bytes(path));
        let length = file.metadata().map_or(0, |file| file.len());
        scan::MAX_SETTLE_TIME + Duration::from_secs(length / UNHURRIED)
    }

    /// The paths of the site that a batch is about.
    fn scope(&self, batch: &DirtyPaths, now: Instant) -> Scope {
        match batch.everything {
            true => Scope::Everything,
            false => {
                let mut paths: BTreeSet<Box<[u8]>> = batch
                    .paths
                    .iter()
                    .flat_map(|path| self.site_paths(path))
                    .collect();
                paths.extend(self.moved_links());
                let due = self.busy.iter().filter(|(_, busy)| now >= busy.next);
                paths.extend(due.map(|(path, _)| path.clone()));
                self.add_names_of_shared(&mut paths);
                Scope::Paths(paths)
            }
        }
    }

    /// What a real path is called in the site: by its own name, and by those of all links that
    /// lead to it or above it.
    pub(super) fn site_paths(&self, real: &Path) -> Vec<Box<[u8]>> {
        let own = real.strip_prefix(self.watch.root.path()).ok();
        let own = own.map(|path| path.as_os_str().as_bytes().into());
        let linked = self.links.iter().filter_map(|link| {
            let below = real.strip_prefix(link.target.as_ref()?).ok()?;
            let path = Path::new(OsStr::from_bytes(&link.path)).join(below);
            let path = path.as_os_str().as_bytes();
            Some(path.strip_suffix(b"/").unwrap_or(path).into())
        });
        own.into_iter().chain(linked).collect()
    }

    /// The links that lead elsewhere than they did.
    pub(super) fn moved_links(&self) -> impl Iterator<Item = Box<[u8]>> {
        let is_moved = |link: &&Link| self.target(link) != link.target;
        self.links
            .iter()
            .filter(is_moved)
            .map(|link| link.path.clone())
    }

    fn target(&self, link: &Link) -> Option<PathBuf> {
        self.watch
            .root
            .path()
            .join(OsStr::from_bytes(&link.path))
            .canonicalize()
            .ok()
    }

    /// A file that changed under one name changed under all its names.
    fn add_names_of_shared(&self, paths: &mut BTreeSet<Box<[u8]>>) {
        let root = self.watch.root.path();
        let inodes: BTreeSet<u64> = paths
            .iter()
            .filter_map(|path| disk::shared_inode(&root.join(OsStr::from_bytes(path))))
            .collect();
        if !inodes.is_empty() {
            let current = self.site.current();
            let named = self
                .known(&current)
                .iter()
                .filter(|known| inodes.contains(&known.stamp.inode));
            paths.extend(named.map(|known| known.path.clone()));
        }
    }

    pub(super) fn publish(&mut self, scope: &Scope, outcome: ScanOutcome, now: Instant) {
        let ScanOutcome {
            changes,
            links,
            busy,
        } = outcome;
        let changes = match &mut self.watch.release {
            Some(release) => release.admit(changes, &self.site.current()),
            None => Some(changes),
        };
        if let Some(changes) = changes {
            self.publish_changes(changes, now);
        }
        self.answer();
        self.adopt(links, scope);
        self.remember_busy(busy, scope, now);
    }

    fn publish_changes(&mut self, mut changes: Changes, now: Instant) {
        changes.keep_until = self.watch.options.keep_old.map(|keep| now + keep);
        changes.keep_pages = self.watch.options.keep_pages;
        let over = self.outdated(&changes);
        let broken = immutable::broken(&self.site.current(), &changes.changed);
        let before = Arc::clone(self.site.current().rules());
        let started = Instant::now();
        let publication = self.site.update(|_| Some(changes));
        let spent = started.elapsed();
        self.scanner.close(&over);
        scan::report_rules(self.site.current().rules(), &before);
        if let Some(publication) = publication {
            self.watch.metrics.publishing.observe(spent);
            self.watch.metrics.publications.increment();
            tracing::info!("{publication}");
            immutable::warn(&broken, &self.watch.metrics);
        }
    }

    /// What nobody will be answered any more once these changes are published.
    fn outdated(&self, changes: &Changes) -> Vec<Arc<Resource>> {
        let current = self.site.current();
        let replaced = changes.changed.iter().filter_map(|new| {
            let old = current.locate(&new.path);
            let old = old.or_else(|| current.locate_retired(&new.path))?;
            (old.identity.etag.hash() != new.identity.etag.hash()).then_some(old)
        });
        let removed = changes.removed.iter();
        let removed = removed.filter_map(|path| current.locate(path));
        let is_kept = |old: &Resource| {
            changes.keep_until.is_some() && (changes.keep_pages || !current.is_page(old))
        };
        let removed = removed.filter(|old| !is_kept(old));
        replaced.chain(removed).cloned().collect()
    }

    /// Takes over the links that a look has found within its scope.
    pub(super) fn adopt(&mut self, links: Vec<Link>, scope: &Scope) {
        self.links.retain(|link| !scope.covers(&link.path));
        let mut blind = Vec::new();
        for link in &links {
            if let Some(target) = link.target.as_ref()
                && !target.starts_with(self.watch.root.path())
                && self.scanner.follows(&self.watch.root, target)
            {
                // Outside the root, so nothing else watches it.
                let is_directory = target.is_dir();
                let place = if is_directory {
                    Some(target.as_path())
                } else {
                    target.parent()
                };
                if let Some(place) = place
                    && let Err(reason) = self.watch.source.watch(place, is_directory)
                {
                    blind.push(Hint::Blind(place.to_path_buf(), reason));
                }
            }
        }
        self.links.extend(links);
        blind.into_iter().for_each(|hint| self.note(hint));
    }

    /// Files that were busy are tried again, with growing pauses; the others are at rest.
    fn remember_busy(&mut self, busy: Vec<Box<[u8]>>, scope: &Scope, now: Instant) {
        let (first, longest) = BUSY_PAUSE;
        let mut before: HashMap<_, _> =
            self.busy.extract_if(|path, _| scope.covers(path)).collect();
        for path in busy {
            let (since, pause) = match before.remove(&path) {
                Some(busy) => (busy.since, (busy.pause * 2).min(longest)),
                None => (now, first),
            };
            // Not later than when its time is up.
            let end = since + self.patience(&path);
            let next = (now + pause).min(end.max(now + first));
            self.busy.insert(path, Busy { since, next, pause });
        }
    }

    /// Until the next sweep, after one that took `spent`.
    pub(super) fn sweep_interval(&self, spent: Duration) -> Duration {
        let every = self.watch.options.sweep;
        let every = if self.watch.is_blind {
            every.min(BLIND_SWEEP)
        } else {
            every
        };
        every.max(spent * SWEEP_SHARE)
    }
}
