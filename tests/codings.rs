//! Content codings whose files change while they are served: a coding that fails takes nobody's
//! content away, and one that moves is followed. And files that are compressed under their own name.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs::{self, File};
use std::io::Write;

use rustix::process::Signal;

use support::developer::Developer;
use support::tree::{digest_of, eventually, relink, rename_over};
use support::{Response, Server, TestSite, etagd, noise, tag};

/// Longer than what is read and proven whole, and not kept in memory.
const LONG: usize = 1_500_000;

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn gzipped(server: &Server, target: &str) -> Response {
    let fields = [("Accept-Encoding", "gzip")];
    server.client().request("GET", target, &fields)
}

fn is_gzip(response: &Response, content: &[u8]) -> bool {
    response.status == 200
        && response.field("Content-Encoding") == Some("gzip")
        && response.is_what_its_tag_says()
        && response.body == gzip(content)
}

fn served(site: &TestSite) -> Server {
    Server::with(site, &["--sweep", "1h"])
}

#[test]
fn a_sidecar_follows_its_file_in_one_batch() {
    let site = TestSite::with(&[("x.js", b"one"), ("x.js.gz", &gzip(b"one"))]);
    let server = served(&site);
    assert!(is_gzip(&gzipped(&server, "/x.js"), b"one"));
    for version in ["two", "three", "four"] {
        rename_over(&site.path("x.js"), version);
        rename_over(&site.path("x.js.gz"), gzip(version.as_bytes()));
        eventually("the new coding is sent", || {
            is_gzip(&gzipped(&server, "/x.js"), version.as_bytes())
        });
    }
}

#[test]
fn a_stale_sidecar_is_not_sent_and_a_mended_one_is() {
    let site = TestSite::with(&[("x.js", b"one"), ("x.js.gz", &gzip(b"one"))]);
    let server = served(&site);
    rename_over(&site.path("x.js"), "two");
    eventually("the content itself is sent", || {
        let response = gzipped(&server, "/x.js");
        response.body == b"two" && response.field("Content-Encoding").is_none()
    });
    rename_over(&site.path("x.js.gz"), gzip(b"two"));
    eventually("the coding is back", || {
        is_gzip(&gzipped(&server, "/x.js"), b"two")
    });
    fs::remove_file(site.path("x.js.gz")).unwrap();
    eventually("the content itself is sent", || {
        gzipped(&server, "/x.js").body == b"two"
    });
}

#[test]
fn a_sidecar_that_moves_with_equal_bytes_is_followed() {
    let content = noise(LONG, 1);
    let site = TestSite::with(&[
        ("x.js", &content),
        (".store/1.gz", &gzip(&content)),
        (".store/2.gz", &gzip(&content)),
    ])
    .symlink("x.js.gz", ".store/1.gz");
    let server = served(&site);
    relink(&site.path("x.js.gz"), ".store/2.gz");
    eventually("the coding is read from its new place", || {
        fs::remove_file(site.path(".store/1.gz")).is_ok()
            || is_gzip(&gzipped(&server, "/x.js"), &content)
    });
    eventually("and goes on being sent", || {
        is_gzip(&gzipped(&server, "/x.js"), &content)
    });
}

#[test]
fn a_sidecar_that_fails_takes_nobodys_content_away() {
    let content = noise(LONG, 1);
    let site = TestSite::with(&[("x.js", &content), ("x.js.gz", &gzip(&content))]);
    let server = served(&site);
    // Nobody knows yet what it will be, and its last bytes are gone.
    let writer = File::options()
        .write(true)
        .open(site.path("x.js.gz"))
        .unwrap();
    writer.set_len(1000).unwrap();
    let response = gzipped(&server, "/x.js");
    assert_eq!(response.status, 200);
    assert!(response.is_what_its_tag_says());
    assert_eq!(response.field("Content-Encoding"), None);
    assert_eq!(response.field("Vary"), Some("accept-encoding"));
    assert!(response.body == content);
    drop(writer);
}

/// What rules say of files that are compressed under their own name.
const RULES: &str = "/Build/*.gz\n Content-Encoding: GZIP\n/Build/*.br\n Content-Encoding: br\n\
                     /Build/*.zst\n Content-Encoding: zstd\n/Build/plain.gz\n ! Content-Encoding\n\
                     /Build/typed.gz\n Content-Type: text/x-own\n";

