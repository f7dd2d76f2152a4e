//! A site with `_headers` and `_redirects`, served: which fields responses carry, where requests
//! are led, and that both follow their files. What a line of either means is in `tests/rules`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;

use support::tree::{eventually, relink, rename_over};
use support::{Client, Response, Server, TestSite, noise, tag};

const PAGE: &[u8] = b"<!doctype html><title>page</title>";

/// A site of pages and assets with these rules.
fn site(headers: &str, redirects: &str) -> TestSite {
    TestSite::with(&[
        ("index.html", PAGE),
        ("404.html", b"<!doctype html><title>none</title>"),
        ("410.html", b"<!doctype html><title>gone</title>"),
        ("about.html", PAGE),
        ("docs/index.html", PAGE),
        ("app/index.html", b"<!doctype html><title>app</title>"),
        ("app/main.js", b"'use strict'"),
        ("big.bin", &noise(400_000, 1)),
    ])
    .file("_headers", headers)
    .file("_redirects", redirects)
}

/// The tag of a body under fields that a 304 can't renew: what `printf 'name: value\n' | b3sum`
/// begins with, behind the tag of the bytes.
fn suffixed(body: &[u8], fields: &str) -> String {
    let hash = blake3::hash(fields.as_bytes()).to_hex();
    format!("{}-{}\"", tag(body).trim_end_matches('"'), &hash[..8])
}

fn get(client: &mut Client, target: &str, fields: &[(&str, &str)]) -> Response {
    client.request("GET", target, fields)
}

#[test]
fn fields_are_on_every_answer_that_may_have_them() {
    let site = site(
        "/*\n  X-Everywhere: yes\n  Content-Language: en\n  Cache-Control: max-age=60\n\
         \x20 CDN-Cache-Control: max-age=600\n  ! X-Content-Type-Options\n",
        "",
    );
    let server = Server::start(&site);
    let mut client = server.client();
    let whole = get(&mut client, "/big.bin", &[]);
    assert_eq!(whole.status, 200);
    assert_eq!(whole.field("X-Everywhere"), Some("yes"));
    assert_eq!(whole.field("Content-Language"), Some("en"));
    assert_eq!(whole.field("Cache-Control"), Some("max-age=60"));
    assert_eq!(whole.field("X-Content-Type-Options"), None);
    let etag = whole.field("ETag").unwrap().to_owned();

    let part = get(&mut client, "/big.bin", &[("Range", "bytes=1-2")]);
    assert_eq!(part.status, 206);
    for name in ["X-Everywhere", "Content-Language", "Cache-Control", "ETag"] {
        assert_eq!(part.field(name), whole.field(name), "206 {name}");
    }
    let parts = get(&mut client, "/big.bin", &[("Range", "bytes=1-2,400-500")]);
    assert_eq!(parts.status, 206);
    assert_eq!(parts.field("X-Everywhere"), Some("yes"));

    let same = get(&mut client, "/big.bin", &[("If-None-Match", &etag)]);
    assert_eq!(same.status, 304);
    assert_eq!(same.field("X-Everywhere"), Some("yes"));
    assert_eq!(same.field("Cache-Control"), Some("max-age=60"));
    assert_eq!(same.field("ETag"), Some(etag.as_str()));
    // RFC 9110 section 15.4.5: nothing about the content.
    assert_eq!(same.field("Content-Language"), None);
    assert_eq!(same.field("Content-Type"), None);

    let errors = [
        get(&mut client, "/none", &[]),
        get(&mut client, "/big.bin", &[("If-Match", "\"other\"")]),
        get(&mut client, "/big.bin", &[("Range", "bytes=400000-")]),
    ];
    for (error, status) in errors.iter().zip([404, 412, 416]) {
        assert_eq!(error.status, status);
        assert_eq!(error.field("X-Everywhere"), Some("yes"), "{status}");
        let cache_control = error.field("Cache-Control");
        assert_eq!(
            cache_control,
            Some("private, no-store, max-age=0"),
            "{status}"
        );
        assert_eq!(error.field("CDN-Cache-Control"), None, "{status}");
        assert_eq!(error.field("ETag"), None, "{status}");
        assert_eq!(error.field("Content-Language"), None, "{status}");
    }
    let content_type = errors[0].field("Content-Type");
    assert_eq!(content_type, Some("text/html; charset=utf-8"));
    let options = client.request("OPTIONS", "/big.bin", &[]);
    assert_eq!(
        (options.status, options.field("X-Everywhere")),
        (204, Some("yes"))
    );
}

