//! Files that are requested before their change is published. They are too long to be held in
//! memory, so that their old bytes can no longer be sent.

use std::fs::{self, File};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::restless::restless;
use super::served;
use super::support::tree::EndOfWork;
use super::support::version::content;
use super::support::writer::Writer;
use super::support::{Server, TestSite, noise};

const LONG: usize = 300 << 10;

#[test]
fn a_file_that_was_just_deleted_is_not_found() {
    let site = TestSite::new().file("big.bin", content(1, LONG));
    let server = served(&site);
    fs::remove_file(site.path("big.bin")).unwrap();
    assert_eq!(server.client().get("/big.bin").status, 404);
}

#[test]
fn a_file_that_is_being_written_is_awaited() {
    let site = TestSite::new().file("big.bin", content(1, LONG));
    let server = served(&site);
    let next = content(2, LONG);
    let (started, starts) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = File::create(site.path("big.bin")).unwrap();
            started.send(()).unwrap();
            for piece in next.chunks(LONG / 6) {
                file.write_all(piece).unwrap();
                thread::sleep(Duration::from_millis(20));
            }
        });
        starts.recv().unwrap();
        let response = server.client().get("/big.bin");
        assert_eq!(response.status, 200, "{}", server.log());
        assert!(response.body == next);
    });
}

#[test]
fn a_file_that_grows_by_appending_is_never_seen_in_part() {
    let site = TestSite::new().file("big.bin", content(1, 4 * LONG));
    let server = served(&site);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let end = EndOfWork(&is_over);
        let reader = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let response = server.client().get("/big.bin");
                if response.status == 200 && !response.cut {
                    assert_eq!(response.body.len(), 4 * LONG, "half-written");
                }
            }
        });
        for version in 2..5 {
            let next = content(version, 4 * LONG);
            fs::write(site.path("big.bin"), &next[..LONG]).unwrap();
            for piece in next[LONG..].chunks(LONG) {
                // Less than the quiet period, and closed each time.
                thread::sleep(Duration::from_millis(40));
                let file = File::options().append(true).open(site.path("big.bin"));
                file.unwrap().write_all(piece).unwrap();
            }
            server.wait_for_body("/big.bin", &next);
        }
        drop(end);
        reader.join().unwrap();
    });
}

#[test]
fn a_file_that_was_rewritten_is_answered_while_others_never_rest() {
    let name = |index: usize| format!("{index}.bin");
    let site = (0..3).fold(TestSite::new().file("other", "0"), |site, index| {
        site.file(name(index), content(index as u64, LONG))
    });
    let server = served(&site);
    let mut count = 0;
    let write_other = || {
        count += 1;
        fs::write(site.path("other"), format!("{count}")).unwrap();
        thread::sleep(Duration::from_millis(10));
    };
    restless(write_other, || {
        let mut client = server.client();
        for index in 0..3 {
            let next = content(100 + index as u64, LONG);
            Writer::InPlace.write(&site.path(name(index)), &next);
            let response = client.get(&format!("/{index}.bin"));
            assert_eq!(response.status, 200, "{index}: {}", server.log());
            assert!(response.body == next, "{index}");
        }
    });
}

#[test]
fn files_are_cut_short_a_hundred_times_while_they_are_served_and_scanned() {
    let (size, names) = (3 << 20, ["a", "b"]);
    let site = names.iter().fold(TestSite::new(), |site, name| {
        site.file(name, noise(size, 1))
    });
    let mut server = Server::with(&site, &["--settle", "1ms", "--sweep", "200ms"]);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = EndOfWork(&is_over);
        for name in names {
            let (server, is_over) = (&server, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let response = server.client().get(&format!("/{name}"));
                    let is_whole = response.status == 200 && !response.cut;
                    assert!(!is_whole || response.is_what_its_tag_says(), "{name}: torn");
                    assert!(
                        matches!(response.status, 200 | 404 | 503),
                        "{}",
                        response.status
                    );
                }
            });
        }
        for round in 0..100 {
            for name in names {
                let file = File::options().write(true).open(site.path(name)).unwrap();
                file.set_len(round * 1013).unwrap();
                file.set_len(size as u64).unwrap();
            }
            thread::sleep(Duration::from_millis(round % 17));
        }
    });
    server.assert_alive();
    for name in names {
        fs::write(site.path(name), "at last").unwrap();
        server.wait_for_body(&format!("/{name}"), "at last");
    }
}
