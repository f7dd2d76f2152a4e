//! `etagd gc`: what a kept release needs stays, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process};

use super::folder::{Folder, etagd};
use super::support::TestSite;
use super::support::tree::EndOfWork;

fn release(store: &Folder, site: &TestSite, channel: &str, content: &str) {
    fs::write(site.path("a.txt"), content).unwrap();
    let said = store.push(&site.root(), &["--channel", channel]);
    assert_eq!(said.code, 0, "{said:?}");
}

/// Has all objects be as old as this.
fn age(store: &Folder, hours: u64) {
    let then = SystemTime::now() - Duration::from_secs(hours * 3600);
    for name in store.objects() {
        let file = fs::File::open(store.path(&name)).unwrap();
        file.set_modified(then).unwrap();
    }
}

#[test]
fn what_no_kept_release_needs_goes() {
    let (site, store) = (TestSite::new().file("b.txt", "always"), Folder::new());
    for content in ["1", "2", "3", "4", "3"] {
        release(&store, &site, "live", content);
    }
    release(&store, &site, "pr-17", "preview");
    // Young enough to be needed by somebody who has not released yet.
    let young = store.run("gc", &["--keep", "1"]);
    assert!(
        young
            .err
            .contains("6 releases kept; deleted: 0 releases, with 0 objects"),
        "{young:?}"
    );
    age(&store, 30);
    release(&store, &site, "live", "6");
    let objects = store.objects();
    let plan = store.run("gc", &["--keep", "2", "--dry-run"]);
    assert_eq!(plan.code, 0, "{plan:?}");
    assert_eq!(store.objects(), objects);
    let done = store.run("gc", &["--keep", "2"]);
    assert!(
        done.err.contains("3 releases kept; deleted: 4 releases"),
        "{done:?}"
    );
    let planned: BTreeSet<_> = plan
        .out
        .lines()
        .map(|line| line.split('\t').next().unwrap().to_owned())
        .collect();
    let left: BTreeSet<_> = store.objects().into_iter().collect();
    let gone: BTreeSet<_> = objects
        .into_iter()
        .filter(|it| !left.contains(it))
        .collect();
    assert_eq!(planned, gone);
    assert_eq!(store.numbers("live"), [5, 6]);
    for (channel, number) in [("live", 5), ("live", 6), ("pr-17", 1)] {
        store.assert_whole(channel, number);
    }
    // always, 3, 6, preview
    assert_eq!(store.below("blobs/").len(), 4);
    assert_eq!(store.below("manifests/").len(), 3);
    let back = store.run("rollback", &["--to", "2"]);
    assert!(back.err.contains("live has no release 2"), "{back:?}");
    // A number is given once.
    release(&store, &site, "live", "7");
    assert_eq!(store.numbers("live"), [5, 6, 7]);
}

