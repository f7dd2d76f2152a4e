//! Responses that come from no file of the site: errors, as etagd's own page.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::fields::{NOSNIFF, add_vary};
use super::response::{Draft, empty};
use crate::answer::Selected;
use crate::page::{self, Page};
use crate::representation::NO_STORE;

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
pub(super) const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const POLICY: HeaderValue = HeaderValue::from_static(page::CONTENT_SECURITY_POLICY);
const POLICY_WITH_TAIL: HeaderValue =
    HeaderValue::from_static(page::CONTENT_SECURITY_POLICY_WITH_TAIL);
/// `Retry-After`, in seconds, of an error that will soon be over.
pub(super) const RETRY_SOON: HeaderValue = HeaderValue::from_static("1");

/// What etagd's own page says where the site has none for this status.
pub(super) fn not_found_sentence(status: StatusCode) -> &'static str {
    match status {
        StatusCode::GONE => "this page has been removed for good",
        StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => "this page may not be shown for legal reasons",
        _ => "there is nothing here",
    }
}

/// 412 or 416: without a page, because what sends preconditions or ranges shows none.
pub(super) fn error_without_page(status: StatusCode, selected: &Selected<'_>) -> Draft {
    let mut draft = empty(status, 5);
    let fields = draft.headers_mut();
    fields.insert(header::CACHE_CONTROL, NO_STORE);
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    add_vary(fields, selected);
    draft
}

/// 503: the file has changed since it was hashed, and what it is now is not known yet.
pub(super) fn unavailable() -> Response<Bytes> {
    error_page_with_retry("this file is changing: try again in a moment")
}

/// 503: the requests that wait on this connection have too many bytes of header fields.
pub(super) fn too_many_waiting() -> Response<Bytes> {
    error_page_with_retry(
        "too many requests with long header fields wait on this connection: try again in a moment",
    )
}

fn error_page_with_retry(text: &str) -> Response<Bytes> {
    let mut page = error_page(StatusCode::SERVICE_UNAVAILABLE, text, false);
    page.headers_mut().insert(header::RETRY_AFTER, RETRY_SOON);
    page
}

/// A 4xx or 5xx with etagd's own page, which no cache may keep.
///
/// `sentence` says what is wrong, without a capital and a full stop; it is escaped.
pub fn error_page(status: StatusCode, sentence: &str, is_head: bool) -> Response<Bytes> {
    error_page_with_tail(status, sentence, is_head, None)
}

/// An [`error_page`] that ends with `tail`, the markup that is added to every document of the site.
pub(super) fn error_page_with_tail(
    status: StatusCode,
    sentence: &str,
    is_head: bool,
    tail: Option<&str>,
) -> Response<Bytes> {
    let page = Page { status, sentence }.to_string() + tail.unwrap_or_default();
    let page = Bytes::from(page);
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CACHE_CONTROL, NO_STORE);
    fields.insert(
        header::CONTENT_SECURITY_POLICY,
        match tail {
            None => POLICY,
            Some(_) => POLICY_WITH_TAIL,
        },
    );
    fields.insert(header::CONTENT_TYPE, HTML);
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    if is_head {
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(page.len()));
    } else {
        *response.body_mut() = page;
    }
    response
}
