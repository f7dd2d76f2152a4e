//! The watcher's thread: records hints, takes the batch that is due, looks at the disk, publishes.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};
use std::{mem, thread};

use super::batch::Batch;
use super::commit::{self, Echoes, QueueTurn, WriteQueue};
use super::coverage::{Coverage, RootState};
use super::parking::{ParkedBatch, Parking, ParkingToken};
use super::publisher::Publisher;
use super::schedule::{Decision, Due, Findings, Schedule};
use super::source::{EventKind, Hint};
use crate::beat::{Beat, Beats, WatchThread};
use crate::commit::{Committed, Condition, Operation, RejectedWrite, WriteJob};
use crate::disk::{self, Root};
use crate::scan::{
    Link, LinkVerdict, Pass, ScanOutcome, Scanner, Scope, TreeSize, Unmade, Unsettled, is_unlisted,
};
use crate::semantics::etag::ETag;

/// How often the large files of a batch are hashed, or its codings made, on a thread of their own. If
/// they change all the time, the look after that does it itself.
const MAX_PREPARATIONS: u32 = 4;

/// The thread that keeps a site true to the disk. What is watched, what is due and what may be
/// published are decided by its parts; it brings them together.
pub(super) struct Driver {
    hints: Receiver<Hint>,
    /// For those who work for this thread. Without any sender, to wait for hints would not take any
    /// time.
    sender: Sender<Hint>,
    /// How many marks it has sent to itself.
    marks: u64,
    /// Of those who work for this thread.
    beats: Arc<Beats>,
    beat: Arc<Beat>,
    coverage: Coverage,
    schedule: Schedule,
    publisher: Publisher,
    writes: WriteQueue,
    /// What the writes of clients have left, whose events tell of nothing new.
    echoes: Echoes,
    parking: Parking,
    /// How long the last look took, until what it has found was published.
    look_time: Duration,
    /// Whether the last look could not be completed: that is reported once.
    is_incomplete: bool,
    /// Files that a response found to be different from the manifest, until a look at them is
    /// published.
    suspects: BTreeSet<PathBuf>,
}

/// Says when it is dropped that the work ahead of a look has ended: also by a panic, or the batch
/// would wait for ever and hold up others.
struct Announcement {
    sender: Sender<Hint>,
    id: u64,
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // The watcher is gone only when the process ends.
        let _ = self.sender.send(Hint::Prepared(self.id));
    }
}

/// A write whose content is compressed ahead of its turn. When it is dropped, it comes back: also after
/// a panic, and where there is no thread for it.
struct WriteAhead {
    sender: Sender<Hint>,
    job: Option<WriteJob>,
}

impl Drop for WriteAhead {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            // The watcher is gone only when the process ends.
            let _ = self.sender.send(Hint::PreparedWrite(job));
        }
    }
}

impl WriteAhead {
    /// Makes the codings of what is to be put there, for the look that publishes it.
    fn make_codings(&self, scanner: &Scanner, root: &Root, beat: &Beat) {
        let Some(WriteJob {
            path,
            operation: Operation::Put { temp_file, .. },
            reply,
            ..
        }) = &self.job
        else {
            return;
        };
        // What can't be read is for the look to find.
        if let Ok(content) = temp_file.read() {
            scanner.make_codings_of_write(root, (path, content), &|| {
                beat.step();
                !reply.is_closed()
            });
        }
    }
}

