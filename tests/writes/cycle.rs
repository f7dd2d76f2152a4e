//! Read, change, write: what a client sees, and what the disk holds.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::process::Signal;

use super::pen::{Pen, files, writable};
use super::support::tree::{digest_of, eventually, rename_over};
use super::support::{Server, TestSite, tag};

#[test]
fn a_file_is_created_replaced_and_deleted() {
    let site = TestSite::with(&[("index.html", b"<!doctype html>")]);
    let server = writable(&site);
    let (mut pen, mut other) = (Pen::new(&server), Pen::new(&server));
    let created = pen.create("/a/b%20c/new.txt", "one");
    assert_eq!(
        (created.status, created.field("ETag")),
        (201, Some(&*tag(b"one")))
    );
    assert_eq!(fs::read(site.path("a/b c/new.txt")).unwrap(), b"one");
    let seen = other.get("/a/b%20c/new.txt");
    assert_eq!((seen.status, &*seen.body), (200, &b"one"[..]));

    let replaced = pen.replace("/a/b%20c/new.txt", &tag(b"one"), "two");
    assert_eq!(
        (replaced.status, replaced.field("ETag")),
        (204, Some(&*tag(b"two")))
    );
    let seen = other.get("/a/b%20c/new.txt");
    assert_eq!((seen.status, &*seen.body), (200, &b"two"[..]));

    let stale = pen.replace("/a/b%20c/new.txt", &tag(b"one"), "three");
    assert_eq!(
        (stale.status, stale.field("ETag")),
        (412, Some(&*tag(b"two")))
    );
    assert_eq!(
        stale.field("Cache-Control"),
        Some("private, no-store, max-age=0")
    );
    let taken = pen.create("/a/b%20c/new.txt", "three");
    assert_eq!(
        (taken.status, taken.field("ETag")),
        (412, Some(&*tag(b"two")))
    );

    assert_eq!(pen.delete("/a/b%20c/new.txt", &tag(b"one")).status, 412);
    let deleted = pen.delete("/a/b%20c/new.txt", &tag(b"two"));
    assert_eq!((deleted.status, deleted.field("ETag")), (204, None));
    assert_eq!(other.get("/a/b%20c/new.txt").status, 404);
    assert_eq!(pen.delete("/a/b%20c/new.txt", &tag(b"two")).status, 404);
    let gone = pen.replace("/a/b%20c/new.txt", &tag(b"two"), "three");
    assert_eq!((gone.status, gone.field("ETag")), (412, None));
    assert_eq!(files(&site.root()), [site.path("index.html")]);
}

#[test]
fn each_write_is_logged() {
    let site = TestSite::with(&[("a.txt", b"one")]);
    let server = writable(&site);
    let mut pen = Pen::new(&server);
    pen.replace("/a.txt", &tag(b"one"), "two");
    pen.delete("/a.txt", &tag(b"two"));
    pen.create("/n%C3%BCw%0A.txt", "x");
    let log = server.log();
    let has = |line: String| {
        assert!(
            log.lines().any(|said| said.contains(&line)),
            "{line}:\n{log}"
        )
    };
    let (one, two) = (tag(b"one"), tag(b"two"));
    has(format!(
        "PUT /a.txt by anybody (127.0.0.1): {one} -> {two} (3 B)"
    ));
    has(format!(
        "DELETE /a.txt by anybody (127.0.0.1): {two} -> nothing"
    ));
    has(format!(
        "PUT /n%C3%BCw%0A.txt by anybody (127.0.0.1): nothing -> {} (1 B)",
        tag(b"x")
    ));
}

#[test]
fn each_write_can_be_queried_by_its_fields() {
    let site = TestSite::with(&[("a.txt", b"one")]);
    let server = Server::with(&site, &["--writable", "--log-format", "json"]);
    let mut pen = Pen::new(&server);
    pen.replace("/a.txt", &tag(b"one"), "two");
    pen.delete("/a.txt", &tag(b"two"));
    let log = server.log();
    let writes: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &serde_json::Value| line["method"].is_string())
        .collect();
    let (one, two) = (tag(b"one"), tag(b"two"));
    let [put, delete] = &writes[..] else {
        panic!("{log}");
    };
    for (write, method, before, now, bytes) in [
        (put, "PUT", one.as_str(), Some(two.as_str()), Some(3)),
        (delete, "DELETE", two.as_str(), None, None),
    ] {
        assert_eq!(write["method"], method);
        assert_eq!(write["path"], "/a.txt");
        assert_eq!(write["author"], "anybody");
        assert_eq!(write["client"], "127.0.0.1");
        assert_eq!(write["before"], before);
        assert_eq!(write["now"].as_str(), now);
        assert_eq!(write["bytes"].as_u64(), bytes);
        assert_eq!(write["level"], "INFO");
    }
}

