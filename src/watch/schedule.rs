//! When to look, to sweep, to try again and to expire. Pure: the clock comes in as an argument, and
//! what a look has found comes in as [`Findings`].

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::batch::Batch;
use crate::scan::{self, Scope};

/// How often to check that the root is still the same directory: no event reports that.
const ROOT_CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// How often to look for removed files whose `--keep-old` is over.
const EXPIRY_CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// How often to sweep where nothing reports changes.
const BLIND_SWEEP_INTERVAL: Duration = Duration::from_secs(3);
/// The least time between two sweeps, as a multiple of what the first of them took: sweeps may take a
/// twentieth of one core.
const MIN_SWEEP_REST: u32 = 20;
/// Quiet period of a suspect, a file that a response found to be different from the manifest. It is
/// short: it only lets the events of the same change arrive.
const SUSPECT_QUIET_PERIOD: Duration = Duration::from_millis(20);
/// How long a request waits for the look at a suspect, in addition to the maximum age of a batch,
/// before it is answered 503.
const MAX_SUSPECT_DELAY: Duration = Duration::from_millis(50);
/// How long to wait before a busy file is tried again for the first time; each further pause is
/// twice as long.
const MIN_BUSY_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause before a busy file is tried again.
const MAX_BUSY_PAUSE: Duration = Duration::from_secs(2);
/// Bytes per second at which files are hashed that are written to all the time, at most: a huge one
/// must leave room for the others.
const BUSY_HASH_RATE: u64 = 64 << 20;
/// How long to wait before a look is tried again that could not be completed, for the first time;
/// each further pause is twice as long.
const MIN_RETRY_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause before such a look: when descriptors are there again, nobody should have to
/// wait for longer.
const MAX_RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How many times a batch is looked at, about 10 s, before it is published without what a failing
/// disk does not let anybody read. One bad sector must not hold up the site for ever.
const MAX_FAILED_LOOKS: u32 = 24;
/// How often a write is tried again that waits for the tree around its path to be replaced.
const WRITE_RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// Quiet period of what is written into an emptied directory: it is a whole site.
const REBUILD_QUIET_PERIOD: Duration = Duration::from_millis(100);

/// The periods that an operator chooses.
#[derive(Clone, Debug)]
pub(super) struct Periods {
    /// How long nothing may change before a batch is published.
    pub(super) settle: Duration,
    /// The same after one file of the site was saved in place, and nothing else.
    pub(super) settle_alone: Duration,
    /// How long a batch may wait at most while something changes all the time.
    pub(super) max_age: Duration,
    /// How often everything is compared with the disk.
    pub(super) sweep: Duration,
    /// How long a site of which nothing is left stays as it was, if at all.
    pub(super) hold_empty: Option<Duration>,
    /// Whether removed files are answered for a while.
    pub(super) keeps_removed: bool,
}

/// Something whose time has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// Find out whether the root, and the release, are still what they were.
    CheckRoot,
    /// Look at the places that report nothing.
    SweepBlind,
    /// Forget removed files whose time is over.
    ForgetExpired,
    /// Look at the batch that is due.
    ProcessBatch,
}

/// What a look has found, as far as it decides whether its batch may be published.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Findings {
    /// The root is missing, or it is another directory than the one that was looked at.
    pub(super) is_other_site: bool,
    /// The operator holds publication back.
    pub(super) is_held: bool,
    /// Something leads elsewhere than it did when it was looked at.
    pub(super) is_moving: bool,
    /// A file is still being written in a tree that was moved here as a whole.
    pub(super) is_tree_busy: bool,
    /// Nothing would be left of the site.
    pub(super) is_emptied: bool,
    /// Something can't be looked at now: descriptors or memory have run out.
    pub(super) is_exhausted: bool,
    /// Something can't be looked at now: its disk or its server fails.
    pub(super) is_failing: bool,
}

/// What becomes of a batch that was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Decision {
    /// It is published.
    Publish,
    /// It waits for those who are writing to a tree that is to be published as a whole.
    AwaitWriters,
    /// It waits, this long after its first change, for a build that is about to write the site
    /// again.
    AwaitRebuild(Duration),
    /// It may be half of something: it is looked at once more.
    LookAgain,
    /// Part of it can't be looked at now: it is tried again with growing pauses.
    TryAgain,
}

/// A file that was open for writing when it was looked at.
#[derive(Clone, Copy, Debug)]
struct BusyFile {
    since: Instant,
    next_try: Instant,
    pause: Duration,
}

