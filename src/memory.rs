//! The one budget for content: small bodies, groups on their way to a client, and the cache of
//! proven pieces all hold their share of it for as long as anybody can still reach their bytes.
//!
//! That includes bytes which only an old manifest or a slow client pins. When the budget is used
//! up, the cache gives way first; then streams wait for one another, and a small body that no
//! longer fits is read from its file when it is asked for.

use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lru::LruCache;
use tokio::sync::Notify;

/// Bytes of a small body's bookkeeping (two allocations and the counter that shares it).
const OVERHEAD: u64 = 96;
/// Buffers kept for the next stream, so that a hot download does not ask the allocator.
const SPARE_BUFFERS: usize = 16;
/// The smallest budget that can stream: some groups for each of a few clients.
pub const SMALLEST: u64 = 16 << 20;

/// Which proven piece: the BLAKE3 of the whole representation, and the piece's index.
pub type Key = ([u8; 32], u32);

/// The budget of content and of open files, and what is cached within it.
#[derive(Debug)]
pub struct Memory {
    limit: u64,
    used: AtomicU64,
    proven: Mutex<LruCache<Key, Bytes>>,
    files: Mutex<LruCache<[u8; 32], Arc<File>>>,
    spare: Mutex<Vec<Vec<u8>>>,
    freed: Notify,
}

impl Memory {
    /// A budget of `limit` bytes, [`SMALLEST`] at least, and of as many open `files`.
    pub fn new(limit: u64, files: NonZeroUsize) -> Arc<Self> {
        Arc::new(Self {
            files: Mutex::new(LruCache::new(files)),
            limit: limit.max(SMALLEST),
            used: AtomicU64::new(0),
            proven: Mutex::new(LruCache::unbounded()),
            spare: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// Bytes held now.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Turns a small body into shared memory if the budget has room beside what streams need.
    pub fn keep(self: &Arc<Self>, body: Vec<u8>) -> Option<Bytes> {
        let held = self.hold(
            body.len() as u64 + OVERHEAD,
            self.limit - self.for_streams(),
        )?;
        Some(Bytes::from_owner(Kept {
            body: body.into_boxed_slice(),
            _held: held,
        }))
    }

    /// Whether a small body of `length` bytes could be kept, if the cache gave way.
    pub fn has_room(&self, length: u64) -> bool {
        let cached = lock(&self.proven).len() as u64;
        cached > 0 || self.used() + length + OVERHEAD <= self.limit - self.for_streams()
    }

    /// What small bodies leave free.
    fn for_streams(&self) -> u64 {
        (self.limit / 8).clamp(SMALLEST / 2, 64 << 20)
    }

    /// A private buffer of `length` bytes for content that is still to be proven. Waits until
    /// the budget has room.
    pub async fn buffer(self: &Arc<Self>, length: usize) -> Buffer {
        loop {
            let freed = self.freed.notified();
            if let Some(held) = self.hold(length as u64, self.limit) {
                let mut bytes = lock(&self.spare).pop().unwrap_or_default();
                bytes.resize(length, 0);
                return Buffer { bytes, held };
            }
            freed.await;
        }
    }

    /// A piece that was proven before.
    pub fn recall(&self, key: &Key) -> Option<Bytes> {
        lock(&self.proven).get(key).cloned()
    }

    /// Remembers a proven piece until its memory is needed.
    pub fn remember(&self, key: Key, piece: Bytes) {
        lock(&self.proven).put(key, piece);
    }

    /// A descriptor of a file that had the content with this hash when it was last read. It
    /// outlives the file's name: what is deleted or renamed over can still be read and proven.
    pub fn file(&self, hash: &[u8; 32]) -> Option<Arc<File>> {
        lock(&self.files).get(hash).cloned()
    }

    /// Keeps a file open, for the content it has, in place of the one longest unused.
    pub fn keep_open(&self, hash: [u8; 32], file: &Arc<File>) {
        lock(&self.files).put(hash, Arc::clone(file));
    }

    /// Closes a file that does not have that content any more.
    pub fn close(&self, hash: &[u8; 32]) {
        lock(&self.files).pop(hash);
    }

    /// Takes `bytes` from the budget if they stay under `ceiling`, forgetting proven pieces, the
    /// longest unused first, to make room.
    fn hold(self: &Arc<Self>, bytes: u64, ceiling: u64) -> Option<Held> {
        loop {
            let taken = self
                .used
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                    used.checked_add(bytes).filter(|&sum| sum <= ceiling)
                });
            if taken.is_ok() {
                return Some(Held {
                    memory: Arc::clone(self),
                    bytes,
                });
            }
            // The guard must be gone before the piece drops: its drop may lock `spare`.
            let forgotten = lock(&self.proven).pop_lru();
            forgotten?;
        }
    }
}

/// A share of the budget; given back on drop.
#[derive(Debug)]
struct Held {
    memory: Arc<Memory>,
    bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::AcqRel);
        self.memory.freed.notify_waiters();
    }
}

struct Kept {
    body: Box<[u8]>,
    _held: Held,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// Private memory to read into; [`Buffer::freeze`] shares it once its content is proven.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    held: Held,
}

impl Buffer {
    /// The bytes, to be read into.
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Makes the bytes immutable. The buffer is used again once nobody holds them.
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
        if spare.len() < SPARE_BUFFERS {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// Nothing that runs under these locks can leave them half-changed, so a poisoned one is sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_body_gives_its_share_back_when_the_last_clone_is_gone() {
        let memory = Memory::new(SMALLEST, NonZeroUsize::MIN);
        let body = memory.keep(vec![7; 1000]).expect("fits");
        let clone = body.slice(10..20);
        drop(body);
        assert_eq!(
            memory.used(),
            1000 + OVERHEAD,
            "a slice pins the whole body"
        );
        drop(clone);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn small_bodies_leave_room_for_streams() {
        let memory = Memory::new(SMALLEST, NonZeroUsize::MIN);
        let bodies: Vec<_> = std::iter::from_fn(|| memory.keep(vec![0; 1 << 20])).collect();
        assert_eq!(
            bodies.len(),
            7,
            "half of the smallest budget is for streams"
        );
        assert!(matches!(poll(pin!(memory.buffer(1 << 20))), Poll::Ready(_)));
    }

    #[test]
    fn a_full_budget_forgets_proven_pieces_and_then_makes_streams_wait() {
        let memory = Memory::new(SMALLEST, NonZeroUsize::MIN);
        let fill = |length| match poll(pin!(memory.buffer(length))) {
            Poll::Ready(buffer) => Some(buffer.freeze()),
            Poll::Pending => None,
        };
        let key = |index| ([0; 32], index);
        for index in 0..16 {
            memory.remember(key(index), fill(1 << 20).expect("fits"));
        }
        memory.recall(&key(0)).expect("still there");
        let new = fill(1 << 20).expect("the oldest piece gives way");
        assert!(memory.recall(&key(0)).is_some(), "used lately");
        assert!(memory.recall(&key(1)).is_none(), "longest unused");

        let all: Vec<_> = std::iter::from_fn(|| fill(1 << 20)).collect();
        assert_eq!(all.len(), 15, "everything else is pinned by its readers");
        let mut waiting = pin!(memory.buffer(1 << 20));
        assert!(poll(waiting.as_mut()).is_pending());
        drop(new);
        assert!(poll(waiting.as_mut()).is_ready());
        assert_eq!(memory.used(), 15 << 20);
    }
}
