//! A manifest that stays true: hints -> dirty paths -> quiet period -> reconcile -> publish.
//!
//! One thread does it all, so that two changes never race. An event only says where to look; a
//! sweep looks everywhere, for the changes that no event reports. What is seen half-way (a file
//! open for writing, a directory being replaced) is not published: the last good state stays.

mod batch;
mod commit;
pub mod immutable;
mod noticing;
mod pending;
mod scrub;
mod source;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::disk::Root;
use crate::metrics::Metrics;
use crate::release::Release;
use crate::scan::{Link, Scanner, Scope};
use crate::site::Site;
use commit::Waiting;
use pending::DirtyPaths;

pub use source::{ChangeSource, Hint, Of};

/// How often the root is looked at: no event tells that it is another directory now.
const ROOT_CHECK: Duration = Duration::from_millis(250);
/// How often to sweep where nothing reports changes.
const BLIND_SWEEP: Duration = Duration::from_secs(3);

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
                metrics.watch_failures.increment();
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
            metrics.watch_failures.increment();
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
            pending: DirtyPaths::new(self.options.longest),
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
    pending: DirtyPaths,
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
                self.pending = DirtyPaths::new(self.watch.options.longest);
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
}
