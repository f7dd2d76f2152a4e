//! The front: which requests it answers, that hyper gets all others as they came, that it goes on
//! after them, and that a connection keeps its limits and its order in both.
//!
//! `tests/requests.rs` asks all cases of both and compares what they say.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::ErrorKind;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use support::check::REVALIDATE;
use support::lines::Lines;
use support::tree::eventually;
use support::wire::head;
use support::{Client, Response, Server, TestSite, noise, tag};

/// Kept in memory, and larger than what the kernel takes in for a client that does not read.
const SHORT: usize = 100 << 10;
/// Not kept in memory.
const LONG: usize = 300 << 10;

/// Method, target, fields, and the status of the answer.
type Asked<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], u16);

fn site() -> TestSite {
    TestSite::new()
        .file("short", noise(SHORT, 1))
        .file("long", noise(LONG, 2))
        .file("index.html", "<!doctype html>home")
        .file("empty", "")
}

fn serve(flags: &[&str]) -> (TestSite, Server) {
    let site = site();
    let server = Server::with(&site, &[&["--admin", "127.0.0.1:0"], flags].concat());
    (site, server)
}

/// How many requests the front has answered.
fn answered_by_front(server: &Server) -> u64 {
    let metrics = Client::connect(server.admin()).get("/metrics").body;
    let metrics = String::from_utf8(metrics).unwrap();
    let mut lines = metrics.lines();
    let number = lines.find_map(|line| line.strip_prefix("etagd_front_requests_total "));
    number.unwrap().parse().unwrap()
}

/// What hyper answers to a request: it comes with another that is not for the front.
fn ask_hyper(client: &mut Client, request: &str) -> Response {
    client.send(head("OPTIONS", "*", &[]) + request).unwrap();
    assert_eq!(client.receive("OPTIONS").unwrap().unwrap().status, 204);
    let method = request.split(' ').next().unwrap();
    client.receive(method).unwrap().unwrap()
}

#[test]
fn it_answers_what_is_plain_and_in_memory() {
    let (_site, server) = serve(&[]);
    let short = tag(&noise(SHORT, 1));
    let asked: &[Asked<'_>] = &[
        ("GET", "/short", &[], 200),
        ("HEAD", "/short", &[], 200),
        ("HEAD", "/long", &[], 200),
        ("GET", "/empty", &[], 200),
        ("GET", "/short", &[("If-None-Match", &short)], 304),
        ("GET", "/long", &[("If-None-Match", "*")], 304),
        ("GET", "/short", &[("If-Match", "\"x\"")], 412),
        ("GET", "/short", &[("Range", "bytes=5-9")], 206),
        ("GET", "/short", &[("Range", "bytes=999999-")], 416),
        ("GET", "/nowhere", &[], 404),
        ("GET", "/index/../index.html", &[], 308),
        ("GET", "/?query", &[("Connection", "keep-alive")], 200),
    ];
    let mut client = server.client();
    for (number, (method, target, fields, status)) in asked.iter().enumerate() {
        let response = client.request(method, target, fields);
        assert_eq!(response.status, *status, "{method} {target}");
        assert_eq!(answered_by_front(&server), number as u64 + 1, "{target}");
    }
}

#[test]
fn what_it_does_not_take_is_hypers_and_what_comes_next_is_not() {
    let (_site, server) = serve(&[]);
    let asked: &[Asked<'_>] = &[
        ("OPTIONS", "/", &[], 204),
        ("POST", "/short", &[], 405),
        ("GET", "/long", &[], 200),
        ("GET", "/short", &[("Range", "bytes=0-1,5-6")], 206),
        ("GET", "/short", &[("Connection", "keep-alive, x")], 200),
        ("GET", "/short", &[("Upgrade", "h2c")], 200),
        ("GET", "/short", &[("Expect", "100-continue")], 200),
        ("GET", "/short", &[("Content-Length", "0")], 200),
        ("GET", "/%00", &[], 400),
        ("GET", "http://localhost/short", &[], 200),
    ];
    let mut expected = 0;
    for (method, target, fields, status) in asked {
        let mut client = server.client();
        assert_eq!(client.get("/short").status, 200);
        let response = client.request(method, target, fields);
        assert_eq!(response.status, *status, "{method} {target}");
        assert_eq!(client.get("/short").body, noise(SHORT, 1), "after {target}");
        let by_front = answered_by_front(&server);
        // hyper keeps what may become another protocol.
        let is_hypers = fields.iter().any(|(name, _)| *name == "Upgrade");
        expected += 2 - u64::from(is_hypers);
        assert_eq!(by_front, expected, "{method} {target}");
    }
}

