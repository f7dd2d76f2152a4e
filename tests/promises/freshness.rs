//! P5: a change is visible within the quiet period and the time to hash it; a file that is open
//! for writing, that long after it is closed; where the kernel reports nothing, within one sweep.
//!
//! The limits here leave room for a machine with other work. The figures are `benches/freshness`.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::server::{Server, command};
use crate::support::tree::{eventually, stays, within, write_tree};
use crate::support::version::content;
use crate::support::writer::WRITERS;
use crate::support::{Client, TestSite};

const EVENTS: &[&str] = &["--sweep", "1h"];

#[test]
fn p5_every_way_of_writing_is_seen_soon() {
    let site = TestSite::with(&[]).file("file", content(0, 40 << 10));
    let server = Server::with(&site, EVENTS);
    let mut client = server.client();
    for writer in WRITERS {
        let mut times: Vec<_> = (1..=9)
            .map(|version| {
                let next = content(version, 40 << 10);
                writer.write(&site.path("file"), &next);
                let what = format!("{} {version} is seen", writer.name());
                within(Duration::from_secs(5), &what, || {
                    client.get("/file").body == next
                })
            })
            .collect();
        times.sort();
        let median = times[times.len() / 2];
        assert!(
            median < Duration::from_millis(600),
            "{}: {times:?}",
            writer.name()
        );
    }
}

#[test]
fn p5_a_head_and_a_condition_see_the_change_too() {
    let site = TestSite::with(&[("file", b"1")]);
    let server = Server::with(&site, EVENTS);
    let mut client = server.client();
    let tag = client.get("/file").field("ETag").unwrap().to_owned();
    std::fs::write(site.path("file"), "2").unwrap();
    let fields = [("If-None-Match", tag.as_str())];
    eventually("the old tag does not match", || {
        client.request("GET", "/file", &fields).status == 200
    });
    assert_ne!(
        client.request("HEAD", "/file", &[]).field("ETag"),
        Some(tag.as_str())
    );
}

/// Whether the tag may be kept: not of a file that does not come to rest.
fn is_settled(client: &mut Client, target: &str) -> bool {
    let response = client.get(target);
    let cache_control = response.field("Cache-Control").unwrap();
    assert!(response.is_what_its_tag_says(), "{target}: torn");
    !cache_control.contains("no-store")
}

#[test]
fn p5_a_file_is_published_when_it_is_closed_or_does_not_stop_changing() {
    let old = content(1, 200 << 10);
    let site = TestSite::new().file("page", &old).file("log", &old);
    let server = Server::with(&site, EVENTS);
    let mut client = server.client();
    // Half of a page, written slowly by somebody who keeps it open.
    let page = File::options().write(true).open(site.path("page")).unwrap();
    let log = File::options().append(true).open(site.path("log")).unwrap();
    let new = content(2, 200 << 10);
    page.write_all_at(&new[..100 << 10], 0).unwrap();
    let opened = Instant::now();
    stays(
        Duration::from_secs(2),
        "the old bytes are served, or none",
        || {
            let response = client.get("/page");
            match response.status {
                200 => response.body == old,
                status => status == 503,
            }
        },
    );
    page.write_all_at(&new[100 << 10..], 100 << 10).unwrap();
    drop(page);
    within(
        Duration::from_secs(2),
        "the page is published when it is closed",
        || client.get("/page").body == new,
    );
    assert!(is_settled(&mut client, "/page"));
    // Somebody who never closes it.
    (&log).write_all(b"one more line").unwrap();
    within(
        Duration::from_secs(12),
        "what does not settle is published as it is",
        || client.get("/log").status == 200 && !is_settled(&mut client, "/log"),
    );
    assert!(
        opened.elapsed() > Duration::from_secs(5),
        "{:?}",
        opened.elapsed()
    );
    (&log).write_all(b"the last line").unwrap();
    drop(log);
    within(
        Duration::from_secs(3),
        "it is published for good when it is closed",
        || client.get("/log").body.ends_with(b"the last line") && is_settled(&mut client, "/log"),
    );
    eventually("the digest is complete", || {
        !server.digest().contains("incomplete")
    });
}

#[test]
fn p5_what_comes_after_the_limit_of_watches_is_found_by_sweeps() {
    let script = "echo 20 > /proc/sys/user/max_inotify_watches && exec \"$0\" \"$@\"";
    let binary = env!("CARGO_BIN_EXE_etagd");
    let limited = || {
        let mut limited = command("unshare");
        limited.args(["--map-root-user", "sh", "-c", script, binary]);
        limited
    };
    if !limited()
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
    {
        #[allow(clippy::print_stderr)]
        {
            eprintln!("skipped: the limit of watches can't be lowered here");
        }
        return;
    }
    let site = TestSite::in_memory().file("index.html", "here");
    let server = Server::run(limited(), &site.root(), EVENTS);
    // The limit is met while it runs, and again at the start of another.
    write_tree(&site.path("tree"), 1000, "many");
    server.wait_until_it_serves(&site.root());
    server.wait_for(|lines| {
        lines
            .iter()
            .any(|line| line.contains("fs.inotify.max_user_watches"))
    });
    let another = Server::run(limited(), &site.root(), EVENTS);
    another.wait_for(|lines| {
        lines
            .iter()
            .any(|line| line.contains("fs.inotify.max_user_watches"))
    });
    for server in [&server, &another] {
        let deep = site.path("tree/6/6/6/0.txt");
        let next = format!("changed in {}", server.pid());
        std::fs::write(&deep, &next).unwrap();
        server.wait_for_body("/tree/6/6/6/0.txt", &next);
    }
    write_tree(&site.path("tree"), 1000, "again");
    server.wait_until_it_serves(&site.root());
    another.wait_until_it_serves(&site.root());
}

