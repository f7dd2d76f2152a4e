//! The developer's server in front of the site: its own responses, other servers' and the site's,
//! each with the fields that a developer has asked for.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::{Dev, DevResponse};
use crate::client::Peer;
use crate::representation::NO_STORE;
use crate::service::{BoxError, Connection, Content, Layer, Reply, ResponseFuture, error_page};
use crate::settings::Upstream;

const ANY: HeaderValue = HeaderValue::from_static("*");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
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
        let path = request.uri.path();
        let page = super::PageAddress::of(&request);
        let reply = if let Some(response) = self.dev.intercept(&request) {
            let is_head = request.method == Method::HEAD;
            ResponseFuture::now(dev_response(response, is_head))
        } else if let Some(upstream) = self.dev.proxy.upstream(path) {
            let (dev, upstream) = (Arc::clone(&self.dev), upstream.clone());
            let peer = connection.peer();
            ResponseFuture::later(
                async move { forward(&dev, &upstream, request, content, peer).await },
            )
        } else {
            self.next.respond(request, content, connection)
        };
        let dev = Arc::clone(&self.dev);
        reply.change(move |reply| {
            let response = &mut reply.response;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                dev.add_headers(response.headers_mut());
            }
            dev.warn_about_csp(&page, response);
        })
    }
}

/// A response of the developer's server itself.
fn dev_response(response: DevResponse, is_head: bool) -> Response<Content> {
    let (content_type, content) = match response {
        DevResponse::Refused(status, sentence) => {
            return error_page(status, &sentence, is_head).map(Content::Memory);
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

/// Passes a request on to another server, and its response back; 502 where there is none.
async fn forward(
    dev: &Dev,
    upstream: &Upstream,
    request: Parts,
    content: Incoming,
    peer: Peer,
) -> Reply {
    let path: Box<str> = request.uri.path().into();
    let is_head = request.method == Method::HEAD;
    match dev.proxy.forward(upstream, request, content, peer).await {
        Ok(response) => response
            .map(|content| {
                let broken = move |source| -> BoxError {
                    let path = path.clone();
                    UpstreamBroken { path, source }.into()
                };
                Content::Boxed(content.map_err(broken).boxed_unsync())
            })
            .into(),
        Err(sentence) => error_page(StatusCode::BAD_GATEWAY, &sentence, is_head).into(),
    }
}

/// Another server's response ended before its end.
#[derive(Debug, thiserror::Error)]
#[error("the server behind {path} broke off: {source}")]
struct UpstreamBroken {
    path: Box<str>,
    source: hyper::Error,
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
