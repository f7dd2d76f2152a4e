//! The access log: a line for each request, with what the client has really been sent.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use support::h2::Http2;
use support::lines::Lines;
use support::site::overwrite_in_place;
use support::tree::digest_of;
use support::wire::head;
use support::{Client, Response, Server, TestSite, noise, tag};

const JSON: &[&str] = &["--access-log", "json"];
const COMBINED: &[&str] = &["--access-log", "combined"];
/// Long enough to be still on its way when the client has stopped reading.
const LONG: usize = 16 << 20;

fn site() -> TestSite {
    TestSite::with(&[
        ("small", b"small"),
        ("middle", &noise(300 << 10, 1)),
        ("big", &noise((3 << 20) + 77, 2)),
    ])
}

/// Asserts what every line says of the response to a request.
fn assert_tells(line: &Value, about: &str, response: &Response) {
    assert_eq!(line["status"], response.status, "{about}: {line}");
    assert_eq!(line["bytes"], response.body.len(), "{about}: {line}");
    assert_eq!(line["cut"], response.cut, "{about}: {line}");
    let etag = response.field("ETag").map(|etag| etag.trim_matches('"'));
    assert_eq!(line["tag"].as_str(), etag, "{about}: {line}");
    assert!(
        line["microseconds"].as_u64().unwrap() < 20_000_000,
        "{line}"
    );
}

#[test]
fn what_is_logged_is_what_was_received() {
    let site = site();
    let (server, out) = Server::logging(&site, JSON);
    let lines = Lines::of(out);
    let etag = tag(&noise((3 << 20) + 77, 2));
    let digest = digest_of(&site.root());
    let mut client = server.client();
    for (method, target, fields, status, validator, coding) in [
        ("GET", "/small", &[][..], 200, "none", Some("identity")),
        ("GET", "/middle", &[], 200, "none", Some("identity")),
        ("GET", "/big?v=1", &[], 200, "none", Some("identity")),
        ("HEAD", "/big", &[], 200, "none", Some("identity")),
        (
            "GET",
            "/big",
            &[("If-None-Match", &*etag)],
            304,
            "hit",
            Some("identity"),
        ),
        (
            "HEAD",
            "/big",
            &[("If-None-Match", &*etag)],
            304,
            "hit",
            Some("identity"),
        ),
        (
            "GET",
            "/small",
            &[("If-None-Match", &*etag)],
            200,
            "miss",
            Some("identity"),
        ),
        (
            "GET",
            "/small",
            &[("If-Modified-Since", "Sat, 05 Nov 1994 08:49:37 GMT")],
            200,
            "miss",
            Some("identity"),
        ),
        (
            "GET",
            "/small",
            &[("If-Match", &*etag)],
            412,
            "failed",
            Some("identity"),
        ),
        (
            "GET",
            "/big",
            &[("If-Match", &*etag)],
            200,
            "none",
            Some("identity"),
        ),
        (
            "GET",
            "/small",
            &[("Range", "bytes=1-3")],
            206,
            "none",
            Some("identity"),
        ),
        (
            "GET",
            "/big",
            &[("Range", "bytes=-1000000")],
            206,
            "none",
            Some("identity"),
        ),
        (
            "GET",
            "/big",
            &[
                ("Range", "bytes=0-9,300000-600000,-9"),
                ("If-None-Match", "\"x\""),
            ],
            206,
            "miss",
            Some("identity"),
        ),
        (
            "GET",
            "/small",
            &[("Range", "bytes=9-")],
            416,
            "none",
            Some("identity"),
        ),
        (
            "GET",
            "/nowhere",
            &[("If-None-Match", &*etag)],
            404,
            "none",
            None,
        ),
        ("HEAD", "/nowhere", &[], 404, "none", None),
        ("GET", "/%00", &[], 400, "none", None),
        ("POST", "/small", &[], 405, "none", None),
        ("BREW", "/small", &[], 501, "none", None),
        ("OPTIONS", "*", &[], 204, "none", None),
    ] {
        let about = format!("{method} {target} {fields:?}");
        let fields = [fields, &[("User-Agent", "test"), ("Referer", "http://a/b")]].concat();
        let response = client.request(method, target, &fields);
        assert_eq!(response.status, status, "{about}");
        let line = lines.next_json();
        assert_tells(&line, &about, &response);
        assert_eq!(line["method"], method, "{about}");
        assert_eq!(line["target"], target, "{about}");
        assert_eq!(line["validator"], validator, "{about}");
        assert_eq!(line["coding"].as_str(), coding, "{about}");
        assert_eq!(line["client"], "127.0.0.1", "{about}");
        assert_eq!(line["protocol"], "HTTP/1.1", "{about}");
        assert_eq!(line["user_agent"], "test", "{about}");
        assert_eq!(line["referer"], "http://a/b", "{about}");
        assert_eq!(line["digest"], digest[..16], "{about}");
    }
}

