//! A site that changes while it is served, in all the ways in which people and their tools change
//! one. Sweeps are an hour apart here, unless a test is about them: what is found is found because
//! the kernel said so.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::server::{command, unprivileged};
use support::site::set_mtime;
use support::tree::{
    digest_of, eventually, has, relink, rename_over, run, stays, within, write_tree,
};
use support::version::content;
use support::writer::Writer;
use support::{Server, TestSite, noise};

/// No help from sweeps.
const EVENTS: &[&str] = &["--sweep", "1h"];

fn served(site: &TestSite) -> Server {
    Server::with(site, EVENTS)
}

// Trees that appear.

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

// Directories, files and links that take each other's place.

#[test]
fn a_renamed_directory_is_watched_under_its_new_name() {
    let site = TestSite::with(&[("a/b/c/file", b"1"), ("index.html", b"here")]);
    let server = served(&site);
    fs::rename(site.path("a"), site.path("z")).unwrap();
    server.wait_for_body("/z/b/c/file", "1");
    server.wait_for_absence("/a/b/c/file");
    fs::write(site.path("z/b/c/file"), "2").unwrap();
    server.wait_for_body("/z/b/c/file", "2");
    fs::create_dir(site.path("z/b/d")).unwrap();
    fs::write(site.path("z/b/d/new"), "3").unwrap();
    server.wait_for_body("/z/b/d/new", "3");
    // The old name again, with something else in it.
    fs::create_dir_all(site.path("a/b/c")).unwrap();
    fs::write(site.path("a/b/c/file"), "4").unwrap();
    server.wait_for_body("/a/b/c/file", "4");
    fs::write(site.path("a/b/c/file"), "5").unwrap();
    server.wait_for_body("/a/b/c/file", "5");
    server.wait_until_it_serves(&site.root());
}

#[test]
fn a_file_and_a_directory_take_each_others_place() {
    let site = TestSite::with(&[("thing", b"a file"), ("index.html", b"here")]);
    let server = served(&site);
    for _ in 0..3 {
        fs::remove_file(site.path("thing")).unwrap();
        fs::create_dir(site.path("thing")).unwrap();
        fs::write(site.path("thing/inside"), "inside").unwrap();
        server.wait_for_body("/thing/inside", "inside");
        assert_ne!(server.client().get("/thing").status, 200);
        fs::remove_dir_all(site.path("thing")).unwrap();
        fs::write(site.path("thing"), "a file").unwrap();
        server.wait_for_body("/thing", "a file");
        server.wait_until_it_serves(&site.root());
    }
    // Moved away whole, so that nothing is reported of what is inside.
    fs::remove_file(site.path("thing")).unwrap();
    fs::create_dir(site.path("thing")).unwrap();
    fs::write(site.path("thing/inside"), "inside").unwrap();
    server.wait_for_body("/thing/inside", "inside");
    fs::rename(site.path("thing"), site.outside("thing")).unwrap();
    fs::write(site.path("thing"), "a file").unwrap();
    server.wait_for_body("/thing", "a file");
    server.wait_until_it_serves(&site.root());
    assert_eq!(server.client().get("/thing/inside").status, 404);
}

#[test]
fn a_directory_and_a_link_take_each_others_place() {
    let site = TestSite::with(&[("a/x", b"a"), ("a/deep/y", b"a"), ("b/x", b"b")]);
    let server = served(&site);
    for _ in 0..3 {
        fs::rename(site.path("a"), site.outside("a")).unwrap();
        symlink("b", site.path("a")).unwrap();
        server.wait_for_body("/a/x", "b");
        server.wait_until_it_serves(&site.root());
        fs::write(site.path("b/x"), "B").unwrap();
        server.wait_for_body("/a/x", "B");
        fs::remove_file(site.path("a")).unwrap();
        fs::rename(site.outside("a"), site.path("a")).unwrap();
        server.wait_for_body("/a/x", "a");
        server.wait_until_it_serves(&site.root());
        fs::write(site.path("b/x"), "b").unwrap();
        server.wait_for_body("/b/x", "b");
        fs::write(site.path("a/deep/y"), "A").unwrap();
        server.wait_for_body("/a/deep/y", "A");
        fs::write(site.path("a/deep/y"), "a").unwrap();
        server.wait_for_body("/a/deep/y", "a");
    }
    // A file and a link to one.
    fs::rename(site.path("b/x"), site.path("b/z")).unwrap();
    symlink("z", site.path("b/x")).unwrap();
    server.wait_until_it_serves(&site.root());
    fs::write(site.path("b/z"), "z").unwrap();
    server.wait_for_body("/b/x", "z");
    server.wait_until_it_serves(&site.root());
}

#[test]
fn links_that_lead_in_circles_are_survived_and_mended() {
    let site = TestSite::with(&[("dir/file", b"1")]);
    let mut server = served(&site);
    symlink(".", site.path("dir/self")).unwrap();
    symlink("b", site.path("a")).unwrap();
    symlink("a", site.path("b")).unwrap();
    symlink("..", site.path("dir/up")).unwrap();
    fs::write(site.path("dir/file"), "2").unwrap();
    server.wait_for_body("/dir/file", "2");
    assert_eq!(server.client().get("/a").status, 404);
    relink(&site.path("b"), "dir");
    server.wait_for_body("/a/file", "2");
    fs::write(site.path("dir/file"), "3").unwrap();
    server.wait_for_body("/a/file", "3");
    server.wait_for_body("/b/file", "3");
    server.assert_alive();
}

