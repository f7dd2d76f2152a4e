//! The operator's side: the admin listener's paths and limits, and what of it the public port
//! shows (`--digest-header`, `--health`).

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use support::h2::Http2;
use support::wire::{PATIENCE, head};
use support::{Client, Response, Server, TestSite, etagd};

const ADMIN: [&str; 2] = ["--admin", "127.0.0.1:0"];

fn site() -> TestSite {
    TestSite::with(&[
        ("index.html", b"<!doctype html>"),
        ("file.txt", b"content"),
        ("dir/index.html", b"dir"),
    ])
}

fn manifest(site: &TestSite, flags: &[&str]) -> Vec<u8> {
    let root = site.root();
    let arguments = ["manifest", root.to_str().unwrap()];
    etagd(arguments.iter().chain(flags)).stdout
}

fn digest(site: &TestSite) -> String {
    let line = manifest(site, &["--digest"]);
    String::from_utf8(line).unwrap().trim_end().to_owned()
}

/// All that comes over a connection for this request, head and content as sent.
fn raw(address: SocketAddr, request: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let content = all.split_off(end);
    (String::from_utf8(all).unwrap().to_lowercase(), content)
}

#[test]
fn five_paths_and_no_other() {
    let site = site();
    let server = Server::with(&site, &ADMIN);
    let mut client = Client::connect(server.admin());
    let digest = digest(&site);
    for (path, status, content) in [
        ("/livez", 200, "alive\n".to_owned()),
        ("/readyz", 200, format!("ready {digest} 3 entries\n")),
        ("/digest", 200, format!("{digest}\n")),
    ] {
        let get = client.get(path);
        assert_eq!((get.status, &get.body[..]), (status, content.as_bytes()));
        assert_eq!(get.field("Cache-Control"), Some("no-store"));
        let head = client.request("HEAD", path, &[]);
        assert_eq!(head.status, status);
        let length = content.len().to_string();
        assert_eq!(head.field("Content-Length"), Some(length.as_str()));
        let post = client.request("POST", path, &[]);
        assert_eq!((post.status, post.field("Allow")), (405, Some("GET, HEAD")));
    }
    let metrics = client.get("/metrics");
    assert_eq!(metrics.status, 200);
    assert!(metrics.body.ends_with(b"# EOF\n"));
    let open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(metrics.field("Content-Type"), Some(open_metrics));
    // What curl sends.
    let text = client.request("GET", "/metrics", &[("Accept", "*/*")]);
    let plain = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(text.field("Content-Type"), Some(plain));
    assert_eq!(text.field("Vary"), Some("Accept"));
    let text = String::from_utf8(text.body).unwrap();
    assert!(text.contains("\n# TYPE etagd_build_info gauge\n"), "{text}");
    for path in ["/", "/file.txt", "/readyz/", "/../livez"] {
        assert_eq!(client.get(path).status, 404, "{path}");
        let public = server.client().get(path);
        assert_eq!(public.status == 200, ["/", "/file.txt"].contains(&path));
    }
    for path in [
        "/livez",
        "/readyz",
        "/healthz",
        "/digest",
        "/manifest",
        "/metrics",
    ] {
        assert_eq!(server.client().get(path).status, 404, "{path} in public");
    }
}