#[test]
fn over_http_2_as_well() {
    let site = site();
    let (server, out) = Server::logging(&site, JSON);
    let lines = Lines::of(out);
    let etag = tag(&noise(300 << 10, 1));
    let mut client = Http2::connect(server.address());
    for (target, fields, validator) in [
        ("/small?a=b", &[][..], "none"),
        ("/big", &[], "none"),
        ("/middle", &[("if-none-match", &*etag)], "hit"),
        ("/big", &[("range", "bytes=0-9,300000-600000,-9")], "none"),
        ("/nowhere", &[], "none"),
    ] {
        let response = client.get(target, fields);
        let line = lines.next_json();
        assert_tells(&line, target, &response);
        assert_eq!(line["target"], target);
        assert_eq!(line["validator"], validator, "{target}");
        assert_eq!(line["protocol"], "HTTP/2.0");
    }
}

#[test]
fn the_coding_is_the_one_that_was_sent() {
    let prose = b"<p>What is compressed is prose, of which there is enough.</p>\n".repeat(99);
    let site = TestSite::with(&[("page.html", &prose)]);
    let compressed = support::etagd(["compress".as_ref(), site.root().as_os_str()]);
    assert!(compressed.status.success());
    let (server, out) = Server::logging(&site, JSON);
    let lines = Lines::of(out);
    let mut client = server.client();
    let accept = ("Accept-Encoding", "gzip");
    let response = client.request("GET", "/page.html", &[accept]);
    assert_eq!(lines.next_json()["coding"], "gzip");
    let etag = ("If-None-Match", response.field("ETag").unwrap());
    let response = client.request("GET", "/page.html", &[accept, etag]);
    assert_eq!(response.status, 304);
    assert_eq!(lines.next_json()["coding"], "gzip", "of a 304 too");
}

#[test]
fn a_body_that_cannot_be_verified_is_logged_as_cut() {
    let content = noise(LONG, 3);
    for is_http2 in [false, true] {
        let site = TestSite::with(&[("long", &content)]);
        // Room for no piece but those on their way.
        let (server, out) = Server::logging(&site, &[JSON, &["--memory", "16MiB"]].concat());
        let lines = Lines::of(out);
        // All but the first half.
        let other = [&content[..LONG / 2], &noise(LONG / 2, 4)].concat();
        let response = if is_http2 {
            overwrite_in_place(&site.path("long"), &other);
            Http2::connect(server.address()).get("/long", &[])
        } else {
            let mut client = Client::connect_narrow(server.address());
            client.send(head("GET", "/long", &[])).unwrap();
            let mut response = client.receive_head().unwrap().unwrap();
            overwrite_in_place(&site.path("long"), &other);
            response.body = client.read_some(LONG).unwrap();
            response.cut = response.body.len() < LONG;
            response
        };
        let line = lines.next_json();
        if response.status == 200 && response.cut {
            assert!(content.starts_with(&response.body));
            // What was handed over and still waits when the connection is cut does not arrive.
            let bytes = line["bytes"].as_u64().unwrap() as usize;
            let received = response.body.len();
            assert!((received..=LONG / 2).contains(&bytes), "{line}");
            assert!(bytes - received <= 1 << 20, "{received} received: {line}");
            assert_eq!((&line["status"], &line["cut"]), (&json!(200), &json!(true)));
        } else {
            // The watcher was faster; over HTTP/1.1 the head was out before it could be.
            assert!(is_http2, "{}: complete", response.status);
            assert_tells(&line, "the new content", &response);
        }
    }
}

