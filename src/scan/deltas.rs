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
use std::sync::{Arc, OnceLock};

use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::Scope;
use super::known_deltas::KnownDeltas;
use super::next_state::NextState;
use super::proven::read_proven;
use super::sidecar::{Unproven, prove_delta};
use crate::disk::{self, Opened};
use crate::representation::{Data, Representation, Resource};
use crate::rules::RuleFile;
use crate::semantics::coding::{Coding, MAX_HEADER_LENGTH, delta_stem};
use crate::semantics::dictionary::DictionaryHash;
use crate::settings::Family;

/// Where dictionaries are kept that are no longer part of the site, relative to the root: each under
/// its SHA-256 in hex. Hidden, so never served.
pub const DICTIONARIES: &str = ".etagd/dictionaries";
/// The longest dictionary: with it the largest window of `dcz` is reached.
pub const MAX_DICTIONARY_LENGTH: u64 = 96 << 20;
/// The longest dictionary that several threads may have in memory at the same time, each its own. The
/// decoder needs up to 16 MiB with it, as for any sidecar; with the longest of all it needs 128 MiB.
const MAX_SHARED_LENGTH: u64 = 4 << 20;
/// Bytes that are hashed at once.
const BUFFER_SIZE: usize = 64 << 10;

/// Where a dictionary is kept, relative to the root.
pub fn dictionary_path(hash: DictionaryHash) -> PathBuf {
    Path::new(DICTIONARIES).join(hash.to_string())
}

/// The dictionary that is kept at this path of the site, if it is the place of one.
pub fn dictionary_at(path: &[u8]) -> Option<DictionaryHash> {
    let name = path.strip_prefix(DICTIONARIES.as_bytes())?;
    str::from_utf8(name.strip_prefix(b"/")?).ok()?.parse().ok()
}

/// Whether a path is that of a file that the site needs and no manifest has: its rules, and the
/// dictionaries of its deltas.
pub fn is_unlisted(path: &[u8]) -> bool {
    RuleFile::named(path).is_some() || dictionary_at(path).is_some()
}

/// The deltas of a site as it will be.
pub(super) struct Deltas<'a> {
    next: &'a NextState<'a>,
    scope: &'a Scope,
    /// The dictionaries that clients have just written or deleted.
    written: BTreeSet<DictionaryHash>,
    /// By the file that they are for.
    by_stem: OnceLock<HashMap<&'a [u8], Vec<&'a Arc<Resource>>>>,
    /// Files that may be dictionaries.
    families: OnceLock<HashMap<Family<'a>, Vec<&'a Arc<Resource>>>>,
    known: &'a KnownDeltas,
}

/// Where a dictionary is.
enum DictionarySource<'a> {
    /// A file of the site.
    Relative(&'a Arc<Resource>),
    /// In [`DICTIONARIES`].
    Kept(Opened),
}

impl DictionarySource<'_> {
    fn length(&self) -> u64 {
        match self {
            Self::Relative(relative) => relative.identity.length,
            Self::Kept(opened) => opened.stamp.size,
        }
    }
}

impl<'a> Deltas<'a> {
    pub(super) fn new(next: &'a NextState<'a>, scope: &'a Scope, known: &'a KnownDeltas) -> Self {
        let written = match scope {
            Scope::Paths(paths) => paths.iter().filter_map(|it| dictionary_at(it)).collect(),
            Scope::Everything | Scope::EverythingWith(_) => BTreeSet::new(),
        };
        Self {
            next,
            scope,
            written,
            by_stem: OnceLock::new(),
            families: OnceLock::new(),
            known,
        }
    }

