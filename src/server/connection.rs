//! One connection: HTTP/1.1 or HTTP/2 over any stream, for as long as its [`Activity`] is within
//! the limits. It begins with the [`Front`]. A request that is not for the front is hyper's, and so is
//! what came with it; then the front goes on, unless the connection speaks HTTP/2. Neither has
//! time-outs of its own.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::sync::watch;
use tokio::task::coop;
use tokio::time::{self, sleep_until};

use super::activity::{Activity, Overdue};
use super::front::{Front, FrontExit, Turn};
use super::metered_io::{ObservedStream, may_begin_http2};
use super::rewound::Rewound;
use super::transport::Transport;
use crate::service::{BoxError, Handler, InFlight};
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
pub(super) struct HyperBuilder {
    http1: http1::Builder,
    any_version: auto::Builder<TokioExecutor>,
}

impl HyperBuilder {
    pub(super) fn new(limits: &Limits) -> Self {
        let header_size = limits.max_header_size.as_u64() as usize;
        let mut http1 = http1::Builder::new();
        http1
            .half_close(true)
            .max_buf_size(header_size)
            // hyper's buffer has room for more once it has grown.
            .max_header_size(header_size)
            .header_read_timeout(None);
        let mut any_version = auto::Builder::new(TokioExecutor::new());
        any_version
            .http1()
            .half_close(true)
            .max_buf_size(header_size)
            .header_read_timeout(None);
        any_version
            .http2()
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .max_header_list_size(header_size as u32)
            .max_send_buf_size(MAX_STREAM_BUFFER)
            .timer(TokioTimer::new());
        Self { http1, any_version }
    }
}

