//! A store that lies to a replica, or fails: one clear line and a counter, the last good release is
//! served, and no body that completes is wrong.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::releases::{LARGE, digest, needed, newest, push, site, small_site};
use crate::replicas::{Replica, assert_right, get, metric, visit};
use crate::support::Server;
use crate::support::server::limited;
use crate::support::store::{ADMIN, Bucket, Ceph, READER};
use crate::support::store_proxy::{Fault, GETS, LISTS, Proxy, Rule};
use crate::support::tree::{eventually, stays, within};

/// What a replica counts of a store that lies or fails.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Counts {
    refused: f64,
    delayed: f64,
    polls: f64,
    fetches: f64,
    cut: f64,
    unproven: f64,
}

fn counts(replica: &Replica) -> Counts {
    let count = |name: &str| metric(&replica.server, &format!("etagd_{name}_total"));
    Counts {
        refused: count("store_releases_refused"),
        delayed: count("store_releases_delayed"),
        polls: count("store_failed_polls"),
        fetches: count("store_failed_fetches"),
        cut: metric(
            &replica.server,
            r#"etagd_cut_responses_total{reason="unproven"}"#,
        ),
        unproven: count("verification_failures"),
    }
}

/// A replica of release 1 that reaches the store through a proxy.
struct Ground {
    bucket: Bucket,
    proxy: Proxy,
    replica: Replica,
}

fn ground(flags: &[&str]) -> Option<Ground> {
    let bucket = Ceph::shared()?.bucket();
    push(bucket.command(ADMIN), &small_site(1), &bucket, &[]).ok();
    let proxy = bucket.proxy();
    let replica = Replica::start(bucket.command_through(&proxy, ADMIN), &bucket, flags);
    Some(Ground {
        bucket,
        proxy,
        replica,
    })
}

#[test]
fn no_lie_about_a_release_is_served() {
    let Some(ground) = ground(&["--sweep", "1s"]) else {
        return;
    };
    let Ground {
        bucket,
        proxy,
        replica,
    } = &ground;
    // Where the store does not answer, or not now, the release is delayed; where it answers something else,
    // it is refused, and tried again with each sweep.
    let faults = [
        ("a bit is flipped", Fault::FlipBit, true),
        ("half of it", Fault::Shorten, true),
        ("cut", Fault::CutBody, false),
        ("no answer", Fault::Close, false),
        ("404", Fault::Refuse(404, "NoSuchKey"), true),
        ("403", Fault::Refuse(403, "AccessDenied"), true),
        ("500", Fault::Refuse(500, "InternalError"), false),
        ("503", Fault::Refuse(503, "SlowDown"), false),
        ("409", Fault::Refuse(409, "OperationAborted"), true),
        ("expired", Fault::Refuse(400, "ExpiredToken"), true),
        ("skewed", Fault::Refuse(403, "RequestTimeTooSkewed"), true),
        ("region", Fault::Refuse(301, "PermanentRedirect"), true),
    ];
    let places = ["/channels/live/0", "/manifests/", "/blobs/"];
    let mut version = 1;
    for (name, fault, is_refused) in faults {
        for part in places {
            let before = digest(&small_site(version));
            replica.wait_for_digest(&before);
            let (struck, lines) = (proxy.struck(), replica.server.log().lines().count());
            let counted = counts(replica);
            proxy.add(Rule::on(GETS, part, fault.clone()));
            version += 1;
            let new = small_site(version);
            push(bucket.command(ADMIN), &new, bucket, &[]).ok();
            eventually(&format!("{name} of {part} is said"), || {
                let log = replica.server.log();
                proxy.struck() > struck
                    && log
                        .lines()
                        .skip(lines)
                        .any(|line| line.contains(&bucket.url()))
            });
            assert_eq!(replica.digest(), before, "{name} of {part}");
            assert_eq!(visit(&mut replica.server.client()), version - 1);
            let said = replica.server.log().lines().count() - lines;
            assert!(said <= 6, "{name} of {part}: {}", replica.server.log());
            let now = counts(replica);
            match is_refused {
                true => {
                    assert_eq!(now.refused, counted.refused + 1.0, "{name} of {part}: once");
                    assert_eq!(now.delayed, counted.delayed, "{name} of {part}");
                }
                false => {
                    assert!(now.delayed > counted.delayed, "{name} of {part}: {now:?}");
                    assert_eq!(now.refused, counted.refused, "{name} of {part}");
                }
            }
            // The store has said which releases there are, and no body is wrong.
            let rest = |counts: Counts| (counts.polls, counts.cut, counts.unproven);
            assert_eq!(rest(now), rest(counted), "{name} of {part}");
            proxy.clear();
            replica.wait_for_digest(&digest(&new));
            assert_eq!(visit(&mut replica.server.client()), version);
        }
    }
}