    /// The files whose deltas may be others now although neither they nor the deltas have changed: a
    /// dictionary came or went. That is seen at once for files of the site and for what clients write,
    /// and by a sweep for those that others keep elsewhere.
    pub(super) fn candidates(&self) -> BTreeSet<&'a [u8]> {
        if !self.next.base.has_delta_files() {
            return BTreeSet::new();
        }
        let looks_at_all = self.next.is_start || !matches!(self.scope, Scope::Paths(_));
        let changed = self.next.changed.keys().chain(&self.next.removed);
        let touched: BTreeSet<Family<'_>> = changed.filter_map(|path| Family::of(path)).collect();
        let written: Vec<String> = self.written.iter().map(ToString::to_string).collect();
        let needs_written = |delta: &[u8], stem: &[u8]| {
            // `.0123456789abcdef.dcb`
            let digits = delta.get(stem.len() + 1..).unwrap_or_default();
            let digits = digits
                .strip_suffix(b".dcb")
                .or(digits.strip_suffix(b".dcz"));
            digits.is_some_and(|digits| written.iter().any(|it| it.as_bytes().starts_with(digits)))
        };
        self.next
            .base
            .delta_files()
            .filter_map(|delta| Some((&*delta.path, delta_stem(&delta.path)?)))
            .filter(|(delta, stem)| {
                looks_at_all
                    || Family::of(stem).is_some_and(|family| touched.contains(&family))
                    || needs_written(delta, stem)
            })
            .map(|(_, stem)| stem)
            .collect()
    }

    /// The proven deltas of a resource, shortest first.
    pub(super) fn proven(&self, resource: &Resource) -> Vec<Representation> {
        let by_stem = self.by_stem.get_or_init(|| self.collect());
        let Some(deltas) = by_stem.get(&*resource.path) else {
            return Vec::new();
        };
        // What is sent with a tail, or is compressed under its own name, has no deltas.
        if resource.plain().is_some() || resource.fields.decoding().is_some() {
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
                    old.coding().dictionary().is_some()
                        && old.etag.hash() == delta.identity.etag.hash()
                });
                let coding = self.prove(resource, delta, old.map(|old| old.coding()))?;
                Some(delta.identity.as_coding(coding))
            })
            .collect();
        proven.sort_by_key(|representation| (representation.length, representation.coding()));
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

    /// The coding of a delta, if it is proven, or else why not, where that is news. `before` is what it
    /// was proven to be before.
    fn prove(
        &self,
        resource: &Resource,
        delta: &Resource,
        before: Option<Coding>,
    ) -> Option<Coding> {
        let is_news = before.is_some()
            || self.next.is_start
            || self.is_changed(resource)
            || self.is_changed(delta);
        if !is_news && self.known.is_refused(delta, resource) {
            return None;
        }
        let reason = match self.check(resource, delta, before) {
            Ok(coding) => {
                self.known.forget_unreadable(delta);
                return Some(coding);
            }
            Err(reason) => reason,
        };
        if reason.is_about_bytes() {
            self.known.note_refused(delta, resource);
        }
        match reason {
            Unproven::Unreadable(_) => self.next.reject(delta.path.to_vec(), reason),
            _ if !is_news => {}
            // Who deletes a dictionary means it: a push does, before it deletes the deltas themselves.
            Unproven::NoDictionary(hash) if self.written.contains(&hash) => {
                self.next.note_deleted_dictionary();
            }
            reason => self.next.reject(delta.path.to_vec(), reason),
        }
        None
    }

    /// Whether a file has other bytes than before. A write looks at what is there before it changes that,
    /// and may find all of it as it was.
    fn is_changed(&self, file: &Resource) -> bool {
        let before = || self.next.base.locate(&file.path);
        let is_same =
            |before: &Arc<Resource>| before.identity.etag.hash() == file.identity.etag.hash();
        self.next.changed.contains_key(&*file.path) && !before().is_some_and(is_same)
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
            None => delta_coding(delta)?,
        };
        let named = coding.delta_extension();
        let is_named = named.is_some_and(|extension| {
            let name = [&*resource.path, b".", extension.as_bytes()].concat();
            name == *delta.path
        });
        let Some(hash) = coding.dictionary().filter(|_| is_named) else {
            return Err(Unproven::Header);
        };
        if proven.is_some() && self.is_kept(hash) {
            return Ok(coding);
        }
        let source = self.dictionary(resource, hash)?;
        if proven.is_some() && matches!(source, DictionarySource::Relative(_)) {
            return Ok(coding);
        }
        let is_large = source.length() > MAX_SHARED_LENGTH;
        let mut shared = is_large.then(|| self.known.long_dictionary());
        let mut own = Vec::new();
        let dictionary = shared.as_deref_mut().unwrap_or(&mut own);
        self.read(&source, hash, dictionary)?;
        let (identity, length) = (resource.identity.etag.hash(), resource.identity.length);
        read_proven(&delta.identity, |encoded| {
            prove_delta(coding, dictionary, encoded, identity, length)
        })?;
        Ok(coding)
    }

    /// Whether the dictionary of a delta that is proven is still in [`DICTIONARIES`].
    fn is_kept(&self, hash: DictionaryHash) -> bool {
        // It is opened, because a stamp alone would also be found behind a link, where no other process
        // finds the file.
        let Ok(opened) = self.next.root.open_file(&dictionary_path(hash)) else {
            return false;
        };
        if let Some(is_good) = self.known.is_kept(hash, &opened.stamp) {
            return is_good;
        }
        // Also where an earlier process has proven its deltas, perhaps by another file: whether a delta
        // is one follows from what is there now.
        let content = Uninterrupted(&opened.file).take(MAX_DICTIONARY_LENGTH + 1);
        sha256(content).is_ok_and(|sha256| self.note_kept(&opened, hash, &sha256))
    }

    /// Notes what a kept dictionary is, if it is as it was before it was read. Returns whether it has the
    /// hash in its name.
    fn note_kept(&self, opened: &Opened, hash: DictionaryHash, sha256: &[u8; 32]) -> bool {
        let is_good = hash.as_bytes() == sha256;
        if disk::stamp(&opened.file).is_ok_and(|now| now == opened.stamp) {
            self.known.note_kept(hash, opened.stamp, is_good);
        }
        is_good
    }

    /// Where a dictionary is.
    fn dictionary(
        &self,
        resource: &Resource,
        hash: DictionaryHash,
    ) -> Result<DictionarySource<'a>, Unproven> {
        let relative = self.relative(resource, hash);
        if let Ok(Some(relative)) = relative {
            return Ok(DictionarySource::Relative(relative));
        }
        let opened = match self.next.root.open_file(&dictionary_path(hash)) {
            Ok(opened) => opened,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                // A file of the family that can't be read now may be the one.
                return Err(relative.err().unwrap_or(Unproven::NoDictionary(hash)));
            }
            // A directory, or something else that is no file.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Err(Unproven::DamagedDictionary(hash));
            }
            // openat2(2): there is a link in the path.
            Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                return Err(Unproven::LinkedDictionary(hash));
            }
            Err(error) => return Err(Unproven::Unreadable(error)),
        };
        let is_longer = opened.stamp.size > MAX_DICTIONARY_LENGTH;
        match is_longer || self.known.is_kept(hash, &opened.stamp) == Some(false) {
            true => Err(Unproven::DamagedDictionary(hash)),
            false => Ok(DictionarySource::Kept(opened)),
        }
    }

    /// Reads all of a dictionary into `bytes`.
    fn read(
        &self,
        source: &DictionarySource<'a>,
        hash: DictionaryHash,
        bytes: &mut Vec<u8>,
    ) -> Result<(), Unproven> {
        let length = source.length();
        match source {
            DictionarySource::Relative(relative) => {
                read_proven(&relative.identity, |from| read_all(from, length, bytes))
            }
            DictionarySource::Kept(opened) => {
                read_all(&mut Uninterrupted(&opened.file), length, bytes)?;
                match self.note_kept(opened, hash, &Sha256::digest(&*bytes).into()) {
                    true => Ok(()),
                    false => Err(Unproven::DamagedDictionary(hash)),
                }
            }
        }
    }

    /// The file of the same family that is a dictionary.
    ///
    /// # Errors
    /// When none of those that can be read is it, and not all of them can be.
    fn relative(
        &self,
        resource: &Resource,
        hash: DictionaryHash,
    ) -> Result<Option<&'a Arc<Resource>>, Unproven> {
        let Some(family) = Family::of(&resource.path) else {
            return Ok(None);
        };
        let families = self.families.get_or_init(|| {
            let mut families: HashMap<_, Vec<_>> = HashMap::new();
            for each in self.next.with_changed(self.next.base.iter()) {
                if let Some(family) = Family::of(&each.path) {
                    families.entry(family).or_default().push(each);
                }
            }
            families
        });
        let mut unreadable = None;
        for relative in families.get(&family).into_iter().flatten().copied() {
            if relative.path == resource.path {
                continue;
            }
            match self.sha256(relative) {
                Ok(Some(found)) if found == hash => return Ok(Some(relative)),
                Ok(_) => {}
                Err(reason) => drop(unreadable.get_or_insert(reason)),
            }
        }
        unreadable.map_or(Ok(None), Err)
    }

    /// The SHA-256 of a file that is no longer than a dictionary may be.
    ///
    /// # Errors
    /// When it can't be read now.
    fn sha256(&self, file: &Resource) -> Result<Option<DictionaryHash>, Unproven> {
        let identity = &file.identity;
        if identity.length > MAX_DICTIONARY_LENGTH {
            return Ok(None);
        }
        if let Some(known) = identity.sha256() {
            return Ok(Some(DictionaryHash::new(*known)));
        }
        if file.plain().is_some() {
            return Ok(None);
        }
        if let Some(known) = self.known.sha256(identity.etag.hash()) {
            return Ok(Some(known));
        }
        let hash = content_sha256(identity)?;
        self.known.note_sha256(*identity.etag.hash(), hash);
        Ok(Some(hash))
    }
}

