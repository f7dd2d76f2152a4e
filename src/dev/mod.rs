//! What `etagd dev` adds to a server: pages that reload by themselves, a check of the Host field
//! against DNS rebinding, and other servers behind some paths.
//!
//! What [`tail`] makes stands at the end of every document and loads a script; the script hears of
//! changes through a [`Feed`] that all tabs share. Nothing here finds a file: [`DevLayer`] stands in front of
//! the same layer that answers in production.

mod changes;
mod feed;
mod layer;
mod line;
mod policy;
mod proxy;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use tokio::sync::mpsc;

use crate::answer::host;
use crate::semantics::base_path::BasePath;
use crate::semantics::host::check_host;
use crate::service::Content;
use crate::settings::{AllowedHost, DevOptions, is_host_allowed};
use proxy::Proxy;

pub use changes::Changed;
pub use feed::Feed;
pub use layer::DevLayer;
pub use line::line;

/// How many different policies and pages are warned about: a site may make a new nonce for each
/// response.
const MAX_WARNINGS: usize = 20;
/// The path, below that of the site, of the live reload's own files and events: nothing of the site is
/// found below it.
const RELOAD_FOLDER: &[u8] = b"_etagd/";
const ANY: HeaderValue = HeaderValue::from_static("*");
const EMBEDDER_POLICY: HeaderName = HeaderName::from_static("cross-origin-embedder-policy");
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The markup at the end of every document of a site with this base path.
pub fn tail(base_path: &BasePath) -> String {
    let folder = base_path.url(RELOAD_FOLDER);
    format!("\n<script async src=\"{folder}reload.js\"></script>\n")
}

/// What a developer's server has in front of the site.
#[derive(Debug)]
pub struct Dev {
    feed: Option<Arc<Feed>>,
    /// The path of the live reload's own files and events.
    reload_folder: String,
    /// The markup at the end of every document.
    tail: String,
    allowed: Vec<AllowedHost>,
    /// Whether pages of all origins may read responses.
    cors: bool,
    /// Fields that every response gets, unless it has them with another value.
    fields: HeaderMap,
    proxy: Proxy,
    /// Policies that keep pages from reloading, and pages without the script, that a warning has
    /// named.
    warned: Mutex<HashSet<String>>,
}

/// A response in place of the site's.
#[derive(Debug)]
enum DevResponse {
    /// A script.
    Script(&'static str),
    /// Server-sent events, as long as the connection lasts.
    Events(mpsc::Receiver<Bytes>),
    /// Permission for a page of another origin (Fetch, section 4.8).
    Preflight,
    /// An error, and one sentence about it.
    Refused(StatusCode, String),
}

/// Which page a request asks for, as far as a warning names it.
struct PageAddress {
    path: Box<str>,
    /// Whether a window or a frame may show it: a script that asks for a fragment says that it is
    /// none of these.
    is_shown: bool,
    /// Host and port, as the browser knows the site.
    authority: Box<str>,
}

impl PageAddress {
    fn of(request: &Parts) -> Self {
        // HTTP/2 has the authority in the target, HTTP/1.1 mostly in Host.
        let in_target = request.uri.authority().map(Authority::as_str);
        let host = request.headers.get(header::HOST);
        let in_host = host.and_then(|host| host.to_str().ok());
        let destination = request.headers.get(SEC_FETCH_DEST);
        let is_shown = destination.is_none_or(|destination| {
            ["document", "frame", "iframe"]
                .iter()
                .any(|shown| destination == shown)
        });
        Self {
            path: request.uri.path().into(),
            is_shown: is_shown && request.method == Method::GET,
            authority: in_target.or(in_host).unwrap_or_default().into(),
        }
    }
}

impl Dev {
    /// Without a `feed` pages don't reload.
    pub fn new(feed: Option<Arc<Feed>>, flags: &DevOptions, base_path: &BasePath) -> Self {
        let mut fields = HeaderMap::new();
        if flags.cors {
            fields.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
            fields.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, ANY);
        }
        if flags.is_isolated {
            fields.insert(OPENER_POLICY, HeaderValue::from_static("same-origin"));
            fields.insert(EMBEDDER_POLICY, HeaderValue::from_static("require-corp"));
        }
        Self {
            feed,
            reload_folder: base_path.url(RELOAD_FOLDER),
            tail: tail(base_path),
            allowed: flags.allowed.clone(),
            cors: flags.cors,
            fields,
            proxy: Proxy::new(
                flags.upstreams.clone(),
                flags.tls.is_some(),
                flags.upstream_timeout,
            ),
            warned: Mutex::default(),
        }
    }

    /// Warns once of each page that does not reload by itself for want of the script, and of each
    /// policy that forbids it.
    fn warn_about_page(&self, page: &PageAddress, response: &Response<Content>) {
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let is_html = content_type.is_some_and(|it| it.as_bytes().starts_with(b"text/html"));
        if self.feed.is_none() || response.status() != StatusCode::OK || !is_html {
            return;
        }
        let path = &*page.path;
        let content = match response.body() {
            Content::Memory(content) if content.ends_with(self.tail.as_bytes()) => content,
            // Nothing to show, or of another server.
            Content::Memory(content) if content.is_empty() => return,
            Content::Boxed(_) => return,
            Content::Memory(_) if page.is_shown => {
                if self.is_first_warning(path) {
                    tracing::warn!(
                        page = path,
                        "{path} does not reload by itself: it begins with no doctype, <html> or \
                         <head>, so it is taken for a fragment"
                    );
                }
                return;
            }
            Content::File(_) if page.is_shown => {
                if self.is_first_warning(path) {
                    tracing::warn!(
                        page = path,
                        "{path} does not reload by itself: it is a fragment, or longer than 8 MiB"
                    );
                }
                return;
            }
            Content::Memory(_) | Content::File(_) => return,
        };
        let Some(policy) = policy::forbidding(response.headers(), content, &page.authority) else {
            return;
        };
        if self.is_first_warning(&policy) {
            tracing::warn!(
                page = path,
                policy,
                "{path} does not reload by itself: its Content-Security-Policy allows no script \
                 from 'self', or no connection to it: {policy}"
            );
        }
    }

