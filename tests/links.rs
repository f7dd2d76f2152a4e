//! Whole sites, walked link by link as a crawler does: what is there on disk is found, and each
//! page is what its tag says.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use html5gum::{Token, Tokenizer};
use percent_encoding::percent_decode_str;
use support::{Client, Server, TestSite};
use url::Url;

/// What a walk has found.
#[derive(Debug, Default)]
struct Walk {
    /// How each reference was answered in the end.
    answers: BTreeMap<String, u16>,
    /// References that are not answered, and the page that has them.
    broken: BTreeMap<String, String>,
}

impl Walk {
    /// Follows everything from the root on.
    fn of(server: &Server) -> Self {
        let mut client = server.client();
        let mut walk = Self::default();
        let mut open = vec![("/".to_owned(), "/".to_owned())];
        while let Some((target, page)) = open.pop() {
            if walk.answers.contains_key(&target) {
                continue;
            }
            let (status, found) = ask(&mut client, server, &target);
            if status != 200 {
                walk.broken.insert(target.clone(), page);
            }
            walk.answers.insert(target.clone(), status);
            open.extend(found.into_iter().map(|each| (each, target.clone())));
        }
        walk
    }
}

/// The status at the end of all redirects, and what the page that is there refers to.
fn ask(client: &mut Client, server: &Server, target: &str) -> (u16, BTreeSet<String>) {
    let mut target = target.to_owned();
    for _ in 0..5 {
        let response = client.get(&target);
        if response.says_close() {
            *client = server.client();
        }
        if let Some(location) = response.field("location") {
            assert!(matches!(response.status, 301..=308), "{target}");
            let here = Url::parse(ORIGIN).unwrap().join(&target).unwrap();
            target = within(&here, location).unwrap_or_else(|| panic!("{target} -> {location}"));
            continue;
        }
        let kind = response.field("content-type").unwrap_or_default();
        let mut found = BTreeSet::new();
        if response.status == 200 {
            assert!(response.is_what_its_tag_says(), "{target}");
            if kind.starts_with("text/html") {
                found = references(&target, &response.body);
            } else if kind.starts_with("text/css") {
                found = addresses(&target, &response.body);
            }
        }
        return (response.status, found);
    }
    panic!("{target} is redirected for ever");
}

const ORIGIN: &str = "http://walk.invalid";

/// What a page refers to within its site: paths with their queries.
fn references(target: &str, html: &[u8]) -> BTreeSet<String> {
    let mut base = Url::parse(ORIGIN).unwrap().join(target).unwrap();
    let mut found = BTreeSet::new();
    for token in Tokenizer::new(html) {
        let Ok(Token::StartTag(tag)) = token else {
            continue;
        };
        let wanted: &[&[u8]] = match &tag.name[..] {
            b"a" | b"link" => &[b"href"],
            b"img" | b"script" | b"iframe" | b"source" => &[b"src"],
            b"base" => {
                let href = tag.attributes.get(&b"href"[..]).expect("a base");
                base = base.join(str::from_utf8(href).unwrap()).unwrap();
                continue;
            }
            _ => continue,
        };
        for name in wanted {
            if let Some(value) = tag.attributes.get(*name) {
                found.extend(within(&base, str::from_utf8(value).unwrap()));
            }
        }
    }
    found
}

/// What a style sheet refers to.
fn addresses(target: &str, css: &[u8]) -> BTreeSet<String> {
    let base = Url::parse(ORIGIN).unwrap().join(target).unwrap();
    let css = String::from_utf8_lossy(css);
    let parts = css.split("url(").skip(1);
    let values = parts.filter_map(|part| part.split(')').next());
    values
        .filter_map(|value| within(&base, value.trim_matches(['"', '\''])))
        .collect()
}

