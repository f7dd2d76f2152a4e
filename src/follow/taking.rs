//! Taking a release: its listing, its rules, and what memory and cache are to have of it before it is
//! served.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use bytesize::ByteSize;
use tokio::task::spawn_blocking;

use super::channel::ChannelReader;
use super::depot::{ATTEMPTS, Depot, FetchError};
use super::error::{RefusalReason, RefusedRelease};
use super::fetchers::aside;
use super::listed;
use super::names;
use crate::cache::CacheEntry;
use crate::locks::lock;
use crate::manifest::{Changes, Manifest};
use crate::progress::ByteProgress;
use crate::representation::{Data, MAX_IN_MEMORY, Representation, Resource};
use crate::rules::RuleFile;
use crate::settings::{Prefetch, SettingFlag};
use crate::store::{BlobHash, ReleaseRecord, SiteListing, StoreError, StoreErrorKind, layout};

/// Contents that are fetched at the same time before a release is served.
const MAX_PREFETCHES: usize = 64;
/// The longest rule file that a scan reads.
const MAX_RULES: u64 = 16 << 20;

/// A release that can be served.
pub(super) struct TakenRelease {
    pub(super) record: ReleaseRecord,
    pub(super) manifest: Arc<Manifest>,
    /// What makes a manifest of it without the store.
    pub(super) source: ReleaseSource,
}

/// All that is needed to make a manifest of a release, but for the bytes of its files.
#[derive(Clone)]
pub(super) struct ReleaseSource {
    /// The listing, as it is stored.
    pub(super) listing: Bytes,
    /// The content of its rule files.
    pub(super) rules: Vec<(RuleFile, Vec<u8>)>,
}

/// Why a release is not served.
#[derive(Debug)]
pub(super) enum TakeError {
    /// The store can't be asked now.
    Passing(StoreError),
    /// It can't be served.
    Refused(Box<RefusedRelease>),
}

/// What has to be known to take releases.
#[derive(Clone)]
pub(super) struct Taker {
    pub(super) depot: Arc<Depot>,
    pub(super) prefetch: Prefetch,
    /// The flags that were typed here.
    pub(super) typed: Vec<SettingFlag>,
    /// How much of what is fetched before a release is served is there.
    pub(super) progress: Arc<ByteProgress>,
    /// What attempts to take a release have loaded that have failed: the next one needs most of it.
    pub(super) loaded: Arc<Mutex<LoadedContents>>,
    /// The release of which was last found out whether the cache has room for it.
    pub(super) checked: Arc<AtomicU64>,
}

/// Contents in memory, by their hashes.
pub(super) type LoadedContents = HashMap<[u8; 32], Bytes>;

impl Taker {
    /// Makes a release ready to be served in the place of `current`. `on_known` is told what it has before
    /// the content is fetched.
    ///
    /// # Errors
    /// When the store can't be asked, or the release can't be served.
    pub(super) async fn take(
        &self,
        channel: &ChannelReader,
        record: ReleaseRecord,
        current: Option<Arc<Manifest>>,
        on_known: &(dyn Fn(&Arc<Manifest>) + Send + Sync),
    ) -> Result<TakenRelease, TakeError> {
        let refused = |reason| TakeError::Refused(channel.refused(record.number, reason));
        let fetched = |error| failure(channel, record.number, error);
        let source = self.source(&record).await.map_err(fetched)?;
        let manifest = self
            .assemble(&record, &source, &self.typed, current.clone())
            .await
            .map_err(refused)?;
        let manifest = Arc::new(manifest);
        self.keep_record(channel, &record).await;
        on_known(&manifest);
        let loading = self.prefetch(record.number, &manifest, current);
        let loaded = loading.await.map_err(fetched)?;
        let manifest = aside(move || with_loaded(manifest, &loaded)).await;
        Ok(TakenRelease {
            record,
            manifest,
            source,
        })
    }

