//! A site below a path of its host: what is there, what is not, and what the tools make of it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;

use support::browser::Browser;
use support::developer::Developer;
use support::tree::{eventually, manifest_of};
use support::wire::head;
use support::{Client, Server, TestSite, etagd, tag};

const BELOW: [&str; 2] = ["--base-path", "/app"];
const PAGE: &[u8] = b"<!doctype html><title>page</title>";

fn site() -> TestSite {
    TestSite::with(&[
        ("index.html", PAGE),
        ("404.html", b"<!doctype html><title>none</title>"),
        ("docs/index.html", PAGE),
        ("style.css", b"a{}"),
        (".well-known/acme-challenge/token", b"token"),
        (".well-known/security.txt", b"Contact: x"),
        (
            "_headers",
            b"/docs/*\n  X-Rule: docs\n/app/docs/*\n  X-Rule: none\n",
        ),
        (
            "_redirects",
            b"/old /docs/\n/far https://other.example/x\n/back/* /docs/:splat 200\n",
        ),
    ])
}

fn location(client: &mut Client, target: &str) -> (u16, Option<String>) {
    let response = client.get(target);
    let location = response.field("Location").map(str::to_owned);
    (response.status, location)
}

#[test]
fn a_site_answers_below_its_base_path_and_nowhere_else() {
    let site = site();
    let server = Server::with(&site, &BELOW);
    server.wait_for_line("/app/");
    let mut client = server.client();
    for target in [
        "/app/",
        "/app/docs/",
        "/%61pp/docs/",
        "/app/back/",
        "/app/style.css?x",
    ] {
        let response = client.get(target);
        assert_eq!(response.status, 200, "{target}");
        assert!(response.is_what_its_tag_says(), "{target}");
    }
    for target in [
        "/",
        "/docs/",
        "/application",
        "/APP/",
        "/old",
        "/.well-known/security.txt",
    ] {
        let response = client.get(target);
        assert_eq!(response.status, 404, "{target}");
        assert_eq!(response.field("X-Rule"), None, "{target}");
        let body = String::from_utf8(response.body).unwrap();
        assert!(body.contains("<a href=\"/app/\">Home page</a>"), "{body}");
    }
    assert_eq!(
        client.get("/app/nowhere").body,
        b"<!doctype html><title>none</title>"
    );
    assert_eq!(client.get("/app/docs/").field("X-Rule"), Some("docs"));
    assert_eq!(client.get("/app/docs/none").field("X-Rule"), Some("docs"));
    // Certificate authorities ask at the top of the host.
    let token = "/.well-known/acme-challenge/token";
    assert_eq!(client.get(token).body, b"token");
    assert_eq!(client.request("OPTIONS", "/", &[]).status, 204);
}

#[test]
fn redirects_lead_below_the_base_path() {
    let site = site().dir("bare").file("bare/file", "x");
    let server = Server::with(&site, &[&BELOW[..], &["--listing"]].concat());
    let mut client = server.client();
    for (target, status, expected) in [
        ("/app", 308, "app/"),
        ("/app?x=1", 308, "app/?x=1"),
        ("//app", 308, "/app/"),
        ("/app/docs", 308, "docs/"),
        ("/app/bare", 308, "bare/"),
        ("/app//docs//", 308, "/app/docs/"),
        ("//app/docs/", 308, "/app/docs/"),
        ("/app/x/../docs/", 308, "/app/docs/"),
        ("/x/../app/docs/?y", 308, "/app/docs/?y"),
        ("/./app", 308, "/app/"),
        ("/app/old", 301, "/app/docs/"),
        ("/app/far", 301, "https://other.example/x"),
    ] {
        let expected = (status, Some(expected.to_owned()));
        assert_eq!(location(&mut client, target), expected, "{target}");
    }
    assert_eq!(location(&mut client, "/app/../docs/"), (400, None));
    let listing = client.get("/app/bare/");
    let listing = String::from_utf8(listing.body).unwrap();
    assert!(listing.contains("href=\"./file\""), "{listing}");
    assert!(!listing.contains("href=\"/"), "{listing}");
}

#[test]
fn an_application_below_a_base_path_answers_its_routes_alone() {
    let site = site();
    let flags = [&BELOW[..], &["--not-found", "single-page-application"]].concat();
    let server = Server::with(&site, &flags);
    let navigation = [("Sec-Fetch-Mode", "navigate"), ("Accept", "text/html")];
    for (target, status) in [("/app/route", 200), ("/route", 404)] {
        let response = server.client().request("GET", target, &navigation);
        assert_eq!(response.status, status, "{target}");
    }
}

#[test]
fn what_is_no_base_path_is_a_usage_error() {
    let site = site();
    for (path, reason) in [
        ("app", "begins with a slash"),
        ("/app?x", "without ? and #"),
        ("/a//b", "one slash"),
        ("/a/../b", "without . and .."),
        ("/../x", "without . and .."),
        ("/a b", "%20 for a space"),
        ("https://host/app", "begins with a slash"),
    ] {
        let flags = ["--base-path", path];
        Server::assert_fails(&site.root(), &flags, 2, &["--base-path", reason]);
    }
    let root = Server::with(&site, &["--base-path", "/"]);
    assert_eq!(root.client().get("/docs/").status, 200);
}

