//! The PROXY protocol: from trusted proxies it is demanded and believed, from nobody else read.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;
#[path = "support/transports.rs"]
mod transports;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::lines::Lines;
use support::wire::{PATIENCE, head};
use support::{Server, TestSite};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConnection, StreamOwned};
use transports::{Authority, secure_address};

const FLAGS: &[&str] = &["--access-log", "json", "--proxy-protocol"];
const TRUSTED: &[&str] = &["--trusted-proxy", "127.0.0.1"];

fn site() -> TestSite {
    TestSite::with(&[("small", b"small")])
}

/// Version 2 with this command and family, and this rest.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    [signature, &[0x20 | command, family][..], &length, rest].concat()
}

/// From 203.0.113.9, port 4711, with some bytes of TLVs.
fn v2_of_client(tlvs: &[u8]) -> Vec<u8> {
    let addresses = [203, 0, 113, 9, 127, 0, 0, 1, 0x12, 0x67, 0, 80];
    v2(1, 0x11, &[&addresses[..], tlvs].concat())
}

fn v1(text: &str) -> Vec<u8> {
    format!("PROXY {text}\r\n").into_bytes()
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn request() -> Vec<u8> {
    head("GET", "/small", &[("Connection", "close")]).into_bytes()
}

/// All that comes until the end; nothing where the connection is reset.
fn answer(mut stream: impl Read) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn the_header_names_the_client() {
    let site = site();
    let (server, out) = Server::logging(&site, &[FLAGS, TRUSTED].concat());
    let lines = Lines::of(out);
    let v6 = [
        &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9][..],
        &[0; 20],
    ]
    .concat();
    let (tlv, many) = (
        [4, 0, 3, 0, 0, 0],
        [&[4, 0xf, 0xd0][..], &[0; 0xfd0]].concat(),
    );
    for (header, client) in [
        (v1("TCP4 203.0.113.9 127.0.0.1 4711 80"), "203.0.113.9"),
        (v1("TCP6 2001:db8::9 ::1 4711 80"), "2001:db8::9"),
        (v1("TCP6 ::ffff:203.0.113.9 ::1 4711 80"), "203.0.113.9"),
        (v1("UNKNOWN"), "127.0.0.1"),
        (v2_of_client(&[]), "203.0.113.9"),
        (v2_of_client(&tlv), "203.0.113.9"),
        (v2_of_client(&many), "203.0.113.9"),
        (v2(1, 0x21, &v6), "2001:db8::9"),
        (v2(0, 0, &[]), "127.0.0.1"),
        (v2(0, 0x11, &[6; 12]), "127.0.0.1"),
        (v2(1, 0, &[]), "127.0.0.1"),
    ] {
        let bytes = [header, request()].concat();
        for step in [1, bytes.len()] {
            let mut stream = connect(&server);
            for piece in bytes.chunks(step) {
                stream.write_all(piece).unwrap();
            }
            let answer = answer(stream);
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nsmall"));
            assert_eq!(
                lines.next_json()["client"],
                client,
                "{}",
                bytes.escape_ascii()
            );
        }
    }
}

#[test]
fn a_trusted_proxy_without_a_header_is_not_served() {
    let site = site();
    let (mut server, out) = Server::logging(&site, &[FLAGS, TRUSTED].concat());
    for bytes in [
        request(),
        v1("TCP4 203.0.113.9 127.0.0.1 4711"),
        v1(&format!("UNKNOWN {}", "x".repeat(200))),
        v2(1, 0x11, &[0; 5]),
        v2(1, 0x11, &[0; 5000]),
        v2(2, 0x11, &[0; 12]),
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".repeat(10),
    ] {
        let mut stream = connect(&server);
        // It may be closed before it has taken all of it.
        let _ = stream.write_all(&[bytes.clone(), request()].concat());
        assert_eq!(answer(stream), "", "{}", bytes.escape_ascii());
    }
    // Ends without a word, as a check of the port does.
    drop(connect(&server));
    let mut stream = connect(&server);
    stream
        .write_all(&[v1("TCP4 1.2.3.4 1.2.3.4 1 1"), request()].concat())
        .unwrap();
    assert!(answer(stream).ends_with("small"), "others are served");
    assert_eq!(Lines::of(out).next_json()["client"], "1.2.3.4");
    let said = server.log();
    let warnings = said.matches("closed a connection of the trusted proxy 127.0.0.1");
    assert_eq!(warnings.count(), 1, "said once:\n{said}");
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait().success());
}

