//! Where to listen, and which replica to ask.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

/// Where to listen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listen {
    /// The addresses that a host name stands for.
    Tcp(Vec<SocketAddr>),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Default for Listen {
    /// This machine alone.
    fn default() -> Self {
        Self::Tcp(vec![(Ipv4Addr::LOCALHOST, 8080).into()])
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err("a path is expected after unix:".to_owned());
            }
            return Ok(Self::Unix(path.into()));
        }
        if let Some(port) = text.strip_prefix(':') {
            let port = port
                .parse()
                .map_err(|_| format!("{port:?} is no port (0 to 65535)"))?;
            return Ok(Self::Tcp(vec![(Ipv6Addr::UNSPECIFIED, port).into()]));
        }
        let expected = "expected HOST:PORT, :PORT or unix:PATH";
        match text.to_socket_addrs() {
            Ok(addresses) => {
                let addresses: Vec<_> = addresses.collect();
                if addresses.is_empty() {
                    Err(expected.to_owned())
                } else {
                    Ok(Self::Tcp(addresses))
                }
            }
            Err(error) => Err(format!("{expected} ({error})")),
        }
    }
}

/// Where a replica answers: scheme, authority and perhaps a prefix, without a slash at its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaUrl(String);

impl ReplicaUrl {
    /// Whether TLS is spoken there.
    pub fn is_secure(&self) -> bool {
        self.0.starts_with("https:")
    }
}

impl fmt::Display for ReplicaUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ReplicaUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected http://HOST or https://HOST, perhaps with a port and a prefix";
        let uri: http::Uri = text
            .parse()
            .map_err(|error| format!("{expected} ({error})"))?;
        let scheme = uri
            .scheme_str()
            .filter(|scheme| ["http", "https"].contains(scheme));
        let (Some(scheme), Some(authority)) = (scheme, uri.authority()) else {
            return Err(expected.to_owned());
        };
        if authority.as_str().contains('@') {
            return Err("a user and a password are not supported".to_owned());
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(format!("{expected}, and no query or fragment"));
        }
        let prefix = uri.path().trim_end_matches('/');
        // The address of the manifest itself is as good.
        let prefix = prefix.strip_suffix("/manifest").unwrap_or(prefix);
        let prefix = prefix.trim_end_matches('/');
        Ok(Self(format!("{scheme}://{authority}{prefix}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses() {
        let tcp = |text: &str| Ok(Listen::Tcp(vec![text.parse().expect("an address")]));
        assert_eq!("127.0.0.1:0".parse(), tcp("127.0.0.1:0"));
        assert_eq!("[::1]:8080".parse(), tcp("[::1]:8080"));
        assert_eq!(":80".parse(), tcp("[::]:80"));
        assert_eq!("unix:/run/x".parse(), Ok(Listen::Unix("/run/x".into())));
        for bad in [
            "",
            "unix:",
            ":",
            ":99999",
            "127.0.0.1",
            "127.0.0.1:x",
            "8080",
        ] {
            assert!(bad.parse::<Listen>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn replica_urls() {
        for (text, want) in [
            ("http://a", "http://a"),
            ("http://a/", "http://a"),
            ("HTTP://a:80//", "http://a:80"),
            (
                "https://a.example:8443/prefix/",
                "https://a.example:8443/prefix",
            ),
            ("http://[::1]:9000", "http://[::1]:9000"),
            ("http://a/manifest", "http://a"),
            ("http://a/x/manifest/", "http://a/x"),
        ] {
            assert_eq!(
                text.parse::<ReplicaUrl>().map(|url| url.to_string()),
                Ok(want.to_owned())
            );
        }
        for bad in [
            "",
            "a",
            "localhost:9000",
            "/path",
            "ftp://a",
            "unix:/run/x",
            "http://",
            "http://user:secret@a",
            "http://a?query",
            "http://a/#fragment",
            "http://a b",
        ] {
            assert!(bad.parse::<ReplicaUrl>().is_err(), "{bad:?}");
        }
    }
}
