//! Under which names what comes from a store is kept in `--cache`.
//!
//! Each kind has a context of its own, so that no two names are equal, whatever they are of.

use super::error::Followed;
use crate::cache::EntryName;
use crate::store::BlobHash;

const PIECE: &str = "etagd 2026-11 store piece";
const TREE: &str = "etagd 2026-11 store tree";
const LISTING: &str = "etagd 2026-11 store listing";
const RECORD: &str = "etagd 2026-11 store record";
const LAST_RELEASE: &str = "etagd 2026-11 store release";

/// A piece of the content with this hash: the group with this index, or all of it.
pub(super) fn piece(hash: &[u8; 32], index: u32) -> EntryName {
    blake3::derive_key(PIECE, &[&hash[..], &index.to_le_bytes()].concat())
}

/// The chaining values of the groups of the content with this hash.
pub(super) fn tree(hash: &[u8; 32]) -> EntryName {
    blake3::derive_key(TREE, hash)
}

/// The listing with this hash.
pub(super) fn listing(hash: &BlobHash) -> EntryName {
    blake3::derive_key(LISTING, hash.as_bytes())
}

/// The release of a channel that was proven last.
pub(super) fn last_release(followed: &Followed) -> EntryName {
    let Followed { store, channel } = followed;
    blake3::derive_key(LAST_RELEASE, format!("{store}\0{channel}").as_bytes())
}

/// The record of the release of a channel with this number.
pub(super) fn record(followed: &Followed, number: u64) -> EntryName {
    let Followed { store, channel } = followed;
    let of = format!("{store}\0{channel}\0{number}");
    blake3::derive_key(RECORD, of.as_bytes())
}
