//! Makes content codings of files, or takes them from the cache, and proves each by decoding it once.

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::Scanner;
use super::compress_threads::CompressThreads;
use super::encode::{self, Effort};
use super::proven::read_proven;
use super::sidecar::{Unproven, prove};
use super::unpublished::UnpublishedCodings;
use crate::cache::{Cache, CacheEntry, EntryName};
use crate::disk::{Spool, SpoolError};
use crate::progress::ByteProgress;
use crate::representation::{Data, MAX_IN_MEMORY, Representation};
use crate::semantics::coding::Coding;
use crate::settings::CompressionPolicy;

/// What names of these entries are told from others by.
const CONTEXT: &str = "etagd 2026-11 made codings";
/// The part of a file's length that its codings are taken to have, until they have been made once.
const GUESSED_SHARE: u64 = 8;

/// Where made codings are kept.
#[derive(Debug)]
pub struct CodingStore {
    /// What other processes have made, and this one at an earlier start.
    pub cache: Option<Cache>,
    /// What memory has no room for. `None` where nobody is served: codings are hashed then, and not
    /// kept.
    pub spool: Option<Spool>,
}

impl Default for CodingStore {
    /// No cache, and 1 GiB in the directory for temporary files.
    fn default() -> Self {
        Self {
            cache: None,
            spool: Some(Spool::new(vec![std::env::temp_dir()], 1 << 30)),
        }
    }
}

/// Makes content codings.
#[derive(Debug)]
pub(super) struct Maker {
    policy: CompressionPolicy,
    pub(super) store: CodingStore,
    /// Of the files that can be compressed, at a start.
    pub(super) progress: Arc<ByteProgress>,
    /// What was made for changes, and is not published.
    pub(super) unpublished: UnpublishedCodings,
    /// [`encode::encode`], but for tests.
    pub(super) encoder: Encoder,
    pub(super) threads: CompressThreads,
}

/// As [`encode::encode`].
pub(super) type Encoder = fn(Coding, Effort, &[u8], &dyn Fn()) -> io::Result<Vec<u8>>;

/// Why a file is published without codings that it should have.
#[derive(Debug, thiserror::Error)]
pub(super) enum MakeError {
    /// The file can't be read again.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    /// Neither memory nor the temporary file has room.
    #[error("its compressed forms cannot be kept: {0}")]
    NoRoom(SpoolError),
    /// An encoder panicked, or what it gave does not decode to the file.
    #[error("{0}: please report this")]
    Encoder(Arc<str>),
}

impl Maker {
    pub(super) fn new(policy: CompressionPolicy) -> Self {
        Self {
            policy,
            store: CodingStore::default(),
            progress: Arc::default(),
            unpublished: UnpublishedCodings::default(),
            encoder: encode::encode,
            threads: CompressThreads::default(),
        }
    }

    /// The codings of the policy that do not lie next to the file.
    pub(super) fn wanted(&self, shipped: &[Representation]) -> Vec<Coding> {
        let is_shipped = |coding: &Coding| shipped.iter().any(|each| each.coding() == *coding);
        let mut wanted = self.policy.codings().to_vec();
        wanted.retain(|coding| !is_shipped(coding));
        wanted
    }

    /// The codings of a content, from the cache or made now.
    pub(super) fn make(
        &self,
        wanted: &[Coding],
        identity: &Representation,
        step: Step<'_>,
    ) -> Result<Encoded, MakeError> {
        let name = name(wanted, identity.etag.hash());
        let cache = self.store.cache.as_ref();
        let kept = cache.and_then(|cache| cache.get(&name));
        if let Some(kept) = kept.filter(|kept| kept.pieces.len() == wanted.len()) {
            return Ok(Encoded {
                entry: kept,
                failed: vec![None; wanted.len()],
            });
        }
        let encoded = match &identity.data {
            Data::Memory(bytes) => self.encode_all(wanted, bytes, identity, step),
            Data::File(_) | Data::Spooled(_) | Data::Remote(_) => {
                let bytes = read_proven(identity, |bytes| read_all(bytes, identity.length));
                let bytes = bytes.map_err(|reason| MakeError::Unreadable(reason.into()))?;
                self.encode_all(wanted, &bytes, identity, step)
            }
        };
        if let Some(cache) = cache
            && encoded.failed.iter().all(Option::is_none)
        {
            cache.put(&name, &encoded.entry);
        }
        Ok(encoded)
    }

