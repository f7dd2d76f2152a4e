//! P9: nobody can connect before the manifest is complete, and what is in flight when the server
//! is told to stop is finished.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::server::command;
use crate::support::wire::{PATIENCE, head};
use crate::support::{Client, Server, TestSite, noise, tag};

/// Far more than the kernel keeps for a client that does not read.
const LONG: usize = 16 << 20;

/// Tries again until something is so; there is no event to wait for.
fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < until, "{what}: not in time");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn p9_nobody_can_connect_before_the_scan_is_complete() {
    let site = TestSite::with(&[("last.txt", b"last")]);
    // Nothing on disk, and long to hash.
    File::create(site.path("sparse"))
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let started = Instant::now();
    let server = Server::spawn(
        command(env!("CARGO_BIN_EXE_etagd")),
        &site.root(),
        &["--listen", &free.to_string()],
    );
    let mut refused = 0;
    let mut client = eventually("to connect", || match TcpStream::connect(free) {
        Ok(_) => Some(Client::connect(free)),
        Err(_) => {
            refused += 1;
            None
        }
    });
    let scan = started.elapsed();
    let response = client.get("/last.txt");
    assert_eq!(
        (response.status, response.body.as_slice()),
        (200, &b"last"[..])
    );
    let answer = started.elapsed() - scan;
    assert!(refused > 0, "the port was taken from the first moment on");
    assert!(
        answer < scan / 2,
        "answered {answer:?} after connecting, and {scan:?} after start"
    );
    server.wait_for(|lines| lines.iter().any(|line| line.contains("listening on")));
}

#[test]
fn p9_a_signal_during_the_scan_ends_it() {
    for signal in [Signal::TERM, Signal::INT] {
        let site = TestSite::new();
        File::create(site.path("sparse"))
            .unwrap()
            .set_len(1 << 40)
            .unwrap();
        let mut server = Server::spawn(command(env!("CARGO_BIN_EXE_etagd")), &site.root(), &[]);
        // Signals are heeded as soon as the file is open.
        let descriptors = format!("/proc/{}/fd", server.pid());
        eventually("to open the file", || {
            let open = std::fs::read_dir(&descriptors).ok()?;
            open.filter_map(|entry| entry.ok()?.path().read_link().ok())
                .any(|target| target.ends_with("sparse"))
                .then_some(())
        });
        server.signal(signal);
        server.wait();
    }
}

/// A client in the middle of a long download, and how much of it it has.
fn slow_download(address: SocketAddr) -> (Client, Vec<u8>) {
    let mut client = Client::connect_narrow(address);
    client.send(head("GET", "/long", &[])).unwrap();
    assert_eq!(client.receive_head().unwrap().unwrap().status, 200);
    let beginning = client.read_some(50_000).unwrap();
    (client, beginning)
}

fn refuses(address: SocketAddr) -> Option<()> {
    TcpStream::connect(address).is_err().then_some(())
}

#[test]
fn p9_a_download_is_finished_before_the_end() {
    let content = noise(LONG, 1);
    let site = TestSite::with(&[("long", &content), ("short", b"short")]);
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start(&site);
        let address = server.address();
        let mut idle = server.client();
        assert_eq!(idle.get("/short").body, b"short");
        let (mut client, mut body) = slow_download(address);
        server.signal(signal);
        eventually("to refuse connections", || refuses(address));
        assert!(idle.ends().unwrap(), "an idle connection is kept");
        body.extend(client.read_some(LONG).unwrap());
        assert_eq!(
            tag(&body),
            tag(&content),
            "{} bytes of {LONG} came",
            body.len()
        );
        assert!(client.ends().unwrap());
        assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    }
}

#[test]
fn p9_a_server_without_requests_ends_at_once() {
    let site = TestSite::with(&[("short", b"short")]);
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start(&site);
        let _idle = server.client();
        let mut used = server.client();
        assert_eq!(used.get("/short").status, 200);
        let told = Instant::now();
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(0));
        assert!(
            told.elapsed() < Duration::from_secs(5),
            "it took {:?}",
            told.elapsed()
        );
    }
}

#[test]
fn p9_a_request_that_was_sent_before_the_signal_is_answered() {
    let site = TestSite::with(&[("short", b"short"), ("middle", &noise(300_000, 1))]);
    for round in 0..6 {
        let mut server = Server::start(&site);
        let mut clients: Vec<Client> = (0..8).map(|_| server.client()).collect();
        for client in &mut clients {
            assert_eq!(client.get("/short").status, 200);
        }
        for (client, target) in clients.iter_mut().zip(["/short", "/middle"].iter().cycle()) {
            client.send(head("GET", target, &[])).unwrap();
        }
        server.signal(Signal::TERM);
        for client in &mut clients {
            let response = client.receive("GET").unwrap();
            let response = response.unwrap_or_else(|| panic!("round {round}: a request is lost"));
            assert_eq!((response.status, response.cut), (200, false));
        }
        assert_eq!(server.wait().code(), Some(0));
    }
}

#[test]
fn p9_a_connection_that_was_made_before_the_signal_is_answered() {
    let site = TestSite::with(&[("short", b"short")]);
    for round in 0..6 {
        let mut server = Server::start(&site);
        let mut clients: Vec<Client> = (0..8).map(|_| server.client()).collect();
        for client in &mut clients {
            client.send(head("GET", "/short", &[])).unwrap();
        }
        server.signal(Signal::TERM);
        for client in &mut clients {
            let response = client.receive("GET").unwrap();
            let response = response.unwrap_or_else(|| panic!("round {round}: a request is lost"));
            assert_eq!(
                (response.status, response.body.as_slice()),
                (200, &b"short"[..])
            );
        }
        assert_eq!(server.wait().code(), Some(0));
    }
}

#[test]
fn p9_who_does_not_read_is_waited_for_no_longer_than_the_grace() {
    let site = TestSite::with(&[("long", &noise(LONG, 1))]);
    let mut server = Server::with(&site, &["--grace", "1s"]);
    let (_client, _) = slow_download(server.address());
    let told = Instant::now();
    server.signal(Signal::TERM);
    server.wait();
    let took = told.elapsed();
    assert!(
        took > Duration::from_millis(700) && took < Duration::from_secs(8),
        "it took {took:?}"
    );
}

#[test]
fn p9_a_second_signal_ends_it_at_once() {
    let site = TestSite::with(&[("long", &noise(LONG, 1))]);
    let mut server = Server::start(&site);
    let (_client, _) = slow_download(server.address());
    server.signal(Signal::INT);
    eventually("to refuse connections", || refuses(server.address()));
    let told = Instant::now();
    server.signal(Signal::INT);
    server.wait();
    assert!(
        told.elapsed() < Duration::from_secs(5),
        "it took {:?}",
        told.elapsed()
    );
}