    /// The site of an earlier release. Nothing of it is fetched.
    ///
    /// # Errors
    /// When the store can't be asked, or the release could not be served.
    pub(super) async fn earlier(
        &self,
        channel: &ChannelReader,
        record: &ReleaseRecord,
        current: Option<Arc<Manifest>>,
    ) -> Result<Manifest, TakeError> {
        let fetched = |error| failure(channel, record.number, error);
        let source = self.source(record).await.map_err(fetched)?;
        // What it says of answers is past.
        let assembled = self.assemble(record, &source, &[], current).await;
        assembled.map_err(|reason| TakeError::Refused(channel.refused(record.number, reason)))
    }

    /// The same, as far as the cache has all that is needed for it.
    pub(super) async fn cached_earlier(
        &self,
        record: &ReleaseRecord,
        current: Arc<Manifest>,
    ) -> Option<Manifest> {
        let listing = self.cached_listing(&record.manifest).await?;
        let mut rules = Vec::new();
        let parsed = self.parse(record.manifest, listing.clone()).await.ok()?;
        for (file, content) in parsed.rules {
            let length = Some(content.size).filter(|size| *size <= MAX_RULES)?;
            let hash = *content.hash.as_bytes();
            rules.push((file, self.depot.cached_content(hash, length).await?));
        }
        let source = ReleaseSource { listing, rules };
        let assembled = self.assemble(record, &source, &[], Some(current)).await;
        assembled.ok()
    }

    /// Keeps the record of a release in the cache: a start without the store follows them back for what
    /// earlier releases had.
    pub(super) async fn keep_record(&self, channel: &ChannelReader, record: &ReleaseRecord) {
        let name = names::record(channel.followed(), record.number);
        self.depot.put(name, &record.to_json()).await;
    }

    /// The record of a release that the cache has.
    pub(super) async fn cached_record(
        &self,
        channel: &ChannelReader,
        number: u64,
    ) -> Option<ReleaseRecord> {
        let name = names::record(channel.followed(), number);
        let bytes = self.depot.cached(name).await?;
        ReleaseRecord::read(&bytes, number).ok()
    }

    /// The listing and the rules of a release.
    async fn source(&self, record: &ReleaseRecord) -> Result<ReleaseSource, FetchError> {
        let listing = self.listing(&record.manifest).await?;
        let mut rules = Vec::new();
        let parsed = self.parse(record.manifest, listing.clone()).await;
        for (file, content) in parsed.map_err(FetchError::Store)?.rules {
            if content.size > MAX_RULES {
                let (key, store) = (layout::blob(&content.hash), self.depot.store.url());
                let object = format!("{store}/{key} ({})", file.name());
                return Err(FetchError::Damaged(object));
            }
            let hash = *content.hash.as_bytes();
            rules.push((file, self.depot.content(hash, content.size).await?));
        }
        Ok(ReleaseSource { listing, rules })
    }

    async fn parse(&self, hash: BlobHash, bytes: Bytes) -> Result<SiteListing, StoreError> {
        let store = self.depot.store.clone();
        let (again, copy) = (store.clone(), bytes.clone());
        let parsed = spawn_blocking(move || store.listing_of(&hash, &bytes)).await;
        // A panic has been reported by its hook.
        parsed.unwrap_or_else(|_| again.listing_of(&hash, &copy))
    }

    /// A listing, as it is stored. It is proven when it is parsed.
    async fn listing(&self, hash: &BlobHash) -> Result<Bytes, FetchError> {
        if let Some(bytes) = self.cached_listing(hash).await {
            return Ok(bytes);
        }
        let mut bytes = Bytes::new();
        for _ in 0..ATTEMPTS {
            let fetched = self.depot.store.listing_bytes(hash).await;
            bytes = fetched.map_err(FetchError::Store)?;
            self.depot.metrics().fetched_bytes.add(bytes.len() as u64);
            if is_listing(&bytes, hash).await {
                self.depot.put(names::listing(hash), &bytes).await;
                break;
            }
        }
        // Who parses it says that it is damaged.
        Ok(bytes)
    }

    async fn cached_listing(&self, hash: &BlobHash) -> Option<Bytes> {
        let bytes = self.depot.cached(names::listing(hash)).await?.into();
        is_listing(&bytes, hash).await.then_some(bytes)
    }

