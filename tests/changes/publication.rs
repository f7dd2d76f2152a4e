//! What is published together, and when: quiet periods, busy files, `.etagd-hold`.

use std::fs::{self, File};
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use super::support::site::set_mtime;
use super::support::tree::{digest_of, eventually, rename_over, run, stays, within, write_tree};
use super::support::{Server, TestSite, noise};
use super::{EVENTS, served};

#[test]
fn equal_content_written_again_publishes_nothing() {
    let site = TestSite::with(&[("file", b"same"), ("other", b"1"), ("dir/x", b"same")]);
    let server = Server::with(&site, &["--sweep", "1h", "--admin", "127.0.0.1:0"]);
    for version in 2..5 {
        let looks = server.looks();
        fs::write(site.path("file"), "same").unwrap();
        rename_over(&site.path("dir/x"), "same");
        set_mtime(&site.path("file"), 1_000_000_000 + version);
        fs::rename(site.path("dir"), site.outside("dir")).unwrap();
        fs::rename(site.outside("dir"), site.path("dir")).unwrap();
        eventually("it is looked at", || server.looks() > looks);
        // What comes after it is published, and nothing else is.
        fs::write(site.path("other"), format!("{version}")).unwrap();
        server.wait_for_body("/other", format!("{version}"));
        // It is served first and announced then.
        eventually("it is announced", || {
            server.publications() as i64 >= version - 1
        });
        assert_eq!(
            server.publications() as i64,
            version - 1,
            "{}",
            server.log()
        );
    }
}

#[test]
fn a_batch_is_not_broken_by_a_file_that_is_busy_or_by_sweeps() {
    let site = TestSite::with(&[("a", b"0"), ("z", b"0"), ("log", b"")]);
    let server = Server::with(&site, &["--settle", "400ms", "--sweep", "150ms"]);
    let mut log = File::options().append(true).open(site.path("log")).unwrap();
    log.write_all(b"open for a long time").unwrap();
    for version in 1..6 {
        // Never quiet for longer than the quiet period.
        fs::write(site.path("a"), format!("{version}")).unwrap();
        thread::sleep(Duration::from_millis(250));
        fs::write(site.path("z"), format!("{version}")).unwrap();
        within(Duration::from_secs(8), "the batch is published", || {
            // Asked for a first: where it is new, z must be.
            let a = server.body("/a").unwrap();
            let z = server.body("/z").unwrap();
            assert!(z >= a, "a is of {a:?} already, z still of {z:?}");
            z == format!("{version}").into_bytes()
        });
        server.wait_for_body("/z", format!("{version}"));
    }
}

#[test]
fn a_sidecar_that_never_rests_brings_nothing_back() {
    let text = |version: u64| format!("{version} ").repeat(1000);
    let site = TestSite::in_memory().file("app.js", text(0));
    run(
        env!("CARGO_BIN_EXE_etagd"),
        &["compress", "site"],
        site.outside("").as_path(),
    );
    let server = Server::with(&site, &["--sweep", "1h", "--settle", "1s"]);
    let mut busy = File::create(site.path("app.js.br")).unwrap();
    busy.write_all(b"x").unwrap();
    let started = Instant::now();
    // The batch of these is due when the sidecar's time is up.
    let mut version = 0;
    while started.elapsed() < Duration::from_millis(6800) {
        if started.elapsed() > Duration::from_millis(5300) {
            version += 1;
            fs::write(site.path("app.js"), text(version)).unwrap();
        }
        thread::sleep(Duration::from_millis(300));
    }
    let is_last = || server.body("/app.js").as_deref() == Some(text(version).as_bytes());
    within(Duration::from_secs(8), "the last is there", is_last);
    drop(busy);
    stays(Duration::from_secs(3), "it stays", is_last);
}

#[test]
fn a_hold_that_comes_during_a_look_holds_too() {
    let site = TestSite::in_memory().file("huge.bin", "x").file("a", "1");
    let open = || File::options().write(true).open(site.path("huge.bin"));
    open().unwrap().set_len(1 << 30).unwrap();
    let server = served(&site);
    open().unwrap().write_all(b"y").unwrap();
    server.wait_until_it_reads("huge.bin");
    fs::write(site.path(".etagd-hold"), "").unwrap();
    let published = server.publications();
    stays(Duration::from_secs(3), "nothing is published", || {
        server.publications() == published
    });
    fs::remove_file(site.path(".etagd-hold")).unwrap();
    eventually("it is announced", || server.publications() > published);
}

