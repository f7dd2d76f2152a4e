//! Requests that a store does not answer are made again, not for ever, and not in silence.

use crate::releases::{assert_complete, gc, push, small_site};
use crate::support::store::{ADMIN, Ceph, Ran, run};
use crate::support::store_proxy::{Fault, GETS, LISTS, Rule, WRITES};

const SLOW: Fault = Fault::Refuse(503, "SlowDown");

/// The lines that say that requests are made again.
fn retrying(ran: &Ran) -> Vec<&str> {
    let lines = ran.said.lines();
    lines.filter(|line| line.contains("retrying")).collect()
}

#[test]
fn a_push_that_is_slowed_down_says_so_in_one_line_and_goes_on() {
    let Some(ceph) = Ceph::shared() else {
        return;
    };
    let bucket = ceph.bucket();
    let proxy = bucket.proxy();
    let through = || bucket.command_through(&proxy, ADMIN);
    // One or two are nobody's concern.
    proxy.add(Rule::on(WRITES, "/blobs/", SLOW).times(2));
    let ran = push(through(), &small_site(1), &bucket, &[]).ok();
    assert_eq!(retrying(&ran).len(), 0, "{}", ran.said);
    proxy.add(Rule::on(WRITES, "/blobs/", SLOW).times(5));
    let ran = push(through(), &small_site(2), &bucket, &[]).ok();
    let [line] = retrying(&ran)[..] else {
        panic!("one line: {}", ran.said);
    };
    let says = format!(
        "requests to {} have failed so far, the last one because the store answers 503 (SlowDown",
        bucket.url()
    );
    assert!(line.contains(&says), "{line}");
    assert_complete(&bucket, "live");
}

#[test]
fn who_is_slowed_down_for_ever_gives_up_and_says_how_often_it_has_asked() {
    let Some(ceph) = Ceph::shared() else {
        return;
    };
    let bucket = ceph.bucket();
    push(bucket.command(ADMIN), &small_site(1), &bucket, &[]).ok();
    let proxy = bucket.proxy();
    let through = || bucket.command_through(&proxy, ADMIN);
    let url = bucket.url();
    let asked = |rule: Rule, command: &dyn Fn() -> Ran| {
        let struck = proxy.struck();
        proxy.add(rule);
        let ran = command();
        proxy.clear();
        let ran = ran.fails(1, &["answers 503 (SlowDown", "; it was asked 6 times"]);
        assert_eq!(retrying(&ran).len(), 1, "{}", ran.said);
        proxy.struck() - struck
    };
    let lists = || Rule::on(LISTS, "", SLOW);
    let releases = || run(through(), ["releases", &url]);
    assert_eq!(asked(lists(), &releases), 6);
    assert_eq!(asked(lists(), &|| gc(through(), &bucket, &[])), 6);
    let back = || run(through(), ["rollback", &url, "--to", "1"]);
    assert_eq!(asked(Rule::on(GETS, "/channels/live/0", SLOW), &back), 6);
    // All that are under way are given up with the first.
    let blobs = Rule::on(WRITES, "/blobs/", SLOW);
    let most = asked(blobs, &|| push(through(), &small_site(2), &bucket, &[]));
    assert!((6..=6 * 7).contains(&most), "{most}");
}