impl Driver {
    /// A driver whose first state a scan has published, with the links that it has found.
    pub(super) fn new(
        (sender, hints): (Sender<Hint>, Receiver<Hint>),
        (beats, beat): (Arc<Beats>, Arc<Beat>),
        coverage: Coverage,
        schedule: Schedule,
        publisher: Publisher,
        links: Vec<Link>,
    ) -> Self {
        let mut driver = Self {
            hints,
            sender,
            marks: 0,
            beats,
            beat,
            coverage,
            schedule,
            publisher,
            writes: WriteQueue::default(),
            echoes: Echoes::default(),
            parking: Parking::default(),
            look_time: Duration::ZERO,
            is_incomplete: false,
            suspects: BTreeSet::new(),
        };
        let now = Instant::now();
        let files = driver.publisher.current().len();
        let are_followed = |verdict| links.iter().any(|link| link.verdict == verdict);
        // How many of the files lie behind links is known after the first sweep: until then all may.
        let size = TreeSize {
            own: files,
            linked: match are_followed(LinkVerdict::Followed) {
                true => files,
                false => 0,
            },
            excluded: 0,
            is_limited: are_followed(LinkVerdict::TooMuch),
        };
        driver.coverage.adopt_size(size, &Scope::Everything);
        for directory in driver.coverage.watch_links(links, &Scope::Everything) {
            driver.schedule.join_path(directory, now);
        }
        driver.coverage.find_mounts();
        driver.adopt_exclusions();
        if driver.coverage.is_uncertain() {
            // The patterns of the site were being written when the watch was armed.
            driver.schedule.record_everything(now);
        }
        driver.follow_coverage(now);
        driver
    }

    /// Tries these files again and again, which the first scan has left out because another process
    /// is writing them.
    pub(super) fn awaiting(mut self, busy: Vec<Box<[u8]>>) -> Self {
        self.remember_busy(busy, &Scope::Everything, Instant::now());
        self
    }

    /// Works until the process ends. A panic is a bug, and no reason to leave the site to itself: a
    /// sweep makes good what may have been missed by it.
    pub(super) fn run(mut self) {
        loop {
            if catch_unwind(AssertUnwindSafe(|| self.run_once())).is_err() {
                tracing::error!(
                    "internal error: the watcher panicked (see above) and sweeps the site; please \
                     report this"
                );
                self.publisher.metrics.overflows.increment();
                self.coverage.mark_uncertain();
                self.parking.clear();
                self.schedule.start_over(Instant::now());
            }
        }
    }

    /// Waits for a hint or for something to be due, and does what is due.
    pub(super) fn run_once(&mut self) {
        let next = self.schedule.next_wake();
        let wait = next.saturating_duration_since(Instant::now());
        self.beat.rest();
        // There is always a sender, for this thread holds one itself: this fails by a timeout alone.
        let hint = self.hints.recv_timeout(wait);
        self.beat.step();
        if let Ok(hint) = hint {
            self.record(hint);
            self.read_pending();
        }
        self.run_due(Instant::now());
    }

    pub(super) fn run_due(&mut self, now: Instant) {
        while let Some(batch) = self.parking.take_ready() {
            self.beat.step();
            self.resume(batch, now);
        }
        self.schedule.set_hashing(!self.parking.is_empty());
        while let Some(task) = self.schedule.next_due(now) {
            self.beat.step();
            match task {
                Due::CheckRoot => {
                    self.check_root(now);
                    self.check_mounts(now);
                    self.check_release(false, now);
                    self.publisher.scanner.forget_old(now);
                }
                Due::SweepBlind => {
                    for path in self.coverage.blind_places() {
                        self.schedule.join_path(path.clone(), now);
                    }
                }
                Due::ForgetExpired => self.publisher.forget_expired(now),
                Due::ProcessBatch => {
                    self.process_batch(now);
                    // One batch, then the writes: many changes must not keep them waiting.
                    break;
                }
            }
        }
        self.beat.step();
        self.commit_writes();
        if self.schedule.is_answer_due(Instant::now()) {
            self.announce_look();
        }
    }

    /// Number of writes that wait for their turn.
    #[cfg(test)]
    pub(super) fn waiting_writes(&self) -> usize {
        self.writes.len()
    }

    /// When the batch is due that waits, if there is one.
    #[cfg(test)]
    pub(super) fn due(&self) -> Option<Instant> {
        self.schedule.waiting().due()
    }

    /// Records all hints that have come by now. Those that come meanwhile are for the next time: a
    /// storm of them would keep everything else waiting until it is over.
    pub(super) fn read_pending(&mut self) {
        self.marks += 1;
        // This thread holds the other end as well, so it can't fail.
        let _ = self.sender.send(Hint::Mark(self.marks));
        while let Ok(hint) = self.hints.try_recv() {
            if matches!(hint, Hint::Mark(mark) if mark == self.marks) {
                return;
            }
            self.record(hint);
        }
    }

