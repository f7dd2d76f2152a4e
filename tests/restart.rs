//! A server that is stopped and started again with what it has saved (`--state`).

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use notify::event::{AccessKind, EventKind};
use notify::{Config, Event, EventKindMask, RecommendedWatcher, RecursiveMode, Watcher};
use rustix::process::Signal;

use support::server::{command, unprivileged};
use support::tree::{digest_of, eventually, write_tree};
use support::{Client, Server, TestSite, noise, tag};

/// Where a site's state is saved, beside the site.
fn state(site: &TestSite) -> PathBuf {
    site.outside("state")
}

fn served(site: &TestSite) -> Server {
    served_with(site, &[])
}

fn served_with(site: &TestSite, flags: &[&str]) -> Server {
    let state = state(site);
    let flags = [&["--state", state.to_str().unwrap()], flags].concat();
    Server::with(site, &flags)
}

/// Stops a server in the orderly way.
fn stop(mut server: Server) {
    server.signal(Signal::TERM);
    assert!(server.wait().success(), "{}", server.log());
}

/// Waits until something else is saved than `before`, and returns it.
fn wait_for_state(file: &Path, before: &[u8]) -> Vec<u8> {
    let read = || fs::read(file).unwrap_or_default();
    eventually("the manifest is saved", || read() != before);
    read()
}

/// How many files a server that had something to take over has hashed at its start.
fn rehashed(server: &Server) -> Option<u64> {
    let log = server.log();
    let line = log.lines().find(|line| line.contains("site digest"))?;
    let (before, _) = line.split_once(" rehashed")?;
    before.rsplit(' ').next()?.replace(',', "").parse().ok()
}

/// The files below a directory that somebody opens, this process included.
struct Opened {
    marker: PathBuf,
    seen: Arc<Mutex<Vec<PathBuf>>>,
    _watcher: RecommendedWatcher,
}

impl Opened {
    fn below(directory: &Path, marker: &Path) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let note = move |event: notify::Result<Event>| {
            let event = event.unwrap();
            if let EventKind::Access(AccessKind::Open(_)) = event.kind {
                noted.lock().unwrap().extend(event.paths);
            }
        };
        let config = Config::default().with_event_kinds(EventKindMask::ALL_ACCESS);
        let mut watcher = RecommendedWatcher::new(note, config).unwrap();
        watcher.watch(directory, RecursiveMode::Recursive).unwrap();
        Self {
            marker: marker.to_path_buf(),
            seen,
            _watcher: watcher,
        }
    }

    /// Those that were opened since this was asked the last time.
    fn files(&self) -> BTreeSet<PathBuf> {
        // The reports come in the order of what happened: with this one, all earlier ones are here.
        File::open(&self.marker)
            .unwrap()
            .read_exact(&mut [0])
            .unwrap();
        eventually("the marker is reported", || {
            self.seen.lock().unwrap().contains(&self.marker)
        });
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        seen.into_iter()
            .filter(|path| path.is_file() && *path != self.marker)
            .collect()
    }
}

#[test]
fn an_immutable_file_that_has_other_content_after_a_restart_is_told() {
    let site = TestSite::with(&[("app.js", b"one"), ("same.js", b"1"), ("other.txt", b"one")]);
    let flags = ["--immutable", "/*.js"];
    let first = served_with(&site, &flags);
    wait_for_state(&state(&site), b"");
    stop(first);
    fs::write(site.path("app.js"), "another").unwrap();
    fs::write(site.path("other.txt"), "another").unwrap();
    let second = served_with(&site, &flags);
    let log = second.log();
    assert!(log.contains("/app.js was served as immutable"), "{log}");
    assert_eq!(log.matches("served as immutable").count(), 1, "{log}");
}

#[test]
fn a_restart_opens_no_file_and_a_first_request_opens_one() {
    let large = noise(3 << 20, 1);
    let site = TestSite::with(&[
        ("index.html", b"here"),
        ("marker", b"!"),
        ("deep/er/page.html", b"page"),
        ("whole", &large[..600_000]),
        ("large", &large),
    ]);
    let first = served(&site);
    let digest = first.digest();
    wait_for_state(&state(&site), b"");
    stop(first);

    let opened = Opened::below(&site.root(), &site.path("marker"));
    let second = served(&site);
    assert_eq!(rehashed(&second), Some(0), "{}", second.log());
    assert_eq!(second.digest(), digest);
    assert_eq!(opened.files(), BTreeSet::new());
    let unmodified = [("If-None-Match", &*tag(&large))];
    let response = second.client().request("GET", "/large", &unmodified);
    assert_eq!(response.status, 304);
    assert_eq!(opened.files(), BTreeSet::new());
    for (path, content) in [("/", &b"here"[..]), ("/whole", &large[..600_000])] {
        let file = site.path(if path == "/" { "index.html" } else { "whole" });
        assert_eq!(second.body(path).as_deref(), Some(content));
        assert_eq!(opened.files(), BTreeSet::from([file]));
        assert_eq!(second.body(path).as_deref(), Some(content));
        assert_eq!(opened.files(), BTreeSet::new(), "{path} comes from memory");
    }
    assert_eq!(second.body("/large").as_deref(), Some(&large[..]));
}