    /// The site of a release, proven to have its digest.
    pub(super) async fn assemble(
        &self,
        record: &ReleaseRecord,
        source: &ReleaseSource,
        typed: &[SettingFlag],
        current: Option<Arc<Manifest>>,
    ) -> Result<Manifest, RefusalReason> {
        let (record, source) = (record.clone(), source.clone());
        let (typed, depot) = (typed.to_vec(), Arc::clone(&self.depot));
        let assembled = spawn_blocking(move || {
            let listing = depot.store.listing_of(&record.manifest, &source.listing);
            let listing = listing.map_err(|error| RefusalReason::Content(error.to_string()))?;
            if listing.digest != record.digest {
                return Err(RefusalReason::OtherListing {
                    record: record.digest,
                    listing: listing.digest,
                });
            }
            let settings = listed::settings(&listing, &typed)?;
            let current = current.as_deref();
            listed::assemble(&record, listing, settings, source.rules, current, &depot)
        });
        assembled
            .await
            .unwrap_or_else(|stopped| Err(RefusalReason::Content(stopped.to_string())))
    }

    /// Fetches what is to be there before `manifest` is served. Returns the contents that are in memory.
    async fn prefetch(
        &self,
        number: u64,
        manifest: &Arc<Manifest>,
        current: Option<Arc<Manifest>>,
    ) -> Result<LoadedContents, FetchError> {
        let (taker, manifest) = (self.clone(), Arc::clone(manifest));
        let planning = aside(move || {
            taker.check_room(number, &manifest);
            taker.plan(&manifest, current.as_deref())
        });
        let (wanted, mut loaded) = planning.await;
        let total = wanted
            .values()
            .fold(0, |sum: u64, it| sum.saturating_add(*it));
        // What is on its way takes memory as well. Where slow clients hold all of it, a release is
        // taken nevertheless.
        let _room = self.depot.reserve_for_prefetch(total);
        self.progress.begin(total);
        let prefetching = Arc::new(Prefetching {
            depot: Arc::clone(&self.depot),
            progress: Arc::clone(&self.progress),
            contents: wanted.into_iter().collect(),
            next: AtomicUsize::new(0),
            loaded: Mutex::default(),
            failure: Mutex::default(),
        });
        let workers = MAX_PREFETCHES.min(prefetching.contents.len());
        let workers: Vec<_> = (0..workers)
            .map(|_| {
                let work = Arc::clone(&prefetching);
                self.depot.fetchers.spawn(async move { work.run().await })
            })
            .collect();
        for worker in workers {
            // A panic has been reported by its hook; what was not fetched is fetched when it is
            // asked for.
            let _ = worker.await;
        }
        self.progress.begin(0);
        loaded.extend(lock(&prefetching.loaded).drain());
        if let Some(failure) = lock(&prefetching.failure).take() {
            *lock(&self.loaded) = loaded;
            return Err(failure);
        }
        Ok(loaded)
    }

    /// The contents to fetch, with their lengths, and those of the release that are in memory although
    /// its manifest does not have them there: by another path, or since an attempt that failed.
    fn plan(
        &self,
        manifest: &Manifest,
        current: Option<&Manifest>,
    ) -> (HashMap<[u8; 32], u64>, LoadedContents) {
        let mut wanted = self.wanted(manifest);
        let mut loaded = mem::take(&mut *lock(&self.loaded));
        loaded.retain(|hash, bytes| {
            let is_wanted = wanted.get(hash) == Some(&(bytes.len() as u64));
            if is_wanted {
                wanted.remove(hash);
            }
            is_wanted
        });
        let known = current.into_iter().flat_map(Manifest::iter);
        for known in known.flat_map(|resource| resource.representations()) {
            if let Data::Memory(bytes) = &known.data
                && wanted.get(known.etag.hash()) == Some(&(bytes.len() as u64))
            {
                wanted.remove(known.etag.hash());
                loaded.insert(*known.etag.hash(), bytes.clone());
            }
        }
        (wanted, loaded)
    }

    /// Gives up what an attempt has loaded that has failed for good.
    pub(super) fn forget_loaded(&self) {
        lock(&self.loaded).clear();
    }