#[test]
fn a_download_that_is_abandoned_is_logged_with_the_bytes_sent() {
    let site = TestSite::with(&[("long", &noise(LONG, 3))]);
    let (server, out) = Server::logging(&site, JSON);
    let lines = Lines::of(out);
    let mut client = Client::connect_narrow(server.address());
    client.send(head("GET", "/long", &[])).unwrap();
    let received = client.read_some(1 << 20).unwrap().len();
    drop(client);
    let line = lines.next_json();
    assert_eq!((&line["status"], &line["cut"]), (&json!(200), &json!(true)));
    let bytes = line["bytes"].as_u64().unwrap() as usize;
    assert!((received - 1000..LONG).contains(&bytes), "{line}");
}

/// The fields of a combined line, unescaped; panics where it is none.
fn combined(line: &str) -> [Vec<u8>; 3] {
    let mut quoted = Vec::new();
    let mut outside = String::new();
    let mut bytes = line.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'"' {
            outside.push(byte.into());
            continue;
        }
        let mut text = Vec::new();
        loop {
            match bytes.next().expect("a closing quote") {
                b'"' => break,
                b'\\' => text.push(match bytes.next().unwrap() {
                    b'x' => {
                        let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                        u8::from_str_radix(str::from_utf8(&digits).unwrap(), 16).unwrap()
                    }
                    b't' => b'\t',
                    escaped @ (b'"' | b'\\') => escaped,
                    other => panic!("\\{}", char::from(other)),
                }),
                plain => text.push(plain),
            }
        }
        outside.push('"');
        quoted.push(text);
    }
    let parts: Vec<_> = outside.split(' ').collect();
    assert_eq!(parts.len(), 10, "{line}");
    assert_eq!(&parts[..3], ["127.0.0.1", "-", "-"], "{line}");
    assert!(parts[3].starts_with('[') && parts[4] == "+0000]", "{line}");
    quoted.try_into().expect("three quoted fields")
}

#[test]
fn a_client_cannot_forge_a_line() {
    let forged =
        "127.0.0.1 - - [10/Oct/2000:13:55:36 +0000] \"GET /forged HTTP/1.1\" 200 1 \"-\" \"-\"";
    let escape = "\\\" 200 5 \"-\" \"\\x22 \\n";
    let agents: Vec<Vec<u8>> = vec![
        b"\" 200 5 \"-\" \"x".to_vec(),
        escape.into(),
        b"ends in a backslash \\".to_vec(),
        b"a\ttab".to_vec(),
        "\u{85}\u{2028}\u{9b}31m\u{1f600}".into(),
        b"\xff\xfe\x80".to_vec(),
        // Refused or cut short by whoever reads the head, but never a line of its own.
        format!("a\r\n{forged}").into(),
        format!("a\n{forged}").into(),
        format!("a\r{forged}").into(),
        format!("a\r\n {forged}").into(),
        format!("a\0{forged}").into(),
        format!("a\x1b[2K\r{forged}").into(),
    ];
    let targets = ["/small", "/\"%0a%0d\\\"?\"\\", "/small?%0A\\|"];
    for form in [COMBINED, JSON] {
        let site = site();
        let (mut server, out) = Server::logging(&site, form);
        let mut answered = 0;
        for agent in &agents {
            for target in targets {
                let mut client = server.client();
                let start = format!("GET {target} HTTP/1.1\r\nHost: a\r\nUser-Agent: ");
                client
                    .send([start.as_bytes(), agent, b"\r\n\r\n"].concat())
                    .unwrap();
                if client
                    .receive("GET")
                    .unwrap()
                    .is_some_and(|response| response.status < 400)
                {
                    answered += 1;
                }
            }
        }
        assert!(answered >= 2 * 6, "{answered}");
        server.signal(Signal::TERM);
        server.wait();
        let mut found = 0;
        let mut bytes = Vec::new();
        BufReader::new(out).read_to_end(&mut bytes).unwrap();
        assert!(
            bytes.iter().all(|byte| matches!(byte, b'\n' | b' '..=b'~')),
            "{form:?}"
        );
        for line in String::from_utf8(bytes).unwrap().lines() {
            let (target, agent, status) = if form == COMBINED {
                let [request, referer, agent] = combined(line);
                let request = String::from_utf8(request).unwrap();
                let target = request.strip_prefix("GET ").unwrap();
                let target = target.strip_suffix(" HTTP/1.1").unwrap().to_owned();
                assert_eq!(referer, b"-");
                (
                    target,
                    agent,
                    if line.contains("\" 200 ") { 200 } else { 400 },
                )
            } else {
                let line: Value = serde_json::from_str(line).unwrap();
                let agent = line["user_agent"].as_str().unwrap();
                let agent = agents
                    .iter()
                    .find(|sent| String::from_utf8_lossy(sent) == agent);
                (
                    line["target"].as_str().unwrap().to_owned(),
                    agent.expect("one that was sent").clone(),
                    line["status"].as_u64().unwrap(),
                )
            };
            found += usize::from(status < 400);
            assert!(targets.contains(&&*target), "{target:?}");
            assert!(
                agents.contains(&agent),
                "{:?}",
                agent.escape_ascii().to_string()
            );
        }
        assert_eq!(found, answered, "{form:?}");
    }
}

