//! What a server needs to know: its limits, its certificate, and what its public port says in
//! addition to the site.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;

use super::address::Listen;

/// Limits on what clients may use up (promise P10).
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long requests in flight may take to finish at shutdown.
    pub grace: Duration,
    /// Connections at once, over all listeners; more are answered 503.
    pub max_connections: usize,
    /// How long a request's header section may take to arrive.
    pub header_timeout: Duration,
    /// How long a connection may stay open between requests.
    pub idle_timeout: Duration,
    /// Time in which a client must take 32 KiB of a response that waits, or send a byte of an upload.
    pub write_timeout: Duration,
    /// Size of a request's header section.
    pub max_header_size: ByteSize,
}

/// Where the certificate for TLS and its key are.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// How plain HTTP is redirected to HTTPS.
#[derive(Clone, Debug, Default)]
pub struct RedirectOptions {
    /// Where to listen for it.
    pub listen: Vec<Listen>,
    /// The port to lead to; `None` for that of the site's first TCP listener.
    pub https_port: Option<u16>,
}

/// What the public port says in addition to the site.
#[derive(Clone, Debug, Default)]
pub struct StatusOptions {
    /// Whether responses carry the site digest in the field `Etagd-Digest`.
    pub digest_header: bool,
    /// The path that answers 200 while serving and 503 while draining, if any.
    pub health: Option<HealthPath>,
}

/// A path as it stands in a request, compared byte by byte.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HealthPath(String);

impl HealthPath {
    /// The path, with its slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text is no [`HealthPath`].
#[derive(PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected a path such as /healthz, without a query")]
pub struct InvalidHealthPath;

impl FromStr for HealthPath {
    type Err = InvalidHealthPath;

    fn from_str(text: &str) -> Result<Self, InvalidHealthPath> {
        // RFC 3986, 3.3: what a path can't have. `/` alone would hide the site's first page.
        let has_only_path_bytes = text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte));
        match text.starts_with('/') && text.len() > 1 && has_only_path_bytes {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidHealthPath),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_paths() {
        for good in ["/healthz", "/-/alive", "/a%20b"] {
            assert_eq!(good.parse(), Ok(HealthPath(good.to_owned())));
        }
        for bad in [
            "",
            "/",
            "healthz",
            "/a b",
            "/a?b",
            "/a#b",
            "/\u{e9}",
            "http://a/b",
        ] {
            assert!(bad.parse::<HealthPath>().is_err(), "{bad:?}");
        }
    }
}
