//! Disks that take nothing: each failure has a clear status, and what was there stays.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::pen::{Pen, files};
use super::support::server::{command, limited, unprivileged};
use super::support::{Server, TestSite, noise, tag};

/// A command that runs etagd where `prepare`, with the site as `$site`, was run in a mount
/// namespace of its own; none where that can't be had.
fn mounting(prepare: &str) -> Option<Command> {
    let works = command("unshare")
        .args(["--mount", "mount", "-t", "tmpfs", "none", "/mnt"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !works {
        #[allow(clippy::print_stderr)]
        {
            eprintln!("skipped: no mount namespace can be had");
        }
        return None;
    }
    let mut shell = command("unshare");
    shell.args(["--mount", "sh", "-ec"]);
    shell.arg(format!("site=$2; {prepare}; exec \"$0\" \"$@\""));
    shell.arg(env!("CARGO_BIN_EXE_etagd"));
    Some(shell)
}

#[test]
fn a_full_disk_takes_no_upload_and_answers_reads() {
    let site = TestSite::with(&[("a.txt", b"one")]);
    let prepare = "mount -t tmpfs -o size=2m none \"$site\"; printf one > \"$site/a.txt\"";
    let Some(program) = mounting(prepare) else {
        return;
    };
    let server = Server::run(program, &site.root(), &["--writable"]);
    let mut pen = Pen::new(&server);
    // Told before the content is taken, where its length is known.
    let large = noise(3 << 20, 1);
    assert_eq!(pen.create("/large.bin", &large).status, 507);
    let mut pen = Pen::new(&server);
    let chunks: Vec<u8> = large
        .chunks(100_000)
        .flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat())
        .chain(*b"0\r\n\r\n")
        .collect();
    let head = "PUT /large.bin HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: *\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    let response = pen.exchange("PUT", &[head.as_bytes(), &chunks].concat());
    assert_eq!(response.status, 507, "{}", response.body.escape_ascii());
    let mut pen = Pen::new(&server);
    assert_eq!(pen.get("/a.txt").body, b"one");
    // What did not fit has left nothing.
    let half = noise(1500 << 10, 2);
    assert_eq!(pen.create("/half.bin", &half).status, 201);
    assert_eq!(pen.create("/more.bin", &half).status, 507);
    let mut pen = Pen::new(&server);
    // Room for the new version is needed beside the old one.
    assert_eq!(pen.replace("/half.bin", &tag(&half), &half).status, 507);
    let mut pen = Pen::new(&server);
    assert!(pen.get("/half.bin").body == half);
    assert_eq!(pen.delete("/half.bin", &tag(&half)).status, 204);
    assert_eq!(pen.create("/more.bin", &half).status, 201);
    assert_eq!(pen.replace("/a.txt", &tag(b"one"), "two").status, 204);
    let log = server.log();
    assert!(
        log.contains("cannot write /large.bin: No space left on device"),
        "{log}"
    );
}

#[test]
fn a_limit_of_files_is_no_end() {
    let site = TestSite::with(&[("a.txt", b"one")]);
    // In blocks of 512 bytes.
    let server = Server::run(limited("-f 200"), &site.root(), &["--writable"]);
    let large = noise(200 << 10, 1);
    assert_eq!(Pen::new(&server).create("/large.bin", &large).status, 507);
    let head = "PUT /large.bin HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: *\r\n\
                Transfer-Encoding: chunked\r\n\r\n32000\r\n";
    let chunked = [head.as_bytes(), &large, b"\r\n0\r\n\r\n"].concat();
    assert_eq!(Pen::new(&server).exchange("PUT", &chunked).status, 507);
    let mut pen = Pen::new(&server);
    assert_eq!(pen.replace("/a.txt", &tag(b"one"), "two").status, 204);
    assert_eq!(files(&site.root()), [site.path("a.txt")]);
}

#[test]
fn a_read_only_root_is_served_and_not_written() {
    let site = TestSite::with(&[("a.txt", b"one")]);
    let prepare = "mount --bind \"$site\" \"$site\"; mount -o remount,bind,ro \"$site\"";
    let Some(program) = mounting(prepare) else {
        return;
    };
    let server = Server::run(program, &site.root(), &["--writable"]);
    let mut pen = Pen::new(&server);
    assert_eq!(pen.replace("/a.txt", &tag(b"one"), "two").status, 403);
    assert_eq!(pen.create("/new.txt", "new").status, 403);
    assert_eq!(pen.delete("/a.txt", &tag(b"one")).status, 403);
    assert_eq!(pen.get("/a.txt").body, b"one");
    let log = server.log();
    assert!(
        log.contains("cannot write /a.txt: Read-only file system"),
        "{log}"
    );
}

#[test]
fn what_etagd_may_not_write_stays() {
    let site = TestSite::with(&[("a.txt", b"one"), ("own/b.txt", b"one")]);
    let Some(program) = unprivileged() else {
        return;
    };
    if !rustix::process::geteuid().is_root() {
        fs::set_permissions(site.root(), fs::Permissions::from_mode(0o555)).unwrap();
    }
    fs::set_permissions(site.path("own"), fs::Permissions::from_mode(0o777)).unwrap();
    let server = Server::run(program, &site.root(), &["--writable"]);
    let mut pen = Pen::new(&server);
    assert_eq!(pen.replace("/a.txt", &tag(b"one"), "two").status, 403);
    assert_eq!(pen.create("/new.txt", "new").status, 403);
    assert_eq!(pen.create("/new/new.txt", "new").status, 403);
    assert_eq!(pen.delete("/a.txt", &tag(b"one")).status, 403);
    assert_eq!(pen.replace("/own/b.txt", &tag(b"one"), "two").status, 204);
    assert_eq!(pen.get("/a.txt").body, b"one");
    assert_eq!(pen.get("/own/b.txt").body, b"two");
    let log = server.log();
    assert!(
        log.contains("cannot write /a.txt: Permission denied"),
        "{log}"
    );
    fs::set_permissions(site.root(), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_root_that_is_away_takes_nothing() {
    let site = TestSite::with(&[("a.txt", b"one")]);
    let server = Server::with(&site, &["--writable"]);
    let mut pen = Pen::new(&server);
    let away = site.outside("away");
    fs::rename(site.root(), &away).unwrap();
    for refused in [
        pen.replace("/a.txt", &tag(b"one"), "two"),
        pen.create("/new/b.txt", "two"),
        pen.delete("/a.txt", &tag(b"one")),
    ] {
        assert_eq!(refused.status, 503);
        let reason = "the directory of the site is missing: try again later\n";
        assert_eq!(String::from_utf8_lossy(&refused.body), reason);
    }
    assert_eq!(pen.get("/a.txt").body, b"one");
    fs::rename(&away, site.root()).unwrap();
    super::support::tree::eventually("it is written again", || {
        pen.replace("/a.txt", &tag(b"one"), "two").status == 204
    });
    assert_eq!(files(&site.root()), [site.path("a.txt")]);
}

#[test]
fn reads_continue_during_uploads_that_are_too_large() {
    let site = TestSite::with(&[("a.txt", b"one")]);
    let server = Server::with(&site, &["--writable", "--max-upload", "1MiB"]);
    thread::scope(|scope| {
        let endless = scope.spawn(|| {
            let mut client = server.client();
            client
                .socket()
                .set_write_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            let head = "PUT /b HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: *\r\n\
                        Transfer-Encoding: chunked\r\n\r\n";
            client.send(head).unwrap();
            let chunk = [b"10000\r\n", &[b'x'; 0x10000][..], b"\r\n"].concat();
            let mut sent = 0;
            while client.send(&chunk).is_ok() {
                sent += chunk.len();
                assert!(sent < 128 << 20, "nobody stops it");
            }
        });
        let mut pen = Pen::new(&server);
        while !endless.is_finished() {
            assert_eq!(pen.get("/a.txt").body, b"one");
        }
    });
    assert_eq!(files(&site.root()), [site.path("a.txt")]);
}
