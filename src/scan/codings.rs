//! Which sidecars (`x.br` for `x`) are served as content codings.
//!
//! A sidecar is an ordinary file of the site, already read and hashed. It becomes a content coding
//! of its neighbour once it is proven to decode to the neighbour's bytes; a proof that the
//! manifest holds already is not made again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::Arc;

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::deltas::Deltas;
use super::next_state::NextState;
use super::proven::read_proven;
use super::sidecar::{Unproven, prove};
use super::{Pass, ScanOutcome, Scanner, Scope};
use crate::disk;
use crate::manifest::Changes;
use crate::representation::{Plain, Representation, Resource};
use crate::semantics::coding::{Coding, delta_stem};

pub(super) const CODINGS: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

pub(super) fn sidecar_path(path: &[u8], coding: Coding) -> Option<Vec<u8>> {
    Some([path, b".", coding.extension()?.as_bytes()].concat())
}

/// The file that a path would be a sidecar of, a delta included.
pub fn stem(path: &[u8]) -> Option<&[u8]> {
    let plain = CODINGS.iter().find_map(|coding| {
        let stem = path
            .strip_suffix(coding.extension()?.as_bytes())?
            .strip_suffix(b".")?;
        (!stem.is_empty() && !stem.ends_with(b"/")).then_some(stem)
    });
    plain.or_else(|| delta_stem(path))
}

/// Adds to the changes the resources whose set of proven codings differs from what it was.
pub(super) fn attach(scanner: &Scanner, pass: &Pass<'_>, outcome: &mut ScanOutcome) {
    let changes = &mut outcome.changes;
    let (recoded, unreadable) = recoded(scanner, pass, changes);
    for (path, error) in unreadable {
        changes.unreadable.insert(path.clone(), error.to_string());
        if disk::is_passing(&error) && !pass.has_given_up(&path, &error) {
            outcome.not_now.insert(path, error);
        }
    }
    if recoded.is_empty() {
        return;
    }
    let indices: HashMap<Box<[u8]>, usize> = changes
        .changed
        .iter()
        .enumerate()
        .map(|(index, resource)| (resource.path.clone(), index))
        .collect();
    for resource in recoded {
        match indices.get(&resource.path) {
            Some(&index) => changes.changed[index] = Arc::new(resource),
            None => changes.changed.push(Arc::new(resource)),
        }
    }
}

/// The resources whose proven codings differ from what they have, and the sidecars that could not
/// be read for their proof.
fn recoded(
    scanner: &Scanner,
    pass: &Pass<'_>,
    changes: &Changes,
) -> (Vec<Resource>, BTreeMap<Box<[u8]>, io::Error>) {
    let next = NextState::new(pass, changes);
    let deltas = Deltas::new(&next);
    let uses_deltas = scanner.settings.dictionaries().are_used();
    let mut candidates = candidates(pass, &next);
    if uses_deltas {
        candidates.extend(deltas.candidates(pass.scope));
    }
    let recoded = candidates
        .into_par_iter()
        .filter_map(|path| {
            let resource = next.locate(path)?;
            let mut encoded = proven_codings(&next, resource);
            if uses_deltas {
                encoded.extend(deltas.proven(resource));
            }
            let encoded = encoded.into_boxed_slice();
            let (_, before) = resource.of_files();
            (!are_same(&encoded, before)).then(|| with_codings(resource, encoded))
        })
        .collect();
    drop(deltas);
    let unreadable = next.into_unreadable();
    (recoded, unreadable)
}

/// The paths whose codings may have changed: those with a changed sidecar, those with a sidecar
/// that could not be read before, and what is changed itself.
fn candidates<'a>(pass: &'a Pass<'_>, next: &'a NextState<'_>) -> BTreeSet<&'a [u8]> {
    let touched = next.changed.keys().chain(&next.removed).copied();
    let retried = pass
        .base
        .unreadable()
        .keys()
        .map(AsRef::as_ref)
        .filter(|path| pass.scope.covers(path));
    let mut candidates: BTreeSet<&[u8]> = touched.chain(retried).filter_map(stem).collect();
    // In the first scan every sidecar is itself a change, so its file is in the set already. Later
    // a file may change while its sidecar does not.
    let is_first = pass.base.is_empty() && !matches!(pass.scope, Scope::Paths(_));
    if !is_first {
        candidates.extend(next.changed.keys());
    }
    candidates
}

/// Whether two lists of codings have the same bytes in the same locations.
fn are_same(one: &[Representation], other: &[Representation]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|(new, old)| {
            new.coding == old.coding
                && new.etag.hash() == old.etag.hash()
                && new.data.has_same_location(&old.data)
        })
}

fn with_codings(resource: &Resource, encoded: Box<[Representation]>) -> Resource {
    match resource.plain.clone() {
        None => Resource {
            encoded,
            ..Resource::clone(resource)
        },
        // They decode to the file, not to the file and its tail that are sent: they are part of
        // the digest, but never a response.
        Some(plain) => Resource {
            plain: Some(Box::new(Plain { encoded, ..*plain })),
            ..Resource::clone(resource)
        },
    }
}

/// The proven codings of a resource, shortest first.
fn proven_codings(next: &NextState<'_>, resource: &Resource) -> Vec<Representation> {
    let (identity, _) = resource.of_files();
    // What is compressed under its own name is not compressed again.
    if resource.fields.decoding().is_some() {
        return Vec::new();
    }
    // Proofs of the published state hold as long as both files have the bytes they had.
    let proven_before = next
        .base
        .locate(&resource.path)
        .map(|before| before.of_files())
        .filter(|(before, _)| before.etag.hash() == identity.etag.hash())
        .map_or([].as_slice(), |(_, encoded)| encoded);
    let mut encoded: Vec<_> = CODINGS
        .iter()
        .filter_map(|&coding| {
            let path = sidecar_path(&resource.path, coding)?;
            let sidecar = &next.locate(&path)?.identity;
            let is_proven = proven_before
                .iter()
                .any(|old| old.coding == coding && old.etag.hash() == sidecar.etag.hash());
            if !is_proven && let Err(reason) = check(coding, sidecar, identity) {
                next.reject(path, reason);
                return None;
            }
            Some(sidecar.as_coding(coding))
        })
        .collect();
    encoded.sort_by_key(|representation| representation.length);
    encoded
}

/// Proves a sidecar from the very bytes that were hashed: a file is hashed again while it is
/// decoded, since it may have changed after the scan read it.
fn check(
    coding: Coding,
    sidecar: &Representation,
    identity: &Representation,
) -> Result<(), Unproven> {
    let (hash, length) = (identity.etag.hash(), identity.length);
    read_proven(sidecar, |encoded| prove(coding, encoded, hash, length))
}
