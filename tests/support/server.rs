//! The real binary, started, watched and stopped.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Client, TestSite};

const BINARY: &str = env!("CARGO_BIN_EXE_etagd");

/// How long a server may take to say a line, or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs etagd to its end, for commands that have one.
pub(crate) fn etagd<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Output {
    command(BINARY)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// etagd, to be given arguments and an environment.
pub(crate) fn etagd_command() -> Command {
    command(BINARY)
}

/// A command in an environment that no flag leaks into, and that gets SIGHUP although whoever runs
/// the tests may not (`nohup`).
pub(crate) fn command(program: &str) -> Command {
    let mut command = if is_hangup_ignored() {
        let mut env = Command::new("/usr/bin/env");
        env.args(["--default-signal=HUP", program]);
        env
    } else {
        Command::new(program)
    };
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ETAGD_") {
            command.env_remove(name);
        }
    }
    command.env_remove("PORT").env("NO_COLOR", "1");
    command
}

/// Whether this process ignores SIGHUP, which is inherited: bit 0 of SigIgn (proc_pid_status(5)).
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 != 0)
}

/// A command that runs etagd as a user who may not do everything; none where that can't be had.
pub(crate) fn unprivileged() -> Option<Command> {
    if !rustix::process::geteuid().is_root() {
        return Some(command(BINARY));
    }
    let mut nobody = command("setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", BINARY]);
    let works = command("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            BINARY,
            "--version",
        ])
        .output()
        .is_ok_and(|output| output.status.success());
    works.then_some(nobody)
}

/// A command that runs etagd with so many file descriptors at most.
pub(crate) fn with_descriptors(most: u32) -> Command {
    limited(&format!("-n {most}"))
}

/// A command that runs etagd with this limit of the shell's `ulimit`.
pub(crate) fn limited(limit: &str) -> Command {
    let mut shell = command("sh");
    let script = format!("ulimit {limit} && exec \"$0\" \"$@\"");
    shell.args(["-c", &script, BINARY]);
    shell
}

/// A running etagd. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    log: Arc<Log>,
}

/// What it has said so far on standard error.
#[derive(Default)]
struct Log {
    said: Mutex<Said>,
    changed: Condvar,
}

#[derive(Default)]
struct Said {
    lines: Vec<String>,
    /// Standard error is closed, so the process is gone or about to be.
    ended: bool,
}

impl Server {
    /// Serves a site on a free port, and waits until it does.
    pub(crate) fn start(site: &TestSite) -> Self {
        Self::with(site, &[])
    }

    /// The same with flags. Without `--listen` among them, on a free port of 127.0.0.1.
    pub(crate) fn with(site: &TestSite, flags: &[&str]) -> Self {
        Self::run(command(BINARY), &site.root(), flags)
    }

    /// Serves a directory that is not a [`TestSite`]'s own.
    pub(crate) fn at(dir: &Path, flags: &[&str]) -> Self {
        Self::run(command(BINARY), dir, flags)
    }

    /// The same through another command, such as [`unprivileged`].
    pub(crate) fn run(program: Command, dir: &Path, flags: &[&str]) -> Self {
        let server = Self::spawn(program, dir, flags);
        let listeners = flags
            .iter()
            .filter(|flag| **flag == "--listen")
            .count()
            .max(1);
        server.wait_for(|lines| listening(lines).count() == listeners);
        server
    }

    /// Serves a site on a free port, with something to read its standard output from.
    pub(crate) fn logging(site: &TestSite, flags: &[&str]) -> (Self, ChildStdout) {
        let mut server = Self::spawn_to(Stdio::piped(), command(BINARY), &site.root(), flags);
        server.wait_for(|lines| listening(lines).count() > 0);
        let out = server.child.stdout.take().unwrap();
        (server, out)
    }

    /// Starts one and waits for nothing.
    pub(crate) fn spawn(program: Command, dir: &Path, flags: &[&str]) -> Self {
        Self::spawn_to(Stdio::null(), program, dir, flags)
    }

    fn spawn_to(out: Stdio, mut program: Command, dir: &Path, flags: &[&str]) -> Self {
        program.arg("serve").arg(dir).args(flags);
        if !flags.contains(&"--listen") {
            program.args(["--listen", "127.0.0.1:0"]);
        }
        program.stdin(Stdio::null()).stdout(out);
        Self::launch(program)
    }

    /// Starts one that inherits these listening sockets, with their names, and waits for nothing.
    pub(crate) fn inherit(
        sockets: [Option<OwnedFd>; 2],
        names: &str,
        dir: &Path,
        flags: &[&str],
    ) -> Self {
        let number = sockets.iter().flatten().count();
        let mut shell = command("sh");
        shell
            .args([
                "-c",
                "exec 3<&0 4<&1 </dev/null >/dev/null; LISTEN_PID=$$ exec \"$0\" \"$@\"",
                BINARY,
            ])
            .env("LISTEN_FDS", number.to_string())
            .env("LISTEN_FDNAMES", names)
            .arg("serve")
            .arg(dir)
            .args(flags);
        let [first, second] = sockets.map(|socket| socket.map_or_else(Stdio::null, Stdio::from));
        shell.stdin(first).stdout(second);
        Self::launch(shell)
    }