#[test]
fn a_log_that_nobody_reads_delays_no_request() {
    let site = site();
    let (mut server, out) = Server::logging(&site, COMBINED);
    let agent = "x".repeat(12 << 10);
    let requests = 700;
    let mut client = server.client();
    for _ in 0..requests {
        let started = Instant::now();
        let response = client.request("GET", "/small", &[("User-Agent", &agent)]);
        assert_eq!(response.body, b"small");
        assert!(started.elapsed() < Duration::from_secs(5));
    }
    drop(client);
    // Somebody reads at last: what was queued comes, what was not is counted.
    let lines = Lines::of(out);
    let first = lines.next();
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    let lines = lines.rest();
    assert!(
        lines.iter().all(|line| line.len() == first.len()),
        "whole lines only"
    );
    let said = server.log();
    let (before, _) = said
        .split_once(" lines of the access log were lost")
        .expect("said");
    let lost: usize = before.rsplit([' ', '\n']).next().unwrap().parse().unwrap();
    assert!(lost > 0, "the queue is larger than this test");
    assert_eq!(1 + lines.len() + lost, requests);
}

#[test]
fn a_log_that_nobody_reads_does_not_delay_shutdown() {
    let site = site();
    let (mut server, out) = Server::logging(&site, COMBINED);
    let agent = "x".repeat(12 << 10);
    let mut client = server.client();
    for _ in 0..20 {
        client.request("GET", "/small", &[("User-Agent", &agent)]);
    }
    drop(client);
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    assert!(
        server
            .log()
            .contains("the end of the access log is missing"),
        "{}",
        server.log()
    );
    drop(out);
}

#[test]
fn the_server_survives_a_reader_that_goes_away() {
    let site = site();
    let (mut server, out) = Server::logging(&site, COMBINED);
    drop(out);
    for _ in 0..3 {
        assert_eq!(server.client().get("/small").body, b"small");
    }
    server.wait_for(|lines| {
        lines
            .iter()
            .any(|line| line.contains("cannot write the access log"))
    });
    server.assert_alive();
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    assert!(
        server.log().contains("4 lines of the access log were lost"),
        "{}",
        server.log()
    );
}

#[test]
fn what_is_queued_at_the_end_is_written() {
    let site = site();
    let (mut server, out) = Server::logging(&site, COMBINED);
    let requests = head("GET", "/small", &[]).repeat(200);
    assert_eq!(support::exchange(server.address(), requests).len(), 200);
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    assert_eq!(BufReader::new(out).lines().count(), 200);
    assert!(!server.log().contains("lost"), "{}", server.log());
}

#[test]
fn off_is_silent() {
    let site = site();
    for flags in [&[][..], &["--access-log", "off"]] {
        let (mut server, mut out) = Server::logging(&site, flags);
        server.client().get("/small");
        server.signal(Signal::TERM);
        assert!(server.wait().success());
        let mut said = String::new();
        out.read_to_string(&mut said).unwrap();
        assert_eq!(said, "");
    }
}

#[test]
fn trusted_proxies_name_the_client() {
    let site = site();
    let forwarded = ("X-Forwarded-For", "6.6.6.6, 203.0.113.9, 127.0.0.9");
    for (trusted, client) in [
        (&[][..], "127.0.0.1"),
        (&["--trusted-proxy", "10.0.0.0/8"], "127.0.0.1"),
        (&["--trusted-proxy", "127.0.0.0/8"], "203.0.113.9"),
        (&["--trusted-proxy", "10.0.0.0/8,127.0.0.1"], "127.0.0.9"),
        (
            &[
                "--trusted-proxy",
                "127.0.0.1",
                "--trusted-proxy",
                "127.0.0.9",
            ],
            "203.0.113.9",
        ),
    ] {
        let (server, out) = Server::logging(&site, &[JSON, trusted].concat());
        server.client().request("GET", "/small", &[forwarded]);
        assert_eq!(Lines::of(out).next_json()["client"], client, "{trusted:?}");
    }
}

