//! What can't be meant, and what can't be used, is said in one line, and nothing is released.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::folder::{Folder, Said, etagd, finish};
use super::support::server::command;
use super::support::{Server, TestSite};

#[track_caller]
fn assert_refused(said: &Said, code: i32, says: &str) {
    assert_eq!((said.code, &*said.out), (code, ""), "{said:?}");
    let errors = said.err.lines().filter(|line| line.starts_with("error: "));
    assert_eq!(errors.count(), 1, "{said:?}");
    assert!(said.err.contains(says), "{says}: {said:?}");
}

#[test]
fn flags_of_servers_and_stores_are_told_apart() {
    let (site, store) = (TestSite::new().file("a.txt", "x"), Folder::new());
    for flags in [
        &["--token-file", "x"][..],
        &["--base", "x"],
        &["--admin-url", "http://127.0.0.1:1"],
        &["--delete"],
        &["--rules"],
        &["--force"],
        &["--connections", "8"],
        &["--timeout", "30s"],
    ] {
        let says = format!("{} is for servers", flags[0]);
        assert_refused(&store.push(&site.root(), flags), 2, &says);
    }
    assert!(store.objects().is_empty());
    for flags in [
        &["--channel", "live"][..],
        &["--note", "x"],
        &["--after", "1"],
        &["--single-writer"],
        &["--not-found", "none"],
        &["--compress"],
    ] {
        let root = site.root();
        let command = ["push", root.to_str().unwrap(), "http://127.0.0.1:1"];
        let said = finish(etagd(&[&command, flags].concat()));
        assert_refused(&said, 2, &format!("{} is for stores", flags[0]));
    }
    for (arguments, says) in [
        (&["push", ".", "s3://a"][..], "is not the name of a bucket"),
        (&["push", ".", "file://x"], "expected the absolute path"),
        (&["releases", "http://a"], "expected s3://BUCKET"),
        (
            &["releases", "file:///x", "--channel", "A"],
            "such as live or pr-17",
        ),
        (&["rollback", "file:///x"], "--to <N>"),
        (&["gc", "file:///x", "--keep", "0"], "must be at least 1"),
        (
            &["push", ".", "file:///x", "--note", "a\nb\u{7}"],
            "'a\\nb\\u{7}' for '--note <TEXT>': expected one line, without control characters",
        ),
        (
            &[
                "rollback",
                "file:///x",
                "--to",
                "1",
                "--note",
                &"x".repeat(5000),
            ],
            "xx...' for '--note <TEXT>': expected at most 1000 bytes",
        ),
        (
            &["releases", "/srv/a b"],
            "for this folder, file:///srv/a%20b",
        ),
        (&["push", ".", "/srv"], "for this folder, file:///srv"),
        (
            &["rollback", "file:///x", "--to", "abc"],
            "expected the number of a release",
        ),
        (
            &["rollback", "file:///x", "--to", "-1"],
            "expected the number of a release",
        ),
        (
            &["rollback", "file:///x", "--to", "0"],
            "expected the number of a release",
        ),
        (
            &["dev", "s3://bucket"],
            "s3://bucket is a store of releases, and a directory is needed here",
        ),
        (&["manifest", "file:///x"], "a directory is needed here"),
        (&["lint", "file:///x"], "a directory is needed here"),
        (&["compress", "file:///x"], "a directory is needed here"),
        (
            &["check", "http://127.0.0.1:1", "--dir", "file:///x"],
            "a directory is needed here",
        ),
    ] {
        let said = finish(etagd(arguments));
        assert_refused(&said, 2, says);
        assert!(said.err.len() < 600, "{said:?}");
    }
}

