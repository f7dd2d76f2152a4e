//! P10: connections, header bytes, header time, idle time and memory each have a limit.

use std::fs;
use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::wire::head;
use crate::support::{Client, Server, TestSite, noise, tag};

const SECOND: Duration = Duration::from_secs(1);
/// Far more than the kernel keeps for a client that does not read.
const LONG: usize = 16 << 20;

fn short() -> TestSite {
    TestSite::with(&[("short", b"short")])
}

/// Asserts that a limit of one second was neither missed nor anticipated.
fn assert_about_a_second(since: Instant) {
    let took = since.elapsed();
    assert!(took > SECOND / 2 && took < 8 * SECOND, "it took {took:?}");
}

/// Waits until the server closes, having said 408 or nothing.
fn assert_closes(client: &mut Client) {
    if let Some(response) = client.receive("GET").unwrap() {
        assert_eq!(response.status, 408);
        assert!(client.ends().unwrap());
    }
}

#[test]
fn p10_half_a_head_is_waited_for_so_long() {
    let server = Server::with(&short(), &["--header-timeout", "1s"]);
    let mut client = server.client();
    let since = Instant::now();
    client.send("GET /short HTTP/1.1\r\nHost: loc").unwrap();
    assert_closes(&mut client);
    assert_about_a_second(since);
}

#[test]
fn p10_a_head_that_drips_is_waited_for_no_longer() {
    let server = Server::with(&short(), &["--header-timeout", "1s"]);
    let mut client = server.client();
    client
        .socket()
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let since = Instant::now();
    client.send("GET /short HTTP/1.1\r\n").unwrap();
    // The read's time-out is the pace: a few bytes every 50 ms, until the server has enough.
    while client.send("X: y\r\n").is_ok() {
        match client.receive("GET") {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => break,
        }
        assert!(since.elapsed() < 8 * SECOND, "still waiting");
    }
    assert_about_a_second(since);
}

#[test]
fn p10_a_second_head_is_bounded_like_the_first() {
    let server = Server::with(&short(), &["--header-timeout", "1s"]);
    let mut client = server.client();
    assert_eq!(client.get("/short").status, 200);
    let since = Instant::now();
    client.send("GET /sho").unwrap();
    assert_closes(&mut client);
    assert_about_a_second(since);
}

#[test]
fn p10_an_idle_connection_is_closed() {
    let server = Server::with(&short(), &["--idle-timeout", "1s"]);
    let mut client = server.client();
    assert_eq!(client.get("/short").status, 200);
    let since = Instant::now();
    assert_closes(&mut client);
    assert_about_a_second(since);
}

#[test]
fn p10_a_connection_that_never_says_anything_is_closed() {
    let flags = ["--idle-timeout", "1s", "--header-timeout", "1s"];
    let server = Server::with(&short(), &flags);
    let since = Instant::now();
    let mut client = server.client();
    assert_closes(&mut client);
    assert_about_a_second(since);
}

#[test]
fn p10_a_connection_that_is_used_is_not_idle() {
    let site = short();
    let flags = ["--idle-timeout", "1s", "--header-timeout", "1s"];
    let server = Server::with(&site, &flags);
    let mut client = server.client();
    let since = Instant::now();
    while since.elapsed() < 3 * SECOND {
        assert_eq!(client.get("/short").body, b"short");
        thread::sleep(SECOND / 4);
    }
}

/// How many sockets a process has open.
fn sockets(server: &Server) -> usize {
    fs::read_dir(format!("/proc/{}/fd", server.pid()))
        .unwrap()
        .filter_map(|entry| entry.ok()?.path().read_link().ok())
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}

#[test]
fn p10_a_client_that_never_reads_is_cut() {
    let site = TestSite::with(&[("long", &noise(LONG, 1))]);
    let mut server = Server::with(&site, &["--write-timeout", "1s"]);
    let before = sockets(&server);
    let mut client = Client::connect_narrow(server.address());
    client.send(head("GET", "/long", &[])).unwrap();
    let response = client.receive_head().unwrap().unwrap();
    assert_eq!(response.status, 200);
    let since = Instant::now();
    while sockets(&server) > before {
        assert!(since.elapsed() < 8 * SECOND, "it is still connected");
        thread::sleep(SECOND / 50);
    }
    assert_about_a_second(since);
    assert!(
        client.read_some(LONG).unwrap().len() < LONG,
        "a body that was cut, and came whole"
    );
    server.assert_alive();
}

#[test]
fn p10_a_client_that_reads_slowly_is_not_cut() {
    let content = noise(LONG, 1);
    let site = TestSite::with(&[("long", &content)]);
    let flags = [
        "--write-timeout",
        "1s",
        "--idle-timeout",
        "1s",
        "--header-timeout",
        "1s",
    ];
    let server = Server::with(&site, &flags);
    let mut client = Client::connect_narrow(server.address());
    client.send(head("GET", "/long", &[])).unwrap();
    assert_eq!(client.receive_head().unwrap().unwrap().status, 200);
    let mut body = Vec::new();
    let since = Instant::now();
    while since.elapsed() < 3 * SECOND {
        body.extend(client.read_some(200_000).unwrap());
        thread::sleep(SECOND / 10);
    }
    body.extend(client.read_some(LONG).unwrap());
    assert_eq!(
        tag(&body),
        tag(&content),
        "{} bytes of {LONG} came",
        body.len()
    );
}

