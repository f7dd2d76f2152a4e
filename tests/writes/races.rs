//! Many writers at once, over HTTP and on the disk: each sees what it replaces.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::pen::{Pen, files, writable};
use super::support::tree::EndOfWork;
use super::support::{Server, TestSite, tag};

const CLIENTS: usize = 16;
const WRITES: usize = 1000;

/// Has many clients change a file until `WRITES` changes are made, and returns the number of
/// those that were refused because somebody was quicker.
fn compete(server: &Server, change: impl Fn(usize, usize, &[u8]) -> Vec<u8> + Sync) -> usize {
    let (left, overtaken) = (AtomicUsize::new(WRITES), AtomicUsize::new(0));
    let claim = || {
        left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            left.checked_sub(1)
        })
    };
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (overtaken, change) = (&overtaken, &change);
            scope.spawn(move || {
                let mut pen = Pen::new(server);
                while let Ok(number) = claim() {
                    for attempt in 0.. {
                        // Who comes too late gives way a little.
                        thread::sleep(Duration::from_millis(attempt.min(20)));
                        let known = pen.get("/file.txt");
                        assert_eq!(known.status, 200);
                        assert!(known.is_what_its_tag_says());
                        let tag = known.field("ETag").unwrap().to_owned();
                        let new = change(client, number, &known.body);
                        let response = pen.replace("/file.txt", &tag, &new);
                        match response.status {
                            204 => break,
                            412 | 503 => overtaken.fetch_add(1, Ordering::SeqCst),
                            other => panic!("{other}: {:?}", response.body.escape_ascii()),
                        };
                    }
                }
            });
        }
    });
    overtaken.into_inner()
}

#[test]
fn a_counter_counts_every_increment() {
    let site = TestSite::with(&[("file.txt", b"0")]);
    let server = writable(&site);
    let overtaken = compete(&server, |_, _, known| {
        let number: usize = String::from_utf8_lossy(known).parse().unwrap();
        (number + 1).to_string().into_bytes()
    });
    assert_eq!(
        fs::read_to_string(site.path("file.txt")).unwrap(),
        WRITES.to_string()
    );
    assert_eq!(
        server.body("/file.txt").unwrap(),
        WRITES.to_string().as_bytes()
    );
    assert!(overtaken > 0, "nobody was in anybody's way");
    assert_eq!(files(&site.root()).len(), 1);
}

#[test]
fn a_concurrent_edit_on_disk_is_not_lost() {
    let site = TestSite::with(&[("file.txt", b"")]);
    let server = Server::with(&site, &["--writable", "--settle", "20ms"]);
    let done = Arc::new(AtomicBool::new(false));
    let editor = {
        let (path, done) = (site.path("file.txt"), Arc::clone(&done));
        thread::spawn(move || {
            let mut edits = 0;
            while !done.load(Ordering::SeqCst) {
                append(&path, &format!("disk {edits}\n"));
                edits += 1;
                thread::sleep(Duration::from_millis(400));
            }
            edits
        })
    };
    compete(&server, |client, number, known| {
        [known, format!("client {client} {number}\n").as_bytes()].concat()
    });
    done.store(true, Ordering::SeqCst);
    let edits: usize = editor.join().unwrap();
    let text = fs::read_to_string(site.path("file.txt")).unwrap();
    let lines: BTreeSet<_> = text.lines().collect();
    let numbers: BTreeSet<usize> = lines
        .iter()
        .filter_map(|line| {
            line.strip_prefix("client ")?
                .split_once(' ')?
                .1
                .parse()
                .ok()
        })
        .collect();
    assert_eq!(numbers, (1..=WRITES).collect(), "what came over HTTP");
    let lost: Vec<_> = (0..edits)
        .map(|number| format!("disk {number}"))
        .filter(|line| !lines.contains(line.as_str()))
        .collect();
    assert!(lost.is_empty(), "edits on the disk that are lost: {lost:?}");
    assert!(edits >= 5, "{edits} edits are no race");
    server.wait_for_body("/file.txt", text);
}

