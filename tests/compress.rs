//! `etagd compress` with the real binary: what it writes, what it leaves alone, what it says.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use support::server::{command, unprivileged};
use support::site::set_mtime;
use support::tree::EndOfWork;
use support::{TestSite, noise};

/// Everything in the site that is a regular file, with what it holds.
fn content(site: &TestSite) -> BTreeMap<String, Vec<u8>> {
    let entries = walkdir::WalkDir::new(site.root()).into_iter();
    let files = entries
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().is_file());
    files
        .map(|entry| {
            let path = entry.path().strip_prefix(site.root()).unwrap();
            let path = path.to_str().unwrap().to_owned();
            (path, fs::read(entry.path()).unwrap())
        })
        .collect()
}

fn paths(site: &TestSite) -> Vec<String> {
    content(site).into_keys().collect()
}

fn write(site: &TestSite, path: &str, content: &[u8]) {
    fs::write(site.path(path), content).unwrap();
}

fn read(site: &TestSite, path: &str) -> Vec<u8> {
    fs::read(site.path(path)).unwrap()
}

struct Outcome {
    code: i32,
    out: String,
    err: String,
}

fn compress(site: &TestSite, flags: &[&str]) -> Outcome {
    run(etagd(), &site.root(), flags)
}

fn etagd() -> Command {
    command(env!("CARGO_BIN_EXE_etagd"))
}