#[test]
fn a_write_is_logged_even_if_its_client_does_not_wait() {
    let site = TestSite::with(&[]);
    let server = writable(&site);
    for number in 0..20 {
        let mut client = server.client();
        let request = format!(
            "PUT /{number} HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: *\r\n\
             Content-Length: 3\r\n\r\nnew"
        );
        client.send(request).unwrap();
    }
    eventually("what was begun is over", || {
        let all = files(&site.root());
        all.iter()
            .all(|path| !path.to_string_lossy().contains("/.etagd-"))
            && server.log().matches("PUT /").count() == all.len()
            && server.digest() == digest_of(&site.root())
    });
}

#[test]
fn the_tag_of_any_coding_will_do() {
    let page = b"<!doctype html><p>what is compressed here is prose</p>".repeat(40);
    let site = TestSite::with(&[("a.html", &page)]);
    let sidecar = fs::File::create(site.path("a.html.gz")).unwrap();
    let mut encoder = GzEncoder::new(sidecar, Compression::fast());
    encoder.write_all(&page).unwrap();
    encoder.finish().unwrap();
    let server = writable(&site);
    let mut pen = Pen::new(&server);
    let encoded = pen.exchange(
        "GET",
        b"GET /a.html HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n",
    );
    assert_eq!(encoded.field("Content-Encoding"), Some("gzip"));
    let known = encoded.field("ETag").unwrap().to_owned();
    let replaced = pen.replace("/a.html", &known, "<p>new");
    assert_eq!(
        (replaced.status, replaced.field("ETag")),
        (204, Some(&*tag(b"<p>new")))
    );
    // The sidecar of what was there is none of what is.
    let now = pen.exchange(
        "GET",
        b"GET /a.html HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n",
    );
    assert_eq!(
        (now.field("Content-Encoding"), &*now.body),
        (None, &b"<p>new"[..])
    );
}

#[test]
fn large_files_are_written_and_read() {
    let site = TestSite::with(&[]);
    let server = writable(&site);
    let mut pen = Pen::new(&server);
    for (index, length) in [0, 1, 128 << 10, (256 << 10) + 1, 5 << 20]
        .into_iter()
        .enumerate()
    {
        let content = super::support::noise(length, index as u64);
        let target = format!("/{length}.bin");
        assert_eq!(pen.create(&target, &content).status, 201);
        let seen = pen.get(&target);
        assert_eq!(seen.status, 200);
        assert!(
            seen.body == content && seen.is_what_its_tag_says(),
            "{length}"
        );
        let other = super::support::noise(length + 7, 99);
        assert_eq!(pen.replace(&target, &tag(&content), &other).status, 204);
        assert!(pen.get(&target).body == other, "{length}");
    }
}

#[test]
fn permissions_are_kept() {
    let site = TestSite::with(&[("a.txt", b"one")]);
    fs::set_permissions(site.path("a.txt"), fs::Permissions::from_mode(0o640)).unwrap();
    let server = writable(&site);
    let mut pen = Pen::new(&server);
    assert_eq!(pen.replace("/a.txt", &tag(b"one"), "two").status, 204);
    assert_eq!(pen.create("/new.txt", "new").status, 201);
    let mode = |name: &str| fs::metadata(site.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("a.txt"), 0o640);
    assert_eq!(mode("new.txt") & 0o644, 0o644);
}

