//! Clients that mean no good, or can't do better: what they may use up is bounded, and the
//! others are answered meanwhile. The limits that every client knows are in
//! `promises/bounded.rs`; the framing of HTTP/1.1 is in `cases/framing.txt`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/http2.rs"]
mod http2;
mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use http2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, INITIAL_WINDOW_SIZE,
    PING, PREFACE, RST_STREAM, SETTINGS, frame, get, literal, request, settings, window_update,
};
use support::server::with_descriptors;
use support::tree::eventually;
use support::wire::{PATIENCE, head};
use support::{Client, Response, Server, TestSite, exchange, noise};

const SECOND: Duration = Duration::from_secs(1);

fn site() -> TestSite {
    TestSite::with(&[
        ("small", b"small"),
        ("middle", &noise(120 << 10, 1)),
        ("big", &noise(3 << 20, 2)),
    ])
}

/// Bytes of memory that a process has in use.
fn resident(server: &Server) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes * 1024
}

/// Lets time pass at the pace of a client that has nothing to read: until a frame comes, the
/// connection ends (false) or the time is over (true).
fn pass(client: &mut Http2, time: Duration) -> bool {
    client.socket().set_read_timeout(Some(time)).unwrap();
    let mut byte = [0];
    let result = client.socket().peek(&mut byte);
    client.socket().set_read_timeout(Some(PATIENCE)).unwrap();
    match result {
        Ok(0) => false,
        Ok(_) => true,
        Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

// --- Time over HTTP/2 ------------------------------------------------------------------------

#[test]
fn p10_a_window_that_stays_shut_is_a_client_that_does_not_read() {
    let site = site();
    let server = Server::with(&site, &["--write-timeout", "1s"]);
    let mut client = Http2::connect(server.address(), &[(INITIAL_WINDOW_SIZE, 0)]);
    for stream in [1, 3, 5] {
        client.send(request(stream, "/big")).unwrap();
    }
    let since = Instant::now();
    // It keeps the connection busy meanwhile.
    while client.send(frame(PING, 0, 0, &[7; 8])).is_ok() {
        if client.wait_for(|frame| frame.kind == PING).is_none() || !pass(&mut client, SECOND / 20)
        {
            break;
        }
        assert!(since.elapsed() < 8 * SECOND, "it is still connected");
    }
    assert!(since.elapsed() > SECOND / 2, "{:?}", since.elapsed());
}

#[test]
fn p10_a_window_that_opens_slowly_is_a_client_that_reads() {
    let site = site();
    let times = ["--write-timeout", "2s", "--idle-timeout", "2s"];
    let server = Server::with(&site, &times);
    for target in ["/middle", "/big"] {
        let length = fs::metadata(site.path(&target[1..])).unwrap().len() as usize;
        let mut client = Http2::connect(server.address(), &[(INITIAL_WINDOW_SIZE, 1 << 10)]);
        client.send(window_update(0, 1 << 24)).unwrap();
        client.send(request(1, target)).unwrap();
        let since = Instant::now();
        let mut received = 0;
        while received < length {
            let frame = client.receive().unwrap_or_else(|| {
                panic!(
                    "{target} is cut after {received} bytes, {:?}",
                    since.elapsed()
                )
            });
            assert_ne!(frame.kind, GOAWAY, "{target} {:?}", since.elapsed());
            if frame.kind == DATA {
                received += frame.payload.len();
                // Far slower at first than the limits would allow the whole to be.
                let step = if since.elapsed() < 5 * SECOND {
                    pass(&mut client, SECOND / 4);
                    1 << 10
                } else {
                    1 << 20
                };
                client.send(window_update(1, step)).unwrap();
            }
        }
    }
}

#[test]
fn p10_a_preface_in_pieces_is_still_http2() {
    let site = site();
    let server = Server::with(&site, &["--header-timeout", "1s"]);
    let mut client = Http2::connect_raw(server.address());
    for byte in PREFACE {
        client.send([*byte]).unwrap();
        // The server reads each by itself, or not; both must do.
        client
            .socket()
            .set_read_timeout(Some(SECOND / 500))
            .unwrap();
        let _ = client.socket().peek(&mut [0]);
    }
    client.send(settings(&[])).unwrap();
    client.assert_answers(1, "/small");
    let since = Instant::now();
    while since.elapsed() < 2 * SECOND {
        client.send(frame(PING, 0, 0, &[7; 8])).unwrap();
        client
            .wait_for(|frame| frame.kind == PING)
            .expect("an open connection");
        pass(&mut client, SECOND / 5);
    }
    client.assert_answers(3, "/small");
}

#[test]
fn p10_a_preface_that_does_not_come_to_its_end_is_a_head_that_does_not() {
    let site = site();
    let server = Server::with(&site, &["--header-timeout", "1s", "--idle-timeout", "60s"]);
    for begun in [&PREFACE[..3], &PREFACE[..20], b"PRI * HTTP/2.0\r\nX: y\r\n"] {
        let since = Instant::now();
        let mut client = Client::connect(server.address());
        client.send(begun).unwrap();
        let _ = client.receive("PRI");
        assert!(client.ends().unwrap());
        assert!(since.elapsed() < 8 * SECOND);
    }
}

/// RFC 9113 section 3.4: within a connection the preface is no request.
#[test]
fn http2_begins_at_the_beginning_of_a_connection_alone() {
    let site = site();
    let mut server = Server::with(&site, &[]);
    let http2 = [PREFACE, &settings(&[]), &request(1, "/big")].concat();
    // Answered by the front, and by hyper.
    for fields in [&[][..], &[("Connection", "keep-alive, x")]] {
        let before = head("GET", "/small", fields);
        let mut client = Client::connect(server.address());
        client.send([before.as_bytes(), &http2].concat()).unwrap();
        assert_eq!(client.receive("GET").unwrap().unwrap().body, b"small");
        let rest = client.read_some(1000).unwrap();
        let is_refused = rest.is_empty() || rest.starts_with(b"HTTP/1.1 4");
        assert!(is_refused, "{}", rest.escape_ascii());
    }
    server.assert_alive();
}

#[test]
fn p10_no_frame_but_a_request_keeps_a_connection() {
    let site = site();
    let server = Server::with(&site, &["--idle-timeout", "1s"]);
    let mut client = Http2::connect(server.address(), &[]);
    client.assert_answers(1, "/small");
    let since = Instant::now();
    loop {
        let _ = client.send(frame(PING, 0, 0, &[7; 8]));
        // Every frame that comes: an echo, the word to go, and the end.
        if client.wait_for(|frame| frame.kind == PING).is_none() {
            break;
        }
        assert!(since.elapsed() < 8 * SECOND, "kept by pings");
        pass(&mut client, SECOND / 20);
    }
    assert!(since.elapsed() > SECOND / 2);
}

// --- Floods over HTTP/2 ----------------------------------------------------------------------

/// Sends what `flood` makes of a count, as much as the connection takes. Whatever comes of it, the
/// server goes on answering others and grows little. Returns what the flooded connection said at
/// last: the code of a GOAWAY, if it was one.
fn flooded(times: u32, flood: impl Fn(u32) -> Vec<u8>) -> (Option<u32>, Server, TestSite) {
    let site = site();
    let mut server = Server::with(&site, &["--workers", "1"]);
    server.assert_alive();
    let before = resident(&server);
    let mut client = Http2::connect(server.address(), &[]);
    let mut reader = client.socket().try_clone().unwrap();
    // Somebody has to take what the server says in return.
    let answers = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = reader.read_to_end(&mut bytes);
        bytes
    });
    let mut other = server.client();
    for count in 0..times {
        if client.send(flood(count)).is_err() {
            break;
        }
        if count % (times / 4) == 0 {
            assert_eq!(other.get("/small").body, b"small", "while it is flooded");
        }
    }
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < 32 << 20, "{} MiB more", grown >> 20);
    let _ = client.socket().shutdown(std::net::Shutdown::Write);
    let answers = answers.join().unwrap();
    server.assert_alive();
    (goaway(&answers), server, site)
}

