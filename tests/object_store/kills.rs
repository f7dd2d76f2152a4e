//! Processes that are killed in the middle: what they leave is never a broken release, and the next
//! one goes on.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::releases::{
    assert_complete, assert_whole, chance, digest, end, gc, push, records, site, start_push,
};
use crate::replicas::{Replica, visit};
use crate::support::store::{ADMIN, Bucket, Ceph};
use crate::support::store_proxy::{Fault, Gate, Proxy, Rule};

/// How long a process may take to come to where it is killed.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn no_kill_of_a_push_leaves_half_a_release() {
    kill_pushes(10);
}

#[test]
#[ignore = "two minutes"]
fn nor_do_a_hundred() {
    kill_pushes(100);
}

/// Kills a push at one request after another: before the store has heard of it, once it has, and at
/// any time between two.
fn kill_pushes(kills: u64) {
    let Some(ceph) = Ceph::shared() else {
        return;
    };
    let bucket = ceph.bucket();
    let proxy = bucket.proxy();
    publish(&bucket, 0);
    // Each version has a dozen objects of its own.
    let requests = {
        let before = proxy.asked().len();
        push(
            bucket.command_through(&proxy, ADMIN),
            &site(1),
            &bucket,
            &[],
        )
        .ok();
        (proxy.asked().len() - before) as u64
    };
    assert!(requests > 10, "{requests}");
    let mut serving = digest(&site(1));
    let mut half_done = 0;
    for kill in 0..kills {
        let new = site(kill + 2);
        let at = chance(kill, requests);
        let child = start_push(bucket.command_through(&proxy, ADMIN), &new, &bucket, &[]);
        kill_at(&proxy, child.id(), at, kill);
        end(child);
        proxy.clear();
        proxy.wait_until_left();
        // What is the newest release is whole, and one of the two.
        let found = assert_complete(&bucket, "live")["digest"].clone();
        let wanted = digest(&new);
        assert!(
            found == serving.as_str() || found == wanted.as_str(),
            "kill {kill} at request {at}: {found}"
        );
        half_done += u64::from(found != wanted.as_str());
        push(bucket.command(ADMIN), &new, &bucket, &[]).ok();
        assert_eq!(assert_complete(&bucket, "live")["digest"], wanted.as_str());
        serving = wanted;
    }
    assert!(
        half_done > kills / 2,
        "{half_done} of {kills} killed in time"
    );
}

fn publish(bucket: &Bucket, version: u64) -> crate::support::TestSite {
    let site = site(version);
    push(bucket.command(ADMIN), &site, bucket, &[]).ok();
    site
}

/// Kills a process at its request of this number. In every third round the store hears of the request
/// after that, in every third it had answered it.
pub(crate) fn kill_at(proxy: &Proxy, pid: u32, at: u64, round: u64) {
    let (gate, arrivals) = Gate::new();
    let fault = match round % 3 {
        0 => Fault::Hold(gate.clone()),
        1 => Fault::HoldAnswer(gate.clone()),
        _ => Fault::Close,
    };
    proxy.add(Rule::always(fault).after(at as u32).times(1));
    if round % 3 < 2 {
        // It may make fewer requests this time, and be through.
        let _ = arrivals.recv_timeout(PATIENCE.min(Duration::from_secs(5)));
    } else {
        std::thread::sleep(Duration::from_micros(chance(round, 300_000)));
    }
    let pid = Pid::from_raw(pid as i32).unwrap();
    // It may have ended; nobody has waited for it, so the number is still its own.
    let _ = kill_process(pid, Signal::KILL);
    gate.open();
}

#[test]
fn no_kill_of_a_collector_takes_what_is_needed() {
    kill_collectors(10);
}

#[test]
#[ignore = "two minutes"]
fn nor_do_a_hundred_kills_of_collectors() {
    kill_collectors(100);
}

fn kill_collectors(kills: u64) {
    let Some(ceph) = Ceph::shared() else {
        return;
    };
    let bucket = ceph.bucket();
    let proxy = bucket.proxy();
    for kill in 0..kills {
        let new = publish(&bucket, kill);
        let mut collector = bucket.command_through(&proxy, ADMIN);
        let url = bucket.url();
        collector.args(["gc", &url, "--keep", "1", "--grace", "0s"]);
        let child = collector.spawn().unwrap();
        kill_at(&proxy, child.id(), chance(kill, 12), kill);
        end(child);
        proxy.clear();
        proxy.wait_until_left();
        assert_eq!(
            assert_complete(&bucket, "live")["digest"],
            digest(&new).as_str()
        );
        // A release goes before what it needs.
        for record in records(&bucket, "live") {
            assert_whole(&bucket, &record);
        }
        // Nobody holds them any more, but that shows after an hour.
        for lock in bucket.list("locks/") {
            bucket.delete(&lock);
        }
    }
    // Some dates of a store have whole seconds.
    std::thread::sleep(Duration::from_millis(1100));
    gc(
        bucket.command(ADMIN),
        &bucket,
        &["--keep", "1", "--grace", "0s"],
    )
    .ok();
    let newest = assert_complete(&bucket, "live");
    let needed = crate::releases::needed(&bucket, &newest);
    let left: std::collections::BTreeSet<_> = ["manifests/", "blobs/", "trees/"]
        .iter()
        .flat_map(|prefix| bucket.list(prefix))
        .collect();
    assert_eq!(left, needed, "only what is needed is left");
}

#[test]
fn no_kill_of_a_replica_leaves_a_mixture() {
    kill_replicas(5);
}

#[test]
#[ignore = "two minutes"]
fn nor_do_fifty_kills_of_replicas() {
    kill_replicas(50);
}

/// Kills a replica at one request after another, while it takes its first release or the next one,
/// and starts another with what is in its cache.
fn kill_replicas(kills: u64) {
    let Some(ceph) = Ceph::shared() else {
        return;
    };
    let bucket = ceph.bucket();
    let proxy = bucket.proxy();
    publish(&bucket, 0);
    let command = || bucket.command_through(&proxy, ADMIN);
    let mut replica = Replica::start(command(), &bucket, &["--prefetch", "all"]);
    let requests = proxy.asked().len() as u64;
    for kill in 0..kills {
        let new = publish(&bucket, kill + 1);
        let at = chance(kill, requests);
        if kill % 2 == 0 {
            // Of a start.
            replica.server.kill();
            let flags = ["--prefetch", "all"];
            let mut server = Replica::spawn(command(), &bucket, &replica.cache, &flags);
            kill_at(&proxy, server.pid(), at, kill);
            server.wait();
        } else {
            kill_at(&proxy, replica.server.pid(), at, kill);
        }
        proxy.clear();
        proxy.wait_until_left();
        replica.restart(command(), &bucket, &["--prefetch", "all"]);
        // It may begin with the release that it had, and goes on to the next.
        let version = visit(&mut replica.server.client());
        assert!(
            [kill, kill + 1].contains(&version),
            "kill {kill}: {version}"
        );
        replica.wait_for_digest(&digest(&new));
        assert_eq!(visit(&mut replica.server.client()), kill + 1);
    }
}
