//! Which client a request comes from, if there are proxies in between, and what else they say. Pure.
//!
//! A proxy names its client in a PROXY header or in X-Forwarded-For, the request in traceparent or
//! X-Request-Id, and how it came in X-Forwarded-Proto. Any client can send those too, so only those
//! of [`TrustedProxies`] count.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::HeaderName;
use ipnet::IpNet;

use crate::semantics::head::FieldLines;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// W3C Trace Context, section 3.2.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Limit for the characters of an X-Request-Id; a UUID has 36.
const MAX_REQUEST_ID: usize = 128;

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
    pub fn client(&self, peer: Peer, fields: &impl FieldLines) -> Peer {
        let mut client = peer;
        let name = X_FORWARDED_FOR;
        let lines = fields.lines(&name).rev();
        let elements = lines.flat_map(|line| line.rsplit(|&byte| byte == b','));
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

    /// What the trusted proxy at `peer` calls a request with these fields: the trace that it belongs
    /// to, or else its X-Request-Id. One that is malformed or too long is none.
    pub fn request_id<'f>(&self, peer: Peer, fields: &'f impl FieldLines) -> Option<&'f str> {
        match self.trust(peer) {
            true => trace_id(fields).or_else(|| x_request_id(fields)),
            false => None,
        }
    }

    /// Whether the trusted proxy at `peer` says that a request with these fields came over TLS. Where
    /// several proxies have added to X-Forwarded-Proto, the first is the one next to the client.
    pub fn says_https(&self, peer: Peer, fields: &impl FieldLines) -> bool {
        self.trust(peer)
            && fields.lines(&X_FORWARDED_PROTO).next().is_some_and(|line| {
                let mut elements = line.split(|&byte| byte == b',');
                let first = elements.next().unwrap_or_default().trim_ascii();
                first.eq_ignore_ascii_case(b"https")
            })
    }
}

/// The trace-id of a valid traceparent (W3C Trace Context section 3.2.2):
///
/// ```abnf
/// traceparent = version "-" trace-id "-" parent-id "-" trace-flags
/// version     = 2HEXDIGLC   ; not ff; those after 00 may have more behind the flags
/// trace-id    = 32HEXDIGLC  ; not all zeros
/// parent-id   = 16HEXDIGLC  ; not all zeros
/// trace-flags = 2HEXDIGLC
/// ```
fn trace_id(fields: &impl FieldLines) -> Option<&str> {
    // Of two, both can't be right.
    let line = str::from_utf8(fields.only_line(&TRACEPARENT)?).ok()?;
    let is_hex = |part: &str, length| {
        part.len() == length
            && part
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_id = |part: &str, length| is_hex(part, length) && part.bytes().any(|byte| byte != b'0');
    let mut parts = line.split('-');
    let (version, trace, parent, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_valid = is_hex(version, 2)
        && version != "ff"
        && is_id(trace, 32)
        && is_id(parent, 16)
        && is_hex(flags, 2)
        && (version != "00" || parts.next().is_none());
    is_valid.then_some(trace)
}

/// The last X-Request-Id: where a client has sent one as well, a proxy adds its own after it.
fn x_request_id(fields: &impl FieldLines) -> Option<&str> {
    let line = fields.lines(&X_REQUEST_ID).next_back()?;
    let id = str::from_utf8(line).ok()?;
    let is_valid = !id.is_empty()
        && id.len() <= MAX_REQUEST_ID
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=:@".contains(&byte));
    is_valid.then_some(id)
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
    use http::HeaderMap;

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
    fn trusted_proxies_name_the_request() {
        const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
        let parent = format!("{TRACE}-b7ad6b7169203331");
        let long = "x".repeat(MAX_REQUEST_ID);
        let traces = |version: &str, rest: &str| format!("{version}-{parent}-{rest}");
        let zeros = |trace, parent| format!("00-{}-{}-01", "0".repeat(trace), "1".repeat(parent));
        let (trace, id) = ("traceparent", "x-request-id");
        for (lines, found) in [
            (vec![], None),
            (vec![(trace, traces("00", "01"))], Some(TRACE)),
            (vec![(trace, traces("00", "00"))], Some(TRACE)),
            // A version of the future may say more.
            (vec![(trace, traces("cc", "01-more"))], Some(TRACE)),
            (vec![(trace, traces("00", "01-more"))], None),
            (vec![(trace, traces("ff", "01"))], None),
            (vec![(trace, traces("0", "01"))], None),
            (vec![(trace, traces("00", "1"))], None),
            (vec![(trace, traces("00", "01").to_uppercase())], None),
            (vec![(trace, zeros(32, 16))], None),
            (
                vec![(trace, format!("00-{TRACE}-{}-01", "0".repeat(16)))],
                None,
            ),
            (vec![(trace, format!("00-{TRACE}"))], None),
            (vec![(trace, String::new())], None),
            (
                vec![(trace, traces("00", "01")), (trace, traces("00", "01"))],
                None,
            ),
            // A trace says more than an id; an id is better than nothing.
            (
                vec![(id, "a".to_owned()), (trace, traces("00", "01"))],
                Some(TRACE),
            ),
            (
                vec![(id, "a".to_owned()), (trace, traces("ff", "01"))],
                Some("a"),
            ),
            (vec![(id, "Z-9._~+/=:@".to_owned())], Some("Z-9._~+/=:@")),
            (vec![(id, long.clone())], Some(&*long)),
            (vec![(id, format!("{long}x"))], None),
            (vec![(id, String::new())], None),
            (vec![(id, "a b".to_owned())], None),
            (vec![(id, "a\"b".to_owned())], None),
            (vec![(id, "\u{e9}".to_owned())], None),
            (
                vec![(id, "forged".to_owned()), (id, "added".to_owned())],
                Some("added"),
            ),
        ] {
            let mut fields = HeaderMap::new();
            for (name, value) in &lines {
                let value = http::HeaderValue::from_bytes(value.as_bytes());
                fields.append(*name, value.expect("a field value"));
            }
            let near = trusted("10.0.0.0/8");
            let proxy = near.request_id(peer("10.0.0.1"), &fields);
            assert_eq!(proxy, found, "{lines:?}");
            let client = near.request_id(peer("192.0.2.1"), &fields);
            assert_eq!(client, None, "a client can send it too: {lines:?}");
        }
    }

    #[test]
    fn trusted_proxies_say_how_a_request_came() {
        for (lines, is_https) in [
            (&[][..], false),
            (&["https"], true),
            (&["HTTPS"], true),
            (&["http"], false),
            (&["https, http"], true),
            (&["http, https"], false),
            (&["https", "http"], true),
            (&["httpsx"], false),
            (&[""], false),
        ] {
            let mut fields = HeaderMap::new();
            for line in lines {
                fields.append(X_FORWARDED_PROTO, http::HeaderValue::from_static(line));
            }
            let near = trusted("10.0.0.0/8");
            let from = |address: &str| near.says_https(peer(address), &fields);
            assert_eq!(from("10.0.0.1"), is_https, "{lines:?}");
            assert!(!from("192.0.2.1"), "a client can send it too: {lines:?}");
        }
    }

    #[test]
    fn who_has_no_address_is_a_dash() {
        assert_eq!(Peer::Unix.to_string(), "-");
        assert_eq!(peer("::ffff:192.0.2.7").to_string(), "192.0.2.7");
    }
}
