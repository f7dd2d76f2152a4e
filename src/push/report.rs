//! How far a push has come, and what it has come to.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use super::Task;
use super::server::Outcome;
use crate::inventory::url;
use crate::semantics::etag::ETag;

/// How far the work has come; readable from other threads.
#[derive(Debug, Default)]
pub struct Progress {
    pub(super) total: AtomicU64,
    pub(super) done: AtomicU64,
}

impl Progress {
    /// Bytes to send; 0 as long as that is not known.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Bytes sent.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

/// What was done, and what not.
#[derive(Debug, Default)]
pub struct Report {
    /// Files that the server did not have.
    pub created: u64,
    /// Files that it had in another version.
    pub replaced: u64,
    /// Files that it has no more.
    pub deleted: u64,
    /// Files that it had already.
    pub unchanged: u64,
    /// Bytes of what was created and replaced.
    pub bytes: u64,
    /// What was left for later, because something before it has failed.
    pub left: u64,
    /// What was not done, ordered by path.
    pub problems: Vec<Problem>,
}

impl Report {
    pub(super) fn add(&mut self, task: &Task, outcome: Outcome) {
        let length = task.local.as_ref().map_or(0, |local| local.length);
        let trouble = match outcome {
            Outcome::Created => {
                self.created += 1;
                self.bytes += length;
                return;
            }
            Outcome::Replaced => {
                self.replaced += 1;
                self.bytes += length;
                return;
            }
            Outcome::Deleted => {
                self.deleted += 1;
                return;
            }
            Outcome::Unchanged => {
                self.unchanged += 1;
                return;
            }
            Outcome::Overtaken(tag) => Trouble::Conflict(tag),
            Outcome::Failed(reason) | Outcome::Refused(reason) => Trouble::Failed(reason),
        };
        let path = task.path.clone();
        self.problems.push(Problem { path, trouble });
    }
}

/// A path that is not as it should be.
#[derive(Debug)]
pub struct Problem {
    path: Box<[u8]>,
    trouble: Trouble,
}

#[derive(Debug)]
enum Trouble {
    /// Somebody else has made this of it.
    Conflict(Option<ETag>),
    Failed(String),
}

impl Problem {
    /// Whether somebody else has changed it.
    pub fn is_conflict(&self) -> bool {
        matches!(self.trouble, Trouble::Conflict(_))
    }

    /// Writes it as a line: kind, path, and the server's tag or a reason, separated by tabs.
    ///
    /// # Errors
    /// As `out`.
    pub fn write(&self, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
        let path = url(&self.path);
        match &self.trouble {
            Trouble::Conflict(Some(tag)) => writeln!(out, "conflict\t{path}\t{tag}"),
            Trouble::Conflict(None) => writeln!(out, "conflict\t{path}\tnone"),
            Trouble::Failed(reason) => writeln!(out, "failed\t{path}\t{reason}"),
        }
    }
}