    fn record(&mut self, hint: Hint) {
        let now = Instant::now();
        match hint {
            Hint::Path { path, kind } => self.record_event(path, kind, now),
            Hint::Suspect(path) => self.record_suspect(path, now),
            Hint::Lost => {
                self.publisher.metrics.overflows.increment();
                let overflows = self.publisher.metrics.overflows.get();
                tracing::warn!(
                    overflows,
                    "changes came faster than they could be read: sweeping the site"
                );
                self.record_loss(now);
            }
            Hint::Blind(path, reason) => {
                self.coverage.mark_blind(&path, &reason);
                self.follow_coverage(now);
            }
            Hint::Sweep => {
                self.check_release(true, now);
                self.schedule.join_everything(now);
            }
            Hint::Prepared(batch) => self.parking.set_ready(batch),
            // Of a reading that a panic has ended.
            Hint::Mark(_) => {}
            Hint::WriteJob(job) => self.prepare_write(job, now),
            Hint::PreparedWrite(job) => self.writes.push(job, now),
        }
    }

    fn record_event(&mut self, path: PathBuf, kind: EventKind, now: Instant) {
        self.publisher.metrics.hints.increment();
        if kind != EventKind::Closed {
            self.coverage.watch_new(&path);
        }
        if self.coverage.is_outside(&path) {
            // It may be one of the links that lead to the root.
            self.schedule.check_root_soon(now);
        }
        if !self.coverage.concerns_site(&path) {
            return;
        }
        let is_echo = || self.echoes.is_echo(&path, || disk::stamp_at(&path));
        // A file of a write is renamed while it is open, and closed then.
        if kind != EventKind::Changed && is_echo() {
            return;
        }
        let is_finished = kind != EventKind::Changed;
        self.schedule.note_event(&path, is_finished, now);
        // A rename reports both names, of which one is gone.
        let is_file = |path: &Path| path.symlink_metadata().is_ok_and(|now| now.is_file());
        match kind {
            EventKind::Unknown if !is_file(&path) => self.schedule.record_moved(path, now),
            EventKind::Closed if self.is_published(&path) => self.schedule.record_saved(path, now),
            _ => self.schedule.record_path(path, now),
        }
    }

    fn is_published(&self, path: &Path) -> bool {
        let inside = path.strip_prefix(self.coverage.root().path());
        let current = self.publisher.current();
        inside.is_ok_and(|inside| current.locate(inside.as_os_str().as_bytes()).is_some())
    }

    fn record_suspect(&mut self, path: PathBuf, now: Instant) {
        self.schedule.expect_answer(now);
        // One that is looked at is suspect until that is published: it tells of no other change. As
        // such, a file that is asked for all the time would never be published.
        if !self.suspects.insert(path.clone()) {
            return;
        }
        self.publisher.forget_unproven(&path);
        // What is busy, or being hashed, is tried again in its own time.
        let names = self.coverage.site_paths(&path);
        let is_parked = names.iter().any(|name| self.parking.covers(name));
        if !is_parked && !self.schedule.is_any_busy(&names) {
            self.schedule.join_suspect(path, now);
        }
    }

    /// Has everything watched again, and then swept.
    fn record_loss(&mut self, now: Instant) {
        self.coverage.mark_uncertain();
        self.follow_coverage(now);
        self.schedule.record_everything(now);
    }

    /// Finds out whether something was mounted or unmounted. The watches of what it hides, or of
    /// what was there, are of no use.
    fn check_mounts(&mut self, now: Instant) {
        if self.coverage.have_mounts_changed() {
            self.record_loss(now);
        }
    }

    /// Passes on to the schedule which places report nothing.
    fn follow_coverage(&mut self, now: Instant) {
        let blind_places = self.coverage.blind_places().len();
        let unwatched = blind_places + usize::from(self.coverage.is_blind());
        self.publisher
            .metrics
            .unwatched_places
            .store(unwatched as u64, Ordering::Relaxed);
        self.publisher
            .metrics
            .watch_incomplete
            .store(self.coverage.is_failing(), Ordering::Relaxed);
        let has_blind_places = blind_places > 0;
        self.schedule
            .set_blind(self.coverage.is_blind(), has_blind_places, now);
        if self.coverage.take_new_failure() {
            self.schedule.sweep_soon(now);
        }
    }

