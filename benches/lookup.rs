//! The look-up table of a manifest: the time to find a path, to miss one, and to build the table.

mod support;

use std::hint::black_box;

use divan::Bencher;
use divan::counter::ItemsCount;
use support::{manifest, path, resources};

const ENTRIES: [usize; 3] = [1_000, 50_000, 1_000_000];
/// Look-ups in one iteration, spread over the table: a few paths would stay in the processor's cache.
const LOOKUPS: usize = 100_000;

fn main() {
    divan::main();
}

#[divan::bench(args = ENTRIES, sample_count = 20, sample_size = 1)]
fn hit(bencher: Bencher<'_, '_>, entries: usize) {
    let paths = spread(entries, path);
    let manifest = manifest(resources(entries));
    bencher.counter(ItemsCount::new(LOOKUPS)).bench_local(|| {
        for path in &paths {
            assert!(manifest.locate(black_box(path.as_bytes())).is_some());
        }
    });
}

#[divan::bench(args = ENTRIES, sample_count = 20, sample_size = 1)]
fn miss(bencher: Bencher<'_, '_>, entries: usize) {
    let paths = spread(entries, |index| path(index) + ".map");
    let manifest = manifest(resources(entries));
    bencher.counter(ItemsCount::new(LOOKUPS)).bench_local(|| {
        for path in &paths {
            assert!(manifest.locate(black_box(path.as_bytes())).is_none());
        }
    });
}

/// From hashed files to a manifest with its digest: the last step of a start.
#[divan::bench(args = ENTRIES, sample_count = 5, sample_size = 1)]
fn build(bencher: Bencher<'_, '_>, entries: usize) {
    let resources = resources(entries);
    bencher
        .counter(ItemsCount::new(entries))
        .with_inputs(|| resources.clone())
        .bench_local_values(manifest);
}

/// [`LOOKUPS`] names of a site of this size, in an order that no prefetcher can guess.
fn spread(entries: usize, name: impl Fn(usize) -> String) -> Vec<String> {
    let step = 7_919;
    (0..LOOKUPS)
        .map(|at| name(at * entries / LOOKUPS * step % entries))
        .collect()
}
