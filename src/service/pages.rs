//! Responses that are not of the site's files: errors, and what has become of a write.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::draft::{Draft, empty};
use super::fields::{NOSNIFF, vary};
use crate::answer::Selected;
use crate::dev;
use crate::page::{self, Page};
use crate::representation::{NO_STORE, visible};
use crate::write::{Refusal, Written};

const BEARER: HeaderValue = HeaderValue::from_static("Bearer realm=\"etagd\"");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const POLICY: HeaderValue = HeaderValue::from_static(page::CONTENT_SECURITY_POLICY);
pub(super) const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const SOON: HeaderValue = HeaderValue::from_static("1");

/// What a page says where there is nothing.
pub(super) fn nothing_here(status: StatusCode) -> &'static str {
    match status {
        StatusCode::GONE => "what was here is gone for good",
        StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => "what is here may not be shown",
        _ => "there is nothing here",
    }
}

/// A 4xx about a selected representation: without a page, which a client's code would not show.
pub(super) fn negotiated_error(status: StatusCode, selected: &Selected<'_>) -> Draft {
    let mut draft = empty(status, 5);
    let fields = draft.headers_mut();
    fields.insert(header::CACHE_CONTROL, NO_STORE);
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    vary(fields, selected);
    draft
}

/// 201 or 204, with the tag that the client can go on with.
pub(super) fn made(written: &Written) -> Response<Bytes> {
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

/// A write that was not made: one line, for it is mostly programs that write.
pub(super) fn refused(refusal: Refusal) -> Response<Bytes> {
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
            fields.insert(header::RETRY_AFTER, SOON);
        }
        _ => {}
    }
    response
}

/// 503: the file is not what was scanned, and what it is now is not known yet.
pub(super) fn unavailable() -> Response<Bytes> {
    let text = "the content is changing, try again";
    let mut page = error(StatusCode::SERVICE_UNAVAILABLE, text, false);
    page.headers_mut().insert(header::RETRY_AFTER, SOON);
    page
}

/// A 4xx or 5xx that no cache may keep. `sentence` is escaped.
pub(super) fn error(status: StatusCode, sentence: &str, is_head: bool) -> Response<Bytes> {
    error_with_tail(status, sentence, is_head, None)
}

/// The same with what a developer has at the end of every document.
pub(super) fn error_with_tail(
    status: StatusCode,
    sentence: &str,
    is_head: bool,
    tail: Option<&str>,
) -> Response<Bytes> {
    let page = Page { status, sentence }.to_string() + tail.unwrap_or_default();
    let page = Bytes::from(page);
    let policy = match tail {
        None => POLICY,
        Some(_) => visible(&format_args!(
            "{}{}",
            page::CONTENT_SECURITY_POLICY,
            dev::POLICY
        )),
    };
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CACHE_CONTROL, NO_STORE);
    fields.insert(header::CONTENT_SECURITY_POLICY, policy);
    fields.insert(header::CONTENT_TYPE, HTML);
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    if is_head {
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(page.len()));
    } else {
        *response.body_mut() = page;
    }
    response
}
