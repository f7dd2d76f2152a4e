//! What unit tests have in the place of a connection, and of what answers its requests.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::Semaphore;

use super::front_content::{CountedExchange, FrontContent};
use super::handler::{Connection, FrontRequest, Handler, InFlight};
use super::response::AtOnce;
use crate::client::Peer;
use crate::semantics::plain::PlainHead;

/// A connection that has room for everything, and counts the responses that wait for another server.
#[derive(Default)]
pub struct TestConnection(AtomicIsize);

impl TestConnection {
    /// How many responses wait for another server.
    pub fn upstream_waits(&self) -> isize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Connection for TestConnection {
    fn peer(&self) -> Peer {
        Peer::Unix
    }
    fn is_secure(&self) -> bool {
        false
    }
    fn read_permits(&self) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(1))
    }
    fn add_waiting(&self, _: usize) -> bool {
        true
    }
    fn remove_waiting(&self, _: usize) {}
    fn note_upload(&self) {}
    fn begin_upstream_wait(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn end_upstream_wait(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
    fn begin_response(&self, _: bool) {}
    fn end_response(&self) {}
}

/// What a [`TestHandler`] answers at once.
type RespondAtOnce = fn(&PlainHead<'_, '_>, &mut Vec<u8>) -> AtOnce<FrontContent, CountedExchange>;

/// Answers plain requests as it is told, and says of all others that they have come to hyper.
pub struct TestHandler(pub RespondAtOnce);

impl Handler for TestHandler {
    type Body = Full<Bytes>;
    type Future = Ready<Result<Response<Self::Body>, Infallible>>;

    fn respond(self: &Arc<Self>, request: Parts, _: Incoming, _: InFlight) -> Self::Future {
        let said = format!("<hyper {}>", request.uri);
        ready(Ok(Response::new(Full::from(said))))
    }

    fn respond_at_once(
        self: &Arc<Self>,
        front_request: FrontRequest<'_>,
        head: &mut Vec<u8>,
    ) -> AtOnce<FrontContent, CountedExchange> {
        (self.0)(front_request.request, head)
    }

    fn note_malformed(&self) {}

    fn note_flood(&self) {}
}
