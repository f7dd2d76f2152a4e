//! `--health`: liveness on the public port, for balancers that can't reach the admin listener.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};
use hyper::body::Incoming;

use super::fields::NOSNIFF;
use super::handler::{Connection, Layer};
use super::pages::PLAIN;
use super::response::{AtOnce, FilesAtOnce, MemoryReply, ResponseFuture};
use crate::readiness::{Phase, Readiness};
use crate::representation::NO_STORE;
use crate::semantics::head::RequestHead;
use crate::semantics::plain::PlainHead;
use crate::settings::HealthPath;

const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD");

/// Answers one path itself, and leaves all others to the next layer.
pub struct HealthLayer {
    path: HealthPath,
    readiness: Arc<Readiness>,
    next: Box<dyn Layer>,
}

impl HealthLayer {
    /// Answers `path` in place of `next`.
    pub fn new(path: HealthPath, readiness: Arc<Readiness>, next: Box<dyn Layer>) -> Self {
        Self {
            path,
            readiness,
            next,
        }
    }
}

impl Layer for HealthLayer {
    fn respond(
        &self,
        request: Parts,
        content: Incoming,
        connection: &Arc<dyn Connection>,
    ) -> ResponseFuture {
        if request.uri.path() == self.path.as_str() {
            ResponseFuture::now(health(&request.method, self.readiness.phase()))
        } else {
            self.next.respond(request, content, connection)
        }
    }

    fn respond_at_once(
        &self,
        request: &PlainHead<'_, '_>,
        files: FilesAtOnce,
        head: &mut Vec<u8>,
    ) -> AtOnce<MemoryReply> {
        match request.path() == self.path.as_str() {
            true => AtOnce::NeedsHyper,
            false => self.next.respond_at_once(request, files, head),
        }
    }
}

/// 200, or 503 while draining: such a balancer takes this path for readiness, and should send its
/// requests elsewhere.
fn health(method: &Method, phase: Phase) -> Response<Bytes> {
    let (status, text) = match (method, phase) {
        (&Method::GET | &Method::HEAD, Phase::Draining) => {
            (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
        }
        (&Method::GET | &Method::HEAD, _) => (StatusCode::OK, "alive\n"),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n"),
    };
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CACHE_CONTROL, NO_STORE);
    fields.insert(header::CONTENT_TYPE, PLAIN);
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        fields.insert(header::ALLOW, ALLOW);
    }
    if method == Method::HEAD {
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    } else {
        *response.body_mut() = Bytes::from_static(text.as_bytes());
    }
    response
}