#[test]
fn a_link_inside_the_site_leads_where_it_leads_now() {
    let site = TestSite::with(&[
        ("releases/1/page", b"one"),
        ("releases/2/page", b"two"),
        ("releases/2/sub/more", b"more"),
    ]);
    symlink("releases/1", site.path("current")).unwrap();
    symlink("current/page", site.path("page")).unwrap();
    symlink("releases/9", site.path("next")).unwrap();
    let server = served(&site);
    assert_eq!(server.body("/current/page").unwrap(), b"one");
    for _ in 0..3 {
        relink(&site.path("current"), "releases/2");
        server.wait_for_body("/current/page", "two");
        // A link through a link moves with it, at once.
        assert_eq!(server.body("/page").unwrap(), b"two");
        relink(&site.path("current"), "releases/1");
        server.wait_for_body("/current/page", "one");
        assert_eq!(server.body("/page").unwrap(), b"one");
        assert_eq!(server.client().get("/current/sub/more").status, 404);
    }
    fs::write(site.path("releases/1/page"), "ONE").unwrap();
    server.wait_for_body("/current/page", "ONE");
    assert_eq!(server.body("/page").unwrap(), b"ONE");
    assert_eq!(server.body("/releases/1/page").unwrap(), b"ONE");
    // What led to nothing leads to something.
    fs::create_dir(site.path("releases/9")).unwrap();
    fs::write(site.path("releases/9/page"), "nine").unwrap();
    server.wait_for_body("/next/page", "nine");
    server.wait_until_it_serves(&site.root());
}

#[test]
fn a_link_out_of_the_site_is_not_watched_unless_it_is_followed() {
    let site = TestSite::in_memory().file("index.html", "here");
    let outside = site.outside("elsewhere");
    write_tree(&outside, 1000, "elsewhere");
    symlink(&outside, site.path("link")).unwrap();
    assert!(
        served(&site).watches() < 10,
        "a tree that is not served is watched"
    );
    let server = Server::with(&site, &["--sweep", "1h", "--symlinks", "all"]);
    fs::write(outside.join("0/0/0/0.txt"), "changed").unwrap();
    server.wait_for_body("/link/0/0/0/0.txt", "changed");
}

#[test]
fn a_hard_link_written_through_a_name_outside_is_found_by_a_sweep() {
    let site = TestSite::with(&[("file", b"1")]);
    fs::hard_link(site.path("file"), site.outside("name")).unwrap();
    let server = Server::with(&site, &["--sweep", "1s"]);
    fs::write(site.outside("name"), "2").unwrap();
    server.wait_for_body("/file", "2");
}

#[test]
fn a_file_with_two_names_changes_under_both() {
    let site = TestSite::with(&[("one", b"1")]);
    fs::create_dir(site.path("dir")).unwrap();
    fs::hard_link(site.path("one"), site.path("dir/two")).unwrap();
    let server = served(&site);
    fs::write(site.path("one"), "2").unwrap();
    server.wait_for_body("/one", "2");
    assert_eq!(server.body("/dir/two").unwrap(), b"2");
}

#[test]
fn a_hangup_asks_for_a_sweep() {
    let site = TestSite::with(&[("file", b"1")]);
    fs::hard_link(site.path("file"), site.outside("name")).unwrap();
    let server = served(&site);
    fs::write(site.outside("name"), "2").unwrap();
    server.signal(rustix::process::Signal::HUP);
    server.wait_for_body("/file", "2");
}

// A ConfigMap, as the kubelet writes it.

fn write_config_map(site: &TestSite, version: u64) {
    let dir = format!("..2026_{version}");
    fs::create_dir_all(site.path(format!("{dir}/sub"))).unwrap();
    fs::write(site.path(format!("{dir}/a.json")), format!("{version}")).unwrap();
    fs::write(site.path(format!("{dir}/b.json")), format!("{version}")).unwrap();
    fs::write(site.path(format!("{dir}/sub/c.json")), format!("{version}")).unwrap();
    let large = noise(300_000, version);
    fs::write(site.path(format!("{dir}/large.bin")), large).unwrap();
    symlink(&dir, site.path("..data_tmp")).unwrap();
    fs::rename(site.path("..data_tmp"), site.path("..data")).unwrap();
}

