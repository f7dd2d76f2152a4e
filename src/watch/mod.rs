//! A manifest that stays true: hints -> dirty paths -> quiet period -> reconcile -> publish.
//!
//! One thread does it all, so that two changes never race. An event only says where to look; a
//! sweep looks everywhere, for the changes that no event reports. What is seen half-way (a file
//! open for writing, a directory being replaced) is not published: the last good state stays.

mod commit;
pub mod immutable;
mod pending;
mod scrub;
mod source;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::disk::{self, Root};
use crate::manifest::{Changes, Manifest};
use crate::metrics::Metrics;
use crate::place;
use crate::release::Release;
use crate::representation::Resource;
use crate::scan::{self, Link, Outcome, Progress, Scanner, Scope, Unsettled};
use crate::site::Site;
use commit::Waiting;
use pending::Pending;

pub use source::{ChangeSource, Hint, Of};

/// How often the root is looked at: no event tells that it is another directory now.
const ROOT_CHECK: Duration = Duration::from_millis(250);
/// How often to sweep where nothing reports changes.
const BLIND_SWEEP: Duration = Duration::from_secs(3);
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
/// A suspect is looked at almost at once; the pause lets the events of the same change arrive.
const SUSPECT_QUIET: Duration = Duration::from_millis(20);

/// How much longer than the longest quiet period a request waits for the truth about a suspect,
/// before it is told that there is none yet.
const SUSPECT_PATIENCE: Duration = Duration::from_millis(50);

/// How a site is watched.
#[derive(Clone, Debug)]
pub struct Options {
    /// The site's directory as it was given: it may be a link, and lead elsewhere later.
    pub directory: PathBuf,
    /// How long nothing may change before a batch is published.
    pub settle: Duration,
    /// The same after a file of the site is edited where it stands, and nothing else is.
    pub settle_alone: Duration,
    /// How long a batch may wait at most while something changes all the time.
    pub longest: Duration,
    /// How often everything is compared with the disk.
    pub sweep: Duration,
    /// How often every file is read again, if at all.
    pub scrub: Option<Duration>,
    /// How long a path that is gone is still answered, if at all.
    pub keep_old: Option<Duration>,
    /// Whether pages are, too.
    pub keep_pages: bool,
    /// How long a site of which nothing is left stays as it was, if at all: a build may be about
    /// to write all of it anew.
    pub hold_empty: Option<Duration>,
}

/// A watch that is armed, so that no change after this is missed, but not yet acted upon.
pub struct Watch {
    options: Options,
    root: Arc<Root>,
    source: Box<dyn ChangeSource>,
    hints: Receiver<Hint>,
    sender: Sender<Hint>,
    metrics: Arc<Metrics>,
    is_blind: bool,
    release: Option<Release>,
}

impl Watch {
    /// Watches `root` with what the kernel offers. Where it can't, sweeps have to do, and a
    /// warning says so.
    pub fn arm(options: Options, root: Arc<Root>, metrics: Arc<Metrics>) -> Self {
        let (sender, hints) = channel();
        let source: Box<dyn ChangeSource> = match source::Notify::new(sender.clone()) {
            Ok(notify) => Box::new(notify),
            Err(error) => {
                tracing::warn!("cannot watch files: {error}; sweeping instead");
                metrics.blind.increment();
                Box::new(Nothing)
            }
        };
        Self::arm_with(source, options, root, metrics, (sender, hints))
    }

    /// The same with a given source.
    pub fn arm_with(
        mut source: Box<dyn ChangeSource>,
        options: Options,
        root: Arc<Root>,
        metrics: Arc<Metrics>,
        (sender, hints): (Sender<Hint>, Receiver<Hint>),
    ) -> Self {
        let mut is_blind = root.is_silent();
        if let Err(reason) = source.watch(root.path(), true) {
            warn_blind(root.path(), &reason);
            metrics.blind.increment();
            is_blind = true;
        }
        let mut watch = Self {
            options,
            root,
            source,
            hints,
            sender,
            metrics,
            is_blind,
            release: None,
        };
        watch.watch_root_links();
        watch
    }

    /// Publishes only what is in this release, and only when the tree proves it.
    #[must_use]
    pub fn proving(self, release: Option<Release>) -> Self {
        Self { release, ..self }
    }

    /// Where to send hints of one's own.
    pub fn hints(&self) -> Sender<Hint> {
        self.sender.clone()
    }

    /// The directories that hold the links which lead to the root: a swap is seen at once.
    fn watch_root_links(&mut self) {
        for directory in link_parents(&self.options.directory) {
            // The look every quarter of a second does not depend on it.
            let _ = self.source.watch(&directory, false);
        }
    }

