//! Which client a request comes from, if there are proxies in between. Pure.
//!
//! A proxy names its client in a PROXY header or in X-Forwarded-For. Any client can send those
//! too, so only those of [`TrustedProxies`] count.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The other end of a connection. Displays as an address, or as `-` for a Unix socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// A client or proxy at this address; an IPv4 address is never in its IPv6-mapped form.
    Address(IpAddr),
    /// A process that came over a Unix socket.
    Unix,
}

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        Self::Address(address.to_canonical())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Unix => f.write_str("-"),
        }
    }
}

/// Proxies that are believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrustedProxy {
    /// Those with an address in this network.
    Network(IpNet),
    /// Those that come over a Unix socket.
    Unix,
}

impl FromStr for TrustedProxy {
    type Err = TrustedProxyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "unix" {
            return Ok(Self::Unix);
        }
        text.parse()
            .or_else(|_| text.parse().map(|address: IpAddr| IpNet::from(address)))
            .map(Self::Network)
            .map_err(|_| TrustedProxyError)
    }
}

/// The text names no proxy.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("expected a network (10.0.0.0/8, fd00::/8), an address, or unix")]
pub struct TrustedProxyError;

/// All proxies that are believed.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<TrustedProxy>);

impl From<Vec<TrustedProxy>> for TrustedProxies {
    fn from(proxies: Vec<TrustedProxy>) -> Self {
        Self(proxies)
    }
}

impl TrustedProxies {
    /// Whether `peer` is one of them.
    pub fn trust(&self, peer: Peer) -> bool {
        self.0.iter().any(|proxy| match (proxy, peer) {
            (TrustedProxy::Network(network), Peer::Address(address)) => network.contains(&address),
            (TrustedProxy::Unix, Peer::Unix) => true,
            (TrustedProxy::Network(_), Peer::Unix) | (TrustedProxy::Unix, Peer::Address(_)) => {
                false
            }
        })
    }

    /// The client of a request that came from `peer`: each trusted proxy is believed about whom
    /// it speaks for, the nearest first. What is no address ends the chain.
    pub fn client(&self, peer: Peer, fields: &HeaderMap) -> Peer {
        let mut client = peer;
        let lines = fields.get_all(X_FORWARDED_FOR).iter().rev();
        let elements = lines.flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b','));
        for element in elements.map(<[u8]>::trim_ascii) {
            if !self.trust(client) {
                break;
            }
            match address(element) {
                Some(address) => client = address.into(),
                None if element.is_empty() => {}
                None => break,
            }
        }
        client
    }
}

/// An address as proxies write it: bare or in brackets, with or without a port.
fn address(element: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(element).ok()?;
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(text)
        .parse()
        .or_else(|_| text.parse().map(|address: SocketAddr| address.ip()))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        match text {
            "unix" => Peer::Unix,
            address => address.parse::<IpAddr>().expect("an address").into(),
        }
    }

    fn trusted(proxies: &str) -> TrustedProxies {
        let proxies = proxies.split_terminator(',').map(str::parse);
        TrustedProxies::from(proxies.collect::<Result<Vec<_>, _>>().expect("proxies"))
    }

    #[test]
    fn trusted_proxies_are_networks_addresses_or_unix() {
        for (text, believed, others) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3/8", "10.255.0.1", "unix"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("192.0.2.7", "::ffff:192.0.2.7", "::192.0.2.7"),
            ("fd00::/8", "fd12::1", "fe80::1"),
            ("::1", "::1", "127.0.0.1"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("unix", "unix", "127.0.0.1"),
        ] {
            assert!(trusted(text).trust(peer(believed)), "{text}: {believed}");
            assert!(!trusted(text).trust(peer(others)), "{text}: {others}");
        }
        for bad in [
            "",
            "unix:",
            "UNIX",
            "10/8",
            "10.0.0.0/33",
            "::/129",
            "localhost",
            "1.2.3.4:80",
        ] {
            assert!(bad.parse::<TrustedProxy>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_client_is_the_nearest_that_is_no_trusted_proxy() {
        let near = "10.0.0.0/8,fd00::/8";
        for (trust, from, lines, client) in [
            // Nobody is believed unless the operator says so.
            ("", "10.0.0.1", &["203.0.113.9"][..], "10.0.0.1"),
            (near, "192.0.2.1", &["203.0.113.9"], "192.0.2.1"),
            (near, "10.0.0.1", &[], "10.0.0.1"),
            (near, "10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            // A client can write whatever it likes before what the proxies add.
            (
                near,
                "10.0.0.1",
                &["127.0.0.1, 10.9.9.9, 203.0.113.9"],
                "203.0.113.9",
            ),
            (
                near,
                "10.0.0.1",
                &["127.0.0.1, 203.0.113.9, 10.0.0.2"],
                "203.0.113.9",
            ),
            (
                near,
                "10.0.0.1",
                &["6.6.6.6", "203.0.113.9,10.0.0.3", "10.0.0.2"],
                "203.0.113.9",
            ),
            // Inside clients: all of the chain is trusted, so its beginning is the client.
            (near, "10.0.0.1", &["10.0.0.7, 10.0.0.2"], "10.0.0.7"),
            // IPv6, in brackets, with ports, as IPv4.
            (near, "fd00::1", &["2001:db8::9"], "2001:db8::9"),
            (near, "10.0.0.1", &["[2001:db8::9]"], "2001:db8::9"),
            (near, "10.0.0.1", &["[2001:db8::9]:4711"], "2001:db8::9"),
            (near, "10.0.0.1", &["203.0.113.9:4711"], "203.0.113.9"),
            (
                near,
                "10.0.0.1",
                &["203.0.113.9, ::ffff:10.0.0.2"],
                "203.0.113.9",
            ),
            (near, "::ffff:10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            // Empty elements say nothing, as in every list.
            (near, "10.0.0.1", &["203.0.113.9 ,, \t,"], "203.0.113.9"),
            (near, "10.0.0.1", &["", "203.0.113.9", ""], "203.0.113.9"),
            // Garbage: the last that could be read.
            (near, "10.0.0.1", &["203.0.113.9, unknown"], "10.0.0.1"),
            (near, "10.0.0.1", &["203.0.113.9, _x, 10.0.0.2"], "10.0.0.2"),
            (near, "10.0.0.1", &["203.0.113.9:99999"], "10.0.0.1"),
            (near, "10.0.0.1", &["203.0.113.9 6.6.6.6"], "10.0.0.1"),
            (near, "10.0.0.1", &["[203.0.113.9"], "10.0.0.1"),
            (near, "10.0.0.1", &["\"203.0.113.9\""], "10.0.0.1"),
            (near, "10.0.0.1", &["203.0.113.9\u{e9}"], "10.0.0.1"),
            (near, "10.0.0.1", &["010.0.0.2"], "10.0.0.1"),
            // Over a Unix socket.
            ("unix", "unix", &["203.0.113.9"], "203.0.113.9"),
            ("unix", "unix", &["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
            (near, "unix", &["203.0.113.9"], "unix"),
        ] {
            let mut fields = HeaderMap::new();
            for line in lines {
                let value = http::HeaderValue::from_bytes(line.as_bytes());
                fields.append(X_FORWARDED_FOR, value.expect("a field value"));
            }
            let found = trusted(trust).client(peer(from), &fields);
            assert_eq!(found, peer(client), "{from} with {lines:?}");
        }
    }

    #[test]
    fn who_has_no_address_is_a_dash() {
        assert_eq!(Peer::Unix.to_string(), "-");
        assert_eq!(peer("::ffff:192.0.2.7").to_string(), "192.0.2.7");
    }
}
