//! Real balancers and caches, each with the very configuration that `deploy/` has for it. Only
//! addresses and paths are replaced.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::Client;
use super::fleet::Fleet;
use super::server::command;
use super::tree::has;

/// How long a program may take to start, to notice something, or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// What `deploy/` tells people to write where their replicas and their public port are.
const REPLICAS: [&str; 3] = ["10.0.0.11", "10.0.0.12", "10.0.0.13"];

/// A program in front of a fleet, on a Unix socket in a directory of its own. Dropping it ends it.
pub(crate) struct Front {
    program: &'static str,
    child: Child,
    dir: TempDir,
}

impl Front {
    /// HAProxy, which tries nothing twice: a request that fails at a replica fails.
    pub(crate) fn haproxy(fleet: &Fleet) -> Option<Self> {
        Self::haproxy_of(fleet.addresses())
    }

    /// The same for replicas at these public and admin addresses.
    pub(crate) fn haproxy_of(replicas: [(SocketAddr, SocketAddr); 3]) -> Option<Self> {
        has("haproxy").then(|| {
            let dir = tempfile::tempdir().unwrap();
            let place = dir.path().display();
            let global = format!(
                "global\n  stats socket {place}/stats\n\
                 defaults\n  retries 0\n  no option redispatch\n  timeout connect 5s\n  \
                 timeout client 20s\n  timeout server 20s\n  timeout check 5s\n"
            );
            let address =
                |public: SocketAddr, admin: SocketAddr| format!("{public} port {}", admin.port());
            let site = filled_in("haproxy.cfg", replicas, |public, admin| {
                (":8080", address(public, admin))
            });
            let site = replaced(&site, "bind :80\n", &format!("bind unix@{place}/front\n"));
            fs::write(dir.path().join("global.cfg"), global).unwrap();
            fs::write(dir.path().join("site.cfg"), site).unwrap();
            let mut haproxy = command("haproxy");
            haproxy.args(["-db", "-f", "global.cfg", "-f", "site.cfg"]);
            Self::run("haproxy", haproxy, dir)
        })
    }

    /// nginx, as Debian configures it, but willing to compress everything.
    pub(crate) fn nginx(fleet: &Fleet) -> Option<Self> {
        has("nginx").then(|| {
            let dir = tempfile::tempdir().unwrap();
            let place = dir.path().display();
            // Its workers are to reach the directory, so they stay who they are.
            let user = match rustix::process::geteuid().is_root() {
                true => "user root;",
                false => "",
            };
            let main = format!(
                "{user} daemon off; worker_processes 2; pid {place}/pid; error_log stderr;\n\
                 events {{ worker_connections 500; }}\n\
                 http {{\n  access_log off; gzip on; gzip_proxied any; gzip_types *; \
                 gzip_min_length 1;\n  client_body_temp_path {place}/body; \
                 proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi; \
                 uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;\n  \
                 include {place}/site.conf;\n}}\n"
            );
            let site = filled_in("nginx.conf", fleet.addresses(), |public, _| {
                (":8080", public.to_string())
            });
            let site = replaced(&site, "listen 80;", &format!("listen unix:{place}/front;"));
            let site = replaced(&site, "/var/cache/nginx/etagd", &format!("{place}/cache"));
            fs::write(dir.path().join("main.conf"), main).unwrap();
            fs::write(dir.path().join("site.conf"), site).unwrap();
            let mut nginx = command("nginx");
            nginx.arg("-p").arg(dir.path()).args(["-c", "main.conf"]);
            Self::run("nginx", nginx, dir)
        })
    }

    /// Varnish.
    pub(crate) fn varnish(fleet: &Fleet) -> Option<Self> {
        has("varnishd").then(|| {
            let dir = tempfile::tempdir().unwrap();
            let site = filled_in("varnish.vcl", fleet.addresses(), |public, _| {
                let (host, port) = (public.ip(), public.port());
                (
                    "\"; .port = \"8080\"",
                    format!("{host}\"; .port = \"{port}\""),
                )
            });
            fs::write(dir.path().join("site.vcl"), site).unwrap();
            let mut varnish = command("varnishd");
            let at = |name: &str| dir.path().join(name);
            varnish.arg("-F").arg("-n").arg(at("work"));
            varnish.arg("-f").arg(at("site.vcl"));
            varnish.arg("-a").arg(at("front"));
            // As whoever runs the tests; and nobody is to give it commands.
            varnish.args(["-j", "none", "-T", "none", "-s", "malloc,64m", "-l", "2m"]);
            varnish.args(["-p", "http_gzip_support=off"]);
            Self::run("varnishd", varnish, dir)
        })
    }

    fn run(program: &'static str, mut command: Command, dir: TempDir) -> Self {
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let child = command
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut front = Self {
            program,
            child,
            dir,
        };
        front.wait_until("it takes connections", |front| {
            UnixStream::connect(front.socket()).is_ok()
        });
        front
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("front")
    }

    pub(crate) fn client(&self) -> Client<UnixStream> {
        Client::connect_unix(&self.socket())
    }

    /// Waits until HAProxy sees so many replicas up.
    pub(crate) fn wait_for_servers(&mut self, up: usize) {
        self.wait_until(&format!("{up} replicas are up"), |front| {
            let mut stats = UnixStream::connect(front.dir.path().join("stats")).unwrap();
            stats.write_all(b"show stat\n").unwrap();
            let mut table = String::new();
            stats.read_to_string(&mut table).unwrap();
            let servers = table.lines().filter(|line| {
                let mut cells = line.split(',');
                cells.next() == Some("etagd")
                    && !matches!(cells.next(), Some("FRONTEND" | "BACKEND") | None)
                    && cells.nth(15) == Some("UP")
            });
            servers.count() == up
        });
    }

    /// Looks again and again: these programs tell nobody.
    fn wait_until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !condition(self) {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < until,
                "{}: not so that {what}; it said:\n{}",
                self.program,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

/// A file of `deploy/`, with the addresses of these replicas in it.
fn filled_in(
    file: &str,
    replicas: [(SocketAddr, SocketAddr); 3],
    address: impl Fn(SocketAddr, SocketAddr) -> (&'static str, String),
) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(file);
    let text = fs::read_to_string(path).unwrap();
    replicas
        .into_iter()
        .zip(REPLICAS)
        .fold(text, |text, ((public, admin), host)| {
            let (port, address) = address(public, admin);
            replaced(&text, &format!("{host}{port}"), &address)
        })
}

/// With `old` replaced, which must be there, and once.
fn replaced(text: &str, old: &str, new: &str) -> String {
    assert_eq!(text.matches(old).count(), 1, "{old:?} in:\n{text}");
    text.replace(old, new)
}

impl Drop for Front {
    fn drop(&mut self) {
        // Not killed at once: some have children to end first.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let until = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > until {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if std::thread::panicking() {
            // Captured by the test harness and shown with the failure.
            #[allow(clippy::print_stderr)]
            {
                eprintln!("--- {} said:\n{}\n---", self.program, self.log());
            }
        }
    }
}
