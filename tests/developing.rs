//! `etagd dev`, byte by byte.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use support::developer::Developer;
use support::tree::eventually;
use support::{Server, TestSite, etagd, tag};

const TAIL: &str = "\n<script async src=\"/_etagd/reload.js\"></script>\n";
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
    let posted = client.request("POST", "/_etagd/reload.js", &[("Content-Length", "0")]);
    assert_eq!((posted.status, posted.field("Allow")), (405, Some("GET")));
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
fn a_folder_without_files_is_listed_and_reloads_nothing() {
    let site = TestSite::new().file("a.txt", "a").dir("empty");
    let developer = Developer::start(&site.root(), &[]);
    let status = |target: &str| developer.client().get(target).status;
    assert_eq!((status("/empty/"), status("/empty")), (200, 308));
    let line = developer.wait_for_line("Digest");
    assert!(line.ends_with(&digest(&site)), "{line}: that of the files");
    let mut client = developer.client();
    client
        .send("GET /_etagd/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    client.receive_head().unwrap().unwrap();
    fs::create_dir(site.path("new")).unwrap();
    eventually("it is listed", || status("/new/") == 200);
    fs::remove_dir(site.path("empty")).unwrap();
    eventually("it is gone", || status("/empty/") == 404);
    fs::write(site.path("new/b.txt"), "b").unwrap();
    let mut events = String::new();
    while !events.contains("/new/b.txt") {
        let more = client.read_some(1).unwrap();
        assert!(!more.is_empty(), "{events}");
        events += &String::from_utf8_lossy(&more);
    }
    assert_eq!(events.matches("\"changed\":").count(), 1, "{events}");
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
    let using = developer.port;
    developer.wait_for_line(&format!("port {port} is in use, using {using}"));
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
fn each_request_is_a_line() {
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
    assert_eq!(redirect.field("Location"), Some("docs/?q"));
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

#[test]
fn a_listing_and_an_error_have_the_fields_of_the_site_and_policies_of_their_own() {
    let site = TestSite::new().file("docs/a.txt", "x").file(
        "_headers",
        "/*\n  Content-Security-Policy: default-src 'self'\n  X-Frame-Options: DENY\n  \
         Content-Type: text/plain\n",
    );
    let server = Server::with(&site, &["--listing"]);
    let mut client = server.client();
    let page = client.get("/docs/");
    assert_eq!(
        page.field("Content-Type"),
        Some("text/html; charset=utf-8"),
        "the rule knows nothing of the page"
    );
    let unchanged = [("If-None-Match", page.field("ETag").unwrap())];
    let unchanged = client.request("GET", "/docs/", &unchanged);
    assert_eq!(unchanged.status, 304);
    let error = client.get("/nowhere");
    assert_eq!(error.status, 404);
    for answer in [&page, &unchanged, &error] {
        let policy = answer.field("Content-Security-Policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
        assert!(policy.contains("style-src 'sha256-"), "{policy}");
        assert_eq!(answer.field("X-Frame-Options"), Some("DENY"));
    }
    let json = client.request("GET", "/docs/", &[("Accept", "application/json")]);
    assert_eq!(json.field("Content-Type"), Some("application/json"));
    assert_eq!(json.field("X-Frame-Options"), Some("DENY"));
}

#[test]
fn a_build_that_empties_its_folder_leaves_nothing_half() {
    let site = TestSite::new()
        .file("index.html", DOCUMENT)
        .file("docs/a.txt", "a")
        .file("404.html", "<p>not here")
        .file("_headers", "/*\n  X-Of: rules\n")
        .file("_redirects", "/old /docs/ 301\n");
    let developer = Developer::start(&site.root(), &[]);
    let mut client = developer.client();
    let listing = client.get("/docs/").body;
    let mut look = |during: Duration| {
        let until = Instant::now() + during;
        while Instant::now() < until {
            assert_eq!(client.get("/").field("X-Of"), Some("rules"));
            assert_eq!(client.get("/docs/").body, listing);
            assert_eq!(client.get("/old").status, 301);
            let missing = client.get("/nowhere").body;
            assert!(missing.starts_with(b"<p>not here"));
        }
    };
    fs::remove_dir_all(site.root()).unwrap();
    look(Duration::from_millis(300));
    fs::create_dir_all(site.path("docs")).unwrap();
    look(Duration::from_millis(300));
    // One after the other, as a build writes, and the rules last.
    for (name, content) in [
        ("index.html", &*[DOCUMENT, "2"].concat()),
        ("docs/a.txt", "a"),
        ("404.html", "<p>not here"),
        ("_redirects", "/old /docs/ 301\n"),
        ("_headers", "/*\n  X-Of: rules\n"),
    ] {
        fs::write(site.path(name), content).unwrap();
        look(Duration::from_millis(20));
    }
    developer.wait_for_line("changed  /index.html");
    let said = developer.said();
    assert!(
        !said.iter().any(|line| line.contains("the rules")),
        "{said:#?}"
    );
    // What stays empty is.
    fs::remove_dir_all(site.root()).unwrap();
    fs::create_dir(site.root()).unwrap();
    developer.wait_for_line("changed  /404.html, ");
    assert_eq!(developer.client().get("/index.html").status, 404);
}

#[test]
fn a_policy_that_prevents_reloading_is_warned_about_once() {
    let meta =
        "<!doctype html><meta http-equiv=Content-Security-Policy content=\"script-src 'none'\">";
    let site = TestSite::new()
        .file("index.html", DOCUMENT)
        .file("strict.html", DOCUMENT)
        .file("own.html", meta)
        .file(
            "_headers",
            "/strict\n  Content-Security-Policy: default-src 'none'\n",
        );
    let developer = Developer::start(&site.root(), &[]);
    let mut client = developer.client();
    for _ in 0..3 {
        for page in ["/", "/strict", "/own", "/strict?again"] {
            assert_eq!(client.get(page).status, 200);
        }
    }
    developer.wait_for_line("/own does not reload by itself");
    let said = developer.said();
    let warnings = said.iter().filter(|line| line.contains("by itself"));
    let warnings: Vec<_> = warnings.collect();
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    assert!(warnings[0].contains("/strict "), "{warnings:#?}");
    assert!(warnings[0].ends_with("default-src 'none'"), "{warnings:#?}");
}

#[test]
fn the_usual_variable_gives_the_port() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let site = site();
    let failed = etagd_dev(&site)
        .env("PORT", &port)
        .arg("--strict-port")
        .output()
        .unwrap();
    assert_eq!(failed.status.code(), Some(1));
    let said = String::from_utf8(failed.stderr).unwrap();
    assert!(said.contains(&port), "{said}");
    // What is typed is stronger.
    let developer = Developer::prepared(&site.root(), &["--port", "0"], |command| {
        command.env("PORT", &port).env("ETAGD_STRICT_PORT", "true");
    });
    assert_ne!(developer.port.to_string(), port);
}

fn etagd_dev(site: &TestSite) -> std::process::Command {
    let mut command = support::server::command(env!("CARGO_BIN_EXE_etagd"));
    command.arg("dev").arg(site.root());
    command
}

#[test]
fn the_site_is_opened_in_the_browser_of_the_desktop() {
    let tools = tempfile::tempdir().unwrap();
    let opened = tools.path().join("opened");
    let opener = tools.path().join("xdg-open");
    let script = format!(
        "#!/bin/sh\necho \"$1\" > '{0}.new' && mv '{0}.new' '{0}'\n",
        opened.display()
    );
    fs::write(&opener, script).unwrap();
    fs::set_permissions(&opener, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", tools.path().display());
    let developer = Developer::prepared(&site().root(), &["--port", "0", "--open"], |command| {
        command.env("PATH", path);
    });
    let until = Instant::now() + Duration::from_secs(20);
    while !opened.exists() {
        assert!(Instant::now() < until, "{:#?}", developer.said());
        std::thread::sleep(Duration::from_millis(10));
    }
    let url = fs::read_to_string(opened).unwrap();
    assert_eq!(url.trim(), developer.url("/"));
    // Where there is none, the site is served all the same.
    let developer = Developer::prepared(&site().root(), &["--port", "0", "--open"], |command| {
        command.env("PATH", "/nowhere");
    });
    developer.wait_for_line("cannot open http://localhost:");
    assert_eq!(developer.client().get("/").status, 200);
}

#[test]
fn with_host_a_qr_code_shows_the_address() {
    let site = site();
    let addresses: Vec<_> = if_addrs::get_if_addrs()
        .unwrap()
        .into_iter()
        .filter(|each| !each.is_loopback() && each.ip().is_ipv4())
        .map(|each| each.ip())
        .collect();
    let has_code = |said: &[String]| said.iter().any(|line| line.contains("\u{2580}"));
    let is_network = |line: &&String| line.contains("Network");
    let inward = Developer::on_terminal(&site.root(), &[]);
    let said = inward.said();
    assert!(
        !has_code(&said) && !said.iter().any(|line| is_network(&line)),
        "{said:#?}"
    );
    assert!(
        said.iter().any(|line| line.contains("\x1b[1m")),
        "{said:#?}"
    );
    let outward = Developer::start(&site.root(), &["--host"]);
    for address in &addresses {
        let url = format!("http://{address}:{}/", outward.port);
        let line = outward.wait_for_line(&url);
        assert!(line.contains("Network"), "{line}");
        let mut client = support::Client::connect((*address, outward.port).into());
        assert_eq!(client.get("/").status, 200);
    }
    // A code is for eyes.
    assert!(!has_code(&outward.said()));
    let seen = Developer::on_terminal(&site.root(), &["--host"]);
    if !addresses.is_empty() {
        seen.wait_for_line("\u{2580}");
    }
}

#[test]
fn what_an_editor_does_to_save_is_one_change() {
    let site = site();
    let developer = Developer::start(&site.root(), &[]);
    let (page, backup) = (site.path("index.html"), site.path("index.html~"));
    fs::write(site.path(".index.html.swp"), "typed").unwrap();
    fs::write(site.path("4913"), "").unwrap();
    fs::remove_file(site.path("4913")).unwrap();
    fs::rename(&page, &backup).unwrap();
    fs::write(&page, [DOCUMENT, "2"].concat()).unwrap();
    fs::remove_file(&backup).unwrap();
    fs::remove_file(site.path(".index.html.swp")).unwrap();
    developer.wait_for_line("changed  /index.html");
    // Another way: a new file takes the place of the old one.
    fs::write(site.path("style.css.tmp"), "b{}").unwrap();
    fs::rename(site.path("style.css.tmp"), site.path("style.css")).unwrap();
    developer.wait_for_line("/style.css");
    // Nothing can be waited for but that nothing happens: what is gone is told after a second.
    std::thread::sleep(Duration::from_millis(1300));
    let said = developer.said();
    let changed = said.iter().filter(|line| line.starts_with("changed"));
    let changed: Vec<_> = changed.collect();
    // The one has another name as well.
    let expected = ["changed  /index.html, /same.txt", "changed  /style.css"];
    assert_eq!(changed, expected);
}

#[test]
fn a_page_that_a_rule_makes_something_else_gets_no_script() {
    let xhtml = "<html xmlns=\"http://www.w3.org/1999/xhtml\"><head/><body/></html>";
    let site = TestSite::new()
        .file("page.html", xhtml)
        .file("page.html.gz", gzip(xhtml))
        .file("source.html", DOCUMENT)
        .file(
            "_headers",
            "/page*\n  Content-Type: application/xhtml+xml\n/source.html\n  Content-Type: text/plain\n",
        );
    let developer = Developer::start(&site.root(), &[]);
    let mut client = developer.client();
    for (target, content) in [
        ("/page", xhtml),
        ("/page.html", xhtml),
        ("/source.html", DOCUMENT),
    ] {
        let page = client.get(target);
        assert_eq!(page.body, content.as_bytes(), "{target}");
        assert!(has_hash_in_tag(&page), "{target}");
    }
    // The same file is a page at its other address.
    let page = client.get("/source");
    assert_eq!(page.body, [DOCUMENT, TAIL].concat().as_bytes());
    assert!(has_hash_in_tag(&page));
    // The rule goes, and comes back.
    for (rules, expected) in [
        ("", [DOCUMENT, TAIL].concat()),
        ("/*\n  Content-Type: text/plain\n", DOCUMENT.to_owned()),
    ] {
        fs::write(site.path("_headers"), rules).unwrap();
        eventually("the rules are applied", || {
            developer.client().get("/source.html").body == expected.as_bytes()
        });
        assert!(has_hash_in_tag(&developer.client().get("/source.html")));
    }
}

/// Whether a tag begins with the hash of the body; a rule may add a suffix to it.
fn has_hash_in_tag(page: &support::Response) -> bool {
    let hash = blake3::hash(&page.body).to_hex();
    let etag = page.field("ETag").unwrap();
    etag.starts_with(&format!("\"{hash}"))
}

#[test]
fn documents_without_a_doctype_reload_and_fragments_are_named_once() {
    let documents = [
        (
            "xml.html",
            "<?xml version=\"1.0\"?>\n<!DOCTYPE html><html><body/></html>",
        ),
        ("head.html", "<head><title>x</title></head>"),
        ("title.html", "<title>x</title><p>x"),
        ("meta.html", "<meta charset=utf-8><p>x"),
        ("body.html", "<body class=x>"),
    ];
    let site = TestSite::new()
        .file("part.html", "<p>x")
        .file("other.html", "<p>y");
    let site = documents
        .iter()
        .fold(site, |site, (name, content)| site.file(name, content));
    let developer = Developer::start(&site.root(), &[]);
    let mut client = developer.client();
    for (name, content) in documents {
        let page = client.get(&format!("/{name}"));
        assert_eq!(page.body, [content, TAIL].concat().as_bytes(), "{name}");
    }
    for _ in 0..3 {
        assert_eq!(client.get("/part.html").body, b"<p>x");
        // A script asks for it, and no window shows it.
        let fetched = [("Sec-Fetch-Dest", "empty")];
        assert_eq!(client.request("GET", "/other.html", &fetched).body, b"<p>y");
    }
    developer.wait_for_line("/part.html does not reload by itself");
    let said = developer.said();
    let warnings = said
        .iter()
        .filter(|line| line.contains("by itself"))
        .count();
    assert_eq!(warnings, 1, "{said:#?}");
}
