//! What a connection is doing and since when, held against the limits.
//!
//! Nothing here arms a timer: re-arming one for each request costs more than many an answer. The
//! connection notes when its state changed, and one timer that is rarely due looks at the notes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::client::Peer;
use crate::disk;
use crate::service::Connection;
use crate::settings::Limits;

/// Bytes that a client has to take within `--write-timeout` of what waits for it.
const MIN_TAKEN: u64 = 32 << 10;
/// How soon to look whether it has, and again, unless a quarter of that time is shorter.
const MAX_LOOK: Duration = Duration::from_secs(1);

/// Limit for the responses of one connection that read files at once.
const MAX_READING: usize = 8;

/// Limit for the bytes that are kept of the requests of one connection that wait: enough for 128
/// whose targets and conditions are a kilobyte long. A single request may have more.
const MAX_WAITING_BYTES: usize = 128 << 10;

/// Since when each state holds, in milliseconds from the connection's beginning on, plus one:
/// zero says that it does not.
pub(super) struct Activity {
    peer: Peer,
    is_secure: bool,
    opened_at: u64,
    is_http2: AtomicBool,
    /// Responses under way.
    responses: AtomicUsize,
    /// Responses among them that wait for another server.
    awaiting_upstream: AtomicUsize,
    /// Since when there has been no request at all.
    idle_since: AtomicU64,
    /// Since when a header section has been arriving.
    receiving_since: AtomicU64,
    /// Bytes that the socket has taken.
    written: AtomicU64,
    /// Since when something waits for the client, which has taken next to nothing.
    stalled_since: AtomicU64,
    /// Bytes that the client had acknowledged then.
    acknowledged_then: AtomicU64,
    /// Whether that has begun a moment ago.
    has_new_stall: AtomicBool,
    /// Whether it is closed because the client takes nothing of what waits for it.
    is_given_up: AtomicBool,
    /// Since when an HTTP/2 client has been sent nothing of its responses: it need not read
    /// slowly for that, it can keep its windows shut.
    unsent_since: AtomicU64,
    /// Whether the last request announced content, which is never read.
    has_unread: AtomicBool,
    /// Whether it has sent a flood of HTTP/2 control frames.
    has_flooded: AtomicBool,
    /// Whether hyper may hold bytes that the stream has not taken.
    is_unflushed: AtomicBool,
    /// Whether a client has offered to go on with another protocol.
    has_upgrade_offer: AtomicBool,
    /// Whether the stream stays open when hyper ends, because the front goes on with it.
    is_kept_open: AtomicBool,
    /// Responses that may read files at once; HTTP/1.1 has only one anyway.
    read_permits: Arc<Semaphore>,
    /// Bytes that are kept of requests which wait.
    waiting_bytes: AtomicUsize,
}

/// A limit that a connection has reached.
pub(super) enum Overdue {
    Idle,
    Header,
    Write,
}

impl Activity {
    pub(super) fn new(peer: Peer) -> Self {
        Self {
            peer,
            is_secure: false,
            opened_at: disk::coarse_milliseconds(),
            is_http2: AtomicBool::new(false),
            responses: AtomicUsize::new(0),
            awaiting_upstream: AtomicUsize::new(0),
            idle_since: AtomicU64::new(1),
            receiving_since: AtomicU64::new(0),
            stalled_since: AtomicU64::new(0),
            written: AtomicU64::new(0),
            acknowledged_then: AtomicU64::new(0),
            has_new_stall: AtomicBool::new(false),
            is_given_up: AtomicBool::new(false),
            unsent_since: AtomicU64::new(0),
            has_unread: AtomicBool::new(false),
            has_flooded: AtomicBool::new(false),
            is_unflushed: AtomicBool::new(false),
            has_upgrade_offer: AtomicBool::new(false),
            is_kept_open: AtomicBool::new(false),
            read_permits: Arc::new(Semaphore::new(MAX_READING)),
            waiting_bytes: AtomicUsize::new(0),
        }
    }

    /// The same of a connection that speaks TLS.
    pub(super) fn over_tls(self) -> Self {
        Self {
            is_secure: true,
            ..self
        }
    }

    fn now(&self) -> u64 {
        disk::coarse_milliseconds().saturating_sub(self.opened_at) + 1
    }

