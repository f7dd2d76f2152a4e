//! What can be seen from outside while the file system does not answer: the gauges, `/readyz`, and
//! the silence that a supervisor's watchdog hears. The kernel holds back each access to one file
//! until somebody permits it (fanotify(7)), as a network mount does whose server is gone.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use rustix::fs::CWD;

use support::server::command;
use support::tree::within;
use support::{Client, Server, TestSite};

/// The limit is 30 s; the rest is for a machine with other work.
const PATIENCE: Duration = Duration::from_secs(60);
const ADMIN: [&str; 2] = ["--admin", "127.0.0.1:0"];

/// A file that nobody gets access to until this is dropped.
struct DeadFile {
    _listener: Fanotify,
}

impl DeadFile {
    /// `None` where that can't be had.
    fn new(path: &Path, access: MaskFlags) -> Option<Self> {
        let flags = InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC;
        let listener = Fanotify::init(flags, EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC);
        let marked = listener.and_then(|listener| {
            listener.mark(MarkFlags::FAN_MARK_ADD, access, CWD, Some(path))?;
            Ok(listener)
        });
        match marked {
            Ok(listener) => Some(Self {
                _listener: listener,
            }),
            Err(error) => {
                let must = std::env::var_os("ETAGD_NO_SKIP").is_some();
                assert!(!must, "no access can be held back: {error}");
                #[allow(clippy::print_stderr)]
                {
                    eprintln!("skipped: no access can be held back here: {error}");
                }
                None
            }
        }
    }
}

/// What an operator sees: the gauges of stalls, and the status and line of `/readyz`.
#[derive(PartialEq, Eq, Debug)]
struct Shown {
    watch_stalled: bool,
    scrub_stalled: bool,
    is_ready: bool,
    line: String,
}

fn shown(server: &Server) -> Shown {
    let admin = server.admin();
    let metrics = Client::connect(admin).get("/metrics").body;
    let metrics = String::from_utf8(metrics).unwrap();
    let is_set = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim() == "1"
    };
    let ready = Client::connect(admin).get("/readyz");
    assert!(matches!(ready.status, 200 | 503));
    Shown {
        watch_stalled: is_set("etagd_watch_stalled"),
        scrub_stalled: is_set("etagd_scrub_stalled"),
        is_ready: ready.status == 200,
        line: String::from_utf8(ready.body).unwrap(),
    }
}

#[track_caller]
fn assert_goes_on(server: &Server) {
    within(PATIENCE, "all is well", || {
        let shown = shown(server);
        shown.is_ready && !shown.watch_stalled && !shown.scrub_stalled
    });
}

/// Hears what is said to `NOTIFY_SOCKET`, as soon as it is said, and when it was last shown life.
struct Supervisor(Arc<Mutex<Option<Instant>>>);

impl Supervisor {
    /// Its thread lives as long as the test.
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        let shown = Arc::new(Mutex::new(None));
        let last = Arc::clone(&shown);
        thread::spawn(move || {
            let mut message = [0; 4096];
            while let Ok(length) = socket.recv(&mut message) {
                if message[..length].starts_with(b"WATCHDOG=1") {
                    *last.lock().unwrap() = Some(Instant::now());
                }
            }
        });
        Self(shown)
    }

    fn has_seen_life_since(&self, since: Instant) -> bool {
        let last = *self.0.lock().unwrap();
        last.is_some_and(|last| last > since)
    }
}

#[test]
fn a_watcher_that_waits_is_not_ready_and_shows_no_life() {
    let site = TestSite::with(&[("page", b"here")]);
    let socket = site.outside("notify.sock");
    let supervisor = Supervisor::at(&socket);
    let mut program = command(env!("CARGO_BIN_EXE_etagd"));
    program.env("NOTIFY_SOCKET", &socket);
    program.env("WATCHDOG_USEC", "1000000");
    let server = Server::run(program, &site.root(), &ADMIN);
    assert_goes_on(&server);
    let start = Instant::now();
    within(PATIENCE, "it shows life", || {
        supervisor.has_seen_life_since(start)
    });

    fs::write(site.outside("dead"), "dead").unwrap();
    let Some(dead) = DeadFile::new(&site.outside("dead"), MaskFlags::FAN_OPEN_PERM) else {
        return;
    };
    fs::rename(site.outside("dead"), site.path("dead")).unwrap();
    within(PATIENCE, "it is stalled", || shown(&server).watch_stalled);
    let now = shown(&server);
    assert!(!now.is_ready && !now.scrub_stalled, "{now:?}");
    assert!(now.line.contains("the watcher has waited"), "{now:?}");
    // What was under way when it stalled has come by now.
    thread::sleep(Duration::from_secs(1));
    let stalled = Instant::now();
    thread::sleep(Duration::from_secs(3));
    assert!(!supervisor.has_seen_life_since(stalled));
    // Requests are answered all the same, and it is said once.
    assert_eq!(server.body("/page").unwrap(), b"here");
    assert_eq!(Client::connect(server.admin()).get("/livez").status, 200);
    assert_eq!(server.log().matches("the watcher has waited").count(), 1);

    drop(dead);
    server.wait_for_body("/dead", "dead");
    assert_goes_on(&server);
    let end = Instant::now();
    within(PATIENCE, "it shows life again", || {
        supervisor.has_seen_life_since(end)
    });
    server.wait_for_line("the file system answers again: changes are published");
}

#[test]
fn a_large_file_that_can_not_be_hashed_is_not_ready_and_other_changes_are_published() {
    let site = TestSite::with(&[("page", b"here")]);
    let server = Server::with(&site, &ADMIN);
    let length = 129 << 20;
    let large = File::create(site.outside("large")).unwrap();
    large.set_len(length).unwrap();
    drop(large);
    // It can be opened, and not read.
    let Some(dead) = DeadFile::new(&site.outside("large"), MaskFlags::FAN_ACCESS_PERM) else {
        return;
    };
    fs::rename(site.outside("large"), site.path("large")).unwrap();
    within(PATIENCE, "it is stalled", || shown(&server).watch_stalled);
    let now = shown(&server);
    assert!(!now.is_ready && !now.scrub_stalled, "{now:?}");
    assert!(now.line.contains("the hashing of a large file"), "{now:?}");
    fs::write(site.path("page"), "changed").unwrap();
    server.wait_for_body("/page", "changed");
    assert_eq!(server.client().get("/large").status, 404);

    drop(dead);
    within(PATIENCE, "it is published", || {
        let head = server.client().request("HEAD", "/large", &[]);
        head.field("Content-Length") == Some(&length.to_string())
    });
    assert_goes_on(&server);
    server.wait_for_line("the file system answers again: large files are hashed");
}

#[test]
fn a_scrub_that_waits_is_shown_and_keeps_nothing_back() {
    let site = TestSite::with(&[("page", b"here"), ("dead", b"dead")]);
    let server = Server::with(&site, &[&ADMIN[..], &["--scrub", "1s"]].concat());
    let Some(dead) = DeadFile::new(&site.path("dead"), MaskFlags::FAN_OPEN_PERM) else {
        return;
    };
    within(PATIENCE, "it is stalled", || shown(&server).scrub_stalled);
    let now = shown(&server);
    assert!(now.is_ready && !now.watch_stalled, "{now:?}");
    server.wait_for_line("the scrub has waited for the file system");
    fs::write(site.path("page"), "changed").unwrap();
    server.wait_for_body("/page", "changed");

    drop(dead);
    assert_goes_on(&server);
    server.wait_for_line("the file system answers again: files are read again");
}
