//! `etagd serve STORE`: a server that follows the releases of a store. The stores are folders here, and
//! the servers and publishers are real processes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod back;
mod damage;
mod flags;
mod kills;
mod large;
mod offline;
mod old;
mod releases;
#[path = "../support/mod.rs"]
mod support;
mod waiting;

use std::time::Duration;

use rustix::process::Signal;
use support::tree::eventually;
use support::{Client, Server};

/// Looks for releases so often, where a test waits for one.
const OFTEN: [&str; 2] = ["--poll", "50ms"];
/// Looks for releases so seldom that nothing but a request, a signal or a start does.
const SELDOM: [&str; 2] = ["--poll", "1h"];
/// Answers the operator.
const ADMIN: [&str; 2] = ["--admin", "127.0.0.1:0"];

/// Something that a server counts, without its prefix.
fn metric(server: &Server, name: &str) -> u64 {
    let page = Client::connect(server.admin()).get("/metrics").body;
    let page = String::from_utf8(page).unwrap();
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(&format!("etagd_{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in:\n{page}"))
        .parse()
        .unwrap()
}

/// What the operator is told at a path.
fn told(server: &Server, path: &str) -> (u16, String) {
    let response = Client::connect(server.admin()).get(path);
    (response.status, String::from_utf8(response.body).unwrap())
}

/// Waits until the release with this number is served.
#[track_caller]
fn wait_for_release(server: &Server, number: u64) {
    eventually(&format!("release {number} is served"), || {
        metric(server, "store_release") == number
    });
}

/// Ends a server in order.
fn stop(mut server: Server) {
    server.signal(Signal::INT);
    assert!(server.wait().success());
}

/// The status of a path.
fn status(server: &Server, path: &str) -> u16 {
    server.client().get(path).status
}

/// Long enough for several looks of a server that looks [`OFTEN`].
const A_WHILE: Duration = Duration::from_millis(400);
