//! Proxies requests below some paths of the site to another server, such as an API on its own port.
//! Requests and responses are streamed as they come, WebSockets included.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::copy_bidirectional;

use crate::client::Peer;
use crate::settings::Upstream;

/// How long an upstream server, on this machine or near it, may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// RFC 9110 section 7.6.1: fields that concern one connection only, in addition to those that
/// Connection names.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");

/// The servers behind the site, and the connections to them.
#[derive(Debug)]
pub(super) struct Proxy {
    upstreams: Vec<Upstream>,
    client: Client<HttpConnector, UnsyncBoxBody<Bytes, hyper::Error>>,
    /// Whether clients speak TLS.
    is_secure: bool,
}

impl Proxy {
    pub(super) fn new(mut upstreams: Vec<Upstream>, is_secure: bool) -> Self {
        // The longest prefix takes precedence.
        upstreams.sort_by_key(|upstream| std::cmp::Reverse(upstream.prefix.len()));
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        // One connection a request: a kept one may be closed at the moment it is used again, and a
        // request with content can't be repeated.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Self {
            upstreams,
            client,
            is_secure,
        }
    }

    /// Which of the servers is to be asked for `path`, if any.
    pub(super) fn upstream(&self, path: &str) -> Option<&Upstream> {
        self.upstreams.iter().find(|each| each.answers(path))
    }

    /// Passes a request on.
    ///
    /// # Errors
    /// One sentence, when no answer can be had.
    pub(super) async fn forward(
        &self,
        upstream: &Upstream,
        mut request: Parts,
        content: Incoming,
        peer: Peer,
    ) -> Result<Response<Incoming>, String> {
        let client_side = request.extensions.remove::<OnUpgrade>();
        let failed = |error: &dyn Error| {
            let cause = error.source().map_or_else(|| error.to_string(), deepest);
            format!(
                "the server http://{} does not answer: {cause}",
                upstream.authority
            )
        };
        let passed_on = self.passed_on(upstream, &request, peer);
        let (mut head, ()) = passed_on.map_err(|error| failed(&error))?.into_parts();
        let is_upgrade = client_side.is_some() && head.headers.contains_key(header::UPGRADE);
        if !is_upgrade {
            head.headers.remove(header::UPGRADE);
            head.headers.remove(header::CONNECTION);
        }
        let content = content.boxed_unsync();
        let answered = self.client.request(Request::from_parts(head, content));
        let mut response = answered.await.map_err(|error| failed(&error))?;
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switched {
            let server_side = hyper::upgrade::on(&mut response);
            let Some(client_side) = client_side.filter(|_| is_upgrade) else {
                return Err(format!(
                    "the server http://{} changes the protocol and was not asked to",
                    upstream.authority
                ));
            };
            tokio::spawn(tunnel(client_side, server_side));
        }
        let protocol = response.headers().get(header::UPGRADE).cloned();
        strip_hop_by_hop(response.headers_mut());
        if let Some(protocol) = protocol.filter(|_| switched) {
            response.headers_mut().insert(header::UPGRADE, protocol);
            response.headers_mut().insert(header::CONNECTION, UPGRADE);
        }
        *response.version_mut() = request.version;
        Ok(response)
    }

    /// The request as the other server gets it.
    fn passed_on(
        &self,
        upstream: &Upstream,
        request: &Parts,
        peer: Peer,
    ) -> Result<Request<()>, http::Error> {
        let target = request.uri.path_and_query();
        let uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(upstream.authority.clone())
            .path_and_query(target.map_or("/", PathAndQuery::as_str))
            .build()?;
        let mut passed_on = Request::builder()
            .method(&request.method)
            .uri(uri)
            .version(Version::HTTP_11)
            .body(())?;
        let mut fields = request.headers.clone();
        let protocol = fields.get(header::UPGRADE).cloned();
        strip_hop_by_hop(&mut fields);
        // hyper answers it: reading the content sends 100 Continue to the client.
        fields.remove(header::EXPECT);
        if let Some(protocol) = protocol {
            fields.insert(header::UPGRADE, protocol);
            fields.insert(header::CONNECTION, UPGRADE);
        }
        let asked = request.uri.authority().map(Authority::as_str);
        let asked = asked.and_then(|host| HeaderValue::from_str(host).ok());
        if let Some(host) = asked.or_else(|| fields.get(header::HOST).cloned()) {
            fields.insert(FORWARDED_HOST, host);
        }
        let authority = HeaderValue::from_str(upstream.authority.as_str())?;
        fields.insert(header::HOST, authority);
        if let Ok(client) = HeaderValue::from_str(&peer.to_string()) {
            fields.insert(FORWARDED_FOR, client);
        }
        let scheme = if self.is_secure { "https" } else { "http" };
        fields.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
        // RFC 9113 section 8.2.3: HTTP/2 may split it, HTTP/1.1 may not.
        let cookies = fields.get_all(header::COOKIE).iter();
        let cookies: Vec<&[u8]> = cookies.map(HeaderValue::as_bytes).collect();
        if cookies.len() > 1 {
            let cookies = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))?;
            fields.insert(header::COOKIE, cookies);
        }
        *passed_on.headers_mut() = fields;
        Ok(passed_on)
    }
}

