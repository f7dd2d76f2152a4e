//! Content that is longer than memory: piece by piece, each fetched once.

use crate::support::{Releases, TestSite, noise, tag};
use crate::{ADMIN, SELDOM, metric};

const LARGE: usize = (9 << 20) + 77;

#[test]
fn ranges_of_large_content_fetch_what_they_need() {
    let content = noise(LARGE, 1);
    let releases = Releases::of(&TestSite::with(&[("large.bin", &content)]), &[]);
    let server = releases.serve(&[ADMIN, SELDOM].concat());
    let etag = tag(&content);
    let get = |fields: &[(&str, &str)]| server.client().request("GET", "/large.bin", fields);
    let middle = get(&[("Range", "bytes=5000000-5000009"), ("If-Range", &etag)]);
    assert_eq!(
        (middle.status, &middle.body[..]),
        (206, &content[5_000_000..5_000_010])
    );
    assert_eq!(middle.field("ETag"), Some(&*etag));
    let end = get(&[("Range", "bytes=-77")]);
    assert_eq!(end.body, content[LARGE - 77..]);
    // The tree, and a group for each.
    assert_eq!(metric(&server, "store_fetches_total"), 3);
    let both = get(&[("Range", "bytes=0-0,9000000-9000001")]);
    assert_eq!(both.status, 206);
    let other = get(&[("Range", "bytes=0-1"), ("If-Range", "\"another\"")]);
    assert_eq!((other.status, other.body == content), (200, true));
    let fetched = metric(&server, "store_fetched_bytes_total");
    assert!(
        fetched < LARGE as u64 + (1 << 20),
        "{fetched}: each piece once"
    );
    let again = get(&[("If-None-Match", &etag)]);
    assert_eq!(again.status, 304);
}

#[test]
fn a_site_that_is_larger_than_memory_is_served() {
    let files: Vec<_> = (0..20).map(|seed| noise(2 << 20, seed)).collect();
    let names: Vec<_> = (0..20).map(|number| format!("{number}.bin")).collect();
    let small: Vec<_> = (0..300).map(|seed| noise(100_000, 100 + seed)).collect();
    let mut site = TestSite::new();
    for (name, content) in names.iter().zip(&files) {
        site = site.file(name, content);
    }
    for (number, content) in small.iter().enumerate() {
        site = site.file(format!("small/{number}.bin"), content);
    }
    let releases = Releases::of(&site, &[]);
    let cache = releases.beside("cache");
    for flags in [&[][..], &["--cache", &*cache], &["--prefetch", "none"]] {
        let server = releases.serve(&[&ADMIN[..], &["--memory", "16MiB"], flags].concat());
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (server, names, files, small) = (&server, &names, &files, &small);
                scope.spawn(move || {
                    for round in 0..10 {
                        let number = (round * 3 + thread * 5) % names.len();
                        let body = server.body(&format!("/{}", names[number]));
                        assert!(body.unwrap() == files[number], "{number}");
                        let number = (round * 31 + thread * 7) % small.len();
                        let body = server.body(&format!("/small/{number}.bin"));
                        assert!(body.unwrap() == small[number], "{number}");
                    }
                });
            }
        });
        let used = metric(&server, "memory_used_bytes");
        assert!(used <= 16 << 20, "{used}");
    }
}

#[test]
fn those_who_want_the_same_fetch_it_once() {
    let content = noise(LARGE, 3);
    let releases = Releases::of(&TestSite::with(&[("large.bin", &content)]), &[]);
    let server = releases.serve(&[ADMIN, SELDOM].concat());
    std::thread::scope(|scope| {
        for _ in 0..16 {
            let (server, content) = (&server, &content);
            scope.spawn(move || {
                let mut client = server.client();
                let response = client.get("/large.bin");
                assert!(response.body == *content);
            });
        }
    });
    // 37 pieces, the tree, and the listing: two may ask for the tree at the same time.
    let fetches = metric(&server, "store_fetches_total");
    assert!(fetches <= 37 + 16, "{fetches}");
    let fetched = metric(&server, "store_fetched_bytes_total");
    assert!(fetched < LARGE as u64 + (1 << 20), "{fetched}");
}
