//! Trees that appear: copied, moved, unpacked, checked out.

use std::fs;

use super::support::stand::digest_in;
use super::support::tree::{eventually, has, manifest_of, run, write_tree};
use super::support::{Server, TestSite};
use super::{EVENTS, served};

#[test]
fn a_fast_writers_new_directories_are_all_found_ten_times() {
    let site = TestSite::in_memory().file("index.html", "here");
    let server = served(&site);
    for round in 0..10 {
        let tree = site.path("tree");
        if round > 0 {
            fs::remove_dir_all(&tree).unwrap();
        }
        write_tree(&tree, 3000, &format!("round {round}"));
        server.wait_until_it_serves(&site.root());
    }
}

#[test]
fn a_copied_tree_is_found() {
    let site = TestSite::with(&[("index.html", b"here")]);
    let source = site.outside("prepared");
    write_tree(&source, 600, "copied");
    let server = served(&site);
    run(
        "cp",
        &["-r", source.to_str().unwrap(), "site/copy"],
        site.outside("").as_path(),
    );
    server.wait_until_it_serves(&site.root());
    // Again, over what is there.
    write_tree(&source, 600, "copied again");
    run(
        "cp",
        &["-rT", source.to_str().unwrap(), "site/copy"],
        site.outside("").as_path(),
    );
    server.wait_until_it_serves(&site.root());
}

#[test]
fn a_moved_tree_is_found_and_lost_again() {
    let site = TestSite::with(&[("index.html", b"here")]);
    let (source, inside) = (site.outside("prepared"), site.path("deep/tree"));
    fs::create_dir(site.path("deep")).unwrap();
    write_tree(&source, 600, "moved");
    let server = served(&site);
    for _ in 0..3 {
        fs::rename(&source, &inside).unwrap();
        server.wait_until_it_serves(&site.root());
        // It is watched where it is now, to its depth.
        fs::write(inside.join("0/0/0/0.txt"), "changed after the move").unwrap();
        server.wait_for_body("/deep/tree/0/0/0/0.txt", "changed after the move");
        fs::rename(&inside, &source).unwrap();
        server.wait_until_it_serves(&site.root());
    }
}

#[test]
fn a_tree_that_rsync_writes_is_found() {
    if !has("rsync") {
        return;
    }
    let site = TestSite::with(&[("index.html", b"here")]);
    let source = site.outside("prepared");
    let server = served(&site);
    for round in 0..3 {
        write_tree(&source, 600, &format!("round {round}"));
        fs::remove_dir_all(source.join(format!("{round}"))).unwrap();
        fs::remove_file(source.join("6/6/6/3.txt")).unwrap();
        let arguments = ["-a", "--delete", "prepared/", "site/"];
        run("rsync", &arguments, site.outside("").as_path());
        server.wait_until_it_serves(&site.root());
    }
}

#[test]
fn commits_that_git_checks_out_are_found() {
    if !has("git") {
        return;
    }
    let site = TestSite::new();
    let root = site.root();
    let git = |arguments: &[&str]| {
        let who = [
            "-c",
            "user.name=x",
            "-c",
            "user.email=x@example.org",
            "-c",
            "commit.gpgSign=false",
        ];
        run("git", &[&who[..], arguments].concat(), &root);
    };
    git(&["init", "-q", "-b", "one"]);
    write_tree(&root, 600, "one");
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "one"]);
    git(&["checkout", "-q", "-b", "two"]);
    fs::remove_dir_all(root.join("3")).unwrap();
    fs::rename(root.join("4"), root.join("four")).unwrap();
    fs::write(root.join("3"), "a file by the name of a directory").unwrap();
    for index in 0..10 {
        fs::write(root.join(format!("0/0/0/{index}.txt")), "two").unwrap();
    }
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "two"]);
    let server = served(&site);
    for branch in ["one", "two", "one", "two", "one"] {
        git(&["checkout", "-q", branch]);
        server.wait_until_it_serves(&root);
    }
}

#[test]
fn an_archive_with_old_times_is_found() {
    let site = TestSite::with(&[("index.html", b"here")]);
    let (source, outside) = (site.outside("prepared"), site.outside(""));
    write_tree(&site.path("tree"), 300, "in");
    for round in ["first", "second"] {
        let _ = fs::remove_dir_all(&source);
        write_tree(&source.join("tree"), 300, round);
        let archive = format!("{round}.tar");
        let dated = [
            "--mtime=2001-02-03",
            "-C",
            "prepared",
            "-cf",
            &archive,
            "tree",
        ];
        run("tar", &dated, &outside);
    }
    let server = served(&site);
    // The same lengths and the same times as before: nothing but events can tell them apart.
    for round in ["first", "second", "first"] {
        run(
            "tar",
            &["-xf", &format!("{round}.tar"), "-C", "site"],
            &outside,
        );
        server.wait_until_it_serves(&site.root());
        assert!(
            server
                .body("/tree/0/0/0/0.txt")
                .unwrap()
                .starts_with(round.as_bytes())
        );
    }
}