#[test]
fn fields_are_on_what_is_refused_and_on_what_changes() {
    let headers = "/*\n  X-Everywhere: yes\n  Cache-Control: max-age=60\n  Vary: X-Other\n\
                   \x20 Content-Security-Policy: default-src 'self'\n";
    // Nothing is published, so nobody knows what the file is now.
    let site = site(headers, "").file(".etagd-hold", "");
    let server = Server::with(&site, &["--memory", "64KiB", "--digest-header"]);
    let mut client = server.client();
    let digest = get(&mut client, "/", &[])
        .field("Etagd-Digest")
        .map(str::to_owned);
    rename_over(&site.path("big.bin"), noise(400_000, 2));
    let empty = ("Content-Length", "0");
    for (status, response) in [
        (503, get(&mut client, "/big.bin", &[])),
        (405, client.request("POST", "/big.bin", &[empty])),
        (501, client.request("BREW", "/big.bin", &[empty])),
    ] {
        assert_eq!(response.status, status);
        assert_eq!(response.field("X-Everywhere"), Some("yes"), "{status}");
        assert_eq!(response.field("Vary"), Some("X-Other"), "{status}");
        assert_eq!(
            response.field("Cache-Control"),
            Some("private, no-store, max-age=0"),
            "{status}"
        );
        assert_eq!(
            response.field("Etagd-Digest"),
            digest.as_deref(),
            "{status}"
        );
        // The page keeps the policy that its own style needs.
        let policy = response.field("Content-Security-Policy").unwrap();
        assert!(policy.contains("default-src 'none'"), "{status}: {policy}");
    }
}

#[test]
fn rules_match_the_path_that_is_asked_for() {
    let site = site(
        "/\n  X-Path: root\n/index.html\n  X-Path: index\n/about\n  X-Path: about\n\
         /about.html\n  X-Path: file\n/docs/*\n  X-Path: docs :splat\n/404.html\n  X-Path: page\n\
         /app/x\n  X-Path: rewritten\n  Content-Type: text/x-app\n/none\n  X-Path: none\n",
        "/app/* /app/index.html 200\n",
    );
    let server = Server::start(&site);
    let mut client = server.client();
    for (target, status, path) in [
        ("/", 200, Some("root")),
        ("/index.html", 200, Some("index")),
        ("/about", 200, Some("about")),
        ("/about.html", 200, Some("file")),
        ("/docs/", 200, Some("docs")),
        ("/docs/index.html", 200, Some("docs index.html")),
        ("/404.html", 200, Some("page")),
        ("/none", 404, Some("none")),
        ("/none/", 404, Some("none")),
        ("/other", 404, None),
        ("/app/", 200, None),
        ("/app/x", 200, Some("rewritten")),
        ("/app/y", 200, None),
        ("/docs", 308, None),
    ] {
        let response = get(&mut client, target, &[]);
        assert_eq!(response.status, status, "{target}");
        assert_eq!(response.field("X-Path"), path, "{target}");
    }
    // The same page under two paths: other fields, and so another tag where they count.
    let app = b"<!doctype html><title>app</title>";
    let plain = get(&mut client, "/app/y", &[]);
    assert_eq!(plain.field("ETag"), Some(tag(app).as_str()));
    let ruled = get(&mut client, "/app/x", &[]);
    let etag = suffixed(app, "content-type: text/x-app\n");
    assert_eq!(ruled.field("ETag"), Some(etag.as_str()));
    assert_eq!(ruled.field("Content-Type"), Some("text/x-app"));
    let same = get(&mut client, "/app/x", &[("If-None-Match", &etag)]);
    assert_eq!(same.status, 304);
    let other = get(&mut client, "/app/y", &[("If-None-Match", &etag)]);
    assert_eq!(other.status, 200);
}

