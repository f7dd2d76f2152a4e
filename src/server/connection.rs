//! One connection: HTTP/1.1 or HTTP/2 over any stream, and how long it may do what.
//!
//! hyper is told of no time-outs: re-arming a timer for each request costs more than many an
//! answer. Instead the connection notes when its state changed, and one timer that is rarely due
//! looks at the notes.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::config::Limits;
use crate::disk;
use crate::service::{Pending, Reply, Service};

/// How long a connection that was told to close may take to do so.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long a connection goes on reading after the drain has begun.
const LAST_LOOK: Duration = Duration::from_millis(20);
/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 128;
/// What of a response HTTP/2 may queue for one stream.
const STREAM_BUFFER: usize = 256 << 10;

/// hyper, set up within the limits.
pub(super) fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let header_size = limits.max_header_size.as_u64() as usize;
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .half_close(true)
        .max_buf_size(header_size)
        .header_read_timeout(None);
    builder
        .http2()
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(header_size as u32)
        .max_send_buf_size(STREAM_BUFFER)
        .timer(TokioTimer::new());
    builder
}

/// Serves `stream` until the client, a limit or `draining` ends it.
pub(super) async fn serve<S>(
    stream: S,
    service: Arc<Service>,
    builder: &Builder<TokioExecutor>,
    limits: &Limits,
    mut draining: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::new());
    let io = TokioIo::new(Watched {
        stream,
        activity: Arc::clone(&activity),
    });
    let attended = Attended {
        service,
        activity: Arc::clone(&activity),
    };
    let mut connection = pin!(builder.serve_connection(io, attended));
    let mut draining = pin!(draining.wait_for(|draining| *draining));
    let mut is_closing = false;
    let mut is_draining = false;
    let mut timer = pin!(sleep_until(Instant::now()));
    let result = poll_fn(|cx| {
        if let Poll::Ready(result) = connection.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        if !is_draining && draining.as_mut().poll(cx).is_ready() {
            // What the client sent before this has arrived, but perhaps not been read.
            is_draining = true;
            timer.as_mut().reset(Instant::now() + LAST_LOOK);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if is_draining && !is_closing {
                is_closing = true;
                timer.as_mut().reset(Instant::now());
                connection.as_mut().graceful_shutdown();
                return connection.as_mut().poll(cx);
            }
            match activity.check(limits) {
                Ok(next) => timer.as_mut().reset(next),
                // Said politely once; HTTP/2 needs the word to end without an error.
                Err(Overdue::Idle) if !is_closing => {
                    is_closing = true;
                    connection.as_mut().graceful_shutdown();
                    timer.as_mut().reset(Instant::now() + FAREWELL);
                    return connection.as_mut().poll(cx);
                }
                Err(_) => return Poll::Ready(Ok(())),
            }
        }
        Poll::Pending
    })
    .await;
    if let Err(error) = result {
        tracing::debug!("connection ended: {error}");
    }
}

/// A service that knows which connection asks.
struct Attended {
    service: Arc<Service>,
    activity: Arc<Activity>,
}

impl hyper::service::Service<Request<Incoming>> for Attended {
    type Response = Reply<Responding>;
    type Error = std::convert::Infallible;
    type Future = Pending<Responding>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (parts, _) = request.into_parts();
        self.service.call(parts, Responding::new(&self.activity))
    }
}

/// What a connection is doing and since when, in milliseconds from its beginning on, plus one:
/// zero says that it is not doing so.
struct Activity {
    opened: u64,
    is_http2: AtomicBool,
    /// Responses under way.
    responses: AtomicUsize,
    /// Since when there has been no request at all.
    idle: AtomicU64,
    /// Since when a header section has been arriving.
    receiving: AtomicU64,
    /// Since when the client has taken nothing of what waits to be sent.
    stalled: AtomicU64,
}

/// A limit that a connection has reached.
enum Overdue {
    Idle,
    Header,
    Write,
}

impl Activity {
    fn new() -> Self {
        Self {
            opened: disk::coarse_milliseconds(),
            is_http2: AtomicBool::new(false),
            responses: AtomicUsize::new(0),
            idle: AtomicU64::new(1),
            receiving: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        disk::coarse_milliseconds().saturating_sub(self.opened) + 1
    }

    /// When to look again, or the limit that is reached.
    fn check(&self, limits: &Limits) -> Result<Instant, Overdue> {
        let now = self.now();
        // A state that begins right after this look can be overdue one limit from now at the
        // earliest, so that is when to look again.
        let mut next = Duration::from_secs(365 * 24 * 3600);
        for (since, limit, overdue) in [
            (&self.idle, limits.idle_timeout, Overdue::Idle),
            (&self.receiving, limits.header_timeout, Overdue::Header),
            (&self.stalled, limits.write_timeout, Overdue::Write),
        ] {
            let elapsed = match since.load(Ordering::Relaxed) {
                0 => Duration::ZERO,
                since => Duration::from_millis(now.saturating_sub(since)),
            };
            match limit.checked_sub(elapsed) {
                Some(left) if !left.is_zero() => next = next.min(left),
                _ => return Err(overdue),
            }
        }
        Ok(Instant::now() + next + Duration::from_millis(1))
    }

    /// Notes that bytes have arrived. HTTP/2 frames say nothing of a header section: there the
    /// idle limit alone runs, and no frame but a request resets it.
    fn received(&self, bytes: &[u8]) {
        if self.receiving.load(Ordering::Relaxed) != 0
            || self.responses.load(Ordering::Relaxed) != 0
            || self.is_http2.load(Ordering::Relaxed)
        {
            return;
        }
        if bytes.starts_with(b"PRI * HTTP/2") {
            self.is_http2.store(true, Ordering::Relaxed);
            return;
        }
        self.receiving.store(self.now(), Ordering::Relaxed);
        self.idle.store(0, Ordering::Relaxed);
    }
}

/// Held by a response until it is over.
struct Responding(Arc<Activity>);

impl Responding {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.responses.fetch_add(1, Ordering::Relaxed);
        activity.idle.store(0, Ordering::Relaxed);
        activity.receiving.store(0, Ordering::Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for Responding {
    fn drop(&mut self) {
        if self.0.responses.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle.store(self.0.now(), Ordering::Relaxed);
        }
    }
}

/// A stream that notes what moves through it.
struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    fn note_write(&self, result: &Poll<io::Result<usize>>) {
        let stalled = &self.activity.stalled;
        let since = stalled.load(Ordering::Relaxed);
        if result.is_ready() {
            if since != 0 {
                stalled.store(0, Ordering::Relaxed);
            }
        } else if since == 0 {
            stalled.store(self.activity.now(), Ordering::Relaxed);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if let Some(new) = buffer.filled().get(before..).filter(|new| !new.is_empty()) {
            this.activity.received(new);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.note_write(&result);
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut full = slices.iter().filter(|slice| !slice.is_empty());
        if let (Some(only), None) = (full.next(), full.next()) {
            // A header section alone, mostly: the plain call is the cheaper one.
            return self.poll_write(cx, only);
        }
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.note_write(&result);
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
