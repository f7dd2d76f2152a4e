//! `etagd push`: a directory is uploaded, and no change of anybody else is lost.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;
#[path = "support/transports.rs"]
mod transports;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use support::server::command;
use support::stand::{self, Stand};
use support::tree::{digest_of, eventually, manifest_of, write_tree};
use support::{Server, TestSite, noise, tag};
use transports::{Authority, secure_address};

const TOKEN: &str = "0123456789abcdef-0123456789abcdef";

/// What a run has said.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn push_command(dir: &TestSite, url: &str, flags: &[&str]) -> Command {
    let mut push = command(env!("CARGO_BIN_EXE_etagd"));
    push.arg("push").arg(dir.root()).arg(url).args(flags);
    push.stdin(Stdio::null());
    push
}

fn finish(mut push: Command) -> Said {
    let output = push.output().unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn push(dir: &TestSite, server: &Server, flags: &[&str]) -> Said {
    finish(push_command(dir, &url(server), flags))
}

fn url(server: &Server) -> String {
    format!("http://{}", server.address())
}

#[track_caller]
fn assert_done(said: &Said, summary: &str) {
    assert_eq!((said.code, &*said.out), (0, ""), "{said:?}");
    assert!(said.err.contains(summary), "{summary}: {said:?}");
}

fn writable(site: &TestSite, flags: &[&str]) -> Server {
    Server::with(
        site,
        &[&["--writable", "--admin", "127.0.0.1:0"], flags].concat(),
    )
}

fn admin(server: &Server) -> String {
    format!("http://{}", server.admin())
}

/// The paths of the writes in the log, in their order.
fn writes(server: &Server) -> Vec<String> {
    let log = server.log();
    let lines = log
        .lines()
        .filter_map(|line| line.split_once(" by anybody "));
    lines.map(|(write, _)| write.to_owned()).collect()
}

/// A file with the manifest of a site as it is now.
fn base_of(site: &TestSite) -> String {
    let base = site.outside("base.json");
    fs::write(&base, manifest_of(&site.root(), &[])).unwrap();
    base.to_str().unwrap().to_owned()
}

#[test]
fn only_what_differs_is_uploaded() {
    let (local, remote) = (TestSite::new(), TestSite::new());
    write_tree(&local.root(), 200, "one");
    let local = local
        .file("index.html", "<p>")
        .file("caf\u{e9} #1?.txt", "a name")
        .file(b"\xff.bin", "no UTF-8")
        .file("empty.txt", "")
        .file(".env", "SECRET")
        .file("big.bin", noise(3 << 20, 1));
    let server = writable(&remote, &[]);
    let first = push(&local, &server, &[]);
    assert_done(&first, "205 created, 0 replaced, 0 deleted, 0 unchanged");
    assert_eq!(digest_of(&remote.root()), digest_of(&local.root()));
    assert!(!remote.path(".env").exists());
    assert_done(
        &push(&local, &server, &[]),
        "0 created, 0 replaced, 0 deleted, 205 unchanged",
    );
    fs::write(local.path("index.html"), "<p>new").unwrap();
    fs::write(local.path("more.txt"), "more").unwrap();
    fs::remove_file(local.path("empty.txt")).unwrap();
    assert_done(
        &push(&local, &server, &[]),
        "1 created, 1 replaced, 0 deleted, 203 unchanged",
    );
    assert!(remote.path("empty.txt").exists());
    let delete = push(
        &local,
        &server,
        &["--delete", "--admin-url", &admin(&server)],
    );
    assert_done(&delete, "0 created, 0 replaced, 1 deleted, 205 unchanged");
    assert_eq!(digest_of(&remote.root()), digest_of(&local.root()));
}

#[test]
fn what_is_left_out_is_not_uploaded() {
    let local = TestSite::with(&[
        ("index.html", b"<p>"),
        ("app.map", b"m"),
        ("drafts/a", b"a"),
        ("index.html~", b"<p>"),
        (".etagdignore", b"*.map\n"),
        ("_headers", b""),
    ]);
    let remote = TestSite::new();
    let server = writable(&remote, &["--write-rules"]);
    let flags = ["--exclude", "/drafts", "--rules"];
    let pushed = push(&local, &server, &flags);
    assert_done(&pushed, "2 created, 0 replaced, 0 deleted, 0 unchanged");
    assert!(remote.path("index.html").exists() && remote.path("_headers").exists());
}

#[test]
fn pages_come_after_what_they_need_and_deletions_last() {
    let local = TestSite::with(&[
        ("index.html", b"<script src=app.2.js></script>"),
        ("a/index.html", b"<p>"),
        ("app.2.js", b"2"),
        ("z.css", b"z{}"),
    ]);
    let remote = TestSite::with(&[
        ("index.html", b"<script src=app.1.js></script>"),
        ("app.1.js", b"1"),
    ]);
    let server = writable(&remote, &[]);
    let flags = [
        "--delete",
        "--admin-url",
        &admin(&server),
        "--connections",
        "4",
    ];
    let dry = push(&local, &server, &[&flags[..], &["--dry-run"]].concat());
    assert_eq!(dry.code, 0, "{dry:?}");
    assert_eq!(
        dry.out,
        "create\t/app.2.js\ncreate\t/z.css\ncreate\t/a/index.html\nreplace\t/index.html\n\
         delete\t/app.1.js\n"
    );
    assert!(writes(&server).is_empty());
    assert_done(
        &push(&local, &server, &flags),
        "3 created, 1 replaced, 1 deleted, 0 unchanged",
    );
    let order = writes(&server);
    let stage = |range: std::ops::Range<usize>| {
        let mut stage = order[range].to_vec();
        stage.sort();
        stage
    };
    assert_eq!(stage(0..2), ["PUT /app.2.js", "PUT /z.css"]);
    assert_eq!(stage(2..4), ["PUT /a/index.html", "PUT /index.html"]);
    assert_eq!(stage(4..5), ["DELETE /app.1.js"]);
}

#[test]
fn files_changed_by_somebody_else_are_reported_and_kept() {
    let local = TestSite::with(&[
        ("index.html", b"<p>old"),
        ("a.txt", b"old"),
        ("b.txt", b"old"),
    ]);
    let remote = TestSite::with(&[]);
    let server = writable(&remote, &[]);
    assert_eq!(push(&local, &server, &[]).code, 0);
    let base = &base_of(&local);

    // On both sides; here alone; there alone.
    fs::write(local.path("a.txt"), "ours").unwrap();
    fs::write(remote.path("a.txt"), "theirs").unwrap();
    fs::write(local.path("b.txt"), "ours").unwrap();
    fs::write(local.path("index.html"), "<p>ours").unwrap();
    server.wait_for_body("/a.txt", "theirs");
    let said = push(&local, &server, &["--base", base]);
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(said.out, format!("conflict\t/a.txt\t{}\n", tag(b"theirs")));
    assert!(
        said.err.contains("1 changed by others and not overwritten"),
        "{said:?}"
    );
    assert!(said.err.contains("1 left for the next run"), "{said:?}");
    assert_eq!(server.body("/a.txt").unwrap(), b"theirs");
    assert_eq!(server.body("/b.txt").unwrap(), b"ours");
    assert_eq!(server.body("/").unwrap(), b"<p>old");
    let dry = push(&local, &server, &["--base", base, "--dry-run"]);
    assert_eq!(
        (dry.code, &*dry.out),
        (1, "conflict\t/a.txt\nreplace\t/index.html\n")
    );

    let forced = push(&local, &server, &["--base", base, "--force"]);
    assert_done(&forced, "0 created, 2 replaced, 0 deleted, 1 unchanged");
    assert_eq!(server.body("/a.txt").unwrap(), b"ours");
    assert_eq!(server.body("/").unwrap(), b"<p>ours");
}

#[test]
fn files_changed_by_somebody_else_are_not_deleted() {
    let local = TestSite::with(&[("a.txt", b"old"), ("b.txt", b"old"), ("c.txt", b"old")]);
    let remote = TestSite::with(&[]);
    let server = writable(&remote, &[]);
    assert_eq!(push(&local, &server, &[]).code, 0);
    let base = &base_of(&local);
    for name in ["a.txt", "b.txt"] {
        fs::remove_file(local.path(name)).unwrap();
    }
    fs::write(remote.path("b.txt"), "theirs").unwrap();
    fs::write(remote.path("d.txt"), "theirs").unwrap();
    server.wait_for_body("/d.txt", "theirs");
    let said = push(&local, &server, &["--base", base, "--delete"]);
    assert_eq!(
        (said.code, said.out),
        (1, format!("conflict\t/b.txt\t{}\n", tag(b"theirs")))
    );
    assert_eq!(server.client().get("/a.txt").status, 404);
    // What neither the base nor the directory has is nobody's business.
    assert_eq!(server.body("/d.txt").unwrap(), b"theirs");
}

#[test]
fn clean_urls_do_not_confuse_it() {
    for handling in [
        "suffix",
        "auto-trailing-slash",
        "force-trailing-slash",
        "drop-trailing-slash",
    ] {
        let local = TestSite::with(&[
            ("about.html", b"<p>about"),
            ("about", b"a file beside"),
            ("docs/index.html", b"<p>docs"),
        ]);
        let remote = TestSite::with(&[("about.html", b"<p>old"), ("docs/index.html", b"<p>old")]);
        let server = writable(&remote, &["--html-handling", handling]);
        let said = push(&local, &server, &[]);
        assert_done(&said, "1 created, 2 replaced, 0 deleted, 0 unchanged");
        assert_eq!(
            digest_of(&remote.root()),
            digest_of(&local.root()),
            "{handling}"
        );
    }
}

#[test]
fn what_answers_for_all_paths_is_not_taken_for_them() {
    let rewrite = ("_redirects", &b"/* /index.html 200\n"[..]);
    let remote = TestSite::with(&[rewrite, ("index.html", b"<p>app"), ("old.js", b"1")]);
    let server = writable(&remote, &[]);
    assert_eq!(server.body("/new.js").unwrap(), b"<p>app");
    let base = &base_of(&remote);
    let local = TestSite::with(&[("index.html", b"<p>app"), ("new.js", b"2")]);
    assert_done(
        &push(&local, &server, &[]),
        "1 created, 0 replaced, 0 deleted, 1 unchanged",
    );
    fs::write(local.path("more.js"), "3").unwrap();
    assert_done(
        &push(&local, &server, &["--base", base, "--delete"]),
        "1 created, 0 replaced, 1 deleted, 2 unchanged",
    );
    assert_eq!(
        digest_of(&remote.root()),
        digest_of(&local.file("_redirects", rewrite.1).root())
    );
}

#[test]
fn rules_are_uploaded_where_both_sides_allow_it() {
    let local = TestSite::with(&[("a.txt", b"a"), ("_headers", b"/*\n  X-A: 1\n")]);
    let remote = TestSite::with(&[("_headers", b"/*\n  X-A: 0\n")]);
    let server = writable(&remote, &["--write-rules"]);
    let dry = push(&local, &server, &["--rules", "--dry-run"]);
    assert_eq!(
        (dry.code, &*dry.out),
        (0, "create\t/a.txt\nreplace\t/_headers\n")
    );
    assert_done(&push(&local, &server, &[]), "1 created, 0 replaced");
    assert_eq!(server.client().get("/a.txt").field("X-A"), Some("0"));
    assert_done(
        &push(&local, &server, &["--rules"]),
        "0 created, 1 replaced",
    );
    assert_eq!(server.client().get("/a.txt").field("X-A"), Some("1"));
    assert_done(
        &push(&local, &server, &["--rules"]),
        "0 created, 0 replaced, 0 deleted, 2 unchanged",
    );
    let other = TestSite::new();
    let closed = writable(&other, &[]);
    let said = push(&local, &closed, &["--rules"]);
    assert_eq!(said.code, 1);
    assert!(
        said.out.starts_with("failed\t/_headers\t403 Forbidden: "),
        "{said:?}"
    );
}

#[test]
fn tokens_come_from_a_file_or_the_environment() {
    let local = TestSite::with(&[("a.txt", b"a")]);
    let remote = TestSite::with(&[]);
    let tokens = local.outside("tokens");
    fs::write(&tokens, format!("# who\nci {TOKEN}\n")).unwrap();
    let tokens = tokens.to_str().unwrap().to_owned();
    let server = writable(&remote, &["--write-token-file", &tokens]);
    let said = push(&local, &server, &[]);
    assert_eq!((said.code, &*said.out), (1, ""));
    assert!(
        said.err.contains("401") && said.err.contains("ETAGD_WRITE_TOKEN"),
        "{said:?}"
    );
    assert_done(
        &push(&local, &server, &["--token-file", &tokens]),
        "1 created",
    );
    fs::write(local.path("a.txt"), "b").unwrap();
    let mut by_environment = push_command(&local, &url(&server), &[]);
    by_environment.env("ETAGD_WRITE_TOKEN", TOKEN);
    assert_done(&finish(by_environment), "1 replaced");
    assert!(server.log().contains("PUT /a.txt by ci "));
}

#[test]
fn tls_needs_a_trusted_certificate() {
    let (local, remote) = (TestSite::with(&[("a.txt", b"a")]), TestSite::new());
    let authority = Authority::new();
    authority.issue();
    let server = authority.serve(&remote, &["--writable"]);
    let url = format!("https://localhost:{}", secure_address(&server).port());
    let root = authority.root();
    let trusting = ["--ca", root.to_str().unwrap()];
    assert_done(&finish(push_command(&local, &url, &trusting)), "1 created");
    let stranger = Authority::new();
    let root = stranger.root();
    let said = finish(push_command(
        &local,
        &url,
        &["--ca", root.to_str().unwrap()],
    ));
    assert!(
        said.code == 1 && said.err.contains("certificate"),
        "{said:?}"
    );
}

#[test]
fn usage() {
    let local = TestSite::with(&[("a.txt", b"a")]);
    let empty = TestSite::with(&[]);
    let server = writable(&empty, &[]);
    assert_eq!(push(&local, &server, &["--delete"]).code, 2);
    assert_eq!(push(&local, &server, &["--token-file", "/nowhere"]).code, 2);
    let admin = admin(&server);
    let all = push(&empty, &server, &["--delete", "--admin-url", &admin]);
    assert_eq!(all.code, 2, "{all:?}");
    assert_eq!(finish(push_command(&local, "ftp://localhost", &[])).code, 2);
    let closed = Server::start(&empty);
    let said = push(&local, &closed, &[]);
    assert!(
        said.code == 1 && said.err.contains("started with --writable?"),
        "{said:?}"
    );
}

/// A server that answers each request as `answer` says, and notes their heads.
fn fake(
    answer: impl Fn(usize, &str) -> String + Send + 'static,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&heads);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                request.extend(byte);
            }
            let head = String::from_utf8(request).unwrap();
            let length = head
                .to_lowercase()
                .split("content-length: ")
                .nth(1)
                .map_or(0, |rest| rest.split('\r').next().unwrap().parse().unwrap());
            let mut content = vec![0; length];
            stream.read_exact(&mut content).unwrap();
            let number = {
                let mut heads = noted.lock().unwrap();
                heads.push(head.clone());
                heads.len()
            };
            let answer = answer(number, &head);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (address, heads)
}

