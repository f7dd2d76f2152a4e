//! Trees that appear: copied, moved, unpacked, checked out.

use std::fs;

use super::served;
use super::support::TestSite;
use super::support::tree::{has, run, write_tree};

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
