//! P4: what changes together is seen together. A client that has seen anything of a release never
//! sees anything of an older one again, and no body is of two.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::tree::{EndOfWork, relink, rename_over};
use crate::support::version::{content, versions_of};
use crate::support::writer::exchange_directories;
use crate::support::{Server, TestSite};

/// One file for each way of keeping data.
const FILES: [(&str, usize); 4] = [
    ("a.html", 2 << 10),
    ("z.html", 100 << 10),
    ("middle.bin", 300 << 10),
    ("large.bin", 2 << 20),
];

fn write_release(dir: &Path, version: u64) {
    fs::create_dir_all(dir).unwrap();
    for (name, length) in FILES {
        fs::write(dir.join(name), content(version, length)).unwrap();
    }
    // Some more to hash, so that there is a time in between.
    for index in 0..50 {
        fs::write(dir.join(format!("{index}.txt")), content(version, 8 << 10)).unwrap();
    }
}

/// Deploys one release after the other while clients ask for all of it below `prefix`.
fn assert_whole(server: &Server, prefix: &str, deploy: impl Fn(u64)) {
    const RELEASES: u64 = 15;
    let (newest, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (newest, is_over) = (&newest, &is_over);
    thread::scope(|scope| {
        let end = EndOfWork(is_over);
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(move || {
                    let mut bodies = 0;
                    let mut client = server.client();
                    while !is_over.load(Ordering::Relaxed) {
                        for (name, length) in FILES {
                            let target = format!("{prefix}{name}");
                            let before = newest.load(Ordering::SeqCst);
                            let response = client.get(&target);
                            if response.cut {
                                client = server.client();
                                continue;
                            }
                            if response.status == 503 && length > 128 << 10 {
                                // The old release is gone, the new one is being hashed.
                                continue;
                            }
                            assert_eq!(response.status, 200, "{target}");
                            assert!(response.is_what_its_tag_says(), "{target}: torn");
                            let versions = versions_of(&response.body, 0).unwrap();
                            assert_eq!(versions.len(), 1, "{target} is a mixture of {versions:?}");
                            let version = *versions.first().unwrap();
                            assert!(
                                version >= before,
                                "{target} is of {version}, after something of {before}"
                            );
                            newest.fetch_max(version, Ordering::SeqCst);
                            bodies += 1;
                        }
                    }
                    bodies
                })
            })
            .collect();
        let mut limit = Instant::now();
        for version in 2..=RELEASES {
            deploy(version);
            // Some deploys wait until the one before is seen, and some do not.
            limit = Instant::now() + Duration::from_secs(15);
            while version % 3 > 0 && newest.load(Ordering::SeqCst) < version {
                assert!(Instant::now() < limit, "release {version} is not seen");
                thread::sleep(Duration::from_millis(1));
            }
        }
        while newest.load(Ordering::SeqCst) < RELEASES && Instant::now() < limit {
            thread::sleep(Duration::from_millis(1));
        }
        drop(end);
        let bodies: u32 = readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .sum();
        assert!(bodies > 60, "only {bodies} bodies");
        assert_eq!(
            newest.load(Ordering::SeqCst),
            RELEASES,
            "the last release is seen"
        );
    });
}

#[test]
fn p4_a_swapped_link_to_the_root_swaps_the_site() {
    let site = TestSite::in_memory();
    let release = |version| site.outside(&format!("release{version}"));
    write_release(&release(1), 1);
    symlink(release(1), site.outside("current")).unwrap();
    let server = Server::at(&site.outside("current"), &["--sweep", "1h"]);
    assert_whole(&server, "/", |version| {
        write_release(&release(version), version);
        relink(&site.outside("current"), release(version));
        if version % 2 == 0 {
            fs::remove_dir_all(release(version - 1)).unwrap();
        }
    });
}

#[test]
fn p4_a_swapped_link_inside_the_site_swaps_what_is_below() {
    let site = TestSite::in_memory();
    let release = |version| site.path(format!("releases/{version}"));
    write_release(&release(1), 1);
    symlink("releases/1", site.path("current")).unwrap();
    let server = Server::with(&site, &["--sweep", "1h"]);
    assert_whole(&server, "/current/", |version| {
        write_release(&release(version), version);
        relink(&site.path("current"), format!("releases/{version}"));
        if version % 2 == 0 {
            fs::remove_dir_all(release(version - 1)).unwrap();
        }
    });
}

