//! Which flags go together with a store, and which do not.

use std::path::Path;

use crate::support::{Releases, Server, TestSite};
use crate::{ADMIN, OFTEN, metric, told, wait_for_release};

#[test]
fn flags_that_make_no_sense_are_refused_by_name() {
    let site = TestSite::with(&[("index.html", b"one")]);
    let releases = Releases::of(&site, &[]);
    let url = releases.url();
    for flags in [
        &["--settle", "1s"][..],
        &["--scrub", "1h"],
        &["--symlinks", "all"],
        &["--manifest", "x"],
        &["--state", "x"],
        &["--open-files", "3"],
        &["--writable", "--write-token-file", "x"],
        &["--prefetch", "all"],
        &["--prefetch", "some"],
        &["--cache-size", "1GiB"],
        &["--channel", "No"],
    ] {
        Server::assert_fails(Path::new(&url), flags, 2, &[flags[0]]);
    }
    for flags in [
        &["--channel", "live"][..],
        &["--poll", "2s"],
        &["--prefetch", "small"],
        &["--require-store"],
        &["--cache", "x"],
    ] {
        Server::assert_fails(&site.root(), flags, 2, &[flags[0], "store"]);
    }
    for source in ["gs://bucket", "http://host/", "s3:bucket"] {
        Server::assert_fails(Path::new(source), &[], 2, &["s3://"]);
    }
}

#[test]
fn a_flag_that_says_otherwise_than_the_release_is_refused() {
    let site = TestSite::with(&[("index.html", b"one")]);
    let releases = Releases::of(&site, &["--not-found", "none", "--listing"]);
    let url = releases.url();
    for flags in [
        &["--not-found", "404-page"][..],
        &["--immutable", "auto"],
        &["--compress"],
    ] {
        let name = flags[0].split('=').next().unwrap();
        Server::assert_fails(
            Path::new(&url),
            flags,
            2,
            &[name, "release 1", "leave it out"],
        );
    }
    let cache = releases.beside("cache");
    // What says the same is none.
    let flags = ["--not-found", "none", "--cache", &cache];
    let server = releases.serve(&[&ADMIN[..], &OFTEN, &flags].concat());
    // While it runs, the release is refused, and the last good one stays.
    let site = site.file("index.html", "two");
    releases.push(&site, &["--not-found", "404-page"]);
    server.wait_for_line("release 1 stays");
    assert_eq!(metric(&server, "store_releases_refused_total"), 1);
    assert_eq!(metric(&server, "store_reachable"), 1);
    assert_eq!(server.body("/").unwrap(), b"one");
    let said = server.log();
    let said: Vec<_> = said
        .lines()
        .filter(|line| line.contains("release 2"))
        .collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("--not-found is none here and 404-page in the release"),
        "{said:?}"
    );
    assert_eq!(told(&server, "/readyz").0, 200);
    // The next one can be served.
    releases.push(&site, &["--not-found", "none"]);
    wait_for_release(&server, 3);
    // A start is refused, whatever was proven before.
    releases.push(&site, &["--not-found", "404-page"]);
    Server::assert_fails(Path::new(&url), &flags, 2, &["--not-found", "release 4"]);
}
