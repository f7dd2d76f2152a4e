//! The bytes of releases: from `--cache` or else from the store, proven, and fetched once for all who
//! want them at the same time.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::fetchers::{Fetchers, aside};
use super::names;
use crate::cache::{Cache, CacheEntry, EntryName};
use crate::locks::lock;
use crate::memory::{Memory, Reservation};
use crate::metrics::{Counter, Metrics, StoreMetrics};
use crate::representation::{
    GROUP_SIZE, GroupHash, MAX_WHOLE, PieceFuture, PieceKey, PieceSpan, RemoteError, RemotePieces,
    RemoteSource,
};
use crate::scan::hash::root_hash;
use crate::store::{BlobHash, Store, StoreError, StoreErrorKind, layout};

/// What a store gives damaged is asked for once more: it may have been damaged on its way.
pub(super) const ATTEMPTS: usize = 2;
/// How long a request waits for a piece.
const MAX_WAIT: Duration = Duration::from_secs(15);
/// Pieces that the store is asked for at the same time for requests, at most. Each takes memory twice.
const MAX_FETCHES: usize = 64;
/// Part of `--memory` that they may take in addition to it.
const FETCHES_SHARE: u64 = 8;
/// What is fetched before a release is served takes memory twice while it is on its way: received, and as a
/// whole. Counted in this unit, and within the same part of `--memory`.
const ROOM_UNIT: u64 = 1 << 10;
/// So much of it at least: one piece.
const MIN_ROOM: u64 = 2 * MAX_WHOLE;
/// And at most.
const MAX_ROOM: u64 = 64 * MAX_WHOLE;
/// Pieces that wait for their turn, at most: honest requests would wait longer than anybody waits.
const MAX_QUEUED: usize = 1024;
/// Pieces that are read from the cache at the same time. They wait for no store.
const MAX_CACHE_READS: usize = 16;
/// While the store is away, it is asked for a piece so often: it may be back before who looks for
/// releases knows.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// How long a request waits for a piece then.
const MAX_WAIT_WHILE_AWAY: Duration = Duration::from_secs(1);
/// Pieces that are fetched ahead of a client that takes one after another: a store answers after
/// tens of milliseconds.
const READ_AHEAD: u32 = 3;
/// How old may be what is known of the cache, where something is not there: other processes write, too.
const MAX_INDEX_AGE: Duration = Duration::from_secs(5);
/// Pieces of one content that are looked up in the cache at once.
const MAX_LOOKED_UP: u32 = 4096;
/// Objects whose faults are remembered, so that each is named once.
const MAX_NAMED: usize = 1000;

/// Why bytes can't be had.
#[derive(Debug)]
pub(super) enum FetchError {
    /// The store says why.
    Store(StoreError),
    /// The store was found to be away a moment ago.
    Away(String),
    /// It gives other bytes.
    Damaged(String),
    /// There is no room for them.
    NoMemory(String),
    /// Too much is being fetched.
    Busy(String),
}

impl FetchError {
    /// Whether they may be had later, without anybody doing anything about it.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Store(error) => error.is_passing(),
            Self::Damaged(_) => false,
            Self::Away(_) | Self::NoMemory(_) | Self::Busy(_) => true,
        }
    }

    pub(super) fn into_remote(self, location: String) -> RemoteError {
        match self {
            Self::Store(error) => RemoteError::Unavailable {
                location,
                message: error.to_string(),
            },
            Self::Away(location) => RemoteError::Unavailable {
                message: format!("cannot fetch {location}: the store does not answer"),
                location,
            },
            Self::Busy(location) => RemoteError::Unavailable {
                message: format!("cannot fetch {location}: too much is being fetched"),
                location,
            },
            Self::Damaged(location) => RemoteError::Damaged { location },
            Self::NoMemory(location) => RemoteError::NoMemory { location },
        }
    }
}

/// A piece that is being fetched: what became of it, in the end.
type PieceOutcome = Option<Result<Bytes, RemoteError>>;