#[test]
fn no_refusal_of_a_store_takes_a_replica_down() {
    let Some(Ground {
        bucket,
        proxy,
        replica,
    }) = ground(&["--sweep", "1s"])
    else {
        return;
    };
    let faults: [(&str, Fault); 9] = [
        ("a permission", Fault::Refuse(403, "AccessDenied")),
        ("bucket", Fault::Refuse(404, "NoSuchBucket")),
        ("expired", Fault::Refuse(400, "ExpiredToken")),
        ("clock", Fault::Refuse(403, "RequestTimeTooSkewed")),
        ("AWS_REGION", Fault::Refuse(301, "PermanentRedirect")),
        (
            "AWS_REGION",
            Fault::Refuse(400, "AuthorizationHeaderMalformed"),
        ),
        ("500", Fault::Refuse(500, "InternalError")),
        ("SlowDown", Fault::Refuse(503, "SlowDown")),
        ("", Fault::Close),
    ];
    for (index, (part, fault)) in faults.into_iter().enumerate() {
        let version = index as u64 + 1;
        let before = digest(&small_site(version));
        replica.wait_for_digest(&before);
        let lines = replica.server.log().lines().count();
        let counted = counts(&replica);
        proxy.add(Rule::always(fault));
        // Some are tried again for a while first.
        within(Duration::from_secs(60), part, || {
            let log = replica.server.log();
            let mut new = log.lines().skip(lines);
            new.any(|line| line.contains(part) && line.contains(&bucket.url()))
        });
        let new = small_site(version + 1);
        push(bucket.command(ADMIN), &new, &bucket, &[]).ok();
        stays(
            Duration::from_secs(1),
            "the last good release is served",
            || visit(&mut replica.server.client()) == version,
        );
        let said = replica.server.log().lines().count() - lines;
        assert!(said <= 3, "{part}: {}", replica.server.log());
        let now = counts(&replica);
        assert!(now.polls > counted.polls, "{part}: {now:?}");
        assert_eq!(now.refused, counted.refused, "{part}: {now:?}");
        proxy.clear();
        replica.wait_for_digest(&digest(&new));
    }
}

#[test]
fn who_may_not_read_is_told_so_at_the_start() {
    let Some(ceph) = Ceph::shared() else {
        return;
    };
    let bucket = ceph.bucket();
    push(bucket.command(ADMIN), &small_site(1), &bucket, &[]).ok();
    let dir = tempfile::tempdir().unwrap();
    // Nobody has let the reader into this bucket.
    let server = Replica::spawn(bucket.command(READER), &bucket, dir.path(), &[]);
    server.wait_for_line("lack a permission");
    bucket.allow(READER);
    let server = Replica::start(bucket.command(READER), &bucket, &[]);
    assert_eq!(visit(&mut server.server.client()), 1);
}

#[test]
fn what_happens_once_is_tried_again() {
    let Some(Ground {
        bucket,
        proxy,
        replica,
    }) = ground(&["--sweep", "1s"])
    else {
        return;
    };
    let faults = [
        Fault::FlipBit,
        Fault::Shorten,
        Fault::CutBody,
        Fault::Close,
        Fault::Refuse(500, "InternalError"),
        Fault::Refuse(503, "SlowDown"),
    ];
    let mut version = 1;
    for fault in faults {
        for part in ["/channels/live/0", "/manifests/", "/blobs/"] {
            let refused = counts(&replica).refused;
            proxy.add(Rule::on(GETS, part, fault.clone()).times(1));
            version += 1;
            let new = small_site(version);
            push(bucket.command(ADMIN), &new, &bucket, &[]).ok();
            replica.wait_for_digest(&digest(&new));
            // A record with another digit may be a record. What has a hash is read again at once.
            if !part.contains("channels") {
                assert_eq!(counts(&replica).refused, refused, "{part}");
            }
            assert_eq!(visit(&mut replica.server.client()), version);
            proxy.clear();
        }
    }
}

