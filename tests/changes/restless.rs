//! What never stops changing does not hold up the rest.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::support::tree::{EndOfWork, relink, within};
use super::support::{Server, TestSite};
use super::{EVENTS, served};

/// Does one thing again and again while the other is tried.
pub(crate) fn restless(mut again: impl FnMut() + Send, meanwhile: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = EndOfWork(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                again();
                thread::sleep(Duration::from_millis(2));
            }
        });
        meanwhile();
    });
}

/// The longest quiet period is 2 s; as much again for a machine with other work.
fn assert_visible(server: &Server, site: &TestSite) {
    for version in 2..4 {
        fs::write(site.path("file"), format!("{version}")).unwrap();
        let body = format!("{version}").into_bytes();
        let is_seen = || server.body("/file").as_deref() == Some(&body);
        within(Duration::from_secs(4), "the change is seen", is_seen);
    }
}

#[test]
fn a_directory_that_comes_and_goes_for_ever_does_not_hold_up_the_rest() {
    let site = TestSite::with(&[("file", b"1")]);
    let server = served(&site);
    restless(
        || {
            fs::create_dir(site.path("flapping")).unwrap();
            fs::remove_dir(site.path("flapping")).unwrap();
        },
        || assert_visible(&server, &site),
    );
}

#[test]
fn a_link_that_flaps_for_ever_does_not_hold_up_the_rest() {
    let site = TestSite::with(&[("file", b"1"), ("a/x", b"a"), ("b/x", b"b")]);
    symlink("a", site.path("link")).unwrap();
    let server = served(&site);
    restless(
        || {
            relink(&site.path("link"), "b");
            relink(&site.path("link"), "a");
        },
        || assert_visible(&server, &site),
    );
    server.wait_until_it_serves(&site.root());
}

#[test]
fn a_log_that_grows_for_ever_does_not_hold_up_the_rest() {
    let site = TestSite::with(&[("file", b"1"), ("log", b"")]);
    let server = served(&site);
    let mut log = File::options().append(true).open(site.path("log")).unwrap();
    restless(
        || writeln!(log, "one more line").unwrap(),
        || assert_visible(&server, &site),
    );
}

#[test]
fn what_happens_in_hidden_directories_holds_up_nothing() {
    let site = TestSite::with(&[("file", b"1"), (".git/index", b"")]);
    let server = served(&site);
    restless(
        || {
            fs::create_dir(site.path(".git/x")).unwrap();
            fs::write(site.path(".git/x/object"), "object").unwrap();
            fs::remove_dir_all(site.path(".git/x")).unwrap();
        },
        || {
            for version in 2..6 {
                fs::write(site.path("file"), format!("{version}")).unwrap();
                let body = format!("{version}").into_bytes();
                let is_seen = || server.body("/file").as_deref() == Some(&body);
                within(Duration::from_millis(1500), "the change is seen", is_seen);
            }
        },
    );
}

#[test]
fn what_happens_beside_the_link_to_the_root_holds_up_nothing() {
    let site = TestSite::with(&[("file", b"1")]);
    fs::create_dir(site.outside("busy")).unwrap();
    symlink(site.root(), site.outside("busy/current")).unwrap();
    let server = Server::at(&site.outside("busy/current"), EVENTS);
    restless(
        || {
            fs::create_dir(site.outside("busy/x")).unwrap();
            fs::remove_dir(site.outside("busy/x")).unwrap();
        },
        || {
            for version in 2..6 {
                fs::write(site.path("file"), format!("{version}")).unwrap();
                let body = format!("{version}").into_bytes();
                let is_seen = || server.body("/file").as_deref() == Some(&body);
                within(Duration::from_millis(1500), "the change is seen", is_seen);
            }
        },
    );
}