/// The bytes of releases.
#[derive(Debug)]
pub(super) struct Depot {
    pub(super) store: Store,
    pub(super) cache: Option<Arc<Cache>>,
    pub(super) fetchers: Fetchers,
    memory: Arc<Memory>,
    metrics: Arc<Metrics>,
    under_way: Mutex<HashMap<PieceKey, Arc<watch::Sender<PieceOutcome>>>>,
    /// For asking the store.
    fetches: Semaphore,
    /// Room for what is fetched before a release is served, in [`ROOM_UNIT`].
    room: Semaphore,
    /// For reading the cache, which goes on while the store stalls.
    cache_reads: Semaphore,
    /// When the store was last asked although it is away.
    probed: Mutex<Option<Instant>>,
    /// Pieces that were begun with before a release is served: whoever looks for releases gets on.
    pub(super) begun: Counter,
    /// Objects that were said to be missing or damaged.
    named: Mutex<HashSet<[u8; 32]>>,
}

impl Depot {
    pub(super) fn new(
        store: Store,
        cache: Option<Arc<Cache>>,
        fetchers: Fetchers,
        memory: Arc<Memory>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let fetches = memory.limit() / FETCHES_SHARE / MAX_WHOLE;
        Self {
            store,
            cache,
            fetchers,
            metrics,
            under_way: Mutex::default(),
            fetches: Semaphore::new(fetches.clamp(4, MAX_FETCHES as u64) as usize),
            room: Semaphore::new((room_for_prefetch(&memory) / ROOM_UNIT) as usize),
            cache_reads: Semaphore::new(MAX_CACHE_READS),
            probed: Mutex::default(),
            begun: Counter::default(),
            named: Mutex::default(),
            memory,
        }
    }

    pub(super) fn metrics(&self) -> &StoreMetrics {
        self.metrics.store.get_or_init(StoreMetrics::default)
    }

    pub(super) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Content of the store.
    pub(super) fn source(self: &Arc<Self>, hash: [u8; 32], length: u64) -> Arc<RemoteSource> {
        Arc::new(RemoteSource {
            hash,
            length,
            groups: OnceLock::new(),
            pieces: Arc::clone(self) as Arc<dyn RemotePieces>,
        })
    }

    /// Whether the cache has all of some content. It may be damaged.
    pub(super) fn is_cached(&self, hash: &[u8; 32], length: u64) -> bool {
        self.cache.as_ref().is_some_and(|cache| {
            let mut pieces = 0..PieceSpan::count(length);
            let has_tree = length <= MAX_WHOLE || cache.has(&names::tree(hash));
            has_tree && pieces.all(|index| cache.has(&names::piece(hash, index)))
        })
    }

    /// All of some content, proven, wherever it is. Content that is long takes as much memory.
    pub(super) async fn content(
        self: &Arc<Self>,
        hash: [u8; 32],
        length: u64,
    ) -> Result<Vec<u8>, FetchError> {
        let source = self.source(hash, length);
        let mut content = self.proven_piece(&source, 0).await?;
        for index in 1..PieceSpan::count(length) {
            content.extend(self.proven_piece(&source, index).await?);
        }
        Ok(content)
    }

    /// The same, if the cache has all of it.
    pub(super) async fn cached_content(
        self: &Arc<Self>,
        hash: [u8; 32],
        length: u64,
    ) -> Option<Vec<u8>> {
        let source = self.source(hash, length);
        let groups = self.known_groups(&source).await?;
        let mut content = Vec::new();
        for index in 0..PieceSpan::count(length) {
            let span = PieceSpan::with_index(index, length)?;
            content.extend(self.cached_piece(&source, span, &groups).await?);
        }
        Some(content)
    }

    /// The same of content of one piece. Blocks.
    pub(super) fn read_cached(&self, hash: &[u8; 32], length: u64) -> Option<Vec<u8>> {
        let bytes = self.cache.as_ref()?.get(&names::piece(hash, 0))?.bytes;
        let span = PieceSpan::with_index(0, length)?;
        span.is_proven_by(&bytes, hash, &[], length)
            .then_some(bytes)
    }

    /// Has all of some content be in the cache.
    pub(super) async fn keep(
        self: &Arc<Self>,
        hash: [u8; 32],
        length: u64,
    ) -> Result<(), FetchError> {
        let source = self.source(hash, length);
        let count = PieceSpan::count(length);
        for start in (0..count).step_by(MAX_LOOKED_UP as usize) {
            let (depot, end) = (
                Arc::clone(self),
                count.min(start.saturating_add(MAX_LOOKED_UP)),
            );
            let missing = aside(move || depot.missing_pieces(&hash, start..end)).await;
            for index in missing {
                self.proven_piece(&source, index).await?;
            }
        }
        self.groups(&source).await.map(drop)
    }

