//! Dates that go back, and clocks that step.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::support::server::command;
use super::support::site::set_mtime;
use super::support::tree::{has, rename_over, stays, within};
use super::support::{Server, TestSite};
use super::{EVENTS, served};

#[test]
fn a_date_that_went_back_disappears_and_matches_nothing() {
    let site = TestSite::with(&[]).file_dated("file", b"new", 1_700_000_000);
    let server = served(&site);
    let first = server.client().get("/file");
    let date = first.field("Last-Modified").unwrap().to_owned();
    let dates = [1_600_000_000, 1_650_000_000, 1_699_999_999];
    for (version, mtime) in dates.into_iter().enumerate() {
        // Each is newer than the one before, and all are older than what clients have.
        let content = format!("version {version}");
        fs::write(site.outside("next"), &content).unwrap();
        set_mtime(&site.outside("next"), mtime);
        fs::rename(site.outside("next"), site.path("file")).unwrap();
        server.wait_for_body("/file", &content);
        let fields = [("If-Modified-Since", date.as_str())];
        let response = server.client().request("GET", "/file", &fields);
        assert_eq!(response.status, 200, "{content}: {:?}", response.fields);
        assert_eq!(response.field("Last-Modified"), None, "{content}");
    }
}

/// Runs etagd under a clock of its own, which is off by what `clock` says (`+1d`, `-1d`).
fn beside_the_clock(clock: &Path) -> Option<Command> {
    if !has("faketime") {
        return None;
    }
    let mut shell = command("faketime");
    shell
        .args(["-f", "+0d", "sh", "-c"])
        // faketime starts a process of its own, and leaves it behind when it is killed.
        .arg("unset FAKETIME; exec setpriv --pdeathsig KILL \"$0\" \"$@\"")
        .arg(env!("CARGO_BIN_EXE_etagd"))
        .env("FAKETIME_TIMESTAMP_FILE", clock)
        .env("FAKETIME_NO_CACHE", "1")
        // A step is one of the clock that people set.
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("NO_FAKE_STAT", "1");
    Some(shell)
}

#[test]
fn a_clock_that_steps_delays_nothing_and_loses_nothing() {
    let site = TestSite::with(&[("a.txt", b"0"), ("old.txt", b"old")]);
    let clock = site.outside("clock");
    fs::write(&clock, "+0d").unwrap();
    let Some(program) = beside_the_clock(&clock) else {
        return;
    };
    let server = Server::run(program, &site.root(), EVENTS);
    for (step, offset) in ["+1d", "-1d", "+10y", "-10y", "+0d"]
        .into_iter()
        .enumerate()
    {
        let old = server.client().get("/old.txt");
        rename_over(&clock, offset);
        let content = format!("step {step}");
        fs::write(site.path("a.txt"), &content).unwrap();
        let took = within(Duration::from_secs(10), "it is answered", || {
            server.body("/a.txt").as_deref() == Some(content.as_bytes())
        });
        assert!(took < Duration::from_secs(5), "{offset}: {took:?}");
        let now = server.client().get("/old.txt");
        assert_eq!(now.field("etag"), old.field("etag"), "{offset}");
        assert_eq!(
            now.field("last-modified"),
            old.field("last-modified"),
            "{offset}"
        );
        // What is being written is not shown, whatever the clock says of its age.
        let mut half = File::create(site.path("half.txt")).unwrap();
        half.write_all(b"one half").unwrap();
        stays(
            Duration::from_millis(400),
            "half a file is not served",
            || server.body("/half.txt").is_none(),
        );
        half.write_all(b", the other").unwrap();
        drop(half);
        server.wait_for_body("/half.txt", "one half, the other");
        fs::remove_file(site.path("half.txt")).unwrap();
        server.wait_for_absence("/half.txt");
    }
}
