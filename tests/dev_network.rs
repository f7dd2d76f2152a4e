//! `etagd dev` and what is around it: other origins, TLS, other servers.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use support::TestSite;
use support::developer::Developer;
use support::tree::{has, run};
use tungstenite::Message;

fn site() -> TestSite {
    TestSite::with(&[
        ("index.html", b"<!doctype html><h1>x</h1>"),
        ("a.txt", b"a"),
        ("api/users", b"a file of that name"),
    ])
}

#[test]
fn other_origins_may_read_only_where_the_developer_says_so() {
    let site = site();
    let asking = [
        ("Origin", "http://other.example"),
        ("Access-Control-Request-Method", "GET"),
        ("Access-Control-Request-Headers", "if-none-match"),
    ];
    let developer = Developer::start(&site.root(), &[]);
    let mut client = developer.client();
    for target in ["/a.txt", "/none"] {
        let response = client.request("GET", target, &asking[..1]);
        assert_eq!(response.field("Access-Control-Allow-Origin"), None);
    }
    let preflight = client.request("OPTIONS", "/a.txt", &asking);
    assert_eq!(preflight.field("Access-Control-Allow-Origin"), None);
    let developer = Developer::start(&site.root(), &["--cors"]);
    let mut client = developer.client();
    let preflight = client.request("OPTIONS", "/a.txt", &asking);
    assert_eq!(preflight.status, 204);
    for name in ["Origin", "Methods", "Headers"] {
        let name = format!("Access-Control-Allow-{name}");
        assert_eq!(preflight.field(&name), Some("*"), "{name}");
    }
    let whole = client.request("GET", "/a.txt", &asking[..1]);
    let etag = whole.field("ETag").unwrap().to_owned();
    let unchanged = [asking[0], ("If-None-Match", &*etag)];
    let unchanged = client.request("GET", "/a.txt", &unchanged);
    let none = client.request("GET", "/none", &asking[..1]);
    let statuses = [&whole, &unchanged, &none].map(|response| {
        assert_eq!(response.field("Access-Control-Allow-Origin"), Some("*"));
        // Scripts may look at tags.
        assert_eq!(response.field("Access-Control-Expose-Headers"), Some("*"));
        response.status
    });
    assert_eq!(statuses, [200, 304, 404]);
}

#[test]
fn pages_are_isolated_where_the_developer_says_so() {
    let site = site();
    let names = ["Cross-Origin-Opener-Policy", "Cross-Origin-Embedder-Policy"];
    let developer = Developer::start(&site.root(), &[]);
    let page = developer.client().get("/");
    assert_eq!(names.map(|name| page.field(name)), [None, None]);
    let developer = Developer::start(&site.root(), &["--cross-origin-isolation"]);
    for target in ["/", "/none", "/_etagd/reload.js"] {
        let page = developer.client().get(target);
        let policies = names.map(|name| page.field(name));
        let expected = [Some("same-origin"), Some("require-corp")];
        assert_eq!(policies, expected, "{target}");
    }
}

#[test]
fn a_certificate_is_made_and_kept() {
    if !has("curl") {
        return;
    }
    let site = site();
    let state = site.outside("state");
    for _ in 0..2 {
        let developer = Developer::start(&site.root(), &["--tls", "self"]);
        developer.wait_for_line("https://localhost:");
        let files = std::fs::read_dir(state.join("etagd")).unwrap();
        let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        assert_eq!(files.len(), 2, "{files:?}");
        let certificate = files
            .iter()
            .find(|path| path.to_string_lossy().contains("certificate"));
        let url = format!("https://localhost:{}/a.txt", developer.port);
        let certificate = certificate.unwrap().to_str().unwrap();
        run(
            "curl",
            &[
                "-sSf",
                "--http2",
                "--cacert",
                certificate,
                "-o",
                "got",
                &url,
            ],
            &site.outside(""),
        );
        assert_eq!(std::fs::read(site.outside("got")).unwrap(), b"a");
        assert_eq!(developer.stop().code(), Some(0));
    }
}

/// Another server: each connection is given to `serve`.
fn upstream(serve: impl Fn(TcpStream) + Send + 'static) -> (SocketAddr, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().flatten().for_each(serve));
    (address, format!("/api=http://{address}"))
}

