//! A look at the disk: what has become of some paths, or of the whole site.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use crate::disk::Root;
use crate::manifest::Manifest;
use crate::scan::{Progress, ScanOutcome, Scanner, Scope, Unsettled};

/// Compares `scope` with `base`, and reads those busy files all the same that `is_given_up`: they
/// are published as they are read, under a tag of their own.
pub(super) fn scan(
    scanner: &Scanner,
    root: &Arc<Root>,
    base: &Manifest,
    scope: &Scope,
    unsettled: Unsettled,
    progress: &Progress,
    is_given_up: impl Fn(&[u8]) -> bool,
) -> ScanOutcome {
    let mut outcome = scanner.reconcile(root, base, scope, unsettled, progress);
    if outcome.is_deferred() {
        return outcome;
    }
    let given_up = outcome.busy.extract_if(.., |path| is_given_up(path));
    let given_up: BTreeSet<_> = given_up.collect();
    if given_up.is_empty() {
        return outcome;
    }
    // Held against what the first look has found: a sidecar is proven by the file that it encodes,
    // which may have changed in this batch too.
    let seen = base.with(outcome.changes.clone());
    let scope = Scope::Paths(given_up);
    let forced = scanner.reconcile(root, &seen, &scope, Unsettled::Publish, progress);
    let (forced, not_now) = (forced.changes, forced.not_now);
    let again: HashSet<_> = forced.changed.iter().map(|new| &new.path).collect();
    let changes = &mut outcome.changes;
    changes.changed.retain(|new| !again.contains(&new.path));
    changes.removed.extend(forced.removed);
    changes.changed.extend(forced.changed);
    changes.removed_folders.extend(forced.removed_folders);
    changes.new_folders.extend(forced.new_folders);
    changes.unreadable = forced.unreadable;
    changes.without_codings = forced.without_codings;
    outcome.not_now.extend(not_now);
    changes.rules = forced.rules.or(changes.rules.take());
    outcome
}
