//! A batch: the changes that are looked at, and published, together. Pure: the clock comes in as an
//! argument.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a batch waits at most in which nothing happens but that all its files are replaced again and
/// again, each of them completely: they never come to rest, and each version is as good as the next.
const MAX_UNREST: Duration = Duration::from_millis(350);

/// Whether the same files are replaced again and again, and nothing else happens.
#[derive(Debug, Default)]
struct Restlessness {
    /// When the last path was recorded that was not in the batch yet.
    grown: Option<Instant>,
    /// How long nothing may be added before what is there counts as restless.
    patience: Duration,
    /// Paths to which something has happened that need not be all: somebody may be writing there.
    unfinished: BTreeSet<PathBuf>,
    /// Paths that were closed after writing, or renamed: each, and whether more than once.
    finished: BTreeMap<PathBuf, bool>,
    /// How many of them were so once. What changes only once belongs to a deploy, and waits for the
    /// rest of it.
    once: usize,
}

impl Restlessness {
    fn note(&mut self, path: &Path, is_finished: bool, is_new: bool, now: Instant) {
        if is_new {
            self.grown = Some(now);
        }
        if is_finished {
            self.unfinished.remove(path);
            self.finish(path.to_path_buf(), false);
        } else {
            self.unfinished.insert(path.to_path_buf());
        }
    }

    /// Notes that a path was finished, or even more than once.
    fn finish(&mut self, path: PathBuf, is_repeated: bool) {
        let known = self.finished.get(&path).copied();
        let is_repeated = is_repeated || known.is_some();
        self.once -= usize::from(known == Some(false));
        self.once += usize::from(!is_repeated);
        self.finished.insert(path, is_repeated);
    }

    fn is_restless(&self, now: Instant) -> bool {
        let has_not_grown = self.grown.is_some_and(|grown| now >= grown + self.patience);
        let are_repeated = self.once == 0 && !self.finished.is_empty();
        has_not_grown && are_repeated && self.unfinished.is_empty()
    }

    /// Takes over what was noted before, of the same paths or not.
    fn precede(&mut self, before: Self, are_same: bool) {
        if are_same {
            self.grown = before.grown.or(self.grown);
        }
        self.patience = self.patience.max(before.patience);
        let since = |path: &PathBuf| !self.finished.contains_key(path);
        let unfinished: Vec<_> = before.unfinished.into_iter().filter(since).collect();
        self.unfinished.extend(unfinished);
        for (path, is_repeated) in before.finished {
            self.finish(path, is_repeated);
        }
    }
}

/// What somebody should look at.
#[derive(Debug, Default)]
pub(super) struct DirtyPaths {
    /// Real paths.
    pub(super) paths: BTreeSet<PathBuf>,
    /// Those of them that lead elsewhere now, or nowhere. A look that is under way when one of
    /// these moves has seen a mixture of the old tree and the new one.
    pub(super) moved: BTreeSet<PathBuf>,
    /// Whether to look at the whole site.
    pub(super) is_everything: bool,
    /// Whether anything may have changed: it is not only compared.
    pub(super) is_unknown: bool,
}

impl DirtyPaths {
    /// Whether nothing but `path` is dirty.
    fn is_at_most(&self, path: &Path) -> bool {
        !self.is_everything && self.paths.iter().all(|dirty| dirty == path)
    }

    fn extend(&mut self, other: Self) {
        self.paths.extend(other.paths);
        self.moved.extend(other.moved);
        self.is_everything |= other.is_everything;
        self.is_unknown |= other.is_unknown;
    }
}

/// Where a batch stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BatchState {
    /// Nothing has been recorded yet.
    Empty,
    /// It gathers changes until it is due.
    Waiting {
        /// When to look at it.
        due: Instant,
    },
    /// Somebody looks at it.
    Running {
        /// Whether it had waited as long as it may when the look began.
        was_overdue: bool,
    },
}

