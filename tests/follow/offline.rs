//! Without the store: what was fetched is served, and a start begins with what was proven before.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::tree::eventually;
use crate::support::{Releases, Server, TestSite, noise};
use crate::{ADMIN, OFTEN, SELDOM, metric, status, stop, told, wait_for_release};

const LARGE: usize = 3 << 20;

fn site() -> TestSite {
    TestSite::with(&[
        ("index.html", b"<!doctype html>one"),
        ("app.js", b"app()"),
        ("_headers", b"/app.js\n  X-Rule: 1\n"),
        ("large.bin", &noise(LARGE, 1)),
        ("other.bin", &noise(LARGE, 2)),
    ])
}

/// The packs of a cache.
fn packs(cache: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(Path::new(cache).join("v2")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    files
        .filter(|path| path.file_name().unwrap().len() == 64)
        .collect()
}

#[test]
fn a_start_without_the_store_serves_what_was_proven_and_says_so() {
    let releases = Releases::of(&site(), &[]);
    let cache = releases.beside("cache");
    let flags = [&ADMIN[..], &OFTEN, &["--cache", &cache]].concat();
    let server = releases.serve(&flags);
    let digest = told(&server, "/digest").1;
    assert_eq!(server.body("/large.bin").unwrap(), noise(LARGE, 1));
    stop(server);
    releases.hide();
    let server = releases.serve(&flags);
    assert_eq!(told(&server, "/digest").1, digest);
    let (ready, said) = told(&server, "/readyz");
    assert_eq!(ready, 200);
    assert!(
        said.contains("release 1 is served, the last that was proven here"),
        "{said}"
    );
    server.wait_for_line("release 1 is served, the last that was proven here");
    assert_eq!(metric(&server, "store_reachable"), 0);
    assert_eq!(server.body("/").unwrap(), b"<!doctype html>one");
    assert_eq!(server.client().get("/app.js").field("X-Rule"), Some("1"));
    assert_eq!(server.body("/large.bin").unwrap(), noise(LARGE, 1));
    // Of what nobody has asked for there is nothing.
    let missing = server.client().get("/other.bin");
    assert_eq!(missing.status, 503);
    assert_eq!(missing.field("Retry-After"), Some("1"));
    assert_eq!(
        missing.field("Cache-Control"),
        Some("private, no-store, max-age=0")
    );
    // It goes on when the store is there again.
    releases.show();
    eventually("the store answers", || {
        metric(&server, "store_reachable") == 1
    });
    server.wait_for_line("answers again: release 1 is served");
    assert_eq!(told(&server, "/readyz").1.lines().count(), 1);
    assert_eq!(server.body("/other.bin").unwrap(), noise(LARGE, 2));
    let site = site().file("index.html", "two");
    releases.push(&site, &[]);
    wait_for_release(&server, 2);
}

#[test]
fn an_empty_folder_is_a_store_that_is_not_mounted() {
    let releases = Releases::of(&site(), &[]);
    let cache = releases.beside("cache");
    let flags = [&ADMIN[..], &OFTEN, &["--cache", &cache]].concat();
    stop(releases.serve(&flags));
    releases.hide();
    fs::create_dir(releases.folder()).unwrap();
    let server = releases.serve(&flags);
    assert_eq!(server.body("/").unwrap(), b"<!doctype html>one");
    assert_eq!(metric(&server, "store_reachable"), 0);
    fs::remove_dir(releases.folder()).unwrap();
    releases.show();
    eventually("it is mounted", || metric(&server, "store_reachable") == 1);
}

#[test]
fn who_requires_the_store_does_not_start_without_it() {
    let releases = Releases::of(&site(), &[]);
    let cache = releases.beside("cache");
    stop(releases.serve(&["--cache", &cache]));
    releases.hide();
    let url = releases.url();
    let flags = ["--cache", &cache, "--require-store"];
    Server::assert_fails(Path::new(&url), &flags, 1, &[&url, "--require-store"]);
    // Nor does who has nothing to serve.
    Server::assert_fails(Path::new(&url), &[], 1, &[&url, "no such folder"]);
}

#[test]
fn what_the_store_took_away_is_answered_from_cache_and_memory() {
    let releases = Releases::of(&site(), &[]);
    let cache = releases.beside("cache");
    for flags in [&["--cache", &*cache][..], &[]] {
        let server = releases.serve(&[&ADMIN[..], &OFTEN, flags].concat());
        assert_eq!(server.body("/large.bin").unwrap(), noise(LARGE, 1));
        releases.hide();
        server.wait_for_line("release 1 stays");
        eventually("it is away", || metric(&server, "store_reachable") == 0);
        assert_eq!(server.body("/").unwrap(), b"<!doctype html>one");
        assert_eq!(server.body("/large.bin").unwrap(), noise(LARGE, 1));
        assert_eq!(status(&server, "/other.bin"), 503);
        let tag = server
            .client()
            .get("/app.js")
            .field("ETag")
            .unwrap()
            .to_owned();
        let again = server
            .client()
            .request("GET", "/app.js", &[("If-None-Match", &tag)]);
        assert_eq!(again.status, 304);
        assert!(metric(&server, "store_failed_polls_total") >= 1);
        let (ready, said) = told(&server, "/readyz");
        assert!(ready == 200 && said.contains("release 1 stays"), "{said}");
        let log = server.log();
        let warnings = log
            .lines()
            .filter(|line| line.starts_with("warning"))
            .count();
        assert_eq!(warnings, 1, "{log}");
        releases.show();
    }
}

#[test]
fn a_second_start_fetches_nothing_again() {
    let releases = Releases::of(&site(), &[]);
    let cache = releases.beside("cache");
    let flags = [&ADMIN[..], &["--cache", &cache, "--prefetch", "all"]].concat();
    let server = releases.serve(&flags);
    assert!(metric(&server, "store_fetched_bytes_total") > 2 * LARGE as u64);
    stop(server);
    let server = releases.serve(&flags);
    for file in ["/", "/app.js", "/large.bin", "/other.bin"] {
        assert_eq!(status(&server, file), 200, "{file}");
    }
    assert_eq!(metric(&server, "store_fetches_total"), 0);
    assert!(metric(&server, "store_cache_hits_total") >= 2);
    // What is small is in memory soon, where the front answers from.
    eventually("the front answers", || {
        let before = metric(&server, "front_requests_total");
        status(&server, "/app.js");
        metric(&server, "front_requests_total") > before
    });
    stop(server);
    // All of it was there before the release was served.
    releases.hide();
    let server = releases.serve(&flags);
    assert_eq!(server.body("/other.bin").unwrap(), noise(LARGE, 2));
}

#[test]
fn a_damaged_cache_costs_time_alone() {
    let releases = Releases::of(&site(), &[]);
    let cache = releases.beside("cache");
    let flags = [
        &ADMIN[..],
        &SELDOM,
        &["--cache", &cache, "--prefetch", "all"],
    ]
    .concat();
    stop(releases.serve(&flags));
    for pack in packs(&cache) {
        let mut bytes = fs::read(&pack).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&pack, bytes).unwrap();
    }
    let server = releases.serve(&flags);
    for (file, seed) in [("/large.bin", 1), ("/other.bin", 2)] {
        assert_eq!(server.body(file).unwrap(), noise(LARGE, seed));
    }
    let log = server.log();
    assert_eq!(
        log.lines()
            .filter(|line| line.contains("is damaged"))
            .count(),
        1,
        "{log}"
    );
    stop(server);
    // What a start begins with is not believed either.
    let kept = fs::read_dir(Path::new(&cache).join("v2")).unwrap();
    let kept = kept.map(|file| file.unwrap().path());
    let kept: Vec<_> = kept
        .filter(|path| path.to_string_lossy().contains("/kept-"))
        .collect();
    assert_eq!(kept.len(), 1);
    crate::support::releases::flip(&kept[0], 100);
    releases.hide();
    let url = releases.url();
    Server::assert_fails(Path::new(&url), &["--cache", &cache], 1, &[&url]);
}