/// A request's header section as it comes.
fn head_of(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn requests_below_a_prefix_are_proxied() {
    let (seen, heads) = mpsc::channel();
    let (address, proxy) = upstream(move |mut stream| {
        let head = head_of(&mut stream);
        let mut content = [0; 5];
        if head.starts_with("POST") {
            stream.read_exact(&mut content).unwrap();
        }
        let _ = seen.send((head, content));
        let answer = "HTTP/1.1 201 Created\r\nContent-Length: 4\r\nX-Own: yes\r\n\
                      Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nConnection: close\r\n\r\nmade";
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let site = site();
    let developer = Developer::start(&site.root(), &["--proxy", &proxy]);
    let mut client = developer.client();
    let request = "POST /api/users?x=%2F HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\
                   Cookie: c=3\r\nConnection: keep-alive\r\n\r\nhello";
    client.send(request).unwrap();
    let made = client.receive("POST").unwrap().unwrap();
    assert_eq!((made.status, &*made.body), (201, &b"made"[..]));
    assert_eq!(made.field("X-Own"), Some("yes"));
    let (head, content) = heads.recv().unwrap();
    assert!(
        head.starts_with("POST /api/users?x=%2F HTTP/1.1\r\n"),
        "{head}"
    );
    assert_eq!(&content, b"hello");
    for line in [
        &*format!("host: {address}"),
        "cookie: c=3",
        "x-forwarded-for: 127.0.0.1",
    ] {
        assert!(
            head.to_lowercase().contains(line),
            "{line} is not in {head}"
        );
    }
    // The connection goes on, and what is beside the path is the site's.
    assert_eq!(client.get("/a.txt").body, b"a");
    assert_eq!(client.get("/apis").status, 404);
    assert_eq!(client.get("/api").body, b"made");
}

#[test]
fn proxied_bodies_are_streamed() {
    let (go, may_go) = mpsc::channel();
    let may_go = std::sync::Mutex::new(may_go);
    let (_, proxy) = upstream(move |mut stream| {
        head_of(&mut stream);
        let begun = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
        stream.write_all(begun.as_bytes()).unwrap();
        let is_whole = may_go.lock().unwrap().recv().unwrap();
        if is_whole {
            stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").unwrap();
        }
    });
    let site = site();
    let developer = Developer::start(&site.root(), &["--proxy", &proxy]);
    for is_whole in [true, false] {
        let mut stream = TcpStream::connect(("127.0.0.1", developer.port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
            .write_all(b"GET /api HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"first\r\n") {
            let mut more = [0; 1000];
            let length = stream.read(&mut more).unwrap();
            assert!(length > 0, "{}", seen.escape_ascii());
            seen.extend(&more[..length]);
        }
        go.send(is_whole).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        // What was cut is not completed.
        let expected: &[u8] = if is_whole {
            b"4\r\nlast\r\n0\r\n\r\n"
        } else {
            b""
        };
        assert_eq!(rest, expected, "{}", rest.escape_ascii());
    }
}

#[test]
fn an_upstream_that_is_down_is_named() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let site = site();
    let proxy = format!("/api=http://{address}");
    let developer = Developer::start(&site.root(), &["--proxy", &proxy]);
    let answer = developer.client().get("/api/users");
    assert_eq!(answer.status, 502);
    let text = String::from_utf8(answer.body).unwrap();
    assert!(
        text.contains(&address.to_string()) && text.contains("refused"),
        "{text}"
    );
}

#[test]
fn web_sockets_are_proxied() {
    let (_, proxy) = upstream(|stream| {
        thread::spawn(move || {
            let mut socket = tungstenite::accept(stream).unwrap();
            while let Ok(message) = socket.read() {
                if message.is_text() {
                    let _ = socket.send(message);
                }
            }
        });
    });
    let site = site();
    let developer = Developer::start(&site.root(), &["--proxy", &proxy]);
    let stream = TcpStream::connect(("127.0.0.1", developer.port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let url = format!("ws://localhost:{}/api/live", developer.port);
    let (mut socket, _) = tungstenite::client(url, stream).unwrap();
    for text in ["one", "two"] {
        socket.send(Message::text(text)).unwrap();
        assert_eq!(socket.read().unwrap().to_text().unwrap(), text);
    }
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
    // It ends although a tunnel was there.
    assert_eq!(developer.stop().code(), Some(0));
}

/// An upstream server that sends each request's head to the receiver and answers it with its path.
fn echoing_upstream() -> (String, mpsc::Receiver<String>) {
    let (seen, heads) = mpsc::channel();
    let (_, proxy) = upstream(move |mut stream| {
        let _ = seen.send(head_of(&mut stream));
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
        let _ = stream.write_all(answer.as_bytes());
    });
    (proxy, heads)
}

/// The status of the response to a raw request.
fn status_of(developer: &Developer, request: &[u8]) -> u16 {
    let mut client = developer.client();
    client.send(request).unwrap();
    client.receive("GET").unwrap().unwrap().status
}

#[test]
fn what_is_proxied_names_a_host_of_this_machine_and_a_plain_path() {
    let (proxy, heads) = echoing_upstream();
    let site = site();
    let developer = Developer::start(&site.root(), &["--proxy", &proxy]);
    for (request, status) in [
        (&b"GET /api HTTP/1.1\r\n\r\n"[..], 400),
        (
            b"GET /api HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
            400,
        ),
        (b"GET /api HTTP/1.1\r\nHost: evil\xff.example\r\n\r\n", 400),
        (b"GET /api HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
        (
            b"GET http://evil.example/api HTTP/1.1\r\nHost: localhost\r\n\r\n",
            403,
        ),
        (b"GET /api/../x HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (
            b"GET /api/%2e%2E/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
            400,
        ),
        (b"GET /api/..%2fx HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ] {
        let found = status_of(&developer, request);
        assert_eq!(found, status, "{}", request.escape_ascii());
    }
    assert!(heads.try_recv().is_err(), "none of them was passed on");
    let good = b"GET /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(status_of(&developer, good), 200);
    assert!(heads.recv().unwrap().starts_with("GET /api/x "));
}

#[test]
fn a_tunnel_is_for_web_sockets_alone() {
    let (proxy, heads) = echoing_upstream();
    let site = site();
    let developer = Developer::start(&site.root(), &["--proxy", &proxy]);
    for fields in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        "Connection: Upgrade\r\nUpgrade: foo/1\r\n",
        "Upgrade: websocket\r\n",
    ] {
        let request = format!("GET /api HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        assert_eq!(status_of(&developer, request.as_bytes()), 200, "{fields}");
        let head = heads.recv().unwrap().to_lowercase();
        assert!(
            !head.contains("upgrade") && !head.contains("http2"),
            "{head}"
        );
    }
    // A server that switches all the same gets no tunnel.
    let (_, proxy) = upstream(|mut stream| {
        head_of(&mut stream);
        let answer =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
        let _ = stream.write_all(answer.as_bytes());
    });
    let developer = Developer::start(&site.root(), &["--proxy", &proxy]);
    for upgrade in ["h2c", "websocket"] {
        let request = format!(
            "GET /api HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n"
        );
        assert_eq!(status_of(&developer, request.as_bytes()), 502, "{upgrade}");
    }
}

#[test]
fn a_client_cannot_speak_in_the_name_of_a_proxy() {
    let (proxy, heads) = echoing_upstream();
    let site = site();
    let developer = Developer::start(&site.root(), &["--proxy", &proxy]);
    let request = b"GET /api HTTP/1.1\r\nHost: localhost\r\nConnection: host, x-a\r\nX-A: 1\r\n\
                    X-Forwarded-Host: evil.example\r\nX-Forwarded-Port: 1\r\nX-Real-IP: 9.9.9.9\r\n\
                    Forwarded: for=9.9.9.9\r\nProxy-Connection: keep-alive\r\nTrailer: x\r\n\r\n";
    assert_eq!(status_of(&developer, request), 200);
    let head = heads.recv().unwrap().to_lowercase();
    assert!(head.contains("x-forwarded-host: localhost\r\n"), "{head}");
    for absent in [
        "evil",
        "9.9.9.9",
        "x-forwarded-port",
        "proxy-connection",
        "trailer",
        "x-a",
    ] {
        assert!(!head.contains(absent), "{absent} is in {head}");
    }
}

#[test]
fn an_upstream_that_never_answers_is_not_waited_for_without_end() {
    let (hold, held) = mpsc::channel();
    let (address, proxy) = upstream(move |mut stream| {
        head_of(&mut stream);
        // Open, and silent.
        let _ = hold.send(stream);
    });
    let site = site();
    let flags = ["--proxy", &proxy, "--proxy-timeout", "200ms"];
    let developer = Developer::start(&site.root(), &flags);
    let answer = developer.client().get("/api");
    assert_eq!(answer.status, 504);
    let text = String::from_utf8(answer.body).unwrap();
    for part in [&address.to_string(), "200ms", "--proxy-timeout"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    drop(held);
}
