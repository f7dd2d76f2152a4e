//! Files that take long to hash, while others change.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use super::served;
use super::support::Server;
use super::support::TestSite;
use super::support::tree::stays;
use super::support::wire::head;

/// A sparse file: it takes seconds to hash, and no room on the disk.
fn huge(site: &TestSite, name: &str) {
    let file = File::create(site.path(name)).unwrap();
    file.set_len(24 << 30).unwrap();
}

fn is_published(server: &Server, target: &str) -> bool {
    server.client().get(target).status == 200
}

#[test]
fn a_change_does_not_wait_until_a_huge_file_is_hashed() {
    let site = TestSite::with(&[("a.txt", b"1"), ("index.html", b"1")]);
    let server = Server::with(&site, &["--sweep", "1s", "--writable"]);
    huge(&site, "vm.img");
    // It is being hashed when the other one changes, which is another batch then.
    server.wait_until_it_reads("vm.img");
    fs::write(site.path("a.txt"), "2").unwrap();
    stays(Duration::from_millis(800), "the order is kept", || {
        server.body("/a.txt").as_deref() == Some(b"1")
    });
    let start = Instant::now();
    let mut client = server.client();
    client
        .send(
            head(
                "PUT",
                "/put.txt",
                &[("If-None-Match", "*"), ("Content-Length", "1")],
            ) + "x",
        )
        .unwrap();
    let put = client.receive("PUT").unwrap().unwrap();
    assert_eq!(put.status, 201);
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "a write waits for no other path"
    );
    server.wait_for_body("/a.txt", "2");
    for version in ["3", "4"] {
        fs::write(site.path("a.txt"), version).unwrap();
        server.wait_for_body("/a.txt", version);
    }
    assert!(!is_published(&server, "/vm.img"), "it is still hashed");
    server.wait_for_line("vm.img is hashed");
}

#[test]
fn a_large_file_is_published_with_its_batch() {
    let site = TestSite::with(&[("index.html", b"1")]);
    let server = served(&site);
    let content = super::support::noise(130 << 20, 7);
    fs::write(site.path("large"), &content).unwrap();
    fs::write(site.path("index.html"), "2").unwrap();
    server.wait_for_body("/index.html", "2");
    assert!(server.body("/large").as_deref() == Some(&content[..]));
    fs::write(site.path("large"), &content[1..]).unwrap();
    server.wait_until_it_serves(&site.root());
}
