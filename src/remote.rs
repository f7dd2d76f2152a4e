//! The client's side of HTTP: bounded in time, bounded in size, from the servers themselves.
//!
//! No proxy is asked and no redirect followed, for the answer must be the server's own.

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request, Response, header};
use tokio_rustls::rustls::crypto::ring::default_provider;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, SendBody};

use crate::config::ReplicaUrl;
use crate::inventory::Inventory;

/// A body may take so many times as long as its beginning.
const WHOLE_BODY: u32 = 20;
/// Near the end of a wait an answer still has this long.
const LEAST: Duration = Duration::from_secs(5);
/// A digest is shorter.
const LONGEST_DIGEST: u64 = 1024;
/// Content that is longer is not sent before the server wants it.
const MUCH: u64 = 256 << 10;
/// What every manifest begins with.
const BEGINNING: &[u8] = b"{\"format\":";

/// Whose certificates are believed.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Nobody's: no URL asks for TLS.
    Nobody,
    /// Those of the authorities that this system trusts.
    System,
    /// Those of the authorities in this PEM file.
    File(PathBuf),
}

/// Why there is nobody to trust.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file can't be read.
    #[error("cannot read --ca {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("--ca {} holds no certificate in PEM form", .0.display())]
    NoCertificate(PathBuf),
    /// The system trusts nobody.
    #[error("this system has no certificate authorities ({0}): name a file of them with --ca")]
    NoSystemRoots(String),
}

/// Asks servers.
#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
    timeout: Duration,
    /// Most bytes of a manifest.
    limit: u64,
    until: Option<Instant>,
}

/// What a replica says when it is asked for its manifest.
#[derive(Debug)]
pub enum Answer {
    /// This.
    Inventory(Inventory),
    /// It is there and shows none.
    Foreign(String),
    /// It can't be asked.
    Failed(String),
}

