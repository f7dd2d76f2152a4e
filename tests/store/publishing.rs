//! A release has all of a site, once, or is not made.

use std::fs;

use serde_json::{Value, json};

use super::folder::{Folder, digest};
use super::support::{TestSite, noise};

fn site() -> TestSite {
    let page = "<!doctype html><p>Hello</p>".repeat(100);
    TestSite::new()
        .file("index.html", &page)
        .file("copy.html", &page)
        .file("a b/caf\u{e9}.txt", "a name")
        .file("empty.txt", "")
        .file("big.bin", noise((3 << 20) + 1, 1))
        .file("huge.bin", noise((40 << 20) + 7, 2))
        .file(".env", "SECRET")
        .file("_headers", "/*\n  X-Test: yes\n")
        .file("_redirects", "/old /new 301\n")
        .file(".etagdignore", "*.map\n")
        .file("app.js.map", "{}")
}

#[test]
fn a_release_has_all_of_a_site() {
    let (site, store) = (site(), Folder::new());
    let flags = ["--not-found", "none", "--compress", "--immutable", "/big.*"];
    let said = store.push(
        &site.root(),
        &[&flags[..], &["--note", "the first"]].concat(),
    );
    assert_eq!((said.code, &*said.out), (0, "1\n"), "{said:?}");
    assert!(said.err.contains("release 1: 6 files"), "{said:?}");
    store.assert_whole("live", 1);
    let record = store.record("live", 1).unwrap();
    assert_eq!(record["format"], 1);
    assert_eq!(record["number"], 1);
    assert_eq!(record["previous"], json!(null));
    assert_eq!(record["files"], 6);
    assert_eq!(record["note"], "the first");
    assert!(record["who"].as_str().unwrap().starts_with("tester@"));
    assert_eq!(record["digest"], digest(&site.root(), &flags));
    let hint = fs::read_to_string(store.path("channels/live/latest")).unwrap();
    assert_eq!(hint.trim(), "1");
    let listing = store.listing("live", 1);
    assert_eq!(listing["settings"]["not-found"], json!(["none"]));
    assert_eq!(listing["settings"]["compress"], json!(["br,gz (etagd-1)"]));
    let rules: Vec<_> = listing["rules"].as_object().unwrap().keys().collect();
    assert_eq!(rules, [".etagdignore", "_headers", "_redirects"]);
    let files = listing["files"].as_array().unwrap();
    let paths: Vec<_> = files
        .iter()
        .map(|it| it["path"].as_str().unwrap())
        .collect();
    let sorted = [
        "a%20b/caf%C3%A9.txt",
        "big.bin",
        "copy.html",
        "empty.txt",
        "huge.bin",
        "index.html",
    ];
    assert_eq!(paths, sorted);
    let made = &files[5]["codings"];
    assert_eq!(
        (&made[0]["coding"], &made[0]["made"]),
        (&json!("br"), &json!(true))
    );
    // The two pages have one content, and nothing else is there.
    let needed = store.needed("live", 1);
    assert_eq!(needed.len(), 5 + 2 + 3);
    assert_eq!(store.below("blobs/").len(), needed.len());
    assert_eq!(store.below("trees/").len(), 2);
    assert_eq!(store.below("manifests/").len(), 1);
    assert_eq!(store.below("locks/").len() + store.below("probe/").len(), 0);
}

#[test]
fn what_the_store_has_is_not_sent_again() {
    let (site, store) = (site(), Folder::new());
    assert_eq!(store.push(&site.root(), &[]).code, 0);
    let objects = store.objects();
    let again = store.push(&site.root(), &["--note", "again"]);
    // Whose script asks for the number has one.
    assert_eq!((again.code, &*again.out), (0, "1\n"), "{again:?}");
    assert!(
        again
            .err
            .contains("release 1 has this site already: nothing to do; a release keeps its note"),
        "{again:?}"
    );
    assert_eq!(store.objects(), objects);
    fs::write(site.path("new.txt"), "four").unwrap();
    let plan = store.push(&site.root(), &["--dry-run"]);
    assert_eq!(plan.out, "release 2 of live: 1 content to upload, 4 B\n");
    assert_eq!(store.objects(), objects);
    let second = store.push(&site.root(), &["--after", "1"]);
    assert!(second.err.contains("release 2: 7 files"), "{second:?}");
    assert!(second.err.contains("; 4 B sent"), "{second:?}");
    assert_eq!(store.record("live", 2).unwrap()["previous"], 1);
    // A preview has the same contents, and numbers of its own.
    let preview = store.push(&site.root(), &["--channel", "pr-17"]);
    assert!(preview.err.contains("release 1: 7 files"), "{preview:?}");
    assert!(preview.err.contains("; 0 B sent"), "{preview:?}");
    // Other settings are another release of the same files.
    let settings = store.push(&site.root(), &["--listing"]);
    assert!(settings.err.contains("release 3: 7 files"), "{settings:?}");
    assert!(settings.err.contains("; 0 B sent"), "{settings:?}");
}

#[test]
fn a_content_that_was_cut_short_is_sent_again() {
    let (site, store) = (site(), Folder::new());
    assert_eq!(store.push(&site.root(), &[]).code, 0);
    for folder in ["blobs/", "trees/"] {
        for name in store.below(folder) {
            let bytes = fs::read(store.path(&name)).unwrap();
            fs::write(store.path(&name), &bytes[..bytes.len() / 2]).unwrap();
        }
    }
    fs::write(site.path("new.txt"), "new").unwrap();
    assert_eq!(store.push(&site.root(), &[]).code, 0);
    store.assert_whole("live", 2);
}

