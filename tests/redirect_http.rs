//! HTTPS on one's own: `--redirect-http` leads plain HTTP there, certificate authorities find their
//! challenges, and Strict-Transport-Security is sent over TLS alone.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;
#[path = "support/transports.rs"]
mod transports;

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use support::h2::Http2;
use support::lines::Lines;
use support::tree::eventually;
use support::wire::head;
use support::{Client, Response, Server, TestSite, exchange, tag};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConnection, StreamOwned};
use transports::{Authority, secure_address};

const REDIRECT: &[&str] = &["--redirect-http", "127.0.0.1:0"];
const TOKEN: &str = "/.well-known/acme-challenge/token";
const POLICY: &str = "max-age=31536000";

fn site() -> TestSite {
    TestSite::with(&[
        ("page.html", b"<p>page"),
        (&TOKEN[1..], b"token.thumbprint"),
        (
            "_headers",
            format!("/*\n  Strict-Transport-Security: {POLICY}\n").as_bytes(),
        ),
    ])
}

fn authority() -> Authority {
    let authority = Authority::new();
    authority.issue();
    authority
}

/// The addresses of all listeners that redirect.
fn redirecting(server: &Server) -> Vec<SocketAddr> {
    let log = server.log();
    let urls = log.lines().filter_map(|line| {
        let (_, rest) = line.split_once("redirecting http://")?;
        rest.strip_suffix(" to HTTPS")?.parse().ok()
    });
    urls.collect()
}

/// A client of the first listener that redirects.
fn plain(server: &Server) -> Client {
    Client::connect(redirecting(server)[0])
}

fn secure(
    authority: &Authority,
    server: &Server,
) -> Client<StreamOwned<ClientConnection, TcpStream>> {
    let config = Arc::new(authority.client(&[b"http/1.1"]));
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(config, name).unwrap();
    let stream = TcpStream::connect(secure_address(server)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    Client::over(StreamOwned::new(session, stream))
}

fn hsts(response: &Response) -> Option<&str> {
    response.field("Strict-Transport-Security")
}

#[test]
fn plain_http_is_led_to_the_same_url_over_tls() {
    let (site, authority) = (site(), authority());
    let server = authority.serve(&site, REDIRECT);
    let port = secure_address(&server).port();
    let mut client = plain(&server);
    for (method, target) in [
        ("GET", "/"),
        ("GET", "/page.html"),
        ("HEAD", "/page.html?a=b&c=%20d"),
        ("GET", "/nowhere/%2e%2e//x?"),
        ("PUT", "/page.html"),
        ("DELETE", "/page.html"),
        ("OPTIONS", "/page.html"),
        ("BREW", "/pot"),
        ("GET", "//other.example/"),
        ("GET", "/.well-known/acme-challenge"),
        ("GET", "/.well-known/other"),
    ] {
        let conditions = [("If-None-Match", "*"), ("Range", "bytes=0-1")];
        let response = client.request(method, target, &conditions);
        assert_eq!(response.status, 308, "{method} {target}");
        let expected = format!("https://localhost:{port}{target}");
        assert_eq!(response.field("Location"), Some(&*expected), "{method}");
        assert_eq!(
            response.field("Cache-Control"),
            Some("private, no-store, max-age=0")
        );
        assert_eq!((hsts(&response), response.field("ETag")), (None, None));
        assert!(response.body.is_empty());
    }
    let mut http2 = Http2::connect(redirecting(&server)[0]);
    let response = http2.get("/page.html?q", &[]);
    let expected = format!("https://localhost:{port}/page.html?q");
    assert_eq!(response.field("Location"), Some(&*expected));
    assert_eq!(secure(&authority, &server).get("/page.html").status, 200);
}

#[test]
fn each_address_that_is_given_redirects() {
    let (site, authority) = (site(), authority());
    let server = authority.serve(&site, &[REDIRECT, REDIRECT].concat());
    let addresses = redirecting(&server);
    assert_eq!(addresses.len(), 2, "{}", server.log());
    assert_ne!(addresses[0], addresses[1]);
    for address in addresses {
        assert_eq!(Client::connect(address).get("/page.html").status, 308);
    }
}

#[test]
fn the_host_is_the_requests_own_and_valid() {
    let (site, authority) = (site(), authority());
    let flags = [REDIRECT, &["--https-port", "443"]].concat();
    let server = authority.serve(&site, &flags);
    let address = redirecting(&server)[0];
    for (bytes, location) in [
        (
            "GET /a HTTP/1.1\r\nHost: www.example.org\r\n\r\n",
            Some("https://www.example.org/a"),
        ),
        (
            "GET /a HTTP/1.1\r\nHost: www.example.org:80\r\n\r\n",
            Some("https://www.example.org/a"),
        ),
        (
            "GET /a HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n\r\n",
            Some("https://[2001:db8::1]/a"),
        ),
        (
            "GET http://a.example/b HTTP/1.1\r\nHost: c\r\n\r\n",
            Some("https://a.example/b"),
        ),
        (
            "GET /a HTTP/1.0\r\nHost: old.example\r\n\r\n",
            Some("https://old.example/a"),
        ),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Some("https://a/")),
        ("GET /a HTTP/1.0\r\n\r\n", None),
        ("GET /a HTTP/1.1\r\n\r\n", None),
        ("GET /a HTTP/1.1\r\nHost:\r\n\r\n", None),
        ("GET /a HTTP/1.1\r\nHost: :80\r\n\r\n", None),
        ("GET /a HTTP/1.1\r\nHost: a b\r\n\r\n", None),
        ("GET /a HTTP/1.1\r\nHost: a/b\r\n\r\n", None),
        ("GET /a HTTP/1.1\r\nHost: user@a\r\n\r\n", None),
        ("GET /a HTTP/1.1\r\nHost: a\"b\r\n\r\n", None),
        ("GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", None),
        ("GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n", None),
    ] {
        let response = exchange(address, bytes).remove(0);
        let status = if location.is_some() { 308 } else { 400 };
        assert_eq!(response.status, status, "{bytes:?}");
        assert_eq!(response.field("Location"), location, "{bytes:?}");
        assert!(
            response
                .field("Cache-Control")
                .unwrap()
                .contains("no-store")
        );
    }
    // There is no URL to go to instead of a tunnel.
    let tunnel = exchange(address, "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n").remove(0);
    assert_eq!((tunnel.status, tunnel.field("Location")), (405, None));
}

