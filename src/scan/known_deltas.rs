//! What a scanner remembers of deltas from one scan to the next: whatever is as it was is neither read
//! nor hashed again.
//!
//! All of it can be found out again, so any of it may be forgotten.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::sync::{Mutex, MutexGuard};

use crate::disk::Stamp;
use crate::locks::lock;
use crate::representation::Resource;
use crate::semantics::dictionary::DictionaryHash;

/// Entries of each kind: at most some 30 MB of them.
const MAX_ENTRIES: usize = 1 << 18;

/// The BLAKE3 of a delta, and that of the file that it is for.
type DeltaHashes = ([u8; 32], [u8; 32]);

/// What was found out about deltas and their dictionaries.
#[derive(Debug, Default)]
pub(super) struct KnownDeltas {
    /// The SHA-256 of files, by their BLAKE3.
    sha256: Mutex<HashMap<[u8; 32], DictionaryHash>>,
    /// The dictionaries outside the site: each with the stamp that it was looked at with, and whether
    /// it has the hash in its name.
    kept: Mutex<HashMap<DictionaryHash, (Stamp, bool)>>,
    /// Deltas that do not decode to their file, by their paths.
    refused: Mutex<HashMap<Box<[u8]>, DeltaHashes>>,
    /// Why deltas, by their paths, could not be proven for want of something to read.
    unreadable: Mutex<HashMap<Box<[u8]>, String>>,
    /// A long dictionary, during the proof that needs it. One buffer serves all of them: what an
    /// allocator gets back on one thread it may keep for that thread.
    long_dictionary: Mutex<Vec<u8>>,
}

impl KnownDeltas {
    /// The SHA-256 of the content with this BLAKE3.
    pub(super) fn sha256(&self, content: &[u8; 32]) -> Option<DictionaryHash> {
        lock(&self.sha256).get(content).copied()
    }

    pub(super) fn note_sha256(&self, content: [u8; 32], hash: DictionaryHash) {
        insert(&self.sha256, content, hash);
    }

    /// Whether the kept dictionary with this stamp has the hash in its name; `None` if it was never
    /// looked at, or has changed since.
    pub(super) fn is_kept(&self, hash: DictionaryHash, now: &Stamp) -> Option<bool> {
        let kept = lock(&self.kept);
        let (stamp, is_good) = kept.get(&hash)?;
        (stamp == now).then_some(*is_good)
    }

    pub(super) fn note_kept(&self, hash: DictionaryHash, stamp: Stamp, is_good: bool) {
        insert(&self.kept, hash, (stamp, is_good));
    }

    /// Whether a delta was found not to decode to this file, and both are as they were.
    pub(super) fn is_refused(&self, delta: &Resource, file: &Resource) -> bool {
        lock(&self.refused).get(&delta.path) == Some(&contents(delta, file))
    }

    pub(super) fn note_refused(&self, delta: &Resource, file: &Resource) {
        insert(&self.refused, delta.path.clone(), contents(delta, file));
    }

    /// Notes why a delta can't be proven now. Returns whether that was not the reason before.
    pub(super) fn note_unreadable(&self, delta: &[u8], error: &io::Error) -> bool {
        let reason = error.to_string();
        if lock(&self.unreadable).get(delta) == Some(&reason) {
            return false;
        }
        insert(&self.unreadable, delta.into(), reason);
        true
    }

    /// Notes that all could be read that a delta needs.
    pub(super) fn forget_unreadable(&self, delta: &Resource) {
        lock(&self.unreadable).remove(&delta.path);
    }

    /// Room for a long dictionary, as soon as no other proof needs it.
    pub(super) fn long_dictionary(&self) -> MutexGuard<'_, Vec<u8>> {
        lock(&self.long_dictionary)
    }

    /// Gives back the room for long dictionaries.
    pub(super) fn end_pass(&self) {
        *lock(&self.long_dictionary) = Vec::new();
    }
}

fn contents(delta: &Resource, file: &Resource) -> DeltaHashes {
    (*delta.identity.etag.hash(), *file.identity.etag.hash())
}

fn insert<K: Eq + Hash, V>(into: &Mutex<HashMap<K, V>>, key: K, value: V) {
    let mut entries = lock(into);
    if entries.len() >= MAX_ENTRIES {
        // What is of files that are gone has no other end.
        entries.clear();
    }
    entries.insert(key, value);
}
