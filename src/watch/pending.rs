//! What is to be looked at, and when: pure, the clock comes in as an argument.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A batch waits for quiet, but not longer than this from its first change on.
pub(super) const LONGEST: Duration = Duration::from_secs(2);
/// What must not be published half is waited for longer, but not for ever.
const LONGEST_WHOLE: Duration = Duration::from_secs(60);

/// The changes since the last publication.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Real paths that somebody should look at.
    pub(super) paths: BTreeSet<PathBuf>,
    /// Whether to look at everything, and whether to read it all.
    pub(super) everything: Option<Everything>,
    first: Option<Instant>,
    due: Option<Instant>,
    /// Whether a directory or a link is among the changes: half of them would be a mixture.
    is_structural: bool,
}

/// How to look at everything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Everything {
    /// Trust equal stamps.
    Compare,
    /// Read it all again.
    Reread,
}

impl Pending {
    /// Notes a path. The batch is due when nothing is noted for `quiet`.
    pub(super) fn path(&mut self, path: PathBuf, now: Instant, quiet: Duration) {
        self.paths.insert(path);
        self.note(now, quiet);
    }

    /// Notes that everything has to be looked at.
    pub(super) fn everything(&mut self, how: Everything, now: Instant, quiet: Duration) {
        self.everything = self.everything.max(Some(how));
        self.note(now, quiet);
    }

    /// Notes that a directory or a link is among the changes.
    pub(super) fn structural(&mut self) {
        self.is_structural = true;
    }

    fn note(&mut self, now: Instant, quiet: Duration) {
        let first = *self.first.get_or_insert(now);
        let latest = first + self.longest();
        self.due = Some((now + quiet).min(latest).max(now));
    }

    fn longest(&self) -> Duration {
        if self.is_structural {
            LONGEST_WHOLE
        } else {
            LONGEST
        }
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
        std::mem::take(self)
    }

    /// Whether a batch has waited long enough to be published although `more` has come: of files
    /// that go on changing, or of directories and links that never come to rest.
    pub(super) fn is_overdue(&self, more: &Self, now: Instant) -> bool {
        self.first.is_none_or(|first| now >= first + more.longest())
    }

    /// Puts a batch back that must be looked at again, together with what has come meanwhile.
    pub(super) fn put_back(&mut self, batch: Self, now: Instant, quiet: Duration) {
        self.paths.extend(batch.paths);
        self.everything = self.everything.max(batch.everything);
        self.is_structural |= batch.is_structural;
        self.first = batch.first.or(self.first);
        if self.due.is_none() {
            self.note(now, quiet);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_millis(100);

    #[test]
    fn a_batch_is_due_when_it_has_been_quiet() {
        let start = Instant::now();
        let mut pending = Pending::default();
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
        let mut pending = Pending::default();
        for step in 0..100 {
            pending.path(format!("{step}").into(), start + step * QUIET / 2, QUIET);
        }
        assert!(pending.due() <= Some(start + 99 * QUIET / 2));
        let more = Pending::default();
        assert!(pending.is_overdue(&more, start + LONGEST));
        assert!(!pending.is_overdue(&more, start + LONGEST - QUIET));
    }

    #[test]
    fn a_structural_batch_waits_longer() {
        let start = Instant::now();
        let mut pending = Pending::default();
        pending.structural();
        pending.path("a".into(), start, QUIET);
        pending.path("a".into(), start + LONGEST, QUIET);
        assert_eq!(pending.due(), Some(start + LONGEST + QUIET));
        let mut more = Pending::default();
        assert!(
            pending.is_overdue(&more, start + LONGEST),
            "files alone make no mixture"
        );
        more.structural();
        assert!(!pending.is_overdue(&more, start + LONGEST));
        assert!(pending.is_overdue(&more, start + LONGEST_WHOLE));
    }

    #[test]
    fn what_is_put_back_keeps_its_age() {
        let start = Instant::now();
        let mut pending = Pending::default();
        pending.path("a".into(), start, QUIET);
        let batch = pending.take();
        pending.path("b".into(), start + LONGEST / 2, QUIET);
        pending.put_back(batch, start + LONGEST / 2, QUIET);
        assert_eq!(pending.paths.len(), 2);
        assert!(pending.is_overdue(&Pending::default(), start + LONGEST));
    }
}