    fn encode_all(
        &self,
        wanted: &[Coding],
        bytes: &[u8],
        identity: &Representation,
        step: Step<'_>,
    ) -> Encoded {
        let (mut pieces, mut failed) = (Vec::new(), Vec::new());
        for coding in wanted {
            let result = self.encode_proven(*coding, bytes, identity, step);
            let (piece, failure) = match result {
                Ok(piece) => (piece, None),
                Err(failure) => (Vec::new(), Some(failure)),
            };
            pieces.push(piece);
            failed.push(failure);
        }
        Encoded {
            entry: CacheEntry::new(pieces.iter().map(Vec::as_slice)),
            failed,
        }
    }

    /// One coding, proven; empty where it is not worth it.
    fn encode_proven(
        &self,
        coding: Coding,
        bytes: &[u8],
        identity: &Representation,
        step: Step<'_>,
    ) -> Result<Vec<u8>, Arc<str>> {
        // An encoder is other people's code, and gets any bytes: what it can't encode is one coding of
        // one file, and no reason to end a look at the site.
        let encode = || (self.encoder)(coding, Effort::Scan, bytes, step);
        let token = coding.token();
        let encoded = catch_unwind(AssertUnwindSafe(encode))
            .map_err(|_| format!("the encoder for {token} panicked (see above)"))?
            .map_err(|error| format!("the encoder for {token} failed: {error}"))?;
        if !encode::is_worth_it(&encoded, identity.length) {
            return Ok(Vec::new());
        }
        let hash = identity.etag.hash();
        prove(coding, encoded.as_slice(), hash, identity.length)
            .map_err(|error| format!("the encoder for {token} failed: {error}"))?;
        Ok(encoded)
    }

    /// Looks whether these codings of a content can be kept, as far as that is known. What can't be kept
    /// need not be made, time and again.
    ///
    /// # Errors
    /// Why they can't.
    pub(super) fn find_room(
        &self,
        scanner: &Scanner,
        identity: &Representation,
        wanted: &[Coding],
    ) -> Result<(), SpoolError> {
        let Some(spool) = &self.store.spool else {
            return Ok(());
        };
        let (needed, fits_memory) = match self.unpublished.needed(identity.etag.hash(), wanted) {
            // Memory takes nothing longer, however much room it has.
            Some(needed) => {
                let fits_memory = needed <= MAX_IN_MEMORY && scanner.has_room_for(needed);
                (needed, fits_memory)
            }
            // A long file may well have codings that memory takes: only making them tells, once.
            None => {
                let guessed = identity.length / GUESSED_SHARE;
                (guessed, scanner.has_room_for(guessed.min(MAX_IN_MEMORY)))
            }
        };
        match fits_memory {
            true => Ok(()),
            false => spool.find_room(needed),
        }
    }

    /// Has the cache be as others will find it, until something is made again.
    pub(super) fn rest(&self) {
        if let Some(cache) = &self.store.cache {
            cache.rest();
        }
    }
}

/// Called now and then while something is made.
pub(super) type Step<'a> = &'a (dyn Fn() + Sync);

/// What the codings of a content are kept under.
fn name(codings: &[Coding], identity: &[u8; 32]) -> EntryName {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    for part in [CompressionPolicy::NAME]
        .into_iter()
        .chain(codings.iter().map(|it| it.token()))
    {
        hasher.update(part.as_bytes());
        // No part has a NUL, so that no two lists hash the same bytes.
        hasher.update(&[0]);
    }
    hasher.update(identity);
    *hasher.finalize().as_bytes()
}

/// Reads to the end, and no further than a byte too many: the hash then says that it has changed.
fn read_all(bytes: &mut dyn Read, length: u64) -> Result<Vec<u8>, Unproven> {
    let mut read = Vec::with_capacity(length as usize);
    let result = bytes.take(length + 1).read_to_end(&mut read);
    result.map(|_| read).map_err(Unproven::Unreadable)
}

/// The codings of a content.
pub(super) struct Encoded {
    /// A piece for each coding, empty where it is not worth it, or has failed.
    pub(super) entry: CacheEntry,
    /// For each coding, why it could not be made, if that is so.
    pub(super) failed: Vec<Option<Arc<str>>>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_kept_is_named_by_its_content_and_its_codings() {
        use Coding::{Brotli, Gzip, Zstd};
        let lists: [&[Coding]; 5] = [
            &[],
            &[Brotli],
            &[Gzip],
            &[Brotli, Gzip],
            &[Brotli, Zstd, Gzip],
        ];
        let contents = [[1; 32], [2; 32]];
        let named = |content: [u8; 32]| lists.map(|codings| name(codings, &content));
        let names: BTreeSet<_> = contents.into_iter().flat_map(named).collect();
        assert_eq!(names.len(), lists.len() * contents.len());
        // It has to be found again by a later version with the same policy.
        let pinned = blake3::Hash::from_bytes(name(&[Brotli, Gzip], &[1; 32])).to_hex();
        assert_eq!(&pinned[..16], "4ebfac5fc4e7b76a");
    }
}