#[test]
fn a_first_fetch_that_breaks_off_goes_on_where_it_stopped() {
    let Some(ceph) = Ceph::shared() else {
        return;
    };
    let bucket = ceph.bucket();
    let mut site = small_site(1);
    for number in 0..300 {
        site = site.file(format!("many/{number}.txt"), format!("this is {number}"));
    }
    push(bucket.command(ADMIN), &site, &bucket, &[]).ok();
    let dir = tempfile::tempdir().unwrap();
    for cache in [None, Some(dir.path())] {
        let proxy = bucket.proxy();
        proxy.add(Rule::on(GETS, "/blobs/", Fault::Refuse(503, "SlowDown")).after(150));
        let command = bucket.command_through(&proxy, ADMIN);
        let flags = ["--poll", "100ms", "--admin", "127.0.0.1:0"];
        let server = match cache {
            Some(cache) => Replica::spawn(command, &bucket, cache, &[]),
            None => Server::spawn(command, Path::new(&bucket.url()), &flags),
        };
        server.wait_for_line("not ready until there is something to serve");
        assert!(metric(&server, "etagd_store_releases_delayed_total") >= 1.0);
        proxy.clear();
        server.wait_until_listening();
        assert_eq!(crate::replicas::digest(&server), digest(&site));
        // Each content was given once, whatever was refused meanwhile.
        let asked = proxy.asked();
        let given = asked
            .iter()
            .filter(|asked| asked.key.contains("/blobs/") && asked.status == 200);
        let mut given: Vec<_> = given.map(|asked| &asked.key).collect();
        let all = given.len();
        given.sort();
        given.dedup();
        assert_eq!(given.len(), all, "{cache:?}");
        assert!(all >= 300, "{all}");
    }
}

#[test]
fn no_lie_about_a_large_file_completes() {
    let bucket = match Ceph::shared() {
        Some(ceph) => ceph.bucket(),
        None => return,
    };
    push(bucket.command(ADMIN), &site(1), &bucket, &[]).ok();
    let proxy = bucket.proxy();
    let path = "/assets/1-large.bin";
    let faults = [
        ("/blobs/", Fault::FlipBit),
        ("/blobs/", Fault::Shorten),
        ("/blobs/", Fault::CutBody),
        ("/blobs/", Fault::Close),
        ("/blobs/", Fault::Refuse(404, "NoSuchKey")),
        ("/blobs/", Fault::Refuse(500, "InternalError")),
        ("/trees/", Fault::FlipBit),
        ("/trees/", Fault::Shorten),
        ("/trees/", Fault::Refuse(404, "NoSuchKey")),
    ];
    for (number, (part, fault)) in faults.into_iter().enumerate() {
        // Each time nothing of it is cached; some pieces may be right.
        for right in [0, 2] {
            let command = bucket.command_through(&proxy, ADMIN);
            let replica = Replica::start(command, &bucket, &["--prefetch", "small"]);
            let struck = proxy.struck();
            proxy.add(Rule::on(GETS, part, fault.clone()).after(right));
            let response = get(replica.server.address(), path);
            match response.status {
                503 => assert!(response.field("Retry-After").is_some(), "{response:?}"),
                // A tree is read once, so the second time there is nothing to lie about.
                200 if part == "/trees/" && right > 0 => assert_right(path, &response),
                200 => {
                    assert!(response.cut, "{number}: complete");
                    let content = crate::releases::asset(path);
                    assert!(content.starts_with(&response.body), "{number}: wrong bytes");
                }
                status => panic!("{number}: {status}"),
            }
            if part == "/blobs/" {
                assert!(proxy.struck() > struck);
                assert!(replica.server.log().contains(&bucket.url()));
            }
            if proxy.struck() > struck {
                let is_cut = response.status == 200;
                eventually(&format!("{number} is counted"), || {
                    let now = counts(&replica);
                    now.fetches >= 1.0 && now.cut == f64::from(u8::from(is_cut))
                });
                // Other bytes than their name says, rather than none.
                let is_damage = matches!(fault, Fault::FlipBit | Fault::Shorten);
                assert_eq!(counts(&replica).unproven > 0.0, is_damage, "{number}");
            }
            proxy.clear();
            eventually("it is whole again", || {
                let response = get(replica.server.address(), path);
                let is_there = response.status == 200 && !response.cut;
                if is_there {
                    assert_right(path, &response);
                }
                is_there
            });
        }
    }
}

