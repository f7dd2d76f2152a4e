//! Which sidecars (`x.br` for `x`) are served as content codings.
//!
//! A sidecar is an ordinary file of the site, already read and hashed. It becomes a content coding
//! of its neighbour once it is proven to decode to the neighbour's bytes; a proof that the
//! manifest holds already is not made again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::sidecar::{Unproven, prove};
use super::{Pass, ScanOutcome, Scope, lock, site_path};
use crate::disk::{self, Root};
use crate::manifest::{Changes, Manifest};
use crate::representation::{Data, Plain, Representation, Resource};
use crate::semantics::coding::Coding;

pub(super) const CODINGS: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

/// The site as it will be once the changes are published.
struct NextState<'a> {
    root: &'a Root,
    base: &'a Manifest,
    changed: HashMap<&'a [u8], &'a Arc<Resource>>,
    removed: HashSet<&'a [u8]>,
    /// Sidecars that could not be read for their proof.
    unreadable: Mutex<BTreeMap<Box<[u8]>, io::Error>>,
}

impl<'a> NextState<'a> {
    fn locate(&self, path: &[u8]) -> Option<&'a Arc<Resource>> {
        if let Some(changed) = self.changed.get(path) {
            return Some(changed);
        }
        if self.removed.contains(path) {
            return None;
        }
        self.base.locate(path)
    }

    fn sidecar(&self, path: &[u8], coding: Coding) -> Option<&'a Arc<Resource>> {
        self.locate(&sidecar_path(path, coding)?)
    }
}

pub(super) fn sidecar_path(path: &[u8], coding: Coding) -> Option<Vec<u8>> {
    Some([path, b".", coding.extension()?.as_bytes()].concat())
}

/// The file that a path would be a sidecar of.
pub fn stem(path: &[u8]) -> Option<&[u8]> {
    CODINGS.iter().find_map(|coding| {
        let stem = path
            .strip_suffix(coding.extension()?.as_bytes())?
            .strip_suffix(b".")?;
        (!stem.is_empty() && !stem.ends_with(b"/")).then_some(stem)
    })
}

/// Adds to the changes the resources whose set of proven codings differs from what it was.
pub(super) fn attach(pass: &Pass<'_>, outcome: &mut ScanOutcome) {
    let changes = &mut outcome.changes;
    let (recoded, unreadable) = recoded(pass, changes);
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
fn recoded(pass: &Pass<'_>, changes: &Changes) -> (Vec<Resource>, BTreeMap<Box<[u8]>, io::Error>) {
    let next = NextState {
        root: pass.root,
        base: pass.base,
        changed: changes
            .changed
            .iter()
            .map(|new| (&*new.path, new))
            .collect(),
        removed: changes.removed.iter().map(AsRef::as_ref).collect(),
        unreadable: Mutex::default(),
    };
    let recoded = candidates(pass, &next)
        .into_par_iter()
        .filter_map(|path| {
            let resource = next.locate(path)?;
            let encoded = proven_codings(&next, resource);
            let (_, before) = resource.of_files();
            (!are_same(&encoded, before)).then(|| with_codings(resource, encoded))
        })
        .collect();
    let unreadable = std::mem::take(&mut *lock(&next.unreadable));
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
            new.etag.hash() == old.etag.hash() && new.data.has_same_location(&old.data)
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
fn proven_codings(next: &NextState<'_>, resource: &Resource) -> Box<[Representation]> {
    let (identity, _) = resource.of_files();
    // What is compressed under its own name is not compressed again.
    if resource.fields.decoding().is_some() {
        return Box::default();
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
            let sidecar = &next.sidecar(&resource.path, coding)?.identity;
            let is_proven = proven_before
                .iter()
                .any(|old| old.coding == coding && old.etag.hash() == sidecar.etag.hash());
            if !is_proven && let Err(reason) = check(coding, sidecar, identity) {
                reject(next, sidecar_path(&resource.path, coding)?, reason);
                return None;
            }
            Some(sidecar.as_coding(coding))
        })
        .collect();
    encoded.sort_by_key(|representation| representation.length);
    encoded.into()
}

fn reject(next: &NextState<'_>, path: Vec<u8>, reason: Unproven) {
    // Who looks again says what can't be read now.
    let is_passing = matches!(&reason, Unproven::Unreadable(error) if disk::is_passing(error));
    if !is_passing {
        let shown = site_path::join(next.root.path(), &path);
        let shown = shown.display();
        tracing::warn!(path = %shown, error = %reason, "{shown} is not used: {reason}");
    }
    if let Unproven::Unreadable(error) = reason {
        // Reading may succeed later; until then the digest is incomplete (P7).
        lock(&next.unreadable).insert(path.into(), error);
    }
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

/// Has `look` read the very bytes that were hashed, all of them.
pub(super) fn read_proven<T>(
    content: &Representation,
    look: impl FnOnce(&mut dyn Read) -> Result<T, Unproven>,
) -> Result<T, Unproven> {
    match &content.data {
        Data::Memory(bytes) => look(&mut &bytes[..]),
        Data::File(source) => {
            let opened = source
                .root
                .open_file(&source.path)
                .map_err(Unproven::Unreadable)?;
            let mut reader = HashingReader {
                file: opened.file,
                hasher: blake3::Hasher::new(),
            };
            let seen = look(&mut reader)?;
            if reader.hasher.finalize() == *content.etag.hash() {
                Ok(seen)
            } else {
                Err(Unproven::Unreadable(io::Error::other("it is changing")))
            }
        }
    }
}

/// A file, hashed as it is read.
struct HashingReader {
    file: File,
    hasher: blake3::Hasher,
}

impl Read for HashingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = disk::read(&self.file, buffer)?;
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}