    /// How soon to look at a stall that has begun, and again.
    fn look_at_stalls(limits: &Limits) -> Duration {
        MAX_LOOK.min(limits.write_timeout / 4)
    }

    /// How soon to look at a stall, if one has begun since this was asked last.
    pub(super) fn new_stall(&self, limits: &Limits) -> Option<Duration> {
        if !self.has_new_stall.load(Ordering::Relaxed) {
            return None;
        }
        self.has_new_stall.store(false, Ordering::Relaxed);
        Some(Self::look_at_stalls(limits))
    }

    /// When to look again, or the limit that is reached.
    pub(super) fn check(&self, limits: &Limits) -> Result<Instant, Overdue> {
        let now = self.now();
        // A state that begins right after this look can be overdue one limit from now at the
        // earliest, so that is when to look again.
        let mut next = Duration::from_secs(365 * 24 * 3600);
        let stalled = self.stalled_since.load(Ordering::Relaxed);
        if stalled != 0 {
            next = Self::look_at_stalls(limits);
        }
        // The end of a response can still be on its way: that is no idleness.
        let idle = match stalled {
            0 => self.idle_since.load(Ordering::Relaxed),
            _ => 0,
        };
        let receiving = self.receiving_since.load(Ordering::Relaxed);
        // What another server has not said yet, a client can't take.
        let unsent_since = match self.awaiting_upstream.load(Ordering::Relaxed) {
            0 => self.unsent_since.load(Ordering::Relaxed),
            _ => 0,
        };
        for (since, limit, overdue) in [
            (idle, limits.idle_timeout, Overdue::Idle),
            (receiving, limits.header_timeout, Overdue::Header),
            (stalled, limits.write_timeout, Overdue::Write),
            (unsent_since, limits.write_timeout, Overdue::Write),
        ] {
            let elapsed = match since {
                0 => Duration::ZERO,
                since => Duration::from_millis(now.saturating_sub(since)),
            };
            match limit.checked_sub(elapsed) {
                Some(left) if since == 0 || !left.is_zero() => next = next.min(left),
                _ => return Err(overdue),
            }
        }
        Ok(Instant::now() + next + Duration::from_millis(1))
    }

    /// Notes that bytes have arrived over HTTP/1.1, or the beginning of HTTP/2's preface. Returns
    /// whether a head begins with them.
    pub(super) fn note_received(&self) -> bool {
        let begins = self.receiving_since.load(Ordering::Relaxed) == 0
            && self.responses.load(Ordering::Relaxed) == 0;
        if begins {
            self.receiving_since.store(self.now(), Ordering::Relaxed);
            self.idle_since.store(0, Ordering::Relaxed);
        }
        begins
    }

    /// Notes that a request has come and its response is on its way to the socket, which is all that
    /// there is to it: such a response waits for nothing but the socket.
    pub(super) fn note_answered(&self) {
        self.receiving_since.store(0, Ordering::Relaxed);
        self.idle_since.store(self.now(), Ordering::Relaxed);
    }

    /// Whether a response is under way.
    pub(super) fn is_responding(&self) -> bool {
        self.responses.load(Ordering::Relaxed) != 0
    }

    /// Notes that the client speaks HTTP/2. Its frames say nothing of a header section: from here
    /// on the idle limit runs, and no frame but a request resets it.
    pub(super) fn note_http2(&self) {
        self.is_http2.store(true, Ordering::Relaxed);
        self.receiving_since.store(0, Ordering::Relaxed);
        self.idle_since.store(self.now(), Ordering::Relaxed);
    }

    /// Notes a flood of control frames, which ends the connection.
    pub(super) fn note_flood(&self) {
        self.has_flooded.store(true, Ordering::Relaxed);
    }

    /// Whether a flood of control frames ended the connection.
    pub(super) fn has_flooded(&self) -> bool {
        self.has_flooded.load(Ordering::Relaxed)
    }

    /// Notes that an HTTP/2 client was sent a part of a response.
    pub(super) fn note_sent(&self) {
        let state = match self.responses.load(Ordering::Relaxed) {
            // All of it had been handed to hyper.
            0 => &self.idle_since,
            _ => &self.unsent_since,
        };
        state.store(self.now(), Ordering::Relaxed);
    }