/// The code of the last GOAWAY among these frames.
fn goaway(mut bytes: &[u8]) -> Option<u32> {
    let mut code = None;
    while let Some((&[a, b, c, kind, ..], rest)) = bytes.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else {
            break;
        };
        if kind == GOAWAY {
            code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        bytes = rest;
    }
    code
}

/// RFC 9113 section 7.
const ENHANCE_YOUR_CALM: u32 = 0xb;

#[test]
fn p10_requests_that_are_taken_back_at_once() {
    let (_, server, _site) = flooded(400, |count| {
        (0..100)
            .flat_map(|n| {
                let stream = (count * 100 + n) * 2 + 1;
                let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
                [request(stream, "/big"), reset].concat()
            })
            .collect()
    });
    assert_eq!(server.client().get("/small").body, b"small");
}

/// Asserts that a flood has ended its own connection.
fn assert_ends_a_flood(flood: impl Fn(u32) -> Vec<u8>) {
    let site = site();
    let server = Server::with(&site, &["--workers", "1", "--admin", "127.0.0.1:0"]);
    let mut client = Http2::connect(server.address(), &[]);
    let mut reader = client.socket().try_clone().unwrap();
    let answers = std::thread::spawn(move || reader.read_to_end(&mut Vec::new()));
    let has_ended = (0..4_000).any(|count| client.send(flood(count)).is_err());
    assert!(has_ended, "a million frames are taken");
    let _ = answers.join().unwrap();
    let metrics = Client::connect(server.admin()).get("/metrics");
    let metrics = String::from_utf8(metrics.body).unwrap();
    assert!(
        metrics.contains("etagd_frame_floods_total 1\n"),
        "{metrics}"
    );
}