#[test]
fn the_manifest_is_what_the_command_prints_however_long() {
    let name = |n: u32| format!("{n:04}/{}", "long".repeat(40));
    let site = (0..1500).fold(TestSite::in_memory(), |site, n| site.file(name(n), "x"));
    let server = Server::with(&site, &ADMIN);
    let printed = manifest(&site, &["--format", "json"]);
    assert!(printed.len() > 400_000, "several pieces");
    // HTTP/1.0 has no chunks: the end of the connection ends the content.
    let (head, content) = raw(server.admin(), "GET /manifest HTTP/1.0\r\n\r\n");
    assert!(head.starts_with("http/1.0 200"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(
        content == printed,
        "{} bytes of {}",
        content.len(),
        printed.len()
    );
    let request = "GET /manifest HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let (head, content) = raw(server.admin(), request);
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    assert!(
        content.ends_with(b"\r\n0\r\n\r\n"),
        "the last chunk is missing"
    );
    let mut client = Client::connect(server.admin());
    let response = client.request("HEAD", "/manifest", &[]);
    assert_eq!(response.status, 200);
    assert_eq!(client.get("/livez").status, 200, "on the same connection");
}

#[test]
fn a_slow_reader_of_the_manifest_delays_nobody() {
    // Far more than the kernel keeps for a client that does not read.
    let place = vec!["d".repeat(250); 14].join("/");
    let name = |n: u32| format!("{place}/{n}");
    let site = (0..4000).fold(TestSite::in_memory(), |site, n| site.file(name(n), "x"));
    let server = Server::with(&site, &ADMIN);
    for _ in 0..6 {
        let mut client = Client::connect_narrow(server.admin());
        client.send(head("GET", "/manifest", &[])).unwrap();
        assert_eq!(client.receive_head().unwrap().unwrap().status, 200);
    }
    let (_, content) = raw(server.admin(), "GET /manifest HTTP/1.0\r\n\r\n");
    assert!(content.ends_with(b"\n]}\n"));
    // These keep both writers, until they are found to take nothing.
    let mut idle: Vec<_> = (0..2)
        .map(|_| Client::connect_narrow(server.admin()))
        .collect();
    for client in &mut idle {
        client.send(head("GET", "/manifest", &[])).unwrap();
        assert_eq!(client.receive_head().unwrap().unwrap().status, 200);
    }
    assert_eq!(Client::connect(server.admin()).get("/readyz").status, 200);
    assert_eq!(server.client().get("/").status, 404);
    let since = Instant::now();
    let mut patient = TcpStream::connect(server.admin()).unwrap();
    patient.set_read_timeout(Some(3 * PATIENCE)).unwrap();
    patient
        .write_all(b"GET /manifest HTTP/1.0\r\n\r\n")
        .unwrap();
    let mut content = Vec::new();
    patient.read_to_end(&mut content).unwrap();
    assert!(content.ends_with(b"\n]}\n") && content.len() > 10_000_000);
    assert!(
        since.elapsed() > Duration::from_secs(5),
        "nobody was waited for"
    );
}

#[test]
fn over_a_unix_socket_that_is_removed_at_the_end() {
    let site = site();
    let path = site.outside("admin.sock");
    let address = format!("unix:{}", path.display());
    let mut server = Server::with(&site, &["--admin", &address, "--admin", "127.0.0.1:0"]);
    let mut client = Client::connect_unix(&path);
    assert_eq!(client.get("/readyz").status, 200);
    assert_eq!(Client::connect(server.admin()).get("/readyz").status, 200);
    server.signal(rustix::process::Signal::INT);
    assert_eq!(server.wait().code(), Some(0));
    assert!(!path.exists(), "the socket is left behind");
    assert!(UnixStream::connect(&path).is_err());
}

#[test]
fn never_on_the_public_port() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    for reuse in [&[][..], &["--reuse-port"]] {
        let flags = ["--listen", &address, "--admin", &address];
        let flags = [&flags[..], reuse].concat();
        Server::assert_fails(
            &site().root(),
            &flags,
            2,
            &["--listen", "--admin", &address],
        );
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let flags = ["--admin", address.as_str()];
    Server::assert_fails(&site().root(), &flags, 1, &["--admin", &address, "in use"]);
}

#[test]
fn no_number_of_connections_to_it_reaches_the_public_port() {
    let site = site();
    let server = Server::with(&site, &ADMIN);
    let admin = server.admin();
    let held: Vec<_> = (0..256)
        .map(|_| {
            let mut client = Client::connect(admin);
            assert_eq!(client.get("/livez").status, 200);
            client
        })
        .collect();
    let mut surplus = Client::connect(admin);
    let response = surplus.receive("GET").unwrap().unwrap();
    assert_eq!(response.status, 503);
    assert_eq!(server.client().get("/file.txt").status, 200);
    drop(held);
    let until = Instant::now() + PATIENCE;
    while Client::connect(admin)
        .request("GET", "/livez", &[("Connection", "close")])
        .status
        != 200
    {
        assert!(Instant::now() < until, "no room again");
    }
}

#[test]
fn a_head_that_does_not_come_is_not_waited_for() {
    let server = Server::with(&site(), &ADMIN);
    let mut client = Client::connect(server.admin());
    client.send("GET /livez HTTP/1.1\r\n").unwrap();
    let since = Instant::now();
    client.receive("GET").unwrap();
    assert!(client.ends().unwrap());
    assert!(
        since.elapsed() > Duration::from_secs(2),
        "{:?}",
        since.elapsed()
    );
}

/// One request for each answer that comes from a manifest, with its status.
fn answers(server: &Server) -> Vec<(u16, Response)> {
    let mut client = server.client();
    let tag = support::tag(b"content");
    [
        (200, "GET", "/file.txt", vec![]),
        (200, "HEAD", "/file.txt", vec![]),
        (206, "GET", "/file.txt", vec![("Range", "bytes=0-1")]),
        (
            304,
            "GET",
            "/file.txt",
            vec![("If-None-Match", tag.as_str())],
        ),
        (308, "GET", "/dir", vec![]),
        (404, "GET", "/nothing", vec![]),
        (412, "GET", "/file.txt", vec![("If-Match", "\"x\"")]),
        (416, "GET", "/file.txt", vec![("Range", "bytes=100-")]),
        (204, "OPTIONS", "/file.txt", vec![]),
        (400, "GET", "/a%2fb", vec![]),
        (405, "POST", "/file.txt", vec![]),
    ]
    .into_iter()
    .map(|(status, method, target, fields)| (status, client.request(method, target, &fields)))
    .collect()
}

#[test]
fn the_digest_is_on_every_answer_that_comes_from_a_manifest() {
    let site = site();
    let server = Server::with(&site, &["--digest-header"]);
    for content in ["content", "CONTENT", "content"] {
        fs::write(site.path("file.txt"), content).unwrap();
        let digest = digest(&site);
        let until = Instant::now() + PATIENCE;
        while server.client().get("/").field("Etagd-Digest") != Some(&digest) {
            assert!(Instant::now() < until, "{digest} is not published");
        }
        if content == "content" {
            for (status, response) in answers(&server) {
                assert_eq!(response.status, status);
                assert_eq!(
                    response.field("Etagd-Digest"),
                    Some(digest.as_str()),
                    "{status}"
                );
            }
            let response = Http2::connect(server.address()).get("/file.txt", &[]);
            assert_eq!(response.field("etagd-digest"), Some(digest.as_str()));
        }
    }
}

#[test]
fn the_digest_is_off_unless_asked_for() {
    let server = Server::start(&site());
    for (status, response) in answers(&server) {
        assert_eq!(response.status, status);
        assert_eq!(response.field("Etagd-Digest"), None, "{status}");
    }
}

#[test]
fn health_takes_precedence_over_a_file_and_matches_only_as_given() {
    let site = site().file("healthz", "a file");
    let server = Server::with(&site, &["--health", "/healthz"]);
    let mut client = server.client();
    for target in ["/healthz", "/healthz?from=balancer"] {
        let health = client.get(target);
        assert_eq!(
            (health.status, health.body.as_slice()),
            (200, &b"alive\n"[..])
        );
        assert!(health.field("Cache-Control").unwrap().contains("no-store"));
        assert_eq!(
            (health.field("ETag"), health.field("Etagd-Digest")),
            (None, None)
        );
    }
    let head = client.request("HEAD", "/healthz", &[]);
    assert_eq!(
        (head.status, head.field("Content-Length")),
        (200, Some("6"))
    );
    let post = client.request("POST", "/healthz", &[]);
    assert_eq!((post.status, post.field("Allow")), (405, Some("GET, HEAD")));
    assert_eq!(client.get("/%68ealthz").body, b"a file");
    assert_eq!(client.get("/healthz/").status, 404);
    // Balancers often send no Host.
    let (head, content) = raw(server.address(), "GET /healthz HTTP/1.0\r\n\r\n");
    assert!(head.starts_with("http/1.0 200"), "{head}");
    assert_eq!(content, b"alive\n");
    assert_eq!(
        Http2::connect(server.address()).get("/healthz", &[]).body,
        b"alive\n"
    );
}

#[test]
fn health_is_503_while_draining() {
    let mut server = Server::with(&site(), &["--health", "/healthz", "--drain", "1h"]);
    let mut client = server.client();
    assert_eq!(client.get("/healthz").status, 200);
    server.signal(rustix::process::Signal::TERM);
    server.wait_for_line("draining");
    let health = client.get("/healthz");
    assert_eq!((health.status, health.says_close()), (503, true));
    assert_eq!(server.client().get("/file.txt").status, 200);
    server.signal(rustix::process::Signal::INT);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_loopback_listener_answers_only_names_of_this_machine() {
    let flags = [&ADMIN[..], &["--allow-host", "ops.example,*.test"]].concat();
    let server = Server::with(&site(), &flags);
    for (host, status) in [
        ("localhost", 200),
        ("LOCALHOST:9090", 200),
        ("127.0.0.1:9090", 200),
        ("[::1]", 200),
        ("ops.example", 200),
        ("a.test:80", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        // RFC 9112 section 3.2: it is no host at all.
        ("\u{e9}", 400),
        ("", 403),
    ] {
        for target in ["/manifest", "/livez"] {
            let request =
                format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let (head, _) = raw(server.admin(), &request);
            let wanted = format!("http/1.1 {status} ");
            assert!(head.starts_with(&wanted), "{host} {target}: {head}");
        }
    }
    let request = "GET /livez HTTP/1.0\r\n\r\n";
    assert!(raw(server.admin(), request).0.contains(" 200 "));
}

#[test]
fn the_operators_requests_are_delimited_beyond_doubt() {
    let server = Server::with(&site(), &ADMIN);
    for (status, fields) in [
        (400, ""),
        (400, "Host: localhost\r\nHost: evil.example\r\n"),
        (
            501,
            "Host: localhost\r\nTransfer-Encoding: gzip, chunked\r\n",
        ),
        (200, "Host: localhost\r\nTransfer-Encoding: chunked\r\n"),
    ] {
        // The connection is closed, so nothing behind the request is taken for another one.
        let request =
            format!("GET /livez HTTP/1.1\r\n{fields}\r\n0\r\n\r\nGET /digest HTTP/1.1\r\n");
        let (head, content) = raw(server.admin(), &request);
        assert!(
            head.starts_with(&format!("http/1.1 {status} ")),
            "{fields}: {head}"
        );
        assert!(
            head.contains("\r\nconnection: close\r\n"),
            "{fields}: {head}"
        );
        let text = String::from_utf8(content).unwrap();
        assert_eq!(text.lines().count(), 1, "{fields}: {text}");
    }
}
