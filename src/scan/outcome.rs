//! The result of a reconciliation, and what it follows from.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use super::scope::Scope;
use super::tree_size::TreeSize;
use super::unmade::Unmade;
use super::walk::Link;
use crate::exclude::Exclusions;
use crate::manifest::{Changes, Manifest};
use crate::rules::{Dialect, RuleFile, Rules};

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
    pub(crate) found: FoundChanges,
}

impl ScanOutcome {
    /// Whether it is of no use until what takes long is done.
    pub fn is_deferred(&self) -> bool {
        !self.long.is_empty() || !self.unmade.is_empty()
    }
}

/// How the disk differs from the base of a pass. What follows from several paths is not in it: the
/// codings of a file, how it decodes, whether it is a dictionary. So a path can be left out of it, and
/// nothing that follows from it stays behind elsewhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct FoundChanges {
    /// The changes, without those of the rules.
    pub(super) changes: Changes,
    /// What the rule files have that were looked at; `None` of one that is not there.
    pub(super) rules: Vec<(RuleFile, Option<Vec<u8>>)>,
}

impl FoundChanges {
    /// The rules of the site after the pass; `None` if they are those that were `known`.
    pub(super) fn rules(&self, known: &Rules, dialect: Dialect) -> Option<Rules> {
        self.rules.iter().fold(None, |changed, (file, text)| {
            let rules = changed.as_ref().unwrap_or(known);
            rules.with(*file, text.as_deref(), dialect).or(changed)
        })
    }

    /// The text of `.etagdignore`, if it was looked at; `None` in it if it is not there.
    pub(super) fn patterns(&self) -> Option<Option<&[u8]>> {
        let mut rules = self.rules.iter();
        let (_, text) = rules.find(|(file, _)| *file == RuleFile::Ignore)?;
        Some(text.as_deref())
    }

    /// Leaves out what was found in `dropped`: it stays as `base` has it. `patterns` are those that the
    /// walk went by. Returns whether that changes anything.
    pub(super) fn exclude(
        &mut self,
        dropped: &Scope,
        base: &Manifest,
        patterns: &Exclusions,
    ) -> bool {
        let before = self.count();
        let drops_patterns =
            self.patterns().is_some() && dropped.covers(RuleFile::Ignore.name().as_bytes());
        let cover = |patterns: &Exclusions, path: &[u8]| {
            patterns.cover(path, false) || patterns.cover(path, true)
        };
        let Changes {
            changed,
            removed,
            new_folders,
            removed_folders,
            unreadable,
            ..
        } = &mut self.changes;
        changed.retain(|new| !dropped.covers(&new.path));
        for paths in [&mut *removed, &mut *new_folders, &mut *removed_folders] {
            paths.retain(|path| !dropped.covers(path));
        }
        if drops_patterns {
            // What was left out by patterns that nobody has any more need not be gone, and what only
            // they have let in is not part of the site. The next look is at all of it.
            let known = base.exclusions();
            changed.retain(|new| !known.cover(&new.path, false));
            new_folders.retain(|path| !known.cover(path, true));
            removed.retain(|path| !patterns.cover(path, false));
            removed_folders.retain(|path| !patterns.cover(path, true));
            unreadable.retain(|path, _| !cover(&known, path));
        }
        self.rules
            .retain(|(file, _)| !dropped.covers(file.name().as_bytes()));
        // What they lacked they still lack: the next look would not try again what this one has found. And
        // what patterns have hidden that nobody has any more was not looked at.
        let is_as_before =
            |path: &[u8]| dropped.covers(path) || drops_patterns && cover(patterns, path);
        for (path, reason) in base.unreadable().iter().filter(|it| is_as_before(it.0)) {
            let known = unreadable.entry(path.clone());
            known.or_insert_with(|| reason.clone());
        }
        let lacked = base.unreadable().keys().chain(base.without_codings());
        self.count() < before || lacked.into_iter().any(|path| dropped.covers(path))
    }

    /// How many paths are not as they were, as far as that is known.
    fn count(&self) -> usize {
        let changes = &self.changes;
        changes.changed.len()
            + changes.removed.len()
            + changes.new_folders.len()
            + changes.removed_folders.len()
            + self.rules.len()
    }
}