#[test]
fn a_header_that_does_not_come_is_waited_for_as_long_as_a_header_section() {
    let site = site();
    let flags = [FLAGS, TRUSTED, &["--header-timeout", "300ms"]].concat();
    let (server, _out) = Server::logging(&site, &flags);
    for begun in [
        &b""[..],
        b"PROXY TCP4 203.0.113.9 127",
        &v2_of_client(&[])[..20],
    ] {
        let mut stream = connect(&server);
        let started = Instant::now();
        stream.write_all(begun).unwrap();
        assert_eq!(answer(stream), "");
        let waited = started.elapsed();
        assert!(waited >= Duration::from_millis(300), "{waited:?}");
        assert!(waited < Duration::from_secs(8), "{waited:?}");
    }
}

#[test]
fn only_trusted_proxies_can_name_a_client() {
    let site = site();
    let trusted = ["--trusted-proxy", "192.0.2.0/24,unix"];
    let (server, out) = Server::logging(&site, &[FLAGS, &trusted].concat());
    let lines = Lines::of(out);
    let mut stream = connect(&server);
    stream.write_all(&request()).unwrap();
    assert!(answer(stream).ends_with("small"), "served without a header");
    assert_eq!(lines.next_json()["client"], "127.0.0.1");
    for header in [v1("TCP4 203.0.113.9 127.0.0.1 4711 80"), v2_of_client(&[])] {
        let mut stream = connect(&server);
        let _ = stream.write_all(&[header, request()].concat());
        let answer = answer(stream);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
            "{answer}"
        );
    }
}

#[test]
fn the_named_client_may_be_a_proxy_that_forwards() {
    let site = site();
    let trusted = ["--trusted-proxy", "127.0.0.1,10.0.0.0/8"];
    let (server, out) = Server::logging(&site, &[FLAGS, &trusted].concat());
    let lines = Lines::of(out);
    for (named, client) in [
        ("10.0.0.5", "203.0.113.9"),
        ("198.51.100.7", "198.51.100.7"),
    ] {
        let mut stream = connect(&server);
        let header = v1(&format!("TCP4 {named} 127.0.0.1 4711 80"));
        let forwarded = [("X-Forwarded-For", "203.0.113.9"), ("Connection", "close")];
        let request = head("GET", "/small", &forwarded).into_bytes();
        stream.write_all(&[header, request].concat()).unwrap();
        assert!(answer(stream).ends_with("small"));
        assert_eq!(lines.next_json()["client"], client);
    }
}

#[test]
fn over_a_unix_socket() {
    let site = site();
    let path = site.outside("socket");
    let listen = format!("unix:{}", path.display());
    let flags = [FLAGS, &["--listen", &listen, "--trusted-proxy", "unix"]].concat();
    let (_server, out) = Server::logging(&site, &flags);
    let lines = Lines::of(out);
    let ask = |path: &Path, bytes: &[u8]| {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(bytes);
        answer(stream)
    };
    assert!(ask(&path, &[v2_of_client(&[]), request()].concat()).ends_with("small"));
    assert_eq!(lines.next_json()["client"], "203.0.113.9");
    assert!(ask(&path, &[v1("UNKNOWN"), request()].concat()).ends_with("small"));
    assert!(lines.next_json()["client"].is_null());
    assert_eq!(ask(&path, &request()), "");
}

#[test]
fn the_header_comes_before_tls() {
    let site = site();
    let authority = Authority::new();
    authority.issue();
    let (certificate, key) = (authority.certificate(), authority.key());
    let tls = [
        "--tls-cert",
        certificate.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
    ];
    let (server, out) = Server::logging(&site, &[FLAGS, TRUSTED, &tls].concat());
    let config = Arc::new(authority.client(&[b"http/1.1"]));
    let lines = Lines::of(out);
    for header in [v1("TCP4 203.0.113.9 127.0.0.1 4711 443"), v2_of_client(&[])] {
        let mut stream = TcpStream::connect(secure_address(&server)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&header).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::clone(&config), name).unwrap();
        let mut secure = StreamOwned::new(session, stream);
        secure.write_all(&request()).unwrap();
        assert!(answer(&mut secure).ends_with("small"));
        assert_eq!(lines.next_json()["client"], "203.0.113.9");
    }
}

#[test]
fn without_trusted_proxies_it_is_bad_usage() {
    Server::assert_fails(
        &site().root(),
        &["--proxy-protocol"],
        2,
        &["--trusted-proxy"],
    );
    for bad in ["10.0.0.0/33", "localhost", ""] {
        let flag = format!("--trusted-proxy={bad}");
        Server::assert_fails(&site().root(), &[&flag], 2, &["--trusted-proxy"]);
    }
}
