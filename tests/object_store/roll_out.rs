//! Three replicas behind HAProxy that follow one channel, while releases come and visitors read.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::releases::{digest, named_in, push, site};
use crate::replicas::{Replica, assert_right, visit};
use crate::support::Client;
use crate::support::fleet::own_network;
use crate::support::front::Front;
use crate::support::store::{ADMIN, Bucket, Ceph, PUBLISHER, READER};
use crate::support::tree::EndOfWork;

const VISITORS: usize = 4;
const POLL: Duration = Duration::from_secs(2);

#[test]
fn releases_come_while_visitors_read() {
    roll_out(6);
}

#[test]
#[ignore = "three minutes"]
fn thirty_releases_come_while_visitors_read() {
    roll_out(30);
}

fn start(bucket: &Bucket) -> [Replica; 3] {
    let net = own_network();
    [1, 2, 3].map(|number| {
        let any = SocketAddr::from(([127, net[0], net[1], number], 0)).to_string();
        let flags = ["--listen", &any, "--admin", &any, "--poll", "2s"];
        let flags = [&flags[..], &["--keep-old", "1h"]].concat();
        Replica::start(bucket.command(READER), bucket, &flags)
    })
}

fn roll_out(releases: u64) {
    let Some(ceph) = Ceph::shared() else {
        return;
    };
    let bucket = ceph.bucket();
    bucket.allow(READER);
    bucket.allow(PUBLISHER);
    push(bucket.command(PUBLISHER), &site(0), &bucket, &[]).ok();
    let replicas = start(&bucket);
    let addresses = replicas
        .each_ref()
        .map(|replica| (replica.server.address(), replica.server.admin()));
    let Some(mut front) = Front::haproxy_of(addresses) else {
        return;
    };
    front.wait_for_servers(3);
    let (is_over, visits) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut slowest = Duration::ZERO;
    thread::scope(|scope| {
        let end = EndOfWork(&is_over);
        let visitors: Vec<_> = (0..VISITORS)
            .map(|_| {
                let client = front.client();
                scope.spawn(|| read_all_the_time(client, &is_over, &visits))
            })
            .collect();
        for version in 1..=releases {
            let new = site(version);
            push(bucket.command(PUBLISHER), &new, &bucket, &[]).ok();
            let wanted = digest(&new);
            let published = Instant::now();
            for replica in &replicas {
                replica.wait_for_digest(&wanted);
            }
            slowest = slowest.max(published.elapsed());
            every_revalidation_is_a_304(&mut front.client());
        }
        drop(end);
        for visitor in visitors {
            visitor.join().expect("nothing that is named is missing");
        }
    });
    let visits = visits.load(Ordering::SeqCst);
    assert!(visits > releases, "{visits} visits");
    assert!(slowest <= POLL * 2, "they agree after {slowest:?}");
}

fn read_all_the_time(mut client: Client<UnixStream>, is_over: &AtomicBool, visits: &AtomicU64) {
    while !is_over.load(Ordering::SeqCst) {
        visit(&mut client);
        visits.fetch_add(1, Ordering::SeqCst);
    }
}

/// What one replica has answered is still good at any other.
fn every_revalidation_is_a_304(client: &mut Client<UnixStream>) {
    let page = client.get("/");
    let (_, mut paths) = named_in(&page.body);
    paths.push("/".to_owned());
    for path in paths {
        let found = client.get(&path);
        let tag = found.field("ETag").expect("a tag").to_owned();
        // Each replica has its turn.
        for _ in 0..6 {
            let again = client.request("GET", &path, &[("If-None-Match", &tag)]);
            assert_eq!(again.status, 304, "{path}");
        }
    }
}

#[test]
fn what_another_replica_has_named_is_there() {
    let Some(ceph) = Ceph::shared() else {
        return;
    };
    let bucket = ceph.bucket();
    let publish = |version| {
        push(bucket.command(ADMIN), &site(version), &bucket, &[]).ok();
    };
    publish(1);
    publish(2);
    // It has never served release 1, and would not look for release 3 for an hour.
    let flags = ["--keep-old", "1h", "--poll", "1h", "--sweep", "1h"];
    let replica = Replica::start(bucket.command(ADMIN), &bucket, &flags);
    let mut client = replica.server.client();
    for version in [1, 2] {
        for name in ["a.js", "large.bin"] {
            let path = format!("/assets/{version}-{name}");
            assert_right(&path, &client.get(&path));
        }
    }
    assert_eq!(visit(&mut client), 2);
    publish(3);
    assert_eq!(visit(&mut client), 2);
    // Somebody else serves release 3 already.
    assert_right("/assets/3-a.js", &client.get("/assets/3-a.js"));
    assert_eq!(visit(&mut client), 3);
    assert_right("/assets/1-large.bin", &client.get("/assets/1-large.bin"));
}