    /// Notes that the socket has taken so many bytes.
    pub(super) fn note_written(&self, bytes: usize) {
        // Only one task writes to a connection.
        let written = self.written.load(Ordering::Relaxed);
        self.written
            .store(written + bytes as u64, Ordering::Relaxed);
    }

    /// Whether something waits for the client.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled_since.load(Ordering::Relaxed) != 0
    }

    /// Notes that nothing waits for the client.
    pub(super) fn note_goes_on(&self) {
        if !self.is_stalled() {
            return;
        }
        self.stalled_since.store(0, Ordering::Relaxed);
        if self.idle_since.load(Ordering::Relaxed) != 0 {
            self.idle_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Notes that something waits for the client, and how many of the bytes that the socket has taken it has
    /// not acknowledged, where the system says.
    ///
    /// A socket asks for more when a good part of what it holds has gone. A client that reads at its own
    /// pace would look as if it took nothing for minutes.
    pub(super) fn note_held(&self, held: Option<u32>) {
        let begins = !self.is_stalled();
        let written = self.written.load(Ordering::Relaxed);
        let acknowledged = written.saturating_sub(held.map_or(written, u64::from));
        let then = self.acknowledged_then.load(Ordering::Relaxed);
        if begins {
            self.has_new_stall.store(true, Ordering::Relaxed);
        }
        if begins || acknowledged.saturating_sub(then) >= MIN_TAKEN {
            self.stalled_since.store(self.now(), Ordering::Relaxed);
            self.acknowledged_then
                .store(acknowledged, Ordering::Relaxed);
        }
    }

    /// Notes that it is closed because a limit was reached.
    pub(super) fn give_up(&self) {
        // A client that keeps the windows of HTTP/2 shut has taken what was sent.
        let is_given_up = self.is_stalled();
        self.is_given_up.store(is_given_up, Ordering::Relaxed);
    }

    /// Whether it is closed because the client takes nothing of what waits for it.
    pub(super) fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Relaxed)
    }

    /// Whether nothing has come over it yet.
    pub(super) fn is_new(&self) -> bool {
        self.idle_since.load(Ordering::Relaxed) == 1
    }

    /// Whether no response is under way, nor on its way out.
    pub(super) fn is_idle(&self) -> bool {
        self.responses.load(Ordering::Relaxed) == 0 && !self.is_stalled()
    }

    /// Whether hyper can be left, which speaks HTTP/1.1: all that it has read is answered, the stream
    /// has taken all responses, and what comes next is a request.
    pub(super) fn is_done_with_hyper(&self) -> bool {
        self.is_idle()
            && !self.is_unflushed.load(Ordering::Relaxed)
            && !self.has_unread()
            && !self.has_upgrade_offer.load(Ordering::Relaxed)
    }

    /// Notes that a client has offered to go on with another protocol (RFC 9110 section 7.8). hyper
    /// keeps the stream for that, to its end, also where the offer is declined.
    pub(super) fn note_upgrade_offer(&self) {
        self.has_upgrade_offer.store(true, Ordering::Relaxed);
    }

    /// Notes whether hyper may hold bytes that the stream has not taken.
    pub(super) fn note_flushed(&self, is_flushed: bool) {
        self.is_unflushed.store(!is_flushed, Ordering::Relaxed);
    }

    /// Notes whether the stream stays open when hyper ends.
    pub(super) fn keep_open(&self, is_kept_open: bool) {
        self.is_kept_open.store(is_kept_open, Ordering::Relaxed);
    }

    /// Whether the stream stays open when hyper ends.
    pub(super) fn is_kept_open(&self) -> bool {
        self.is_kept_open.load(Ordering::Relaxed)
    }

    /// Whether bytes may still come that will not be read.
    pub(super) fn has_unread(&self) -> bool {
        self.receiving_since.load(Ordering::Relaxed) != 0 || self.has_unread.load(Ordering::Relaxed)
    }
}

impl Connection for Activity {
    fn peer(&self) -> Peer {
        self.peer
    }

    fn is_secure(&self) -> bool {
        self.is_secure
    }

    fn read_permits(&self) -> Arc<Semaphore> {
        Arc::clone(&self.read_permits)
    }