#[test]
fn listings_have_the_fields_of_their_path() {
    let site = site(
        "/app/*\n  X-Path: [:splat]\n  X-Frame-Options: DENY\n/app/\n  Vary: Origin\n\
         https://h.example/app/\n  X-Host: h\n",
        "/app/old/ /about 302\n/app/sub/ /about 302\n",
    )
    .file("app/sub/a.txt", "a");
    fs::remove_file(site.path("app/index.html")).unwrap();
    let server = Server::with(&site, &["--listing"]);
    let mut client = server.client();
    let listing = get(&mut client, "/app/", &[]);
    assert_eq!((listing.status, listing.field("X-Path")), (200, Some("[]")));
    assert_eq!(listing.field("Vary"), Some("accept, Origin"));
    assert_eq!(listing.field("X-Host"), None);
    let etag = suffixed(&listing.body, "x-frame-options: DENY\n");
    assert_eq!(listing.field("ETag"), Some(etag.as_str()));
    let same = get(&mut client, "/app/", &[("If-None-Match", &etag)]);
    assert_eq!((same.status, same.field("X-Path")), (304, Some("[]")));
    // A rule wins over a list of files, as it does over nothing.
    assert_eq!(get(&mut client, "/app/sub/", &[]).status, 302);
    client
        .send("GET /app/ HTTP/1.1\r\nHost: h.example\r\n\r\n")
        .unwrap();
    let hosted = client.receive("GET").unwrap().unwrap();
    assert_eq!(hosted.field("X-Host"), Some("h"));
}

#[test]
fn rules_with_a_host_apply_to_that_host_only() {
    let site = site(
        "https://preview.example/*\n  X-Robots-Tag: noindex\n/\n  X-All: yes\n",
        "http://old.example/* https://new.example/:splat 301!\n/only https://new.example/x\n",
    );
    let server = Server::start(&site);
    let mut client = server.client();
    let mut of = |host: &str, target: &str| {
        client
            .send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .unwrap();
        client.receive("GET").unwrap().unwrap()
    };
    let preview = of("preview.example:8080", "/");
    assert_eq!(preview.field("X-Robots-Tag"), Some("noindex"));
    assert_eq!(preview.field("X-All"), Some("yes"));
    let other = of("www.example", "/");
    assert_eq!(
        (other.field("X-Robots-Tag"), other.field("X-All")),
        (None, Some("yes"))
    );
    let missing = of("preview.example", "/missing");
    assert_eq!(
        (missing.status, missing.field("X-Robots-Tag")),
        (404, Some("noindex"))
    );
    let old = of("OLD.example", "/about?x");
    assert_eq!(old.field("Location"), Some("https://new.example/about?x"));
    assert_eq!(of("new.example", "/about").status, 200);
    assert_eq!(
        of("www.example", "/only").field("Location"),
        Some("https://new.example/x")
    );
}

