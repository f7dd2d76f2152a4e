//! P2 while everything changes: every way of writing, every way of keeping data, two versions of
//! HTTP, two file systems.
//!
//! Every version of every file says in each 1 KiB which one it is. Clients hold each complete body
//! against its tag and against what was written under that tag: none is a mixture, none has
//! another's tag, none is short.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::h2::Http2;
use crate::support::tree::EndOfWork;
use crate::support::version::{BLOCK, content, versions_of};
use crate::support::writer::{WRITERS, exchange_directories};
use crate::support::{Client, Response, Server, TestSite, tag};

/// Name and length of a file, and how long its writers rest between two versions.
const SIZES: [(&str, usize, u64); 4] = [
    ("4k", 4 << 10, 120),
    ("200k", 200 << 10, 250),
    ("8m", 8 << 20, 900),
    ("64m", 64 << 20, 3000),
];

/// Complete bodies that each of the two runs must see.
const MIN_COMPLETE: u64 = 600;
const MIN_TIME: Duration = Duration::from_secs(8);
/// Only a machine with much other work takes so long.
const MAX_TIME: Duration = Duration::from_secs(120);

/// What was ever written, and what clients have got.
#[derive(Default)]
struct Ledger {
    written: Mutex<HashMap<String, u64>>,
    versions: AtomicU64,
    seen: Mutex<Seen>,
    complete: AtomicU64,
    is_over: AtomicBool,
}

#[derive(Default)]
struct Seen {
    /// Complete bodies of each file.
    complete: BTreeMap<String, u64>,
    /// Versions of each file.
    versions: BTreeMap<String, BTreeSet<u64>>,
    cut: u64,
    parts: u64,
    unavailable: u64,
    unsettled: u64,
}

impl Ledger {
    /// The next version of a file, written down before anybody can ask for it.
    fn next(&self, length: usize) -> Vec<u8> {
        let version = self.versions.fetch_add(1, Ordering::Relaxed) + 1;
        let content = content(version, length);
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.insert(tag(&content), version);
        content
    }

    /// Rests between two versions; `false` when all is over.
    fn rest(&self, milliseconds: u64) -> bool {
        let until = Instant::now() + Duration::from_millis(milliseconds);
        while Instant::now() < until && !self.is_over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(10));
        }
        !self.is_over.load(Ordering::Relaxed)
    }

    /// What clients have not seen yet, of all that a run must show them: how soon depends on what
    /// else the machine has to do.
    fn lacks(&self, files: &[(String, usize)]) -> Option<String> {
        let complete = self.complete.load(Ordering::Relaxed);
        if complete < MIN_COMPLETE {
            return Some(format!("{complete} complete bodies of {MIN_COMPLETE}"));
        }
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, length, _) in SIZES {
            let mut of_size = files.iter().filter(|(_, each)| *each == length);
            if !of_size.any(|(file, _)| seen.complete.contains_key(file)) {
                return Some(format!("a complete body of {name}"));
            }
        }
        let writers = WRITERS.map(|writer| writer.name());
        let changed = |writer: &str| {
            let mut versions = seen.versions.iter();
            versions.any(|(file, versions)| {
                file.starts_with(&format!("/{writer}")) && versions.len() > 1
            })
        };
        let unchanged = writers
            .into_iter()
            .chain(["swapped"])
            .find(|name| !changed(name));
        unchanged.map(|writer| format!("a change by {writer}"))
    }

    /// What is wrong with a response to GET; `offset` is where its range began.
    fn fault(
        &self,
        target: &str,
        length: usize,
        offset: usize,
        response: &Response,
    ) -> Option<String> {
        let body = &response.body;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match response.status {
            503 => {
                seen.unavailable += 1;
                return response
                    .field("Retry-After")
                    .is_none()
                    .then(|| "no Retry-After".to_owned());
            }
            200 | 206 => {}
            // A file that was cut short is published so when it has been for too long.
            416 => return None,
            other => return Some(format!("answered {other}")),
        }
        if response.cut {
            seen.cut += 1;
            return None;
        }
        let etag = response.field("ETag")?;
        if response.status == 200 && etag != tag(body) {
            return Some(format!("complete, but not what {etag} names"));
        }
        if response
            .field("Cache-Control")
            .is_some_and(|value| value.contains("no-store"))
        {
            // It did not come to rest for 5 s, and was published as it was read.
            seen.unsettled += 1;
            return None;
        }
        let Some(&version) = self
            .written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(etag)
        else {
            return Some(format!("{etag} names nothing that was ever written"));
        };
        match versions_of(body, offset) {
            Err(fault) => return Some(fault),
            Ok(versions) if versions.iter().ne([&version]) => {
                return Some(format!(
                    "{etag} names version {version}; the body is of {versions:?}"
                ));
            }
            Ok(_) => {}
        }
        seen.versions
            .entry(target.to_owned())
            .or_default()
            .insert(version);
        if response.status == 206 {
            seen.parts += 1;
            return None;
        }
        *seen.complete.entry(target.to_owned()).or_default() += 1;
        self.complete.fetch_add(1, Ordering::Relaxed);
        (body.len() != length).then(|| format!("{} bytes of {length}", body.len()))
    }
}

