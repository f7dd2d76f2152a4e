//! Proxies requests below some paths of the site to another server, such as an API on its own port.
//! Requests and responses are streamed as they come, WebSockets included.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use percent_encoding::percent_decode_str;
use tokio::io::copy_bidirectional;
use tokio::time::sleep;

use crate::client::Peer;
use crate::settings::Upstream;

/// How long an upstream server, on this machine or near it, may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// RFC 9110 section 7.6.1: fields that concern one connection only, in addition to those that
/// Connection names.
const HOP_BY_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];
/// Fields in which proxies say who the client is, in addition to those that begin with
/// `X-Forwarded-`. A client that is no proxy could claim anything in them.
const CLAIMS: [HeaderName; 2] = [header::FORWARDED, HeaderName::from_static("x-real-ip")];
const WEBSOCKET: &str = "websocket";
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
    /// How long to wait for the head of a response.
    timeout: Duration,
}

/// Why a request could not be passed on to another server.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForwardError {
    /// The request can't be written for it.
    #[error("cannot pass the request on to the server http://{authority}: {source}")]
    Request {
        /// The server.
        authority: Authority,
        /// What is wrong with the request.
        source: http::Error,
    },
    /// It can't be reached, or breaks off.
    #[error(
        "the server http://{authority} does not answer: {cause}; start it, or correct --proxy",
        cause = root_cause(.source)
    )]
    Unreachable {
        /// The server.
        authority: Authority,
        /// What failed.
        source: hyper_util::client::legacy::Error,
    },
    /// It takes a request, and then nothing comes.
    #[error(
        "the server http://{authority} has not answered for {time}; to wait for longer, start etagd \
         dev with --proxy-timeout",
        time = humantime::format_duration(*.timeout)
    )]
    Timeout {
        /// The server.
        authority: Authority,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// It answers 101 to a request that did not ask for a web socket.
    #[error("the server http://{0} changes the protocol and was not asked to")]
    ProtocolSwitch(Authority),
}

impl ForwardError {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::Request { .. } | Self::Unreachable { .. } | Self::ProtocolSwitch(..) => {
                StatusCode::BAD_GATEWAY
            }
        }
    }
}

impl Proxy {
    pub(super) fn new(mut upstreams: Vec<Upstream>, is_secure: bool, timeout: Duration) -> Self {
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
            timeout,
        }
    }

    /// Which of the servers is to be asked, if any.
    pub(super) fn upstream(&self, request: &Parts) -> Option<&Upstream> {
        // It asks for a tunnel, and names no path of this server.
        if request.method == Method::CONNECT {
            return None;
        }
        let path = request.uri.path();
        self.upstreams.iter().find(|each| each.answers(path))
    }

    /// Passes a request on.
    ///
    /// # Errors
    /// When no response can be had.
    pub(super) async fn forward(
        &self,
        upstream: &Upstream,
        mut request: Parts,
        content: Incoming,
        peer: Peer,
    ) -> Result<Response<Incoming>, ForwardError> {
        let client_side = request.extensions.remove::<OnUpgrade>();
        let client_side = client_side.filter(|_| asks_for_web_socket(&request));
        let authority = || upstream.authority.clone();
        let (head, ()) = self
            .passed_on(upstream, &request, peer)
            .map_err(|source| ForwardError::Request {
                authority: authority(),
                source,
            })?
            .into_parts();
        let has_progressed = Arc::new(AtomicBool::new(false));
        let progress = Arc::clone(&has_progressed);
        let content = content.map_frame(move |frame| {
            progress.store(true, Ordering::Relaxed);
            frame
        });
        let request_on = Request::from_parts(head, content.boxed_unsync());
        let answered = self.client.request(request_on);
        let mut response = tokio::select! {
            answered = answered => answered.map_err(|source| ForwardError::Unreachable {
                authority: authority(),
                source,
            })?,
            () = self.wait_for_timeout(&has_progressed) => {
                let (authority, timeout) = (authority(), self.timeout);
                return Err(ForwardError::Timeout { authority, timeout });
            }
        };
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switched {
            let server_side = hyper::upgrade::on(&mut response);
            let client_side = client_side.filter(|_| is_web_socket(response.headers()));
            let Some(client_side) = client_side else {
                return Err(ForwardError::ProtocolSwitch(authority()));
            };
            tokio::spawn(tunnel(client_side, server_side));
        }
        strip_hop_by_hop(response.headers_mut());
        if switched {
            add_upgrade(response.headers_mut());
        }
        *response.version_mut() = request.version;
        Ok(response)
    }

    /// Ends when no content of the request was passed on for some time: at least the timeout, at most
    /// twice that.
    async fn wait_for_timeout(&self, has_progressed: &AtomicBool) {
        loop {
            sleep(self.timeout).await;
            if !has_progressed.swap(false, Ordering::Relaxed) {
                return;
            }
        }
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
        strip_hop_by_hop(&mut fields);
        strip_claims(&mut fields);
        // hyper answers it: reading the content sends 100 Continue to the client.
        fields.remove(header::EXPECT);
        if asks_for_web_socket(request) {
            add_upgrade(&mut fields);
        }
        let asked = request
            .uri
            .authority()
            .and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        // Connection may have named Host, which takes it away from the fields.
        if let Some(host) = asked.or_else(|| request.headers.get(header::HOST).cloned()) {
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

/// Removes what a client says of itself in the name of a proxy.
fn strip_claims(fields: &mut HeaderMap) {
    let forwarded: Vec<HeaderName> = fields
        .keys()
        .filter(|name| name.as_str().starts_with("x-forwarded-"))
        .cloned()
        .collect();
    for name in CLAIMS.iter().chain(&forwarded) {
        fields.remove(name);
    }
}

/// Whether a request asks for a web socket over HTTP/1.1 (RFC 6455 section 4.1). Other protocols are
/// not passed on: what speaks `h2c` to the other server may ask it for any path.
fn asks_for_web_socket(request: &Parts) -> bool {
    request.method == Method::GET
        && request.version == Version::HTTP_11
        && is_web_socket(&request.headers)
}

/// Whether fields change the protocol to web sockets, and to nothing else.
fn is_web_socket(fields: &HeaderMap) -> bool {
    let tokens = |name: &HeaderName| -> Vec<String> {
        fields
            .get_all(name)
            .iter()
            .flat_map(|value| value.to_str().unwrap_or_default().split(','))
            .map(|token| token.trim().to_ascii_lowercase())
            .filter(|token| !token.is_empty())
            .collect()
    };
    tokens(&header::UPGRADE) == [WEBSOCKET]
        && tokens(&header::CONNECTION)
            .iter()
            .any(|token| token == "upgrade")
}

fn add_upgrade(fields: &mut HeaderMap) {
    fields.insert(header::UPGRADE, HeaderValue::from_static(WEBSOCKET));
    fields.insert(header::CONNECTION, UPGRADE);
}

/// Whether a path has a segment `.` or `..`, in any spelling: the other server could resolve it to a
/// path outside the prefix. Browsers send none.
pub(super) fn has_dot_segments(path: &str) -> bool {
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    decoded
        .split(|byte| matches!(byte, b'/' | b'\\'))
        .any(|segment| matches!(segment, b"." | b".."))
}

/// Carries bytes both ways until both sides have ended, or one has failed.
async fn tunnel(client: OnUpgrade, server: OnUpgrade) {
    let (client, server): (Upgraded, Upgraded) = match tokio::try_join!(client, server) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(%error, "cannot change to the web socket protocol: {error}");
            return;
        }
    };
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    if let Err(error) = copy_bidirectional(&mut client, &mut server).await {
        tracing::debug!(%error, "a web socket was cut off: {error}");
    }
}