#[test]
fn p10_a_flood_of_settings_ends_its_connection() {
    let flood = settings(&[(INITIAL_WINDOW_SIZE, 65_535)]).repeat(250);
    assert_ends_a_flood(|_| flood.clone());
}

#[test]
fn p10_a_flood_of_window_updates_ends_its_connection() {
    assert_ends_a_flood(|_| window_update(0, 1).repeat(250));
}

#[test]
fn p10_a_flood_of_pings_ends_its_connection() {
    assert_ends_a_flood(|_| frame(PING, 0, 0, &[7; 8]).repeat(250));
}

#[test]
fn p10_a_flood_of_settings() {
    flooded(400, |_| {
        settings(&[(INITIAL_WINDOW_SIZE, 65_535)]).repeat(250)
    });
}

#[test]
fn p10_a_flood_of_pings() {
    flooded(400, |_| frame(PING, 0, 0, &[7; 8]).repeat(250));
}

#[test]
fn p10_a_flood_of_answers_to_no_ping_fills_no_log() {
    let (_, server, _site) = flooded(100, |_| frame(PING, ACK, 0, &[7; 8]).repeat(250));
    assert!(server.log().lines().count() < 20, "{}", server.log());
}

#[test]
fn p10_a_flood_of_answers_to_no_settings() {
    let (_, server, _site) = flooded(100, |_| frame(SETTINGS, ACK, 0, &[]).repeat(250));
    assert!(server.log().lines().count() < 20, "{}", server.log());
}

#[test]
fn p10_fields_that_never_end() {
    let (code, ..) = flooded(2000, |count| match count {
        0 => frame(HEADERS, END_STREAM, 1, &get("/small")),
        _ => frame(CONTINUATION, 0, 1, &literal("x-more", &"a".repeat(8000))),
    });
    assert_eq!(code, Some(ENHANCE_YOUR_CALM));
}

#[test]
fn p10_empty_frames_that_never_end() {
    let (code, ..) = flooded(400, |count| match count {
        0 => frame(HEADERS, END_STREAM, 1, &get("/small")),
        _ => frame(CONTINUATION, 0, 1, &[]).repeat(250),
    });
    assert_eq!(code, Some(ENHANCE_YOUR_CALM));
}

#[test]
fn p10_unsolicited_content() {
    flooded(400, |count| match count {
        0 => [
            frame(HEADERS, END_HEADERS, 1, &get("/small")),
            window_update(0, 1),
        ]
        .concat(),
        _ => frame(DATA, 0, 1, &[]).repeat(250),
    });
}

#[test]
fn p10_fields_beyond_the_limit_are_431_and_the_connection_goes_on() {
    let site = site();
    let server = Server::start(&site);
    let mut client = Http2::connect(server.address(), &[]);
    let long = [get("/small"), literal("x-long", &"a".repeat(15_000))].concat();
    let rest = literal("x-longer", &"a".repeat(10_000));
    client.send(frame(HEADERS, END_STREAM, 1, &long)).unwrap();
    client
        .send(frame(CONTINUATION, END_HEADERS, 1, &rest))
        .unwrap();
    let answer = client
        .wait_for(|frame| frame.stream == 1)
        .expect("an answer");
    assert_eq!((answer.kind, answer.status()), (HEADERS, 431), "{answer:?}");
    client.assert_answers(3, "/small");
}

