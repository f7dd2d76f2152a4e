//! Releases as they come: taken whole, in order, with all that a directory would have.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::support::tree::{digest_of, eventually, manifest_of, stays};
use crate::support::{Releases, Server, TestSite, etagd, noise, tag};
use crate::{A_WHILE, ADMIN, OFTEN, SELDOM, metric, status, told, wait_for_release};

/// What the operator is told of the site.
fn manifest_at(server: &Server) -> Vec<u8> {
    let url = format!("http://{}/manifest", server.admin());
    let mut response = ureq::get(&url).call().unwrap();
    response.body_mut().read_to_vec().unwrap()
}

fn site() -> TestSite {
    TestSite::with(&[
        ("index.html", b"<!doctype html><p>one"),
        ("about.html", b"<!doctype html><p>about"),
        ("style.css", b"p { color: red }"),
        ("empty.txt", b""),
        ("deep/er/file.bin", &noise(300_000, 1)),
        ("large.bin", &noise(9 << 20, 2)),
        (
            "_headers",
            b"/style.css\n  X-From: rules\n  Content-Language: en\n",
        ),
        ("_redirects", b"/old /about 301\n"),
    ])
}

#[test]
fn a_release_is_the_site_that_was_pushed() {
    let site = site();
    let releases = Releases::of(&site, &[]);
    for flags in [&[][..], &["--prefetch", "none", "--memory", "16MiB"]] {
        let server = releases.serve(&[&ADMIN[..], flags].concat());
        let digest = digest_of(&site.root());
        assert_eq!(told(&server, "/digest"), (200, format!("{digest}\n")));
        let ready = (200, format!("ready {digest} 6 entries\n"));
        assert_eq!(told(&server, "/readyz"), ready);
        assert_eq!(manifest_at(&server), manifest_of(&site.root(), &[]));
        for file in ["index.html", "empty.txt", "deep/er/file.bin", "large.bin"] {
            let content = fs::read(site.path(file)).unwrap();
            assert_eq!(server.body(&format!("/{file}")), Some(content), "{file}");
        }
        let style = server.client().get("/style.css");
        assert_eq!(style.field("X-From"), Some("rules"));
        assert_eq!(server.client().get("/old").status, 301);
        for hidden in ["/_headers", "/_redirects"] {
            assert_eq!(status(&server, hidden), 404, "{hidden}");
        }
        let admin = format!("http://{}", server.admin());
        let root = site.root();
        let checked = etagd(["check", &admin, "--dir", root.to_str().unwrap()]);
        assert!(checked.status.success(), "{checked:?}");
    }
}

#[test]
fn its_flags_and_codings_come_with_it() {
    let prose = "<p>What is compressed is prose, and of that there is enough.</p>\n".repeat(50);
    let site = TestSite::with(&[("page.html", prose.as_bytes()), ("index-BfX3a91Z.js", b"1")]);
    let flags = [
        "--compress",
        "--immutable",
        "auto",
        "--not-found",
        "none",
        "--base-path",
        "/app",
    ];
    let releases = Releases::of(&site, &flags);
    let server = releases.serve(&ADMIN);
    server.wait_for_line("/app/");
    let manifest = manifest_of(&site.root(), &flags);
    assert_eq!(manifest_at(&server), manifest);
    let page = server
        .client()
        .request("GET", "/app/page", &[("Accept-Encoding", "br")]);
    assert_eq!(page.field("Content-Encoding"), Some("br"));
    assert!(page.body.len() < prose.len() / 4);
    let script = server.client().get("/app/index-BfX3a91Z.js");
    assert!(script.field("Cache-Control").unwrap().contains("immutable"));
    // The next one may have others.
    releases.push(&site, &["--repr-digest", "always"]);
    server.signal(Signal::HUP);
    wait_for_release(&server, 2);
    let page = server.client().get("/page");
    assert!(page.field("Repr-Digest").is_some());
    assert_eq!(page.field("Vary"), None);
    let manifest = manifest_of(&site.root(), &["--repr-digest", "always"]);
    assert_eq!(manifest_at(&server), manifest);
}

