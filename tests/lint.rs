//! `etagd lint`: what will not be served as its author hopes, with file and line.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use support::{TestSite, etagd};

fn lint(site: &TestSite, flags: &[&str]) -> (Option<i32>, String) {
    let (code, said, _) = lint_directory(&site.root(), flags);
    (code, said)
}

/// Exit code, standard output and standard error.
fn lint_directory(root: &Path, flags: &[&str]) -> (Option<i32>, String, String) {
    let mut arguments = vec![OsStr::new("lint"), root.as_os_str()];
    arguments.extend(flags.iter().map(OsStr::new));
    let output = etagd(arguments);
    let [said, messages] = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
    (output.status.code(), said, messages)
}

#[test]
fn what_is_found_is_said_once() {
    let site = TestSite::with(&[
        ("app.js", b"one"),
        ("app.js.gz", b"no gzip"),
        ("picture.svgz", b"no gzip"),
        ("_headers", b"/picture.svgz\n  Content-Encoding: gzip\n"),
        ("_redirects", b"/bad\n"),
    ]);
    let (code, said, messages) = lint_directory(&site.root(), &[]);
    assert_eq!(code, Some(1), "{said}");
    for path in ["app.js.gz", "picture.svgz", "_redirects"] {
        assert!(said.contains(path), "{path}: {said}");
        assert!(!messages.contains(path), "{path}: {messages}");
    }
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
        // What etagd keeps there itself.
        (".etagd/dictionaries/x", b"x"),
    ]);
    symlink("/etc/hostname", site.path("outside")).unwrap();
    symlink(".", site.path("en")).unwrap();
    let (code, said) = lint(&site, &[]);
    assert_eq!(code, Some(1), "{said}");
    for expected in [
        "index.html:3: warning: links to /gone.png, where nothing is [dead-link]",
        "logo.svg: warning: its name differs from Logo.svg",
        "app.js.gz: error: is not used: it is damaged, or no gzip at all (see etagd compress) [sidecar]",
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
    assert!(!said.contains(".etagd"), "{said}");
    let (code, said) = lint(&site, &["--format", "json"]);
    assert_eq!(code, Some(1));
    let findings: serde_json::Value = serde_json::from_str(&said).unwrap();
    let is_there = findings.as_array().unwrap().iter().any(|each| {
        each["file"] == "index.html"
            && each["line"] == 3
            && each["severity"] == "warning"
            && each["code"] == "dead-link"
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
    // The rule can't be right; the link alone would be a warning.
    assert_eq!(lint(&site, &[]).0, Some(1));
    fs::remove_file(site.path("_redirects")).unwrap();
    assert_eq!(lint(&site, &[]).0, Some(0));
    assert_eq!(lint(&site, &["--strict"]).0, Some(1));
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
                    served [rules-directory]\n_redirects.gz: warning: is not served: its name is \
                    reserved for rules [reserved-name]\n";
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
    let reason = "warning: no file has such a path: the fields are on errors alone \
                  [headers-unused]";
    let expected = [1, 11].map(|line| format!("_headers:{line}: {reason}"));
    assert_eq!(
        (code, said),
        (Some(0), expected.each_ref().map(|line| &**line).to_vec())
    );
}

#[test]
fn references_of_all_kinds_are_checked() {
    let site = TestSite::with(&[
        (
            "index.html",
            b"<!doctype html>\n<img srcset=\"a.png 480w,\n missing.png 800w\">\n\
              <noscript><img src=b.gone></noscript>\n\
              <link rel=preload as=image imagesrcset='c.gone 1x'>\n\
              <meta http-equiv=refresh content='9; url=d.gone'>\n\
              <frame src=e.gone>\n<style>\np{background:url(f.gone)}</style>\n\
              <p style='background:url(g.gone)'>",
        ),
        (
            "foreign.html",
            "<base href='//b\u{fc}cher.example/'><a href=h.gone>".as_bytes(),
        ),
        (
            "css/a.css",
            b"@import 'i.gone';\na { b: url(../j.gone) url(#x) url(data:,) }",
        ),
        (
            "x.svg",
            b"<svg xmlns='http://www.w3.org/2000/svg'><use href='k.gone#x'/></svg>",
        ),
        ("a.png", b"x"),
    ]);
    let (code, said) = lint(&site, &[]);
    let expected = [
        "css/a.css:1: warning: links to /css/i.gone",
        "css/a.css:2: warning: links to /j.gone",
        "index.html:2: warning: links to /missing.png",
        "index.html:4: warning: links to /b.gone",
        "index.html:5: warning: links to /c.gone",
        "index.html:6: warning: links to /d.gone",
        "index.html:7: warning: links to /e.gone",
        "index.html:9: warning: links to /f.gone",
        "index.html:10: warning: links to /g.gone",
        "x.svg:1: warning: links to /k.gone",
    ];
    let expected = expected.map(|line| format!("{line}, where nothing is [dead-link]\n"));
    assert_eq!((code, said), (Some(0), expected.concat()));
}

#[test]
fn rules_that_contradict_each_other_or_take_a_file_away_are_reported() {
    let site = TestSite::with(&[
        ("index.html", b"<!doctype html>"),
        ("old/a.html", b"<!doctype html>"),
        ("old/b.html", b"<!doctype html>"),
        ("new/a.html", b"<!doctype html>"),
        (
            "_redirects",
            b"/old/* /new/:splat 301!\n/:_/* / 301\n/app/* /gone/:splat 200!\n",
        ),
        (
            "_headers",
            b"/*\n Cache-Control: max-age=60\n/old/*\n Cache-Control: max-age=3600\n\
              /new/*\n Cache-Control: max-age=60\n/:1st\n X: y\n",
        ),
    ]);
    let (code, said, messages) = lint_directory(&site.root(), &[]);
    for expected in [
        "_headers:3: warning: /old/a gets \"Cache-Control: max-age=60, max-age=3600\", put together \
         with line 1: max-age is both 60 and 3600; \"! Cache-Control\" takes the earlier value away \
         [cache-control]\n",
        "_headers:7: warning: \":1st\" is literal text: the name of a placeholder begins with a \
         letter [rule-doubtful]\n",
        "_redirects:1: error: hides /old/b and leads to /new/b, where nothing is [rule-target]\n",
        "_redirects:2: warning: \":_\" is literal text: the name of a placeholder begins with a \
         letter [rule-doubtful]\n",
    ] {
        assert!(said.contains(expected), "{expected} is not in:\n{said}");
    }
    assert!(
        !said.contains("_redirects:3: error"),
        "it hides nothing: {said}"
    );
    assert_eq!(said.matches("[cache-control]").count(), 1, "{said}");
    assert_eq!(code, Some(1));
    // Each is said once.
    assert!(!messages.contains("_redirects:"), "{messages}");
}

#[test]
fn files_that_nobody_meant_to_publish_are_reported() {
    let site = TestSite::with(&[
        ("index.html", b"<!doctype html>"),
        ("index.html~", b"<!doctype html>"),
        ("#notes#", b"x"),
        ("docs/index.htm", b"<!doctype html>"),
        ("both/index.htm", b"<!doctype html>"),
        ("both/index.html", b"<!doctype html>"),
        ("moved/index.htm", b"<!doctype html>"),
        ("_redirects", b"/moved/ /moved/index.htm 200\n"),
    ]);
    let expected = "%23notes%23: warning: looks like what Emacs keeps of unsaved changes, and \
                    everybody can fetch it [leftover]\n\
                    docs/index.htm: warning: does not answer /docs/: only index.html does \
                    [index-name]\n\
                    index.html~: warning: looks like what an editor keeps of an earlier version, and \
                    everybody can fetch it [leftover]\n";
    // They are not even served, unless somebody wants them to be.
    assert_eq!(
        lint(&site, &["--exclude", "!*"]),
        (Some(0), expected.to_owned())
    );
    let (_, said) = lint(&site, &[]);
    assert!(
        said.contains("[index-name]") && !said.contains("[leftover]"),
        "{said}"
    );
}

#[test]
fn what_is_left_out_has_no_problems() {
    let site = TestSite::with(&[
        ("index.html", b"<a href=drafts/a>"),
        ("drafts/a.html", b"<a href=gone>"),
        ("drafts/.hidden", b"x"),
        (".etagdignore", b"drafts\n{bad\n"),
    ]);
    let (code, said) = lint(&site, &[]);
    let expected = [
        "etagdignore:2: error: ",
        "index.html:1: warning: links to /drafts/a, where nothing is [dead-link]",
    ];
    assert_eq!(said.lines().count(), 2, "{said}");
    for expected in expected {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert_eq!(code, Some(1));
}

#[test]
fn a_finding_can_be_accepted() {
    let site = TestSite::with(&[
        ("index.html", b"<a href=gone>"),
        ("drafts/a.html", b"<a href=gone>"),
        ("_redirects", b"/old /nowhere\n"),
    ]);
    let all = ["--allow", "rule-target", "--allow", "dead-link", "--strict"];
    let (code, said, messages) = lint_directory(&site.root(), &all);
    assert_eq!((code, &*said), (Some(0), ""));
    assert!(messages.contains("0 notes (3 accepted)"), "{messages}");
    let some = ["--allow", "dead-link:/drafts/**", "--allow", "leftover"];
    let (code, said, messages) = lint_directory(&site.root(), &some);
    assert_eq!(code, Some(1));
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(!said.contains("drafts"), "{said}");
    assert!(
        messages.contains("--allow leftover accepts nothing"),
        "{messages}"
    );
    let (code, said, messages) = lint_directory(&site.root(), &["--allow", "no-such-code"]);
    assert_eq!((code, &*said), (Some(2), ""));
    assert!(messages.contains("dead-link, "), "{messages}");
}

#[test]
fn the_manual_has_no_problems_and_names_every_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-site");
    // What a request for a missing file gets is shown on purpose.
    let flags = ["--strict", "--allow", "dead-link:/index.html"];
    let (code, said, messages) = lint_directory(&root, &flags);
    assert_eq!(code, Some(0), "{said}{messages}");
    let page = fs::read_to_string(root.join("guide/rules.html")).unwrap();
    for code in etagd::lint::Code::ALL {
        let term = format!("<dt><code>{code}</code>");
        assert_eq!(page.matches(&term).count(), 1, "{code} in the manual");
    }
}

#[test]
fn an_immutable_file_that_differs_from_the_release_before_is_an_error() {
    let site = TestSite::with(&[
        ("app-1bad3eef.js", b"one"),
        ("app-2bad3eef.js", b"one"),
        ("gone-1bad3eef.js", b"one"),
        ("page.html", b"one"),
    ]);
    let flags = ["--immutable", "auto", "--format", "json"];
    let root = site.root();
    let mut arguments = vec![OsStr::new("manifest"), root.as_os_str()];
    arguments.extend(flags.iter().map(OsStr::new));
    let served = etagd(arguments);
    assert!(served.status.success());
    let base = TestSite::with(&[("served.json", &served.stdout)]);
    let base = base.path("served.json");
    for name in ["app-1bad3eef.js", "page.html"] {
        fs::write(site.path(name), "two").unwrap();
    }
    fs::remove_file(site.path("gone-1bad3eef.js")).unwrap();
    let (code, said) = lint(&site, &["--base", base.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.starts_with("app-1bad3eef.js: error: was immutable and has changed")
            && said.contains("[immutable-changed]"),
        "{said}"
    );
    let (code, _, messages) = lint_directory(&site.root(), &["--base", "/nowhere/served.json"]);
    assert_eq!(code, Some(1), "{messages}");
    assert!(messages.contains("/nowhere/served.json"), "{messages}");
}

#[test]
fn what_would_be_compressed_is_checked_as_before() {
    let page = "<!doctype html>\n<title>a</title>\n<p>text\n".repeat(100);
    let site = TestSite::with(&[
        ("index.html", page.as_bytes()),
        ("index.html.gz", b"no gzip"),
        ("fine.html", page.as_bytes()),
    ]);
    let (code, said) = lint(&site, &["--compress"]);
    assert_eq!((code, said), lint(&site, &[]));
    assert_eq!(code, Some(1));
    fs::remove_file(site.path("index.html.gz")).unwrap();
    assert_eq!(lint(&site, &["--compress"]), (Some(0), String::new()));
}
