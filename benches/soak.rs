//! Minutes of load by clients of every kind while the site changes all the time: no body may be wrong,
//! no change may be lost, and nothing may grow.
//!
//! `cargo bench --bench soak [-- SECONDS]`; `.ci/run` runs it for a minute. The load is applied
//! twice: a quarter of the time to warm up, and then for the rest. After each, when all is quiet, the
//! site digest must be that of a fresh scan; after the second, descriptors, threads, watches and
//! memory must be what they were after the first.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a program to be run by hand"
)]

#[path = "../tests/support/mod.rs"]
mod support;
#[path = "../tests/support/transports.rs"]
mod transports;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};

use support::tree::{digest_of, relink, rename_over, within};
use support::version::content;
use support::wire::head;
use support::writer::WRITERS;
use support::{Client, Response, Server, TestSite};
use transports::{Asked, Transport, Transports};

const FILES: usize = 100;
const MAX_CONNECTIONS: usize = 64;
const OPEN_FILES: usize = 16;
const HUGE: u64 = 1100 << 20;
/// How long the server may take to come to rest after the load.
const SETTLING: Duration = Duration::from_secs(60);

fn name(index: usize) -> String {
    format!("{}/{index}.bin", index % 10)
}

fn length(index: usize) -> usize {
    [4 << 10, 20 << 10, 100 << 10, 300 << 10, 3 << 20][index % 5]
}

/// What the parts of one run share.
struct Soak {
    site: TestSite,
    servers: Transports,
    is_over: AtomicBool,
    outcomes: Mutex<BTreeMap<String, u64>>,
}

/// What must not grow.
#[derive(Clone, Copy, Debug)]
struct Usage {
    /// Descriptors other than those of the site's files.
    descriptors: usize,
    /// Files of the site that are kept open.
    files: usize,
    threads: usize,
    /// Watches more than the site has folders: `uploads` may be there, or not.
    watches: isize,
    kilobytes: u64,
}

fn main() {
    let seconds = std::env::args().find_map(|argument| argument.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(600));
    let site = (0..FILES).fold(TestSite::new(), |site, index| {
        site.file(name(index), content(0, length(index)))
    });
    let (connections, open_files) = (MAX_CONNECTIONS.to_string(), OPEN_FILES.to_string());
    let flags = [
        "--memory",
        "32MiB",
        "--open-files",
        &open_files,
        "--max-connections",
        &connections,
        "--writable",
    ];
    let servers = Transports::serve(&site, &flags);
    let soak = Soak {
        site,
        servers,
        is_over: AtomicBool::new(false),
        outcomes: Mutex::default(),
    };
    let warm = time / 4;
    soak.load(warm);
    let before = soak.settle();
    soak.load(time - warm);
    let after = soak.settle();
    for (server, (before, after)) in ["plain", "tls"].iter().zip(before.iter().zip(&after)) {
        println!("{server}: after {warm:?} {before:?}, after {time:?} {after:?}");
        assert!(after.descriptors <= before.descriptors, "{server}");
        assert!(after.files <= OPEN_FILES, "{server}");
        assert!(after.threads <= before.threads, "{server}");
        assert!(after.watches <= before.watches, "{server}");
        let most = before.kilobytes + before.kilobytes / 4 + (16 << 10);
        assert!(after.kilobytes <= most, "{server}: memory grows");
    }
}

impl Soak {
    /// Applies the whole load for this long.
    fn load(&self, time: Duration) {
        self.is_over.store(false, Ordering::Relaxed);
        thread::scope(|scope| {
            scope.spawn(|| self.rewrite());
            scope.spawn(|| self.churn());
            scope.spawn(|| self.put());
            scope.spawn(|| self.reset());
            scope.spawn(|| self.idle());
            scope.spawn(|| self.signal());
            scope.spawn(|| self.exhaust());
            for reader in 0..2 {
                scope.spawn(move || self.read(reader));
            }
            for transport in [Transport::SecureHttp1, Transport::SecureHttp2] {
                scope.spawn(move || self.read_securely(transport));
            }
            thread::sleep(time);
            self.is_over.store(true, Ordering::Relaxed);
        });
        println!("{time:?}: {:?}", self.outcomes.lock().unwrap());
    }