#[test]
fn p10_streams_beyond_the_limit_are_refused() {
    const REFUSED_STREAM: u32 = 7;
    let site = site();
    let server = Server::start(&site);
    let mut client = Http2::connect(server.address(), &[(INITIAL_WINDOW_SIZE, 0)]);
    for n in 0..140 {
        client.send(request(2 * n + 1, "/big")).unwrap();
    }
    let refused = client
        .wait_for(|frame| frame.kind == RST_STREAM)
        .expect("a refusal, not the end of the connection");
    assert_eq!(refused.error_code(), REFUSED_STREAM);
    assert!(refused.stream > 2 * 100, "{}", refused.stream);
}

#[test]
fn p10_a_hundred_open_streams_pin_little() {
    let site = site();
    let mut server = Server::with(&site, &["--memory", "16MiB"]);
    server.assert_alive();
    let before = resident(&server);
    let mut clients: Vec<_> = (0..20)
        .map(|_| Http2::connect(server.address(), &[(INITIAL_WINDOW_SIZE, 0)]))
        .collect();
    for client in &mut clients {
        for n in 0..100 {
            client.send(request(2 * n + 1, "/big")).unwrap();
        }
        // In order, so that by then the others have been taken in.
        client.send(frame(PING, 0, 0, &[7; 8])).unwrap();
        client.wait_for(|frame| frame.kind == PING).unwrap();
    }
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < 128 << 20, "{} MiB for 2,000 streams", grown >> 20);
    server.assert_alive();
}

/// Requests for a large file by clients that take nothing, each with a long field.
fn pinned_by_long_fields(target: &str, field: &str) -> usize {
    const CONNECTIONS: usize = 20;
    let site = site();
    let mut server = Server::with(&site, &["--memory", "16MiB"]);
    server.assert_alive();
    let before = resident(&server);
    let long = literal(field, &"a".repeat(15_000));
    let mut clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| Http2::connect(server.address(), &[(INITIAL_WINDOW_SIZE, 0)]))
        .collect();
    for client in &mut clients {
        for n in 0..128 {
            let block = [get(target), long.clone()].concat();
            let head = frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &block);
            client.send(head).unwrap();
        }
        client.send(frame(PING, 0, 0, &[7; 8])).unwrap();
        client.wait_for(|frame| frame.kind == PING).unwrap();
    }
    let grown = resident(&server).saturating_sub(before);
    server.assert_alive();
    // What is cached is no connection's.
    grown.saturating_sub(16 << 20) / CONNECTIONS
}

#[test]
fn p10_fields_of_requests_that_wait_are_not_kept() {
    // Kept as they came, they would be two megabytes.
    for (target, field) in [
        ("/big", "x-long"),
        ("/big", "if-none-match"),
        ("/nothing", "x-long"),
    ] {
        let pinned = pinned_by_long_fields(target, field);
        assert!(pinned < 1 << 20, "{target}, {field}: {} kB", pinned >> 10);
    }
}

#[test]
fn p10_what_connections_pin_can_be_seen() {
    let site = site();
    let server = Server::with(&site, &["--admin", "127.0.0.1:0"]);
    let gauge = |name: &str| {
        let metrics = Client::connect(server.admin()).get("/metrics").body;
        let metrics = String::from_utf8(metrics).unwrap();
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse::<usize>().unwrap()
    };
    let pinned = || gauge("etagd_memory_pinned_bytes ");
    let waiting = || gauge("etagd_waiting_requests_bytes ");
    assert_eq!((pinned(), waiting()), (0, 0));
    // Eight of one connection are read at once: the others wait with their conditions. Each keeps
    // its target, Host, and the tag that it asks for.
    let tag = format!("\"{}\"", "x".repeat(500));
    let mut clients: Vec<_> = (0..3)
        .map(|_| Http2::connect(server.address(), &[(INITIAL_WINDOW_SIZE, 0)]))
        .collect();
    for client in &mut clients {
        for n in 0..100 {
            let block = [get("/big"), literal("if-none-match", &tag)].concat();
            let flags = END_STREAM | END_HEADERS;
            client
                .send(frame(HEADERS, flags, 2 * n + 1, &block))
                .unwrap();
        }
    }
    let all = 3 * 92 * (tag.len() + "if-none-match".len());
    eventually("all wait", || waiting() >= all);
    let most = 3 * 92 * (tag.len() + 100);
    assert!(waiting() < most, "{} of {most}", waiting());
    eventually("eight of each connection are read", || {
        pinned() >= 3 * 8 * (256 << 10)
    });
    drop(clients);
    eventually("nothing is pinned", || (pinned(), waiting()) == (0, 0));
}

