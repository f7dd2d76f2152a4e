//! `etagd gc` next to publishers: what a release needs is never deleted, whoever was first.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::releases::{
    assert_complete, chance, digest, end, gc, needed, newest, push, records, site, small_site,
    start_push,
};
use crate::support::store::{ADMIN, Bucket, Ceph};
use crate::support::store_proxy::{
    CREATES, DELETES, Fault, GETS, Gate, HEADS, LISTS, Proxy, Rule, WRITES,
};

/// Deletes whatever no newest release needs, however young.
const AT_ONCE: [&str; 4] = ["--keep", "1", "--grace", "0s"];

/// How long a process may take to come to a request.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sites that come back again and again, so that what one round deletes the next one needs.
const SITES: u64 = 5;

#[test]
fn no_collector_deletes_what_a_push_needs() {
    beside_pushes(100);
}

#[test]
#[ignore = "ten minutes"]
fn no_collector_deletes_what_a_push_needs_in_a_thousand_rounds() {
    beside_pushes(1000);
}

fn beside_pushes(rounds: u64) {
    let Some(ceph) = Ceph::shared() else {
        return;
    };
    let bucket = ceph.bucket();
    let sites: Vec<_> = (0..SITES).map(site).collect();
    let digests: Vec<_> = sites.iter().map(digest).collect();
    // Where there is no release, a collector refuses.
    push(bucket.command(ADMIN), &sites[0], &bucket, &[]).ok();
    for round in 0..rounds {
        // Both channels share most of what they have.
        let channel = ["live", "pr-17"][(round % 2) as usize];
        let index = chance(round, SITES) as usize;
        let push = || {
            let flags = ["--channel", channel];
            start_push(bucket.command(ADMIN), &sites[index], &bucket, &flags)
        };
        let pause = Duration::from_micros(chance(round + 1_000_000, 100_000));
        let (push, collector) = match round % 3 {
            0 => {
                let push = push();
                std::thread::sleep(pause);
                (push, start_gc(&bucket, None))
            }
            _ => {
                let collector = start_gc(&bucket, None);
                std::thread::sleep(pause);
                (push(), collector)
            }
        };
        end(push).ok();
        end(collector).ok();
        let found = assert_complete(&bucket, channel);
        assert_eq!(found["digest"], digests[index].as_str(), "round {round}");
        let other = ["pr-17", "live"][(round % 2) as usize];
        if !records(&bucket, other).is_empty() {
            assert_complete(&bucket, other);
        }
    }
    assert_eq!(bucket.list("locks/"), [""; 0], "nobody is left");
    grow_old();
    gc(bucket.command(ADMIN), &bucket, &AT_ONCE).ok();
    assert_nothing_else(&bucket, &["live", "pr-17"]);
}

fn start_gc(bucket: &Bucket, proxy: Option<&Proxy>) -> Child {
    let mut collector = match proxy {
        Some(proxy) => bucket.command_through(proxy, ADMIN),
        None => bucket.command(ADMIN),
    };
    collector
        .args(["gc", &bucket.url()])
        .args(AT_ONCE)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    collector.spawn().unwrap()
}

/// Asserts that all that is left is what the newest release of each of these channels needs.
fn assert_nothing_else(bucket: &Bucket, channels: &[&str]) {
    let needed: BTreeSet<_> = channels
        .iter()
        .flat_map(|channel| {
            assert_eq!(records(bucket, channel).len(), 1, "{channel}");
            needed(bucket, &newest(bucket, channel))
        })
        .collect();
    let left: BTreeSet<_> = ["manifests/", "blobs/", "trees/"]
        .iter()
        .flat_map(|prefix| bucket.list(prefix))
        .collect();
    assert_eq!(left, needed);
}

/// Waits until what was written last is of an earlier second: some dates of a store have no parts of
/// one.
fn grow_old() {
    std::thread::sleep(Duration::from_millis(1100));
}

/// A site whose release 1 has been replaced by release 2, so that a collector wants what release 1
/// has, and one who pushes release 1 again does not need to send it.
fn replaced() -> Option<(Bucket, Proxy, crate::support::TestSite)> {
    let bucket = Ceph::shared()?.bucket();
    let old = site(1);
    push(bucket.command(ADMIN), &old, &bucket, &[]).ok();
    push(bucket.command(ADMIN), &site(2), &bucket, &[]).ok();
    grow_old();
    let proxy = bucket.proxy();
    Some((bucket, proxy, old))
}

