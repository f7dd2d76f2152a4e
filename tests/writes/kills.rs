//! A server that is killed at any moment: what is on the disk is whole, and true after the next
//! start.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::pen::{Pen, files, writable};
use super::support::tree::{EndOfWork, eventually};
use super::support::{Server, TestSite, noise, tag};

const FILES: usize = 4;

/// Content that says of itself whether it is whole.
fn content(seed: u64) -> Vec<u8> {
    let length = usize::try_from(seed % 7).unwrap() * 200_000 + 100;
    let noise = noise(length, seed);
    [blake3::hash(&noise).to_hex().as_bytes(), &noise].concat()
}

fn is_whole(content: &[u8]) -> bool {
    let hash = content.get(64..).map(blake3::hash);
    hash.is_some_and(|hash| hash.to_hex().as_bytes() == &content[..64])
}

/// Writes versions of one file, of which this one is `known`, until the server is gone.
fn write(server: &Server, target: &str, mut known: Option<String>, seed: u64, killed: &AtomicBool) {
    for version in 0.. {
        if killed.load(Ordering::SeqCst) {
            return;
        }
        let content = content(seed * 1000 + version);
        let condition = match &known {
            Some(tag) => format!("If-Match: {tag}"),
            None => "If-None-Match: *".to_owned(),
        };
        let head = format!(
            "PUT {target} HTTP/1.1\r\nHost: localhost\r\n{condition}\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n",
            content.len()
        );
        let send = || {
            let mut stream = TcpStream::connect(server.address())?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.write_all(head.as_bytes())?;
            stream.write_all(&content)?;
            std::io::read_to_string(stream)
        };
        match send() {
            Ok(answer) if answer.starts_with("HTTP/1.1 20") => known = Some(tag(&content)),
            Ok(answer) if answer.is_empty() => return,
            Ok(answer) => panic!("{answer}"),
            Err(_) => return,
        }
    }
}

#[test]
fn no_kill_leaves_half_a_file() {
    survive(24);
}

#[test]
#[ignore = "takes half a minute: cargo test --test writes -- --ignored"]
fn nor_do_two_hundred() {
    survive(200);
}

/// Kills a server so often while it takes uploads, and looks at what is left each time.
fn survive(kills: u64) {
    let site = TestSite::with(&[("index.html", b"<!doctype html>")]);
    let targets: Vec<_> = (0..FILES)
        .map(|file| format!("/dir{file}/file.bin"))
        .collect();
    let (mut left_behind, mut versions) = (0, 0);
    for round in 0..kills {
        let mut server = writable(&site);
        // What killed servers have left is cleared, and what they wrote is served.
        eventually("no upload is left", || {
            files(&site.root()).iter().all(|path| !is_hidden(path))
        });
        for target in &targets {
            let seen = server.client().get(target);
            if seen.status == 200 {
                assert!(
                    seen.is_what_its_tag_says() && is_whole(&seen.body),
                    "{target}"
                );
            }
        }
        let moment = Duration::from_micros(round * 7919 % 120_000);
        let killed = AtomicBool::new(false);
        thread::scope(|scope| {
            let end = EndOfWork(&killed);
            for (file, target) in targets.iter().enumerate() {
                let (server, killed) = (&server, &killed);
                let seed = round * 10 + file as u64;
                let known = fs::read(site.path(&target[1..]))
                    .ok()
                    .map(|content| tag(&content));
                scope.spawn(move || write(server, target, known, seed, killed));
            }
            let start = Instant::now();
            while start.elapsed() < moment {
                std::hint::spin_loop();
            }
            drop(end);
            server.signal(Signal::KILL);
        });
        server.wait();
        for path in files(&site.root()) {
            let content = fs::read(&path).unwrap();
            if is_hidden(&path) {
                left_behind += 1;
            } else if path.ends_with("file.bin") {
                versions += 1;
                assert!(
                    is_whole(&content),
                    "round {round}: {} is torn",
                    path.display()
                );
            }
        }
    }
    assert!(versions > 0, "no upload was ever finished");
    assert!(left_behind > 0, "no upload was ever under way");
    let server = writable(&site);
    eventually("no upload is left", || {
        files(&site.root()).iter().all(|path| !is_hidden(path))
    });
    server.wait_until_it_serves(&site.root());
}

fn is_hidden(path: &std::path::Path) -> bool {
    path.file_name().unwrap().to_string_lossy().starts_with('.')
}

#[test]
fn what_is_under_way_is_not_served_and_not_cleared_by_another() {
    let site = TestSite::with(&[]);
    let server = writable(&site);
    fs::write(site.path(".etagd-1-0"), "left behind").unwrap();
    let mut client = server.client();
    let head =
        "PUT /a.txt HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: *\r\nContent-Length: 6\r\n\r\n";
    client.send(head).unwrap();
    client.send("one").unwrap();
    eventually("it has begun", || files(&site.root()).len() == 2);
    let other = writable(&site);
    eventually("what was left behind is gone", || {
        files(&site.root()).len() == 1
    });
    let draft = files(&site.root()).remove(0);
    let name = draft.file_name().unwrap().to_str().unwrap().to_owned();
    for server in [&server, &other] {
        assert_eq!(Pen::new(server).get(&format!("/{name}")).status, 404);
    }
    client.send("two").unwrap();
    assert_eq!(client.receive("PUT").unwrap().unwrap().status, 201);
    other.wait_for_body("/a.txt", "onetwo");
}