    /// Those of these pieces that the cache does not have. Blocks.
    fn missing_pieces(&self, hash: &[u8; 32], indexes: Range<u32>) -> Vec<u32> {
        let is_there = |index: u32| {
            let name = names::piece(hash, index);
            self.cache.as_ref().is_some_and(|cache| cache.has(&name))
        };
        indexes.filter(|index| !is_there(*index)).collect()
    }

    /// Takes from the budget for content what so many bytes that are fetched before a release is served
    /// take at the same time, if there is room for that.
    pub(super) fn reserve_for_prefetch(&self, bytes: u64) -> Option<Reservation> {
        let room = room_for_prefetch(&self.memory);
        self.memory.reserve(bytes.saturating_mul(2).min(room))
    }

    /// A piece, outside of the budget for content.
    pub(super) async fn proven_piece(
        self: &Arc<Self>,
        source: &RemoteSource,
        index: u32,
    ) -> Result<Vec<u8>, FetchError> {
        let Some(span) = PieceSpan::with_index(index, source.length) else {
            return Err(FetchError::Damaged(self.location(source)));
        };
        self.begun.increment();
        let groups = self.groups(source).await?;
        if let Some(bytes) = self.cached_piece(source, span, &groups).await {
            return Ok(bytes);
        }
        let room = (2 * span.length as u64).div_ceil(ROOM_UNIT);
        // The semaphore is never closed.
        let _room = self.room.acquire_many(room as u32).await;
        for _ in 0..ATTEMPTS {
            if let Some(bytes) = self.ask(source, span).await? {
                let bytes = Vec::from(bytes);
                if span.is_proven_by(&bytes, &source.hash, &groups, source.length) {
                    self.put(names::piece(&source.hash, index), &bytes).await;
                    return Ok(bytes);
                }
            }
        }
        Err(FetchError::Damaged(self.location(source)))
    }

    /// A piece that the cache has, proven, outside of the budget for content.
    async fn cached_piece(
        &self,
        source: &RemoteSource,
        span: PieceSpan,
        groups: &[GroupHash],
    ) -> Option<Vec<u8>> {
        let bytes = self.cached(names::piece(&source.hash, span.index)).await?;
        span.is_proven_by(&bytes, &source.hash, groups, source.length)
            .then_some(bytes)
    }

    /// A piece within the budget for content; `None` if nobody waits for it any more. What the cache has
    /// waits for no store, however many wait for that.
    async fn piece_in_memory(
        self: &Arc<Self>,
        source: &RemoteSource,
        index: u32,
        wanted: &WantedPiece,
    ) -> Result<Option<Bytes>, FetchError> {
        let Some(span) = PieceSpan::with_index(index, source.length) else {
            return Err(FetchError::Damaged(self.location(source)));
        };
        if let Some(piece) = self.cached_in_memory(source, span).await? {
            return Ok(Some(piece));
        }
        if self.is_away() && !self.may_probe() {
            return Err(FetchError::Away(self.location(source)));
        }
        let Some(_permit) = wanted.turn(source).await? else {
            return Ok(None);
        };
        let groups = self.groups(source).await?;
        for _ in 0..ATTEMPTS {
            let asked = self.ask(source, span).await?;
            let Some(bytes) = asked.filter(|bytes| bytes.len() == span.length) else {
                continue;
            };
            if let Some(piece) = self.proven_copy(source, span, &groups, &bytes).await? {
                self.put(names::piece(&source.hash, index), &bytes).await;
                return Ok(Some(piece));
            }
        }
        Err(FetchError::Damaged(self.location(source)))
    }

    /// A piece that the cache has, within the budget for content.
    async fn cached_in_memory(
        &self,
        source: &RemoteSource,
        span: PieceSpan,
    ) -> Result<Option<Bytes>, FetchError> {
        if self.cache.is_none() {
            return Ok(None);
        }
        // The semaphore is never closed.
        let _permit = self.cache_reads.acquire().await;
        let Some(groups) = self.known_groups(source).await else {
            return Ok(None);
        };
        let Some(bytes) = self.cached(names::piece(&source.hash, span.index)).await else {
            return Ok(None);
        };
        self.metrics().cache_hits.increment();
        if bytes.len() != span.length {
            return Ok(None);
        }
        self.proven_copy(source, span, &groups, &bytes).await
    }

