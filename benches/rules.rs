//! What rules cost a request and a publication: 10,000 exact redirects and 100 patterns, compared with
//! no rules, in a site of 50,000 entries.

mod support;

use std::fmt::Write;
use std::sync::{Arc, LazyLock};

use divan::Bencher;
use etagd::answer::{Answer, answer};
use etagd::manifest::{Changes, Manifest};
use etagd::rules::{Dialect, Headers, Query, Redirects, RuleFile, Rules};
use http::request::Parts;
use support::{manifest, path, resources};

const ENTRIES: usize = 50_000;

/// The rules of a site.
const SITES: [&str; 4] = ["none", "headers", "redirects", "forced"];

static NONE: LazyLock<Manifest> = LazyLock::new(|| manifest(resources(ENTRIES)));
static HEADERS: LazyLock<Manifest> = LazyLock::new(|| with(&headers_text(), ""));
static REDIRECTS: LazyLock<Manifest> =
    LazyLock::new(|| with(&headers_text(), &redirects_text("301")));
static FORCED: LazyLock<Manifest> =
    LazyLock::new(|| with(&headers_text(), &redirects_text("301!")));

fn main() {
    divan::main();
}

fn site(name: &str) -> &'static Manifest {
    match name {
        "headers" => &HEADERS,
        "redirects" => &REDIRECTS,
        "forced" => &FORCED,
        _ => &NONE,
    }
}

fn with(headers: &str, redirects: &str) -> Manifest {
    NONE.with(changes(headers, redirects))
}

fn changes(headers: &str, redirects: &str) -> Changes {
    let rules = Rules::default();
    let read = |rules: Rules, file, text: &str| {
        let read = rules.with(file, Some(text.as_bytes()), Dialect::Netlify);
        read.unwrap_or(rules)
    };
    let rules = read(rules, RuleFile::Headers, headers);
    let rules = read(rules, RuleFile::Redirects, redirects);
    Changes {
        rules: Some(Arc::new(rules)),
        ..Changes::default()
    }
}

/// Header rules as real sites have them: one for all paths, some for sections, some for one path.
fn headers_text() -> String {
    let mut text = String::from("/*\n  Referrer-Policy: same-origin\n");
    for number in 0..50 {
        let _ = write!(text, "/section-{number:03}/*\n  X-Section: {number}\n");
        let _ = write!(text, "/page-{number}\n  X-Page: {number}\n");
    }
    text
}

/// 10,000 exact rules, and 100 patterns after them.
fn redirects_text(status: &str) -> String {
    let mut text = String::new();
    for number in 0..10_000 {
        let _ = writeln!(text, "/old/article-{number} /articles/{number} {status}");
    }
    for number in 0..90 {
        let _ = writeln!(
            text,
            "/blog-{number}/:year/* /archive/:year/:splat {status}"
        );
    }
    for number in 0..10 {
        let _ = writeln!(text, "/:language/news-{number}/* /news/:splat {status}");
    }
    text
}

/// A request for a file that exists.
#[divan::bench(args = SITES)]
fn file(bencher: Bencher<'_, '_>, name: &str) {
    let (site, request) = (site(name), request(&path(4_711), &[]));
    bencher.bench_local(|| is(answer(site, &request), |a| matches!(a, Answer::Whole(_))));
}

/// A request for a file that the client has already.
#[divan::bench(args = SITES)]
fn not_modified(bencher: Bencher<'_, '_>, name: &str) {
    let site = site(name);
    let resource = site.locate(path(4_711).as_bytes());
    let tag = resource.map_or(String::new(), |found| found.identity.etag.to_string());
    let request = request(&path(4_711), &[("if-none-match", &tag)]);
    let expected = |a: &Answer<'_>| matches!(a, Answer::NotModified(_));
    bencher.bench_local(|| is(answer(site, &request), expected));
}

/// A request for nothing: every rule that may match is tried.
#[divan::bench(args = SITES)]
fn not_found(bencher: Bencher<'_, '_>, name: &str) {
    let (site, request) = (site(name), request("section-001/none.html", &[]));
    let expected = |a: &Answer<'_>| matches!(a, Answer::NotFound(..));
    bencher.bench_local(|| is(answer(site, &request), expected));
}

/// A request that an exact rule matches, anywhere in the file.
#[divan::bench(args = [0, 9_999])]
fn exact(bencher: Bencher<'_, '_>, number: usize) {
    let request = request(&format!("old/article-{number}"), &[]);
    let expected = |a: &Answer<'_>| matches!(a, Answer::Redirect(..));
    bencher.bench_local(|| is(answer(&REDIRECTS, &request), expected));
}

/// A request that a pattern matches, found by its first segment or by trying all that have none.
#[divan::bench(args = ["blog-0/2026/a/b", "blog-89/2026/a/b", "en/news-9/a/b"])]
fn pattern(bencher: Bencher<'_, '_>, path: &str) {
    let request = request(path, &[]);
    let expected = |a: &Answer<'_>| matches!(a, Answer::Redirect(..));
    bencher.bench_local(|| is(answer(&REDIRECTS, &request), expected));
}

/// A path of 8 KiB and 10,000 patterns that match it almost to its end.
#[divan::bench]
fn hostile(bencher: Bencher<'_, '_>) {
    let mut text = String::new();
    for number in 0..10_000 {
        let _ = writeln!(text, "/:a/:b/*/{number} /:b/:a");
    }
    let (redirects, _) = Redirects::parse(text.as_bytes(), Dialect::Netlify);
    let path = [b"/a/b/", "c/".repeat(4_000).as_bytes(), b"x"].concat();
    let asked = Query {
        path: &path,
        query: None,
        host: None,
    };
    bencher.bench_local(|| redirects.find(asked));
}

/// Parsing the two files.
#[divan::bench]
fn parse_redirects(bencher: Bencher<'_, '_>) {
    let text = redirects_text("301");
    bencher.bench_local(|| Redirects::parse(text.as_bytes(), Dialect::Netlify));
}

#[divan::bench]
fn parse_headers(bencher: Bencher<'_, '_>) {
    let text = headers_text();
    bencher.bench_local(|| Headers::parse(text.as_bytes()));
}

/// Publishing one changed file in a site with rules.
#[divan::bench(args = SITES)]
fn publish_change(bencher: Bencher<'_, '_>, name: &str) {
    let site = site(name);
    let edited = resources(1);
    bencher
        .with_inputs(|| Changes {
            changed: edited.clone(),
            ..Changes::default()
        })
        .bench_local_values(|changes| site.with(changes));
}

/// Publishing new header rules: the fields of every entry are computed again.
#[divan::bench]
fn publish_headers(bencher: Bencher<'_, '_>) {
    let text = headers_text();
    bencher
        .with_inputs(|| changes(&text, ""))
        .bench_local_values(|changes| NONE.with(changes));
}

/// Publishing new redirects.
#[divan::bench]
fn publish_redirects(bencher: Bencher<'_, '_>) {
    let text = redirects_text("301");
    bencher
        .with_inputs(|| changes("", &text))
        .bench_local_values(|changes| NONE.with(changes));
}

fn request(path: &str, fields: &[(&str, &str)]) -> Parts {
    let mut request = http::Request::get(format!("/{path}"))
        .header("host", "www.example.com")
        .header("accept", "text/html,application/xhtml+xml,*/*;q=0.8")
        .header("accept-encoding", "gzip, deflate, br, zstd");
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
