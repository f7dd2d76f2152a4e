//! P8: no request, no odd file, no missing permission and no exhausted descriptor ends the
//! process. [`Server`] asserts at its end that nothing panicked.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use crate::support::server::{unprivileged, with_descriptors};
use crate::support::site::set_mtime;
use crate::support::tree::{eventually, stays};
use crate::support::wire::head;
use crate::support::{Client, Server, TestSite, noise};

/// Sends bytes, says that there are no more, and waits until the server is through with them.
fn fire(server: &Server, bytes: &[u8]) {
    let mut client = server.client();
    let _ = client.send(bytes);
    let mut socket: &TcpStream = client.socket();
    let _ = socket.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    if let Err(error) = socket.read_to_end(&mut answer) {
        let is_stuck = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        assert!(
            !is_stuck,
            "neither answered nor closed: {}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn p8_garbage_is_survived() {
    let site = TestSite::with(&[("file", b"content")]);
    let mut server = Server::start(&site);
    for seed in 0..400 {
        let length = seed as usize * 5 % 1999;
        fire(&server, &noise(length, seed));
        let request_line = b"GET /file HTTP/1.1\r\nHost: x\r\n";
        fire(&server, &[request_line, &noise(length, seed)[..]].concat());
    }
    server.assert_alive();
    assert_eq!(server.client().get("/file").body, b"content");
}

#[test]
fn p8_requests_with_bytes_out_of_place_are_survived() {
    let site = TestSite::with(&[("file", &noise(300_000, 1))]);
    let mut server = Server::start(&site);
    let request = b"GET /file?q HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-9,20-29\r\n\
        If-Range: \"x\"\r\nIf-None-Match: W/\"a\", \"b\"\r\nIf-Modified-Since: Tue, 14 Nov 2023 \
        22:13:20 GMT\r\nAccept-Encoding: br;q=0.5, *;q=0\r\nContent-Length: 0\r\n\r\n";
    let random = noise(3 * 1200, 5);
    for three in random.chunks(3) {
        let mut bytes = request.to_vec();
        let place = (usize::from(three[0]) << 8 | usize::from(three[1])) % bytes.len();
        bytes[place] = three[2];
        let (one, other) = (place / 2, usize::from(three[2]) % bytes.len());
        bytes.swap(one, other);
        fire(&server, &bytes);
    }
    server.assert_alive();
}

#[test]
fn p8_requests_that_end_at_any_byte_are_survived() {
    let site = TestSite::with(&[("file", b"content")]);
    let mut server = Server::start(&site);
    let request = b"POST /file HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
    for end in 0..=request.len() {
        fire(&server, &request[..end]);
    }
    server.assert_alive();
}

#[test]
fn p8_clients_that_leave_in_the_middle_are_survived() {
    let site = TestSite::with(&[("big", &noise(3 << 20, 1))]);
    let mut server = Server::start(&site);
    for round in 0..60 {
        let mut client = server.client();
        client.send(head("GET", "/big", &[])).unwrap();
        if round % 2 == 0 {
            client.read_some(10_000 * round).unwrap();
        }
    }
    server.assert_alive();
    assert!(server.client().get("/big").is_what_its_tag_says());
}

#[test]
fn p8_thirty_requests_for_a_fifo_stop_nothing() {
    let site = TestSite::with(&[("file", b"content")])
        .fifo("pipe")
        .socket("socket")
        .device("zero");
    let mut server = Server::with(&site, &["--workers", "2"]);
    let mut clients: Vec<Client> = (0..30).map(|_| server.client()).collect();
    for (client, target) in clients
        .iter_mut()
        .zip(["/pipe", "/socket", "/zero"].iter().cycle())
    {
        assert_eq!(client.get(target).status, 404, "{target}");
    }
    server.assert_alive();
}

#[test]
fn p8_a_link_to_a_fifo_stops_no_publication() {
    let site = TestSite::with(&[("file", b"1")]).fifo("../pipe");
    let link = || symlink(site.outside("pipe"), site.path("link")).unwrap();
    link();
    let flags = ["--symlinks", "all", "--sweep", "200ms", "--scrub", "200ms"];
    let server = Server::with(&site, &flags);
    fs::write(site.path("file"), "2").unwrap();
    server.wait_for_body("/file", "2");
    fs::remove_file(site.path("link")).unwrap();
    fs::write(site.path("file"), "3").unwrap();
    server.wait_for_body("/file", "3");
    link();
    let sweeps = server.publications();
    fs::write(site.path("file"), "4").unwrap();
    server.wait_for_body("/file", "4");
    fs::write(site.path("file"), "5").unwrap();
    server.wait_for_body("/file", "5");
    assert!(server.publications() > sweeps);
}

#[test]
fn p8_a_scrub_waits_for_no_fifo() {
    let site = TestSite::in_memory()
        .file("0", "first")
        .file("file", "1")
        .file_outside("name", b"2");
    let server = Server::with(&site, &["--scrub", "300ms", "--sweep", "1h"]);
    // Not noticed by an event: the directory it comes from is not watched.
    fs::remove_file(site.path("file")).unwrap();
    fs::hard_link(site.outside("name"), site.path("file")).unwrap();
    server.wait_for_body("/file", "2");
    // As long as publication is held back, the scrub looks for the file.
    fs::write(site.path(".etagd-hold"), "").unwrap();
    fs::remove_file(site.path("0")).unwrap();
    let site = site.fifo("0");
    stays(Duration::from_secs(1), "it is published", || {
        server.body("/0").is_some()
    });
    fs::remove_file(site.path(".etagd-hold")).unwrap();
    server.wait_for_absence("/0");
    fs::write(site.outside("name"), "3").unwrap();
    server.wait_for_body("/file", "3");
}

#[test]
fn p8_a_file_that_becomes_a_fifo_stops_nothing() {
    let site = TestSite::with(&[("file", b"content"), ("big", &noise(3 << 20, 1))]);
    let mut server = Server::with(&site, &["--workers", "1", "--memory", "64KiB"]);
    fs::remove_file(site.path("big")).unwrap();
    let site = site.fifo("big");
    let mut clients: Vec<Client> = (0..80).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send(head("GET", "/big", &[])).unwrap();
    }
    assert_eq!(server.client().get("/file").body, b"content");
    for client in &mut clients {
        let response = client.receive("GET").unwrap().expect("a response");
        assert!(
            matches!(response.status, 404 | 503),
            "answered {}",
            response.status
        );
    }
    server.assert_alive();
    drop(site);
}

#[test]
fn p8_any_mtime_is_served() {
    // Before 1970, around the ends of 32 and 34 bits, and after the year 9999.
    let mtimes = [
        -1,
        -62_135_596_801,
        -2_147_483_649,
        2_147_483_648,
        17_179_869_183,
        253_402_300_800,
    ];
    let site = TestSite::with(&[("file", b"content")]);
    for mtime in mtimes {
        set_mtime(&site.path("file"), mtime);
        let mut server = Server::start(&site);
        let since = [("If-Modified-Since", "Tue, 14 Nov 2023 22:13:20 GMT")];
        for fields in [&[][..], &since] {
            let response = server.client().request("GET", "/file", fields);
            assert_eq!(response.status, 200, "{mtime}");
            assert_eq!(response.field("Last-Modified"), None, "{mtime}");
        }
        server.assert_alive();
    }
}

#[test]
fn p8_long_names_and_deep_directories_are_served() {
    let long = "n".repeat(255);
    let deep = "d/".repeat(200) + "leaf";
    let site = TestSite::with(&[(&long, b"long"), (&deep, b"deep")]);
    let server = Server::start(&site);
    assert_eq!(server.client().get(&format!("/{long}")).body, b"long");
    assert_eq!(server.client().get(&format!("/{deep}")).body, b"deep");
}

#[test]
fn p8_an_empty_site_is_served() {
    let mut server = Server::start(&TestSite::new());
    assert_eq!(server.client().get("/").status, 404);
    server.assert_alive();
}

#[test]
fn p8_a_site_that_is_taken_away_is_survived() {
    let site = TestSite::with(&[("file", b"content"), ("big", &noise(3 << 20, 1))]);
    let mut server = Server::start(&site);
    fs::remove_dir_all(site.root()).unwrap();
    for target in ["/file", "/big", "/nowhere"] {
        let response = server.client().get(target);
        let is_fine = response.status != 200 || response.cut || response.is_what_its_tag_says();
        assert!(
            is_fine,
            "{target}: {} {:?}",
            response.status, response.fields
        );
    }
    server.assert_alive();
}

#[test]
fn p8_what_may_not_be_read_is_named_and_left_out() {
    let site = TestSite::with(&[
        ("file", b"content"),
        ("closed", b"SECRET"),
        ("shut/x", b"SECRET"),
    ]);
    fs::set_permissions(site.path("closed"), Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(site.path("shut"), Permissions::from_mode(0o000)).unwrap();
    let Some(program) = unprivileged() else {
        #[allow(clippy::print_stderr)]
        {
            eprintln!("skipped: there is no way to run as a user who may not read everything");
        }
        return;
    };
    let mut server = Server::run(program, &site.root(), &[]);
    assert_eq!(server.client().get("/file").body, b"content");
    for target in ["/closed", "/shut/x", "/shut/", "/shut"] {
        assert_eq!(server.client().get(target).status, 404, "{target}");
    }
    let log = server.log();
    for name in ["closed", "shut"] {
        let line = log
            .lines()
            .find(|line| line.contains(name))
            .unwrap_or_else(|| panic!("{name} is not reported:\n{log}"));
        assert!(
            line.to_lowercase().contains("permission denied"),
            "no reason: {line}"
        );
    }
    server.assert_alive();
    // So that the site can be removed by a user who is not root.
    fs::set_permissions(site.path("shut"), Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn p8_what_cannot_be_sent_has_a_page_of_the_site_or_of_etagd() {
    let own = b"<!doctype html><title>back soon</title>";
    let long = [&own[..], &noise(300 << 10, 1)].concat();
    for (page, is_sent) in [(Some(&own[..]), true), (Some(&long), false), (None, false)] {
        let site = TestSite::with(&[("gone.bin", &noise(300 << 10, 2))]);
        let site = match page {
            Some(page) => site.file("50x.html", page),
            None => site,
        };
        let server = Server::start(&site);
        let warning = "50x.html is not used: it has more than 128 KiB";
        let is_long = page.is_some_and(|page| page.len() > 128 << 10);
        assert_eq!(server.log().contains(warning), is_long);
        // Nothing is published, so that what is there instead never is.
        fs::write(site.path(".etagd-hold"), "").unwrap();
        fs::remove_file(site.path("gone.bin")).unwrap();
        let response = server.client().get("/gone.bin");
        assert_eq!(response.status, 503);
        assert_eq!(response.field("ETag"), None);
        assert_eq!(response.field("Retry-After"), Some("1"));
        let body = String::from_utf8_lossy(&response.body).into_owned();
        match is_sent {
            true => assert_eq!(response.body, own),
            false => assert!(body.contains("<code>/gone.bin</code>"), "{body}"),
        }
        let has_policy = response.field("Content-Security-Policy").is_some();
        assert_eq!(has_policy, !is_sent, "the site's page has its own");
    }
}

#[test]
fn p8_exhausted_descriptors_are_survived() {
    let content = noise(3 << 20, 1);
    let site = TestSite::with(&[("file", b"content"), ("big", &content)]);
    let flags = ["--workers", "1", "--memory", "64KiB"];
    let mut server = Server::run(with_descriptors(48), &site.root(), &flags);
    let mut first = server.client();
    assert_eq!(first.get("/file").body, b"content");
    // The kernel takes these in though the server can't, some of them at least.
    let mut more: Vec<Client> = (0..80).map(|_| server.client()).collect();
    for client in &mut more {
        client.send(head("GET", "/file", &[])).unwrap();
    }
    let response = first.get("/big");
    let is_fine = response.status == 503 || response.cut || response.is_what_its_tag_says();
    assert!(is_fine, "{} {:?}", response.status, response.fields);
    drop((first, more));
    // Until the server has noticed that they are gone it is full, and turns others away.
    for (target, body) in [("/file", &b"content"[..]), ("/big", &content)] {
        eventually(target, || {
            let mut client = server.client();
            let sent = client.send(head("GET", target, &[]));
            let received = sent.and_then(|()| client.receive("GET"));
            received.is_ok_and(|response| {
                response.is_some_and(|response| response.status == 200 && response.body == body)
            })
        });
    }
    server.assert_alive();
}
