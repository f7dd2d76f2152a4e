//! Processes that serve a site out of a store.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::releases::{asset, named_in};
use crate::support::store::Bucket;
use crate::support::tree::eventually;
use crate::support::{Client, Response, Server};

/// A replica with a cache of its own.
pub(crate) struct Replica {
    pub(crate) server: Server,
    pub(crate) cache: PathBuf,
    _dir: Option<TempDir>,
}

impl Replica {
    /// Starts one with an empty cache, and waits until it serves.
    pub(crate) fn start(command: Command, bucket: &Bucket, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        let server = Server::run(
            command,
            Path::new(&bucket.url()),
            &as_flags(&arguments(&cache, flags)),
        );
        Self {
            server,
            cache,
            _dir: Some(dir),
        }
    }

    /// Starts one with this cache, and waits for nothing.
    pub(crate) fn spawn(command: Command, bucket: &Bucket, cache: &Path, flags: &[&str]) -> Server {
        Server::spawn(
            command,
            Path::new(&bucket.url()),
            &as_flags(&arguments(cache, flags)),
        )
    }

    /// Kills it, unless it has ended, and starts another with its cache.
    pub(crate) fn restart(&mut self, command: Command, bucket: &Bucket, flags: &[&str]) {
        self.server.kill();
        let flags = arguments(&self.cache, flags);
        self.server = Server::run(command, Path::new(&bucket.url()), &as_flags(&flags));
    }

    /// The site digest that it serves.
    pub(crate) fn digest(&self) -> String {
        digest(&self.server)
    }

    /// Waits until it serves this.
    #[track_caller]
    pub(crate) fn wait_for_digest(&self, wanted: &str) {
        wait_for_digest(&self.server, wanted);
    }

    /// The bytes in its cache.
    pub(crate) fn cached_files(&self) -> Vec<PathBuf> {
        files(&self.cache)
    }
}

pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(self::files(&entry.path())),
            false => files.push(entry.path()),
        }
    }
    files
}

fn arguments(cache: &Path, flags: &[&str]) -> Vec<String> {
    let cache = cache.to_str().unwrap();
    let mut arguments = vec!["--cache", cache];
    if !flags.contains(&"--poll") {
        arguments.extend(["--poll", "100ms"]);
    }
    if !flags.contains(&"--admin") {
        arguments.extend(["--admin", "127.0.0.1:0"]);
    }
    arguments.extend(flags);
    arguments.into_iter().map(str::to_owned).collect()
}

fn as_flags(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// What its operator is told.
pub(crate) fn admin(server: &Server, target: &str) -> (u16, String) {
    let response = Client::connect(server.admin()).get(target);
    (response.status, String::from_utf8(response.body).unwrap())
}

/// The site digest that it serves.
pub(crate) fn digest(server: &Server) -> String {
    admin(server, "/digest").1.trim().to_owned()
}

#[track_caller]
pub(crate) fn wait_for_digest(server: &Server, wanted: &str) {
    eventually(&format!("{wanted} is served"), || digest(server) == wanted);
}

/// The sum of all series of a metric, whatever their labels.
pub(crate) fn metric(server: &Server, name: &str) -> f64 {
    let page = admin(server, "/metrics").1;
    let lines = page.lines().filter_map(|line| line.strip_prefix(name));
    lines
        .filter(|rest| rest.starts_with([' ', '{']))
        .map(|rest| rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

/// A visitor: reads the page, and then everything that it names. All of it must be there, whole, and
/// of the version that the page is of, which is returned.
pub(crate) fn visit<S: Read + Write>(client: &mut Client<S>) -> u64 {
    let page = client.get("/");
    assert_eq!(page.status, 200, "{}", page.body.escape_ascii());
    assert!(!page.cut && page.is_what_its_tag_says(), "a torn page");
    let (version, paths) = named_in(&page.body);
    for path in paths {
        let response = client.get(&path);
        assert_right(&path, &response);
    }
    version
}

/// Asserts that an asset is there, and what it must be.
#[track_caller]
pub(crate) fn assert_right(path: &str, response: &Response) {
    assert_eq!(
        response.status,
        200,
        "{path}: {}",
        response.body.escape_ascii()
    );
    assert!(
        !response.cut && response.is_what_its_tag_says(),
        "{path} is torn"
    );
    assert!(response.body == asset(path), "{path} is of another version");
}

/// The head and what comes of a body, from a server that may cut it.
pub(crate) fn get(address: SocketAddr, target: &str) -> Response {
    Client::<TcpStream>::connect(address).get(target)
}