/// The changes that are published together, if they are published at all.
#[derive(Debug)]
pub(super) struct Batch {
    /// Batches are numbered in the order in which they begin, which is the order in which they are
    /// published. One that is put back takes up what has come meanwhile and keeps its number.
    pub(super) id: u64,
    /// What to look at.
    pub(super) dirty: DirtyPaths,
    /// Where it stands.
    pub(super) state: BatchState,
    /// How many looks have not led to a publication.
    pub(super) attempts: u32,
    /// How often its large files were hashed on a thread of their own.
    pub(super) preparations: u32,
    /// When it was first put aside for that.
    parked: Option<Instant>,
    /// When its first change was recorded. `None`: it only tries busy files again.
    first: Option<Instant>,
    /// When to look again at the earliest, where the last look could not be completed.
    not_before: Option<Instant>,
    /// It waits for quiet, but not longer than this after its first change.
    max_age: Duration,
    /// It waits for at least so much quiet.
    min_quiet: Duration,
    restlessness: Restlessness,
}

impl Batch {
    pub(super) fn new(id: u64, max_age: Duration) -> Self {
        Self {
            id,
            dirty: DirtyPaths::default(),
            state: BatchState::Empty,
            attempts: 0,
            preparations: 0,
            parked: None,
            first: None,
            not_before: None,
            max_age,
            min_quiet: Duration::ZERO,
            restlessness: Restlessness::default(),
        }
    }

    /// Notes what an event says of a path that is recorded next: whether what has happened there is
    /// all of it. A file was closed after writing then, or renamed. What is replaced all the time waits
    /// for `quiet`, too, until other paths count as other changes.
    pub(super) fn note_event(
        &mut self,
        path: &Path,
        is_finished: bool,
        now: Instant,
        quiet: Duration,
    ) {
        self.restlessness.patience = MAX_UNREST.max(quiet);
        let is_new = !self.dirty.paths.contains(path);
        self.restlessness.note(path, is_finished, is_new, now);
    }

    /// Records a change. The batch is due when nothing has been recorded for `quiet`.
    pub(super) fn record_path(&mut self, path: PathBuf, now: Instant, quiet: Duration) {
        self.dirty.paths.insert(path);
        self.record(now, quiet);
    }

    /// Records a path that leads elsewhere now, or nowhere.
    pub(super) fn record_moved(&mut self, path: PathBuf, now: Instant, quiet: Duration) {
        self.dirty.moved.insert(path.clone());
        self.record_path(path, now, quiet);
    }

    /// Records that anything may have changed.
    pub(super) fn record_everything(&mut self, now: Instant, quiet: Duration) {
        self.dirty.is_everything = true;
        self.dirty.is_unknown = true;
        self.record(now, quiet);
    }

    /// Adds a path to which nothing is known to have happened: a batch that is waiting takes it
    /// along, no sooner and no later than it would be due anyway.
    pub(super) fn join_path(&mut self, path: PathBuf, now: Instant, quiet: Duration) {
        self.dirty.paths.insert(path);
        self.join(now, quiet);
    }

    /// Adds the whole site in the way of [`Batch::join_path`].
    pub(super) fn join_everything(&mut self, now: Instant) {
        self.dirty.is_everything = true;
        self.join(now, Duration::ZERO);
    }

    fn join(&mut self, now: Instant, quiet: Duration) {
        if self.is_empty() {
            self.record(now, quiet);
        }
    }

    fn record(&mut self, now: Instant, quiet: Duration) {
        let first = *self.first.get_or_insert(now);
        // Quiet is waited for, so that what a deploy writes in one go is one batch; but not for ever, or
        // a log in the site would keep all changes from being published.
        let quiet = quiet.max(self.min_quiet);
        let due = match self.restlessness.is_restless(now) {
            true => now,
            false => (now + quiet).min(first + self.max_age).max(now),
        };
        let due = self.not_before.map_or(due, |earliest| earliest.max(due));
        self.state = BatchState::Waiting { due };
    }