#[test]
fn a_config_map_is_swapped_whole_though_its_old_directory_goes_at_once() {
    let site = TestSite::new();
    write_config_map(&site, 1);
    for name in ["a.json", "b.json", "sub", "large.bin"] {
        symlink(format!("..data/{name}"), site.path(name)).unwrap();
    }
    let server = served(&site);
    let (is_over, newest) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut client = server.client();
            let mut answers = 0;
            while !is_over.load(Ordering::Relaxed) {
                for target in ["/a.json", "/b.json", "/sub/c.json"] {
                    let before = newest.load(Ordering::SeqCst);
                    let response = client.get(target);
                    assert_eq!(response.status, 200, "{target}");
                    let version: u64 = String::from_utf8(response.body).unwrap().parse().unwrap();
                    assert!(
                        version >= before,
                        "{target} is of {version}, after {before}"
                    );
                    newest.fetch_max(version, Ordering::SeqCst);
                    answers += 1;
                }
                let response = server.client().get("/large.bin");
                assert!(matches!(response.status, 200 | 503), "{}", response.status);
                assert!(response.status != 200 || response.cut || response.is_what_its_tag_says());
            }
            answers
        });
        for version in 2..=20 {
            write_config_map(&site, version);
            thread::sleep(Duration::from_millis(1));
            fs::remove_dir_all(site.path(format!("..2026_{}", version - 1))).unwrap();
            if version % 3 == 0 {
                server.wait_for_body("/a.json", format!("{version}"));
            }
        }
        server.wait_for_body("/a.json", "20");
        server.wait_for_body("/large.bin", noise(300_000, 20));
        is_over.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 100);
    });
    server.wait_until_it_serves(&site.root());
}

// What does not stop.

#[test]
fn a_directory_that_comes_and_goes_for_ever_does_not_hold_up_the_rest() {
    let site = TestSite::with(&[("file", b"1")]);
    let server = served(&site);
    restless(
        || {
            fs::create_dir(site.path("flapping")).unwrap();
            fs::remove_dir(site.path("flapping")).unwrap();
        },
        || assert_visible(&server, &site),
    );
}

#[test]
fn a_link_that_flaps_for_ever_does_not_hold_up_the_rest() {
    let site = TestSite::with(&[("file", b"1"), ("a/x", b"a"), ("b/x", b"b")]);
    symlink("a", site.path("link")).unwrap();
    let server = served(&site);
    restless(
        || {
            relink(&site.path("link"), "b");
            relink(&site.path("link"), "a");
        },
        || assert_visible(&server, &site),
    );
    server.wait_until_it_serves(&site.root());
}

#[test]
fn a_log_that_grows_for_ever_does_not_hold_up_the_rest() {
    let site = TestSite::with(&[("file", b"1"), ("log", b"")]);
    let server = served(&site);
    let mut log = File::options().append(true).open(site.path("log")).unwrap();
    restless(
        || writeln!(log, "one more line").unwrap(),
        || assert_visible(&server, &site),
    );
}

#[test]
fn what_happens_in_hidden_directories_holds_up_nothing() {
    let site = TestSite::with(&[("file", b"1"), (".git/index", b"")]);
    let server = served(&site);
    restless(
        || {
            fs::create_dir(site.path(".git/x")).unwrap();
            fs::write(site.path(".git/x/object"), "object").unwrap();
            fs::remove_dir_all(site.path(".git/x")).unwrap();
        },
        || {
            for version in 2..6 {
                fs::write(site.path("file"), format!("{version}")).unwrap();
                let body = format!("{version}").into_bytes();
                let is_seen = || server.body("/file").as_deref() == Some(&body);
                within(Duration::from_millis(1500), "the change is seen", is_seen);
            }
        },
    );
}

#[test]
fn what_happens_beside_the_link_to_the_root_holds_up_nothing() {
    let site = TestSite::with(&[("file", b"1")]);
    fs::create_dir(site.outside("busy")).unwrap();
    symlink(site.root(), site.outside("busy/current")).unwrap();
    let server = Server::at(&site.outside("busy/current"), EVENTS);
    restless(
        || {
            fs::create_dir(site.outside("busy/x")).unwrap();
            fs::remove_dir(site.outside("busy/x")).unwrap();
        },
        || {
            for version in 2..6 {
                fs::write(site.path("file"), format!("{version}")).unwrap();
                let body = format!("{version}").into_bytes();
                let is_seen = || server.body("/file").as_deref() == Some(&body);
                within(Duration::from_millis(1500), "the change is seen", is_seen);
            }
        },
    );
}

// Files that are asked for before the change is published. They are too long to be held in
// memory: what they were can't be sent any more.

const LONG: usize = 300 << 10;

#[test]
fn a_file_that_was_just_deleted_is_not_found() {
    let site = TestSite::new().file("big.bin", content(1, LONG));
    let server = served(&site);
    fs::remove_file(site.path("big.bin")).unwrap();
    assert_eq!(server.client().get("/big.bin").status, 404);
}

#[test]
fn a_file_that_is_being_written_is_awaited() {
    let site = TestSite::new().file("big.bin", content(1, LONG));
    let server = served(&site);
    let next = content(2, LONG);
    let (started, starts) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = File::create(site.path("big.bin")).unwrap();
            started.send(()).unwrap();
            for piece in next.chunks(LONG / 6) {
                file.write_all(piece).unwrap();
                thread::sleep(Duration::from_millis(20));
            }
        });
        starts.recv().unwrap();
        let response = server.client().get("/big.bin");
        assert_eq!(response.status, 200, "{}", server.log());
        assert!(response.body == next);
    });
}