/// What is due when.
#[derive(Debug)]
pub(super) struct Schedule {
    periods: Periods,
    /// The batch that gathers changes.
    waiting: Batch,
    /// How many batches have begun.
    batches: u64,
    busy: HashMap<Box<[u8]>, BusyFile>,
    next_sweep: Instant,
    next_root_check: Instant,
    next_expiry: Option<Instant>,
    /// `None` where every place reports its changes, or the sweeps of the whole site are for them.
    next_blind_sweep: Option<Instant>,
    /// Whether the sweeps of the whole site have to find what events don't report.
    is_blind: bool,
    /// When the requests that wait for a look are answered, published or not.
    answer_by: Option<Instant>,
    next_write: Option<Instant>,
    /// Whether large files are being hashed.
    is_hashing: bool,
}

impl Schedule {
    pub(super) fn new(periods: Periods, now: Instant) -> Self {
        Self {
            waiting: Batch::new(1, periods.max_age),
            batches: 1,
            busy: HashMap::new(),
            next_sweep: now + periods.sweep,
            next_root_check: now + ROOT_CHECK_INTERVAL,
            next_expiry: periods.keeps_removed.then_some(now),
            next_blind_sweep: None,
            is_blind: false,
            answer_by: None,
            next_write: None,
            is_hashing: false,
            periods,
        }
    }

    /// Takes over which changes go unreported: those of the whole site, or those in some places.
    pub(super) fn set_blind(&mut self, is_blind: bool, has_blind_places: bool, now: Instant) {
        if is_blind && !self.is_blind {
            self.sweep_soon(now);
        }
        self.is_blind = is_blind;
        // A place that was blind before anybody knew may have changed: it is swept at once.
        self.next_blind_sweep = has_blind_places.then(|| self.next_blind_sweep.unwrap_or(now));
    }

    /// Sweeps the whole site soon: something is not watched any more.
    pub(super) fn sweep_soon(&mut self, now: Instant) {
        self.next_sweep = self.next_sweep.min(now + BLIND_SWEEP_INTERVAL);
    }

    /// When something is due at the latest.
    pub(super) fn next_wake(&self) -> Instant {
        let busy = self.busy.values().map(|busy| busy.next_try);
        let sometimes = [
            self.waiting.due(),
            self.next_expiry,
            self.next_blind_sweep,
            self.answer_by,
            self.next_write,
        ];
        // What is tried again goes with the batch, if there is one.
        busy.filter(|_| self.waiting.is_empty())
            .chain(sometimes.into_iter().flatten())
            .fold(self.next_sweep.min(self.next_root_check), Instant::min)
    }