/// Removes the fields that concern only the connection they came over.
fn strip_hop_by_hop(fields: &mut HeaderMap) {
    let named: Vec<HeaderName> = fields
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        fields.remove(name);
    }
}

/// Carries bytes both ways until both sides have ended, or one has failed.
async fn tunnel(client: OnUpgrade, server: OnUpgrade) {
    let (client, server): (Upgraded, Upgraded) = match tokio::try_join!(client, server) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!("a change of the protocol failed: {error}");
            return;
        }
    };
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    if let Err(error) = copy_bidirectional(&mut client, &mut server).await {
        tracing::debug!("a tunnel broke: {error}");
    }
}

/// The cause at the bottom of an error, as text.
fn deepest(mut error: &(dyn Error + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(upstreams: &[&str]) -> Proxy {
        let upstreams = upstreams.iter().map(|each| each.parse().unwrap());
        Proxy::new(upstreams.collect(), true)
    }

    #[test]
    fn the_longest_prefix_is_asked() {
        let proxy = proxy(&["/api=http://a", "/api/v2=http://b"]);
        let asked = |path| proxy.upstream(path).map(|each| each.authority.to_string());
        assert_eq!(asked("/api/v1").as_deref(), Some("a"));
        assert_eq!(asked("/api/v2/x").as_deref(), Some("b"));
        assert_eq!(asked("/"), None);
    }

    #[test]
    fn hop_by_hop_fields_are_not_passed_on() {
        let proxy = proxy(&["/api=http://localhost:3000"]);
        let request = Request::post("/api/x?y=%20")
            .header("host", "site.test:8080")
            .header("connection", "keep-alive, X-Hop")
            .header("keep-alive", "timeout=5")
            .header("x-hop", "1")
            .header("te", "trailers")
            .header("transfer-encoding", "chunked")
            .header("expect", "100-continue")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("x-forwarded-for", "203.0.113.7")
            .header("accept", "*/*")
            .body(())
            .unwrap();
        let (request, ()) = request.into_parts();
        let peer = Peer::from(std::net::IpAddr::from([127, 0, 0, 1]));
        let upstream = proxy.upstream("/api/x").unwrap();
        let passed_on = proxy.passed_on(upstream, &request, peer).unwrap();
        assert_eq!(passed_on.uri(), "http://localhost:3000/api/x?y=%20");
        let mut fields: Vec<_> = passed_on
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        fields.sort();
        let expected = [
            "accept: */*",
            "cookie: a=1; b=2",
            "host: localhost:3000",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: site.test:8080",
            "x-forwarded-proto: https",
        ];
        assert_eq!(fields, expected);
    }
}