#[test]
fn a_file_that_grows_by_appending_is_never_seen_in_part() {
    let site = TestSite::new().file("big.bin", content(1, 4 * LONG));
    let server = served(&site);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let response = server.client().get("/big.bin");
                if response.status == 200 && !response.cut {
                    assert_eq!(response.body.len(), 4 * LONG, "half-written");
                }
            }
        });
        for version in 2..5 {
            let next = content(version, 4 * LONG);
            fs::write(site.path("big.bin"), &next[..LONG]).unwrap();
            for piece in next[LONG..].chunks(LONG) {
                // Less than the quiet period, and closed each time.
                thread::sleep(Duration::from_millis(40));
                let file = File::options().append(true).open(site.path("big.bin"));
                file.unwrap().write_all(piece).unwrap();
            }
            server.wait_for_body("/big.bin", &next);
        }
        is_over.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
}

#[test]
fn a_file_that_was_rewritten_is_answered_while_others_never_rest() {
    let name = |index: usize| format!("{index}.bin");
    let site = (0..3).fold(TestSite::new().file("other", "0"), |site, index| {
        site.file(name(index), content(index as u64, LONG))
    });
    let server = served(&site);
    let mut count = 0;
    let write_other = || {
        count += 1;
        fs::write(site.path("other"), format!("{count}")).unwrap();
        thread::sleep(Duration::from_millis(10));
    };
    restless(write_other, || {
        let mut client = server.client();
        for index in 0..3 {
            let next = content(100 + index as u64, LONG);
            Writer::InPlace.write(&site.path(name(index)), &next);
            let response = client.get(&format!("/{index}.bin"));
            assert_eq!(response.status, 200, "{index}: {}", server.log());
            assert!(response.body == next, "{index}");
        }
    });
}

/// Does one thing again and again while the other is tried.
fn restless(mut again: impl FnMut() + Send, meanwhile: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                again();
                thread::sleep(Duration::from_millis(2));
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
        is_over.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}

/// The longest quiet period is 2 s; as much again for a machine with other work.
fn assert_visible(server: &Server, site: &TestSite) {
    for version in 2..4 {
        fs::write(site.path("file"), format!("{version}")).unwrap();
        let body = format!("{version}").into_bytes();
        let is_seen = || server.body("/file").as_deref() == Some(&body);
        within(Duration::from_secs(4), "the change is seen", is_seen);
    }
}

// The root.

#[test]
fn a_root_that_is_moved_away_stays_served_and_is_watched_when_it_is_back() {
    let site = TestSite::with(&[("file", b"1"), ("dir/file", b"1")]);
    let server = served(&site);
    let away = site.outside("away");
    for version in 2..4 {
        let before = server.body("/file").unwrap();
        fs::rename(site.root(), &away).unwrap();
        let processor = server.processor_time();
        stays(Duration::from_millis(1200), "the last good state", || {
            server.body("/file").as_ref() == Some(&before) && server.body("/dir/file").is_some()
        });
        let spent = server.processor_time() - processor;
        assert!(
            spent < 60,
            "{spent} hundredths of a second spent on waiting"
        );
        fs::rename(&away, site.root()).unwrap();
        eventually("the root is seen", || {
            server.log().matches("the site is").count() == version - 1
        });
        fs::write(site.path("file"), format!("{version}")).unwrap();
        fs::write(site.path("dir/file"), format!("{version}")).unwrap();
        server.wait_for_body("/file", format!("{version}"));
        server.wait_for_body("/dir/file", format!("{version}"));
    }
}

#[test]
fn a_root_that_is_deleted_and_made_again_is_watched() {
    let site = TestSite::with(&[("file", b"1"), ("a/b/c", b"1")]);
    let mut server = served(&site);
    let watches = server.watches();
    for version in 2..12 {
        fs::remove_dir_all(site.root()).unwrap();
        if version % 3 == 0 {
            thread::sleep(Duration::from_millis(400));
        }
        fs::create_dir_all(site.path("a/b")).unwrap();
        fs::write(site.path("file"), format!("{version}")).unwrap();
        fs::write(site.path("a/b/c"), format!("{version}")).unwrap();
        server.wait_for_body("/file", format!("{version}"));
        server.wait_for_body("/a/b/c", format!("{version}"));
        fs::write(site.path("a/b/c"), "later").unwrap();
        server.wait_for_body("/a/b/c", "later");
    }
    server.wait_until_it_serves(&site.root());
    assert!(
        server.watches() <= watches + 2,
        "{} watches",
        server.watches()
    );
    server.assert_alive();
}

#[test]
fn a_root_that_is_replaced_is_never_seen_empty() {
    let site = TestSite::with(&[("file", b"1")]);
    let server = served(&site);
    restless(
        || {
            // The old root goes and the new one comes, with nothing there in between.
            fs::rename(site.root(), site.outside("old")).unwrap();
            thread::sleep(Duration::from_millis(130));
            fs::create_dir(site.outside("new")).unwrap();
            fs::write(site.outside("new/file"), "1").unwrap();
            fs::rename(site.outside("new"), site.root()).unwrap();
            fs::remove_dir_all(site.outside("old")).unwrap();
            thread::sleep(Duration::from_millis(170));
        },
        || {
            stays(Duration::from_secs(2), "the one file is there", || {
                server.body("/file").as_deref() == Some(b"1")
            });
        },
    );
}

