//! What is to be looked at, and when: pure, the clock comes in as an argument.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The changes since the last publication.
#[derive(Debug)]
pub(super) struct DirtyPaths {
    /// A batch waits for quiet, but not longer than this from its first change on.
    longest: Duration,
    /// How that is for the next one.
    usual: Duration,
    /// It waits for so much quiet at least.
    least: Duration,
    /// Real paths that somebody should look at.
    pub(super) paths: BTreeSet<PathBuf>,
    /// Real paths among them that lead elsewhere now, or nowhere: half of what is below is a
    /// mixture.
    pub(super) moved: BTreeSet<PathBuf>,
    /// Whether to look at everything.
    pub(super) everything: bool,
    first: Option<Instant>,
    due: Option<Instant>,
}

impl DirtyPaths {
    pub(super) fn new(longest: Duration) -> Self {
        Self {
            longest,
            usual: longest,
            least: Duration::ZERO,
            paths: BTreeSet::new(),
            moved: BTreeSet::new(),
            everything: false,
            first: None,
            due: None,
        }
    }

    /// Notes a path. The batch is due when nothing is noted for `quiet`.
    pub(super) fn path(&mut self, path: PathBuf, now: Instant, quiet: Duration) {
        self.paths.insert(path);
        self.note(now, quiet);
    }

    /// Notes a path that leads elsewhere now, or nowhere.
    pub(super) fn moved(&mut self, path: PathBuf, now: Instant, quiet: Duration) {
        self.moved.insert(path.clone());
        self.path(path, now, quiet);
    }

    /// Notes that everything has to be looked at.
    pub(super) fn everything(&mut self, now: Instant, quiet: Duration) {
        self.everything = true;
        self.note(now, quiet);
    }

    /// Notes a path that nothing is known to have happened to: a batch that waits for quiet takes
    /// it along, no sooner and no later.
    pub(super) fn join_path(&mut self, path: PathBuf, now: Instant, quiet: Duration) {
        self.paths.insert(path);
        self.join(now, quiet);
    }

    /// The same for everything.
    pub(super) fn join_everything(&mut self, now: Instant) {
        self.everything = true;
        self.join(now, Duration::ZERO);
    }

    fn join(&mut self, now: Instant, quiet: Duration) {
        if self.due.is_none() {
            self.note(now, quiet);
        }
    }

    fn note(&mut self, now: Instant, quiet: Duration) {
        let first = *self.first.get_or_insert(now);
        let quiet = quiet.max(self.least);
        self.due = Some((now + quiet).min(first + self.longest).max(now));
    }

    /// Whether nothing but this path is noted.
    pub(super) fn is_at_most(&self, path: &Path) -> bool {
        !self.everything && self.paths.iter().all(|noted| noted == path)
    }

    /// When to look, if there is anything to look at.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Looks again later: publication is held.
    pub(super) fn postpone(&mut self, until: Instant) {
        if self.due.is_some() {
            self.due = Some(until);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.due.is_none()
    }

    /// Takes the batch out.
    pub(super) fn take(&mut self) -> Self {
        let empty = Self::new(self.usual);
        std::mem::replace(self, empty)
    }

    /// Whether it has waited as long as it may.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.is_older(now, self.longest)
    }

    /// Whether its first change was noted so long ago; of what is tried again nothing is known.
    pub(super) fn is_older(&self, now: Instant, age: Duration) -> bool {
        self.first.is_none_or(|first| now >= first + age)
    }

    /// Puts a batch back that must be looked at again, together with what has come meanwhile.
    pub(super) fn put_back(&mut self, batch: Self, now: Instant, quiet: Duration) {
        self.paths.extend(batch.paths);
        self.everything |= batch.everything;
        self.moved.extend(batch.moved);
        self.first = batch.first.or(self.first);
        self.longest = batch.longest;
        self.least = batch.least;
        if self.due.is_none() {
            self.note(now, quiet);
        }
    }

    /// Puts a batch back until `longest` after its first change, or until more has come and it has
    /// been quiet for `least`.
    pub(super) fn hold(&mut self, batch: Self, now: Instant, longest: Duration, least: Duration) {
        let batch = Self {
            longest,
            least,
            ..batch
        };
        self.put_back(batch, now, longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(2);

    #[test]
    fn a_batch_is_due_when_it_has_been_quiet() {
        let start = Instant::now();
        let mut pending = DirtyPaths::new(LONGEST);
        assert_eq!(pending.due(), None);
        pending.path("a".into(), start, QUIET);
        assert_eq!(pending.due(), Some(start + QUIET));
        let later = start + QUIET / 2;
        pending.path("b".into(), later, QUIET);
        assert_eq!(pending.due(), Some(later + QUIET));
        assert_eq!(pending.take().paths.len(), 2);
        assert_eq!(pending.due(), None);
    }

    #[test]
    fn a_batch_that_never_rests_is_due_after_its_longest() {
        let start = Instant::now();
        let mut pending = DirtyPaths::new(LONGEST);
        for step in 0..100 {
            pending.path(format!("{step}").into(), start + step * QUIET / 2, QUIET);
        }
        assert!(pending.due() <= Some(start + 99 * QUIET / 2));
        assert!(pending.is_older(start + LONGEST, LONGEST));
        assert!(!pending.is_older(start + LONGEST - QUIET, LONGEST));
    }

    #[test]
    fn what_only_joins_moves_no_batch() {
        let start = Instant::now();
        let mut pending = DirtyPaths::new(LONGEST);
        pending.path("a".into(), start, QUIET);
        pending.join_everything(start + QUIET / 2);
        pending.join_path("b".into(), start + QUIET / 2, QUIET);
        assert_eq!(pending.due(), Some(start + QUIET));
        assert!(pending.take().everything);
        pending.join_everything(start);
        assert_eq!(pending.due(), Some(start));
    }

    #[test]
    fn what_is_put_back_keeps_its_age() {
        let start = Instant::now();
        let mut pending = DirtyPaths::new(LONGEST);
        pending.path("a".into(), start, QUIET);
        let batch = pending.take();
        pending.path("b".into(), start + LONGEST / 2, QUIET);
        pending.put_back(batch, start + LONGEST / 2, QUIET);
        assert_eq!(pending.paths.len(), 2);
        assert!(pending.is_older(start + LONGEST, LONGEST));
    }

    #[test]
    fn what_is_held_waits_for_more_and_for_longer_quiet() {
        let start = Instant::now();
        let mut pending = DirtyPaths::new(LONGEST);
        pending.path("a".into(), start, QUIET);
        let batch = pending.take();
        let now = start + QUIET;
        pending.hold(batch, now, 2 * LONGEST, 3 * QUIET);
        assert_eq!(pending.due(), Some(start + 2 * LONGEST));
        pending.path("b".into(), now, QUIET);
        assert_eq!(pending.due(), Some(now + 3 * QUIET));
        let batch = pending.take();
        assert!(!batch.is_overdue(start + LONGEST) && batch.is_overdue(start + 2 * LONGEST));
        // The next one is like any other.
        pending.path("c".into(), now, QUIET);
        assert_eq!(pending.due(), Some(now + QUIET));
        assert!(pending.take().is_overdue(now + LONGEST));
    }
}
