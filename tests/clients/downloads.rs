//! Single files: curl, wget, aria2, zsync and Python's requests.

use std::fs;

use crate::support::tree::{eventually, has};
use crate::support::{TestSite, noise};
use crate::{Observed, client, count, folder, succeeded};

/// Larger than what is sent at once, and no multiple of a group.
const LARGE: usize = 3_000_001;

fn site() -> TestSite {
    TestSite::new()
        .file("a.txt", "hello\n")
        .file("large.bin", noise(LARGE, 1))
}

#[test]
fn curl_compares_tags_and_resumes() {
    if !has("curl") {
        return;
    }
    let served = Observed::with(site(), &[]);
    let dir = folder(&served.site, "curl");
    let url = served.url("/a.txt");
    let compare = ["-sS", "-f", "--etag-save", "tag", "--etag-compare", "tag"];
    let write = ["-w", "%{http_code}", "-o"];
    for (name, status) in [("one", "200"), ("two", "304")] {
        let arguments = [&compare[..], &write, &[name, &url]].concat();
        assert_eq!(succeeded(client("curl", &arguments, &dir)), status);
    }
    assert_eq!(fs::read(dir.join("one")).unwrap(), b"hello\n");
    let large = noise(LARGE, 1);
    fs::write(dir.join("large"), &large[..1_000_000]).unwrap();
    let url = served.url("/large.bin");
    succeeded(client(
        "curl",
        &["-sSf", "-C", "-", "-o", "large", &url],
        &dir,
    ));
    assert!(fs::read(dir.join("large")).unwrap() == large);
    let requests = served.requests();
    assert_eq!(count(&requests, "GET /a.txt 304"), 1, "{requests:?}");
    assert_eq!(count(&requests, "GET /large.bin 206"), 1, "{requests:?}");
}

#[test]
fn wget_continues_and_compares_dates() {
    if !has("wget") {
        return;
    }
    let served = Observed::with(site(), &[]);
    let dir = folder(&served.site, "wget");
    let large = noise(LARGE, 1);
    fs::write(dir.join("large.bin"), &large[..1_000_000]).unwrap();
    succeeded(client(
        "wget",
        &["-q", "-c", &served.url("/large.bin")],
        &dir,
    ));
    assert!(fs::read(dir.join("large.bin")).unwrap() == large);
    for _ in 0..2 {
        succeeded(client("wget", &["-q", "-N", &served.url("/a.txt")], &dir));
        assert_eq!(fs::read(dir.join("a.txt")).unwrap(), b"hello\n");
    }
    let requests = served.requests();
    let expected = ["GET /large.bin 206", "GET /a.txt 200", "GET /a.txt 304"];
    assert_eq!(requests, expected);
}

#[test]
fn aria2_fetches_pieces_at_once_and_compares_dates() {
    if !has("aria2c") {
        return;
    }
    let served = Observed::with(site(), &[]);
    let dir = folder(&served.site, "aria2");
    let url = served.url("/large.bin");
    let arguments = [
        "-q",
        "--no-conf",
        "-x4",
        "-s4",
        "-k1M",
        "--conditional-get=true",
        "--allow-overwrite=true",
        "--auto-file-renaming=false",
        &url,
    ];
    for _ in 0..2 {
        succeeded(client("aria2c", &arguments, &dir));
        assert!(fs::read(dir.join("large.bin")).unwrap() == noise(LARGE, 1));
    }
    let requests = served.requests();
    assert!(count(&requests, "GET /large.bin 206") > 0, "{requests:?}");
    assert_eq!(count(&requests, "GET /large.bin 304"), 1, "{requests:?}");
}

#[test]
fn zsync_fetches_what_has_changed() {
    if !has("zsync") {
        return;
    }
    let served = Observed::with(site(), &[]);
    let root = served.site.root();
    succeeded(client(
        "zsyncmake",
        &["-u", "large.bin", "large.bin"],
        &root,
    ));
    eventually("the new file is served", || {
        served.server.client().get("/large.bin.zsync").status == 200
    });
    let dir = folder(&served.site, "zsync");
    let large = noise(LARGE, 1);
    let mut old = large.clone();
    // Two places, so that it asks for two ranges.
    old[500_000..503_000].fill(0);
    old[2_000_000..2_000_100].fill(0);
    fs::write(dir.join("old"), old).unwrap();
    let url = served.url("/large.bin.zsync");
    succeeded(client(
        "zsync",
        &["-q", "-i", "old", "-o", "new", &url],
        &dir,
    ));
    assert!(fs::read(dir.join("new")).unwrap() == large);
    let requests = served.requests();
    assert!(count(&requests, "GET /large.bin 206") > 0, "{requests:?}");
    assert_eq!(count(&requests, "GET /large.bin 200"), 0, "{requests:?}");
}

#[test]
fn requests_for_python_keeps_a_connection_and_revalidates() {
    // Debian's, whose library is for Debian's interpreter.
    const PYTHON: &str = "/usr/bin/python3";
    let has_library = has(PYTHON)
        && client(
            PYTHON,
            &["-c", "import requests"],
            std::env::temp_dir().as_path(),
        )
        .status
        .success();
    let must = std::env::var_os("ETAGD_NO_SKIP").is_some();
    assert!(has_library || !must, "python3-requests is not installed");
    if !has_library {
        return;
    }
    let served = Observed::with(site().file("a.txt.gz", gzip("hello\n")), &[]);
    let script = "import sys, requests\n\
                  session = requests.Session()\n\
                  first = session.get(sys.argv[1])\n\
                  assert first.content == b'hello\\n', first.content\n\
                  tag = first.headers['ETag']\n\
                  second = session.get(sys.argv[1], headers={'If-None-Match': tag})\n\
                  assert second.status_code == 304 and not second.content\n\
                  part = session.get(sys.argv[2], headers={'Range': 'bytes=10-19'})\n\
                  assert part.status_code == 206 and len(part.content) == 10\n\
                  open('large', 'wb').write(session.get(sys.argv[2]).content)\n";
    let dir = folder(&served.site, "python");
    let (small, large) = (served.url("/a.txt"), served.url("/large.bin"));
    succeeded(client(PYTHON, &["-c", script, &small, &large], &dir));
    assert!(fs::read(dir.join("large")).unwrap() == noise(LARGE, 1));
    assert_eq!(count(&served.requests(), "GET /a.txt 304"), 1);
}

fn gzip(content: &str) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content.as_bytes()).unwrap();
    encoder.finish().unwrap()
}
