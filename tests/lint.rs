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
fn everything_that_is_amiss_is_told_with_file_and_line() {
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
fn a_site_that_is_well_has_nothing_to_tell() {
    let site = TestSite::with(&[
        ("index.html", b"<a href=\"/docs/\">docs</a>"),
        ("docs/index.html", b"<a href=\"../?q#top\">home</a>"),
        ("_redirects", b"/documentation /docs/\n"),
    ]);
    assert_eq!(lint(&site, &[]), (Some(0), String::new()));
    fs::remove_file(site.path("docs/index.html")).unwrap();
    assert_eq!(lint(&site, &[]).0, Some(1));
}
