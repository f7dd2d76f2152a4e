//! The outermost layer: counts each request, and writes its line into the access log, when its
//! response is over.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::framing::{self, Framing};
use super::front_content::{CountedExchange, FrontContent, SealedContent};
use super::handler::{FrontRequest, Handler, InFlight, Layer};
use super::hsts::HstsFilter;
use super::pages::error_page;
use super::response::{
    AtOnce, BoxError, Content, MemoryContent, Reply, ResponseFuture, SealedPart,
};
use crate::access::AccessLog;
use crate::body::BodyError;
use crate::exchange::Exchange;
use crate::metrics::{Door, Metrics};
use crate::page::Page;
use crate::readiness::{Phase, Readiness};
use crate::representation::visible;

/// Refuses what is not delimited beyond doubt, counts and logs what the layers behind it answer, and
/// finishes the head of every response.
pub struct LogLayer {
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    log: Option<Arc<AccessLog>>,
    hsts: HstsFilter,
    next: Box<dyn Layer>,
}

impl LogLayer {
    /// Writes a line into `log`, if there is one, for each request that `next` answers.
    pub fn new(
        metrics: Arc<Metrics>,
        readiness: Arc<Readiness>,
        log: Option<Arc<AccessLog>>,
        hsts: HstsFilter,
        next: Box<dyn Layer>,
    ) -> Self {
        Self {
            metrics,
            readiness,
            log,
            hsts,
            next,
        }
    }

    /// The counters that it moves.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}

impl Handler for LogLayer {
    type Body = LoggedBody;
    type Future = LogFuture;

    fn respond(
        self: &Arc<Self>,
        request: Parts,
        content: Incoming,
        in_flight: InFlight,
    ) -> LogFuture {
        let framing = Framing::of(&request);
        let connection = in_flight.connection();
        let is_secure = self.hsts.is_secure(&request, &**connection);
        let door = Door::from(request.version);
        let (peer, log) = (|| connection.peer(), self.log.as_deref());
        let exchange = Exchange::new(&request, peer, door, in_flight.began(), log);
        let reply = match framing.refusal() {
            Some((status, reason)) => {
                let page = Page {
                    status,
                    sentence: reason,
                    path: request.uri.path(),
                    home: None,
                };
                ResponseFuture::now(error_page(page, request.method == Method::HEAD))
            }
            None => self.next.respond(request, content, connection),
        };
        LogFuture {
            reply,
            framing,
            is_secure,
            guard: Some(ResponseGuard {
                layer: Arc::clone(self),
                exchange,
                _in_flight: in_flight,
            }),
        }
    }

    fn respond_at_once(
        self: &Arc<Self>,
        front_request: FrontRequest<'_>,
        head: &mut Vec<u8>,
    ) -> AtOnce<FrontContent, CountedExchange> {
        let FrontRequest {
            request,
            connection,
            files,
            waited_exchange,
        } = front_request;
        let waited = waited_exchange.and_then(CountedExchange::into_exchange);
        if self.readiness.phase() == Phase::Draining {
            // The client is to be told to leave.
            return AtOnce::NeedsHyper;
        }
        let log = self.log.as_deref();
        let mut exchange = waited.unwrap_or_else(|| {
            let peer = || connection.peer();
            Exchange::new(request, peer, Door::Front, Instant::now(), log)
        });
        let counted = |exchange| CountedExchange::new(exchange, &self.metrics, self.log.as_ref());
        let start = head.len();
        let reply = match self.next.respond_at_once(request, files, head) {
            AtOnce::Reply(reply) => reply,
            AtOnce::Sealing(sealing) => {
                let exchange = counted(exchange);
                return AtOnce::Sealing(Box::pin(async move {
                    sealing.await;
                    exchange
                }));
            }
            AtOnce::NeedsHyper => return AtOnce::NeedsHyper,
        };
        if !self.hsts.is_secure(request, connection) {
            self.hsts.remove_line(head, start);
        }
        framing::end_head(head);
        let length = reply.content.length();
        let tag = || reply.tag.as_ref().map(visible);
        exchange.respond(reply.status, tag, length, &reply.summary);
        self.metrics.front_requests.increment();
        AtOnce::Reply(match reply.content {
            MemoryContent::Bytes(bytes) => {
                exchange.sent(length);
                exchange.finish(&self.metrics, log);
                FrontContent::Bytes(bytes)
            }
            MemoryContent::Sealed(SealedPart {
                content, offset, ..
            }) => {
                let exchange = counted(exchange);
                FrontContent::Sealed(Box::new(SealedContent::new(content, offset, exchange)))
            }
        })
    }