#[test]
fn vary_and_codings_stay_right() {
    let site = site(
        "/*\n  Vary: Origin\n/page.html\n  Content-Type: text/x-page\n/docs/*\n  Vary: origin, X-Other\n",
        "",
    );
    let page = "a page with much of the same, ".repeat(100);
    fs::write(site.path("page.html"), &page).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(page.as_bytes()).unwrap();
    let gzip = encoder.finish().unwrap();
    fs::write(site.path("page.html.gz"), &gzip).unwrap();
    let server = Server::start(&site);
    let mut client = server.client();
    let field = "content-type: text/x-page\n";
    for (coding, body) in [("identity", page.as_bytes()), ("gzip", &gzip)] {
        let response = get(&mut client, "/page.html", &[("Accept-Encoding", coding)]);
        assert_eq!(
            response.field("Vary"),
            Some("accept-encoding, Origin"),
            "{coding}"
        );
        assert_eq!(
            response.field("ETag"),
            Some(suffixed(body, field).as_str()),
            "{coding}"
        );
        assert_eq!(response.body, body, "{coding}");
    }
    // The sidecar by its own name is a file of its own, to which that rule does not apply.
    let sidecar = get(&mut client, "/page.html.gz", &[]);
    assert_eq!(sidecar.field("ETag"), Some(tag(&gzip).as_str()));
    // Named once, also where two rules or etagd itself name it, and where the answer is an error.
    let other_tag = [("If-Match", "\"x\"")];
    for (target, fields, expected) in [
        ("/about", &[][..], (200, "Origin")),
        ("/docs/", &[], (200, "Origin, X-Other")),
        ("/about", &other_tag, (412, "Origin")),
        ("/page.html", &other_tag, (412, "accept-encoding, Origin")),
    ] {
        let response = get(&mut client, target, fields);
        let found = (response.status, response.field("Vary"));
        assert_eq!(found, (expected.0, Some(expected.1)), "{target}");
    }
}

#[test]
fn a_rule_makes_assets_immutable() {
    let site = site(
        "/app/*\n  Cache-Control: max-age=31536000, immutable\n",
        "/latest.js /app/main.js 200\n",
    );
    let server = Server::start(&site);
    let mut client = server.client();
    let immutable = Some("max-age=31536000, immutable");
    let whole = get(&mut client, "/app/main.js", &[]);
    assert_eq!(whole.field("Cache-Control"), immutable);
    // Cache-Control is taken from a 304: the tag is that of the bytes.
    let etag = tag(b"'use strict'");
    assert_eq!(whole.field("ETag"), Some(etag.as_str()));
    let part = get(&mut client, "/app/main.js", &[("Range", "bytes=0-1")]);
    assert_eq!(part.field("Cache-Control"), immutable);
    let same = get(&mut client, "/app/main.js", &[("If-None-Match", &etag)]);
    assert_eq!((same.status, same.field("Cache-Control")), (304, immutable));
    // Another URL that leads there makes no such promise.
    let latest = get(&mut client, "/latest.js", &[]);
    assert_eq!(latest.body, b"'use strict'");
    assert_eq!(
        latest.field("Cache-Control"),
        Some("max-age=0, must-revalidate")
    );

    // A fingerprint that is not the file's is reported.
    fs::write(site.path("app/main.js"), "'use something else'").unwrap();
    server.wait_for(|lines| {
        lines
            .iter()
            .any(|line| line.contains("/app/main.js was served as immutable"))
    });
}

#[test]
fn a_rule_takes_a_file_out_of_those_that_are_immutable_by_their_names() {
    let site = TestSite::with(&[("runtime-8d3f2a1c.js", b"1"), ("app-8d3f2a1c.js", b"2")])
        .file("_headers", "/runtime-*\n  Cache-Control: no-cache\n");
    let server = Server::with(&site, &["--immutable", "auto"]);
    for (path, expected) in [
        ("/runtime-8d3f2a1c.js", "no-cache"),
        ("/app-8d3f2a1c.js", "max-age=31536000, immutable"),
    ] {
        let response = server.client().get(path);
        assert_eq!(response.field("Cache-Control"), Some(expected), "{path}");
    }
    // Of these, other content under such a name is reported.
    for name in ["runtime-8d3f2a1c.js", "app-8d3f2a1c.js"] {
        fs::write(site.path(name), "other content").unwrap();
    }
    server.wait_for(|lines| {
        lines
            .iter()
            .any(|line| line.contains("/app-8d3f2a1c.js was served as immutable"))
    });
    assert!(!server.log().contains("runtime-8d3f2a1c.js was served"));
}

