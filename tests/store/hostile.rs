//! What somebody else has put into a store takes up no more memory than a site does.

use std::fs;
use std::io::Write;

use serde_json::json;

use super::folder::{Folder, Said, finish};
use super::support::TestSite;
use super::support::server::limited;

/// Bytes of memory that a command has; etagd needs 20 MB for a small store.
const MEMORY: u64 = 300 << 20;

/// A store whose only release names this object as its listing.
fn with_listing(listing: &[u8]) -> Folder {
    let (site, store) = (TestSite::new().file("a.txt", "x"), Folder::new());
    assert_eq!(store.push(&site.root(), &[]).code, 0);
    name_listing(&store, &blake3::hash(listing).to_hex(), |path| {
        fs::write(path, listing).unwrap();
    });
    store
}

/// Has the only release of a store name a listing that `write` makes.
fn name_listing(store: &Folder, hash: &str, write: impl FnOnce(&std::path::Path)) {
    write(&store.path(&format!("manifests/{hash}.json.zst")));
    let mut record = store.record("live", 1).unwrap();
    record["manifest"] = json!(hash);
    let key = store.path("channels/live/00000000000000000001");
    fs::write(key, record.to_string()).unwrap();
}

/// Runs a command on a store with little memory.
fn run_limited(store: &Folder, arguments: &[&str]) -> Said {
    let mut command = limited(&format!("-d {}", MEMORY >> 10));
    let url = store.url();
    command.args(arguments.iter().map(|it| match *it {
        "STORE" => url.as_str(),
        other => other,
    }));
    finish(command)
}

#[test]
fn a_listing_of_nothing_but_brackets_is_refused_before_it_fills_memory() {
    let head = format!("{{\"format\":1,\"digest\":\"{}\",", "0".repeat(64));
    for (before, element, after, says) in [
        (
            "\"settings\":{\"exclude\":[",
            "\"\",",
            "\"\"]},\"files\":[]}",
            "at most 10000 elements",
        ),
        (
            "\"settings\":{},\"empty_folders\":[",
            "\"a/\",",
            "\"a/\"],\"files\":[]}",
            "at most 1048576 elements",
        ),
    ] {
        let mut text = zstd::Encoder::new(Vec::new(), 1).unwrap();
        text.write_all(head.as_bytes()).unwrap();
        text.write_all(before.as_bytes()).unwrap();
        let elements = element.repeat((1 << 20) / element.len());
        for _ in 0..64 {
            text.write_all(elements.as_bytes()).unwrap();
        }
        text.write_all(after.as_bytes()).unwrap();
        let store = with_listing(&text.finish().unwrap());
        let said = run_limited(&store, &["gc", "STORE", "--grace", "0s"]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains(says), "{said:?}");
        assert!(said.err.contains("nothing was deleted"), "{said:?}");
    }
}

#[test]
fn a_listing_that_is_too_long_is_not_read() {
    let (site, store) = (TestSite::new().file("a.txt", "x"), Folder::new());
    assert_eq!(store.push(&site.root(), &[]).code, 0);
    // Of holes: more than the memory that the command has.
    name_listing(&store, &"0".repeat(64), |path| {
        fs::File::create(path).unwrap().set_len(1 << 30).unwrap();
    });
    let said = run_limited(&store, &["gc", "STORE", "--grace", "0s"]);
    assert_eq!(said.code, 1, "{said:?}");
    let says = "it is longer than the 268435456 bytes that it may have";
    assert!(said.err.contains(says), "{said:?}");
    // Who pushes the site once more makes a release that can be read.
    let said = store.push(&site.root(), &[]);
    assert_eq!((said.code, &*said.out), (0, "2\n"), "{said:?}");
    store.assert_whole("live", 2);
}
