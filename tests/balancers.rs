//! Replicas behind real balancers and caches, configured by the files in `deploy/`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use base64::Engine;
use sha2::{Digest, Sha256};

use support::deltas::decode;
use support::fleet::{Fleet, copy};
use support::front::Front;
use support::site::{MTIME, overwrite_in_place};
use support::tree::{EndOfWork, eventually};
use support::{Client, Response, etagd, noise, tag};

type Files = Vec<(String, Vec<u8>)>;

const ROUNDS: usize = 10;

/// Forty files: pages, and assets of which half can be compressed. The longest is one that etagd
/// does not keep in memory as a whole.
fn release(number: u64) -> Files {
    let pages = (0..20).map(|n| (format!("/pages/{n}.html"), text(n * 300, number)));
    let scripts = (0..10).map(|n| (format!("/assets/{n}.js"), text(n * 7_000, number)));
    let images = (1..=10).map(|n| (format!("/assets/{n}.webp"), noise(n * 40_000, number)));
    pages.chain(scripts).chain(images).collect()
}

/// What a compressor makes a tenth of.
fn text(length: usize, number: u64) -> Vec<u8> {
    let words = format!("release {number} of the site, ").into_bytes();
    words.into_iter().cycle().take(length).collect()
}

/// A fleet that serves a release, compressed on each machine by itself.
fn fleet(number: u64, flags: &[&str]) -> Fleet {
    let fleet = Fleet::of(&release(number), flags);
    for replica in &fleet.replicas {
        let output = etagd([OsStr::new("compress"), replica.site.root().as_os_str()]);
        assert!(output.status.success(), "{output:?}");
        replica.server.wait_until_it_serves(&replica.site.root());
    }
    fleet
}

/// What a browser keeps of a response.
struct Kept {
    tag: String,
    date: Option<String>,
}

/// What a browser sends, with or without what it has kept.
fn ask(
    client: &mut Client<UnixStream>,
    path: &str,
    kept: Option<&Kept>,
    with_date: bool,
) -> Response {
    let mut fields = vec![("Accept-Encoding", "gzip, deflate, br, zstd")];
    if let Some(kept) = kept {
        fields.push(("If-None-Match", &kept.tag));
        if let (true, Some(date)) = (with_date, &kept.date) {
            fields.push(("If-Modified-Since", date));
        }
    }
    client.request("GET", path, &fields)
}

/// A client that revalidates everything in each round gets each body once, and what stands between
/// gets none more often.
fn every_revalidation_is_a_304(front: &Front, fleet: &Fleet, with_date: bool) {
    let sent_before = fleet.body_bytes();
    let mut client = front.client();
    let mut kept: BTreeMap<String, Kept> = BTreeMap::new();
    let (mut bytes, mut ideal, mut not_modified) = (0, 0, 0);
    for round in 0..ROUNDS {
        for (path, _) in release(1) {
            let known = kept.get(&path);
            let response = ask(&mut client, &path, known, with_date);
            bytes += response.body.len();
            let found = response.field("ETag").expect("a tag").to_owned();
            match known {
                None => {
                    assert_eq!(response.status, 200, "{path}");
                    assert!(
                        response.is_what_its_tag_says(),
                        "{path}: {:?}",
                        response.fields
                    );
                    ideal += response.body.len();
                    let date = response.field("Last-Modified").map(str::to_owned);
                    kept.insert(path, Kept { tag: found, date });
                }
                Some(known) => {
                    assert_eq!(
                        (response.status, &found),
                        (304, &known.tag),
                        "{path}, {round}"
                    );
                    not_modified += 1;
                }
            }
        }
    }
    assert_eq!(not_modified, kept.len() * (ROUNDS - 1));
    assert_eq!(bytes, ideal);
    let sent = fleet.body_bytes() - sent_before;
    // Answers to health checks have some bytes too.
    assert!(
        sent <= ideal + 1_000,
        "the replicas sent {sent} bytes for {ideal}"
    );
    // Else all of it may have come from one replica.
    let dates: BTreeSet<_> = kept
        .values()
        .filter_map(|kept| kept.date.as_ref())
        .collect();
    assert_eq!(dates.len(), 3, "replicas that were asked");
}

