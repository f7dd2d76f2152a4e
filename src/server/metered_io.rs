//! Streams that note what moves through them.
//!
//! [`MeteredSocket`] lies below TLS and sees whether bytes leave; [`ObservedStream`] lies above and sees what
//! they mean.

use std::io;
use std::mem;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::activity::Activity;
use super::socket::{MAX_UNSENT, MAX_UNSENT_SEALED, Socket, limit_unsent_bytes};
use crate::disk;

/// How long to wait for the rest of the content that is not read.
const MAX_LINGER: Duration = Duration::from_secs(1);
/// Limit for the bytes of it that are read and dropped: a client that sends more without reading
/// the response is cut off.
const MAX_LINGER_BYTES: usize = 64 << 20;
/// RFC 9113 section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether HTTP/2 may begin with these bytes.
pub(super) fn may_begin_http2(bytes: &[u8]) -> bool {
    bytes.starts_with(PREFACE) || PREFACE.starts_with(bytes)
}

/// A socket that notes whether it takes what is to be sent.
pub(super) struct MeteredSocket {
    socket: Socket,
    activity: Arc<Activity>,
    /// Whether the kernel may hold [`MAX_UNSENT_SEALED`].
    is_limit_raised: bool,
    /// How long the rest of a response may lie in the kernel once this is closed.
    max_rest: Duration,
}

impl MeteredSocket {
    /// A client that takes nothing for `max_rest` after the end is given up.
    pub(super) fn new(socket: Socket, activity: &Arc<Activity>, max_rest: Duration) -> Self {
        Self {
            socket,
            activity: Arc::clone(activity),
            is_limit_raised: false,
            max_rest,
        }
    }

    /// [`Socket::poll_send`], noted.
    pub(super) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        send: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let result = self.socket.poll_send(cx, send);
        self.note(&result);
        result
    }

    /// Has the kernel take much of the response that is sent.
    pub(super) fn raise_limit(&mut self) {
        if !mem::replace(&mut self.is_limit_raised, true) {
            limit_unsent_bytes(&self.socket, MAX_UNSENT_SEALED);
        }
    }

    /// Has the kernel take little of all others.
    pub(super) fn lower_limit(&mut self) {
        if mem::replace(&mut self.is_limit_raised, false) {
            limit_unsent_bytes(&self.socket, MAX_UNSENT);
        }
    }

    /// Whether the kernel holds more than it would of an ordinary response: that is still under way.
    ///
    /// # Errors
    /// When the client has gone.
    pub(super) fn holds_much(&self) -> io::Result<bool> {
        let held = match self.is_limit_raised {
            true => self.socket.unacknowledged(),
            false => None,
        };
        let is_much = held.is_some_and(|held| held > MAX_UNSENT);
        if is_much {
            self.activity.note_held(held);
            self.socket.check()?;
        } else {
            self.activity.note_goes_on();
        }
        Ok(is_much)
    }

    /// Notes what the socket has taken.
    fn note(&self, taken: &Poll<io::Result<usize>>) {
        match taken {
            Poll::Pending => self.activity.note_held(self.socket.unacknowledged()),
            Poll::Ready(Err(_)) => {}
            Poll::Ready(Ok(length)) => {
                self.activity.note_written(*length);
                // A socket that may hold much takes more from a client that does not read, too.
                if self.activity.is_stalled() {
                    // A client that has gone is for the next call to find.
                    let _ = self.holds_much();
                }
            }
        }
    }
}

impl Drop for MeteredSocket {
    /// Closed, a socket goes on sending what the kernel holds for as long as the client says that it is
    /// there, and no limit of this server counts it.
    fn drop(&mut self) {
        if self.activity.is_given_up() {
            self.socket.discard_at_close();
        } else if self.socket.unacknowledged() != Some(0) {
            self.socket.limit_rest(self.max_rest);
        }
    }
}

