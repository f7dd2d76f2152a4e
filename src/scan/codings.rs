//! Which sidecars are representations of the file beside them.
//!
//! A sidecar is an ordinary file of the site, already read and hashed. It becomes a content coding
//! of its neighbour once it is proven to decode to the neighbour's bytes; a proof that the
//! manifest holds already is not made again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::sidecar::{Unproven, prove};
use super::{Pass, Scope, lock, walk};
use crate::disk::Root;
use crate::manifest::{Changes, Manifest};
use crate::representation::{Data, Plain, Representation, Resource};
use crate::semantics::coding::Coding;

pub(super) const CODINGS: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

/// The site as it will be when changes are made.
struct After<'a> {
    root: &'a Root,
    base: &'a Manifest,
    changed: HashMap<&'a [u8], &'a Arc<Resource>>,
    removed: HashSet<&'a [u8]>,
    /// Sidecars that could not be read for their proof.
    unreadable: Mutex<BTreeMap<Box<[u8]>, String>>,
}

impl<'a> After<'a> {
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

/// Gives every resource that `changes` concern the codings that are proven.
pub(super) fn attach(pass: &Pass<'_>, changes: &mut Changes) {
    let (negotiable, unreadable) = negotiable(pass.root, pass.base, pass.scope, changes);
    changes.unreadable.extend(unreadable);
    if negotiable.is_empty() {
        return;
    }
    let paths = changes.changed.iter().enumerate();
    let places: HashMap<Box<[u8]>, usize> = paths
        .map(|(index, resource)| (resource.path.clone(), index))
        .collect();
    for resource in negotiable {
        match places.get(&resource.path) {
            Some(&index) => changes.changed[index] = Arc::new(resource),
            None => changes.changed.push(Arc::new(resource)),
        }
    }
}

/// The resources whose codings are others than they have.
fn negotiable(
    root: &Root,
    base: &Manifest,
    scope: &Scope,
    changes: &Changes,
) -> (Vec<Resource>, BTreeMap<Box<[u8]>, String>) {
    let after = After {
        root,
        base,
        changed: changes
            .changed
            .iter()
            .map(|new| (&*new.path, new))
            .collect(),
        removed: changes.removed.iter().map(AsRef::as_ref).collect(),
        unreadable: Mutex::default(),
    };
    let touched = after.changed.keys().chain(&after.removed).copied();
    let mut concerned: BTreeSet<&[u8]> = touched.filter_map(stem).collect();
    let before = base.unreadable().keys().map(AsRef::as_ref);
    concerned.extend(before.filter(|path| scope.covers(path)).filter_map(stem));
    // At first the sidecars are all new themselves; later they may be as they were.
    let is_first = base.is_empty() && matches!(scope, Scope::Everything);
    if !is_first {
        concerned.extend(after.changed.keys());
    }
    let negotiable = concerned
        .into_par_iter()
        .filter_map(|path| {
            let resource = after.locate(path)?;
            let encoded = encoded(&after, resource);
            let (_, known) = resource.of_files();
            let is_same = |(new, old): (&Representation, &Representation)| {
                new.etag.hash() == old.etag.hash() && new.data.has_same_location(&old.data)
            };
            let is_news = encoded.len() != known.len() || !encoded.iter().zip(known).all(is_same);
            is_news.then(|| match resource.plain.clone() {
                None => Resource {
                    encoded,
                    ..Resource::clone(resource)
                },
                // They decode to the file, not to what is sent: they count, and are not sent.
                Some(plain) => Resource {
                    plain: Some(Box::new(Plain { encoded, ..*plain })),
                    ..Resource::clone(resource)
                },
            })
        })
        .collect();
    let unreadable = std::mem::take(&mut *lock(&after.unreadable));
    (negotiable, unreadable)
}

/// The proven codings of a resource, shortest first.
fn encoded(after: &After<'_>, resource: &Resource) -> Box<[Representation]> {
    let known = after.base.locate(&resource.path);
    let (identity, _) = resource.of_files();
    let known = known.map(|known| known.of_files());
    let known = known.filter(|(known, _)| known.etag.hash() == identity.etag.hash());
    let mut encoded: Vec<_> = CODINGS
        .iter()
        .filter_map(|&coding| {
            let sidecar = &after.sidecar(&resource.path, coding)?.identity;
            let is_known = known.is_some_and(|(_, known)| {
                let same = |old: &Representation| {
                    old.coding == coding && old.etag.hash() == sidecar.etag.hash()
                };
                known.iter().any(same)
            });
            if !is_known && let Err(reason) = check(coding, sidecar, identity) {
                let path = sidecar_path(&resource.path, coding)?;
                let shown = walk::join(after.root.path(), &path);
                tracing::warn!("{} is not used: {reason}", shown.display());
                if let Unproven::Unreadable(error) = reason {
                    // That may pass: until it does, the site is not complete.
                    lock(&after.unreadable).insert(path.into(), error.to_string());
                }
                return None;
            }
            Some(sidecar.as_coding(coding))
        })
        .collect();
    encoded.sort_by_key(|representation| representation.length);
    encoded.into()
}

/// Proves a sidecar from the very bytes that were hashed.
fn check(
    coding: Coding,
    sidecar: &Representation,
    identity: &Representation,
) -> Result<(), Unproven> {
    let (hash, length) = (identity.etag.hash(), identity.length);
    match &sidecar.data {
        Data::Memory(bytes) => prove(coding, &bytes[..], hash, length),
        Data::File(source) => {
            let opened = source
                .root
                .open_file(&source.path)
                .map_err(Unproven::Unreadable)?;
            let mut reader = HashingReader {
                inner: opened.file,
                hasher: blake3::Hasher::new(),
            };
            prove(coding, &mut reader, hash, length)?;
            if reader.hasher.finalize() == *sidecar.etag.hash() {
                Ok(())
            } else {
                Err(Unproven::Unreadable(io::Error::other("it is changing")))
            }
        }
    }
}

/// A reader that hashes what it reads.
struct HashingReader<R> {
    inner: R,
    hasher: blake3::Hasher,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}