    fn note_malformed(&self) {
        self.metrics.malformed.increment();
    }

    fn note_flood(&self) {
        self.metrics.frame_floods.increment();
    }
}

/// The response to one request. Dropped before it is there, it counts as abandoned.
pub struct LogFuture {
    reply: ResponseFuture,
    framing: Framing,
    is_secure: bool,
    /// Until the response takes it over.
    guard: Option<ResponseGuard>,
}

impl Future for LogFuture {
    type Output = Result<Response<LoggedBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Reply { response, summary } = ready!(Pin::new(&mut this.reply).poll(cx));
        let Some(mut guard) = this.guard.take() else {
            // Nobody may poll a future again that was ready.
            return Poll::Pending;
        };
        let (mut head, content) = response.into_parts();
        let is_draining = || guard.layer.readiness.phase() == Phase::Draining;
        this.framing
            .finish_head(&mut head, content.is_empty(), is_draining);
        if !this.is_secure {
            guard.layer.hsts.remove(&mut head.headers);
        }
        // A body of no known length can't be seen to be cut short.
        let length = content.length().unwrap_or_default();
        let tag = || head.headers.get(header::ETAG).cloned();
        guard.exchange.respond(head.status, tag, length, &summary);
        Poll::Ready(Ok(Response::from_parts(
            head,
            LoggedBody { content, guard },
        )))
    }
}

/// Lives as long as a response: counts and logs it when it is dropped.
struct ResponseGuard {
    layer: Arc<LogLayer>,
    exchange: Exchange,
    _in_flight: InFlight,
}

impl Drop for ResponseGuard {
    fn drop(&mut self) {
        let log = self.layer.log.as_deref();
        self.exchange.finish(&self.layer.metrics, log);
    }
}

/// The body of a response, whose bytes are counted on their way to the connection.
pub struct LoggedBody {
    content: Content,
    guard: ResponseGuard,
}

impl Body for LoggedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let next = match &mut this.content {
            Content::Memory(bytes) if bytes.is_empty() => None,
            Content::Memory(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Content::File(file) => {
                ready!(file.poll_next(cx)).map(|bytes| bytes.map(Frame::data).map_err(Into::into))
            }
            Content::Boxed(body) => ready!(Pin::new(body).poll_frame(cx)),
        };
        match &next {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                this.guard.exchange.sent(bytes as u64);
            }
            Some(Err(error)) => {
                this.guard.exchange.cut();
                let remaining = this.guard.exchange.remaining();
                let file: Option<&BodyError> = error.downcast_ref();
                let path = file.map(|error| error.path().display().to_string());
                tracing::warn!(%error, path, remaining, "{error}: the response is cut short");
            }
            None => {}
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Memory(_) | Content::File(_) => self.guard.exchange.remaining() == 0,
            Content::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Memory(_) | Content::File(_) => {
                SizeHint::with_exact(self.guard.exchange.remaining())
            }
            Content::Boxed(body) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    use http::StatusCode;

    use super::super::handler::Connection;
    use super::super::response::{FilesAtOnce, MemoryReply};
    use super::super::stand_ins::TestConnection;
    use super::*;
    use crate::access::json;
    use crate::client::TrustedProxies;
    use crate::exchange::AnswerSummary;
    use crate::semantics::head::RequestHead;
    use crate::semantics::plain::{FieldSpace, HeadParse, PlainHead};

    /// Has its content sealed first, which takes until it is told to end.
    struct Sealing;

    impl Layer for Sealing {
        fn respond(&self, _: Parts, _: Incoming, _: &Arc<dyn Connection>) -> ResponseFuture {
            unreachable!("nobody asks hyper")
        }