/// The cause at the bottom of an error: `connection refused`, where the error itself says only that
/// the client failed.
fn root_cause<'e>(mut error: &'e (dyn Error + 'static)) -> &'e (dyn Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(upstreams: &[&str]) -> Proxy {
        let upstreams = upstreams.iter().map(|each| each.parse().unwrap());
        Proxy::new(upstreams.collect(), true, Duration::from_secs(60))
    }

    #[test]
    fn the_longest_prefix_is_asked() {
        let proxy = proxy(&["/api=http://a", "/api/v2=http://b"]);
        let asked = |path| {
            let (request, ()) = Request::get(path).body(()).unwrap().into_parts();
            proxy
                .upstream(&request)
                .map(|each| each.authority.to_string())
        };
        assert_eq!(asked("/api/v1").as_deref(), Some("a"));
        assert_eq!(asked("/api/v2/x").as_deref(), Some("b"));
        assert_eq!(asked("/"), None);
    }

    #[test]
    fn hop_by_hop_fields_are_not_passed_on() {
        let proxy = proxy(&["/api=http://localhost:3000"]);
        let request = Request::post("/api/x?y=%20")
            .header("host", "site.test:8080")
            .header(
                "connection",
                "keep-alive, X-Hop, Host, Upgrade, HTTP2-Settings",
            )
            .header("keep-alive", "timeout=5")
            .header("proxy-connection", "keep-alive")
            .header("trailer", "x")
            .header("upgrade", "h2c")
            .header("http2-settings", "AAMAAABk")
            .header("forwarded", "for=203.0.113.7")
            .header("x-real-ip", "203.0.113.7")
            .header("x-forwarded-host", "evil.example")
            .header("x-forwarded-prefix", "/evil")
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
        let upstream = proxy.upstream(&request).unwrap();
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

    #[test]
    fn only_web_sockets_change_the_protocol() {
        let asks = |method: &str, version, fields: &[(&str, &str)]| {
            let mut request = Request::builder().method(method).version(version);
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            asks_for_web_socket(&request.body(()).unwrap().into_parts().0)
        };
        let get = |fields: &[(&str, &str)]| asks("GET", Version::HTTP_11, fields);
        let connection = ("connection", "keep-alive, Upgrade");
        assert!(get(&[connection, ("upgrade", "WebSocket")]));
        for other in ["h2c", "websocket, h2c", "foo/1", "websocket/13", ""] {
            assert!(!get(&[connection, ("upgrade", other)]), "{other}");
        }
        let upgrade = ("upgrade", "websocket");
        assert!(!get(&[upgrade]) && !get(&[upgrade, ("connection", "close")]));
        assert!(!get(&[connection]));
        assert!(!asks("POST", Version::HTTP_11, &[connection, upgrade]));
        assert!(!asks("GET", Version::HTTP_10, &[connection, upgrade]));
    }

    #[test]
    fn dot_segments_are_known_in_every_spelling() {
        for path in [
            "/api/..",
            "/api/../x",
            "/api/./x",
            "/api/%2e%2E/x",
            "/api/.%2e",
            "/api/%2e",
            "/api/..%2fx",
            "/api/..%5cx",
        ] {
            assert!(has_dot_segments(path), "{path}");
        }
        for path in [
            "/api",
            "/api/...",
            "/api/.x",
            "/api/x..",
            "/api/%252e%252e/x",
            "/",
        ] {
            assert!(!has_dot_segments(path), "{path}");
        }
    }
}
