//! `--redirect-http`: redirects plain HTTP to HTTPS, and leaves the challenges of certificate authorities
//! to the site.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};
use hyper::body::Incoming;
use percent_encoding::{CONTROLS, utf8_percent_encode};

use super::fields::NOSNIFF;
use super::handler::{Connection, Layer};
use super::pages::error_page;
use super::response::ResponseFuture;
use crate::answer::host;
use crate::page::Page;
use crate::representation::NO_STORE;

/// Where certificate authorities look for what proves that a name is the applicant's, over plain
/// HTTP (RFC 8555 section 8.3).
const CHALLENGES: &str = "/.well-known/acme-challenge/";
/// The port that an `https` URL has without saying so (RFC 9110 section 4.2.2).
const DEFAULT_PORT: u16 = 443;
const NO_HOST: &str = "this page is at an https address, and the request names no host for it";

/// Answers every request with a redirect to HTTPS, other than those for challenges.
pub struct RedirectLayer {
    https_port: u16,
    site: Box<dyn Layer>,
}

impl RedirectLayer {
    /// Leads to `https_port` of the host that a request names. `site` answers challenges: with files
    /// alone, since its rules and fallbacks would send other content in the clear.
    pub fn new(https_port: u16, site: Box<dyn Layer>) -> Self {
        Self { https_port, site }
    }
}

impl Layer for RedirectLayer {
    fn respond(
        &self,
        request: Parts,
        content: Incoming,
        connection: &Arc<dyn Connection>,
    ) -> ResponseFuture {
        let is_challenge = request.uri.path().starts_with(CHALLENGES);
        // CONNECT asks for a tunnel: there is no URL to go to instead.
        if is_challenge || request.method == Method::CONNECT {
            return self.site.respond(request, content, connection);
        }
        ResponseFuture::now(match location(&request, self.https_port) {
            Some(location) => redirect(location),
            None => {
                // A way home would lead back here.
                let page = Page {
                    status: StatusCode::BAD_REQUEST,
                    sentence: NO_HOST,
                    path: request.uri.path(),
                    home: None,
                };
                error_page(page, request.method == Method::HEAD)
            }
        })
    }
}

/// Where a request should have gone: the host that it names, path and query as they are. It is the one
/// Location that is made of what a client says of the host; it goes back to that client, and
/// nothing may store it. The host is valid: requests with any other are refused before this.
fn location(request: &Parts, port: u16) -> Option<HeaderValue> {
    let host = host(request).filter(|host| !host.is_empty())?;
    let mut location = format!("https://{host}");
    if port != DEFAULT_PORT {
        location += &format!(":{port}");
    }
    // RFC 9112 section 3.2.4: `OPTIONS *` is about the server, so it has no path.
    let path = Some(request.uri.path()).filter(|path| path.starts_with('/'));
    // hyper takes bytes beyond ASCII in a target, which a URL can't have.
    location.extend(utf8_percent_encode(path.unwrap_or("/"), CONTROLS));
    if let Some(query) = request.uri.query() {
        location.push('?');
        location.extend(utf8_percent_encode(query, CONTROLS));
    }
    HeaderValue::try_from(location).ok()
}

/// 308, so that the method stays what it is. RFC 6797 section 7.2: without
/// Strict-Transport-Security.
fn redirect(location: HeaderValue) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    let fields = response.headers_mut();
    fields.insert(header::LOCATION, location);
    fields.insert(header::CACHE_CONTROL, NO_STORE);
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    response
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn where_a_request_should_have_gone() {
        for (target, host, port, expected) in [
            ("/", Some("a.example"), 443, Some("https://a.example/")),
            (
                "/",
                Some("a.example"),
                8443,
                Some("https://a.example:8443/"),
            ),
            ("/", Some("a.example:80"), 443, Some("https://a.example/")),
            (
                "/",
                Some("a.example:8080"),
                8443,
                Some("https://a.example:8443/"),
            ),
            ("/", Some("a.example:"), 443, Some("https://a.example/")),
            ("/", Some("[::1]:8080"), 443, Some("https://[::1]/")),
            ("/", Some("192.0.2.1"), 444, Some("https://192.0.2.1:444/")),
            ("/b/?c=d&e=/", Some("a"), 443, Some("https://a/b/?c=d&e=/")),
            ("/?", Some("a"), 443, Some("https://a/?")),
            (
                "//evil.example/x",
                Some("a"),
                443,
                Some("https://a//evil.example/x"),
            ),
            ("/a%0d%0ab", Some("a"), 443, Some("https://a/a%0d%0ab")),
            (
                "/\u{e9}?\u{e9}",
                Some("a"),
                443,
                Some("https://a/%C3%A9?%C3%A9"),
            ),
            ("*", Some("a"), 443, Some("https://a/")),
            (
                "http://b.example",
                Some("a"),
                443,
                Some("https://b.example/"),
            ),
            (
                "http://b.example?q",
                None,
                443,
                Some("https://b.example/?q"),
            ),
            (
                "https://b.example:80/c",
                Some("a"),
                443,
                Some("https://b.example/c"),
            ),
            ("/", None, 443, None),
            ("/", Some(""), 443, None),
            ("/", Some(":80"), 443, None),
        ] {
            let mut request = Request::builder().uri(target);
            if let Some(host) = host {
                request = request.header(header::HOST, host);
            }
            let (request, ()) = request.body(()).expect("a request").into_parts();
            let found = location(&request, port);
            let found = found
                .as_ref()
                .map(|location| location.to_str().expect("ASCII"));
            assert_eq!(found, expected, "{target} {host:?} {port}");
        }
    }
}