impl Client {
    /// A client that waits `timeout` for an answer to begin, and as long for more of it, takes
    /// manifests of up to `limit` bytes, and keeps so many `connections` to a replica.
    ///
    /// # Errors
    /// When there is nobody to trust.
    pub fn new(
        trust: &Trust,
        timeout: Duration,
        limit: u64,
        connections: usize,
    ) -> Result<Self, ClientError> {
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(default_provider()))
            .root_certs(RootCerts::Specific(Arc::new(roots(trust)?)))
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
            .max_idle_connections(connections.saturating_mul(64))
            .max_idle_connections_per_host(connections)
            .build();
        Ok(Self {
            agent: config.new_agent(),
            timeout,
            limit,
            until: None,
        })
    }

    /// The same, for which an answer that comes much later than `until` is none.
    #[must_use]
    pub fn until(&self, until: Instant) -> Self {
        Self {
            until: Some(until),
            ..self.clone()
        }
    }

    /// The manifest as the admin listener shows it.
    pub fn manifest(&self, replica: &ReplicaUrl) -> Answer {
        let url = format!("{replica}/manifest");
        let fields = [(header::ACCEPT, "application/json")];
        let mut response = match self.ask(&Method::GET, &url, &fields) {
            Ok(response) => response,
            Err(reason) => return Answer::Failed(reason),
        };
        let status = response.status();
        if status.is_server_error() {
            return Answer::Failed(format!("{url} answers {status}: it may not be ready yet"));
        }
        if !status.is_success() {
            return Answer::Foreign(format!("{url} answers {status}"));
        }
        let mut body = Bounded {
            body: response.body_mut().as_reader(),
            left: self.limit,
        };
        let mut beginning = Vec::new();
        let most = BEGINNING.len() as u64;
        if let Err(error) = body.by_ref().take(most).read_to_end(&mut beginning) {
            return Answer::Failed(format!("cannot read {url}: {error}"));
        }
        if beginning != BEGINNING {
            return Answer::Foreign(format!("{url} is something else"));
        }
        match Inventory::read(&url, beginning.chain(body)) {
            Ok(inventory) => Answer::Inventory(inventory),
            Err(error) => Answer::Failed(error.to_string()),
        }
    }

    /// The digest as the admin listener tells it, if it does.
    pub fn digest(&self, replica: &ReplicaUrl) -> Option<String> {
        let url = format!("{replica}/digest");
        let mut response = self.ask(&Method::GET, &url, &[]).ok()?;
        if response.status() != http::StatusCode::OK {
            return None;
        }
        let mut digest = String::new();
        let body = response.body_mut().as_reader();
        body.take(LONGEST_DIGEST).read_to_string(&mut digest).ok()?;
        Some(digest.trim().to_owned())
    }

    /// Asks once, and once more where a connection that was kept turns out to be closed.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ask(
        &self,
        method: &Method,
        url: &str,
        fields: &[(header::HeaderName, &str)],
    ) -> Result<Response<Body>, String> {
        let ask = || {
            let mut request = Request::builder().method(method).uri(url);
            for (name, value) in fields {
                request = request.header(name, *value);
            }
            let request = request.body(())?;
            let request = self.agent.configure_request(request);
            let request = request.timeout_global(Some(self.patience())).build();
            self.agent.run(request)
        };
        let again = |error| match error {
            ureq::Error::Io(_) => ask(),
            other => Err(other),
        };
        ask()
            .or_else(again)
            .map_err(|error| format!("cannot reach {url}: {error}"))
    }

    /// Asks once, with so many bytes of content. Where that is much the server may refuse it first.
    ///
    /// # Errors
    /// When there is no answer: then it is not known what the server has done.
    pub fn send(
        &self,
        method: &Method,
        url: &str,
        fields: &[(header::HeaderName, &str)],
        (content, length): (&mut dyn Read, u64),
    ) -> Result<Response<Body>, String> {
        let mut send = || {
            let mut request = Request::builder().method(method).uri(url);
            for (name, value) in fields {
                request = request.header(name, *value);
            }
            request = request.header(header::CONTENT_LENGTH, length);
            if length > MUCH {
                request = request.header(header::EXPECT, "100-continue");
            }
            self.agent
                .run(request.body(SendBody::from_reader(content))?)
        };
        send().map_err(|error| format!("cannot reach {url}: {error}"))
    }

    /// For an answer from its request to its end.
    fn patience(&self) -> Duration {
        let whole = self.timeout.saturating_mul(WHOLE_BODY);
        match self.until {
            None => whole,
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                whole.min(left.max(LEAST.min(self.timeout)))
            }
        }
    }
}

/// Where a redirect leads that stays on the server.
pub fn within_the_site(response: &Response<Body>) -> Option<String> {
    let place = response.headers().get(header::LOCATION)?.to_str().ok()?;
    let is_within = place.starts_with('/') && !place.starts_with("//");
    (response.status().is_redirection() && is_within).then(|| place.to_owned())
}

/// A body of which no more than so many bytes are taken.
struct Bounded<R> {
    body: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.body.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::other("it is longer than --max-size allows: is it a manifest?")
        })?;
        Ok(read)
    }
}

fn roots(trust: &Trust) -> Result<Vec<Certificate<'static>>, ClientError> {
    match trust {
        Trust::Nobody => Ok(Vec::new()),
        Trust::System => {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                let reasons: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
                let reasons = match reasons.is_empty() {
                    true => "none is installed".to_owned(),
                    false => reasons.join(", "),
                };
                return Err(ClientError::NoSystemRoots(reasons));
            }
            let own = |der: &_| Certificate::from_der(AsRef::<[u8]>::as_ref(der)).to_owned();
            Ok(found.certs.iter().map(own).collect())
        }
        Trust::File(path) => {
            let pem = fs::read(path).map_err(|source| ClientError::Read {
                path: path.clone(),
                source,
            })?;
            let certificates: Vec<_> = parse_pem(&pem)
                .filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                })
                .collect();
            if certificates.is_empty() {
                return Err(ClientError::NoCertificate(path.clone()));
            }
            Ok(certificates)
        }
    }
}
