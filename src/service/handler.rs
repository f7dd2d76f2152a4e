//! The interfaces between a connection and the layers: [`Handler`] answers the requests of a connection,
//! [`Connection`] is what it may ask of the connection, and [`Layer`] is one of the layers behind it.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use hyper::body::Incoming;
use tokio::sync::Semaphore;

use super::front_content::{CountedExchange, FrontContent};
use super::response::{AtOnce, FilesAtOnce, MemoryReply, ResponseFuture};
use crate::client::{Peer, TrustedProxies};
use crate::semantics::head::FieldLines;
use crate::semantics::plain::PlainHead;

/// Answers the requests of a connection: the outermost of the layers.
pub trait Handler: Send + Sync + 'static {
    /// The body of its responses.
    type Body: http_body::Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>
        + Send
        + 'static;
    /// The response to one request.
    type Future: Future<Output = Result<Response<Self::Body>, Infallible>> + Send + 'static;

    /// Answers one request. `in_flight` is held until the response is over.
    fn respond(
        self: &Arc<Self>,
        request: Parts,
        content: Incoming,
        in_flight: InFlight,
    ) -> Self::Future;

    /// Answers a plain request, if that needs nothing but memory: writes the head of the response behind
    /// `head`, and returns the content that follows it. `NeedsHyper` has [`Handler::respond`] answer.
    fn respond_at_once(
        self: &Arc<Self>,
        _front_request: FrontRequest<'_>,
        _head: &mut Vec<u8>,
    ) -> AtOnce<FrontContent, CountedExchange> {
        AtOnce::NeedsHyper
    }

    /// Notes that bytes were rejected before they were a request.
    fn note_malformed(&self);

    /// Notes that a connection was closed for a flood of HTTP/2 control frames.
    fn note_flood(&self);
}

/// A plain request, and how it came.
pub struct FrontRequest<'a> {
    /// What was read of it.
    pub request: &'a PlainHead<'a, 'a>,
    /// The connection that it came over.
    pub connection: &'a dyn Connection,
    /// What becomes of content that is not in memory yet.
    pub files: FilesAtOnce,
    /// What the first call has said of a request that is asked for again, once its content is sealed.
    pub waited_exchange: Option<CountedExchange>,
}

/// One layer behind a [`Handler`]: answers a request itself, or asks the next layer.
///
/// A reply that is there at once is returned as [`ResponseFuture::Now`]: no request that is answered
/// from memory allocates a future.
pub trait Layer: Send + Sync + 'static {
    /// Answers one request that came over `connection`. Must be called within a tokio runtime.
    fn respond(
        &self,
        request: Parts,
        content: Incoming,
        connection: &Arc<dyn Connection>,
    ) -> ResponseFuture;

    /// Answers a plain request, if that needs nothing but memory: writes status line and fields
    /// behind `head`. `NeedsHyper` has [`Layer::respond`] answer.
    fn respond_at_once(
        &self,
        _request: &PlainHead<'_, '_>,
        _files: FilesAtOnce,
        _head: &mut Vec<u8>,
    ) -> AtOnce<MemoryReply> {
        AtOnce::NeedsHyper
    }
}

/// The connection that a request came over.
pub trait Connection: Send + Sync + 'static {
    /// The client, or the proxy in front of it.
    fn peer(&self) -> Peer;

    /// Whether it is encrypted by our own TLS.
    fn is_secure(&self) -> bool;

    /// A permit for each response that reads files: it holds memory until its client has taken it.
    fn read_permits(&self) -> Arc<Semaphore>;

    /// Adds `bytes` to what is kept of the requests that wait for the disk. Returns whether there was
    /// room for them.
    fn add_waiting(&self, bytes: usize) -> bool;

    /// Takes `bytes` from what is kept of waiting requests.
    fn remove_waiting(&self, bytes: usize);

    /// Notes that content of a request has come, so that its client isn't taken for one that waits
    /// for a response and reads nothing.
    fn note_upload(&self);

    /// Notes that a response waits for another server: until that ends, the client is not blamed
    /// for taking nothing.
    fn begin_upstream_wait(&self);

    /// Notes that a response waits no longer.
    fn end_upstream_wait(&self);

    /// Notes that a request has come, and whether it announces content.
    fn begin_response(&self, has_content: bool);

    /// Notes that a response is over.
    fn end_response(&self);
}

impl dyn Connection + '_ {
    /// Whether the response to a request with these fields reaches its client over TLS, ours or that of
    /// a proxy. `trusted` proxies are believed about how their clients came.
    pub(super) fn is_secure_to_client(
        &self,
        trusted: &TrustedProxies,
        fields: &impl FieldLines,
    ) -> bool {
        self.is_secure() || trusted.says_https(self.peer(), fields)
    }
}

/// A request whose response is not over yet: its connection is not idle, and is not closed.
pub struct InFlight {
    connection: Arc<dyn Connection>,
    began: Instant,
}

impl InFlight {
    /// A request that has come over `connection`, and that somebody has begun to answer at `began`.
    pub fn new(connection: Arc<dyn Connection>, has_content: bool, began: Instant) -> Self {
        connection.begin_response(has_content);
        Self { connection, began }
    }

    /// The connection that it came over.
    pub fn connection(&self) -> &Arc<dyn Connection> {
        &self.connection
    }

    /// When somebody has begun to answer it.
    pub fn began(&self) -> Instant {
        self.began
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.connection.end_response();
    }
}
