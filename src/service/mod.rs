//! One request in, one response out.
//!
//! The only place where an [`Answer`](crate::answer::Answer) becomes a response: it picks the fields that the manifest
//! has prepared and attaches the body. `Date` is hyper's, and so is the `Content-Length` of a
//! response that has its body.

mod draft;
mod fields;
mod pages;

use std::convert::Infallible;
use std::error::Error;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use crate::access::AccessLog;
use crate::body::{Body, BodyError, BodyObserver, Segments};
use crate::client::Peer;
use crate::config::{StatusOptions, Upstream};
use crate::dev::Dev;
use crate::exchange::Exchange;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::readiness::{Phase, Readiness};
use crate::site::Site;
use crate::write::{self, Writer, is_write};
use draft::{Content, ETAGD_DIGEST, dev_response};
use pages::{error, made, refused, unavailable};

const CLOSE: HeaderValue = HeaderValue::from_static("close");
const ZERO: HeaderValue = HeaderValue::from_static("0");
/// How long a request waits for the truth about a file that is not what the manifest says: the
/// longest quiet period, and time to hash it.
const RECOVERY: Duration = Duration::from_secs(3);
/// How often a request is answered anew before it is answered 503. One look can miss the change,
/// if it was under way already.
const LOOKS: u32 = 3;
/// Answers requests from one site.
#[derive(Debug)]
pub struct Service {
    site: Arc<Site>,
    memory: Arc<Memory>,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    disclosure: StatusOptions,
    writer: Option<Arc<Writer>>,
    access: Option<Arc<AccessLog>>,
    dev: Option<Arc<Dev>>,
}

/// The connection that a request came over. It is held until the response is over.
pub trait Connection: Send + Sync + Unpin + 'static {
    /// Admits the responses that read files: each pins memory until its client takes it.
    fn admission(&self) -> Arc<Semaphore>;

    /// Who is at its other end.
    fn peer(&self) -> Peer;

    /// Notes that content of the request has come: no response can be expected yet.
    fn received(&self);
}

impl Service {
    /// A service whose bodies are held within `memory`.
    pub fn new(
        site: Arc<Site>,
        memory: Arc<Memory>,
        metrics: Arc<Metrics>,
        readiness: Arc<Readiness>,
        disclosure: StatusOptions,
    ) -> Self {
        Self {
            site,
            memory,
            metrics,
            readiness,
            disclosure,
            access: None,
            dev: None,
            writer: None,
        }
    }

    /// The same with a line in `log` for each request.
    #[must_use]
    pub fn logging_to(self, log: Option<Arc<AccessLog>>) -> Self {
        Self {
            access: log,
            ..self
        }
    }

    /// The same with what a developer's server adds.
    #[must_use]
    pub fn developing(self, dev: Option<Arc<Dev>>) -> Self {
        Self { dev, ..self }
    }

    /// The same for a site that clients may change.
    #[must_use]
    pub fn writing(self, writer: Option<Arc<Writer>>) -> Self {
        Self { writer, ..self }
    }