    /// A copy of these bytes within the budget for content, if they are the piece.
    async fn proven_copy(
        &self,
        source: &RemoteSource,
        span: PieceSpan,
        groups: &[GroupHash],
        bytes: &[u8],
    ) -> Result<Option<Bytes>, FetchError> {
        let buffer = self.memory.buffer(span.length).await;
        let no_memory = || FetchError::NoMemory(self.location(source));
        let mut buffer = buffer.ok_or_else(no_memory)?;
        buffer.space().copy_from_slice(bytes);
        // What was copied is what is sent: that is proven.
        let is_proven = span.is_proven_by(buffer.as_ref(), &source.hash, groups, source.length);
        Ok(is_proven.then(|| buffer.freeze()))
    }

    /// Whether the store was found to be away a moment ago: then nobody waits for it.
    fn is_away(&self) -> bool {
        self.metrics().reachability.is_away()
    }

    /// Whether the store may be asked although it is away: now and then it is.
    fn may_probe(&self) -> bool {
        let mut probed = lock(&self.probed);
        let is_due = probed.is_none_or(|at| at.elapsed() >= PROBE_INTERVAL);
        if is_due {
            *probed = Some(Instant::now());
        }
        is_due
    }

    /// Asks the store for a piece, which is not proven yet; `None` if it has another length.
    async fn ask(
        &self,
        source: &RemoteSource,
        span: PieceSpan,
    ) -> Result<Option<Bytes>, FetchError> {
        self.metrics().fetches.increment();
        let key = layout::blob(&BlobHash::new(source.hash));
        let asked = match source.length {
            0..=MAX_WHOLE => self.store.get(&key, source.length).await,
            _ => {
                let end = span.offset + span.length as u64;
                self.store.get_range(&key, span.offset..end).await
            }
        };
        match asked {
            Ok(bytes) => {
                self.metrics().fetched_bytes.add(bytes.len() as u64);
                self.metrics().reachability.note(true);
                Ok(Some(bytes))
            }
            // It has another length than the listing says.
            Err(error)
                if matches!(
                    error.kind,
                    StoreErrorKind::TooLarge | StoreErrorKind::Unusable
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(FetchError::Store(error)),
        }
    }

    /// The chaining values of the groups of some content, which make up its hash; none where it is
    /// proven whole.
    async fn groups(&self, source: &RemoteSource) -> Result<Arc<[GroupHash]>, FetchError> {
        if let Some(groups) = self.known_groups(source).await {
            return Ok(groups);
        }
        let key = layout::tree(&BlobHash::new(source.hash));
        let limit = source.length.div_ceil(GROUP_SIZE) * 32;
        for _ in 0..ATTEMPTS {
            self.metrics().fetches.increment();
            let tree = self
                .store
                .get(&key, limit)
                .await
                .map_err(FetchError::Store)?;
            if let Some(groups) = proven_groups(source, &tree) {
                self.put(names::tree(&source.hash), &tree).await;
                return Ok(Arc::clone(source.groups.get_or_init(|| groups)));
            }
        }
        Err(FetchError::Damaged(format!(
            "{key} of {}",
            self.store.url()
        )))
    }

    /// The same, as far as the store need not be asked.
    async fn known_groups(&self, source: &RemoteSource) -> Option<Arc<[GroupHash]>> {
        if source.length <= MAX_WHOLE {
            return Some(Arc::default());
        }
        if let Some(groups) = source.groups.get() {
            return Some(Arc::clone(groups));
        }
        let tree = self.cached(names::tree(&source.hash)).await?;
        let groups = proven_groups(source, &tree)?;
        Some(Arc::clone(source.groups.get_or_init(|| groups)))
    }

    /// What the cache has under a name.
    pub(super) async fn cached(&self, name: EntryName) -> Option<Vec<u8>> {
        let cache = Arc::clone(self.cache.as_ref()?);
        let read = move || {
            let known = cache.get(&name);
            let again = || cache.outdate(MAX_INDEX_AGE).then(|| cache.get(&name));
            known.or_else(|| again().flatten())
        };
        let read = spawn_blocking(read).await;
        // A panic has been reported by its hook.
        read.ok().flatten().map(|entry| entry.bytes)
    }

    /// Keeps bytes in the cache, if there is one.
    pub(super) async fn put(&self, name: EntryName, bytes: &[u8]) {
        if let Some(cache) = &self.cache {
            let (cache, entry) = (Arc::clone(cache), CacheEntry::new([bytes]));
            // A panic has been reported by its hook, and the bytes are only not kept.
            let _ = spawn_blocking(move || cache.put(&name, &entry)).await;
        }
    }

    /// Fetches a piece, unless somebody does already, and returns where its outcome will be. It is given
    /// up if nobody waits for that before it is its turn.
    fn begin(
        self: &Arc<Self>,
        source: &Arc<RemoteSource>,
        index: u32,
    ) -> watch::Receiver<PieceOutcome> {
        let key = source.key(index);
        let mut under_way = lock(&self.under_way);
        if let Some(outcome) = under_way.get(&key) {
            return outcome.subscribe();
        }
        let (sender, outcome) = watch::channel(None);
        let sender = Arc::new(sender);
        under_way.insert(key, Arc::clone(&sender));
        drop(under_way);
        let source = Arc::clone(source);
        let wanted = WantedPiece {
            depot: Arc::clone(self),
            key,
            outcome: sender,
        };
        self.fetchers.spawn(async move {
            let depot = &wanted.depot;
            let fetched = depot.piece_in_memory(&source, index, &wanted).await;
            let piece = fetched.map_err(|error| {
                depot.report(&source, &error);
                error.into_remote(depot.location(&source))
            });
            let Some(piece) = piece.transpose() else {
                return;
            };
            if let Ok(piece) = &piece {
                // Before it is no longer under way, or the next one would fetch it again.
                depot.memory.remember(key, piece.clone());
            }
            wanted.outcome.send_replace(Some(piece));
        });
        outcome
    }

    /// Counts a piece that can't be had, and names its object, once, if it is the object's fault.
    fn report(&self, source: &RemoteSource, error: &FetchError) {
        self.metrics().fetches_failed.increment();
        if error.is_passing() || self.is_away() {
            // That the store is away is said by who looks for newer releases. A file system that is not
            // mounted has nothing.
            return;
        }
        let mut named = lock(&self.named);
        if named.len() >= MAX_NAMED {
            named.clear();
        }
        if named.insert(source.hash) {
            let object = self.location(source);
            match error {
                FetchError::Store(error) => tracing::warn!(
                    %object, %error,
                    "{error}: what needs it is answered 503"
                ),
                FetchError::Damaged(_)
                | FetchError::Away(_)
                | FetchError::NoMemory(_)
                | FetchError::Busy(_) => {
                    tracing::warn!(
                        %object,
                        "{object} is damaged, its bytes are not those that its name says: what needs it \
                         is answered 503 or cut"
                    )
                }
            }
        }
    }

    /// Has faults be named again: another release may have repaired them.
    pub(super) fn forget_faults(&self) {
        lock(&self.named).clear();
    }
}

impl RemotePieces for Depot {
    fn piece(self: Arc<Self>, source: &Arc<RemoteSource>, index: u32) -> PieceFuture {
        let mut outcome = self.begin(source, index);
        let location = self.location(source);
        let patience = match self.is_away() {
            true => MAX_WAIT_WHILE_AWAY,
            false => MAX_WAIT,
        };
        Box::pin(async move {
            let waited = timeout(patience, outcome.wait_for(Option::is_some)).await;
            let unavailable = |reason: &str| RemoteError::Unavailable {
                message: format!("cannot fetch {location}: {reason}"),
                location: location.clone(),
            };
            match waited {
                Ok(Ok(piece)) => match &*piece {
                    Some(piece) => piece.clone(),
                    None => Err(unavailable("it was given up")),
                },
                Ok(Err(_)) => Err(unavailable("it was given up")),
                Err(_) => Err(unavailable("the store takes too long")),
            }
        })
    }

