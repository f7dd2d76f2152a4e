//! The one budget for content: small bodies, groups on their way to a client, and the cache of
//! proven pieces all hold their share of it for as long as anybody can still reach their bytes.
//!
//! That includes bytes which only an old manifest or a slow client pins. When the budget is used
//! up, the cache gives way first; then streams wait for one another, and a small body that no
//! longer fits is read from its file when it is asked for.

mod sealing;

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use lru::LruCache;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::locks::lock;
use crate::representation::{GROUP_SIZE, PieceKey, PieceSpan};
use sealing::SealedFiles;

pub use sealing::SealedUse;

/// Prepared heads of responses take at most this part of the budget. Whoever asks for every form of
/// every file would otherwise leave no room for the bodies of what is published next.
const HEADS_SHARE: u64 = 16;
/// Bytes of bookkeeping for each body or piece: allocator overhead, reference count, cache entry.
const ENTRY_OVERHEAD: u64 = 160;
/// Capacity of the buffers that are reused. Buffers of other lengths are allocated exactly.
const POOLED_LENGTH: usize = GROUP_SIZE as usize;
/// How long a response waits for others to release memory.
const MAX_BUFFER_WAIT: Duration = Duration::from_secs(5);
/// Buffers to keep for the next response, so that a busy server does not allocate for each group.
const MAX_SPARE_BUFFERS: usize = 16;
/// How long after the last request that needed it content counts as in demand.
const MAX_DEMAND_AGE: Duration = Duration::from_secs(60);
/// Contents whose demand is remembered.
const MAX_DEMANDED: usize = 4096;
/// The smallest budget that can stream: some groups for each of a few clients.
pub const MIN_MEMORY: u64 = 16 << 20;

/// The budget of content and of open files, and what is cached within it.
#[derive(Debug)]
pub struct Memory {
    limit: u64,
    used: AtomicU64,
    /// The part of `used` that small bodies and prepared heads hold.
    kept: AtomicU64,
    /// The part of `kept` that prepared heads hold.
    heads: AtomicU64,
    /// Bytes that responses pin: what was handed out and has not been taken by the client yet.
    pinned: AtomicU64,
    proven: Mutex<LruCache<PieceKey, Bytes>>,
    files: Mutex<LruCache<[u8; 32], KeptFile>>,
    max_files: usize,
    sealed: SealedFiles,
    /// When a response last needed the content of a file with this hash.
    demanded: Mutex<LruCache<[u8; 32], Instant>>,
    spare: Mutex<Vec<Vec<u8>>>,
    freed: Notify,
}