    /// The next thing that is due by `now`, which is not due again before its next turn. A batch
    /// stays due until it is started.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<Due> {
        if now >= self.next_root_check {
            self.next_root_check = now + ROOT_CHECK_INTERVAL;
            return Some(Due::CheckRoot);
        }
        if self.is_hashing {
            let later = now + BLIND_SWEEP_INTERVAL;
            self.next_sweep = self.next_sweep.max(later);
            self.next_blind_sweep = self.next_blind_sweep.map(|next| next.max(later));
        }
        if now >= self.next_sweep {
            self.waiting.join_everything(now);
            // The end of the sweep sets it again; until then there is no need for another.
            self.next_sweep = now + self.periods.sweep;
        }
        if self.next_blind_sweep.is_some_and(|next| now >= next) {
            // The end of the look sets it again.
            self.next_blind_sweep = Some(now + self.periods.sweep);
            return Some(Due::SweepBlind);
        }
        if self.next_expiry.is_some_and(|next| now >= next) {
            self.next_expiry = Some(now + EXPIRY_CHECK_INTERVAL);
            return Some(Due::ForgetExpired);
        }
        self.is_batch_due(now).then_some(Due::ProcessBatch)
    }

    /// Whether there is something to look at: a batch, or busy files where no batch waits.
    pub(super) fn is_batch_due(&self, now: Instant) -> bool {
        let mut busy = self.busy.values();
        self.waiting.is_due(now) || self.waiting.is_empty() && busy.any(|busy| now >= busy.next_try)
    }

    /// The batch that gathers changes.
    pub(super) fn waiting(&self) -> &Batch {
        &self.waiting
    }

    /// Notes what an event says of a path, before it is recorded: whether what has happened there is
    /// all of it.
    pub(super) fn note_event(&mut self, path: &Path, is_finished: bool, now: Instant) {
        let settle = self.periods.settle;
        self.waiting.note_event(path, is_finished, now, settle);
    }

    /// Records that a path may have changed.
    pub(super) fn record_path(&mut self, path: PathBuf, now: Instant) {
        self.waiting.record_path(path, now, self.periods.settle);
    }

    /// Records that a path leads elsewhere, or nowhere.
    pub(super) fn record_moved(&mut self, path: PathBuf, now: Instant) {
        self.waiting.record_moved(path, now, self.periods.settle);
    }

    /// Records that a file of the site was saved in place. Where nothing else has changed, it is a
    /// person who waits to see it.
    pub(super) fn record_saved(&mut self, path: PathBuf, now: Instant) {
        let quiet = match self.waiting.is_at_most(&path) {
            true => self.periods.settle_alone,
            false => self.periods.settle,
        };
        self.waiting.record_path(path, now, quiet);
    }

    /// Records that anything may have changed.
    pub(super) fn record_everything(&mut self, now: Instant) {
        self.waiting.record_everything(now, self.periods.settle);
    }

    /// Adds a path that is to be compared with the disk: no change of it is known.
    pub(super) fn join_path(&mut self, path: PathBuf, now: Instant) {
        self.waiting.join_path(path, now, Duration::ZERO);
    }

    /// Adds the whole site, which is to be compared with the disk.
    pub(super) fn join_everything(&mut self, now: Instant) {
        self.waiting.join_everything(now);
    }

    /// Adds a file that a response found to be different from the manifest. It belongs to a batch
    /// as any other change does: published alone it might be half of a deploy.
    pub(super) fn join_suspect(&mut self, path: PathBuf, now: Instant) {
        let quiet = self.periods.settle.min(SUSPECT_QUIET_PERIOD);
        self.waiting.join_path(path, now, quiet);
    }

    /// A request waits for a look at the disk.
    pub(super) fn expect_answer(&mut self, now: Instant) {
        let patience = self.periods.max_age + MAX_SUSPECT_DELAY;
        self.answer_by.get_or_insert(now + patience);
    }

    /// Whether requests that wait for a look have waited as long as they may.
    pub(super) fn is_answer_due(&self, now: Instant) -> bool {
        self.answer_by.is_some_and(|by| now >= by)
    }

    /// No request waits for a look any more.
    pub(super) fn set_answered(&mut self) {
        self.answer_by = None;
    }

    /// Looks at the root at the next turn.
    pub(super) fn check_root_soon(&mut self, now: Instant) {
        self.next_root_check = now;
    }

    /// Tries writes again, as long as any wait.
    pub(super) fn retry_writes(&mut self, has_waiting: bool, now: Instant) {
        self.next_write = has_waiting.then(|| now + WRITE_RETRY_INTERVAL);
    }

    /// The site is another directory now, `root`: one batch, published when all of it is hashed.
    pub(super) fn replace_root(&mut self, root: &Path, now: Instant) {
        self.busy.clear();
        self.record_moved(root.to_path_buf(), now);
        self.record_everything(now);
    }

    /// Forgets what was recorded, and looks at everything instead.
    pub(super) fn start_over(&mut self, now: Instant) {
        self.waiting = self.next_batch();
        self.waiting.record_everything(now, ROOT_CHECK_INTERVAL);
    }

    /// Lets nothing be due for some time: nothing can be published now.
    pub(super) fn postpone(&mut self, now: Instant) {
        self.postpone_until(now + ROOT_CHECK_INTERVAL);
    }

    /// Lets no batch be due before `until`, unless more changes.
    pub(super) fn postpone_until(&mut self, until: Instant) {
        self.waiting.postpone(until);
        self.postpone_busy(until);
    }

    /// Takes over whether large files are being hashed. No sweep begins meanwhile: it would find
    /// them again.
    pub(super) fn set_hashing(&mut self, is_hashing: bool) {
        self.is_hashing = is_hashing;
    }

    fn postpone_busy(&mut self, until: Instant) {
        for busy in self.busy.values_mut() {
            busy.next_try = busy.next_try.max(until);
        }
    }

    /// Takes out the batch that is due. Where only busy files are tried again it is an empty one,
    /// for these make no batch due that still waits for quiet.
    pub(super) fn start_batch(&mut self, now: Instant) -> Batch {
        let mut next = self.next_batch();
        match self.waiting.is_due(now) {
            true => self.waiting.start(next, now),
            false => {
                let id = next.id;
                next.start(Batch::new(id, self.periods.max_age), now)
            }
        }
    }

    fn next_batch(&mut self) -> Batch {
        self.batches += 1;
        Batch::new(self.batches, self.periods.max_age)
    }

    /// Sets the next sweeps after a look that took from `started` to `finished`.
    pub(super) fn finish_look(&mut self, batch: &Batch, started: Instant, finished: Instant) {
        let spent = finished.saturating_duration_since(started) * MIN_SWEEP_REST;
        if batch.dirty.is_everything {
            let every = match self.is_blind {
                true => self.periods.sweep.min(BLIND_SWEEP_INTERVAL),
                false => self.periods.sweep,
            };
            self.next_sweep = finished + every.max(spent);
        }
        let is_retry = batch.dirty.paths.is_empty() && !batch.dirty.is_everything;
        if let Some(next) = &mut self.next_blind_sweep
            && !is_retry
        {
            *next = finished + BLIND_SWEEP_INTERVAL.min(self.periods.sweep).max(spent);
        }
    }

    /// Decides what becomes of a batch, of which a look has found this.
    pub(super) fn judge(&self, batch: &Batch, findings: &Findings, now: Instant) -> Decision {
        // With descriptors or memory the next look succeeds: that is always worth waiting for.
        let may_still_work = findings.is_failing && batch.attempts < MAX_FAILED_LOOKS;
        if findings.is_exhausted || may_still_work {
            return Decision::TryAgain;
        }
        if findings.is_tree_busy && !batch.is_older(now, scan::MAX_SETTLE_TIME) {
            return Decision::AwaitWriters;
        }
        if let Some(hold) = self.periods.hold_empty
            && findings.is_emptied
            && !batch.is_older(now, hold)
        {
            return Decision::AwaitRebuild(hold);
        }
        let may_be_half = findings.is_moving || !self.waiting.is_empty();
        let is_early = may_be_half && !batch.is_overdue(now);
        // Which events were lost while a look took long can't be told from what it has seen.
        let is_unknown = self.waiting.dirty.is_everything && !batch.was_overdue();
        if findings.is_other_site || findings.is_held || is_early || is_unknown {
            return Decision::LookAgain;
        }
        Decision::Publish
    }

    /// Puts a batch back that is not to be published yet, after a look that took `spent`.
    pub(super) fn put_back(
        &mut self,
        batch: Batch,
        decision: Decision,
        now: Instant,
        spent: Duration,
    ) {
        match decision {
            Decision::AwaitWriters => {
                let pause = MIN_BUSY_PAUSE.max(spent * 4);
                let is_alone = self.waiting.is_empty();
                self.waiting.put_back(batch, now, pause);
                if is_alone {
                    // Otherwise it would be due at once, again and again, when it is overdue.
                    self.waiting.postpone(now + pause);
                }
            }
            Decision::AwaitRebuild(hold) => {
                self.waiting.hold(batch, now, hold, REBUILD_QUIET_PERIOD)
            }
            Decision::TryAgain => {
                let doublings = batch.attempts.min(8);
                let pause = (MIN_RETRY_PAUSE * (1 << doublings)).min(MAX_RETRY_PAUSE);
                let pause = pause.max(spent);
                self.waiting.put_back(batch, now, pause);
                self.waiting.rest_until(now + pause);
            }
            Decision::LookAgain | Decision::Publish => {
                let settle = self.periods.settle;
                self.waiting.put_back(batch, now, settle);
                self.postpone_busy(now + settle.max(MIN_BUSY_PAUSE));
            }
        }
    }

    /// Whether one of these paths of the site is tried again anyway.
    pub(super) fn is_any_busy<'p>(&self, paths: impl IntoIterator<Item = &'p Box<[u8]>>) -> bool {
        paths.into_iter().any(|path| self.busy.contains_key(path))
    }

    /// The busy files that are to be tried again by `now`.
    pub(super) fn busy_due(&self, now: Instant) -> impl Iterator<Item = &Box<[u8]>> {
        let due = self
            .busy
            .iter()
            .filter(move |(_, busy)| now >= busy.next_try);
        due.map(|(path, _)| path)
    }

    /// The files that have been busy for so long that they are published as they are read. `length` says
    /// how long one is.
    pub(super) fn given_up(
        &self,
        now: Instant,
        length: impl Fn(&[u8]) -> u64,
    ) -> BTreeSet<Box<[u8]>> {
        // Only of one that even an empty file would be given up for: to ask is a call to the file system.
        let is_given_up = |path: &[u8], busy: &BusyFile| {
            now >= busy.since + patience(0) && now >= busy.since + patience(length(path))
        };
        let given_up = self
            .busy
            .iter()
            .filter(|(path, busy)| is_given_up(path, busy));
        given_up.map(|(path, _)| path.clone()).collect()
    }

    /// Takes over which files within `scope` are busy, each with its length. They are tried again
    /// with growing pauses; the others are at rest.
    pub(super) fn remember_busy(
        &mut self,
        busy: impl IntoIterator<Item = (Box<[u8]>, u64)>,
        scope: &Scope,
        now: Instant,
    ) {
        let mut before: HashMap<_, _> =
            self.busy.extract_if(|path, _| scope.covers(path)).collect();
        for (path, length) in busy {
            let (since, pause) = match before.remove(&path) {
                Some(busy) => (busy.since, (busy.pause * 2).min(MAX_BUSY_PAUSE)),
                None => (now, MIN_BUSY_PAUSE),
            };
            // Not later than when its time is up.
            let end = (since + patience(length)).max(now + MIN_BUSY_PAUSE);
            let busy = BusyFile {
                since,
                next_try: (now + pause).min(end),
                pause,
            };
            self.busy.insert(path, busy);
        }
    }
}