#[test]
fn a_newer_release_is_taken_and_an_older_one_comes_back() {
    let site = site();
    let releases = Releases::of(&site, &[]);
    let server = releases.serve(&[ADMIN, OFTEN].concat());
    let first = digest_of(&site.root());
    let site = site
        .file("index.html", "<!doctype html><p>two")
        .file("new.txt", "new");
    fs::remove_file(site.path("about.html")).unwrap();
    releases.push(&site, &["--note", "second"]);
    wait_for_release(&server, 2);
    server.wait_for_line("release 2: published: 2 changed, 1 removed");
    assert_eq!(server.body("/"), Some(b"<!doctype html><p>two".to_vec()));
    assert_eq!(status(&server, "/about"), 404);
    assert_eq!(told(&server, "/digest").1.trim(), digest_of(&site.root()));
    releases.roll_back(1);
    wait_for_release(&server, 3);
    assert_eq!(told(&server, "/digest").1.trim(), first);
    assert_eq!(status(&server, "/new.txt"), 404);
    assert_eq!(status(&server, "/about"), 200);
    // What has not changed was not fetched again.
    let fetched = metric(&server, "store_fetched_bytes_total");
    assert!(fetched < 2 << 20, "{fetched}");
    assert_eq!(metric(&server, "store_releases_taken_total"), 3);
    assert_eq!(metric(&server, "publications_total"), 2);
}

#[test]
fn each_channel_has_releases_of_its_own() {
    let site = TestSite::with(&[("index.html", b"live")]);
    let releases = Releases::of(&site, &[]);
    let site = site.file("index.html", "preview");
    releases.push(&site, &["--channel", "pr-17"]);
    let live = releases.serve(&[]);
    let preview = releases.serve(&["--channel", "pr-17"]);
    assert_eq!(live.body("/").unwrap(), b"live");
    assert_eq!(preview.body("/").unwrap(), b"preview");
}

#[test]
fn a_channel_without_releases_is_waited_for() {
    let releases = Releases::new();
    let server = releases.spawn(&[ADMIN, OFTEN].concat());
    server.wait_for_line("has no release yet");
    let (status, reason) = told(&server, "/readyz");
    assert_eq!(status, 503);
    assert!(
        reason.contains("(channel live) has no release yet"),
        "{reason}"
    );
    let site = TestSite::with(&[("index.html", b"here")]);
    releases.push(&site, &[]);
    server.wait_until_listening();
    assert_eq!(server.body("/").unwrap(), b"here");
    assert_eq!(told(&server, "/readyz").0, 200);
}

#[test]
fn a_channel_that_was_mistyped_is_told_from_those_that_there_are() {
    let site = TestSite::with(&[("index.html", b"here")]);
    let releases = Releases::of(&site, &[]);
    releases.push(&site, &["--channel", "pr-17"]);
    let server = releases.spawn(&["--channel", "lvie"]);
    server.wait_for_line(
        "(channel lvie) has no release yet: push one (channels that have some: live, pr-17); not ready",
    );
}

#[test]
fn a_signal_has_it_look_now() {
    let site = TestSite::with(&[("index.html", b"one")]);
    let releases = Releases::of(&site, &[]);
    let server = releases.serve(&[ADMIN, SELDOM].concat());
    let site = site.file("index.html", "two");
    releases.push(&site, &[]);
    stays(A_WHILE, "nobody has looked", || {
        server.body("/").unwrap() == b"one"
    });
    server.signal(Signal::HUP);
    server.wait_for_body("/", "two");
}

#[test]
fn what_names_the_newest_release_is_a_hint_and_no_more() {
    let site = TestSite::with(&[("index.html", b"one")]);
    let releases = Releases::of(&site, &[]);
    let hint = releases.hint();
    let flags = [&ADMIN[..], &OFTEN, &["--sweep", "300ms"]].concat();
    let mut site = site;
    // What it says is wrong, or it is not there at all.
    for said in [Some("0"), Some("1"), Some("99"), Some("nonsense"), None] {
        match said {
            Some(said) => fs::write(&hint, said).unwrap(),
            None => fs::remove_file(&hint).unwrap(),
        }
        let server = releases.serve(&flags);
        let number = metric(&server, "store_release");
        site = site.file("index.html", said.unwrap_or("none"));
        releases.push(&site, &[]);
        match said {
            Some(said) => fs::write(&hint, said).unwrap(),
            None => fs::remove_file(&hint).unwrap(),
        }
        wait_for_release(&server, number + 1);
        assert_eq!(metric(&server, "store_failed_polls_total"), 0, "{said:?}");
    }
}

