//! Whether work that must never stop gets on. Who does it notes each step, and who looks after it
//! finds out for how long there has been none.
//!
//! A file system can let any call wait for ever: a network mount whose server is gone, an automount,
//! a disk that fails. The thread that waits can't say so itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The steps of one thread's work.
#[derive(Debug)]
pub struct Beat {
    /// How long a step may take.
    limit: Duration,
    created: Instant,
    /// When the present step began, in milliseconds after `created`, plus one; 0 while there is
    /// nothing to do.
    step: AtomicU64,
}

impl Beat {
    /// Of work of which no step should take longer than `limit`. There is none yet.
    pub fn new(limit: Duration) -> Self {
        Self {
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
    pub fn stalled(&self) -> Option<Duration> {
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
        let beat = Beat::new(limit);
        sleep(2 * limit);
        assert_eq!(beat.stalled(), None, "nothing to do");
        beat.step();
        assert_eq!(Beat::new(Duration::from_secs(3600)).stalled(), None);
        sleep(2 * limit);
        assert!(beat.stalled() > Some(limit));
        beat.rest();
        assert_eq!(beat.stalled(), None);
        let patient = Beat::new(Duration::from_secs(3600));
        patient.step();
        assert_eq!(patient.stalled(), None);
    }
}