/// Path and content; Content-Encoding and Content-Type that come; what the suffix of the tag hashes.
type OwnCodingCase = (
    &'static str,
    Vec<u8>,
    Option<&'static str>,
    &'static str,
    String,
);

fn brotli(content: &[u8]) -> Vec<u8> {
    let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 18);
    encoder.write_all(content).unwrap();
    encoder.into_inner()
}

fn zstd(content: &[u8]) -> Vec<u8> {
    zstd::encode_all(content, 3).unwrap()
}

/// The tag of a body under fields that a 304 can't renew.
fn suffixed(body: &[u8], fields: &str) -> String {
    let hash = blake3::hash(fields.as_bytes()).to_hex();
    format!("{}-{}\"", tag(body).trim_end_matches('"'), &hash[..8])
}

#[test]
fn what_is_compressed_under_its_own_name_says_so_where_that_is_proven() {
    const SVG: &[u8] = b"<svg xmlns='http://www.w3.org/2000/svg'/>";
    let wasm = b"\0asm\x01\0\0\0";
    let long = noise(LONG, 3);
    let two_members = [gzip(b"one"), gzip(b"two")].concat();
    let coded = |coding: &str, media_type: &str| {
        format!("content-encoding: {coding}\ncontent-type: {media_type}\n")
    };
    const JS: &str = "text/javascript; charset=utf-8";
    #[rustfmt::skip]
    let cases: [OwnCodingCase; 17] = [
        ("Build/a.wasm.gz", gzip(wasm), Some("gzip"), "application/wasm", coded("gzip", "application/wasm")),
        ("Build/a.js.br", brotli(b"'use strict'"), Some("br"), JS, coded("br", JS)),
        ("Build/a.js.zst", zstd(b"'use strict'"), Some("zstd"), JS, coded("zstd", JS)),
        ("Build/latin1.js.gz", gzip(b"'\xe9'"), Some("gzip"), "text/javascript", coded("gzip", "text/javascript")),
        ("Build/a.data.gz", gzip(&long), Some("gzip"), "application/octet-stream", coded("gzip", "application/octet-stream")),
        ("Build/empty.txt.gz", gzip(b""), Some("gzip"), "text/plain; charset=utf-8", coded("gzip", "text/plain; charset=utf-8")),
        ("Build/typed.gz", gzip(b"x"), Some("gzip"), "text/x-own", coded("gzip", "text/x-own")),
        // The rule is taken back, or says what is not so.
        ("Build/plain.gz", gzip(b"x"), None, "application/gzip", String::new()),
        ("Build/none.gz", b"not gzip, whatever its name says".to_vec(), None, "application/gzip", String::new()),
        ("Build/cut.gz", gzip(&long)[..1000].to_vec(), None, "application/gzip", String::new()),
        ("Build/trailing.gz", [gzip(b"x"), b"y".to_vec()].concat(), None, "application/gzip", String::new()),
        ("Build/members.gz", two_members, None, "application/gzip", String::new()),
        ("Build/other.gz", brotli(b"x"), None, "application/gzip", String::new()),
        // No rule.
        ("backup.sql.gz", gzip(b"x"), None, "application/gzip", String::new()),
        ("logo.svgz", gzip(SVG), Some("gzip"), "image/svg+xml", String::new()),
        ("plain.svgz", SVG.to_vec(), None, "image/svg+xml", String::new()),
        ("broken.svgz", b"\x1f\x8b\0".to_vec(), None, "image/svg+xml", String::new()),
    ];
    let mut site = TestSite::new().file("_headers", RULES);
    for (path, content, ..) in &cases {
        site = site.file(path, content);
    }
    // Sidecars of what is compressed already.
    site = site
        .file("Build/a.wasm.gz.br", brotli(&gzip(wasm)))
        .file("logo.svgz.br", brotli(&gzip(SVG)));
    for flags in [&[][..], &["--memory", "64KiB"]] {
        let server = served_with(&site, flags);
        let mut client = server.client();
        for (path, content, coding, media_type, pinned) in &cases {
            let want = match pinned.as_str() {
                "" => tag(content),
                fields => suffixed(content, fields),
            };
            for accepted in [None, Some("br"), Some("identity"), Some("*;q=0")] {
                let fields: Vec<_> = accepted
                    .map(|it| ("Accept-Encoding", it))
                    .into_iter()
                    .collect();
                for method in ["GET", "HEAD"] {
                    let response = client.request(method, &format!("/{path}"), &fields);
                    let name = format!("{method} {path} {accepted:?} {flags:?}");
                    assert_eq!(response.status, 200, "{name}");
                    assert_eq!(response.field("Content-Encoding"), *coding, "{name}");
                    assert_eq!(response.field("Content-Type"), Some(*media_type), "{name}");
                    assert_eq!(response.field("ETag"), Some(&*want), "{name}");
                    assert_eq!(response.field("Vary"), None, "{name}");
                    if method == "GET" {
                        assert_eq!(response.body, *content, "{name}");
                    }
                }
            }
        }
        let log = server.log();
        for said in [
            "Build/none.gz is sent without \"Content-Encoding: gzip\": it is damaged, or no gzip at all",
            "Build/cut.gz is sent without \"Content-Encoding: gzip\": it is cut short",
            "Build/members.gz is sent without \"Content-Encoding: gzip\": it has several gzip members",
            "broken.svgz is sent without \"Content-Encoding: gzip\": ",
        ] {
            assert!(log.contains(said), "{said} is not in {log}");
        }
        for silent in [
            "plain.gz is",
            "plain.svgz is",
            "backup.sql.gz is",
            ".gz.br is",
        ] {
            assert!(!log.contains(silent), "{silent} is in {log}");
        }
    }
}

