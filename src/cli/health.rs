//! `etagd health`: whether a server is ready, for supervisors that start a program to find out.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use http::Method;

use super::usage::UsageError;
use super::{Error, print, trust};
use crate::config::HealthFlags;
use crate::remote::{Client, RequestError};
use crate::settings::{Listen, ReplicaUrl};

/// What is asked of a server.
const READY: &str = "/readyz";
/// Bytes read of an answer: it is a line.
const MAX_ANSWER: u64 = 16 << 10;

/// The status of an answer, and its content.
struct HealthAnswer {
    status: u16,
    text: String,
}

/// Asks, prints the answer, and exits with 0 if it says that the server is ready.
pub(super) fn health(flags: &HealthFlags) -> Result<ExitCode, Error> {
    let answer = match (&flags.url, flags.admin.first()) {
        (Some(url), _) => ask(&target(url), url.is_secure(), flags.timeout)?,
        (None, Some(Listen::Tcp(addresses))) => {
            let address = addresses
                .first()
                .copied()
                .map(reachable)
                .ok_or(UsageError::NobodyToAsk)?;
            ask(&format!("http://{address}{READY}"), false, flags.timeout)?
        }
        (None, Some(Listen::Unix(path))) => {
            ask_socket(path, flags.timeout).map_err(|source| Error::AdminSocket {
                path: path.clone(),
                source,
            })?
        }
        (None, None) => return Err(UsageError::NobodyToAsk.into()),
    };
    let text = answer.text.trim_end();
    if answer.status == 200 {
        print(|out| writeln!(out, "{text}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    tracing::error!(
        status = answer.status,
        "not ready: {} {text}",
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

/// Where a listener on all addresses is reached from this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn ask(url: &str, is_secure: bool, timeout: Duration) -> Result<HealthAnswer, Error> {
    let client = Client::new(&trust(None, is_secure), timeout, MAX_ANSWER, 1)?;
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
            ("0.0.0.0:90", "127.0.0.1:90"),
            ("[::]:90", "[::1]:90"),
            ("10.0.0.1:90", "10.0.0.1:90"),
        ] {
            let address = listener.parse().expect("an address");
            assert_eq!(reachable(address).to_string(), asked);
        }
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