#[test]
fn a_hundred_thousand_files_at_once_are_found() {
    let site = TestSite::in_memory().file("index.html", "here");
    let mut server = served(&site);
    write_tree(&site.path("tree"), 100_000, "many");
    assert_eq!(server.body("/").as_deref(), Some(&b"here"[..]));
    server.wait_until_it_serves(&site.root());
    server.assert_alive();
}

/// The names that a listing has, each directory with its number of files.
fn listed(server: &Server, target: &str) -> Option<String> {
    let json = [("Accept", "application/json")];
    let answer = server.client().request("GET", target, &json);
    let listing: serde_json::Value = match answer.status {
        200 => serde_json::from_slice(&answer.body).unwrap(),
        _ => return None,
    };
    let entries = listing["entries"].as_array().unwrap().iter();
    let entries = entries.map(|entry| match &entry["files"] {
        serde_json::Value::Null => entry["name"].as_str().unwrap().to_owned(),
        files => format!("{}/{files}", entry["name"].as_str().unwrap()),
    });
    Some(entries.collect::<Vec<_>>().join(" "))
}

#[test]
fn folders_without_files_come_and_go_where_they_are_listed() {
    let site = TestSite::with(&[("a.txt", b"a"), ("d/f.txt", b"f")]).dir("d/e");
    let state = site.outside("state");
    let flags = ["--listing", "--state", state.to_str().unwrap()];
    let start = || Server::with(&site, &[EVENTS, &flags].concat());
    let server = start();
    let is_listed = |server: &Server, target: &str, expected: Option<&str>| {
        eventually(&format!("{target} lists {expected:?}"), || {
            listed(server, target).as_deref() == expected
        });
    };
    let is_digest = |server: &Server| {
        let digest = digest_in(&manifest_of(&site.root(), &["--listing"]));
        eventually("the digest is that of a fresh scan", || {
            server.digest() == digest
        });
    };
    is_listed(&server, "/", Some("d/1 a.txt"));
    is_listed(&server, "/d/e/", Some(""));
    is_digest(&server);
    // Made, with what is below it.
    fs::create_dir_all(site.path("new/er/est")).unwrap();
    fs::create_dir_all(site.path("new/.hidden/x")).unwrap();
    is_listed(&server, "/new/er/est/", Some(""));
    is_listed(&server, "/", Some("d/1 new/0 a.txt"));
    is_listed(&server, "/new/", Some("er/0"));
    assert_eq!(server.client().get("/new/er").status, 308);
    is_digest(&server);
    // Filled, and emptied.
    fs::write(site.path("new/er/f"), "f").unwrap();
    is_listed(&server, "/new/", Some("er/1"));
    is_digest(&server);
    fs::remove_file(site.path("new/er/f")).unwrap();
    fs::remove_file(site.path("d/f.txt")).unwrap();
    is_listed(&server, "/new/er/", Some("est/0"));
    is_listed(&server, "/", Some("d/0 new/0 a.txt"));
    is_digest(&server);
    // Moved, and replaced.
    fs::rename(site.path("new"), site.path("moved")).unwrap();
    is_listed(&server, "/", Some("d/0 moved/0 a.txt"));
    is_listed(&server, "/new/", None);
    fs::remove_dir(site.path("d/e")).unwrap();
    fs::write(site.path("d/e"), "a file").unwrap();
    is_listed(&server, "/d/", Some("e"));
    is_digest(&server);
    let digest = server.digest();
    drop(server);
    // The same after a restart, and what has changed meanwhile is found.
    let server = start();
    assert_eq!(server.digest(), digest);
    drop(server);
    fs::remove_dir(site.path("moved/er/est")).unwrap();
    let server = start();
    is_listed(&server, "/moved/", Some("er/0"));
    is_listed(&server, "/moved/er/", Some(""));
    is_digest(&server);
    fs::remove_dir_all(site.path("moved")).unwrap();
    is_listed(&server, "/", Some("d/1 a.txt"));
    assert_eq!(server.client().get("/moved/").status, 404);
    is_digest(&server);
}

#[test]
fn folders_without_files_publish_nothing_where_they_are_not_listed() {
    let site = TestSite::with(&[("a.txt", b"a")]).dir("empty");
    let server = served(&site);
    fs::create_dir(site.path("new")).unwrap();
    fs::remove_dir(site.path("empty")).unwrap();
    fs::write(site.path("later.txt"), "later").unwrap();
    server.wait_for_body("/later.txt", "later");
    assert_eq!(server.client().get("/new/").status, 404);
    server.wait_until_it_serves(&site.root());
    assert!(!server.log().contains("folder"), "{}", server.log());
}