#[test]
fn what_changed_meanwhile_is_hashed_and_nothing_else() {
    let site = TestSite::new();
    write_tree(&site.root(), 300, "before");
    let first = served(&site);
    wait_for_state(&state(&site), b"");
    stop(first);
    fs::write(site.path("0/0/0/1.txt"), "changed").unwrap();
    fs::write(site.path("new"), "new").unwrap();
    fs::remove_file(site.path("0/0/0/2.txt")).unwrap();
    let second = served(&site);
    assert_eq!(rehashed(&second), Some(2), "{}", second.log());
    assert_eq!(second.digest(), digest_of(&site.root()));
    // It is watched as ever.
    fs::write(site.path("0/0/0/3.txt"), "changed too").unwrap();
    second.wait_for_body("/0/0/0/3.txt", "changed too");
    // What is known at the end is known at the next start, but for what is too new.
    stop(second);
    let third = served(&site);
    let hashed = rehashed(&third).unwrap();
    assert!((1..=3).contains(&hashed), "{}", third.log());
    assert_eq!(third.digest(), digest_of(&site.root()));
}

#[test]
fn a_site_with_rules_is_what_it_was_and_not_saved_again() {
    let rules = b"/page.html\n  X-Frame-Options: DENY\n";
    let site = TestSite::with(&[("_headers", rules), ("page.html", b"page"), ("other", b"o")]);
    let first = served(&site);
    let digest = first.digest();
    wait_for_state(&state(&site), b"");
    stop(first);
    let inode = || fs::metadata(state(&site)).unwrap().ino();
    let before = inode();
    let second = served(&site);
    assert_eq!((rehashed(&second), second.digest()), (Some(0), digest));
    let tag = |server: &Server| {
        let page = server.client().get("/page.html");
        assert_eq!(page.field("x-frame-options"), Some("DENY"));
        page.field("etag").unwrap().to_owned()
    };
    assert_eq!(tag(&second).len(), 2 + 64 + 1 + 8);
    stop(second);
    assert_eq!(inode(), before);
    // Other rules are found, though no file of the site has changed.
    fs::write(
        site.path("_headers"),
        "/page.html\n  X-Frame-Options: SAMEORIGIN\n",
    )
    .unwrap();
    let third = served(&site);
    assert_eq!(rehashed(&third), Some(0));
    assert_eq!(third.digest(), digest_of(&site.root()));
}

#[test]
fn other_flags_or_damage_make_it_useless_and_are_named() {
    let site = TestSite::with(&[("index.html", b"here"), ("page.html", b"page")]);
    let first = served(&site);
    let saved = wait_for_state(&state(&site), b"");
    stop(first);
    let other = served_with(&site, &["--last-modified", "off"]);
    assert!(
        other
            .log()
            .contains("state is not used, all files are hashed: it was saved with other flags")
    );
    assert_eq!(rehashed(&other), None);
    drop(other);
    fs::write(state(&site), &saved[..saved.len() - 1]).unwrap();
    let damaged = served(&site);
    let warning = "warning: ";
    let said = "state is not used, all files are hashed: it is damaged";
    let log = damaged.log();
    assert!(
        log.lines()
            .any(|line| line.starts_with(warning) && line.contains(said)),
        "{log}"
    );
    assert_eq!(damaged.digest(), digest_of(&site.root()));
    wait_for_state(&state(&site), &saved[..saved.len() - 1]);
    stop(damaged);
    assert_eq!(rehashed(&served(&site)), Some(0));
}

#[test]
fn a_place_that_does_not_take_it_is_one_warning() {
    let site = TestSite::with(&[("index.html", b"here")]);
    let missing = site.outside("missing/state");
    let server = Server::with(&site, &["--state", missing.to_str().unwrap()]);
    let warnings = |lines: &[String]| {
        lines
            .iter()
            .filter(|line| line.contains("cannot save the manifest in"))
            .count()
    };
    server.wait_for(|lines| warnings(lines) == 1);
    assert_eq!(server.body("/").as_deref(), Some(&b"here"[..]));
    // A new state, and a new try at its end.
    fs::write(site.path("index.html"), "new").unwrap();
    server.wait_for_body("/", "new");
    let mut server = server;
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    let log: Vec<_> = server.log().lines().map(str::to_owned).collect();
    assert_eq!(warnings(&log), 1, "{log:#?}");
}