#[test]
fn what_is_missing_here_may_be_in_a_release_that_was_not_seen() {
    let site = TestSite::with(&[("index.html", b"one"), ("404.html", b"nothing")]);
    let releases = Releases::of(&site, &[]);
    let server = releases.serve(&[ADMIN, SELDOM].concat());
    let site = site.file("app-2.js", "two").file("page.html", "page");
    releases.push(&site, &[]);
    // A page can wait, and so can a HEAD for one.
    for page in ["/page", "/page.html", "/page/"] {
        assert_eq!(status(&server, page), 404, "{page}");
    }
    assert_eq!(metric(&server, "store_release"), 1);
    assert_eq!(server.body("/app-2.js").unwrap(), b"two");
    assert_eq!(metric(&server, "store_release"), 2);
    let missing = server.client().get("/app-3.js");
    assert_eq!((missing.status, &missing.body[..]), (404, &b"nothing"[..]));
    // While the store is away, nobody waits for it.
    releases.hide();
    server.signal(Signal::HUP);
    server.wait_for_line("release 2 stays");
    let asked = std::time::Instant::now();
    assert_eq!(status(&server, "/app-3.js"), 404);
    assert!(asked.elapsed() < std::time::Duration::from_secs(3));
}

#[test]
fn many_requests_for_what_is_missing_ask_the_store_seldom() {
    let site = TestSite::with(&[("index.html", b"one")]);
    let releases = Releases::of(&site, &[]);
    let server = releases.serve(&[ADMIN, SELDOM].concat());
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.client();
                for number in 0..3 {
                    assert_eq!(client.get(&format!("/{thread}-{number}.js")).status, 404);
                }
            });
        }
    });
    // 24 of them, four looks in a second.
    assert!(
        began.elapsed() < std::time::Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    server.client().get("/");
}

#[test]
fn a_command_gets_what_a_release_changes() {
    let site = TestSite::with(&[("index.html", b"one"), ("gone.txt", b"x")]);
    let releases = Releases::of(&site, &[]);
    let said = releases.beside("said");
    let command = format!("cat >> {said}; echo $ETAGD_NEW_DIGEST >> {said}");
    let server = releases.serve(&[&ADMIN[..], &OFTEN, &["--on-publish", &command]].concat());
    let site = site.file("index.html", "two");
    fs::remove_file(site.path("gone.txt")).unwrap();
    releases.push(&site, &[]);
    wait_for_release(&server, 2);
    let digest = digest_of(&site.root());
    eventually("the command has run", || {
        fs::read_to_string(&said).is_ok_and(|said| said.ends_with(&format!("{digest}\n")))
    });
    let said = fs::read_to_string(&said).unwrap();
    assert_eq!(said, format!("/\n/gone.txt\n/index.html\n{digest}\n"));
}

#[test]
fn an_expected_digest_and_a_drain_are_as_from_a_directory() {
    let site = TestSite::with(&[("index.html", b"one")]);
    let releases = Releases::of(&site, &[]);
    let expected = tag(b"another").trim_matches('"').to_owned();
    let flags = [&ADMIN[..], &["--expect", &expected, "--drain", "0s"]].concat();
    let mut server = releases.serve(&flags);
    let (status, reason) = told(&server, "/readyz");
    assert_eq!(status, 503);
    assert!(reason.contains("does not match the expected"), "{reason}");
    server.signal(Signal::TERM);
    assert!(server.wait().success());
}

#[test]
fn a_developers_server_takes_none() {
    let releases = Releases::of(&TestSite::with(&[("a", b"a")]), &[]);
    let output = Command::new(env!("CARGO_BIN_EXE_etagd"))
        .args(["dev", &releases.url()])
        .output()
        .unwrap();
    assert!(!output.status.success());
}
