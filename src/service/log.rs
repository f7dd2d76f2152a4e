//! The outermost layer: counts each request, and writes its line into the access log, when its
//! response is over.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::framing::{self, Framing};
use super::front_content::{CountedExchange, FrontContent, SealedContent};
use super::handler::{Connection, Handler, InFlight, Layer};
use super::hsts::HstsFilter;
use super::pages::error_page;
use super::response::{
    AtOnce, BoxError, Content, FilesAtOnce, MemoryContent, Reply, ResponseFuture, SealedPart,
};
use crate::access::AccessLog;
use crate::body::BodyError;
use crate::exchange::Exchange;
use crate::metrics::{Door, Metrics};
use crate::page::Page;
use crate::readiness::{Phase, Readiness};
use crate::representation::visible;
use crate::semantics::plain::PlainHead;

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
        let exchange = Exchange::new(&request, connection.peer(), door, self.log.as_deref());
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
        request: &PlainHead<'_, '_>,
        connection: &dyn Connection,
        files: FilesAtOnce,
        head: &mut Vec<u8>,
    ) -> AtOnce<FrontContent> {
        if self.readiness.phase() == Phase::Draining {
            // The client is to be told to leave.
            return AtOnce::Elsewhere;
        }
        let log = self.log.as_deref();
        let mut exchange = Exchange::new(request, connection.peer(), Door::Front, log);
        let start = head.len();
        let reply = self.next.respond_at_once(request, files, head);
        reply.map(|reply| {
            if !self.hsts.is_secure(request, connection) {
                self.hsts.remove_line(head, start);
            }
            framing::end_head(head);
            let length = reply.content.length();
            let tag = || reply.tag.as_ref().map(visible);
            exchange.respond(reply.status, tag, length, &reply.summary);
            self.metrics.front_requests.increment();
            match reply.content {
                MemoryContent::Bytes(bytes) => {
                    exchange.sent(length);
                    exchange.finish(&self.metrics, log);
                    FrontContent::Bytes(bytes)
                }
                MemoryContent::Sealed(SealedPart {
                    content, offset, ..
                }) => {
                    let counted = CountedExchange::new(exchange, &self.metrics, self.log.as_ref());
                    FrontContent::Sealed(Box::new(SealedContent::new(content, offset, counted)))
                }
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
