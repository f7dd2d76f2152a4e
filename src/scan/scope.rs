//! What a reconciliation is asked for, and what it has found.

use std::collections::BTreeSet;

use super::walk::Link;
use crate::manifest::{Changes, ancestors};
use crate::rules::RuleFile;

/// What to bring in line with the disk.
#[derive(Clone, Debug)]
pub enum Scope {
    /// The whole site. A file whose stamp the manifest knows is trusted.
    Everything,
    /// These paths of the site, which are read whatever their stamp, and what is below them.
    Paths(BTreeSet<Box<[u8]>>),
}

impl Scope {
    pub(super) fn rereads(&self, path: &[u8]) -> bool {
        match self {
            Self::Everything => false,
            Self::Paths(paths) => paths.contains(path),
        }
    }

    /// Where to begin walking: no start lies below another.
    pub(super) fn starts(&self) -> Vec<&[u8]> {
        match self {
            Self::Everything => vec![b"".as_slice()],
            Self::Paths(paths) => {
                let is_covered = |path: &[u8]| ancestors(path).any(|above| paths.contains(above));
                paths
                    .iter()
                    .map(AsRef::as_ref)
                    .filter(|path| !is_covered(path))
                    .collect()
            }
        }
    }

    /// Whether `path` is in it.
    pub fn covers(&self, path: &[u8]) -> bool {
        match self {
            Self::Everything => true,
            Self::Paths(paths) => {
                paths.contains(path) || ancestors(path).any(|above| paths.contains(above))
            }
        }
    }
}

/// What to do with a file that is open for writing or changes while it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsettled {
    /// Leave its path as the manifest has it, and say so.
    Report,
    /// Publish what was read, marked as unsettled.
    Publish,
}

/// What a reconciliation has found.
#[derive(Debug, Default)]
pub struct ScanOutcome {
    /// The difference to the manifest.
    pub changes: Changes,
    /// The links within the scope.
    pub links: Vec<Link>,
    /// Files that are still being written.
    pub busy: Vec<Box<[u8]>>,
}

impl ScanOutcome {
    /// Forgets what was found at these paths and below them.
    pub fn exclude(&mut self, paths: &BTreeSet<Box<[u8]>>) {
        let is_in = |path: &[u8]| {
            paths.contains(path) || ancestors(path).any(|above| paths.contains(above))
        };
        self.changes.changed.retain(|new| !is_in(&new.path));
        self.changes.removed.retain(|path| !is_in(path));
        if RuleFile::ALL
            .iter()
            .any(|file| is_in(file.name().as_bytes()))
        {
            self.changes.rules = None;
        }
        self.busy.retain(|path| !is_in(path));
    }
}
