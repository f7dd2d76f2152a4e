//! A newest release that can't be served, and a start: where it goes back to, and where it does not.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use crate::support::{Releases, Server, TestSite};
use crate::{ADMIN, OFTEN, SELDOM, metric, stop, told, wait_for_release};

fn site(version: &str) -> TestSite {
    TestSite::with(&[("index.html", version.as_bytes())])
}

/// The warnings that a server has given.
fn warnings(server: &Server) -> Vec<String> {
    let log = server.log();
    let warnings = log.lines().filter(|line| line.starts_with("warning"));
    warnings.map(str::to_owned).collect()
}

/// Three releases, the newest of which can't be served.
fn three() -> Releases {
    let releases = Releases::of(&site("one"), &[]);
    releases.push(&site("two"), &[]);
    releases.push(&site("three"), &[]);
    fs::remove_file(releases.blob(b"three")).unwrap();
    releases
}

#[test]
fn what_is_served_stays_until_the_newest_can_be() {
    let releases = Releases::of(&site("one"), &[]);
    let server = releases.serve(&[ADMIN, SELDOM].concat());
    releases.push(&site("two"), &[]);
    releases.push(&site("three"), &[]);
    fs::remove_file(releases.blob(b"three")).unwrap();
    server.signal(Signal::HUP);
    server.wait_for_line("release 1 stays");
    // Nobody has said that the one in between is to be served.
    assert_eq!(server.body("/").unwrap(), b"one");
    assert_eq!(metric(&server, "store_release"), 1);
    assert_eq!(metric(&server, "store_newest_release"), 3);
    assert_eq!(metric(&server, "store_releases_refused_total"), 1);
    releases.roll_back(2);
    server.signal(Signal::HUP);
    wait_for_release(&server, 4);
    assert_eq!(server.body("/").unwrap(), b"two");
    assert_eq!(metric(&server, "store_newest_release"), 4);
}

#[test]
fn a_start_begins_with_what_was_served_here_last() {
    let releases = Releases::of(&site("one"), &[]);
    let cache = releases.beside("cache");
    let flags = [&ADMIN[..], &OFTEN, &["--cache", &cache]].concat();
    stop(releases.serve(&flags));
    releases.push(&site("two"), &[]);
    releases.push(&site("three"), &[]);
    fs::remove_file(releases.blob(b"three")).unwrap();
    let server = releases.serve(&flags);
    assert_eq!(server.body("/").unwrap(), b"one");
    let said = warnings(&server);
    let [line] = &said[..] else {
        panic!("{said:?}");
    };
    for part in [
        "release 3 of",
        "it is not there",
        "release 1 is served, the last that was proven here",
    ] {
        assert!(line.contains(part), "{line}");
    }
    assert!(!line.contains("503"), "the store is there: {line}");
    assert!(told(&server, "/readyz").1.contains("release 1 is served"));
    let metrics = ["store_release", "store_newest_release", "store_reachable"];
    assert_eq!(metrics.map(|name| metric(&server, name)), [1, 3, 1]);
    // The next one that can be served is.
    releases.roll_back(2);
    wait_for_release(&server, 4);
    assert_eq!(told(&server, "/readyz").1.lines().count(), 1);
}

#[test]
fn a_first_start_begins_with_the_newest_that_can_be_served() {
    let releases = three();
    let cache = releases.beside("cache");
    for flags in [&[][..], &["--cache", &cache]] {
        let server = releases.serve(&[&ADMIN[..], flags].concat());
        assert_eq!(server.body("/").unwrap(), b"two");
        let said = warnings(&server);
        assert_eq!(said.len(), 1, "{said:?}");
        let line = &said[0];
        let back = "release 2 is served, the newest before it that can be";
        assert!(
            line.contains("release 3 of") && line.contains(back),
            "{line}"
        );
    }
}

#[test]
fn a_start_never_goes_behind_what_was_served_here() {
    let releases = Releases::of(&site("one"), &[]);
    releases.push(&site("two"), &["--not-found", "none"]);
    let cache = releases.beside("cache");
    let flags = [&ADMIN[..], &OFTEN, &["--cache", &cache]].concat();
    stop(releases.serve(&flags));
    // The store is an older one, or somebody has deleted the newest release.
    fs::remove_file(releases.record(2)).unwrap();
    fs::write(releases.hint(), "1").unwrap();
    let server = releases.serve(&flags);
    assert_eq!(server.body("/").unwrap(), b"two");
    let said = warnings(&server);
    let line = said.first().expect("a warning");
    for part in [
        "the newest release of",
        "is 1, and release 2 was served here before",
        "release 2 is served, the last that was proven here",
    ] {
        assert!(line.contains(part), "{line}");
    }
    assert_eq!(metric(&server, "store_release"), 2);
    assert_eq!(metric(&server, "store_newest_release"), 1);
    stop(server);
    // Where that can't be served here any more, nothing is.
    let url = releases.url();
    let flags = ["--cache", &cache, "--not-found", "404-page"];
    let says = [
        "release 2 was served here before",
        "nothing older is served",
    ];
    Server::assert_fails(Path::new(&url), &flags, 1, &says);
    // Who has served nothing here begins with what there is.
    let server = releases.serve(&ADMIN);
    assert_eq!(server.body("/").unwrap(), b"one");
}