#[test]
fn p10_clients_that_take_nothing_leave_memory_for_others() {
    let content = noise(64 << 20, 9);
    let names: Vec<String> = (0..4).map(|index| format!("{index}.bin")).collect();
    let contents: Vec<Vec<u8>> = (0..4).map(|index| noise(1 << 20, index)).collect();
    let mut files: Vec<_> = names
        .iter()
        .map(String::as_str)
        .zip(contents.iter().map(Vec::as_slice))
        .collect();
    files.push(("large", &content));
    let site = TestSite::with(&files);
    let server = Server::with(&site, &["--memory", "16MiB"]);
    let range = |group: usize| format!("bytes={}-", group * (256 << 10));
    // Each of another group: all of them are twice what there is.
    let mut slow: Vec<_> = (0..64)
        .map(|_| Client::connect_narrow(server.address()))
        .collect();
    for (group, client) in slow.iter_mut().enumerate() {
        let head = head("GET", "/large", &[("Range", &range(group))]);
        client.send(head).unwrap();
    }
    let mut shut: Vec<_> = (0..8)
        .map(|_| Http2::connect(server.address(), &[(INITIAL_WINDOW_SIZE, 0)]))
        .collect();
    for (index, client) in shut.iter_mut().enumerate() {
        for n in 0..8 {
            let block = [
                get("/large"),
                literal("range", &range(64 + index * 8 + n as usize)),
            ]
            .concat();
            let head = frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &block);
            client.send(head).unwrap();
        }
        client.wait_for(|frame| frame.kind == HEADERS).unwrap();
    }
    for client in &mut slow {
        assert_eq!(client.receive_head().unwrap().unwrap().status, 206);
    }
    for (name, wanted) in &files[..4] {
        let response = server.client().get(&format!("/{name}"));
        assert_eq!(response.status, 200, "{name}");
        assert!(response.body == *wanted, "{name}");
    }
    // Whoever goes on reading gets all of it, whatever was taken back meanwhile.
    let mut last = slow.pop().unwrap();
    let length = content.len() - 63 * (256 << 10);
    let body = last.read_some(length).unwrap();
    assert!(body == content[63 * (256 << 10)..], "{} bytes", body.len());
}

#[test]
fn p10_one_connection_takes_no_more_than_its_share_of_memory() {
    let names: Vec<String> = (0..100).map(|index| format!("{index}.bin")).collect();
    let contents: Vec<Vec<u8>> = (0..100).map(|index| noise(1 << 20, index)).collect();
    let files = names.iter().map(String::as_str);
    let files: Vec<_> = files.zip(contents.iter().map(Vec::as_slice)).collect();
    let site = TestSite::with(&files);
    let server = Server::with(&site, &["--memory", "32MiB"]);
    let mut greedy = Http2::connect(server.address(), &[(INITIAL_WINDOW_SIZE, 0)]);
    for (n, name) in (0..).zip(&names[..90]) {
        greedy
            .send(request(2 * n + 1, &format!("/{name}")))
            .unwrap();
    }
    greedy.send(frame(PING, 0, 0, &[7; 8])).unwrap();
    greedy.wait_for(|frame| frame.kind == PING).unwrap();
    for (name, content) in &files[90..] {
        let response = server.client().get(&format!("/{name}"));
        assert_eq!(response.status, 200, "{name}");
        assert!(response.body == *content);
    }
}

/// Bytes that a process has read from files so far.
fn bytes_read(server: &Server) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", server.pid())).unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.unwrap().parse().unwrap()
}