/// Content that changes without its size and mtime: nobody is told that it has not.
fn a_change_is_never_a_304(front: &Front, fleet: &Fleet, is_kept: impl Fn(&str) -> bool) {
    let mut client = front.client();
    let old: Vec<_> = release(1)
        .into_iter()
        .map(|(path, _)| {
            let response = ask(&mut client, &path, None, false);
            let tag = response.field("ETag").unwrap().to_owned();
            let date = response.field("Last-Modified").map(str::to_owned);
            (path, Kept { tag, date })
        })
        .collect();
    let new = release(2);
    for replica in &fleet.replicas {
        for (path, content) in &new {
            overwrite_in_place(&replica.site.path(&path[1..]), content);
        }
    }
    for replica in &fleet.replicas {
        replica.server.wait_until_it_serves(&replica.site.root());
    }
    for ((path, kept), (_, content)) in old.iter().zip(&new).filter(|(_, (_, new))| !new.is_empty())
    {
        if is_kept(path) {
            // A cache may still think so, as long as it was told to.
            eventually("the cache has looked again", || {
                ask(&mut client, path, Some(kept), false).status == 200
            });
        }
        // Every replica has its turn.
        for _ in 0..4 {
            for with_date in [false, true] {
                let response = ask(&mut client, path, Some(kept), with_date);
                assert_eq!(response.status, 200, "{path}");
                assert!(
                    response.body == *content && response.is_what_its_tag_says(),
                    "{path}"
                );
            }
        }
    }
}

/// A download that is broken off goes on at another replica.
fn a_download_goes_on_elsewhere(front: &Front) {
    let (path, content) = ("/assets/10.webp", noise(400_000, 1));
    let mut client = front.client();
    for offset in [1, 131_072, 399_999] {
        let fields = [
            ("Range", &*format!("bytes={offset}-")),
            ("If-Range", &*tag(&content)),
        ];
        let response = client.request("GET", path, &fields);
        assert_eq!(response.status, 206, "from {offset}");
        assert!(response.body == content[offset..], "from {offset}");
    }
}

#[test]
fn behind_haproxy() {
    let fleet = fleet(1, &[]);
    let Some(mut front) = Front::haproxy(&fleet) else {
        return;
    };
    front.wait_for_servers(3);
    every_revalidation_is_a_304(&front, &fleet, false);
    every_revalidation_is_a_304(&front, &fleet, true);
    a_download_goes_on_elsewhere(&front);
    a_change_is_never_a_304(&front, &fleet, |_| false);
}

#[test]
fn behind_nginx() {
    let fleet = fleet(1, &[]);
    let Some(front) = Front::nginx(&fleet) else {
        return;
    };
    every_revalidation_is_a_304(&front, &fleet, false);
    every_revalidation_is_a_304(&front, &fleet, true);
    a_download_goes_on_elsewhere(&front);
    a_change_is_never_a_304(&front, &fleet, |path| path.starts_with("/assets/"));
}

#[test]
fn behind_varnish() {
    let fleet = fleet(1, &["--health", "/healthz"]);
    let Some(front) = Front::varnish(&fleet) else {
        return;
    };
    every_revalidation_is_a_304(&front, &fleet, false);
    every_revalidation_is_a_304(&front, &fleet, true);
    a_download_goes_on_elsewhere(&front);
    a_change_is_never_a_304(&front, &fleet, |_| false);
}

#[test]
fn replicas_are_replaced_under_load() {
    replaced_under_load(10_000);
}

#[test]
#[ignore = "ten times as many, for a look by hand"]
fn replicas_are_replaced_under_a_hundred_thousand_requests() {
    replaced_under_load(100_000);
}

/// Every replica is replaced in turn by one with a new release, behind HAProxy, which tries no
/// request twice. None fails, and each body is what its tag says.
fn replaced_under_load(requests: usize) {
    const CLIENTS: usize = 8;
    let mut fleet = Fleet::of(&release(1), &[]);
    let Some(mut front) = Front::haproxy(&fleet) else {
        return;
    };
    front.wait_for_servers(3);
    let (answered, is_rolled_out) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (old, new) = (release(1), release(2));
    thread::scope(|scope| {
        let end = EndOfWork(&is_rolled_out);
        let loads: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let client = front.client();
                let goes_on = || {
                    answered.fetch_add(1, Ordering::Relaxed) < requests
                        || !is_rolled_out.load(Ordering::Relaxed)
                };
                let (old, new) = (&old, &new);
                scope.spawn(move || load(client, old, new, number, goes_on))
            })
            .collect();
        for replica in &mut fleet.replicas {
            replica.replace(copy(&new, MTIME));
            front.wait_for_servers(3);
        }
        drop(end);
        for load in loads {
            let seen = load.join().expect("no request fails");
            assert!(seen[0] > 0 && seen[1] > 0, "old and new: {seen:?}");
        }
    });
    let mut client = front.client();
    for (path, content) in &new {
        assert!(
            client.get(path).body == *content,
            "{path} is of the new release"
        );
    }
    let answered = answered.load(Ordering::Relaxed);
    assert!(answered >= requests, "{answered} requests");
}