impl AsyncRead for MeteredSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for MeteredSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.socket).poll_write(cx, bytes);
        this.note(&result);
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.socket).poll_write_vectored(cx, slices);
        this.note(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

/// A stream of plain bytes that notes what they mean.
pub(super) struct ObservedStream<S> {
    stream: S,
    activity: Arc<Activity>,
    protocol: Protocol,
    head: IncomingHead,
    max_header_size: usize,
    linger: Option<(Pin<Box<Sleep>>, usize)>,
}

enum Protocol {
    /// Not known yet: so many bytes of the preface of HTTP/2 have come, and nothing else.
    Unknown(usize),
    Http1,
    Http2(Box<Http2Frames>),
}

/// The frames of an HTTP/2 connection, in both directions.
#[derive(Default)]
struct Http2Frames {
    outgoing: Frames,
    incoming: Frames,
    control: ControlFrames,
}

impl<S> ObservedStream<S> {
    pub(super) fn new(stream: S, activity: &Arc<Activity>, max_header_size: usize) -> Self {
        Self {
            stream,
            activity: Arc::clone(activity),
            protocol: Protocol::Unknown(0),
            head: IncomingHead::default(),
            max_header_size,
            linger: None,
        }
    }

    /// The stream.
    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    /// Notes what has come.
    ///
    /// # Errors
    /// When it is a flood of control frames.
    fn received(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if let Protocol::Unknown(seen) = self.protocol {
            self.protocol = match PREFACE.get(seen..) {
                Some(rest) if bytes.starts_with(rest) => {
                    self.activity.note_http2();
                    bytes = &bytes[rest.len()..];
                    Protocol::Http2(Box::default())
                }
                Some(rest) if rest.starts_with(bytes) => Protocol::Unknown(seen + bytes.len()),
                _ => Protocol::Http1,
            };
        }
        let Protocol::Http2(frames) = &mut self.protocol else {
            if self.activity.note_received() {
                self.head.forget_answered();
            }
            self.head.received(bytes);
            return Ok(());
        };
        let count = frames.incoming.count_control(bytes);
        if count == 0 || frames.control.add(count, disk::coarse_milliseconds()) {
            return Ok(());
        }
        self.activity.note_flood();
        Err(io::Error::other("too many control frames"))
    }

    /// The status line to send in place of the one that `bytes` begin with: hyper answers a head that
    /// it can't take by itself, and 431 for whatever is too large.
    fn corrected_status_line(&self, bytes: &[u8]) -> Option<&'static [u8; STATUS_431.len()]> {
        let is_from_hyper =
            matches!(self.protocol, Protocol::Http1) && !self.activity.is_responding();
        if is_from_hyper && bytes.starts_with(STATUS_431) {
            return self.head.corrected_status(self.max_header_size);
        }
        None
    }

    fn sent<'a>(&mut self, slices: impl IntoIterator<Item = &'a [u8]>, mut length: usize) {
        let Protocol::Http2(frames) = &mut self.protocol else {
            return;
        };
        let mut of_response = false;
        for slice in slices {
            let sent = slice.len().min(length);
            length -= sent;
            let carried = frames
                .outgoing
                .carry_response(slice.get(..sent).unwrap_or_default());
            frames.control.answer(carried.begun);
            of_response |= carried.any;
        }
        if of_response {
            self.activity.note_sent();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ObservedStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if let Some(new) = buffer.filled().get(before..).filter(|new| !new.is_empty()) {
            this.received(new)?;
        }
        result
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ObservedStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let corrected = this.corrected_status_line(bytes).map(|status| {
            let mut corrected = bytes.to_vec();
            corrected[..status.len()].copy_from_slice(status);
            corrected
        });
        let bytes = corrected.as_deref().unwrap_or(bytes);
        this.activity.note_flushed(false);
        let length = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        this.sent([bytes], length);
        Poll::Ready(Ok(length))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(first) = slices.first()
            && self.corrected_status_line(first).is_some()
        {
            return self.poll_write(cx, first);
        }
        let this = self.get_mut();
        this.activity.note_flushed(false);
        let length = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, slices))?;
        this.sent(slices.iter().map(|slice| &**slice), length);
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
        // hyper flushes the stream when it has written all that it holds.
        this.activity.note_flushed(true);
        Poll::Ready(Ok(()))
    }

    /// Closing a socket that has unread bytes resets the connection, and a reset can overtake the
    /// response: after a refused head, or with content that is not read, the rest is waited for
    /// and dropped, for a while (RFC 9112 section 9.6).
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (linger, left) = match &mut this.linger {
            Some(linger) => linger,
            None if this.activity.is_kept_open() => return Poll::Ready(Ok(())),
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                if !this.activity.has_unread() {
                    return Poll::Ready(Ok(()));
                }
                this.linger
                    .insert((Box::pin(sleep(MAX_LINGER)), MAX_LINGER_BYTES))
            }
        };
        let mut space = [0; 4096];
        while *left > 0 && linger.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut space);
            let read = Pin::new(&mut this.stream).poll_read(cx, &mut buffer);
            if ready!(read).is_err() || buffer.filled().is_empty() {
                break;
            }
            *left = left.saturating_sub(buffer.filled().len());
        }
        Poll::Ready(Ok(()))
    }
}