#[test]
fn a_store_in_the_site_and_a_site_in_the_store_are_refused_before_anything_is_written() {
    let parent = Folder::new();
    let root = parent.path("site");
    fs::create_dir_all(root.join("sub")).unwrap();
    for name in ["a.txt", "sub/b.txt"] {
        fs::write(root.join(name), "x").unwrap();
    }
    symlink(&root, parent.path("link")).unwrap();
    let before = parent.objects();
    let push = |directory: &Path, store: &str, flags: &[&str]| {
        let store = format!("{}/{store}", parent.url());
        finish(etagd(
            &[&["push", directory.to_str().unwrap(), &store], flags].concat(),
        ))
    };
    for store in ["site", "site/new", "site/sub", "link/new/store"] {
        for flags in [&[][..], &["--dry-run"]] {
            let said = push(&root, store, flags);
            assert_refused(&said, 2, "would have all earlier ones among its files");
        }
    }
    let said = push(&root.join("sub"), "site", &[]);
    assert_refused(&said, 2, "is in the store");
    assert_eq!(parent.objects(), before);
    // Its name begins alike.
    assert_eq!(push(&root, "site-store", &[]).code, 0);
}

#[test]
fn a_store_that_is_taken_for_a_site_is_named() {
    let (site, store) = (TestSite::new().file("a.txt", "x"), Folder::new());
    assert_eq!(store.push(&site.root(), &[]).code, 0);
    let root = store.root().to_str().unwrap();
    let other = Folder::new().below_it("other");
    for arguments in [
        &["lint", root][..],
        &["manifest", root],
        &["push", root, &other.url(), "--dry-run"],
    ] {
        let said = finish(etagd(arguments));
        let says = format!("run etagd serve {}", store.url());
        assert_eq!(said.err.matches(&says).count(), 1, "{said:?}");
    }
    let said = finish(etagd(&["lint", site.root().to_str().unwrap()]));
    assert!(!said.err.contains("store"), "{said:?}");
    let server = Server::spawn(command(env!("CARGO_BIN_EXE_etagd")), store.root(), &[]);
    server.wait_for_line("is a store of releases, and is taken for a site");
}

#[test]
fn what_is_no_store_is_neither_listed_nor_collected() {
    let (site, store) = (TestSite::new().file("a.txt", "x"), Folder::new());
    fs::write(store.path("index.html"), "x").unwrap();
    for flags in [&[][..], &["--dry-run"]] {
        assert_refused(&store.run("gc", flags), 1, "is this the store?");
    }
    assert_refused(&store.run("releases", &[]), 1, "is no store");
    assert_eq!(fs::read_dir(store.root()).unwrap().count(), 1);
    // Its records are not there, as where a mount is missing: nothing is known to be garbage.
    fs::remove_file(store.path("index.html")).unwrap();
    assert_eq!(store.push(&site.root(), &[]).code, 0);
    fs::rename(store.path("channels"), store.path("away")).unwrap();
    let objects = store.objects();
    let said = store.run("gc", &["--grace", "0s"]);
    assert_refused(&said, 1, "nothing was deleted");
    assert_eq!(store.objects(), objects);
}

#[test]
fn a_site_that_is_held_is_not_pushed() {
    let (site, store) = (TestSite::new().file("a.txt", "x"), Folder::new());
    fs::write(site.path(".etagd-hold"), "").unwrap();
    assert_refused(&store.push(&site.root(), &[]), 1, "held by .etagd-hold");
    let root = site.root();
    let to_server = ["push", root.to_str().unwrap(), "http://127.0.0.1:1"];
    assert_refused(&finish(etagd(&to_server)), 1, "held by .etagd-hold");
    assert!(store.objects().is_empty());
    fs::remove_file(site.path(".etagd-hold")).unwrap();
    assert_eq!(store.push(&site.root(), &[]).code, 0);
}

#[test]
fn a_push_says_which_settings_are_not_those_of_the_release_before() {
    let (site, store) = (
        TestSite::new().file("a.txt", "x".repeat(5000)),
        Folder::new(),
    );
    let flags = ["--compress", "--immutable", "auto"];
    let first = store.push(&site.root(), &flags);
    assert!(!first.err.contains("settings"), "{first:?}");
    fs::write(site.path("b.txt"), "y").unwrap();
    let same = store.push(&site.root(), &flags);
    assert!(!same.err.contains("settings"), "{same:?}");
    let says = "settings differ from release 2: --compress br,gz (etagd-1) -> off, --immutable auto -> none";
    for flags in [&["--dry-run"][..], &[]] {
        let said = store.push(&site.root(), flags);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(said.err.matches(says).count(), 1, "{said:?}");
    }
}

