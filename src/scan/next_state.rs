//! The site as it will be once the changes of a pass are published.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::known_deltas::KnownDeltas;
use super::sidecar::{Unproven, missing_dictionaries};
use super::{Pass, Scope, lock, site_path};
use crate::disk::{self, Root};
use crate::manifest::{Changes, Manifest};
use crate::representation::Resource;
use crate::semantics::coding::delta_stem;
use crate::semantics::dictionary::DictionaryHash;

/// The site as it will be once the changes are published.
pub(super) struct NextState<'a> {
    pub(super) root: &'a Root,
    pub(super) base: &'a Manifest,
    /// Whether all of the site is looked at and nothing is served yet, so that everything is news.
    pub(super) is_start: bool,
    pub(super) changed: HashMap<&'a [u8], &'a Arc<Resource>>,
    pub(super) removed: HashSet<&'a [u8]>,
    /// Sidecars that are not used, and why.
    rejected: Mutex<BTreeMap<Vec<u8>, Unproven>>,
    /// Deltas whose dictionaries are missing: a deploy that drops these drops all of them.
    without_dictionary: Mutex<BTreeMap<Vec<u8>, DictionaryHash>>,
    /// Number of deltas whose dictionaries a client has just deleted.
    without_deleted: AtomicUsize,
}

impl<'a> NextState<'a> {
    pub(super) fn new(pass: &'a Pass<'_>, changes: &'a Changes) -> Self {
        Self {
            root: pass.root,
            base: pass.base,
            is_start: pass.is_start && !matches!(pass.scope, Scope::Paths(_)),
            changed: changes
                .changed
                .iter()
                .map(|new| (&*new.path, new))
                .collect(),
            removed: changes.removed.iter().map(AsRef::as_ref).collect(),
            rejected: Mutex::default(),
            without_dictionary: Mutex::default(),
            without_deleted: AtomicUsize::new(0),
        }
    }

    pub(super) fn locate(&self, path: &[u8]) -> Option<&'a Arc<Resource>> {
        if let Some(changed) = self.changed.get(path) {
            return Some(changed);
        }
        if self.removed.contains(path) {
            return None;
        }
        self.base.locate(path)
    }

    /// Those of `known`, resources of the base, that are as they were, and all that have changed.
    pub(super) fn with_changed(
        &self,
        known: impl Iterator<Item = &'a Arc<Resource>>,
    ) -> impl Iterator<Item = &'a Arc<Resource>> {
        let is_left =
            |path: &[u8]| !self.changed.contains_key(path) && !self.removed.contains(path);
        known
            .filter(move |resource| is_left(&resource.path))
            .chain(self.changed.values().copied())
    }

    /// Notes that a sidecar is not used.
    pub(super) fn reject(&self, path: Vec<u8>, reason: Unproven) {
        match reason {
            Unproven::NoDictionary(hash) => drop(lock(&self.without_dictionary).insert(path, hash)),
            reason => drop(lock(&self.rejected).insert(path, reason)),
        }
    }

    /// Notes that a delta is not used any more because a client has deleted its dictionary.
    pub(super) fn note_deleted_dictionary(&self) {
        self.without_deleted.fetch_add(1, Ordering::Relaxed);
    }

    /// Says which sidecars are not used. Not at once: what is deferred is looked at again. Each look
    /// tries again to prove what can't be read, so of deltas, whose dictionaries nothing else names,
    /// this is said once for each reason.
    pub(super) fn report_rejected(&self, known: &KnownDeltas) {
        for (path, reason) in lock(&self.rejected).iter() {
            let is_silent = match reason {
                Unproven::Unreadable(error) => {
                    // Who looks again says what can't be read now.
                    disk::is_passing(error)
                        || delta_stem(path).is_some() && !known.note_unreadable(path, error)
                }
                _ => false,
            };
            if !is_silent {
                let path = site_path::join(self.root.path(), path);
                let path = path.display();
                tracing::warn!(%path, error = %reason, "{path} is not used: {reason}");
            }
        }
        self.report_missing_dictionaries();
        self.report_deleted_dictionaries();
    }

    fn report_deleted_dictionaries(&self) {
        let deltas = self.without_deleted.load(Ordering::Relaxed);
        let them = match deltas {
            0 => return,
            1 => "1 delta is not used any more: its".to_owned(),
            _ => format!("{deltas} deltas are not used any more: their"),
        };
        tracing::info!(deltas, "{them} dictionary was deleted");
    }

    /// Says once what all deltas without their dictionaries have in common.
    fn report_missing_dictionaries(&self) {
        let deltas = lock(&self.without_dictionary);
        let Some((first, _)) = deltas.first_key_value() else {
            return;
        };
        let dictionaries = deltas.values().collect::<BTreeSet<_>>().len();
        let path = site_path::join(self.root.path(), first);
        let path = path.display();
        let sentence = missing_dictionaries(deltas.len(), dictionaries);
        let deltas = deltas.len();
        tracing::warn!(%path, deltas, dictionaries, "{sentence} (the first: {path})");
    }

    /// The sidecars that could not be read for their proof. That may succeed later; until then the
    /// digest is incomplete (P7).
    pub(super) fn into_unreadable(self) -> BTreeMap<Box<[u8]>, io::Error> {
        let rejected = self.rejected.into_inner();
        let rejected = rejected.unwrap_or_else(PoisonError::into_inner).into_iter();
        let unreadable = rejected.filter_map(|(path, reason)| match reason {
            Unproven::Unreadable(error) => Some((path.into(), error)),
            _ => None,
        });
        unreadable.collect()
    }
}
