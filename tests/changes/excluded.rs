//! What patterns leave out: from the first scan on, while things change, and when the patterns do.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use super::support::tree::eventually;
use super::support::{Server, TestSite, etagd};
use super::{EVENTS, served};

/// The inode numbers of what a server watches, as the kernel says it (proc(5)).
fn watched(server: &Server) -> HashSet<u64> {
    let descriptors = fs::read_dir(format!("/proc/{}/fdinfo", server.pid())).unwrap();
    // One may be closed meanwhile.
    let texts = descriptors.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    let texts: Vec<_> = texts.collect();
    let lines = texts.iter().flat_map(|text| text.lines());
    lines
        .filter_map(|line| line.strip_prefix("inotify ")?.split(' ').nth(1))
        .filter_map(|field| u64::from_str_radix(field.strip_prefix("ino:")?, 16).ok())
        .collect()
}

fn is_watched(server: &Server, site: &TestSite, path: &str) -> bool {
    watched(server).contains(&fs::metadata(site.path(path)).unwrap().ino())
}

#[test]
fn a_site_of_which_everything_is_excluded_is_said() {
    let site = TestSite::with(&[("page", b"1"), ("deep/page", b"1")]);
    let warning = "is served: --exclude and .etagdignore leave out all of it";
    let server = Server::with(&site, &[EVENTS, &["--exclude", "*"]].concat());
    assert!(server.log().contains(warning), "{}", server.log());
    drop(server);
    let server = Server::with(&site, EVENTS);
    assert!(!server.log().contains(warning), "{}", server.log());
    fs::write(site.path(".etagdignore"), "/**\n").unwrap();
    server.wait_for(|lines| lines.iter().any(|line| line.contains(warning)));
}

#[test]
fn what_is_excluded_is_neither_served_nor_watched() {
    let site = TestSite::with(&[
        ("page", b"1"),
        ("page.map", b"m"),
        ("page~", b"0"),
        ("node_modules/a/b", b"x"),
        ("deep/er/node_modules/c", b"x"),
        ("deep/er/file", b"1"),
    ])
    .file(".etagdignore", "*.map\n");
    let flags = [EVENTS, &["--exclude", "node_modules"]].concat();
    let server = Server::with(&site, &flags);
    for path in [
        "/page.map",
        "/page~",
        "/node_modules/a/b",
        "/deep/er/node_modules/c",
        "/.etagdignore",
    ] {
        assert_eq!(server.client().get(path).status, 404, "{path}");
    }
    for (path, is_wanted) in [
        ("", true),
        ("deep/er", true),
        ("node_modules", false),
        ("node_modules/a", false),
        ("deep/er/node_modules", false),
    ] {
        assert_eq!(is_watched(&server, &site, path), is_wanted, "{path}");
    }
    // What is new is watched with what is below it, also under another name.
    fs::create_dir_all(site.path("new/sub/node_modules")).unwrap();
    fs::write(site.path("new/sub/file"), "1").unwrap();
    server.wait_for_body("/new/sub/file", "1");
    fs::write(site.path("new/sub/file"), "2").unwrap();
    server.wait_for_body("/new/sub/file", "2");
    fs::rename(site.path("new"), site.path("moved")).unwrap();
    server.wait_for_body("/moved/sub/file", "2");
    server.wait_for_absence("/new/sub/file");
    fs::write(site.path("moved/sub/file"), "3").unwrap();
    fs::write(site.path("deep/er/file"), "3").unwrap();
    server.wait_for_body("/moved/sub/file", "3");
    server.wait_for_body("/deep/er/file", "3");
    assert!(!is_watched(&server, &site, "moved/sub/node_modules"));
    server.wait_until_it_serves_with(&site.root(), &["--exclude", "node_modules"]);
}

#[test]
fn the_sites_patterns_are_read_again_when_they_change() {
    let site = TestSite::with(&[
        ("page", b"1"),
        ("out/file", b"1"),
        ("out/deep/file", b"1"),
        ("_headers", b"/*\n  X-Rule: yes\n"),
    ]);
    let mut server = served(&site);
    let ignore = site.path(".etagdignore");
    assert_eq!(server.body("/out/file").unwrap(), b"1");
    fs::write(&ignore, "out/\n").unwrap();
    server.wait_for_absence("/out/file");
    server.wait_until_it_serves(&site.root());
    server.wait_for_line("published: ");
    assert!(!server.log().contains("new rules"), "{}", server.log());
    eventually("what is left out is watched no longer", || {
        !is_watched(&server, &site, "out") && !is_watched(&server, &site, "out/deep")
    });
    fs::write(site.path("out/file"), "2").unwrap();
    fs::write(site.path("page"), "2").unwrap();
    server.wait_for_body("/page", "2");
    // A line that is no pattern is named, and the others apply.
    fs::write(&ignore, "out/deep\n{page\n").unwrap();
    server.wait_for_line(".etagdignore:2: ");
    server.wait_for_body("/out/file", "2");
    assert_eq!(server.client().get("/out/deep/file").status, 404);
    eventually("what is taken in again is watched", || {
        is_watched(&server, &site, "out")
    });
    fs::write(site.path("out/file"), "3").unwrap();
    server.wait_for_body("/out/file", "3");
    // Everything, but for the rules, which are no part of it.
    fs::write(&ignore, "*\n").unwrap();
    server.wait_for_line("nothing of ");
    server.wait_for_absence("/page");
    let missing = server.client().get("/page");
    assert_eq!(missing.field("X-Rule"), Some("yes"));
    fs::remove_file(&ignore).unwrap();
    server.wait_for_body("/out/deep/file", "1");
    server.wait_until_it_serves(&site.root());
    server.assert_alive();
}

