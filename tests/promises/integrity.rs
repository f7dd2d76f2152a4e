//! P2: a response that completes carries exactly the bytes that its ETag names, whatever happens
//! to the file meanwhile.
//!
//! A server may answer with what it has read before, with what it finds now, or that it can't;
//! each under the right name. So these tests ask for no status; they hold every complete body
//! against its own tag.

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::site::overwrite_in_place;
use crate::support::tree::EndOfWork;
use crate::support::wire::head;
use crate::support::{Client, Response, Server, TestSite, noise, tag};

/// One file for each way of keeping data.
const FILES: [(&str, usize); 4] = [
    ("/little", 4000),
    ("/memory", 100_000),
    ("/middle", 300 << 10),
    ("/groups", 3 << 20),
];

const FLAGS: [&[&str]; 2] = [&[], &["--memory", "64KiB"]];

/// Long enough to be still on its way when the client has stopped reading.
const LONG: usize = 16 << 20;

type Change = fn(&Path);

/// What can happen to a file behind the server's back.
const CHANGES: [(&str, Change); 12] = [
    ("overwritten in place", |path| {
        overwrite_in_place(path, &other(path))
    }),
    ("its first byte changed", |path| {
        overwrite_in_place(path, &[!fs::read(path).unwrap()[0]])
    }),
    ("its last byte changed", |path| {
        let mut content = fs::read(path).unwrap();
        *content.last_mut().unwrap() ^= 1;
        overwrite_in_place(path, &content);
    }),
    ("cut to half", |path| {
        resize(path, fs::metadata(path).unwrap().len() / 2)
    }),
    ("emptied", |path| resize(path, 0)),
    ("one byte shorter", |path| {
        resize(path, fs::metadata(path).unwrap().len() - 1)
    }),
    ("one byte longer", |path| {
        resize(path, fs::metadata(path).unwrap().len() + 1)
    }),
    ("replaced by a rename", |path| {
        let beside = path.with_extension("new");
        fs::write(&beside, other(path)).unwrap();
        fs::rename(beside, path).unwrap();
    }),
    ("removed", |path| fs::remove_file(path).unwrap()),
    ("replaced by a directory", |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    }),
    ("replaced by a FIFO", |path| {
        fs::remove_file(path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path, 0o644.into()).unwrap();
    }),
    ("replaced by a link to a secret", |path| {
        let secret = b"SECRET".repeat(fs::metadata(path).unwrap().len() as usize / 6);
        let outside = path.parent().unwrap().with_file_name("secret");
        fs::write(&outside, secret).unwrap();
        fs::remove_file(path).unwrap();
        std::os::unix::fs::symlink(outside, path).unwrap();
    }),
];

/// Other bytes, as many as the file has.
fn other(path: &Path) -> Vec<u8> {
    noise(fs::metadata(path).unwrap().len() as usize, 1000)
}

fn resize(path: &Path, length: u64) {
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(length)
        .unwrap();
}

/// Asserts that a response to GET is honest about a file that had the first of these contents and
/// may have the others by now.
fn assert_honest(response: &Response, versions: &[Vec<u8>], about: &str) {
    let named = response.field("ETag").map(|etag| {
        let version = versions.iter().find(|version| tag(version) == etag);
        version.unwrap_or_else(|| panic!("{about}: {etag} names nothing that ever was"))
    });
    let body = &response.body;
    match (response.status, named) {
        (200, Some(content)) if response.cut => assert!(content.starts_with(body), "{about}: torn"),
        (200, Some(content)) => assert!(content == body, "{about}: complete, with other bytes"),
        (206, Some(content)) => {
            let range = response.field("Content-Range").expect("Content-Range");
            let (first, rest) = range
                .strip_prefix("bytes ")
                .unwrap()
                .split_once('-')
                .unwrap();
            let (last, _) = rest.split_once('/').unwrap();
            let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
            let part = &content[first..=last];
            assert!(part.starts_with(body), "{about}: {range} is torn");
            assert!(
                response.cut || part.len() == body.len(),
                "{about}: {range} is short"
            );
        }
        (503, None) => assert!(
            response.field("Retry-After").is_some(),
            "{about}: Retry-After"
        ),
        (404, None) => {}
        // The file is empty by now, and nothing of it can be in a range.
        (416, None) => assert_eq!(
            response.field("Content-Range"),
            Some("bytes */0"),
            "{about}"
        ),
        (status, _) => panic!("{about}: answered {status} {:?}", response.fields),
    }
}

