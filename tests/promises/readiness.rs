//! P9: nobody can connect before the manifest is complete, and what is in flight when the server
//! is told to stop is finished. What the operator reads is true at each moment.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::h2::Http2;
use crate::support::server::{command, unprivileged};
use crate::support::wire::{PATIENCE, head};
use crate::support::{Client, Server, TestSite, etagd, noise, tag};

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
        .set_len(1 << 28)
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
            let open = fs::read_dir(&descriptors).ok()?;
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
            let response = client
                .receive("GET")
                .unwrap()
                .unwrap_or_else(|| panic!("round {round}: a request is lost"));
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
            let response = client
                .receive("GET")
                .unwrap()
                .unwrap_or_else(|| panic!("round {round}: a request is lost"));
            assert_eq!(
                (response.status, response.body.as_slice()),
                (200, &b"short"[..])
            );
        }
        assert_eq!(server.wait().code(), Some(0));
    }
}

#[test]
fn p9_a_client_that_does_not_read_is_given_the_grace_period_and_no_more() {
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

/// What `/readyz` says: status and line.
fn readyz(admin: SocketAddr) -> (u16, String) {
    let response = Client::connect(admin).get("/readyz");
    let line = String::from_utf8(response.body).unwrap();
    (response.status, line.trim_end().to_owned())
}

/// What `etagd manifest --digest` says of a site.
fn digest(site: &TestSite) -> String {
    let output = etagd([
        "manifest".as_ref(),
        site.root().as_os_str(),
        "--digest".as_ref(),
    ]);
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

const ADMIN: [&str; 2] = ["--admin", "127.0.0.1:0"];

#[test]
fn p9_the_operator_is_answered_during_the_scan() {
    let site = TestSite::with(&[("last.txt", b"last")]);
    File::create(site.path("sparse"))
        .unwrap()
        .set_len(1 << 28)
        .unwrap();
    let server = Server::spawn(command(env!("CARGO_BIN_EXE_etagd")), &site.root(), &ADMIN);
    let admin = server.admin();
    assert_eq!(Client::connect(admin).get("/livez").status, 200);
    let (status, reason) = readyz(admin);
    assert_eq!(status, 503);
    assert!(reason.starts_with("scanning"), "{reason}");
    for path in ["/digest", "/manifest"] {
        let response = Client::connect(admin).get(path);
        assert_eq!(response.status, 503, "{path}");
        assert!(response.body.starts_with(b"scanning"));
    }
    assert!(!server.log().contains("listening on"), "too late a look");
    let ready = eventually("to be ready", || {
        let (status, line) = readyz(admin);
        (status == 200).then_some(line)
    });
    // A server that is ready answers.
    server.wait_until_listening();
    assert_eq!(server.client().get("/last.txt").body, b"last");
    assert_eq!(ready, format!("ready {} 2 entries", digest(&site)));
}

#[test]
fn p9_ready_only_when_the_expected_site_is_there() {
    let site = TestSite::with(&[("index.html", b"new"), ("asset.js", b"new")]);
    let expected = digest(&site);
    fs::write(site.path("asset.js"), "old").unwrap();
    let server = Server::with(&site, &[&ADMIN[..], &["--expect", &expected]].concat());
    let admin = server.admin();
    let (status, reason) = readyz(admin);
    assert_eq!(status, 503);
    assert!(reason.contains(&expected), "{reason}");
    server.wait_for_line(": not ready");
    // It serves all the same: only who asks knows that it should not be asked.
    assert_eq!(server.client().get("/asset.js").body, b"old");
    fs::write(site.path("asset.js"), "new").unwrap();
    eventually("to be ready", || (readyz(admin).0 == 200).then_some(()));

    // What is deployed in place after that unreadies nobody.
    fs::write(site.path("asset.js"), "newer").unwrap();
    server.wait_for_line("still ready");
    let (status, ready) = readyz(admin);
    assert_eq!(status, 200);
    assert!(!ready.contains(&expected), "{ready}");
}

#[test]
fn p9_an_expectation_that_nobody_can_ask_about_is_named() {
    let site = TestSite::new().file("a.txt", "x");
    let expected = digest(&site);
    let says = "--expect without --admin or --health: nobody can ask";
    let server = Server::with(&site, &["--expect", &expected]);
    assert!(server.log().contains(says));
    drop(server);
    for asked in [&ADMIN[..], &["--health", "/health"]] {
        let server = Server::with(&site, &[asked, &["--expect", &expected]].concat());
        assert!(!server.log().contains(says));
    }
}

#[test]
fn p9_an_expectation_may_hold_always() {
    let site = TestSite::with(&[("index.html", b"one")]);
    let expected = digest(&site);
    let flags = ["--expect", &expected, "--expect-always"];
    let server = Server::with(&site, &[&ADMIN[..], &flags].concat());
    let admin = server.admin();
    for (content, wanted) in [("one", 200), ("two", 503), ("one", 200)] {
        fs::write(site.path("index.html"), content).unwrap();
        eventually(content, || (readyz(admin).0 == wanted).then_some(()));
    }
}

#[test]
fn p9_a_site_that_is_incomplete_is_not_the_expected_one() {
    let Some(program) = unprivileged() else {
        #[allow(clippy::print_stderr)]
        {
            eprintln!("skipped: there is no way to run as a user who may not read everything");
        }
        return;
    };
    let site = TestSite::with(&[("index.html", b"one")]);
    let expected = digest(&site);
    let secret = site.file("secret", "content");
    fs::set_permissions(secret.path("secret"), Permissions::from_mode(0o000)).unwrap();
    let flags = [&ADMIN[..], &["--expect", &expected]].concat();
    let server = Server::run(program, &secret.root(), &flags);
    let (status, reason) = readyz(server.admin());
    assert_eq!(status, 503);
    assert!(reason.contains("-incomplete"), "{reason}");
    fs::remove_file(secret.path("secret")).unwrap();
    eventually("to be ready", || {
        (readyz(server.admin()).0 == 200).then_some(())
    });
}

#[test]
fn p9_a_drain_serves_until_others_have_taken_over() {
    let site = TestSite::with(&[("short", b"short")]);
    let mut server = Server::with(&site, &[&ADMIN[..], &["--drain", "1h"]].concat());
    let (admin, address) = (server.admin(), server.address());
    assert_eq!(readyz(admin).0, 200);
    let mut kept = server.client();
    assert!(!kept.get("/short").says_close());
    let mut http2 = Http2::connect(address);
    assert_eq!(http2.get("/short", &[]).status, 200);

    server.signal(Signal::TERM);
    server.wait_for_line("draining for 1h");
    let (status, reason) = readyz(admin);
    assert_eq!(status, 503);
    assert!(reason.starts_with("draining"), "{reason}");
    // Supervisors repeat themselves.
    server.signal(Signal::TERM);
    let last = kept.get("/short");
    assert_eq!((last.status, last.says_close()), (200, true));
    assert!(kept.ends().unwrap());
    let new = server.client().get("/short");
    assert_eq!((new.status, new.says_close()), (200, true));
    assert_eq!(http2.get("/short", &[]).body, b"short");
    assert_eq!(Client::connect(admin).get("/livez").status, 200);
    server.signal(Signal::INT);
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    assert!(TcpStream::connect(admin).is_err());
}

#[test]
fn p9_a_drain_ends_by_itself() {
    let site = TestSite::with(&[("short", b"short")]);
    let mut server = Server::with(&site, &["--drain", "1s"]);
    let told = Instant::now();
    server.signal(Signal::TERM);
    server.wait_for_line("draining for 1s");
    assert_eq!(server.client().get("/short").status, 200);
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    let took = told.elapsed();
    assert!(took >= Duration::from_secs(1), "it took {took:?} only");
    assert!(took < Duration::from_secs(8), "it took {took:?}");
}

#[test]
fn p9_an_interrupt_ends_a_drain_but_no_request() {
    let content = noise(LONG, 1);
    let site = TestSite::with(&[("long", &content)]);
    let mut server = Server::with(&site, &[&ADMIN[..], &["--drain", "1h"]].concat());
    let address = server.address();
    let (mut client, mut body) = slow_download(address);
    server.signal(Signal::TERM);
    server.wait_for_line("draining");
    drop(server.client());
    server.signal(Signal::INT);
    eventually("to refuse connections", || refuses(address));
    body.extend(client.read_some(LONG).unwrap());
    assert_eq!(tag(&body), tag(&content));
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
}

#[test]
fn p9_without_a_way_to_be_seen_there_is_no_drain() {
    let site = TestSite::with(&[("short", b"short")]);
    for (flags, drains) in [
        (&[][..], false),
        (&["--admin", "127.0.0.1:0"], true),
        (&["--health", "/alive"], true),
        (&["--admin", "127.0.0.1:0", "--drain", "0s"], false),
        (&["--drain", "1ms"], true),
    ] {
        let mut server = Server::with(&site, flags);
        server.signal(Signal::TERM);
        if drains {
            server.wait_for_line("draining for");
            server.signal(Signal::INT);
        }
        assert_eq!(server.wait().code(), Some(0), "{flags:?}");
        assert_eq!(server.log().contains("draining"), drains, "{flags:?}");
    }
}

#[test]
fn p9_a_new_connection_may_send_a_request_after_the_signal() {
    let site = TestSite::with(&[("short", b"short")]);
    let mut server = Server::start(&site);
    let address = server.address();
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    server.signal(Signal::TERM);
    eventually("to refuse connections", || refuses(address));
    thread::sleep(Duration::from_millis(100));
    for client in &mut clients {
        let response = client.get("/short");
        assert_eq!((response.status, response.says_close()), (200, true));
    }
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn p9_a_file_that_is_being_written_comes_later_alone() {
    let site = TestSite::with(&[("page", b"here"), ("dir/log", b"first")]);
    let log = File::options()
        .append(true)
        .open(site.path("dir/log"))
        .unwrap();
    let server = Server::with(&site, &["--admin", "127.0.0.1:0"]);
    assert_eq!(server.body("/page").unwrap(), b"here");
    assert_eq!(server.client().get("/dir/log").status, 404);
    let digest = || Client::connect(server.admin()).get("/digest").body;
    assert!(digest().trim_ascii().ends_with(b"-incomplete"));
    (&log).write_all(b", last").unwrap();
    drop(log);
    server.wait_for_body("/dir/log", "first, last");
    assert!(!digest().trim_ascii().ends_with(b"-incomplete"));
    assert!(!server.log().contains("unreadable"), "{}", server.log());
}

#[test]
fn p7_a_file_that_is_never_closed_is_served_and_leaves_the_digest_incomplete() {
    let site = TestSite::with(&[("page", b"here"), ("log", b"first")])
        .file("_headers", "/*\n  Cache-Control: public, max-age=60\n");
    let expected = digest(&site);
    let flags = [&ADMIN[..], &["--expect", &expected, "--expect-always"]].concat();
    let server = Server::with(&site, &flags);
    let admin = server.admin();
    let told = || {
        let digest = Client::connect(admin).get("/digest").body;
        (digest.trim_ascii().to_vec(), readyz(admin).0)
    };
    assert_eq!(told(), (expected.clone().into_bytes(), 200));
    let log = File::options().append(true).open(site.path("log")).unwrap();
    // Another version, so that it is published when it has not come to rest for 5 s; the bytes are
    // those that the digest is about.
    fs::write(site.path("log"), "first").unwrap();
    let cache_control = || {
        let response = server.client().get("/log");
        assert_eq!((response.status, &*response.body), (200, &b"first"[..]));
        response.field("Cache-Control").unwrap().to_owned()
    };
    eventually("to be published as it is", || {
        (cache_control() != "public, max-age=60").then_some(())
    });
    // No rule makes it cacheable, nor another file not.
    assert_eq!(cache_control(), "private, no-store, max-age=0");
    let page = server.client().get("/page");
    assert_eq!(page.field("Cache-Control"), Some("public, max-age=60"));
    let incomplete = format!("{expected}-incomplete").into_bytes();
    assert_eq!(told(), (incomplete, 503));
    drop(log);
    eventually("to be complete", || {
        (told() == (expected.clone().into_bytes(), 200)).then_some(())
    });
    assert_eq!(cache_control(), "public, max-age=60");
}
