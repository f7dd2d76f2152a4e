//! What a publisher says where a store fails or lies, and that nothing half is ever visible.

use std::collections::BTreeSet;

use crate::releases::{assert_complete, digest, push, records, site, small_site};
use crate::support::store::{ADMIN, Bucket, Ceph, Ran};
use crate::support::store_proxy::{CREATES, Fault, Kind, LISTS, Proxy, Rule, WRITES};

fn behind_a_proxy() -> Option<(Bucket, Proxy)> {
    let bucket = Ceph::shared()?.bucket();
    let proxy = bucket.proxy();
    Some((bucket, proxy))
}

/// Publishes version 1 through the proxy, which has a rule.
fn push_with(bucket: &Bucket, proxy: &Proxy, rule: Rule, flags: &[&str]) -> Ran {
    proxy.add(rule);
    let command = bucket.command_through(proxy, ADMIN);
    let ran = push(command, &small_site(1), bucket, flags);
    proxy.clear();
    ran
}

#[test]
fn a_store_that_creates_twice_is_refused() {
    let Some((bucket, proxy)) = behind_a_proxy() else {
        return;
    };
    let lie = || Rule::on(CREATES, "", Fault::PretendCreated);
    push_with(&bucket, &proxy, lie(), &[]).fails(1, &["--single-writer"]);
    assert_eq!(bucket.list(""), [""; 0], "nothing is left there");
    push_with(&bucket, &proxy, lie(), &["--single-writer"]).ok();
    assert_complete(&bucket, "live");
}

#[test]
fn what_passes_is_tried_again() {
    let Some((bucket, proxy)) = behind_a_proxy() else {
        return;
    };
    let faults = [
        Fault::Refuse(500, "InternalError"),
        Fault::Refuse(503, "SlowDown"),
        Fault::Close,
        Fault::LoseAnswer,
        // Made and not said: the next attempt finds what it is about to make.
        Fault::Deny(500, "InternalError"),
        Fault::Deny(503, "SlowDown"),
    ];
    let places = [
        (WRITES, "/blobs/"),
        (WRITES, "/manifests/"),
        (CREATES, "/channels/live/0"),
        (WRITES, "/channels/live/latest"),
        (LISTS, ""),
    ];
    let mut version = 0;
    for fault in faults {
        for (kind, part) in places {
            version += 1;
            let struck = proxy.struck();
            proxy.add(Rule::on(kind, part, fault.clone()).times(1));
            let site = small_site(version);
            push(bucket.command_through(&proxy, ADMIN), &site, &bucket, &[]).ok();
            proxy.clear();
            assert_eq!(proxy.struck(), struck + 1, "{kind:?} {part} happened");
            let found = assert_complete(&bucket, "live");
            assert_eq!(found["digest"], digest(&site).as_str(), "{kind:?} {part}");
            assert_eq!(
                found["number"], version,
                "{kind:?} {part}: each has one number"
            );
        }
    }
}

#[test]
fn a_conflict_is_tried_again() {
    let Some((bucket, proxy)) = behind_a_proxy() else {
        return;
    };
    for (index, part) in ["/manifests/", "/channels/live/0"].into_iter().enumerate() {
        let conflict = Fault::Refuse(409, "ConditionalRequestConflict");
        proxy.add(Rule::on(CREATES, part, conflict).times(1));
        let site = small_site(index as u64 + 1);
        push(bucket.command_through(&proxy, ADMIN), &site, &bucket, &[]).ok();
        proxy.clear();
        assert_eq!(
            assert_complete(&bucket, "live")["digest"],
            digest(&site).as_str()
        );
    }
}

#[test]
fn what_does_not_pass_is_said_in_one_line() {
    let Some((bucket, proxy)) = behind_a_proxy() else {
        return;
    };
    let rows: [(&'static [Kind], Fault, &[&str]); 7] = [
        (
            LISTS,
            Fault::Refuse(403, "AccessDenied"),
            &["s3:ListBucket"],
        ),
        (
            CREATES,
            Fault::Refuse(403, "AccessDenied"),
            &["s3:PutObject"],
        ),
        (
            CREATES,
            Fault::Refuse(403, "RequestTimeTooSkewed"),
            &["clock"],
        ),
        (CREATES, Fault::Refuse(400, "ExpiredToken"), &["expired"]),
        (
            CREATES,
            Fault::Refuse(403, "SignatureDoesNotMatch"),
            &["AWS_SECRET_ACCESS_KEY"],
        ),
        (
            CREATES,
            Fault::Refuse(403, "InvalidAccessKeyId"),
            &["AWS_ACCESS_KEY_ID"],
        ),
        (
            CREATES,
            Fault::Refuse(301, "PermanentRedirect"),
            &["AWS_REGION"],
        ),
    ];
    for (kind, fault, naming) in rows {
        let ran = push_with(&bucket, &proxy, Rule::on(kind, "", fault), &[]);
        let said = ran.fails(1, naming).said;
        assert!(said.contains(&bucket.url()), "which store: {said}");
        assert!(said.trim().lines().count() <= 3, "{said}");
        assert!(!said.contains("secret-admin"), "{said}");
        assert_eq!(records(&bucket, "live").len(), 0);
    }
}

#[test]
fn a_bucket_that_is_not_there_is_named() {
    let Some((bucket, proxy)) = behind_a_proxy() else {
        return;
    };
    let url = format!("s3://not-{}/site", bucket.name);
    let dir = small_site(1);
    let dir = dir.root();
    let arguments = ["push", dir.to_str().unwrap(), &url];
    let ran = crate::support::store::run(bucket.command_through(&proxy, ADMIN), arguments);
    ran.fails(1, &["bucket", &url]);
}

#[test]
fn a_store_that_is_away_is_said_and_the_next_push_sends_the_rest() {
    let Some((bucket, proxy)) = behind_a_proxy() else {
        return;
    };
    // Away from the middle of the upload on.
    let rule = Rule::on(WRITES, "/blobs/", Fault::Refuse(403, "AccessDenied")).after(4);
    proxy.add(rule);
    let new = site(1);
    push(bucket.command_through(&proxy, ADMIN), &new, &bucket, &[]).fails(1, &[]);
    proxy.clear();
    assert_eq!(records(&bucket, "live").len(), 0);
    let sent: BTreeSet<_> = bucket.list("blobs/").into_iter().collect();
    assert!(!sent.is_empty());
    let before = proxy.asked().len();
    push(bucket.command_through(&proxy, ADMIN), &new, &bucket, &[]).ok();
    for asked in &proxy.asked()[before..] {
        let key = asked.key.strip_prefix("site/").unwrap_or_default();
        let is_write = matches!(asked.kind, Kind::Create | Kind::Put);
        assert!(!is_write || !sent.contains(key), "{key} is sent again");
    }
    assert_complete(&bucket, "live");
}

#[test]
fn what_is_published_already_sends_nothing() {
    let Some((bucket, proxy)) = behind_a_proxy() else {
        return;
    };
    let site = small_site(1);
    push(bucket.command(ADMIN), &site, &bucket, &[]).ok();
    push(bucket.command_through(&proxy, ADMIN), &site, &bucket, &[]).ok();
    assert_eq!(proxy.count(WRITES, "/blobs/"), 0);
}
