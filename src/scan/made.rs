//! Content codings that the scan makes of files (`--compress`), before anything of them is published.
//!
//! Which codings a file has follows from its bytes, its name and the policy alone, never from when it
//! changed or what it was before: so equal digests mean equal answers, whichever replica made its
//! codings when (P7). What is published while somebody still writes to it has none until it settles.
//! Each coding is proven by decoding it once. None is made for a request.

use std::cell::OnceCell;
use std::io::{self, Read};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;

use bytes::Bytes;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use rayon::{ThreadPool, ThreadPoolBuilder};
use sha2::{Digest, Sha256};

use super::encode::{self, Effort, MIN_LENGTH};
use super::proven::read_proven;
use super::sidecar::{Unproven, prove};
use super::unmade::Unmade;
use super::unpublished::UnpublishedCodings;
use super::{Pass, Scanner, site_path};
use crate::cache::{Cache, CacheEntry, EntryName};
use crate::disk::{self, Root, Spool};
use crate::manifest::Manifest;
use crate::progress::ByteProgress;
use crate::representation::{
    Data, GROUP_SIZE, GroupHash, MAX_IN_MEMORY, MAX_WHOLE, Representation, Resource, SpooledSource,
    group_hash,
};
use crate::semantics::coding::Coding;
use crate::semantics::etag::ETag;
use crate::settings::CompressionPolicy;

/// Longer files get no codings in the scan: a change of one would hold up others for seconds.
const MAX_LENGTH: u64 = 8 << 20;
/// What names of these entries are told from others by.
const CONTEXT: &str = "etagd 2026-11 made codings";
/// How many bytes a look compresses at once: a tenth of a second. What is more is left for other
/// threads under [`Unsettled::Defer`](super::Unsettled::Defer).
const MAX_INLINE_LENGTH: u64 = 1 << 20;
/// How far the threads that compress a change stand back behind those that answer requests. With 19
/// a busy server would hardly ever publish.
const NICENESS: i32 = 10;
/// Files that are named one by one; beyond this number they are only counted.
const MAX_SHOWN: usize = 20;
/// The part of a file's length that its codings have at least, and that room is asked for in advance.
const MIN_SHARE: u64 = 8;

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
    /// The threads for changes, once there was one; `None` if the system has none.
    threads: OnceLock<Option<ThreadPool>>,
    /// Those for changes that take long: no other change waits for one of them.
    threads_ahead: OnceLock<Option<ThreadPool>>,
}

/// Why a file is published without the codings that it should have.
#[derive(Debug, thiserror::Error)]
pub(super) enum MakeError {
    /// The file can't be read again.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    /// Neither memory nor the temporary file has room.
    #[error("its compressed forms cannot be kept: {0}")]
    NoRoom(io::Error),
    /// What an encoder gave does not decode to the file.
    #[error("its encoder failed ({0}): please report this")]
    Encoder(Unproven),
}

impl Maker {
    pub(super) fn new(policy: CompressionPolicy) -> Self {
        Self {
            policy,
            store: CodingStore::default(),
            progress: Arc::default(),
            unpublished: UnpublishedCodings::default(),
            threads: OnceLock::new(),
            threads_ahead: OnceLock::new(),
        }
    }

    /// The codings of the policy that do not lie next to the file.
    fn wanted(&self, shipped: &[Representation]) -> Vec<Coding> {
        let is_shipped = |coding: &Coding| shipped.iter().any(|each| each.coding() == *coding);
        let mut wanted = self.policy.codings().to_vec();
        wanted.retain(|coding| !is_shipped(coding));
        wanted
    }

    /// The codings of a content, from the cache or made now: a piece each, empty where it is not
    /// worth it.
    fn make(
        &self,
        wanted: &[Coding],
        identity: &Representation,
        step: Step<'_>,
    ) -> Result<CacheEntry, MakeError> {
        let name = name(wanted, identity.etag.hash());
        let cache = self.store.cache.as_ref();
        let kept = cache.and_then(|cache| cache.get(&name));
        if let Some(kept) = kept.filter(|kept| kept.pieces.len() == wanted.len()) {
            return Ok(kept);
        }
        let entry = match &identity.data {
            Data::Memory(bytes) => encode_all(wanted, bytes, identity, step)?,
            Data::File(_) | Data::Spooled(_) => {
                let bytes = read_proven(identity, |bytes| read_all(bytes, identity.length));
                let bytes = bytes.map_err(|reason| MakeError::Unreadable(reason.into()))?;
                encode_all(wanted, &bytes, identity, step)?
            }
        };
        if let Some(cache) = cache {
            cache.put(&name, &entry);
        }
        Ok(entry)
    }