#[test]
fn what_is_wrong_is_said_once_also_where_a_file_is_being_written_at_a_start() {
    let site = TestSite::with(&[("Build/none.gz", b"not gzip")]).file("_headers", RULES);
    let mut half = File::create(site.path("half.txt")).unwrap();
    half.write_all(b"one half").unwrap();
    let server = served(&site);
    assert_eq!(server.client().get("/half.txt").status, 404);
    let log = server.log();
    let said = log.matches("Build/none.gz is sent without").count();
    assert_eq!(said, 1, "{log}");
    half.write_all(b", the other").unwrap();
    drop(half);
    server.wait_for_body("/half.txt", "one half, the other");
}

fn served_with(site: &TestSite, flags: &[&str]) -> Server {
    Server::with(site, &[&["--sweep", "1h"], flags].concat())
}

#[test]
fn ranges_and_conditions_are_about_the_compressed_bytes() {
    let content = gzip(&noise(LONG, 5));
    let site = TestSite::with(&[("Build/a.data.gz", &content)]).file("_headers", RULES);
    let server = served(&site);
    let mut client = server.client();
    let whole = client.request("HEAD", "/Build/a.data.gz", &[]);
    let etag = whole.field("ETag").unwrap().to_owned();
    let ranged = [("Range", "bytes=300000-700000"), ("If-Range", &*etag)];
    let part = client.request("GET", "/Build/a.data.gz", &ranged);
    assert_eq!(part.status, 206);
    assert_eq!(part.field("Content-Encoding"), Some("gzip"));
    assert_eq!(part.body, content[300_000..=700_000]);
    let plain = tag(&content);
    let unranged = [("Range", "bytes=0-1"), ("If-Range", &*plain)];
    assert_eq!(
        client.request("GET", "/Build/a.data.gz", &unranged).status,
        200
    );
    let same = client.request("GET", "/Build/a.data.gz", &[("If-None-Match", &*etag)]);
    assert_eq!(same.status, 304);
    assert_eq!(same.field("Content-Encoding"), None);
}

