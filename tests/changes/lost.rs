//! Events that were lost, for each reason there is: afterwards everything is watched again.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::EVENTS;
use super::support::tree::{has, within};
use super::support::{Client, Server, TestSite};

/// A site with a directory that will be renamed, and its server.
fn started() -> (TestSite, Server) {
    let site = TestSite::in_memory()
        .file("old/file", "1")
        .file("before/file", "1");
    let server = Server::with(&site, &[EVENTS, &["--admin", "127.0.0.1:0"]].concat());
    (site, server)
}

/// Renames a directory and makes another one, while nobody looks.
fn rearrange(root: &Path) {
    fs::rename(root.join("before"), root.join("renamed")).unwrap();
    fs::create_dir_all(root.join("new/deep")).unwrap();
    fs::write(root.join("new/deep/file"), "1").unwrap();
}

fn sweeps(server: &Server) -> String {
    let page = Client::connect(server.admin()).get("/metrics").body;
    let page = String::from_utf8(page).unwrap();
    let line = page.lines().find(|line| line.contains("sweeps_total "));
    line.unwrap().to_owned()
}

/// Edits an old, a renamed and a new directory, and sees each without a sweep.
fn assert_watched(site: &TestSite, server: &Server) {
    server.wait_until_it_serves(&site.root());
    let before = sweeps(server);
    for version in ["second", "third"] {
        for file in ["old/file", "renamed/file", "new/deep/file", "new/another"] {
            fs::write(site.path(file), version).unwrap();
            within(Duration::from_secs(2), file, || {
                server.body(&format!("/{file}")).as_deref() == Some(version.as_bytes())
            });
        }
    }
    assert_eq!(sweeps(server), before, "found by events");
}

#[test]
fn after_an_overflow_of_the_queue() {
    let (site, server) = started();
    server.signal(Signal::STOP);
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    for number in 0..limit / 3 {
        let (file, other) = (site.path("old/1"), site.path("old/2"));
        fs::write(&file, format!("{number}")).unwrap();
        fs::rename(file, other).unwrap();
    }
    rearrange(&site.root());
    server.signal(Signal::CONT);
    server.wait_for_line("faster than they could be read");
    assert_watched(&site, &server);
}

#[test]
fn after_the_root_was_away() {
    let (site, server) = started();
    let away = site.outside("away");
    fs::rename(site.root(), &away).unwrap();
    server.wait_for_line("its last state stays");
    rearrange(&away);
    fs::rename(&away, site.root()).unwrap();
    server.wait_for_line("the site is now in");
    assert_watched(&site, &server);
}

/// Something mounted, until this is dropped.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    /// `None` where this process may not mount.
    fn bind(source: &Path, on: &'a Path) -> Option<Self> {
        if !has("mount") {
            return None;
        }
        let mount = Command::new("mount")
            .arg("--bind")
            .args([source, on])
            .output();
        // Skipped where this process has no right to mount.
        mount.unwrap().status.success().then_some(Self(on))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let umount = Command::new("umount").arg("-l").arg(self.0).status();
        assert!(umount.is_ok_and(|status| status.success()));
    }
}

#[test]
fn after_a_mount_came_and_after_it_went() {
    let site = TestSite::in_memory()
        .file("old/file", "1")
        .file("place/file", "under the mount");
    let server = Server::with(&site, &[EVENTS, &["--admin", "127.0.0.1:0"]].concat());
    let (source, place) = (site.outside("source"), site.path("place"));
    fs::create_dir_all(source.join("before")).unwrap();
    fs::write(source.join("before/file"), "1").unwrap();
    let Some(mounted) = Mounted::bind(&source, &place) else {
        return;
    };
    server.wait_for_body("/place/before/file", "1");
    rearrange(&source);
    server.wait_until_it_serves(&site.root());
    let before = sweeps(&server);
    for file in ["renamed/file", "new/deep/file", "another"] {
        fs::write(source.join(file), "second").unwrap();
        server.wait_for_body(&format!("/place/{file}"), "second");
    }
    assert_eq!(sweeps(&server), before, "found by events");
    drop(mounted);
    server.wait_for_body("/place/file", "under the mount");
    server.wait_until_it_serves(&site.root());
    let before = sweeps(&server);
    for file in ["old/file", "place/file", "place/another"] {
        fs::write(site.path(file), "second").unwrap();
        server.wait_for_body(&format!("/{file}"), "second");
    }
    assert_eq!(sweeps(&server), before, "found by events");
}

#[test]
fn what_a_new_link_leads_to_is_watched_before_it_is_looked_at() {
    let site = TestSite::in_memory().file("file", "1");
    let server = Server::with(&site, &[EVENTS, &["--symlinks", "all"]].concat());
    for round in 0..20 {
        let outside = site.outside(&format!("outside{round}"));
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "first").unwrap();
        let link = format!("link{round}");
        std::os::unix::fs::symlink(&outside, site.path(&link)).unwrap();
        let target = format!("/{link}/file");
        server.wait_for_body(&target, "first");
        // Within a moment of the publication, while the watch may not be there yet.
        fs::write(outside.join("file"), "second").unwrap();
        server.wait_for_body(&target, "second");
    }
}
