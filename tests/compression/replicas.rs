//! Replicas agree on made codings, whatever has happened to each of them.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use super::support::server::command;
use super::support::tree::{eventually, manifest_of, within};
use super::support::{Server, TestSite, etagd};
use super::{decoded, prose};

/// The Rust documentation, which comes with the compiler.
fn documentation() -> PathBuf {
    let sysroot = command("rustc").args(["--print", "sysroot"]).output();
    let sysroot = sysroot.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    PathBuf::from(sysroot.unwrap_or_default()).join("share/doc/rust/html")
}

/// Its pages of these lengths, with their paths; none where it is not there.
fn pages(lengths: &Range<u64>) -> Vec<(String, PathBuf)> {
    let (root, mut found) = (documentation(), Vec::new());
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "html")
                && lengths.contains(&entry.metadata().unwrap().len())
            {
                let below = path.strip_prefix(&root).unwrap().to_str().unwrap();
                found.push((below.to_owned(), path.clone()));
            }
        }
    }
    found.sort();
    if found.is_empty() {
        eprintln!("no Rust documentation at {}", root.display());
    }
    found
}

/// So many of them, spread evenly.
fn some(pages: &[(String, PathBuf)], number: usize) -> Vec<(String, Vec<u8>)> {
    let read = |(below, path): &(String, PathBuf)| (below.clone(), fs::read(path).unwrap());
    let step = (pages.len() / number).max(1);
    pages.iter().step_by(step).take(number).map(read).collect()
}

/// A copy of the pages, written in this order.
fn copy<'a>(pages: impl Iterator<Item = &'a (String, Vec<u8>)>) -> TestSite {
    pages.fold(TestSite::new(), |site, (path, content)| {
        site.file(path, content)
    })
}

/// Asserts that replicas have the same tags for everything, codings included.
fn assert_agree(servers: [&Server; 2]) {
    let urls = servers.map(|server| format!("http://{}", server.admin()));
    let output = etagd(["check", &urls[0], &urls[1]]);
    assert!(output.status.success(), "{output:?}");
}

/// A server that has the time to compress all of a site.
fn start(site: &TestSite, flags: &[&str]) -> Server {
    let flags = [&["--listen", "127.0.0.1:0"], flags].concat();
    let server = Server::spawn(command(env!("CARGO_BIN_EXE_etagd")), &site.root(), &flags);
    let is_listening = || server.log().contains("listening on ");
    within(Duration::from_secs(300), "it listens", is_listening);
    server
}

const FLAGS: [&str; 3] = ["--compress", "--admin", "127.0.0.1:0"];

#[test]
fn replicas_agree_whatever_has_happened_to_them() {
    // Short ones: a build without optimisations takes a second for each megabyte.
    let mut pages = some(&pages(&(1024..4042)), 3000);
    if pages.len() < 3000 {
        let page = |seed: u64| (format!("{}/{seed}.html", seed % 20), prose(1500, seed));
        pages = (0..3000).map(page).collect();
    }
    let one = copy(pages.iter());
    let cache = one.outside("cache");
    let made = ["--compress", "--cache", cache.to_str().unwrap()];
    let with_cache = [&made[..], &FLAGS[1..]].concat();

    // The first is killed in the middle of it, and starts again.
    let spawned = [&["--listen", "127.0.0.1:0"], &with_cache[..]].concat();
    let mut killed = Server::spawn(command(env!("CARGO_BIN_EXE_etagd")), &one.root(), &spawned);
    eventually("some entries", || count_files(&cache.join("v2")) > 1);
    killed.signal(Signal::KILL);
    killed.wait();
    let first = start(&one, &with_cache);
    assert!(!first.log().contains("WARN"), "{}", first.log());

    // The second has its files in another order, and knows nothing of the cache.
    let two = copy(pages.iter().rev());
    let second = start(&two, &FLAGS);
    assert_eq!(first.digest(), second.digest());
    assert_agree([&first, &second]);
    let listed = manifest_of(&one.root(), &made);
    let listed = String::from_utf8(listed).unwrap();
    for coding in ["br", "gzip"] {
        let number = listed.matches(&format!("\"coding\":\"{coding}\"")).count();
        assert_eq!(number, 3000, "{coding}");
    }

    // The third has seen each of some files change three times.
    let few: Vec<_> = pages.iter().step_by(100).collect();
    let three = copy(pages.iter());
    for (path, _) in &few {
        fs::write(three.path(path), "a beginning").unwrap();
    }
    let third = start(&three, &FLAGS);
    assert_ne!(third.digest(), first.digest());
    for seed in 0..2 {
        let before = third.publications();
        for (path, _) in &few {
            fs::write(three.path(path), prose(4000, seed)).unwrap();
        }
        eventually("another publication", || third.publications() > before);
    }
    for (path, content) in &few {
        fs::write(three.path(path), content).unwrap();
    }
    eventually("the same digest", || third.digest() == first.digest());
    assert_agree([&first, &third]);
}

fn count_files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(
            |entry| match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => count_files(&entry.path()),
                false => 1,
            },
        )
        .sum()
}

/// What browsers get of 500 pages. Most of them are short: all pages together are sent in less.
#[test]
fn few_bytes_are_sent() {
    let pages = some(&pages(&(0..u64::MAX)), 500);
    if pages.is_empty() {
        return;
    }
    let site = copy(pages.iter());
    let server = start(&site, &["--compress=br"]);
    let mut client = server.client();
    let (mut sent, mut identity) = (0, 0);
    for (path, content) in &pages {
        let target = format!("/{path}");
        let response = client.request("GET", &target, &[("Accept-Encoding", "br")]);
        assert_eq!(
            (response.status, decoded(&response)),
            (200, content.clone()),
            "{path}"
        );
        sent += response.body.len();
        identity += content.len();
    }
    assert!(sent * 100 <= identity * 25, "{sent} of {identity} bytes");
}
