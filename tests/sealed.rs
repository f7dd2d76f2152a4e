//! Content of files in sealed memory: which requests get it, that it is the content which the tag
//! names, and that clients which don't take it hold no more than others.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use support::lines::Lines;
use support::tree::{eventually, stays};
use support::wire::head;
use support::{Client, Server, TestSite, noise, tag};

/// Not kept in memory: of one group each, of two, and of many.
const LENGTHS: [(&str, usize); 4] = [
    ("/whole", (128 << 10) + 1),
    ("/most", 1 << 20),
    ("/groups", (1 << 20) + 77),
    ("/pieces", (17 << 20) + 5),
];

/// Of a server that a test need not wait for to cut a client.
const CUTS_SOON: [&str; 4] = ["--write-timeout", "1s", "--admin", "127.0.0.1:0"];

fn content(length: usize) -> Vec<u8> {
    noise(length, length as u64)
}

fn site() -> TestSite {
    LENGTHS
        .iter()
        .fold(TestSite::new(), |site, (target, length)| {
            site.file(&target[1..], content(*length))
        })
}

fn metric(server: &Server, name: &str) -> u64 {
    let metrics = Client::connect(server.admin()).get("/metrics").body;
    let metrics = String::from_utf8(metrics).unwrap();
    let mut lines = metrics.lines();
    let number = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    number.unwrap().parse().unwrap()
}

fn by_front(server: &Server) -> u64 {
    metric(server, "etagd_front_requests_total")
}

#[test]
fn what_is_asked_for_again_is_sent_from_sealed_memory() {
    let site = site();
    let server = Server::with(&site, &["--admin", "127.0.0.1:0", "--memory", "256MiB"]);
    let mut expected = 0;
    for (target, length) in LENGTHS {
        let content = content(length);
        assert_eq!(server.client().get(target).status, 200);
        assert_eq!(by_front(&server), expected, "{target}: asked for once");
        let mut client = server.client();
        for _ in 0..3 {
            let response = client.get(target);
            assert!(!response.cut && response.body == content, "{target}");
            assert_eq!(response.field("ETag"), Some(tag(&content).as_str()));
        }
        let part = client.request("GET", target, &[("Range", "bytes=7-99999")]);
        assert_eq!(part.status, 206);
        assert!(part.body == content[7..=99_999], "{target}");
        let last = client.request("GET", target, &[("Range", "bytes=-9")]);
        assert!(last.body == content[length - 9..], "{target}");
        assert_eq!(client.request("HEAD", target, &[]).body, b"");
        assert_eq!(client.get(target).body.len(), length);
        expected += 7;
        assert_eq!(by_front(&server), expected, "{target}: all by the front");
    }
}

#[test]
fn pipelined_requests_come_in_their_order() {
    let site = site();
    let server = Server::with(&site, &["--admin", "127.0.0.1:0"]);
    assert_eq!(server.client().get("/groups").status, 200);
    let mut client = server.client();
    let request = head("GET", "/groups", &[]) + &head("GET", "/nowhere", &[]);
    client.send(request.repeat(5)).unwrap();
    let content = content(LENGTHS[2].1);
    for _ in 0..5 {
        assert!(client.receive("GET").unwrap().unwrap().body == content);
        assert_eq!(client.receive("GET").unwrap().unwrap().status, 404);
    }
    assert_eq!(by_front(&server), 10);
}

#[test]
fn p2_what_is_published_next_is_sent_next() {
    let site = site();
    let server = Server::with(&site, &["--admin", "127.0.0.1:0"]);
    assert_eq!(server.client().get("/groups").status, 200);
    let mut client = server.client();
    assert_eq!(client.get("/groups").status, 200);
    for seed in 1..6 {
        let new = noise(LENGTHS[2].1, 1000 + seed);
        std::fs::write(site.path("groups"), &new).unwrap();
        eventually("the new content", || {
            let response = client.get("/groups");
            assert!(response.is_what_its_tag_says() && !response.cut);
            response.body == new
        });
    }
}