#[test]
fn an_error_page_may_be_compressed_too() {
    let page = gzip(b"<!doctype html><title>none</title>");
    let rules = "/404.html\n Content-Encoding: gzip\n";
    let site = TestSite::with(&[("404.html", &page)]).file("_headers", rules);
    let response = served(&site).client().get("/none");
    assert_eq!(response.status, 404);
    assert_eq!(response.field("Content-Encoding"), Some("gzip"));
    assert_eq!(
        response.field("Content-Type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(response.body, page);
}

#[test]
fn rules_and_files_change_while_it_is_served() {
    let (good, bad) = (gzip(b"'use strict'"), b"broken".to_vec());
    let site = TestSite::with(&[
        ("Build/a.js.gz", &good),
        ("Build/a.js.gz.br", &brotli(&good)),
    ]);
    let server = served(&site);
    let coding = || {
        let response =
            server
                .client()
                .request("GET", "/Build/a.js.gz", &[("Accept-Encoding", "br")]);
        // With a suffix, or without.
        let hash = blake3::hash(&response.body).to_hex();
        assert!(response.field("ETag").unwrap()[1..].starts_with(&*hash));
        response.field("Content-Encoding").map(str::to_owned)
    };
    assert_eq!(coding().as_deref(), Some("br"), "its sidecar");
    rename_over(&site.path("_headers"), RULES);
    eventually("the rule holds", || coding().as_deref() == Some("gzip"));
    rename_over(&site.path("Build/a.js.gz"), &bad);
    eventually("it does not decode", || coding().is_none());
    rename_over(&site.path("Build/a.js.gz"), &good);
    eventually("it does again", || coding().as_deref() == Some("gzip"));
    server.wait_until_it_serves(&site.root());
    fs::remove_file(site.path("_headers")).unwrap();
    eventually("the sidecar is back", || coding().as_deref() == Some("br"));
    server.wait_until_it_serves(&site.root());
}

#[test]
fn a_restart_makes_no_proof_again() {
    let content = gzip(&noise(LONG, 7));
    let site = TestSite::with(&[
        ("Build/a.data.gz", &content),
        ("Build/a.data.gz.zst", &zstd(&content)),
        ("a.svgz", &gzip(b"<svg/>")),
    ])
    .file("_headers", RULES);
    let state = site.outside("state");
    let flags = ["--state", state.to_str().unwrap()];
    let heads = |server: &Server| {
        ["/Build/a.data.gz", "/a.svgz"].map(|path| {
            let head = server.client().request("HEAD", path, &[]);
            let names = ["Content-Encoding", "Content-Type", "ETag"];
            names.map(|name| head.field(name).map(str::to_owned))
        })
    };
    let mut first = served_with(&site, &flags);
    let before = heads(&first);
    assert_eq!(before[0][0].as_deref(), Some("gzip"));
    assert_eq!(before[1][0].as_deref(), Some("gzip"));
    eventually("it is saved", || state.exists());
    first.signal(Signal::TERM);
    assert!(first.wait().success());
    let second = served_with(&site, &flags);
    assert!(second.log().contains(" 0 rehashed"), "{}", second.log());
    assert_eq!(heads(&second), before);
    assert_eq!(second.digest(), digest_of(&site.root()));
    // The rule goes while nothing is served.
    let mut second = second;
    second.signal(Signal::TERM);
    assert!(second.wait().success());
    fs::remove_file(site.path("_headers")).unwrap();
    let third = served_with(&site, &flags);
    assert_eq!(heads(&third)[0][0], None);
    assert_eq!(heads(&third)[1], before[1]);
    assert_eq!(third.digest(), digest_of(&site.root()));
}

#[test]
fn a_developer_sees_it_too() {
    let page = gzip(b"<!doctype html><title>a</title>");
    let site = TestSite::with(&[("a.svgz", &gzip(b"<svg/>")), ("Build/a.html.gz", &page)])
        .file("_headers", RULES);
    let developer = Developer::start(&site.root(), &[]);
    let mut client = developer.client();
    let image = client.get("/a.svgz");
    assert_eq!(image.field("Content-Encoding"), Some("gzip"));
    let document = client.get("/Build/a.html.gz");
    assert_eq!(document.field("Content-Encoding"), Some("gzip"));
    assert_eq!(
        document.field("Content-Type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(document.body, page, "without a script");
}

#[test]
fn lint_says_why_a_coding_is_not_sent() {
    let site = TestSite::with(&[
        ("Build/a.gz", b"not gzip, whatever its name says"),
        ("Build/b.gz", b"neither"),
        ("Build/c.gz", &gzip(b"it is")),
        ("d.svgz", b"\x1f\x8b\0"),
        ("e.svgz", b"<svg/>"),
    ])
    .file("_headers", "/x\n A: b\n/Build/*\n Content-Encoding: gzip\n");
    let output = etagd([
        "lint",
        site.root().to_str().unwrap(),
        "--allow",
        "headers-unused",
    ]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for line in [
        "_headers:3: error: /Build/a.gz is sent without \"Content-Encoding: gzip\": it is damaged, or no \
         gzip at all; and so is 1 more file [content-encoding]",
        "d.svgz: error: is sent without \"Content-Encoding: gzip\": it is cut short [content-encoding]",
    ] {
        assert!(said.contains(line), "{line} is not in {said}");
    }
    assert!(!said.contains("e.svgz"), "{said}");
}