/// Lets a change happen to each file of a running server, asked before or not.
fn assert_integrity(name: &str, change: Change, is_warm: bool) {
    for flags in FLAGS {
        let site = FILES.iter().fold(TestSite::new(), |site, (file, size)| {
            site.file(&file[1..], noise(*size, 1))
        });
        let mut server = Server::with(&site, flags);
        for (file, size) in FILES {
            let about = format!("{file} {name}, {flags:?}, warm: {is_warm}");
            let path = site.path(&file[1..]);
            if is_warm {
                assert_eq!(server.client().get(file).status, 200, "{about}");
            }
            change(&path);
            // What a link leads to by now is not of this site.
            let is_ours = fs::symlink_metadata(&path).is_ok_and(|now| now.is_file());
            let now = if is_ours {
                fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            let versions = [noise(size, 1), now];
            for range in [
                None,
                Some("bytes=0-99"),
                Some("bytes=-99"),
                Some("bytes=10-"),
                None,
            ] {
                let fields: Vec<_> = range.iter().map(|range| ("Range", *range)).collect();
                // A body that is cut ends the connection, so each has its own.
                let response = server.client().request("GET", file, &fields);
                assert_honest(&response, &versions, &format!("{about}, {range:?}"));
            }
        }
        server.assert_alive();
    }
}

#[test]
fn p2_a_file_that_changed_before_it_is_asked_for() {
    for (name, change) in CHANGES {
        assert_integrity(name, change, false);
    }
}

#[test]
fn p2_a_file_that_changed_after_it_was_asked_for() {
    for (name, change) in CHANGES {
        assert_integrity(name, change, true);
    }
}

/// Changes a file while a client has stopped reading it, and asserts that what it gets is the
/// beginning of what it asked for and no more.
fn assert_cut(change: fn(&Path)) {
    let content = noise(LONG, 1);
    let site = TestSite::with(&[("long", &content), ("short", b"still here")]);
    let mut server = Server::with(&site, &["--memory", "1MiB"]);
    let mut client = Client::connect_narrow(server.address());
    client.send(head("GET", "/long", &[])).unwrap();
    let response = client.receive_head().unwrap().expect("a head");
    assert_eq!(response.status, 200);
    assert_eq!(
        response.field("Content-Length"),
        Some(LONG.to_string().as_str())
    );
    let mut body = client.read_some(100_000).unwrap();
    change(&site.path("long"));
    body.extend(client.read_some(LONG).unwrap());
    assert!(
        content.starts_with(&body),
        "bytes that were never in the file as scanned"
    );
    assert!(
        body.len() < LONG,
        "complete, though the file had changed long before its end"
    );
    assert_eq!(server.client().get("/short").body, b"still here");
    server.assert_alive();
}

#[test]
fn p2_a_download_is_cut_where_the_file_is_overwritten() {
    assert_cut(|path| overwrite_in_place(path, &noise(LONG, 2)));
}

#[test]
fn p2_a_download_is_cut_where_the_file_is_emptied() {
    assert_cut(|path| resize(path, 0));
}

#[test]
fn p2_a_download_is_cut_where_the_end_of_the_file_is_overwritten() {
    assert_cut(|path| {
        let mut file = File::options().write(true).open(path).unwrap();
        file.seek(std::io::SeekFrom::End(-1)).unwrap();
        file.write_all(&[!noise(LONG, 1)[LONG - 1]]).unwrap();
    });
}

#[test]
fn p2_bodies_are_whole_while_their_files_are_rewritten_all_the_time() {
    let site = FILES.iter().fold(TestSite::new(), |site, (file, size)| {
        site.file(&file[1..], noise(*size, 1))
    });
    let server = Server::with(&site, &["--memory", "1MiB"]);
    // For a while, and on a busy machine until there have been answers enough to say something.
    let began = Instant::now();
    let answers = AtomicUsize::new(0);
    let is_over = || {
        let elapsed = began.elapsed();
        let has_enough = answers.load(Ordering::Relaxed) > 20;
        elapsed > Duration::from_millis(1500) && (has_enough || elapsed > Duration::from_secs(30))
    };
    thread::scope(|scope| {
        for (file, size) in &FILES[2..] {
            let (path, is_over) = (site.path(&file[1..]), &is_over);
            scope.spawn(move || {
                let versions = [noise(*size, 2), noise(*size, 1)];
                for version in versions.iter().cycle() {
                    overwrite_in_place(&path, version);
                    if is_over() {
                        return;
                    }
                }
            });
        }
        for (file, size) in &FILES[2..] {
            let (server, answers, is_over) = (&server, &answers, &is_over);
            scope.spawn(move || {
                let versions = [noise(*size, 1), noise(*size, 2)];
                while !is_over() {
                    let response = server.client().get(file);
                    // A re-hash may catch a mixture, and then name it rightly.
                    if response.status == 200 && !response.cut {
                        assert!(response.is_what_its_tag_says(), "{file}: torn");
                    } else {
                        assert_honest(&response, &versions, file);
                    }
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let answers = answers.into_inner();
    assert!(answers > 20, "only {answers} answers");
}

#[test]
fn p2_files_that_change_during_the_scan_are_named_as_they_were_read() {
    let site = FILES.iter().fold(TestSite::new(), |site, (file, size)| {
        site.file(&file[1..], noise(*size, 1))
    });
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let end = EndOfWork(&is_over);
        for (file, size) in FILES {
            let (path, is_over) = (site.path(&file[1..]), &is_over);
            scope.spawn(move || {
                let versions = [noise(size, 2), noise(size, 1)];
                for version in versions.iter().cycle() {
                    overwrite_in_place(&path, version);
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        let starting: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| Server::start(&site)))
            .collect();
        let started: Vec<_> = starting
            .into_iter()
            .map(|each| each.join().unwrap())
            .collect();
        drop(end);
        for server in &started {
            for (file, _) in FILES {
                let response = server.client().get(file);
                match response.status {
                    200 if response.cut => {}
                    200 => assert!(response.is_what_its_tag_says(), "{file}: torn"),
                    // Left out while it was not to be read in one piece, or no more what it was.
                    404 | 503 => {}
                    status => panic!("{file}: answered {status}"),
                }
            }
        }
    });
}
