//! Errors: with etagd's own page, with one of the site's, or with none.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::fields::{NOSNIFF, add_content_encoding, add_vary};
use super::response::{Draft, empty};
use crate::answer::Selected;
use crate::manifest::{Manifest, UNAVAILABLE_PAGE};
use crate::page::{self, Page};
use crate::representation::{Data, NO_STORE, Resource};
use crate::semantics::head::RequestHead;
use crate::settings::Settings;

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
pub(super) const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const POLICY: HeaderValue = HeaderValue::from_static(page::CONTENT_SECURITY_POLICY);
const POLICY_WITH_TAIL: HeaderValue =
    HeaderValue::from_static(page::CONTENT_SECURITY_POLICY_WITH_TAIL);
/// `Retry-After`, in seconds, of an error that will soon be over.
pub(super) const RETRY_SOON: HeaderValue = HeaderValue::from_static("1");
/// What a 503 says of a file that has changed since it was hashed, and is not known yet as it is now.
pub(super) const CHANGING: &str = "this file is changing: try again in a moment";
/// What a 503 says of content that is in a store and can't be had from there.
pub(super) const UNREACHABLE: &str = "this file cannot be fetched now: try again in a moment";
/// What a 503 says of what may be in a release that is not served yet.
pub(super) const BEHIND: &str =
    "a newer version of this site is being fetched: try again in a moment";
/// What a 503 says where the requests that wait on a connection have too many bytes of header fields.
pub(super) const TOO_MANY_WAITING: &str =
    "too many requests with long header fields wait on this connection: try again in a moment";

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

/// 503, with the site's own `50x.html`, or else a page of etagd's that says this sentence.
pub(super) fn unavailable(manifest: &Manifest, request: &Parts, sentence: &str) -> Response<Bytes> {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let mut response = own_page(manifest, status, UNAVAILABLE_PAGE).unwrap_or_else(|| {
        let page = page_about(request, manifest.settings(), status, sentence);
        error_page(page, false)
    });
    let fields = response.headers_mut();
    fields.insert(header::RETRY_AFTER, RETRY_SOON);
    response
}

/// What etagd's own page says about a request for something of the site.
pub(super) fn page_about<'a>(
    request: &'a impl RequestHead,
    settings: &'a Settings,
    status: StatusCode,
    sentence: &'a str,
) -> Page<'a> {
    Page {
        status,
        sentence,
        path: request.path(),
        home: Some(settings.base_path.home()),
    }
}

/// A page of the site in place of what was asked for; `None` where it has none, or none in memory: a
/// file that has to be read and proven first may fail, too.
fn own_page(manifest: &Manifest, status: StatusCode, name: &[u8]) -> Option<Response<Bytes>> {
    let page = manifest.locate(name)?;
    let Data::Memory(content) = &page.identity.data else {
        return None;
    };
    let mut response = Response::new(content.clone());
    *response.status_mut() = status;
    describe_own_page(response.headers_mut(), page);
    Some(response)
}

/// The fields of a page of the site that answers an error. It is not what was asked for, so it has no
/// tag.
pub(super) fn describe_own_page(fields: &mut HeaderMap, page: &Resource) {
    fields.insert(header::CACHE_CONTROL, NO_STORE);
    fields.insert(header::CONTENT_TYPE, page.fields.content_type.clone());
    add_content_encoding(fields, page.content_coding(&page.identity));
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
}

/// A 4xx or 5xx with etagd's own page, which no cache may keep.
pub fn error_page(page: Page<'_>, is_head: bool) -> Response<Bytes> {
    error_page_with_tail(page, is_head, None)
}

/// An [`error_page`] that ends with `tail`, the markup that is added to every document of the site.
pub(super) fn error_page_with_tail(
    page: Page<'_>,
    is_head: bool,
    tail: Option<&str>,
) -> Response<Bytes> {
    let status = page.status;
    let page = page.to_string() + tail.unwrap_or_default();
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
