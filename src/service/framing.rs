//! What the head of every response says about the connection and the length, whatever the answer.

use http::header;
use http::request::Parts;
use http::{HeaderValue, StatusCode, Version, response};

use crate::readiness::{Phase, Readiness};

pub(super) const CLOSE: HeaderValue = HeaderValue::from_static("close");
const ZERO: HeaderValue = HeaderValue::from_static("0");

/// What of a request decides it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Framing {
    is_http1: bool,
    has_transfer_encoding: bool,
}

impl Framing {
    pub(super) fn of(request: &Parts) -> Self {
        Self {
            is_http1: request.version <= Version::HTTP_11,
            has_transfer_encoding: request.headers.contains_key(header::TRANSFER_ENCODING),
        }
    }

    /// Finishes the head of a response.
    pub(super) fn finish(
        self,
        head: &mut response::Parts,
        has_no_content: bool,
        readiness: &Readiness,
    ) {
        // RFC 9110 section 7.8: from here on the connection speaks another protocol.
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        let is_draining = || readiness.phase() == Phase::Draining;
        if self.has_transfer_encoding || (self.is_http1 && is_draining()) {
            // RFC 9112 section 6.1: a proxy in front may disagree about where a request with
            // Transfer-Encoding ends, so nothing that comes after it is read. And a client that
            // is told to leave with a response doesn't lose its next request in the drain.
            head.headers.insert(header::CONNECTION, CLOSE);
        }
        // RFC 9110 section 8.6: these two have no content whose length could be told.
        let is_bodiless = matches!(
            head.status,
            StatusCode::NOT_MODIFIED | StatusCode::NO_CONTENT
        );
        if has_no_content && !is_bodiless {
            // hyper tells the length of empty content over HTTP/1.1 only. To HEAD it is the length
            // that GET would have, which is there already.
            head.headers.entry(header::CONTENT_LENGTH).or_insert(ZERO);
        }
    }
}