/// The status line of hyper's own answer to a head that is too large in some way.
const STATUS_431: &[u8; 46] = b"HTTP/1.1 431 Request Header Fields Too Large\r\n";
/// As long as the other, so that it can stand in its place.
const STATUS_414: &[u8; 46] = b"HTTP/1.1 414 Request Target Too Long to Read\r\n";
/// As long as the first, too.
const STATUS_400: &[u8; 46] = b"HTTP/1.1 400 Content-Length Is Out of Bounds\r\n";
/// hyper's limit for field lines.
const MAX_FIELDS: usize = 100;

/// What has come over HTTP/1.1 of heads that are not answered yet: one, or several in a pipeline.
struct IncomingHead {
    bytes: usize,
    /// Line ends, without those of empty lines.
    lines: usize,
    /// Of those two, what the last head has that is not over.
    unfinished: (usize, usize),
    /// Bytes of the line that has not ended.
    line: usize,
    /// Whether that is a carriage return alone, so far.
    is_return: bool,
    /// Whether that is a request line.
    is_request_line: bool,
    /// Whether the method in it is over: without a space, nothing that is too long is a target.
    has_target: bool,
}

impl Default for IncomingHead {
    fn default() -> Self {
        Self {
            bytes: 0,
            lines: 0,
            unfinished: (0, 0),
            line: 0,
            is_return: false,
            is_request_line: true,
            has_target: false,
        }
    }
}

impl IncomingHead {
    /// All requests that were read are answered. The beginning of the next may have come with them.
    fn forget_answered(&mut self) {
        (self.bytes, self.lines) = self.unfinished;
    }

    fn received(&mut self, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(bytes.len());
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            self.line_goes_on(bytes.get(start..end).unwrap_or_default());
            start = end + 1;
            let is_empty = self.line == 0 || self.is_return;
            // An empty line ends a head; before a request line it is skipped (RFC 9112 section 2.2).
            // What follows is the next request, or content, in which nothing is too long a target.
            self.is_request_line = is_empty;
            self.unfinished.0 = self.unfinished.0.saturating_add(1);
            match (is_empty, self.unfinished.1) {
                // Skipped, but the buffer holds them.
                (true, 0) => {}
                (true, _) => self.unfinished = (0, 0),
                (false, lines) => {
                    self.lines = self.lines.saturating_add(1);
                    self.unfinished.1 = lines.saturating_add(1);
                }
            }
            (self.line, self.is_return, self.has_target) = (0, false, false);
        }
        self.line_goes_on(bytes.get(start..).unwrap_or_default());
    }

    fn line_goes_on(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.is_return = self.line == 0 && bytes == b"\r";
        self.line = self.line.saturating_add(bytes.len());
        self.unfinished.0 = self.unfinished.0.saturating_add(bytes.len());
        self.has_target |= self.is_request_line && memchr::memchr(b' ', bytes).is_some();
    }

    /// A better status line than 431 for it: 414 where a request line alone fills the buffer, 400
    /// where neither bytes nor lines are too many. hyper has then met a Content-Length beyond what it
    /// counts to (RFC 9112 section 6.3).
    fn corrected_status(&self, max_size: usize) -> Option<&'static [u8; STATUS_431.len()]> {
        if self.is_request_line && self.line > 0 && self.bytes >= max_size {
            return self.has_target.then_some(STATUS_414);
        }
        (self.lines <= MAX_FIELDS && self.bytes < max_size).then_some(STATUS_400)
    }
}