#[test]
fn a_note_that_turns_the_direction_of_text_does_not_turn_a_listing() {
    let (site, store) = (TestSite::new().file("a.txt", "x"), Folder::new());
    assert_eq!(store.push(&site.root(), &["--note", "a\u{202e}b"]).code, 0);
    let listed = store.run("releases", &[]).out;
    assert!(listed.ends_with("a\u{fffd}b\n"), "{listed}");
    let lost = store.push(&site.root(), &["--after", "0"]);
    assert!(lost.err.contains("(a\\u{202e}b)"), "{lost:?}");
}

#[test]
fn a_folder_has_no_certificate() {
    let (site, store) = (TestSite::new().file("a.txt", "x"), Folder::new());
    let says = format!("--ca is about TLS, and {} is a folder", store.url());
    assert_refused(&store.push(&site.root(), &["--ca", "x"]), 2, &says);
    for (subcommand, flags) in [
        ("releases", &["--ca", "x"][..]),
        ("rollback", &["--to", "1", "--ca", "x"]),
        ("gc", &["--ca", "x"]),
        ("serve", &["--ca", "x"]),
    ] {
        assert_refused(&store.run(subcommand, flags), 2, &says);
    }
}

#[test]
fn the_first_push_makes_the_folder_of_a_store() {
    let (site, parent) = (TestSite::new().file("a.txt", "x"), Folder::new());
    let missing = parent.below_it("new store");
    // Who releases nothing makes nothing.
    let plan = missing.push(&site.root(), &["--dry-run"]);
    assert_eq!(plan.out, "release 1 of live: 1 content to upload, 1 B\n");
    assert!(plan.err.contains("is not there yet"), "{plan:?}");
    let empty = missing.push(&TestSite::new().root(), &[]);
    assert_refused(&empty, 1, "has the build failed?");
    let after = missing.push(&site.root(), &["--after", "1"]);
    assert_refused(&after, 1, "the newest release of live is none");
    assert!(parent.objects().is_empty() && !missing.root().exists());
    let said = missing.push(&site.root(), &[]);
    assert_eq!((said.code, &*said.out), (0, "1\n"), "{said:?}");
    assert!(said.err.contains("is not there yet"), "{said:?}");
    missing.assert_whole("live", 1);
    fs::write(site.path("a.txt"), "y").unwrap();
    let second = missing.push(&site.root(), &[]);
    assert!(!second.err.contains("is not there yet"), "{second:?}");
    missing.assert_whole("live", 2);
}

#[test]
fn a_folder_that_is_not_there_is_made_by_a_push_alone() {
    let (site, store) = (TestSite::new().file("a.txt", "x"), Folder::new());
    let missing = format!("{}/missing", store.url());
    for arguments in [
        &["releases", &missing][..],
        &["rollback", &missing, "--to", "1"],
        &["gc", &missing],
    ] {
        let said = finish(etagd(arguments));
        assert_refused(
            &said,
            1,
            "there is no such folder: make it, or correct the name",
        );
    }
    // More than a folder may be missing where a whole file system is.
    let far = format!("{missing}/deeper");
    let root = site.root();
    let said = finish(etagd(&["push", root.to_str().unwrap(), &far]));
    assert_refused(&said, 1, "missing to make it in: make that");
    assert!(!store.path("missing").exists());
    // What stands where a folder belongs.
    fs::write(store.path("blobs"), "").unwrap();
    let said = store.push(&site.root(), &[]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("cannot read blobs/"), "{said:?}");
    assert!(store.numbers("live").is_empty());
    let file = format!("{}/blobs", store.url());
    let said = finish(etagd(&["push", root.to_str().unwrap(), &file]));
    assert_refused(&said, 1, "it is no folder");
}

#[test]
fn nothing_is_no_release() {
    let (site, store) = (TestSite::new(), Folder::new());
    assert_refused(&store.push(&site.root(), &[]), 1, "has the build failed?");
    assert_refused(
        &store.push(Path::new("/nonexistent"), &[]),
        1,
        "cannot open /nonexistent",
    );
    let none = store.run("releases", &[]);
    assert_eq!((none.code, &*none.out), (0, ""), "{none:?}");
    assert!(none.err.contains("live has no release"), "{none:?}");
    assert_eq!(
        store.run("releases", &["--format", "json"]).out.trim(),
        "[]"
    );
    assert_refused(
        &store.run("rollback", &["--to", "1"]),
        1,
        "live has no release yet",
    );
    assert!(store.objects().is_empty());
}

