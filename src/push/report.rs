//! The result of a push.

use std::io::{self, Write};

use super::server::{PushError, PushOutcome};
use super::task::Task;
use crate::inventory::url;
use crate::semantics::etag::ETag;

/// What was done, and what not.
#[derive(Debug, Default)]
pub struct PushReport {
    /// Number of files that the server did not have.
    pub created: u64,
    /// Number of files that it had in another version.
    pub replaced: u64,
    /// Number of files deleted there.
    pub deleted: u64,
    /// Number of files that it had already.
    pub unchanged: u64,
    /// Bytes of the files that were created and replaced.
    pub bytes: u64,
    /// Number of tasks left for the next run, because an earlier one failed.
    pub left: u64,
    /// The files that are not as they should be, ordered by path.
    pub problems: Vec<PushProblem>,
}

impl PushReport {
    pub(super) fn add(&mut self, task: &Task, outcome: PushOutcome) {
        let length = task.local.as_ref().map_or(0, |local| local.length);
        let reason = match outcome {
            PushOutcome::Created => {
                self.created += 1;
                self.bytes += length;
                return;
            }
            PushOutcome::Replaced => {
                self.replaced += 1;
                self.bytes += length;
                return;
            }
            PushOutcome::Deleted => {
                self.deleted += 1;
                return;
            }
            PushOutcome::Unchanged => {
                self.unchanged += 1;
                return;
            }
            PushOutcome::Conflict(tag) => NotPushed::Conflict(tag),
            PushOutcome::Failed(error) => NotPushed::Failed(error),
        };
        let path = task.path.clone();
        self.problems.push(PushProblem { path, reason });
    }

    /// Number of files that somebody else has changed.
    #[must_use]
    pub fn conflicts(&self) -> usize {
        self.problems
            .iter()
            .filter(|problem| matches!(problem.reason, NotPushed::Conflict(_)))
            .count()
    }

    /// Number of files that could not be sent or deleted.
    #[must_use]
    pub fn failures(&self) -> usize {
        self.problems.len() - self.conflicts()
    }
}

/// A file on the server that is not as it should be.
#[derive(Debug)]
pub struct PushProblem {
    path: Box<[u8]>,
    reason: NotPushed,
}

#[derive(Debug)]
enum NotPushed {
    /// Somebody else has made this version, or deleted the file.
    Conflict(Option<ETag>),
    Failed(PushError),
}

impl PushProblem {
    /// A file of the directory that no server would take.
    pub(super) fn failed(path: Box<[u8]>, error: PushError) -> Self {
        Self {
            path,
            reason: NotPushed::Failed(error),
        }
    }

    /// Writes one line: kind, path, and the server's tag or a reason, separated by tabs.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
        let path = url(&self.path);
        match &self.reason {
            NotPushed::Conflict(Some(tag)) => writeln!(out, "conflict\t{path}\t{tag}"),
            NotPushed::Conflict(None) => writeln!(out, "conflict\t{path}\tnone"),
            NotPushed::Failed(error) => writeln!(out, "failed\t{path}\t{error}"),
        }
    }
}