        fn respond_at_once(
            &self,
            request: &PlainHead<'_, '_>,
            files: FilesAtOnce,
            _: &mut Vec<u8>,
        ) -> AtOnce<MemoryReply> {
            match (request.path(), files) {
                (_, FilesAtOnce::AfterSealing) => AtOnce::Sealing(Box::pin(std::future::ready(()))),
                ("/changed", _) => AtOnce::NeedsHyper,
                _ => AtOnce::Reply(MemoryReply {
                    status: StatusCode::OK,
                    tag: None,
                    content: MemoryContent::Bytes(Bytes::new()),
                    summary: AnswerSummary::default(),
                }),
            }
        }
    }

    struct Lines(Sender<Vec<u8>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(bytes.to_vec());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A request whose content is sealed first: gives up meanwhile, or asks again when at least
    /// `wait` has passed. Returns the line in the log, if there is one.
    async fn ask(
        target: &str,
        wait: Option<Duration>,
    ) -> (Arc<Metrics>, Option<serde_json::Value>) {
        let (sender, lines) = channel();
        let metrics = Arc::new(Metrics::default());
        let trusted = TrustedProxies::default();
        let log = AccessLog::start(json, trusted.clone(), Lines(sender), Arc::clone(&metrics));
        let log = Arc::new(log.expect("a thread"));
        let layer = Arc::new(LogLayer::new(
            Arc::clone(&metrics),
            Arc::new(Readiness::new(None)),
            Some(Arc::clone(&log)),
            HstsFilter::new(trusted, false),
            Box::new(Sealing),
        ));
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut space = FieldSpace::new();
        let HeadParse::Plain(request, _) = PlainHead::read(bytes.as_bytes(), &mut space) else {
            panic!("it is plain");
        };
        let mut head = Vec::new();
        let connection = TestConnection::default();
        let front_request = |files, waited_exchange| FrontRequest {
            request: &request,
            connection: &connection,
            files,
            waited_exchange,
        };
        let first = front_request(FilesAtOnce::AfterSealing, None);
        let outcome = layer.respond_at_once(first, &mut head);
        let AtOnce::Sealing(sealing) = outcome else {
            panic!("it is sealed first");
        };
        match wait {
            None => drop(sealing),
            Some(wait) => {
                let since = Instant::now();
                let waited = sealing.await;
                while since.elapsed() < wait {
                    std::thread::yield_now();
                }
                let then = front_request(FilesAtOnce::Sealed, Some(waited));
                layer.respond_at_once(then, &mut head);
            }
        }
        log.finish(Duration::from_secs(60));
        let line = lines.try_recv().ok();
        let line = line.map(|line| serde_json::from_slice(&line).expect("JSON"));
        (metrics, line)
    }

    #[tokio::test]
    async fn who_gives_up_while_content_is_sealed_is_counted_and_logged() {
        let (metrics, line) = ask("/", None).await;
        assert_eq!(metrics.abandoned.get(), 1);
        let line = line.expect("a line");
        assert_eq!((&line["target"], &line["cut"]), (&"/".into(), &true.into()));
        assert_eq!(metrics.front_requests.get(), 0);
    }

    #[tokio::test]
    async fn the_time_to_seal_is_time_to_answer() {
        let wait = Duration::from_millis(3);
        let (metrics, line) = ask("/", Some(wait)).await;
        assert_eq!(
            (metrics.abandoned.get(), metrics.front_requests.get()),
            (0, 1)
        );
        let line = line.expect("a line");
        let took = line["microseconds"].as_u64().expect("a number");
        assert!(u128::from(took) >= wait.as_micros(), "{took}");
    }

    #[tokio::test]
    async fn what_hyper_answers_after_all_is_logged_by_hyper() {
        let (metrics, line) = ask("/changed", Some(Duration::ZERO)).await;
        assert_eq!(
            (metrics.abandoned.get(), metrics.front_requests.get()),
            (0, 0)
        );
        assert!(line.is_none(), "{line:?}");
    }
}
