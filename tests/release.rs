//! `etagd serve --manifest FILE`: what is listed is served, whole and proven, or what was served
//! before.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use support::server::command;
use support::site::overwrite_in_place;
use support::tree::{eventually, manifest_of, relink, rename_over, stays};
use support::{Client, Server, TestSite, etagd, noise};

const BINARY: &str = env!("CARGO_BIN_EXE_etagd");
/// No help from sweeps.
const EVENTS: &[&str] = &["--sweep", "1h"];

/// What a build makes: a directory and its manifest beside it.
struct Build {
    site: TestSite,
}

impl Build {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let build = Self {
            site: TestSite::with(files),
        };
        build.list();
        build
    }

    /// Writes the manifest of what is there now.
    fn list(&self) {
        rename_over(&self.manifest(), manifest_of(&self.site.root(), &[]));
    }

    fn manifest(&self) -> PathBuf {
        self.site.outside("site.json")
    }

    fn flags(&self) -> Vec<String> {
        let manifest = self.manifest().to_str().unwrap().to_owned();
        let flags = ["--manifest", &manifest]
            .into_iter()
            .chain(EVENTS.iter().copied());
        flags.map(str::to_owned).collect()
    }

    /// Starts a server of a directory, which may not get ready.
    fn spawn(&self, dir: &Path, more: &[&str]) -> Server {
        let flags = self.flags();
        let flags: Vec<_> = flags
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect();
        Server::spawn(command(BINARY), dir, &flags)
    }

    fn serve(&self, dir: &Path) -> Server {
        let server = self.spawn(dir, &[]);
        ready(&server);
        server
    }

    fn digest(&self) -> String {
        let json: serde_json::Value =
            serde_json::from_slice(&fs::read(self.manifest()).unwrap()).unwrap();
        json["digest"].as_str().unwrap().to_owned()
    }
}

fn ready(server: &Server) {
    server.wait_for(|lines| lines.iter().any(|line| line.contains("listening on")));
}

fn says(server: &Server, text: &str) {
    server.wait_for(|lines| lines.iter().any(|line| line.contains(text)));
}

/// A state is served first and announced then.
fn published(server: &Server, times: usize) {
    eventually("it is announced", || server.publications() >= times);
    assert_eq!(server.publications(), times, "{}", server.log());
}

const FILES: &[(&str, &[u8])] = &[
    ("index.html", b"<!doctype html>first"),
    ("a.txt", b"a"),
    ("d/b.txt", b"b"),
    ("d/e/c.txt", b"c"),
];