#[test]
fn permissions_are_taken_away_and_given_back() {
    let Some(program) = unprivileged() else {
        return;
    };
    let site = TestSite::with(&[
        ("file", b"1"),
        ("dir/file", b"1"),
        ("dir/large", &noise(300_000, 1)),
        ("index.html", b"here"),
    ]);
    let mode = |path: &str, mode| {
        fs::set_permissions(site.path(path), Permissions::from_mode(mode)).unwrap();
    };
    let mut server = Server::run(program, &site.root(), EVENTS);
    for version in 2..4 {
        mode("file", 0);
        mode("dir", 0);
        server.wait_for(|lines| {
            let denied = lines
                .iter()
                .filter(|line| line.contains("ermission denied"));
            denied.count() >= 2 * (version - 1)
        });
        // The last good state stays.
        assert!(server.body("/file").is_some());
        assert!(server.body("/dir/file").is_some());
        mode("file", 0o644);
        mode("dir", 0o755);
        fs::write(site.path("file"), format!("{version}")).unwrap();
        fs::write(site.path("dir/file"), format!("{version}")).unwrap();
        server.wait_for_body("/file", format!("{version}"));
        server.wait_for_body("/dir/file", format!("{version}"));
        eventually("the digest is complete", || {
            !server.digest().contains("incomplete")
        });
    }
    server.assert_alive();
}

#[test]
fn a_new_file_that_was_busy_and_can_not_be_read_is_reported() {
    let Some(program) = unprivileged() else {
        return;
    };
    let site = TestSite::in_memory().file("index.html", "here");
    let server = Server::run(program, &site.root(), EVENTS);
    let nobody = Some(65534);
    let mut file = File::create(site.path("new")).unwrap();
    std::os::unix::fs::chown(site.path("new"), nobody, nobody).unwrap();
    file.write_all(b"half").unwrap();
    eventually("it is missing from the digest", || {
        server.digest().ends_with("incomplete")
    });
    fs::set_permissions(site.path("new"), Permissions::from_mode(0o000)).unwrap();
    std::os::unix::fs::chown(site.path("new"), Some(0), Some(0)).unwrap();
    drop(file);
    eventually("it is told", || server.log().contains("cannot read"));
}

#[test]
fn a_sidecar_that_never_rests_brings_nothing_back() {
    let text = |version: u64| format!("{version} ").repeat(1000);
    let site = TestSite::in_memory().file("app.js", text(0));
    run(
        env!("CARGO_BIN_EXE_etagd"),
        &["compress", "site"],
        site.outside("").as_path(),
    );
    let server = Server::with(&site, &["--sweep", "1h", "--settle", "1s"]);
    let mut busy = File::create(site.path("app.js.br")).unwrap();
    busy.write_all(b"x").unwrap();
    let started = Instant::now();
    // The batch of these is due when the sidecar's time is up.
    let mut version = 0;
    while started.elapsed() < Duration::from_millis(6800) {
        if started.elapsed() > Duration::from_millis(5300) {
            version += 1;
            fs::write(site.path("app.js"), text(version)).unwrap();
        }
        thread::sleep(Duration::from_millis(300));
    }
    let is_last = || server.body("/app.js").as_deref() == Some(text(version).as_bytes());
    within(Duration::from_secs(8), "the last is there", is_last);
    drop(busy);
    stays(Duration::from_secs(3), "it stays", is_last);
}

#[test]
fn a_directory_that_could_not_be_read_at_first_is_found_with_all_that_happens_in_it() {
    let Some(program) = unprivileged() else {
        return;
    };
    let site = TestSite::with(&[("shut/file", b"1"), ("index.html", b"here")]);
    fs::set_permissions(site.path("shut"), Permissions::from_mode(0o000)).unwrap();
    let server = Server::run(program, &site.root(), EVENTS);
    fs::set_permissions(site.path("shut"), Permissions::from_mode(0o755)).unwrap();
    server.wait_for_body("/shut/file", "1");
    fs::write(site.path("shut/file"), "2").unwrap();
    server.wait_for_body("/shut/file", "2");
}

// Dates.

#[test]
fn a_date_that_went_back_disappears_and_matches_nothing() {
    let site = TestSite::with(&[]).file_dated("file", b"new", 1_700_000_000);
    let server = served(&site);
    let first = server.client().get("/file");
    let date = first.field("Last-Modified").unwrap().to_owned();
    let dates = [1_600_000_000, 1_650_000_000, 1_699_999_999];
    for (version, mtime) in dates.into_iter().enumerate() {
        // Each is newer than the one before, and all are older than what clients have.
        let content = format!("version {version}");
        fs::write(site.outside("next"), &content).unwrap();
        set_mtime(&site.outside("next"), mtime);
        fs::rename(site.outside("next"), site.path("file")).unwrap();
        server.wait_for_body("/file", &content);
        let fields = [("If-Modified-Since", date.as_str())];
        let response = server.client().request("GET", "/file", &fields);
        assert_eq!(response.status, 200, "{content}: {:?}", response.fields);
        assert_eq!(response.field("Last-Modified"), None, "{content}");
    }
}

// Publication.