    /// Whether a warning about this is still to be given.
    fn is_first_warning(&self, subject: &str) -> bool {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        warned.len() < MAX_WARNINGS && warned.insert(subject.to_owned())
    }

    /// Why a request may not be answered at all: its Host is none that a page of this site can have,
    /// or can't be read, or its path may lead out of what another server is asked for.
    fn refuse(&self, request: &Parts) -> Option<DevResponse> {
        if let Some(host) = host(request)
            && !is_host_allowed(host, &self.allowed)
        {
            let sentence = format!(
                "requests for the host {host} are not allowed: to allow them, start etagd dev with \
                 --allow-host {host}"
            );
            return Some(DevResponse::Refused(StatusCode::FORBIDDEN, sentence));
        }
        self.proxy.upstream(request)?;
        let is_unreadable = |host: &HeaderValue| host.to_str().is_err();
        let sentence = match check_host(request) {
            Err(problem) => problem,
            Ok(()) if request.headers.get(header::HOST).is_some_and(is_unreadable) => {
                "invalid Host header field"
            }
            Ok(()) if proxy::has_dot_segments(request.uri.path()) => {
                "a path with . or .. in it is not passed on to another server"
            }
            Ok(()) => return None,
        };
        Some(DevResponse::Refused(
            StatusCode::BAD_REQUEST,
            sentence.to_owned(),
        ))
    }

    /// What is to be answered in place of the site, if anything. Must be called within a tokio
    /// runtime.
    fn intercept(&self, request: &Parts) -> Option<DevResponse> {
        if let Some(refused) = self.refuse(request) {
            return Some(refused);
        }
        let is_preflight = request.method == Method::OPTIONS
            && request.headers.contains_key(header::ORIGIN)
            && request
                .headers
                .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if self.cors && is_preflight {
            return Some(DevResponse::Preflight);
        }
        let feed = self.feed.as_ref()?;
        let name = request.uri.path().strip_prefix(&*self.reload_folder)?;
        if request.method != Method::GET {
            let sentence = "only GET is allowed here".to_owned();
            return Some(DevResponse::Refused(
                StatusCode::METHOD_NOT_ALLOWED,
                sentence,
            ));
        }
        Some(match name {
            "reload.js" => DevResponse::Script(include_str!("reload.js")),
            "worker.js" => DevResponse::Script(include_str!("worker.js")),
            "events" if is_same_origin(&request.headers) => {
                let last = request
                    .headers
                    .get("last-event-id")
                    .and_then(|id| id.to_str().ok());
                DevResponse::Events(feed.stream(last))
            }
            "events" => {
                let sentence = "only pages of this site may read its events".to_owned();
                DevResponse::Refused(StatusCode::FORBIDDEN, sentence)
            }
            _ => {
                let sentence = "there is nothing here".to_owned();
                DevResponse::Refused(StatusCode::NOT_FOUND, sentence)
            }
        })
    }

    /// Adds the fields that every response has, unless it has them with another value.
    fn add_headers(&self, fields: &mut HeaderMap) {
        for (name, value) in &self.fields {
            fields.entry(name).or_insert_with(|| value.clone());
        }
    }

    /// Ends the streams: the server stops.
    pub fn end(&self) {
        if let Some(feed) = &self.feed {
            feed.end();
        }
    }
}

/// Whether a request comes from a page of the same origin, or from no page at all. Browsers say so
/// in Sec-Fetch-Site; where they don't, in Origin, if it is another.
fn is_same_origin(fields: &HeaderMap) -> bool {
    if let Some(site) = fields.get(SEC_FETCH_SITE) {
        return site == "same-origin" || site == "none";
    }
    let Some(origin) = fields.get(header::ORIGIN) else {
        return true;
    };
    let origin = origin.to_str().ok().and_then(|it| it.split_once("://"));
    let host = fields.get(header::HOST).and_then(|it| it.to_str().ok());
    origin.is_some_and(|(_, authority)| Some(authority) == host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_the_same_origin_get_events() {
        let is_same = |fields: &[(&'static str, &str)]| {
            let fields = fields.iter().map(|(name, value)| {
                let value = value.parse().expect("a value");
                (HeaderName::from_static(name), value)
            });
            is_same_origin(&fields.collect())
        };
        assert!(is_same(&[]));
        assert!(is_same(&[("sec-fetch-site", "same-origin")]));
        assert!(!is_same(&[("sec-fetch-site", "same-site")]));
        assert!(!is_same(&[("sec-fetch-site", "cross-site")]));
        let from = |origin| is_same(&[("host", "localhost:8080"), ("origin", origin)]);
        assert!(from("http://localhost:8080"));
        assert!(!from("http://localhost:8081") && !from("http://evil.example") && !from("null"));
    }
}
