//! Files that are gone: `--keep-old`, and descriptors that are closed.

use std::fs;
use std::time::{Duration, Instant};

use super::served;
use super::support::tree::{eventually, rename_over, run};
use super::support::{Server, TestSite, noise};

#[test]
fn an_asset_that_is_gone_is_answered_for_as_long_as_was_asked() {
    let large = noise(3 << 20, 1);
    let site = TestSite::with(&[
        ("app.1.js", b"one"),
        ("page.html", b"page"),
        ("asked.bin", &large),
        ("never-asked.bin", &large[1..]),
    ]);
    let server = Server::with(&site, &["--sweep", "1h", "--keep-old", "4s"]);
    let tag = server
        .client()
        .get("/app.1.js")
        .field("ETag")
        .unwrap()
        .to_owned();
    assert!(server.body("/asked.bin").is_some());
    for name in ["app.1.js", "page.html", "asked.bin", "never-asked.bin"] {
        fs::remove_file(site.path(name)).unwrap();
    }
    fs::write(site.path("app.2.js"), "two").unwrap();
    server.wait_for_body("/app.2.js", "two");
    let gone = Instant::now();
    assert_eq!(server.client().get("/page.html").status, 404);
    let old = server.client().get("/app.1.js");
    assert_eq!((old.status, old.body.as_slice()), (200, &b"one"[..]));
    assert_eq!(old.field("ETag"), Some(tag.as_str()));
    let fields = [("If-None-Match", tag.as_str())];
    assert_eq!(
        server.client().request("GET", "/app.1.js", &fields).status,
        304
    );
    assert_eq!(
        server.body("/asked.bin"),
        Some(large),
        "from its open descriptor"
    );
    // Nobody has its bytes any more: it is gone, not about to come.
    eventually("what can't be proven is gone", || {
        server.client().get("/never-asked.bin").status == 404
    });
    assert!(gone.elapsed() < Duration::from_secs(4), "too slow to tell");
    server.wait_for_absence("/app.1.js");
    assert!(gone.elapsed() > Duration::from_secs(3));
    eventually("its descriptor is closed", || server.deleted_files() == 0);
}

#[test]
fn what_can_be_proven_of_an_old_asset_is_still_answered() {
    let content = "many times the same, ".repeat(20_000);
    let site = TestSite::in_memory()
        .file("app.1.js", &content)
        .file("page.html", &content)
        .file("other", "1");
    run(
        env!("CARGO_BIN_EXE_etagd"),
        &["compress", "site"],
        site.outside("").as_path(),
    );
    let server = Server::with(&site, &["--sweep", "1h", "--keep-old", "1h"]);
    let get = |target: &str, coding: &str| {
        let fields = [("Accept-Encoding", coding)];
        let response = server.client().request("GET", target, &fields);
        let coding = response.field("Content-Encoding").map(str::to_owned);
        (response.status, coding)
    };
    let moved = site.outside("before");
    fs::rename(site.root(), &moved).unwrap();
    fs::create_dir(site.root()).unwrap();
    fs::write(site.path("other"), "2").unwrap();
    server.wait_for_body("/other", "2");
    assert_eq!(get("/page.html", "br").0, 404);
    assert_eq!(get("/page.html.br", "identity").0, 404);
    assert_eq!(get("/app.1.js", "br"), (200, Some("br".to_owned())));
    assert_eq!(get("/app.1.js.br", "identity"), (200, None));
}

#[test]
fn an_asset_that_comes_back_is_the_new_one() {
    let site = TestSite::with(&[("a.js", b"one"), ("b.js", b"b")]);
    let server = Server::with(&site, &["--sweep", "1h", "--keep-old", "1h"]);
    fs::remove_file(site.path("a.js")).unwrap();
    fs::write(site.path("b.js"), "B").unwrap();
    server.wait_for_body("/b.js", "B");
    assert_eq!(server.body("/a.js").unwrap(), b"one");
    fs::write(site.path("a.js"), "two").unwrap();
    server.wait_for_body("/a.js", "two");
}

#[test]
fn files_that_were_replaced_are_closed() {
    let site = TestSite::with(&[("large", &noise(2 << 20, 0)), ("gone", &noise(2 << 20, 9))]);
    let server = served(&site);
    assert!(server.body("/gone").is_some());
    for version in 1..8 {
        rename_over(&site.path("large"), noise(2 << 20, version));
        server.wait_for_body("/large", noise(2 << 20, version));
    }
    fs::remove_file(site.path("gone")).unwrap();
    server.wait_for_absence("/gone");
    eventually("no deleted file takes up the disk", || {
        server.deleted_files() == 0
    });
}
