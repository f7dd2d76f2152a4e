//! Which deltas (`x.0123456789abcdef.dcb` for `x`) are served as content codings (RFC 9842).
//!
//! A delta is an ordinary file of the site, like any sidecar. It becomes a content coding of its
//! neighbour once it is proven to decode to the neighbour's bytes, with a dictionary that is at
//! hand: an earlier file of the same family that is still part of the site, or one that is kept in
//! [`DICTIONARIES`]. The proof needs it at every start, on every replica: what depends on files that
//! are gone would give equal trees different digests (P7).

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use sha2::{Digest, Sha256};

use super::next_state::NextState;
use super::proven::read_proven;
use super::sidecar::{Unproven, prove_delta};
use super::{Scope, lock};
use crate::disk;
use crate::representation::{Data, Representation, Resource};
use crate::semantics::coding::{Coding, MAX_HEADER_LENGTH, delta_stem};
use crate::semantics::dictionary::DictionaryHash;
use crate::settings::Family;

/// Where dictionaries are kept that are no longer part of the site, relative to the root: each under
/// its SHA-256 in hex. Hidden, so never served.
pub const DICTIONARIES: &str = ".etagd/dictionaries";
/// The longest dictionary: with it the largest window of `dcz` is reached.
pub const MAX_DICTIONARY_LENGTH: u64 = 96 << 20;

/// Where a dictionary is kept, relative to the root.
pub fn dictionary_path(hash: DictionaryHash) -> PathBuf {
    Path::new(DICTIONARIES).join(hash.to_string())
}

/// The deltas of a site as it will be.
pub(super) struct Deltas<'a> {
    next: &'a NextState<'a>,
    /// By the file that they are for.
    by_stem: OnceLock<HashMap<&'a [u8], Vec<&'a Arc<Resource>>>>,
    /// Files that may be dictionaries.
    families: OnceLock<HashMap<Family<'a>, Vec<&'a Arc<Resource>>>>,
    /// The SHA-256 of files, by their BLAKE3.
    sha256: Mutex<HashMap<[u8; 32], DictionaryHash>>,
}

impl<'a> Deltas<'a> {
    pub(super) fn new(next: &'a NextState<'a>) -> Self {
        Self {
            next,
            by_stem: OnceLock::new(),
            families: OnceLock::new(),
            sha256: Mutex::default(),
        }
    }

