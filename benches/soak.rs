//! Minutes of load while 20 files a second change: no wrong body, no error but cut bodies and 503
//! of files that are being rewritten, and memory that stays where it was.
//!
//! `cargo bench --bench soak [-- SECONDS]`. With wrk installed it adds 64 connections of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a program to be run by hand"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::version::{content, versions_of};
use support::writer::WRITERS;
use support::{Server, TestSite};

const FILES: usize = 200;

fn main() {
    let seconds = std::env::args().find_map(|argument| argument.parse().ok());
    let seconds: u64 = seconds.unwrap_or(600);
    let length = |index: usize| [4 << 10, 20 << 10, 100 << 10, 300 << 10, 3 << 20][index % 5];
    let name = |index: usize| format!("{}/{index}.bin", index % 10);
    let site = (0..FILES).fold(TestSite::new(), |site, index| {
        site.file(name(index), content(0, length(index)))
    });
    let server = Server::with(&site, &["--memory", "64MiB"]);
    let (is_over, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let outcomes = Mutex::new(BTreeMap::<String, u64>::new());
    let script = site.outside("wrk.lua");
    let paths: Vec<_> = (0..FILES)
        .map(|index| format!("'/{}'", name(index)))
        .collect();
    let code = format!(
        "local paths = {{{}}}\nlocal at = 0\nfunction request()\n  at = at % #paths + 1\n  \
         return wrk.format('GET', paths[at])\nend\n",
        paths.join(", ")
    );
    fs::write(&script, code).unwrap();
    let duration = format!("-d{seconds}s");
    let url = format!("http://{}/", server.address());
    let wrk = Command::new("wrk")
        .args(["-t2", "-c64", &duration, "-s"])
        .arg(&script)
        .arg(&url)
        .stdout(Stdio::piped())
        .spawn();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut version = 0;
            while !is_over.load(Ordering::Relaxed) {
                version += 1;
                let index = (version * 7919) as usize % FILES;
                let writer = WRITERS[version as usize % WRITERS.len()];
                writer.write(&site.path(name(index)), &content(version, length(index)));
                written.store(version, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(50));
            }
        });
        for reader in 0..2 {
            let (server, is_over, outcomes) = (&server, &is_over, &outcomes);
            scope.spawn(move || {
                let (mut client, mut index) = (server.client(), reader * 77);
                while !is_over.load(Ordering::Relaxed) {
                    index = (index + 1) % FILES;
                    let target = format!("/{}", name(index));
                    let response = client.get(&target);
                    let outcome = match response.status {
                        200 if response.cut => "cut".to_owned(),
                        200 => {
                            assert!(response.is_what_its_tag_says(), "{target}: WRONG BODY");
                            let versions = versions_of(&response.body, 0);
                            match versions.map(|versions| versions.len()) {
                                Ok(1) if response.body.len() == length(index) => "whole",
                                // A file that was caught in the middle and said to be unsettled.
                                _ => "whole, of a mixture on the disk",
                            }
                            .to_owned()
                        }
                        status => status.to_string(),
                    };
                    if response.cut {
                        client = server.client();
                    }
                    *outcomes.lock().unwrap().entry(outcome).or_default() += 1;
                }
            });
        }
        let start = Instant::now();
        let mut next = 10;
        while start.elapsed().as_secs() < seconds {
            thread::sleep(Duration::from_millis(200));
            if start.elapsed().as_secs() >= next {
                println!(
                    "{next:5} s: {:7} KiB resident, {} deleted files open, {} states, {:?}",
                    server.resident(),
                    server.deleted_files(),
                    server.publications(),
                    outcomes.lock().unwrap(),
                );
                next += (seconds / 12).max(10);
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let written = written.load(Ordering::Relaxed);
    println!(
        "{written} files written; at the end {} KiB resident",
        server.resident()
    );
    if let Ok(wrk) = wrk {
        let said = wrk.wait_with_output().unwrap().stdout;
        println!("{}", String::from_utf8_lossy(&said));
    }
}
