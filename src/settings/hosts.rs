//! Which hosts a request may name.
//!
//! A hostile page can have its own name resolve to this machine (DNS rebinding). The browser then
//! takes this server for the page's own origin, and lets it read everything. It can't make a
//! browser send an address or `localhost` as its Host: those are safe.

use std::net::IpAddr;

use super::dev::AllowedHost;

/// Whether requests may name `host`, which has no port.
pub fn is_host_allowed(host: &str, allowed: &[AllowedHost]) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let literal = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    literal.unwrap_or(&host).parse::<IpAddr>().is_ok()
        || host == "localhost"
        || host.ends_with(".localhost")
        || allowed.iter().any(|allowed| allowed.matches(&host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_no_other_site_can_have() {
        let none = [];
        for host in [
            "localhost",
            "LocalHost.",
            "app.localhost",
            "127.0.0.1",
            "192.168.1.7",
            "[::1]",
            "[fd00::7]",
        ] {
            assert!(is_host_allowed(host, &none), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1.evil.example",
            "127.1.evil",
        ] {
            assert!(!is_host_allowed(host, &none), "{host}");
        }
        let some = ["dev.example".parse(), "*.test".parse()].map(|host| host.expect("a host"));
        assert!(is_host_allowed("DEV.example", &some) && is_host_allowed("a.b.test", &some));
        assert!(!is_host_allowed("x.dev.example", &some) && !is_host_allowed("test", &some));
    }
}