/// Follows HTTP/2 frames in one direction, for their types (RFC 9113 section 4.1).
#[derive(Default)]
struct Frames {
    /// How many bytes of `header` have been read.
    header_length: usize,
    header: [u8; 9],
    /// Still to come of the present frame's payload.
    payload: usize,
}

/// What some bytes hold of responses: HEADERS (1), and DATA (0) that is not empty.
#[derive(Clone, Copy, Default)]
struct CarriedResponse {
    /// Whether there is anything.
    any: bool,
    /// How many such frames begin.
    begun: u32,
}

impl Frames {
    fn carry_response(&mut self, bytes: &[u8]) -> CarriedResponse {
        let is_response = |kind: u8| matches!(kind, 0 | 1);
        let mut carried = CarriedResponse::default();
        self.follow(bytes, |[_, _, _, kind, ..], payload, is_begin| {
            if is_response(kind) && payload > 0 {
                match is_begin {
                    true => carried.begun += 1,
                    false => carried.any = true,
                }
            }
        });
        carried
    }

    /// How many frames begin that cost the server work and carry nothing of a request: all but
    /// HEADERS (1), DATA (0) that is not empty or ends a stream, and RST_STREAM (3) and CONTINUATION
    /// (9), which h2 bounds.
    fn count_control(&mut self, bytes: &[u8]) -> u32 {
        const END_STREAM: u8 = 1;
        let mut count = 0;
        self.follow(bytes, |[_, _, _, kind, flags, ..], payload, is_begin| {
            let is_control = match kind {
                0 => payload == 0 && flags & END_STREAM == 0,
                1 | 3 | 9 => false,
                _ => true,
            };
            if is_begin && is_control {
                count += 1;
            }
        });
        count
    }

    /// Calls `see` with the header of each frame that begins, the length of its payload, and `true`;
    /// and with each stretch of a payload, its length, and `false`.
    fn follow(&mut self, mut bytes: &[u8], mut see: impl FnMut([u8; 9], usize, bool)) {
        loop {
            let (skipped, rest) = bytes.split_at(bytes.len().min(self.payload));
            if !skipped.is_empty() {
                see(self.header, skipped.len(), false);
            }
            self.payload -= skipped.len();
            if rest.is_empty() {
                return;
            }
            let space = &mut self.header[self.header_length..];
            let (taken, rest) = rest.split_at(rest.len().min(space.len()));
            space[..taken.len()].copy_from_slice(taken);
            self.header_length += taken.len();
            bytes = rest;
            if self.header_length == self.header.len() {
                let [a, b, c, ..] = self.header;
                self.payload = u32::from_be_bytes([0, a, b, c]) as usize;
                self.header_length = 0;
                see(self.header, self.payload, true);
            }
        }
    }
}

/// Control frames that a client has sent beyond what its requests explain (CVE-2019-9512, 9515 and
/// 9517 are floods of PING, SETTINGS and WINDOW_UPDATE).
#[derive(Default)]
struct ControlFrames {
    level: u32,
    /// When the level was last lowered, on the coarse clock.
    lowered: u64,
}

impl ControlFrames {
    /// Limit for the level. A client that opens its windows byte by byte is far below it.
    const MAX_LEVEL: u32 = 10_000;
    /// Milliseconds in which one frame is forgotten.
    const FORGOTTEN_AFTER: u64 = 10;
    /// Frames that each frame of a response explains: an update of two windows, and as many again.
    const PER_RESPONSE: u32 = 4;

    /// Adds frames that have come at `now`, in milliseconds. Returns whether they are acceptable.
    fn add(&mut self, count: u32, now: u64) -> bool {
        let forgotten = now.saturating_sub(self.lowered) / Self::FORGOTTEN_AFTER;
        self.lowered += forgotten * Self::FORGOTTEN_AFTER;
        let forgotten = u32::try_from(forgotten).unwrap_or(u32::MAX);
        self.level = self.level.saturating_sub(forgotten).saturating_add(count);
        self.level <= Self::MAX_LEVEL
    }