    /// Has the cache be as others will find it, until something is made again.
    fn rest(&self) {
        if let Some(cache) = &self.store.cache {
            cache.rest();
        }
    }

    /// The threads for what is compressed while requests are answered: those must not wait.
    fn threads(&self) -> Option<&ThreadPool> {
        self.threads.get_or_init(|| start_threads(cores())).as_ref()
    }

    /// The threads for what takes long: one core is left to everything else.
    fn threads_ahead(&self) -> Option<&ThreadPool> {
        let threads = || start_threads((cores() - 1).max(1));
        self.threads_ahead.get_or_init(threads).as_ref()
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Threads that stand back.
fn start_threads(number: usize) -> Option<ThreadPool> {
    ThreadPoolBuilder::new()
        .num_threads(number)
        .thread_name(|number| format!("compress-{number}"))
        .start_handler(|_| {
            // Of the calling thread alone, on Linux (nice(2)). At worst nothing stands back.
            let _ = rustix::process::nice(NICENESS);
        })
        .build()
        .ok()
}

/// Called now and then while something is made.
type Step<'a> = &'a (dyn Fn() + Sync);

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

fn encode_all(
    wanted: &[Coding],
    bytes: &[u8],
    identity: &Representation,
    step: Step<'_>,
) -> Result<CacheEntry, MakeError> {
    let encode_one = |coding: &Coding| {
        let encoded = encode::encode(*coding, Effort::Scan, bytes, step)
            .map_err(|error| MakeError::Encoder(Unproven::Unreadable(error)))?;
        if !encode::is_worth_it(&encoded, identity.length) {
            return Ok(Vec::new());
        }
        let hash = identity.etag.hash();
        prove(*coding, encoded.as_slice(), hash, identity.length).map_err(MakeError::Encoder)?;
        Ok(encoded)
    };
    let pieces = wanted
        .iter()
        .map(encode_one)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(CacheEntry::new(pieces.iter().map(Vec::as_slice)))
}

/// Whether `--compress` makes codings of a resource that has none.
fn is_compressible(resource: &Resource) -> bool {
    let (identity, _) = resource.of_files();
    resource.settled
        && (MIN_LENGTH..=MAX_LENGTH).contains(&identity.length)
        // What is compressed under its own name has no other coding.
        && resource.fields.decoding().is_none()
        && encode::is_compressible(&resource.path, resource.text)
}

/// How many files of a site could be sent compressed and are not, and how many bytes they have.
pub fn uncompressed(manifest: &Manifest) -> (u64, u64) {
    manifest
        .iter()
        .filter(|resource| resource.of_files().1.is_empty() && is_compressible(resource))
        .fold((0, 0), |(files, bytes), resource| {
            (files + 1, bytes + resource.of_files().0.length)
        })
}

/// Does `work`, which makes the codings of these resources: at a start on all cores, and later on
/// threads that stand back.
pub(super) fn run<T: Send>(
    maker: &Maker,
    pass: &Pass<'_>,
    resources: &[&Arc<Resource>],
    work: impl FnOnce() -> T + Send,
) -> T {
    if pass.is_start {
        let compressible = resources
            .iter()
            .filter(|resource| is_compressible(resource));
        let length: u64 = compressible.map(|it| it.of_files().0.length).sum();
        maker.progress.set_total(maker.progress.total() + length);
        let result = work();
        maker.rest();
        return result;
    }
    let is_needed = resources.iter().any(|resource| is_compressible(resource));
    if !is_needed {
        return work();
    }
    let result = match maker.threads() {
        Some(threads) => threads.install(work),
        None => work(),
    };
    maker.rest();
    // What this look has asked for is not old.
    maker.unpublished.forget_old();
    result
}

/// The codings that a resource has in addition to those that lie next to it.
pub(super) fn codings(
    scanner: &Scanner,
    maker: &Maker,
    pass: &Pass<'_>,
    resource: &Resource,
    shipped: &[Representation],
) -> Result<Vec<Representation>, MakeError> {
    if !is_compressible(resource) {
        return Ok(Vec::new());
    }
    let (identity, _) = resource.of_files();
    let wanted = maker.wanted(shipped);
    let made = match known(pass, resource, &wanted) {
        Some(known) => Ok(known),
        None => make(scanner, maker, pass, resource, &wanted),
    };
    maker.progress.add(identity.length);
    made
}

/// The codings that the published state has of the same content. What is read again is proven again,
/// too.
fn known(pass: &Pass<'_>, resource: &Resource, wanted: &[Coding]) -> Option<Vec<Representation>> {
    let (identity, _) = resource.of_files();
    let (before, encoded) = pass.base.locate(&resource.path)?.of_files();
    if before.etag.hash() != identity.etag.hash() {
        return None;
    }
    let is_checked = pass.scope.rereads(&resource.path);
    let file = OnceCell::new();
    let known = |coding: &Coding| {
        let found = encoded
            .iter()
            .find(|each| each.is_made && each.coding() == *coding)?;
        let is_good = !is_checked || read_proven(found, |_| Ok(())).is_ok();
        if !is_good {
            return None;
        }
        // Rules give tags a suffix when the resource is published.
        let mut found = found.as_coding(*coding);
        if let Data::Spooled(source) = &found.data {
            let file: &PathBuf = file.get_or_init(|| location(pass.root, resource));
            if *source.of != **file {
                // The root was replaced: the file that is to be looked at is another one.
                found.data = Data::Spooled(Arc::new(source.of_file(file)));
            }
        }
        Some(found)
    };
    wanted.iter().map(known).collect()
}

/// Codings that were made already, or are made now.
fn make(
    scanner: &Scanner,
    maker: &Maker,
    pass: &Pass<'_>,
    resource: &Resource,
    wanted: &[Coding],
) -> Result<Vec<Representation>, MakeError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let (identity, _) = resource.of_files();
    let content = identity.etag.hash();
    let file = || location(pass.root, resource);
    if let Some(made) = maker.unpublished.get(content, wanted, file) {
        let is_checked = pass.scope.rereads(&resource.path);
        let is_good = |each: &Representation| !is_checked || read_proven(each, |_| Ok(())).is_ok();
        if made.iter().all(is_good) {
            return Ok(made);
        }
        maker.unpublished.forget([content]);
    }
    let step = || pass.progress.step();
    let made = make_now(scanner, maker, pass.root, resource, wanted, &step)?;
    // What a start finds is published.
    if !pass.is_start {
        maker.unpublished.put(*content, wanted, &made);
    }
    Ok(made)
}

/// The resources whose codings are to be made before these can be published, if that takes long.
/// What is in the cache may be among them.
pub(super) fn unmade(
    maker: &Maker,
    pass: &Pass<'_>,
    resources: &[&Arc<Resource>],
    may_be_shipped: impl Fn(&[u8], Coding) -> bool,
) -> Vec<Unmade> {
    let mut unmade = Vec::new();
    let mut length = 0;
    for resource in resources.iter().filter(|it| is_compressible(it)) {
        let mut wanted = maker.policy.codings().to_vec();
        wanted.retain(|coding| !may_be_shipped(&resource.path, *coding));
        let (identity, _) = resource.of_files();
        let content = identity.etag.hash();
        // Whether what is published is damaged need not be known here.
        let is_known = pass.base.locate(&resource.path).is_some_and(|before| {
            let (before, encoded) = before.of_files();
            before.etag.hash() == content && encoded.iter().any(|each| each.is_made)
        });
        if !wanted.is_empty() && !is_known && !maker.unpublished.has(content, &wanted) {
            length += identity.length;
            unmade.push(Unmade {
                resource: Arc::clone(resource),
                wanted,
            });
        }
    }
    if length <= MAX_INLINE_LENGTH {
        unmade.clear();
    }
    unmade
}

/// Makes codings for the next look, until `step` returns false. What can't be made is for that look
/// to find.
pub(super) fn make_ahead(
    scanner: &Scanner,
    maker: &Maker,
    root: &Root,
    unmade: &[Unmade],
    step: &(dyn Fn() -> bool + Sync),
) {
    let make_one = |unmade: &Unmade| {
        let Unmade { resource, wanted } = unmade;
        let content = resource.of_files().0.etag.hash();
        if !step() || maker.unpublished.has(content, wanted) {
            return;
        }
        let step = || {
            step();
        };
        if let Ok(made) = make_now(scanner, maker, root, resource, wanted, &step) {
            maker.unpublished.put(*content, wanted, &made);
        }
    };
    let work = || unmade.par_iter().for_each(make_one);
    match maker.threads_ahead() {
        Some(threads) => threads.install(work),
        None => work(),
    }
    maker.rest();
}

fn make_now(
    scanner: &Scanner,
    maker: &Maker,
    root: &Root,
    resource: &Resource,
    wanted: &[Coding],
    step: Step<'_>,
) -> Result<Vec<Representation>, MakeError> {
    let (identity, _) = resource.of_files();
    let least = identity.length / MIN_SHARE;
    let spool = maker.store.spool.as_ref();
    // Looked at first: what can't be kept need not be made, time and again.
    if !scanner.has_room_for(least) && spool.is_some_and(|spool| !spool.has_room(least)) {
        let error = io::Error::from(io::ErrorKind::QuotaExceeded);
        return Err(MakeError::NoRoom(error));
    }
    let entry = maker.make(wanted, identity, step)?;
    let parts: Vec<_> = wanted
        .iter()
        .zip(&entry.pieces)
        .filter(|(_, piece)| !piece.range.is_empty())
        .map(|(coding, piece)| MadePart {
            coding: *coding,
            etag: ETag::new(piece.hash),
            offset: piece.range.start,
            length: piece.range.len(),
            groups: groups(&entry.bytes[piece.range.clone()]),
            sha256: (scanner.wants_sha256())
                .then(|| Sha256::digest(&entry.bytes[piece.range.clone()]).into()),
        })
        .collect();
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let file = location(root, resource);
    keep(scanner, spool, entry.bytes, parts, &file).map_err(MakeError::NoRoom)
}

/// The absolute path of a resource's file.
fn location(root: &Root, resource: &Resource) -> PathBuf {
    match &resource.of_files().0.data {
        Data::File(source) => source.location(),
        Data::Memory(_) | Data::Spooled(_) => site_path::join(root.path(), &resource.path),
    }
}

/// Whether made codings of a resource name a file that is not below this root: it was replaced, or a
/// link leads out of it.
pub(super) fn are_made_elsewhere(resource: &Resource, root: &Root) -> bool {
    let (_, encoded) = resource.of_files();
    encoded.iter().any(|each| match &each.data {
        Data::Spooled(source) => !source.of.starts_with(root.path()),
        Data::Memory(_) | Data::File(_) => false,
    })
}

/// One made coding, before its bytes have a place.
struct MadePart {
    coding: Coding,
    etag: ETag,
    /// Where it begins in the bytes of all of them.
    offset: usize,
    length: usize,
    groups: Arc<[GroupHash]>,
    sha256: Option<[u8; 32]>,
}

/// Keeps the codings of a file in memory, as small bodies are, or in the temporary file. Without one
/// they are known, and can't be sent.
fn keep(
    scanner: &Scanner,
    spool: Option<&Spool>,
    bytes: Vec<u8>,
    parts: Vec<MadePart>,
    file: &Path,
) -> io::Result<Vec<Representation>> {
    let is_small = bytes.len() as u64 <= MAX_IN_MEMORY;
    let kept = match scanner.memory.as_ref().filter(|_| is_small) {
        Some(memory) => memory.keep(bytes),
        None => Err(bytes),
    };
    let kept = match kept {
        Ok(bytes) => Ok(bytes),
        Err(bytes) => Err(match spool {
            Some(spool) => Some(Arc::new(spool.store(&bytes)?)),
            None => None,
        }),
    };
    let representation = |part: MadePart| {
        let data = match &kept {
            Ok(bytes) => Data::Memory(bytes.slice(part.offset..part.offset + part.length)),
            Err(None) => Data::Memory(Bytes::new()),
            Err(Some(extent)) => Data::Spooled(Arc::new(SpooledSource {
                extent: Arc::clone(extent),
                offset: part.offset as u64,
                groups: part.groups,
                of: file.into(),
            })),
        };
        Representation::new(part.coding, part.etag, part.length as u64, data)
            .with_sha256(part.sha256)
            .made()
    };
    Ok(parts.into_iter().map(representation).collect())
}

/// As [`crate::representation::FileSource::groups`].
fn groups(bytes: &[u8]) -> Arc<[GroupHash]> {
    if bytes.len() as u64 <= MAX_WHOLE {
        return Arc::default();
    }
    (0..)
        .step_by(GROUP_SIZE as usize)
        .zip(bytes.chunks(GROUP_SIZE as usize))
        .map(|(offset, group)| group_hash(group, offset))
        .collect()
}

/// Says which files have become ones without their codings. What can't be read now is said by
/// whoever looks again.
pub(super) fn report(pass: &Pass<'_>, failures: &[(Box<[u8]>, MakeError)]) {
    let is_known = |path| {
        pass.base.unreadable().contains_key(path) || pass.base.without_codings().contains(path)
    };
    let mut new: Vec<_> = failures
        .iter()
        .filter(|(path, _)| !is_known(path))
        .collect();
    new.sort_by(|one, other| one.0.cmp(&other.0));
    let (without_room, others): (Vec<_>, Vec<_>) = new
        .into_iter()
        .partition(|(_, error)| matches!(error, MakeError::NoRoom(_)));
    if let Some((first, error)) = without_room.first() {
        let (count, path) = (without_room.len(), site_path::join(pass.root.path(), first));
        let path = path.display();
        let others = match count - 1 {
            0 => String::new(),
            1 => ", as is 1 other file".to_owned(),
            others => format!(", as are {others} other files"),
        };
        tracing::warn!(
            count, %path, %error,
            "{path}: {error}: it is sent as it is{others}, and the site digest is incomplete; give \
             more room with --cache-size or --memory"
        );
    }
    for (path, error) in others.into_iter().take(MAX_SHOWN) {
        let is_passing = matches!(error, MakeError::Unreadable(error) if disk::is_passing(error));
        if !is_passing {
            let path = site_path::join(pass.root.path(), path);
            let path = path.display();
            tracing::warn!(
                %path, %error,
                "{path} is sent without compressed forms, and the site digest is incomplete: {error}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::scan::{Progress, Scope, Unsettled};
    use crate::settings::{Settings, Symlinks};

    /// The files that made codings outside of memory are said to be of.
    fn origins(manifest: &Manifest) -> Vec<PathBuf> {
        let encoded = manifest.iter().flat_map(|resource| &resource.encoded);
        let origin = |each: &Representation| match &each.data {
            Data::Spooled(source) => Some(source.of.to_path_buf()),
            Data::Memory(_) | Data::File(_) => None,
        };
        encoded.filter_map(origin).collect()
    }

    #[test]
    fn codings_name_the_file_of_the_root_that_is_there() {
        let settings = Settings {
            compress: Some(CompressionPolicy::default()),
            ..Settings::default()
        };
        let scanner = Scanner::new(Symlinks::Inside, settings, None);
        let directories = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        for directory in &directories {
            let text = "the same text, again and again\n".repeat(100);
            fs::write(directory.path().join("page.txt"), text).expect("written");
        }
        let root = |number: usize| {
            let directory: &tempfile::TempDir = &directories[number];
            Arc::new(Root::open(directory.path()).expect("a root"))
        };
        let (old, new) = (root(0), root(1));
        let (manifest, _) = scanner.scan(&old, &Progress::default());
        let made = origins(&manifest);
        assert!(!made.is_empty());
        assert!(made.iter().all(|of| of.starts_with(old.path())), "{made:?}");
        let progress = Progress::default();
        let everything = Scope::Everything;
        let unsettled = Unsettled::Report;
        let outcome = scanner.reconcile(&new, &manifest, &everything, unsettled, &progress);
        let made = origins(&manifest.with(outcome.changes));
        assert!(!made.is_empty());
        assert!(made.iter().all(|of| of.starts_with(new.path())), "{made:?}");
    }
}