#[test]
fn a_health_check_is_answered_by_its_layer() {
    let (_site, server) = serve(&["--health", "/healthz"]);
    let mut client = server.client();
    assert_eq!(client.get("/healthz").body, b"alive\n");
    assert_eq!(answered_by_front(&server), 0);
}

/// What is said of a request in the log, but for when and how quickly.
fn logged(lines: &Lines) -> serde_json::Value {
    let mut line = lines.next_json();
    let fields = line.as_object_mut().unwrap();
    for name in ["time", "microseconds", "door"] {
        fields.remove(name).unwrap();
    }
    line
}

#[test]
fn the_log_tells_no_difference() {
    let flags = ["--access-log", "json", "--trusted-proxy", "127.0.0.1"];
    let (server, out) = Server::logging(&site(), &flags);
    let lines = Lines::of(out);
    let (mut client, mut of_hyper) = (server.client(), server.client());
    let fields = [
        ("X-Forwarded-For", "203.0.113.9"),
        ("Referer", "http://localhost/"),
        ("User-Agent", "test"),
    ];
    let none_match = tag(&noise(SHORT, 1));
    let condition = ("If-None-Match", none_match.as_str());
    for (method, target, last) in [
        ("GET", "/short?query", None),
        ("HEAD", "/long", None),
        ("GET", "/short", Some(condition)),
        ("GET", "/short", Some(("Range", "bytes=-7"))),
        ("GET", "/nowhere", None),
    ] {
        let fields = [&fields[..], last.as_slice()].concat();
        client.request(method, target, &fields);
        let front = logged(&lines);
        ask_hyper(&mut of_hyper, &head(method, target, &fields));
        assert_eq!(logged(&lines)["method"], "OPTIONS");
        let hyper = logged(&lines);
        assert_eq!(front, hyper, "{method} {target}");
        assert_eq!(front["client"], "203.0.113.9");
    }
}

/// Many requests of both kinds for one connection, and the status of each.
fn mixed(number: usize) -> (String, Vec<u16>) {
    let mut requests = String::new();
    let mut statuses = Vec::new();
    for index in 0..number {
        let (target, fields, status): (_, &[_], _) = match index % 5 {
            0 => ("/short", &[], 200),
            1 | 2 => ("/short", &[("If-None-Match", "*")], 304),
            3 => ("/nowhere", &[], 404),
            _ => ("/empty", &[], 200),
        };
        requests += &head("GET", target, fields);
        statuses.push(status);
    }
    (requests, statuses)
}

fn assert_statuses(client: &mut Client, statuses: &[u16]) {
    for status in statuses {
        let response = client.receive("GET").unwrap().unwrap();
        assert_eq!((response.status, response.cut), (*status, false));
        if response.status == 200 && !response.body.is_empty() {
            assert!(response.is_what_its_tag_says());
        }
    }
}

#[test]
fn what_comes_at_once_is_answered_in_its_order_whoever_answers() {
    let (_site, server) = serve(&[]);
    let (requests, statuses) = mixed(100);
    let mut client = server.client();
    client.send(&requests).unwrap();
    assert_statuses(&mut client, &statuses);
    assert_eq!(answered_by_front(&server), 100);
    // Something for hyper in the middle.
    let between = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nGET";
    client
        .send([&requests, between, &requests].concat())
        .unwrap();
    assert_statuses(&mut client, &statuses);
    assert_eq!(client.receive("POST").unwrap().unwrap().status, 405);
    assert_statuses(&mut client, &statuses);
    // Those behind it are hyper's as far as they have come with it.
    let by_front = answered_by_front(&server);
    assert!((200..300).contains(&by_front), "{by_front}");
}

#[test]
fn a_client_that_has_nothing_more_to_send_gets_its_answers() {
    let (_site, server) = serve(&[]);
    let (requests, statuses) = mixed(50);
    let mut client = server.client();
    client.send(requests).unwrap();
    client.socket().shutdown(Shutdown::Write).unwrap();
    assert_statuses(&mut client, &statuses);
    assert!(client.ends().unwrap());
}

#[test]
fn half_a_request_is_no_request() {
    let (_site, server) = serve(&[]);
    let mut client = server.client();
    client
        .send(head("GET", "/empty", &[]) + "GET /short HTTP/1.1\r\nHost: localhost\r\n")
        .unwrap();
    client.socket().shutdown(Shutdown::Write).unwrap();
    assert_statuses(&mut client, &[200]);
    assert!(client.ends().unwrap());
    assert_eq!(answered_by_front(&server), 1);
}

