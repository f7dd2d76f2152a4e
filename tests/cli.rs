//! The command line: what it says where it can't do what it is asked, and with which exit code.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use support::server::{command, unprivileged};
use support::{Server, TestSite, etagd};

const BINARY: &str = env!("CARGO_BIN_EXE_etagd");

fn site() -> TestSite {
    TestSite::with(&[("file.txt", b"content")])
}

/// The exit code, standard output and standard error of a run.
fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn a_directory_that_is_not_there() {
    let site = site();
    Server::assert_fails(
        &site.path("nowhere"),
        &[],
        1,
        &["nowhere", "No such file or directory"],
    );
    let output = etagd(["manifest".as_ref(), site.path("nowhere").as_os_str()]);
    let (code, stdout, stderr) = said(&output);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("nowhere"), "{stderr}");
}

#[test]
fn a_file_in_the_place_of_a_directory() {
    let site = site();
    Server::assert_fails(
        &site.path("file.txt"),
        &[],
        1,
        &["file.txt", "ot a directory"],
    );
    let output = etagd(["manifest".as_ref(), site.path("file.txt").as_os_str()]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_directory_that_may_not_be_read() {
    let site = site();
    fs::set_permissions(site.root(), Permissions::from_mode(0o000)).unwrap();
    let program = unprivileged();
    let outcome = program.map(|program| {
        let mut server = Server::spawn(program, &site.root(), &[]);
        (server.wait().code(), server.log())
    });
    fs::set_permissions(site.root(), Permissions::from_mode(0o755)).unwrap();
    let Some((code, message)) = outcome else {
        #[allow(clippy::print_stderr)]
        {
            eprintln!("skipped: there is no way to run as a user who may not read everything");
        }
        return;
    };
    assert_eq!(code, Some(1), "{message}");
    assert!(
        message.contains("ermission denied") && message.contains("site"),
        "{message}"
    );
}

#[test]
fn values_that_mean_nothing_are_bad_usage() {
    let root = site().root();
    for (flag, value) in [
        ("--listen", "127.0.0.1"),
        ("--listen", "127.0.0.1:99999"),
        ("--listen", "unix:"),
        ("--listen", ""),
        ("--memory", "much"),
        ("--memory", "-1"),
        ("--workers", "0"),
        ("--workers", "two"),
        ("--symlinks", "some"),
        ("--last-modified", "yes"),
        ("--html-handling", "pretty"),
        ("--not-found", "index.html"),
        ("--immutable", "assets/**"),
        ("--immutable", "/assets/[a"),
        ("--immutable", ""),
        ("--grace", "20"),
        ("--grace", "soon"),
        ("--max-connections", "0"),
        ("--max-connections", "x"),
        ("--header-timeout", "fast"),
        ("--idle-timeout", "10 parsecs"),
        ("--write-timeout", ""),
        ("--max-header-size", "1"),
        ("--max-header-size", "16KiX"),
        ("--admin", "127.0.0.1"),
        ("--expect", "623a5460"),
        ("--health", "alive"),
        ("--drain", "late"),
    ] {
        // With `=`, so that a value may begin with a dash.
        let joined = format!("{flag}={value}");
        let (code, message) = {
            let mut server = Server::spawn(command(BINARY), &root, &[&joined]);
            (server.wait().code(), server.log())
        };
        assert_eq!(code, Some(2), "{joined} said:\n{message}");
        assert!(
            message.contains(flag),
            "{joined} does not name the flag:\n{message}"
        );
        assert!(
            message.contains(value),
            "{joined} does not name the value:\n{message}"
        );
    }
}

#[test]
fn flags_and_commands_that_do_not_exist_are_bad_usage() {
    for arguments in [
        &["serve", "--colour"][..],
        &["surf"],
        &["manifest", "--format", "xml"],
        &[],
    ] {
        let (code, stdout, stderr) = said(&etagd(arguments));
        assert_eq!(code, Some(2), "{arguments:?}");
        assert_eq!(
            stdout, "",
            "{arguments:?}: messages belong to standard error"
        );
        assert!(
            stderr.contains("--help"),
            "{arguments:?} does not say where help is:\n{stderr}"
        );
    }
}

#[test]
fn help_names_the_flags_and_fits() {
    let (code, serve, _) = said(&etagd(["serve", "--help"]));
    assert_eq!(code, Some(0));
    for flag in [
        "--listen",
        "--memory",
        "--workers",
        "--state",
        "--symlinks",
        "--last-modified",
        "--html-handling",
        "--not-found",
        "--listing",
        "--immutable",
        "--immutable-query",
        "--grace",
        "--max-connections",
        "--header-timeout",
        "--idle-timeout",
        "--write-timeout",
        "--max-header-size",
        "--admin",
        "--expect",
        "--expect-always",
        "--digest-header",
        "--health",
        "--drain",
        "--reuse-port",
        "127.0.0.1:8080",
        "16KiB",
        "ETAGD_",
    ] {
        assert!(serve.contains(flag), "{flag} is not in:\n{serve}");
    }
    let (_, short, _) = said(&etagd(["serve", "-h"]));
    let (_, overview, _) = said(&etagd(["--help"]));
    for command in ["serve", "dev", "manifest"] {
        assert!(overview.contains(command), "{overview}");
    }
    for text in [&serve, &short, &overview] {
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(100), "{widest:?} columns:\n{text}");
    }
    assert!(short.lines().count() <= 50, "more than a screen:\n{short}");
}

#[test]
fn version() {
    let (code, stdout, stderr) = said(&etagd(["--version"]));
    assert_eq!(code, Some(0));
    assert_eq!(
        stdout.trim_end(),
        concat!("etagd ", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(stderr, "");
}

#[test]
fn a_summary_says_files_bytes_and_digest() {
    let site = TestSite::with(&[("a", &[0; 1000]), ("b", &[1; 500])]);
    let server = Server::start(&site);
    let digest = said(&etagd([
        "manifest".as_ref(),
        site.root().as_os_str(),
        "--digest".as_ref(),
    ]))
    .1;
    let log = server.log();
    let line = log
        .lines()
        .find(|line| line.contains(&digest[..12]))
        .unwrap_or_else(|| panic!("no line has the digest:\n{log}"));
    assert!(line.contains("2 files"), "{line}");
    assert!(
        !log.contains('\u{1b}'),
        "escapes for a terminal that is none:\n{log}"
    );
}

#[test]
fn the_environment_says_what_flags_do_not() {
    let site = site();
    let mut program = command(BINARY);
    program.env("ETAGD_SYMLINKS", "nonsense");
    let mut server = Server::spawn(program, &site.root(), &[]);
    assert_eq!(server.wait().code(), Some(2), "{}", server.log());
    drop(server);
    let site = site.symlink("link.txt", "file.txt");
    for (flags, status) in [(&[][..], 404), (&["--symlinks", "inside"], 200)] {
        let mut program = command(BINARY);
        program.env("ETAGD_SYMLINKS", "none");
        let server = Server::run(program, &site.root(), flags);
        assert_eq!(server.client().get("/link.txt").status, status, "{flags:?}");
    }
}

#[test]
fn the_environment_says_which_files_are_immutable() {
    let site = site();
    let mut program = command(BINARY);
    program.env("ETAGD_IMMUTABLE", "/{assets,file}*");
    program.env("ETAGD_IMMUTABLE_QUERY", "true");
    program.env("ETAGD_HTML_HANDLING", "none");
    program.env("ETAGD_NOT_FOUND", "none");
    let site = site.file("index.html", "index").file("404.html", "404");
    let server = Server::run(program, &site.root(), &[]);
    let file = server.client().get("/file.txt");
    assert!(file.field("Cache-Control").unwrap().ends_with("immutable"));
    let missing = server.client().get("/");
    assert_eq!(missing.status, 404);
    assert_ne!(missing.body, b"404");
}

#[test]
fn a_pattern_that_makes_pages_immutable_is_warned_about() {
    let site = TestSite::with(&[("b.html", b"b"), ("a.html", b"a"), ("c.js", b"c")]);
    let pinned = "2 pages are immutable, such as /a.html";
    let says = |flags: &[&str]| Server::with(&site, flags).log().contains(pinned);
    assert!(says(&["--immutable", "/*"]));
    assert!(!says(&["--immutable", "/*.js"]));
}

#[test]
fn a_manifest_into_a_closed_pipe_is_no_panic() {
    let site = (0..3000).fold(TestSite::new(), |site, n| site.file(format!("f{n}"), "x"));
    let mut shell = command("sh");
    shell.args([
        "-c",
        "\"$0\" manifest \"$1\" 2>&1 >/dev/full | head -c 2000",
        BINARY,
    ]);
    let full = shell.arg(site.root()).output().unwrap();
    let (_, message, _) = said(&full);
    assert!(
        message.contains("standard output") && !message.contains("panicked"),
        "{message}"
    );
    let mut shell = command("sh");
    shell.args(["-c", "\"$0\" manifest \"$1\" | true", BINARY]);
    let (_, _, message) = said(&shell.arg(site.root()).output().unwrap());
    assert!(!message.contains("panicked"), "{message}");
}
