//! The ground itself: the store does what the tests take for granted, and the proxy does its faults.

use std::io;
use std::thread;
use std::time::{Duration, SystemTime};

use crate::support::message::Message;
use crate::support::store::{
    ADMIN, Bucket, COLLECTOR, Ceph, PUBLISHER, READER, Request, User, elements,
};
use crate::support::store_proxy::{CREATES, Fault, GETS, Gate, LISTS, Proxy, Rule};

/// The status of what a user asks of the store.
fn status(bucket: &Bucket, user: User, method: &str, key: &str) -> u16 {
    let path = bucket.path(key);
    let answer = Request::new(user, method, &path).send(bucket.address());
    answer.unwrap().status()
}

#[test]
fn policies_let_each_user_do_its_work_and_no_more() {
    let Some(ceph) = Ceph::shared() else {
        return;
    };
    let bucket = ceph.bucket();
    for user in [READER, PUBLISHER, COLLECTOR] {
        bucket.allow(user);
    }
    for key in ["blobs/a", "locks/a", "probe/a"] {
        bucket.put(key, b"there");
    }
    let rows = [
        // What, the reader, the publisher and the collector.
        ("GET", "blobs/a", [200, 200, 200]),
        // Not 403: a listing is allowed, so there is nothing to hide.
        ("GET", "blobs/none", [404, 404, 404]),
        ("PUT", "blobs/b", [403, 200, 403]),
        ("PUT", "locks/b", [403, 200, 200]),
        ("PUT", "channels/live/1", [403, 200, 403]),
        ("DELETE", "probe/a", [403, 204, 204]),
        ("DELETE", "locks/a", [403, 204, 204]),
        ("DELETE", "blobs/a", [403, 403, 204]),
    ];
    for (method, key, expected) in rows {
        let found = [READER, PUBLISHER, COLLECTOR].map(|user| status(&bucket, user, method, key));
        assert_eq!(found, expected, "{method} {key}");
    }
}

/// A bucket with one object of 1,000 bytes, and a proxy in front of it.
fn behind_a_proxy() -> Option<(Bucket, Proxy)> {
    let bucket = Ceph::shared()?.bucket();
    bucket.put("a", &[b'a'; 1000]);
    let proxy = bucket.proxy();
    Some((bucket, proxy))
}

fn get(bucket: &Bucket, proxy: &Proxy) -> io::Result<Message> {
    Request::new(ADMIN, "GET", &bucket.path("a")).send(proxy.address())
}

fn create(bucket: &Bucket, proxy: &Proxy, key: &str) -> io::Result<Message> {
    let path = bucket.path(key);
    let request = Request {
        fields: &[("If-None-Match", "*")],
        body: b"new",
        ..Request::new(ADMIN, "PUT", &path)
    };
    request.send(proxy.address())
}

fn list(bucket: &Bucket, proxy: &Proxy) -> Vec<String> {
    let path = format!("/{}", bucket.name);
    let request = Request {
        query: &[("list-type", "2"), ("prefix", "site/")],
        ..Request::new(ADMIN, "GET", &path)
    };
    let text = request.send(proxy.address()).unwrap().text();
    elements(&text, "Key").map(str::to_owned).collect()
}

#[test]
fn the_proxy_passes_on_what_is_signed_for_it() {
    let Some((bucket, proxy)) = behind_a_proxy() else {
        return;
    };
    assert_eq!(get(&bucket, &proxy).unwrap().body, [b'a'; 1000]);
    assert_eq!(create(&bucket, &proxy, "b").unwrap().status(), 200);
    assert_eq!(create(&bucket, &proxy, "b").unwrap().status(), 412);
    assert_eq!(list(&bucket, &proxy), ["site/a", "site/b"]);
    assert_eq!(proxy.count(CREATES, "site/b"), 2);
    assert_eq!(proxy.count(LISTS, "site/"), 1);
    let statuses: Vec<_> = proxy.asked().iter().map(|asked| asked.status).collect();
    assert_eq!(statuses, [200, 200, 412, 200]);
}

