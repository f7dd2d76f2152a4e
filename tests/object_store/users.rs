//! Three users of a store with the policies from `deploy/policies`: each command works with the one
//! that is meant for it, and says what it lacks with another.

use crate::releases::{assert_complete, gc, push, records, small_site};
use crate::support::store::{Bucket, COLLECTOR, Ceph, PUBLISHER, READER, User, run};

fn bucket() -> Option<Bucket> {
    let bucket = Ceph::shared()?.bucket();
    for user in [READER, PUBLISHER, COLLECTOR] {
        bucket.allow(user);
    }
    Some(bucket)
}

#[test]
fn each_command_works_with_the_policy_for_it() {
    let Some(bucket) = bucket() else {
        return;
    };
    for version in 1..=2 {
        push(
            bucket.command(PUBLISHER),
            &small_site(version),
            &bucket,
            &[],
        )
        .ok();
    }
    let url = bucket.url();
    let listed = run(bucket.command(READER), ["releases", &url]).ok();
    assert_eq!(
        listed
            .out
            .lines()
            .filter(|line| line.contains("admin"))
            .count(),
        0
    );
    run(bucket.command(PUBLISHER), ["rollback", &url, "--to", "1"]).ok();
    gc(
        bucket.command(COLLECTOR),
        &bucket,
        &["--keep", "1", "--grace", "0s"],
    )
    .ok();
    assert_eq!(assert_complete(&bucket, "live")["rollback_to"], 1);
    assert_eq!(bucket.list("locks/"), [""; 0]);
    assert_eq!(bucket.list("probe/"), [""; 0]);
}

#[test]
fn who_may_not_is_told_which_permission_is_missing() {
    let Some(bucket) = bucket() else {
        return;
    };
    let (old, new) = (small_site(1), small_site(2));
    push(bucket.command(PUBLISHER), &old, &bucket, &[]).ok();
    push(bucket.command(PUBLISHER), &new, &bucket, &[]).ok();
    let before = bucket.list("");
    for user in [READER, COLLECTOR] {
        let ran = push(bucket.command(user), &small_site(3), &bucket, &[]);
        refused(ran.fails(1, &["s3:PutObject"]).said.as_str(), user);
        let ran = run(
            bucket.command(user),
            ["rollback", &bucket.url(), "--to", "1"],
        );
        refused(ran.fails(1, &["s3:PutObject"]).said.as_str(), user);
    }
    for (user, permission) in [(READER, "s3:PutObject"), (PUBLISHER, "s3:DeleteObject")] {
        let flags = ["--keep", "1", "--grace", "0s"];
        push(bucket.command(PUBLISHER), &old, &bucket, &[]).ok();
        push(bucket.command(PUBLISHER), &new, &bucket, &[]).ok();
        let ran = gc(bucket.command(user), &bucket, &flags);
        refused(ran.fails(1, &[permission]).said.as_str(), user);
    }
    let after = bucket.list("");
    for key in before {
        assert!(after.contains(&key), "{key} is gone");
    }
    assert_eq!(records(&bucket, "live").len(), 6);
}

/// A line that names the store, and no secret.
fn refused(said: &str, user: User) {
    assert!(said.contains("s3://"), "{user:?}: {said}");
    assert!(!said.contains("secret-"), "{user:?}: {said}");
    assert!(said.lines().count() <= 6, "{user:?}: {said}");
}