/// How long a file may be busy before it is published as it is read: the longer, the more there is
/// to read.
fn patience(length: u64) -> Duration {
    scan::MAX_SETTLE_TIME + Duration::from_secs(length / BUSY_HASH_RATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_millis(100);
    const ALONE: Duration = Duration::from_millis(5);
    const MAX_AGE: Duration = Duration::from_secs(2);
    const HOUR: Duration = Duration::from_secs(3600);
    const MILLISECOND: Duration = Duration::from_millis(1);

    fn periods() -> Periods {
        Periods {
            settle: SETTLE,
            settle_alone: ALONE,
            max_age: MAX_AGE,
            sweep: HOUR,
            hold_empty: None,
            keeps_removed: false,
        }
    }

    fn schedule() -> (Schedule, Instant) {
        let now = Instant::now();
        (Schedule::new(periods(), now), now)
    }

    /// All that is due, as a turn of the driver does it.
    fn turn(schedule: &mut Schedule, now: Instant) -> Vec<Due> {
        let mut tasks = Vec::new();
        while let Some(task) = schedule.next_due(now) {
            tasks.push(task);
            if task == Due::ProcessBatch {
                break;
            }
        }
        tasks
    }

    fn busy(schedule: &mut Schedule, path: &str, now: Instant) {
        let scope = Scope::Paths([path.as_bytes().into()].into());
        schedule.remember_busy([(path.as_bytes().into(), 1)], &scope, now);
    }

    /// Looks at what is due, and puts it back or not by what was found.
    fn look(schedule: &mut Schedule, findings: &Findings, now: Instant) -> Decision {
        let batch = schedule.start_batch(now);
        let decision = schedule.judge(&batch, findings, now);
        if decision != Decision::Publish {
            schedule.put_back(batch, decision, now, Duration::ZERO);
        }
        decision
    }

    #[test]
    fn the_thread_wakes_when_something_is_due_and_not_before() {
        let (mut schedule, start) = schedule();
        assert_eq!(schedule.next_wake(), start + ROOT_CHECK_INTERVAL);
        assert_eq!(
            turn(&mut schedule, start + ROOT_CHECK_INTERVAL - MILLISECOND),
            []
        );
        assert_eq!(
            turn(&mut schedule, start + ROOT_CHECK_INTERVAL),
            [Due::CheckRoot]
        );
        let now = start + ROOT_CHECK_INTERVAL;
        schedule.record_path("a".into(), now);
        assert_eq!(schedule.next_wake(), now + SETTLE);
        assert_eq!(turn(&mut schedule, now + SETTLE), [Due::ProcessBatch]);
        schedule.start_batch(now + SETTLE);
        assert_eq!(turn(&mut schedule, now + SETTLE), []);
        schedule.check_root_soon(now);
        assert_eq!(turn(&mut schedule, now), [Due::CheckRoot]);
    }

    #[test]
    fn a_file_that_is_saved_alone_is_published_sooner() {
        let (mut schedule, start) = schedule();
        schedule.record_saved("a".into(), start);
        assert_eq!(schedule.waiting().due(), Some(start + ALONE));
        schedule.record_saved("a".into(), start + MILLISECOND);
        assert_eq!(schedule.waiting().due(), Some(start + MILLISECOND + ALONE));
        schedule.record_saved("b".into(), start);
        assert_eq!(schedule.waiting().due(), Some(start + SETTLE));
    }

    #[test]
    fn a_sweep_goes_with_the_batch_that_waits() {
        let (mut schedule, start) = schedule();
        let now = start + HOUR;
        schedule.record_path("a".into(), now);
        assert_eq!(
            turn(&mut schedule, now),
            [Due::CheckRoot],
            "it is not quiet yet"
        );
        let due = now + SETTLE;
        assert_eq!(turn(&mut schedule, due), [Due::ProcessBatch]);
        let batch = schedule.start_batch(due);
        assert!(batch.dirty.is_everything);
        // A sweep that took ten minutes is not repeated after an hour.
        let finished = due + HOUR / 6;
        schedule.finish_look(&batch, due, finished);
        assert_eq!(schedule.next_sweep, finished + HOUR / 6 * MIN_SWEEP_REST);
        let batch = schedule.start_batch(finished);
        schedule.finish_look(&batch, finished, finished);
        assert_eq!(schedule.next_sweep, finished + HOUR / 6 * MIN_SWEEP_REST);
    }

    #[test]
    fn what_is_blind_is_swept_often() {
        let (mut schedule, start) = schedule();
        schedule.set_blind(true, false, start);
        assert_eq!(schedule.next_sweep, start + BLIND_SWEEP_INTERVAL);
        let now = start + BLIND_SWEEP_INTERVAL;
        assert_eq!(
            turn(&mut schedule, now),
            [Due::CheckRoot, Due::ProcessBatch]
        );
        let batch = schedule.start_batch(now);
        schedule.finish_look(&batch, now, now + MILLISECOND);
        assert_eq!(
            schedule.next_sweep,
            now + MILLISECOND + BLIND_SWEEP_INTERVAL
        );
        // One place alone.
        schedule.set_blind(false, true, now);
        assert_eq!(turn(&mut schedule, now), [Due::SweepBlind]);
        schedule.join_path("mount".into(), now);
        assert_eq!(turn(&mut schedule, now), [Due::ProcessBatch]);
        let batch = schedule.start_batch(now);
        schedule.finish_look(&batch, now, now + MILLISECOND);
        assert_eq!(
            schedule.next_blind_sweep,
            Some(now + MILLISECOND + BLIND_SWEEP_INTERVAL)
        );
        schedule.set_blind(false, false, now);
        assert_eq!(
            turn(&mut schedule, now + BLIND_SWEEP_INTERVAL / 2),
            [Due::CheckRoot]
        );
    }

    #[test]
    fn removed_files_are_looked_through_only_where_they_are_kept() {
        let (mut schedule, start) = schedule();
        assert_eq!(turn(&mut schedule, start), []);
        let keeps_removed = true;
        schedule = Schedule::new(
            Periods {
                keeps_removed,
                ..periods()
            },
            start,
        );
        assert_eq!(turn(&mut schedule, start), [Due::ForgetExpired]);
        assert_eq!(turn(&mut schedule, start), []);
        assert_eq!(schedule.next_wake(), start + EXPIRY_CHECK_INTERVAL);
    }

    #[test]
    fn a_busy_file_is_tried_again_with_growing_pauses_until_its_time_is_up() {
        let (mut schedule, start) = schedule();
        let (mut now, mut tries) = (start, 0);
        let is_given_up = |schedule: &Schedule, length, now| {
            let given_up = schedule.given_up(now, |_| length);
            given_up.contains(b"log".as_slice())
        };
        let mut pauses = Vec::new();
        busy(&mut schedule, "log", now);
        let not_asked = |_: &[u8]| panic!("it is too early to ask how long it is");
        assert!(schedule.given_up(now, not_asked).is_empty());
        while !is_given_up(&schedule, 1, now) {
            let next = schedule.next_wake();
            if schedule.is_batch_due(next) {
                tries += 1;
                pauses.push(next - now);
                now = next;
                busy(&mut schedule, "log", now);
            } else {
                turn(&mut schedule, next);
            }
        }
        assert_eq!(now, start + patience(1), "tried just when its time is up");
        assert!(pauses.windows(2).take(tries - 2).all(|two| two[0] < two[1]));
        assert!(tries < 10, "{pauses:?}");
        // A large one has more time.
        assert!(!is_given_up(&schedule, 60 * BUSY_HASH_RATE, now));
        // One that is at rest is not tried again.
        let scope = Scope::Paths([b"log".as_slice().into()].into());
        schedule.remember_busy([], &scope, now);
        assert!(!schedule.is_batch_due(now + HOUR));
    }

    #[test]
    fn what_is_busy_makes_no_batch_due_that_waits_for_quiet() {
        let (mut schedule, start) = schedule();
        busy(&mut schedule, "log", start);
        schedule.record_path("a".into(), start);
        let now = start + MIN_BUSY_PAUSE;
        assert!(!schedule.is_batch_due(now));
        let now = start + SETTLE;
        assert!(schedule.is_batch_due(now));
        assert_eq!(schedule.busy_due(now).count(), 1, "they go together");
        let batch = schedule.start_batch(now);
        assert_eq!(batch.dirty.paths.len(), 1);
        // Without a batch it is tried alone.
        assert!(schedule.is_batch_due(now));
        schedule.record_path("b".into(), now);
        let retry = schedule.start_batch(now);
        assert!(retry.dirty.paths.is_empty() && retry.was_overdue());
        assert_eq!(schedule.waiting().dirty.paths.len(), 1);
    }

    #[test]
    fn a_batch_is_published_when_nothing_has_come_meanwhile() {
        let (mut schedule, start) = schedule();
        schedule.record_path("a".into(), start);
        let now = start + SETTLE;
        assert_eq!(
            look(&mut schedule, &Findings::default(), now),
            Decision::Publish
        );
        assert!(schedule.waiting().is_empty());
    }

    #[test]
    fn what_may_be_half_is_looked_at_again_until_it_has_waited_as_long_as_it_may() {
        let moving = Findings {
            is_moving: true,
            ..Findings::default()
        };
        let (mut schedule, start) = schedule();
        schedule.record_path("a".into(), start);
        let mut now = start + SETTLE;
        let mut looks = 0;
        while look(&mut schedule, &moving, now) == Decision::LookAgain {
            now = schedule.waiting().due().expect("put back");
            looks += 1;
            assert_eq!(schedule.waiting().attempts, looks);
        }
        assert_eq!(now, start + MAX_AGE);
        // More that has come does the same as a link that moves.
        schedule.record_path("a".into(), now);
        let batch = schedule.start_batch(now + SETTLE);
        schedule.record_path("b".into(), now + SETTLE);
        let decision = schedule.judge(&batch, &Findings::default(), now + SETTLE);
        assert_eq!(decision, Decision::LookAgain);
        let decision = schedule.judge(&batch, &Findings::default(), now + MAX_AGE);
        assert_eq!(decision, Decision::Publish);
    }

    #[test]
    fn what_can_not_be_looked_at_now_is_tried_again_with_growing_pauses() {
        let exhausted = Findings {
            is_exhausted: true,
            is_failing: true,
            ..Findings::default()
        };
        let (mut schedule, start) = schedule();
        schedule.record_path("a".into(), start);
        let (mut now, mut pauses) = (start + SETTLE, Vec::new());
        for _ in 0..100 {
            // However long it has waited: half of it would be published.
            assert_eq!(look(&mut schedule, &exhausted, now), Decision::TryAgain);
            // More that comes is not looked at any sooner.
            schedule.record_path("b".into(), now);
            let due = schedule.waiting().due().expect("put back");
            pauses.push(due - now);
            now = due;
        }
        // The first is the quiet that what has come asks for.
        assert_eq!(pauses[..3], [100, 100, 200].map(Duration::from_millis));
        assert!(pauses[3..].iter().all(|pause| *pause <= MAX_RETRY_PAUSE));
        assert_eq!(schedule.waiting().dirty.paths.len(), 2);
        // The pauses are for that batch alone.
        let findings = Findings::default();
        assert_eq!(look(&mut schedule, &findings, now), Decision::Publish);
        schedule.record_path("c".into(), now);
        assert_eq!(schedule.waiting().due(), Some(now + SETTLE));
    }

    #[test]
    fn a_disk_that_fails_for_long_holds_up_nothing_else() {
        let failing = Findings {
            is_failing: true,
            ..Findings::default()
        };
        let (mut schedule, start) = schedule();
        schedule.record_path("a".into(), start);
        let (mut now, mut looks) = (start + SETTLE, 0);
        while look(&mut schedule, &failing, now) == Decision::TryAgain {
            looks += 1;
            now = schedule.waiting().due().expect("put back");
        }
        assert_eq!(looks, MAX_FAILED_LOOKS);
        assert!(now - start < Duration::from_secs(15), "{:?}", now - start);
    }

    #[test]
    fn lost_events_spoil_a_look_unless_it_was_overdue_when_it_began() {
        let (mut schedule, start) = schedule();
        schedule.record_path("a".into(), start);
        let batch = schedule.start_batch(start + SETTLE);
        schedule.record_everything(start + SETTLE);
        let late = start + 2 * MAX_AGE;
        let decision = schedule.judge(&batch, &Findings::default(), late);
        assert_eq!(decision, Decision::LookAgain);
        schedule.put_back(batch, decision, late, MAX_AGE);
        // Otherwise a site whose events are lost all the time would never be published.
        let batch = schedule.start_batch(late + SETTLE);
        assert!(batch.was_overdue() && batch.dirty.is_everything);
        schedule.record_everything(late + SETTLE);
        let decision = schedule.judge(&batch, &Findings::default(), late + SETTLE);
        assert_eq!(decision, Decision::Publish);
    }

    #[test]
    fn a_hold_and_another_site_hold_up_even_what_is_overdue() {
        for findings in [
            Findings {
                is_held: true,
                ..Findings::default()
            },
            Findings {
                is_other_site: true,
                ..Findings::default()
            },
        ] {
            let (mut schedule, start) = schedule();
            schedule.record_path("a".into(), start);
            let late = start + 2 * MAX_AGE;
            assert_eq!(look(&mut schedule, &findings, late), Decision::LookAgain);
            // It comes again soon, not at once.
            assert!(schedule.waiting().due() >= Some(late));
            schedule.postpone(late);
            assert_eq!(schedule.waiting().due(), Some(late + ROOT_CHECK_INTERVAL));
        }
    }

    #[test]
    fn a_tree_that_was_moved_here_waits_for_its_writers_for_a_while() {
        let findings = Findings {
            is_tree_busy: true,
            ..Findings::default()
        };
        let (mut schedule, start) = schedule();
        schedule.record_moved("tree".into(), start);
        let mut now = start + SETTLE;
        while look(&mut schedule, &findings, now) == Decision::AwaitWriters {
            now = schedule.waiting().due().expect("put back");
        }
        assert!(now >= start + scan::MAX_SETTLE_TIME, "{:?}", now - start);
        assert!(now <= start + scan::MAX_SETTLE_TIME + MIN_BUSY_PAUSE);
    }

    #[test]
    fn an_emptied_site_waits_for_a_build_where_that_was_asked_for() {
        let findings = Findings {
            is_emptied: true,
            ..Findings::default()
        };
        let (mut schedule, start) = schedule();
        schedule.record_path("a".into(), start);
        assert_eq!(
            look(&mut schedule, &findings, start + SETTLE),
            Decision::Publish
        );
        let hold = 5 * MAX_AGE;
        let hold_empty = Some(hold);
        schedule = Schedule::new(
            Periods {
                hold_empty,
                ..periods()
            },
            start,
        );
        schedule.record_path("a".into(), start);
        let decision = look(&mut schedule, &findings, start + SETTLE);
        assert_eq!(decision, Decision::AwaitRebuild(hold));
        assert_eq!(schedule.waiting().due(), Some(start + hold));
        // The build begins.
        let now = start + MAX_AGE;
        schedule.record_saved("b".into(), now);
        assert_eq!(schedule.waiting().due(), Some(now + REBUILD_QUIET_PERIOD));
        let decision = look(
            &mut schedule,
            &Findings::default(),
            now + REBUILD_QUIET_PERIOD,
        );
        assert_eq!(decision, Decision::Publish);
    }

    #[test]
    fn a_request_waits_for_a_suspect_as_long_as_a_batch_may_and_a_little_longer() {
        let (mut schedule, start) = schedule();
        schedule.join_suspect("a".into(), start);
        assert_eq!(schedule.waiting().due(), Some(start + SUSPECT_QUIET_PERIOD));
        schedule.expect_answer(start);
        schedule.expect_answer(start + MAX_AGE);
        let by = start + MAX_AGE + MAX_SUSPECT_DELAY;
        assert!(!schedule.is_answer_due(by - MILLISECOND) && schedule.is_answer_due(by));
        schedule.set_answered();
        assert!(!schedule.is_answer_due(by));
    }

    #[test]
    fn another_root_is_one_batch_and_forgets_what_was_busy() {
        let (mut schedule, start) = schedule();
        busy(&mut schedule, "log", start);
        schedule.replace_root(Path::new("/srv/site"), start);
        assert!(!schedule.is_any_busy([&b"log".as_slice().into()]));
        let batch = schedule.start_batch(start + SETTLE);
        assert!(batch.dirty.is_everything);
        assert!(batch.dirty.moved.contains(Path::new("/srv/site")));
    }

    #[test]
    fn batches_are_numbered_in_their_order() {
        let (mut schedule, start) = schedule();
        let mut ids = Vec::new();
        for step in 0..3 {
            let now = start + step * MAX_AGE;
            schedule.record_path("a".into(), now);
            ids.push(schedule.start_batch(now + SETTLE).id);
        }
        assert!(ids.is_sorted() && ids.first() < ids.last(), "{ids:?}");
        schedule.start_over(start);
        assert!(schedule.waiting().dirty.is_everything);
        assert!(schedule.waiting().id > ids[2]);
    }

    #[test]
    fn writes_that_wait_are_tried_again_soon() {
        let (mut schedule, start) = schedule();
        schedule.retry_writes(true, start);
        assert_eq!(schedule.next_wake(), start + WRITE_RETRY_INTERVAL);
        schedule.retry_writes(false, start);
        assert_eq!(schedule.next_wake(), start + ROOT_CHECK_INTERVAL);
    }
}