fn response(status: &str, fields: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n{fields}\r\n")
}

#[test]
fn what_changes_between_look_and_write_is_a_conflict() {
    // The page is asked for under another path than it is written to.
    let local = TestSite::with(&[("a.html", b"ours")]);
    let (seen, now) = (tag(b"seen"), tag(b"now"));
    let theirs = now.clone();
    let (url, heads) = fake(move |_, head| match head.split(' ').next() {
        Some("HEAD") if head.contains(".html") => response("308 .", "Location: /a\r\n"),
        Some("HEAD") => response("200 OK", &format!("ETag: {}\r\n", tag(b"seen"))),
        Some("DELETE") => response("412 .", &format!("ETag: {seen}\r\n")),
        _ => response("412 .", &format!("ETag: {theirs}\r\n")),
    });
    let said = finish(push_command(&local, &url, &[]));
    assert_eq!(
        (said.code, said.out),
        (1, format!("conflict\t/a.html\t{now}\n"))
    );
    let heads = heads.lock().unwrap();
    let puts: Vec<_> = heads
        .iter()
        .filter(|head| head.starts_with("PUT"))
        .collect();
    assert_eq!(puts.len(), 1, "{heads:?}");
    let condition = format!("if-match: {}", tag(b"seen"));
    assert!(puts[0].to_lowercase().contains(&condition), "{heads:?}");
}

