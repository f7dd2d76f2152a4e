//! `etagd check` and `etagd manifest --diff`: what differs, where, and with which exit code.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;
#[path = "support/transports.rs"]
mod transports;

use std::fs;
use std::io::{Cursor, Read};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::server::command;
use support::site::{MTIME, overwrite_in_place, set_mtime};
use support::stand::{Stand, digest_in, response};
use support::tree::manifest_of;
use support::{Server, TestSite, etagd, noise, tag};
use transports::{Authority, secure_address};

/// The exit code, standard output and standard error of a run.
fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert!(!error.contains("panicked"), "{error}");
    (output.status.code(), out, error)
}

fn check(arguments: &[&str]) -> (Option<i32>, String, String) {
    said(&etagd([&["check"], arguments].concat()))
}

/// A replica that shows the manifest of a site as it is now.
fn admin(site: &TestSite) -> Stand {
    let manifest = manifest_of(&site.root(), &[]);
    Stand::of_manifest(move || manifest.clone())
}

fn url(server: &Server) -> String {
    format!("http://{}", server.address())
}

/// The tree that the tests here copy: mtimes and inodes are each copy's own.
fn copy(mtime: i64) -> TestSite {
    [
        ("index.html", b"<!doctype html>first".to_vec()),
        ("a.txt", b"a".to_vec()),
        ("d/b.txt", b"b".to_vec()),
        ("d/middle.bin", noise(300_000, 1)),
        ("big.bin", noise(2_000_000, 2)),
        ("a b\u{e9}%41.txt", b"hard to write".to_vec()),
        ("empty", Vec::new()),
    ]
    .iter()
    .fold(TestSite::new(), |site, (name, content)| {
        site.file_dated(name, content, mtime)
    })
}

// Manifests against manifests.