#[test]
fn what_is_deleted_after_a_push_has_seen_it_is_sent_again() {
    let Some((bucket, proxy, old)) = replaced() else {
        return;
    };
    let (gate, arrivals) = Gate::new();
    // The push knows what is there, and nobody knows of the push yet.
    proxy.add(Rule::on(WRITES, "locks/push-", Fault::Hold(gate.clone())));
    let pushing = start_push(bucket.command_through(&proxy, ADMIN), &old, &bucket, &[]);
    arrivals.recv_timeout(PATIENCE).unwrap();
    let before = bucket.list("blobs/").len();
    gc(bucket.command(ADMIN), &bucket, &AT_ONCE).ok();
    assert!(bucket.list("blobs/").len() < before, "it deleted something");
    gate.open();
    end(pushing).ok();
    assert_eq!(
        assert_complete(&bucket, "live")["digest"],
        digest(&old).as_str()
    );
}

/// A push does not look twice at what the release before it needs, as long as that is there.
#[test]
fn what_a_release_needed_that_is_gone_is_sent_again() {
    let Some(ceph) = Ceph::shared() else {
        return;
    };
    let bucket = ceph.bucket();
    let base = site(1);
    push(bucket.command(ADMIN), &base, &bucket, &[]).ok();
    // Without any release, a collector would refuse.
    let preview = ["--channel", "pr-17"];
    push(bucket.command(ADMIN), &small_site(9), &bucket, &preview).ok();
    grow_old();
    let proxy = bucket.proxy();
    let (gate, arrivals) = Gate::new();
    proxy.add(Rule::on(WRITES, "locks/push-", Fault::Hold(gate.clone())));
    let new = base.file("new.txt", "new");
    let pushing = start_push(bucket.command_through(&proxy, ADMIN), &new, &bucket, &[]);
    arrivals.recv_timeout(PATIENCE).unwrap();
    // Somebody removes the channel, and a collector what only that needed.
    for key in bucket.list("channels/live/") {
        bucket.delete(&key);
    }
    gc(bucket.command(ADMIN), &bucket, &AT_ONCE).ok();
    let left = bucket.list("blobs/").len();
    gate.open();
    end(pushing).ok();
    assert!(left < needed(&bucket, &newest(&bucket, "live")).len());
    assert_eq!(
        assert_complete(&bucket, "live")["digest"],
        digest(&new).as_str()
    );
}

#[test]
fn a_push_waits_for_a_collector_that_deletes() {
    let Some((bucket, proxy, old)) = replaced() else {
        return;
    };
    let (gate, arrivals) = Gate::new();
    proxy.add(Rule::on(DELETES, "", Fault::Hold(gate.clone())));
    let collecting = start_gc(&bucket, Some(&proxy));
    arrivals.recv_timeout(PATIENCE).unwrap();
    let pushing = bucket.proxy();
    let child = start_push(bucket.command_through(&pushing, ADMIN), &old, &bucket, &[]);
    // It has seen the collector, and looks again.
    crate::support::tree::eventually("the push waits", || {
        pushing.count(LISTS, "locks") >= 2 || pushing.count(CREATES, "/channels/") > 0
    });
    assert_eq!(pushing.count(CREATES, "/channels/"), 0, "it waits");
    gate.open();
    end(collecting).ok();
    end(child).ok();
    assert_eq!(
        assert_complete(&bucket, "live")["digest"],
        digest(&old).as_str()
    );
}

#[test]
fn a_collector_waits_for_a_push_that_is_about_to_release() {
    let Some((bucket, proxy, old)) = replaced() else {
        return;
    };
    let (gate, arrivals) = Gate::new();
    proxy.add(Rule::on(
        CREATES,
        "/channels/live/",
        Fault::Hold(gate.clone()),
    ));
    let pushing = start_push(bucket.command_through(&proxy, ADMIN), &old, &bucket, &[]);
    arrivals.recv_timeout(PATIENCE).unwrap();
    let collecting = bucket.proxy();
    let child = start_gc(&bucket, Some(&collecting));
    crate::support::tree::eventually("the collector waits", || {
        collecting.count(LISTS, "locks") >= 2 || collecting.count(DELETES, "blobs") > 0
    });
    gate.open();
    end(pushing).ok();
    end(child).ok();
    assert_eq!(
        assert_complete(&bucket, "live")["digest"],
        digest(&old).as_str()
    );
}