    fn read_ahead(self: Arc<Self>, source: &Arc<RemoteSource>, index: u32) {
        let is_sequence = index
            .checked_sub(1)
            .is_some_and(|before| self.memory.recall(&source.key(before)).is_some());
        if !is_sequence || self.memory.is_short() {
            return;
        }
        for next in index + 1..=index + READ_AHEAD {
            let is_there = PieceSpan::with_index(next, source.length).is_some();
            if is_there && self.memory.recall(&source.key(next)).is_none() {
                self.begin(source, next);
            }
        }
    }

    fn location(&self, source: &RemoteSource) -> String {
        let key = layout::blob(&BlobHash::new(source.hash));
        format!("{}/{key}", self.store.url())
    }
}

/// A piece that is fetched for those who wait for its outcome. When it is dropped, however that comes
/// about, the piece may be fetched anew.
struct WantedPiece {
    depot: Arc<Depot>,
    key: PieceKey,
    outcome: Arc<watch::Sender<PieceOutcome>>,
}

impl WantedPiece {
    /// Waits until the store may be asked; `None` if nobody waits for the piece any more: what clients
    /// have asked for that have gone must not hold up the others.
    async fn turn(&self, source: &RemoteSource) -> Result<Option<SemaphorePermit<'_>>, FetchError> {
        let fetches = &self.depot.fetches;
        if let Ok(permit) = fetches.try_acquire() {
            return Ok(Some(permit));
        }
        if lock(&self.depot.under_way).len() > MAX_QUEUED {
            return Err(FetchError::Busy(self.depot.location(source)));
        }
        loop {
            tokio::select! {
                biased;
                () = self.outcome.closed() => {
                    if self.give_up() {
                        return Ok(None);
                    }
                }
                // The semaphore is never closed.
                permit = fetches.acquire() => return Ok(permit.ok()),
            }
        }
    }