#[test]
fn replicas_with_other_mtimes_agree() {
    let (one, two, three) = (copy(MTIME), copy(MTIME + 5), copy(5));
    let stands = [&one, &two, &three].map(admin);
    let urls = stands.each_ref().map(Stand::url);
    let digest = digest_in(&manifest_of(&one.root(), &[]));
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let (code, out, message) = check(&urls);
    assert_eq!((code, out.as_str()), (Some(0), ""), "{message}");
    assert!(
        message.contains("3 replicas agree") && message.contains(&digest),
        "{message}"
    );
    // The same with what they should serve, from a file, from a pipe and from a directory.
    let file = one.outside("site.json");
    fs::write(&file, manifest_of(&two.root(), &[])).unwrap();
    for expected in [
        ["--manifest", file.to_str().unwrap()],
        ["--dir", two.root().to_str().unwrap()],
    ] {
        let (code, out, message) = check(&[&urls[..1], &expected].concat());
        assert_eq!((code, out.as_str()), (Some(0), ""), "{message}");
    }
    let mut program = command(env!("CARGO_BIN_EXE_etagd"));
    program.args(["check", urls[0], "--manifest", "-"]);
    let output = program
        .stdin(fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn what_differs_is_named_with_its_replica() {
    type Change = fn(&TestSite);
    let (was, is) = (tag(b"a"), tag(b"b"));
    let cases: [(&str, Change, &[String]); 5] = [
        (
            "one byte",
            |site| overwrite_in_place(&site.path("a.txt"), b"b"),
            &[format!("/a.txt\tother tag\tURL\t{is} instead of {was}")],
        ),
        (
            "a missing file",
            |site| fs::remove_file(site.path("d/b.txt")).unwrap(),
            &["/d/b.txt\tmissing\tURL\t".to_owned()],
        ),
        (
            "a file more, and a name that is hard to write",
            |site| fs::write(site.path("more \u{e9}"), "a").unwrap(),
            &[format!("/more%20%C3%A9\textra\tURL\t{was}")],
        ),
        (
            "another name",
            |site| fs::rename(site.path("a.txt"), site.path("z.txt")).unwrap(),
            &[
                "/a.txt\tmissing\tURL\t".to_owned(),
                format!("/z.txt\textra\tURL\t{was}"),
            ],
        ),
        (
            "another type under the same content",
            |site| {
                fs::rename(site.path("a.txt"), site.path("a")).unwrap();
                fs::write(site.path("a.txt"), "a").unwrap();
            },
            &[format!("/a\textra\tURL\t{was}")],
        ),
    ];
    for (name, change, want) in cases {
        let sites = [copy(MTIME), copy(MTIME), copy(5)];
        let place = name.len() % 3;
        change(&sites[place]);
        let stands = sites.each_ref().map(admin);
        let urls = stands.each_ref().map(Stand::url);
        let (code, out, message) = check(&urls.each_ref().map(String::as_str));
        assert_eq!(code, Some(1), "{name}: {message}");
        let want: Vec<_> = want
            .iter()
            .map(|line| line.replace("URL", &urls[place]))
            .collect();
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines, want, "{name}");
        assert!(
            message.contains("1 of 3 replicas deviate"),
            "{name}: {message}"
        );
    }
}

#[test]
fn other_flags_and_an_unreadable_file_are_named() {
    let site = copy(MTIME);
    let (root, other) = (site.root(), site.root());
    let one = Stand::of_manifest(move || manifest_of(&root, &[]));
    let two = Stand::of_manifest(move || manifest_of(&other, &["--last-modified", "off"]));
    let (code, out, _) = check(&[&one.url(), &two.url()]);
    assert_eq!(code, Some(1));
    let expected = format!(
        "-\tother settings\t{}\t--last-modified off instead of mtime\n",
        two.url()
    );
    assert_eq!(out, expected);

    let incomplete = |text: Vec<u8>| {
        let text = String::from_utf8(text).unwrap();
        text.replacen("\"complete\":true", "\"complete\":false", 1)
            .into_bytes()
    };
    let root = site.root();
    let three = Stand::of_manifest(move || incomplete(manifest_of(&root, &[])));
    let (code, out, _) = check(&[&one.url(), &three.url()]);
    assert_eq!(code, Some(1));
    assert!(
        out.starts_with("-\tincomplete\t") && out.contains(&three.url()),
        "{out}"
    );
}

#[test]
fn a_replica_that_cannot_be_reached_is_no_agreement() {
    let site = copy(MTIME);
    let (one, two) = (admin(&site), admin(&site));
    let silent = Stand::new(|_, _| {
        thread::park();
        Box::new(std::io::empty())
    });
    // A port that nobody listens on.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let nobody = format!("http://{nobody}");
    let starting = Stand::new(|_, _| response(503, &[], b"scanning"));
    let cut = Stand::new(|_, _| response(200, &[("Content-Length", "9999")], b"{\"format\":1,"));
    let other = Stand::new(|_, _| response(200, &[], b"{\"format\":99,\"entries\":[]}"));
    for (name, bad, reason) in [
        ("nobody", nobody.as_str(), "refused"),
        ("silent", &silent.url(), "timeout"),
        ("starting", &starting.url(), "503"),
        ("cut", &cut.url(), "manifest"),
        ("of another version", &other.url(), "format 99"),
    ] {
        let started = Instant::now();
        let urls = [&one.url(), bad, &two.url(), "--timeout", "2s"];
        let (code, out, message) = check(&urls);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{name}: {message}");
        assert!(
            message.contains(bad) && message.contains(reason),
            "{name}: {message}"
        );
        assert!(
            message.contains("1 of 3 cannot be compared"),
            "{name}: {message}"
        );
        assert!(started.elapsed() < Duration::from_secs(15), "{name}");
    }
}

/// Entries without end, as fast as they are read, or a byte at a time.
struct Endless {
    pause: Duration,
    rest: Cursor<Vec<u8>>,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        thread::sleep(self.pause);
        let most = if self.pause.is_zero() {
            buffer.len()
        } else {
            1
        };
        match self.rest.read(&mut buffer[..most])? {
            0 => {
                let tag = "0".repeat(64);
                let entry = format!(
                    "{{\"path\":\"/a\",\"etag\":\"\\\"{tag}\\\"\",\"size\":1,\"type\":\"a/b\"}},"
                );
                self.rest = Cursor::new(entry.into_bytes());
                self.rest.read(&mut buffer[..most])
            }
            read => Ok(read),
        }
    }
}