/// Appends in place, as careful programs do that share a file: under its lock, and only to the
/// file that has the name.
fn append(path: &Path, line: &str) {
    loop {
        let mut file = File::options().append(true).open(path).unwrap();
        flock(&file, FlockOperation::LockExclusive).unwrap();
        let named = fs::metadata(path).unwrap();
        if named.ino() == file.metadata().unwrap().ino() {
            file.write_all(line.as_bytes()).unwrap();
            return;
        }
    }
}

#[test]
fn of_many_clients_that_create_a_file_one_succeeds() {
    let site = TestSite::with(&[]);
    let server = writable(&site);
    for round in 0..20 {
        let target = format!("/deep/{round}/new.txt");
        let created: Vec<_> = thread::scope(|scope| {
            let create = |client: usize| {
                let (server, target) = (&server, &target);
                move || {
                    let response = Pen::new(server).create(target, client.to_string());
                    (response.status == 201)
                        .then_some(client)
                        .ok_or(response.status)
                }
            };
            let all: Vec<_> = (0..CLIENTS)
                .map(|client| scope.spawn(create(client)))
                .collect();
            all.into_iter().map(|each| each.join().unwrap()).collect()
        });
        let (winners, losers): (Vec<_>, Vec<_>) = created.into_iter().partition(Result::is_ok);
        assert_eq!(winners.len(), 1, "round {round}");
        assert!(
            losers.iter().all(|status| *status == Err(412)),
            "{losers:?}"
        );
        let winner = winners[0].unwrap().to_string();
        assert_eq!(server.body(&target).unwrap(), winner.as_bytes());
    }
}

#[test]
fn of_many_clients_that_change_a_version_one_succeeds() {
    let site = TestSite::with(&[]);
    let server = writable(&site);
    for round in 0..20 {
        let target = format!("/{round}.txt");
        Pen::new(&server).create(&target, "first");
        let statuses: Vec<u16> = thread::scope(|scope| {
            let change = |client: usize| {
                let (server, target, first) = (&server, &target, tag(b"first"));
                move || {
                    let mut pen = Pen::new(server);
                    match client % 2 {
                        0 => pen.replace(target, &first, client.to_string()).status,
                        _ => pen.delete(target, &first).status,
                    }
                }
            };
            let all: Vec<_> = (0..CLIENTS)
                .map(|client| scope.spawn(change(client)))
                .collect();
            all.into_iter().map(|each| each.join().unwrap()).collect()
        });
        let made = statuses.iter().filter(|status| **status == 204).count();
        assert_eq!(made, 1, "round {round}: {statuses:?}");
        assert!(
            statuses
                .iter()
                .all(|status| matches!(status, 204 | 404 | 412)),
            "{statuses:?}"
        );
    }
}

#[test]
fn writes_go_on_while_a_deploy_does() {
    let site = TestSite::with(&[("a.txt", b"0")]);
    super::support::tree::write_tree(&site.path("tree"), 500, "old");
    let server = writable(&site);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let deploy = scope.spawn(|| {
            let _end = EndOfWork(&done);
            for round in 0..5 {
                let beside = site.outside("new");
                super::support::tree::write_tree(&beside, 500, &format!("round {round}"));
                super::support::writer::exchange_directories(&beside, &site.path("tree"));
            }
        });
        let mut pen = Pen::new(&server);
        let mut number = 0;
        while !done.load(Ordering::SeqCst) || number < 20 {
            let known = tag(number.to_string().as_bytes());
            let new = (number + 1).to_string();
            assert_eq!(pen.replace("/a.txt", &known, &new).status, 204);
            assert_eq!(pen.get("/a.txt").body, new.as_bytes());
            number += 1;
        }
        deploy.join().unwrap();
    });
    server.wait_until_it_serves(&site.root());
}