    /// Finds out whether the root is still the directory it was. Another one is a batch of its own,
    /// published when all of it is hashed.
    fn check_root(&mut self, now: Instant) {
        if self.coverage.check_root() == RootState::Replaced {
            self.coverage.find_mounts();
            self.follow_coverage(now);
            let root = self.coverage.root().path();
            self.parking.clear();
            self.schedule.replace_root(root, now);
        }
    }

    fn check_release(&mut self, always: bool, now: Instant) {
        if self.publisher.reload_release(always) {
            self.schedule.join_everything(now);
        }
    }

    /// Looks at what is due and publishes it, unless that would be half of something.
    fn process_batch(&mut self, now: Instant) {
        self.check_root(now);
        if self.coverage.is_root_missing() || self.coverage.is_held() {
            self.schedule.postpone(now);
            self.announce_look();
            return;
        }
        self.renew_watches(now);
        if self.coverage.is_uncertain() {
            // A loss that was reported just now: a look before everything is watched again would
            // have to be repeated.
            self.renew_watches(now);
        }
        let now = Instant::now();
        if !self.schedule.is_batch_due(now) {
            return;
        }
        let touched = match self.schedule.waiting().dirty.is_everything {
            true => Scope::Everything,
            false => self.site_scope(&self.schedule.waiting().dirty.paths),
        };
        if let Err(until) = self.parking.may_overtake(&touched, now) {
            self.schedule.postpone_until(until);
            return;
        }
        let batch = self.schedule.start_batch(now);
        self.look_at(batch, now);
    }

    /// Watches everything again where a sweep is to make good what was lost, and reads what has been
    /// reported until then.
    fn renew_watches(&mut self, now: Instant) {
        if self.schedule.waiting().dirty.is_everything {
            self.coverage.watch_again();
            self.follow_coverage(now);
        }
        // New directories are watched from here on, so that listing them misses nothing.
        self.coverage.barrier();
        self.read_pending();
    }

    /// These real paths, as a part of the site.
    fn site_scope(&self, paths: &BTreeSet<PathBuf>) -> Scope {
        Scope::Paths(self.coverage.all_site_paths(paths))
    }

    /// Lets a batch wait for its large files, which are hashed on a thread of their own, and for codings
    /// that are made meanwhile.
    fn park(&mut self, mut batch: Batch, files: Vec<PathBuf>, unmade: Vec<Unmade>, now: Instant) {
        let since = batch.park(now);
        let id = batch.id;
        let root = Arc::clone(self.coverage.root());
        let dirty = &batch.dirty;
        let or_everything = |scope| match dirty.is_unknown {
            true => Scope::Everything,
            false => scope,
        };
        let unmade_files = unmade.iter().map(Unmade::location);
        let mut all = files.iter().cloned().chain(unmade_files);
        let (token, is_parked) = ParkingToken::new();
        self.parking.push(ParkedBatch {
            since,
            file: root.path().join(all.next().unwrap_or_default()),
            _token: token,
            touched: or_everything(self.site_scope(&dirty.paths)),
            moved: or_everything(self.site_scope(&dirty.moved)),
            batch,
            is_ready: false,
            is_overtaken: false,
        });
        let (scanner, sender) = (Arc::clone(&self.publisher.scanner), self.sender.clone());
        let announcement = Announcement { sender, id };
        let beat = self.beats.begin(WatchThread::Hasher);
        let hashing = thread::Builder::new()
            .name("hasher".to_owned())
            .spawn(move || {
                for file in files.iter().take_while(|_| is_parked()) {
                    // One that can't be read, or is gone, is for the next look to find.
                    beat.step();
                    let _ = scanner.prepare(&root, file, &|| beat.step());
                }
                scanner.make_codings(&root, &unmade, &|| {
                    beat.step();
                    is_parked()
                });
                drop(beat);
                drop(announcement);
            });
        if hashing.is_err() {
            // The next look hashes them itself.
            self.parking.set_ready(id);
        }
        self.schedule.set_hashing(true);
    }