#[test]
fn a_full_disk_leaves_what_was_saved_before() {
    let site = TestSite::new();
    write_tree(&site.root(), 2000, "full");
    let script = format!(
        "mount -t tmpfs -o size=64k tmpfs {0}/disk && exec \"$0\" \"$@\"",
        site.outside("").display()
    );
    let binary = env!("CARGO_BIN_EXE_etagd");
    fs::create_dir(site.outside("disk")).unwrap();
    let mounting = || {
        let mut mounting = command("unshare");
        mounting.args(["--mount", "sh", "-c", &script, binary]);
        mounting
    };
    if !mounting()
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
    {
        #[allow(clippy::print_stderr)]
        {
            eprintln!("skipped: nothing can be mounted here");
        }
        return;
    }
    let file = site.outside("disk/state");
    let server = Server::run(
        mounting(),
        &site.root(),
        &["--state", file.to_str().unwrap()],
    );
    server.wait_for(|lines| {
        let mut lines = lines.iter();
        lines.any(|line| line.contains("cannot save the manifest in") && line.contains("No space"))
    });
    server.wait_until_it_serves(&site.root());
    // Nothing half-written takes up what is left.
    let disk = PathBuf::from(format!("/proc/{}/root", server.pid()))
        .join(file.parent().unwrap().strip_prefix("/").unwrap());
    assert_eq!(fs::read_dir(disk).unwrap().count(), 0);
}

#[test]
fn a_place_in_the_site_or_taken_by_something_else_is_refused() {
    let site = TestSite::with(&[("index.html", b"here")]).fifo("../fifo");
    let inside = site.path("state");
    let inside = inside.to_str().unwrap();
    Server::assert_fails(
        &site.root(),
        &["--state", inside],
        2,
        &["--state", inside, "dot"],
    );
    let taken = site.outside("fifo");
    let taken = taken.to_str().unwrap();
    Server::assert_fails(
        &site.root(),
        &["--state", taken],
        1,
        &["--state", taken, "regular file"],
    );
    let hidden = site.path(".state");
    let server = Server::with(&site, &["--state", hidden.to_str().unwrap()]);
    wait_for_state(&hidden, b"");
    assert_eq!(server.client().get("/.state").status, 404);
    assert_eq!(server.publications(), 0, "{}", server.log());
}

#[test]
fn a_file_that_etagd_has_not_written_stays() {
    let site = TestSite::with(&[("index.html", b"here")]).file_outside("state", b"my notes");
    let server = served(&site);
    server.wait_for(|lines| {
        let mut lines = lines.iter();
        lines.any(|line| line.contains("another file is there"))
    });
    assert!(server.log().contains("it is not a saved manifest"));
    stop(server);
    assert_eq!(fs::read(state(&site)).unwrap(), b"my notes");
}

#[test]
fn a_kill_while_it_is_written_leaves_a_whole_one() {
    let site = TestSite::new();
    write_tree(&site.root(), 4000, "kill");
    let first = served(&site);
    wait_for_state(&state(&site), b"");
    stop(first);
    let new = site.outside("state.new");
    let mut is_old = 0;
    for round in 0..4 {
        let before = fs::read(state(&site)).unwrap();
        fs::write(site.path("0/0/0/0.txt"), format!("round {round}")).unwrap();
        let server = served(&site);
        eventually("it is being saved", || {
            new.exists() || fs::read(state(&site)).unwrap() != before
        });
        server.signal(Signal::KILL);
        drop(server);
        is_old += u32::from(fs::read(state(&site)).unwrap() == before);
        let next = served(&site);
        assert!(
            rehashed(&next) <= Some(1) && rehashed(&next).is_some(),
            "{}",
            next.log()
        );
        assert_eq!(next.digest(), digest_of(&site.root()));
    }
    assert!(is_old > 0, "none was killed in the middle");
}

#[test]
fn two_processes_may_share_it() {
    let site = TestSite::new();
    write_tree(&site.root(), 1000, "two");
    let servers = [served(&site), served(&site)];
    wait_for_state(&state(&site), b"");
    for round in 0..3 {
        fs::write(site.path("0/0/0/0.txt"), format!("round {round}")).unwrap();
        for server in &servers {
            server.wait_for_body("/0/0/0/0.txt", format!("round {round}"));
        }
    }
    servers
        .iter()
        .for_each(|server| server.signal(Signal::TERM));
    for mut server in servers {
        assert!(server.wait().success());
    }
    let next = served(&site);
    assert!(
        rehashed(&next) <= Some(1) && rehashed(&next).is_some(),
        "{}",
        next.log()
    );
    assert_eq!(next.digest(), digest_of(&site.root()));
}

