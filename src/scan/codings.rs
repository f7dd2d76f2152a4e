//! Which content codings a file has: its sidecars (`x.br` for `x`), and what is made of it.
//!
//! A sidecar is an ordinary file of the site, already read and hashed. It becomes a content coding
//! of its neighbour once it is proven to decode to the neighbour's bytes; a proof that the
//! manifest holds already is not made again. Only codings without a sidecar are made.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex};

use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};

use super::deltas::Deltas;
use super::made;
use super::made_ahead::unmade;
use super::maker::{MakeError, Maker};
use super::next_state::NextState;
use super::proven::read_proven;
use super::sidecar::{Unproven, prove};
use super::unmade::Unmade;
use super::unpublished::UnpublishedCodings;
use super::{Pass, ScanOutcome, Scanner, Scope, Unsettled, lock};
use crate::disk;
use crate::manifest::Changes;
use crate::representation::{EncodedForms, Plain, Representation, Resource};
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

/// Adds to the changes the resources whose set of codings differs from what it was.
pub(super) fn attach(scanner: &Scanner, pass: &Pass<'_>, outcome: &mut ScanOutcome) {
    let changes = &mut outcome.changes;
    let Recoded {
        resources: recoded,
        unreadable,
        without_codings,
        unmade,
    } = recoded(scanner, pass, changes);
    outcome.unmade = unmade;
    changes.without_codings = without_codings;
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

/// What has become of the codings of a pass.
#[derive(Default)]
struct Recoded {
    /// The resources whose codings differ from what they have.
    resources: Vec<Resource>,
    /// The files that could not be read for them.
    unreadable: BTreeMap<Box<[u8]>, io::Error>,
    /// As [`Changes::without_codings`].
    without_codings: BTreeSet<Box<[u8]>>,
    /// As [`ScanOutcome::unmade`]; nothing else is of use then.
    unmade: Vec<Unmade>,
}

fn recoded(scanner: &Scanner, pass: &Pass<'_>, changes: &Changes) -> Recoded {
    let next = NextState::new(pass, changes);
    let deltas = Deltas::new(&next, pass.scope, &scanner.known_deltas);
    let uses_deltas = scanner.settings.dictionaries().are_used();
    let maker = scanner.maker.as_ref();
    let mut paths = candidates(pass, &next, maker.is_some());
    if uses_deltas {
        paths.extend(deltas.candidates());
    }
    let located = paths.into_iter().filter_map(|path| next.locate(path));
    let candidates: Vec<_> = located.collect();
    let failures: Mutex<Vec<(Box<[u8]>, MakeError)>> = Mutex::default();
    let recode = |resource: &Arc<Resource>, mut encoded: Vec<Representation>| {
        if let Some(maker) = maker {
            let (made, failure) = made::codings(scanner, maker, pass, resource, &encoded);
            encoded.extend(made);
            if let Some(error) = failure {
                lock(&failures).push((resource.path.clone(), error));
            }
            pass.progress.step();
        }
        // The order of equal lengths must not depend on which of them were made.
        encoded.sort_by_key(|each| (each.length, each.coding()));
        if uses_deltas {
            encoded.extend(deltas.proven(resource));
        }
        let (_, before) = resource.of_files();
        (!are_same(&encoded, before)).then(|| with_codings(resource, encoded.into()))
    };
    let shipped = |resource: &Arc<Resource>| shipped_codings(&next, maker, resource);
    let work = || match maker {
        Some(maker) if pass.unsettled == Unsettled::Defer => {
            // What lies next to a file is proven first: only then it is known what else is to be made,
            // and whether that takes long.
            let shipped: Vec<_> = candidates.par_iter().map(|each| shipped(each)).collect();
            let with_shipped = candidates.iter().zip(&shipped);
            let with_shipped = with_shipped.map(|(each, shipped)| (*each, &**shipped));
            let unmade = unmade(scanner, maker, pass, with_shipped);
            if !unmade.is_empty() {
                return Err(unmade);
            }
            let pairs = candidates.par_iter().zip(shipped);
            Ok(pairs
                .filter_map(|(each, shipped)| recode(each, shipped))
                .collect())
        }
        _ => {
            let recode = |each: &&Arc<Resource>| recode(each, shipped(each));
            Ok(candidates.par_iter().filter_map(recode).collect())
        }
    };
    let result = match maker {
        Some(maker) => made::run(maker, pass, &candidates, work),
        None => work(),
    };
    let resources = match result {
        Ok(resources) => resources,
        Err(unmade) => {
            return Recoded {
                unmade,
                ..Recoded::default()
            };
        }
    };
    drop(deltas);
    scanner.known_deltas.end_pass();
    let failures = std::mem::take(&mut *lock(&failures));
    if pass.dropped.is_none() {
        next.report_rejected(&scanner.known_deltas);
        made::report(pass, &failures);
    }
    let mut without_codings = still_without_codings(&next, &candidates);
    let mut unreadable = next.into_unreadable();
    for (path, error) in failures {
        match error {
            MakeError::Unreadable(error) => drop(unreadable.insert(path, error)),
            MakeError::NoRoom(_) | MakeError::Encoder(_) => drop(without_codings.insert(path)),
        }
    }
    Recoded {
        resources,
        unreadable,
        without_codings,
        unmade: Vec::new(),
    }
}

/// The paths that lack codings as before: they are not among those that were looked at.
fn still_without_codings(
    next: &NextState<'_>,
    looked_at: &[&Arc<Resource>],
) -> BTreeSet<Box<[u8]>> {
    let looked_at: HashSet<&[u8]> = looked_at.iter().map(|resource| &*resource.path).collect();
    let is_as_before = |path: &[u8]| !looked_at.contains(path) && next.locate(path).is_some();
    let lacking = next.base.without_codings().iter();
    lacking.filter(|path| is_as_before(path)).cloned().collect()
}

/// The paths whose codings may have changed: those with a changed sidecar, those with a sidecar
/// that could not be read before, and what is changed itself. At a start everything, where codings
/// are made: what an earlier process has saved has none of them.
fn candidates<'a>(
    pass: &'a Pass<'_>,
    next: &'a NextState<'_>,
    are_made: bool,
) -> BTreeSet<&'a [u8]> {
    let touched = next.changed.keys().chain(&next.removed).copied();
    let unreadable = pass.base.unreadable().keys();
    let retried: Vec<&[u8]> = unreadable
        .chain(pass.base.without_codings())
        .map(AsRef::as_ref)
        .filter(|path| pass.covers(path))
        .collect();
    let mut candidates: BTreeSet<&[u8]> = touched
        .chain(retried.iter().copied())
        .filter_map(stem)
        .collect();
    let is_whole = !matches!(pass.scope, Scope::Paths(_));
    // In the first scan every sidecar is itself a change, so its file is in the set already. Later
    // a file may change while its sidecar does not.
    if are_made || !(pass.base.is_empty() && is_whole) {
        candidates.extend(next.changed.keys());
    }
    if are_made {
        candidates.extend(retried);
        // What a response could not prove is named here, and its file may be as it was.
        if let Scope::Paths(paths) | Scope::EverythingWith(paths) = pass.scope {
            let kept = paths.iter().filter(|path| pass.covers(path));
            candidates.extend(kept.map(|path| &**path));
        }
    }
    if are_made && is_whole {
        let is_concerned =
            |it: &&Arc<Resource>| pass.is_start || made::are_made_elsewhere(it, pass.root);
        let concerned = pass.base.iter().filter(is_concerned);
        candidates.extend(concerned.map(|resource| &*resource.path));
    }
    candidates
}