#[test]
fn a_channel_that_was_mistyped_is_told_from_those_that_there_are() {
    let (site, store) = (TestSite::new().file("a.txt", "x"), Folder::new());
    for channel in ["live", "pr-17"] {
        assert_eq!(store.push(&site.root(), &["--channel", channel]).code, 0);
    }
    let said = store.run("releases", &["--channel", "lvie"]);
    assert!(
        said.err.contains("channels that have some: live, pr-17"),
        "{said:?}"
    );
    let said = store.push(&site.root(), &["--after", "0", "--channel", "pr-17"]);
    assert_refused(
        &said,
        1,
        "--after 0: the newest release of pr-17 is release 1 of tester@",
    );
    let said = store.push(&site.root(), &["--after", "1", "--channel", "pr-18"]);
    assert_refused(&said, 1, "the newest release of pr-18 is none");
    assert_eq!(store.numbers("pr-17"), [1]);
}

#[test]
fn records_and_listings_that_cannot_be_used_are_named() {
    let (site, store) = (TestSite::new().file("a.txt", "1"), Folder::new());
    for content in ["1", "2"] {
        fs::write(site.path("a.txt"), content).unwrap();
        assert_eq!(store.push(&site.root(), &[]).code, 0);
    }
    fs::write(site.path("a.txt"), "3").unwrap();
    let objects = store.objects();
    let newest = store.path("channels/live/00000000000000000002");
    let record = fs::read_to_string(&newest).unwrap();
    for (text, says) in [
        (
            record.replace("\"format\":1", "\"format\":9"),
            "it has format 9",
        ),
        (record[..record.len() / 2].to_owned(), "it is no release"),
        (
            record.replace("\"number\":2", "\"number\":5"),
            "the record of release 5",
        ),
        ("x".repeat(100_000), "it is longer than"),
    ] {
        fs::write(&newest, text).unwrap();
        let said = store.push(&site.root(), &[]);
        assert_refused(&said, 1, says);
        assert!(said.err.contains("etagd rollback brings"), "{said:?}");
        let back = store.run("rollback", &["--to", "2"]);
        assert_refused(&back, 1, says);
        assert!(!back.err.contains("it is replaced"), "{back:?}");
        let listed = store.run("releases", &[]);
        assert_eq!(listed.code, 1, "{listed:?}");
        let begins = "?    2  cannot be read\n     1  ";
        assert!(listed.out.starts_with(begins), "{listed:?}");
        assert!(listed.err.contains(says), "{listed:?}");
        assert_refused(
            &store.run("gc", &["--grace", "0s"]),
            1,
            "nothing was deleted",
        );
        assert_eq!(store.objects(), objects);
    }
    // Who can't read it can go back.
    let back = store.run("rollback", &["--to", "1"]);
    assert_eq!((back.code, &*back.out), (0, "3\n"), "{back:?}");
    fs::remove_file(store.path("channels/live/00000000000000000003")).unwrap();
    fs::write(&newest, &record).unwrap();
    let listing = store.record("live", 1).unwrap()["manifest"].clone();
    let listing = store.path(&format!("manifests/{}.json.zst", listing.as_str().unwrap()));
    let mut bytes = fs::read(&listing).unwrap();
    bytes[20] ^= 1;
    fs::write(&listing, &bytes).unwrap();
    assert_refused(
        &store.run("rollback", &["--to", "1"]),
        1,
        "the store has damaged it",
    );
    assert_refused(
        &store.run("gc", &["--grace", "0s"]),
        1,
        "what release 1 of live needs",
    );
    // Who does not need it goes on.
    assert_eq!(store.push(&site.root(), &[]).code, 0);
    assert_eq!(store.run("gc", &["--grace", "0s", "--keep", "2"]).code, 0);
    assert_eq!(store.numbers("live"), [2, 3]);
}