#[test]
fn a_change_on_disk_counts_before_it_is_published() {
    let site = TestSite::with(&[("a.txt", b"one"), ("b.txt", b"one")]);
    let server = Server::with(&site, &["--writable", "--settle", "2s"]);
    let mut pen = Pen::new(&server);
    rename_over(&site.path("a.txt"), "beside");
    fs::remove_file(site.path("b.txt")).unwrap();
    fs::write(site.path("c.txt"), "beside").unwrap();
    assert_eq!(pen.get("/a.txt").body, b"one");
    let stale = pen.replace("/a.txt", &tag(b"one"), "two");
    assert_eq!(
        (stale.status, stale.field("ETag")),
        (412, Some(&*tag(b"beside")))
    );
    assert_eq!(pen.replace("/b.txt", &tag(b"one"), "two").status, 412);
    assert_eq!(pen.delete("/b.txt", &tag(b"one")).status, 404);
    let taken = pen.create("/c.txt", "two");
    assert_eq!(
        (taken.status, taken.field("ETag")),
        (412, Some(&*tag(b"beside")))
    );
    assert_eq!(fs::read(site.path("a.txt")).unwrap(), b"beside");
    assert_eq!(fs::read(site.path("c.txt")).unwrap(), b"beside");
    assert_eq!(
        files(&site.root()),
        [site.path("a.txt"), site.path("c.txt")]
    );
}

#[test]
fn a_file_open_for_writing_is_not_replaced() {
    let site = TestSite::with(&[("a.txt", b"one")]);
    let server = writable(&site);
    let mut pen = Pen::new(&server);
    let writer = fs::File::options()
        .append(true)
        .open(site.path("a.txt"))
        .unwrap();
    let refused = pen.replace("/a.txt", &tag(b"one"), "two");
    assert_eq!(
        (refused.status, refused.field("Retry-After")),
        (503, Some("1"))
    );
    assert_eq!(pen.delete("/a.txt", &tag(b"one")).status, 503);
    drop(writer);
    assert_eq!(pen.replace("/a.txt", &tag(b"one"), "two").status, 204);
}

#[test]
fn all_names_of_a_file_are_published_with_it() {
    let site = TestSite::with(&[("v1/a.txt", b"one")])
        .symlink("latest", "v1")
        .symlink("a.txt", "v1/a.txt");
    let server = writable(&site);
    let mut pen = Pen::new(&server);
    assert_eq!(pen.get("/latest/a.txt").body, b"one");
    assert_eq!(pen.replace("/v1/a.txt", &tag(b"one"), "two").status, 204);
    for target in ["/v1/a.txt", "/latest/a.txt", "/a.txt"] {
        assert_eq!(pen.get(target).body, b"two", "{target}");
    }
    // No link is written through, nor replaced.
    assert_eq!(pen.replace("/a.txt", &tag(b"two"), "three").status, 409);
    assert_eq!(
        pen.replace("/latest/a.txt", &tag(b"two"), "three").status,
        409
    );
    assert_eq!(pen.create("/latest/new.txt", "three").status, 409);
    assert_eq!(pen.delete("/a.txt", &tag(b"two")).status, 409);
    assert_eq!(pen.get("/latest/a.txt").body, b"two");
}

#[test]
fn a_deleted_file_is_gone_even_with_keep_old() {
    let site = TestSite::with(&[("a.css", b"a{}"), ("b.css", b"b{}")]);
    let server = Server::with(&site, &["--writable", "--keep-old", "1h"]);
    let mut pen = Pen::new(&server);
    assert_eq!(pen.delete("/a.css", &tag(b"a{}")).status, 204);
    assert_eq!(pen.get("/a.css").status, 404);
    fs::remove_file(site.path("b.css")).unwrap();
    eventually("b.css is kept", || server.publications() == 2);
    assert_eq!(pen.get("/b.css").status, 200);
}

#[test]
fn nothing_is_written_while_publication_is_held() {
    let site = TestSite::with(&[("a.txt", b"one")]);
    let server = writable(&site);
    let mut pen = Pen::new(&server);
    fs::write(site.path(".etagd-hold"), "").unwrap();
    let refused = pen.replace("/a.txt", &tag(b"one"), "two");
    assert_eq!(
        (refused.status, refused.field("Retry-After")),
        (503, Some("1"))
    );
    fs::remove_file(site.path(".etagd-hold")).unwrap();
    assert_eq!(pen.replace("/a.txt", &tag(b"one"), "two").status, 204);
}