/// Asks for one file after another, every third time for what it has already, and counts bodies
/// of the old and of the new release.
fn load(
    mut client: Client<UnixStream>,
    old: &Files,
    new: &Files,
    start: usize,
    goes_on: impl Fn() -> bool,
) -> [usize; 2] {
    let tags = |files: &Files| {
        files
            .iter()
            .map(|(_, content)| tag(content))
            .collect::<Vec<_>>()
    };
    let (old_tags, new_tags) = (tags(old), tags(new));
    let mut kept = vec![None; old.len()];
    let (mut seen, mut index) = ([0, 0], start);
    while goes_on() {
        index = (index + 7) % old.len();
        let path = &old[index].0;
        let known: Option<String> = kept[index].take();
        let condition = known.as_deref().map(|tag| ("If-None-Match", tag));
        let response = client.request("GET", path, condition.as_slice());
        let found = response.field("ETag").map(str::to_owned);
        match response.status {
            200 => {
                assert!(!response.cut && response.is_what_its_tag_says(), "{path}");
                seen[0] += usize::from(found.as_ref() == Some(&old_tags[index]));
                seen[1] += usize::from(found.as_ref() == Some(&new_tags[index]));
                kept[index] = found;
            }
            304 => assert_eq!(found, known, "{path}"),
            status => panic!("{status} for {path}: {}", response.body.escape_ascii()),
        }
    }
    seen
}

/// A script of two releases, most of which is the same.
fn script(number: usize) -> Vec<u8> {
    let line = |line: usize| {
        let changed = if line % 50 == 7 { number } else { 0 };
        format!(
            "export const v{line} = f({}, {});\n",
            line + changed,
            line * 40_503 % 65_521
        )
    };
    (0..300)
        .flat_map(|number| line(number).into_bytes())
        .collect()
}

/// A fleet whose two scripts have deltas against each other, and may be kept by caches.
fn fleet_with_deltas(flags: &[&str]) -> Fleet {
    let rules = "/assets/*\n  Cache-Control: max-age=31536000, immutable\n";
    let mut files = release(1);
    files.extend([
        (SCRIPTS[0].to_owned(), script(0)),
        (SCRIPTS[1].to_owned(), script(1)),
        ("/_headers".to_owned(), rules.as_bytes().to_vec()),
    ]);
    let fleet = Fleet::of(&files, flags);
    for replica in &fleet.replicas {
        let root = replica.site.root();
        let root = root.as_os_str();
        let output = etagd([OsStr::new("compress"), root, OsStr::new("--against"), root]);
        assert!(output.status.success(), "{output:?}");
        replica.server.wait_until_it_serves(&replica.site.root());
    }
    fleet
}

const SCRIPTS: [&str; 2] = ["/assets/app-0a0b0c0d.js", "/assets/app-1a1b1c1d.js"];

/// What a client makes of a response, if it has this dictionary.
fn decoded(response: &Response, dictionary: Option<&[u8]>) -> Vec<u8> {
    let body = &response.body[..];
    let (mut decoded, mut decoder): (_, Box<dyn Read>) = match response.field("content-encoding") {
        None => return body.to_vec(),
        Some(delta @ ("dcb" | "dcz")) => {
            return decode(body, delta, dictionary.expect("a dictionary"));
        }
        Some("br") => (Vec::new(), Box::new(brotli::Decompressor::new(body, 4096))),
        Some("zstd") => (Vec::new(), Box::new(zstd::Decoder::new(body).unwrap())),
        Some("gzip") => (Vec::new(), Box::new(flate2::read::GzDecoder::new(body))),
        other => panic!("{other:?}"),
    };
    decoder.read_to_end(&mut decoded).unwrap();
    decoded
}

