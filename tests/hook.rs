//! `etagd serve --on-publish COMMAND`: its input, when it runs, and what happens when it fails.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;

use support::tree::{digest_of, eventually, manifest_of};
use support::{Server, TestSite};

/// A script beside a site, which writes down what it is told, a file for each run.
struct Script {
    site: TestSite,
    command: String,
}

/// What one run was told.
#[derive(Debug)]
struct RunInput {
    old: String,
    new: String,
    urls: Vec<String>,
}

impl Script {
    /// `rest` is run when all is written down, with `$run` the number of the run.
    fn new(site: TestSite, rest: &str) -> Self {
        let place = site.outside("told");
        fs::create_dir(&place).unwrap();
        let script = format!(
            "cd '{}'\nrun=$(ls | grep -c '^run-.*-told$')\n\
             {{ echo \"$ETAGD_OLD_DIGEST\"; echo \"$ETAGD_NEW_DIGEST\"; cat; }} >\"run-$run\"\n\
             mv \"run-$run\" \"run-$run-told\"\n{rest}\n",
            place.display()
        );
        let file = site.outside("script.sh");
        fs::write(&file, script).unwrap();
        let command = format!("exec sh '{}'", file.display());
        Self { site, command }
    }

    fn serve(&self) -> Server {
        self.serve_with(&[])
    }

    fn serve_with(&self, flags: &[&str]) -> Server {
        let flags = [&["--on-publish", &self.command, "--sweep", "1h"], flags].concat();
        Server::with(&self.site, &flags)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.site.outside("told").join(name)
    }

    fn told(&self, run: usize) -> Option<RunInput> {
        let text = fs::read_to_string(self.path(&format!("run-{run}-told"))).ok()?;
        let mut lines = text.lines().map(str::to_owned);
        Some(RunInput {
            old: lines.next().unwrap(),
            new: lines.next().unwrap(),
            urls: lines.collect(),
        })
    }

    /// What a run was told, which must come.
    #[track_caller]
    fn wait_for(&self, run: usize) -> RunInput {
        eventually(&format!("run {run}"), || self.told(run).is_some());
        self.told(run).unwrap()
    }

    /// Lets a run go on that waits for it: `until [ -e go ]; do sleep 0.01; done`.
    fn let_go(&self) {
        fs::write(self.path("go"), "").unwrap();
    }
}

const WAIT: &str = "until [ -e go ]; do sleep 0.01; done";

fn runs(server: &Server, number: usize) {
    eventually("it is done", || {
        server.log().matches("--on-publish: done").count() == number
    });
}

#[test]
fn each_publication_is_told_with_its_digests_and_urls() {
    let site = TestSite::with(&[("a.txt", b"a"), ("d/index.html", b"d")]);
    let script = Script::new(site, "echo said >&2; echo also said");
    let first = digest_of(&script.site.root());
    let server = script.serve();
    fs::write(script.site.path("d/index.html"), "changed").unwrap();
    let told = script.wait_for(0);
    let second = digest_of(&script.site.root());
    assert_eq!((told.old, told.new), (first, second.clone()));
    assert_eq!(told.urls, ["/d/", "/d/index.html"]);
    runs(&server, 1);
    eventually("what it says is in the log", || {
        let log = server.log();
        log.contains("\nsaid") && log.contains("also said")
    });
    fs::remove_file(script.site.path("a.txt")).unwrap();
    fs::write(script.site.path("n w.html"), "new").unwrap();
    // Perhaps in two publications; together they are told everything.
    let mut told = script.wait_for(1);
    assert_eq!(told.old, second);
    let third = digest_of(&script.site.root());
    if told.new != third {
        let rest = script.wait_for(2);
        assert_eq!(rest.new, third);
        told.urls.extend(rest.urls);
    }
    told.urls.sort();
    assert_eq!(told.urls, ["/a.txt", "/n%20w", "/n%20w.html"]);
    // The same content again is no publication.
    fs::write(script.site.path("d/index.html"), "changed").unwrap();
    let told = server.publications();
    fs::write(script.site.path("end"), "").unwrap();
    eventually("the end is told", || {
        script.told(told).is_some_and(|told| told.urls == ["/end"])
    });
}