const REDIRECTS: &str = "/old /about\n/old/:name /about?n=:name 302\n/store id=:id /items/:id 307\n\
    /about /elsewhere\n/docs /elsewhere 301!\n/gone/* /410.html 410\n/lost/* /nowhere.html 404\n\
    /law /404.html 451\n/rewrite /about 200\n/nothing /nowhere 200\n/go/* /:splat 301\n\
    /app/* /app/index.html 200\n/out https://example.com/x?y=z 303\n";

#[test]
fn redirects_are_followed_where_no_file_is() {
    let site = site("", REDIRECTS);
    let server = Server::start(&site);
    let mut client = server.client();
    for (target, status, location) in [
        ("/old", 301, Some("/about")),
        ("/old/", 301, Some("/about")),
        ("/old?x=1", 301, Some("/about?x=1")),
        ("/old/n%20m", 302, Some("/about?n=n%20m")),
        ("/store?id=7", 307, Some("/items/7")),
        ("/store?id=7&x=1", 404, None),
        ("/about", 200, None),
        ("/docs", 301, Some("/elsewhere")),
        ("/docs/", 301, Some("/elsewhere")),
        ("/docs/index.html", 200, None),
        ("/gone/x", 410, None),
        ("/lost/x", 404, None),
        ("/law", 451, None),
        ("/rewrite", 200, None),
        ("/nothing", 404, None),
        ("/out?a=b", 303, Some("https://example.com/x?y=z")),
        ("/go//evil.example", 301, Some("/evil.example")),
        ("/go/%5Cevil.example", 301, Some("/%5Cevil.example")),
        ("/go/a%0d%0ab", 301, Some("/a%0D%0Ab")),
        ("//go/evil.example", 301, Some("/evil.example")),
        ("/app/any/where", 200, None),
        ("/app/main.js", 200, None),
    ] {
        let response = get(&mut client, target, &[]);
        assert_eq!(response.status, status, "{target}");
        assert_eq!(response.field("Location"), location, "{target}");
        let head = client.request("HEAD", target, &[]);
        assert_eq!(
            (head.status, head.field("Location")),
            (status, location),
            "HEAD {target}"
        );
        if status >= 400 {
            let cache_control = response.field("Cache-Control");
            assert_eq!(
                cache_control,
                Some("private, no-store, max-age=0"),
                "{target}"
            );
            assert_eq!(response.field("ETag"), None, "{target}");
        }
    }
    let body = |client: &mut Client, target: &str| get(client, target, &[]).body;
    assert!(body(&mut client, "/gone/x").ends_with(b"<title>gone</title>"));
    assert!(body(&mut client, "/lost/x").ends_with(b"<title>none</title>"));
    assert_eq!(body(&mut client, "/rewrite"), PAGE);
    assert_eq!(body(&mut client, "/app/main.js"), b"'use strict'");
    // A rewrite has the tag of what it leads to, with all that follows from one.
    let etag = tag(b"<!doctype html><title>app</title>");
    let rewritten = get(&mut client, "/app/any/where", &[]);
    assert_eq!(rewritten.field("ETag"), Some(etag.as_str()));
    let same = get(&mut client, "/app/any/where", &[("If-None-Match", &etag)]);
    assert_eq!(same.status, 304);
    let part = get(
        &mut client,
        "/app/any/where",
        &[("Range", "bytes=0-1"), ("If-Range", &etag)],
    );
    assert_eq!((part.status, &part.body[..]), (206, &b"<!"[..]));
    assert_eq!(
        client
            .request("POST", "/old", &[("Content-Length", "0")])
            .status,
        405
    );
}

#[test]
fn cloudflares_rules_take_precedence_over_files() {
    let site = site("", "/about /elsewhere\n/docs/ /papers\n/app/* /about 200\n");
    for flags in [&["--redirects", "cloudflare"][..], &[]] {
        let server = Server::with(&site, flags);
        let mut client = server.client();
        let answers = ["/about", "/docs/", "/app/main.js"].map(|target| {
            let response = get(&mut client, target, &[]);
            (
                response.status,
                response.field("Location").map(str::to_owned),
            )
        });
        let elsewhere = |status, to: &str| (status, Some(to.to_owned()));
        if flags.is_empty() {
            assert_eq!(answers, [(200, None), (200, None), (200, None)]);
        } else {
            assert_eq!(
                answers,
                [
                    elsewhere(302, "/elsewhere"),
                    elsewhere(302, "/papers"),
                    (200, None)
                ]
            );
            assert_eq!(get(&mut client, "/app/main.js", &[]).body, PAGE);
        }
    }
}