#[test]
fn a_busy_server_is_asked_again_and_a_lost_response_is_recovered() {
    let local = TestSite::with(&[("a.txt", b"ours")]);
    let ours = tag(b"ours");
    let (url, heads) = fake(move |number, _| match number {
        1 => response("503 Service Unavailable", "Retry-After: 0\r\n"),
        2 => response("404 Not Found", ""),
        3 => response("503 Service Unavailable", ""),
        // The answer is lost, the write is not.
        4 => String::new(),
        _ => response("412 Precondition Failed", &format!("ETag: {ours}\r\n")),
    });
    let said = finish(push_command(&local, &url, &[]));
    assert_done(&said, "0 created, 0 replaced, 0 deleted, 1 unchanged");
    assert_eq!(heads.lock().unwrap().len(), 5);
}

#[test]
fn a_run_that_was_killed_is_continued() {
    let (local, remote) = (TestSite::new(), TestSite::new());
    write_tree(&local.root(), 400, "many");
    let local = local
        .file("index.html", "<p>")
        .file("big.bin", noise(8 << 20, 3));
    let server = writable(&remote, &[]);
    let mut first = push_command(&local, &url(&server), &[]);
    let mut first = first
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("some of it is there", || writes(&server).len() > 50);
    kill_process(Pid::from_child(&first), Signal::KILL).unwrap();
    first.wait().unwrap();
    assert!(!remote.path("index.html").exists());
    thread::sleep(Duration::from_millis(50));
    let there = writes(&server).len();
    assert!(there < 400, "{there}");
    let second = push(&local, &server, &[]);
    assert_eq!((second.code, &*second.out), (0, ""), "{second:?}");
    assert_eq!(digest_of(&remote.root()), digest_of(&local.root()));
    let all = writes(&server);
    let mut once = all.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), all.len(), "something was sent twice");
}

