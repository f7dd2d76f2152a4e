//! The input of a reconciliation, and its result.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use super::tree_size::TreeSize;
use super::unmade::Unmade;
use super::walk::Link;
use crate::manifest::{Changes, Manifest, ancestors};
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
}

impl ScanOutcome {
    /// Whether it is of no use until what takes long is done.
    pub fn is_deferred(&self) -> bool {
        !self.long.is_empty() || !self.unmade.is_empty()
    }

    /// Drops the changes to `base` at these paths and below them.
    pub fn exclude(&mut self, paths: &BTreeSet<Box<[u8]>>, base: &Manifest) {
        let is_in = |path: &[u8]| {
            paths.contains(path) || ancestors(path).any(|above| paths.contains(above))
        };
        self.changes.changed.retain(|new| !is_in(&new.path));
        self.changes.removed.retain(|path| !is_in(path));
        self.changes.new_folders.retain(|path| !is_in(path));
        self.changes.removed_folders.retain(|path| !is_in(path));
        // The rules are one value: if one file is excluded, the next pass reads both.
        if RuleFile::ALL
            .iter()
            .any(|file| is_in(file.name().as_bytes()))
        {
            self.changes.rules = None;
        }
        self.busy.retain(|path| !is_in(path));
        // What they lacked they still lack: the next look would not try again what this one has found.
        let unreadable = base.unreadable().iter().filter(|(path, _)| is_in(path));
        for (path, reason) in unreadable {
            let known = self.changes.unreadable.entry(path.clone());
            known.or_insert_with(|| reason.clone());
        }
        let without_codings = base.without_codings().iter().filter(|path| is_in(path));
        self.changes
            .without_codings
            .extend(without_codings.cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::Scanner;
    use crate::settings::{Settings, Symlinks};

    fn paths<const N: usize>(paths: [&str; N]) -> BTreeSet<Box<[u8]>> {
        paths.map(|path| path.as_bytes().into()).into()
    }

    fn reasons<const N: usize>(of: [&str; N]) -> BTreeMap<Box<[u8]>, String> {
        let reason = |path| (path, "it is not".to_owned());
        paths(of).into_iter().map(reason).collect()
    }

    #[test]
    fn what_a_path_lacked_it_still_lacks_if_its_change_is_dropped() {
        let scanner = Scanner::new(Symlinks::default(), Settings::default(), None);
        let base = scanner.empty().with(Changes {
            unreadable: reasons(["a/x.gz", "b.gz"]),
            without_codings: paths(["a/x", "b"]),
            ..Changes::default()
        });
        // All of it can be read now, and has its codings, and something else has not.
        let mut outcome = ScanOutcome {
            changes: Changes {
                without_codings: paths(["c"]),
                ..Changes::default()
            },
            ..ScanOutcome::default()
        };
        outcome.exclude(&paths(["a"]), &base);
        let Changes {
            unreadable,
            without_codings,
            ..
        } = outcome.changes;
        assert_eq!(unreadable, reasons(["a/x.gz"]));
        assert_eq!(without_codings, paths(["a/x", "c"]));
    }
}
