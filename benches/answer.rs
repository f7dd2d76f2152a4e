//! `answer` alone, without a server: requests as browsers send them, in a site of 50,000 entries.

mod support;

use std::sync::LazyLock;

use divan::Bencher;
use etagd::answer::{Answer, answer};
use etagd::manifest::Manifest;
use http::request::Parts;
use support::{manifest, path, resources};

static SITE: LazyLock<Manifest> = LazyLock::new(|| manifest(resources(50_000)));

fn main() {
    divan::main();
}

#[divan::bench]
fn whole(bencher: Bencher<'_, '_>) {
    let request = request(&path(4_711), &[]);
    bencher.bench_local(|| is(answer(&SITE, &request), |a| matches!(a, Answer::Whole(_))));
}

#[divan::bench]
fn not_modified(bencher: Bencher<'_, '_>) {
    let tag = tag(4_711);
    let request = request(&path(4_711), &[("if-none-match", &tag)]);
    let expected = |a: &Answer<'_>| matches!(a, Answer::NotModified(_));
    bencher.bench_local(|| is(answer(&SITE, &request), expected));
}

/// After a deploy: the client has an older version, and sends its tag and its date.
#[divan::bench]
fn modified(bencher: Bencher<'_, '_>) {
    let conditions = [
        ("if-none-match", &*tag(4_712)),
        ("if-modified-since", "Sat, 05 Nov 1994 08:49:37 GMT"),
    ];
    let request = request(&path(4_711), &conditions);
    bencher.bench_local(|| is(answer(&SITE, &request), |a| matches!(a, Answer::Whole(_))));
}

#[divan::bench]
fn not_found(bencher: Bencher<'_, '_>) {
    let request = request("section-001/none.html", &[]);
    let expected = |a: &Answer<'_>| matches!(a, Answer::NotFound(..));
    bencher.bench_local(|| is(answer(&SITE, &request), expected));
}

#[divan::bench]
fn range(bencher: Bencher<'_, '_>) {
    let tag = tag(4_711);
    let request = request(&path(4_711), &[("range", "bytes=4-11"), ("if-range", &tag)]);
    let expected = |a: &Answer<'_>| matches!(a, Answer::Part(..));
    bencher.bench_local(|| is(answer(&SITE, &request), expected));
}

fn tag(index: usize) -> String {
    let resource = SITE.locate(path(index).as_bytes());
    resource.map_or(String::new(), |found| found.identity.etag.to_string())
}

/// With the fields that browsers add to every request: skipping them is part of the work.
fn request(path: &str, fields: &[(&str, &str)]) -> Parts {
    let mut request = http::Request::get(format!("/{path}"))
        .header("host", "www.example.com")
        .header("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0)")
        .header("accept", "text/html,application/xhtml+xml,*/*;q=0.8")
        .header("accept-language", "en-GB,en;q=0.5")
        .header("accept-encoding", "gzip, deflate, br, zstd")
        .header("sec-fetch-mode", "navigate");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(());
    request
        .unwrap_or_else(|error| panic!("{error}"))
        .into_parts()
        .0
}

/// Checks what is measured: the time of a wrong answer would mislead.
fn is<'m>(given: Answer<'m>, expected: impl Fn(&Answer<'m>) -> bool) -> Answer<'m> {
    assert!(expected(&given), "{given:?}");
    given
}