    /// Looks at a batch again whose large files are hashed.
    fn resume(&mut self, batch: Batch, now: Instant) {
        self.check_root(now);
        if self.coverage.is_root_missing() || self.coverage.is_held() {
            self.schedule
                .put_back(batch, Decision::LookAgain, now, Duration::ZERO);
            return;
        }
        self.coverage.barrier();
        self.read_pending();
        self.look_at(batch, Instant::now());
    }

    /// Looks at a batch, and publishes what it finds or puts the batch back.
    fn look_at(&mut self, batch: Batch, now: Instant) {
        let root = Arc::clone(self.coverage.root());
        let (scope, outcome) = self.look(&batch, now);
        let seen = outcome.changes.changed.clone();
        self.conclude_look(batch, (&root, &scope), outcome, now);
        self.publisher.close_unpublished(&seen);
        self.look_time = now.elapsed();
    }

    /// Publishes what a look at `scope`, begun at `now`, has found, or puts its batch back.
    fn conclude_look(
        &mut self,
        batch: Batch,
        (root, scope): (&Arc<Root>, &Scope),
        mut outcome: ScanOutcome,
        now: Instant,
    ) {
        let finished = Instant::now();
        if outcome.is_deferred() {
            let (long, unmade) = (mem::take(&mut outcome.long), outcome.unmade);
            self.park(batch, long, unmade, finished);
            return;
        }
        self.finish_look(&batch, scope, now, finished);
        // What has happened meanwhile is known when its reports have been read.
        self.coverage.barrier();
        self.read_pending();
        self.check_root(finished);
        let moving = self.moving(&outcome.links);
        let findings = Findings {
            is_other_site: self.coverage.is_root_missing()
                || !Arc::ptr_eq(root, self.coverage.root()),
            is_held: self.coverage.is_held(),
            is_moving: !moving.is_empty(),
            is_tree_busy: self.is_tree_busy(&batch, &outcome),
            is_emptied: self.is_emptied(&outcome),
            is_exhausted: outcome.not_now.values().any(disk::is_exhaustion),
            is_failing: !outcome.not_now.is_empty(),
        };
        self.note_unreadable(&outcome);
        match self.schedule.judge(&batch, &findings, finished) {
            Decision::Publish => self.publish_batch(batch, scope, outcome, moving, now),
            decision => {
                tracing::debug!(
                    batch = batch.id,
                    attempts = batch.attempts + 1,
                    ?decision,
                    "a batch is not published yet"
                );
                // A look that is repeated as a whole asks the busy files again.
                if !matches!(decision, Decision::LookAgain | Decision::TryAgain) {
                    self.remember_busy(outcome.busy, scope, finished);
                }
                self.schedule
                    .put_back(batch, decision, finished, finished - now);
            }
        }
    }

    /// Counts a look that could not be completed. The first one is reported, and the first after it
    /// that is complete.
    fn note_unreadable(&mut self, outcome: &ScanOutcome) {
        let Some((path, reason)) = outcome.not_now.first_key_value() else {
            if mem::take(&mut self.is_incomplete) {
                tracing::info!("everything that has changed can be looked at again");
            }
            return;
        };
        self.publisher.metrics.incomplete_looks.increment();
        if !mem::replace(&mut self.is_incomplete, true) {
            let (path, count) = (self.coverage.real_path(path), outcome.not_now.len());
            let path = path.display();
            tracing::warn!(
                %path, error = %reason, count,
                "cannot look at {path} now: {reason}; changes wait until that is over"
            );
        }
    }

    /// Counts a look, and sets the next sweeps by how long it took.
    fn finish_look(&mut self, batch: &Batch, scope: &Scope, started: Instant, finished: Instant) {
        let metrics = Arc::clone(&self.publisher.metrics);
        match scope {
            Scope::Everything | Scope::EverythingWith(_) => {
                metrics.site_scans.observe(finished - started);
                metrics.sweeps.increment();
                if self.coverage.find_mounts() {
                    self.record_loss(finished);
                }
                self.follow_coverage(finished);
            }
            Scope::Paths(_) => metrics.change_scans.observe(finished - started),
        }
        self.schedule.finish_look(batch, started, finished);
    }