#[test]
fn equal_content_written_again_publishes_nothing() {
    let site = TestSite::with(&[("file", b"same"), ("other", b"1"), ("dir/x", b"same")]);
    let server = served(&site);
    for version in 2..5 {
        fs::write(site.path("file"), "same").unwrap();
        rename_over(&site.path("dir/x"), "same");
        set_mtime(&site.path("file"), 1_000_000_000 + version);
        fs::rename(site.path("dir"), site.outside("dir")).unwrap();
        fs::rename(site.outside("dir"), site.path("dir")).unwrap();
        // What comes after it is published, and nothing else is.
        thread::sleep(Duration::from_millis(250));
        fs::write(site.path("other"), format!("{version}")).unwrap();
        server.wait_for_body("/other", format!("{version}"));
        // It is served first and announced then.
        eventually("it is announced", || {
            server.publications() as i64 >= version - 1
        });
        assert_eq!(
            server.publications() as i64,
            version - 1,
            "{}",
            server.log()
        );
    }
}

#[test]
fn a_batch_is_not_broken_by_a_file_that_is_busy_or_by_sweeps() {
    let site = TestSite::with(&[("a", b"0"), ("z", b"0"), ("log", b"")]);
    let server = Server::with(&site, &["--settle", "400ms", "--sweep", "150ms"]);
    let mut log = File::options().append(true).open(site.path("log")).unwrap();
    log.write_all(b"open for a long time").unwrap();
    for version in 1..6 {
        // Never quiet for longer than the quiet period.
        fs::write(site.path("a"), format!("{version}")).unwrap();
        thread::sleep(Duration::from_millis(250));
        fs::write(site.path("z"), format!("{version}")).unwrap();
        within(Duration::from_secs(8), "the batch is published", || {
            // Asked for a first: where it is new, z must be.
            let a = server.body("/a").unwrap();
            let z = server.body("/z").unwrap();
            assert!(z >= a, "a is of {a:?} already, z still of {z:?}");
            z == format!("{version}").into_bytes()
        });
        server.wait_for_body("/z", format!("{version}"));
    }
}

#[test]
fn a_hold_that_comes_during_a_look_holds_too() {
    let site = TestSite::in_memory().file("huge.bin", "x").file("a", "1");
    let open = || File::options().write(true).open(site.path("huge.bin"));
    open().unwrap().set_len(1 << 30).unwrap();
    let server = served(&site);
    open().unwrap().write_all(b"y").unwrap();
    // The quiet period is over, the file is being hashed.
    thread::sleep(Duration::from_millis(200));
    fs::write(site.path(".etagd-hold"), "").unwrap();
    let published = server.publications();
    stays(Duration::from_secs(3), "nothing is published", || {
        server.publications() == published
    });
    fs::remove_file(site.path(".etagd-hold")).unwrap();
    eventually("it is announced", || server.publications() > published);
}

#[test]
fn a_hold_file_holds_publication_until_it_is_gone() {
    let site = TestSite::with(&[("a", b"1"), ("large", &noise(300_000, 1))]);
    let server = served(&site);
    for version in 2..4 {
        fs::write(site.path(".etagd-hold"), "").unwrap();
        let published = server.publications();
        fs::write(site.path("a"), format!("{version}")).unwrap();
        write_tree(&site.path(format!("tree{version}")), 100, "held");
        fs::write(site.path("large"), noise(300_000, version)).unwrap();
        stays(Duration::from_secs(1), "nothing is published", || {
            server.publications() == published
                && server.body("/a") == Some(format!("{}", version - 1).into_bytes())
        });
        fs::remove_file(site.path(".etagd-hold")).unwrap();
        server.wait_for_body("/a", format!("{version}"));
        server.wait_for_body("/large", noise(300_000, version));
        server.wait_until_it_serves(&site.root());
        eventually("it is announced", || server.publications() > published);
        assert_eq!(server.publications(), published + 1, "{}", server.log());
    }
}

#[test]
fn a_server_that_starts_under_a_hold_serves_what_is_there_and_holds_on() {
    let site = TestSite::with(&[("a", b"1"), (".etagd-hold", b"")]);
    let server = served(&site);
    assert_eq!(server.body("/a").unwrap(), b"1");
    fs::write(site.path("a"), "2").unwrap();
    stays(Duration::from_millis(700), "held", || {
        server.body("/a").unwrap() == b"1"
    });
    fs::remove_file(site.path(".etagd-hold")).unwrap();
    server.wait_for_body("/a", "2");
}

