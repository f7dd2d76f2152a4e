//! Where the server listens, and what it says where it can't.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::FileTypeExt;

use rustix::process::Signal;
use support::{Client, Server, TestSite};

fn site() -> TestSite {
    TestSite::with(&[("file.txt", b"content")])
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    Server::assert_fails(
        &site().root(),
        &["--listen", &address],
        1,
        &[&address, "in use"],
    );
}

#[test]
fn a_port_that_is_taken_is_reported_before_a_long_scan() {
    let site = TestSite::new();
    fs::File::create(site.path("sparse"))
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    Server::assert_fails(&site.root(), &["--listen", &address], 1, &[&address]);
}

#[test]
fn one_taken_port_among_free_ones() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let flags = ["--listen", "127.0.0.1:0", "--listen", &address];
    Server::assert_fails(&site().root(), &flags, 1, &[&address]);
}

#[test]
fn an_address_that_is_not_this_machines() {
    Server::assert_fails(
        &site().root(),
        &["--listen", "192.0.2.1:0"],
        1,
        &["192.0.2.1"],
    );
}

#[test]
fn listening_is_said_once_for_each_address_with_its_real_port() {
    let site = site();
    let flags = ["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"];
    let server = Server::with(&site, &flags);
    let log = server.log();
    let ports: Vec<u16> = log
        .lines()
        .filter_map(|line| line.split_once("listening on http://127.0.0.1:"))
        .map(|(_, port)| port.trim_end_matches('/').parse().unwrap())
        .collect();
    assert_eq!(ports.len(), 2, "{log}");
    assert_ne!(ports[0], ports[1]);
    for port in ports {
        let mut client = Client::connect(([127, 0, 0, 1], port).into());
        assert_eq!(client.get("/file.txt").body, b"content");
    }
}

#[test]
fn ipv6() {
    let site = site();
    if TcpListener::bind("[::1]:0").is_err() {
        #[allow(clippy::print_stderr)]
        {
            eprintln!("skipped: this machine has no IPv6");
        }
        return;
    }
    let server = Server::with(&site, &["--listen", "[::1]:0"]);
    assert!(server.address().is_ipv6());
    assert!(server.log().contains("listening on http://[::1]:"));
    assert_eq!(server.client().get("/file.txt").body, b"content");
}

#[test]
fn all_addresses_are_said_as_a_browser_takes_them() {
    for listen in ["0.0.0.0:0", ":0"] {
        if listen == ":0" && TcpListener::bind("[::]:0").is_err() {
            continue;
        }
        let server = Server::with(&site(), &["--listen", listen]);
        let log = server.log();
        let (_, port) = log.split_once("listening on http://localhost:").unwrap();
        let port: String = port.chars().take_while(char::is_ascii_digit).collect();
        let mut client = Client::connect(([127, 0, 0, 1], port.parse().unwrap()).into());
        assert_eq!(client.get("/file.txt").body, b"content");
    }
}

#[test]
fn a_unix_socket() {
    let site = site();
    let socket = site.outside("etagd.sock");
    let address = format!("unix:{}", socket.display());
    let mut server = Server::with(&site, &["--listen", &address]);
    assert!(
        server.log().contains(&format!("listening on {address}")),
        "{}",
        server.log()
    );
    assert!(fs::metadata(&socket).unwrap().file_type().is_socket());
    let mut client = Client::connect_unix(&socket);
    for _ in 0..2 {
        assert_eq!(client.get("/file.txt").body, b"content");
    }
    // A second server there reports it, and the first stays.
    Server::assert_fails(&site.root(), &["--listen", &address], 1, &["etagd.sock"]);
    assert_eq!(Client::connect_unix(&socket).get("/file.txt").status, 200);
    drop(client);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    assert!(!socket.exists(), "the socket is left behind");
}

#[test]
fn a_unix_socket_that_a_killed_server_left_behind() {
    let site = site();
    let socket = site.outside("etagd.sock");
    let address = format!("unix:{}", socket.display());
    drop(Server::with(&site, &["--listen", &address]));
    assert!(socket.exists(), "killed, so it is still there");
    let _server = Server::with(&site, &["--listen", &address]);
    assert_eq!(Client::connect_unix(&socket).get("/file.txt").status, 200);
}

#[test]
fn a_file_in_the_place_of_a_unix_socket_is_not_removed() {
    let site = site().file_outside("precious", b"data");
    let path = site.outside("precious");
    let address = format!("unix:{}", path.display());
    Server::assert_fails(&site.root(), &["--listen", &address], 1, &["precious"]);
    assert_eq!(fs::read(path).unwrap(), b"data");
}