    /// The paths of the site that a batch is about.
    fn scope(&self, batch: &Batch, now: Instant) -> Scope {
        if batch.dirty.is_everything {
            return Scope::Everything;
        }
        let mut paths = self.coverage.concerned_paths(&batch.dirty.paths);
        paths.extend(self.schedule.busy_due(now).cloned());
        // A file that changed under one name changed under all its names.
        let inodes = self.coverage.shared_inodes(&paths);
        if !inodes.is_empty() {
            let current = self.publisher.current();
            let on_disk = self.publisher.on_disk(&current);
            let known = inodes.iter().flat_map(|inode| on_disk.with_inode(*inode));
            paths.extend(known.map(|known| known.path.clone()));
        }
        match self.coverage.is_limited() {
            true => Scope::EverythingWith(paths),
            false => Scope::of(paths),
        }
    }

    /// Looks at what a batch is about, or at the whole site if only that tells which links are
    /// followed.
    fn look(&self, batch: &Batch, now: Instant) -> (Scope, ScanOutcome) {
        let scope = self.scope(batch, now);
        let unsettled = unsettled(batch);
        let outcome = self.scan(&scope, unsettled, now);
        match scope {
            Scope::Paths(paths) if self.coverage.needs_whole_look(&outcome.size) => {
                let scope = Scope::EverythingWith(paths);
                let outcome = self.scan(&scope, unsettled, now);
                (scope, outcome)
            }
            _ => (scope, outcome),
        }
    }

    fn scan(&self, scope: &Scope, unsettled: Unsettled, now: Instant) -> ScanOutcome {
        let current = self.publisher.current();
        let base = self.publisher.on_disk(&current);
        // They are published as they are read, under tags of their own.
        let given_up = self
            .schedule
            .given_up(now, |path| self.coverage.length(path));
        let (root, progress) = (self.coverage.root(), &self.publisher.progress);
        let pass = Pass::new(root, base, scope, unsettled, progress).giving_up(&given_up);
        self.publisher.scanner.compare(&pass)
    }

    /// What leads elsewhere than it did when it was looked at, as paths of the site.
    fn moving(&self, links: &[Link]) -> BTreeSet<Box<[u8]>> {
        let moved = &self.schedule.waiting().dirty.moved;
        let mut moving = self.coverage.all_site_paths(moved);
        moving.extend(self.coverage.moved_among(links));
        moving
    }

    /// Whether something is still being written in a tree that has come as a whole, and is to be
    /// published as one.
    fn is_tree_busy(&self, batch: &Batch, outcome: &ScanOutcome) -> bool {
        let moved = Scope::Paths(self.coverage.all_site_paths(&batch.dirty.moved));
        outcome.busy.iter().any(|path| moved.covers(path))
    }

    /// Whether nothing would be left of a site.
    fn is_emptied(&self, outcome: &ScanOutcome) -> bool {
        let (changes, files) = (&outcome.changes, self.publisher.current().len());
        files > 0 && changes.changed.is_empty() && changes.removed.len() >= files
    }

    fn publish_batch(
        &mut self,
        batch: Batch,
        scope: &Scope,
        mut outcome: ScanOutcome,
        moving: BTreeSet<Box<[u8]>>,
        now: Instant,
    ) {
        // What does not come to rest stays as it is published, and holds up nothing else.
        let mut dropped = moving.clone();
        if !batch.was_overdue() {
            // A long look alone has made it overdue: what began meanwhile is another batch.
            let begun = &self.schedule.waiting().dirty.paths;
            dropped.extend(self.coverage.all_site_paths(begun));
        }
        let current = self.publisher.current();
        let base = self.publisher.on_disk(&current);
        let (root, progress) = (self.coverage.root(), &self.publisher.progress);
        let pass = Pass::new(root, base, scope, unsettled(&batch), progress);
        let has_failed = !outcome.not_now.is_empty();
        self.publisher.scanner.exclude(pass, &mut outcome, dropped);
        // An old manifest keeps its bodies.
        drop(current);
        if !has_failed && !outcome.not_now.is_empty() {
            // What was judged could be looked at; to derive the rest again, something is read that can't
            // be now.
            self.note_unreadable(&outcome);
            let (decision, finished) = (Decision::TryAgain, Instant::now());
            self.schedule
                .put_back(batch, decision, finished, finished - now);
            return;
        }
        if outcome.is_deferred() {
            // What is left needs codings that the look had found next to it.
            self.park(batch, Vec::new(), outcome.unmade, Instant::now());
            return;
        }
        self.publish(scope, outcome, now);
        self.suspects.clear();
        let finished = Instant::now();
        for path in moving {
            let path = self.coverage.real_path(&path);
            self.schedule.record_moved(path, finished);
        }
    }