#[test]
fn a_client_that_leaves_is_logged_as_one() {
    let site = site();
    let flags = ["--access-log", "json", "--admin", "127.0.0.1:0"];
    let (server, out) = Server::logging(&site, &flags);
    let lines = Lines::of(out);
    assert_eq!(server.client().get("/pieces").status, 200);
    assert_eq!(lines.next_json()["door"], "http1");
    assert_eq!(server.client().get("/pieces").status, 200);
    let whole = lines.next_json();
    assert_eq!(
        (&whole["door"], &whole["cut"]),
        (&"front".into(), &false.into())
    );
    assert_eq!(whole["bytes"], LENGTHS[3].1);
    let mut client = Client::connect_narrow(server.address());
    client.send(head("GET", "/pieces", &[])).unwrap();
    assert_eq!(client.receive_head().unwrap().unwrap().status, 200);
    assert!(metric(&server, "etagd_memory_pinned_bytes") > 0);
    drop(client);
    let cut = lines.next_json();
    assert_eq!((&cut["door"], &cut["cut"]), (&"front".into(), &true.into()));
    assert!(cut["bytes"].as_u64().unwrap() < LENGTHS[3].1 as u64);
    assert_eq!(metric(&server, "etagd_memory_pinned_bytes"), 0);
}

/// A client that has asked for a file above 1 MiB, taken the head, and takes little at a time.
fn slow_client(server: &Server, target: &str, connect: fn(SocketAddr) -> Client) -> Client {
    assert_eq!(server.client().get(target).status, 200);
    let before = by_front(server);
    let mut client = connect(server.address());
    client.send(head("GET", target, &[])).unwrap();
    assert_eq!(client.receive_head().unwrap().unwrap().status, 200);
    eventually("it is sent from sealed memory", || {
        by_front(server) > before
    });
    client
}

#[test]
fn p10_a_client_that_takes_nothing_is_cut() {
    let site = site();
    let server = Server::with(&site, &CUTS_SOON);
    let client = slow_client(&server, "/pieces", Client::connect_narrow);
    assert!(metric(&server, "etagd_memory_pinned_bytes") > 0);
    eventually("it is cut", || {
        metric(&server, "etagd_memory_pinned_bytes") == 0
    });
    assert_eq!(
        metric(&server, "etagd_cut_responses_total{reason=\"connection\"}"),
        1
    );
    assert_is_reset(&client);
}

/// The kernel has taken all of it, and does not keep it for longer either.
#[test]
fn p10_a_client_that_takes_nothing_of_what_the_kernel_holds_is_cut() {
    let site = site();
    let server = Server::with(&site, &CUTS_SOON);
    let client = slow_client(&server, "/groups", Client::connect_narrow);
    eventually("it is cut", || metric(&server, "etagd_connections") == 0);
    assert_is_reset(&client);
}

