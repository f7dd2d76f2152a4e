//! A network that is slower than the machine: what leaves over all connections together has its
//! pace, as on a developer's phone.

use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// How much of a second is sent at once.
const STEPS: u64 = 50;
/// Fewer bytes than this are not worth a packet.
const SMALLEST: u64 = 512;

/// The line that all connections share.
#[derive(Debug)]
pub(super) struct Line {
    rate: NonZeroU64,
    /// When all that was sent so far has left.
    is_free: Mutex<Instant>,
}

impl Line {
    /// A line for so many bytes a second.
    pub(super) fn new(rate: NonZeroU64) -> Self {
        Self {
            rate,
            is_free: Mutex::new(Instant::now()),
        }
    }

    /// Notes that so many bytes are sent, and says when they have left.
    fn send(&self, bytes: usize) -> Instant {
        let takes = Duration::from_secs_f64(bytes as f64 / self.rate.get() as f64);
        let mut is_free = self.is_free.lock().unwrap_or_else(PoisonError::into_inner);
        *is_free = (*is_free).max(Instant::now()) + takes;
        *is_free
    }
}

/// One connection's place on the line.
#[derive(Debug)]
pub(super) struct Throttle {
    line: Arc<Line>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Throttle {
    pub(super) fn new(line: &Arc<Line>) -> Self {
        Self {
            line: Arc::clone(line),
            pause: None,
        }
    }

    /// How many bytes may be sent now.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let most = (self.line.rate.get() / STEPS).max(SMALLEST);
        Poll::Ready(usize::try_from(most).unwrap_or(usize::MAX))
    }

    /// Notes that so many were.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.pause = Some(Box::pin(sleep_until(self.line.send(bytes))));
    }
}
