//! `--cache` and `--cache-size`: what is kept, and what happens where that does not work.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::support::server::{command, unprivileged};
use super::support::tree::{eventually, manifest_of};
use super::support::{Client, Server, TestSite};
use super::{decoded, dense, prose};

fn site(files: u64) -> TestSite {
    (0..files).fold(TestSite::new(), |site, number| {
        site.file(format!("{number}.html"), prose(3000, number))
    })
}

/// The files with entries.
fn packs(cache: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(cache.join("v2")).into_iter().flatten();
    let mut packs: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    packs.retain(|path| path.file_name().unwrap().len() == 64);
    packs.sort();
    packs
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
    drop(first);
    // What is used is not written again.
    let inode = |path: &PathBuf| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).unwrap().ino()
    };
    let before: Vec<_> = packs(&cache).iter().map(inode).collect();
    assert!((1..20).contains(&before.len()), "{} files", before.len());
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
    assert_eq!(packs(&cache).iter().map(inode).collect::<Vec<_>>(), before);
}

#[test]
fn damage_is_one_warning_and_no_wrong_byte() {
    let site = site(20);
    let cache = site.outside("cache");
    let flags = ["--compress", "--cache", cache.to_str().unwrap()];
    let digest = Server::with(&site, &flags).digest();
    // What another version or another program has put there is nobody's.
    fs::create_dir(cache.join("v1")).unwrap();
    fs::write(cache.join("v1/note"), "older").unwrap();
    fs::write(cache.join("v2/note"), "mine").unwrap();
    type Damage = fn(&mut Vec<u8>);
    let damages: [Damage; 4] = [
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes[10] ^= 1,
        // In the list of what is in it.
        |bytes| *bytes.iter_mut().rev().nth(60).unwrap() ^= 1,
        |bytes| bytes.clear(),
    ];
    for damage in damages {
        for pack in packs(&cache) {
            let mut bytes = fs::read(&pack).unwrap();
            damage(&mut bytes);
            fs::write(pack, bytes).unwrap();
        }
        let server = Server::with(&site, &flags);
        assert_eq!(server.digest(), digest);
        assert_serves(&server, &site, 20);
        assert_eq!(warnings(&server), 1, "{}", server.log());
        assert!(server.log().contains("is damaged and not used"));
        drop(server);
        let server = Server::with(&site, &flags);
        assert_eq!((server.digest(), warnings(&server)), (digest.clone(), 0));
    }
    assert_eq!(fs::read(cache.join("v2/note")).unwrap(), b"mine");
    assert_eq!(fs::read(cache.join("v1/note")).unwrap(), b"older");
}