#[test]
fn writes_go_below_the_base_path() {
    let site = site().file("about.html", PAGE);
    let server = Server::with(&site, &[&BELOW[..], &["--writable"]].concat());
    let put = |target: &str| {
        let fields = [("If-None-Match", "*"), ("Content-Length", "3")];
        let mut client = server.client();
        client.send(head("PUT", target, &fields) + "new").unwrap();
        client.receive("PUT").unwrap().unwrap()
    };
    assert_eq!(put("/app/new.txt").status, 201);
    assert_eq!(fs::read(site.path("new.txt")).unwrap(), b"new");
    let refused = put("/new2.txt");
    assert_eq!(refused.status, 404);
    let reason = String::from_utf8(refused.body).unwrap();
    assert!(reason.contains("/app/"), "{reason}");
    assert_eq!(put("/app").status, 409);
    assert_eq!(put("/app/docs").status, 409);
    let own = tag(PAGE);
    let fields = [("If-Match", own.as_str()), ("Content-Length", "3")];
    let mut client = server.client();
    let about = head("PUT", "/app/about", &fields);
    client.send(about + "new").unwrap();
    let other = client.receive("PUT").unwrap().unwrap();
    assert_eq!(other.status, 412);
    let reason = String::from_utf8(other.body).unwrap();
    assert!(reason.contains("write to /app/about.html"), "{reason}");
}

/// The exit code and what was printed, both together.
fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = etagd(arguments.iter().copied());
    let [out, err] = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
    (output.status.code(), out + &err)
}

#[test]
fn check_asks_below_the_base_path_and_names_another_one() {
    let site = site();
    let flags = [&BELOW[..], &["--admin", "127.0.0.1:0"]].concat();
    let server = Server::with(&site, &flags);
    let (root, public) = (site.root(), format!("http://{}", server.address()));
    let root = root.to_str().unwrap();
    let below = format!("{public}/app");
    for url in [&public, &below] {
        let check = ["check", "--public", "--body", url, "--dir", root];
        let (code, said) = run(&[&check[..], &BELOW].concat());
        assert_eq!(code, Some(0), "{url}: {said}");
    }
    // A prefix that is not known to be the site's own is a part of the URL, as behind a proxy.
    assert_eq!(
        run(&["check", "--public", &below, "--dir", root]).0,
        Some(0)
    );
    assert_eq!(
        run(&["check", "--public", &public, "--dir", root]).0,
        Some(1)
    );
    let admin = format!("http://{}", server.admin());
    let (code, said) = run(&["check", &admin, "--dir", root]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("--base-path /app instead of not set"),
        "{said}"
    );
    let (code, said) = run(&[&["check", &admin, "--dir", root][..], &BELOW].concat());
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn check_says_why_all_may_be_missing() {
    let site = TestSite::with(&[("index.html", PAGE), ("style.css", b"h1{}")]);
    let server = Server::with(&site, &BELOW);
    let (root, public) = (site.root(), format!("http://{}", server.address()));
    let check = ["check", &public, "--dir", root.to_str().unwrap()];
    let (code, said) = run(&check);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("has nothing of it"), "{said}");
    assert!(said.contains("--base-path"), "{said}");
    let (code, said) = run(&[&check[..], &BELOW].concat());
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn push_uploads_below_the_base_path() {
    let (local, remote) = (site(), TestSite::new());
    let flags = ["--writable", "--admin", "127.0.0.1:0"];
    let server = Server::with(&remote, &[&BELOW[..], &flags].concat());
    let public = format!("http://{}", server.address());
    let root = local.root();
    let root = root.to_str().unwrap();
    let (code, said) = run(&["push", root, &format!("{public}/app")]);
    assert_eq!(code, Some(0), "{said}");
    assert!(remote.path("docs/index.html").exists());
    // The server's manifest says what the URL leaves out.
    fs::write(local.path("more.txt"), "more").unwrap();
    let admin = format!("http://{}", server.admin());
    let (code, said) = run(&["push", root, &public, "--admin-url", &admin]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("1 created"), "{said}");
    assert_eq!(fs::read(remote.path("more.txt")).unwrap(), b"more");
    // A flag says so, too; without one, a reason is said once.
    fs::write(local.path("more.txt"), "another").unwrap();
    let push = ["push", root, &public];
    let (code, said) = run(&push);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("below /app/") && said.contains("--base-path"),
        "{said}"
    );
    assert_eq!(said.matches("404").count(), 1, "{said}");
    let (code, said) = run(&[&push[..], &BELOW].concat());
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(fs::read(remote.path("more.txt")).unwrap(), b"another");
}