    fn add_waiting(&self, bytes: usize) -> bool {
        let added = |waiting: usize| {
            let sum = waiting.saturating_add(bytes);
            (waiting == 0 || sum <= MAX_WAITING_BYTES).then_some(sum)
        };
        self.waiting_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, added)
            .is_ok()
    }

    fn remove_waiting(&self, bytes: usize) {
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn note_upload(&self) {
        if self.is_http2.load(Ordering::Relaxed) {
            self.note_sent();
        }
    }

    fn begin_upstream_wait(&self) {
        self.awaiting_upstream.fetch_add(1, Ordering::Relaxed);
    }

    fn end_upstream_wait(&self) {
        // First the time, then that it counts again.
        if self.unsent_since.load(Ordering::Relaxed) != 0 {
            self.unsent_since.store(self.now(), Ordering::Relaxed);
        }
        self.awaiting_upstream.fetch_sub(1, Ordering::Relaxed);
    }

    fn begin_response(&self, has_content: bool) {
        let is_first = self.responses.fetch_add(1, Ordering::Relaxed) == 0;
        self.idle_since.store(0, Ordering::Relaxed);
        self.receiving_since.store(0, Ordering::Relaxed);
        self.has_unread.store(has_content, Ordering::Relaxed);
        if is_first && self.is_http2.load(Ordering::Relaxed) {
            self.unsent_since.store(self.now(), Ordering::Relaxed);
        }
    }

    fn end_response(&self) {
        if self.responses.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.unsent_since.store(0, Ordering::Relaxed);
            self.idle_since.store(self.now(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a limit that is reached at once.
    const LIMITS: Limits = Limits {
        grace: Duration::ZERO,
        max_connections: 1,
        header_timeout: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(60),
        write_timeout: Duration::from_millis(1),
        max_header_size: bytesize::ByteSize::kib(16),
    };

    /// Waits for longer than that. The clock has steps of some milliseconds.
    fn wait(activity: &Activity) {
        let began = activity.now();
        while activity.now() < began + 20 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_client_goes_on_while_it_takes_what_waits_for_it() {
        const MEGABYTE: u32 = 1 << 20;
        let taken = |bytes: u64| MEGABYTE - bytes as u32;
        // What else was written before each look, what the socket holds then, and whether the client has
        // gone on.
        for looks in [
            &[(0, Some(MEGABYTE), false)][..],
            &[(0, Some(taken(MIN_TAKEN - 1)), false)],
            &[
                (0, Some(taken(MIN_TAKEN)), true),
                (0, Some(taken(MIN_TAKEN)), false),
            ],
            &[(0, Some(taken(MIN_TAKEN)), true), (0, Some(0), true)],
            // Little at each look, and enough together.
            &[
                (0, Some(taken(MIN_TAKEN / 2)), false),
                (0, Some(taken(MIN_TAKEN)), true),
            ],
            // It asks for more, and takes nothing, or as much.
            &[(70_000, Some(MEGABYTE + 70_000), false)],
            &[(70_000, Some(MEGABYTE), true)],
            &[(0, None, false), (0, Some(taken(MIN_TAKEN)), true)],
        ] {
            let activity = Activity::new(Peer::Unix);
            activity.note_written(MEGABYTE as usize);
            activity.note_held(Some(MEGABYTE));
            for (written, held, goes_on) in looks {
                let before = activity.stalled_since.load(Ordering::Relaxed);
                wait(&activity);
                activity.note_written(*written);
                activity.note_held(*held);
                let after = activity.stalled_since.load(Ordering::Relaxed);
                assert_eq!(after > before, *goes_on, "{held:?} of {looks:?}");
            }
            wait(&activity);
            assert!(matches!(activity.check(&LIMITS), Err(Overdue::Write)));
            activity.note_goes_on();
            assert!(activity.check(&LIMITS).is_ok(), "{looks:?}");
        }
    }

    #[test]
    fn a_client_is_not_blamed_while_another_server_is_silent() {
        let activity = Activity::new(Peer::Unix);
        activity.note_http2();
        activity.begin_response(false);
        activity.begin_upstream_wait();
        wait(&activity);
        assert!(activity.check(&LIMITS).is_ok(), "it waits");
        activity.end_upstream_wait();
        wait(&activity);
        assert!(matches!(activity.check(&LIMITS), Err(Overdue::Write)));
        activity.end_response();
        assert!(activity.check(&LIMITS).is_ok(), "nothing is left to take");
    }
}