#[test]
fn what_cannot_be_read_any_more_is_not_taken_over() {
    if unprivileged().is_none() {
        return;
    }
    let site = TestSite::with(&[("index.html", b"here"), ("shut/file", b"1")]).dir("../states");
    fs::set_permissions(site.outside("states"), Permissions::from_mode(0o777)).unwrap();
    let file = site.outside("states/state");
    let flags = ["--state", file.to_str().unwrap()];
    let first = Server::run(unprivileged().unwrap(), &site.root(), &flags);
    wait_for_state(&file, b"");
    stop(first);
    // No stamp of a file tells of it.
    fs::set_permissions(site.path("shut"), Permissions::from_mode(0o000)).unwrap();
    let second = Server::run(unprivileged().unwrap(), &site.root(), &flags);
    assert_eq!(rehashed(&second), Some(0));
    assert!(second.digest().ends_with("-incomplete"));
    assert_eq!(second.client().get("/shut/file").status, 404);
    let without = Server::run(unprivileged().unwrap(), &site.root(), &[]);
    assert_eq!(without.digest(), second.digest());
    fs::set_permissions(site.path("shut"), Permissions::from_mode(0o755)).unwrap();
    second.wait_for_body("/shut/file", "1");
}

#[test]
fn what_another_user_has_saved_is_not_used() {
    if !rustix::process::geteuid().is_root() || unprivileged().is_none() {
        return;
    }
    let site = TestSite::with(&[("index.html", b"here")]);
    let first = served(&site);
    wait_for_state(&state(&site), b"");
    stop(first);
    fs::set_permissions(state(&site), Permissions::from_mode(0o666)).unwrap();
    let flags = ["--state", &state(&site).display().to_string()];
    let second = Server::run(unprivileged().unwrap(), &site.root(), &flags);
    assert_eq!(rehashed(&second), None);
    assert!(
        second.log().contains("it belongs to another user"),
        "{}",
        second.log()
    );
}

#[test]
fn what_is_taken_over_follows_the_rules_as_they_are_now() {
    let site = TestSite::with(&[("page.html", b"page"), ("other.txt", b"other")])
        .file("_headers", "/*\n  X-Rule: 1\n  X-Frame-Options: DENY\n")
        .file("_redirects", "/old /page\n");
    let answers = |server: &Server| {
        let mut client = server.client();
        let page = client.get("/page");
        let field = |name| page.field(name).map(str::to_owned);
        let old = client.get("/old").field("Location").map(str::to_owned);
        (field("X-Rule"), field("ETag"), old)
    };
    let first = served(&site);
    let before = answers(&first);
    assert_eq!(before.0.as_deref(), Some("1"));
    assert!(before.1.as_ref().is_some_and(|etag| etag.contains('-')));
    assert_eq!(before.2.as_deref(), Some("/page"));
    let digest = first.digest();
    wait_for_state(&state(&site), b"");
    stop(first);

    let second = served(&site);
    assert_eq!(rehashed(&second), Some(0));
    assert_eq!(answers(&second), before);
    assert_eq!(second.digest(), digest);
    stop(second);

    fs::write(site.path("_headers"), "/*\n  X-Rule: 2\n").unwrap();
    fs::remove_file(site.path("_redirects")).unwrap();
    let third = served(&site);
    assert_eq!(rehashed(&third), Some(0));
    let after = answers(&third);
    assert_eq!(after.0.as_deref(), Some("2"));
    assert_eq!(after.1, Some(tag(b"page")));
    assert_eq!(after.2, None);
    assert_eq!(third.digest(), digest_of(&site.root()));
}

#[test]
fn what_can_not_be_saved_is_tried_again_until_it_can() {
    let site = TestSite::with(&[("a.txt", b"a")]);
    let place = site.outside("later");
    let state = place.join("state");
    let flags = ["--state", state.to_str().unwrap(), "--admin", "127.0.0.1:0"];
    let server = Server::with(&site, &flags);
    let failures = || -> u64 {
        let metrics = Client::connect(server.admin()).get("/metrics").body;
        let metrics = String::from_utf8(metrics).unwrap();
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("etagd_state_failures_total "));
        line.unwrap().parse().unwrap()
    };
    server.wait_for_line("cannot save the manifest");
    assert!(failures() > 0);
    assert_eq!(server.body("/a.txt").as_deref(), Some(&b"a"[..]));
    fs::create_dir(&place).unwrap();
    server.wait_for_line("is saved in");
    assert!(state.is_file());
    let failed = failures();
    let log = server.log();
    assert_eq!(log.matches("cannot save the manifest").count(), 1, "{log}");
    stop(server);
    assert!(failed < 5, "{failed}");
    let second = Server::with(&site, &flags);
    assert_eq!(rehashed(&second), Some(0), "{}", second.log());
}
