//! What a walk has found, path by path, before anything is derived from it.

use super::scope::Scope;
use crate::exclude::Exclusions;
use crate::manifest::{Changes, Manifest};
use crate::rules::{Dialect, RuleFile, Rules};

/// How the disk differs from the base of a pass. What follows from several paths is not in it: the
/// codings of a file, how it decodes, whether it is a dictionary. So a path can be left out of it, and
/// nothing that follows from it stays behind elsewhere.
#[derive(Clone, Debug, Default)]
pub(super) struct FoundChanges {
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
        let has_patterns = self.patterns().is_some();
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
        if has_patterns && dropped.covers(RuleFile::Ignore.name().as_bytes()) {
            // What was left out by patterns that nobody has any more need not be gone, and what only
            // they have let in is not part of the site. The next look is at all of it.
            let known = base.exclusions();
            changed.retain(|new| !known.cover(&new.path, false));
            new_folders.retain(|path| !known.cover(path, true));
            removed.retain(|path| !patterns.cover(path, false));
            removed_folders.retain(|path| !patterns.cover(path, true));
            unreadable.retain(|path, _| !known.cover(path, false));
        }
        self.rules
            .retain(|(file, _)| !dropped.covers(file.name().as_bytes()));
        // What they lacked they still lack: the next look would not try again what this one has found.
        for (path, reason) in base.unreadable().iter().filter(|it| dropped.covers(it.0)) {
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