#[test]
fn a_slow_reader_gets_all_and_nothing_is_read_from_it_meanwhile() {
    // Shorter than the time that the reader takes: what it has sent must not count as late.
    let (_site, server) = serve(&["--header-timeout", "1s", "--idle-timeout", "1s"]);
    let mut client = Client::connect_narrow(server.address());
    let requests = head("GET", "/short", &[]).repeat(4);
    // The beginning of another one.
    client.send(requests + "GET /em").unwrap();
    let since = Instant::now();
    let content = noise(SHORT, 1);
    for number in 0..4 {
        let response = client.receive_head().unwrap().unwrap();
        assert_eq!(response.status, 200);
        let mut body = Vec::new();
        while body.len() < SHORT {
            // The pace of the reader: nothing that could be waited for instead.
            std::thread::sleep(Duration::from_millis(100));
            let some = client
                .read_some((SHORT - body.len()).min(12 << 10))
                .unwrap();
            assert!(!some.is_empty(), "response {number} ends");
            body.extend(some);
        }
        assert!(body == content, "response {number}");
    }
    assert!(since.elapsed() > Duration::from_secs(2));
    client
        .send("pty HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    assert_statuses(&mut client, &[200]);
    assert_eq!(answered_by_front(&server), 5);
}

#[test]
fn p10_a_client_that_takes_nothing_is_cut() {
    let (_site, server) = serve(&["--write-timeout", "1s"]);
    let mut client = Client::connect_narrow(server.address());
    client
        .socket()
        .set_write_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    // More than all buffers on the way hold: the server stops to read, and then ends it.
    let request = head("GET", "/short", &[]);
    let since = Instant::now();
    loop {
        match client.send(request.repeat(100)) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
        assert!(since.elapsed() < Duration::from_secs(20), "it goes on");
    }
    let took = since.elapsed();
    assert!(took > Duration::from_millis(500), "it took {took:?}");
}

#[test]
fn a_client_that_sends_much_at_once_does_not_starve_another() {
    let (_site, server) = serve(&["--workers", "1"]);
    let request = head("GET", "/short", &[("If-None-Match", "*")]);
    let mut greedy = server.client();
    let mut reader = greedy.socket().try_clone().unwrap();
    let ends = std::thread::spawn(move || {
        let mut sink = std::io::sink();
        std::io::copy(&mut reader, &mut sink)
    });
    let flood = std::thread::spawn(move || {
        for _ in 0..200 {
            greedy.send(request.repeat(200)).unwrap();
        }
        greedy.socket().shutdown(Shutdown::Write).unwrap();
        greedy
    });
    let mut other = server.client();
    let mut answered = 0;
    while !flood.is_finished() || answered < 10 {
        assert_eq!(other.get("/empty").status, 200);
        answered += 1;
    }
    let _open = flood.join().unwrap();
    ends.join().unwrap().unwrap();
    assert!(answered >= 10, "{answered}");
}

#[test]
fn prepared_heads_follow_what_is_published() {
    let (site, server) = serve(&[]);
    let mut client = server.client();
    let cached = |response: &Response| {
        let field = |name| response.field(name).map(str::to_owned);
        [field("ETag"), field("Cache-Control"), field("X-Test")]
    };
    let ask = |client: &mut Client| {
        let not_modified = client.request("GET", "/empty", &[("If-None-Match", "*")]);
        assert_eq!(not_modified.status, 304);
        (cached(&not_modified), cached(&client.get("/empty")))
    };
    let assert_both = |client: &mut Client, tag: &str, cache_control, test: Option<&str>| {
        let fields = [Some(tag), Some(cache_control), test].map(|value| value.map(str::to_owned));
        // Made, and then from memory.
        for _ in 0..2 {
            assert_eq!(ask(client), (fields.clone(), fields.clone()));
        }
    };
    assert_both(&mut client, &tag(b""), REVALIDATE, None);
    let rules = "/empty\n X-Test: ruled\n Cache-Control: max-age=7\n";
    std::fs::write(site.path("_headers"), rules).unwrap();
    eventually("the rule applies", || ask(&mut client).1[2].is_some());
    assert_both(&mut client, &tag(b""), "max-age=7", Some("ruled"));
    std::fs::write(site.path("empty"), "full").unwrap();
    eventually("the change is published", || {
        client.get("/empty").body == b"full"
    });
    assert_both(&mut client, &tag(b"full"), "max-age=7", Some("ruled"));
    std::fs::remove_file(site.path("_headers")).unwrap();
    eventually("the rule is gone", || ask(&mut client).1[2].is_none());
    assert_both(&mut client, &tag(b"full"), REVALIDATE, None);
}
