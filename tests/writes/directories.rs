//! Directories on the way to a written file: made before it, and never left empty by a write.

use std::fs;
use std::path::Path;
use std::thread;

use super::pen::{CREATE, Pen, writable};
use super::support::{Server, TestSite, tag};

/// Every directory below a site.
fn directories(site: &TestSite) -> Vec<String> {
    fn collect(root: &Path, directory: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                let path = entry.path();
                found.push(path.strip_prefix(root).unwrap().display().to_string());
                collect(root, &path, found);
            }
        }
    }
    let mut found = Vec::new();
    collect(&site.root(), &site.root(), &mut found);
    found.sort();
    found
}

/// A path of so many names.
fn deep(names: usize) -> String {
    format!("{}/f", "/d".repeat(names - 1))
}

#[test]
fn a_path_may_have_64_names_and_what_the_system_can_name() {
    let site = TestSite::with(&[("a.txt", b"a")]);
    let server = writable(&site);
    let mut pen = Pen::new(&server);
    assert_eq!(pen.create(&deep(64), "x").status, 201);
    let refused = pen.create(&deep(65), "x");
    assert_eq!(refused.status, 400);
    assert_eq!(
        refused.body,
        b"this path has more than 64 names: use fewer directories\n"
    );
    assert_eq!(pen.delete(&deep(65), &tag(b"x")).status, 400);
    assert_eq!(pen.delete(&deep(64), &tag(b"x")).status, 204);
    assert!(directories(&site).is_empty());
    // Each name is short enough, and so is the path without the root: with it, no scan could read
    // what an open directory would take.
    let root = fs::canonicalize(site.root()).unwrap();
    let free = 4095 - root.as_os_str().len() - 1;
    let of_length = |length: usize| {
        let mut path = String::new();
        while length - path.len() > 200 {
            path += &"n".repeat(100);
            path += "/";
        }
        let rest = length - path.len();
        path + &"f".repeat(rest)
    };
    for (length, status) in [(free + 1, 400), (free + 100, 400), (free, 201)] {
        let target = format!("/{}", of_length(length));
        let mut pen = Pen::new(&server);
        let response = pen.create(&target, "x");
        assert_eq!(response.status, status, "{length}");
        if status == 201 {
            assert_eq!(pen.get(&target).body, b"x");
            assert_eq!(pen.delete(&target, &tag(b"x")).status, 204);
        }
        assert!(directories(&site).is_empty(), "{length}");
    }
    server.wait_until_it_serves(&site.root());
}

#[test]
fn what_a_write_makes_or_empties_does_not_stay_empty() {
    let site = TestSite::with(&[("a.txt", b"a"), ("old/keep", b"k")]).dir("empty");
    let server = Server::with(&site, &["--writable", "--max-upload", "1KiB"]);
    let mut pen = Pen::new(&server);
    // The content is wrong, or the disk refuses the name.
    let digest = (
        "Content-Digest",
        "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:",
    );
    let refused = pen.send("PUT", "/new/a/b", &[CREATE, digest], b"x");
    assert_eq!(refused.status, 400);
    let mut pen = Pen::new(&server);
    let chunked = "PUT /new/a/b HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: *\r\n\
                   Transfer-Encoding: chunked\r\n\r\n500\r\n";
    let too_long = [chunked.as_bytes(), &[b'x'; 0x500], b"\r\n0\r\n\r\n"].concat();
    assert_eq!(pen.exchange("PUT", &too_long).status, 413);
    assert_eq!(directories(&site), ["empty", "old"]);
    let mut pen = Pen::new(&server);
    assert_eq!(pen.create("/new/a/b/c", "x").status, 201);
    assert_eq!(pen.create("/new/d", "x").status, 201);
    assert_eq!(pen.create("/old/new", "x").status, 201);
    assert_eq!(pen.create("/empty/f", "x").status, 201);
    assert_eq!(directories(&site).len(), 5);
    assert_eq!(pen.delete("/new/a/b/c", &tag(b"x")).status, 204);
    assert_eq!(directories(&site), ["empty", "new", "old"]);
    // A hidden file is somebody's.
    fs::write(site.path("old/.hidden"), "").unwrap();
    for path in ["/new/d", "/old/new", "/empty/f"] {
        assert_eq!(pen.delete(path, &tag(b"x")).status, 204, "{path}");
    }
    assert_eq!(pen.delete("/old/keep", &tag(b"k")).status, 204);
    assert_eq!(directories(&site), ["old"]);
    assert_eq!(pen.delete("/a.txt", &tag(b"a")).status, 204);
    assert!(site.root().is_dir(), "the root stays");
}

#[test]
fn writes_into_one_directory_do_not_take_it_from_each_other() {
    let site = TestSite::with(&[("a.txt", b"a")]);
    let server = writable(&site);
    thread::scope(|scope| {
        for client in 0..8 {
            let server = &server;
            scope.spawn(move || {
                let mut pen = Pen::new(server);
                let target = format!("/shared/deep/{client}");
                for round in 0..60 {
                    // Each makes the directory, or finds it, and may empty it.
                    let created = pen.create(&target, "x");
                    assert_eq!(created.status, 201, "{client} {round}: {:?}", created.body);
                    // One that fails must not take it away either.
                    let digest = (
                        "Repr-Digest",
                        "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:",
                    );
                    let other = format!("/shared/deep/{client}-not/x");
                    let refused = pen.send("PUT", &other, &[CREATE, digest], b"x");
                    assert_eq!(refused.status, 400);
                    pen = Pen::new(server);
                    let deleted = pen.delete(&target, &tag(b"x"));
                    assert_eq!(deleted.status, 204, "{client} {round}: {:?}", deleted.body);
                }
            });
        }
    });
    assert!(directories(&site).is_empty(), "{:?}", directories(&site));
    server.wait_until_it_serves(&site.root());
}
