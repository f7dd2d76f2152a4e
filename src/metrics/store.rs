//! What a server that follows a store counts.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::Counter;

/// What a server that follows a store counts.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// Releases that were published here.
    pub releases_taken: Counter,
    /// Releases that were found to be unfit to be served.
    pub releases_refused: Counter,
    /// Attempts to take a release that have failed for now: something of it could not be fetched.
    pub releases_delayed: Counter,
    /// The number of the release that is served; 0 before the first.
    pub release: AtomicU64,
    /// The number of the newest release that the store was found to have; 0 before the first.
    pub newest_release: AtomicU64,
    /// Looks for a newer release that have failed.
    pub polls_failed: Counter,
    /// Bytes that the store has sent.
    pub fetched_bytes: Counter,
    /// Pieces of content that the store was asked for.
    pub fetches: Counter,
    /// Those of them that it did not give, or gave damaged.
    pub fetches_failed: Counter,
    /// Pieces of content that were in `--cache`.
    pub cache_hits: Counter,
    /// Whether the store answers.
    pub reachability: Reachability,
}

/// Whether a store answers, as far as that is known.
#[derive(Debug, Default)]
pub struct Reachability(AtomicU8);

impl Reachability {
    const UNKNOWN: u8 = 0;
    const ANSWERS: u8 = 1;
    const AWAY: u8 = 2;

    /// Whether the last attempt to reach it was a success; `None` before the first has ended.
    pub fn get(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            Self::UNKNOWN => None,
            value => Some(value == Self::ANSWERS),
        }
    }

    /// Whether it was found to be away.
    pub fn is_away(&self) -> bool {
        self.get() == Some(false)
    }

    /// Notes how an attempt to reach it has ended.
    pub fn note(&self, has_answered: bool) {
        let value = if has_answered {
            Self::ANSWERS
        } else {
            Self::AWAY
        };
        self.0.store(value, Ordering::Relaxed);
    }
}