/// Whether two lists of codings have the same bytes in the same locations.
fn are_same(one: &[Representation], other: &[Representation]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|(new, old)| {
            new.coding() == old.coding()
                && new.etag.hash() == old.etag.hash()
                && new.data.has_same_location(&old.data)
        })
}

fn with_codings(resource: &Resource, encoded: EncodedForms) -> Resource {
    match resource.plain().cloned() {
        None => Resource {
            encoded,
            ..Resource::clone(resource)
        },
        // They decode to the file, not to the file and its tail that are sent: they are part of
        // the digest, but never a response.
        Some(plain) => {
            let plain = Box::new(Plain { encoded, ..plain });
            Resource::clone(resource).with_plain(Some(plain))
        }
    }
}

/// The codings of a resource that lie next to it, proven.
fn shipped_codings(
    next: &NextState<'_>,
    maker: Option<&Maker>,
    resource: &Resource,
) -> Vec<Representation> {
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
    // What a start finds is published.
    let known = maker
        .filter(|_| !next.is_start)
        .map(|maker| &maker.unpublished);
    CODINGS
        .iter()
        .filter_map(|&coding| {
            let path = sidecar_path(&resource.path, coding)?;
            let sidecar = &next.locate(&path)?.identity;
            let is_proven = proven_before
                .iter()
                .any(|old| old.coding() == coding && old.etag.hash() == sidecar.etag.hash());
            if !is_proven && let Err(reason) = prove_once(known, coding, sidecar, identity) {
                next.reject(path, reason);
                return None;
            }
            Some(sidecar.as_coding(coding))
        })
        .collect()
}

/// Proves a sidecar, unless an earlier look at the same batch has: one that compresses much is put off
/// once its sidecars are proven.
fn prove_once(
    known: Option<&UnpublishedCodings>,
    coding: Coding,
    sidecar: &Representation,
    identity: &Representation,
) -> Result<(), Unproven> {
    let Some(known) = known else {
        return check(coding, sidecar, identity);
    };
    let (content, hash) = (identity.etag.hash(), *sidecar.etag.hash());
    if !known.is_proven(content, coding, hash) {
        check(coding, sidecar, identity)?;
        known.note_proven(*content, coding, hash);
    }
    Ok(())
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