    /// Has the next one who wants the piece begin anew, if nobody waits for it now.
    fn give_up(&self) -> bool {
        let mut under_way = lock(&self.depot.under_way);
        let is_unwanted = self.outcome.receiver_count() == 0;
        if is_unwanted {
            remove(&mut under_way, self);
        }
        is_unwanted
    }
}

impl Drop for WantedPiece {
    fn drop(&mut self) {
        remove(&mut lock(&self.depot.under_way), self);
    }
}

/// Removes a piece, but not another attempt at it that has begun since.
fn remove(
    under_way: &mut HashMap<PieceKey, Arc<watch::Sender<PieceOutcome>>>,
    wanted: &WantedPiece,
) {
    if (under_way.get(&wanted.key)).is_some_and(|it| Arc::ptr_eq(it, &wanted.outcome)) {
        under_way.remove(&wanted.key);
    }
}

/// Bytes that what is fetched before a release is served may take while it is on its way.
fn room_for_prefetch(memory: &Memory) -> u64 {
    (memory.limit() / FETCHES_SHARE).clamp(MIN_ROOM, MAX_ROOM)
}

/// The chaining values in a tree, if they make up the hash of the content.
fn proven_groups(source: &RemoteSource, tree: &[u8]) -> Option<Arc<[GroupHash]>> {
    let (groups, rest) = tree.as_chunks::<32>();
    let is_complete = rest.is_empty() && groups.len() as u64 == source.length.div_ceil(GROUP_SIZE);
    let is_proven = is_complete && root_hash(groups, source.length) == source.hash;
    is_proven.then(|| groups.into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A depot of a store in a folder, with a cache next to it.
    fn depot(place: &Path) -> Arc<Depot> {
        std::fs::create_dir(place.join("store")).expect("a folder");
        let url = format!("file://{}", place.join("store").display());
        let url = url.parse().expect("a folder");
        let store = Store::open(
            &url,
            crate::store::StorePatience::default(),
            &crate::trust::Trust::Nobody,
        )
        .expect("a store");
        let cache = Cache::open(&place.join("cache"), None, 1 << 30).expect("a cache");
        let depot = Depot::new(
            store,
            Some(Arc::new(cache)),
            Fetchers::start(1).expect("a thread"),
            Memory::new(64 << 20, 8),
            Arc::default(),
        );
        Arc::new(depot)
    }

    async fn wait_until_nothing_is_under_way(depot: &Depot) {
        while !lock(&depot.under_way).is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_cache_waits_for_no_store_and_what_nobody_waits_for_is_given_up() {
        let place = tempfile::tempdir().expect("a folder");
        let depot = depot(place.path());
        let source = |content: &[u8]| {
            let hash = *blake3::hash(content).as_bytes();
            depot.source(hash, content.len() as u64)
        };
        let (cached, other) = (source(b"cached"), source(b"other"));
        depot.put(names::piece(&cached.hash, 0), b"cached").await;
        // All that may be asked of the store is under way, and gets no answer.
        let all = depot.fetches.available_permits();
        let stalled = depot.fetches.acquire_many(all as u32).await.expect("open");
        let piece = Arc::clone(&depot).piece(&cached, 0).await;
        assert_eq!(piece.expect("cached"), &b"cached"[..]);
        wait_until_nothing_is_under_way(&depot).await;
        let waiting = Arc::clone(&depot).piece(&other, 0);
        assert_eq!(lock(&depot.under_way).len(), 1);
        drop(waiting);
        wait_until_nothing_is_under_way(&depot).await;
        assert_eq!(depot.metrics().fetches.get(), 0);
        drop(stalled);
        let key = layout::blob(&BlobHash::new(other.hash));
        let put = depot.store.put(&key, Bytes::from_static(b"other"));
        put.await.expect("stored");
        let piece = Arc::clone(&depot).piece(&other, 0).await;
        assert_eq!(piece.expect("fetched"), &b"other"[..]);
    }

    #[tokio::test]
    async fn a_store_that_is_away_is_asked_now_and_then() {
        let place = tempfile::tempdir().expect("a folder");
        let depot = depot(place.path());
        depot.metrics().reachability.note(false);
        assert!(depot.may_probe());
        assert!(!depot.may_probe());
        let content = depot.source(*blake3::hash(b"x").as_bytes(), 1);
        assert!(Arc::clone(&depot).piece(&content, 0).await.is_err());
        assert_eq!(depot.metrics().fetches.get(), 0);
        *lock(&depot.probed) = None;
        let key = layout::blob(&BlobHash::new(content.hash));
        let put = depot.store.put(&key, Bytes::from_static(b"x"));
        put.await.expect("stored");
        let piece = Arc::clone(&depot).piece(&content, 0).await;
        assert_eq!(piece.expect("fetched"), &b"x"[..]);
        assert!(!depot.is_away());
    }

    #[tokio::test]
    async fn as_much_is_read_ahead_with_each_piece() {
        let place = tempfile::tempdir().expect("a folder");
        let depot = depot(place.path());
        let source = depot.source([7; 32], 20 * GROUP_SIZE);
        // Nothing is fetched: it stays under way.
        let all = depot.fetches.available_permits();
        let _stalled = depot.fetches.acquire_many(all as u32).await.expect("open");
        let known = |index| depot.memory.remember(source.key(index), Bytes::new());
        let ahead = || {
            let mut indexes: Vec<_> = lock(&depot.under_way).keys().map(|key| key.index).collect();
            indexes.sort_unstable();
            indexes
        };
        let mut waiting = Vec::new();
        Arc::clone(&depot).read_ahead(&source, 0);
        assert_eq!(ahead(), [0_u32; 0], "one piece is no sequence");
        known(0);
        for (index, expected) in [(1, 2..5), (2, 2..6), (3, 2..7)] {
            known(index);
            Arc::clone(&depot).read_ahead(&source, index);
            // Somebody waits for them, or they are given up.
            waiting.extend(ahead().into_iter().map(|index| depot.begin(&source, index)));
            assert_eq!(ahead(), expected.collect::<Vec<_>>(), "{index}");
        }
        known(18);
        Arc::clone(&depot).read_ahead(&source, 19);
        assert_eq!(ahead(), (2..7).collect::<Vec<_>>(), "there is no more");
    }

    #[tokio::test]
    async fn what_is_fetched_before_a_release_is_served_takes_turns_for_its_room() {
        let place = tempfile::tempdir().expect("a folder");
        let depot = depot(place.path());
        let content = vec![7; MAX_WHOLE as usize];
        let hash = *blake3::hash(&content).as_bytes();
        let key = layout::blob(&BlobHash::new(hash));
        let put = depot.store.put(&key, Bytes::from(content));
        put.await.expect("stored");
        // An eighth of --memory, for four pieces that each take it twice.
        let all = depot.room.available_permits();
        assert_eq!(all as u64 * ROOM_UNIT, 8 * MAX_WHOLE);
        let room = depot.room.acquire_many(all as u32 - 1).await.expect("open");
        let waiting = timeout(Duration::from_millis(50), depot.content(hash, MAX_WHOLE));
        assert!(waiting.await.is_err(), "there is no room");
        assert_eq!(depot.metrics().fetches.get(), 0);
        drop(room);
        let content = depot.content(hash, MAX_WHOLE).await;
        assert_eq!(content.expect("fetched").len() as u64, MAX_WHOLE);
        assert_eq!(depot.room.available_permits(), all);
        let used = depot.memory.used();
        let room = depot.reserve_for_prefetch(u64::MAX).expect("room");
        assert_eq!(depot.memory.used(), used + 8 * MAX_WHOLE);
        drop(room);
    }
}