#[test]
fn a_manifest_without_end_fills_neither_memory_nor_time() {
    let site = copy(MTIME);
    let good = admin(&site);
    let head =
        "HTTP/1.1 200 Said\r\n\r\n{\"format\":1,\"digest\":\"\",\"complete\":true,\"entries\":[";
    let endless = |pause| {
        Stand::new(move |_, _| {
            let rest = Cursor::new(head.as_bytes().to_vec());
            Box::new(Endless { pause, rest })
        })
    };
    let fast = endless(Duration::ZERO);
    let (code, _, message) = check(&[&good.url(), &fast.url(), "--max-size", "3MiB"]);
    assert_eq!(code, Some(1));
    assert!(message.contains("--max-size"), "{message}");
    let slow = endless(Duration::from_millis(10));
    let started = Instant::now();
    let (code, _, message) = check(&[&good.url(), &slow.url(), "--timeout", "100ms"]);
    assert_eq!(code, Some(1));
    assert!(
        message.contains("timeout") && message.contains(&slow.url()),
        "{message}"
    );
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn many_differences_are_counted_and_some_are_shown() {
    let many = |content: &str| {
        let content = content.to_owned();
        (0..30).fold(TestSite::new(), |site, n| {
            site.file(format!("f{n}"), &content)
        })
    };
    let (one, two) = (many("one"), many("two"));
    let (one, two) = (admin(&one), admin(&two));
    let urls = [&one.url()[..], &two.url()];
    let (code, out, message) = check(&urls);
    assert_eq!((code, out.lines().count()), (Some(1), 20));
    assert!(
        message.contains("10 more at") && message.contains("--all"),
        "{message}"
    );
    let (code, out, _) = check(&[&urls[..], &["--all"]].concat());
    assert_eq!((code, out.lines().count()), (Some(1), 30));
    let (code, out, _) = check(&[&urls[..], &["--format", "json"]].concat());
    assert_eq!(code, Some(1));
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["agree"], false);
    let replica = &report["replicas"][1];
    assert_eq!(
        (&replica["url"], &replica["kind"]),
        (&two.url().into(), &"admin".into())
    );
    assert_eq!(
        (&replica["entries"], &replica["differing"]),
        (&30.into(), &30.into())
    );
    assert_eq!(replica["differences"].as_array().unwrap().len(), 20);
    assert_eq!(replica["differences"][0]["how"], "other tag");
    assert_eq!(replica["differences"][0]["path"], "/f0");
}

#[test]
fn waiting_ends_when_they_agree() {
    let (old, new) = (copy(MTIME), copy(MTIME).file("new.txt", "new"));
    let (old, deployed) = (manifest_of(&old.root(), &[]), manifest_of(&new.root(), &[]));
    let first = admin(&new);
    let asked = AtomicUsize::new(0);
    // Old at the first look, and for three digests; then new.
    let second = Stand::of_manifest(move || match asked.fetch_add(1, Ordering::SeqCst) {
        0..4 => old.clone(),
        _ => deployed.clone(),
    });
    // And one that can't be asked at first.
    let asked = AtomicUsize::new(0);
    let content = manifest_of(&new.root(), &[]);
    let third = Stand::new(
        move |_, target| match (asked.fetch_add(1, Ordering::SeqCst), target) {
            (0..2, _) => response(503, &[], b"scanning"),
            (_, "/manifest") => response(200, &[], &content),
            _ => response(200, &[], digest_in(&content).as_bytes()),
        },
    );
    let (code, out, message) = check(&[&first.url(), &second.url(), &third.url(), "--wait", "60s"]);
    assert_eq!((code, out.as_str()), (Some(0), ""), "{message}");
    assert!(message.contains("3 replicas agree"), "{message}");
    assert!(second.asked() >= 5, "asked {} times", second.asked());
}

#[test]
fn waiting_ends_when_its_time_is_over() {
    let (one, two) = (copy(MTIME), copy(MTIME).file("new.txt", "new"));
    let (one, two) = (admin(&one), admin(&two));
    let started = Instant::now();
    let (code, out, _) = check(&[&one.url(), &two.url(), "--wait", "2s"]);
    assert_eq!(code, Some(1));
    assert!(out.starts_with("/new.txt\textra\t"), "{out}");
    let took = started.elapsed();
    assert!(
        took >= Duration::from_secs(2) && took < Duration::from_secs(20),
        "{took:?}"
    );
}

