//! Scanning with a warm page cache: a tree of small files, at a start and in a sweep, and one file of
//! each size that is handled differently.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use etagd::disk::Root;
use etagd::manifest::{Changes, Manifest};
use etagd::memory::Memory;
use etagd::scan::{Progress, Scanner, Scope, Unsettled};
use etagd::settings::{Settings, Symlinks};
use tempfile::TempDir;

const FILES: usize = 10_000;
/// About the mean of documentation sites.
const FILE_SIZE: usize = 12 << 10;
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

fn main() {
    divan::main();
}

/// Every file is read and hashed, as at a start.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn tree(bencher: Bencher<'_, '_>) {
    let directory = directory(fill);
    let base = Manifest::empty(Settings::default());
    let bytes = BytesCount::new(FILES * FILE_SIZE);
    let bencher = bencher.counter(bytes).counter(ItemsCount::new(FILES));
    bencher.bench_local(|| {
        let changes = scan(&directory, &base);
        assert_eq!(changes.changed.len(), FILES);
        changes
    });
}

/// Every file's metadata are compared with the manifest; nothing has changed.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn sweep(bencher: Bencher<'_, '_>) {
    let directory = directory(fill);
    let base = Manifest::empty(Settings::default());
    let base = base.with(scan(&directory, &base));
    bencher.counter(ItemsCount::new(FILES)).bench_local(|| {
        let changes = scan(&directory, &base);
        assert!(changes.changed.is_empty() && changes.removed.is_empty());
    });
}

/// One file: walk, open, read, hash and keep. For a small file, hashing is the smallest part.
#[divan::bench(args = [4 * KIB, 64 * KIB, MIB, 64 * MIB], sample_count = 50, sample_size = 1)]
fn file(bencher: Bencher<'_, '_>, size: usize) {
    let directory = directory(|top| fs::write(top.join("file"), content(size, 0)));
    let base = Manifest::empty(Settings::default());
    let bencher = bencher.counter(BytesCount::new(size));
    bencher.bench_local(|| {
        let changes = scan(&directory, &base);
        assert_eq!(changes.changed.len(), 1);
        changes
    });
}

fn directory(fill: impl Fn(&Path) -> io::Result<()>) -> TempDir {
    let filled = tempfile::tempdir().and_then(|top| fill(top.path()).map(|()| top));
    // A file younger than two seconds is asked whether somebody still writes to it.
    thread::sleep(Duration::from_millis(2_100));
    filled.unwrap_or_else(|error| panic!("no site to scan: {error}"))
}

fn fill(top: &Path) -> io::Result<()> {
    for index in 0..FILES {
        let below = top.join(format!("section-{:03}", index % 100));
        fs::create_dir_all(&below)?;
        let name = below.join(format!("chapter-{index:05}.html"));
        fs::write(name, content(FILE_SIZE, index))?;
    }
    Ok(())
}

/// ASCII, so that the check for UTF-8 takes its usual path; different for each file.
fn content(size: usize, seed: usize) -> Vec<u8> {
    let line = format!("<p>{seed}: the same content has the same tag on every replica.</p>\n");
    line.bytes().cycle().take(size).collect()
}

fn scan(directory: &TempDir, base: &Manifest) -> Changes {
    let root = Root::open(directory.path()).unwrap_or_else(|error| panic!("{error}"));
    let memory = Memory::new(1 << 30, 1);
    let scanner = Scanner::new(Symlinks::Inside, Settings::default(), Some(memory));
    let scope = Scope::Everything;
    let (root, progress) = (Arc::new(root), Progress::default());
    scanner
        .reconcile(&root, base, &scope, Unsettled::Publish, &progress)
        .changes
}