    /// Counts from 0 until the load is over, with a pause before each number.
    fn rounds(&self, pause: u64) -> impl Iterator<Item = usize> {
        (0..).take_while(move |_| {
            thread::sleep(Duration::from_millis(pause));
            !self.is_over.load(Ordering::Relaxed)
        })
    }

    fn count(&self, who: &str, outcome: impl std::fmt::Display) {
        let mut outcomes = self.outcomes.lock().unwrap();
        *outcomes.entry(format!("{who} {outcome}")).or_default() += 1;
    }

    /// Counts a response, and asserts that a body which is whole is what its tag says.
    fn check(&self, who: &str, response: &Response) {
        match response.status {
            200 if response.cut => self.count(who, "cut"),
            200 => {
                assert!(response.is_what_its_tag_says(), "{who}: WRONG BODY");
                self.count(who, "whole");
            }
            status => self.count(who, status),
        }
    }

    fn plain(&self) -> &Server {
        self.servers.servers()[0]
    }

    /// Each file is written again and again, in every way in which programs do.
    fn rewrite(&self) {
        for round in self.rounds(50) {
            let index = round * 7919 % FILES;
            let writer = WRITERS[round % WRITERS.len()];
            let path = self.site.path(name(index));
            writer.write(&path, &content(round as u64, length(index)));
        }
    }

    /// Directories come and go, links are switched, files are truncated, and one is huge.
    fn churn(&self) {
        let path = |name: &str| self.site.path(name);
        let huge = File::create(path("huge.bin")).unwrap();
        huge.set_len(HUGE).unwrap();
        let _ = symlink("0", path("link"));
        for round in self.rounds(200) {
            let storm = format!("storm{}", round % 3);
            let _ = fs::remove_dir_all(path(&storm));
            for index in 0..20 {
                let directory = path(&format!("{storm}/{index}/deep"));
                fs::create_dir_all(&directory).unwrap();
                fs::write(directory.join("page.html"), storm.as_bytes()).unwrap();
            }
            let renamed = path("renamed");
            let _ = fs::remove_dir_all(&renamed);
            fs::rename(path(&storm), &renamed).unwrap();
            relink(&path("link"), format!("{}", round % 10));
            let truncated = File::create(path("truncated.bin")).unwrap();
            truncated.set_len(((round % 5) << 18) as u64).unwrap();
            rename_over(&path("page.html"), content(round as u64, 2048));
        }
        // The watcher must not be hashing it still when the site is compared.
        fs::remove_file(path("huge.bin")).unwrap();
    }

    fn put(&self) {
        for round in self.rounds(100) {
            let target = format!("/uploads/{}.txt", round % 10);
            let body = format!("upload {round}");
            let length = body.len().to_string();
            let fields = [("If-None-Match", "*"), ("Content-Length", &length)];
            let mut client = self.plain().client();
            let _ = client.send(head("PUT", &target, &fields) + &body);
            if let Ok(Some(response)) = client.receive("PUT") {
                self.count("put", response.status);
            }
            if round % 10 == 9 {
                let _ = fs::remove_dir_all(self.site.path("uploads"));
            }
        }
    }

    /// Asks for large files and closes with unread bytes, which resets the connection.
    fn reset(&self) {
        for round in self.rounds(20) {
            let mut client = self.plain().client();
            let _ = client.send(head("GET", &format!("/{}", name(4)), &[]));
            let _ = client.read_some(round * 977 % 500_000);
        }
    }