#[test]
fn what_rules_change_is_told_too() {
    let site = TestSite::with(&[("a.txt", b"a"), ("d/b.txt", b"b")]);
    let script = Script::new(site, "");
    let server = script.serve();
    fs::write(script.site.path("_headers"), "/d/*\n  X-Robots-Tag: none\n").unwrap();
    assert_eq!(script.wait_for(0).urls, ["/d/b.txt"]);
    fs::write(script.site.path("_redirects"), "/x /a.txt\n").unwrap();
    assert_eq!(script.wait_for(1).urls, [""; 0]);
    assert!(server.log().contains("affected redirects are not listed"));
}

#[test]
fn it_runs_when_the_new_bytes_are_served() {
    let site = TestSite::with(&[("a.txt", b"old")]);
    // It asks the server itself, with what every system has.
    let script = Script::new(site, "");
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("http://127.0.0.1:{port}");
    let binary = env!("CARGO_BIN_EXE_etagd");
    let root = script.site.root();
    let file = script.site.outside("script.sh");
    let rest = format!(
        "'{binary}' check {url} --dir '{}' >check 2>&1; echo $? >code",
        root.display()
    );
    let text = fs::read_to_string(&file).unwrap() + &rest;
    fs::write(&file, text).unwrap();
    let listen = format!("127.0.0.1:{port}");
    let server = script.serve_with(&["--listen", &listen]);
    fs::write(root.join("a.txt"), "new").unwrap();
    runs(&server, 1);
    let said = fs::read_to_string(script.path("check")).unwrap();
    assert_eq!(
        fs::read_to_string(script.path("code")).unwrap().trim(),
        "0",
        "{said}"
    );
}

#[test]
fn what_is_published_meanwhile_is_told_to_the_next_run_and_holds_up_nobody() {
    let site = TestSite::with(&[("a.txt", b"0"), ("b.txt", b"0")]);
    let script = Script::new(site, &format!("[ $run = 0 ] && {WAIT}\ntrue"));
    let before = digest_of(&script.site.root());
    let server = script.serve();
    fs::write(script.site.path("a.txt"), "1").unwrap();
    let first = script.wait_for(0);
    assert_eq!((first.old, first.urls), (before, vec!["/a.txt".to_owned()]));
    // To and fro: a cache may have seen what is in between.
    for (name, content) in [("b.txt", "1"), ("b.txt", "0"), ("c.txt", "new")] {
        fs::write(script.site.path(name), content).unwrap();
        server.wait_for_body(&format!("/{name}"), content);
    }
    fs::remove_file(script.site.path("c.txt")).unwrap();
    server.wait_for_absence("/c.txt");
    assert!(script.told(1).is_none(), "two runs at once");
    script.let_go();
    let second = script.wait_for(1);
    assert_eq!(
        (&second.old, &second.new),
        (&first.new, &digest_of(&script.site.root()))
    );
    assert_eq!(second.urls, ["/b.txt", "/c.txt"]);
    runs(&server, 2);
}

#[test]
fn a_run_that_fails_is_reported_and_told_again() {
    let site = TestSite::with(&[("a.txt", b"0")]);
    let script = Script::new(
        site,
        "[ $run = 0 ] && exit 3\n[ $run = 1 ] && kill -9 $$\ntrue",
    );
    let before = digest_of(&script.site.root());
    let server = script.serve();
    for (run, (name, reason)) in [
        ("one", "exit status: 3"),
        ("two", "signal: 9"),
        ("three", "done"),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(script.site.path(name), "new").unwrap();
        let told = script.wait_for(run);
        assert_eq!(told.old, before, "since the last run that did its work");
        let mut urls = ["/one", "/two", "/three"][..=run].to_vec();
        urls.sort_unstable();
        assert_eq!(told.urls, urls);
        eventually(reason, || server.log().contains(reason));
        // The server goes on.
        assert_eq!(
            server.body(&format!("/{name}")).as_deref(),
            Some(&b"new"[..])
        );
    }
    fs::write(script.site.path("four"), "new").unwrap();
    assert_eq!(script.wait_for(3).urls, ["/four"]);
}

