//! Requests that wait for the disk: which parts of them are kept, and how much of that one connection
//! may have (promise P10).
//!
//! A field of HTTP/2 is a slice of its whole block of fields, so that one that is kept would pin up
//! to `--max-header-size`, for each of 128 streams.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Uri, header};

use super::handler::Connection;
use crate::metrics::Metrics;
use crate::semantics::dictionary::{AVAILABLE_DICTIONARY, SEC_FETCH_SITE};
use crate::semantics::digest::WANT_REPR_DIGEST;
use crate::semantics::navigation::SEC_FETCH_MODE;

/// The fields that an answer may depend on: all that [`answer`](crate::answer::answer) and the
/// drafts of its answers look at.
const CONSULTED: [HeaderName; 14] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::HOST,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::ORIGIN,
    header::RANGE,
    AVAILABLE_DICTIONARY,
    SEC_FETCH_MODE,
    SEC_FETCH_SITE,
    WANT_REPR_DIGEST,
];

/// The parts of a request that are needed to answer it again from a later state of the site. It shares no
/// memory with the request.
pub(super) struct WaitingRequest {
    pub(super) parts: Parts,
    _share: WaitingShare,
}

impl WaitingRequest {
    /// Copies what is needed; `None` when the requests that wait on `connection` would keep more
    /// than one connection may.
    pub(super) fn new(
        request: &Parts,
        connection: &Arc<dyn Connection>,
        metrics: &Arc<Metrics>,
    ) -> Option<Self> {
        let (parts, bytes) = consulted(request);
        let share = WaitingShare::take(connection, metrics, bytes)?;
        Some(Self {
            parts,
            _share: share,
        })
    }
}

/// A copy of the target and the consulted fields, and how many bytes they have.
fn consulted(request: &Parts) -> (Parts, usize) {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = request.method.clone();
    parts.version = request.version;
    let target = request.uri.to_string();
    let mut bytes = target.len();
    // What was parsed once is parsed again; if not, the original is as good, and only longer.
    parts.uri = Uri::try_from(target).unwrap_or_else(|_| request.uri.clone());
    for name in CONSULTED {
        for value in request.headers.get_all(&name) {
            bytes += name.as_str().len() + value.len();
            let copy = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
            parts.headers.append(name.clone(), copy);
        }
    }
    (parts, bytes)
}

/// Bytes in the count of what waits on a connection, for as long as they are kept.
struct WaitingShare {
    connection: Arc<dyn Connection>,
    metrics: Arc<Metrics>,
    bytes: usize,
}

impl WaitingShare {
    fn take(
        connection: &Arc<dyn Connection>,
        metrics: &Arc<Metrics>,
        bytes: usize,
    ) -> Option<Self> {
        connection.add_waiting(bytes).then(|| {
            let all = &metrics.waiting_requests;
            all.fetch_add(bytes as u64, Ordering::Relaxed);
            Self {
                connection: Arc::clone(connection),
                metrics: Arc::clone(metrics),
                bytes,
            }
        })
    }
}

impl Drop for WaitingShare {
    fn drop(&mut self) {
        self.connection.remove_waiting(self.bytes);
        let all = &self.metrics.waiting_requests;
        all.fetch_sub(self.bytes as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_answer_may_depend_on_is_kept() {
        let (request, ()) = Request::get("http://host/a?b=%20c")
            .header("Host", "host")
            .header("If-None-Match", "\"a\"")
            .header("If-None-Match", "\"b\"")
            .header("Range", "bytes=0-1")
            .header("Cookie", "secret")
            .header("X-Long", "x".repeat(10_000))
            .body(())
            .expect("a request")
            .into_parts();
        let (kept, bytes) = consulted(&request);
        assert_eq!(kept.uri, request.uri);
        assert_eq!(kept.headers.len(), 4);
        let tags: Vec<_> = kept.headers.get_all("if-none-match").iter().collect();
        assert_eq!(tags, ["\"a\"", "\"b\""]);
        assert_eq!(kept.headers["range"], "bytes=0-1");
        assert!(bytes < 100, "{bytes}");
    }

    #[test]
    fn odd_targets_stay_as_they_are() {
        for target in ["/", "*", "/%ff?x=%00", "//a//b", "http://[::1]:80/"] {
            let (request, ()) = Request::get(target)
                .body(())
                .expect("a request")
                .into_parts();
            assert_eq!(consulted(&request).0.uri, request.uri, "{target}");
        }
    }
}