    /// Whether it holds nothing but `path`.
    pub(super) fn is_at_most(&self, path: &Path) -> bool {
        self.dirty.is_at_most(path)
    }

    /// Notes that it is put aside until others have done what takes long. Returns since when later
    /// batches wait for it, which is no later if it was put aside before.
    pub(super) fn park(&mut self, now: Instant) -> Instant {
        self.preparations += 1;
        *self.parked.get_or_insert(now)
    }

    /// When to look at it, if there is anything to look at.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            BatchState::Waiting { due } => Some(due),
            BatchState::Empty | BatchState::Running { .. } => None,
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due().is_some_and(|due| now >= due)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state == BatchState::Empty
    }

    /// Makes it due at `until` instead, if it is waiting.
    pub(super) fn postpone(&mut self, until: Instant) {
        if !self.is_empty() {
            self.state = BatchState::Waiting { due: until };
        }
    }

    /// Makes it due at `until`, and no sooner whatever is recorded meanwhile.
    pub(super) fn rest_until(&mut self, until: Instant) {
        self.not_before = Some(until);
        self.postpone(until);
    }

    /// Takes the batch out for a look, and leaves `next` in its place.
    pub(super) fn start(&mut self, next: Self, now: Instant) -> Self {
        let was_overdue = self.is_overdue(now);
        let batch = mem::replace(self, next);
        Self {
            state: BatchState::Running { was_overdue },
            ..batch
        }
    }

    /// Whether it has waited as long as it may.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.is_older(now, self.max_age) || self.restlessness.is_restless(now)
    }

    /// Whether it had waited as long as it may when the look at it began.
    pub(super) fn was_overdue(&self) -> bool {
        matches!(self.state, BatchState::Running { was_overdue: true })
    }

    /// Whether its first change was recorded at least `age` ago. Of busy files it is not known
    /// when they changed, so a batch of these alone is older than anything.
    pub(super) fn is_older(&self, now: Instant, age: Duration) -> bool {
        self.first.is_none_or(|first| now >= first + age)
    }

    /// Puts a batch back that must be looked at again, together with what has come meanwhile.
    pub(super) fn put_back(&mut self, batch: Self, now: Instant, quiet: Duration) {
        self.id = batch.id;
        self.attempts = batch.attempts + 1;
        self.preparations = batch.preparations;
        self.parked = batch.parked;
        let are_same = self.dirty.paths.is_subset(&batch.dirty.paths);
        self.restlessness.precede(batch.restlessness, are_same);
        self.dirty.extend(batch.dirty);
        // It keeps its age: otherwise changes that come all the time would make it wait for ever.
        self.first = batch.first.or(self.first);
        self.max_age = batch.max_age;
        self.min_quiet = batch.min_quiet;
        if self.is_empty() {
            self.record(now, quiet);
        }
    }

    /// Puts a batch back until `max_age` after its first change, or until more has come and it has
    /// been quiet for `min_quiet`.
    pub(super) fn hold(
        &mut self,
        batch: Self,
        now: Instant,
        max_age: Duration,
        min_quiet: Duration,
    ) {
        let batch = Self {
            max_age,
            min_quiet,
            ..batch
        };
        self.put_back(batch, now, max_age);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_millis(100);
    const MAX_AGE: Duration = Duration::from_secs(2);

    fn empty() -> Batch {
        Batch::new(1, MAX_AGE)
    }

    fn start(batch: &mut Batch, now: Instant) -> Batch {
        batch.start(empty(), now)
    }

    #[test]
    fn a_batch_is_due_when_it_has_been_quiet() {
        let begin = Instant::now();
        let mut batch = empty();
        assert_eq!(batch.due(), None);
        batch.record_path("a".into(), begin, QUIET);
        assert_eq!(batch.due(), Some(begin + QUIET));
        let later = begin + QUIET / 2;
        batch.record_path("b".into(), later, QUIET);
        assert_eq!(batch.due(), Some(later + QUIET));
        assert_eq!(start(&mut batch, later).dirty.paths.len(), 2);
        assert_eq!(batch.due(), None);
    }

    #[test]
    fn a_batch_that_never_rests_is_due_at_its_maximum_age() {
        let begin = Instant::now();
        let mut batch = empty();
        for step in 0..100 {
            batch.record_path(format!("{step}").into(), begin + step * QUIET / 2, QUIET);
        }
        assert!(batch.due() <= Some(begin + 99 * QUIET / 2));
        assert!(batch.is_older(begin + MAX_AGE, MAX_AGE));
        assert!(!batch.is_older(begin + MAX_AGE - QUIET, MAX_AGE));
    }

    const TICK: Duration = Duration::from_millis(20);

    #[test]
    fn what_is_replaced_again_and_again_does_not_wait_for_quiet() {
        // Each step is a path, and whether an event says that this is all.
        type Step = (&'static str, bool);
        let cases: [(&str, &[Step], bool); 7] = [
            (
                "beside a copy that takes long",
                &[("f", true), ("copy", false)],
                false,
            ),
            ("renamed over", &[("f", true)], true),
            ("rewritten in place", &[("f", false), ("f", true)], true),
            (
                "written beside it, and renamed",
                &[("t", false), ("t", true), ("t", true), ("f", true)],
                true,
            ),
            ("one copy that takes long", &[("f", false)], false),
            ("a log and a copy", &[("log", true), ("f", false)], false),
            ("a log that is appended to", &[("log", false)], false),
        ];
        for (name, steps, is_restless) in cases {
            let (begin, mut batch) = (Instant::now(), empty());
            let mut due = None;
            for round in 0..100 {
                for (path, is_finished) in steps {
                    let now = begin + round * TICK;
                    batch.note_event(Path::new(path), *is_finished, now, QUIET);
                    batch.record_path(path.into(), now, QUIET);
                    if batch.is_due(now) {
                        due.get_or_insert(now - begin);
                    }
                }
            }
            match is_restless {
                true => assert!(
                    due.is_some_and(|due| due >= MAX_UNREST && due < MAX_UNREST + 2 * TICK),
                    "{name}: {due:?}"
                ),
                false => assert_eq!(due, None, "{name}"),
            }
            assert_eq!(
                batch.is_overdue(begin + 100 * TICK - TICK),
                is_restless,
                "{name}"
            );
        }
    }

    #[test]
    fn what_changed_once_waits_for_quiet_beside_what_never_rests() {
        for (paths, quiet, is_due) in [
            (&["filler"][..], QUIET, true),
            (&["filler"], 20 * TICK, true),
            (&["filler"], 60 * TICK, false),
            (&["app.js", "filler"], QUIET, false),
        ] {
            let (begin, mut batch) = (Instant::now(), empty());
            for path in paths {
                batch.note_event(Path::new(path), true, begin, quiet);
                batch.record_path(path.into(), begin, quiet);
            }
            let mut due = None;
            for round in 1..50 {
                let now = begin + round * TICK;
                batch.note_event(Path::new("filler"), true, now, quiet);
                batch.record_path("filler".into(), now, quiet);
                if batch.is_due(now) {
                    due.get_or_insert(now - begin);
                }
            }
            assert_eq!(due.is_some(), is_due, "{paths:?} {quiet:?}");
            assert!(due.is_none_or(|due| due >= quiet), "{paths:?}: {due:?}");
        }
    }

    #[test]
    fn what_grows_waits_for_quiet() {
        let (begin, mut batch) = (Instant::now(), empty());
        for round in 0..50 {
            let now = begin + round * TICK;
            let path = format!("{}", round / 10);
            batch.note_event(Path::new(&path), true, now, QUIET);
            batch.record_path(path.into(), now, QUIET);
            assert!(!batch.is_due(now), "{round}");
        }
        // What was looked at in vain is no newer for that.
        let now = begin + 50 * TICK;
        let last = Path::new("4");
        let batch_at_work = start(&mut batch, now);
        batch.note_event(last, true, now, QUIET);
        batch.record_path(last.into(), now, QUIET);
        batch.put_back(batch_at_work, now, QUIET);
        assert!(!batch.is_overdue(now));
        let now = begin + 40 * TICK + MAX_UNREST;
        batch.note_event(last, true, now, QUIET);
        batch.record_path(last.into(), now, QUIET);
        assert!(batch.is_due(now) && start(&mut batch, now).was_overdue());
    }

    #[test]
    fn what_only_joins_moves_no_batch() {
        let begin = Instant::now();
        let mut batch = empty();
        batch.record_path("a".into(), begin, QUIET);
        batch.join_everything(begin + QUIET / 2);
        batch.join_path("b".into(), begin + QUIET / 2, QUIET);
        assert_eq!(batch.due(), Some(begin + QUIET));
        assert!(start(&mut batch, begin).dirty.is_everything);
        batch.join_everything(begin);
        assert_eq!(batch.due(), Some(begin));
    }

    #[test]
    fn what_is_put_back_keeps_its_age_and_its_number() {
        let begin = Instant::now();
        let mut waiting = empty();
        waiting.record_path("a".into(), begin, QUIET);
        let batch = waiting.start(Batch::new(2, MAX_AGE), begin);
        assert!(!batch.was_overdue());
        waiting.record_path("b".into(), begin + MAX_AGE / 2, QUIET);
        waiting.put_back(batch, begin + MAX_AGE / 2, QUIET);
        assert_eq!((waiting.id, waiting.attempts), (1, 1));
        assert_eq!(waiting.dirty.paths.len(), 2);
        assert!(waiting.is_older(begin + MAX_AGE, MAX_AGE));
        assert!(start(&mut waiting, begin + MAX_AGE).was_overdue());
    }

    #[test]
    fn others_wait_for_a_batch_from_when_it_was_first_put_aside() {
        let begin = Instant::now();
        let mut waiting = empty();
        waiting.record_path("a".into(), begin, QUIET);
        let mut batch = start(&mut waiting, begin);
        assert_eq!(batch.park(begin), begin);
        waiting.put_back(batch, begin + QUIET, QUIET);
        let mut batch = start(&mut waiting, begin + 2 * QUIET);
        assert_eq!(batch.park(begin + 2 * QUIET), begin);
        assert_eq!(batch.preparations, 2);
        // The next one is another batch.
        let later = begin + 3 * QUIET;
        waiting.record_path("b".into(), later, QUIET);
        assert_eq!(start(&mut waiting, later).park(later), later);
    }

    #[test]
    fn what_is_held_waits_for_more_and_for_longer_quiet() {
        let begin = Instant::now();
        let mut waiting = empty();
        waiting.record_path("a".into(), begin, QUIET);
        let batch = start(&mut waiting, begin);
        let now = begin + QUIET;
        waiting.hold(batch, now, 2 * MAX_AGE, 3 * QUIET);
        assert_eq!(waiting.due(), Some(begin + 2 * MAX_AGE));
        waiting.record_path("b".into(), now, QUIET);
        assert_eq!(waiting.due(), Some(now + 3 * QUIET));
        let batch = start(&mut waiting, now);
        assert!(!batch.is_overdue(begin + MAX_AGE) && batch.is_overdue(begin + 2 * MAX_AGE));
        // The next one is like any other.
        waiting.record_path("c".into(), now, QUIET);
        assert_eq!(waiting.due(), Some(now + QUIET));
        assert!(start(&mut waiting, now).is_overdue(now + MAX_AGE));
    }
}