#[test]
fn rewrites_go_where_clean_urls_lead() {
    let site = site(
        "",
        "/app/* /app/index.html 200\n/a /about.html 200\n/d /docs/index.html 200\n",
    );
    for word in [
        "auto-trailing-slash",
        "force-trailing-slash",
        "drop-trailing-slash",
        "none",
        "suffix",
    ] {
        let server = Server::with(&site, &["--html-handling", word]);
        let mut client = server.client();
        for target in ["/app/any/where", "/a", "/d"] {
            assert_eq!(get(&mut client, target, &[]).status, 200, "{word} {target}");
        }
    }
}

/// A rule that wins over files, and clean URLs that lead back to where it is: no loop comes of it.
#[test]
fn clean_urls_and_rules_make_no_redirect_loop() {
    let site = site(
        "",
        "/about /about.html 301!\n/docs/ /docs 301!\n/docs/index /docs/ 301!\n\
         /to/* /docs/:splat 301!\n/query v=1 /about.html 301!\n\
         https://own.example/app http://own.example/app/index.html 302!\n\
         /app x=1 /app/index.html?x=1 301!\n",
    );
    for word in [
        "auto-trailing-slash",
        "force-trailing-slash",
        "drop-trailing-slash",
        "suffix",
    ] {
        for dialect in ["netlify", "cloudflare"] {
            let flags = ["--html-handling", word, "--redirects", dialect];
            let server = Server::with(&site, &flags);
            let mut client = server.client();
            for target in [
                "/about",
                "/about/",
                "/about.html",
                "/docs",
                "/docs/",
                "/docs/index",
                "/to/",
                "/query?v=1",
                "/app",
                "/app?x=1",
                "/app/",
            ] {
                let mut at = target.to_owned();
                let mut way = Vec::new();
                let status = loop {
                    client
                        .send(format!("GET {at} HTTP/1.1\r\nHost: own.example\r\n\r\n"))
                        .unwrap();
                    let response = client.receive("GET").unwrap().unwrap();
                    let Some(location) = response.field("Location") else {
                        break response.status;
                    };
                    let from = url::Url::parse(&format!("http://own.example{at}")).unwrap();
                    let led = from.join(location).unwrap();
                    at = led
                        .as_str()
                        .trim_start_matches("http://own.example")
                        .to_owned();
                    way.push(at.clone());
                    assert!(way.len() < 5, "{word} {dialect} {target}: {way:?}");
                };
                let may_miss = dialect == "cloudflare";
                let is_found = status == 200 || (may_miss && status == 404);
                assert!(is_found, "{word} {dialect} {target}: {way:?} {status}");
            }
        }
    }
}

#[test]
fn a_rule_for_a_path_counts_under_a_query_that_pins_it() {
    let site = site("/app/*\n  Cache-Control: private\n", "");
    let server = Server::with(&site, &["--immutable-query"]);
    let mut client = server.client();
    for (path, body, wanted) in [
        ("app/main.js", &b"'use strict'"[..], "private"),
        ("big.bin", &noise(400_000, 1), "max-age=31536000, immutable"),
    ] {
        let target = format!("/{path}?v={}", blake3::hash(body).to_hex());
        let response = get(&mut client, &target, &[]);
        assert_eq!(response.field("Cache-Control"), Some(wanted), "{target}");
    }
}

