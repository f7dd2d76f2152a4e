//! A store in a folder, and what must hold of it at any moment.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;

use super::support::server::command;

/// What a run has said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn etagd(arguments: &[&str]) -> Command {
    let mut etagd = command(env!("CARGO_BIN_EXE_etagd"));
    etagd.args(arguments).env("USER", "tester");
    etagd.stdin(Stdio::null());
    etagd
}

pub(crate) fn finish(mut command: Command) -> Said {
    let output = command.output().unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) struct Folder {
    /// Removed with it.
    _outer: Arc<TempDir>,
    root: PathBuf,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        Self {
            root: outer.path().to_path_buf(),
            _outer: Arc::new(outer),
        }
    }

    /// One in a folder of this one, which is not there yet.
    pub(crate) fn below_it(&self, name: &str) -> Self {
        Self {
            _outer: Arc::clone(&self._outer),
            root: self.root.join(name),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.root.display())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn push_command(&self, site: &Path, flags: &[&str]) -> Command {
        let url = self.url();
        let mut push = etagd(&["push", site.to_str().unwrap(), &url]);
        push.args(flags);
        push
    }

    pub(crate) fn push(&self, site: &Path, flags: &[&str]) -> Said {
        finish(self.push_command(site, flags))
    }

    /// `etagd SUBCOMMAND STORE FLAGS`.
    pub(crate) fn run(&self, subcommand: &str, flags: &[&str]) -> Said {
        let url = self.url();
        finish(etagd(&[&[subcommand, &url], flags].concat()))
    }

    /// The names of all objects, with `/` between folders, in order.
    pub(crate) fn objects(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            // What a running collector deletes may be gone.
            for entry in fs::read_dir(folder).unwrap().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else {
                    let path = entry.path();
                    let name = path.strip_prefix(&self.root).unwrap();
                    names.push(name.to_str().unwrap().to_owned());
                }
            }
        }
        names.sort();
        names
    }

    pub(crate) fn below(&self, folder: &str) -> Vec<String> {
        let mut names = self.objects();
        names.retain(|name| name.starts_with(folder));
        names
    }

    /// The record of a release.
    pub(crate) fn record(&self, channel: &str, number: u64) -> Option<Value> {
        let name = format!("channels/{channel}/{number:020}");
        let bytes = fs::read(self.path(&name)).ok()?;
        Some(serde_json::from_slice(&bytes).unwrap())
    }

    /// The numbers of the releases of a channel.
    pub(crate) fn numbers(&self, channel: &str) -> Vec<u64> {
        let prefix = format!("channels/{channel}/");
        let names = self.below(&prefix).into_iter();
        names
            .filter_map(|name| name[prefix.len()..].parse().ok())
            .collect()
    }

    /// The listing of a release, proven.
    pub(crate) fn listing(&self, channel: &str, number: u64) -> Value {
        let record = self.record(channel, number).unwrap();
        let name = record["manifest"].as_str().unwrap();
        let bytes = fs::read(self.path(&format!("manifests/{name}.json.zst"))).unwrap();
        assert_eq!(blake3::hash(&bytes).to_hex().as_str(), name);
        let text = zstd::decode_all(&bytes[..]).unwrap();
        let listing: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(listing["digest"], record["digest"]);
        listing
    }

    /// The contents that a release needs: hash and length.
    pub(crate) fn needed(&self, channel: &str, number: u64) -> BTreeMap<String, u64> {
        let listing = self.listing(channel, number);
        let files = listing["files"].as_array().unwrap();
        let codings = files
            .iter()
            .filter_map(|file| file["codings"].as_array())
            .flatten();
        let rules = listing["rules"].as_object().unwrap().values();
        files
            .iter()
            .chain(codings)
            .chain(rules)
            .map(|it| {
                let hash = it["hash"].as_str().unwrap().to_owned();
                (hash, it["size"].as_u64().unwrap())
            })
            .collect()
    }

    /// Proves every byte that a release needs.
    #[track_caller]
    pub(crate) fn assert_whole(&self, channel: &str, number: u64) {
        for (hash, size) in self.needed(channel, number) {
            let name = format!("blobs/{}/{hash}", &hash[..2]);
            let bytes = fs::read(self.path(&name));
            let bytes = bytes.unwrap_or_else(|error| panic!("release {number}: {name}: {error}"));
            assert_eq!(bytes.len() as u64, size, "{name}");
            assert_eq!(blake3::hash(&bytes).to_hex().as_str(), hash);
            if size > 1 << 20 {
                let tree = fs::read(self.path(&format!("trees/{}/{hash}", &hash[..2]))).unwrap();
                assert_eq!(tree.len() as u64, size.div_ceil(256 << 10) * 32, "{hash}");
            }
        }
    }
}

/// The digest that `etagd manifest` prints for a directory with these flags.
pub(crate) fn digest(site: &Path, flags: &[&str]) -> String {
    let site = site.to_str().unwrap();
    let said = finish(etagd(&[&["manifest", site, "--digest"], flags].concat()));
    said.out.trim().to_owned()
}