/// What kinds of clients accept, and which script they have: the other one, which the wanted one has a
/// delta against, or the wanted one itself, which nothing has.
const CLIENTS: [(&str, Option<Has>); 10] = [
    ("gzip, br, zstd, dcb, dcz", Some(Has::Other)),
    ("gzip, br, zstd", None),
    ("gzip, br, zstd, dcz", Some(Has::Other)),
    ("gzip, br, zstd, dcb, dcz", Some(Has::Wanted)),
    ("gzip", None),
    ("gzip, br, dcb", Some(Has::Other)),
    ("gzip, br", Some(Has::Other)),
    ("gzip, br, zstd, dcb, dcz", None),
    ("dcz", Some(Has::Wanted)),
    ("br;q=0.5, dcb, dcz;q=0.1", Some(Has::Other)),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Has {
    Other,
    Wanted,
}

/// Clients with and without a dictionary ask for the same URLs: each can decode what it gets, and it is
/// the file.
fn every_client_can_decode_what_it_gets(front: &Front, requests: usize) {
    let scripts = [script(0), script(1)];
    let fields = [0, 1].map(|number| {
        let hash = base64::prelude::BASE64_STANDARD.encode(Sha256::digest(&scripts[number]));
        format!(":{hash}:")
    });
    let mut client = front.client();
    let mut deltas = BTreeMap::new();
    for number in 0..requests {
        let (wanted, kind) = (number % 2, number / 2 % CLIENTS.len());
        let (accepted, has) = CLIENTS[kind];
        let dictionary = has.map(|has| match has {
            Has::Other => 1 - wanted,
            Has::Wanted => wanted,
        });
        let mut sent = vec![("Accept-Encoding", accepted)];
        sent.extend(dictionary.map(|which| ("Available-Dictionary", fields[which].as_str())));
        let response = client.request("GET", SCRIPTS[wanted], &sent);
        assert_eq!(response.status, 200, "{number}");
        // nginx ends a connection after a thousand requests, and some time.
        if response.field("connection") == Some("close") {
            client = front.client();
        }
        let coding = response.field("content-encoding").unwrap_or("identity");
        assert!(
            coding == "identity" || accepted.contains(coding),
            "{number}: {coding} to {accepted}"
        );
        if coding.starts_with("dc") {
            *deltas.entry((kind, coding.to_owned())).or_insert(0) += 1;
        }
        let dictionary = dictionary.map(|which| &scripts[which][..]);
        assert!(
            decoded(&response, dictionary) == scripts[wanted],
            "{number}: {coding}"
        );
    }
    // Who has the other script and can decode its deltas gets one each time, and nobody else.
    let expected = [(0, "dcb"), (2, "dcz"), (5, "dcb"), (9, "dcb")];
    let each = requests / CLIENTS.len();
    let expected = expected.map(|(kind, coding)| ((kind, coding.to_owned()), each));
    assert_eq!(deltas, BTreeMap::from(expected));
}

fn deltas_behind_haproxy(requests: usize) {
    let fleet = fleet_with_deltas(&[]);
    let Some(mut front) = Front::haproxy(&fleet) else {
        return;
    };
    front.wait_for_servers(3);
    every_client_can_decode_what_it_gets(&front, requests);
}

fn deltas_behind_nginx(requests: usize) {
    let fleet = fleet_with_deltas(&[]);
    if let Some(front) = Front::nginx(&fleet) {
        every_client_can_decode_what_it_gets(&front, requests);
    }
}

fn deltas_behind_varnish(requests: usize) {
    let fleet = fleet_with_deltas(&["--health", "/healthz"]);
    if let Some(front) = Front::varnish(&fleet) {
        every_client_can_decode_what_it_gets(&front, requests);
    }
}

#[test]
fn clients_of_haproxy_can_decode_what_they_get() {
    deltas_behind_haproxy(340);
}

#[test]
fn clients_of_nginx_with_a_cache_can_decode_what_they_get() {
    deltas_behind_nginx(340);
}

#[test]
fn clients_of_varnish_can_decode_what_they_get() {
    deltas_behind_varnish(340);
}

#[test]
#[ignore = "ten times as many, for a look by hand"]
fn clients_can_decode_ten_thousand_responses() {
    deltas_behind_haproxy(3_400);
    deltas_behind_nginx(3_400);
    deltas_behind_varnish(3_400);
}