#[test]
fn a_rule_comes_before_the_single_page_and_after_what_is_kept() {
    let site = site("", "/app/* /about 301\n");
    let flags = ["--not-found", "single-page-application", "--keep-old", "1h"];
    let server = Server::with(&site, &flags);
    let mut client = server.client();
    let page = [("Accept", "text/html")];
    assert_eq!(get(&mut client, "/app/x", &page).status, 301);
    assert_eq!(get(&mut client, "/elsewhere", &page).status, 200);
    fs::remove_file(site.path("app/main.js")).unwrap();
    fs::remove_file(site.path("app/index.html")).unwrap();
    eventually("the page is gone", || {
        get(&mut client, "/app/", &page).status == 301
    });
    assert_eq!(
        get(&mut client, "/app/main.js", &page).body,
        b"'use strict'"
    );
}

#[test]
fn the_files_themselves_are_served_under_no_spelling() {
    let site = site("/*\n X: y\n", "/_redirects /about 301\n/x /y 301\n")
        .file("_headers.br", "x")
        .file("_headers.gz", "x")
        .file("_redirects.zst", "x")
        .file("_headers.txt", "another")
        .file("sub/_headers", "a file like any other");
    let server = Server::start(&site);
    let mut client = server.client();
    for target in [
        "/_headers",
        "/_headers/",
        "/_headers.br",
        "/_headers.gz",
        "/_redirects.zst",
        "/%5fheaders",
        "//_headers",
        "/_Headers",
    ] {
        let response = get(
            &mut client,
            target,
            &[("Accept-Encoding", "br, gzip, zstd")],
        );
        assert_eq!(response.status, 404, "{target}");
    }
    assert_eq!(get(&mut client, "/_redirects", &[]).status, 301);
    assert_eq!(get(&mut client, "/_headers.txt", &[]).status, 200);
    assert_eq!(
        get(&mut client, "/sub/_headers", &[]).body,
        b"a file like any other"
    );
}

#[test]
fn changes_of_the_files_are_followed() {
    let site = site("/*\n X: 1\n", "/old /about\n");
    let server = Server::with(&site, &["--sweep", "1h"]);
    let mut client = server.client();
    let mut field = || {
        get(&mut client, "/about", &[])
            .field("X")
            .map(str::to_owned)
    };
    assert_eq!(field().as_deref(), Some("1"));
    rename_over(&site.path("_headers"), "/*\n X: 2\n");
    eventually("the second", || field().as_deref() == Some("2"));
    fs::write(site.path("_headers"), "/*\n X: 3\n").unwrap();
    eventually("the third", || field().as_deref() == Some("3"));
    fs::remove_file(site.path("_headers")).unwrap();
    eventually("none", || field().is_none());
    fs::write(site.path("_headers"), "/about.html\n X: 4\n/about\n X: 5\n").unwrap();
    eventually("one for each spelling", || field().as_deref() == Some("5"));

    let mut client = server.client();
    let mut location = || {
        get(&mut client, "/old", &[])
            .field("Location")
            .map(str::to_owned)
    };
    assert_eq!(location().as_deref(), Some("/about"));
    rename_over(&site.path("_redirects"), "/old /docs/\n");
    eventually("another target", || location().as_deref() == Some("/docs/"));
    fs::remove_file(site.path("_redirects")).unwrap();
    eventually("no target", || location().is_none());

    // Through a link, as a ConfigMap is mounted, and a directory swapped under it.
    fs::create_dir(site.path("..data-1")).unwrap();
    fs::create_dir(site.path("..data-2")).unwrap();
    fs::write(site.path("..data-1/_redirects"), "/old /one\n").unwrap();
    fs::write(site.path("..data-2/_redirects"), "/old /two\n").unwrap();
    symlink("..data-1", site.path("..data")).unwrap();
    symlink("..data/_redirects", site.path("_redirects")).unwrap();
    eventually("through a link", || location().as_deref() == Some("/one"));
    relink(&site.path("..data"), "..data-2");
    eventually("through another", || location().as_deref() == Some("/two"));
}