#[test]
fn two_servers_fill_one_cache_at_once() {
    let [one, two] = [site(60), site(60)];
    let cache = one.outside("cache");
    let flags = ["--compress", "--cache", cache.to_str().unwrap()];
    let spawn = |site: &TestSite| {
        let flags = [
            &["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
            &flags[..],
        ]
        .concat();
        Server::spawn(command(env!("CARGO_BIN_EXE_etagd")), &site.root(), &flags)
    };
    let servers = [spawn(&one), spawn(&two)];
    for (server, site) in servers.iter().zip([&one, &two]) {
        server.wait_for_line("listening on ");
        assert_serves(server, site, 60);
        assert_eq!(warnings(server), 0, "{}", server.log());
    }
    let digest = servers[0].digest();
    assert_eq!(servers[1].digest(), digest);
    drop(servers);
    let before = packs(&cache);
    let third = Server::with(&one, &flags);
    assert_eq!((third.digest(), warnings(&third)), (digest, 0));
    assert_eq!(packs(&cache), before, "nothing was made again");
}

#[test]
fn a_full_disk_is_one_warning() {
    let site = site(200);
    let script = format!(
        "mount -t tmpfs -o size=64k tmpfs {0}/disk && exec \"$0\" \"$@\"",
        site.outside("").display()
    );
    fs::create_dir(site.outside("disk")).unwrap();
    let mounting = || {
        let mut mounting = command("unshare");
        let binary = env!("CARGO_BIN_EXE_etagd");
        mounting.args(["--mount", "sh", "-c", &script, binary]);
        mounting
    };
    let can_mount = mounting().arg("--version").output();
    if !can_mount.is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: nothing can be mounted here");
    }
    let cache = site.outside("disk/cache");
    let flags = ["--compress", "--cache", cache.to_str().unwrap()];
    let server = Server::run(mounting(), &site.root(), &flags);
    assert_serves(&server, &site, 200);
    assert_eq!(warnings(&server), 1, "{}", server.log());
    assert!(server.log().contains("No space"), "{}", server.log());
    assert!(!server.digest().ends_with("-incomplete"));
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
    Server::assert_fails(&site.root(), &flags, 2, &naming);
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
    let kept = packs(&cache);
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
    let flags = [
        "--compress",
        "--cache-size",
        "100KiB",
        "--admin",
        "127.0.0.1:0",
    ];
    let server = Server::with(&site, &flags);
    assert!(server.digest().ends_with("-incomplete"), "{}", server.log());
    let said = "its compressed forms cannot be kept: the room that --cache-size gives is used up";
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
    // What there is no room for is counted, and becomes as it should be with the file.
    let counted = || metric(&server, "etagd_without_codings");
    assert_eq!(counted(), Some(1));
    fs::remove_file(site.path("large.txt")).unwrap();
    eventually("nothing lacks a form", || counted() == Some(0));
    assert!(!server.digest().ends_with("-incomplete"));
}

/// More of `--cache-size` would not help there: what failed is named, and what does help.
#[test]
fn what_cannot_be_put_aside_says_where_and_why() {
    let site = site(1).file("large.txt", dense(300_000, 1));
    let missing = site.outside("missing");
    let mut program = command(env!("CARGO_BIN_EXE_etagd"));
    program.env("TMPDIR", &missing);
    let server = Server::run(program, &site.root(), &["--compress"]);
    assert!(server.digest().ends_with("-incomplete"), "{}", server.log());
    let log = server.log();
    let warned = |line: &&str| line.contains("its compressed forms cannot be kept");
    let warnings: Vec<_> = log.lines().filter(warned).collect();
    let [warning] = warnings[..] else {
        panic!("{log}");
    };
    let reason = format!(
        "large.txt: its compressed forms cannot be kept: cannot write a temporary file in {}: No such \
         file or directory",
        missing.display()
    );
    assert!(warning.contains(&reason), "{warning}");
    assert!(warning.contains("name another directory with TMPDIR"));
    assert!(!warning.contains("--cache-size"), "{warning}");
    // What memory takes needs no file.
    assert_serves(&server, &site, 1);
}

/// The list of a release has the forms that this server has no room for: the files are as listed.
#[test]
fn a_release_is_served_also_where_some_forms_have_no_room() {
    let site = site(1).file("large.txt", dense(300_000, 1));
    let list = site.outside("release.json");
    fs::write(&list, manifest_of(&site.root(), &["--compress"])).unwrap();
    let list = list.to_str().unwrap();
    let flags = ["--compress", "--cache-size", "100KiB", "--manifest", list];
    let server = Server::with(&site, &flags);
    assert_serves(&server, &site, 1);
    let response = server
        .client()
        .request("GET", "/large.txt", &[("Accept-Encoding", "br")]);
    assert_eq!(
        (response.status, response.field("Content-Encoding")),
        (200, None)
    );
    assert!(server.digest().ends_with("-incomplete"), "{}", server.log());
    // What is not as listed is not served, form or not.
    fs::write(site.path("large.txt"), dense(300_000, 2)).unwrap();
    server.wait_for_line("/large.txt is \"");
}

/// A figure that an operator is told.
fn metric(server: &Server, name: &str) -> Option<u64> {
    let metrics = Client::connect(server.admin()).get("/metrics").body;
    let metrics = String::from_utf8(metrics).unwrap();
    let mut lines = metrics.lines();
    let figure = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    figure.parse().ok()
}
