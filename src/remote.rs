//! The HTTP client of `etagd check` and `etagd push`, bounded in time and in size.
//!
//! It uses no proxy and follows no redirect: the response has to be that of the server itself.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request, Response, StatusCode, header};
use tokio_rustls::rustls::CertificateError;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body, SendBody};

use crate::inventory::{Inventory, InventoryError};
use crate::settings::ReplicaUrl;
use crate::trust::{Trust, TrustError};

/// A whole exchange may take this many times the timeout of one read.
const MAX_EXCHANGE_FACTOR: u32 = 20;
/// A request that starts just before the deadline still gets this long.
const MIN_EXCHANGE_TIME: Duration = Duration::from_secs(5);
/// Bytes read of a `/digest`: a site digest is far shorter.
const MAX_DIGEST_LENGTH: u64 = 1024;
/// Longer content waits for `100 Continue`, so that a server can refuse it unsent.
const MIN_EXPECT_LENGTH: u64 = 256 << 10;
/// Idle connections kept to all servers together, in multiples of those to one.
const MAX_IDLE_FACTOR: usize = 64;
/// The first bytes of every manifest in JSON.
const MANIFEST_PREFIX: &[u8] = b"{\"format\":";

/// Why a request has no complete response.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No response began.
    #[error("cannot reach {url}: {}", reason(.url, .source))]
    Unreachable {
        /// The URL of the request.
        url: String,
        /// What failed.
        source: ureq::Error,
    },
    /// The body of the response broke off.
    #[error("cannot read {url}: {source}")]
    Body {
        /// The URL of the request.
        url: String,
        /// What failed.
        source: io::Error,
    },
}

impl RequestError {
    /// Whether there was no connection, as where nothing listens: another address of the same server
    /// may have one. A time-out is none of these.
    pub fn is_unconnected(&self) -> bool {
        let Self::Unreachable {
            source: ureq::Error::Io(error),
            ..
        } = self
        else {
            return false;
        };
        matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::AddrNotAvailable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::HostUnreachable
        )
    }
}

/// Why no response began, and what may help.
fn reason(url: &str, error: &ureq::Error) -> String {
    use tokio_rustls::rustls;

    let tls_error = match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref()),
        _ => None,
    };
    match tls_error {
        Some(rustls::Error::InvalidCertificate(problem)) => certificate_problem(problem),
        // Its first bytes are no record of TLS.
        Some(rustls::Error::InvalidMessage(_)) => {
            "that port does not speak TLS: try http://".to_owned()
        }
        _ if url.starts_with("http:") && matches!(error, ureq::Error::Protocol(_)) => {
            "the answer is not HTTP: if that port speaks TLS, try https://".to_owned()
        }
        _ => error.to_string(),
    }
}

fn certificate_problem(problem: &CertificateError) -> String {
    match problem {
        // The latter is what another authority with the same name gives.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is from an authority that is not trusted: name a file with that \
             authority's certificate in --ca, or in SSL_CERT_FILE where there is no such flag"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another name: use one of those that it has"
        }
        CertificateError::Other(_) => {
            "its certificate is none for a server, as a self-signed one that says of itself that it is \
             an authority's (CA:TRUE)"
        }
        other => return format!("its certificate is refused: {other}"),
    }
    .to_owned()
}

/// Why a replica's manifest cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// There is no response.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A 5xx: the replica exists, and may have a manifest later.
    #[error("{url} answers {status}: it may not be ready yet")]
    NotReady {
        /// The URL of the request.
        url: String,
        /// The status of the response.
        status: StatusCode,
    },
    /// It speaks TLS and was asked without.
    #[error("{0}: that port speaks HTTPS: use https://")]
    Secure(String),
    /// Another status that is no success.
    #[error("{url} answers {status}")]
    Refused {
        /// The URL of the request.
        url: String,
        /// The status of the response.
        status: StatusCode,
    },
    /// A success with other content.
    #[error("{0} is not a manifest")]
    NotAManifest(String),
    /// It begins like a manifest and is none, or is cut short.
    #[error(transparent)]
    Malformed(#[from] InventoryError),
}

impl ManifestError {
    /// Whether the server works and does not publish a manifest, as a public site does.
    #[must_use]
    pub fn is_without_manifest(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::NotAManifest(_))
    }
}

/// An HTTP client for replicas and servers.
#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
    timeout: Duration,
    /// Maximum size of a manifest in bytes.
    max_size: u64,
    deadline: Option<Instant>,
}

impl Client {
    /// A client that waits `timeout` for a response to begin and again for each further part of
    /// it, accepts manifests of up to `max_size` bytes, and keeps up to `connections` idle
    /// connections to each server.
    ///
    /// # Errors
    /// When the certificate authorities cannot be had.
    pub fn new(
        trust: &Trust,
        timeout: Duration,
        max_size: u64,
        connections: usize,
    ) -> Result<Self, TrustError> {
        let certificates = trust.certificates()?.into_iter();
        let certificates = certificates.map(|it| Certificate::from_der(&it).to_owned());
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(default_provider()))
            .root_certs(RootCerts::Specific(Arc::new(certificates.collect())))
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("etagd/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(timeout))
            .timeout_per_read(Some(timeout))
            .timeout_per_write(Some(timeout))
            .timeout_recv_response(Some(timeout))
            .max_idle_connections(connections.saturating_mul(MAX_IDLE_FACTOR))
            .max_idle_connections_per_host(connections)
            .build();
        Ok(Self {
            agent: config.new_agent(),
            timeout,
            max_size,
            deadline: None,
        })
    }

    /// A copy of this client that gives up on responses that take much longer than `deadline`.
    #[must_use]
    pub fn with_deadline(&self, deadline: Instant) -> Self {
        Self {
            deadline: Some(deadline),
            ..self.clone()
        }
    }

