//! When to look for a newer release: pure, the clock and chance come in.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

/// The longest pause between two attempts to reach a store, unless `--poll` is longer.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// By so much a pause is shorter or longer, by chance: replicas that were started together would ask
/// all at once.
const JITTER: f64 = 0.2;
/// At least this long after one look for a request, the next one begins: four in a second.
pub(super) const MIN_PAUSE: Duration = Duration::from_millis(250);

/// When to look for a newer release.
#[derive(Debug)]
pub(super) struct PollSchedule {
    poll: Duration,
    sweep: Duration,
    /// Looks in a row that have failed.
    failures: u32,
    next_poll: Instant,
    next_sweep: Instant,
    /// When the last look began.
    last: Instant,
}

impl PollSchedule {
    pub(super) fn new(poll: Duration, sweep: Duration, now: Instant) -> Self {
        Self {
            poll,
            sweep,
            failures: 0,
            next_poll: now + poll,
            next_sweep: now + sweep,
            last: now,
        }
    }

    /// When the next look is due.
    pub(super) fn next(&self) -> Instant {
        self.next_poll.min(self.next_sweep)
    }

    /// When a look may begin that a request asks for.
    pub(super) fn earliest(&self) -> Instant {
        self.last + MIN_PAUSE
    }

    /// Notes that a look begins. Returns whether it is to list the channel.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        self.last = now;
        let is_sweep = now >= self.next_sweep;
        if is_sweep {
            self.next_sweep = now + self.sweep;
        }
        is_sweep
    }

    /// Has the next look list the channel, and be due at once.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.next_sweep = now;
    }

    /// Notes how a look has ended. `chance` is from 0 to 1.
    pub(super) fn end(&mut self, now: Instant, is_success: bool, chance: f64) {
        self.failures = match is_success {
            true => 0,
            false => self.failures.saturating_add(1),
        };
        let longest = self.poll.max(MAX_PAUSE);
        let factor = 2_u32.saturating_pow(self.failures.min(16));
        let pause = self.poll.saturating_mul(factor).min(longest);
        self.next_poll = now + pause.mul_f64(1.0 + JITTER * (chance - 0.5));
    }
}

/// From 0 to 1. It only has to differ between replicas.
pub(super) fn chance() -> f64 {
    f64::from(RandomState::new().build_hasher().finish() as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_are_spread_and_grow_while_a_store_is_away() {
        let now = Instant::now();
        let mut schedule = PollSchedule::new(2 * SECOND, 60 * SECOND, now);
        let mut pause = |is_success, chance| {
            schedule.begin(now);
            schedule.end(now, is_success, chance);
            schedule.next() - now
        };
        assert_eq!(pause(true, 0.5), 2 * SECOND);
        assert_eq!(pause(true, 0.0), Duration::from_millis(1800));
        assert_eq!(pause(true, 1.0), Duration::from_millis(2200));
        for seconds in [4, 8, 16, 30, 30] {
            assert_eq!(pause(false, 0.5), seconds * SECOND);
        }
        assert_eq!(pause(true, 0.5), 2 * SECOND);
        let mut rare = PollSchedule::new(100 * SECOND, 600 * SECOND, now);
        rare.end(now, false, 0.5);
        assert_eq!(rare.next() - now, 100 * SECOND);
    }

    #[test]
    fn a_channel_is_listed_now_and_then_and_when_somebody_asks_for_it() {
        let start = Instant::now();
        let mut schedule = PollSchedule::new(2 * SECOND, 5 * SECOND, start);
        let mut listed = Vec::new();
        for second in 1..=12 {
            let now = start + second * SECOND;
            if now >= schedule.next() && schedule.begin(now) {
                listed.push(second);
            }
            schedule.end(now, true, 0.5);
        }
        assert_eq!(listed, [5, 10]);
        let now = start + 12 * SECOND;
        schedule.hurry(now);
        assert_eq!(schedule.next(), now);
        assert!(schedule.begin(now));
        assert!(!schedule.begin(now));
        assert_eq!(schedule.earliest(), now + MIN_PAUSE);
    }
}