#[test]
fn the_port_is_that_of_tls_unless_it_is_named() {
    let (site, authority) = (site(), authority());
    for (named, expected) in [
        (None, None),
        (Some("443"), Some("")),
        (Some("8443"), Some(":8443")),
    ] {
        let mut flags = REDIRECT.to_vec();
        if let Some(port) = named {
            flags.extend(["--https-port", port]);
        }
        let server = authority.serve(&site, &flags);
        let own = format!(":{}", secure_address(&server).port());
        let location = format!("https://localhost{}/", expected.unwrap_or(&own));
        let response = plain(&server).get("/");
        assert_eq!(response.field("Location"), Some(&*location));
    }
}

#[test]
fn a_challenge_is_answered_from_the_site() {
    let (site, authority) = (site(), authority());
    let server = authority.serve(&site, REDIRECT);
    let mut client = plain(&server);
    let found = client.get(TOKEN);
    assert_eq!(
        (found.status, &*found.body),
        (200, &b"token.thumbprint"[..])
    );
    assert_eq!(found.field("ETag"), Some(&*tag(b"token.thumbprint")));
    assert_eq!(hsts(&found), None, "RFC 6797 section 7.2");
    let again = client.request(
        "GET",
        TOKEN,
        &[("If-None-Match", &tag(b"token.thumbprint"))],
    );
    assert_eq!((again.status, hsts(&again)), (304, None));
    let missing = client.get("/.well-known/acme-challenge/other");
    assert_eq!((missing.status, missing.field("Location")), (404, None));
    assert_eq!(client.request("PUT", TOKEN, &[]).status, 405);
    // One that certbot or lego writes now is found as soon as it is published.
    let new = "/.well-known/acme-challenge/new";
    fs::write(site.path(&new[1..]), "new").unwrap();
    eventually("the new challenge", || {
        plain(&server).get(new).body == b"new"
    });
    // Nothing else of the site comes without TLS, however it is spelled.
    for spelled in [
        "/.well-known/acme-challenge/../../page.html",
        "/.well-known/acme-challenge/%2e%2e/%2e%2e/page.html",
    ] {
        let response = client.get(spelled);
        let found = (response.status, response.field("Location"));
        assert_eq!(found, (404, None), "{spelled}");
    }
}

