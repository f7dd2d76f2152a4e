//! A start that waits: what its supervisor and its operator hear meanwhile.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use crate::support::server::command;
use crate::support::wire::PATIENCE;
use crate::support::{Releases, Server, TestSite};
use crate::{ADMIN, OFTEN, told};

/// Stands in for systemd.
fn supervisor(releases: &Releases) -> (UnixDatagram, String) {
    let path = releases.beside("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    (socket, path)
}

fn hear(socket: &UnixDatagram) -> String {
    let mut message = [0; 4096];
    let length = socket.recv(&mut message).expect("silence");
    String::from_utf8(message[..length].to_vec()).unwrap()
}

#[test]
fn a_supervisor_waits_for_a_start_that_waits() {
    let releases = Releases::new();
    let (socket, path) = supervisor(&releases);
    let mut program = command(env!("CARGO_BIN_EXE_etagd"));
    program.env("NOTIFY_SOCKET", &path);
    let server = Server::spawn(
        program,
        Path::new(&releases.url()),
        &[ADMIN, OFTEN].concat(),
    );
    // More than once: each time, only half a minute is asked for.
    let mut waiting = 0;
    while waiting < 2 {
        let message = hear(&socket);
        if message.contains("STATUS=") && message.contains("has no release yet") {
            let extension = "EXTEND_TIMEOUT_USEC=30000000\n";
            assert!(message.contains(extension), "{message}");
            waiting += 1;
        }
        assert!(!message.contains("READY=1"), "{message}");
    }
    releases.push(&TestSite::with(&[("index.html", b"one")]), &[]);
    while !hear(&socket).contains("READY=1") {}
    server.wait_until_listening();
}

#[test]
fn who_requires_the_store_waits_for_a_first_release_too() {
    let site = TestSite::with(&[("index.html", b"one")]);
    let releases = Releases::of(&site, &[]);
    let cache = releases.beside("cache");
    let flags = [&ADMIN[..], &OFTEN, &["--cache", &cache, "--require-store"]].concat();
    drop(releases.serve(&flags));
    releases.hide();
    fs::create_dir(releases.folder()).unwrap();
    // Without the flag, what was served here last would be.
    let server = releases.spawn(&flags);
    server.wait_for_line("has no release yet");
    let (ready, said) = told(&server, "/readyz");
    assert_eq!(ready, 503);
    assert!(said.contains("has no release yet"), "{said}");
    fs::remove_dir(releases.folder()).unwrap();
    releases.show();
    server.wait_until_listening();
    assert_eq!(server.body("/").unwrap(), b"one");
}