#[test]
fn who_is_stopped_between_two_steps_leaves_no_lock() {
    let Some((bucket, proxy, old)) = replaced() else {
        return;
    };
    let (gate, arrivals) = Gate::new();
    // What is asked under the lock, and changes nothing.
    // The listing is there already, which is found out before it.
    let again = Rule::on(HEADS, "/manifests/", Fault::Hold(gate.clone())).after(1);
    proxy.add(again);
    let pushing = start_push(bucket.command_through(&proxy, ADMIN), &old, &bucket, &[]);
    arrivals.recv_timeout(PATIENCE).unwrap();
    assert_eq!(bucket.list("locks/push-").len(), 1);
    stop(pushing);
    assert_eq!(bucket.list("locks/"), [""; 0]);
    proxy.add(Rule::on(GETS, "/manifests/", Fault::Hold(gate.clone())));
    let collecting = start_gc(&bucket, Some(&proxy));
    arrivals.recv_timeout(PATIENCE).unwrap();
    assert_eq!(bucket.list("locks/gc-").len(), 1);
    stop(collecting);
    assert_eq!(bucket.list("locks/"), [""; 0]);
    gate.open();
}

/// The store may do later what it was asked.
#[test]
fn who_is_stopped_in_the_middle_of_a_step_leaves_its_lock() {
    for kind in ["push", "gc"] {
        let Some((bucket, proxy, old)) = replaced() else {
            return;
        };
        let (gate, arrivals) = Gate::new();
        let at_release = Rule::on(CREATES, "/channels/live/", Fault::Hold(gate.clone()));
        proxy.add(at_release);
        proxy.add(Rule::on(DELETES, "/blobs/", Fault::Hold(gate.clone())));
        let process = match kind {
            "push" => start_push(bucket.command_through(&proxy, ADMIN), &old, &bucket, &[]),
            _ => start_gc(&bucket, Some(&proxy)),
        };
        arrivals.recv_timeout(PATIENCE).unwrap();
        stop(process);
        assert_eq!(bucket.list(&format!("locks/{kind}-")).len(), 1, "{kind}");
        gate.open();
    }
}

/// Stops a process as a supervisor does, and waits until it has ended.
fn stop(child: Child) {
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    end(child).fails(1, &["stopped by a signal"]);
}

#[test]
fn a_number_that_was_deleted_is_not_given_again() {
    let Some((bucket, proxy, _)) = replaced() else {
        return;
    };
    let (gate, arrivals) = Gate::new();
    // It knows release 2 for the newest one.
    proxy.add(Rule::on(WRITES, "locks/push-", Fault::Hold(gate.clone())));
    let late = small_site(5);
    let pushing = start_push(bucket.command_through(&proxy, ADMIN), &late, &bucket, &[]);
    arrivals.recv_timeout(PATIENCE).unwrap();
    for version in 3..=4 {
        push(bucket.command(ADMIN), &small_site(version), &bucket, &[]).ok();
    }
    grow_old();
    gc(bucket.command(ADMIN), &bucket, &AT_ONCE).ok();
    assert_eq!(records(&bucket, "live").len(), 1, "release 3 is deleted");
    gate.open();
    end(pushing).fails(1, &["release 4"]);
    let newest = assert_complete(&bucket, "live");
    assert_eq!(newest["digest"], digest(&small_site(4)).as_str());
}

#[test]
fn what_a_collector_would_delete_is_said_and_kept() {
    let Some((bucket, ..)) = replaced() else {
        return;
    };
    let before = bucket.list("");
    let flags = [&AT_ONCE[..], &["--dry-run"]].concat();
    let ran = gc(bucket.command(ADMIN), &bucket, &flags).ok();
    assert_eq!(bucket.list(""), before);
    let said = ran.out + &ran.said;
    let gone: Vec<_> = {
        gc(bucket.command(ADMIN), &bucket, &AT_ONCE).ok();
        let after = bucket.list("");
        before.iter().filter(|key| !after.contains(key)).collect()
    };
    assert!(gone.len() > 5, "{gone:?}");
    for key in gone {
        assert!(said.contains(key.as_str()), "{key} is not in:\n{said}");
    }
}

#[test]
fn what_is_young_stays_and_so_do_the_releases_that_are_kept() {
    let Some(ceph) = Ceph::shared() else {
        return;
    };
    let bucket = ceph.bucket();
    for version in 1..=4 {
        push(bucket.command(ADMIN), &small_site(version), &bucket, &[]).ok();
    }
    let before = bucket.list("");
    gc(bucket.command(ADMIN), &bucket, &[]).ok();
    assert_eq!(bucket.list(""), before, "by default all of it is young");
    grow_old();
    gc(
        bucket.command(ADMIN),
        &bucket,
        &["--keep", "2", "--grace", "0s"],
    )
    .ok();
    let kept = records(&bucket, "live");
    let numbers: Vec<_> = kept
        .iter()
        .map(|it| it["number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [3, 4]);
    let needed: BTreeSet<_> = kept.iter().flat_map(|it| needed(&bucket, it)).collect();
    let left: BTreeSet<_> = ["manifests/", "blobs/"]
        .iter()
        .flat_map(|prefix| bucket.list(prefix))
        .collect();
    assert_eq!(left, needed);
}
