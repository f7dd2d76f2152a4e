//! A store that is damaged, incomplete or of another version: one line, a counter, the last good release.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use crate::support::releases::flip;
use crate::support::tree::{eventually, stays};
use crate::support::{Releases, Server, TestSite, noise};
use crate::{A_WHILE, ADMIN, OFTEN, SELDOM, metric, status, wait_for_release};

const LARGE: usize = 3 << 20;

fn site() -> TestSite {
    TestSite::with(&[("index.html", b"one"), ("large.bin", &noise(LARGE, 1))])
}

/// A way to spoil the release with this number.
type Spoil = fn(&Releases, u64);

const SPOILT: [(&str, Spoil, &str); 8] = [
    (
        "a record of a later version",
        |it, number| {
            edit(&it.record(number), "\"format\":1", "\"format\":2");
        },
        "format 2",
    ),
    (
        "a record that is none",
        |it, number| {
            fs::write(it.record(number), "<html>").unwrap();
        },
        "no release",
    ),
    (
        "the record of another release",
        |it, number| {
            fs::copy(it.record(number - 1), it.record(number)).unwrap();
        },
        "record of release",
    ),
    (
        "a record with another digest",
        |it, number| {
            let record = fs::read_to_string(it.record(number)).unwrap();
            let digest = record.split("\"digest\":\"").nth(1).unwrap()[..4].to_owned();
            edit(
                &it.record(number),
                &format!("\"digest\":\"{digest}"),
                "\"digest\":\"0000",
            );
        },
        "digest",
    ),
    (
        "a listing that is gone",
        |it, number| {
            fs::remove_file(it.listing(number)).unwrap();
        },
        "it is not there",
    ),
    (
        "a listing that is damaged",
        |it, number| flip(&it.listing(number), 30),
        "damaged",
    ),
    (
        "a blob that is gone",
        |it, _| {
            fs::remove_file(it.blob(b"two")).unwrap();
        },
        "it is not there",
    ),
    (
        "a blob that is damaged",
        |it, _| flip(&it.blob(b"two"), 1),
        "damaged",
    ),
];

fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn a_release_that_cannot_be_served_is_named_once_and_the_last_good_one_stays() {
    for (name, spoil, says) in SPOILT {
        let releases = Releases::of(&site(), &[]);
        let server = releases.serve(&[ADMIN, SELDOM].concat());
        // Spoilt before it looks.
        releases.push(&site().file("index.html", "two"), &[]);
        spoil(&releases, 2);
        server.signal(Signal::HUP);
        server.wait_for_line("release 1 stays");
        server.signal(Signal::HUP);
        stays(A_WHILE, name, || server.body("/").unwrap() == b"one");
        let log = server.log();
        let said: Vec<_> = log
            .lines()
            .filter(|line| line.contains("release 2 of"))
            .collect();
        assert_eq!(said.len(), 1, "{name}: {said:?}");
        assert!(said[0].contains(says), "{name}: {said:?}");
        assert_eq!(metric(&server, "store_releases_refused_total"), 1, "{name}");
        assert_eq!(metric(&server, "store_release"), 1, "{name}");
        drop(server);
        // A start goes back to it, too.
        let server = releases.serve(&ADMIN);
        assert_eq!(server.body("/").unwrap(), b"one", "{name}");
        server.wait_for_line("release 1 is served");
        // A whole one is taken.
        releases.push(&site().file("index.html", "three"), &["--channel", "next"]);
        let record = releases.folder().join(format!("channels/next/{:020}", 1));
        fs::copy(record, releases.record(3)).unwrap();
        edit(&releases.record(3), "\"number\":1", "\"number\":3");
        fs::write(releases.hint(), "3").unwrap();
        let server = releases.serve(&ADMIN);
        assert_eq!(server.body("/").unwrap(), b"three", "{name}");
    }
}

#[test]
fn a_channel_with_nothing_to_serve_ends_a_start() {
    for (name, spoil, says) in SPOILT {
        if name.contains("another release") {
            continue;
        }
        let releases = Releases::of(&site().file("index.html", "two"), &[]);
        spoil(&releases, 1);
        let url = releases.url();
        Server::assert_fails(Path::new(&url), &[], 1, &[says]);
    }
    let nowhere = "file:///nonexistent/etagd";
    Server::assert_fails(Path::new(nowhere), &[], 1, &["no such folder", nowhere]);
}

#[test]
fn what_cannot_be_proven_is_answered_503_or_cut() {
    let content = noise(LARGE, 1);
    // In the first group, and in a later one.
    for at in [1000, 2 << 20] {
        let releases = Releases::of(&site(), &[]);
        flip(&releases.blob(&content), at);
        let server = releases.serve(&ADMIN);
        let response = server.client().get("/large.bin");
        match at {
            1000 => {
                assert_eq!(response.status, 503);
                assert_eq!(metric(&server, "unavailable_responses_total"), 1);
            }
            _ => {
                assert!(
                    response.status == 200 && response.cut,
                    "{}",
                    response.status
                );
                assert!(content.starts_with(&response.body));
                assert!(response.body.len() <= at);
                let cut = "cut_responses_total{reason=\"unproven\"}";
                eventually("it is counted", || metric(&server, cut) == 1);
            }
        }
        server.wait_for_line("is damaged");
        assert!(metric(&server, "verification_failures_total") >= 1);
        assert!(metric(&server, "store_failed_fetches_total") >= 1);
        // The rest of it is what it was.
        let part = server
            .client()
            .request("GET", "/large.bin", &[("Range", "bytes=-5")]);
        assert_eq!((part.status, &part.body[..]), (206, &content[LARGE - 5..]));
    }
    // A tree that is not that of the content proves nothing.
    let releases = Releases::of(&site(), &[]);
    flip(&releases.tree(&content), 40);
    let server = releases.serve(&ADMIN);
    assert_eq!(status(&server, "/large.bin"), 503);
    for lengthen in [false, true] {
        let releases = Releases::of(&site(), &[]);
        let blob = releases.blob(&content);
        let mut bytes = fs::read(&blob).unwrap();
        match lengthen {
            true => bytes.push(0),
            false => bytes.truncate(LARGE - 1),
        }
        fs::write(&blob, bytes).unwrap();
        let server = releases.serve(&ADMIN);
        let response = server.client().get("/large.bin");
        match lengthen {
            // What is asked for is there.
            true => assert_eq!(response.body, content),
            false => assert!(response.cut && response.body.len() < LARGE),
        }
    }
}

#[test]
fn what_was_repaired_is_served() {
    let content = noise(LARGE, 1);
    let releases = Releases::of(&site(), &[]);
    let blob = releases.blob(&content);
    fs::rename(&blob, releases.beside("blob")).unwrap();
    let server = releases.serve(&[ADMIN, OFTEN].concat());
    assert_eq!(status(&server, "/large.bin"), 503);
    server.wait_for_line("it is not there");
    fs::rename(releases.beside("blob"), &blob).unwrap();
    assert_eq!(server.body("/large.bin").unwrap(), content);
    // A release that was refused is tried again with each sweep.
    releases.push(&site().file("index.html", "two"), &[]);
    wait_for_release(&server, 2);
}
