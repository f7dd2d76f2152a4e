//! The input of a reconciliation, and its result.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use super::found::FoundChanges;
use super::tree_size::TreeSize;
use super::unmade::Unmade;
use super::walk::Link;
use crate::manifest::{Changes, ancestors};
use crate::rules::RuleFile;

/// Which part of the site to reconcile with the disk.
#[derive(Clone, Debug)]
pub enum Scope {
    /// The whole site. A file with the stamp that the manifest has is not read again.
    Everything,
    /// The whole site, and these paths are read again whatever their stamp.
    EverythingWith(BTreeSet<Box<[u8]>>),
    /// These paths, which are read again whatever their stamp, and everything below them, which
    /// is treated as under [`Scope::Everything`].
    Paths(BTreeSet<Box<[u8]>>),
}

impl Scope {
    /// These paths, or the whole site where one of them decides what is part of it.
    pub fn of(paths: BTreeSet<Box<[u8]>>) -> Self {
        match paths.contains(RuleFile::Ignore.name().as_bytes()) {
            true => Self::EverythingWith(paths),
            false => Self::Paths(paths),
        }
    }

    pub(super) fn rereads(&self, path: &[u8]) -> bool {
        match self {
            Self::Everything => false,
            Self::EverythingWith(paths) | Self::Paths(paths) => paths.contains(path),
        }
    }

    /// Where to begin walking: no start lies below another.
    pub(super) fn starts(&self) -> Vec<&[u8]> {
        match self {
            Self::Everything | Self::EverythingWith(_) => vec![b"".as_slice()],
            Self::Paths(paths) => {
                paths
                    .iter()
                    .map(AsRef::as_ref)
                    // Walking it would yield its files twice.
                    .filter(|path| !ancestors(path).any(|above| paths.contains(above)))
                    .collect()
            }
        }
    }

    /// Whether `path` is in the scope.
    pub fn covers(&self, path: &[u8]) -> bool {
        match self {
            Self::Everything | Self::EverythingWith(_) => true,
            Self::Paths(paths) => {
                paths.contains(path) || ancestors(path).any(|above| paths.contains(above))
            }
        }
    }
}

/// What to do with a file that is open for writing or changes while it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsettled {
    /// Keep the published state of its path, and list it in [`ScanOutcome::busy`].
    Report,
    /// As [`Unsettled::Report`], and files that take long to hash are not hashed: they are listed in
    /// [`ScanOutcome::long`], and the outcome is of no use until [`super::Scanner::prepare`] has
    /// hashed them. The same holds for what takes long to compress, [`ScanOutcome::unmade`] and
    /// [`super::Scanner::make_codings`].
    Defer,
    /// Publish what was read, marked as unsettled, so that no client stores it.
    Publish,
}

/// The result of a reconciliation.
#[derive(Debug, Default)]
pub struct ScanOutcome {
    /// What has changed, compared with the manifest.
    pub changes: Changes,
    /// The links within the scope.
    pub links: Vec<Link>,
    /// Files that are still being written.
    pub busy: Vec<Box<[u8]>>,
    /// Files that take long to hash and were not: where they are, as [`crate::disk::Root::open_file`]
    /// takes it.
    pub long: Vec<PathBuf>,
    /// Files whose codings are still to be made, where that takes long.
    pub unmade: Vec<Unmade>,
    /// What can't be looked at now, with the reason. The changes leave it as it was, which may be
    /// half of something: they are for nobody who can look again.
    pub not_now: BTreeMap<Box<[u8]>, io::Error>,
    /// How many entries the walk has met within the scope.
    pub size: TreeSize,
    /// What the changes follow from, so that a part of it can be dropped; not kept of a start.
    pub(super) found: FoundChanges,
}

impl ScanOutcome {
    /// Whether it is of no use until what takes long is done.
    pub fn is_deferred(&self) -> bool {
        !self.long.is_empty() || !self.unmade.is_empty()
    }
}