    fn publish(&mut self, scope: &Scope, outcome: ScanOutcome, now: Instant) {
        let ScanOutcome {
            changes,
            links,
            busy,
            size,
            found,
            ..
        } = outcome;
        // It keeps what is about to be replaced.
        drop(found);
        self.publisher.publish(changes, now);
        self.announce_look();
        self.adopt_exclusions();
        self.coverage.adopt_size(size, scope);
        for directory in self.coverage.adopt_links(links, scope) {
            self.schedule.join_path(directory, now);
        }
        if self.coverage.is_uncertain() {
            // Events were lost after the watches for this look were made, or other places are watched
            // from now on.
            self.schedule.record_everything(now);
        }
        self.follow_coverage(now);
        self.remember_busy(busy, scope, now);
    }

    /// Has the watch leave out what the last look has left out.
    fn adopt_exclusions(&mut self) {
        let current = self.publisher.current();
        let exclusions = self.publisher.on_disk(&current).exclusions();
        self.coverage.adopt_exclusions(exclusions);
    }

    /// Notes what a write has left at its path, if that is what was published of it.
    fn note_echo(&mut self, path: &[u8], hash: Option<[u8; 32]>) {
        let current = self.publisher.current();
        let published = self.publisher.on_disk(&current).locate(path);
        let left = published.map(|file| (file.stamp, *file.identity.etag.hash()));
        if left.map(|(_, hash)| hash) == hash {
            let real = self.coverage.real_path(path);
            let left = left.map(|(stamp, _)| stamp);
            self.echoes.note(real, left, Instant::now());
        }
    }

    fn remember_busy(&mut self, busy: Vec<Box<[u8]>>, scope: &Scope, now: Instant) {
        let busy = self.coverage.with_lengths(busy);
        self.schedule.remember_busy(busy, scope, now);
    }

    /// Wakes the requests that wait for a look at the disk.
    fn announce_look(&mut self) {
        self.schedule.set_answered();
        self.publisher.announce_look();
    }

    /// Makes the changes that clients have asked for. A write into a tree that is being replaced
    /// waits for that.
    fn commit_writes(&mut self) {
        if !self.writes.is_empty() {
            self.coverage.barrier();
            self.read_pending();
            self.check_root(Instant::now());
            let refusal = if self.coverage.is_root_missing() {
                Some("the directory of the site is missing: try again later")
            } else if self.coverage.is_held() {
                Some("publication is held by .etagd-hold: try again later")
            } else {
                None
            };
            let begun = Instant::now();
            for _ in 0..self.writes.len() {
                self.commit_next(refusal);
                // The quiet period of other changes begins when they are reported. They take turns
                // with many writes; neither has the thread for longer than the other.
                self.read_pending();
                if self.schedule.is_batch_due(Instant::now()) && begun.elapsed() >= self.look_time {
                    break;
                }
            }
        }
        self.schedule
            .retry_writes(!self.writes.is_empty(), Instant::now());
    }

    /// Has a write wait for its turn, after its content is compressed where that takes long: meanwhile
    /// others have theirs.
    fn prepare_write(&mut self, job: WriteJob, now: Instant) {
        let length = match &job.operation {
            Operation::Put { temp_file, hash } if !self.is_published_content(&job.path, hash) => {
                temp_file.length().unwrap_or(0)
            }
            Operation::Put { .. } | Operation::Delete => 0,
        };
        if !self.publisher.scanner.compresses_long(length) {
            self.writes.push(job, now);
            return;
        }
        let ahead = WriteAhead {
            sender: self.sender.clone(),
            job: Some(job),
        };
        let scanner = Arc::clone(&self.publisher.scanner);
        let root = Arc::clone(self.coverage.root());
        let beat = self.beats.begin(WatchThread::Hasher);
        // Without a thread it comes back at once.
        let _ = thread::Builder::new()
            .name("hasher".to_owned())
            .spawn(move || ahead.make_codings(&scanner, &root, &beat));
    }