#[test]
fn the_purge_list_has_the_base_path() {
    let site = site();
    let old = site.outside("old.json");
    fs::write(&old, manifest_of(&site.root(), &BELOW)).unwrap();
    let urls = site.outside("urls");
    let command = format!("cat >> '{}'", urls.display());
    let server = Server::with(&site, &[&BELOW[..], &["--on-publish", &command]].concat());
    fs::write(site.path("docs/index.html"), "<!doctype html>new").unwrap();
    let expected = "/app/docs/\n/app/docs/index.html\n";
    eventually("the command has the URLs", || {
        fs::read_to_string(&urls).is_ok_and(|urls| urls == expected)
    });
    drop(server);
    let root = site.root();
    let (root, old) = (root.to_str().unwrap(), old.to_str().unwrap());
    let (code, said) = run(&[&["manifest", root, "--diff", old][..], &BELOW].concat());
    assert_eq!(code, Some(0));
    assert!(said.starts_with(expected), "{said}");
}

#[test]
fn lint_follows_links_as_browsers_do() {
    let site = TestSite::with(&[
        (
            "index.html",
            b"<a href=/app/docs/>a</a>\n<a href=docs/>b</a>\n<a href=/other/>c</a>\n\
              <a href=/style.css>d</a>\n<a href=/app/gone>e</a>\n",
        ),
        ("docs/index.html", b"<a href=../style.css>a</a>"),
        ("style.css", b"a{}"),
        ("_redirects", b"/old /docs/\n/lost /nowhere\n"),
    ]);
    let root = site.root();
    let (_, said) = run(&[&["lint", root.to_str().unwrap()][..], &BELOW].concat());
    let findings: Vec<_> = said.lines().filter(|line| line.contains(": ")).collect();
    for expected in [
        "_redirects:2: error: leads to /nowhere, where nothing is",
        "index.html:4: warning: links to /style.css, which lacks the base path of the site",
        "index.html:5: warning: links to /app/gone, where nothing is",
    ] {
        assert!(said.contains(expected), "{expected}: {findings:#?}");
    }
    assert!(said.contains("1 error, 2 warnings"), "{said}");
}

#[test]
fn the_base_path_is_a_setting_of_the_digest() {
    let site = site();
    let digest = |flags: &[&str]| {
        let root = site.root();
        let (_, said) = run(&[&["manifest", "--digest", root.to_str().unwrap()], flags].concat());
        said.lines().next().unwrap().to_owned()
    };
    let plain = digest(&[]);
    assert_eq!(digest(&["--base-path", "/"]), plain);
    assert_ne!(digest(&BELOW), plain);
    assert_eq!(digest(&["--base-path", "/app/"]), digest(&BELOW));
}

#[test]
fn pages_below_a_base_path_reload_by_themselves() {
    let page = |text: &str| {
        format!(
            "<!doctype html><html lang=en><title>t</title><link rel=icon href=data:,>\
             <link rel=stylesheet href=style.css><h1>{text}</h1></html>"
        )
    };
    let site = TestSite::with(&[("style.css", b"h1{}")]).file("index.html", page("one"));
    let developer = Developer::start(&site.root(), &BELOW);
    developer.wait_for_line("/app/");
    let mut client = developer.client();
    let script = "<script async src=\"/app/_etagd/reload.js\"></script>\n";
    let served = String::from_utf8(client.get("/app/").body).unwrap();
    assert!(served.ends_with(script), "{served}");
    assert_eq!(client.get("/app/_etagd/reload.js").status, 200);
    assert_eq!(client.get("/_etagd/reload.js").status, 404);
    let Some(browser) = Browser::start() else {
        return;
    };
    let open = browser.open(&developer.url("/app/"));
    for text in ["two", "three"] {
        fs::write(site.path("index.html"), page(text)).unwrap();
        let is_shown = format!("document.querySelector('h1')?.textContent === '{text}'");
        open.wait_for(&is_shown);
    }
    // A style changes without the page.
    open.value("window.mark = 'seen'");
    fs::write(site.path("style.css"), "h1 { color: rgb(9, 1, 1) }").unwrap();
    open.wait_for("getComputedStyle(document.querySelector('h1')).color === 'rgb(9, 1, 1)'");
    assert_eq!(open.value("window.mark"), "seen");
    assert_eq!(open.errors(), [""; 0]);
}

#[test]
fn dictionaries_are_for_what_is_below_the_base_path() {
    let site = TestSite::with(&[("assets/index-BfX3a91Z.js", b"'use strict'")]);
    let server = Server::with(&site, &[&BELOW[..], &["--immutable", "auto"]].concat());
    let response = server.client().get("/app/assets/index-BfX3a91Z.js");
    let expected = "match=\"/app/assets/index-*.js\"";
    assert_eq!(response.field("Use-As-Dictionary"), Some(expected));
}

#[test]
fn tags_do_not_depend_on_the_base_path() {
    let site = site();
    let server = Server::with(&site, &BELOW);
    let own = tag(PAGE);
    let response = server
        .client()
        .request("GET", "/app/", &[("If-None-Match", &own)]);
    assert_eq!(response.status, 304);
    assert_eq!(response.field("ETag"), Some(own.as_str()));
}