/// A client of one version of HTTP.
enum Asking {
    One(SocketAddr, Option<Client>),
    Two(Http2),
}

impl Asking {
    fn get(&mut self, target: &str, fields: &[(&str, &str)]) -> Response {
        match self {
            Self::Two(client) => client.get(target, fields),
            Self::One(address, kept) => {
                let mut client = kept.take().unwrap_or_else(|| Client::connect(*address));
                let response = client.request("GET", target, fields);
                *kept = (!response.cut).then_some(client);
                response
            }
        }
    }
}

/// Asks for one file after the other, small ones more often, sometimes for a part.
fn ask(ledger: &Ledger, files: &[(String, usize)], mut client: Asking, seed: u64) {
    let mut random = seed;
    let mut next = |below: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    while !ledger.is_over.load(Ordering::Relaxed) {
        let size = match next(30) {
            0..15 => 0,
            15..25 => 1,
            25..29 => 2,
            _ => 3,
        };
        let of_size: Vec<_> = files
            .iter()
            .filter(|(_, length)| *length == SIZES[size].1)
            .collect();
        let (target, length) = of_size[next(of_size.len())];
        let blocks = length / BLOCK;
        let first = next(blocks);
        let last = (first + next(blocks - first)).min(first + 512);
        let (mut range, mut offset) = (None, 0);
        if next(5) == 0 {
            offset = first * BLOCK;
            range = Some(format!("bytes={offset}-{}", (last + 1) * BLOCK - 1));
        }
        let fields: Vec<_> = range
            .iter()
            .map(|range| ("Range", range.as_str()))
            .collect();
        let response = client.get(target, &fields);
        if let Some(fault) = ledger.fault(target, *length, offset, &response) {
            ledger.is_over.store(true, Ordering::Relaxed);
            panic!("{target} {range:?}: {fault}\n{:?}", response.fields);
        }
    }
}