    fn is_published_content(&self, path: &[u8], hash: &[u8; 32]) -> bool {
        let current = self.publisher.current();
        let published = current.locate(path);
        published.is_some_and(|published| published.of_files().0.etag.hash() == hash)
    }

    fn commit_next(&mut self, refusal: Option<&'static str>) {
        self.beat.step();
        let (coverage, waiting) = (&self.coverage, self.schedule.waiting());
        let parking = &self.parking;
        // A path may be about to name something else, with all that is around it.
        let is_being_replaced = |path: &[u8]| {
            let mut moved = coverage.all_site_paths(&waiting.dirty.moved);
            moved.extend(coverage.moved_links());
            waiting.dirty.is_everything
                || parking.is_moved(path)
                || Scope::Paths(moved).covers(path)
        };
        let turn = self
            .writes
            .next_turn(refusal, is_being_replaced, Instant::now());
        if let QueueTurn::Now(job) = turn {
            let WriteJob {
                path,
                operation,
                condition,
                reply,
            } = job;
            let result = self.commit(&path, operation, &condition);
            // A client that waits no longer finds out by asking.
            let _ = reply.send(result);
        }
    }

    /// Makes one change, and publishes it.
    fn commit(
        &mut self,
        path: &[u8],
        mut operation: Operation,
        condition: &Condition,
    ) -> Result<Committed, RejectedWrite> {
        let root = self.coverage.root();
        let applied = commit::apply(root, &self.publisher, path, &mut operation, condition);
        let applied = match applied {
            Ok(applied) => applied,
            Err(error) => return Err(RejectedWrite { error, operation }),
        };
        let (hash, displaced) = match operation {
            // Open for writing it would not be published.
            Operation::Put { temp_file, hash } => (Some(hash), Some(temp_file.close())),
            Operation::Delete => (None, applied.displaced),
        };
        Ok(Committed {
            before: applied.before,
            now: self.publish_write(path, hash),
            directory: applied.directory,
            is_emptied: applied.is_emptied,
            displaced,
        })
    }

    /// Publishes what a path names now, under all its names, and returns the tag of what was put
    /// there, if that is still so. `hash` is that of what was put there, or `None` after a deletion.
    fn publish_write(&mut self, path: &[u8], hash: Option<[u8; 32]>) -> Option<ETag> {
        let names = self.coverage.site_paths(&self.coverage.real_path(path));
        let scope = Scope::Paths(names.into_iter().collect());
        let current = self.publisher.current();
        let (scanner, root) = (&self.publisher.scanner, self.coverage.root());
        let progress = &self.publisher.progress;
        let outcome = scanner.reconcile(root, &current, &scope, Unsettled::Report, progress);
        if outcome.not_now.is_empty() {
            self.publish(&scope, outcome, Instant::now());
            self.note_echo(path, hash);
        } else {
            // It is made, and is published when it can be looked at.
            self.note_unreadable(&outcome);
            let real = self.coverage.real_path(path);
            self.schedule.record_path(real, Instant::now());
        }
        let Some(hash) = hash else {
            // `--keep-old` is for files that a deploy removes. A file that a client deletes is gone.
            self.publisher.forget_path(path);
            return None;
        };
        if is_unlisted(path) {
            return Some(ETag::new(hash));
        }
        let now = self.publisher.current().locate(path)?.identity.etag;
        (*now.hash() == hash).then_some(now)
    }
}

/// What a look at a batch does with files that are being written, or take long.
fn unsettled(batch: &Batch) -> Unsettled {
    match batch.preparations < MAX_PREPARATIONS {
        true => Unsettled::Defer,
        false => Unsettled::Report,
    }
}
