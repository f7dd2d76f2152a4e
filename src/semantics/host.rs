//! Host (RFC 9110 7.2, RFC 9112 3.2): one name, that nobody can read in another way.

use http::{Version, header};

use super::byte_table;
use super::head::{FieldLines, RequestHead};

/// RFC 9112 3.2: exactly one Host in HTTP/1.1, none or one before it. HTTP/2 has an
/// authority instead.
///
/// # Errors
/// What is wrong with it.
pub fn check_host(request: &impl RequestHead) -> Result<(), &'static str> {
    let name = header::HOST;
    let mut hosts = request.fields().lines(&name);
    let first = hosts.next();
    if hosts.next().is_some() {
        return Err("more than one Host header field");
    }
    // HTTP/2 has it in place of Host; in HTTP/1.1 an absolute-form target brings it. User information
    // in it is an error (RFC 9110 4.2.4).
    if let Some(authority) = request.authority()
        && !is_host(authority.as_bytes())
    {
        return Err("invalid authority in the request target");
    }
    match first {
        None if request.version() == Version::HTTP_11 => Err("missing Host header field"),
        Some(host) if !is_host(host) => Err("invalid Host header field"),
        _ => Ok(()),
    }
}

/// Whether a value is `Host = uri-host [ ":" port ]` (RFC 9110 7.2); an empty name is
/// allowed.
///
/// ```abnf
/// host       = IP-literal / IPv4address / reg-name
/// IP-literal = "[" ( IPv6address / IPvFuture ) "]"
/// reg-name   = *( unreserved / pct-encoded / sub-delims )
/// port       = *DIGIT
/// ```
fn is_host(value: &[u8]) -> bool {
    let end_at = |byte, text: &[u8]| text.iter().position(|other| *other == byte);
    let (is_name, port) = match value {
        [b'[', literal @ ..] => match end_at(b']', literal).map(|end| literal.split_at(end)) {
            Some((address, [_, after @ ..])) => (is_ip_literal(address), after),
            _ => return false,
        },
        _ => {
            let (name, port) = value.split_at(end_at(b':', value).unwrap_or(value.len()));
            (is_registered_name(name), port)
        }
    };
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    is_name && is_port
}

/// `IPv6address / IPvFuture` (RFC 3986 3.2.2). Zone identifiers have no place in a Host.
fn is_ip_literal(address: &[u8]) -> bool {
    let [b'v' | b'V', future @ ..] = address else {
        let address = str::from_utf8(address);
        return address.is_ok_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    };
    // IPvFuture = "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" )
    let mut parts = future.splitn(2, |byte| *byte == b'.');
    let (Some(version), Some(rest)) = (parts.next(), parts.next()) else {
        return false;
    };
    let is_version = !version.is_empty() && version.iter().all(u8::is_ascii_hexdigit);
    let is_allowed = |byte: &u8| is_name_byte(*byte) || *byte == b':';
    is_version && !rest.is_empty() && rest.iter().all(is_allowed)
}

/// `reg-name` (RFC 3986 3.2.2), which an IPv4 address is too.
fn is_registered_name(mut name: &[u8]) -> bool {
    while let [first, rest @ ..] = name {
        name = match (first, rest) {
            (b'%', [high, low, rest @ ..])
                if [high, low].iter().all(|it| it.is_ascii_hexdigit()) =>
            {
                rest
            }
            (byte, rest) if is_name_byte(*byte) => rest,
            _ => return false,
        };
    }
    true
}

/// `unreserved / sub-delims` (RFC 3986 sections 2.2 and 2.3), but for the comma: a proxy that joins
/// two Host lines writes one.
fn is_name_byte(byte: u8) -> bool {
    const ALLOWED: [bool; 256] = byte_table(b"-._~!$&'()*+;=");
    ALLOWED[usize::from(byte)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for valid in [
            "",
            "localhost",
            "localhost:8080",
            "localhost:",
            "a-b_c.example.",
            "127.0.0.1:80",
            "[::1]",
            "[::1]:8080",
            "[2001:db8::1.2.3.4]:",
            "[v1.fe80:a]",
            "caf%C3%A9.example",
            "a!b",
        ] {
            assert!(is_host(valid.as_bytes()), "{valid:?}");
        }
        for invalid in [
            "[::1",
            "[::1]x",
            "[::1]8080",
            "[]",
            "[localhost]",
            "[1.2.3.4]",
            "[v.x]",
            "[vg.x]",
            "[v1.]",
            "[fe80::1%25eth0]",
            "::1",
            "a:b",
            "a:1:2",
            "a:1:",
            "a:-1",
            "%zz",
            "a%4",
            "a%",
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "user@a",
            "a,b",
            "\u{e9}.example",
            "a\\b",
            "a\"b",
        ] {
            assert!(!is_host(invalid.as_bytes()), "{invalid:?}");
        }
    }
}
