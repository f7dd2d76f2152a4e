//! RFC 9112 section 9: what one connection can carry, one after another.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::thread;

use support::wire::head;
use support::{Client, Server, TestSite, exchange, noise, tag};

const FILES: [(&str, usize); 3] = [("/small", 900), ("/middle", 300_000), ("/big", 2_000_000)];

fn serve() -> (TestSite, Server) {
    let site = FILES.iter().fold(TestSite::new(), |site, (file, size)| {
        site.file(&file[1..], noise(*size, 1))
    });
    let server = Server::start(&site);
    (site, server)
}

#[test]
fn a_connection_carries_a_thousand_requests() {
    let (_site, server) = serve();
    let mut client = server.client();
    let small = noise(900, 1);
    for _ in 0..500 {
        assert_eq!(client.get("/small").body, small);
        let not_modified = client.request("GET", "/big", &[("If-None-Match", "*")]);
        assert_eq!(not_modified.status, 304);
    }
}

#[test]
fn requests_in_one_packet_are_answered_in_their_order() {
    let (_site, server) = serve();
    let none_match = tag(&noise(900, 1));
    let requests = [
        head("GET", "/small", &[]),
        head("HEAD", "/big", &[]),
        head("GET", "/small", &[("If-None-Match", &none_match)]),
        head("GET", "/middle", &[("Range", "bytes=5-9")]),
        head("OPTIONS", "/", &[]),
        head("GET", "/big", &[]),
        head("POST", "/small", &[]),
        head("GET", "/nowhere", &[]),
        head("GET", "/%00", &[]),
        head("GET", "/middle", &[("Range", "bytes=0-9,99-109")]),
        head("GET", "/middle", &[("If-Match", "\"x\"")]),
        head("GET", "/middle", &[]),
    ];
    let responses = exchange(server.address(), requests.concat());
    let statuses: Vec<_> = responses.iter().map(|response| response.status).collect();
    assert_eq!(
        statuses,
        [200, 200, 304, 206, 204, 200, 405, 404, 400, 206, 412, 200]
    );
    assert!(responses[5].is_what_its_tag_says() && responses[11].is_what_its_tag_says());
    assert_eq!(responses[3].body, noise(300_000, 1)[5..=9]);
}

#[test]
fn fifty_requests_for_large_files_in_one_packet() {
    let (_site, server) = serve();
    let requests = head("GET", "/middle", &[]).repeat(50);
    let responses = exchange(server.address(), requests);
    assert_eq!(responses.len(), 50);
    assert!(
        responses
            .iter()
            .all(|response| response.is_what_its_tag_says() && !response.cut)
    );
}

#[test]
fn what_follows_connection_close_is_not_read() {
    let (_site, server) = serve();
    let mut client = server.client();
    let requests = head("GET", "/small", &[("Connection", "close")]) + &head("GET", "/big", &[]);
    client.send(requests).unwrap();
    assert!(
        client
            .receive("GET")
            .unwrap()
            .unwrap()
            .is_what_its_tag_says()
    );
    assert!(client.ends().unwrap());
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let (_site, server) = serve();
    let mut client = server.client();
    for _ in 0..2 {
        for byte in head("GET", "/small", &[("Range", "bytes=0-9")]).into_bytes() {
            client.send([byte]).unwrap();
        }
        let response = client.receive("GET").unwrap().unwrap();
        assert_eq!(
            (response.status, response.body),
            (206, noise(900, 1)[..10].to_vec())
        );
    }
}

#[test]
fn a_request_body_is_discarded_or_ends_the_connection() {
    let (_site, server) = serve();
    for length in [1, 1000, 70_000, 3_000_000] {
        let mut client = server.client();
        let length_field = length.to_string();
        client
            .send(head("GET", "/small", &[("Content-Length", &length_field)]))
            .unwrap();
        // What looks like a request in a body is none.
        let body = head("GET", "/big", &[])
            .repeat(length / 30 + 1)
            .into_bytes();
        let _ = client.send(&body[..length]);
        let response = client.receive("GET").unwrap().expect("a response");
        assert!(
            response.is_what_its_tag_says(),
            "with a body of {length} bytes"
        );
        let _ = client.send(head("GET", "/middle", &[("Connection", "close")]));
        // In sync, or at its end.
        if let Some(next) = client.receive("GET").unwrap() {
            assert_eq!(
                next.field("ETag"),
                Some(tag(&noise(300_000, 1)).as_str()),
                "{length}"
            );
        }
    }
}

#[test]
fn a_request_body_that_never_arrives_delays_nothing() {
    let (_site, server) = serve();
    for expect in [&[][..], &[("Expect", "100-continue")]] {
        let mut client = server.client();
        let fields = [&[("Content-Length", "10")], expect].concat();
        client.send(head("GET", "/small", &fields)).unwrap();
        let response = client.receive("GET").unwrap().expect("a response");
        assert!(response.is_what_its_tag_says(), "{expect:?}");
    }
}

#[test]
fn a_body_may_wait_for_100() {
    let (_site, server) = serve();
    let mut client = server.client();
    let fields = [("Content-Length", "4"), ("Expect", "100-continue")];
    client.send(head("GET", "/small", &fields)).unwrap();
    let response = client.receive("GET").unwrap().expect("a response");
    assert_eq!(response.status, 200);
    assert!(
        response.interim.iter().all(|&status| status == 100),
        "{:?}",
        response.interim
    );
    if !response.interim.is_empty() {
        client.send("body").unwrap();
        assert_eq!(client.get("/small").status, 200);
    }
}

#[test]
fn a_client_that_closes_its_sending_half_gets_its_response() {
    let (_site, server) = serve();
    for (file, _) in FILES {
        let mut client = server.client();
        client.send(head("GET", file, &[])).unwrap();
        client.socket().shutdown(std::net::Shutdown::Write).unwrap();
        let response = client.receive("GET").unwrap().expect("a response");
        assert!(response.is_what_its_tag_says() && !response.cut, "{file}");
        assert!(client.ends().unwrap());
    }
}

#[test]
fn many_clients_at_once_get_what_each_asked_for() {
    let (_site, server) = serve();
    thread::scope(|scope| {
        for n in 0..24 {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.client();
                for round in 0..20 {
                    let (file, size) = FILES[(n + round) % FILES.len()];
                    let response = client.get(file);
                    assert!(response.body == noise(size, 1), "{file}");
                }
            });
        }
    });
}

#[test]
fn a_slow_reader_delays_nobody() {
    let site = TestSite::with(&[("long", &noise(16 << 20, 1)), ("short", b"short")]);
    let server = Server::with(&site, &["--workers", "1"]);
    let mut slow: Vec<Client> = (0..40)
        .map(|_| Client::connect_narrow(server.address()))
        .collect();
    for client in &mut slow {
        client.send(head("GET", "/long", &[])).unwrap();
        assert_eq!(client.receive_head().unwrap().unwrap().status, 200);
    }
    let mut client = server.client();
    for _ in 0..50 {
        assert_eq!(client.get("/short").body, b"short");
    }
    let response = client.request("GET", "/long", &[("Range", "bytes=-5")]);
    assert_eq!((response.status, response.body.len()), (206, 5));
}