    fn launch(mut program: Command) -> Self {
        program.stderr(Stdio::piped());
        let mut child = program.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Log::default());
        let copy = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                copy.said().lines.push(without_time(&line).to_owned());
                copy.changed.notify_all();
            }
            copy.said().ended = true;
            copy.changed.notify_all();
        });
        Self { child, log }
    }

    /// Asserts that `serve` fails with this exit code, naming these things in a few lines.
    pub(crate) fn assert_fails(dir: &Path, flags: &[&str], code: i32, naming: &[&str]) {
        let mut server = Self::spawn(command(BINARY), dir, flags);
        let (found, message) = (server.wait().code(), server.log());
        assert_eq!(found, Some(code), "{flags:?} said:\n{message}");
        for name in naming {
            assert!(
                message.contains(name),
                "{flags:?} does not name {name:?}:\n{message}"
            );
        }
        assert!(
            message.lines().count() < 12,
            "too long to be read:\n{message}"
        );
    }

    /// The port of the first listener that has one.
    pub(crate) fn port(&self) -> u16 {
        self.address().port()
    }

    /// The address of the first listener that has one.
    pub(crate) fn address(&self) -> SocketAddr {
        let said = self.log.said();
        let addresses: Vec<_> = listening(&said.lines)
            .filter_map(|listener| listener.strip_prefix("http://"))
            .collect();
        // A listener on all addresses is said as `localhost`, followed by those in the network. A base
        // path may follow.
        let first = addresses.first().expect("a TCP listener");
        let address = first.split([' ', '/']).next().unwrap();
        address.replace("localhost", "127.0.0.1").parse().unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// The address of the first admin listener, once it is there.
    pub(crate) fn admin(&self) -> SocketAddr {
        let find = |lines: &[String]| {
            let mut lines = lines.iter();
            lines.find_map(|line| line.strip_prefix("admin on http://")?.parse().ok())
        };
        self.wait_for(|lines| find(lines).is_some());
        find(&self.log.said().lines).unwrap()
    }

    /// Waits for a line that contains this.
    pub(crate) fn wait_for_line(&self, part: &str) {
        self.wait_for(|lines| lines.iter().any(|line| line.contains(part)));
    }

    /// Waits until it listens.
    pub(crate) fn wait_until_listening(&self) {
        self.wait_for_line("listening on ");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Kills it, unless it has ended.
    pub(crate) fn kill(&mut self) {
        // It fails only where it has ended already.
        let _ = self.child.kill();
        self.wait();
    }

    /// Everything it has said on standard error.
    pub(crate) fn log(&self) -> String {
        self.log.said().lines.join("\n")
    }

    /// Waits until what it has said fulfils a condition.
    pub(crate) fn wait_for(&self, said_enough: impl Fn(&[String]) -> bool) {
        let enough = self.wait_until(|said| said_enough(&said.lines) || said.ended);
        let said = self.log.said();
        assert!(
            enough && said_enough(&said.lines),
            "not said: {:#?}",
            said.lines
        );
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        if !self.wait_until(|said| said.ended) {
            self.child.kill().unwrap();
            panic!("etagd did not end; it said:\n{}", self.log());
        }
        self.child.wait().unwrap()
    }

    /// Asserts that it runs and answers.
    pub(crate) fn assert_alive(&mut self) {
        assert_eq!(
            self.child.try_wait().unwrap(),
            None,
            "etagd ended:\n{}",
            self.log()
        );
        let response = self
            .client()
            .request("OPTIONS", "/", &[("Connection", "close")]);
        assert_eq!(response.status, 204);
    }

    /// Whether the condition came true in time.
    fn wait_until(&self, condition: impl Fn(&Said) -> bool) -> bool {
        let until = Instant::now() + PATIENCE;
        let mut said = self.log.said();
        while !condition(&said) {
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                return false;
            };
            said = self.log.changed.wait_timeout(said, left).unwrap().0;
        }
        true
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log();
        if std::thread::panicking() {
            // Captured by the test harness and shown with the failure.
            #[allow(clippy::print_stderr)]
            {
                eprintln!("--- etagd said:\n{log}\n---");
            }
        } else {
            assert!(!log.contains("panicked"), "etagd panicked:\n{log}");
        }
    }
}

impl Log {
    fn said(&self) -> MutexGuard<'_, Said> {
        // A failed assertion about it must not hide behind a poisoned lock.
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line of text without the time before it.
fn without_time(line: &str) -> &str {
    match line.split_once("Z ") {
        Some((time, message)) if time.len() == "2026-01-01T00:00:00.000".len() => message,
        _ => line,
    }
}

/// What stands behind `listening on` in each line that has it.
fn listening(lines: &[String]) -> impl Iterator<Item = &str> {
    lines
        .iter()
        .filter_map(|line| line.split_once("listening on "))
        .map(|(_, address)| {
            address
                // In JSON a quote ends it.
                .split([' ', '"'])
                .next()
                .unwrap_or_default()
                .trim_end_matches('/')
        })
}
