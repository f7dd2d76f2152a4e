//! Files that clients were told never to ask about again, and that have other content now.

use std::sync::Arc;

use crate::manifest::{Changes, Manifest};
use crate::metrics::Metrics;
use crate::representation::Resource;
use crate::semantics::target::encode_path;

/// So many paths are named; a wrong pattern breaks its promise in all of them at once.
const SHOWN: usize = 5;

/// Paths of files that are immutable in `current`, or were and are still answered, and that
/// `changes` give other content. Each is a fingerprint that lies.
pub(super) fn broken(current: &Manifest, changes: &Changes) -> Vec<String> {
    let is_broken = |new: &&Arc<Resource>| {
        let old = current.locate(&new.path);
        let old = old.or_else(|| current.locate_retired(&new.path));
        let is_other = |old: &Resource| old.identity.etag.hash() != new.identity.etag.hash();
        old.is_some_and(|old| old.is_immutable() && is_other(old))
    };
    let broken = changes.changed.iter().filter(is_broken);
    broken
        .map(|new| format!("/{}", encode_path(&new.path)))
        .collect()
}

/// Tells the operator.
pub(super) fn warn(broken: &[String], metrics: &Metrics) {
    metrics.broken_immutables.add(broken.len() as u64);
    for path in broken.iter().take(SHOWN) {
        tracing::warn!(
            "{path} was served as immutable and has other content now: who has it keeps the old \
             one for up to a year; give the new one a name of its own"
        );
    }
    if let Some(more) = broken.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        tracing::warn!("{more} more immutable files have other content now");
    }
}
