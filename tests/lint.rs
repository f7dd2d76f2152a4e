//! `etagd lint`: what will not be served as its author hopes, with file and line.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;

use support::{TestSite, etagd};

fn lint(site: &TestSite, flags: &[&str]) -> (Option<i32>, String) {
    let root = site.root();
    let mut arguments = vec![OsStr::new("lint"), root.as_os_str()];
    arguments.extend(flags.iter().map(OsStr::new));
    let output = etagd(arguments);
    let said = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), said)
}

#[test]
fn every_problem_is_reported_with_file_and_line() {
    let site = TestSite::with(&[
        (
            "index.html",
            b"<!doctype html>\n<a href=\"about\">fine</a>\n<img src=\"gone.png\">\n",
        ),
        ("about.html", b"<a href=\"/old\">redirected</a>"),
        ("Logo.svg", b"1"),
        ("logo.svg", b"2"),
        ("app.js", b"one"),
        ("app.js.gz", b"not gzip at all"),
        (
            "_redirects",
            b"/old /about\n/about /index.html\n/lost /nowhere\n/bad\n",
        ),
        (".hidden", b"x"),
    ]);
    symlink("/etc/hostname", site.path("outside")).unwrap();
    symlink(".", site.path("en")).unwrap();
    let (code, said) = lint(&site, &[]);
    assert_eq!(code, Some(1), "{said}");
    for expected in [
        "index.html:3: error: links to /gone.png",
        "logo.svg: warning: its name differs from Logo.svg",
        "app.js.gz: warning: is not used as a content coding",
        "_redirects:2: warning: never applies: a file answers there",
        "_redirects:3: error: leads to /nowhere",
        "_redirects:4: error",
        "outside: error: leads to /etc/hostname",
        "en/en: note: leads to ",
        ".hidden: note: is not served",
    ] {
        assert!(said.contains(expected), "{expected} is not in:\n{said}");
    }
    assert!(!said.contains("about.html"), "{said}");
    let (code, said) = lint(&site, &["--format", "json"]);
    assert_eq!(code, Some(1));
    let findings: serde_json::Value = serde_json::from_str(&said).unwrap();
    let is_there = findings.as_array().unwrap().iter().any(|each| {
        each["file"] == "index.html" && each["line"] == 3 && each["severity"] == "error"
    });
    assert!(is_there, "{said}");
}

#[test]
fn a_site_without_problems_has_no_findings() {
    let site = TestSite::with(&[
        ("index.html", b"<a href=\"/docs/\">docs</a>"),
        ("docs/index.html", b"<a href=\"../?q#top\">home</a>"),
        ("_redirects", b"/documentation /docs/\n"),
    ]);
    assert_eq!(lint(&site, &[]), (Some(0), String::new()));
    fs::remove_file(site.path("docs/index.html")).unwrap();
    assert_eq!(lint(&site, &[]).0, Some(1));
}

#[test]
fn rules_that_lead_nowhere_are_reported() {
    let rules = [
        (
            "/a/* /nowhere 301",
            "error: leads to /nowhere, where nothing is",
        ),
        (
            "/b x=1 /nowhere",
            "error: leads to /nowhere, where nothing is",
        ),
        (
            "/c/* /app.html 200",
            "error: leads to /app.html, where nothing is",
        ),
        (
            "/d /gone.html 410",
            "warning: its page /gone.html is not there",
        ),
        (
            "/e /f.html 301!",
            "error: leads to /f.html, from where redirects go on and on",
        ),
        (
            "/f /e 301!",
            "error: leads to /e, from where redirects go on and on",
        ),
        ("/g/* /g/x/:splat 302", "warning: redirect loop"),
        ("/h/* /about.html 301", ""),
        ("/i/:name /:name 301", ""),
    ];
    let text: String = rules.map(|(rule, _)| format!("{rule}\n")).concat();
    let site = TestSite::with(&[
        ("index.html", b"<!doctype html>"),
        ("about.html", b"<!doctype html>"),
        ("f.html", b"<!doctype html>"),
        ("_redirects", text.as_bytes()),
    ]);
    let (code, said) = lint(&site, &["--html-handling", "none"]);
    assert_eq!(code, Some(1), "{said}");
    let (_, clean) = lint(&site, &["--html-handling", "drop-trailing-slash"]);
    for (number, (rule, expected)) in (1..).zip(rules) {
        // A loop there is only where clean URLs take part in it.
        let said = if rule.contains("/e") { &clean } else { &said };
        let own = format!("_redirects:{number}: ");
        let mut lines = said.lines().filter(|line| line.starts_with(&own));
        let found: Vec<_> = lines
            .by_ref()
            .filter(|line| !line.contains("note: "))
            .collect();
        match expected {
            "" => assert!(found.is_empty(), "{rule}: {found:?}"),
            expected => assert!(
                found.len() == 1 && found[0].contains(expected),
                "{rule}: {found:?}"
            ),
        }
    }
}

#[test]
fn a_directory_in_the_place_of_rules_is_reported() {
    let site = TestSite::with(&[
        ("_headers/note.txt", b"x"),
        ("_redirects", b"/old /\n"),
        ("_redirects.gz", b"x"),
        ("index.html", b"<!doctype html>"),
    ]);
    let expected = "_headers: error: is a directory: no rules are read, and nothing in it is \
                    served\n_redirects.gz: warning: is not served: its name is reserved for rules\n";
    assert_eq!(lint(&site, &[]), (Some(1), expected.to_owned()));
}

#[test]
fn fields_for_no_file_are_reported() {
    let headers = "/*.jss\n X: y\n/about\n X: y\n/about.html\n X: y\n/docs/\n X: y\n\
                   /app/*\n X: y\n/None\n X: y\n/ABOUT*\n X: y\nhttps://h.example/z\n X: y\n";
    let site = TestSite::with(&[
        ("_headers", headers.as_bytes()),
        ("_redirects", b"/app/* /about 200\n"),
        ("about.html", b"<!doctype html>"),
        ("docs/index.html", b"<!doctype html>"),
    ]);
    let (code, said) = lint(&site, &[]);
    let said: Vec<_> = said
        .lines()
        .filter(|line| !line.contains("note: "))
        .collect();
    let reason = "warning: no file has such a path: the fields are on errors alone";
    let expected = [1, 11].map(|line| format!("_headers:{line}: {reason}"));
    assert_eq!(
        (code, said),
        (Some(0), expected.each_ref().map(|line| &**line).to_vec())
    );
}
