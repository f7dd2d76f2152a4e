//! PUT and DELETE: a [`Writer`] decides and makes the change, its outcome becomes a response here.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode, Version, header};
use hyper::body::Incoming;

use super::fields::NOSNIFF;
use super::framing::CLOSE;
use super::handler::{Connection, Layer};
use super::pages::{PLAIN, RETRY_SOON};
use super::response::{AtOnce, FilesAtOnce, MemoryReply, Reply, ResponseFuture};
use crate::exchange::AnswerSummary;
use crate::representation::{NO_STORE, visible};
use crate::semantics::plain::PlainHead;
use crate::site::Site;
use crate::write::{self, Refusal, Writer, Written, is_write};

const BEARER: HeaderValue = HeaderValue::from_static("Bearer realm=\"etagd\"");

/// Answers the methods that change the site, and leaves the others to the next layer.
pub struct WriteLayer {
    writer: Arc<Writer>,
    site: Arc<Site>,
    next: Box<dyn Layer>,
}

impl WriteLayer {
    /// Has `writer` change `site`.
    pub fn new(writer: Arc<Writer>, site: Arc<Site>, next: Box<dyn Layer>) -> Self {
        Self { writer, site, next }
    }
}

impl Layer for WriteLayer {
    fn respond(
        &self,
        request: Parts,
        content: Incoming,
        connection: &Arc<dyn Connection>,
    ) -> ResponseFuture {
        if !is_write(&request.method) {
            return self.next.respond(request, content, connection);
        }
        let (writer, site) = (Arc::clone(&self.writer), Arc::clone(&self.site));
        let connection = Arc::clone(connection);
        ResponseFuture::later(async move {
            carry_out(&writer, &site, &request, content, &*connection).await
        })
    }

    /// A plain request changes nothing.
    fn respond_at_once(
        &self,
        request: &PlainHead<'_, '_>,
        files: FilesAtOnce,
        head: &mut Vec<u8>,
    ) -> AtOnce<MemoryReply> {
        self.next.respond_at_once(request, files, head)
    }
}

/// Has a change made, and says what has become of it.
async fn carry_out(
    writer: &Arc<Writer>,
    site: &Site,
    request: &Parts,
    mut content: Incoming,
    connection: &dyn Connection,
) -> Reply {
    let received = || connection.note_upload();
    let called = writer.call(site, request, &mut content, connection.peer(), received);
    let mut response = match called.await {
        Ok(written) => response_to_written(&written),
        Err(refusal) => response_to_refusal(refusal),
    };
    if request.version >= Version::HTTP_2 {
        // Content that nobody reads is reset once the response is over, and some clients take the
        // reset for the response: it is taken in for a while in the background.
        tokio::spawn(write::linger(content));
    } else if !write::discard(request, &mut content).await {
        // RFC 9112 section 9.3: the rest of the content stands where the next request would begin.
        response.headers_mut().insert(header::CONNECTION, CLOSE);
    }
    let summary = match response.status() {
        StatusCode::PRECONDITION_FAILED => AnswerSummary::failed(),
        _ => AnswerSummary::default(),
    };
    Reply {
        summary,
        ..Reply::from(response)
    }
}

/// 201 or 204, with the tag that the client can go on with.
fn response_to_written(written: &Written) -> Response<Bytes> {
    let (status, etag) = match written {
        Written::Created(etag) => (StatusCode::CREATED, etag.as_ref()),
        Written::Replaced(etag) => (StatusCode::NO_CONTENT, etag.as_ref()),
        Written::Deleted => (StatusCode::NO_CONTENT, None),
    };
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    if let Some(etag) = etag {
        response.headers_mut().insert(header::ETAG, visible(etag));
    }
    response
}

/// A write that was not made. Its content is one line of text: mostly programs write.
fn response_to_refusal(refusal: Refusal) -> Response<Bytes> {
    let Refusal {
        status,
        reason,
        etag,
    } = refusal;
    let mut response = Response::new(Bytes::from(format!("{reason}\n")));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CACHE_CONTROL, NO_STORE);
    fields.insert(header::CONTENT_TYPE, PLAIN);
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    if let Some(etag) = etag {
        fields.insert(header::ETAG, visible(&etag));
    }
    match status {
        StatusCode::UNAUTHORIZED => {
            fields.insert(header::WWW_AUTHENTICATE, BEARER);
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            fields.insert(header::RETRY_AFTER, RETRY_SOON);
        }
        _ => {}
    }
    response
}