#[test]
fn a_command_that_does_not_read_is_not_waited_for() {
    let site = (0..20_000).fold(TestSite::in_memory(), |site, n| {
        site.file(format!("a-rather-long-name-{n}"), "x")
    });
    // It leaves something behind that holds its input open and never reads it.
    let flags = [
        "--on-publish",
        "sleep 30 <&0 >/dev/null 2>&1 & exec true",
        "--settle",
        "300ms",
    ];
    let server = Server::with(&site, &flags);
    for round in 1..=2 {
        for n in 0..20_000 {
            fs::write(
                site.path(format!("a-rather-long-name-{n}")),
                round.to_string(),
            )
            .unwrap();
        }
        eventually("a run is done", || {
            server.log().matches("--on-publish: done").count() >= round
        });
    }
}

#[test]
fn the_end_waits_for_a_run_and_for_what_it_has_not_been_told() {
    let site = TestSite::with(&[("a.txt", b"0")]);
    let script = Script::new(site, &format!("{WAIT}\ntouch finished-$run"));
    let mut server = script.serve();
    fs::write(script.site.path("a.txt"), "1").unwrap();
    script.wait_for(0);
    fs::write(script.site.path("b.txt"), "1").unwrap();
    server.wait_for_body("/b.txt", "1");
    server.signal(Signal::TERM);
    eventually("it drains", || {
        server.log().contains("waiting for in-flight requests")
    });
    script.let_go();
    assert_eq!(server.wait().code(), Some(0));
    assert!(script.path("finished-0").exists() && script.path("finished-1").exists());
    assert_eq!(script.told(1).unwrap().urls, ["/b.txt"]);
    assert!(!server.log().contains("left to itself"));
}

#[test]
fn the_end_says_what_a_failed_run_was_told() {
    let site = TestSite::with(&[("a.txt", b"0")]);
    let script = Script::new(site, "exit 1");
    let before = digest_of(&script.site.root());
    let mut server = script.serve();
    fs::write(script.site.path("a.txt"), "1").unwrap();
    eventually("it fails", || server.log().contains("exit status: 1"));
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    let log = server.log();
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains("1 URL") && last.contains(&before), "{log}");
}

#[test]
fn the_end_does_not_wait_for_ever_and_says_what_is_not_done() {
    let site = TestSite::with(&[("a.txt", b"0")]);
    let script = Script::new(
        site,
        &format!("exec >/dev/null 2>&1\n{WAIT}\ntouch finished"),
    );
    let mut server = script.serve();
    fs::write(script.site.path("a.txt"), "1").unwrap();
    script.wait_for(0);
    fs::write(script.site.path("b.txt"), "1").unwrap();
    server.wait_for_body("/b.txt", "1");
    let started = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    let took = started.elapsed();
    assert!(
        took > Duration::from_secs(4) && took < Duration::from_secs(15),
        "{took:?}"
    );
    let log = server.log();
    assert!(
        log.contains("left to itself") && log.contains("the command was not run for 1 URL"),
        "{log}"
    );
    // It lives, and ends its work.
    script.let_go();
    eventually("the run is finished", || script.path("finished").exists());
}