/// Certificate authorities ask at the top of the host, wherever below it the site is.
#[test]
fn a_challenge_is_answered_outside_of_a_base_path() {
    let (site, authority) = (site(), authority());
    let server = authority.serve(&site, &[REDIRECT, &["--base-path", "/app"]].concat());
    let port = secure_address(&server).port();
    let mut client = plain(&server);
    assert_eq!(client.get(TOKEN).body, b"token.thumbprint");
    for target in ["/app/page.html", &format!("/app{TOKEN}")] {
        let location = format!("https://localhost:{port}{target}");
        let response = client.get(target);
        assert_eq!(response.field("Location"), Some(&*location));
    }
}

/// Fallbacks, rules, error pages and listings answer for anything: over TLS alone.
#[test]
fn nothing_else_of_the_site_is_answered_below_the_challenges() {
    let authority = authority();
    let below = "/.well-known/acme-challenge/";
    let rules = format!("{below}rewritten /page.html 200\n{below}gone /page.html 410\n");
    let site = site()
        .file("index.html", "<p>home")
        .file("404.html", "<p>nowhere")
        .file("_redirects", &rules)
        .file(format!("{}about.html", &below[1..]), "<p>about");
    for not_found in ["single-page-application", "404-page"] {
        let flags = ["--not-found", not_found, "--listing"];
        let server = authority.serve(&site, &[REDIRECT, &flags].concat());
        let navigates = [("Accept", "text/html"), ("Sec-Fetch-Mode", "navigate")];
        for name in [
            "",
            "x",
            "rewritten",
            "gone",
            "about",
            "a/b",
            "/token",
            "index",
        ] {
            for method in ["GET", "HEAD"] {
                let target = format!("{below}{name}");
                let response = plain(&server).request(method, &target, &navigates);
                assert_eq!(response.status, 404, "{method} {target} {not_found}");
                assert_eq!(response.field("Location"), None, "{target}");
                let body = String::from_utf8(response.body).unwrap();
                for other in ["page", "home", "nowhere", "thumbprint"] {
                    assert!(!body.contains(&format!("<p>{other}")), "{target}: {body}");
                }
            }
        }
        assert_eq!(plain(&server).get(TOKEN).status, 200);
    }
}

/// A site that moves or closes as a whole still proves to the authority whose names it has.
#[test]
fn a_forced_rule_keeps_no_challenge_from_being_answered() {
    let authority = authority();
    for rule in [
        "/* /page.html 200!",
        "/* https://new.example/:splat 301!",
        "/.well-known/acme-challenge/* /page.html 410!",
    ] {
        let site = site().file("_redirects", rule);
        let server = authority.serve(&site, REDIRECT);
        let found = plain(&server).get(TOKEN);
        let found = (found.status, &*found.body);
        assert_eq!(found, (200, &b"token.thumbprint"[..]), "{rule}");
        let missing = plain(&server).get("/.well-known/acme-challenge/other");
        assert_eq!(missing.status, 404, "{rule}");
    }
}

#[test]
fn nobody_writes_without_tls() {
    let (site, authority) = (site(), authority());
    let tokens = site.outside("tokens");
    fs::write(&tokens, "me secret-secret-secret\n").unwrap();
    let writable = ["--writable", "--write-token-file", tokens.to_str().unwrap()];
    let server = authority.serve(&site, &[REDIRECT, &writable].concat());
    for target in ["/new", "/.well-known/acme-challenge/new"] {
        let fields = [
            ("Authorization", "Bearer secret-secret-secret"),
            ("If-None-Match", "*"),
            ("Content-Length", "3"),
        ];
        let mut client = plain(&server);
        client.send(head("PUT", target, &fields) + "new").unwrap();
        let response = client.receive("PUT").unwrap().unwrap();
        assert!([308, 405].contains(&response.status), "{target}");
        assert!(!site.path(&target[1..]).exists(), "{target}");
    }
}

#[test]
fn requests_are_logged_and_counted() {
    let (site, authority) = (site(), authority());
    let (certificate, key) = (authority.certificate(), authority.key());
    let tls = [
        "--tls-cert",
        certificate.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
    ];
    let log = ["--access-log", "json", "--admin", "127.0.0.1:0"];
    let (server, out) = Server::logging(&site, &[&tls, REDIRECT, &log].concat());
    let lines = Lines::of(out);
    plain(&server).get("/page.html?x");
    let line = lines.next_json();
    assert_eq!(
        (
            &line["status"],
            &line["target"],
            &line["host"],
            &line["door"]
        ),
        (
            &json!(308),
            &json!("/page.html?x"),
            &json!("localhost"),
            &json!("http1")
        )
    );
    let metrics = Client::connect(server.admin()).get("/metrics").body;
    let metrics = String::from_utf8(metrics).unwrap();
    for sample in [
        r#"etagd_requests_total{method="GET",status="308"} 1"#,
        r#"etagd_request_duration_seconds_count{class="3xx"} 1"#,
    ] {
        assert!(
            metrics.lines().any(|line| line == sample),
            "{sample}: {metrics}"
        );
    }
}