    /// The files whose deltas may be others now although neither they nor the deltas have changed: a
    /// dictionary came or went. That is seen at once for files of the site, and by a sweep for those
    /// that are kept elsewhere.
    pub(super) fn candidates(&self, scope: &Scope) -> BTreeSet<&'a [u8]> {
        if !self.next.base.has_delta_files() {
            return BTreeSet::new();
        }
        let looks_at_all = self.next.is_start || !matches!(scope, Scope::Paths(_));
        let changed = self.next.changed.keys().chain(&self.next.removed);
        let touched: BTreeSet<Family<'_>> = changed.filter_map(|path| Family::of(path)).collect();
        self.next
            .base
            .delta_files()
            .filter_map(|delta| delta_stem(&delta.path))
            .filter(|stem| {
                looks_at_all || Family::of(stem).is_some_and(|family| touched.contains(&family))
            })
            .collect()
    }

    /// The proven deltas of a resource, shortest first.
    pub(super) fn proven(&self, resource: &Resource) -> Vec<Representation> {
        let by_stem = self.by_stem.get_or_init(|| self.collect());
        let Some(deltas) = by_stem.get(&*resource.path) else {
            return Vec::new();
        };
        // What is sent with a tail, or is compressed under its own name, has no deltas.
        if resource.plain.is_some() || resource.fields.decoding().is_some() {
            return Vec::new();
        }
        let before = self.next.base.locate(&resource.path);
        let proven_before = before
            .filter(|before| before.identity.etag.hash() == resource.identity.etag.hash())
            .map_or([].as_slice(), |before| &before.encoded);
        let mut proven: Vec<_> = deltas
            .iter()
            .filter_map(|delta| {
                let old = proven_before.iter().find(|old| {
                    old.coding.dictionary().is_some()
                        && old.etag.hash() == delta.identity.etag.hash()
                });
                match self.check(resource, delta, old.map(|old| old.coding)) {
                    Ok(coding) => Some(delta.identity.as_coding(coding)),
                    Err(reason) => {
                        self.reject(resource, delta, old.is_some(), reason);
                        None
                    }
                }
            })
            .collect();
        proven.sort_by_key(|representation| (representation.length, representation.coding));
        proven
    }

    fn collect(&self) -> HashMap<&'a [u8], Vec<&'a Arc<Resource>>> {
        let mut by_stem: HashMap<_, Vec<_>> = HashMap::new();
        for delta in self.next.with_changed(self.next.base.delta_files()) {
            if let Some(stem) = delta_stem(&delta.path) {
                by_stem.entry(stem).or_default().push(delta);
            }
        }
        by_stem
    }

    /// The coding of a delta, once that is proven. `proven` is what it was proven to be before.
    fn check(
        &self,
        resource: &Resource,
        delta: &Resource,
        proven: Option<Coding>,
    ) -> Result<Coding, Unproven> {
        let coding = match proven {
            Some(coding) => coding,
            None => self.coding_of(delta)?,
        };
        let named = coding.delta_extension();
        let is_named = named.is_some_and(|extension| {
            let name = [&*resource.path, b".", extension.as_bytes()].concat();
            name == *delta.path
        });
        let Some(hash) = coding.dictionary().filter(|_| is_named) else {
            return Err(Unproven::Header);
        };
        if proven.is_some() && self.is_at_hand(resource, hash) {
            return Ok(coding);
        }
        let dictionary = self.dictionary(resource, hash)?;
        let (identity, length) = (resource.identity.etag.hash(), resource.identity.length);
        read_proven(&delta.identity, |encoded| {
            prove_delta(coding, &dictionary, encoded, identity, length)
        })?;
        Ok(coding)
    }

    /// What the first bytes of a delta say. The proof reads them again.
    fn coding_of(&self, delta: &Resource) -> Result<Coding, Unproven> {
        let mut header = Vec::new();
        let limit = MAX_HEADER_LENGTH as u64;
        match &delta.identity.data {
            Data::Memory(bytes) => header.extend(bytes.iter().take(MAX_HEADER_LENGTH)),
            Data::File(source) => {
                let opened = source.root.open_file(&source.path);
                let file = opened.map_err(Unproven::Unreadable)?.file;
                let read = file.take(limit).read_to_end(&mut header);
                read.map_err(Unproven::Unreadable)?;
            }
            Data::Spooled(source) => {
                let read = source.read(delta.identity.length.min(limit));
                header = read.map_err(Unproven::Unreadable)?;
            }
        }
        Coding::of_header(&header).ok_or(Unproven::Header)
    }

    /// Whether the dictionary of a delta that is proven is still there.
    fn is_at_hand(&self, resource: &Resource, hash: DictionaryHash) -> bool {
        self.next.root.stamp(&dictionary_path(hash)).is_ok()
            || self.relative(resource, hash).is_some()
    }

    /// The bytes of a dictionary.
    fn dictionary(&self, resource: &Resource, hash: DictionaryHash) -> Result<Vec<u8>, Unproven> {
        if let Some(relative) = self.relative(resource, hash) {
            return read_proven(&relative.identity, read_all);
        }
        let bytes = match self.next.root.open_file(&dictionary_path(hash)) {
            Ok(opened) => read_all(&mut Uninterrupted(opened.file))?,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(Unproven::NoDictionary(hash));
            }
            Err(error) => return Err(Unproven::Unreadable(error)),
        };
        match *hash.as_bytes() == *Sha256::digest(&bytes) {
            true => Ok(bytes),
            false => Err(Unproven::DamagedDictionary(hash)),
        }
    }

    /// The file of the same family that is a dictionary.
    fn relative(&self, resource: &Resource, hash: DictionaryHash) -> Option<&'a Arc<Resource>> {
        let family = Family::of(&resource.path)?;
        let families = self.families.get_or_init(|| {
            let mut families: HashMap<_, Vec<_>> = HashMap::new();
            for each in self.next.with_changed(self.next.base.iter()) {
                if let Some(family) = Family::of(&each.path) {
                    families.entry(family).or_default().push(each);
                }
            }
            families
        });
        let relatives = families.get(&family)?.iter().copied();
        relatives
            .filter(|relative| relative.path != resource.path)
            .find(|relative| self.sha256(relative) == Some(hash))
    }

    /// The SHA-256 of a file that is no longer than a dictionary may be.
    fn sha256(&self, file: &Resource) -> Option<DictionaryHash> {
        let identity = &file.identity;
        if let Some(known) = &identity.sha256 {
            return Some(DictionaryHash::new(**known));
        }
        if identity.length > MAX_DICTIONARY_LENGTH || file.plain.is_some() {
            return None;
        }
        if let Some(known) = lock(&self.sha256).get(identity.etag.hash()) {
            return Some(*known);
        }
        let bytes = read_proven(identity, read_all).ok()?;
        let hash = DictionaryHash::new(Sha256::digest(&bytes).into());
        lock(&self.sha256).insert(*identity.etag.hash(), hash);
        Some(hash)
    }

    /// Says why a delta is not used: once, when that is news.
    fn reject(&self, resource: &Resource, delta: &Resource, was_used: bool, reason: Unproven) {
        let is_changed = |path: &[u8]| self.next.changed.contains_key(path);
        let is_news =
            was_used || self.next.is_start || is_changed(&resource.path) || is_changed(&delta.path);
        if is_news || matches!(reason, Unproven::Unreadable(_)) {
            self.next.reject(delta.path.to_vec(), reason);
        }
    }
}

fn read_all(from: &mut dyn Read) -> Result<Vec<u8>, Unproven> {
    let mut bytes = Vec::new();
    // One byte more, so that what is longer is no dictionary.
    let read = from.take(MAX_DICTIONARY_LENGTH + 1).read_to_end(&mut bytes);
    read.map_err(Unproven::Unreadable)?;
    Ok(bytes)
}

/// A file whose reads no signal interrupts.
struct Uninterrupted(File);

impl Read for Uninterrupted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        disk::read(&self.0, buffer)
    }
}