    /// Notes that so many frames of responses were sent.
    fn answer(&mut self, frames: u32) {
        self.level = self
            .level
            .saturating_sub(frames.saturating_mul(Self::PER_RESPONSE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of this type with this payload.
    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
        [&length[..], &[kind, 0, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn a_head_that_is_too_large_is_told_from_a_long_target() {
        let target = format!("GET /{} HTTP/1.1", "a".repeat(100));
        let (long, short) = (target.as_str(), "\r\n\r\nGET / HTTP/1.1\r\nA: 1\r\n\r\n");
        let fields = format!("{short}{}", "A: 1\r\n".repeat(110));
        for (head, max_size, wanted) in [
            (long, 50, Some(STATUS_414)),
            (&format!("\r\n\r\n{long}"), 50, Some(STATUS_414)),
            (&"a".repeat(100), 50, None),
            // Behind another request, which may have content.
            (&format!("{short}{long}"), 50, Some(STATUS_414)),
            (
                &format!("{short}a b\n\r\nc\n\n{long}"),
                50,
                Some(STATUS_414),
            ),
            (&format!("{short}{long}\r\nA: 1"), 50, None),
            (&format!("{short}{}", "a".repeat(100)), 50, None),
            (&format!("{long}\r\nA: 1"), 50, None),
            (short, 20, None),
            (short, 100, Some(STATUS_400)),
            (&fields, 10_000, None),
        ] {
            for step in [1, 7, 10_000] {
                let mut incoming = IncomingHead::default();
                for bytes in head.as_bytes().chunks(step) {
                    incoming.received(bytes);
                }
                assert_eq!(incoming.corrected_status(max_size), wanted, "{head:?}");
                // Nothing of a head that goes on is forgotten.
                if wanted == Some(STATUS_414) {
                    incoming.forget_answered();
                    incoming.received(b"a");
                    assert_eq!(incoming.corrected_status(max_size), wanted, "{head:?}");
                }
            }
        }
    }

    #[test]
    fn frames_are_told_apart_however_they_are_cut() {
        let (data, headers) = (frame(0, &[7; 300]), frame(1, &[1; 20]));
        let (ping, settings, empty) = (frame(6, &[0; 8]), frame(4, &[]), frame(0, &[]));
        for (frames, wanted) in [
            (vec![&ping, &settings, &empty, &ping], false),
            (vec![&ping, &data, &settings], true),
            (vec![&settings, &headers], true),
            (vec![&settings], false),
        ] {
            let bytes: Vec<u8> = frames.into_iter().flatten().copied().collect();
            for step in 1..=bytes.len() {
                let mut frames = Frames::default();
                let found = bytes.chunks(step).fold(false, |found, chunk| {
                    frames.carry_response(chunk).any | found
                });
                assert_eq!(found, wanted, "in steps of {step}");
                assert_eq!((frames.payload, frames.header_length), (0, 0));
            }
        }
    }

    #[test]
    fn control_frames_are_counted_however_they_are_cut() {
        let (ping, settings, update) = (frame(6, &[0; 8]), frame(4, &[]), frame(8, &[0; 4]));
        let (headers, data, empty) = (frame(1, &[1; 20]), frame(0, &[7; 300]), frame(0, &[]));
        let (reset, unknown) = (frame(3, &[0; 4]), frame(99, &[0; 3]));
        let frames = [
            &ping, &headers, &settings, &data, &update, &empty, &reset, &unknown,
        ];
        let bytes: Vec<u8> = frames.into_iter().flatten().copied().collect();
        for step in 1..=bytes.len() {
            let mut frames = Frames::default();
            let counts = bytes.chunks(step).map(|chunk| frames.count_control(chunk));
            assert_eq!(counts.sum::<u32>(), 5, "in steps of {step}");
        }
    }

    #[test]
    fn a_flood_is_more_than_time_and_responses_explain() {
        let start = 1_000_000;
        let mut control = ControlFrames::default();
        assert!(control.add(10_000, start));
        assert!(!control.add(1, start), "a burst");

        let mut control = ControlFrames::default();
        let is_slow = |second: u64| control.add(100, start + second * 1000);
        assert!((0..3600).all(is_slow), "a hundred a second");

        let mut control = ControlFrames::default();
        let is_reader = |_| {
            control.answer(1);
            control.add(4, start)
        };
        assert!((0..1_000_000).all(is_reader), "windows of what is sent");
    }
}
