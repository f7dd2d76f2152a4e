//! Metrics add up: what is counted is what clients have asked and been sent.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use support::h2::Http2;
use support::site::overwrite_in_place;
use support::tree::{digest_of, within};
use support::wire::head;
use support::{Client, Server, TestSite, noise, tag};

const ADMIN: &[&str] = &["--admin", "127.0.0.1:0", "--settle", "10ms"];

/// All samples by name and labels.
fn samples(server: &Server) -> BTreeMap<String, f64> {
    let response = Client::connect(server.admin()).get("/metrics");
    let text = String::from_utf8(response.body).unwrap();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, number) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), number.parse().unwrap())
    };
    samples.map(sample).collect()
}

/// Waits until these samples have these values: a count may come after the answer.
fn wait_for(server: &Server, wanted: &[(&str, u64)]) {
    let mut differing = Vec::new();
    for _ in 0..500 {
        let samples = samples(server);
        let of = |name: &str| samples.get(name).copied().unwrap_or(0.0);
        let differ = wanted
            .iter()
            .filter(|(name, number)| of(name) != *number as f64);
        differing = differ
            .map(|(name, number)| (*name, of(name), *number))
            .collect();
        if differing.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("found and wanted: {differing:?}");
}

#[test]
fn they_add_up_over_both_versions_of_http() {
    let (small, big) = (b"small", noise((1 << 20) + 99, 1));
    let site = TestSite::with(&[("small", small), ("big", &big)]);
    let server = Server::with(&site, ADMIN);
    let etag = tag(&big);
    let mut bytes = 0;
    let mut http1 = Client::connect(server.address());
    let mut http2 = Http2::connect(server.address());
    for round in 0..6 {
        for (target, fields, status) in [
            ("/small", &[][..], 200),
            ("/big", &[], 200),
            ("/big", &[("if-none-match", &*etag)], 304),
            ("/small", &[("if-none-match", &*etag)], 200),
            ("/big", &[("range", "bytes=5-1004")], 206),
            ("/big", &[("range", "bytes=0-9,500000-600000")], 206),
            ("/big", &[("if-match", "\"x\"")], 412),
            ("/nowhere", &[("if-none-match", &*etag)], 404),
        ] {
            let response = match round % 2 {
                0 => http1.request("GET", target, fields),
                _ => http2.get(target, fields),
            };
            assert_eq!(response.status, status);
            bytes += response.body.len() as u64;
        }
    }
    for (method, target, fields) in [
        ("HEAD", "/big", &[][..]),
        ("HEAD", "/big", &[("If-None-Match", &*etag)]),
        ("POST", "/big", &[]),
        ("BREW", "/big", &[]),
        ("OPTIONS", "*", &[]),
    ] {
        bytes += http1.request(method, target, fields).body.len() as u64;
    }
    wait_for(
        &server,
        &[
            (r#"etagd_requests_total{method="GET",status="200"}"#, 18),
            (r#"etagd_requests_total{method="GET",status="304"}"#, 6),
            (r#"etagd_requests_total{method="GET",status="206"}"#, 12),
            (r#"etagd_requests_total{method="GET",status="412"}"#, 6),
            (r#"etagd_requests_total{method="GET",status="404"}"#, 6),
            (r#"etagd_requests_total{method="HEAD",status="200"}"#, 1),
            (r#"etagd_requests_total{method="HEAD",status="304"}"#, 1),
            (r#"etagd_requests_total{method="POST",status="405"}"#, 1),
            (r#"etagd_requests_total{method="other",status="501"}"#, 1),
            (r#"etagd_requests_total{method="OPTIONS",status="204"}"#, 1),
            (r#"etagd_validators_total{outcome="hit"}"#, 7),
            (r#"etagd_validators_total{outcome="miss"}"#, 6),
            (r#"etagd_validators_total{outcome="failed"}"#, 6),
            (r#"etagd_validators_total{outcome="none"}"#, 34),
            ("etagd_body_bytes_total", bytes),
            // A HEAD would not have sent it in any case.
            ("etagd_saved_body_bytes_total", 6 * big.len() as u64),
            (r#"etagd_request_duration_seconds_count{class="2xx"}"#, 32),
            (r#"etagd_request_duration_seconds_count{class="3xx"}"#, 7),
            (r#"etagd_request_duration_seconds_count{class="4xx"}"#, 13),
            (r#"etagd_request_duration_seconds_count{class="5xx"}"#, 1),
            (r#"etagd_cut_responses_total{reason="unproven"}"#, 0),
            (r#"etagd_cut_responses_total{reason="connection"}"#, 0),
            ("etagd_connections", 2),
            ("etagd_manifest_entries", 2),
            ("etagd_site_bytes", (small.len() + big.len()) as u64),
        ],
    );
    let digest = digest_of(&site.root());
    let info = format!("etagd_site_info{{digest=\"{digest}\",complete=\"true\"}}");
    wait_for(&server, &[(&info, 1)]);
    drop((http1, http2));
    wait_for(&server, &[("etagd_connections", 0)]);
}

/// The buckets of a class of requests: upper bound and count, as they come.
fn buckets(server: &Server, class: &str) -> Vec<(f64, f64)> {
    let response = Client::connect(server.admin()).get("/metrics");
    let text = String::from_utf8(response.body).unwrap();
    let start = "etagd_request_duration_seconds_bucket{le=\"";
    let end = format!("\",class=\"{class}\"}} ");
    let bucket = |line: &str| {
        let (bound, count) = line.strip_prefix(start)?.split_once(&end)?;
        Some((bound.parse().unwrap(), count.parse().unwrap()))
    };
    text.lines().filter_map(bucket).collect()
}

#[test]
fn a_response_takes_until_its_client_has_it() {
    const PAUSE: Duration = Duration::from_millis(300);
    let site = TestSite::with(&[("small", b"small"), ("long", &noise(16 << 20, 5))]);
    let server = Server::with(&site, ADMIN);
    assert_eq!(server.client().get("/small").status, 200);
    let mut client = Client::connect_narrow(server.address());
    client.send(head("GET", "/long", &[])).unwrap();
    assert_eq!(client.receive_head().unwrap().unwrap().status, 200);
    // It is the pause that is measured.
    std::thread::sleep(PAUSE);
    drop(client);
    wait_for(
        &server,
        &[(r#"etagd_request_duration_seconds_count{class="2xx"}"#, 2)],
    );
    let found = buckets(&server, "2xx");
    let bounds: Vec<_> = found.iter().map(|(bound, _)| *bound).collect();
    assert_eq!(bounds.len(), 20);
    assert_eq!(
        (bounds[0], bounds[1], bounds[19]),
        (0.00005, 0.0001, f64::INFINITY)
    );
    assert!(
        found.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1),
        "{found:?}"
    );
    let below_pause = found
        .iter()
        .rfind(|(bound, _)| *bound < PAUSE.as_secs_f64())
        .unwrap();
    assert_eq!(below_pause.1, 1.0, "the long one took longer: {found:?}");
    assert_eq!(found[19].1, 2.0);
    let sum = samples(&server)[r#"etagd_request_duration_seconds_sum{class="2xx"}"#];
    assert!((0.3..60.0).contains(&sum), "{sum}");
}

#[test]
fn the_process_is_described_as_any_other() {
    let site = TestSite::with(&[("a", b"a")]);
    let before = SystemTime::now();
    let server = Server::with(&site, ADMIN);
    let first = samples(&server);
    let started = first["process_start_time_seconds"];
    let before = before.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(
        (before - 1.0..before + 30.0).contains(&started),
        "{started}"
    );
    assert!(first["process_cpu_seconds_total"] > 0.0);
    assert!(first["process_resident_memory_bytes"] > 1e6);
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let limit = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|line| line.split_whitespace().next())
        .unwrap();
    assert_eq!(first["process_max_fds"], limit.parse::<f64>().unwrap());
    // The connection of `samples` itself is one of them, both times.
    let connections: Vec<_> = (0..20)
        .map(|_| {
            let mut client = server.client();
            assert_eq!(client.get("/a").status, 200);
            client
        })
        .collect();
    let more = samples(&server)["process_open_fds"];
    let expected = first["process_open_fds"] + connections.len() as f64;
    assert!((more - expected).abs() <= 2.0, "{more}, not {expected}");
}

#[test]
fn what_ends_early_is_counted_by_its_reason() {
    const LONG: usize = 16 << 20;
    let content = noise(LONG, 2);
    let files: &[(&str, &[u8])] = &[
        ("long", &content),
        // Asked for once: what is asked for again is sent from sealed memory, whatever becomes of
        // the file.
        ("changed", &noise(LONG, 5)),
        ("gone", &noise(300 << 10, 3)),
    ];
    let site = TestSite::with(files);
    let server = Server::with(&site, ADMIN);
    let ask = |target| {
        let mut client = Client::connect_narrow(server.address());
        client.send(head("GET", target, &[])).unwrap();
        assert_eq!(client.receive_head().unwrap().unwrap().status, 200);
        client
    };
    drop(ask("/long"));
    let (unproven, connection) = (
        r#"etagd_cut_responses_total{reason="unproven"}"#,
        r#"etagd_cut_responses_total{reason="connection"}"#,
    );
    wait_for(
        &server,
        &[(connection, 1), (unproven, 0), ("etagd_connections", 0)],
    );
    let mut client = ask("/changed");
    overwrite_in_place(&site.path("changed"), &noise(LONG, 4));
    assert!(client.read_some(LONG).unwrap().len() < LONG);
    wait_for(
        &server,
        &[
            (connection, 1),
            (unproven, 1),
            ("etagd_verification_failures_total", 1),
        ],
    );
    // Nothing is published, so that the truth never comes.
    fs::write(site.path(".etagd-hold"), "").unwrap();
    fs::remove_file(site.path("gone")).unwrap();
    assert_eq!(server.client().get("/gone").status, 503);
    wait_for(
        &server,
        &[
            ("etagd_unavailable_responses_total", 1),
            (r#"etagd_requests_total{method="GET",status="503"}"#, 1),
            (r#"etagd_requests_total{method="GET",status="200"}"#, 2),
            (connection, 1),
        ],
    );
}

#[test]
fn what_is_not_a_request_is_counted_separately() {
    let site = TestSite::with(&[("a", b"a")]);
    let server = Server::with(&site, ADMIN);
    for (bytes, status) in [
        ("\x16\x03\x01 TLS\r\n\r\n".to_owned(), 400),
        ("GET /a<b HTTP/1.1\r\n\r\n".to_owned(), 400),
        (
            format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20)),
            414,
        ),
    ] {
        let mut client = Client::connect(server.address());
        // The end of a long one may be refused already.
        let _ = client.send(bytes);
        let found = client.receive_head().unwrap().unwrap().status;
        assert_eq!(found, status);
    }
    // Who only looks whether anybody is there has asked for nothing.
    drop(Client::connect(server.address()));
    assert_eq!(server.client().get("/a").status, 200);
    let all = r#"etagd_requests_total{method="GET",status="200"}"#;
    wait_for(&server, &[("etagd_malformed_requests_total", 3), (all, 1)]);
}

#[test]
fn a_publication_is_seen() {
    let site = TestSite::with(&[("small", b"small")]);
    let server = Server::with(&site, ADMIN);
    let age = "etagd_manifest_age_seconds";
    let first = within(Duration::from_secs(5), "time passes", || {
        samples(&server)[age] > 0.2
    });
    assert!(samples(&server)["etagd_memory_used_bytes"] > 5.0);
    fs::write(site.path("other"), "other").unwrap();
    wait_for(
        &server,
        &[
            ("etagd_manifest_entries", 2),
            ("etagd_site_bytes", 10),
            ("etagd_publications_total", 1),
            ("etagd_publish_duration_seconds_count", 1),
            (r#"etagd_scan_duration_seconds_count{of="site"}"#, 1),
        ],
    );
    let samples = samples(&server);
    assert!(samples[age] < first.as_secs_f64() + 1.0);
    assert!(samples[r#"etagd_scan_duration_seconds_count{of="changes"}"#] >= 1.0);
    assert!(samples["etagd_watch_events_total"] >= 1.0);
}

#[test]
fn writes_are_counted_by_what_became_of_them() {
    let site = TestSite::with(&[("a", b"one")]);
    let server = Server::with(&site, &[ADMIN, &["--writable"]].concat());
    let mut client = Client::connect(server.address());
    let mut write = |method: &str, condition: (&str, &str), content: &str| {
        let length = content.len().to_string();
        let fields = [condition, ("Content-Length", &length)];
        client.send(head(method, "/a", &fields) + content).unwrap();
        client.receive(method).unwrap().unwrap().status
    };
    let (one, two) = (tag(b"one"), tag(b"two"));
    assert_eq!(write("PUT", ("If-Match", &one), "two"), 204);
    assert_eq!(write("PUT", ("If-Match", &one), "three"), 412);
    assert_eq!(write("PUT", ("Accept", "*/*"), "three"), 428);
    assert_eq!(write("DELETE", ("If-Match", &two), ""), 204);
    assert_eq!(write("PUT", ("If-None-Match", "*"), "three"), 201);
    wait_for(
        &server,
        &[
            (r#"etagd_requests_total{method="PUT",status="201"}"#, 1),
            (r#"etagd_requests_total{method="PUT",status="204"}"#, 1),
            (r#"etagd_requests_total{method="PUT",status="412"}"#, 1),
            (r#"etagd_requests_total{method="PUT",status="428"}"#, 1),
            (r#"etagd_requests_total{method="DELETE",status="204"}"#, 1),
            (r#"etagd_validators_total{outcome="failed"}"#, 1),
            ("etagd_upload_bytes_total", 8),
        ],
    );
}
