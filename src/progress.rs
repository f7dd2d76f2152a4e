//! How many bytes of some work are done, for a thread that shows it.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many bytes are done and how many there are; readable from other threads.
///
/// It is for display alone, so nothing is ordered by it.
#[derive(Debug, Default)]
pub struct ByteProgress {
    total: AtomicU64,
    done: AtomicU64,
}

impl ByteProgress {
    /// Bytes in total; 0 until that is known.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Bytes done.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// How much is done, in percent rounded down; `None` before the total is known, and when all is
    /// done.
    #[must_use]
    pub fn percent(&self) -> Option<u64> {
        let (done, total) = (self.done(), self.total());
        (done < total).then(|| done.saturating_mul(100) / total)
    }

    /// Begins with work of so many bytes, of which none is done. 0 says that there is none.
    pub fn begin(&self, bytes: u64) {
        self.set_total(0);
        self.done.store(0, Ordering::Relaxed);
        self.set_total(bytes);
    }

    /// Sets the total.
    pub fn set_total(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    /// Counts `bytes` as done.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }
}