#[test]
fn a_link_brings_what_is_excluded_under_its_own_name() {
    let site = TestSite::with(&[("node_modules/lib/file", b"1"), ("page", b"1")]);
    symlink("node_modules/lib", site.path("vendor")).unwrap();
    let flags = [EVENTS, &["--exclude", "node_modules"]].concat();
    let server = Server::with(&site, &flags);
    assert_eq!(server.body("/vendor/file").unwrap(), b"1");
    assert!(!is_watched(&server, &site, "node_modules"));
    fs::write(site.path("node_modules/lib/file"), "2").unwrap();
    server.wait_for_body("/vendor/file", "2");
    assert_eq!(server.client().get("/node_modules/lib/file").status, 404);
}

/// What a start can't know must not be public.
#[test]
fn patterns_that_cannot_be_read_keep_a_site_from_being_served() {
    let too_large = |site: &TestSite| {
        let file = fs::File::create(site.path(".etagdignore")).unwrap();
        file.set_len(2 << 20).unwrap();
    };
    let elsewhere = |site: &TestSite| {
        let target = site.outside("patterns");
        fs::write(&target, "secret\n").unwrap();
        symlink(target, site.path(".etagdignore")).unwrap();
    };
    let nowhere = |site: &TestSite| symlink("missing", site.path(".etagdignore")).unwrap();
    let folder = |site: &TestSite| fs::create_dir(site.path(".etagdignore")).unwrap();
    let spoil: [&dyn Fn(&TestSite); 4] = [&too_large, &elsewhere, &nowhere, &folder];
    for spoil in spoil {
        let site = TestSite::with(&[("secret", b"x"), ("page", b"1")]);
        spoil(&site);
        let naming = [".etagdignore", "what it leaves out would be served"];
        Server::assert_fails(&site.root(), &[], 1, &naming);
        for command in ["manifest", "compress", "lint"] {
            let output = etagd([command, site.root().to_str().unwrap()]);
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{command}: {said}");
            assert!(said.contains(naming[0]), "{command}: {said}");
        }
    }
}

#[test]
fn patterns_that_cannot_be_read_any_more_stay_in_force() {
    let site = TestSite::with(&[("secret", b"x"), ("page", b"1")]).file(".etagdignore", "secret\n");
    let server = served(&site);
    let file = fs::File::create(site.outside("large")).unwrap();
    file.set_len(2 << 20).unwrap();
    fs::rename(site.outside("large"), site.path(".etagdignore")).unwrap();
    server.wait_for_line(".etagdignore must be at most 1 MiB");
    fs::write(site.path("page"), "2").unwrap();
    server.wait_for_body("/page", "2");
    assert_eq!(server.client().get("/secret").status, 404);
    symlink("missing", site.outside("link")).unwrap();
    fs::rename(site.outside("link"), site.path(".etagdignore")).unwrap();
    fs::write(site.path("page"), "3").unwrap();
    server.wait_for_body("/page", "3");
    assert_eq!(
        server.client().get("/secret").status,
        404,
        "a link that leads nowhere"
    );
}

#[test]
fn packages_that_are_served_are_named_once() {
    let site = TestSite::with(&[
        ("node_modules/a/b", b"x"),
        ("deep/node_modules/c", b"x"),
        ("d", b"x"),
    ]);
    for (flags, times) in [(&[][..], 1), (&["--exclude", "node_modules"][..], 0)] {
        let server = Server::with(&site, &[EVENTS, flags].concat());
        fs::write(site.path("node_modules/a/b"), format!("{times}")).unwrap();
        fs::write(site.path("d"), format!("{times}")).unwrap();
        server.wait_for_line("published: ");
        let said = "2 files below node_modules are served";
        assert_eq!(server.log().matches(said).count(), times, "{flags:?}");
    }
}