/// A family of more files than four has no dictionaries: how many there are is a question of what is
/// served, whatever else lies in the tree.
#[test]
fn the_dictionaries_are_those_of_what_is_listed() {
    let family: Vec<_> = ["0a0b0c0d", "1a1b1c1d", "2a2b2c2d", "3a3b3c3d", "4a4b4c4d"]
        .map(|hash| format!("app-{hash}.js"))
        .into();
    let flags = ["--immutable", "auto"];
    let build = Build {
        site: TestSite::new(),
    };
    let list = || rename_over(&build.manifest(), manifest_of(&build.site.root(), &flags));
    for name in &family[..4] {
        fs::write(build.site.path(name), "a script").unwrap();
    }
    list();
    let copy = TestSite::new();
    for name in &family {
        fs::write(copy.path(name), "a script").unwrap();
    }
    let server = build.spawn(&copy.root(), &flags);
    ready(&server);
    let dictionary = || {
        let response = server.client().get(&format!("/{}", family[0]));
        response.field("Use-As-Dictionary").map(str::to_owned)
    };
    assert_eq!(server.client().get(&format!("/{}", family[4])).status, 404);
    assert_eq!(dictionary().as_deref(), Some(r#"match="/app-*.js""#));
    // The fifth is listed, and then it is not.
    fs::write(build.site.path(&family[4]), "a script").unwrap();
    list();
    published(&server, 1);
    assert_eq!(dictionary(), None);
    fs::remove_file(build.site.path(&family[4])).unwrap();
    list();
    published(&server, 2);
    assert_eq!(dictionary().as_deref(), Some(r#"match="/app-*.js""#));
}

#[test]
fn what_is_listed_is_served_and_nothing_else() {
    let build = Build::new(FILES);
    let copy = TestSite::with(FILES)
        .file("secret.txt", "not listed")
        .file("a.txt.gz", "not listed, and no gzip");
    let server = build.serve(&copy.root());
    assert_eq!(server.body("/d/e/c.txt").as_deref(), Some(&b"c"[..]));
    assert_eq!(server.client().get("/secret.txt").status, 404);
    assert_eq!(server.client().get("/a.txt.gz").status, 404);
    let log = server.log();
    assert!(log.contains("2 files are not in"), "{log}");
    assert!(log.contains("all files match"), "{log}");
    // A file that comes later is none of the site's either.
    fs::write(copy.path("later.txt"), "not listed").unwrap();
    stays(
        Duration::from_millis(500),
        "what is not listed is not there",
        || server.client().get("/later.txt").status == 404,
    );
    assert_eq!(server.publications(), 0);
}

#[test]
fn a_site_that_is_half_copied_takes_no_connection_until_it_is_whole() {
    let build = Build::new(FILES);
    let copy = TestSite::with(&FILES[..1]).file("a.txt", "?");
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let server = build.spawn(&copy.root(), &["--listen", &free.to_string()]);
    says(&server, "3 entries of");
    let log = server.log();
    for fault in [
        "/a.txt is \"",
        "/d/b.txt is missing",
        "/d/e/c.txt is missing",
        "not ready",
    ] {
        assert!(log.contains(fault), "no {fault:?} in:\n{log}");
    }
    assert!(
        TcpStream::connect(free).is_err(),
        "the port was taken too early"
    );
    fs::create_dir_all(copy.path("d/e")).unwrap();
    fs::write(copy.path("d/e/c.txt"), "c").unwrap();
    fs::write(copy.path("d/b.txt"), "b").unwrap();
    stays(Duration::from_millis(600), "nobody can connect", || {
        TcpStream::connect(free).is_err()
    });
    rename_over(&copy.path("a.txt"), "a");
    ready(&server);
    for (name, content) in FILES {
        assert_eq!(server.body(&format!("/{name}")).as_deref(), Some(*content));
    }
    says(&server, &build.digest());
}

#[test]
fn the_operator_is_told_why_it_is_not_ready() {
    let build = Build::new(FILES);
    let copy = TestSite::with(&FILES[1..]);
    let server = build.spawn(&copy.root(), &["--admin", "127.0.0.1:0"]);
    let mut admin = Client::connect(server.admin());
    eventually("the reason is told", || {
        let readyz = admin.get("/readyz");
        assert_eq!(readyz.status, 503);
        let reason = String::from_utf8(readyz.body).unwrap();
        reason.contains("/index.html is missing") && reason.contains("site.json")
    });
    for path in ["/manifest", "/digest"] {
        assert_eq!(admin.get(path).status, 503, "{path}");
    }
    fs::write(copy.path("index.html"), FILES[0].1).unwrap();
    ready(&server);
    assert_eq!(admin.get("/readyz").status, 200);
    assert_eq!(
        admin.get("/digest").body,
        format!("{}\n", build.digest()).into_bytes()
    );
    // A later mismatch does not take it out of the balancer.
    fs::remove_file(copy.path("index.html")).unwrap();
    says(&server, "the last good state stays");
    assert_eq!(admin.get("/readyz").status, 200);
}

#[test]
fn flags_that_a_list_was_made_with_are_named() {
    let text = "a text that gains from it, ".repeat(200);
    let build = TestSite::with(&[("a.txt", text.as_bytes())]);
    let listed = etagd([
        "manifest",
        build.root().to_str().unwrap(),
        "--compress=gz",
        "--immutable=/x",
        "--format=json",
    ]);
    let copy = TestSite::with(&[("a.txt", text.as_bytes())]);
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("site.json");
    fs::write(&list, listed.stdout).unwrap();
    let flags = ["--manifest", list.to_str().unwrap()];
    let server = Server::spawn(command(BINARY), &copy.root(), &flags);
    says(&server, "not ready until they match");
    let log = server.log();
    let (setting, missing) = (
        log.find("--compress is off here"),
        log.find("not as listed"),
    );
    assert!(setting.is_some() && setting < missing, "{log}");
    assert!(
        log.contains("--immutable is not set here and /x in"),
        "{log}"
    );
}

#[test]
fn rules_are_part_of_what_is_listed() {
    let build = Build::new(&[FILES, &[("_headers", b"/a.txt\n  X-Robots-Tag: none\n")]].concat());
    let copy = TestSite::with(FILES).file("_headers", "/a.txt\n  X-Robots-Tag: all\n");
    let server = build.spawn(&copy.root(), &[]);
    says(&server, "_headers or _redirects differs");
    fs::write(
        copy.path("_headers"),
        "# The same\n/a.txt\n  X-Robots-Tag: none\n",
    )
    .unwrap();
    ready(&server);
    let robots = |server: &Server| {
        let response = server.client().get("/a.txt");
        response.field("X-Robots-Tag").map(str::to_owned)
    };
    assert_eq!(robots(&server).as_deref(), Some("none"));
    // The next release has other rules, and nothing else.
    fs::write(build.site.path("_headers"), "/a.txt\n  X-Robots-Tag: all\n").unwrap();
    fs::write(copy.path("_headers"), "/a.txt\n  X-Robots-Tag: all\n").unwrap();
    says(&server, "the last good state stays");
    assert_eq!(robots(&server).as_deref(), Some("none"));
    build.list();
    eventually("they are in force", || {
        robots(&server).as_deref() == Some("all")
    });
    eventually("it is announced", || server.digest() == build.digest());
}

#[test]
fn the_list_of_what_is_wrong_is_bounded() {
    let site = (0..500).fold(TestSite::new(), |site, n| site.file(format!("f{n}"), "x"));
    let build = Build { site };
    build.list();
    let empty = TestSite::new();
    let mut server = build.spawn(&empty.root(), &[]);
    says(&server, "500 entries of");
    assert!(server.log().lines().count() < 40, "{}", server.log());
    // It can be stopped while it waits.
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
}

#[test]
fn what_is_not_listed_later_is_not_published() {
    let build = Build::new(&[FILES, &[("big.bin", &noise(3_000_000, 1))]].concat());
    let copy = TestSite::with(FILES).file("big.bin", noise(3_000_000, 1));
    let server = build.serve(&copy.root());
    overwrite_in_place(&copy.path("a.txt"), b"?");
    says(&server, "1 entry of");
    fs::remove_file(copy.path("d/b.txt")).unwrap();
    fs::write(copy.path("more.txt"), "more").unwrap();
    // The last good state stays, of all that can be proven.
    stays(Duration::from_millis(600), "the last good state", || {
        server.body("/a.txt").as_deref() == Some(b"a")
            && server.body("/d/b.txt").as_deref() == Some(b"b")
            && server.client().get("/more.txt").status == 404
    });
    assert_eq!(server.publications(), 0, "{}", server.log());
    assert!(server.log().contains("the last good state stays"));
    // Mended.
    fs::write(copy.path("d/b.txt"), "b").unwrap();
    overwrite_in_place(&copy.path("a.txt"), b"a");
    eventually("it is proven again", || {
        server.log().matches("all files match").count() == 2
    });
}

#[test]
fn what_is_wrong_later_is_named_and_counted_to_the_last_file() {
    let build = Build::new(FILES);
    let copy = TestSite::with(FILES);
    let server = build.spawn(&copy.root(), &["--admin", "127.0.0.1:0"]);
    ready(&server);
    let faults = || {
        let page = Client::connect(server.admin()).get("/metrics").body;
        let page = String::from_utf8(page).unwrap();
        let line = |line: &str| {
            line.strip_prefix("etagd_release_faults ")
                .map(str::to_owned)
        };
        page.lines().find_map(line).unwrap()
    };
    assert_eq!(faults(), "0");
    overwrite_in_place(&copy.path("a.txt"), b"?");
    says(&server, "not as listed: /a.txt is ");
    // Too soon to be told at once, and nothing else happens.
    fs::remove_file(copy.path("d/b.txt")).unwrap();
    eventually("it is counted", || faults() == "2");
    says(&server, "not as listed: /d/b.txt is missing");
    says(&server, "still 2 entries of");
    fs::write(copy.path("d/b.txt"), "b").unwrap();
    overwrite_in_place(&copy.path("a.txt"), b"a");
    eventually("it is proven again", || faults() == "0");
}

#[test]
fn the_next_release_is_published_when_both_are_there() {
    for is_site_first in [true, false] {
        let build = Build::new(FILES);
        let copy = TestSite::with(FILES);
        let server = build.serve(&copy.root());
        // The build goes on.
        fs::write(build.site.path("a.txt"), "second").unwrap();
        fs::write(build.site.path("new.txt"), "new").unwrap();
        fs::remove_file(build.site.path("d/b.txt")).unwrap();
        let deploy_site = || {
            fs::write(copy.path("a.txt"), "second").unwrap();
            fs::write(copy.path("new.txt"), "new").unwrap();
            fs::remove_file(copy.path("d/b.txt")).unwrap();
        };
        let is_old = || {
            server.body("/a.txt").as_deref() == Some(b"a")
                && server.body("/d/b.txt").as_deref() == Some(b"b")
                && server.client().get("/new.txt").status == 404
        };
        if is_site_first {
            deploy_site();
            says(&server, "the last good state stays");
            assert!(is_old());
            build.list();
        } else {
            build.list();
            says(&server, "the last good state stays");
            assert!(is_old());
            deploy_site();
        }
        server.wait_for_body("/new.txt", "new");
        assert_eq!(server.body("/a.txt").as_deref(), Some(&b"second"[..]));
        assert_eq!(server.client().get("/d/b.txt").status, 404);
        published(&server, 1);
        says(&server, &build.digest());
    }
}

#[test]
fn releases_that_a_link_leads_to_are_published_whole() {
    let build = Build::new(FILES);
    let releases = TestSite::with(FILES);
    fs::rename(releases.root(), releases.outside("1")).unwrap();
    let link = releases.outside("current");
    relink(&link, "1");
    let server = build.serve(&link);
    fs::write(build.site.path("a.txt"), "second").unwrap();
    build.list();
    says(&server, "the last good state stays");
    fs::create_dir_all(releases.outside("2/d/e")).unwrap();
    for (name, content) in FILES {
        fs::write(releases.outside("2").join(name), content).unwrap();
    }
    fs::write(releases.outside("2/a.txt"), "second").unwrap();
    relink(&link, "2");
    server.wait_for_body("/a.txt", "second");
    // What is the same is read from where it is now.
    fs::remove_dir_all(releases.outside("1")).unwrap();
    assert_eq!(server.body("/d/b.txt").as_deref(), Some(&b"b"[..]));
    published(&server, 1);
}

#[test]
fn codings_that_are_not_listed_are_not_served() {
    let page = "<p>".repeat(2000);
    let build = Build::new(&[("page.html", page.as_bytes())]);
    let copy = TestSite::with(&[("page.html", page.as_bytes())]);
    let compressed = etagd(["compress".as_ref(), copy.root().as_os_str()]);
    assert!(compressed.status.success());
    let server = build.serve(&copy.root());
    let accept = [("Accept-Encoding", "br, zstd, gzip")];
    let response = server.client().request("GET", "/page.html", &accept);
    assert_eq!(
        (response.status, response.field("Content-Encoding")),
        (200, None)
    );
    assert_eq!(response.field("Vary"), None);
    // And what is listed has to be there.
    let compressed = etagd(["compress".as_ref(), build.site.root().as_os_str()]);
    assert!(compressed.status.success());
    build.list();
    eventually("the codings are served", || {
        let response = server.client().request("GET", "/page.html", &accept);
        response.field("Content-Encoding") == Some("br")
    });
    let without = TestSite::with(&[("page.html", page.as_bytes())]);
    let server = build.spawn(&without.root(), &[]);
    says(&server, "/page.html (br) is missing");
}

#[test]
fn a_manifest_that_cannot_be_used_is_refused_at_the_start_and_ignored_later() {
    let build = Build::new(FILES);
    let copy = TestSite::with(FILES);
    let file = build.manifest();
    let good = fs::read_to_string(&file).unwrap();
    let incomplete = good.replacen("\"complete\":true", "\"complete\":false", 1);
    let empty = TestSite::new();
    let empty = String::from_utf8(manifest_of(&empty.root(), &[])).unwrap();
    let cases = [
        ("half of it", &good[..good.len() / 2], "EOF"),
        ("incomplete", &incomplete, "incomplete"),
        ("of nothing", &empty, "lists no file"),
        ("something else", "{}", "--format json"),
    ];
    let path = file.to_str().unwrap();
    for (name, text, reason) in cases {
        fs::write(&file, text).unwrap();
        Server::assert_fails(&copy.root(), &["--manifest", path], 1, &[path, reason]);
        let _ = name;
    }
    fs::remove_file(&file).unwrap();
    Server::assert_fails(
        &copy.root(),
        &["--manifest", path],
        1,
        &[path, "No such file"],
    );

    fs::write(&file, &good).unwrap();
    let server = build.serve(&copy.root());
    for (name, text, reason) in cases {
        fs::write(&file, text).unwrap();
        eventually(name, || server.log().contains(reason));
        assert!(server.log().contains("stays in force"));
        assert_eq!(server.body("/a.txt").as_deref(), Some(&b"a"[..]), "{name}");
    }
    fs::remove_file(&file).unwrap();
    says(&server, "No such file");
    // And back: nothing has changed.
    fs::write(&file, &good).unwrap();
    fs::write(build.site.path("a.txt"), "second").unwrap();
    build.list();
    fs::write(copy.path("a.txt"), "second").unwrap();
    server.wait_for_body("/a.txt", "second");
}

#[test]
fn a_hangup_reads_the_manifest_again() {
    let build = Build::new(FILES);
    let copy = TestSite::with(FILES);
    let server = build.serve(&copy.root());
    let warned = |server: &Server| server.log().matches("stays in force").count();
    fs::write(build.manifest(), "{}").unwrap();
    eventually("the change is seen", || warned(&server) == 1);
    stays(Duration::from_millis(600), "it is said once", || {
        warned(&server) == 1
    });
    server.signal(Signal::HUP);
    eventually("it is read again", || warned(&server) == 2);
}

#[test]
fn other_flags_than_the_builds_are_warned_of() {
    let build = Build::new(FILES);
    let copy = TestSite::with(FILES);
    let server = build.spawn(&copy.root(), &["--last-modified", "off"]);
    ready(&server);
    let log = server.log();
    assert!(
        log.contains("--last-modified is off here and mtime in"),
        "{log}"
    );
}

#[test]
fn a_hold_file_holds_the_next_release() {
    let build = Build::new(FILES);
    let copy = TestSite::with(FILES);
    let server = build.serve(&copy.root());
    fs::write(copy.path(".etagd-hold"), "").unwrap();
    fs::write(build.site.path("a.txt"), "second").unwrap();
    build.list();
    fs::write(copy.path("a.txt"), "second").unwrap();
    says(&server, "publication is held");
    stays(Duration::from_millis(700), "the state before", || {
        server.body("/a.txt").as_deref() == Some(b"a")
    });
    fs::remove_file(copy.path(".etagd-hold")).unwrap();
    server.wait_for_body("/a.txt", "second");
    published(&server, 1);
}

#[test]
fn folders_without_files_are_served_if_they_are_listed_and_there() {
    let build = Build::new(FILES);
    fs::create_dir_all(build.site.path("e/g")).unwrap();
    let listing = manifest_of(&build.site.root(), &["--listing"]);
    rename_over(&build.manifest(), listing);
    let copy = TestSite::with(FILES)
        .file("e/not-listed.txt", "?")
        .dir("more");
    let server = build.spawn(&copy.root(), &["--listing"]);
    says(&server, "/e/g/ is missing");
    fs::create_dir(copy.path("e/g")).unwrap();
    ready(&server);
    let status = |target: &str| server.client().get(target).status;
    assert_eq!([status("/e/"), status("/e/g/")], [200, 200]);
    assert_eq!([status("/more/"), status("/e/not-listed.txt")], [404, 404]);
    says(&server, &build.digest());
    // What is not listed comes and goes unseen; without what is, the last good state stays.
    fs::create_dir(copy.path("more/still")).unwrap();
    fs::remove_dir(copy.path("e/g")).unwrap();
    says(&server, "the last good state stays");
    assert_eq!([status("/e/g/"), status("/more/")], [200, 404]);
    assert_eq!(server.publications(), 1, "that of the release");
    // The next release has fewer of them.
    fs::remove_dir_all(build.site.path("e")).unwrap();
    let listing = manifest_of(&build.site.root(), &["--listing"]);
    rename_over(&build.manifest(), listing);
    eventually("it is gone", || status("/e/") == 404);
    published(&server, 2);
    assert_eq!(server.digest(), build.digest());
}

#[test]
fn a_list_with_folders_is_used_where_none_are_listed() {
    let build = Build::new(FILES);
    fs::create_dir(build.site.path("e")).unwrap();
    let listing = manifest_of(&build.site.root(), &["--listing"]);
    rename_over(&build.manifest(), listing);
    let copy = TestSite::with(FILES);
    let server = build.serve(&copy.root());
    assert_eq!(server.client().get("/e/").status, 404);
    assert_eq!(server.client().get("/a.txt").status, 200);
}