impl Memory {
    /// A budget of `limit` bytes, [`MIN_MEMORY`] at least, and of `max_files` open files.
    pub fn new(limit: u64, max_files: usize) -> Arc<Self> {
        Arc::new(Self {
            // Bounded by `max_files` in `keep_open`: a bounded `LruCache` allocates all its room
            // in advance.
            files: Mutex::new(LruCache::unbounded()),
            max_files,
            // As the files, for the same reason.
            demanded: Mutex::new(LruCache::unbounded()),
            kept: AtomicU64::new(0),
            heads: AtomicU64::new(0),
            pinned: AtomicU64::new(0),
            limit: limit.max(MIN_MEMORY),
            used: AtomicU64::new(0),
            proven: Mutex::new(LruCache::unbounded()),
            sealed: SealedFiles::new(),
            spare: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// Bytes held now.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that responses pin now: of a piece that several of them send, each counts all.
    pub fn pinned(&self) -> u64 {
        self.pinned.load(Ordering::Relaxed)
    }

    /// Most bytes that may be held.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Shares a small body if the budget has room for it, without what is set aside for streams.
    ///
    /// # Errors
    /// The body, if there is no room.
    pub fn keep(self: &Arc<Self>, body: Vec<u8>) -> Result<Bytes, Vec<u8>> {
        match self.hold_kept(body.len()) {
            Some(held) => Ok(Bytes::from_owner(KeptBody {
                body: body.into_boxed_slice(),
                held,
            })),
            None => Err(body),
        }
    }

    /// Puts small bodies that are kept into one allocation: each has the cost of the bookkeeping for all
    /// of them. They are given up together, when the last is gone. Where there is no room for the copy,
    /// all stays as it is.
    pub fn pack(self: &Arc<Self>, bodies: &mut [&mut Bytes]) {
        if bodies.len() < 2 {
            return;
        }
        let all: Vec<&[u8]> = bodies.iter().map(|body| &***body).collect();
        let Ok(packed) = self.keep(all.concat()) else {
            return;
        };
        let mut start = 0;
        for body in bodies {
            let end = start + body.len();
            **body = packed.slice(start..end);
            start = end;
        }
    }

    /// Shares the head of a response, if the share of heads has room for it; `None` if not.
    pub fn keep_head(self: &Arc<Self>, head: &[u8]) -> Option<Bytes> {
        let bytes = head.len() as u64 + ENTRY_OVERHEAD;
        let most = self.limit / HEADS_SHARE;
        let add = |heads: u64| heads.checked_add(bytes).filter(|sum| *sum <= most);
        let relaxed = Ordering::Relaxed;
        self.heads.fetch_update(relaxed, relaxed, add).ok()?;
        let Some(held) = self.hold_kept(head.len()) else {
            self.heads.fetch_sub(bytes, relaxed);
            return None;
        };
        Some(Bytes::from_owner(KeptHead(KeptBody {
            body: head.into(),
            held,
        })))
    }

    /// Takes the room of a body that is kept from the budget.
    fn hold_kept(self: &Arc<Self>, length: usize) -> Option<Reservation> {
        let length = length as u64;
        let has_room = self.has_room(length);
        let held = has_room.then(|| self.hold(length + ENTRY_OVERHEAD))??;
        self.kept.fetch_add(held.bytes, Ordering::Relaxed);
        Some(held)
    }

    /// Whether a small body of `length` bytes could be kept, if the cache gave way.
    pub fn has_room(&self, length: u64) -> bool {
        let kept = self.kept.load(Ordering::Relaxed);
        kept.saturating_add(length + ENTRY_OVERHEAD) <= self.limit - self.for_streams()
    }

    /// Bytes set aside for streams, which small bodies may not use.
    fn for_streams(&self) -> u64 {
        (self.limit / 8).clamp(MIN_MEMORY / 2, 64 << 20)
    }

    /// A private buffer of `length` bytes for content that is not proven yet. Waits until the
    /// budget has room; `None` after 5 s without.
    pub async fn buffer(self: &Arc<Self>, length: usize) -> Option<Buffer> {
        let is_pooled = length <= POOLED_LENGTH && length > POOLED_LENGTH / 2;
        let capacity = if is_pooled { POOLED_LENGTH } else { length };
        let deadline = Instant::now() + MAX_BUFFER_WAIT;
        loop {
            // Registered before the attempt, or a release between the two would go unnoticed.
            let freed = self.freed.notified();
            if let Some(held) = self.hold(capacity as u64 + ENTRY_OVERHEAD) {
                let pooled = if is_pooled {
                    lock(&self.spare).pop()
                } else {
                    None
                };
                let mut bytes = pooled.unwrap_or_else(|| Vec::with_capacity(capacity));
                bytes.resize(length, 0);
                return Some(Buffer { bytes, held });
            }
            timeout_at(deadline, freed).await.ok()?;
        }
    }

    /// Takes `bytes` from the budget for content that is still on its way, if there is room for them once
    /// the cache has given way.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        self.hold(bytes)
    }

    /// Hands a part of a proven piece to a response. While there is memory enough the part pins the
    /// whole piece, of `piece` bytes, and nothing is copied.
    ///
    /// When pieces that clients don't take hold half of what there is for streams, a response gets a
    /// short copy instead, and the piece can make room for others as soon as it is not used: what is
    /// left of it is recalled or read and proven again when the client has taken the copy. So slow
    /// clients slow down only themselves.
    pub fn hand_out(self: &Arc<Self>, part: Bytes, piece: usize) -> Bytes {
        let copied = match self.max_copy() {
            Some(length) if length < part.len() => self.copy(&part[..length]),
            _ => None,
        };
        let (bytes, pins) = match copied {
            Some(copy) => {
                let length = copy.len();
                (copy, length)
            }
            None => (part, piece),
        };
        let pins = pins as u64 + ENTRY_OVERHEAD;
        self.pinned.fetch_add(pins, Ordering::Relaxed);
        Bytes::from_owner(PinnedPart {
            bytes,
            pins,
            memory: Arc::clone(self),
        })
    }

    /// Whether responses pin so much that they are to pin no whole piece more.
    pub fn is_short(&self) -> bool {
        self.max_copy().is_some()
    }

    fn max_copy(&self) -> Option<usize> {
        max_copy(self.pinned(), self.for_pieces())
    }

    /// Bytes that small bodies leave of the budget.
    fn for_pieces(&self) -> u64 {
        self.limit - self.kept.load(Ordering::Relaxed).min(self.limit)
    }

    fn copy(self: &Arc<Self>, bytes: &[u8]) -> Option<Bytes> {
        let held = self.hold(bytes.len() as u64 + ENTRY_OVERHEAD)?;
        let buffer = Buffer {
            bytes: bytes.to_vec(),
            held,
        };
        Some(buffer.freeze())
    }

    /// A proven piece, if it is still cached.
    pub fn recall(&self, key: &PieceKey) -> Option<Bytes> {
        lock(&self.proven).get(key).cloned()
    }

    /// Caches a proven piece until its memory is needed.
    pub fn remember(&self, key: PieceKey, piece: Bytes) {
        lock(&self.proven).put(key, piece);
    }

    /// Gives up the cached pieces of the content with this hash, `whole` bytes of it.
    pub fn forget_pieces(&self, hash: &[u8; 32], whole: u64) {
        let hash = *hash;
        let key = |index| PieceKey { hash, whole, index };
        let mut proven = lock(&self.proven);
        if PieceSpan::count(whole) as usize <= proven.len() {
            for index in 0..PieceSpan::count(whole) {
                proven.pop(&key(index));
            }
            return;
        }
        // Fewer are cached than such a file has.
        let cached = proven.iter().map(|(key, _)| *key);
        let cached: Vec<_> = cached.filter(|it| it.hash == hash).collect();
        for key in cached {
            proven.pop(&key);
        }
    }

    /// Bytes of the cached pieces, counted up to `enough`.
    fn cached_bytes(&self, enough: u64) -> u64 {
        let (proven, mut bytes) = (lock(&self.proven), 0);
        for (_, piece) in proven.iter() {
            if bytes >= enough {
                break;
            }
            bytes += piece.len() as u64 + ENTRY_OVERHEAD;
        }
        bytes
    }

    /// Copies a piece that is proven into the cache, if the budget has room for it.
    pub fn keep_piece(self: &Arc<Self>, key: PieceKey, piece: &[u8]) {
        if let Some(copy) = self.copy(piece) {
            self.remember(key, copy);
        }
    }

    /// An open file that had the content with this hash when it was last read. It stays readable
    /// after the file was deleted or replaced.
    pub fn file(&self, hash: &[u8; 32]) -> Option<Arc<File>> {
        let mut files = lock(&self.files);
        files.get(hash).map(|kept| Arc::clone(&kept.file))
    }

    /// Keeps a file open for its content, and closes the least recently used one if there are too
    /// many.
    pub fn keep_open(&self, hash: [u8; 32], file: &Arc<File>) {
        let mut files = lock(&self.files);
        let users = files.peek(&hash).map_or(0, |kept| kept.users);
        files.put(
            hash,
            KeptFile {
                file: Arc::clone(file),
                users,
                is_outdated: false,
            },
        );
        while files.len() > self.max_files.max(1) {
            files.pop_lru();
        }
    }

    /// Has the file that is kept open for this content stay open for as long as the response that
    /// holds this is under way, even if the content is outdated meanwhile, unless there are too many.
    /// `None` where none is kept.
    pub fn use_file(self: &Arc<Self>, hash: &[u8; 32]) -> Option<FileUse> {
        lock(&self.files).get_mut(hash)?.users += 1;
        Some(FileUse {
            memory: Arc::clone(self),
            hash: *hash,
        })
    }

    /// Closes the file that was kept open for this content, which is not its content any more.
    pub fn close(&self, hash: &[u8; 32]) {
        lock(&self.files).pop(hash);
    }

    /// Closes the file that was kept open for this content, which nobody will ask for any more, as
    /// soon as no response uses it.
    pub fn close_outdated(&self, hash: &[u8; 32]) {
        self.sealed.forget(hash);
        let mut files = lock(&self.files);
        match files.peek_mut(hash) {
            Some(kept) if kept.users > 0 => kept.is_outdated = true,
            Some(_) => {
                files.pop(hash);
            }
            None => {}
        }
    }

    /// Notes that a response needs the content with this hash.
    pub fn note_demand(&self, hash: &[u8; 32]) {
        let mut demanded = lock(&self.demanded);
        demanded.put(*hash, Instant::now());
        if demanded.len() > MAX_DEMANDED {
            demanded.pop_lru();
        }
    }

    /// Whether a response needed the content with this hash lately.
    fn is_in_demand(&self, hash: &[u8; 32]) -> bool {
        let demanded = lock(&self.demanded);
        demanded.peek(hash).is_some_and(is_late)
    }

    /// Whether responses needed the content with this hash lately. If so, that which comes after it
    /// is in demand as well: a file may be replaced more often than it is asked for.
    pub fn inherit_demand(&self, hash: &[u8; 32], successor: &[u8; 32]) -> bool {
        let mut demanded = lock(&self.demanded);
        let Some(at) = demanded.peek(hash).copied() else {
            return false;
        };
        if is_late(&at) {
            demanded.pop(hash);
            demanded.put(*successor, at);
        }
        is_late(&at)
    }

    /// Takes `bytes` from the budget, evicting the least recently used pieces to make room.
    fn hold(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        loop {
            let taken = self
                .used
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                    used.checked_add(bytes).filter(|&sum| sum <= self.limit)
                });
            if taken.is_ok() {
                return Some(Reservation {
                    memory: Arc::clone(self),
                    bytes,
                });
            }
            // Half is for those who can't be sent sealed memory: they would read the same pieces from
            // files again and again.
            if self.sealed.held() > self.for_pieces() / 2 && self.sealed.evict() {
                continue;
            }
            // Bound to a name so that the lock is released before the piece drops: its drop takes
            // the lock of `spare`, and may be long.
            let evicted = lock(&self.proven).pop_lru();
            if evicted.is_none() && !self.sealed.evict() {
                return None;
            }
        }
    }
}