/// Too long to be held in memory: what it was can't be sent once it is replaced.
const LONG: usize = 300 << 10;

#[test]
fn p4_a_file_requested_during_a_deploy_waits_for_the_rest_of_it() {
    let site = TestSite::new()
        .file("page.html", "1")
        .file("app.js", content(1, LONG));
    // Long enough that a busy machine makes no pause of it between two steps of the deploy.
    let server = Server::with(&site, &["--sweep", "1h", "--settle", "1s"]);
    let mut client = server.client();
    thread::scope(|scope| {
        scope.spawn(|| {
            rename_over(&site.path("app.js"), content(2, LONG));
            // Never quiet for as long as makes a batch.
            for index in 0..12 {
                thread::sleep(Duration::from_millis(50));
                rename_over(&site.path("filler"), format!("{index}"));
            }
            rename_over(&site.path("page.html"), "2");
        });
        loop {
            let app = client.get("/app.js");
            if app.cut {
                client = server.client();
                continue;
            }
            let page = client.get("/page.html");
            let is_new = app.status == 200 && versions_of(&app.body, 0).unwrap().contains(&2);
            assert!(!is_new || page.body == b"2", "mixed: {}", server.log());
            if is_new {
                break;
            }
        }
    });
}

#[test]
fn p4_a_file_becomes_a_directory_at_once() {
    let site = TestSite::new().file("docs", content(1, LONG));
    let server = Server::with(&site, &["--sweep", "1h"]);
    fs::remove_file(site.path("docs")).unwrap();
    fs::create_dir(site.path("docs")).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = EndOfWork(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                server.client().get("/docs");
            }
        });
        for index in 0..20 {
            fs::write(site.path(format!("docs/{index}")), "new").unwrap();
            thread::sleep(Duration::from_millis(40));
        }
        // It was never quiet, and not for two seconds.
        let is_early = server.log().contains("published: ") && {
            let whole = server.client().get("/docs/19").status == 200;
            !whole
        };
        assert!(!is_early, "{}", server.log());
    });
}

#[test]
fn p4_a_swap_waits_for_a_file_that_is_still_being_written() {
    let site = TestSite::in_memory();
    for version in 1..3 {
        let release = site.outside(&format!("r{version}"));
        fs::create_dir(&release).unwrap();
        for name in ["a", "b"] {
            fs::write(release.join(name), format!("{version}")).unwrap();
        }
    }
    symlink(site.outside("r1"), site.outside("current")).unwrap();
    let server = Server::at(&site.outside("current"), &["--sweep", "1h"]);
    let busy = fs::File::options().append(true).open(site.outside("r2/b"));
    relink(&site.outside("current"), site.outside("r2"));
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1500) {
        let (b, a) = (server.body("/b").unwrap(), server.body("/a").unwrap());
        assert_eq!((a, b), (b"1".to_vec(), b"1".to_vec()), "{}", server.log());
    }
    drop(busy);
    server.wait_for_body("/a", "2");
    assert_eq!(server.body("/b").unwrap(), b"2");
}

#[test]
fn p4_an_exchanged_directory_is_published_at_once() {
    let site = TestSite::in_memory();
    write_release(&site.path("app"), 1);
    let server = Server::with(&site, &["--sweep", "1h"]);
    assert_whole(&server, "/app/", |version| {
        write_release(&site.outside("next"), version);
        exchange_directories(&site.outside("next"), &site.path("app"));
    });
}

#[test]
fn p4_an_exchanged_root_is_published_at_once() {
    let site = TestSite::in_memory();
    write_release(&site.root(), 1);
    let server = Server::with(&site, &["--sweep", "1h"]);
    assert_whole(&server, "/", |version| {
        write_release(&site.outside("next"), version);
        exchange_directories(&site.outside("next"), &site.root());
    });
}
