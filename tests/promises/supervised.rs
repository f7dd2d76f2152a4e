//! P9: what a supervisor hears through sd_notify(3) is true at that moment.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::server::command;
use crate::support::wire::PATIENCE;
use crate::support::{Server, TestSite};

/// Stands in for systemd: hears what is said to `NOTIFY_SOCKET`.
struct Supervisor {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Supervisor {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            heard: Vec::new(),
        }
    }

    fn hear(&mut self) -> &str {
        let mut message = [0; 4096];
        let length = match self.socket.recv(&mut message) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("silence: {:#?}", self.heard)
            }
            length => length.unwrap(),
        };
        let message = std::str::from_utf8(&message[..length]).unwrap();
        self.heard.push(message.to_owned());
        self.heard.last().unwrap()
    }

    /// Waits for a message that has this line.
    fn wait_for(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        loop {
            let message = self.hear();
            if message.lines().any(&wanted) {
                return message.to_owned();
            }
        }
    }
}

fn start(site: &TestSite, variables: &[(&str, &str)], flags: &[&str]) -> (Supervisor, Server) {
    let path = site.outside("notify.sock");
    let supervisor = Supervisor::at(&path);
    let mut program = command(env!("CARGO_BIN_EXE_etagd"));
    program.env("NOTIFY_SOCKET", &path);
    program.envs(variables.iter().copied());
    (supervisor, Server::spawn(program, &site.root(), flags))
}

#[test]
fn p9_a_supervisor_hears_of_start_state_and_end() {
    let site = TestSite::with(&[("file.txt", b"content")]);
    let (mut supervisor, mut server) = start(&site, &[], &["--drain", "1h"]);
    supervisor.wait_for(|line| line == "READY=1");
    // At once: a server that is ready answers.
    server.wait_until_listening();
    let status = supervisor.wait_for(|line| line.starts_with("STATUS=serving"));
    assert!(status.contains("1 file, site digest "), "{status}");
    std::fs::write(site.path("more.txt"), "more").unwrap();
    let status = supervisor.wait_for(|line| line.starts_with("STATUS=serving 2 files"));
    let digest = status.trim_end().rsplit(' ').next().unwrap();
    server.wait_for_line(digest);

    server.signal(Signal::HUP);
    let reloading = supervisor.wait_for(|line| line == "RELOADING=1");
    let monotonic = reloading
        .lines()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    assert!(
        monotonic.is_some_and(|usec| usec.parse::<u64>().is_ok()),
        "{reloading}"
    );
    supervisor.wait_for(|line| line == "READY=1");

    server.signal(Signal::TERM);
    supervisor.wait_for(|line| line == "STOPPING=1");
    server.wait_for_line("draining");
    server.signal(Signal::INT);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn p9_a_supervisor_waits_for_a_scan_that_gets_on() {
    let site = TestSite::new();
    File::create(site.path("sparse"))
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    let (mut supervisor, mut server) = start(&site, &[], &[]);
    let message = supervisor.hear();
    assert!(message.contains("STATUS=hashing: "), "{message}");
    assert!(
        message.contains("EXTEND_TIMEOUT_USEC=30000000\n"),
        "{message}"
    );
    server.signal(Signal::TERM);
    server.wait();
    let heard = supervisor.heard.concat();
    assert!(!heard.contains("READY"), "{heard}");
}

#[test]
fn p9_a_watchdog_is_shown_life_in_time() {
    let site = TestSite::with(&[("file.txt", b"content")]);
    let (mut supervisor, mut server) = start(&site, &[("WATCHDOG_USEC", "1000000")], &[]);
    supervisor.wait_for(|line| line == "READY=1");
    let mut last = Instant::now();
    for _ in 0..3 {
        supervisor.wait_for(|line| line == "WATCHDOG=1");
        assert!(
            last.elapsed() < Duration::from_secs(1),
            "{:?}",
            last.elapsed()
        );
        last = Instant::now();
    }
    server.signal(Signal::INT);
    server.wait();
    // Another process's watchdog is not ours.
    let site = TestSite::with(&[("file.txt", b"content")]);
    let variables = [("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")];
    let (mut supervisor, mut server) = start(&site, &variables, &[]);
    supervisor.wait_for(|line| line.starts_with("STATUS=serving"));
    server.signal(Signal::INT);
    supervisor.wait_for(|line| line == "STOPPING=1");
    server.wait();
    assert!(!supervisor.heard.concat().contains("WATCHDOG"));
}

#[test]
fn p9_a_supervisor_that_is_gone_is_reported_once_and_changes_nothing() {
    let site = TestSite::with(&[("file.txt", b"content")]);
    let mut program = command(env!("CARGO_BIN_EXE_etagd"));
    program
        .env("NOTIFY_SOCKET", site.outside("nobody"))
        .env("WATCHDOG_USEC", "2000");
    let mut server = Server::run(program, &site.root(), &[]);
    std::fs::write(site.path("more.txt"), "more").unwrap();
    server.wait_for_line("published");
    server.assert_alive();
    assert_eq!(server.log().matches("NOTIFY_SOCKET").count(), 1);
}

#[test]
fn p8_a_supervisor_that_does_not_listen_holds_up_nothing() {
    let site = TestSite::with(&[("file.txt", b"content")]);
    let (supervisor, mut server) = start(&site, &[("WATCHDOG_USEC", "2000")], &[]);
    server.wait_until_listening();
    // Its queue is full when it takes no more from others either.
    let path = site.outside("notify.sock");
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    other.connect(&path).unwrap();
    while other.send(b"STATUS=of another").is_ok() {}
    for name in ["more.txt", "and-more.txt"] {
        std::fs::write(site.path(name), name).unwrap();
        server.wait_until_it_serves(&site.root());
        assert_eq!(server.client().get("/file.txt").status, 200);
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    drop(supervisor);
}
