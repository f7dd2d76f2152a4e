//! The four ways to bring a request: HTTP/1.1 and HTTP/2, in the clear and over TLS.
//!
//! The clients are hyper's and rustls's, so that HTTP/2 and TLS are read by somebody who knows
//! them; `wire.rs` reads HTTP/1.1 more strictly.

// Each test crate uses its own part of this module.
#![allow(dead_code)]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::support::{Response, Server, TestSite};

/// How long a whole exchange may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transport {
    Http1,
    Http2,
    SecureHttp1,
    SecureHttp2,
}

impl Transport {
    pub(crate) const ALL: [Self; 4] = [
        Self::Http1,
        Self::Http2,
        Self::SecureHttp1,
        Self::SecureHttp2,
    ];

    pub(crate) fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::SecureHttp2)
    }

    pub(crate) fn is_secure(self) -> bool {
        matches!(self, Self::SecureHttp1 | Self::SecureHttp2)
    }
}

/// What every transport can carry: method, target and fields. `Host` or `:authority` is added.
pub(crate) type Asked<'a> = (&'a str, &'a [u8], &'a [(String, Vec<u8>)]);

/// A certificate authority whose certificates the tests' clients trust.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    dir: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("root.pem"), root.pem()).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            root: root.der().clone(),
            dir,
        }
    }

    /// The file with its own certificate.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root.pem")
    }

    /// Writes a new certificate for `localhost` and its key to these files, and returns the
    /// certificate.
    pub(crate) fn issue(&self) -> CertificateDer<'static> {
        self.issue_for("localhost").0
    }

    /// The same for this host; also the key's SubjectPublicKeyInfo, which Chromium can be told to
    /// trust.
    pub(crate) fn issue_for(&self, host: &str) -> (CertificateDer<'static>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        // With the issuer's own name, OpenSSL takes it for self-signed.
        params.distinguished_name.push(DnType::CommonName, host);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.certificate(), certificate.pem()).unwrap();
        fs::write(self.key(), key.serialize_pem()).unwrap();
        (certificate.der().clone(), key.subject_public_key_info())
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.dir.path().join("key.pem")
    }

    /// A server of `site` that speaks TLS.
    pub(crate) fn serve(&self, site: &TestSite, flags: &[&str]) -> Server {
        let (certificate, key) = (self.certificate(), self.key());
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let (certificate, key) = (text(&certificate), text(&key));
        let tls = ["--tls-cert", &certificate, "--tls-key", &key];
        Server::with(site, &[&tls, flags].concat())
    }

    /// A client's side of TLS, which trusts this authority alone.
    pub(crate) fn client(&self, protocols: &[&[u8]]) -> ClientConfig {
        self.client_by(default_provider(), protocols)
    }

    /// The same with another choice of ciphers and groups.
    pub(crate) fn client_by(&self, provider: CryptoProvider, protocols: &[&[u8]]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config
    }
}

/// Where a server says that it listens with TLS.
pub(crate) fn secure_address(server: &Server) -> SocketAddr {
    let log = server.log();
    let address = log.lines().find_map(|line| {
        let (_, url) = line.split_once("listening on https://")?;
        Some(url.split('/').next()?.to_owned())
    });
    address.expect("a TLS listener").parse().unwrap()
}

/// A site served twice, with TLS and without, and clients for both.
pub(crate) struct Transports {
    authority: Authority,
    plain: Server,
    secure: Server,
    /// What requests name as their host.
    host: &'static str,
}

impl Transports {
    pub(crate) fn serve(site: &TestSite, flags: &[&str]) -> Self {
        let authority = Authority::new();
        authority.issue();
        Self {
            plain: Server::with(site, flags),
            secure: authority.serve(site, flags),
            authority,
            host: "localhost",
        }
    }

    /// The same servers, asked for another host.
    #[allow(dead_code, reason = "each test crate uses its own part")]
    pub(crate) fn named(mut self, host: &'static str) -> Self {
        self.host = host;
        self
    }

    /// The server without TLS, and the one with it.
    #[allow(dead_code, reason = "each test crate uses its own part")]
    pub(crate) fn servers(&self) -> [&Server; 2] {
        [&self.plain, &self.secure]
    }

