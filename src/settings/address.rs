//! Addresses: where to listen, and the URLs of replicas.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

use crate::semantics::base_path::BasePath;

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
        Self::this_machine(8080)
    }
}

impl Listen {
    /// A port that only this machine reaches.
    pub fn this_machine(port: u16) -> Self {
        Self::Tcp(vec![(Ipv4Addr::LOCALHOST, port).into()])
    }

    /// A port on all addresses of this machine. The listener takes IPv4 on it as well: it clears
    /// IPV6_V6ONLY (ipv6(7)).
    pub fn all_addresses(port: u16) -> Self {
        Self::Tcp(vec![(Ipv6Addr::UNSPECIFIED, port).into()])
    }

    /// Whether both can't be listened on at once. A free port is another one for each.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.has_pair(other, |one, two| {
            are_same(one, two) || is_wildcard_of(one, two)
        })
    }

    /// Whether both have an address in common, so that of two sockets with SO_REUSEPORT each would get
    /// some of its connections. With that option a wildcard may be listened on next to an address that it
    /// has, whose connections then go to the socket with the address.
    pub fn shares_address(&self, other: &Self) -> bool {
        self.has_pair(other, are_same)
    }

    fn has_pair(&self, other: &Self, is_pair: impl Fn(SocketAddr, SocketAddr) -> bool) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(two)) => one
                .iter()
                .any(|one| two.iter().any(|two| is_pair(*one, *two))),
            (Self::Unix(one), Self::Unix(two)) => one == two,
            _ => false,
        }
    }
}

/// Whether both sockets have one port, which is not chosen by the system.
fn are_on_one_port(one: SocketAddr, two: SocketAddr) -> bool {
    one.port() == two.port() && one.port() != 0
}

/// Whether one socket has the address of another, as all of its kind: the wildcard of IPv6 has those of
/// IPv4, too, as in [`Listen::all_addresses`].
fn is_wildcard_of(one: SocketAddr, two: SocketAddr) -> bool {
    let has = |wildcard: IpAddr, other: IpAddr| match wildcard {
        IpAddr::V4(wildcard) => wildcard.is_unspecified() && other.is_ipv4(),
        IpAddr::V6(wildcard) => wildcard.is_unspecified(),
    };
    let (one_ip, two_ip) = (one.ip().to_canonical(), two.ip().to_canonical());
    are_on_one_port(one, two) && (has(one_ip, two_ip) || has(two_ip, one_ip))
}

/// Whether both are one address.
fn are_same(one: SocketAddr, two: SocketAddr) -> bool {
    // An address of IPv4 can be written as one of IPv6 (RFC 4291 section 2.5.5.2).
    let (one_ip, two_ip) = (one.ip().to_canonical(), two.ip().to_canonical());
    let is_same = match (one, two) {
        (SocketAddr::V6(one), SocketAddr::V6(two)) => {
            // A link-local address is another one on each link (RFC 4007).
            one_ip == two_ip && one.scope_id() == two.scope_id()
        }
        _ => one_ip == two_ip,
    };
    are_on_one_port(one, two) && is_same
}

/// As it is typed.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addresses) => {
                let addresses: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
                f.write_str(&addresses.join(" and "))
            }
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why a text is no [`Listen`].
#[derive(Debug, thiserror::Error)]
pub enum InvalidListen {
    /// `unix:` alone.
    #[error("expected a path after unix:")]
    NoPath,
    /// What follows the colon of `:PORT` is no port.
    #[error("{0:?} is not a port (0 to 65535)")]
    Port(String),
    /// The host has no address, or there is no port.
    #[error("expected PORT, HOST:PORT, :PORT or unix:PATH ({0})")]
    Unresolved(io::Error),
    /// The host's name is known, but has no address.
    #[error("expected PORT, HOST:PORT, :PORT or unix:PATH (the host has no address)")]
    NoAddress,
}

impl FromStr for Listen {
    type Err = InvalidListen;

    fn from_str(text: &str) -> Result<Self, InvalidListen> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(InvalidListen::NoPath);
            }
            return Ok(Self::Unix(path.into()));
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let port = text
                .parse()
                .map_err(|_| InvalidListen::Port(text.to_owned()))?;
            return Ok(Self::this_machine(port));
        }
        if let Some(port) = text.strip_prefix(':') {
            let port = port
                .parse()
                .map_err(|_| InvalidListen::Port(port.to_owned()))?;
            return Ok(Self::all_addresses(port));
        }
        let addresses: Vec<_> = text
            .to_socket_addrs()
            .map_err(InvalidListen::Unresolved)?
            .collect();
        match addresses.is_empty() {
            true => Err(InvalidListen::NoAddress),
            false => Ok(Self::Tcp(addresses)),
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

    /// Where a site with this base path answers: the path is added, unless the URL has it already.
    #[must_use]
    pub fn with_base_path(&self, base_path: &BasePath) -> Self {
        Self(format!("{}{base_path}", self.without_base_path(base_path)))
    }

    /// What the paths on the host of a site with this base path follow.
    #[must_use]
    pub fn without_base_path(&self, base_path: &BasePath) -> Self {
        let base_path = base_path.to_string();
        // Behind the two slashes of the scheme a host may have the same name.
        let host = self.0.find("://").map_or(0, |at| at + "://".len());
        let path = self.0[host..]
            .find('/')
            .map_or(self.0.len(), |at| host + at);
        let (host, path) = self.0.split_at(path);
        let path = path.strip_suffix(&base_path).unwrap_or(path);
        Self(format!("{host}{path}"))
    }
}