#[test]
fn an_asset_that_is_gone_is_answered_for_as_long_as_was_asked() {
    let large = noise(3 << 20, 1);
    let site = TestSite::with(&[
        ("app.1.js", b"one"),
        ("page.html", b"page"),
        ("asked.bin", &large),
        ("never-asked.bin", &large[1..]),
    ]);
    let server = Server::with(&site, &["--sweep", "1h", "--keep-old", "4s"]);
    let tag = server
        .client()
        .get("/app.1.js")
        .field("ETag")
        .unwrap()
        .to_owned();
    assert!(server.body("/asked.bin").is_some());
    for name in ["app.1.js", "page.html", "asked.bin", "never-asked.bin"] {
        fs::remove_file(site.path(name)).unwrap();
    }
    fs::write(site.path("app.2.js"), "two").unwrap();
    server.wait_for_body("/app.2.js", "two");
    let gone = Instant::now();
    assert_eq!(server.client().get("/page.html").status, 404);
    let old = server.client().get("/app.1.js");
    assert_eq!((old.status, old.body.as_slice()), (200, &b"one"[..]));
    assert_eq!(old.field("ETag"), Some(tag.as_str()));
    let fields = [("If-None-Match", tag.as_str())];
    assert_eq!(
        server.client().request("GET", "/app.1.js", &fields).status,
        304
    );
    assert_eq!(
        server.body("/asked.bin"),
        Some(large),
        "from its open descriptor"
    );
    // Nobody has its bytes any more: it is gone, not about to come.
    eventually("what can't be proven is gone", || {
        server.client().get("/never-asked.bin").status == 404
    });
    assert!(gone.elapsed() < Duration::from_secs(4), "too slow to tell");
    server.wait_for_absence("/app.1.js");
    assert!(gone.elapsed() > Duration::from_secs(3));
    eventually("its descriptor is closed", || server.deleted_files() == 0);
}

#[test]
fn what_can_be_proven_of_an_old_asset_is_still_answered() {
    let content = "many times the same, ".repeat(20_000);
    let site = TestSite::in_memory()
        .file("app.1.js", &content)
        .file("page.html", &content)
        .file("other", "1");
    run(
        env!("CARGO_BIN_EXE_etagd"),
        &["compress", "site"],
        site.outside("").as_path(),
    );
    let server = Server::with(&site, &["--sweep", "1h", "--keep-old", "1h"]);
    let get = |target: &str, coding: &str| {
        let fields = [("Accept-Encoding", coding)];
        let response = server.client().request("GET", target, &fields);
        let coding = response.field("Content-Encoding").map(str::to_owned);
        (response.status, coding)
    };
    let moved = site.outside("before");
    fs::rename(site.root(), &moved).unwrap();
    fs::create_dir(site.root()).unwrap();
    fs::write(site.path("other"), "2").unwrap();
    server.wait_for_body("/other", "2");
    assert_eq!(get("/page.html", "br").0, 404);
    assert_eq!(get("/page.html.br", "identity").0, 404);
    assert_eq!(get("/app.1.js", "br"), (200, Some("br".to_owned())));
    assert_eq!(get("/app.1.js.br", "identity"), (200, None));
}

#[test]
fn an_asset_that_comes_back_is_the_new_one() {
    let site = TestSite::with(&[("a.js", b"one"), ("b.js", b"b")]);
    let server = Server::with(&site, &["--sweep", "1h", "--keep-old", "1h"]);
    fs::remove_file(site.path("a.js")).unwrap();
    fs::write(site.path("b.js"), "B").unwrap();
    server.wait_for_body("/b.js", "B");
    assert_eq!(server.body("/a.js").unwrap(), b"one");
    fs::write(site.path("a.js"), "two").unwrap();
    server.wait_for_body("/a.js", "two");
}

#[test]
fn files_that_were_replaced_are_closed() {
    let site = TestSite::with(&[("large", &noise(2 << 20, 0)), ("gone", &noise(2 << 20, 9))]);
    let server = served(&site);
    assert!(server.body("/gone").is_some());
    for version in 1..8 {
        rename_over(&site.path("large"), noise(2 << 20, version));
        server.wait_for_body("/large", noise(2 << 20, version));
    }
    fs::remove_file(site.path("gone")).unwrap();
    server.wait_for_absence("/gone");
    eventually("no deleted file takes up the disk", || {
        server.deleted_files() == 0
    });
}

// Truncation, the classic way to end a server.

#[test]
fn files_are_cut_short_a_hundred_times_while_they_are_served_and_scanned() {
    let (size, names) = (3 << 20, ["a", "b"]);
    let site = names.iter().fold(TestSite::new(), |site, name| {
        site.file(name, noise(size, 1))
    });
    let mut server = Server::with(&site, &["--settle", "1ms", "--sweep", "200ms"]);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for name in names {
            let (server, is_over) = (&server, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let response = server.client().get(&format!("/{name}"));
                    let is_whole = response.status == 200 && !response.cut;
                    assert!(!is_whole || response.is_what_its_tag_says(), "{name}: torn");
                    assert!(
                        matches!(response.status, 200 | 404 | 503),
                        "{}",
                        response.status
                    );
                }
            });
        }
        for round in 0..100 {
            for name in names {
                let file = File::options().write(true).open(site.path(name)).unwrap();
                file.set_len(round * 1013).unwrap();
                file.set_len(size as u64).unwrap();
            }
            thread::sleep(Duration::from_millis(round % 17));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    server.assert_alive();
    for name in names {
        fs::write(site.path(name), "at last").unwrap();
        server.wait_for_body(&format!("/{name}"), "at last");
    }
}

// Odd quiet periods.

#[test]
fn no_quiet_period_and_a_very_long_one_both_publish() {
    let site = TestSite::with(&[("file", b"1")]);
    let none = Server::with(&site, &["--settle", "0s"]);
    let long = Server::with(&site, &["--settle", "1m"]);
    for version in 2..4 {
        fs::write(site.path("file"), format!("{version}")).unwrap();
        none.wait_for_body("/file", format!("{version}"));
        let body = format!("{version}").into_bytes();
        let is_seen = || long.body("/file").as_deref() == Some(&body);
        within(
            Duration::from_secs(4),
            "2 s is the longest quiet period",
            is_seen,
        );
    }
    assert_eq!(none.digest(), digest_of(&site.root()));
}