#[test]
fn a_hold_file_holds_publication_until_it_is_gone() {
    let site = TestSite::with(&[("a", b"1"), ("large", &noise(300_000, 1))]);
    let server = served(&site);
    for version in 2..4 {
        fs::write(site.path(".etagd-hold"), "").unwrap();
        let published = server.publications();
        fs::write(site.path("a"), format!("{version}")).unwrap();
        write_tree(&site.path(format!("tree{version}")), 100, "held");
        fs::write(site.path("large"), noise(300_000, version)).unwrap();
        stays(Duration::from_secs(1), "nothing is published", || {
            server.publications() == published
                && server.body("/a") == Some(format!("{}", version - 1).into_bytes())
        });
        fs::remove_file(site.path(".etagd-hold")).unwrap();
        server.wait_for_body("/a", format!("{version}"));
        server.wait_for_body("/large", noise(300_000, version));
        server.wait_until_it_serves(&site.root());
        eventually("it is announced", || server.publications() > published);
        assert_eq!(server.publications(), published + 1, "{}", server.log());
    }
}

#[test]
fn a_server_that_starts_under_a_hold_serves_what_is_there_and_holds_on() {
    let site = TestSite::with(&[("a", b"1"), (".etagd-hold", b"")]);
    let server = served(&site);
    assert_eq!(server.body("/a").unwrap(), b"1");
    fs::write(site.path("a"), "2").unwrap();
    stays(Duration::from_millis(700), "held", || {
        server.body("/a").unwrap() == b"1"
    });
    fs::remove_file(site.path(".etagd-hold")).unwrap();
    server.wait_for_body("/a", "2");
}

#[test]
fn no_quiet_period_and_a_very_long_one_both_publish() {
    let site = TestSite::with(&[("file", b"1")]);
    let none = Server::with(&site, &["--settle", "0s"]);
    let long = Server::with(&site, &["--settle", "1m"]);
    for version in 2..4 {
        fs::write(site.path("file"), format!("{version}")).unwrap();
        none.wait_for_body("/file", format!("{version}"));
        let body = format!("{version}").into_bytes();
        let is_seen = || long.body("/file").as_deref() == Some(&body);
        within(
            Duration::from_secs(4),
            "2 s is the longest quiet period",
            is_seen,
        );
    }
    assert_eq!(none.digest(), digest_of(&site.root()));
}

#[test]
fn an_immutable_file_that_has_other_content_is_told_once() {
    for files in ["/assets/**", "auto"] {
        tell_of_other_content(files);
    }
}

fn tell_of_other_content(immutable: &str) {
    let site = TestSite::with(&[
        ("assets/app-1a2b3c4d.js", b"one"),
        ("assets/app-2a3b4c5d.js", b"two"),
        ("index.html", b"here"),
    ]);
    let server = Server::with(&site, &[EVENTS, &["--immutable", immutable]].concat());
    let told = |path: &str| {
        let log = server.log();
        let lines = log
            .lines()
            .filter(|line| line.contains("was served as immutable"));
        lines.filter(|line| line.contains(path)).count()
    };
    fs::write(site.path("assets/app-3a4b5c6d.js"), "three").unwrap();
    server.wait_for_body("/assets/app-3a4b5c6d.js", "three");
    fs::write(site.path("index.html"), "there").unwrap();
    set_mtime(&site.path("assets/app-2a3b4c5d.js"), 1_600_000_000);
    server.wait_for_body("/", "there");
    fs::write(site.path("assets/app-1a2b3c4d.js"), "another").unwrap();
    server.wait_for_body("/assets/app-1a2b3c4d.js", "another");
    server.wait_for_line("was served as immutable");
    let counts = [
        "app-1a2b3c4d.js",
        "app-2a3b4c5d.js",
        "app-3a4b5c6d.js",
        "index",
    ]
    .map(told);
    assert_eq!(counts, [1, 0, 0, 0], "{immutable}: {}", server.log());
}
