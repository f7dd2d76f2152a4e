//! Whole trees: wget, lftp, rclone and git.

use std::fs;

use crate::support::tree::{eventually, has};
use crate::support::{TestSite, noise};
use crate::{Observed, assert_same_tree, client, count, folder, succeeded};

/// Names that need escapes in URLs, and a file of several groups.
fn tree() -> TestSite {
    TestSite::new()
        .file("a.txt", "hello\n")
        .file("large.bin", noise(1_000_001, 2))
        .file("d/b.txt", "b\n")
        .file("sp ace/\u{fc}&+.txt", "c\n")
}

#[test]
fn wget_mirrors_a_site_and_then_only_what_has_changed() {
    if !has("wget") {
        return;
    }
    let page = "<a href=a.txt>a</a><a href=d/b.txt>b</a><a href=large.bin>c</a>\
                <a href=\"sp%20ace/%C3%BC&amp;+.txt\">d</a>";
    let site = || tree().file("index.html", page);
    Observed::each_way(site, &[], wget_mirror);
}

fn wget_mirror(served: Observed) {
    let dir = folder(&served.site, "mirror");
    for _ in 0..2 {
        let url = served.url("/");
        // Below a prefix, it keeps the prefix's folder.
        let cut = format!("--cut-dirs={}", usize::from(served.proxy.is_some()));
        let arguments = ["-q", "-m", "-nH", "-np", &cut, &url];
        succeeded(client("wget", &arguments, &dir));
        assert_same_tree(&dir, &served.site.root());
    }
    let requests = served.requests();
    // Where the start page is unchanged, wget looks no further.
    assert_eq!(count(&requests, "GET / 304"), 1, "{requests:?}");
}

#[test]
fn lftp_mirrors_listings_and_then_nothing() {
    if !has("lftp") {
        return;
    }
    Observed::each_way(tree, &["--listing"], lftp_mirror);
}

fn lftp_mirror(served: Observed) {
    let dir = folder(&served.site, "lftp");
    let script = format!(
        "set net:timeout 10; set net:max-retries 2; set xfer:log 0; open {}; mirror . copy",
        served.url("/")
    );
    for _ in 0..2 {
        succeeded(client("lftp", &["-c", &script], &dir));
        assert_same_tree(&dir.join("copy"), &served.site.root());
    }
    // By size and date, it sees that nothing is new.
    assert_eq!(count(&served.requests(), "GET /large.bin 200"), 1);
}

#[test]
fn rclone_copies_listings_and_then_nothing() {
    if !has("rclone") {
        return;
    }
    Observed::each_way(tree, &["--listing"], rclone_copy);
}

fn rclone_copy(served: Observed) {
    let dir = folder(&served.site, "rclone");
    let url = served.url("/");
    for _ in 0..2 {
        let arguments = [
            "copy",
            "--config",
            "/dev/null",
            "--http-url",
            &url,
            ":http:",
            "copy",
        ];
        succeeded(client("rclone", &arguments, &dir));
        assert_same_tree(&dir.join("copy"), &served.site.root());
    }
    assert_eq!(count(&served.requests(), "GET /large.bin 200"), 1);
}

#[test]
fn git_clones_and_fetches_over_dumb_http() {
    if !has("git") {
        return;
    }
    Observed::each_way(TestSite::new, &[], git_clone);
}

fn git_clone(served: Observed) {
    let dir = folder(&served.site, "git");
    let git = |arguments: &[&str]| {
        let identity = ["-c", "user.name=Test", "-c", "user.email=test@site.invalid"];
        succeeded(client("git", &[&identity, arguments].concat(), &dir))
    };
    let bare = served.site.path("repository.git");
    let bare = bare.to_str().unwrap();
    git(&["init", "-q", "-b", "main", "work"]);
    let publish = |content: &str| {
        fs::write(dir.join("work/file"), content).unwrap();
        git(&["-C", "work", "add", "file"]);
        git(&["-C", "work", "commit", "-q", "-m", content]);
        git(&["-C", "work", "push", "-q", bare, "main"]);
        git(&["-C", bare, "update-server-info"]);
        let head = git(&["-C", "work", "rev-parse", "HEAD"]);
        eventually("the commit is published", || {
            let refs = served.server.client().get("/repository.git/info/refs");
            refs.status == 200 && refs.body.starts_with(head.trim().as_bytes())
        });
    };
    git(&["init", "-q", "--bare", "-b", "main", bare]);
    publish("one");
    git(&["clone", "-q", &served.url("/repository.git"), "clone"]);
    assert_eq!(fs::read(dir.join("clone/file")).unwrap(), b"one");
    publish("two");
    git(&["-C", "clone", "pull", "-q"]);
    assert_eq!(fs::read(dir.join("clone/file")).unwrap(), b"two");
    git(&["-C", "clone", "fsck", "--strict"]);
}