    /// Keeps `site` true to the disk, from the state that a scan has found, for the life of the
    /// process.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn drive(
        self,
        site: Arc<Site>,
        scanner: Scanner,
        links: Vec<Link>,
    ) -> std::io::Result<thread::JoinHandle<()>> {
        let now = Instant::now();
        let mut driver = Driver {
            next_sweep: now,
            next_root_check: now + ROOT_CHECK,
            next_expiry: now,
            answer_by: None,
            suspects: BTreeSet::new(),
            blind: BTreeSet::new(),
            mounts: BTreeSet::new(),
            next_blind_sweep: now,
            pending: Pending::new(self.options.longest),
            busy: HashMap::new(),
            links: Vec::new(),
            waiting: VecDeque::new(),
            is_root_missing: false,
            is_held: false,
            watch: self,
            site,
            scanner,
        };
        if let Some(every) = driver.watch.options.scrub {
            let (site, directory) = (
                Arc::clone(&driver.site),
                driver.watch.options.directory.clone(),
            );
            let hints = driver.watch.hints();
            thread::Builder::new()
                .name("scrubber".to_owned())
                .spawn(move || scrub::scrub(&site, &directory, every, &hints))?;
        }
        driver.next_sweep = now + driver.sweep_interval(Duration::ZERO);
        driver.adopt(links, &Scope::Everything);
        driver.find_mounts();
        thread::Builder::new()
            .name("watcher".to_owned())
            .spawn(move || driver.run())
    }
}

fn warn_blind(path: &Path, reason: &str) {
    let path = path.display();
    tracing::warn!("changes below {path} are found by sweeps only: {reason}");
}

/// A source for systems that report nothing.
struct Nothing;

impl ChangeSource for Nothing {
    fn watch(&mut self, _: &Path, _: bool) -> Result<(), String> {
        Err("this system does not report changes".to_owned())
    }

    fn unwatch(&mut self, _: &Path) {}

    fn barrier(&mut self) {}
}

/// The parents of all links on the way to `path`.
fn link_parents(path: &Path) -> BTreeSet<PathBuf> {
    const MOST: usize = 40;
    let mut parents = BTreeSet::new();
    let mut todo = vec![path.to_path_buf()];
    while let Some(path) = todo.pop().filter(|_| parents.len() < MOST) {
        for link in path.ancestors() {
            let (Ok(target), Some(parent)) = (link.read_link(), link.parent()) else {
                continue;
            };
            let Ok(real_parent) = parent.canonicalize() else {
                continue;
            };
            todo.push(real_parent.join(target));
            parents.insert(real_parent);
        }
    }
    parents
}

/// A file that was open for writing when it was looked at.
struct Busy {
    since: Instant,
    next: Instant,
    pause: Duration,
}

/// The thread that keeps a site true.
struct Driver {
    watch: Watch,
    site: Arc<Site>,
    scanner: Scanner,
    pending: Pending,
    busy: HashMap<Box<[u8]>, Busy>,
    links: Vec<Link>,
    next_sweep: Instant,
    next_root_check: Instant,
    next_expiry: Instant,
    /// When the requests that wait for a look are to be told, published or not.
    answer_by: Option<Instant>,
    /// Files that a response found to be other than the manifest says, since the last look.
    suspects: BTreeSet<PathBuf>,
    /// What is mounted within the site.
    mounts: BTreeSet<PathBuf>,
    /// What of that, and of what links lead to, reports nothing.
    blind: BTreeSet<PathBuf>,
    next_blind_sweep: Instant,
    /// Changes that clients ask for, until they are made.
    waiting: VecDeque<Waiting>,
    is_root_missing: bool,
    is_held: bool,
}

impl Driver {
    /// Works until the process ends. A turn that breaks off is a bug, and no reason to leave the
    /// site to itself: a sweep makes good what it may have missed.
    fn run(mut self) {
        loop {
            if catch_unwind(AssertUnwindSafe(|| self.turn())).is_err() {
                tracing::error!("looking for changes broke off; sweeping: please report this");
                self.watch.metrics.overflows.increment();
                self.pending = Pending::new(self.watch.options.longest);
                self.pending.everything(Instant::now(), ROOT_CHECK);
            }
        }
    }

    fn turn(&mut self) {
        let wait = self.wake().saturating_duration_since(Instant::now());
        // There is always a sender, for this thread holds one itself.
        if let Ok(hint) = self.watch.hints.recv_timeout(wait) {
            self.note(hint);
            self.drain();
        }
        self.look_after(Instant::now());
    }

    /// When something has to be done at the latest.
    fn wake(&self) -> Instant {
        let busy = self.busy.values().map(|busy| busy.next);
        let busy = busy.filter(|_| self.pending.is_empty());
        let others = [Some(self.next_sweep), Some(self.next_root_check)];
        let sometimes = [
            self.pending.due(),
            self.answer_by,
            self.next_try(),
            (!self.blind.is_empty()).then_some(self.next_blind_sweep),
        ];
        busy.chain(others.into_iter().chain(sometimes).flatten())
            .min()
            .unwrap_or(self.next_sweep)
    }