#[test]
fn p10_a_piece_is_read_and_proven_once_however_many_parts_it_has() {
    const GROUP: u64 = 256 << 10;
    let content = noise(4 << 20, 6);
    let site = TestSite::with(&[("large", &content), ("other", &noise(300_000, 7))]);
    let within = |first: u64, last: u64| content[first as usize..=last as usize].to_vec();
    // Many parts of one group; parts that overlap or touch, in three; and one over a border.
    let many: Vec<_> = (0..150)
        .map(|n| (3 * GROUP + n * 1000, 3 * GROUP + n * 1000 + 9))
        .collect();
    let overlapping: Vec<_> = (0..60)
        .map(|n| (5 * GROUP + n * 9000, 5 * GROUP + n * 9000 + 20_000))
        .collect();
    let border: Vec<_> = (0..40)
        .map(|n| (9 * GROUP - 2000 + n * 100, 9 * GROUP - 2000 + n * 100 + 49))
        .collect();
    for flags in [&[][..], &["--memory", "1MiB"]] {
        for (ranges, groups) in [(&many, 1), (&overlapping, 3), (&border, 2)] {
            let server = Server::with(&site, &[&["--sweep", "1h"], flags].concat());
            let list: Vec<_> = ranges
                .iter()
                .map(|(first, last)| format!("{first}-{last}"))
                .collect();
            let range = format!("bytes={}", list.join(","));
            let before = bytes_read(&server);
            let response = server
                .client()
                .request("GET", "/large", &[("Range", &range)]);
            let read = bytes_read(&server) - before;
            assert_eq!(response.status, 206);
            let (first, last) = ranges[0];
            let part = within(first, last);
            assert!(response.body.windows(part.len()).any(|each| each == part));
            // A little more is read of other things, such as this very connection.
            let most = groups * GROUP + GROUP / 2;
            assert!(read <= most, "{read} bytes for {groups} groups, {flags:?}");
        }
    }
}

// --- Connections -----------------------------------------------------------------------------

#[test]
fn a_refusal_is_not_lost_in_a_reset() {
    let site = site();
    let server = Server::start(&site);
    let long = "a".repeat(1 << 20);
    let requests = [
        (
            "a long head",
            head("GET", "/small", &[("X-Long", &long)]),
            431,
        ),
        ("no head", format!("{long}\r\n\r\n"), 431),
        (
            "garbage",
            format!("G@T / HTTP/1.1\r\nX: {long}\r\n\r\n"),
            400,
        ),
        (
            "content that nobody reads",
            head("POST", "/small", &[("Content-Length", "1048576")]) + &long,
            405,
        ),
    ];
    for (name, bytes, status) in requests {
        let mut client = server.client();
        client
            .send(bytes)
            .unwrap_or_else(|error| panic!("{name}: {error} while it is sent"));
        let response = client.receive("GET").unwrap().expect("a response");
        assert_eq!(response.status, status, "{name}");
        assert!(response.field("Date").is_some(), "{name}");
        client.socket().shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let end = client.socket().read_to_end(&mut rest);
        assert!(end.is_ok(), "{name}: {end:?} at its end");
    }
}

#[test]
fn a_target_that_is_too_long_is_414_behind_other_requests_too() {
    let site = site();
    let server = Server::start(&site);
    let long = head("GET", &format!("/{}", "a".repeat(100_000)), &[]);
    let fields = head("GET", "/small", &[("X-Long", &"a".repeat(100_000))]);
    let small = head("GET", "/small", &[]);
    for (last, status) in [(long, 414), (fields, 431)] {
        let responses = exchange(server.address(), [&*small, &small, &last].concat());
        let statuses: Vec<_> = responses.iter().map(|response| response.status).collect();
        assert_eq!(statuses, [200, 200, status]);
    }
}

#[test]
fn p10_a_connection_beyond_the_limit_gets_a_503() {
    let site = site();
    let server = Server::with(&site, &["--max-connections", "2"]);
    let mut clients = [server.client(), server.client()];
    for client in &mut clients {
        assert_eq!(client.get("/small").body, b"small");
    }
    for round in 0..50 {
        let mut surplus = TcpStream::connect(server.address()).unwrap();
        surplus.set_read_timeout(Some(PATIENCE)).unwrap();
        surplus
            .write_all(head("GET", "/small", &[]).as_bytes())
            .unwrap();
        let mut answer = String::new();
        // To the end, which is no reset.
        surplus
            .read_to_string(&mut answer)
            .unwrap_or_else(|error| panic!("in round {round}: {error}"));
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("Retry-After: 1\r\n"), "{answer}");
    }
    for client in &mut clients {
        assert_eq!(client.get("/small").body, b"small");
    }
}

