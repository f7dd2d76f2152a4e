//! Manifests in JSON: what is read can be written, and is read back as the same; each entry once,
//! in order.
//!
//! Input: a manifest in JSON, as a replica sends it or a file holds it.
#![no_main]

use etagd::inventory::{Inventory, between, write};
use etagd::purge::urls;
use etagd::semantics::base_path::BasePath;
use etagd::settings::HtmlHandling;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(read) = Inventory::read("input", input) else {
        return;
    };
    let order = |one: &etagd::inventory::Entry| (one.path.clone(), one.coding);
    assert!(
        read.entries
            .windows(2)
            .all(|pair| order(&pair[0]) < order(&pair[1]))
    );
    assert!(read.entries.iter().all(|entry| read.has(&entry.path)));

    let mut written = Vec::new();
    write(&mut written, &read.head, read.entries.iter().cloned()).expect("a vector takes all");
    let again = Inventory::read("what was written", &*written).expect("what was written is read");
    assert_eq!(again.head, read.head);
    assert_eq!(again.entries, read.entries);
    assert!(between(&read, &again).is_empty());

    let nothing = Inventory {
        head: read.head.clone(),
        entries: Vec::new(),
    };
    let base_path = BasePath::default();
    let all = urls(&between(&nothing, &read), HtmlHandling::Suffix, &base_path);
    assert!(
        read.entries
            .iter()
            .all(|entry| all.contains_key(&entry.url()))
    );
    assert!(
        all.keys()
            .all(|url| url.starts_with('/') && url.bytes().all(|byte| byte.is_ascii_graphic()))
    );
});