#[test]
fn a_comment_changes_nothing_and_a_rule_publishes_once() {
    let site = site("/*\n X: 1\n", "");
    let server = Server::with(&site, &["--sweep", "1h"]);
    let mut client = server.client();
    let published = |number: usize| {
        server.wait_for(|lines| {
            let published = lines.iter().filter(|line| line.contains("published:"));
            published.count() >= number
        });
        assert_eq!(server.publications(), number, "{}", server.log());
    };
    // What is published after it shows that it was seen, and published nothing.
    rename_over(&site.path("_headers"), "# why\n/*\n  X:  1\n");
    fs::write(site.path("other.txt"), "1").unwrap();
    eventually("the other file", || {
        get(&mut client, "/other.txt", &[]).status == 200
    });
    published(1);
    rename_over(&site.path("_headers"), "/*\n X: 2\n");
    eventually("the new value", || {
        get(&mut client, "/about", &[]).field("X") == Some("2")
    });
    published(2);
    assert!(server.log().contains("0 changed, 0 removed, new rules"));
}

#[test]
fn a_file_that_is_being_written_waits() {
    let site = site("/*\n X: 1\n", "");
    let server = Server::with(&site, &["--sweep", "1h"]);
    let mut client = server.client();
    let mut file = File::options()
        .write(true)
        .truncate(true)
        .open(site.path("_headers"))
        .unwrap();
    file.write_all(b"/*\n X: 2\n").unwrap();
    // A change that is there shows that the first was looked at.
    fs::write(site.path("other.txt"), "1").unwrap();
    eventually("the other file", || {
        get(&mut client, "/other.txt", &[]).status == 200
    });
    assert_eq!(get(&mut client, "/about", &[]).field("X"), Some("1"));
    file.write_all(b" Y: 3\n").unwrap();
    drop(file);
    eventually("all of it", || {
        let response = get(&mut client, "/about", &[]);
        // Never half of it.
        assert_eq!(
            response.field("X") == Some("2"),
            response.field("Y") == Some("3")
        );
        response.field("Y").is_some()
    });
}

#[test]
fn bad_lines_are_reported_with_file_line_and_reason() {
    let site = site(
        "/*\n ETag: x\n X: 1\n",
        "/a\n/old /about\n/api/* https://x.example/:splat 200\n",
    );
    let server = Server::start(&site);
    let has =
        |text: &'static str| move |lines: &[String]| lines.iter().any(|line| line.contains(text));
    server.wait_for(has("_headers:2: rules cannot set or remove etag"));
    server.wait_for(has("_redirects:1: the target is missing"));
    server.wait_for(has("_redirects:3: etagd does not proxy"));
    let mut client = server.client();
    assert_eq!(get(&mut client, "/old", &[]).status, 301);
    assert_eq!(get(&mut client, "/", &[]).field("X"), Some("1"));
    fs::write(site.path("_redirects"), "/b /c 999\n/old /about 302\n").unwrap();
    server.wait_for(has("_redirects:1: unsupported status 999"));
    eventually("the good line", || {
        get(&mut client, "/old", &[]).status == 302
    });
    assert_eq!(server.log().matches("_headers:2").count(), 1, "said once");
}

#[test]
fn a_304_has_the_content_location_that_a_rule_gives() {
    // RFC 9110 section 15.4.5: of the fields about content, this one alone.
    let site = site(
        "/*\n  Content-Location: /elsewhere\n  Content-Disposition: inline\n",
        "",
    );
    let server = Server::start(&site);
    let mut client = server.client();
    for target in ["/about", "/app/main.js", "/big.bin"] {
        let whole = get(&mut client, target, &[]);
        let etag = whole.field("ETag").unwrap().to_owned();
        assert_eq!(whole.field("Content-Location"), Some("/elsewhere"));
        assert_eq!(whole.field("Content-Disposition"), Some("inline"));
        let same = get(&mut client, target, &[("If-None-Match", &etag)]);
        assert_eq!(
            (same.status, same.field("Content-Location")),
            (304, Some("/elsewhere")),
            "{target}"
        );
        assert_eq!(same.field("Content-Disposition"), None, "{target}");
    }
}