#[test]
fn p10_a_client_that_is_near_and_reads_at_its_own_pace_is_not_cut() {
    // A proxy in front, or a video that is being watched: the kernel between the two takes whatever
    // it is given, and the client a hundred kilobytes a second, far less than the kernel's buffers.
    let site = TestSite::with(&[("long", &noise(LONG, 1))]);
    let server = Server::with(&site, &["--write-timeout", "2s"]);
    let mut client = Client::connect_narrow(server.address());
    client.send(head("GET", "/long", &[])).unwrap();
    assert_eq!(client.receive_head().unwrap().unwrap().status, 200);
    let since = Instant::now();
    while since.elapsed() < 7 * SECOND {
        let part = client.read_some(10_000).unwrap();
        assert_eq!(part.len(), 10_000, "cut after {:?}", since.elapsed());
        thread::sleep(SECOND / 10);
    }
    // More than there can be in the kernel's buffers: it is still sent.
    assert_eq!(client.read_some(LONG / 2).unwrap().len(), LONG / 2);
}

#[test]
fn p10_more_connections_than_are_allowed_get_nothing_from_those_that_are() {
    let mut server = Server::with(&short(), &["--max-connections", "4"]);
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/short").status, 200);
    }
    let mut surplus = server.client();
    surplus.socket().set_read_timeout(Some(SECOND / 2)).unwrap();
    let _ = surplus.send(head("GET", "/short", &[]));
    // It is turned away, or waits.
    if let Ok(Some(response)) = surplus.receive("GET") {
        assert_eq!(response.status, 503);
        assert!(response.field("Retry-After").is_some());
        assert!(response.says_close());
        assert!(surplus.ends().unwrap());
    }
    drop(surplus);
    for client in &mut clients {
        assert_eq!(client.get("/short").body, b"short");
    }
    drop(clients);
    let since = Instant::now();
    loop {
        let mut client = server.client();
        let _ = client.send(head("GET", "/short", &[]));
        if let Ok(Some(response)) = client.receive("GET")
            && response.status == 200
        {
            break;
        }
        assert!(
            since.elapsed() < 8 * SECOND,
            "places that were left are not given again"
        );
        thread::sleep(SECOND / 50);
    }
    server.assert_alive();
}

#[test]
fn p10_the_cap_of_heads_is_the_flags() {
    let site = short();
    for (cap, fits, exceeds) in [("8KiB", 7_000, 9_000), ("64KiB", 60_000, 70_000)] {
        let server = Server::with(&site, &["--max-header-size", cap]);
        let status = |length: usize| {
            server
                .client()
                .request("GET", "/short", &[("X-Long", &"a".repeat(length))])
                .status
        };
        assert_eq!(status(fits), 200, "{fits} bytes under a cap of {cap}");
        assert_eq!(status(exceeds), 431, "{exceeds} bytes over a cap of {cap}");
    }
}

/// Bytes of memory that a process has in use.
fn resident(server: &Server) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim()
        .trim_end_matches(" kB")
        .parse::<usize>()
        .unwrap()
        * 1024
}

#[test]
fn p10_clients_that_do_not_read_fill_no_memory() {
    let site = TestSite::with(&[("long", &noise(LONG, 1))]);
    let mut server = Server::with(&site, &["--memory", "16MiB"]);
    let before = resident(&server);
    let mut clients: Vec<Client> = (0..64)
        .map(|_| Client::connect_narrow(server.address()))
        .collect();
    for client in &mut clients {
        client.send(head("GET", "/long", &[])).unwrap();
    }
    for client in &mut clients {
        assert_eq!(client.receive_head().unwrap().unwrap().status, 200);
        client.read_some(10_000).unwrap();
    }
    let grown = resident(&server).saturating_sub(before);
    // Some buffers each, not what was asked for.
    assert!(grown < 128 << 20, "{} MiB for 64 clients", grown >> 20);
    server.assert_alive();
}

#[test]
fn p10_a_budget_smaller_than_the_site_serves_the_site() {
    let files: Vec<(String, Vec<u8>)> = (0..60)
        .map(|n| (format!("f{n}"), noise(100_000, n)))
        .collect();
    let site = files.iter().fold(TestSite::new(), |site, (name, content)| {
        site.file(name, content)
    });
    let server = Server::with(&site, &["--memory", "1MiB"]);
    let mut client = server.client();
    for (name, content) in files.iter().chain(&files) {
        let response = client.get(&format!("/{name}"));
        assert!(
            response.status == 200 && response.body == *content,
            "{name}"
        );
    }
}
