//! The root: moved, deleted, replaced.

use std::fs;
use std::os::unix::fs::symlink;
use std::thread;
use std::time::Duration;

use super::restless::restless;
use super::support::tree::{eventually, relink, stays, write_tree};
use super::support::{Server, TestSite};
use super::{EVENTS, served};

#[test]
fn a_root_that_is_moved_away_stays_served_and_is_watched_when_it_is_back() {
    let site = TestSite::with(&[("file", b"1"), ("dir/file", b"1")]);
    let server = served(&site);
    let away = site.outside("away");
    for version in 2..4 {
        let before = server.body("/file").unwrap();
        fs::rename(site.root(), &away).unwrap();
        let processor = server.processor_time();
        stays(Duration::from_millis(1200), "the last good state", || {
            server.body("/file").as_ref() == Some(&before) && server.body("/dir/file").is_some()
        });
        let spent = server.processor_time() - processor;
        assert!(
            spent < 60,
            "{spent} hundredths of a second spent on waiting"
        );
        fs::rename(&away, site.root()).unwrap();
        eventually("the root is seen", || {
            server.log().matches("the site is").count() == version - 1
        });
        fs::write(site.path("file"), format!("{version}")).unwrap();
        fs::write(site.path("dir/file"), format!("{version}")).unwrap();
        server.wait_for_body("/file", format!("{version}"));
        server.wait_for_body("/dir/file", format!("{version}"));
    }
}

#[test]
fn a_root_that_is_deleted_and_made_again_is_watched() {
    let site = TestSite::with(&[("file", b"1"), ("a/b/c", b"1")]);
    let mut server = served(&site);
    let watches = server.watches();
    for version in 2..12 {
        let misses = || server.log().matches("its last state stays").count();
        let before = misses();
        fs::remove_dir_all(site.root()).unwrap();
        if version % 3 == 0 {
            eventually("it is missed", || misses() > before);
        }
        fs::create_dir_all(site.path("a/b")).unwrap();
        fs::write(site.path("file"), format!("{version}")).unwrap();
        fs::write(site.path("a/b/c"), format!("{version}")).unwrap();
        server.wait_for_body("/file", format!("{version}"));
        server.wait_for_body("/a/b/c", format!("{version}"));
        fs::write(site.path("a/b/c"), "later").unwrap();
        server.wait_for_body("/a/b/c", "later");
    }
    server.wait_until_it_serves(&site.root());
    assert!(
        server.watches() <= watches + 2,
        "{} watches",
        server.watches()
    );
    server.assert_alive();
}

#[test]
fn a_root_that_is_replaced_is_never_seen_empty() {
    let site = TestSite::with(&[("file", b"1")]);
    let server = served(&site);
    restless(
        || {
            // The old root goes and the new one comes, with nothing there in between.
            fs::rename(site.root(), site.outside("old")).unwrap();
            thread::sleep(Duration::from_millis(130));
            fs::create_dir(site.outside("new")).unwrap();
            fs::write(site.outside("new/file"), "1").unwrap();
            fs::rename(site.outside("new"), site.root()).unwrap();
            fs::remove_dir_all(site.outside("old")).unwrap();
            thread::sleep(Duration::from_millis(170));
        },
        || {
            stays(Duration::from_secs(2), "the one file is there", || {
                server.body("/file").as_deref() == Some(b"1")
            });
        },
    );
}

#[test]
fn dozens_of_deploys_leave_nothing_behind() {
    let site = TestSite::in_memory();
    let release = |version: u64| {
        let dir = site.outside(&format!("release{version}"));
        write_tree(&dir, 200, &format!("release {version}"));
        fs::write(dir.join("version"), format!("{version}")).unwrap();
        symlink("version", dir.join("link")).unwrap();
        dir
    };
    symlink(release(0), site.outside("current")).unwrap();
    let server = Server::at(&site.outside("current"), EVENTS);
    let deploy = |versions: std::ops::Range<u64>| {
        for version in versions {
            relink(&site.outside("current"), release(version));
            fs::remove_dir_all(site.outside(&format!("release{}", version - 1))).unwrap();
            server.wait_for_body("/link", format!("{version}"));
        }
        let open = fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
        (server.watches(), open.count(), server.resident())
    };
    let before = deploy(1..10);
    let after = deploy(10..30);
    assert!(after.0 <= before.0 + 4, "watches: {before:?} {after:?}");
    assert!(after.1 <= before.1 + 4, "descriptors: {before:?} {after:?}");
    assert!(after.2 <= before.2 + 8192, "memory: {before:?} {after:?}");
}