// Promises of the operator.

#[test]
fn an_immutable_file_that_has_other_content_is_told_once() {
    let site = TestSite::with(&[
        ("assets/app.1.js", b"one"),
        ("assets/app.2.js", b"two"),
        ("index.html", b"here"),
    ]);
    let server = Server::with(&site, &[EVENTS, &["--immutable", "/assets/**"]].concat());
    let told = |path: &str| {
        let log = server.log();
        let lines = log
            .lines()
            .filter(|line| line.contains("was served as immutable"));
        lines.filter(|line| line.contains(path)).count()
    };
    fs::write(site.path("assets/app.3.js"), "three").unwrap();
    server.wait_for_body("/assets/app.3.js", "three");
    fs::write(site.path("index.html"), "there").unwrap();
    set_mtime(&site.path("assets/app.2.js"), 1_600_000_000);
    server.wait_for_body("/", "there");
    fs::write(site.path("assets/app.1.js"), "another").unwrap();
    server.wait_for_body("/assets/app.1.js", "another");
    server.wait_for(|lines| {
        lines
            .iter()
            .any(|line| line.contains("was served as immutable"))
    });
    let counts = ["app.1.js", "app.2.js", "app.3.js", "index"].map(told);
    assert_eq!(counts, [1, 0, 0, 0], "{}", server.log());
}

// Clocks.

/// Runs etagd under a clock of its own, which is off by what `clock` says (`+1d`, `-1d`).
fn beside_the_clock(clock: &Path) -> Option<Command> {
    if !has("faketime") {
        return None;
    }
    let mut shell = command("faketime");
    shell
        .args(["-f", "+0d", "sh", "-c"])
        .arg("unset FAKETIME; exec \"$0\" \"$@\"")
        .arg(env!("CARGO_BIN_EXE_etagd"))
        .env("FAKETIME_TIMESTAMP_FILE", clock)
        .env("FAKETIME_NO_CACHE", "1")
        // A step is one of the clock that people set.
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("NO_FAKE_STAT", "1");
    Some(shell)
}

#[test]
fn a_clock_that_steps_delays_nothing_and_loses_nothing() {
    let site = TestSite::with(&[("a.txt", b"0"), ("old.txt", b"old")]);
    let clock = site.outside("clock");
    fs::write(&clock, "+0d").unwrap();
    let Some(program) = beside_the_clock(&clock) else {
        return;
    };
    let server = Server::run(program, &site.root(), EVENTS);
    for (step, offset) in ["+1d", "-1d", "+10y", "-10y", "+0d"]
        .into_iter()
        .enumerate()
    {
        let old = server.client().get("/old.txt");
        rename_over(&clock, offset);
        let content = format!("step {step}");
        fs::write(site.path("a.txt"), &content).unwrap();
        let took = within(Duration::from_secs(10), "it is answered", || {
            server.body("/a.txt").as_deref() == Some(content.as_bytes())
        });
        assert!(took < Duration::from_secs(5), "{offset}: {took:?}");
        let now = server.client().get("/old.txt");
        assert_eq!(now.field("etag"), old.field("etag"), "{offset}");
        assert_eq!(
            now.field("last-modified"),
            old.field("last-modified"),
            "{offset}"
        );
        // What is being written is not shown, whatever the clock says of its age.
        let mut half = File::create(site.path("half.txt")).unwrap();
        half.write_all(b"one half").unwrap();
        stays(
            Duration::from_millis(400),
            "half a file is not served",
            || server.body("/half.txt").is_none(),
        );
        half.write_all(b", the other").unwrap();
        drop(half);
        server.wait_for_body("/half.txt", "one half, the other");
        fs::remove_file(site.path("half.txt")).unwrap();
        server.wait_for_absence("/half.txt");
    }
}

// Memory.

#[test]
fn dozens_of_deploys_leave_nothing_behind() {
    let site = TestSite::in_memory();
    let release = |version: u64| {
        let dir = site.outside(&format!("release{version}"));
        write_tree(&dir, 200, &format!("release {version}"));
        fs::write(dir.join("version"), format!("{version}")).unwrap();
        symlink("version", dir.join("link")).unwrap();
        dir
    };
    symlink(release(0), site.outside("current")).unwrap();
    let server = Server::at(&site.outside("current"), EVENTS);
    let deploy = |versions: std::ops::Range<u64>| {
        for version in versions {
            relink(&site.outside("current"), release(version));
            fs::remove_dir_all(site.outside(&format!("release{}", version - 1))).unwrap();
            server.wait_for_body("/link", format!("{version}"));
        }
        let open = fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
        (server.watches(), open.count(), server.resident())
    };
    let before = deploy(1..10);
    let after = deploy(10..30);
    assert!(after.0 <= before.0 + 4, "watches: {before:?} {after:?}");
    assert!(after.1 <= before.1 + 4, "descriptors: {before:?} {after:?}");
    assert!(after.2 <= before.2 + 8192, "memory: {before:?} {after:?}");
}
