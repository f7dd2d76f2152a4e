//! What the flags of `etagd serve` and `etagd dev` mean.

use std::path::PathBuf;
use std::sync::Arc;

use super::clients::ProxyOptions;
use super::operator::Operator;
use super::watch::WatchOptions;
use super::write::WriteOptions;
use crate::disk;
use crate::settings::{
    DevOptions, FollowOptions, Limits, Listen, RedirectOptions, Settings, Symlinks, TlsFiles,
};

/// What one process that serves needs to know.
#[derive(Debug)]
pub struct Config {
    /// Where the site is.
    pub origin: SiteOrigin,
    /// Which links the scan follows.
    pub symlinks: Symlinks,
    /// What changes answers.
    pub settings: Arc<Settings>,
    /// Where made content codings are kept for the next start, if anywhere.
    pub cache: Option<PathBuf>,
    /// Bytes that they may take up, there and in the temporary file.
    pub cache_size: u64,
    /// Where to listen; if empty, on inherited sockets or on `default_listen`.
    pub listen: Vec<Listen>,
    /// Whether `--port` named that.
    pub has_port: bool,
    /// Where to listen if nothing else says so.
    pub default_listen: Listen,
    /// Limit for large files kept open; `None` for as many as the descriptor limit leaves room for.
    pub open_files: Option<usize>,
    /// Budget for content in bytes, where one is given; see [`Config::memory_budget`].
    pub memory: Option<u64>,
    /// Number of threads that answer requests.
    pub workers: usize,
    /// How changes are noticed.
    pub watching: WatchOptions,
    /// The manifest that the site must prove, if any.
    pub manifest: Option<PathBuf>,
    /// What to run after each publication, if anything.
    pub on_publish: Option<String>,
    /// Where the manifest is saved, if anywhere.
    pub state: Option<PathBuf>,
    /// With these, TCP listeners speak TLS.
    pub tls: Option<TlsFiles>,
    /// Where plain HTTP is redirected to HTTPS.
    pub redirect: RedirectOptions,
    /// What clients may change, if anything.
    pub writing: Option<WriteOptions>,
    /// Who asks, and what is written down about it.
    pub clients: ProxyOptions,
    /// The operator's side.
    pub operator: Operator,
    /// What clients may use up.
    pub limits: Limits,
    /// What `etagd dev` does in addition; `None` for `etagd serve`.
    pub dev: Option<DevOptions>,
}

/// Where a site is, and what follows it there.
#[derive(Debug)]
pub enum SiteOrigin {
    /// In a directory, which is watched.
    Directory(PathBuf),
    /// In a store, whose releases are followed.
    Store(Box<FollowOptions>),
}

impl Config {
    /// The budget for content in bytes: a quarter of the memory that there is, unless given.
    pub fn memory_budget(&self) -> u64 {
        self.memory.unwrap_or_else(|| disk::memory_size() / 4)
    }
}

/// The cores this process may run on; 1 where the system does not say.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
