//! `etagd health`: whether a server is ready, for supervisors that start a program to find out.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use http::{Method, StatusCode};

use super::usage::UsageError;
use super::{Error, print, trust};
use crate::config::HealthFlags;
use crate::remote::{Client, RequestError};
use crate::settings::{Listen, ReplicaUrl};

/// What is asked of a server.
const READY: &str = "/readyz";
/// Bytes read of an answer: it is a line.
const MAX_ANSWER: u64 = 16 << 10;
/// Characters printed of an answer.
const MAX_LINE: usize = 500;

/// The status of an answer, and its content.
struct HealthAnswer {
    status: u16,
    text: String,
}

/// Asks, prints the answer, and exits with 0 if it says that the server is ready.
pub(super) fn health(flags: &HealthFlags) -> Result<ExitCode, Error> {
    let answer = match (&flags.url, flags.admin.first()) {
        (Some(url), _) => ask(&target(url), url.is_secure(), flags)?,
        (None, Some(Listen::Tcp(addresses))) => ask_listener(addresses, flags)?,
        (None, Some(Listen::Unix(path))) => {
            ask_socket(path, flags.timeout).map_err(|source| Error::AdminSocket {
                path: path.clone(),
                source,
            })?
        }
        (None, None) => return Err(UsageError::NobodyToAsk.into()),
    };
    let text = summary(&answer);
    if answer.status == 200 {
        print(|out| writeln!(out, "{text}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    // A site has no /readyz, and people ask it.
    let hint = match answer.status {
        404 => " (the admin listener of --admin has /readyz, and --health PATH is on the site)",
        _ => "",
    };
    tracing::error!(
        status = answer.status,
        "not ready: {} {text}{hint}",
        answer.status
    );
    Ok(ExitCode::FAILURE)
}

/// The URL to ask: that of a server without a path stands for its /readyz.
fn target(url: &ReplicaUrl) -> String {
    let url = url.to_string();
    let has_path = url
        .split_once("://")
        .is_some_and(|(_, rest)| rest.contains('/'));
    if has_path { url } else { url + READY }
}

/// What an answer says, in a line: its first one, unless that begins a page.
fn summary(answer: &HealthAnswer) -> String {
    let line = answer.text.lines().next().unwrap_or_default().trim();
    let status = StatusCode::from_u16(answer.status).ok();
    match line.is_empty() || line.starts_with('<') {
        true => status.and_then(|status| status.canonical_reason()),
        false => None,
    }
    .map_or_else(|| line.chars().take(MAX_LINE).collect(), str::to_owned)
}

/// Where a listener is reached from this machine. One on all addresses takes IPv4 too, and has no
/// `::1` where IPv6 is switched off, as it is in Docker's containers
/// (`net.ipv6.conf.all.disable_ipv6`).
fn reachable(address: SocketAddr) -> Vec<SocketAddr> {
    let hosts: Vec<IpAddr> = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![Ipv4Addr::LOCALHOST.into()],
        IpAddr::V6(ip) if ip.is_unspecified() => {
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        }
        ip => vec![ip],
    };
    let port = address.port();
    hosts
        .into_iter()
        .map(|host| SocketAddr::new(host, port))
        .collect()
}

/// Asks at the first address that can be connected to, and fails as the first one does if there is
/// none.
fn ask_listener(addresses: &[SocketAddr], flags: &HealthFlags) -> Result<HealthAnswer, Error> {
    let mut failure = None;
    for address in addresses.iter().copied().flat_map(reachable) {
        match ask(&format!("http://{address}{READY}"), false, flags) {
            Err(Error::Request(error)) if error.is_unconnected() => {
                failure.get_or_insert(error);
            }
            answer => return answer,
        }
    }
    Err(failure.map_or_else(|| UsageError::NobodyToAsk.into(), Error::Request))
}

fn ask(url: &str, is_secure: bool, flags: &HealthFlags) -> Result<HealthAnswer, Error> {
    let trust = trust(flags.ca.clone(), is_secure);
    let client = Client::new(&trust, flags.timeout, MAX_ANSWER, 1)?;
    let response = client.request(&Method::GET, url, &[])?;
    let status = response.status().as_u16();
    let mut text = Vec::new();
    let mut body = response.into_body().into_reader().take(MAX_ANSWER);
    body.read_to_end(&mut text)
        .map_err(|source| RequestError::Body {
            url: url.to_owned(),
            source,
        })?;
    Ok(HealthAnswer {
        status,
        text: String::from_utf8_lossy(&text).into_owned(),
    })
}

/// Asks over a Unix socket, in HTTP/1.0: the answer ends where the connection ends.
fn ask_socket(path: &Path, timeout: Duration) -> io::Result<HealthAnswer> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    write!(stream, "GET {READY} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    parse(&String::from_utf8_lossy(&answer))
        .ok_or_else(|| io::Error::other("the answer is not HTTP"))
}

fn parse(answer: &str) -> Option<HealthAnswer> {
    let (head, text) = answer.split_once("\r\n\r\n")?;
    let mut words = head.strip_prefix("HTTP/1.")?.split([' ', '\r']);
    let status = words.nth(1)?.parse().ok()?;
    let text = text.to_owned();
    Some(HealthAnswer { status, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked() {
        for (url, asked) in [
            ("http://a", "http://a/readyz"),
            ("http://a:9090/", "http://a:9090/readyz"),
            ("https://a/alive", "https://a/alive"),
        ] {
            assert_eq!(target(&url.parse().expect("a URL")), asked);
        }
        for (listener, asked) in [
            ("0.0.0.0:90", &["127.0.0.1:90"][..]),
            ("[::]:90", &["127.0.0.1:90", "[::1]:90"]),
            ("10.0.0.1:90", &["10.0.0.1:90"]),
        ] {
            let addresses = reachable(listener.parse().expect("an address"));
            let addresses: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
            assert_eq!(addresses, asked);
        }
    }

    #[test]
    fn an_answer_is_a_line() {
        for (status, text, shown) in [
            (200, "ready 5f 3 entries\n", "ready 5f 3 entries"),
            (503, "draining\n", "draining"),
            (503, "", "Service Unavailable"),
            (
                404,
                "<!doctype html>\n<title>Not found</title>\n",
                "Not Found",
            ),
            (200, "one\ntwo\n", "one"),
            (599, "<p>", "<p>"),
        ] {
            let text = text.to_owned();
            assert_eq!(summary(&HealthAnswer { status, text }), shown);
        }
        let text = "x".repeat(1000);
        let long = summary(&HealthAnswer { status: 200, text });
        assert_eq!(long.len(), MAX_LINE);
    }

    #[test]
    fn answers_over_a_unix_socket() {
        let status = |answer: &str| parse(answer).map(|answer| (answer.status, answer.text));
        let ready = "HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nready\n";
        assert_eq!(status(ready), Some((200, "ready\n".to_owned())));
        let busy = "HTTP/1.1 503 Service Unavailable\r\n\r\n";
        assert_eq!(status(busy), Some((503, String::new())));
        for bad in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 x\r\n\r\n",
        ] {
            assert_eq!(status(bad), None, "{bad:?}");
        }
    }
}
