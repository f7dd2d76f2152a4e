//! Directories, files and links that take each other's place.

use std::fs;
use std::os::unix::fs::symlink;

use super::served;
use super::support::TestSite;

#[test]
fn a_renamed_directory_is_watched_under_its_new_name() {
    let site = TestSite::with(&[("a/b/c/file", b"1"), ("index.html", b"here")]);
    let server = served(&site);
    fs::rename(site.path("a"), site.path("z")).unwrap();
    server.wait_for_body("/z/b/c/file", "1");
    server.wait_for_absence("/a/b/c/file");
    fs::write(site.path("z/b/c/file"), "2").unwrap();
    server.wait_for_body("/z/b/c/file", "2");
    fs::create_dir(site.path("z/b/d")).unwrap();
    fs::write(site.path("z/b/d/new"), "3").unwrap();
    server.wait_for_body("/z/b/d/new", "3");
    // The old name again, with something else in it.
    fs::create_dir_all(site.path("a/b/c")).unwrap();
    fs::write(site.path("a/b/c/file"), "4").unwrap();
    server.wait_for_body("/a/b/c/file", "4");
    fs::write(site.path("a/b/c/file"), "5").unwrap();
    server.wait_for_body("/a/b/c/file", "5");
    server.wait_until_it_serves(&site.root());
}

#[test]
fn a_file_and_a_directory_take_each_others_place() {
    let site = TestSite::with(&[("thing", b"a file"), ("index.html", b"here")]);
    let server = served(&site);
    for _ in 0..3 {
        fs::remove_file(site.path("thing")).unwrap();
        fs::create_dir(site.path("thing")).unwrap();
        fs::write(site.path("thing/inside"), "inside").unwrap();
        server.wait_for_body("/thing/inside", "inside");
        assert_ne!(server.client().get("/thing").status, 200);
        fs::remove_dir_all(site.path("thing")).unwrap();
        fs::write(site.path("thing"), "a file").unwrap();
        server.wait_for_body("/thing", "a file");
        server.wait_until_it_serves(&site.root());
    }
    // Moved away whole, so that nothing is reported of what is inside.
    fs::remove_file(site.path("thing")).unwrap();
    fs::create_dir(site.path("thing")).unwrap();
    fs::write(site.path("thing/inside"), "inside").unwrap();
    server.wait_for_body("/thing/inside", "inside");
    fs::rename(site.path("thing"), site.outside("thing")).unwrap();
    fs::write(site.path("thing"), "a file").unwrap();
    server.wait_for_body("/thing", "a file");
    server.wait_until_it_serves(&site.root());
    assert_eq!(server.client().get("/thing/inside").status, 404);
}

#[test]
fn a_directory_and_a_link_take_each_others_place() {
    let site = TestSite::with(&[("a/x", b"a"), ("a/deep/y", b"a"), ("b/x", b"b")]);
    let server = served(&site);
    for _ in 0..3 {
        fs::rename(site.path("a"), site.outside("a")).unwrap();
        symlink("b", site.path("a")).unwrap();
        server.wait_for_body("/a/x", "b");
        server.wait_until_it_serves(&site.root());
        fs::write(site.path("b/x"), "B").unwrap();
        server.wait_for_body("/a/x", "B");
        fs::remove_file(site.path("a")).unwrap();
        fs::rename(site.outside("a"), site.path("a")).unwrap();
        server.wait_for_body("/a/x", "a");
        server.wait_until_it_serves(&site.root());
        fs::write(site.path("b/x"), "b").unwrap();
        server.wait_for_body("/b/x", "b");
        fs::write(site.path("a/deep/y"), "A").unwrap();
        server.wait_for_body("/a/deep/y", "A");
        fs::write(site.path("a/deep/y"), "a").unwrap();
        server.wait_for_body("/a/deep/y", "a");
    }
    // A file and a link to one.
    fs::rename(site.path("b/x"), site.path("b/z")).unwrap();
    symlink("z", site.path("b/x")).unwrap();
    server.wait_until_it_serves(&site.root());
    fs::write(site.path("b/z"), "z").unwrap();
    server.wait_for_body("/b/x", "z");
    server.wait_until_it_serves(&site.root());
}