    /// Says so, once for each, if all of a release is to be in the cache, and is more than that holds.
    fn check_room(&self, number: u64, manifest: &Manifest) {
        let Some(cache) = self.depot.cache.as_ref() else {
            return;
        };
        let is_checked = self.checked.swap(number, Ordering::Relaxed) == number;
        if is_checked || self.prefetch != Prefetch::All {
            return;
        }
        let all = manifest.iter().flat_map(|it| it.representations());
        let all: HashMap<_, _> = all.map(|it| (*it.etag.hash(), it.length)).collect();
        let needed = all.values().fold(0, |sum: u64, it| sum.saturating_add(*it));
        if needed > cache.limit() {
            let show = |bytes| ByteSize::b(bytes).display().iec();
            let (needed, limit) = (show(needed), show(cache.limit()));
            tracing::warn!(
                %needed, %limit,
                "--prefetch all: the release has {needed}, and --cache-size is {limit}: what does not \
                 fit is fetched when it is asked for"
            );
        }
    }

    /// The contents to fetch, with their lengths. What is in the cache is there.
    fn wanted(&self, manifest: &Manifest) -> HashMap<[u8; 32], u64> {
        let is_wanted = |each: &&Representation| match (self.prefetch, &each.data) {
            (Prefetch::None, _) | (_, Data::Memory(_)) => false,
            (Prefetch::Small, _) => each.length <= MAX_IN_MEMORY,
            (Prefetch::All, _) => true,
        };
        let all = manifest
            .iter()
            .flat_map(|resource| resource.representations());
        let mut wanted: HashMap<_, _> = all
            .filter(is_wanted)
            .map(|each| (*each.etag.hash(), each.length))
            .collect();
        wanted.retain(|hash, length| !self.depot.is_cached(hash, *length));
        wanted
    }
}

/// Contents that are fetched by several tasks.
struct Prefetching {
    depot: Arc<Depot>,
    progress: Arc<ByteProgress>,
    contents: Vec<([u8; 32], u64)>,
    next: AtomicUsize,
    loaded: Mutex<LoadedContents>,
    /// What has gone wrong: then nothing more is fetched.
    failure: Mutex<Option<FetchError>>,
}

impl Prefetching {
    async fn run(&self) {
        while let Some((hash, length)) = self.next_content() {
            if let Err(error) = self.fetch(hash, length).await {
                let mut failure = lock(&self.failure);
                // What can't be had at all says more than what can't be had now.
                if failure.as_ref().is_none_or(FetchError::is_passing) {
                    *failure = Some(error);
                }
                return;
            }
            self.progress.add(length);
        }
    }

    fn next_content(&self) -> Option<([u8; 32], u64)> {
        if lock(&self.failure).is_some() {
            return None;
        }
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.contents.get(next).copied()
    }

    async fn fetch(&self, hash: [u8; 32], length: u64) -> Result<(), FetchError> {
        let memory = self.depot.memory();
        let is_small = length <= MAX_IN_MEMORY;
        if is_small && memory.has_room(length) {
            let content = self.depot.content(hash, length).await?;
            if let Ok(bytes) = memory.keep(content) {
                lock(&self.loaded).insert(hash, bytes);
            }
        } else if self.depot.cache.is_some() {
            self.depot.keep(hash, length).await?;
        }
        // Otherwise nothing would be left of it.
        Ok(())
    }
}

/// Whether a listing is the one with this hash. It may have many megabytes.
async fn is_listing(bytes: &Bytes, hash: &BlobHash) -> bool {
    let (bytes, hash) = (bytes.clone(), *hash);
    aside(move || BlobHash::of(&bytes) == hash).await
}

/// The manifest with these contents in memory.
pub(super) fn with_loaded(manifest: Arc<Manifest>, loaded: &LoadedContents) -> Arc<Manifest> {
    if loaded.is_empty() {
        return manifest;
    }
    let changed: Vec<_> = manifest
        .iter()
        .filter_map(|resource| in_memory(resource, loaded))
        .collect();
    Arc::new(manifest.with(Changes {
        changed,
        ..Changes::default()
    }))
}