#[test]
fn what_a_store_has_lost_is_sent_again() {
    let (site, store) = (site(), Folder::new());
    assert_eq!(store.push(&site.root(), &[]).code, 0);
    for folder in ["blobs/", "trees/"] {
        fs::remove_file(store.path(&store.below(folder)[0])).unwrap();
    }
    let plan = store.push(&site.root(), &["--dry-run"]);
    let says = "release 1 has this site already, and the store has lost some of it: ";
    assert!(plan.code == 0 && plan.out.starts_with(says), "{plan:?}");
    let said = store.push(&site.root(), &[]);
    assert_eq!((said.code, &*said.out), (0, "1\n"), "{said:?}");
    let says = "the store has lost contents of release 1: ";
    assert!(said.err.contains(says), "{said:?}");
    store.assert_whole("live", 1);
    // Without its listing it is no release any more.
    let listing = store.path(&store.below("manifests/")[0]);
    let bytes = fs::read(&listing).unwrap();
    for damaged in [None, Some(&bytes[1..])] {
        match damaged {
            Some(bytes) => fs::write(&listing, bytes).unwrap(),
            None => fs::remove_file(&listing).unwrap(),
        }
        let said = store.push(&site.root(), &[]);
        assert_eq!(said.code, 0, "{said:?}");
        let last = *store.numbers("live").last().unwrap();
        assert_eq!(said.out, format!("{last}\n"));
        store.assert_whole("live", last);
    }
    assert_eq!(store.numbers("live"), [1, 2, 3]);
}

/// Each server answers 503 for that file, for as long as the release is the newest.
#[test]
fn a_listing_that_says_a_wrong_length_is_replaced() {
    let (site, store) = (TestSite::new().file("a.txt", "one"), Folder::new());
    assert_eq!(store.push(&site.root(), &[]).code, 0);
    let listing = fs::read(store.path(&store.below("manifests/")[0])).unwrap();
    let mut listing: Value = serde_json::from_slice(&zstd::decode_all(&*listing).unwrap()).unwrap();
    listing["files"][0]["size"] = json!(4);
    let listing = zstd::encode_all(&*serde_json::to_vec(&listing).unwrap(), 0).unwrap();
    let name = blake3::hash(&listing).to_hex().to_string();
    fs::write(store.path(&format!("manifests/{name}.json.zst")), &listing).unwrap();
    let mut record = store.record("live", 1).unwrap();
    record["manifest"] = json!(name);
    let key = store.path("channels/live/00000000000000000001");
    fs::write(key, record.to_string()).unwrap();
    let said = store.push(&site.root(), &[]);
    assert_eq!((said.code, &*said.out), (0, "2\n"), "{said:?}");
    store.assert_whole("live", 2);
}

#[test]
fn an_earlier_release_comes_back_as_a_new_one() {
    let (site, store) = (TestSite::new().file("a.txt", "one"), Folder::new());
    assert_eq!(store.push(&site.root(), &[]).code, 0);
    fs::write(site.path("a.txt"), "two").unwrap();
    assert_eq!(store.push(&site.root(), &["--note", "worse"]).code, 0);
    let back = store.run("rollback", &["--to", "1", "--note", "better"]);
    assert_eq!((back.code, &*back.out), (0, "3\n"), "{back:?}");
    let (first, third) = (
        store.record("live", 1).unwrap(),
        store.record("live", 3).unwrap(),
    );
    for same in ["digest", "manifest", "files", "bytes"] {
        assert_eq!(first[same], third[same]);
    }
    assert_eq!(
        (&third["rollback_to"], &third["previous"]),
        (&json!(1), &json!(2))
    );
    let again = store.run("rollback", &["--to", "1"]);
    assert_eq!((again.code, &*again.out), (0, "3\n"), "{again:?}");
    assert!(again.err.contains("nothing to do"), "{again:?}");
    let listed = store.run("releases", &[]);
    let lines: Vec<_> = listed.out.lines().collect();
    assert_eq!(lines.len(), 3, "{listed:?}");
    assert!(lines[0].starts_with("*    3  ") && lines[0].ends_with("rollback to 1: better"));
    assert!(lines[1].starts_with("     2  ") && lines[1].ends_with("worse"));
    let json = store.run("releases", &["--format", "json"]);
    let json: Value = serde_json::from_str(&json.out).unwrap();
    let newest: Vec<_> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["newest"])
        .collect();
    assert_eq!(newest, [true, false, false]);
    assert_eq!(json[1]["note"], "worse");
    assert_eq!(json[0]["digest"], first["digest"]);
}

#[test]
fn a_hint_that_is_lost_or_wrong_leads_nobody_astray() {
    let (site, store) = (TestSite::new().file("a.txt", "0"), Folder::new());
    let hint = store.path("channels/live/latest");
    let hints: [Option<&[u8]>; 6] = [
        None,
        Some(b""),
        Some(b"7"),
        Some(b"x\xff"),
        Some(b"0"),
        None,
    ];
    for (number, hint_text) in (1..).zip(hints) {
        fs::write(site.path("a.txt"), number.to_string()).unwrap();
        let said = store.push(&site.root(), &[]);
        assert_eq!(said.out, format!("{number}\n"), "{said:?}");
        assert_eq!(
            fs::read_to_string(&hint).unwrap().trim(),
            number.to_string()
        );
        match hint_text {
            Some(text) => fs::write(&hint, text).unwrap(),
            None => fs::remove_file(&hint).unwrap(),
        }
    }
    assert_eq!(store.numbers("live"), [1, 2, 3, 4, 5, 6]);
}