/// The name of some content as a dictionary.
///
/// # Errors
/// When it can't be read now.
pub fn content_sha256(content: &Representation) -> Result<DictionaryHash, Unproven> {
    let hash = |bytes: &mut dyn Read| sha256(bytes).map_err(Unproven::Unreadable);
    read_proven(content, hash).map(DictionaryHash::new)
}

/// The SHA-256 of all that there is to read.
fn sha256(mut from: impl Read) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().into()),
            read => hasher.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}

/// The coding that the first bytes of a delta name. Its proof reads them again.
///
/// # Errors
/// When it is no delta, or can't be read.
pub fn delta_coding(delta: &Resource) -> Result<Coding, Unproven> {
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
        Data::Remote(_) => return Err(Unproven::Unreadable(io::ErrorKind::Unsupported.into())),
    }
    Coding::of_header(&header).ok_or(Unproven::Header)
}

/// Reads content that had this length into `bytes`, and no further than a byte too many: then it is
/// another.
fn read_all(from: &mut dyn Read, length: u64, bytes: &mut Vec<u8>) -> Result<(), Unproven> {
    bytes.clear();
    bytes.reserve_exact(length as usize + 1);
    let read = from.take(length + 1).read_to_end(bytes);
    read.map(|_| ()).map_err(Unproven::Unreadable)
}

/// A file whose reads no signal interrupts.
struct Uninterrupted<'f>(&'f File);

impl Read for Uninterrupted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        disk::read(self.0, buffer)
    }
}