/// etagd in a mount namespace of its own, after `script`; `None` where nothing can be mounted.
fn mounting(script: &str) -> Option<Command> {
    let script = format!("{script} && exec \"$0\" \"$@\"");
    let mounting = || {
        let mut mounting = command("unshare");
        let binary = env!("CARGO_BIN_EXE_etagd");
        mounting.args(["--mount", "sh", "-c", &script, binary]);
        mounting
    };
    let mut probe = mounting();
    let probed = probe.arg("--version").output();
    if probed.is_ok_and(|output| output.status.success()) {
        return Some(mounting());
    }
    #[allow(clippy::print_stderr)]
    {
        eprintln!("skipped: nothing can be mounted here");
    }
    None
}

/// A mount of layers, of which the upper one is written to directly: no event of the mount.
fn layered(site: &TestSite, at: &str) -> Option<Command> {
    for name in ["lower", "upper/deep", "work", at] {
        std::fs::create_dir_all(site.outside(name)).unwrap();
    }
    std::fs::write(site.outside("upper/deep/file"), "1").unwrap();
    let place = site.outside("");
    let place = place.to_str().unwrap().trim_end_matches('/');
    mounting(&format!(
        "mount -t overlay overlay \
         -o lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work {place}/{at}"
    ))
}

#[test]
fn p5_a_mount_in_the_site_that_reports_nothing_is_swept() {
    let site = TestSite::in_memory().file("index.html", "here");
    let Some(program) = layered(&site, "site/mount") else {
        return;
    };
    let server = Server::run(program, &site.root(), EVENTS);
    assert_eq!(server.body("/mount/deep/file").unwrap(), b"1");
    std::fs::write(site.outside("upper/deep/new"), "2").unwrap();
    server.wait_for_body("/mount/deep/new", "2");
    assert!(server.log().contains("does not report"), "{}", server.log());
}

#[test]
fn p5_a_mount_that_a_link_leads_into_is_swept() {
    let site = TestSite::in_memory().file("index.html", "here");
    symlink(site.outside("mount/deep"), site.path("linked")).unwrap();
    let Some(program) = layered(&site, "mount") else {
        return;
    };
    let flags = ["--sweep", "1h", "--symlinks", "all"];
    let server = Server::run(program, &site.root(), &flags);
    assert_eq!(server.body("/linked/file").unwrap(), b"1");
    std::fs::write(site.outside("upper/deep/new"), "2").unwrap();
    server.wait_for_body("/linked/new", "2");
}

#[test]
fn p5_what_is_mounted_later_is_watched() {
    let site = TestSite::in_memory()
        .file("index.html", "here")
        .file("mount/file", "0");
    let place = site.outside("");
    let place = place.to_str().unwrap().trim_end_matches('/');
    let wait = |name: &str| {
        format!("for i in $(seq 1000); do [ -e {place}/{name} ] && break; sleep 0.02; done")
    };
    let script = format!(
        "({}; mount -t tmpfs tmpfs {place}/site/mount; echo 1 > {place}/site/mount/file; \
         {}; echo 2 > {place}/site/mount/file) & true",
        wait("mount"),
        wait("write")
    );
    let Some(_) = mounting("mount -t tmpfs tmpfs /mnt") else {
        return;
    };
    let mut program = command("unshare");
    let script = format!("{script} && exec \"$0\" \"$@\"");
    program.args(["--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_etagd")]);
    let server = Server::run(program, &site.root(), EVENTS);
    std::fs::write(site.outside("mount"), "").unwrap();
    // No event tells of a mount; a sweep does.
    eventually("the mount is seen", || {
        server.signal(Signal::HUP);
        server.body("/mount/file").as_deref() == Some(b"1\n")
    });
    std::fs::write(site.outside("write"), "").unwrap();
    server.wait_for_body("/mount/file", "2\n");
}

#[test]
fn p5_what_a_full_queue_has_lost_is_found() {
    const LIMIT: &str = "/proc/sys/fs/inotify/max_queued_events";
    let site = TestSite::in_memory().file("index.html", "here");
    let before = std::fs::read_to_string(LIMIT).unwrap_or_default();
    if std::fs::write(LIMIT, "4").is_err() {
        #[allow(clippy::print_stderr)]
        {
            eprintln!("skipped: the kernel's queue can't be shortened here");
        }
        return;
    }
    // A queue keeps the length it was made with.
    let server = Server::with(&site, EVENTS);
    let usual = before.trim().parse().unwrap_or(0).max(16384);
    std::fs::write(LIMIT, usual.to_string()).unwrap();
    for round in 0..5 {
        write_tree(&site.path("tree"), 2000, &format!("round {round}"));
        server.wait_until_it_serves(&site.root());
        if server.log().contains("faster than they could be read") {
            return;
        }
        thread::yield_now();
    }
    panic!("the queue was never full");
}