    /// Sends requests one after another on a connection of their own. Each gets its response, or
    /// what went wrong before it had a head. A body that was cut is as long as what came of it,
    /// and `cut` is set. None where the transport can't carry one of the requests.
    pub(crate) fn exchange(
        &self,
        transport: Transport,
        asked: &[Asked<'_>],
    ) -> Option<Vec<Result<Response, String>>> {
        let requests: Option<Vec<_>> = asked
            .iter()
            .map(|&asked| request(transport, self.host, asked))
            .collect();
        let requests = requests?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Some(runtime.block_on(async {
            let exchange = self.send_all(transport, requests);
            tokio::time::timeout(PATIENCE, exchange).await.unwrap()
        }))
    }

    async fn send_all(
        &self,
        transport: Transport,
        requests: Vec<Request<Empty<Bytes>>>,
    ) -> Vec<Result<Response, String>> {
        if !transport.is_secure() {
            let stream = connect(self.plain.address()).await;
            return send_over(stream, transport, requests).await;
        }
        let protocols: &[&[u8]] = match transport.is_http2() {
            true => &[b"h2", b"http/1.1"],
            false => &[b"http/1.1"],
        };
        let stream = connect(secure_address(&self.secure)).await;
        let connector = TlsConnector::from(Arc::new(self.authority.client(protocols)));
        let name = ServerName::try_from("localhost").unwrap();
        let stream = connector.connect(name, stream).await.unwrap();
        let (_, session) = stream.get_ref();
        assert_eq!(session.alpn_protocol(), Some(protocols[0]));
        send_over(stream, transport, requests).await
    }

    /// Asserts that both servers run and answer.
    pub(crate) fn assert_alive(&mut self) {
        self.plain.assert_alive();
        let asked: Asked<'_> = ("OPTIONS", b"/", &[]);
        let answers = self.exchange(Transport::SecureHttp2, &[asked]).unwrap();
        assert_eq!(answers[0].as_ref().unwrap().status, 204);
    }
}

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.unwrap();
    // Half of these exchanges would wait 40 ms for an acknowledgement otherwise.
    stream.set_nodelay(true).unwrap();
    stream
}

/// The request as hyper takes it; none where it or the transport does not.
fn request(
    transport: Transport,
    host: &str,
    (method, target, fields): Asked<'_>,
) -> Option<Request<Empty<Bytes>>> {
    let uri = if transport.is_http2() && target != b"*" {
        if !target.starts_with(b"/") {
            return None;
        }
        Uri::builder()
            .scheme(if transport.is_secure() {
                "https"
            } else {
                "http"
            })
            .authority(host)
            .path_and_query(target)
            .build()
            .ok()?
    } else {
        Uri::try_from(target).ok()?
    };
    let mut request = Request::builder()
        .method(Method::from_bytes(method.as_bytes()).ok()?)
        .uri(uri);
    if transport.is_http2() {
        request = request.version(Version::HTTP_2);
    } else {
        request = request.header(header::HOST, host);
    }
    for (name, value) in fields {
        let name = HeaderName::try_from(name).ok()?;
        // RFC 9113 section 8.2.2.
        let is_of_connection = [
            "connection",
            "keep-alive",
            "proxy-connection",
            "te",
            "transfer-encoding",
            "upgrade",
            "http2-settings",
        ]
        .contains(&name.as_str());
        if transport.is_http2() && is_of_connection {
            return None;
        }
        // What announces content would have to bring it.
        if [
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
            header::HOST,
        ]
        .contains(&name)
        {
            return None;
        }
        request = request.header(name, HeaderValue::from_bytes(value).ok()?);
    }
    request.body(Empty::new()).ok()
}

async fn send_over<S>(
    stream: S,
    transport: Transport,
    requests: Vec<Request<Empty<Bytes>>>,
) -> Vec<Result<Response, String>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(stream);
    let mut responses = Vec::new();
    if transport.is_http2() {
        let (mut client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        for request in requests {
            let ready = client.ready().await.map_err(|error| error.to_string());
            responses.push(match ready {
                Ok(()) => receive(client.send_request(request).await).await,
                Err(error) => Err(error),
            });
        }
    } else {
        let (mut client, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        for request in requests {
            let ready = client.ready().await.map_err(|error| error.to_string());
            responses.push(match ready {
                Ok(()) => receive(client.send_request(request).await).await,
                Err(error) => Err(error),
            });
        }
    }
    responses
}

async fn receive(response: hyper::Result<http::Response<Incoming>>) -> Result<Response, String> {
    let response = response.map_err(|error| format!("{error:?}"))?;
    let (head, mut body) = response.into_parts();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut received = Response {
        version: format!("{:?}", head.version),
        status: head.status.as_u16(),
        fields: head
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        body: Vec::new(),
        cut: false,
        interim: Vec::new(),
    };
    while let Some(frame) = body.frame().await {
        match frame.map(|frame| frame.into_data()) {
            Ok(Ok(data)) => received.body.extend_from_slice(&data),
            Ok(Err(_)) => return Err("trailers, which nobody sends".to_owned()),
            Err(_) => {
                received.cut = true;
                break;
            }
        }
    }
    Ok(received)
}
