//! Which clients may be sent deltas.

use std::net::IpAddr;

use http::request::Parts;

use super::handler::Connection;
use crate::answer::host;
use crate::client::{Peer, TrustedProxies};
use crate::semantics::dictionary::AVAILABLE_DICTIONARY;

/// Removes Available-Dictionary from a request that no browser would send it in: RFC 9842 section 8
/// has dictionaries in secure contexts only, because programs between client and server may change
/// what is sent in the clear without knowing such codings. `trusted` proxies are believed about how
/// their clients came.
///
/// It is done once, before a first answer, whether or not the site has deltas at that moment: a request
/// that waits for the disk is answered again from a later state, which may have some. What plain heads
/// are answered from has no such field.
pub(super) fn remove_unless_secure(
    request: &mut Parts,
    connection: &dyn Connection,
    trusted: &TrustedProxies,
) {
    if !request.headers.contains_key(AVAILABLE_DICTIONARY) {
        return;
    }
    // A client on the own machine asks for that machine, and is there: any client can write any Host.
    // One that a proxy names is where the proxy says.
    let client = trusted.client(connection.peer(), &request.headers);
    let is_local = matches!(client, Peer::Address(address) if address.is_loopback());
    let is_secure = connection.is_secure_to_client(trusted, &request.headers)
        || is_local && host(request).is_some_and(is_loopback);
    if !is_secure {
        request.headers.remove(AVAILABLE_DICTIONARY);
    }
}

/// Whether a host is the client's own machine: a secure context without TLS (Secure Contexts section
/// 3.1).
fn is_loopback(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => {
            let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_the_own_machine() {
        for own in [
            "localhost",
            "LocalHost",
            "localhost.",
            "a.localhost",
            "127.0.0.1",
            "127.1.2.3",
            "[::1]",
        ] {
            assert!(is_loopback(own), "{own}");
        }
        for other in [
            "",
            "example.com",
            "localhost.example.com",
            "notlocalhost",
            "192.0.2.1",
            "127.0.0.1.example.com",
            "[::2]",
        ] {
            assert!(!is_loopback(other), "{other}");
        }
    }
}
