//! How many requests a push costs, counted by a proxy: none that grows with what the store holds for others.

use std::thread;

use crate::releases::{assert_complete, push, small_site};
use crate::support::TestSite;
use crate::support::store::{ADMIN, Bucket, Ceph};
use crate::support::store_proxy::{Asked, CREATES, Kind, LISTS, Proxy};

/// A site with so many files of different contents.
fn site_of(files: usize) -> TestSite {
    (0..files).fold(TestSite::new(), |site, file| {
        site.file(format!("{file}.txt"), format!("file {file}"))
    })
}

/// What a push asks of the store.
fn asked_by(bucket: &Bucket, proxy: &Proxy, site: &TestSite) -> Vec<Asked> {
    let before = proxy.asked().len();
    push(bucket.command_through(proxy, ADMIN), site, bucket, &[]).ok();
    proxy.asked().split_off(before)
}

fn count(asked: &[Asked], kinds: &[Kind], part: &str) -> usize {
    let is_meant = |asked: &&Asked| kinds.contains(&asked.kind) && asked.key.contains(part);
    asked.iter().filter(is_meant).count()
}

/// What is asked whatever the site has: for the release before it and its list, the probe, the list of the
/// site, the lock and the release.
const MAX_OTHERS: usize = 22;

#[test]
fn a_push_asks_for_no_more_than_it_needs() {
    let Some(ceph) = Ceph::shared() else {
        return;
    };
    let bucket = ceph.bucket();
    let proxy = bucket.proxy();
    let site = site_of(1200);
    let first = asked_by(&bucket, &proxy, &site);
    assert_eq!(count(&first, &[Kind::Put, Kind::Create], "/blobs/"), 1200);
    // The store is empty, and then has as many objects as the site.
    assert!(count(&first, LISTS, "/blobs") <= 3, "{first:#?}");
    assert!(first.len() <= 1200 + MAX_OTHERS, "{}", first.len());

    let site = site.file("7.txt", "changed");
    let second = asked_by(&bucket, &proxy, &site);
    assert_eq!(count(&second, &[Kind::Put, Kind::Create], "/blobs/"), 1);
    assert!(count(&second, LISTS, "/blobs") <= 2, "{second:#?}");
    // What the release before it has is not looked at again under the lock.
    assert!(count(&second, &[Kind::Head], "/blobs/") <= 1, "{second:#?}");
    assert!(second.len() <= 3 + MAX_OTHERS, "{}", second.len());

    let third = asked_by(&bucket, &proxy, &site);
    assert_eq!(count(&third, &[Kind::Put, Kind::Create], ""), 0);
    assert!(third.len() <= 7, "{third:#?}");
    assert_complete(&bucket, "live");
}

/// Objects of other sites: what a store that many share has.
fn fill(bucket: &Bucket, objects: usize) {
    const WRITERS: usize = 8;
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                for object in (writer..objects).step_by(WRITERS) {
                    let content = format!("of another site {object}");
                    let hash = blake3::hash(content.as_bytes()).to_hex();
                    bucket.put(&format!("blobs/{}/{hash}", &hash[..2]), content.as_bytes());
                }
            });
        }
    });
}

#[test]
fn a_store_that_others_fill_is_not_listed_for_a_small_site() {
    let Some(ceph) = Ceph::shared() else {
        return;
    };
    let bucket = ceph.bucket();
    let proxy = bucket.proxy();
    fill(&bucket, 5000);
    // So few that each is asked for.
    let few = asked_by(&bucket, &proxy, &small_site(1));
    assert_eq!(count(&few, LISTS, "/blobs"), 0, "{few:#?}");
    // So many that one page is listed, which says that four more would come.
    let site = site_of(30);
    let first = asked_by(&bucket, &proxy, &site);
    assert!(count(&first, LISTS, "/blobs") <= 2, "{first:#?}");
    assert!(first.len() <= 30 + 2 * 30 + MAX_OTHERS, "{}", first.len());
    let second = asked_by(&bucket, &proxy, &site.file("7.txt", "changed"));
    assert_eq!(count(&second, LISTS, "/blobs"), 1, "{second:#?}");
    assert!(second.len() <= 30 + MAX_OTHERS, "{}", second.len());
    // Nothing was taken to be there that is not.
    assert_complete(&bucket, "live");
    assert_eq!(proxy.count(CREATES, "/channels/live/0"), 3);
}