fn within(base: &Url, reference: &str) -> Option<String> {
    let url = base.join(reference).ok()?;
    (url.origin().ascii_serialization() == ORIGIN)
        .then(|| url[url::Position::BeforePath..url::Position::AfterQuery].to_owned())
}

/// Whether a file is there that a path may mean.
fn is_on_disk(root: &Path, target: &str) -> bool {
    let path = target.split('?').next().unwrap().trim_matches('/');
    let path: Vec<u8> = percent_decode_str(path).collect();
    ["", ".html", "/index.html"].iter().any(|suffix| {
        let path = [&path, suffix.as_bytes()].concat();
        root.join(OsStr::from_bytes(path.trim_ascii_start()))
            .is_file()
    })
}

/// Walks a site and compares with its directory; returns how many references it has.
fn assert_whole(root: &Path) -> usize {
    let server = Server::at(root, &[]);
    let walk = Walk::of(&server);
    let wrong: Vec<_> = walk
        .broken
        .iter()
        .filter(|(target, _)| is_on_disk(root, target))
        .collect();
    assert!(wrong.is_empty(), "{}: {wrong:#?}", root.display());
    #[allow(clippy::print_stderr)]
    {
        let (all, broken) = (walk.answers.len(), &walk.broken);
        eprintln!("{}: {all} references, broken: {broken:?}", root.display());
    }
    walk.answers.len()
}

/// What generators write, in small: pages without extensions, indexes, hashed modules, names that
/// want encoding, fonts in style sheets, links that are broken on disk already.
#[test]
fn no_link_is_broken_that_is_not_broken_on_disk() {
    let page = "<!doctype html><base href=/docs/><link rel=stylesheet href=/a/style.css>\
                <a href=start>start</a><a href=\"two/\">two</a><a href=two>two</a>\
                <a href='ü%20b'>encoded</a><a href=gone>gone</a><a href=/old/start#x>moved</a>\
                <script type=module src=/a/app.3fe1.js></script>";
    let site = TestSite::with(&[
        ("index.html", page.as_bytes()),
        ("docs/start.html", b"<a href=/>home</a>"),
        ("docs/two/index.html", b"<a href=../start.html>start</a>"),
        ("docs/ü b.html", b"<a href=.>up</a>"),
        ("a/app.3fe1.js", b"export {}"),
        ("a/style.css", b"@font-face{src:url('f.woff2')}"),
        ("a/f.woff2", b"a font"),
        ("_redirects", b"/old/* /docs/:splat\n"),
    ]);
    let server = Server::start(&site);
    let walk = Walk::of(&server);
    let broken: Vec<_> = walk.broken.keys().map(String::as_str).collect();
    assert_eq!(broken, ["/docs/", "/docs/gone"]);
    let found: Vec<_> = walk.answers.keys().map(String::as_str).collect();
    let expected = [
        "/",
        "/a/app.3fe1.js",
        "/a/f.woff2",
        "/a/style.css",
        "/docs/",
        "/docs/%C3%BC%20b",
        "/docs/gone",
        "/docs/start",
        "/docs/start.html",
        "/docs/two",
        "/docs/two/",
        "/old/start",
    ];
    assert_eq!(found, expected);
    assert_whole(&site.root());
}

#[test]
fn the_manual_has_no_broken_links() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-site");
    let server = Server::at(&root, &[]);
    let walk = Walk::of(&server);
    let broken: Vec<_> = walk.broken.keys().map(String::as_str).collect();
    assert_eq!(broken, ["/guide/no/such/page"], "the error page is shown");
}

/// `ETAGD_SITES=/path/of/a/site:/another cargo test --test links -- --ignored --nocapture`
#[test]
#[ignore = "walks the sites in ETAGD_SITES, which generators have written"]
fn generated_sites_are_whole() {
    let sites = env::var_os("ETAGD_SITES").expect("ETAGD_SITES");
    for site in env::split_paths(&sites) {
        assert!(assert_whole(&site) > 1, "{}", site.display());
    }
}
