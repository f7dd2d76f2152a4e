//! `--cache` and `--cache-size`: what is kept, and what happens where that does not work.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::support::server::unprivileged;
use super::support::{Server, TestSite};
use super::{decoded, dense, prose};

fn site(files: u64) -> TestSite {
    (0..files).fold(TestSite::new(), |site, number| {
        site.file(format!("{number}.html"), prose(3000, number))
    })
}

/// The files of entries.
fn entries(cache: &Path) -> Vec<PathBuf> {
    let list = |path: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(path).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let folders = list(&cache.join("v1"));
    folders.iter().flat_map(|folder| list(folder)).collect()
}

/// Asserts that every file is sent compressed, with bytes that are right.
fn assert_serves(server: &Server, site: &TestSite, files: u64) {
    let mut client = server.client();
    for number in 0..files {
        let target = format!("/{number}.html");
        let response = client.request("GET", &target, &[("Accept-Encoding", "br")]);
        assert_eq!(response.field("Content-Encoding"), Some("br"), "{target}");
        assert!(response.is_what_its_tag_says());
        let content = fs::read(site.path(format!("{number}.html"))).unwrap();
        assert_eq!(decoded(&response), content, "{target}");
    }
}

fn warnings(server: &Server) -> usize {
    let log = server.log();
    log.lines().filter(|line| line.contains("--cache")).count()
}

#[test]
fn a_restart_makes_nothing_again() {
    let site = site(20);
    let cache = site.outside("cache");
    let flags = ["--compress", "--cache", cache.to_str().unwrap()];
    let first = Server::with(&site, &flags);
    let digest = first.digest();
    assert_eq!(entries(&cache).len(), 20);
    drop(first);
    // An entry that is used is not written again.
    let inode = |path: &PathBuf| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).unwrap().ino()
    };
    let before: Vec<_> = entries(&cache).iter().map(inode).collect();
    let state = site.outside("state");
    let with_state = [&flags[..], &["--state", state.to_str().unwrap()]].concat();
    for flags in [&flags[..], &with_state, &with_state] {
        let mut server = Server::with(&site, flags);
        assert_eq!(server.digest(), digest);
        assert_serves(&server, &site, 20);
        assert_eq!(warnings(&server), 0, "{}", server.log());
        server.signal(rustix::process::Signal::TERM);
        server.wait();
    }
    assert_eq!(
        entries(&cache).iter().map(inode).collect::<Vec<_>>(),
        before
    );
}

#[test]
fn damage_is_one_warning_and_no_wrong_byte() {
    let site = site(20);
    let cache = site.outside("cache");
    let flags = ["--compress", "--cache", cache.to_str().unwrap()];
    let digest = Server::with(&site, &flags).digest();
    for (number, entry) in entries(&cache).iter().enumerate() {
        let mut bytes = fs::read(entry).unwrap();
        match number % 4 {
            0 => bytes.truncate(bytes.len() / 2),
            1 => bytes[10] ^= 1,
            // Those of another entry.
            2 => bytes = fs::read(&entries(&cache)[number + 1]).unwrap(),
            _ => {}
        }
        fs::write(entry, bytes).unwrap();
    }
    // What another version or another program has put there is nobody's.
    fs::create_dir(cache.join("v2")).unwrap();
    fs::write(cache.join("v1/note"), "mine").unwrap();
    let server = Server::with(&site, &flags);
    assert_eq!(server.digest(), digest);
    assert_serves(&server, &site, 20);
    assert_eq!(warnings(&server), 1, "{}", server.log());
    assert!(server.log().contains("is damaged and not used"));
    drop(server);
    let server = Server::with(&site, &flags);
    assert_eq!((server.digest(), warnings(&server)), (digest, 0));
    assert_eq!(fs::read(cache.join("v1/note")).unwrap(), b"mine");
}

#[test]
fn what_cannot_be_written_is_one_warning() {
    let site = site(20);
    let cache = site.outside("cache");
    let flags = ["--compress", "--cache", cache.to_str().unwrap()];
    let Some(program) = unprivileged() else {
        return eprintln!("skipped: nobody to be without privileges");
    };
    for path in [site.outside(""), site.root()] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    // Nobody may make it there.
    let server = Server::run(program, &site.root(), &flags);
    let digest = server.digest();
    assert_serves(&server, &site, 20);
    assert_eq!(warnings(&server), 1, "{}", server.log());
    drop(server);
    // It was made by somebody else, who could have anything in it.
    drop(Server::with(&site, &flags));
    let server = Server::run(unprivileged().unwrap(), &site.root(), &flags);
    assert_serves(&server, &site, 20);
    assert_eq!(
        (server.digest(), warnings(&server)),
        (digest, 1),
        "{}",
        server.log()
    );
}

#[test]
fn a_site_and_its_cache_are_apart() {
    let site = site(1);
    let inside = site.path("cache");
    let flags = ["--compress", "--cache", inside.to_str().unwrap()];
    let naming = ["--cache", "outside of the site"];
    Server::assert_fails(&site.root(), &flags, 1, &naming);
    assert!(!inside.exists());
}

#[test]
fn a_small_cache_stays_small() {
    let site = site(60);
    let cache = site.outside("cache");
    let flags = [
        "--compress",
        "--cache",
        cache.to_str().unwrap(),
        "--cache-size",
        "40KiB",
    ];
    let server = Server::with(&site, &flags);
    assert_serves(&server, &site, 60);
    let kept = entries(&cache);
    let total: u64 = kept
        .iter()
        .map(|entry| fs::metadata(entry).unwrap().len())
        .sum();
    assert!(
        (1..60).contains(&kept.len()) && total <= 40 << 10,
        "{total} bytes"
    );
    assert_eq!(warnings(&server), 0, "{}", server.log());
}

/// Neither memory nor the temporary file has room: such a replica must not seem to agree with others.
#[test]
fn what_cannot_be_kept_at_all_leaves_the_digest_incomplete() {
    let site = site(1).file("large.txt", dense(300_000, 1));
    let flags = ["--compress", "--cache-size", "100KiB"];
    let server = Server::with(&site, &flags);
    assert!(server.digest().ends_with("-incomplete"), "{}", server.log());
    let said = "its compressed forms cannot be kept";
    assert_eq!(server.log().matches(said).count(), 1, "{}", server.log());
    assert_serves(&server, &site, 1);
    let response = server
        .client()
        .request("GET", "/large.txt", &[("Accept-Encoding", "br")]);
    assert_eq!(
        (response.status, response.field("Content-Encoding")),
        (200, None)
    );
    assert!(response.is_what_its_tag_says());
}