fn run(mut program: Command, directory: &Path, flags: &[&str]) -> Outcome {
    let program = program.arg("compress").args(flags).arg(directory);
    let Output {
        status,
        stdout,
        stderr,
    } = program.output().unwrap();
    Outcome {
        code: status.code().unwrap(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

#[test]
fn forms_that_nobody_has_have_no_size() {
    let site = TestSite::new().file("a.txt", noise(5000, 1));
    let outcome = compress(&site, &[]);
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    let says = "no sidecars; 0 sidecars written, 0 proven";
    assert!(outcome.err.contains(says), "{}", outcome.err);
}

/// Text that compresses well, another one for each `seed`.
fn text(length: usize, seed: usize) -> Vec<u8> {
    let lines = (seed..).map(|line| format!("<p>{line}: {}</p>\n", line * line % 577));
    lines.flat_map(String::into_bytes).take(length).collect()
}

fn decoded(path: &Path) -> Vec<u8> {
    let mut decoded = Vec::new();
    let file = File::open(path).unwrap();
    match path.extension().unwrap().to_str().unwrap() {
        "br" => brotli::Decompressor::new(file, 4096).read_to_end(&mut decoded),
        "zst" => zstd::Decoder::new(file).unwrap().read_to_end(&mut decoded),
        "gz" => flate2::read::GzDecoder::new(file).read_to_end(&mut decoded),
        other => panic!("{other} is no sidecar's extension"),
    }
    .unwrap();
    decoded
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn files_that_gain_from_it_get_sidecars_that_decode_to_them() {
    let text = &text(3000, 1)[..];
    let noise = &noise(3000, 1)[..];
    let worth_it = [
        "index.html",
        "a/deep/style.css",
        "LICENSE",
        ".well-known/data.json",
        "just-large-enough.txt",
    ];
    let site = TestSite::with(&[
        ("index.html", text),
        ("a/deep/style.css", text),
        ("LICENSE", text),
        (".well-known/data.json", text),
        ("just-large-enough.txt", &text[..1024]),
        ("too-small.txt", &text[..1023]),
        ("noise.txt", noise),
        ("blob", noise),
        // What says that it is compressed, and is no text.
        ("picture.png", &[b"\x89PNG\r\n\x1a\n\0", text].concat()),
        ("drawing.svgz", text),
        ("archive.tar", text),
        (".hidden.html", text),
        (".git/page.html", text),
        ("_headers", text),
    ]);
    let before = paths(&site);
    let outcome = compress(&site, &[]);
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert_eq!(outcome.out, "");
    let mut want = before.clone();
    for path in worth_it {
        for extension in ["br", "zst", "gz"] {
            let sidecar = format!("{path}.{extension}");
            assert_eq!(
                decoded(&site.path(&sidecar)),
                read(&site, path),
                "{sidecar}"
            );
            want.push(sidecar);
        }
    }
    want.sort();
    assert_eq!(paths(&site), want);
    let summary = "6 files, 15.65 KiB: ";
    assert!(outcome.err.starts_with(summary), "{}", outcome.err);
    assert!(
        outcome.err.contains("; 15 sidecars written, 0 proven, "),
        "{}",
        outcome.err
    );
}

#[test]
fn a_second_run_writes_nothing() {
    let site = TestSite::with(&[("a.html", &text(3000, 1)), ("b.html", &text(9000, 2))]);
    assert_eq!(compress(&site, &[]).code, 0);
    let state = || {
        let paths = paths(&site).into_iter();
        let state = paths.map(|path| {
            let stat = fs::symlink_metadata(site.path(&path)).unwrap();
            (path, stat.ino(), stat.ctime_nsec())
        });
        state.collect::<Vec<_>>()
    };
    let before = state();
    let outcome = compress(&site, &[]);
    assert_eq!(outcome.code, 0);
    assert!(
        outcome.err.contains(" 0 sidecars written, 6 proven"),
        "{}",
        outcome.err
    );
    assert_eq!(state(), before);
}

#[test]
fn equal_files_get_equal_sidecars_with_any_number_of_threads() {
    let contents: Vec<_> = (1..8).map(|seed| text(seed * 1500, seed)).collect();
    let names: Vec<_> = (1..8).map(|number| format!("{number}.html")).collect();
    let pairs = names
        .iter()
        .map(String::as_str)
        .zip(contents.iter().map(Vec::as_slice));
    let files: Vec<(&str, &[u8])> = pairs.collect();
    let sidecars = |threads: i64| {
        let site = TestSite::with(&files);
        for (path, _) in &files {
            set_mtime(&site.path(path), 1_000_000_000 + threads);
        }
        let mut program = etagd();
        program.env("RAYON_NUM_THREADS", threads.to_string());
        let outcome = run(program, &site.root(), &[]);
        assert_eq!(outcome.code, 0, "{}", outcome.err);
        content(&site)
    };
    let alone = sidecars(1);
    assert_eq!(alone.len(), 7 * 4);
    assert!(sidecars(5) == alone);
}

#[test]
fn a_stale_sidecar_is_rewritten() {
    let site = TestSite::with(&[("a.html", &text(3000, 1))]);
    compress(&site, &[]);
    write(&site, "a.html", &text(4000, 2));
    let outcome = compress(&site, &[]);
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    for extension in ["br", "zst", "gz"] {
        assert_eq!(
            decoded(&site.path(format!("a.html.{extension}"))),
            read(&site, "a.html")
        );
    }
}

#[test]
fn a_stale_sidecar_is_removed_when_it_no_longer_saves_anything() {
    let site = TestSite::with(&[("a.html", &text(3000, 1)), ("b.txt", &text(3000, 2))]);
    compress(&site, &[]);
    write(&site, "a.html", b"short");
    write(&site, "b.txt", &noise(3000, 1));
    assert_eq!(compress(&site, &[]).code, 0);
    assert_eq!(paths(&site), ["a.html", "b.txt"]);
    assert_eq!(compress(&site, &["--check"]).code, 0);
}

#[test]
fn what_does_not_decode_is_left_alone() {
    let site = TestSite::with(&[
        ("a.html", &text(3000, 1)),
        (
            "a.html.br",
            b"a file of another trade, kept under this name by somebody",
        ),
        ("a.html.gz", b"notes of somebody"),
        // Not for us to touch: this type gets no sidecars.
        ("all.tar", &text(3000, 1)),
        ("all.tar.gz", &gzip(&text(3000, 9))),
    ]);
    let before = content(&site);
    let outcome = compress(&site, &[]);
    assert_eq!(outcome.code, 1);
    for (path, content) in before {
        assert_eq!(read(&site, &path), content, "{path}");
    }
    assert_eq!(decoded(&site.path("a.html.zst")), read(&site, "a.html"));
    let gz = site.path("a.html.gz").canonicalize().unwrap();
    let want = format!(
        "warning: {}: it is damaged, or no gzip at all: left alone; remove it and run again\n",
        gz.display()
    );
    assert!(outcome.err.contains(&want), "{}", outcome.err);
    let error = format!(
        "error: 2 problems in {}, see above: run again once they are solved\n",
        site.root().display()
    );
    assert!(outcome.err.ends_with(&error), "{}", outcome.err);
}

#[test]
fn check_lists_what_is_not_proven_and_writes_nothing() {
    let site = TestSite::with(&[("a.html", &text(3000, 1)), ("b/c.css", &text(3000, 2))]);
    assert_eq!(
        compress(&site, &["--check"]).code,
        0,
        "nothing there, nothing wrong"
    );
    compress(&site, &[]);
    let outcome = compress(&site, &["--check"]);
    assert_eq!((outcome.code, outcome.out.as_str()), (0, ""));
    write(&site, "b/c.css", &text(3100, 5));
    write(&site, "a.html.zst", b"");
    // The server tries these too, whatever the type.
    write(&site, "photo.png", &noise(100, 1));
    write(&site, "photo.png.gz", &gzip(&noise(101, 1)));
    // No sidecar of anything.
    write(&site, "gone.html.gz", b"notes");
    let before = content(&site);
    let outcome = compress(&site, &["--check"]);
    assert_eq!(outcome.code, 1);
    assert_eq!(
        outcome.out,
        "/a.html.zst\tit is cut short\n\
         /b/c.css.br\tit decodes to other bytes than the file has now\n\
         /b/c.css.gz\tit decodes to other bytes than the file has now\n\
         /b/c.css.zst\tit decodes to other bytes than the file has now\n\
         /photo.png.gz\tit decodes to more bytes than the file has now\n"
    );
    assert!(
        outcome.err.contains("2 sidecars of 3 files are proven"),
        "{}",
        outcome.err
    );
    assert!(
        outcome.err.contains("warning: 5 sidecars are not proven"),
        "{}",
        outcome.err
    );
    assert!(content(&site) == before);
}

#[test]
fn remove_deletes_only_sidecars_that_can_be_made_again() {
    let site = TestSite::with(&[
        ("a.html", &text(3000, 1)),
        ("b.html", &text(3000, 2)),
        ("all.tar", &text(3000, 3)),
        ("all.tar.gz", &gzip(&text(3000, 3))),
        ("gone.html.gz", &gzip(b"notes")),
    ]);
    compress(&site, &[]);
    write(&site, "b.html.gz", &gzip(&text(2000, 7)));
    let outcome = compress(&site, &["--remove"]);
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    let left = [
        "a.html",
        "all.tar",
        "all.tar.gz",
        "b.html",
        "b.html.br",
        "b.html.gz",
        "b.html.zst",
        "gone.html.gz",
    ];
    // Nothing beside `b.html` says who wrote the other two.
    assert_eq!(paths(&site), left);
    assert!(
        outcome.err.contains("3 sidecars removed"),
        "{}",
        outcome.err
    );
    assert!(
        outcome.err.contains("b.html.gz: it decodes to other bytes"),
        "{}",
        outcome.err
    );
}

#[test]
fn a_sidecar_has_its_files_permissions() {
    let site = TestSite::with(&[("a.html", &text(3000, 1)), ("b.html", &text(3000, 2))]);
    let mode = |path: &str| fs::metadata(site.path(path)).unwrap().permissions().mode() & 0o7777;
    let set = |path: &str, mode| {
        fs::set_permissions(site.path(path), PermissionsExt::from_mode(mode)).unwrap();
    };
    set("a.html", 0o640);
    set("b.html", 0o4444);
    compress(&site, &[]);
    for extension in ["br", "zst", "gz"] {
        assert_eq!(mode(&format!("a.html.{extension}")), 0o640);
        assert_eq!(mode(&format!("b.html.{extension}")), 0o444);
    }
}

#[test]
fn links_are_followed_inside_and_never_outside() {
    let site = TestSite::with(&[("real/a.html", &text(3000, 1)), ("b.html", &text(3000, 2))]);
    let outside = site.outside("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("c.html"), text(3000, 3)).unwrap();
    fs::write(outside.join("target"), "not a sidecar").unwrap();
    symlink("real", site.path("linked")).unwrap();
    symlink("real/a.html", site.path("other-name.html")).unwrap();
    symlink(&outside, site.path("out")).unwrap();
    symlink(outside.join("c.html"), site.path("c.html")).unwrap();
    symlink(outside.join("target"), site.path("b.html.br")).unwrap();
    let outcome = compress(&site, &[]);
    assert_eq!(outcome.code, 1, "{}", outcome.err);
    assert_eq!(
        paths(&site),
        [
            "b.html",
            "b.html.gz",
            "b.html.zst",
            "other-name.html.br",
            "other-name.html.gz",
            "other-name.html.zst",
            "real/a.html",
            "real/a.html.br",
            "real/a.html.gz",
            "real/a.html.zst",
        ]
    );
    assert!(
        outcome.err.contains("b.html.br: its name is taken"),
        "{}",
        outcome.err
    );
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 2);
    assert_eq!(fs::read(outside.join("target")).unwrap(), b"not a sidecar");
}

#[test]
fn what_cannot_be_written_is_named_and_the_rest_is_done() {
    let site = TestSite::with(&[("a.html", &text(3000, 1)), ("b.html", &text(3000, 2))]);
    fs::create_dir(site.path("a.html.zst")).unwrap();
    let long = format!("{}.html", "x".repeat(248));
    write(&site, &long, &text(3000, 3));
    let outcome = compress(&site, &[]);
    assert_eq!(outcome.code, 1);
    assert!(
        outcome.err.contains("a.html.zst: its name is taken"),
        "{}",
        outcome.err
    );
    assert!(
        outcome.err.contains(".html.br: File name too long"),
        "{}",
        outcome.err
    );
    for path in [
        "a.html.br",
        "a.html.gz",
        "b.html.br",
        "b.html.zst",
        "b.html.gz",
    ] {
        assert!(site.path(path).is_file(), "{path}");
    }
    let all = paths(&site);
    let hidden = all.iter().find(|path| path.contains(".etagd"));
    assert_eq!(hidden, None, "no temporary file stays");
}

#[test]
fn a_directory_that_takes_no_files_is_named_once() {
    let Some(program) = unprivileged() else {
        #[allow(clippy::print_stderr)]
        {
            eprintln!("skipped: there is no way to run as a user who may not write everywhere");
        }
        return;
    };
    let site = TestSite::with(&[("a/a.html", &text(3000, 1)), ("a/b.html", &text(3000, 2))]);
    let set = |mode| fs::set_permissions(site.path("a"), PermissionsExt::from_mode(mode)).unwrap();
    set(0o555);
    let outcome = run(program, &site.root(), &[]);
    set(0o755);
    assert_eq!(outcome.code, 1);
    let message = "/a: sidecars cannot be written here: Permission denied";
    let count = outcome.err.matches(message).count();
    assert_eq!(count, 1, "{}", outcome.err);
    assert_eq!(paths(&site), ["a/a.html", "a/b.html"]);
}

#[test]
fn a_file_that_changes_meanwhile_is_left_out() {
    let site = TestSite::with(&[("log.txt", &text(200_000, 1))]);
    let is_done = AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        let _end = EndOfWork(&is_done);
        scope.spawn(|| {
            let mut log = File::options()
                .append(true)
                .open(site.path("log.txt"))
                .unwrap();
            while !is_done.load(Ordering::Relaxed) {
                log.write_all(b"a line more\n").unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        });
        compress(&site, &[])
    });
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert!(
        outcome.err.contains("log.txt: it changed meanwhile"),
        "{}",
        outcome.err
    );
    assert!(!site.path("log.txt.br").exists());
}

#[test]
fn a_file_too_large_for_memory_is_left_out() {
    let site = TestSite::with(&[]);
    let file = File::create(site.path("dump.txt")).unwrap();
    file.set_len((256 << 20) + 1).unwrap();
    let outcome = compress(&site, &[]);
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert_eq!(
        outcome.err.matches("larger than 256 MiB").count(),
        1,
        "{}",
        outcome.err
    );
    assert_eq!(paths(&site), ["dump.txt"]);
}

#[test]
fn exit_codes() {
    let site = TestSite::with(&[]);
    assert_eq!(compress(&site, &[]).code, 0);
    assert_eq!(compress(&site, &["--check", "--remove"]).code, 2);
    assert_eq!(compress(&site, &["--quality", "3"]).code, 2);
    let outcome = run(etagd(), &site.path("nowhere"), &[]);
    assert_eq!(outcome.code, 1);
    assert!(
        outcome.err.contains("nowhere: No such file or directory"),
        "{}",
        outcome.err
    );
}

#[test]
fn sidecars_of_other_programs_are_left_alone() {
    let gzip = |content: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    };
    let notes = "notes that are long enough to be worth a sidecar. ".repeat(60);
    let backup = gzip("all that was in the database ".repeat(900).as_bytes());
    let site = TestSite::with(&[
        ("dump.sql", b"select 1;"),
        ("dump.sql.gz", &backup),
        ("notes.txt", notes.as_bytes()),
    ]);
    // As `gzip -k` makes it: proven, and not ours.
    let by_hand = [
        &gzip(notes.as_bytes())[..9],
        &[3],
        &gzip(notes.as_bytes())[10..],
    ]
    .concat();
    write(&site, "notes.txt.gz", &by_hand);
    compress(&site, &[]);
    assert!(
        read(&site, "dump.sql.gz") == backup,
        "a backup is no stale sidecar"
    );
    let removal = compress(&site, &["--remove"]);
    assert!(read(&site, "dump.sql.gz") == backup);
    assert!(read(&site, "notes.txt.gz") == by_hand, "{}", removal.err);
    assert!(removal.err.contains("notes.txt.gz"), "{}", removal.err);
}

#[test]
fn what_is_left_out_gets_no_sidecars() {
    let text = b"what is compressed here is text, and of text there is enough\n".repeat(50);
    let site = TestSite::with(&[("a.txt", &text), ("out/b.txt", &text), ("c.txt", &text)])
        .file(".etagdignore", "out/\n");
    let outcome = compress(&site, &["--exclude", "c.*"]);
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    let sidecars: Vec<_> = paths(&site)
        .into_iter()
        .filter(|path| path.ends_with(".gz"))
        .collect();
    assert_eq!(sidecars, ["a.txt.gz"]);
}

#[test]
fn leftovers_of_a_killed_run_are_removed() {
    let site = TestSite::with(&[("a.html", &text(3000, 1))]);
    let (left_behind, at_work) = (".etagd-1-0", ".etagd-1-1");
    for name in [left_behind, at_work] {
        write(&site, name, b"half of a sidecar");
    }
    let author = File::open(site.path(at_work)).unwrap();
    rustix::fs::flock(&author, rustix::fs::FlockOperation::LockExclusive).unwrap();
    compress(&site, &[]);
    assert!(!site.path(left_behind).exists());
    assert!(site.path(at_work).exists(), "its author may still name it");
}