#[test]
fn a_server_that_has_stored_something_else_is_not_believed() {
    let local = TestSite::with(&[("a.txt", b"content")]);
    let (other, changed) = (tag(b"other"), "it was changed while it was sent");
    let (ours, overwritten) = (tag(b"content"), "somebody else changed it");
    for (status, etag, fault) in [
        (201, Some(other.clone()), Some(changed)),
        (200, Some(other.clone()), Some(changed)),
        (204, Some(other), Some(changed)),
        (201, None, Some(overwritten)),
        (204, None, Some(overwritten)),
        (201, Some("\"not-a-hash\"".to_owned()), Some(overwritten)),
        (201, Some(ours), None),
    ] {
        let said = etag.clone();
        let stand = Stand::new(move |method, _| match method {
            "PUT" => {
                let fields: Vec<_> = said.iter().map(|etag| ("ETag", etag.as_str())).collect();
                stand::response(status, &fields, b"")
            }
            _ => stand::response(404, &[], b""),
        });
        let said = finish(push_command(&local, &stand.url(), &[]));
        match fault {
            None => assert_done(&said, "1 created, 0 replaced"),
            Some(fault) => {
                assert_eq!(said.code, 1, "{status} {etag:?}: {said:?}");
                assert!(said.out.contains(fault), "{status} {etag:?}: {said:?}");
            }
        }
    }
}