#[test]
fn what_was_the_newest_within_the_grace_stays() {
    let (site, store) = (TestSite::new(), Folder::new());
    for content in ["1", "2"] {
        release(&store, &site, "live", content);
    }
    age(&store, 30);
    // Until now, release 2 was the newest.
    release(&store, &site, "live", "3");
    let said = store.run("gc", &["--keep", "1"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(store.numbers("live"), [2, 3]);
    store.assert_whole("live", 2);
}

/// As what somebody has sent who is about to release it, or was killed.
#[test]
fn what_nobody_needs_stays_while_it_is_young() {
    let (site, store) = (TestSite::new(), Folder::new());
    release(&store, &site, "live", "1");
    let hash = blake3::hash(b"to be released").to_hex();
    let names = [
        format!("blobs/{}/{hash}", &hash[..2]),
        format!("trees/{}/{hash}", &hash[..2]),
        format!("manifests/{hash}.json.zst"),
    ];
    for name in &names {
        fs::create_dir_all(store.path(name).parent().unwrap()).unwrap();
        fs::write(store.path(name), "to be released").unwrap();
    }
    let are_there = || names.each_ref().map(|name| store.path(name).exists());
    assert_eq!(store.run("gc", &["--grace", "1h"]).code, 0);
    assert_eq!(are_there(), [true; 3]);
    age(&store, 2);
    assert_eq!(store.run("gc", &["--grace", "1h"]).code, 0);
    assert_eq!(are_there(), [false; 3]);
    store.assert_whole("live", 1);
}

#[test]
fn what_is_missing_does_not_come_back() {
    let (site, store) = (TestSite::new(), Folder::new());
    release(&store, &site, "live", "1");
    let needed = store.needed("live", 1);
    release(&store, &site, "live", "2");
    let hash = needed.keys().next().unwrap();
    fs::remove_file(store.path(&format!("blobs/{}/{hash}", &hash[..2]))).unwrap();
    let back = store.run("rollback", &["--to", "1"]);
    assert_eq!(back.code, 1, "{back:?}");
    let says = "release 1 cannot come back: the store lacks 1 of its 1 contents";
    assert!(back.err.contains(says), "{back:?}");
    assert_eq!(store.numbers("live"), [1, 2]);
    assert_eq!(store.below("locks/").len(), 0);
}

#[test]
fn objects_of_others_are_left_alone() {
    let (site, store) = (TestSite::new(), Folder::new());
    release(&store, &site, "live", "1");
    for name in ["blobs/ab/README", "manifests/x.json", "other/x", "x"] {
        fs::create_dir_all(store.path(name).parent().unwrap()).unwrap();
        fs::write(store.path(name), "x").unwrap();
    }
    age(&store, 30);
    let objects = store.objects();
    assert_eq!(store.run("gc", &[]).code, 0);
    assert_eq!(store.objects(), objects);
}

/// Each waits for a lock of the other kind, says for whose, and is stopped by a signal.
#[test]
fn who_waits_says_for_whom_and_stops_when_told_to() {
    let (site, store) = (TestSite::new().file("b.txt", "x"), Folder::new());
    release(&store, &site, "live", "1");
    fs::write(site.path("a.txt"), "2").unwrap();
    fs::create_dir_all(store.path("locks")).unwrap();
    for (lock, says) in [
        (
            "gc-0",
            "for somebody since 2026-11-29T12:00:00Z, who collects",
        ),
        (
            "push-0",
            "for somebody since 2026-11-29T12:00:00Z, who publishes",
        ),
    ] {
        let lock = store.path(&format!("locks/{lock}"));
        fs::write(&lock, r#"{"who":"somebody","at":"2026-11-29T12:00:00Z"}"#).unwrap();
        let mut waiting = match lock.ends_with("gc-0") {
            true => store.push_command(&site.root(), &[]),
            false => etagd(&["gc", &store.url()]),
        };
        let mut child = waiting.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = lines.find(|line| line.as_ref().unwrap().contains("waiting"));
        let said = said.unwrap().unwrap();
        assert!(said.ends_with(says), "{said}");
        let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1));
        let rest: Vec<_> = lines.map(Result::unwrap).collect();
        assert_eq!(rest, ["error: stopped by a signal: run again to go on"]);
        assert_eq!(store.below("locks/").len(), 1);
        fs::remove_file(lock).unwrap();
    }
    assert_eq!(store.numbers("live"), [1]);
}

#[test]
fn what_may_be_a_release_is_not_passed_over() {
    let (site, store) = (TestSite::new(), Folder::new());
    release(&store, &site, "live", "1");
    let record = fs::read(store.path("channels/live/00000000000000000001")).unwrap();
    for name in [
        "channels/Live/00000000000000000001",
        "channels/live/aside/00000000000000000001",
        "channels/live/1",
        "channels/live/18446744073709551615",
        "channels/latest",
    ] {
        fs::create_dir_all(store.path(name).parent().unwrap()).unwrap();
        fs::write(store.path(name), &record).unwrap();
        let said = store.run("gc", &["--keep", "1", "--grace", "0s"]);
        assert_eq!(said.code, 1, "{said:?}");
        let says = format!("{name} is neither a release nor a hint");
        assert!(said.err.contains(&says), "{said:?}");
        fs::remove_file(store.path(name)).unwrap();
    }
    assert_eq!(store.run("gc", &["--keep", "1", "--grace", "0s"]).code, 0);
}

#[test]
fn nothing_that_is_needed_goes_while_others_push() {
    let (first, second, store) = (TestSite::new(), TestSite::new(), Folder::new());
    release(&store, &first, "live", "first");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = EndOfWork(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let said = store.run("gc", &["--keep", "1", "--grace", "0s"]);
                assert_eq!(said.code, 0, "{said:?}");
            }
        });
        // The same contents again and again: each was garbage when the other release was made.
        for round in 0..6 {
            for (site, content) in [(&first, "one"), (&second, "two")] {
                fs::write(site.path("a.txt"), content).unwrap();
                fs::write(site.path("b.txt"), round.to_string()).unwrap();
                let said = store.push(&site.root(), &[]);
                assert_eq!(said.code, 0, "{said:?}");
                // Nobody else publishes: it is the newest until the next round.
                store.assert_whole("live", said.out.trim().parse().unwrap());
            }
        }
    });
    assert_eq!(*store.numbers("live").last().unwrap(), 13);
}