#[test]
fn trusted_proxies_name_the_request() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let site = site();
    let trace = format!("00-{TRACE}-b7ad6b7169203331-01");
    let trace = ("traceparent", trace.as_str());
    let long = "x".repeat(129);
    for (fields, found) in [
        (&[][..], None),
        (&[("X-Request-Id", "abc-1")][..], Some("abc-1")),
        (&[("X-Request-Id", "abc-1"), trace], Some(TRACE)),
        (&[("X-Request-Id", "\"},{\"")], None),
        (&[("X-Request-Id", &*long)], None),
        (&[("traceparent", "00-xyz")], None),
    ] {
        for (trusted, found) in [(&[][..], None), (&["--trusted-proxy", "127.0.0.1"], found)] {
            let (server, out) = Server::logging(&site, &[JSON, trusted].concat());
            server.client().request("GET", "/small", fields);
            let line = Lines::of(out).next_json();
            assert_eq!(
                line["request_id"].as_str(),
                found,
                "{trusted:?} {fields:?}: {line}"
            );
        }
    }
}

#[test]
fn a_line_has_the_host_and_the_door() {
    let site = site();
    let (server, out) = Server::logging(&site, JSON);
    let lines = Lines::of(out);
    for (request, host, door) in [
        (
            "GET /small HTTP/1.1\r\nHost: Example.org:8080\r\n\r\n",
            Some("Example.org"),
            "front",
        ),
        (
            "GET http://a.example/small HTTP/1.1\r\nHost: b\r\n\r\n",
            Some("a.example"),
            "http1",
        ),
        (
            "GET /small HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
            Some("[::1]"),
            "front",
        ),
        (
            "GET /small HTTP/1.1\r\nHost: a\"b\r\n\r\n",
            Some("a\"b"),
            "http1",
        ),
        ("GET /small HTTP/1.0\r\n\r\n", None, "http1"),
        ("GET /small HTTP/1.1\r\n\r\n", None, "http1"),
    ] {
        let mut client = server.client();
        client.send(request).unwrap();
        assert!(client.receive("GET").unwrap().is_some(), "{request:?}");
        let line = lines.next_json();
        assert_eq!(line["host"].as_str(), host, "{request:?}: {line}");
        assert_eq!(line["door"], door, "{request:?}");
    }
    Http2::connect(server.address()).get("/small", &[]);
    let line = lines.next_json();
    assert_eq!(
        (&line["door"], &line["host"]),
        (&json!("h2"), &json!("localhost"))
    );
}

#[test]
fn a_unix_socket_has_no_address_but_may_be_a_trusted_proxy() {
    let site = site();
    let path = site.outside("socket");
    let listen = format!("unix:{}", path.display());
    let listen = ["--listen", &listen, "--access-log", "combined"];
    for (trusted, client) in [
        (&[][..], "- -"),
        (&["--trusted-proxy", "unix"], "203.0.113.9 -"),
    ] {
        let (_server, out) = Server::logging(&site, &[&listen, trusted].concat());
        let mut over_unix = Client::connect_unix(&path);
        over_unix.request("GET", "/small", &[("X-Forwarded-For", "203.0.113.9")]);
        let line = Lines::of(out).next();
        assert!(line.starts_with(client), "{line}");
    }
}

#[test]
fn an_ipv4_client_of_a_dual_stack_listener_has_an_ipv4_address() {
    let site = site();
    let (server, out) = Server::logging(&site, &[JSON, &["--listen", ":0"]].concat());
    let address = ([127, 0, 0, 1], server.port());
    let client = std::net::TcpStream::connect(std::net::SocketAddr::from(address));
    let mut client = client.unwrap_or_else(|error| panic!("{:?}: {error}", ErrorKind::Other));
    std::io::Write::write_all(&mut client, head("GET", "/small", &[]).as_bytes()).unwrap();
    assert_eq!(Lines::of(out).next_json()["client"], "127.0.0.1");
}