    /// Fetches the manifest that an admin listener publishes.
    ///
    /// # Errors
    /// When there is none, it can't be fetched, or it is larger than the limit of this client.
    pub fn manifest(&self, replica: &ReplicaUrl) -> Result<Inventory, ManifestError> {
        let url = format!("{replica}/manifest");
        let fields = [(header::ACCEPT, "application/json")];
        let mut response = self.request(&Method::GET, &url, &fields)?;
        let status = response.status();
        if status.is_server_error() {
            return Err(ManifestError::NotReady { url, status });
        }
        // What etagd answers to plain HTTP where it speaks TLS; so do others, in words of their own.
        if status == StatusCode::BAD_REQUEST && url.starts_with("http:") {
            let mut text = String::new();
            let mut body = response.body_mut().as_reader().take(MAX_DIGEST_LENGTH);
            // What is no text says nothing of it.
            let _ = body.read_to_string(&mut text);
            if text.contains("HTTPS") {
                return Err(ManifestError::Secure(url));
            }
        }
        if !status.is_success() {
            return Err(ManifestError::Refused { url, status });
        }
        let mut body = LimitedReader {
            body: response.body_mut().as_reader(),
            left: self.max_size,
        };
        // A public site may have a page at /manifest. Its first bytes tell the two apart before
        // a parser complains about HTML.
        let mut prefix = Vec::new();
        if let Err(source) = body
            .by_ref()
            .take(MANIFEST_PREFIX.len() as u64)
            .read_to_end(&mut prefix)
        {
            return Err(RequestError::Body { url, source }.into());
        }
        if prefix != MANIFEST_PREFIX {
            return Err(ManifestError::NotAManifest(url));
        }
        Ok(Inventory::read(&url, prefix.chain(body))?)
    }

    /// Fetches the site digest that an admin listener publishes; `None` where that fails.
    pub fn digest(&self, replica: &ReplicaUrl) -> Option<String> {
        let url = format!("{replica}/digest");
        let mut response = self.request(&Method::GET, &url, &[]).ok()?;
        if response.status() != StatusCode::OK {
            return None;
        }
        let mut digest = String::new();
        let body = response.body_mut().as_reader();
        body.take(MAX_DIGEST_LENGTH)
            .read_to_string(&mut digest)
            .ok()?;
        Some(digest.trim().to_owned())
    }

    /// Sends a request without content; once more after an I/O error, because a server may close
    /// an idle connection at the moment it is used again (RFC 9112 section 9.3.1).
    ///
    /// # Errors
    /// When no response begins.
    pub fn request(
        &self,
        method: &Method,
        url: &str,
        fields: &[(header::HeaderName, &str)],
    ) -> Result<Response<Body>, RequestError> {
        let attempt = || {
            let mut request = Request::builder().method(method).uri(url);
            for (name, value) in fields {
                request = request.header(name, *value);
            }
            let request = request.body(())?;
            let request = self.agent.configure_request(request);
            let request = request.timeout_global(Some(self.patience())).build();
            self.agent.run(request)
        };
        attempt()
            .or_else(|error| match error {
                ureq::Error::Io(_) => attempt(),
                other => Err(other),
            })
            .map_err(|source| RequestError::Unreachable {
                url: url.to_owned(),
                source,
            })
    }

    /// Sends a request with `length` bytes of content, once. The server may refuse content of
    /// more than 256 KiB before it is sent (`Expect: 100-continue`, RFC 9110 section 10.1.1).
    ///
    /// # Errors
    /// When no response begins. It is not known then whether the server has acted.
    pub fn send(
        &self,
        method: &Method,
        url: &str,
        fields: &[(header::HeaderName, &str)],
        (content, length): (&mut dyn Read, u64),
    ) -> Result<Response<Body>, RequestError> {
        let mut send = || {
            let mut request = Request::builder().method(method).uri(url);
            for (name, value) in fields {
                request = request.header(name, *value);
            }
            request = request.header(header::CONTENT_LENGTH, length);
            if length > MIN_EXPECT_LENGTH {
                request = request.header(header::EXPECT, "100-continue");
            }
            self.agent
                .run(request.body(SendBody::from_reader(content))?)
        };
        send().map_err(|source| RequestError::Unreachable {
            url: url.to_owned(),
            source,
        })
    }

    /// Time for one exchange, from the request to the end of the response.
    fn patience(&self) -> Duration {
        let whole = self.timeout.saturating_mul(MAX_EXCHANGE_FACTOR);
        match self.deadline {
            None => whole,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                whole.min(left.max(MIN_EXCHANGE_TIME.min(self.timeout)))
            }
        }
    }
}

/// The URL that a redirect from `url` leads to, if it stays on the same server.
///
/// A path-absolute Location is taken below `base`, the URL that a proxy has put the site under; a
/// relative one is right there anyway. `//host/` names another host (RFC 3986 section 4.2).
pub fn local_redirect(response: &Response<Body>, base: &str, url: &str) -> Option<String> {
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    if !response.status().is_redirection() || location.starts_with("//") {
        return None;
    }
    if location.starts_with('/') {
        return Some(format!("{base}{location}"));
    }
    let url = url::Url::parse(url).ok()?;
    let led = url.join(location).ok()?;
    (led.origin() == url.origin()).then(|| led.into())
}

/// A reader that fails after `left` bytes.
///
/// [`Read::take`] would end instead, and a manifest cut there would be called malformed.
struct LimitedReader<R> {
    body: R,
    left: u64,
}

impl<R: Read> Read for LimitedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.body.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::other("it is larger than --max-size allows: is it a manifest?")
        })?;
        Ok(read)
    }
}