#[test]
fn p10_a_client_that_takes_nothing_and_asks_for_more_is_cut() {
    let site = site();
    let server = Server::with(&site, &CUTS_SOON);
    let mut client = slow_client(&server, "/groups", Client::connect_narrow);
    let since = Instant::now();
    while client.send(head("HEAD", "/groups", &[])).is_ok() {
        assert!(since.elapsed() < Duration::from_secs(20), "it is open");
        // The pace of the client.
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Sealed memory alone has the kernel hold much.
#[test]
fn a_client_that_has_taken_all_of_many_responses_is_no_slow_one() {
    let copied = noise(100 << 10, 1);
    let site = site().file("copied", &copied);
    let server = Server::with(&site, &CUTS_SOON);
    assert_eq!(server.client().get("/groups").status, 200);
    let mut client = server.client();
    assert_eq!(client.get("/groups").status, 200);
    // Until the socket is full, and the next request is not answered: what is left is little, and sent while the
    // kernel still holds much.
    let mut count = 0;
    loop {
        let before = by_front(&server);
        client.send(head("GET", "/copied", &[])).unwrap();
        count += 1;
        let since = Instant::now();
        while by_front(&server) == before && since.elapsed() < Duration::from_millis(300) {}
        if by_front(&server) == before {
            break;
        }
    }
    for number in 0..count {
        let response = client.receive("GET").unwrap().unwrap();
        assert!(!response.cut && response.body == copied, "{number}");
    }
    stays(Duration::from_secs(2), "it is open", || {
        metric(&server, "etagd_connections") == 1
    });
    assert_eq!(client.get("/copied").status, 200);
}

/// Asserts that the connection has ended, and that what was not read was given up.
#[track_caller]
fn assert_is_reset(client: &Client) {
    let end = client.socket().read_to_end(&mut Vec::new());
    assert_eq!(
        end.map_err(|error| error.kind()),
        Err(ErrorKind::ConnectionReset)
    );
}

#[test]
fn p9_a_drain_waits_for_what_the_kernel_holds() {
    let flags = [
        "--drain",
        "100ms",
        "--grace",
        "60s",
        "--admin",
        "127.0.0.1:0",
    ];
    let site = site();
    let mut server = Server::with(&site, &flags);
    let mut client = slow_client(&server, "/groups", Client::connect_narrow);
    server.signal(Signal::TERM);
    server.wait_for_line("draining");
    // Longer than a connection has to close that waits for nothing.
    let admin = server.admin();
    stays(Duration::from_secs(2), "it drains", || {
        Client::try_connect(admin).is_ok()
    });
    let (content, mut body) = (content(LENGTHS[2].1), Vec::new());
    while body.len() < content.len() {
        let some = client.read_some(content.len() - body.len()).unwrap();
        assert!(!some.is_empty(), "it ends after {}", body.len());
        body.extend(some);
    }
    assert!(body == content);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_slow_client_gets_all_of_it() {
    let flags = ["--idle-timeout", "1s", "--header-timeout", "1s"];
    let pause = Duration::from_millis(50);
    assert_gets_all_of_it(&flags, &LENGTHS[3], Client::connect_narrow, pause);
}

#[test]
fn a_slow_client_is_not_idle_while_the_kernel_holds_all_of_it() {
    let flags = ["--idle-timeout", "1s", "--header-timeout", "1s"];
    let pause = Duration::from_millis(100);
    assert_gets_all_of_it(&flags, &LENGTHS[2], Client::connect_narrow, pause);
}

/// The kernel takes megabytes for it, and no more while the client reads the first of them.
#[test]
fn a_slow_client_with_large_buffers_gets_all_of_it() {
    let pause = Duration::from_millis(200);
    assert_gets_all_of_it(
        &["--write-timeout", "2s"],
        &LENGTHS[3],
        Client::connect,
        pause,
    );
}

/// Has a client read the first megabyte with this pause before each 32 KiB of it.
fn assert_gets_all_of_it(
    flags: &[&str],
    (target, length): &(&str, usize),
    connect: fn(SocketAddr) -> Client,
    pause: Duration,
) {
    let site = site();
    let server = Server::with(&site, &[flags, &["--admin", "127.0.0.1:0"]].concat());
    let mut client = slow_client(&server, target, connect);
    let (content, mut body) = (content(*length), Vec::new());
    while body.len() < content.len() {
        if body.len() < 1 << 20 {
            // The pace of the client: nothing that could be waited for instead.
            std::thread::sleep(pause);
        }
        let some = client
            .read_some((content.len() - body.len()).min(32 << 10))
            .unwrap();
        assert!(!some.is_empty(), "it ends after {}", body.len());
        body.extend(some);
    }
    assert!(body == content);
    assert_eq!(client.get("/whole").status, 200, "it is open");
}