fn is_late(demanded_at: &Instant) -> bool {
    demanded_at.elapsed() < MAX_DEMAND_AGE
}

/// A file that is kept open for its content.
#[derive(Debug)]
struct KeptFile {
    file: Arc<File>,
    /// Responses that need it to their end.
    users: usize,
    /// Whether no new response will need it.
    is_outdated: bool,
}

/// The use that a response makes of a file that is kept open.
#[derive(Debug)]
pub struct FileUse {
    memory: Arc<Memory>,
    hash: [u8; 32],
}

impl Drop for FileUse {
    fn drop(&mut self) {
        let mut files = lock(&self.memory.files);
        let Some(kept) = files.peek_mut(&self.hash) else {
            return;
        };
        kept.users = kept.users.saturating_sub(1);
        if kept.users == 0 && kept.is_outdated {
            files.pop(&self.hash);
        }
    }
}

/// How many bytes a response is handed at once when `pinned` of the `available` bytes are pinned;
/// `None` for a whole piece. Each copy costs reading and proving the piece again if it was evicted
/// meanwhile, so copies are as long as memory allows.
fn max_copy(pinned: u64, available: u64) -> Option<usize> {
    match (pinned.saturating_mul(8) / available.max(1)).min(8) {
        0..4 => None,
        4..6 => Some(64 << 10),
        6 => Some(16 << 10),
        _ => Some(4 << 10),
    }
}