    /// The counters that this service moves.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Answers one request, whose content only a write wants. `connection` is held until the
    /// response is over.
    pub fn call<G, B>(
        self: &Arc<Self>,
        request: Parts,
        content: B,
        connection: G,
    ) -> ResponseFuture<G>
    where
        G: Connection,
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let log = self.access.as_deref();
        let mut guard = ResponseGuard {
            service: Arc::clone(self),
            exchange: Exchange::new(&request, connection.peer(), log),
            connection,
            admitted: None,
        };
        let aside = self.dev.as_ref().and_then(|dev| dev.reply(&request));
        let draft = match (aside, &self.disclosure.health, &self.writer) {
            (Some(aside), ..) => dev_response(aside, &request),
            (_, Some(path), _) if path.as_str() == request.uri.path() => {
                self.health(&request.method)
            }
            (_, _, Some(writer)) if is_write(&request.method) => {
                let write = guard.write(Arc::clone(writer), request, content);
                return ResponseFuture::Later(Box::pin(write));
            }
            _ => match self.upstream(request.uri.path()) {
                None => self.draft(&self.site.current(), &request, &mut guard.exchange),
                Some((dev, upstream)) => {
                    let forward = guard.forward(dev, upstream, request, content);
                    return ResponseFuture::Later(Box::pin(forward));
                }
            },
        };
        let (mut head, content) = draft.into_parts();
        self.finish(&mut head, content.is_empty(), &request);
        if let (Some(dev), Content::Memory(page)) = (&self.dev, &content) {
            dev.look_at(&request, &head, page);
        }
        match content {
            Content::Memory(bytes) => ResponseFuture::Now(ready(guard.reply(head, bytes))),
            Content::Stream(stream) => {
                guard.exchange.respond(&head, 0);
                let body = Body::stream(stream, guard);
                ResponseFuture::Now(ready(Response::from_parts(head, body)))
            }
            Content::Segments(segments) => {
                let draft = Response::from_parts(head, segments);
                ResponseFuture::Later(Box::pin(Self::prove(draft, request, guard)))
            }
        }
    }

    /// Sends a response once its content is proven. Where the file is not what the manifest says,
    /// it is looked at again, and the request is answered from what it is now.
    async fn prove<G>(
        mut draft: Response<Segments>,
        mut request: Parts,
        mut guard: ResponseGuard<G>,
    ) -> Reply<G>
    where
        G: Connection,
    {
        let service = Arc::clone(&guard.service);
        // One client over one connection must not take all the memory there is.
        guard.admitted = guard.connection.admission().acquire_owned().await.ok();
        let deadline = Instant::now() + RECOVERY;
        let mut looks_left = LOOKS;
        loop {
            let looks = service.site.subscribe_looks();
            let Err(error) = draft.body_mut().prove().await else {
                let (head, segments) = draft.into_parts();
                guard.exchange.respond(&head, segments.length());
                return Response::from_parts(head, Body::segments(segments, guard));
            };
            service.suspect(&error);
            let is_encoded = draft.headers().contains_key(header::CONTENT_ENCODING);
            if is_encoded && error.is_suspicious() {
                // A sidecar that fails takes nobody's content away: the content itself is sent.
                request.headers.remove(header::ACCEPT_ENCODING);
            } else {
                looks_left -= 1;
            }
            let may_look = is_encoded || looked(looks, deadline).await;
            if looks_left == 0 || !error.is_suspicious() || !may_look {
                service.metrics.unavailable.increment();
                tracing::warn!("{error}: answered 503");
                let mut page = unavailable();
                for name in [header::VARY, ETAGD_DIGEST, header::CONNECTION] {
                    if let Some(value) = draft.headers_mut().remove(&name) {
                        page.headers_mut().insert(name, value);
                    }
                }
                guard.exchange.give_up();
                let (head, page) = page.into_parts();
                return guard.reply(head, page);
            }
            let exchange = &mut guard.exchange;
            let again = service.draft(&service.site.current(), &request, exchange);
            let (mut head, content) = again.into_parts();
            service.finish(&mut head, content.is_empty(), &request);
            draft = match content {
                Content::Segments(segments) => Response::from_parts(head, segments),
                Content::Memory(bytes) => return guard.reply(head, bytes),
                // A site has none.
                Content::Stream(_) => return guard.reply(head, Bytes::new()),
            };
        }
    }

    /// The server that a path belongs to in place of the site, if any.
    fn upstream(&self, path: &str) -> Option<(Arc<Dev>, Upstream)> {
        let dev = self.dev.as_ref()?;
        Some((Arc::clone(dev), dev.upstream(path)?.clone()))
    }

    /// Has a file looked at that is not what the manifest says.
    fn suspect(&self, error: &BodyError) {
        if error.is_suspicious() {
            self.metrics.unproven.increment();
            self.site.suspect(error.path());
        }
    }

    /// What every response to this request says, whatever the answer.
    fn finish(&self, head: &mut http::response::Parts, is_empty: bool, request: &Parts) {
        let is_http1 = request.version <= Version::HTTP_11;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        if is_http1 && self.readiness.phase() == Phase::Draining
            || request.headers.contains_key(header::TRANSFER_ENCODING)
        {
            // A client that is told with a response need not find out by losing a request. And
            // RFC 9112 section 6.1: whoever disagrees about where the request ends learns nothing
            // from what comes after it.
            head.headers.insert(header::CONNECTION, CLOSE);
        }
        let is_bodiless = matches!(
            head.status,
            StatusCode::NOT_MODIFIED | StatusCode::NO_CONTENT
        );
        if is_empty && !is_bodiless {
            // Of what is empty hyper tells a length over HTTP/1.1 alone, and not to HEAD, which says
            // what GET would.
            head.headers.entry(header::CONTENT_LENGTH).or_insert(ZERO);
        }
        if let Some(dev) = &self.dev {
            dev.dress(&mut head.headers);
        }
    }
}

