//! One connection: HTTP/1.1 or HTTP/2 over any stream, for as long as its [`Activity`] is within
//! the limits. It begins with the [`Front`], and goes on with hyper from the first request on that
//! is not for the front. Neither has time-outs of its own.

use std::convert::Infallible;
use std::future::poll_fn;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::{Builder, UpgradeableConnection};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::activity::{Activity, Overdue};
use super::front::{Front, Leave};
use super::metered_io::ObservedStream;
use super::rewound::Rewound;
use super::transport::Transport;
use crate::service::{BoxError, Connection, Handler, InFlight};
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
    S: Transport,
    H: Handler,
{
    let mut served = ServedConnection::new(stream, &activity, &handler, builder, limits);
    let mut draining = pin!(draining.wait_for(|draining| *draining));
    let mut is_draining = false;
    // By when it must have closed, once it was told to.
    let mut close_by: Option<Instant> = None;
    let mut timer = pin!(sleep_until(Instant::now()));
    let result = poll_fn(|cx| {
        if let Poll::Ready(result) = served.poll(cx) {
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
                    served.close_when_idle();
                    if let Poll::Ready(result) = served.poll(cx) {
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

/// Who reads and answers the requests of a connection.
struct ServedConnection<'a, S, H: Handler> {
    activity: &'a Arc<Activity>,
    handler: &'a Arc<H>,
    builder: &'a Builder<TokioExecutor>,
    max_header_size: usize,
    is_closing: bool,
    engine: Engine<'a, S, H>,
}

enum Engine<'a, S, H: Handler> {
    Front(Front<S>),
    Hyper(Pin<Box<HyperConnection<'a, S, H>>>),
    Closed,
}

type HyperConnection<'a, S, H> = UpgradeableConnection<
    'a,
    TokioIo<ObservedStream<Rewound<S>>>,
    ConnectionService<H>,
    TokioExecutor,
>;

impl<'a, S, H> ServedConnection<'a, S, H>
where
    S: Transport,
    H: Handler,
{
    fn new(
        stream: S,
        activity: &'a Arc<Activity>,
        handler: &'a Arc<H>,
        builder: &'a Builder<TokioExecutor>,
        limits: &Limits,
    ) -> Self {
        Self {
            activity,
            handler,
            builder,
            max_header_size: limits.max_header_size.as_u64() as usize,
            is_closing: false,
            engine: Engine::Front(Front::new(stream)),
        }
    }

    /// Goes on reading and answering. Ready when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if let Engine::Front(front) = &mut self.engine {
            let leave = ready!(front.poll(cx, self.handler, self.activity))?;
            let engine = mem::replace(&mut self.engine, Engine::Closed);
            if let (Engine::Front(front), Leave::ForHyper) = (engine, leave) {
                let mut connection = self.hyper(front.into_stream());
                if self.is_closing {
                    // Told to close before it has read anything, it would drop what was received.
                    if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                        return Poll::Ready(result);
                    }
                    connection.as_mut().graceful_shutdown();
                }
                self.engine = Engine::Hyper(connection);
            }
        }
        match &mut self.engine {
            Engine::Hyper(connection) => connection.as_mut().poll(cx),
            Engine::Front(_) | Engine::Closed => Poll::Ready(Ok(())),
        }
    }

    /// hyper, for good. In a box: most connections never need it.
    fn hyper(&self, stream: Rewound<S>) -> Pin<Box<HyperConnection<'a, S, H>>> {
        let io = ObservedStream::new(stream, self.activity, self.max_header_size);
        let service = ConnectionService {
            handler: Arc::clone(self.handler),
            connection: Arc::<Activity>::clone(self.activity),
        };
        let connection = self
            .builder
            .serve_connection_with_upgrades(TokioIo::new(io), service);
        Box::pin(connection)
    }

    /// Has the connection end as soon as what it has begun with is answered.
    fn close_when_idle(&mut self) {
        self.is_closing = true;
        match &mut self.engine {
            Engine::Front(front) => front.close_when_idle(),
            Engine::Hyper(connection) => connection.as_mut().graceful_shutdown(),
            Engine::Closed => {}
        }
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

#[cfg(test)]
mod tests {
    use std::future::{Ready, ready};

    use bytes::Bytes;
    use bytesize::ByteSize;
    use http::request::Parts;
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::task::yield_now;

    use super::*;
    use crate::client::Peer;
    use crate::semantics::head::RequestHead;
    use crate::semantics::plain::PlainHead;
    use crate::service::{AtOnce, FilesAtOnce, FrontContent};

    /// Says who is asked for what: the front for all but `/hyper`.
    struct Echo;

    impl Handler for Echo {
        type Body = Full<Bytes>;
        type Future = Ready<Result<Response<Self::Body>, Infallible>>;

        fn respond(self: &Arc<Self>, request: Parts, _: Incoming, _: InFlight) -> Self::Future {
            let said = format!("<hyper {}>", request.uri);
            ready(Ok(Response::new(Full::from(said))))
        }

        fn respond_at_once(
            self: &Arc<Self>,
            request: &PlainHead<'_, '_>,
            _: &dyn Connection,
            _: FilesAtOnce,
            head: &mut Vec<u8>,
        ) -> AtOnce<FrontContent> {
            if request.path() == "/hyper" {
                return AtOnce::Elsewhere;
            }
            let said = format!("<front {}>", request.target());
            head.extend_from_slice(b"HTTP/1.1 200 OK\r\n\r\n");
            if request.path() != "/head" {
                return AtOnce::Reply(FrontContent::Bytes(said.into()));
            }
            head.extend_from_slice(said.as_bytes());
            AtOnce::Reply(FrontContent::default())
        }

        fn note_malformed(&self) {}

        fn note_flood(&self) {}
    }

    fn limits() -> Limits {
        let minute = Duration::from_secs(60);
        Limits {
            grace: minute,
            max_connections: 1,
            header_timeout: minute,
            idle_timeout: minute,
            write_timeout: minute,
            max_header_size: ByteSize::kib(16),
        }
    }

    /// What is said to these bytes, which come in two parts through a pipe of this size.
    async fn said_to(first: &[u8], second: &[u8], size: usize) -> String {
        let (there, here) = duplex(size);
        let (mut responses, mut requests) = tokio::io::split(there);
        let limits = limits();
        let builder = builder(&limits);
        let draining = watch::Sender::new(false);
        let activity = Arc::new(Activity::new(Peer::Unix));
        let serving = serve(
            here,
            activity,
            Arc::new(Echo),
            &builder,
            &limits,
            draining.subscribe(),
        );
        let send = async move {
            requests.write_all(first).await.expect("open");
            // The other two have their turns.
            yield_now().await;
            yield_now().await;
            requests.write_all(second).await.expect("open");
            requests.shutdown().await.expect("open");
        };
        let mut all = Vec::new();
        let receive = async {
            responses.read_to_end(&mut all).await.expect("open");
        };
        tokio::join!(serving, send, receive);
        let all = String::from_utf8_lossy(&all).into_owned();
        let said = all.split('<').skip(1);
        said.filter_map(|said| said.split('>').next())
            .collect::<Vec<_>>()
            .join(", ")
    }

    #[tokio::test]
    async fn requests_are_answered_in_their_order_however_they_are_cut() {
        const REQUESTS: &[u8] = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /head HTTP/1.1\r\n\r\n\
            \r\nHEAD /3?q HTTP/1.1\nA: b\n\nGET /hyper HTTP/1.1\r\n\r\nGET /5 HTTP/1.1\r\n\r\n\
            DELETE /6 HTTP/1.1\r\n\r\nGET /7 HTTP/1.1\r\n\r\n";
        const SAID: &str =
            "front /1, front /head, front /3?q, hyper /hyper, hyper /5, hyper /6, hyper /7";
        for split in 0..=REQUESTS.len() {
            let (first, second) = REQUESTS.split_at(split);
            assert_eq!(said_to(first, second, 1 << 12).await, SAID, "at {split}");
        }
        for size in [1, 2, 3, 7, 64] {
            assert_eq!(said_to(REQUESTS, b"", size).await, SAID, "{size} at a time");
        }
    }

    #[tokio::test]
    async fn more_than_one_turn_of_requests() {
        let requests = b"GET /head HTTP/1.1\r\n\r\nGET /x HTTP/1.1\r\n\r\n".repeat(100);
        let said = said_to(&requests, b"GET /hyper HTTP/1.1\r\n\r\n", 1 << 12).await;
        let wanted = "front /head, front /x, ".repeat(100) + "hyper /hyper";
        assert_eq!(said, wanted);
    }

    #[tokio::test]
    async fn p9_a_request_that_had_begun_before_the_drain_is_answered() {
        for target in ["/1", "/hyper"] {
            let (mut there, here) = duplex(1 << 12);
            let limits = limits();
            let builder = builder(&limits);
            let draining = watch::Sender::new(false);
            let activity = Arc::new(Activity::new(Peer::Unix));
            let serving = serve(
                here,
                activity,
                Arc::new(Echo),
                &builder,
                &limits,
                draining.subscribe(),
            );
            let client = async {
                let begun = format!("GET {target} HTTP/1.1\r\nHo");
                there.write_all(begun.as_bytes()).await.expect("open");
                yield_now().await;
                draining.send_replace(true);
                // Longer than a connection waits for what is on its way: no event says so.
                tokio::time::sleep(MAX_LAST_READ * 3).await;
                there.write_all(b"st: a\r\n\r\n").await.expect("open");
                let mut all = String::new();
                there.read_to_string(&mut all).await.expect("open");
                all
            };
            let ((), all) = tokio::join!(serving, client);
            assert!(all.contains(&format!("<hyper {target}>")), "{all:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_request_is_for_hyper_to_refuse() {
        for bytes in [
            &b"GET /1 HTTP/1.1\r\n\r\n\x00"[..],
            b"GET /1 HTTP/1.1\r\n\r\nG E T\r\n\r\n",
        ] {
            for split in 0..=bytes.len() {
                let (first, second) = bytes.split_at(split);
                assert_eq!(
                    said_to(first, second, 1 << 12).await,
                    "front /1",
                    "at {split}"
                );
            }
        }
    }
}