#[test]
fn manifests_are_compared_with_what_should_be_served() {
    let (site, stale) = (copy(MTIME), copy(MTIME));
    fs::write(stale.path("a.txt"), "stale").unwrap();
    // Both replicas agree with each other, and are wrong.
    let (one, two) = (admin(&stale), admin(&stale));
    assert_eq!(check(&[&one.url(), &two.url()]).0, Some(0));
    let root = site.root();
    let (code, out, message) = check(&[&one.url(), &two.url(), "--dir", root.to_str().unwrap()]);
    assert_eq!((code, out.lines().count()), (Some(1), 2), "{message}");
    assert!(message.contains("2 of 2 replicas deviate"), "{message}");
    // A directory is served with flags, and these are to be the same.
    let dir = stale.root();
    let three = Stand::of_manifest(move || manifest_of(&dir, &["--last-modified", "off"]));
    let dir = stale.root();
    let dir = dir.to_str().unwrap();
    let urls = [&three.url(), "--dir", dir];
    let (code, out, _) = check(&urls);
    assert_eq!(code, Some(1));
    assert!(
        out.contains("--last-modified off instead of mtime"),
        "{out}"
    );
    let (code, _, message) = check(&[&urls[..], &["--last-modified", "off"]].concat());
    assert_eq!(code, Some(0), "{message}");
}

#[test]
fn folders_without_files_are_compared_where_they_are_listed() {
    let (site, other) = (copy(MTIME).dir("e/g"), copy(MTIME).dir("e").dir("f"));
    let replica = |site: &TestSite, flags: &[&str]| {
        let manifest = manifest_of(&site.root(), flags);
        Stand::of_manifest(move || manifest.clone())
    };
    let (root, listing) = (site.root(), ["--listing"]);
    let (one, two) = (replica(&site, &listing), replica(&other, &listing));
    let dir = ["--dir", root.to_str().unwrap()];
    let (url, other_url) = (one.url(), two.url());
    let (code, _, message) = check(&[&[&*url], &dir[..], &listing].concat());
    assert_eq!(code, Some(0), "{message}");
    let (code, out, message) = check(&[&[&*other_url], &dir[..], &listing].concat());
    assert_eq!((code, out.lines().count()), (Some(1), 2), "{out}{message}");
    for line in [
        format!("/e/g/\tmissing\t{other_url}\tan empty folder"),
        format!("/f/\textra\t{other_url}\tan empty folder"),
    ] {
        assert!(out.contains(&line), "no {line:?} in {out}");
    }
    // Without listings nobody can tell.
    let (one, two) = (replica(&site, &[]), replica(&other, &[]));
    assert_eq!(check(&[&one.url(), &two.url()]).0, Some(0));
    let manifest = manifest_of(&root, &[]);
    assert!(!String::from_utf8_lossy(&manifest).contains("folders"));
}

#[test]
fn of_three_servers_the_one_that_differs_is_named() {
    let admin = ["--admin", "127.0.0.1:0"];
    type Change = fn(&TestSite);
    let changes: [(&str, Change, &[&str]); 4] = [
        ("nothing", |_| {}, &[]),
        (
            "one byte",
            |site| overwrite_in_place(&site.path("big.bin"), b"?"),
            &["/big.bin\tother tag"],
        ),
        (
            "a missing file",
            |site| fs::remove_file(site.path("d/middle.bin")).unwrap(),
            &["/d/middle.bin\tmissing"],
        ),
        (
            "another _headers",
            |site| {
                fs::write(
                    site.path("_headers"),
                    "/a.txt\n  X-Frame-Options: DENY\n/d/*\n  Cache-Control: no-cache\n",
                )
                .unwrap()
            },
            &[
                "-\tother rules",
                "/a.txt\tother tag",
                "/d/b.txt\tother fields",
                "/d/middle.bin\tother fields",
            ],
        ),
    ];
    for (name, change, want) in changes {
        let sites = [copy(MTIME), copy(7), copy(MTIME - 9)];
        change(&sites[1]);
        let servers = sites.each_ref().map(|site| Server::with(site, &admin));
        let urls = servers
            .each_ref()
            .map(|server| format!("http://{}", server.admin()));
        let (code, out, message) = check(&urls.each_ref().map(String::as_str));
        assert_eq!(
            code,
            Some(i32::from(!want.is_empty())),
            "{name}: {out}{message}"
        );
        let found: Vec<_> = out.lines().collect();
        assert_eq!(found.len(), want.len(), "{name}: {out}");
        for (line, want) in found.iter().zip(want) {
            let start = format!("{want}\t{}", urls[1]);
            assert!(line.starts_with(&start), "{name}: {line}");
        }
        // What one admin listener says is what a public one is asked for.
        let public = servers.each_ref().map(url);
        let (code, _, message) = check(&[&urls[0], &public[2]]);
        assert_eq!(code, Some(0), "{name}: {message}");
        // The public listener of each says the same, path by path.
        let dir = sites[0].root();
        let arguments = [
            public[0].as_str(),
            &public[1],
            &public[2],
            "--dir",
            dir.to_str().unwrap(),
        ];
        let (code, out, message) = check(&arguments);
        let entries = want.iter().filter(|line| line.starts_with('/'));
        let entries: Vec<_> = entries
            .map(|line| format!("{line}\t{}", public[1]))
            .collect();
        assert_eq!(
            code,
            Some(i32::from(!want.is_empty())),
            "{name}: {out}{message}"
        );
        let found: Vec<_> = out.lines().collect();
        assert_eq!(found.len(), entries.len(), "{name}: {out}");
        for (line, want) in found.iter().zip(entries) {
            assert!(line.starts_with(&want), "{name}: {line}");
        }
    }
}