impl fmt::Display for ReplicaUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no [`ReplicaUrl`].
#[derive(Debug, thiserror::Error)]
pub enum InvalidReplicaUrl {
    /// No URL at all.
    #[error("expected http://HOST or https://HOST, with an optional port and prefix ({0})")]
    Syntax(#[from] http::uri::InvalidUri),
    /// No http or https, or no host.
    #[error("expected http://HOST or https://HOST, with an optional port and prefix")]
    NoServer,
    /// `user:password@` before the host.
    #[error("a user and a password are not supported")]
    Credentials,
    /// A query or a fragment: paths are appended to the URL.
    #[error("expected no query and no fragment")]
    Query,
}

impl FromStr for ReplicaUrl {
    type Err = InvalidReplicaUrl;

    fn from_str(text: &str) -> Result<Self, InvalidReplicaUrl> {
        let uri: http::Uri = text.parse()?;
        let scheme = uri
            .scheme_str()
            .filter(|scheme| ["http", "https"].contains(scheme));
        let (Some(scheme), Some(authority)) = (scheme, uri.authority()) else {
            return Err(InvalidReplicaUrl::NoServer);
        };
        if authority.as_str().contains('@') {
            return Err(InvalidReplicaUrl::Credentials);
        }
        // `http::Uri` drops a fragment without a word.
        if uri.query().is_some() || text.contains('#') {
            return Err(InvalidReplicaUrl::Query);
        }
        // The URL of the manifest itself means the same server.
        let prefix = uri.path().trim_end_matches('/');
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
        let tcp = |text: &str| Some(Listen::Tcp(vec![text.parse().expect("an address")]));
        assert_eq!("127.0.0.1:0".parse().ok(), tcp("127.0.0.1:0"));
        assert_eq!("[::1]:8080".parse().ok(), tcp("[::1]:8080"));
        assert_eq!(":80".parse().ok(), tcp("[::]:80"));
        assert_eq!("8080".parse().ok(), tcp("127.0.0.1:8080"));
        assert_eq!(
            "unix:/run/x".parse().ok(),
            Some(Listen::Unix("/run/x".into()))
        );
        for bad in [
            "",
            "unix:",
            ":",
            ":99999",
            "127.0.0.1",
            "127.0.0.1:x",
            "65536",
        ] {
            assert!(bad.parse::<Listen>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn addresses_that_cannot_be_listened_on_at_once() {
        for (one, two, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:80", "[::1]:80", false),
            (":80", "127.0.0.1:80", true),
            (":80", "[::1]:80", true),
            ("[::]:80", "0.0.0.0:80", true),
            ("[::]:80", ":80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("0.0.0.0:80", "[::ffff:127.0.0.1]:80", true),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]:80", true),
            (":80", "127.0.0.1:81", false),
            (":0", "127.0.0.1:0", false),
            ("[fe80::1%1]:80", "[fe80::1%2]:80", false),
            ("[fe80::1%1]:80", "[fe80::1%1]:80", true),
            ("unix:/run/x", "unix:/run/x", true),
            ("unix:/run/x", "unix:/run/y", false),
            ("unix:/run/x", ":80", false),
        ] {
            let [one, two] = [one, two].map(|text| text.parse::<Listen>().expect("an address"));
            assert_eq!(one.overlaps(&two), expected, "{one} {two}");
            assert_eq!(two.overlaps(&one), expected, "{two} {one}");
        }
    }

    #[test]
    fn addresses_of_which_two_sockets_would_share_the_connections() {
        for (one, two, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]:80", true),
            (":80", "[::]:80", true),
            (":80", "127.0.0.1:80", false),
            (":80", "0.0.0.0:80", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            (":0", ":0", false),
            ("unix:/run/x", "unix:/run/x", true),
        ] {
            let [one, two] = [one, two].map(|text| text.parse::<Listen>().expect("an address"));
            assert_eq!(one.shares_address(&two), expected, "{one} {two}");
            assert_eq!(two.shares_address(&one), expected, "{two} {one}");
        }
    }

    #[test]
    fn a_base_path_is_added_once() {
        for (url, base_path, with, without) in [
            ("http://h", "/", "http://h", "http://h"),
            ("http://h", "/app", "http://h/app", "http://h"),
            ("http://h/app", "/app/", "http://h/app", "http://h"),
            ("http://h/x", "/app", "http://h/x/app", "http://h/x"),
            ("http://h/x/app", "/app", "http://h/x/app", "http://h/x"),
            ("http://app", "/app", "http://app/app", "http://app"),
        ] {
            let url: ReplicaUrl = url.parse().expect("a URL");
            let base_path = base_path.parse().expect("a path");
            assert_eq!(url.with_base_path(&base_path).to_string(), with);
            assert_eq!(url.without_base_path(&base_path).to_string(), without);
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
                text.parse::<ReplicaUrl>().ok().map(|url| url.to_string()),
                Some(want.to_owned())
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
