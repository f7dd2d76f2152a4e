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
fn one_address_for_two_flags_is_bad_usage() {
    let root = site().root();
    let socket = root.with_extension("socket");
    let socket = format!("unix:{}", socket.display());
    for (flags, naming) in [
        (
            &["--listen", "4711", "--listen", "127.0.0.1:4711"][..],
            &["--listen and --listen"][..],
        ),
        (
            &["-p", "4711", "--admin", "4711"],
            &["--port and --admin", "127.0.0.1:4711"],
        ),
        (
            &["--listen", &socket, "--admin", &socket],
            &["--listen and --admin", &socket],
        ),
        (
            &["--admin", "8080"],
            &["--listen and --admin", "127.0.0.1:8080"],
        ),
    ] {
        // The directory is not there, so that one which is not refused ends, too.
        let arguments = [&["serve", root.to_str().unwrap()], flags].concat();
        let (code, _, message) = said(&etagd(&arguments));
        assert_eq!(code, Some(2), "{arguments:?}: {message}");
        for naming in naming {
            assert!(message.contains(naming), "{arguments:?}: {message}");
        }
    }
    // A free port is another one each time.
    let free = ["--listen", "0", "--listen", "0", "--admin", "0"];
    Server::with(&site(), &free);
}

#[test]
fn what_a_flag_lacks_is_named() {
    let root = site().root();
    let root = root.to_str().unwrap();
    for (arguments, naming) in [
        (&["serve", root, "--compress", "br"][..], "--compress=br"),
        (&["serve", "--compress", "br,gz", root], "--compress=br,gz"),
        (&["serve", root, "--cache-size", "1GiB"], "--compress"),
        (&["serve", root, "--cache", "x"], "--compress"),
        // A developer waits for each change.
        (&["dev", root, "--compress"], "--compress"),
        (&["serve", root, "--exclude", "["], "\\["),
        (&["serve", root, "--exclude", "./d"], "without . and .."),
    ] {
        let (code, _, message) = said(&etagd(arguments));
        assert_eq!(code, Some(2), "{arguments:?}: {message}");
        assert!(message.contains(naming), "{arguments:?}: {message}");
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
        "--compress",
        "--cache",
        "--cache-size",
        "--base-path",
        "--redirect-http",
        "--https-port",
        "--exclude",
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
fn the_environment_says_which_files_are_immutable_and_which_are_left_out() {
    let site = site();
    let mut program = command(BINARY);
    program.env("ETAGD_IMMUTABLE", "auto, /{assets,file}*,/x");
    program.env("ETAGD_EXCLUDE", "a.txt,b.*");
    program.env("ETAGD_IMMUTABLE_QUERY", "true");
    program.env("ETAGD_HTML_HANDLING", "none");
    program.env("ETAGD_NOT_FOUND", "none");
    let site = site.file("index.html", "index").file("404.html", "404");
    let site = site.file("a.txt", "a").file("b.txt", "b");
    let server = Server::run(program, &site.root(), &[]);
    for excluded in ["/a.txt", "/b.txt"] {
        assert_eq!(server.client().get(excluded).status, 404, "{excluded}");
    }
    let file = server.client().get("/file.txt");
    assert!(file.field("Cache-Control").unwrap().ends_with("immutable"));
    let missing = server.client().get("/");
    assert_eq!(missing.status, 404);
    assert_ne!(missing.body, b"404");
}

#[test]
fn auto_makes_files_with_a_hash_in_their_name_immutable() {
    let site = TestSite::with(&[
        ("assets/index-BfX3a91Z.js", b"1"),
        ("main.8d3f2a1c.css", b"2"),
        ("runtime-1bad3eef.js", b"3"),
        ("report-2026-11-28.pdf", b"4"),
        ("about-8d3f2a1c.html", b"5"),
        (
            "_headers",
            b"/runtime-1bad3eef.js\n  ! Cache-Control\n  Cache-Control: no-cache\n",
        ),
    ]);
    let server = Server::with(&site, &["--immutable", "auto"]);
    let mut client = server.client();
    for (path, is_immutable) in [
        ("/assets/index-BfX3a91Z.js", true),
        ("/main.8d3f2a1c.css", true),
        ("/runtime-1bad3eef.js", false),
        ("/report-2026-11-28.pdf", false),
        ("/about-8d3f2a1c", false),
    ] {
        let answer = client.get(path);
        assert_eq!(answer.status, 200, "{path}");
        let value = answer.field("Cache-Control").unwrap();
        assert_eq!(
            value.ends_with("immutable"),
            is_immutable,
            "{path}: {value}"
        );
    }
    // Only where it is asked for.
    let server = Server::start(&site);
    let plain = server.client().get("/main.8d3f2a1c.css");
    let value = plain.field("Cache-Control").unwrap();
    assert!(!value.contains("immutable"), "{value}");
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

/// The long help of a command.
fn help(command: &str) -> String {
    let (code, text, _) = said(&etagd([command, "--help"]));
    assert_eq!(code, Some(0), "{command}");
    text
}

#[test]
fn help_is_grouped_and_short_help_is_short() {
    let serve = help("serve");
    for heading in [
        "Site:",
        "Listening:",
        "Changes:",
        "TLS:",
        "Writing:",
        "Operating:",
        "Limits:",
    ] {
        assert!(
            serve.lines().any(|line| line == heading),
            "{heading}\n{serve}"
        );
    }
    let (_, short, _) = said(&etagd(["serve", "-h"]));
    let flags = |text: &str| {
        text.lines()
            .filter(|line| line.trim_start().starts_with('-'))
            .count()
    };
    assert!(
        (10..=15).contains(&flags(&short)),
        "{}\n{short}",
        flags(&short)
    );
    assert!(flags(&serve) > 40, "{serve}");
}

#[test]
fn the_first_command_in_help_is_the_one_that_is_needed_first() {
    let (_, overview, _) = said(&etagd(["-h"]));
    let at = |command: &str| overview.find(command).unwrap();
    assert!(at("  serve ") < at("  dev "), "{overview}");
    assert!(at("  dev ") < at("  manifest "), "{overview}");
}

#[test]
fn variables_are_of_services_alone() {
    for (command, variable, shown) in [
        ("serve", "[env: ETAGD_LISTEN]", true),
        ("serve", "[env: ETAGD_LOG_LEVEL]", true),
        ("dev", "[env: ETAGD_STRICT_PORT]", true),
        ("serve", "ETAGD_PORT", false),
        ("dev", "ETAGD_PORT", false),
        ("dev", "ETAGD_HOST", true),
        ("manifest", "[env:", false),
        ("push", "[env:", false),
        ("check", "[env:", false),
        ("lint", "[env:", false),
        ("health", "[env: ETAGD_ADMIN]", true),
    ] {
        assert_eq!(
            help(command).contains(variable),
            shown,
            "{command} {variable}"
        );
    }
    // A hook inherits its server's variables, and what it runs is not changed by them.
    let site = site();
    let mut manifest = command(BINARY);
    manifest.arg("manifest").arg(site.root());
    manifest.env("ETAGD_SYMLINKS", "nonsense");
    manifest.env("ETAGD_MANIFEST", "/nowhere");
    manifest.env("ETAGD_LOG_FORMAT", "json");
    let (code, _, message) = said(&manifest.output().unwrap());
    assert_eq!(code, Some(0), "{message}");
    assert!(!message.starts_with('{'), "{message}");
}

#[test]
fn unknown_variables_are_warned_of_and_those_of_kubernetes_are_not() {
    let site = site();
    let mut program = command(BINARY);
    program
        .env("ETAGD_LISTNE", ":80")
        .env("ETAGD_PORT", "tcp://10.0.0.1:8080")
        .env("ETAGD_PORT_8080_TCP_PORT", "8080")
        .env("ETAGD_SERVICE_HOST", "10.0.0.1");
    let log = Server::run(program, &site.root(), &[]).log();
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("ETAGD_")).collect();
    let expected = ["warning: unknown variable ETAGD_LISTNE: did you mean ETAGD_LISTEN?"];
    assert_eq!(warnings, expected, "{log}");
}

#[test]
fn an_error_says_whether_the_flag_or_the_variable_is_wrong() {
    let root = site().root();
    let mut program = command(BINARY);
    program.env("ETAGD_SYMLINKS", "nonsense");
    let mut server = Server::spawn(program, &root, &[]);
    assert_eq!(server.wait().code(), Some(2));
    let log = server.log();
    assert!(
        log.contains("'ETAGD_SYMLINKS (--symlinks <MODE>)'"),
        "{log}"
    );
    let mut program = command(BINARY);
    program.env("ETAGD_SYMLINKS", "none");
    let mut server = Server::spawn(program, &root, &["--symlinks", "nonsense"]);
    assert_eq!(server.wait().code(), Some(2));
    assert!(!server.log().contains("ETAGD_SYMLINKS"), "{}", server.log());
}

/// A variable may say yes in each of the ways that flags know, and no as well.
#[test]
fn a_flag_that_needs_another_one_says_so_however_it_is_turned_on() {
    let site = site();
    let root = site.root();
    for (name, needed) in [
        ("ETAGD_EXPECT_ALWAYS", "--expect"),
        ("ETAGD_PROXY_PROTOCOL", "--trusted-proxy"),
        ("ETAGD_WRITE_INSECURE", "--writable"),
        ("ETAGD_WRITE_RULES", "--writable"),
    ] {
        for value in ["true", "1", "yes", "On", "TRUE"] {
            let mut program = command(BINARY);
            program.env(name, value);
            let mut server = Server::spawn(program, &root, &[]);
            assert_eq!(server.wait().code(), Some(2), "{name}={value}");
            assert!(server.log().contains(needed), "{}", server.log());
        }
        let mut program = command(BINARY);
        program.env(name, "no");
        Server::run(program, &root, &[]);
    }
}

#[test]
fn a_word_that_is_no_command_and_no_directory() {
    let (code, _, message) = said(&etagd(["sreve"]));
    assert_eq!(code, Some(2));
    assert!(message.contains("'serve'"), "{message}");
    assert!(message.contains("directory"), "{message}");
    let (code, _, message) = said(&etagd(["./sreve"]));
    assert_eq!(code, Some(1));
    assert!(message.contains("cannot open"), "{message}");
}

/// Runs etagd with these words, and gives the lines up to the first that says where it listens.
fn listens(words: &[&str], directory: &std::path::Path, variables: &[(&str, &str)]) -> String {
    let mut program = command(BINARY);
    let program = program.current_dir(directory).args(words);
    let program = program.envs(variables.iter().copied());
    let mut child = program
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let mut said = Vec::new();
    for line in lines.map_while(Result::ok) {
        let is_last = line.contains("listening on ");
        said.push(line);
        if is_last {
            break;
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    said.join("\n")
}

#[test]
fn habits_of_other_servers() {
    let site = site();
    let parent = site.root().parent().unwrap().to_owned();
    let name = site
        .root()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let here = "listening on http://127.0.0.1:";
    let everywhere = "listening on http://localhost:";
    for (words, variables, where_to) in [
        (vec![name.as_str(), "-p", "0"], vec![], here),
        (vec!["serve", &name, "--port", "0"], vec![], here),
        (vec!["-p", "0", &name], vec![], here),
        (vec!["serve", &name, "--listen", "0"], vec![], here),
        (vec!["serve", &name], vec![("PORT", "0")], everywhere),
        (
            vec!["serve", &name],
            vec![("PORT", "0"), ("ETAGD_LISTEN", "127.0.0.1:0")],
            here,
        ),
        (
            vec!["serve", &name, "-p", "0"],
            vec![("PORT", "1"), ("ETAGD_LISTEN", ":1")],
            here,
        ),
        // conda and tcsh set it.
        (
            vec![name.as_str(), "-p", "0"],
            vec![("HOST", "x86_64")],
            here,
        ),
    ] {
        let log = listens(&words, &parent, &variables);
        assert!(log.contains(where_to), "{words:?} {variables:?}:\n{log}");
    }
    let log = listens(&["serve", &name], &parent, &[("PORT", "tcp://x:80")]);
    assert!(log.contains("PORT") && !log.contains("listening"), "{log}");
    let log = listens(&["serve", &name, "-p", "0", "--listen", "0"], &parent, &[]);
    assert!(
        log.contains("--port") && !log.contains("listening"),
        "{log}"
    );
}

#[test]
fn levels_and_times_of_messages() {
    let site = site();
    let root = site.root();
    let log = listens(&["serve", ".", "-p", "0"], &root, &[]);
    let time = log.split(' ').next().unwrap();
    assert!(
        time.len() == 24 && time.ends_with('Z') && time.starts_with("20"),
        "{log}"
    );
    // Only errors are left, so the process is asked over its admin listener.
    for (flags, says) in [
        (&["--log-level", "info"][..], true),
        (&["-v"], true),
        (&["-q"], false),
        (&["--log-level", "error"], false),
    ] {
        let socket = site.outside("admin.sock");
        let admin = format!("unix:{}", socket.display());
        let flags = [&["--admin", &admin], flags].concat();
        let mut server = Server::spawn(command(BINARY), &root, &flags);
        let is_ready = (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            health(&["--admin", &admin]).0 == Some(0)
        });
        assert!(is_ready, "{flags:?}: {}", server.log());
        assert_eq!(server.log().contains("listening on"), says, "{flags:?}");
        server.signal(rustix::process::Signal::TERM);
        server.wait();
    }
}

/// Standard error of a service is a socket of the journal, which has the time already; systemd names
/// it by device and inode (systemd.exec(5)). What the service starts inherits the name, and may
/// write elsewhere.
#[test]
fn the_journal_gets_lines_without_the_time() {
    let site = site();
    for (step, has_time) in [(0, false), (1, true)] {
        let (reader, writer) = std::io::pipe().unwrap();
        let stream = rustix::fs::fstat(&writer).unwrap();
        let name = format!("{}:{}", stream.st_dev, stream.st_ino + step);
        let mut program = command(BINARY);
        program
            .arg("serve")
            .arg(site.root())
            .args(["-p", "0"])
            .env("JOURNAL_STREAM", &name)
            .stderr(writer);
        let mut child = program.spawn().unwrap();
        // It holds the other end of the pipe, too.
        drop(program);
        let mut line = String::new();
        let read = std::io::BufRead::read_line(&mut std::io::BufReader::new(reader), &mut line);
        let _ = child.kill();
        let _ = child.wait();
        read.unwrap();
        let is_dated = line.as_bytes().get(23) == Some(&b'Z');
        assert_eq!(is_dated, has_time, "{name}: {line:?}");
        assert!(line.contains("1 file"), "{line:?}");
    }
}

fn health(arguments: &[&str]) -> (Option<i32>, String, String) {
    said(&etagd([&["health"], arguments].concat()))
}

#[test]
fn health_asks_the_admin_listener() {
    let site = site();
    let socket = site.outside("admin.sock");
    let unix = format!("unix:{}", socket.display());
    let flags = [
        "--admin",
        "127.0.0.1:0",
        "--admin",
        &unix,
        "--health",
        "/up",
    ];
    let server = Server::with(&site, &flags);
    let admin = server.admin().to_string();
    let url = format!("http://{admin}");
    let up = format!("http://{}/up", server.address());
    let missing = format!("http://{}/missing", server.address());
    for arguments in [
        &[url.as_str()][..],
        &["--admin", &admin],
        &["--admin", &unix],
    ] {
        let (code, out, err) = health(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {err}");
        assert!(out.starts_with("ready "), "{arguments:?}: {out}");
    }
    assert_eq!(health(&[&up]).0, Some(0));
    // Not the page, which is a long one on some sites.
    let (code, _, err) = health(&[&missing]);
    assert_eq!(code, Some(1));
    assert!(err.contains("not ready: 404 Not Found (the admin"), "{err}");
    let mut by_environment = command(BINARY);
    by_environment.arg("health").env("ETAGD_ADMIN", &admin);
    assert_eq!(by_environment.output().unwrap().status.code(), Some(0));
    drop(server);
    let (code, _, err) = health(&[&url]);
    assert_eq!(code, Some(1));
    assert!(err.contains(&admin), "{err}");
    let (code, _, err) = health(&[]);
    assert_eq!(code, Some(2));
    assert!(err.contains("ETAGD_ADMIN"), "{err}");
}

#[test]
fn health_of_a_server_that_is_not_ready() {
    let site = site();
    let digest = "0".repeat(64);
    let flags = ["--admin", "127.0.0.1:0", "--expect", &digest];
    let server = Server::with(&site, &flags);
    let (code, out, err) = health(&["--admin", &server.admin().to_string()]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("not ready: 503"), "{err}");
}

#[test]
fn a_word_that_is_no_command_gets_the_nearest_one() {
    for (words, meant, may_be_directory) in [
        (&["servve"][..], Some("'serve'"), true),
        (&["-q", "mainfest"], Some("'manifest'"), true),
        (&["my-site"], None, true),
        (&["help", "servve"], Some("'serve'"), false),
        (&["help", "--help"], None, false),
    ] {
        let (code, _, message) = said(&etagd(words));
        assert_eq!(code, Some(2), "{words:?}");
        let suggests = message.contains("a similar subcommand exists");
        assert_eq!(suggests, meant.is_some(), "{message}");
        assert!(message.contains(meant.unwrap_or_default()), "{message}");
        let says = message.contains("a directory with this name does not exist either");
        assert_eq!(says, may_be_directory, "{message}");
    }
}

#[test]
fn completions_and_man_pages_know_all_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = said(&etagd(["completions", shell]));
        assert_eq!(code, Some(0), "{shell}");
        let known = script.contains("on-publish") && script.contains("health");
        assert!(known, "{shell}");
    }
    let directory = tempfile::tempdir().unwrap();
    let (code, _, message) = said(&etagd(["man".as_ref(), directory.path().as_os_str()]));
    assert_eq!(code, Some(0), "{message}");
    for page in ["etagd.1", "etagd-serve.1", "etagd-dev.1", "etagd-health.1"] {
        let text = fs::read_to_string(directory.path().join(page)).unwrap();
        assert!(text.contains(".TH "), "{page}");
    }
    // A flag stands on the line after `.TP`, and what it is for on the one after that.
    for page in fs::read_dir(directory.path()).unwrap() {
        let text = fs::read_to_string(page.unwrap().path()).unwrap();
        for item in text.split("\n.TP\n").skip(1) {
            let mut lines = item.lines();
            let (name, about) = (lines.next().unwrap(), lines.next().unwrap_or_default());
            assert!(
                !about.is_empty() && !about.starts_with('.'),
                "{name}: {item}"
            );
        }
    }
    let (code, _, message) = said(&etagd(["man", "/nowhere/at/all"]));
    assert_eq!(code, Some(1));
    assert!(message.contains("/nowhere/at/all"), "{message}");
}