#[test]
fn a_release_that_is_proven_at_last_is_no_change_and_the_next_one_is() {
    let site = TestSite::with(&[("a.txt", b"a"), ("b.txt", b"b")]);
    let script = Script::new(site, "");
    let list = || {
        let manifest = manifest_of(&script.site.root(), &[]);
        fs::write(script.site.outside("site.json"), manifest).unwrap();
    };
    list();
    fs::remove_file(script.site.path("b.txt")).unwrap();
    let manifest = script.site.outside("site.json");
    let flags = [
        "--on-publish",
        &script.command,
        "--manifest",
        manifest.to_str().unwrap(),
    ];
    let program = support::server::command(env!("CARGO_BIN_EXE_etagd"));
    let server = Server::spawn(program, &script.site.root(), &flags);
    server.wait_for(|lines| lines.iter().any(|line| line.contains("/b.txt is missing")));
    fs::write(script.site.path("b.txt"), "b").unwrap();
    server.wait_for(|lines| lines.iter().any(|line| line.contains("listening on")));
    fs::write(script.site.path("b.txt"), "second").unwrap();
    list();
    assert_eq!(script.wait_for(0).urls, ["/b.txt"]);
}

#[test]
fn a_command_that_writes_into_the_site_is_told_so_once() {
    let site = TestSite::with(&[("a.txt", b"a")]);
    let log = site.path("log.txt");
    // It goes on until the test is over, or for a while.
    let rest = format!("[ $run -lt 12 ] && echo $run >'{}'", log.display());
    let script = Script::new(site, &format!("{rest}\ntrue"));
    let server = script.serve();
    fs::write(script.site.path("a.txt"), "b").unwrap();
    script.wait_for(8);
    let warning = "3 runs in a row had no other cause";
    let said = server.log();
    let lines: Vec<_> = said.lines().filter(|line| line.contains(warning)).collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(lines[0].contains("/log.txt"), "{said}");
    // After the third run that the one before had caused, and not sooner.
    let before = said.split(warning).next().unwrap();
    assert_eq!(before.matches("--on-publish: done").count(), 3, "{said}");
}

#[test]
fn edits_by_others_are_no_reason_to_warn() {
    let site = TestSite::with(&[("a.txt", b"a")]);
    let script = Script::new(site, "");
    let server = script.serve();
    for run in 0..6 {
        fs::write(script.site.path("a.txt"), run.to_string()).unwrap();
        runs(&server, run + 1);
        // Files get their times from a clock that goes on by some milliseconds at once: what is
        // written sooner may seem to be of the time before the run's end.
        let end = SystemTime::now() + Duration::from_millis(20);
        let clock = script.path("clock");
        eventually("the clock of files has gone on", || {
            fs::write(&clock, "").unwrap();
            fs::metadata(&clock).unwrap().modified().unwrap() > end
        });
    }
    assert!(!server.log().contains("in a row"), "{}", server.log());
}

#[test]
fn the_command_gets_no_variable_of_the_server() {
    let site = TestSite::with(&[("a.txt", b"a")]);
    let binary = env!("CARGO_BIN_EXE_etagd");
    let root = site.root();
    // Both would fail, or mean something else, under the server's own settings.
    let rest = format!(
        "env | sed -n 's/^\\(ETAGD_[A-Z_]*\\)=.*/\\1/p' | sort >variables.new\n\
         '{binary}' manifest '{root}' --digest >digest.new 2>errors\n\
         mv digest.new digest; mv variables.new variables",
        root = root.display()
    );
    let script = Script::new(site, &rest);
    let mut program = support::server::command(binary);
    program
        .env("ETAGD_ON_PUBLISH", &script.command)
        .env("ETAGD_SWEEP", "1h")
        .env("ETAGD_HTML_HANDLING", "none")
        .env("ETAGD_WRITE_TOKEN", "a-secret-of-somebody");
    let server = Server::run(program, &root, &[]);
    fs::write(root.join("a.txt"), "b").unwrap();
    runs(&server, 1);
    let read = |name| fs::read_to_string(script.path(name)).unwrap();
    assert_eq!(
        read("variables"),
        "ETAGD_NEW_DIGEST\nETAGD_OLD_DIGEST\n",
        "{}",
        read("errors")
    );
    assert_eq!(read("digest").trim(), digest_of(&root));
}