#[test]
fn limits_hold() {
    let (site, authority) = (site(), authority());
    let server = authority.serve(&site, &[REDIRECT, &["--header-timeout", "100ms"]].concat());
    let mut long = plain(&server);
    let _ = long.send(head("GET", "/", &[("X", &"x".repeat(20 << 10))]));
    assert_eq!(long.receive("GET").unwrap().unwrap().status, 431);
    assert!(long.ends().unwrap());
    let mut slow = plain(&server);
    slow.send("GET / HT").unwrap();
    assert!(slow.ends().unwrap(), "the header section is late");
    let server = authority.serve(&site, &[REDIRECT, &["--max-connections", "1"]].concat());
    // The limit is one for all listeners.
    let mut first = secure(&authority, &server);
    assert_eq!(first.get("/page.html").status, 200);
    let mut surplus = plain(&server);
    surplus.send(head("GET", "/", &[])).unwrap();
    assert_eq!(surplus.receive("GET").unwrap().unwrap().status, 503);
    drop(first);
    eventually("a place", || {
        let mut client = plain(&server);
        client.send(head("GET", "/", &[])).unwrap();
        client
            .receive("GET")
            .is_ok_and(|response| response.is_some_and(|response| response.status == 308))
    });
}

#[test]
fn a_drain_loses_nobody() {
    let (site, authority) = (site(), authority());
    let flags = [REDIRECT, &["--drain", "1s", "--admin", "127.0.0.1:0"]].concat();
    let mut server = authority.serve(&site, &flags);
    let address = redirecting(&server)[0];
    let mut kept = plain(&server);
    assert!(!kept.get("/").says_close());
    server.signal(Signal::TERM);
    server.wait_for(|lines| lines.iter().any(|line| line.contains("draining")));
    for client in [&mut kept, &mut plain(&server)] {
        let response = client.get("/");
        assert_eq!(response.status, 308);
        assert!(response.says_close());
    }
    assert!(server.wait().success());
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let (site, authority) = (site(), authority());
    let (certificate, key) = (authority.certificate(), authority.key());
    let tls = [
        "--tls-cert",
        certificate.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
    ];
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let socket = format!("unix:{}", site.outside("socket").display());
    let root = site.root();
    for (flags, code, naming) in [
        (
            &["--redirect-http", &*address, "--redirect-http", &*address][..],
            2,
            &["--redirect-http", &*address][..],
        ),
        (
            &["--redirect-http", &*address, "--listen", &*address],
            2,
            &["--redirect-http", &*address],
        ),
        (
            &[
                "--redirect-http",
                &*address,
                "--redirect-http",
                &*address,
                "--reuse-port",
            ],
            2,
            &[&*address],
        ),
        (
            &["--redirect-http", &*socket, "--redirect-http", &*socket],
            2,
            &[&*socket],
        ),
        (
            &["--redirect-http", &*address, "--admin", &*address],
            2,
            &["--redirect-http", "--admin", &*address],
        ),
        (
            &["--redirect-http", &*address, "--listen", &*socket],
            2,
            &["--https-port"],
        ),
        (
            &["--https-port", "8443"],
            2,
            &["--https-port", "--redirect-http"],
        ),
        (
            &["--redirect-http", &*address, "--https-port", "0"],
            2,
            &["--https-port", "greater than zero"],
        ),
        (&["--redirect-http", "nonsense"], 2, &["--redirect-http"]),
    ] {
        Server::assert_fails(&root, &[&tls, flags].concat(), code, naming);
    }
    let without_tls = ["--redirect-http", &*address];
    Server::assert_fails(&root, &without_tls, 2, &["--redirect-http", "--tls-cert"]);
    let dev = support::etagd(["dev", root.to_str().unwrap(), "--redirect-http", &address]);
    assert_eq!(dev.status.code(), Some(2), "serve alone has it");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let flags = [&tls[..], &["--redirect-http", &address]].concat();
    Server::assert_fails(&root, &flags, 1, &["--redirect-http", &address, "in use"]);
}

