//! Metrics add up: what is counted is what clients have asked and been sent.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use clap::Parser;
use etagd::config::{self, Command, Config};
use etagd::disk::Root;
use etagd::memory::Memory;
use etagd::metrics::Metrics;
use etagd::scan::{Progress, Scanner};
use etagd::server::{Server, listener};
use etagd::service::Service;
use etagd::site::Site;
use support::h2::Http2;
use support::site::overwrite_in_place;
use support::tree::within;
use support::wire::head;
use support::{Client, TestSite, noise, tag};

/// A server in this process, so that its metrics can be seen.
struct InProcess {
    address: SocketAddr,
    site: Arc<Site>,
    memory: Arc<Memory>,
    metrics: Arc<Metrics>,
}

impl InProcess {
    fn start(test_site: &TestSite) -> Self {
        let directory = test_site.root();
        let flags = [
            "etagd",
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--workers",
            "1",
        ];
        let flags = flags
            .map(Into::into)
            .into_iter()
            .chain([directory.clone().into()]);
        let Command::Serve(flags) = config::Cli::parse_from::<_, std::ffi::OsString>(flags).command
        else {
            panic!("another command");
        };
        let config = Config::from(*flags);
        let memory = Memory::new(config.memory, 16);
        let metrics = Arc::new(Metrics::default());
        let root = Arc::new(Root::open(&directory).unwrap());
        let scanner = Scanner::new(config.symlinks, config.settings, Some(Arc::clone(&memory)));
        let (manifest, _) = scanner.scan(&root, &Progress::default());
        let site = Arc::new(Site::new(manifest));
        let service = Service::new(Arc::clone(&site), Arc::clone(&memory), Arc::clone(&metrics));
        let (sender, address) = channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut bound = listener::bind(&config.listen).unwrap();
                let listener = bound.remove(0).listen().unwrap();
                sender.send(listener.to_string()).unwrap();
                let server = Server::start(service, config.workers, config.limits, None, None);
                server.unwrap().accept(&listener).await;
            });
        });
        Self {
            address: address.recv().unwrap().parse().unwrap(),
            site,
            memory,
            metrics,
        }
    }

    /// All samples by name and labels.
    fn samples(&self) -> BTreeMap<String, f64> {
        let mut text = String::new();
        let figures = self.site.figures(&self.memory);
        self.metrics.encode(figures, &mut text).unwrap();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples
            .map(|line| {
                let (name, number) = line.rsplit_once(' ').unwrap();
                (name.to_owned(), number.parse().unwrap())
            })
            .collect()
    }

    /// Waits until these samples have these values: a count may come after the answer.
    fn wait_for(&self, wanted: &[(&str, u64)]) {
        let differing = || {
            let samples = self.samples();
            let of = |name: &str| samples.get(name).copied().unwrap_or(0.0);
            let differ = wanted
                .iter()
                .filter(|(name, number)| of(name) != *number as f64);
            differ
                .map(|(name, _)| (*name, of(name)))
                .collect::<Vec<_>>()
        };
        let what = format!("{wanted:?}");
        let mut last = Vec::new();
        let is_so = || {
            last = differing();
            last.is_empty()
        };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            within(Duration::from_secs(5), &what, is_so)
        }));
        assert!(result.is_ok(), "instead: {last:?}");
    }
}

#[test]
fn they_add_up_over_both_versions_of_http() {
    let (small, big) = (b"small", noise((1 << 20) + 99, 1));
    let site = TestSite::with(&[("small", small), ("big", &big)]);
    let server = InProcess::start(&site);
    let etag = tag(&big);
    let mut bytes = 0;
    let mut http1 = Client::connect(server.address);
    let mut http2 = Http2::connect(server.address);
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
    server.wait_for(&[
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
        (r#"etagd_cut_responses_total{reason="unproven"}"#, 0),
        (r#"etagd_cut_responses_total{reason="connection"}"#, 0),
        ("etagd_connections", 2),
        ("etagd_manifest_entries", 2),
        ("etagd_site_bytes", (small.len() + big.len()) as u64),
        ("etagd_memory_used_bytes", server.memory.used()),
    ]);
    let digest = server.site.current().digest().to_string();
    let info = format!("etagd_site_info{{digest=\"{digest}\",complete=\"true\"}}");
    server.wait_for(&[(&info, 1)]);
    drop((http1, http2));
    server.wait_for(&[("etagd_connections", 0)]);
}

#[test]
fn what_ends_early_is_counted_by_its_reason() {
    const LONG: usize = 16 << 20;
    let content = noise(LONG, 2);
    let site = TestSite::with(&[("long", &content), ("gone", &noise(300 << 10, 3))]);
    let server = InProcess::start(&site);
    let ask = || {
        let mut client = Client::connect_narrow(server.address);
        client.send(head("GET", "/long", &[])).unwrap();
        assert_eq!(client.receive_head().unwrap().unwrap().status, 200);
        client
    };
    drop(ask());
    let (unproven, connection) = (
        r#"etagd_cut_responses_total{reason="unproven"}"#,
        r#"etagd_cut_responses_total{reason="connection"}"#,
    );
    server.wait_for(&[(connection, 1), (unproven, 0), ("etagd_connections", 0)]);
    let mut client = ask();
    overwrite_in_place(&site.path("long"), &noise(LONG, 4));
    assert!(client.read_some(LONG).unwrap().len() < LONG);
    server.wait_for(&[
        (connection, 1),
        (unproven, 1),
        ("etagd_verification_failures_total", 1),
    ]);
    // Nobody looks at the disk here, so that the truth never comes.
    std::fs::remove_file(site.path("gone")).unwrap();
    let response = Client::connect(server.address).get("/gone");
    assert_eq!(response.status, 503);
    server.wait_for(&[
        ("etagd_unavailable_responses_total", 1),
        (r#"etagd_requests_total{method="GET",status="503"}"#, 1),
        (r#"etagd_requests_total{method="GET",status="200"}"#, 2),
        (connection, 1),
    ]);
}

#[test]
fn the_age_of_a_manifest_begins_with_its_publication() {
    let site = TestSite::with(&[("small", b"small")]);
    let server = InProcess::start(&site);
    within(Duration::from_secs(5), "time passes", || {
        server.samples()["etagd_manifest_age_seconds"] > 0.05
    });
    let before = server.site.age();
    let changes = || etagd::manifest::Changes {
        removed: vec![Box::from(&b"small"[..])],
        ..Default::default()
    };
    assert!(server.site.update(|_| Some(changes())).is_some());
    assert!(server.site.age() < before);
    server.wait_for(&[("etagd_manifest_entries", 0), ("etagd_site_bytes", 0)]);
}