fn torture(site: &TestSite, flags: &[&str]) {
    let ledger = &Ledger::default();
    let mut files = Vec::new();
    for (name, length, _) in SIZES {
        for writer in WRITERS {
            files.push((format!("/{}-{name}", writer.name()), length));
        }
        files.push((format!("/swapped/{name}"), length));
    }
    fs::create_dir(site.path("swapped")).unwrap();
    for (target, length) in &files {
        fs::write(site.path(&target[1..]), ledger.next(*length)).unwrap();
    }
    let server = Server::with(site, flags);
    let address = server.address();
    thread::scope(|scope| {
        for (name, length, rest) in SIZES {
            for writer in WRITERS {
                let path = site.path(format!("{}-{name}", writer.name()));
                scope.spawn(move || {
                    while ledger.rest(rest) {
                        writer.write(&path, &ledger.next(length));
                    }
                });
            }
        }
        scope.spawn(|| {
            while ledger.rest(2500) {
                let next = site.outside("next");
                fs::create_dir(&next).unwrap();
                for (name, length, _) in SIZES {
                    fs::write(next.join(name), ledger.next(length)).unwrap();
                }
                exchange_directories(&next, &site.path("swapped"));
            }
        });
        for seed in 0..24 {
            let client = match seed % 2 {
                0 => Asking::One(address, None),
                _ => Asking::Two(Http2::connect(address)),
            };
            let files = &files;
            scope.spawn(move || ask(ledger, files, client, seed));
        }
        let _end = EndOfWork(&ledger.is_over);
        let start = Instant::now();
        while start.elapsed() < MIN_TIME
            || (ledger.lacks(&files).is_some() && start.elapsed() < MAX_TIME)
        {
            if ledger.is_over.load(Ordering::Relaxed) {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
    let lacking = ledger.lacks(&files);
    let seen = ledger.seen.lock().unwrap();
    let complete = ledger.complete.load(Ordering::Relaxed);
    let (
        written,
        Seen {
            cut,
            parts,
            unavailable,
            unsettled,
            ..
        },
    ) = (ledger.versions.load(Ordering::Relaxed), &*seen);
    #[allow(clippy::print_stderr)]
    {
        eprintln!(
            "{complete} complete, {parts} parts, {cut} cut, {unavailable} unavailable, {unsettled} \
             unsettled; {written} versions written"
        );
    }
    assert_eq!(lacking, None, "only {complete} complete bodies");
}

#[test]
fn p2_no_body_is_torn_on_disk() {
    torture(&TestSite::new(), &["--memory", "256MiB"]);
}

#[test]
fn p2_no_body_is_torn_in_memory() {
    // So little memory that most bodies are read and proven each time.
    torture(&TestSite::in_memory(), &["--memory", "24MiB"]);
}

/// The negative control of this side: what the clients do finds what they are there to find. That
/// unproven bodies would be torn is shown where the proof can be switched off, in `src/body.rs`.
#[test]
fn p2_a_torn_body_would_be_found() {
    let ledger = Ledger::default();
    let (old, new) = (ledger.next(4 * BLOCK), ledger.next(4 * BLOCK));
    let answer = |status, etag: &str, body: &[u8]| Response {
        version: "HTTP/1.1".to_owned(),
        status,
        fields: vec![("ETag".to_owned(), etag.to_owned())],
        body: body.to_vec(),
        cut: false,
        interim: Vec::new(),
    };
    let fault = |status, etag: &str, body: &[u8], offset| {
        ledger.fault("/file", 4 * BLOCK, offset, &answer(status, etag, body))
    };
    let mixed = [&old[..BLOCK], &new[BLOCK..]].concat();
    let torn_block = [&old[..100], &new[100..]].concat();
    assert_eq!(fault(200, &tag(&old), &old, 0), None);
    assert_eq!(fault(206, &tag(&new), &new[BLOCK..2 * BLOCK], BLOCK), None);
    for (status, etag, body, offset) in [
        (200, tag(&old), &new[..], 0),
        (200, tag(&old), &mixed[..], 0),
        (200, tag(&mixed), &mixed[..], 0),
        (200, tag(&torn_block), &torn_block[..], 0),
        (200, tag(&old), &old[..BLOCK], 0),
        (206, tag(&old), &new[BLOCK..], BLOCK),
        (206, tag(&old), &mixed[..], 0),
        (206, tag(&old), &old[..BLOCK], BLOCK),
        (404, tag(&old), &old[..], 0),
    ] {
        assert!(
            fault(status, &etag, body, offset).is_some(),
            "{status} {etag} passes"
        );
    }
}