#[test]
fn a_write_goes_where_the_root_leads() {
    let site = TestSite::with(&[])
        .file_outside("1/a.txt", b"one")
        .file_outside("2/a.txt", b"one");
    let root = site.outside("current");
    std::os::unix::fs::symlink("1", &root).unwrap();
    let server = Server::at(&root, &["--writable"]);
    let mut pen = Pen::new(&server);
    assert_eq!(pen.replace("/a.txt", &tag(b"one"), "two").status, 204);
    assert_eq!(fs::read(site.outside("1/a.txt")).unwrap(), b"two");
    super::support::tree::relink(&root, "2");
    // As soon as it is known: until then the old state is what is answered.
    eventually("the other root is served", || {
        pen.get("/a.txt").body == b"one"
    });
    assert_eq!(pen.replace("/a.txt", &tag(b"one"), "three").status, 204);
    assert_eq!(fs::read(site.outside("1/a.txt")).unwrap(), b"two");
    assert_eq!(fs::read(site.outside("2/a.txt")).unwrap(), b"three");
}

#[test]
fn a_broken_upload_leaves_nothing() {
    let site = TestSite::with(&[("a.txt", b"one")]);
    let server = writable(&site);
    let before = files(&site.root());
    for target in ["/a.txt", "/deep/down/new.txt"] {
        let condition = match target {
            "/a.txt" => format!("If-Match: {}", tag(b"one")),
            _ => "If-None-Match: *".to_owned(),
        };
        let mut client = server.client();
        let head = format!(
            "PUT {target} HTTP/1.1\r\nHost: localhost\r\n{condition}\r\nContent-Length: 900000\r\n\r\n"
        );
        client.send(head).unwrap();
        client.send(vec![b'x'; 700_000]).unwrap();
        eventually("it has begun", || files(&site.root()).len() == 2);
        assert_eq!(Pen::new(&server).get("/a.txt").body, b"one");
        drop(client);
        eventually("nothing is left", || files(&site.root()) == before);
    }
    assert!(!site.path("deep").exists());
    assert_eq!(fs::read(site.path("a.txt")).unwrap(), b"one");
}

#[test]
fn a_drain_finishes_an_upload() {
    let site = TestSite::with(&[]);
    let mut server = writable(&site);
    let mut client = server.client();
    let head =
        "PUT /a.txt HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: *\r\nContent-Length: 6\r\n\r\n";
    client.send(head).unwrap();
    client.send("one").unwrap();
    eventually("it has begun", || files(&site.root()).len() == 1);
    server.signal(Signal::TERM);
    server.wait_for(|lines| {
        lines
            .iter()
            .any(|line| line.contains("waiting for in-flight requests"))
    });
    client.send("two").unwrap();
    assert_eq!(client.receive("PUT").unwrap().unwrap().status, 201);
    assert!(server.wait().success());
    assert_eq!(fs::read(site.path("a.txt")).unwrap(), b"onetwo");
}

#[test]
fn an_upload_that_stalls_is_given_up() {
    let site = TestSite::with(&[]);
    let server = Server::with(&site, &["--writable", "--write-timeout", "300ms"]);
    let head =
        "PUT /a.txt HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: *\r\nContent-Length: 6\r\n\r\n";
    let mut slow = server.client();
    slow.send(head).unwrap();
    for byte in [b"o", b"n", b"e", b"t", b"w"] {
        slow.send(byte).unwrap();
        std::thread::sleep(Duration::from_millis(150));
    }
    slow.send("o").unwrap();
    assert_eq!(slow.receive("PUT").unwrap().unwrap().status, 201);
    let mut stalled = server.client();
    stalled.send(head.replace("a.txt", "b.txt")).unwrap();
    stalled.send("one").unwrap();
    assert_eq!(stalled.receive("PUT").unwrap().unwrap().status, 408);
    eventually("nothing is left", || files(&site.root()).len() == 1);
}

#[test]
fn so_many_uploads_at_once() {
    let site = TestSite::with(&[]);
    let server = Server::with(&site, &["--writable", "--max-uploads", "2"]);
    let head = |name: &str| {
        format!(
            "PUT /{name} HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: *\r\nContent-Length: 3\r\n\r\n"
        )
    };
    let mut under_way = [server.client(), server.client()];
    for (index, client) in under_way.iter_mut().enumerate() {
        client.send(head(&index.to_string())).unwrap();
    }
    eventually("both have begun", || files(&site.root()).len() == 2);
    let mut pen = Pen::new(&server);
    let refused = pen.create("/2", "two");
    assert_eq!(
        (refused.status, refused.field("Retry-After")),
        (503, Some("1"))
    );
    for mut client in under_way {
        client.send("one").unwrap();
        assert_eq!(client.receive("PUT").unwrap().unwrap().status, 201);
    }
    assert_eq!(Pen::new(&server).create("/2", "two").status, 201);
}