    /// Opens as many connections as are allowed, and closes them.
    fn idle(&self) {
        for round in self.rounds(1_000) {
            let clients: Vec<_> = (0..MAX_CONNECTIONS)
                .map(|_| self.plain().client())
                .collect();
            thread::sleep(Duration::from_millis(round as u64 * 37 % 500));
            drop(clients);
        }
    }

    fn signal(&self) {
        for _ in self.rounds(2_000) {
            for server in self.servers.servers() {
                server.signal(Signal::HUP);
            }
        }
    }

    /// From time to time, lowers the limit of descriptors for a moment.
    fn exhaust(&self) {
        let pid = Pid::from_raw(self.plain().pid() as i32);
        let limit = |current| Rlimit {
            current,
            ..getrlimit(Resource::Nofile)
        };
        for _ in self.rounds(3_000) {
            let before = prlimit(pid, Resource::Nofile, limit(Some(30))).unwrap();
            thread::sleep(Duration::from_millis(300));
            prlimit(pid, Resource::Nofile, limit(before.current)).unwrap();
        }
    }

    fn read(&self, reader: usize) {
        let mut client: Option<Client> = None;
        for round in self.rounds(5) {
            let target = format!("/{}", name((round + reader * 77) % FILES));
            let mut asked = client.take().unwrap_or_else(|| self.plain().client());
            let sent = asked.send(head("GET", &target, &[]));
            match sent.and_then(|()| asked.receive("GET")) {
                Ok(Some(response)) => {
                    self.check("http/1.1", &response);
                    if !response.cut && !response.says_close() {
                        client = Some(asked);
                    }
                }
                _ => self.count("http/1.1", "closed"),
            }
        }
    }

    fn read_securely(&self, transport: Transport) {
        for round in self.rounds(5) {
            let targets: Vec<_> = (0..5)
                .map(|n| format!("/{}", name((round * 5 + n) % FILES)))
                .collect();
            let asked: Vec<Asked<'_>> = targets
                .iter()
                .map(|target| ("GET", target.as_bytes(), &[][..]))
                .collect();
            let who = format!("{transport:?}");
            for response in self.servers.exchange(transport, &asked).unwrap() {
                match response {
                    Ok(response) => self.check(&who, &response),
                    Err(_) => self.count(&who, "closed"),
                }
            }
        }
    }

    /// Waits until the servers have come to rest and both have the digest of a fresh scan.
    fn settle(&self) -> [Usage; 2] {
        self.servers.servers().map(|server| {
            // Scanned anew each time: an upload whose client has given up may still be on its way.
            within(SETTLING, "it serves what a fresh scan finds", || {
                server.digest() == digest_of(&self.site.root())
            });
            // Idle threads end after ten seconds, and the last connections have closed by then.
            let mut lowest = usage(server, &self.site.root());
            let since = Instant::now();
            while since.elapsed() < Duration::from_secs(12) {
                thread::sleep(Duration::from_millis(200));
                let now = usage(server, &self.site.root());
                lowest = Usage {
                    descriptors: lowest.descriptors.min(now.descriptors),
                    threads: lowest.threads.min(now.threads),
                    ..now
                };
            }
            lowest
        })
    }
}

fn usage(server: &Server, root: &Path) -> Usage {
    let folders = walkdir::WalkDir::new(root).into_iter();
    let folders =
        folders.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_type().is_dir()));
    let entries = |what: &str| fs::read_dir(format!("/proc/{}/{what}", server.pid())).unwrap();
    let open = entries("fd").filter_map(|entry| entry.ok()?.path().read_link().ok());
    // Kept files, of which there may be more or fewer.
    let (files, others): (Vec<_>, Vec<_>) =
        open.partition(|target| target.to_string_lossy().contains(".bin"));
    Usage {
        descriptors: others.len(),
        files: files.len(),
        threads: entries("task").count(),
        watches: server.watches() as isize - folders.count() as isize,
        kilobytes: server.resident(),
    }
}
