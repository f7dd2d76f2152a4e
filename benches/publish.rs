//! Publishing a change in a site of a million entries: from changed resources to the new manifest with
//! its digest. The goal is 1 ms for one change; copying the whole table would take 200 times as long.

mod support;

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use divan::Bencher;
use divan::counter::ItemsCount;
use etagd::manifest::{Changes, Manifest};
use etagd::representation::Resource;
use etagd::site::Site;
use support::{fields, manifest, path, resource, resources};

const ENTRIES: usize = 1_000_000;

static SITE: LazyLock<Manifest> = LazyLock::new(|| manifest(resources(ENTRIES)));

fn main() {
    divan::main();
}

/// This many files edited, anywhere in the site.
#[divan::bench(args = [1, 10, 1_000])]
fn change(bencher: Bencher<'_, '_>, files: usize) {
    let edited = edited(files);
    let site = &*SITE;
    bencher
        .counter(ItemsCount::new(files))
        .with_inputs(|| changes(&edited))
        .bench_local_values(|changes| site.with(changes));
}

#[divan::bench]
fn remove(bencher: Bencher<'_, '_>) {
    let site = &*SITE;
    let removed = path(ENTRIES / 2).into_bytes().into_boxed_slice();
    bencher
        .with_inputs(|| Changes {
            removed: vec![removed.clone()],
            ..Changes::default()
        })
        .bench_local_values(|changes| site.with(changes));
}

/// One change after another, including the time to drop the manifest that is replaced.
#[divan::bench]
fn update(bencher: Bencher<'_, '_>) {
    let edited = edited(1);
    let site = Site::new(SITE.with(Changes::default()));
    bencher
        .with_inputs(|| changes(&edited))
        .bench_local_values(|changes| site.update(|_| Some(changes)));
}

fn edited(files: usize) -> Vec<Arc<Resource>> {
    let fields = fields();
    (0..files)
        .map(|at| {
            let path = path(at * (ENTRIES / files));
            resource(&fields, &path, Bytes::from_static(b"edited"))
        })
        .collect()
}

fn changes(edited: &[Arc<Resource>]) -> Changes {
    Changes {
        changed: edited.to_vec(),
        ..Changes::default()
    }
}