#[test]
fn waiting_sees_a_deploy_through() {
    let admin = ["--admin", "127.0.0.1:0"];
    let (one, two) = (copy(MTIME), copy(7));
    let servers = [&one, &two].map(|site| Server::with(site, &admin));
    let urls = servers
        .each_ref()
        .map(|server| format!("http://{}", server.admin()));
    let mut program = command(env!("CARGO_BIN_EXE_etagd"));
    fs::write(one.path("new.txt"), "new").unwrap();
    servers[0].wait_for_body("/new.txt", "new");
    program.args(["check", &urls[0], &urls[1], "--wait", "60s"]);
    let program = program.stdout(Stdio::piped()).stderr(Stdio::piped());
    let waiting = program.spawn().unwrap();
    fs::write(two.path("new.txt"), "new").unwrap();
    let (code, out, message) = said(&waiting.wait_with_output().unwrap());
    assert_eq!((code, out.as_str()), (Some(0), ""), "{message}");
}

// What is served, path by path.

#[test]
fn a_public_url_is_asked_for_what_it_should_serve() {
    let site = copy(MTIME).file("page.html", "<p>".repeat(2000));
    let compressed = etagd(["compress".as_ref(), site.root().as_os_str()]);
    assert!(compressed.status.success(), "{compressed:?}");
    let server = Server::start(&site);
    let url = url(&server);
    let root = site.root();
    let dir = ["--dir", root.to_str().unwrap()];
    for flags in [
        &[][..],
        &["--body"],
        &["--connections", "1"],
        &["--public", "--body"],
    ] {
        let (code, out, message) = check(&[&[url.as_str()], &dir[..], flags].concat());
        assert_eq!((code, out.as_str()), (Some(0), ""), "{flags:?}: {message}");
    }
    let count = String::from_utf8(manifest_of(&site.root(), &[]))
        .unwrap()
        .matches("\"path\"")
        .count();
    let json = |flags: &[&str]| -> serde_json::Value {
        let (_, out, _) = check(&[&[url.as_str(), "--format", "json"], &dir[..], flags].concat());
        serde_json::from_str(&out).unwrap()
    };
    assert_eq!(json(&[])["replicas"][0]["entries"], count);
    assert_eq!(json(&[])["replicas"][0]["kind"], "public");
    assert_eq!(json(&["--sample", "3"])["replicas"][0]["entries"], 3);
}

