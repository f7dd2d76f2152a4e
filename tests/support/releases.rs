//! A store of releases in a folder: pushed to, served, and spoilt.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::server::{command, etagd};
use super::{Server, TestSite};

/// A store in a folder that is removed after the test.
pub(crate) struct Releases {
    outer: TempDir,
}

impl Releases {
    /// An empty store.
    pub(crate) fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir(outer.path().join("store")).unwrap();
        Self { outer }
    }

    /// A store with one release: what is in a site, with these flags.
    pub(crate) fn of(site: &TestSite, flags: &[&str]) -> Self {
        let releases = Self::new();
        releases.push(site, flags);
        releases
    }

    /// The folder.
    pub(crate) fn folder(&self) -> PathBuf {
        self.outer.path().join("store")
    }

    /// A path next to it.
    pub(crate) fn beside(&self, name: &str) -> String {
        self.outer.path().join(name).to_str().unwrap().to_owned()
    }

    /// As it is typed.
    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.folder().to_str().unwrap())
    }

    /// Makes a release of what is in a site now, with these flags.
    #[track_caller]
    pub(crate) fn push(&self, site: &TestSite, flags: &[&str]) {
        let (root, url) = (site.root(), self.url());
        let output = etagd([&["push", root.to_str().unwrap(), &url], flags].concat());
        assert!(output.status.success(), "{output:?}");
    }

    /// Has a release of the channel live be the newest again.
    #[track_caller]
    pub(crate) fn roll_back(&self, number: u64) {
        let (url, number) = (self.url(), number.to_string());
        let output = etagd(["rollback", &url, "--to", &number]);
        assert!(output.status.success(), "{output:?}");
    }

    /// Serves the store on a free port, and waits until it does.
    pub(crate) fn serve(&self, flags: &[&str]) -> Server {
        Server::at(Path::new(&self.url()), flags)
    }

    /// Starts to serve it, and waits for nothing.
    pub(crate) fn spawn(&self, flags: &[&str]) -> Server {
        Server::spawn(
            command(env!("CARGO_BIN_EXE_etagd")),
            Path::new(&self.url()),
            flags,
        )
    }

    /// Where the record of a release of the channel live is.
    pub(crate) fn record(&self, number: u64) -> PathBuf {
        self.folder().join(format!("channels/live/{number:020}"))
    }

    /// What names the newest release of the channel live.
    pub(crate) fn hint(&self) -> PathBuf {
        self.folder().join("channels/live/latest")
    }

    /// Where some content is.
    pub(crate) fn blob(&self, content: &[u8]) -> PathBuf {
        self.named("blobs", content)
    }

    /// Where the tree of some long content is.
    pub(crate) fn tree(&self, content: &[u8]) -> PathBuf {
        self.named("trees", content)
    }

    fn named(&self, kind: &str, content: &[u8]) -> PathBuf {
        let hash = blake3::hash(content).to_hex();
        self.folder()
            .join(kind)
            .join(&hash[..2])
            .join(hash.as_str())
    }

    /// The listing of the release with this number.
    pub(crate) fn listing(&self, number: u64) -> PathBuf {
        let record = fs::read(self.record(number)).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        let name = record["manifest"].as_str().unwrap();
        self.folder()
            .join("manifests")
            .join(format!("{name}.json.zst"))
    }

    /// Has the store be away.
    pub(crate) fn hide(&self) {
        fs::rename(self.folder(), self.beside("away")).unwrap();
    }

    /// Has it be there again.
    pub(crate) fn show(&self) {
        fs::rename(self.beside("away"), self.folder()).unwrap();
    }
}

/// Changes one byte of a file.
pub(crate) fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}