/// What a response was handed, until the client has taken it.
struct PinnedPart {
    bytes: Bytes,
    pins: u64,
    memory: Arc<Memory>,
}

impl Drop for PinnedPart {
    fn drop(&mut self) {
        self.memory.pinned.fetch_sub(self.pins, Ordering::Relaxed);
    }
}

impl AsRef<[u8]> for PinnedPart {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A share of the budget; released on drop.
#[derive(Debug)]
pub struct Reservation {
    memory: Arc<Memory>,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::AcqRel);
        self.memory.freed.notify_waiters();
    }
}

struct KeptBody {
    body: Box<[u8]>,
    held: Reservation,
}

impl Drop for KeptBody {
    fn drop(&mut self) {
        self.held
            .memory
            .kept
            .fetch_sub(self.held.bytes, Ordering::Relaxed);
    }
}

impl AsRef<[u8]> for KeptBody {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// The head of a response.
struct KeptHead(KeptBody);

impl Drop for KeptHead {
    fn drop(&mut self) {
        let held = &self.0.held;
        held.memory.heads.fetch_sub(held.bytes, Ordering::Relaxed);
    }
}

impl AsRef<[u8]> for KeptHead {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref()
    }
}

/// Private memory to read into; [`Buffer::freeze`] shares it once its content is proven.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    held: Reservation,
}