#[test]
fn differences_of_a_public_url_are_named() {
    let (site, stale) = (copy(MTIME), copy(MTIME).file("extra", "can't be seen"));
    overwrite_in_place(&stale.path("a.txt"), b"?");
    overwrite_in_place(&stale.path("big.bin"), b"?");
    fs::remove_file(stale.path("d/b.txt")).unwrap();
    let server = Server::start(&stale);
    let (url, root) = (url(&server), site.root());
    let (code, out, message) = check(&[&url, "--dir", root.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{message}");
    let found: Vec<Vec<_>> = out
        .lines()
        .map(|line| line.split('\t').take(3).collect())
        .collect();
    assert_eq!(
        found,
        [
            ["/a.txt", "other tag", &url],
            ["/big.bin", "other tag", &url],
            ["/d/b.txt", "missing", &url],
        ]
    );
    // An address that was mistyped looks like this too.
    assert!(message.contains("each path was asked for instead"));
}

#[test]
fn a_cache_in_between_is_noticed() {
    let site = TestSite::with(&[("a.txt", b"a"), ("b.txt", b"b")]);
    let (a, b) = (tag(b"a"), tag(b"b"));
    let fields = |etag: &str, rest: &[(&'static str, &'static str)]| {
        let usual = [
            ("Cache-Control", "max-age=0, must-revalidate"),
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", "1"),
            ("X-Content-Type-Options", "nosniff"),
        ];
        let mut fields: Vec<_> = usual
            .into_iter()
            .filter(|(name, _)| !rest.iter().any(|(replaced, _)| replaced == name))
            .collect();
        fields.extend(rest);
        let mut fields: Vec<(&'static str, String)> = fields
            .into_iter()
            .map(|(name, value)| (name, value.to_owned()))
            .collect();
        fields.push(("ETag", etag.to_owned()));
        fields
    };
    type Case<'a> = (
        &'a str,
        u16,
        Vec<(&'static str, String)>,
        &'a [u8],
        &'a [&'a str],
        &'a str,
    );
    let weak = format!("W/{a}");
    let cases: [Case<'_>; 7] = [
        (
            "a weakened tag",
            200,
            fields(&weak, &[]),
            b"a",
            &[],
            "other tag",
        ),
        (
            "no field to go by",
            200,
            fields(&a, &[("Content-Type", "text/html")]),
            b"a",
            &[],
            "other fields",
        ),
        (
            "another length",
            200,
            fields(&a, &[("Content-Length", "7")]),
            b"aaaaaaa",
            &[],
            "other size",
        ),
        (
            "other bytes under the right tag",
            200,
            fields(&a, &[]),
            b"x",
            &["--body"],
            "other bytes",
        ),
        ("a refusal", 403, fields(&a, &[]), b"a", &[], "other status"),
        (
            "another place",
            301,
            fields(&a, &[("Location", "https://elsewhere.example/")]),
            b"a",
            &[],
            "other status",
        ),
        ("nothing", 404, fields(&a, &[]), b"a", &[], "missing"),
    ];
    for (name, status, answer, body, flags, how) in cases {
        let (body, good) = (body.to_vec(), fields(&b, &[]));
        let stand = Stand::new(move |method, target| {
            let (status, fields, body) = match target {
                "/a.txt" => (status, &answer, &body[..]),
                "/b.txt" => (200, &good, &b"b"[..]),
                _ => (404, &good, &b"b"[..]),
            };
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            response(status, &fields, if method == "HEAD" { b"" } else { body })
        });
        let (root, url) = (site.root(), stand.url());
        let (code, out, message) =
            check(&[&[url.as_str(), "--dir", root.to_str().unwrap()], flags].concat());
        let lines: Vec<Vec<_>> = out.lines().map(|line| line.split('\t').collect()).collect();
        assert_eq!((code, lines.len()), (Some(1), 1), "{name}: {out}{message}");
        assert_eq!((lines[0][0], lines[0][1]), ("/a.txt", how), "{name}: {out}");
    }
}

#[test]
fn a_web_applications_manifest_makes_no_admin_listener() {
    let site = copy(MTIME).file("manifest", "{\"name\":\"An application\"}");
    let server = Server::start(&site);
    let (url, root) = (url(&server), site.root());
    let (code, _, message) = check(&[&url, "--dir", root.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{message}");
    // A site that has its own manifest among its files is taken for an admin listener, unless
    // it is said that it is none.
    let stale = site.outside("stale.json");
    fs::write(&stale, manifest_of(&site.root(), &[])).unwrap();
    fs::copy(&stale, site.path("manifest")).unwrap();
    overwrite_in_place(&site.path("a.txt"), b"?");
    let server = Server::start(&site);
    let url = format!("http://{}", server.address());
    let stale = stale.to_str().unwrap();
    assert_eq!(check(&[&url, "--manifest", stale]).0, Some(0));
    let (code, out, _) = check(&[&url, "--manifest", stale, "--public"]);
    assert_eq!(code, Some(1));
    assert!(out.contains("/a.txt\tother tag"), "{out}");
}

#[test]
fn replicas_speak_tls() {
    let site = copy(MTIME);
    let authority = Authority::new();
    authority.issue();
    let server = authority.serve(&site, &[]);
    let url = format!("https://localhost:{}", secure_address(&server).port());
    let root = site.root();
    let dir = ["--dir", root.to_str().unwrap()];
    let ca = authority.root();
    let ca = ca.to_str().unwrap();
    let (code, _, message) = check(&[&[url.as_str(), "--ca", ca], &dir[..]].concat());
    assert_eq!(code, Some(0), "{message}");
    let page = format!("{url}/a.txt");
    let health = etagd(["health", &page, "--ca", ca]);
    assert!(health.status.success(), "{health:?}");
    let health = etagd(["health", &page]);
    assert_eq!(health.status.code(), Some(1));
    let message = String::from_utf8_lossy(&health.stderr).into_owned();
    assert!(
        message.contains("authority that is not trusted") && message.contains("--ca"),
        "{message}"
    );
    // A stranger's word is not taken.
    let other = Authority::new();
    let stranger = other.root();
    let (code, _, message) = check(
        &[
            &[url.as_str(), "--ca", stranger.to_str().unwrap()],
            &dir[..],
        ]
        .concat(),
    );
    assert_eq!(code, Some(1));
    assert!(
        message.contains("authority that is not trusted") && message.contains("--ca"),
        "{message}"
    );
    let by_address = format!("https://{}", secure_address(&server));
    let (code, _, message) = check(&[&[by_address.as_str(), "--ca", ca], &dir[..]].concat());
    assert!(
        code == Some(0) || message.contains("for another name"),
        "{message}"
    );
    let plain = Server::start(&site);
    let secure = format!("https://{}", plain.address());
    let (code, _, message) = check(&[&[secure.as_str(), "--ca", ca], &dir[..]].concat());
    assert_eq!(code, Some(1));
    assert!(
        message.contains("does not speak TLS: try http://"),
        "{message}"
    );
    let insecure = url.replace("https:", "http:");
    let (code, _, message) = check(&[&[insecure.as_str()], &dir[..]].concat());
    assert_eq!(code, Some(1));
    assert!(message.contains("https://"), "{message}");
    let key = authority.key();
    let (code, _, message) =
        check(&[&[url.as_str(), "--ca", key.to_str().unwrap()], &dir[..]].concat());
    assert_eq!(code, Some(1));
    assert!(
        message.contains("--ca") && message.contains("no certificate"),
        "{message}"
    );
}

#[test]
fn what_cannot_be_compared_is_bad_usage() {
    let site = copy(MTIME);
    let server = Server::start(&site);
    let url = url(&server);
    let root = site.root();
    let file = site.path("a.txt");
    for (arguments, code, naming) in [
        (&[][..], 2, &["URL"][..]),
        (&[url.as_str()], 2, &["--dir", "--manifest"]),
        (&[&url, &url], 2, &["--dir", "--manifest", "--admin", "404"]),
        (&["localhost:80", &url], 2, &["localhost:80", "http://HOST"]),
        (&["ftp://localhost", &url], 2, &["ftp://localhost"]),
        (
            &[&url, "--dir", ".", "--manifest", "x"],
            2,
            &["--dir", "--manifest"],
        ),
        (&[&url, "--dir", "/nowhere/at/all"], 1, &["/nowhere/at/all"]),
        (
            &[&url, "--manifest", "/nowhere.json"],
            1,
            &["/nowhere.json", "No such file"],
        ),
        (
            &[&url, "--manifest", file.to_str().unwrap()],
            1,
            &["a.txt", "line 1", "--format json"],
        ),
        (
            &[&url, "--dir", root.to_str().unwrap(), "--wait", "soon"],
            2,
            &["--wait", "soon"],
        ),
    ] {
        let (found, out, message) = check(arguments);
        assert_eq!(
            (found, out.as_str()),
            (Some(code), ""),
            "{arguments:?}: {message}"
        );
        for word in naming {
            assert!(
                message.contains(word),
                "{arguments:?} does not name {word}:\n{message}"
            );
        }
    }
}

// What a cache should forget.

#[test]
fn the_urls_that_changed_since_an_earlier_manifest_are_printed() {
    let site = copy(MTIME)
        .file("about.html", "about")
        .file("gone/index.html", "gone")
        .file("d/index.html", "d");
    let old = site.outside("old.json");
    fs::write(&old, manifest_of(&site.root(), &[])).unwrap();
    let (root, old) = (site.root(), old.to_str().unwrap().to_owned());
    let diff = |flags: &[&str]| {
        let arguments = ["manifest", "--diff", &old, root.to_str().unwrap()];
        said(&etagd([&arguments, flags].concat()))
    };
    // What changes no answer is no change.
    set_mtime(&site.path("a.txt"), 77);
    let (code, out, message) = diff(&[]);
    assert_eq!((code, out.as_str()), (Some(0), ""), "{message}");

    overwrite_in_place(&site.path("a.txt"), b"?");
    overwrite_in_place(&site.path("about.html"), b"?");
    overwrite_in_place(&site.path("d/index.html"), b"?");
    fs::remove_dir_all(site.path("gone")).unwrap();
    fs::create_dir(site.path("new")).unwrap();
    fs::write(site.path("new/index.html"), "new").unwrap();
    fs::write(site.path("n\u{e9}w #?.css"), "new").unwrap();
    let expected = [
        "/a.txt",
        "/about",
        "/about.html",
        "/d/",
        "/d/index.html",
        "/gone",
        "/gone/",
        "/gone/index.html",
        "/n%C3%A9w%20%23%3F.css",
        "/new",
        "/new/",
        "/new/index.html",
    ];
    let (code, out, _) = diff(&[]);
    assert_eq!(
        (code, out.lines().collect::<Vec<_>>()),
        (Some(0), expected.to_vec())
    );
    let (code, out, _) = diff(&["--format", "json"]);
    assert_eq!(code, Some(0));
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["old"], digest_in(&fs::read(&old).unwrap()).as_str());
    assert_eq!(
        json["new"],
        digest_in(&manifest_of(&site.root(), &[])).as_str()
    );
    let reason = |url: &str| {
        let urls = json["urls"].as_array().unwrap();
        urls.iter().find(|each| each["url"] == url).unwrap()["reason"].clone()
    };
    assert_eq!(reason("/about"), "changed");
    assert_eq!(reason("/gone/"), "removed");
    assert_eq!(reason("/new/index.html"), "added");

    let mut program = command(env!("CARGO_BIN_EXE_etagd"));
    program.args(["manifest", "--diff", "-"]).arg(&root);
    program.stdin(fs::File::open(&old).unwrap());
    let (code, out, _) = said(&program.output().unwrap());
    assert_eq!((code, out.lines().count()), (Some(0), expected.len()));

    program.stdin(Stdio::null());
    let (code, out, message) = said(&program.output().unwrap());
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(
        message.contains("standard input") && message.contains("--format json"),
        "{message}"
    );
    let (code, _, message) = said(&etagd(["manifest", "--diff", "/nowhere.json"]));
    assert_eq!(code, Some(1));
    assert!(message.contains("/nowhere.json"), "{message}");
}

#[test]
fn fields_that_rules_change_are_changes() {
    let site = copy(MTIME).file("_headers", "/d/*\n  X-Robots-Tag: noindex\n");
    let old = site.outside("old.json");
    fs::write(&old, manifest_of(&site.root(), &[])).unwrap();
    fs::write(
        site.path("_headers"),
        "/d/*\n  X-Robots-Tag: none\n/a.txt\n  ! X-Content-Type-Options\n",
    )
    .unwrap();
    fs::write(site.path("_redirects"), "/x /y\n").unwrap();
    let arguments = ["manifest", "--diff", old.to_str().unwrap()];
    let root = site.root();
    let (code, out, message) = said(&etagd([&arguments[..], &[root.to_str().unwrap()]].concat()));
    let urls: Vec<_> = out.lines().collect();
    assert_eq!(
        (code, urls),
        (Some(0), vec!["/a.txt", "/d/b.txt", "/d/middle.bin"]),
        "{message}"
    );
    assert!(message.contains("rules changed"), "{message}");
}

#[test]
fn flags_that_differ_from_the_earlier_manifest_are_warned_about() {
    let site = copy(MTIME);
    let old = site.outside("old.json");
    fs::write(&old, manifest_of(&site.root(), &["--last-modified", "off"])).unwrap();
    let arguments = ["manifest".as_ref(), "--diff".as_ref(), old.as_os_str()];
    let (code, out, message) = said(&etagd(
        [&arguments[..], &[site.root().as_os_str()]].concat(),
    ));
    assert_eq!((code, out.as_str()), (Some(0), ""));
    assert!(
        message.contains("--last-modified was off and is mtime"),
        "{message}"
    );
}
