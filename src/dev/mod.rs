//! What `etagd dev` adds to the site: pages that reload by themselves, and a door that only the
//! developer's own machine opens.
//!
//! [`TAIL`] stands at the end of every document and loads a script; the script hears of changes
//! through a [`Feed`] that all tabs share. Nothing here finds a file: pages come from the same
//! manifest as everywhere.

mod changes;
mod feed;
mod hosts;
mod line;
mod policy;
mod proxy;

use std::collections::HashSet;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, response};
use hyper::body::Incoming;
use tokio::sync::mpsc;

use crate::answer::host;
use crate::client::Peer;
use crate::config::{AllowedHost, DevOptions, Upstream};
use proxy::Proxy;

pub use changes::Changed;
pub use feed::Feed;
pub use line::line;

/// What stands at the end of every document.
pub const TAIL: &str = "\n<script async src=\"/_etagd/reload.js\"></script>\n";
/// What a policy has to allow for it, where a page has one of etagd's own.
pub const POLICY: &str = "; script-src 'self'; worker-src 'self'; connect-src 'self'";

/// Below this nothing of the site is found.
const PREFIX: &str = "/_etagd/";
const ANY: HeaderValue = HeaderValue::from_static("*");
const EMBEDDER_POLICY: HeaderName = HeaderName::from_static("cross-origin-embedder-policy");
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The developer's side of a server.
#[derive(Debug)]
pub struct Dev {
    feed: Option<Arc<Feed>>,
    allowed: Vec<AllowedHost>,
    /// Whether pages of all origins may ask.
    cors: bool,
    /// What every response has, unless it says otherwise itself.
    fields: HeaderMap,
    proxy: Proxy,
    /// Policies that keep pages from reloading, once they are told.
    told: Mutex<HashSet<String>>,
}

/// What is answered in place of the site.
#[derive(Debug)]
pub enum DevResponse {
    /// A script.
    Script(&'static str),
    /// Server-sent events, as long as the connection lasts.
    Events(mpsc::Receiver<Bytes>),
    /// Leave for a page of another origin (Fetch, section 4.8).
    Preflight,
    /// An error, and one sentence about it.
    Refused(StatusCode, String),
}

impl Dev {
    /// Without a `feed` pages don't reload.
    pub fn new(feed: Option<Arc<Feed>>, flags: &DevOptions) -> Self {
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
            allowed: flags.allowed.clone(),
            cors: flags.cors,
            fields,
            proxy: Proxy::new(flags.upstreams.clone(), flags.tls.is_some()),
            told: Mutex::default(),
        }
    }

    /// Warns once of each policy that keeps a page from reloading by itself. `page` is the content
    /// of a response, as far as it is in memory.
    pub fn look_at(&self, request: &Parts, response: &response::Parts, page: &[u8]) {
        const MOST: usize = 20;
        let content_type = response.headers.get(header::CONTENT_TYPE);
        let is_html = content_type.is_some_and(|it| it.as_bytes().starts_with(b"text/html"));
        if self.feed.is_none() || response.status != StatusCode::OK || !is_html {
            return;
        }
        let authority = request.uri.authority().map(Authority::as_str);
        let field = || request.headers.get(header::HOST)?.to_str().ok();
        let host = authority.or_else(field).unwrap_or_default();
        let Some(policy) = policy::forbidding(&response.headers, page, host) else {
            return;
        };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < MOST && told.insert(policy.clone()) {
            let page = request.uri.path();
            tracing::warn!(
                "{page} does not reload by itself: its Content-Security-Policy allows no script \
                 from 'self', or not to connect to it: {policy}"
            );
        }
    }

    /// What is to be answered in place of the site, if anything. Must be called within a tokio
    /// runtime.
    pub fn reply(&self, request: &Parts) -> Option<DevResponse> {
        if let Some(host) = host(request)
            && !hosts::is_allowed(host, &self.allowed)
        {
            let sentence = format!(
                "the host {host} is not one of this machine's: if it is meant to be, start etagd \
                 dev with --allow-host {host}"
            );
            return Some(DevResponse::Refused(StatusCode::FORBIDDEN, sentence));
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
        let name = request.uri.path().strip_prefix(PREFIX)?;
        if request.method != Method::GET {
            let sentence = "only GET is answered here".to_owned();
            return Some(DevResponse::Refused(
                StatusCode::METHOD_NOT_ALLOWED,
                sentence,
            ));
        }
        Some(match name {
            "reload.js" => DevResponse::Script(include_str!("reload.js")),
            "worker.js" => DevResponse::Script(include_str!("worker.js")),
            "events" if is_same_origin(&request.headers) => {
                let last = request.headers.get("last-event-id");
                let last = last.and_then(|id| id.to_str().ok());
                DevResponse::Events(feed.stream(last))
            }
            "events" => {
                let sentence = "only pages of this site hear of its changes".to_owned();
                DevResponse::Refused(StatusCode::FORBIDDEN, sentence)
            }
            _ => {
                let sentence = "there is nothing here".to_owned();
                DevResponse::Refused(StatusCode::NOT_FOUND, sentence)
            }
        })
    }

    /// The server that a path belongs to in place of the site, if any.
    pub fn upstream(&self, path: &str) -> Option<&Upstream> {
        self.proxy.upstream(path)
    }

    /// Passes a request on to another server. Must be called within a tokio runtime, in which the
    /// connections to that server live.
    ///
    /// # Errors
    /// One sentence, when no answer can be had.
    pub async fn forward<B>(
        &self,
        upstream: &Upstream,
        request: Parts,
        content: B,
        peer: Peer,
    ) -> Result<Response<Incoming>, String>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        self.proxy.forward(upstream, request, content, peer).await
    }

    /// Adds what every response has, unless it says otherwise itself.
    pub fn dress(&self, fields: &mut HeaderMap) {
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
    fn only_the_same_origin_hears_of_changes() {
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