impl Buffer {
    /// The bytes to read into.
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Makes the bytes immutable. The buffer is reused once nobody holds them.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut spare = lock(&self.held.memory.spare);
        if self.bytes.capacity() == POOLED_LENGTH && spare.len() < MAX_SPARE_BUFFERS {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;
    const PIECE: usize = MIB - ENTRY_OVERHEAD as usize;

    fn key(hash: [u8; 32], index: u32) -> PieceKey {
        let whole = 100 << 20;
        PieceKey { hash, whole, index }
    }

    async fn fill(memory: &Arc<Memory>, length: usize) -> Option<Bytes> {
        memory.buffer(length).await.map(Buffer::freeze)
    }

    #[test]
    fn a_body_gives_its_share_back_when_the_last_clone_is_gone() {
        let memory = Memory::new(MIN_MEMORY, 1);
        let body = memory.keep(vec![7; 1000]).expect("fits");
        let clone = body.slice(10..20);
        drop(body);
        assert_eq!(
            memory.used(),
            1000 + ENTRY_OVERHEAD,
            "a slice pins the whole body"
        );
        drop(clone);
        assert_eq!(memory.used(), 0);
        assert_eq!(memory.kept.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn small_bodies_share_their_bookkeeping() {
        let memory = Memory::new(MIN_MEMORY, 1);
        let contents = [b"one".as_slice(), b"", b"three"];
        let mut bodies = contents.map(|content| memory.keep(content.to_vec()).expect("fits"));
        memory.pack(&mut bodies.each_mut());
        assert_eq!(bodies.each_ref().map(|body| &body[..]), contents);
        assert_eq!(memory.used(), 8 + ENTRY_OVERHEAD);
        let first = bodies[0].clone();
        drop(bodies);
        assert_eq!(memory.used(), 8 + ENTRY_OVERHEAD, "one holds all");
        drop(first);
        assert_eq!(memory.used(), 0);
        // Where a copy has no room, nothing changes.
        let body = |byte| memory.keep(vec![byte; 2 * MIB]).expect("fits");
        let mut bodies = [body(1), body(2)];
        let used = memory.used();
        memory.pack(&mut bodies.each_mut());
        assert_eq!(memory.used(), used);
        assert_eq!(bodies.map(|body| body[0]), [1, 2]);
    }

    #[test]
    fn heads_leave_room_for_bodies() {
        let memory = Memory::new(MIN_MEMORY, 1);
        let head = [0; 400];
        let heads: Vec<_> = std::iter::from_fn(|| memory.keep_head(&head)).collect();
        let share = MIN_MEMORY / HEADS_SHARE;
        assert_eq!(heads.len() as u64, share / (400 + ENTRY_OVERHEAD));
        assert_eq!(memory.used(), memory.kept.load(Ordering::Relaxed));
        assert!(memory.used() <= share);
        assert!(
            memory.keep(vec![0; 6 * MIB]).is_ok(),
            "the rest is for bodies"
        );
        drop(heads);
        assert_eq!(memory.used(), 0);
        let body = memory.keep(vec![0; 8 * MIB - 2 * ENTRY_OVERHEAD as usize]);
        assert!(memory.keep_head(&head).is_none(), "no room at all");
        drop(body);
        assert_eq!(memory.heads.load(Ordering::Relaxed), 0);
        assert!(memory.keep_head(&head).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn small_bodies_leave_room_for_streams() {
        let memory = Memory::new(MIN_MEMORY, 1);
        let bodies: Vec<_> = std::iter::from_fn(|| memory.keep(vec![0; PIECE]).ok()).collect();
        assert_eq!(
            bodies.len(),
            8,
            "half of the smallest budget is for streams"
        );
        assert!(fill(&memory, PIECE).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_cannot_be_kept_costs_no_cached_piece() {
        let memory = Memory::new(MIN_MEMORY, 1);
        let bodies: Vec<_> = std::iter::from_fn(|| memory.keep(vec![0; PIECE]).ok()).collect();
        let key = key([0; 32], 0);
        memory.remember(key, fill(&memory, PIECE).await.expect("fits"));
        assert!(memory.keep(vec![0; PIECE]).is_err());
        assert!(memory.recall(&key).is_some());
        drop(bodies);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_budget_forgets_proven_pieces_and_then_makes_streams_wait() {
        let memory = Memory::new(MIN_MEMORY, 1);
        let key = |index| key([0; 32], index);
        for index in 0..16 {
            memory.remember(key(index), fill(&memory, PIECE).await.expect("fits"));
        }
        memory.recall(&key(0)).expect("still there");
        let new = fill(&memory, PIECE)
            .await
            .expect("the oldest piece gives way");
        assert!(memory.recall(&key(0)).is_some(), "used lately");
        assert!(memory.recall(&key(1)).is_none(), "longest unused");

        let mut pinned = vec![new];
        while let Some(piece) = fill(&memory, PIECE).await {
            pinned.push(piece);
        }
        assert_eq!(pinned.len(), 16, "everything is pinned by its readers");
        let (piece, ()) = tokio::join!(fill(&memory, PIECE), async {
            tokio::task::yield_now().await;
            pinned.pop();
        });
        assert!(piece.is_some(), "what one reader gives back another gets");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_buffer_takes_is_what_it_is_counted_for() {
        let memory = Memory::new(MIN_MEMORY, 1);
        let whole = memory.buffer(MIB).await.expect("fits");
        drop(whole);
        let tail = memory.buffer(1).await.expect("fits");
        assert!(
            tail.bytes.capacity() < POOLED_LENGTH,
            "no large buffer for a small piece"
        );
        let group = memory.buffer(POOLED_LENGTH - 1).await.expect("fits");
        assert_eq!(group.bytes.capacity(), POOLED_LENGTH);
        assert_eq!(memory.used(), 1 + POOLED_LENGTH as u64 + 2 * ENTRY_OVERHEAD);
    }

    #[test]
    fn the_more_is_pinned_the_less_is_handed_out() {
        for (pinned, wanted) in [
            (0, None),
            (499, None),
            (500, Some(64 << 10)),
            (749, Some(64 << 10)),
            (750, Some(16 << 10)),
            (875, Some(4 << 10)),
            (1000, Some(4 << 10)),
            (u64::MAX, Some(4 << 10)),
        ] {
            assert_eq!(max_copy(pinned, 1000), wanted, "{pinned} of 1000");
        }
        assert_eq!(max_copy(0, 0), None);
        assert_eq!(max_copy(1, 0), Some(4 << 10));
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_take_nothing_leave_memory_for_others() {
        let memory = Memory::new(MIN_MEMORY, 1);
        let mut taken = Vec::new();
        for index in 0..200 {
            let piece = fill(&memory, POOLED_LENGTH).await.expect("no room left");
            memory.remember(key([index; 32], 0), piece.clone());
            let part = memory.hand_out(piece.clone(), piece.len());
            assert_eq!(part, piece[..part.len()]);
            assert!(part.len() >= 4 << 10);
            taken.push(part);
        }
        assert!(memory.is_short());
        assert!(memory.used() <= memory.limit());
        drop(taken);
        assert_eq!(memory.pinned(), 0);
        assert!(!memory.is_short());
    }

    #[test]
    fn an_outdated_file_is_closed_when_no_response_uses_it() {
        let memory = Memory::new(MIN_MEMORY, 2);
        let file = Arc::new(tempfile::tempfile().expect("a file"));
        let hash = [1; 32];
        assert!(memory.use_file(&hash).is_none());
        memory.keep_open(hash, &file);
        let uses = [memory.use_file(&hash), memory.use_file(&hash)];
        memory.close_outdated(&hash);
        assert!(memory.file(&hash).is_some());
        let [first, second] = uses;
        drop(first);
        assert!(memory.file(&hash).is_some());
        drop(second);
        assert!(memory.file(&hash).is_none());
        memory.keep_open(hash, &file);
        memory.close_outdated(&hash);
        assert!(memory.file(&hash).is_none());
        // However many are in use, there are not more than may be.
        let uses: Vec<_> = (0..3)
            .map(|index| {
                memory.keep_open([index; 32], &file);
                memory.use_file(&[index; 32])
            })
            .collect();
        assert!(memory.file(&[0; 32]).is_none());
        drop(uses);
        assert_eq!(Arc::strong_count(&file), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn demand_goes_over_to_what_comes_after_and_passes() {
        let memory = Memory::new(MIN_MEMORY, 2);
        assert!(!memory.inherit_demand(&[1; 32], &[2; 32]));
        memory.note_demand(&[1; 32]);
        assert!(memory.inherit_demand(&[1; 32], &[2; 32]));
        assert!(memory.inherit_demand(&[2; 32], &[3; 32]));
        assert!(!memory.inherit_demand(&[2; 32], &[3; 32]));
        tokio::time::advance(MAX_DEMAND_AGE).await;
        assert!(!memory.inherit_demand(&[3; 32], &[4; 32]));
    }

    #[test]
    fn files_beyond_the_most_are_closed() {
        let memory = Memory::new(MIN_MEMORY, 2);
        let file = Arc::new(tempfile::tempfile().expect("a file"));
        for index in 0..3 {
            memory.keep_open([index; 32], &file);
        }
        assert!(memory.file(&[0; 32]).is_none());
        assert!(memory.file(&[2; 32]).is_some());
    }
}