#[test]
fn the_proxy_lies_where_it_is_told_to() {
    let Some((bucket, proxy)) = behind_a_proxy() else {
        return;
    };
    let on_get = |fault| proxy.add(Rule::on(GETS, "site/a", fault).times(1));

    on_get(Fault::FlipBit);
    let body = get(&bucket, &proxy).unwrap().body;
    assert_eq!(body.iter().filter(|byte| **byte != b'a').count(), 1);

    on_get(Fault::Shorten);
    assert_eq!(get(&bucket, &proxy).unwrap().body.len(), 500);

    on_get(Fault::CutBody);
    let error = get(&bucket, &proxy).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);

    on_get(Fault::Close);
    let error = get(&bucket, &proxy).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);

    on_get(Fault::Refuse(503, "SlowDown"));
    let answer = get(&bucket, &proxy).unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.text().contains("<Code>SlowDown</Code>"));

    proxy.add(Rule::on(CREATES, "", Fault::PretendCreated));
    assert_eq!(create(&bucket, &proxy, "a").unwrap().status(), 200);
    assert_eq!(bucket.get("a").unwrap(), [b'a'; 1000]);

    proxy.clear();
    proxy.add(Rule::on(CREATES, "", Fault::LoseAnswer));
    assert!(create(&bucket, &proxy, "c").is_err());
    assert_eq!(bucket.get("c").unwrap(), b"new");

    assert_eq!(proxy.struck(), 7);
}

#[test]
fn the_proxy_lists_late() {
    let Some((bucket, proxy)) = behind_a_proxy() else {
        return;
    };
    // The store has whole seconds in some of its dates.
    thread::sleep(Duration::from_millis(1100));
    let since = SystemTime::now();
    bucket.put("b", b"new");
    proxy.add(Rule::on(LISTS, "", Fault::ListWithout(since)));
    assert_eq!(list(&bucket, &proxy), ["site/a"]);
    proxy.clear();
    assert_eq!(list(&bucket, &proxy), ["site/a", "site/b"]);
}

#[test]
fn the_proxy_strikes_when_it_is_meant_to() {
    let Some((bucket, proxy)) = behind_a_proxy() else {
        return;
    };
    proxy.add(
        Rule::on(GETS, "", Fault::Refuse(500, "InternalError"))
            .after(1)
            .times(2),
    );
    let statuses = [(); 4].map(|()| get(&bucket, &proxy).unwrap().status());
    assert_eq!(statuses, [200, 500, 500, 200]);
}

#[test]
fn the_proxy_holds_a_request_at_a_gate() {
    let Some((bucket, proxy)) = behind_a_proxy() else {
        return;
    };
    let (gate, arrivals) = Gate::new();
    proxy.add(Rule::on(CREATES, "", Fault::Hold(gate.clone())));
    thread::scope(|scope| {
        let asking = scope.spawn(|| create(&bucket, &proxy, "b").unwrap().status());
        arrivals.recv().unwrap();
        assert_eq!(bucket.get("b"), None);
        gate.open();
        assert_eq!(asking.join().unwrap(), 200);
    });
    assert!(bucket.get("b").is_some());
}

#[test]
fn the_proxy_goes_away_and_comes_back() {
    let Some((bucket, proxy)) = behind_a_proxy() else {
        return;
    };
    proxy.add(Rule::always(Fault::Stall).times(1));
    thread::scope(|scope| {
        let asking = scope.spawn(|| get(&bucket, &proxy));
        while proxy.struck() == 0 {
            thread::yield_now();
        }
        proxy.go_away();
        assert!(asking.join().unwrap().is_err(), "what was under way ends");
    });
    let error = get(&bucket, &proxy).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    proxy.come_back();
    assert_eq!(get(&bucket, &proxy).unwrap().status(), 200);
}