/// A port that nobody has at this moment.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn a_socket_that_is_passed_on_redirects_by_its_name() {
    let (site, authority) = (site(), authority());
    let (certificate, key) = (authority.certificate(), authority.key());
    let tls = [
        "--tls-cert",
        certificate.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
    ];
    let sockets = || [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let passed = |sockets: [TcpListener; 2]| sockets.map(|socket| Some(OwnedFd::from(socket)));
    let [public, redirect] = sockets();
    let (https, http) = (public.local_addr().unwrap(), redirect.local_addr().unwrap());
    let names = "etagd.socket:redirect-http";
    let server = Server::inherit(passed([public, redirect]), names, &site.root(), &tls);
    server.wait_until_listening();
    let response = Client::connect(http).get("/page.html");
    let location = format!("https://localhost:{}/page.html", https.port());
    assert_eq!(response.field("Location"), Some(&*location));
    // Without a certificate there is nothing to lead to.
    let mut server = Server::inherit(passed(sockets()), names, &site.root(), &[]);
    assert_eq!(server.wait().code(), Some(2));
    assert!(server.log().contains("--tls-cert"), "{}", server.log());
}

#[test]
fn a_real_client_arrives() {
    let (site, authority) = (site(), authority());
    let server = authority.serve(&site, REDIRECT);
    let port = redirecting(&server)[0].port();
    let fetched = std::process::Command::new("curl")
        .args(["--silent", "--show-error", "--location", "--cacert"])
        .arg(authority.root())
        .arg(format!("http://localhost:{port}/page.html?x"))
        .output();
    match fetched {
        Ok(fetched) => {
            let said = String::from_utf8_lossy(&fetched.stderr);
            assert_eq!(fetched.stdout, b"<p>page", "{said}");
        }
        Err(error) => assert!(std::env::var_os("ETAGD_NO_SKIP").is_none(), "curl: {error}"),
    }
}

#[test]
fn strict_transport_security_is_sent_over_tls_alone() {
    let (site, authority) = (site(), authority());
    let server = authority.serve(&site, &[]);
    let mut over_tls = secure(&authority, &server);
    let etag = tag(b"<p>page");
    let unchanged = [("If-None-Match", &*etag)];
    assert_eq!(hsts(&over_tls.get("/page.html")), Some(POLICY));
    assert_eq!(
        hsts(&over_tls.request("GET", "/page.html", &unchanged)),
        Some(POLICY)
    );
    assert_eq!(hsts(&over_tls.get("/nowhere")), Some(POLICY));

    let https = ("X-Forwarded-Proto", "https");
    let trusted = ["--trusted-proxy", "127.0.0.1"];
    for (flags, fields, expected) in [
        (&[][..], &[][..], None),
        (&[], &[https], None),
        (&["--trusted-proxy", "10.0.0.0/8"], &[https], None),
        (&trusted, &[], None),
        (&trusted, &[("X-Forwarded-Proto", "http")], None),
        (&trusted, &[https], Some(POLICY)),
        (
            &trusted,
            &[("X-Forwarded-Proto", "https, http")],
            Some(POLICY),
        ),
    ] {
        let server = Server::with(&site, flags);
        let mut client = server.client();
        for (target, fields, status) in [
            ("/page.html", fields.to_vec(), 200),
            ("/page.html", [fields, &unchanged].concat(), 304),
            ("/nowhere", fields.to_vec(), 404),
        ] {
            let response = client.request("GET", target, &fields);
            assert_eq!(response.status, status);
            assert_eq!(hsts(&response), expected, "{flags:?} {target} {fields:?}");
        }
        const WARNING: &str = "left Strict-Transport-Security out";
        if expected.is_none() {
            server.wait_for_line(WARNING);
        }
        let warnings = server.log().matches(WARNING).count();
        assert_eq!(warnings, usize::from(expected.is_none()), "once: {flags:?}");
    }
}

#[test]
fn nobody_is_warned_where_plain_http_is_meant() {
    let (site, authority) = (site(), authority());
    let server = authority.serve(&site, REDIRECT);
    assert_eq!(hsts(&plain(&server).get(TOKEN)), None);
    assert!(
        !server.log().contains("Strict-Transport-Security"),
        "{}",
        server.log()
    );
}
