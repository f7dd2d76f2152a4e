//! A running `etagd dev`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::Client;
use super::server::command;

/// How long it may take to say a line, or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running `etagd dev`. Dropping it kills it.
pub(crate) struct Developer {
    child: Child,
    said: Arc<(Mutex<Vec<String>>, Condvar)>,
    pub(crate) port: u16,
}

impl Developer {
    /// On a free port.
    pub(crate) fn start(directory: &Path, flags: &[&str]) -> Self {
        Self::on_port(directory, 0, flags)
    }

    pub(crate) fn on_port(directory: &Path, port: u16, flags: &[&str]) -> Self {
        let port = port.to_string();
        let flags = [&["--port", &*port], flags].concat();
        Self::prepared(directory, &flags, |_| {})
    }

    /// With flags alone, and what `prepare` makes of the command.
    pub(crate) fn prepared(
        directory: &Path,
        flags: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let mut program = Self::command(directory, flags);
        program.stdout(Stdio::piped());
        prepare(&mut program);
        let mut child = program.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        Self::listen(child, stdout)
    }

    /// On a free port, before a terminal that has colours.
    pub(crate) fn on_terminal(directory: &Path, flags: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let mut slave = File::options();
        let slave = slave.read(true).write(true).open(name.to_str().unwrap());
        let flags = [&["--port", "0"], flags].concat();
        let mut program = Self::command(directory, &flags);
        program.env_remove("NO_COLOR").stdout(slave.unwrap());
        let child = program.spawn().unwrap();
        // Its own end of the terminal has to go, or reading would never end.
        drop(program);
        Self::listen(child, File::from(master))
    }

    fn command(directory: &Path, flags: &[&str]) -> Command {
        let mut program = command(env!("CARGO_BIN_EXE_etagd"));
        program.env_remove("PORT").arg("dev").arg(directory);
        // What it keeps goes with the site.
        program.env("XDG_STATE_HOME", directory.with_file_name("state"));
        program.args(flags);
        program.stdin(Stdio::null()).stderr(Stdio::piped());
        program
    }

    fn listen(mut child: Child, stdout: impl Read + Send + 'static) -> Self {
        let said = Arc::<(Mutex<Vec<String>>, Condvar)>::default();
        let stderr = child.stderr.take().unwrap();
        for out in [Box::new(stdout) as Box<dyn Read + Send>, Box::new(stderr)] {
            let copy = Arc::clone(&said);
            std::thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    copy.0.lock().unwrap().push(line);
                    copy.1.notify_all();
                }
            });
        }
        let mut developer = Self {
            child,
            said,
            port: 0,
        };
        let digest = developer.wait_for_line("Digest ");
        assert!(digest.len() > 64, "{digest}");
        let local = developer.wait_for_line("Local ");
        let port = local.trim_end().rsplit(':').next().unwrap();
        // The base path of the site follows.
        developer.port = port.split('/').next().unwrap().parse().unwrap();
        developer
    }

    /// The first line that has this in it, once it is there.
    pub(crate) fn wait_for_line(&self, part: &str) -> String {
        let until = Instant::now() + PATIENCE;
        let mut lines = self.said.0.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().find(|line| line.contains(part)) {
                return line.clone();
            }
            let left = until.checked_duration_since(Instant::now());
            let Some(left) = left else {
                panic!("{part:?} was not said: {lines:#?}");
            };
            lines = self.said.1.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Everything it has said.
    pub(crate) fn said(&self) -> Vec<String> {
        self.said.0.lock().unwrap().clone()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.port)
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(SocketAddr::from(([127, 0, 0, 1], self.port)))
    }

    /// Ends it as Ctrl-C does.
    pub(crate) fn stop(mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Developer {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