#[test]
fn a_store_that_stalls_holds_nobody_up_for_long() {
    let Some(ceph) = Ceph::shared() else {
        return;
    };
    let bucket = ceph.bucket();
    push(bucket.command(ADMIN), &site(1), &bucket, &[]).ok();
    let proxy = bucket.proxy();
    let command = bucket.command_through(&proxy, ADMIN);
    let replica = Replica::start(command, &bucket, &["--prefetch", "small"]);
    for (failed, fault) in [(1.0, Fault::Stall), (2.0, Fault::StallBody)] {
        proxy.add(Rule::on(GETS, "/blobs/", fault));
        let mut client = replica.server.client();
        let patience = Some(Duration::from_secs(40));
        client.socket().set_read_timeout(patience).unwrap();
        let response = client.get("/assets/1-large.bin");
        assert_eq!(response.status, 503);
        assert!(response.field("Retry-After").is_some(), "{response:?}");
        let small = replica.server.client().get("/assets/1-a.js");
        assert_right("/assets/1-a.js", &small);
        eventually("it is counted", || {
            metric(&replica.server, "etagd_store_failed_fetches_total") >= failed
        });
        assert_eq!(counts(&replica).unproven, 0.0);
        proxy.clear();
    }
    eventually("it is there once the store answers", || {
        let response = get(replica.server.address(), "/assets/1-large.bin");
        response.status == 200 && !response.cut && response.is_what_its_tag_says()
    });
}

/// Puts an object of a release in the place of what is there, and has the replica try it.
fn refused(ground: &Ground, naming: &[&str], change: impl Fn(&Bucket)) {
    let Ground {
        bucket, replica, ..
    } = ground;
    let before = replica.digest();
    let lines = replica.server.log().lines().count();
    let counted = counts(replica);
    change(bucket);
    eventually(&format!("{naming:?} is said"), || {
        let log = replica.server.log();
        let mut new = log.lines().skip(lines);
        new.any(|line| naming.iter().all(|part| line.contains(part)))
    });
    assert_eq!(replica.digest(), before);
    visit(&mut replica.server.client());
    let now = counts(replica);
    assert_eq!(now.refused, counted.refused + 1.0, "{naming:?}: once");
    let (served, newest) = ("etagd_store_release", "etagd_store_newest_release");
    let [served, newest] = [served, newest].map(|name| metric(&replica.server, name));
    assert_eq!(newest, served + 1.0, "{naming:?}");
    // Somebody takes it away, and the replica goes on with what is right.
    bucket.delete(&bucket.list("channels/live/0").pop().unwrap());
    let next = small_site(1000 + lines as u64);
    push(bucket.command(ADMIN), &next, bucket, &[]).ok();
    replica.wait_for_digest(&digest(&next));
}

/// A record like the newest one, with the next number and these changes.
fn put_record(bucket: &Bucket, change: impl Fn(&mut serde_json::Value)) {
    let mut record = newest(bucket, "live");
    let number = record["number"].as_u64().unwrap() + 1;
    record["previous"] = record["number"].clone();
    record["number"] = number.into();
    record["id"] = format!("made-by-a-test-{number}").into();
    change(&mut record);
    bucket.put(
        &format!("channels/live/{number:020}"),
        record.to_string().as_bytes(),
    );
    bucket.put("channels/live/latest", number.to_string().as_bytes());
}

#[test]
fn releases_that_are_not_right_are_passed_over() {
    let Some(ground) = ground(&["--sweep", "1s"]) else {
        return;
    };
    let nowhere = "0".repeat(64);
    refused(&ground, &["format 2"], |bucket| {
        put_record(bucket, |record| record["format"] = 2.into());
    });
    refused(&ground, &["manifests/0000"], |bucket| {
        put_record(bucket, |record| {
            record["manifest"] = nowhere.as_str().into()
        });
    });
    refused(&ground, &["digest"], |bucket| {
        put_record(bucket, |record| record["digest"] = nowhere.as_str().into());
    });
    refused(&ground, &["channels/live/"], |bucket| {
        let number = newest(bucket, "live")["number"].as_u64().unwrap() + 1;
        bucket.put(&format!("channels/live/{number:020}"), b"no JSON");
        bucket.put("channels/live/latest", number.to_string().as_bytes());
    });
    refused(&ground, &["blobs/"], |bucket| {
        let new = small_site(77);
        push(bucket.command(ADMIN), &new, bucket, &["--channel", "other"]).ok();
        let other = newest(bucket, "other");
        let mine = needed(bucket, &newest(bucket, "live"));
        for name in needed(bucket, &other).difference(&mine) {
            if name.starts_with("blobs/") {
                bucket.delete(name);
            }
        }
        put_record(bucket, |record| {
            for field in ["digest", "manifest", "files", "bytes"] {
                record[field] = other[field].clone();
            }
        });
    });
}

