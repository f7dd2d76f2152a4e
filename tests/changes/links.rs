//! Symbolic and hard links: one file under several names.

use std::fs;
use std::os::unix::fs::symlink;

use super::served;
use super::support::tree::{relink, write_tree};
use super::support::{Server, TestSite, etagd};

#[test]
fn links_that_lead_in_circles_are_survived_and_mended() {
    let site = TestSite::with(&[("dir/file", b"1")]);
    let mut server = served(&site);
    symlink(".", site.path("dir/self")).unwrap();
    symlink("b", site.path("a")).unwrap();
    symlink("a", site.path("b")).unwrap();
    symlink("..", site.path("dir/up")).unwrap();
    fs::write(site.path("dir/file"), "2").unwrap();
    server.wait_for_body("/dir/file", "2");
    assert_eq!(server.client().get("/a").status, 404);
    relink(&site.path("b"), "dir");
    server.wait_for_body("/a/file", "2");
    fs::write(site.path("dir/file"), "3").unwrap();
    server.wait_for_body("/a/file", "3");
    server.wait_for_body("/b/file", "3");
    server.assert_alive();
}

#[test]
fn a_link_inside_the_site_leads_where_it_leads_now() {
    let site = TestSite::with(&[
        ("releases/1/page", b"one"),
        ("releases/2/page", b"two"),
        ("releases/2/sub/more", b"more"),
    ]);
    symlink("releases/1", site.path("current")).unwrap();
    symlink("current/page", site.path("page")).unwrap();
    symlink("releases/9", site.path("next")).unwrap();
    let server = served(&site);
    assert_eq!(server.body("/current/page").unwrap(), b"one");
    for _ in 0..3 {
        relink(&site.path("current"), "releases/2");
        server.wait_for_body("/current/page", "two");
        // A link through a link moves with it, at once.
        assert_eq!(server.body("/page").unwrap(), b"two");
        relink(&site.path("current"), "releases/1");
        server.wait_for_body("/current/page", "one");
        assert_eq!(server.body("/page").unwrap(), b"one");
        assert_eq!(server.client().get("/current/sub/more").status, 404);
    }
    fs::write(site.path("releases/1/page"), "ONE").unwrap();
    server.wait_for_body("/current/page", "ONE");
    assert_eq!(server.body("/page").unwrap(), b"ONE");
    assert_eq!(server.body("/releases/1/page").unwrap(), b"ONE");
    // What led to nothing leads to something.
    fs::create_dir(site.path("releases/9")).unwrap();
    fs::write(site.path("releases/9/page"), "nine").unwrap();
    server.wait_for_body("/next/page", "nine");
    server.wait_until_it_serves(&site.root());
}

#[test]
fn a_link_out_of_the_site_is_not_watched_unless_it_is_followed() {
    let site = TestSite::in_memory().file("index.html", "here");
    let outside = site.outside("elsewhere");
    write_tree(&outside, 1000, "elsewhere");
    symlink(&outside, site.path("link")).unwrap();
    assert!(
        served(&site).watches() < 10,
        "a tree that is not served is watched"
    );
    let server = Server::with(&site, &["--sweep", "1h", "--symlinks", "all"]);
    fs::write(outside.join("0/0/0/0.txt"), "changed").unwrap();
    server.wait_for_body("/link/0/0/0/0.txt", "changed");
}

#[test]
fn a_hard_link_written_through_a_name_outside_is_found_by_a_sweep() {
    let site = TestSite::with(&[("file", b"1")]);
    fs::hard_link(site.path("file"), site.outside("name")).unwrap();
    let server = Server::with(&site, &["--sweep", "1s"]);
    fs::write(site.outside("name"), "2").unwrap();
    server.wait_for_body("/file", "2");
}

#[test]
fn a_file_with_two_names_changes_under_both() {
    let site = TestSite::with(&[("one", b"1")]);
    fs::create_dir(site.path("dir")).unwrap();
    fs::hard_link(site.path("one"), site.path("dir/two")).unwrap();
    let server = served(&site);
    fs::write(site.path("one"), "2").unwrap();
    server.wait_for_body("/one", "2");
    assert_eq!(server.body("/dir/two").unwrap(), b"2");
}

#[test]
fn a_hangup_asks_for_a_sweep() {
    let site = TestSite::with(&[("file", b"1")]);
    fs::hard_link(site.path("file"), site.outside("name")).unwrap();
    let server = served(&site);
    fs::write(site.outside("name"), "2").unwrap();
    server.signal(rustix::process::Signal::HUP);
    server.wait_for_body("/file", "2");
}

#[test]
fn links_to_folders_above_leave_the_digest_that_a_fresh_scan_finds() {
    let site = TestSite::with(&[("x/a.txt", b"1"), ("z/b.txt", b"1")]);
    symlink("../z", site.path("x/toz")).unwrap();
    symlink("../x", site.path("z/tox")).unwrap();
    let server = served(&site);
    assert_eq!(server.body("/x/toz/tox/a.txt").unwrap(), b"1");
    assert_eq!(server.client().get("/x/toz/tox/toz/b.txt").status, 404);
    fs::write(site.path("x/a.txt"), "2").unwrap();
    server.wait_for_body("/x/toz/tox/a.txt", "2");
    assert_eq!(server.client().get("/x/toz/tox/toz/tox/a.txt").status, 404);
    symlink(".", site.path("en")).unwrap();
    server.wait_for_body("/en/x/a.txt", "2");
    fs::write(site.path("x/a.txt"), "3").unwrap();
    server.wait_for_body("/en/x/a.txt", "3");
    assert_eq!(server.client().get("/en/en/x/a.txt").status, 404);
    let root = site.root();
    let fresh = etagd(["manifest", root.to_str().unwrap(), "--digest"]).stdout;
    let digest = String::from_utf8(fresh).unwrap();
    server.wait_for_line(&format!("site digest {}", digest.trim()));
}
