//! Streams that note what moves through them.
//!
//! [`MeteredSocket`] lies below TLS and sees whether bytes leave; [`Observed`] lies above and sees what
//! they mean.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::activity::Activity;

/// How long to wait for the rest of the content that is not read.
const LINGER: Duration = Duration::from_secs(1);
/// Limit for the bytes of it that are read and dropped: a client that sends more without reading
/// the response is cut off.
const MAX_LINGER_BYTES: usize = 64 << 20;
/// RFC 9113 section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A socket that notes whether it takes what is to be sent.
pub(super) struct MeteredSocket<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> MeteredSocket<S> {
    pub(super) fn new(stream: S, activity: &Arc<Activity>) -> Self {
        Self {
            stream,
            activity: Arc::clone(activity),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MeteredSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MeteredSocket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.activity.wrote(result.is_ready());
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut full = slices.iter().filter(|slice| !slice.is_empty());
        let (first, second) = (full.next(), full.next());
        if let Some(first) = first.filter(|_| second.is_none()) {
            // A header section alone, mostly: the plain call is the cheaper one.
            return self.poll_write(cx, first);
        }
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.activity.wrote(result.is_ready());
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// A stream of plain bytes that notes what they mean.
pub(super) struct Observed<S> {
    stream: S,
    activity: Arc<Activity>,
    protocol: Protocol,
    linger: Option<(Pin<Box<Sleep>>, usize)>,
}

enum Protocol {
    /// So many bytes of the preface have come, and nothing else.
    Open(usize),
    Http1,
    Http2(Frames),
}

impl<S> Observed<S> {
    pub(super) fn new(stream: S, activity: &Arc<Activity>) -> Self {
        Self {
            stream,
            activity: Arc::clone(activity),
            protocol: Protocol::Open(0),
            linger: None,
        }
    }

    fn received(&mut self, bytes: &[u8]) {
        if let Protocol::Open(seen) = self.protocol {
            self.protocol = match PREFACE.get(seen..) {
                Some(rest) if bytes.starts_with(rest) => {
                    self.activity.is_http2();
                    Protocol::Http2(Frames::default())
                }
                Some(rest) if rest.starts_with(bytes) => Protocol::Open(seen + bytes.len()),
                _ => Protocol::Http1,
            };
        }
        if !matches!(self.protocol, Protocol::Http2(_)) {
            self.activity.received();
        }
    }

    fn sent<'a>(&mut self, slices: impl IntoIterator<Item = &'a [u8]>, mut length: usize) {
        let Protocol::Http2(frames) = &mut self.protocol else {
            return;
        };
        let mut of_response = false;
        for slice in slices {
            let sent = slice.len().min(length);
            length -= sent;
            of_response |= frames.carry_response(slice.get(..sent).unwrap_or_default());
        }
        if of_response {
            self.activity.sent();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Observed<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if let Some(new) = buffer.filled().get(before..).filter(|new| !new.is_empty()) {
            this.received(new);
        }
        result
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Observed<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        this.sent([bytes], length);
        Poll::Ready(Ok(length))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, slices))?;
        this.sent(slices.iter().map(|slice| &**slice), length);
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    /// Closing a socket that has unread bytes resets the connection, and a reset can overtake the
    /// response: after a refused head, or with content that is not read, the rest is waited for
    /// and dropped, for a while (RFC 9112 section 9.6).
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (linger, left) = match &mut this.linger {
            Some(linger) => linger,
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                if !this.activity.has_unread() {
                    return Poll::Ready(Ok(()));
                }
                this.linger
                    .insert((Box::pin(sleep(LINGER)), MAX_LINGER_BYTES))
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

/// Follows HTTP/2 frames on their way out, for their types (RFC 9113 section 4.1).
#[derive(Default)]
struct Frames {
    /// How many bytes of `header` have been read.
    header_length: usize,
    header: [u8; 9],
    /// Still to come of the present frame's payload.
    payload: usize,
}

impl Frames {
    /// Whether these bytes hold a part of a response: HEADERS (1), or DATA (0) that is not empty.
    fn carry_response(&mut self, mut bytes: &[u8]) -> bool {
        let mut found = false;
        loop {
            let (skipped, rest) = bytes.split_at(bytes.len().min(self.payload));
            found |= !skipped.is_empty() && matches!(self.header[3], 0 | 1);
            self.payload -= skipped.len();
            if rest.is_empty() {
                return found;
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
            }
        }
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
                let found = bytes
                    .chunks(step)
                    .fold(false, |found, chunk| frames.carry_response(chunk) | found);
                assert_eq!(found, wanted, "in steps of {step}");
                assert_eq!((frames.payload, frames.header_length), (0, 0));
            }
        }
    }
}
