//! Whether work that must never stop gets on. Who does it notes each step, and who looks after it
//! finds out for how long there has been none.
//!
//! A file system can let any call wait for ever: a network mount whose server is gone, an automount,
//! a disk that fails. The thread that waits can't say so itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Whose work a beat is of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum WatchThread {
    /// Looks at changes and publishes them.
    Watcher,
    /// Hashes the large files of one batch, which is published after that.
    Hasher,
    /// Reads every file again.
    Scrubber,
    /// Looks for newer releases in a store, and publishes them.
    Follower,
}

/// Work that has not got on for longer than it may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stall {
    /// Whose it is.
    pub thread: WatchThread,
    /// For how long it has not got on.
    pub waited: Duration,
}

/// All work that is looked after together.
#[derive(Debug)]
pub struct Beats {
    /// How long a step may take.
    limit: Duration,
    running: Mutex<Vec<Weak<Beat>>>,
}

impl Beats {
    /// Of work of which no step should take longer than `limit`. There is none yet.
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            running: Mutex::default(),
        }
    }

    /// The beat of work that begins now, and ends when the beat is dropped.
    pub fn begin(&self, thread: WatchThread) -> Arc<Beat> {
        let beat = Arc::new(Beat::new(thread, self.limit));
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|each| each.strong_count() > 0);
        running.push(Arc::downgrade(&beat));
        beat
    }

    /// What does not get on: of each kind of work what has waited longest.
    pub fn stalled(&self) -> Vec<Stall> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stalled: Vec<Stall> = running
            .iter()
            .filter_map(Weak::upgrade)
            .filter_map(|beat| {
                let thread = beat.thread;
                beat.stalled().map(|waited| Stall { thread, waited })
            })
            .collect();
        stalled.sort_by_key(|stall| (stall.thread, std::cmp::Reverse(stall.waited)));
        stalled.dedup_by_key(|stall| stall.thread);
        stalled
    }
}

/// The steps of one thread's work.
#[derive(Debug)]
pub struct Beat {
    thread: WatchThread,
    /// How long a step may take.
    limit: Duration,
    created: Instant,
    /// When the present step began, in milliseconds after `created`, plus one; 0 while there is
    /// nothing to do.
    step: AtomicU64,
}

impl Beat {
    fn new(thread: WatchThread, limit: Duration) -> Self {
        Self {
            thread,
            limit,
            created: Instant::now(),
            step: AtomicU64::new(0),
        }
    }

    /// A step begins; one that was under way is over.
    pub fn step(&self) {
        let now = self.created.elapsed().as_millis() as u64;
        self.step.store(now + 1, Ordering::Relaxed);
    }

    /// There is nothing to do.
    pub fn rest(&self) {
        self.step.store(0, Ordering::Relaxed);
    }

    /// For how long the present step has taken, if that is longer than it may.
    fn stalled(&self) -> Option<Duration> {
        let began = self.step.load(Ordering::Relaxed).checked_sub(1)?;
        let taken = self.created.elapsed();
        let taken = taken.saturating_sub(Duration::from_millis(began));
        (taken > self.limit).then_some(taken)
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    #[test]
    fn only_a_step_that_takes_too_long_is_stalled() {
        let limit = Duration::from_millis(50);
        let beat = Beat::new(WatchThread::Watcher, limit);
        sleep(2 * limit);
        assert_eq!(beat.stalled(), None, "nothing to do");
        beat.step();
        sleep(2 * limit);
        assert!(beat.stalled() > Some(limit));
        beat.rest();
        assert_eq!(beat.stalled(), None);
        let patient = Beat::new(WatchThread::Watcher, Duration::from_secs(3600));
        patient.step();
        assert_eq!(patient.stalled(), None);
    }

    #[test]
    fn of_each_kind_of_work_the_longest_stall_is_told_as_long_as_the_work_goes_on() {
        let beats = Beats::new(Duration::ZERO);
        let threads = || {
            let stalled = beats.stalled().into_iter();
            stalled.map(|stall| stall.thread).collect::<Vec<_>>()
        };
        let watcher = beats.begin(WatchThread::Watcher);
        let (one, other) = (
            beats.begin(WatchThread::Hasher),
            beats.begin(WatchThread::Hasher),
        );
        assert_eq!(threads(), []);
        one.step();
        sleep(Duration::from_millis(20));
        other.step();
        sleep(Duration::from_millis(20));
        let [stall] = beats.stalled()[..] else {
            panic!("{:?}", beats.stalled());
        };
        assert!(stall.waited >= Duration::from_millis(40), "{stall:?}");
        // Another thread that gets on hides nothing.
        other.rest();
        watcher.step();
        sleep(Duration::from_millis(5));
        assert_eq!(threads(), [WatchThread::Watcher, WatchThread::Hasher]);
        drop(one);
        assert_eq!(threads(), [WatchThread::Watcher]);
        watcher.rest();
        assert_eq!(threads(), []);
    }
}