/// The resource with what is loaded of its content in memory; `None` if that is none of it.
pub(super) fn in_memory(resource: &Resource, loaded: &LoadedContents) -> Option<Arc<Resource>> {
    // A length is what a listing says; the bytes are what the hash says.
    let loaded = |each: &Representation| {
        let is_remote = matches!(each.data, Data::Remote(_));
        let bytes = loaded.get(each.etag.hash()).filter(|_| is_remote);
        bytes.filter(|bytes| bytes.len() as u64 == each.length)
    };
    if !resource
        .representations()
        .any(|each| loaded(each).is_some())
    {
        return None;
    }
    let mut resource = resource.clone();
    for each in std::iter::once(&mut resource.identity).chain(&mut *resource.encoded) {
        if let Some(bytes) = loaded(each) {
            each.data = Data::Memory(bytes.clone());
        }
    }
    // Under its other path it has the same content; its fields there are made again.
    resource.set_clean(None);
    Some(Arc::new(resource))
}

/// Resources of a release with content that could be in memory and is not.
pub(super) fn small_and_remote(manifest: &Manifest) -> Vec<Arc<Resource>> {
    let is_small = |each: &Representation| {
        each.length <= MAX_IN_MEMORY && matches!(each.data, Data::Remote(_))
    };
    manifest
        .iter()
        .filter(|resource| resource.representations().any(is_small))
        .cloned()
        .collect()
}

/// The contents of these resources that could be in memory and are not, with their lengths.
pub(super) fn small_contents(resources: &[Arc<Resource>]) -> HashSet<([u8; 32], u64)> {
    resources
        .iter()
        .flat_map(|resource| resource.representations())
        .filter(|each| each.length <= MAX_IN_MEMORY && matches!(each.data, Data::Remote(_)))
        .map(|each| (*each.etag.hash(), each.length))
        .collect()
}

/// What it means that something of a release can't be fetched.
fn failure(channel: &ChannelReader, number: u64, error: FetchError) -> TakeError {
    let reason = match error {
        FetchError::Store(error) if error.is_passing() => return TakeError::Passing(error),
        FetchError::Store(error) if error.kind == StoreErrorKind::Missing => {
            format!("{error}: it was collected, or never written")
        }
        FetchError::Store(error) => error.to_string(),
        FetchError::Away(object) => format!("{object} cannot be fetched: the store is away"),
        FetchError::NoMemory(object) => format!("there is no memory for {object}"),
        FetchError::Busy(object) => format!("too much is being fetched, {object} cannot be"),
        FetchError::Damaged(object) => {
            format!("{object} is damaged: its bytes are not those that its name says")
        }
    };
    TakeError::Refused(channel.refused(number, RefusalReason::Content(reason)))
}

impl ReleaseSource {
    /// As an entry of the cache, with the record of its release.
    pub(super) fn to_entry(&self, record: &ReleaseRecord) -> CacheEntry {
        let record = record.to_json();
        let rules = RuleFile::ALL.map(|file| {
            let found = self.rules.iter().find(|(it, _)| *it == file);
            found.map_or(&[][..], |(_, text)| text)
        });
        let pieces = [&record[..], &self.listing[..]];
        CacheEntry::new(pieces.into_iter().chain(rules))
    }

    /// What an entry of the cache has.
    pub(super) fn of_entry(entry: &CacheEntry) -> Option<(ReleaseRecord, Self)> {
        let mut pieces = entry
            .pieces
            .iter()
            .map(|piece| &entry.bytes[piece.range.clone()]);
        let record = pieces.next()?;
        let number = serde_json::from_slice::<ReleaseRecord>(record).ok()?.number;
        let record = ReleaseRecord::read(record, number).ok()?;
        let listing = Bytes::copy_from_slice(pieces.next()?);
        let rules = RuleFile::ALL.into_iter().zip(pieces);
        let source = Self {
            listing,
            // A file without rules and none mean the same.
            rules: rules
                .filter(|(_, text)| !text.is_empty())
                .map(|(file, text)| (file, text.to_vec()))
                .collect(),
        };
        Some((record, source))
    }
}
