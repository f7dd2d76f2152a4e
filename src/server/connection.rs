//! One connection: HTTP/1.1 or HTTP/2 over any stream, for as long as its [`Activity`] is within
//! the limits. hyper itself has no time-outs set.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::activity::{Activity, Overdue};
use super::metered_io::ObservedStream;
use crate::service::{Connection, Handler, InFlight};
use crate::settings::Limits;

/// How long a connection that was told to close may take to do so, in addition to its responses.
const MAX_CLOSE_TIME: Duration = Duration::from_secs(1);
/// How long a connection goes on reading after the drain has begun: a request that the client sent
/// before it may have arrived, and not been read.
const MAX_LAST_READ: Duration = Duration::from_millis(20);
/// The same for one over which nothing has come yet: its client has just connected, and is
/// about to ask.
const MAX_FIRST_READ: Duration = Duration::from_secs(1);
/// Limit for the requests at the same time on one HTTP/2 connection. RFC 9113 section 6.5.2 advises
/// against fewer than 100.
const MAX_CONCURRENT_STREAMS: u32 = 128;
/// Limit for the bytes of a response that HTTP/2 queues for one stream.
const MAX_STREAM_BUFFER: usize = 256 << 10;

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
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .max_header_list_size(header_size as u32)
        .max_send_buf_size(MAX_STREAM_BUFFER)
        .timer(TokioTimer::new());
    builder
}

/// Serves `stream` until the client, a limit or `draining` ends it.
pub(super) async fn serve<S, H>(
    stream: S,
    activity: Arc<Activity>,
    handler: Arc<H>,
    builder: &Builder<TokioExecutor>,
    limits: &Limits,
    mut draining: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let header_size = limits.max_header_size.as_u64() as usize;
    let io = TokioIo::new(ObservedStream::new(stream, &activity, header_size));
    let service = ConnectionService {
        handler: Arc::clone(&handler),
        connection: Arc::<Activity>::clone(&activity),
    };
    let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));
    let mut draining = pin!(draining.wait_for(|draining| *draining));
    let mut is_draining = false;
    // By when it must have closed, once it was told to.
    let mut close_by: Option<Instant> = None;
    let mut timer = pin!(sleep_until(Instant::now()));
    let result = poll_fn(|cx| {
        if let Poll::Ready(result) = connection.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        if !is_draining && draining.as_mut().poll(cx).is_ready() {
            is_draining = true;
            let read_on = if activity.is_new() {
                MAX_FIRST_READ
            } else {
                MAX_LAST_READ
            };
            timer.as_mut().reset(Instant::now() + read_on);
        }
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let checked = activity.check(limits);
            let is_over = is_draining || matches!(checked, Err(Overdue::Idle));
            let next = match (close_by, checked) {
                // Told to close once. HTTP/2 needs its GOAWAY to end without an error (RFC 9113
                // section 6.8).
                (None, _) if is_over => {
                    close_by = Some(now + MAX_CLOSE_TIME);
                    connection.as_mut().graceful_shutdown();
                    if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                        return Poll::Ready(result);
                    }
                    now + MAX_CLOSE_TIME
                }
                (Some(close_by), _) if now >= close_by && activity.is_idle() => {
                    return Poll::Ready(Ok(()));
                }
                (Some(_), Ok(next)) => next.min(now + MAX_CLOSE_TIME),
                (None, Ok(next)) => next,
                (_, Err(_)) => return Poll::Ready(Ok(())),
            };
            timer.as_mut().reset(next);
        }
        Poll::Pending
    })
    .await;
    if let Err(error) = result {
        if activity.has_flooded() {
            handler.note_flood();
        }
        if error.downcast_ref().is_some_and(hyper::Error::is_parse) {
            handler.note_malformed();
        }
        tracing::debug!(%error, "connection ended: {error}");
    }
}

/// A handler that knows which connection asks.
struct ConnectionService<H> {
    handler: Arc<H>,
    connection: Arc<dyn Connection>,
}

impl<H: Handler> hyper::service::Service<Request<Incoming>> for ConnectionService<H> {
    type Response = Response<H::Body>;
    type Error = Infallible;
    type Future = H::Future;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (parts, content) = request.into_parts();
        let in_flight = InFlight::new(&self.connection, !content.is_end_stream());
        self.handler.respond(parts, content, in_flight)
    }
}
