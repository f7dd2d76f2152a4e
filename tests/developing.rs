//! `etagd dev`, byte by byte.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use support::developer::Developer;
use support::{Server, TestSite, etagd, tag};

const TAIL: &str = "\n<script src=\"/_etagd/reload.js\"></script>\n";
const DOCUMENT: &str = "<!-- a comment --><!doctype html><h1>x</h1>";

fn digest(site: &TestSite) -> String {
    let output = etagd([
        "manifest".as_ref(),
        "--digest".as_ref(),
        site.root().as_os_str(),
    ]);
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn gzip(content: &str) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn site() -> TestSite {
    TestSite::new()
        .file("index.html", DOCUMENT)
        .file("index.html.gz", gzip(DOCUMENT))
        .file("part.html", "<p>x")
        .file("style.css", "a{}")
        .file("style.css.gz", gzip("a{}"))
        .file("_headers", "/*.html\n  Content-Language: de\n")
        .symlink("same.txt", "index.html")
}

#[test]
fn what_is_hashed_is_what_is_sent_and_the_digest_is_of_the_files() {
    let site = site();
    let developer = Developer::start(&site.root(), &[]);
    let said = developer.wait_for_line("Digest ");
    assert_eq!(said.rsplit(' ').next(), Some(&*digest(&site)), "{said}");
    let mut client = developer.client();
    let accept = [("Accept-Encoding", "gzip")];
    let page = client.request("GET", "/index.html", &accept);
    assert_eq!(page.body, [DOCUMENT, TAIL].concat().as_bytes());
    assert_eq!(page.field("Content-Encoding"), None);
    assert_eq!(page.field("Vary"), None);
    // A rule adds a suffix to it.
    let hash = blake3::hash(&page.body).to_hex();
    let etag = page.field("ETag").unwrap();
    assert!(etag.starts_with(&format!("\"{hash}-")), "{etag}");
    let unchanged = [("If-None-Match", etag)];
    assert_eq!(client.request("GET", "/index.html", &unchanged).status, 304);
    // The same file under a name that is no document's.
    assert_eq!(client.get("/same.txt").body, DOCUMENT.as_bytes());
    assert_eq!(client.get("/part").body, b"<p>x");
    let style = client.request("GET", "/style.css", &accept);
    assert_eq!(style.field("Content-Encoding"), Some("gzip"));
    drop(client);
    // So it is after a change.
    fs::write(site.path("index.html"), [DOCUMENT, "2"].concat()).unwrap();
    developer.wait_for_line("changed  /index.html");
    let page = developer.client().get("/");
    assert_eq!(page.body, [DOCUMENT, "2", TAIL].concat().as_bytes());
}

#[test]
fn without_reload_the_plain_bytes_are_served() {
    let site = site();
    let developer = Developer::start(&site.root(), &["--no-reload"]);
    let mut client = developer.client();
    let page = client.get("/");
    assert_eq!(page.body, DOCUMENT.as_bytes());
    assert!(!client.get("/nowhere").body.ends_with(TAIL.as_bytes()));
    assert_eq!(client.get("/_etagd/reload.js").status, 404);
}

#[test]
fn an_error_page_follows_too_and_its_policy_allows_it() {
    let developer = Developer::start(&site().root(), &[]);
    let mut client = developer.client();
    let page = client.get("/nowhere");
    assert_eq!(page.status, 404);
    assert!(page.body.ends_with(TAIL.as_bytes()));
    let policy = page.field("Content-Security-Policy").unwrap();
    assert!(policy.contains("script-src 'self'"), "{policy}");
    let script = client.get("/_etagd/reload.js");
    assert_eq!(script.status, 200);
    assert_eq!(
        script.field("Content-Type"),
        Some("text/javascript; charset=utf-8")
    );
    assert_eq!(client.request("POST", "/_etagd/events", &[]).status, 405);
}

#[test]
fn events_are_for_the_same_origin_and_end_with_the_server() {
    let site = site();
    let developer = Developer::start(&site.root(), &[]);
    for (name, value) in [
        ("Sec-Fetch-Site", "cross-site"),
        ("Origin", "http://evil.example"),
    ] {
        let refused = developer
            .client()
            .request("GET", "/_etagd/events", &[(name, value)]);
        assert_eq!(refused.status, 403, "{name}");
    }
    let mut client = developer.client();
    client
        .send("GET /_etagd/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let head = client.receive_head().unwrap().unwrap();
    assert_eq!(head.field("Content-Type"), Some("text/event-stream"));
    let mut events = String::new();
    let until = Instant::now() + Duration::from_secs(20);
    let mut wait_for = |part: &str| {
        while !events.contains(part) {
            assert!(Instant::now() < until, "{part:?} did not come: {events}");
            let more = client.read_some(1).unwrap();
            assert!(!more.is_empty(), "{part:?} did not come: {events}");
            events += &String::from_utf8_lossy(&more);
        }
    };
    wait_for(&format!("data: {{\"digest\":\"{}\"}}", digest(&site)));
    fs::write(site.path("a b.html"), "x").unwrap();
    wait_for("\"changed\":[\"/a%20b\",\"/a%20b.html\",\"/a%20b/\"]");
    fs::remove_file(site.path("index.html")).unwrap();
    assert_eq!(developer.client().get("/").status, 200, "kept for a second");
    wait_for("\"/index.html\"");
    assert!(developer.stop().success());
}

#[test]
fn only_names_of_this_machine_are_answered() {
    let developer = Developer::start(&site().root(), &["--allow-host", "*.test"]);
    let status = |host: &str| {
        let request = format!("GET /style.css HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let mut client = developer.client();
        client.send(request).unwrap();
        client.receive("GET").unwrap().unwrap()
    };
    for host in [
        "localhost:1",
        "127.0.0.1",
        "[::1]:8080",
        "x.localhost",
        "a.test",
    ] {
        assert_eq!(status(host).status, 200, "{host}");
    }
    let refused = status("evil.example:80");
    assert_eq!(refused.status, 403);
    let page = String::from_utf8(refused.body).unwrap();
    assert!(page.contains("--allow-host evil.example"), "{page}");
}

#[test]
fn the_next_free_port_is_taken_unless_it_must_be_that_one() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let site = site();
    let developer = Developer::on_port(&site.root(), port, &[]);
    assert!(developer.port > port, "{}", developer.port);
    let failed = etagd([
        "dev".as_ref(),
        site.root().as_os_str(),
        "--strict-port".as_ref(),
        "--port".as_ref(),
        port.to_string().as_ref(),
    ]);
    assert_eq!(failed.status.code(), Some(1));
    let said = String::from_utf8(failed.stderr).unwrap();
    assert!(said.contains(&port.to_string()), "{said}");
}

#[test]
fn requests_are_told_in_lines() {
    let developer = Developer::start(&site().root(), &[]);
    let mut client = developer.client();
    let style = client.get("/style.css");
    let unchanged = [("If-None-Match", style.field("ETag").unwrap())];
    client.request("GET", "/style.css", &unchanged);
    let page = [("Referer", "http://localhost/about.html")];
    client.request("GET", "/missing.png", &page);
    assert!(developer.wait_for_line("200 GET ").contains("/style.css"));
    let line = developer.wait_for_line("304 GET ");
    assert!(line.contains("unchanged"), "{line}");
    let line = developer.wait_for_line("404 GET ");
    assert!(line.ends_with("missing in /about.html"), "{line}");
    let quiet = Developer::start(&site().root(), &["-q"]);
    let mut client = quiet.client();
    client.get("/style.css");
    client.get("/missing.png");
    quiet.wait_for_line("404 GET ");
    assert!(!quiet.said().iter().any(|line| line.starts_with("200")));
}

#[test]
fn a_directory_without_an_index_is_listed_where_that_is_wanted() {
    let site = TestSite::new()
        .file("docs/a b.txt", "x")
        .file("docs/more/c.txt", "x");
    let plain = Server::start(&site);
    assert_eq!(plain.client().get("/docs/").status, 404);
    let server = Server::with(&site, &["--listing"]);
    let mut client = server.client();
    let page = client.get("/docs/");
    assert_eq!(page.status, 200);
    assert!(page.is_what_its_tag_says());
    assert_eq!(page.field("Vary"), Some("accept"));
    let unchanged = [("If-None-Match", page.field("ETag").unwrap())];
    assert_eq!(client.request("GET", "/docs/", &unchanged).status, 304);
    let part = client.request("GET", "/docs/", &[("Range", "bytes=0-8")]);
    assert_eq!((part.status, &*part.body), (206, &b"<!doctype"[..]));
    let json = [("Accept", "application/json")];
    let json = client.request("GET", "/docs/", &json);
    assert_eq!(json.field("Content-Type"), Some("application/json"));
    assert!(json.is_what_its_tag_says());
    let listing: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
    assert_eq!(listing["entries"][1]["etag"], tag(b"x"));
    let redirect = client.get("/docs?q");
    assert_eq!(redirect.status, 308);
    assert_eq!(redirect.field("Location"), Some("/docs/?q"));
    assert_eq!(client.get("/nowhere/").status, 404);
    // It changes answers, so it is part of the digest.
    let digest = |server: &Server| {
        let log = server.log();
        log.split("site digest ").nth(1).unwrap()[..64].to_owned()
    };
    assert_ne!(digest(&plain), digest(&server));
    let developer = Developer::start(&site.root(), &[]);
    assert!(developer.wait_for_line("Digest").ends_with(&digest(&plain)));
    assert!(
        developer
            .client()
            .get("/docs/")
            .body
            .ends_with(TAIL.as_bytes())
    );
}
