//! The developer's server in front of the site: its own responses, other servers' and the site's,
//! each with the fields that a developer has asked for.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::{Dev, DevResponse};
use crate::page::Page;
use crate::representation::NO_STORE;
use crate::service::{BoxError, Connection, Content, Layer, Reply, ResponseFuture, error_page};
use crate::settings::Upstream;

const ANY: HeaderValue = HeaderValue::from_static("*");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
const GET: HeaderValue = HeaderValue::from_static("GET");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const SCRIPT: HeaderValue = HeaderValue::from_static("text/javascript; charset=utf-8");

/// Answers what the developer's server has of its own, and leaves the rest to the next layer.
pub struct DevLayer {
    dev: Arc<Dev>,
    next: Box<dyn Layer>,
}

impl DevLayer {
    /// Puts `dev` in front of `next`.
    pub fn new(dev: Arc<Dev>, next: Box<dyn Layer>) -> Self {
        Self { dev, next }
    }
}

impl Layer for DevLayer {
    fn respond(
        &self,
        request: Parts,
        content: Incoming,
        connection: &Arc<dyn Connection>,
    ) -> ResponseFuture {
        let page = super::PageAddress::of(&request);
        let reply = if let Some(response) = self.dev.intercept(&request) {
            ResponseFuture::now(dev_response(response, &request))
        } else if let Some(upstream) = self.dev.proxy.upstream(&request) {
            let (dev, upstream) = (Arc::clone(&self.dev), upstream.clone());
            let connection = Arc::clone(connection);
            ResponseFuture::later(async move {
                forward(&dev, &upstream, request, content, connection).await
            })
        } else {
            self.next.respond(request, content, connection)
        };
        let dev = Arc::clone(&self.dev);
        reply.change(move |reply| {
            let response = &mut reply.response;
            // After a 101 another protocol follows: there is no content that CORS or isolation could
            // be about.
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                dev.add_headers(response.headers_mut());
            }
            dev.warn_about_page(&page, response);
        })
    }
}

/// A response of the developer's server itself.
fn dev_response(response: DevResponse, request: &Parts) -> Response<Content> {
    let (content_type, content) = match response {
        DevResponse::Refused(status, sentence) => {
            let page = Page {
                status,
                sentence: &sentence,
                path: request.uri.path(),
                home: None,
            };
            let is_head = request.method == Method::HEAD;
            let mut page = error_page(page, is_head).map(Content::Memory);
            if status == StatusCode::METHOD_NOT_ALLOWED {
                // RFC 9110 section 15.5.6: a 405 must say what is allowed.
                page.headers_mut().insert(header::ALLOW, GET);
            }
            return page;
        }
        DevResponse::Preflight => {
            let mut response = Response::new(Content::Memory(Bytes::new()));
            *response.status_mut() = StatusCode::NO_CONTENT;
            let fields = response.headers_mut();
            fields.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ANY);
            fields.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ANY);
            return response;
        }
        DevResponse::Script(text) => (SCRIPT, Content::Memory(Bytes::from_static(text.as_bytes()))),
        DevResponse::Events(events) => {
            let stream = EventStream(events).boxed_unsync();
            (EVENTS, Content::Boxed(stream))
        }
    };
    let mut response = Response::new(content);
    let fields = response.headers_mut();
    fields.insert(header::CACHE_CONTROL, NO_STORE);
    fields.insert(header::CONTENT_TYPE, content_type);
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    response
}

/// Passes a request on to another server, and its response back; 502 or 504 where there is none.
async fn forward(
    dev: &Dev,
    upstream: &Upstream,
    request: Parts,
    content: Incoming,
    connection: Arc<dyn Connection>,
) -> Reply {
    let path: Box<str> = request.uri.path().into();
    let is_head = request.method == Method::HEAD;
    let peer = connection.peer();
    // Without it, an HTTP/2 client would be cut by --write-timeout for a server that takes its time.
    let waiting = UpstreamWait::begin(&connection);
    let answered = dev.proxy.forward(upstream, request, content, peer).await;
    drop(waiting);
    match answered {
        Ok(response) => response
            .map(|content| {
                let content = UpstreamBody {
                    content,
                    path,
                    connection,
                    waiting: None,
                };
                Content::Boxed(content.boxed_unsync())
            })
            .into(),
        Err(error) => {
            let page = Page {
                status: error.status(),
                sentence: &error.to_string(),
                path: &path,
                home: None,
            };
            error_page(page, is_head).into()
        }
    }
}

/// While it lives, a response waits for another server, and the client is blamed for nothing.
struct UpstreamWait(Arc<dyn Connection>);

impl UpstreamWait {
    fn begin(connection: &Arc<dyn Connection>) -> Self {
        connection.begin_upstream_wait();
        Self(Arc::clone(connection))
    }
}

impl Drop for UpstreamWait {
    fn drop(&mut self) {
        self.0.end_upstream_wait();
    }
}

/// Content of another server, as it comes. It may be silent for as long as it likes: events do.
struct UpstreamBody<B> {
    content: B,
    path: Box<str>,
    connection: Arc<dyn Connection>,
    /// Present while the other server has nothing to give.
    waiting: Option<UpstreamWait>,
}

impl<B> Body for UpstreamBody<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let next = Pin::new(&mut this.content).poll_frame(cx);
        this.waiting = match next.is_pending() {
            true => this
                .waiting
                .take()
                .or_else(|| Some(UpstreamWait::begin(&this.connection))),
            false => None,
        };
        next.map_err(|source| {
            let (path, source) = (this.path.clone(), source.into());
            UpstreamBroken { path, source }.into()
        })
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}

/// Another server's response ended before its end.
#[derive(Debug, thiserror::Error)]
#[error("the server behind {path} broke off: {source}")]
struct UpstreamBroken {
    path: Box<str>,
    source: BoxError,
}

/// Events as they happen, until their sender is gone.
struct EventStream(mpsc::Receiver<Bytes>);

impl Body for EventStream {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let next = self.0.poll_recv(cx);
        next.map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::stand_ins::TestConnection;

    #[tokio::test]
    async fn a_response_waits_while_the_other_server_is_silent() {
        let (sender, receiver) = mpsc::channel::<Bytes>(4);
        let connection = Arc::new(TestConnection::default());
        let mut body = UpstreamBody {
            content: EventStream(receiver),
            path: "/api".into(),
            connection: Arc::<TestConnection>::clone(&connection),
            waiting: None,
        };
        let waiting = || connection.upstream_waits();
        let poll = |body: &mut UpstreamBody<_>| {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            Pin::new(body).poll_frame(&mut cx).is_ready()
        };
        assert_eq!((waiting(), poll(&mut body), waiting()), (0, false, 1));
        assert_eq!((poll(&mut body), waiting()), (false, 1));
        sender.send(Bytes::from_static(b"x")).await.expect("room");
        assert_eq!((poll(&mut body), waiting()), (true, 0));
        assert_eq!((poll(&mut body), waiting()), (false, 1));
        drop(body);
        assert_eq!(waiting(), 0);
    }
}
