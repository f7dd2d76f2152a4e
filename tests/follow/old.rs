//! `--keep-old` across replicas and restarts.

use std::fs;

use crate::support::{Releases, TestSite};
use crate::{ADMIN, OFTEN, metric, status, stop, wait_for_release};

fn site(version: &str) -> TestSite {
    TestSite::with(&[
        ("index.html", version.as_bytes()),
        (&format!("app-{version}.js"), version.as_bytes()),
        (&format!("page-{version}.html"), version.as_bytes()),
        (&format!("page-{version}.html.gz"), b"\x1f\x8b"),
    ])
}

#[test]
fn what_an_earlier_release_had_is_answered_by_whoever_is_asked() {
    let releases = Releases::of(&site("one"), &[]);
    let keeping = [&ADMIN[..], &OFTEN, &["--keep-old", "1h"]].concat();
    let running = releases.serve(&keeping);
    releases.push(&site("two"), &[]);
    wait_for_release(&running, 2);
    releases.push(&site("three"), &[]);
    wait_for_release(&running, 3);
    let late = releases.serve(&keeping);
    let without = releases.serve(&[ADMIN, OFTEN].concat());
    for server in [&running, &late] {
        for version in ["one", "two", "three"] {
            let script = server.body(&format!("/app-{version}.js"));
            assert_eq!(script.unwrap(), version.as_bytes());
        }
        for page in ["/page-one", "/page-two.html", "/page-one.html.gz"] {
            assert_eq!(status(server, page), 404, "{page}");
        }
    }
    assert_eq!(status(&without, "/app-one.js"), 404);
    // They are not part of the site.
    let digests = [&running, &late, &without].map(|server| crate::told(server, "/digest").1);
    assert!(
        digests.iter().all(|digest| *digest == digests[0]),
        "{digests:?}"
    );
    // One that comes back is the site's own again.
    releases.roll_back(1);
    wait_for_release(&running, 4);
    wait_for_release(&late, 4);
    for server in [&running, &late] {
        assert_eq!(status(server, "/page-one"), 200);
        assert_eq!(server.body("/app-three.js").unwrap(), b"three");
    }
}

#[test]
fn a_replica_that_has_missed_releases_knows_what_they_had() {
    let releases = Releases::of(&site("one"), &[]);
    let seldom = [&ADMIN[..], &crate::SELDOM, &["--keep-old", "1h"]].concat();
    let server = releases.serve(&seldom);
    releases.push(&site("two"), &[]);
    releases.push(&site("three"), &[]);
    // It finds the newest, and what it asks for is in none but the one between.
    assert_eq!(server.body("/app-two.js").unwrap(), b"two");
    assert_eq!(metric(&server, "store_release"), 3);
    assert_eq!(server.body("/app-one.js").unwrap(), b"one");
}

#[test]
fn it_is_over_when_its_time_is() {
    let releases = Releases::of(&site("one"), &[]);
    let keeping = [&ADMIN[..], &OFTEN, &["--keep-old", "4s"]].concat();
    let server = releases.serve(&keeping);
    releases.push(&site("two"), &[]);
    wait_for_release(&server, 2);
    assert_eq!(status(&server, "/app-one.js"), 200);
    crate::support::tree::eventually("it is over", || status(&server, "/app-one.js") == 404);
    let late = releases.serve(&keeping);
    assert_eq!(status(&late, "/app-one.js"), 404);
    // What can't be read of an earlier release is no reason not to serve this one.
    fs::remove_file(releases.listing(1)).unwrap();
    let long = releases.serve(&[&ADMIN[..], &["--keep-old", "1h"]].concat());
    long.wait_for_line("files of release 1 are not served");
    assert_eq!(status(&long, "/app-two.js"), 200);
}

#[test]
fn a_start_without_the_store_has_what_the_cache_knows() {
    let releases = Releases::of(&site("one"), &[]);
    let cache = releases.beside("cache");
    let keeping = [&ADMIN[..], &OFTEN, &["--keep-old", "1h", "--cache", &cache]].concat();
    let server = releases.serve(&keeping);
    for (number, version) in [(2, "two"), (3, "three")] {
        releases.push(&site(version), &[]);
        wait_for_release(&server, number);
    }
    stop(server);
    releases.hide();
    let server = releases.serve(&keeping);
    for version in ["one", "two", "three"] {
        let script = server.body(&format!("/app-{version}.js"));
        assert_eq!(script.unwrap(), version.as_bytes());
    }
    assert_eq!(status(&server, "/page-two"), 404, "it is a page");
    assert_eq!(metric(&server, "store_reachable"), 0);
    assert_eq!(metric(&server, "store_fetches_total"), 0);
    // What is not kept any more is not there either.
    let short = [
        &ADMIN[..],
        &OFTEN,
        &["--keep-old", "1ms", "--cache", &cache],
    ]
    .concat();
    let server = releases.serve(&short);
    assert_eq!(status(&server, "/app-one.js"), 404);
}
