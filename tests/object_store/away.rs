//! The store is away: what a replica has is served, the rest is 503, and a restart works.

use std::thread;
use std::time::{Duration, Instant};

use crate::releases::{LARGE, digest, push, site, small_site};
use crate::replicas::{Replica, admin, assert_right, visit};
use crate::support::store::{ADMIN, Ceph};
use crate::support::version;

#[test]
fn a_store_is_away_for_a_while() {
    away(Duration::from_secs(20));
}

#[test]
#[ignore = "ten minutes"]
fn a_store_is_away_for_ten_minutes() {
    away(Duration::from_secs(600));
}

fn away(time: Duration) {
    let Some(ceph) = Ceph::shared() else {
        return;
    };
    let bucket = ceph.bucket();
    let proxy = bucket.proxy();
    let new = site(1).file("assets/7-large.bin", version::content(7, LARGE));
    push(bucket.command(ADMIN), &new, &bucket, &[]).ok();
    let command = || bucket.command_through(&proxy, ADMIN);
    let mut replica = Replica::start(command(), &bucket, &["--prefetch", "small"]);
    // All but one large file is asked for once, and so is in the cache.
    visit(&mut replica.server.client());
    proxy.go_away();
    let address = replica.server.address();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let start = Instant::now();
                while start.elapsed() < time {
                    let mut client = crate::support::Client::connect(address);
                    for _ in 0..10 {
                        assert_eq!(visit(&mut client), 1);
                    }
                    let other = client.get("/assets/7-large.bin");
                    assert_eq!(other.status, 503);
                    assert!(other.field("Retry-After").is_some(), "{other:?}");
                    // A condition needs no bytes.
                    let tag = crate::support::tag(&version::content(7, LARGE));
                    let fields = [("If-None-Match", tag.as_str())];
                    let known = client.request("GET", "/assets/7-large.bin", &fields);
                    assert_eq!(known.status, 304);
                }
            });
        }
    });
    // One line says so, however many are refused.
    let log = replica.server.log();
    let lines = log.lines().filter(|line| line.contains(&bucket.url()));
    assert!((1..20).contains(&lines.count()), "{log}");

    replica.restart(command(), &bucket, &["--prefetch", "small"]);
    let log = replica.server.log();
    assert!(log.contains("release 1"), "it says what it serves: {log}");
    assert_eq!(replica.digest(), digest(&new));
    visit(&mut replica.server.client());
    let other = replica.server.client().get("/assets/7-large.bin");
    assert_eq!(other.status, 503);

    proxy.come_back();
    let other = replica.server.client();
    crate::support::tree::eventually("it is asked for again", || {
        let response = replica.server.client().get("/assets/7-large.bin");
        if response.status == 503 {
            return false;
        }
        assert_right("/assets/7-large.bin", &response);
        true
    });
    drop(other);
    let newer = small_site(2);
    push(bucket.command(ADMIN), &newer, &bucket, &[]).ok();
    replica.wait_for_digest(&digest(&newer));
}

#[test]
fn who_requires_the_store_does_not_start_without_it() {
    let Some(ceph) = Ceph::shared() else {
        return;
    };
    let bucket = ceph.bucket();
    let proxy = bucket.proxy();
    let new = small_site(1);
    push(bucket.command(ADMIN), &new, &bucket, &[]).ok();
    let command = || bucket.command_through(&proxy, ADMIN);
    let mut replica = Replica::start(command(), &bucket, &[]);
    replica.server.signal(rustix::process::Signal::TERM);
    replica.server.wait();
    proxy.go_away();
    let mut server = Replica::spawn(command(), &bucket, &replica.cache, &["--require-store"]);
    assert_eq!(server.wait().code(), Some(1));
    let said = server.log();
    assert!(
        said.contains("--require-store") && said.contains(&bucket.url()),
        "{said}"
    );
    // Who does not require it starts, and says so to whoever asks whether it is ready.
    replica.restart(command(), &bucket, &[]);
    let (status, said) = admin(&replica.server, "/readyz");
    assert_eq!(status, 200);
    assert!(
        said.contains(&bucket.url()) && said.contains("release 1"),
        "{said}"
    );
    proxy.come_back();
    crate::support::tree::eventually("nothing is remarked any more", || {
        !admin(&replica.server, "/readyz").1.contains(&bucket.url())
    });
}

#[test]
fn without_a_store_and_without_a_cache_it_waits_and_says_so() {
    let Some(ceph) = Ceph::shared() else {
        return;
    };
    let bucket = ceph.bucket();
    let proxy = bucket.proxy();
    let new = small_site(1);
    push(bucket.command(ADMIN), &new, &bucket, &[]).ok();
    proxy.go_away();
    let dir = tempfile::tempdir().unwrap();
    let command = bucket.command_through(&proxy, ADMIN);
    let server = Replica::spawn(command, &bucket, dir.path(), &[]);
    server.wait_for_line("not ready until there is something to serve");
    assert_eq!(admin(&server, "/readyz").0, 503);
    proxy.come_back();
    server.wait_until_listening();
    assert_eq!(visit(&mut server.client()), 1);
}
