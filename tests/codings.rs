//! Content codings whose files change while they are served: a coding that fails takes nobody's
//! content away, and one that moves is followed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs::{self, File};
use std::io::Write;

use support::tree::{eventually, relink, rename_over};
use support::{Response, Server, TestSite, noise};

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