    /// Does what is due.
    fn look_after(&mut self, now: Instant) {
        if now >= self.next_root_check {
            self.next_root_check = now + ROOT_CHECK;
            self.check_root();
            self.check_release(false, now);
        }
        if now >= self.next_sweep {
            self.pending.join_everything(now);
            // Set anew by the sweep itself; until then, do not ask for another.
            self.next_sweep = now + self.watch.options.sweep;
        }
        if !self.blind.is_empty() && now >= self.next_blind_sweep {
            for path in self.blind.clone() {
                self.pending.join_path(path, now, Duration::ZERO);
            }
            // Set anew by the look itself.
            self.next_blind_sweep = now + self.watch.options.sweep;
        }
        if self.watch.options.keep_old.is_some() && now >= self.next_expiry {
            self.next_expiry = now + ROOT_CHECK;
            let over = self
                .site
                .forget(|old, until| (until > now).then(|| Arc::clone(old)));
            self.scanner.close(&over);
        }
        if self.is_due(now) {
            self.work(now);
        }
        self.commit();
        if self.answer_by.is_some_and(|by| Instant::now() >= by) {
            self.answer();
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        let is_batch_due = self.pending.due().is_some_and(|due| now >= due);
        // What is tried again goes with the batch, if there is one.
        let is_tried = self.pending.is_empty() && self.busy.values().any(|busy| now >= busy.next);
        is_batch_due || is_tried
    }

    /// Tells requests that wait for a look at the disk to see what there is now.
    fn answer(&mut self) {
        self.answer_by = None;
        self.site.looked();
    }

    fn drain(&mut self) {
        while let Ok(hint) = self.watch.hints.try_recv() {
            self.note(hint);
        }
    }

    fn note(&mut self, hint: Hint) {
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
                self.watch.metrics.blind.increment();
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
            Hint::Commit(commit) => self.waiting.push_back(Waiting::new(commit, now)),
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
        let over = self.site.forget(|old, _| old.without(&path));
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
        if path.file_name().is_some_and(place::is_draft) {
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
    fn find_mounts(&mut self) {
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
            self.watch.metrics.blind.increment();
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
    fn check_root(&mut self) {
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
    fn check_release(&mut self, always: bool, now: Instant) {
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

    /// Looks at what is pending and publishes it, unless that would be half of something.
    fn work(&mut self, now: Instant) {
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
        let batch = batch.unwrap_or_else(|| Pending::new(self.watch.options.longest));
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
            outcome.leave_out(&begun);
        }
        // What does not come to rest is left as it is, and holds up nothing else.
        outcome.leave_out(&moving);
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
    fn waits_for_busy(&self, batch: &Pending, outcome: &Outcome, now: Instant) -> bool {
        let moved = batch.moved.iter();
        let moved = Scope::Paths(moved.flat_map(|path| self.site_paths(path)).collect());
        outcome.busy.iter().any(|path| moved.covers(path)) && !batch.is_older(now, scan::PATIENCE)
    }

    /// Whether nothing would be left of a site.
    fn is_emptied(&self, outcome: &Outcome) -> bool {
        let (changes, files) = (&outcome.changes, self.site.current().len());
        files > 0 && changes.changed.is_empty() && changes.removed.len() >= files
    }

    fn postpone_busy(&mut self, until: Instant) {
        for busy in self.busy.values_mut() {
            busy.next = busy.next.max(until);
        }
    }

    /// Whether the operator holds publication back.
    fn is_held(&mut self) -> bool {
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

    fn look(&self, scope: &Scope, now: Instant) -> Outcome {
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

    fn reconcile(&self, base: &Manifest, scope: &Scope, unsettled: Unsettled) -> Outcome {
        let progress = Progress::default();
        self.scanner
            .reconcile(&self.watch.root, base, scope, unsettled, &progress)
    }

    /// How long a file may be busy before it is published as it is read: the longer, the more
    /// there is to read, so that a huge one that never rests leaves time for the others.
    fn patience(&self, path: &[u8]) -> Duration {
        let file = self.watch.root.path().join(OsStr::from_bytes(path));
        let length = file.metadata().map_or(0, |file| file.len());
        scan::PATIENCE + Duration::from_secs(length / UNHURRIED)
    }

    /// The paths of the site that a batch is about.
    fn scope(&self, batch: &Pending, now: Instant) -> Scope {
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
    fn site_paths(&self, real: &Path) -> Vec<Box<[u8]>> {
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
    fn moved_links(&self) -> impl Iterator<Item = Box<[u8]>> {
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

    fn publish(&mut self, scope: &Scope, outcome: Outcome, now: Instant) {
        let Outcome {
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
    fn adopt(&mut self, links: Vec<Link>, scope: &Scope) {
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
    fn sweep_interval(&self, spent: Duration) -> Duration {
        let every = self.watch.options.sweep;
        let every = if self.watch.is_blind {
            every.min(BLIND_SWEEP)
        } else {
            every
        };
        every.max(spent * SWEEP_SHARE)
    }
}
