//! Clients that people really use, against the real binary: what they fetch equals the disk, and
//! where they revalidate, the second run gets 304. Those that read whole trees do so behind a proxy
//! that strips a prefix, too.
//!
//! Each test is skipped, with a reason, where its client is not installed; `ETAGD_NO_SKIP=1` makes
//! that a failure.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod bundles;
mod downloads;
mod mirrors;
mod packages;
mod prefix;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use prefix::StrippingProxy;
use rustix::process::Signal;
use support::lines::Lines;
use support::server::command;
use support::{Server, TestSite};

/// A served site, and the log of its requests.
struct Observed {
    site: TestSite,
    server: Server,
    log: Lines,
    proxy: Option<StrippingProxy>,
}

impl Observed {
    fn with(site: TestSite, flags: &[&str]) -> Self {
        let flags = [&["--access-log", "json"], flags].concat();
        let (server, out) = Server::logging(&site, &flags);
        Self {
            site,
            server,
            log: Lines::of(out),
            proxy: None,
        }
    }

    /// Has clients come through a proxy; not, where there is none.
    fn behind_proxy(self) -> Option<Self> {
        let proxy = StrippingProxy::start(self.server.address())?;
        Some(Self {
            proxy: Some(proxy),
            ..self
        })
    }

    /// Runs a test of a client on a site of its own, and once more behind a proxy.
    fn each_way(site: impl Fn() -> TestSite, flags: &[&str], test: impl Fn(Self)) {
        test(Self::with(site(), flags));
        if let Some(behind) = Self::with(site(), flags).behind_proxy() {
            test(behind);
        }
    }

    fn url(&self, path: &str) -> String {
        match &self.proxy {
            Some(proxy) => proxy.url(path),
            None => format!("http://127.0.0.1:{}{path}", self.server.port()),
        }
    }

    /// Stops the server: all requests, `METHOD target status` each.
    fn requests(mut self) -> Vec<String> {
        self.server.signal(Signal::INT);
        self.server.wait();
        let requests = self.log.rest().into_iter().map(|line| {
            let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            format!("{} {} {}", text("method"), text("target"), entry["status"])
        });
        requests.collect()
    }
}

/// How often a request was made and answered so.
fn count(requests: &[String], wanted: &str) -> usize {
    requests.iter().filter(|each| *each == wanted).count()
}

/// A folder for what a client writes.
fn folder(site: &TestSite, name: &str) -> PathBuf {
    let folder = site.outside(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs a client, with no settings but these, and without a proxy.
fn client(program: &str, arguments: &[&str], dir: &Path) -> Output {
    configured(program, arguments, dir, &[])
}

/// Runs a client with some variables in its environment.
fn configured(
    program: &str,
    arguments: &[&str],
    dir: &Path,
    variables: &[(&str, &Path)],
) -> Output {
    let mut client: Command = command(program);
    client
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .env("HOME", dir)
        .env("LC_ALL", "C.UTF-8")
        .env("no_proxy", "*");
    for name in [
        "http_proxy",
        "https_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "all_proxy",
    ] {
        client.env_remove(name);
    }
    client.envs(variables.iter().copied());
    client.output().unwrap()
}

/// Asserts that a client succeeded; its standard output.
#[track_caller]
fn succeeded(output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}: {out}{said}", output.status);
    out
}

/// Asserts that two folders have the same files with the same bytes.
#[track_caller]
fn assert_same_tree(one: &Path, other: &Path) {
    let output = command("diff").arg("-r").args([one, other]).output();
    succeeded(output.unwrap());
}