#[test]
fn a_hint_is_only_a_hint() {
    let Some(ground) = ground(&["--sweep", "1s"]) else {
        return;
    };
    let Ground {
        bucket, replica, ..
    } = &ground;
    for (version, hint) in [(2, "1"), (3, "999"), (4, "no number"), (5, ""), (6, "-1")] {
        let new = small_site(version);
        push(bucket.command(ADMIN), &new, bucket, &[]).ok();
        bucket.put("channels/live/latest", hint.as_bytes());
        replica.wait_for_digest(&digest(&new));
    }
    bucket.delete("channels/live/latest");
    let new = small_site(7);
    push(bucket.command(ADMIN), &new, bucket, &[]).ok();
    bucket.delete("channels/live/latest");
    replica.wait_for_digest(&digest(&new));
}

#[test]
fn a_listing_that_is_late_takes_nothing_back() {
    let Some(Ground {
        bucket,
        proxy,
        replica,
    }) = ground(&["--sweep", "1s"])
    else {
        return;
    };
    std::thread::sleep(Duration::from_millis(1100));
    let since = std::time::SystemTime::now();
    proxy.add(Rule::on(LISTS, "", Fault::ListWithout(since)));
    let new = small_site(2);
    push(bucket.command(ADMIN), &new, &bucket, &[]).ok();
    replica.wait_for_digest(&digest(&new));
    stays(Duration::from_secs(3), "release 2 is served", || {
        replica.digest() == digest(&new)
    });
}

#[test]
fn a_cache_that_is_damaged_is_not_believed() {
    let Some(mut ground) = large_ground() else {
        return;
    };
    let path = "/assets/1-large.bin";
    assert_right(path, &get(ground.replica.server.address(), path));
    ground.replica.server.kill();
    for file in ground.replica.cached_files() {
        let mut content = fs::read(&file).unwrap();
        for byte in content.iter_mut().step_by(1000) {
            *byte ^= 1;
        }
        fs::write(&file, content).unwrap();
    }
    let command = ground.bucket.command_through(&ground.proxy, ADMIN);
    ground.replica.restart(command, &ground.bucket, &[]);
    assert_eq!(visit(&mut ground.replica.server.client()), 1);
}

#[test]
fn a_cache_that_is_full_is_done_without() {
    let Some(ceph) = Ceph::shared() else {
        return;
    };
    let bucket = ceph.bucket();
    push(bucket.command(ADMIN), &site(1), &bucket, &[]).ok();
    // No file is longer than 100 KiB, so a pack of pieces can't be written.
    let command = bucket.equipped(limited("-f 100"), bucket.address(), ADMIN);
    let replica = Replica::start(command, &bucket, &["--prefetch", "all"]);
    for version in 1..4 {
        let new = site(version);
        push(bucket.command(ADMIN), &new, &bucket, &[]).ok();
        replica.wait_for_digest(&digest(&new));
        assert_eq!(visit(&mut replica.server.client()), version);
    }
    let log = replica.server.log();
    let warnings = log.lines().filter(|line| line.contains("--cache"));
    assert!((1..4).contains(&warnings.count()), "{log}");
}

fn large_ground() -> Option<Ground> {
    let bucket = Ceph::shared()?.bucket();
    push(bucket.command(ADMIN), &site(1), &bucket, &[]).ok();
    let proxy = bucket.proxy();
    let replica = Replica::start(bucket.command_through(&proxy, ADMIN), &bucket, &[]);
    Some(Ground {
        bucket,
        proxy,
        replica,
    })
}

#[test]
fn two_processes_share_a_cache() {
    let Some(ground) = large_ground() else {
        return;
    };
    let Ground {
        bucket,
        proxy,
        replica,
    } = &ground;
    let command = bucket.command_through(proxy, ADMIN);
    let other = Replica::spawn(command, bucket, &replica.cache, &[]);
    other.wait_until_listening();
    for version in 2..6 {
        let new = site(version);
        push(bucket.command(ADMIN), &new, bucket, &[]).ok();
        replica.wait_for_digest(&digest(&new));
        crate::replicas::wait_for_digest(&other, &digest(&new));
        std::thread::scope(|scope| {
            for server in [&replica.server, &other] {
                for _ in 0..2 {
                    scope.spawn(|| assert_eq!(visit(&mut server.client()), version));
                }
            }
        });
    }
    // Each piece is fetched once by one process, and at most once more by the other.
    let pieces = LARGE.div_ceil(256 << 10);
    let large = proxy.count(GETS, "/blobs/");
    assert!(large <= 2 * 5 * (pieces + 8), "{large} requests");
    assert!(metric(&replica.server, "etagd_requests_total") > 0.0);
}