/// Waits for the next look at the disk, until `deadline` at most.
async fn looked(mut looks: watch::Receiver<u64>, deadline: Instant) -> bool {
    timeout_at(deadline, looks.changed())
        .await
        .is_ok_and(|changed| changed.is_ok())
}

/// Keeps what must live as long as a response, and hears how it ends.
pub struct ResponseGuard<G> {
    service: Arc<Service>,
    exchange: Exchange,
    connection: G,
    admitted: Option<OwnedSemaphorePermit>,
}

impl<G: Connection> ResponseGuard<G> {
    /// Has a change made, and says what has become of it.
    async fn write<B>(mut self, writer: Arc<Writer>, request: Parts, mut content: B) -> Reply<G>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let (site, connection) = (&self.service.site, &self.connection);
        let received = || connection.received();
        let called = writer.call(site, &request, &mut content, connection.peer(), received);
        let response = match called.await {
            Ok(written) => made(&written),
            Err(refusal) => refused(refusal),
        };
        if response.status() == StatusCode::PRECONDITION_FAILED {
            self.exchange.fail();
        }
        let mut is_over = true;
        if request.version < Version::HTTP_2 {
            is_over = write::discard(&request, &mut content).await;
        } else {
            tokio::spawn(write::linger(content));
        }
        let (mut head, content) = response.map(Content::Memory).into_parts();
        if !is_over {
            head.headers.insert(header::CONNECTION, CLOSE);
        }
        self.service.finish(&mut head, content.is_empty(), &request);
        let bytes = match content {
            Content::Memory(bytes) => bytes,
            Content::Segments(_) | Content::Stream(_) => Bytes::new(),
        };
        self.reply(head, bytes)
    }

    /// Passes a request on to another server, and its answer back.
    async fn forward<B>(
        mut self,
        dev: Arc<Dev>,
        upstream: Upstream,
        request: Parts,
        content: B,
    ) -> Reply<G>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (path, peer) = (request.uri.path().into(), self.connection.peer());
        let forwarded = dev.forward(&upstream, request.clone(), content, peer).await;
        let (mut head, content) = match forwarded {
            Ok(response) => response.into_parts(),
            Err(sentence) => {
                let is_head = request.method == Method::HEAD;
                let page = error(StatusCode::BAD_GATEWAY, &sentence, is_head);
                let (mut head, page) = page.into_parts();
                self.service.finish(&mut head, page.is_empty(), &request);
                return self.reply(head, page);
            }
        };
        self.service.finish(&mut head, false, &request);
        self.exchange.respond(&head, 0);
        Response::from_parts(head, Body::upstream(content, path, self))
    }

    fn reply(mut self, head: http::response::Parts, bytes: Bytes) -> Reply<G> {
        self.exchange.respond(&head, bytes.len() as u64);
        Response::from_parts(head, Body::memory(bytes, self))
    }
}

impl<G: Connection> BodyObserver for ResponseGuard<G> {
    fn sent(&mut self, bytes: u64) {
        self.exchange.sent(bytes);
    }

    fn cut(&mut self, error: &BodyError) {
        tracing::warn!("{error}: the response is cut");
        self.exchange.cut();
        self.service.suspect(error);
    }
}

impl<G> Drop for ResponseGuard<G> {
    fn drop(&mut self) {
        let log = self.service.access.as_deref();
        self.exchange.finish(&self.service.metrics, log);
    }
}

/// A response that is there, or one that waits for the disk.
#[expect(
    clippy::large_enum_variant,
    reason = "a box for each response that is there costs more than room in those that wait"
)]
pub enum ResponseFuture<G> {
    /// There.
    Now(Ready<Reply<G>>),
    /// Waiting.
    Later(Pin<Box<dyn Future<Output = Reply<G>> + Send>>),
}

/// A response with its body.
pub type Reply<G> = Response<Body<ResponseGuard<G>>>;

impl<G: Unpin> Future for ResponseFuture<G> {
    type Output = Result<Reply<G>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Now(ready) => Pin::new(ready).poll(cx).map(Ok),
            Self::Later(later) => later.as_mut().poll(cx).map(Ok),
        }
    }
}