/// Serves `stream` until the client, a limit or `draining` ends it.
pub(super) async fn serve<S, H>(
    stream: S,
    activity: Arc<Activity>,
    handler: Arc<H>,
    builder: &HyperBuilder,
    limits: &Limits,
    draining: &watch::Receiver<bool>,
) where
    S: Transport,
    H: Handler,
{
    let mut served = ServedConnection::new(stream, &activity, &handler, builder, limits);
    let mut drain_signal = draining.clone();
    let drain_begins = pin!(drain_signal.wait_for(|draining| *draining));
    let mut drain = PollGate::new(drain_begins);
    // Of a receiver that has seen nothing yet.
    let may_have_begun = || !matches!(draining.has_changed(), Ok(false));
    let mut is_draining = false;
    // By when it must have closed, once it was told to.
    let mut close_by: Option<time::Instant> = None;
    let timer = pin!(sleep_until(time::Instant::now()));
    let mut timer = PollGate::new(timer);
    let result = poll_fn(|cx| {
        if let Poll::Ready(result) = served.poll(cx) {
            return Poll::Ready(result);
        }
        if let Some(soon) = activity.new_stall(limits) {
            let soon = time::Instant::now() + soon;
            if timer.future.deadline() > soon {
                timer.inner().as_mut().reset(soon);
            }
        }
        if !is_draining && drain.poll(cx, |_| may_have_begun()).is_ready() {
            is_draining = true;
            let read_on = if activity.is_new() {
                MAX_FIRST_READ
            } else {
                MAX_LAST_READ
            };
            timer.inner().as_mut().reset(time::Instant::now() + read_on);
        }
        while timer.poll(cx, |timer| timer.is_elapsed()).is_ready() {
            let now = time::Instant::now();
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
                (_, Err(overdue)) => {
                    if matches!(overdue, Overdue::Write) {
                        activity.give_up();
                    }
                    return Poll::Ready(Ok(()));
                }
            };
            timer.inner().as_mut().reset(next);
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

/// A future that costs more to poll than a request should, and so is polled only where that may be of
/// use: it takes a lock, or writes down whom to wake once more.
struct PollGate<F> {
    future: F,
    /// Whom it wakes.
    waker: Option<Waker>,
}

impl<F: Future + Unpin> PollGate<F> {
    fn new(future: F) -> Self {
        Self {
            future,
            waker: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, may_be_ready: impl Fn(&F) -> bool) -> Poll<F::Output> {
        let waker = self.waker.as_ref();
        if waker.is_some_and(|waker| waker.will_wake(cx.waker())) && !may_be_ready(&self.future) {
            return Poll::Pending;
        }
        // A task that has had its share is put off by tokio, and nothing of it says whom to wake.
        self.waker = coop::has_budget_remaining().then(|| cx.waker().clone());
        Pin::new(&mut self.future).poll(cx)
    }

    /// The future, for a change: it is polled after that, for what is ready has forgotten whom it woke.
    fn inner(&mut self) -> &mut F {
        self.waker = None;
        &mut self.future
    }
}

/// Who reads and answers the requests of a connection.
struct ServedConnection<'a, S, H: Handler> {
    activity: &'a Arc<Activity>,
    handler: &'a Arc<H>,
    builder: &'a HyperBuilder,
    max_header_size: usize,
    is_closing: bool,
    /// Whether a request over HTTP/1.1 was answered.
    is_http1: bool,
    engine: Engine<'a, S, H>,
}

enum Engine<'a, S, H: Handler> {
    Front(Front<S>),
    /// hyper, until it has answered what is not for the front. In a box: most connections never need it.
    Http1(Box<Http1Connection<S, H>>),
    /// hyper, for good, where the first bytes may be those of HTTP/2.
    AnyVersion(Pin<Box<AnyConnection<'a, S, H>>>),
    Closed,
}

type HyperIo<S> = TokioIo<ObservedStream<Rewound<S>>>;
type Http1Connection<S, H> = http1::UpgradeableConnection<HyperIo<S>, ConnectionService<H>>;
type AnyConnection<'a, S, H> =
    auto::UpgradeableConnection<'a, HyperIo<S>, ConnectionService<H>, TokioExecutor>;

impl<'a, S, H> ServedConnection<'a, S, H>
where
    S: Transport,
    H: Handler,
{
    fn new(
        stream: S,
        activity: &'a Arc<Activity>,
        handler: &'a Arc<H>,
        builder: &'a HyperBuilder,
        limits: &Limits,
    ) -> Self {
        Self {
            activity,
            handler,
            builder,
            max_header_size: limits.max_header_size.as_u64() as usize,
            is_closing: false,
            is_http1: false,
            engine: Engine::Front(Front::new(stream, Vec::new())),
        }
    }

    /// Goes on reading and answering. Ready when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // One for front and hyper together, or a client would have a new one with each request that is
        // not for the front.
        let mut turn = Turn::new();
        loop {
            if let Engine::Front(front) = &mut self.engine {
                let exit = ready!(front.poll(cx, self.handler, self.activity, &mut turn))?;
                self.leave_front(exit);
                if self.is_closing {
                    // Told to close before it has read anything, it would drop what was received.
                    let ended = self.poll_hyper(cx);
                    if ended.is_ready() {
                        return ended;
                    }
                    self.close_when_idle();
                }
            }
            let ended = self.poll_hyper(cx);
            let has_done_its_part = matches!(self.engine, Engine::Http1(_))
                && !self.is_closing
                && self.activity.is_done_with_hyper();
            if ended.is_ready() || !has_done_its_part {
                return ended;
            }
            if !self.return_to_front(cx)? {
                return Poll::Pending;
            }
            turn.count_request();
        }
    }

    /// Hands what comes next over to hyper.
    fn leave_front(&mut self, exit: FrontExit) {
        let engine = mem::replace(&mut self.engine, Engine::Closed);
        let (Engine::Front(front), FrontExit::ForHyper) = (engine, exit) else {
            return;
        };
        // The preface begins a connection, and is no request within one (RFC 9113 section 3.4). What
        // is in front might take it for one, and let pass what it hides.
        self.is_http1 |= front.has_answered();
        let may_be_http2 = !self.is_http1 && may_begin_http2(front.received());
        let (stream, waiting_since) = front.into_stream();
        let io = ObservedStream::new(stream, self.activity, self.max_header_size);
        let io = TokioIo::new(io);
        let service = ConnectionService {
            handler: Arc::clone(self.handler),
            activity: Arc::clone(self.activity),
            first_waiting_since: Cell::new(waiting_since),
        };
        self.engine = match may_be_http2 {
            true => {
                let hyper = &self.builder.any_version;
                let connection = hyper.serve_connection_with_upgrades(io, service);
                Engine::AnyVersion(Box::pin(connection))
            }
            false => {
                let connection = self.builder.http1.serve_connection(io, service);
                Engine::Http1(Box::new(connection.with_upgrades()))
            }
        };
    }

    fn poll_hyper(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match &mut self.engine {
            Engine::Http1(connection) => Pin::new(&mut **connection).poll(cx).map_err(Into::into),
            Engine::AnyVersion(connection) => connection.as_mut().poll(cx),
            Engine::Front(_) | Engine::Closed => Poll::Ready(Ok(())),
        }
    }

    /// Has the front go on, once hyper has answered all that it has read: a connection that lives for
    /// long, like those of balancers, would sooner or later be hyper's otherwise. Returns whether it
    /// does.
    fn return_to_front(&mut self, cx: &mut Context<'_>) -> Result<bool, BoxError> {
        let Engine::Http1(connection) = &mut self.engine else {
            return Ok(false);
        };
        let mut connection = Pin::new(&mut **connection);
        // Between two requests it ends at once; closing the stream is the last thing it does.
        self.activity.keep_open(true);
        connection.as_mut().graceful_shutdown();
        let ended = connection.poll(cx);
        self.activity.keep_open(false);
        if ended?.is_pending() {
            return Ok(false);
        }
        if let Engine::Http1(connection) = mem::replace(&mut self.engine, Engine::Closed)
            && let Some(parts) = connection.into_parts()
        {
            let (unread, stream) = parts.io.into_inner().into_inner().into_parts();
            let received = [&*parts.read_buf, &unread].concat();
            self.is_http1 = true;
            self.engine = Engine::Front(Front::new(stream, received));
        }
        Ok(true)
    }

    /// Has the connection end as soon as what it has begun with is answered.
    fn close_when_idle(&mut self) {
        self.is_closing = true;
        match &mut self.engine {
            Engine::Front(front) => front.close_when_idle(),
            Engine::Http1(connection) => Pin::new(&mut **connection).graceful_shutdown(),
            Engine::AnyVersion(connection) => connection.as_mut().graceful_shutdown(),
            Engine::Closed => {}
        }
    }
}

/// A handler that knows which connection asks.
struct ConnectionService<H> {
    handler: Arc<H>,
    activity: Arc<Activity>,
    /// Since when the request that comes first has waited for content to be sealed, if it has.
    first_waiting_since: Cell<Option<Instant>>,
}

impl<H: Handler> hyper::service::Service<Request<Incoming>> for ConnectionService<H> {
    type Response = Response<H::Body>;
    type Error = Infallible;
    type Future = H::Future;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (parts, content) = request.into_parts();
        let began = self.first_waiting_since.take().unwrap_or_else(Instant::now);
        let has_content = !content.is_end_stream();
        if parts.extensions.get::<OnUpgrade>().is_some() {
            self.activity.note_upgrade_offer();
        }
        let connection = Arc::<Activity>::clone(&self.activity);
        let in_flight = InFlight::new(connection, has_content, began);
        self.handler.respond(parts, content, in_flight)
    }
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::task::yield_now;

    use super::*;
    use crate::client::Peer;
    use crate::semantics::head::RequestHead;
    use crate::service::stand_ins::TestHandler;
    use crate::service::{AtOnce, FrontContent};

    /// Says who is asked for what: the front for all but `/hyper`.
    fn echo() -> Arc<TestHandler> {
        Arc::new(TestHandler(|request, head| {
            if request.path() == "/hyper" {
                return AtOnce::NeedsHyper;
            }
            let said = format!("<front {}>", request.target());
            head.extend_from_slice(b"HTTP/1.1 200 OK\r\n\r\n");
            if request.path() != "/head" {
                return AtOnce::Reply(FrontContent::Bytes(said.into()));
            }
            head.extend_from_slice(said.as_bytes());
            AtOnce::Reply(FrontContent::default())
        }))
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

    /// What comes back for these bytes, which come in two parts through a pipe of this size.
    async fn received_from(first: &[u8], second: &[u8], size: usize) -> String {
        let (there, here) = duplex(size);
        let (mut responses, mut requests) = tokio::io::split(there);
        let limits = limits();
        let builder = HyperBuilder::new(&limits);
        let draining = watch::Sender::new(false);
        let drain_signal = draining.subscribe();
        let activity = Arc::new(Activity::new(Peer::Unix));
        let serving = serve(here, activity, echo(), &builder, &limits, &drain_signal);
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
        String::from_utf8_lossy(&all).into_owned()
    }

    /// What is said to these bytes, each answer between `<` and `>`.
    async fn said_to(first: &[u8], second: &[u8], size: usize) -> String {
        let all = received_from(first, second, size).await;
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
        const SAID: &str = "front /1, front /head, front /3?q, hyper /hyper, ";
        // Who is asked for these depends on how much has come with what hyper was asked for.
        const THEN: &str = "? /5, hyper /6, ? /7";
        let either = |said: &str| {
            let rest = said.strip_prefix(SAID)?;
            let rest = rest.replace("hyper /5", "? /5").replace("front /5", "? /5");
            Some(rest.replace("hyper /7", "? /7").replace("front /7", "? /7"))
        };
        for split in 0..=REQUESTS.len() {
            let (first, second) = REQUESTS.split_at(split);
            let said = said_to(first, second, 1 << 12).await;
            assert_eq!(either(&said).as_deref(), Some(THEN), "at {split}: {said}");
        }
        for size in [1, 2, 3, 7, 64] {
            let said = said_to(REQUESTS, b"", size).await;
            assert_eq!(
                either(&said).as_deref(),
                Some(THEN),
                "{size} at a time: {said}"
            );
        }
    }

    #[tokio::test]
    async fn after_what_is_for_hyper_the_front_goes_on() {
        let rounds = [
            ("GET /hyper HTTP/1.1\r\n\r\n", "<hyper /hyper>"),
            ("GET /1 HTTP/1.1\r\n\r\n", "<front /1>"),
            // Read by hyper alone, and with content that nobody reads.
            ("DELETE /2 HTTP/1.1\r\n\r\n", "<hyper /2>"),
            ("GET /3 HTTP/1.1\r\n\r\n", "<front /3>"),
            (
                "GET /4 HTTP/1.1\r\nContent-Length: 1\r\n\r\nx",
                "<hyper /4>",
            ),
            (
                "GET /5 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "<hyper /5>",
            ),
            ("DELETE /6 HTTP/1.1\r\n\r\n", "<hyper /6>"),
            ("GET /7 HTTP/1.1\r\n\r\n", "<front /7>"),
            // What is offered once is hyper's for good.
            (
                "GET /8 HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: a\r\n\r\n",
                "<hyper /8>",
            ),
            ("GET /9 HTTP/1.1\r\n\r\n", "<hyper /9>"),
        ];
        let (mut there, here) = duplex(1 << 12);
        let limits = limits();
        let builder = HyperBuilder::new(&limits);
        let draining = watch::Sender::new(false).subscribe();
        let activity = Arc::new(Activity::new(Peer::Unix));
        let serving = serve(here, activity, echo(), &builder, &limits, &draining);
        let client = async {
            for (request, wanted) in rounds {
                there.write_all(request.as_bytes()).await.expect("open");
                let mut said = Vec::new();
                while !said.ends_with(b">") {
                    said.push(there.read_u8().await.expect("open"));
                }
                let said = String::from_utf8(said).expect("ASCII");
                assert!(said.ends_with(wanted), "{said}");
            }
            there.shutdown().await.expect("open");
            let mut rest = Vec::new();
            there.read_to_end(&mut rest).await.expect("open");
            assert!(rest.is_empty());
        };
        tokio::join!(serving, client);
    }

    #[tokio::test]
    async fn what_takes_a_lock_is_polled_once_as_long_as_nothing_happens() {
        let (polls, happened) = (Cell::new(0), Cell::new(false));
        let future = pin!(poll_fn(|_| {
            polls.set(polls.get() + 1);
            match happened.get() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        }));
        let mut gate = PollGate::new(future);
        poll_fn(|cx| {
            for _ in 0..1000 {
                assert!(gate.poll(cx, |_| happened.get()).is_pending());
            }
            assert_eq!(polls.get(), 1);
            // Somebody else would have to be woken.
            let mut other = Context::from_waker(Waker::noop());
            assert!(gate.poll(&mut other, |_| happened.get()).is_pending());
            assert_eq!(polls.get(), 2);
            happened.set(true);
            gate.poll(cx, |_| happened.get())
        })
        .await;
        assert_eq!(polls.get(), 3);
    }

    #[tokio::test]
    async fn a_timer_that_was_due_and_was_set_again_wakes_again() {
        let timer = pin!(sleep_until(time::Instant::now()));
        let mut timer = PollGate::new(timer);
        for _ in 0..3 {
            poll_fn(|cx| timer.poll(cx, |timer| timer.is_elapsed())).await;
            let next = time::Instant::now() + Duration::from_millis(2);
            timer.inner().as_mut().reset(next);
        }
        // And when it is set to be due earlier than it was.
        let far = time::Instant::now() + Duration::from_secs(3600);
        timer.inner().as_mut().reset(far);
        let is_due = poll_fn(|cx| Poll::Ready(timer.poll(cx, |timer| timer.is_elapsed())));
        assert!(is_due.await.is_pending());
        timer.inner().as_mut().reset(time::Instant::now());
        poll_fn(|cx| timer.poll(cx, |timer| timer.is_elapsed())).await;
    }

    #[tokio::test]
    async fn a_timer_is_due_also_where_the_task_has_had_its_share() {
        let timer = pin!(sleep_until(time::Instant::now() + Duration::from_millis(2)));
        let mut timer = PollGate::new(timer);
        let mut is_first = true;
        let due = poll_fn(|cx| {
            if mem::take(&mut is_first) {
                while let Poll::Ready(share) = coop::poll_proceed(cx) {
                    share.made_progress();
                }
            }
            timer.poll(cx, |timer| timer.is_elapsed())
        });
        let limit = Duration::from_secs(60);
        time::timeout(limit, due).await.expect("it is due");
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
            let builder = HyperBuilder::new(&limits);
            let draining = watch::Sender::new(false);
            let drain_signal = draining.subscribe();
            let activity = Arc::new(Activity::new(Peer::Unix));
            let serving = serve(here, activity, echo(), &builder, &limits, &drain_signal);
            let client = async {
                let begun = format!("GET {target} HTTP/1.1\r\nHo");
                there.write_all(begun.as_bytes()).await.expect("open");
                yield_now().await;
                draining.send_replace(true);
                // Longer than a connection waits for what is on its way: no event says so.
                time::sleep(MAX_LAST_READ * 3).await;
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
    async fn http2_begins_nowhere_but_at_the_beginning() {
        // The preface, and empty settings.
        const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        for (before, said) in [
            (&b"GET /head HTTP/1.1\r\n\r\n"[..], "front /head"),
            (b"GET /hyper HTTP/1.1\r\n\r\n", "hyper /hyper"),
        ] {
            let all = [before, HTTP2].concat();
            for split in [0, before.len(), before.len() + 3] {
                let (first, second) = all.split_at(split);
                let received = received_from(first, second, 1 << 12).await;
                assert!(received.ends_with(&format!("<{said}>")), "{received:?}");
            }
        }
        let received = received_from(HTTP2, b"", 1 << 12).await;
        assert!(received.starts_with("\0\0"), "{received:?}");
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