#[test]
fn a_cache_that_is_full_or_cannot_be_written_costs_time_alone() {
    let releases = Releases::of(&site(), &[]);
    let cache = releases.beside("cache");
    // Less than the site has.
    let server = releases.serve(&["--cache", &cache, "--cache-size", "1MiB"]);
    for _ in 0..2 {
        assert_eq!(server.body("/large.bin").unwrap(), noise(LARGE, 1));
        assert_eq!(server.body("/other.bin").unwrap(), noise(LARGE, 2));
    }
    stop(server);
    let size: u64 = packs(&cache)
        .iter()
        .map(|pack| fs::metadata(pack).unwrap().len())
        .sum();
    assert!(size <= 3 << 20, "{size}");
}

#[test]
fn two_processes_share_a_cache() {
    let releases = Releases::of(&site(), &[]);
    let cache = releases.beside("cache");
    let flags = [
        &ADMIN[..],
        &SELDOM,
        &["--cache", &cache, "--prefetch", "none"],
    ]
    .concat();
    let [one, other] = [(); 2].map(|()| releases.serve(&flags));
    std::thread::scope(|scope| {
        for server in [&one, &other] {
            scope.spawn(move || {
                for _ in 0..3 {
                    assert_eq!(server.body("/large.bin").unwrap(), noise(LARGE, 1));
                    assert_eq!(server.body("/other.bin").unwrap(), noise(LARGE, 2));
                }
            });
        }
    });
    stop(one);
    stop(other);
    let server = releases.serve(&flags);
    assert_eq!(server.body("/large.bin").unwrap(), noise(LARGE, 1));
    assert_eq!(metric(&server, "store_fetches_total"), 0);
}
