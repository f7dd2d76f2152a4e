//! How a request is delimited, and what the head of every response says about the connection and the
//! length, whatever the answer and whoever gives it.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header;
use http::request::Parts;
use http::{HeaderValue, StatusCode, Version, response};
use httpdate::HttpDate;

use crate::semantics::host::check_host;

pub(super) const CLOSE: HeaderValue = HeaderValue::from_static("close");
const ZERO: HeaderValue = HeaderValue::from_static("0");

/// What the head of a request says about where the request ends.
#[derive(Clone, Copy, Debug)]
pub struct Framing {
    is_http1: bool,
    /// Whether nothing that comes after the request may be read.
    is_last: bool,
    refusal: Option<(StatusCode, &'static str)>,
}

impl Framing {
    /// How a plain request is delimited: by its end, beyond doubt.
    pub(super) const PLAIN: Self = Self {
        is_http1: true,
        is_last: false,
        refusal: None,
    };

    /// How `request` is delimited.
    pub fn of(request: &Parts) -> Self {
        let refusal = check_transfer_encoding(request)
            .or_else(|| Some((StatusCode::BAD_REQUEST, check_host(request).err()?)));
        Self {
            is_http1: request.version <= Version::HTTP_11,
            // RFC 9112 section 6.1: a proxy in front may disagree about where a request with
            // Transfer-Encoding ends. What is malformed may end elsewhere, too.
            is_last: refusal.is_some() || request.headers.contains_key(header::TRANSFER_ENCODING),
            refusal,
        }
    }

    /// Why the request is refused before anything else is looked at: hyper reads it in one way, and a
    /// proxy in front may read it in another (request smuggling, RFC 9112 section 11.2).
    pub fn refusal(&self) -> Option<(StatusCode, &'static str)> {
        self.refusal
    }

    /// Finishes the head of a response. `is_draining` says whether the client should connect to
    /// another server from now on.
    pub fn finish_head(
        self,
        head: &mut response::Parts,
        has_no_content: bool,
        is_draining: impl FnOnce() -> bool,
    ) {
        // RFC 9110 section 7.8: from here on the connection speaks another protocol.
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        if self.is_http1 && (self.is_last || is_draining()) {
            // A client that is told to leave with a response doesn't lose its next request in the
            // drain.
            head.headers.insert(header::CONNECTION, CLOSE);
        }
        // RFC 9110 section 8.6: 204 must not have a Content-Length, and in a 304 it would be that of the
        // 200.
        let is_bodiless = matches!(
            head.status,
            StatusCode::NOT_MODIFIED | StatusCode::NO_CONTENT
        );
        if has_no_content && !is_bodiless {
            // hyper sends the length of empty content over HTTP/1.1 only. To HEAD it is the length
            // that GET would have, which is there already.
            head.headers.entry(header::CONTENT_LENGTH).or_insert(ZERO);
        }
    }
}

/// Ends the head of a response that is written without hyper, which dates all others (RFC 9110
/// section 6.6.1).
pub(super) fn end_head(head: &mut Vec<u8>) {
    thread_local! {
        /// A second since the epoch, and the end of all heads in it: to write a date costs as much as to
        /// find a file.
        static LAST_END: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |at| at.as_secs());
    LAST_END.with_borrow_mut(|(last, end)| {
        if *last != second || end.is_empty() {
            *end = format!("date: {}\r\n\r\n", HttpDate::from(now));
            *last = second;
        }
        head.extend_from_slice(end.as_bytes());
    });
}

/// RFC 9112 section 6.1: chunked is the only transfer coding that is implemented, and it may be
/// applied once. hyper looks at the last one alone.
fn check_transfer_encoding(request: &Parts) -> Option<(StatusCode, &'static str)> {
    let lines = request.headers.get_all(header::TRANSFER_ENCODING);
    let mut number = 0;
    for coding in lines
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|coding| !coding.is_empty())
    {
        number += 1;
        if !coding.eq_ignore_ascii_case(b"chunked") {
            let reason = "this transfer coding is not implemented";
            return Some((StatusCode::NOT_IMPLEMENTED, reason));
        }
    }
    (number > 1).then_some((
        StatusCode::BAD_REQUEST,
        "the content is chunked more than once",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status that a request is refused with.
    fn refused(lines: &[(&str, &str)]) -> Option<u16> {
        let mut request = http::Request::builder().uri("/").version(Version::HTTP_11);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let framing = Framing::of(&parts);
        let refusal = framing.refusal();
        assert!(framing.is_last || refusal.is_none(), "{lines:?}");
        refusal.map(|(status, _)| status.as_u16())
    }

    #[test]
    fn what_may_be_read_in_two_ways_is_refused() {
        let (host, name) = (("Host", "localhost"), "Transfer-Encoding");
        for (about, lines, status) in [
            ("9110 7.2 Host", vec![host], None),
            ("9112 3.2 no Host", vec![], Some(400)),
            ("9112 3.2 two", vec![host, host], Some(400)),
            ("9112 3.2 invalid", vec![("Host", "a:b")], Some(400)),
            ("9112 6.1 chunked", vec![host, (name, "chunked")], None),
            (
                "9112 6.1 in capitals",
                vec![host, (name, "Chunked ,")],
                None,
            ),
            (
                "9112 6.1 twice",
                vec![host, (name, "chunked, chunked")],
                Some(400),
            ),
            (
                "9112 6.1 in two lines",
                vec![host, (name, "chunked"), (name, "chunked")],
                Some(400),
            ),
            (
                "9112 6.1 another",
                vec![host, (name, "gzip, chunked")],
                Some(501),
            ),
            (
                "9112 6.1 identity",
                vec![host, (name, "identity"), (name, "chunked")],
                Some(501),
            ),
        ] {
            assert_eq!(refused(&lines), status, "{about}");
        }
    }
}
