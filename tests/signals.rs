//! The signals that a server acts on, those that it ignores, and the end of its terminal.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use support::server::command;
use support::tree::eventually;
use support::{Client, Server, TestSite};

#[test]
fn quit_is_the_same_as_terminate() {
    for signal in [Signal::QUIT, Signal::TERM] {
        let site = TestSite::with(&[("file", b"1")]);
        let mut server = Server::with(&site, &["--drain", "100ms"]);
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(0), "{signal:?}");
        let log = server.log();
        assert!(log.contains("draining for 100ms"), "{signal:?}: {log}");
    }
}

#[test]
fn user_signals_do_nothing() {
    let site = TestSite::with(&[("file", b"1")]);
    let mut server = Server::start(&site);
    for signal in [Signal::USR1, Signal::USR2, Signal::USR1] {
        server.signal(signal);
    }
    server.assert_alive();
    assert_eq!(server.client().get("/file").body, b"1");
}

/// etagd in a terminal of its own, which closes with the `script` that holds it.
struct Terminal {
    script: Child,
    server: Pid,
    port: u16,
}

impl Terminal {
    /// `None` where this machine has no `script`. `prefix` comes before etagd in the shell's line.
    fn open(site: &TestSite, prefix: &str) -> Option<Self> {
        let root = site.root();
        let line = format!(
            "exec {prefix} {} serve {} --listen 127.0.0.1:0",
            env!("CARGO_BIN_EXE_etagd"),
            root.display()
        );
        let mut script = command("script");
        script.args(["-q", "-f", "-c", &line, "/dev/null"]);
        // `script` ends with its input, so that stays open.
        script.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = match script.spawn() {
            Ok(script) => script,
            Err(error) => {
                let must = std::env::var_os("ETAGD_NO_SKIP").is_some();
                assert!(!must, "cannot run script: {error}");
                #[allow(clippy::print_stderr)]
                {
                    eprintln!("skipped: cannot run script: {error}");
                }
                return None;
            }
        };
        let out = BufReader::new(script.stdout.take().unwrap());
        let mut said = Vec::new();
        let port = out.lines().map_while(Result::ok).find_map(|line| {
            let port = line.split_once("listening on http://127.0.0.1:");
            said.push(line.clone());
            port?.1.trim().parse().ok()
        });
        let port = port.unwrap_or_else(|| panic!("etagd does not listen: {said:?}"));
        let children = format!("/proc/{0}/task/{0}/children", script.id());
        let children = fs::read_to_string(children).unwrap();
        let server: i32 = children.split_whitespace().next().unwrap().parse().unwrap();
        Some(Self {
            script,
            server: Pid::from_raw(server).unwrap(),
            port,
        })
    }

    fn is_open(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }

    fn body(&self) -> Vec<u8> {
        let address = ([127, 0, 0, 1], self.port).into();
        Client::connect(address).get("/file").body
    }

    fn close(&mut self) {
        self.script.kill().unwrap();
        self.script.wait().unwrap();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.script.kill();
        let _ = self.script.wait();
        let _ = kill_process(self.server, Signal::KILL);
    }
}

/// A site whose file can be changed so that only SIGHUP, or a sweep, notices it.
fn site() -> TestSite {
    let site = TestSite::with(&[("file", b"1")]);
    fs::hard_link(site.path("file"), site.outside("name")).unwrap();
    site
}

#[test]
fn a_hangup_that_somebody_sends_reloads_and_that_of_a_closed_terminal_ends() {
    let site = site();
    let Some(mut terminal) = Terminal::open(&site, "") else {
        return;
    };
    fs::write(site.outside("name"), "2").unwrap();
    kill_process(terminal.server, Signal::HUP).unwrap();
    eventually("the reload", || terminal.body() == b"2");
    terminal.close();
    eventually("the end of the server", || !terminal.is_open());
}

#[test]
fn under_nohup_a_closed_terminal_ends_nothing() {
    let site = site();
    // What nohup(1) does, without the file that it sends the output to.
    let ignoring = "sh -c 'trap \"\" HUP; exec \"$@\"' sh";
    let Some(mut terminal) = Terminal::open(&site, ignoring) else {
        return;
    };
    terminal.close();
    // The terminal is gone, and with it the signal has been sent: what comes later is answered.
    assert_eq!(terminal.body(), b"1");
    kill_process(terminal.server, Signal::HUP).unwrap();
    assert_eq!(terminal.body(), b"1");
    kill_process(terminal.server, Signal::TERM).unwrap();
    eventually("the end of the server", || !terminal.is_open());
}
