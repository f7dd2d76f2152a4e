//! Files and directories that can't be read, for a while.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use super::EVENTS;
use super::support::server::unprivileged;
use super::support::tree::eventually;
use super::support::{Server, TestSite, noise};

#[test]
fn permissions_are_taken_away_and_given_back() {
    let Some(program) = unprivileged() else {
        return;
    };
    let site = TestSite::with(&[
        ("file", b"1"),
        ("dir/file", b"1"),
        ("dir/large", &noise(300_000, 1)),
        ("index.html", b"here"),
    ]);
    let mode = |path: &str, mode| {
        fs::set_permissions(site.path(path), Permissions::from_mode(mode)).unwrap();
    };
    let mut server = Server::run(program, &site.root(), EVENTS);
    for version in 2..4 {
        mode("file", 0);
        mode("dir", 0);
        server.wait_for(|lines| {
            let denied = lines
                .iter()
                .filter(|line| line.contains("ermission denied"));
            denied.count() >= 2 * (version - 1)
        });
        // The last good state stays.
        assert!(server.body("/file").is_some());
        assert!(server.body("/dir/file").is_some());
        mode("file", 0o644);
        mode("dir", 0o755);
        fs::write(site.path("file"), format!("{version}")).unwrap();
        fs::write(site.path("dir/file"), format!("{version}")).unwrap();
        server.wait_for_body("/file", format!("{version}"));
        server.wait_for_body("/dir/file", format!("{version}"));
        eventually("the digest is complete", || {
            !server.digest().contains("incomplete")
        });
    }
    server.assert_alive();
}

#[test]
fn a_new_file_that_was_busy_and_can_not_be_read_is_reported() {
    let Some(program) = unprivileged() else {
        return;
    };
    let site = TestSite::in_memory().file("index.html", "here");
    let server = Server::run(program, &site.root(), EVENTS);
    let nobody = Some(65534);
    let mut file = File::create(site.path("new")).unwrap();
    std::os::unix::fs::chown(site.path("new"), nobody, nobody).unwrap();
    file.write_all(b"half").unwrap();
    eventually("it is missing from the digest", || {
        server.digest().ends_with("incomplete")
    });
    fs::set_permissions(site.path("new"), Permissions::from_mode(0o000)).unwrap();
    std::os::unix::fs::chown(site.path("new"), Some(0), Some(0)).unwrap();
    drop(file);
    eventually("it is told", || server.log().contains("cannot read"));
}

#[test]
fn a_directory_that_could_not_be_read_at_first_is_found_with_all_that_happens_in_it() {
    let Some(program) = unprivileged() else {
        return;
    };
    let site = TestSite::with(&[("shut/file", b"1"), ("index.html", b"here")]);
    fs::set_permissions(site.path("shut"), Permissions::from_mode(0o000)).unwrap();
    let server = Server::run(program, &site.root(), EVENTS);
    fs::set_permissions(site.path("shut"), Permissions::from_mode(0o755)).unwrap();
    server.wait_for_body("/shut/file", "1");
    fs::write(site.path("shut/file"), "2").unwrap();
    server.wait_for_body("/shut/file", "2");
}
