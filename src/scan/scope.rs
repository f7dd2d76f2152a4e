//! The input of a reconciliation.

use std::collections::BTreeSet;

use crate::manifest::ancestors;
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
    /// Keep the published state of its path, and list it in [`super::ScanOutcome::busy`].
    Report,
    /// As [`Unsettled::Report`], and files that take long to hash are not hashed: they are listed in
    /// [`super::ScanOutcome::long`], and the outcome is of no use until [`super::Scanner::prepare`] has
    /// hashed them. The same holds for what takes long to compress, [`super::ScanOutcome::unmade`] and
    /// [`super::Scanner::make_codings`].
    Defer,
    /// Publish what was read, marked as unsettled, so that no client stores it.
    Publish,
}