/// Whether a client that has said something gets a 503 or a close, and no silence.
fn is_turned_away(client: &Client) -> bool {
    let mut answer = Vec::new();
    let mut socket = client.socket();
    socket.set_read_timeout(Some(2 * SECOND)).unwrap();
    match socket.read_to_end(&mut answer) {
        Ok(_) => answer.is_empty() || answer.starts_with(b"HTTP/1.1 503 "),
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[test]
fn p8_what_descriptors_do_not_suffice_for_is_clamped_and_turned_away() {
    let site = site();
    let flags = ["--workers", "1", "--admin", "127.0.0.1:0"];
    let mut server = Server::run(with_descriptors(64), &site.root(), &flags);
    assert!(
        server.log().contains("--max-connections is "),
        "not said: {}",
        server.log()
    );
    let clients: Vec<_> = (0..90)
        .map(|_| {
            let mut client = server.client();
            let _ = client.send("GET /small HTTP/1.1\r\n");
            client.socket().set_nonblocking(true).unwrap();
            client
        })
        .collect();
    // Those that are served wait for the rest of the head: nothing comes.
    let waiting = || {
        let is_waiting = |client: &&Client| {
            let peeked = client.socket().peek(&mut [0]);
            peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        };
        clients.iter().filter(is_waiting).count()
    };
    let since = Instant::now();
    while waiting() > 32 {
        assert!(since.elapsed() < 8 * SECOND, "{} of 90 wait", waiting());
        std::thread::sleep(SECOND / 50);
    }
    assert!(waiting() > 0, "none is served");
    assert_eq!(Client::connect(server.admin()).get("/livez").status, 200);
    // There are descriptors left for the site, too.
    fs::write(site.path("new"), "new").unwrap();
    server.wait_for(|lines| lines.iter().any(|line| line.contains("published")));
    assert!(!server.log().contains("cannot accept"), "{}", server.log());
    drop(clients);
    let since = Instant::now();
    while !is_served(&server) {
        assert!(since.elapsed() < 8 * SECOND, "nobody is served again");
    }
    server.assert_alive();
}

/// Whether a new client is answered.
fn is_served(server: &Server) -> bool {
    let mut client = server.client();
    let _ = client.send(head("GET", "/small", &[]));
    let response = client.receive("GET");
    response.is_ok_and(|response| response.is_some_and(|response| response.status == 200))
}

#[test]
fn p8_without_a_descriptor_left_clients_are_turned_away_and_the_operator_is_answered() {
    let site = site();
    let flags = ["--workers", "1", "--admin", "127.0.0.1:0"];
    let mut server = Server::with(&site, &flags);
    // A listener that has accepted a connection has its spare descriptor.
    assert!(is_served(&server));
    assert_eq!(Client::connect(server.admin()).get("/livez").status, 200);
    let open = descriptors(&server);
    let first_free = (0..).find(|number| !open.contains(number)).unwrap();
    // As if another part of the process had taken all that are left.
    limit_descriptors(&server, first_free);
    let mut served = Vec::new();
    loop {
        let mut client = server.client();
        let _ = client.send("GET /small HTTP/1.1\r\n");
        assert!(served.len() < 20, "the limit is not reached");
        if is_turned_away(&client) {
            break;
        }
        served.push(client);
    }
    for _ in 0..10 {
        let mut client = server.client();
        let _ = client.send(head("GET", "/small", &[]));
        client.socket().set_read_timeout(Some(2 * SECOND)).unwrap();
        // 503, a close, or a descriptor that is free again: no silence.
        if let Err(error) = client.socket().read(&mut [0; 16]) {
            let is_silent = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            assert!(!is_silent, "{error}");
        }
        drop(client);
        assert_eq!(Client::connect(server.admin()).get("/livez").status, 200);
    }
    let log = server.log();
    let messages = log.lines().filter(|line| line.contains("cannot accept"));
    // One for each of the two listeners.
    assert!((1..=2).contains(&messages.count()), "{log}");
    limit_descriptors(&server, first_free + 100);
    let since = Instant::now();
    while !is_served(&server) {
        assert!(since.elapsed() < 8 * SECOND, "nobody is served again");
    }
    server.assert_alive();
}

/// The numbers of a process's open descriptors.
fn descriptors(server: &Server) -> Vec<u64> {
    fs::read_dir(format!("/proc/{}/fd", server.pid()))
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Has a process open only descriptors whose number is below `limit` (getrlimit(2)).
fn limit_descriptors(server: &Server, limit: u64) {
    use rustix::process::{Pid, Resource, getrlimit, prlimit};
    let limit = rustix::process::Rlimit {
        current: Some(limit),
        ..getrlimit(Resource::Nofile)
    };
    prlimit(Pid::from_raw(server.pid() as i32), Resource::Nofile, limit).unwrap();
}

// --- One reading of a request ----------------------------------------------------------------

/// Each is followed by a request that must not be answered: who reads the first another way takes
/// it for content. Beside `cases/framing.txt`, which has the plainer ones.
const AMBIGUOUS: &[(&str, &str)] = &[
    (
        "a coding behind a vertical tab",
        "Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a coding before NUL",
        "Transfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n",
    ),
    (
        "a coding on a folded line",
        "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a coding in quotes",
        "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    ),
    (
        "a coding and a comma",
        "Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n",
    ),
    (
        "a coding with a parameter",
        "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    ),
    (
        "a coding twice",
        "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a name with a space",
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a name with a tab",
        "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a name behind a space",
        "X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a bare CR before a name",
        "X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a length with a bare CR",
        "Content-Length: 0\rContent-Length: 44\r\n\r\n",
    ),
    (
        "a length with an inner space",
        "Content-Length: 4 4\r\n\r\n",
    ),
    ("a length with NUL", "Content-Length: 44\0\r\n\r\n"),
    ("a length with a fraction", "Content-Length: 44.0\r\n\r\n"),
    (
        "a length of digits from elsewhere",
        "Content-Length: \u{664}\u{664}\r\n\r\n",
    ),
    (
        "a chunk size behind a space",
        "Transfer-Encoding: chunked\r\n\r\n 0\r\n\r\n",
    ),
    (
        "a chunk size with 0x",
        "Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
    ),
    (
        "a chunk size and LF",
        "Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
    ),
    (
        "an extension with LF",
        "Transfer-Encoding: chunked\r\n\r\n1;x\na\r\n0\r\n\r\n",
    ),
    (
        "an extension with CR",
        "Transfer-Encoding: chunked\r\n\r\n1;x\ra\r\n0\r\n\r\n",
    ),
    (
        "a chunk longer than its size",
        "Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "a chunk without its end",
        "Transfer-Encoding: chunked\r\n\r\n1\r\na0\r\n\r\n",
    ),
    (
        "no last chunk",
        "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
    ),
    (
        "a trailer that frames",
        "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 44\r\n\r\n",
    ),
];

#[test]
fn p10_nothing_is_read_in_two_ways() {
    let site = site();
    let server = Server::start(&site);
    for (name, rest) in AMBIGUOUS {
        let mut client = server.client();
        let ambiguous = format!("GET /small HTTP/1.1\r\nHost: localhost\r\n{rest}");
        let behind = head("GET", "/middle", &[]);
        client.send(ambiguous + &behind).unwrap();
        let response = client.receive("GET").unwrap().expect("a response");
        assert!(
            matches!(response.status, 200 | 400 | 501),
            "{name}: {}",
            response.status
        );
        assert!(response.field("Date").is_some(), "{name}");
        assert!(response.says_close(), "{name}: {:?}", response.fields);
        assert!(client.ends().unwrap(), "{name}: more is answered");
    }
}

#[test]
fn lengths_that_agree_are_one_length() {
    let site = site();
    let server = Server::start(&site);
    for fields in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\n",
    ] {
        let mut client = server.client();
        let first = format!("GET /small HTTP/1.1\r\nHost: localhost\r\n{fields}\r\nGET /");
        client.send(first + &head("GET", "/middle", &[])).unwrap();
        let responses: Vec<Response> = (0..2)
            .map_while(|_| client.receive("GET").unwrap())
            .collect();
        // In sync, or at its end.
        assert_eq!(responses[0].body, b"small");
        assert!(responses.len() == 1 || responses[1].body.len() == 120 << 10);
    }
}
