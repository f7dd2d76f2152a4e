//! P7 and P11: the same tree gives the same tags, the same manifest to the byte and the same site
//! digest, wherever, whenever and in whatever order it was made; another tree gives others.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use crate::support::site::{MTIME, overwrite_in_place, set_mtime};
use crate::support::tree::eventually;
use crate::support::{Server, TestSite, etagd, noise, tag};

/// A tree with small and large files, and names that are hard to write.
fn tree() -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut tree: Vec<(Vec<u8>, Vec<u8>)> = (0..40_u64)
        .map(|n| {
            (
                format!("d{}/f{n}.html", n % 7).into_bytes(),
                noise(100 * n as usize, n),
            )
        })
        .collect();
    tree.extend([
        (b"index.html".to_vec(), b"<!doctype html>".to_vec()),
        (b"middle.bin".to_vec(), noise(300_000, 98)),
        (b"big.bin".to_vec(), noise(2_000_000, 99)),
        (b"empty".to_vec(), Vec::new()),
        (b"caf\xe9".to_vec(), b"no UTF-8".to_vec()),
        ("caf\u{e9}".into(), b"one character".to_vec()),
        ("cafe\u{301}".into(), b"two characters".to_vec()),
        (b"a b\t\"%41\n#?.txt".to_vec(), b"hard to write".to_vec()),
        (b".well-known/security.txt".to_vec(), b"Contact: x".to_vec()),
    ]);
    tree
}

/// A copy of the tree: forwards or backwards, with these mtimes.
fn copy(backwards: bool, mtime: i64) -> TestSite {
    let mut files = tree();
    if backwards {
        files.reverse();
        // Other inodes, and other places in their directories.
        files
            .iter()
            .take(20)
            .for_each(|_| drop(tempfile::tempfile().unwrap()));
    }
    let site = files
        .iter()
        .enumerate()
        .fold(TestSite::new(), |site, (n, (name, content))| {
            site.file_dated(name, content, mtime + n as i64)
        });
    if backwards {
        site.dir("empty directory")
    } else {
        site
    }
}

/// What `etagd manifest` prints.
fn manifest(dir: &Path, flags: &[&str]) -> String {
    let mut arguments = vec!["manifest".as_ref(), dir.as_os_str()];
    arguments.extend(flags.iter().map(|flag| std::ffi::OsStr::new(*flag)));
    let output = etagd(arguments);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn digest(dir: &Path) -> String {
    manifest(dir, &["--digest"]).trim_end().to_owned()
}

/// The lines of the text form, in their columns.
fn lines(text: &str) -> Vec<Vec<&str>> {
    text.lines()
        .map(|line| line.split('\t').collect())
        .collect()
}

#[test]
fn p7_servers_of_two_copies_answer_alike() {
    let (one, two) = (copy(false, MTIME), copy(true, MTIME - 5_000_000));
    let (first, second) = (Server::start(&one), Server::with(&two, &["--workers", "1"]));
    let (mut a, mut b) = (first.client(), second.client());
    let text = manifest(&one.root(), &[]);
    assert_eq!(lines(&text).len(), tree().len());
    for columns in lines(&text) {
        let (a, b) = (a.get(columns[0]), b.get(columns[0]));
        assert_eq!((a.status, b.status), (200, 200), "{}", columns[0]);
        assert_eq!(a.field("ETag"), Some(columns[1]));
        assert_eq!(b.field("ETag"), Some(columns[1]));
        assert!(a.body == b.body, "{} differs", columns[0]);
        assert_eq!(a.field("Content-Type"), b.field("Content-Type"));
    }
    // Several ranges: the boundary between them is the same, and so each byte.
    for (target, ranges) in [
        ("/big.bin", "bytes=0-9,300000-300100,-7"),
        ("/middle.bin", "bytes=1-1,3-3"),
        ("/d1/f8.html", "bytes=0-0,700-"),
    ] {
        let (a, b) = (("Range", ranges), ("Range", ranges));
        let a = first.client().request("GET", target, &[a]);
        let b = second.client().request("GET", target, &[b]);
        assert_eq!((a.status, b.status), (206, 206), "{target}");
        let boundary = a.field("Content-Type").unwrap();
        assert!(boundary.starts_with("multipart/byteranges; boundary="));
        assert_eq!(Some(boundary), b.field("Content-Type"), "{target}");
        assert!(a.body == b.body, "{target} {ranges}");
    }
    // A revalidation hits on either, whichever gave the tag, with or without a date beside it.
    let etag = a.get("/big.bin").field("ETag").unwrap().to_owned();
    let date = a.get("/big.bin").field("Last-Modified").unwrap().to_owned();
    for fields in [
        &[("If-None-Match", etag.as_str())][..],
        &[
            ("If-None-Match", etag.as_str()),
            ("If-Modified-Since", date.as_str()),
        ],
    ] {
        assert_eq!(b.request("GET", "/big.bin", fields).status, 304);
    }
}

#[test]
fn p7_both_servers_say_the_digest_that_the_manifest_has() {
    let (one, two) = (copy(false, MTIME), copy(true, MTIME + 1000));
    let digest = digest(&one.root());
    assert_eq!(digest.len(), 64, "{digest}");
    assert!(
        digest.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{digest}"
    );
    for site in [&one, &two] {
        let log = Server::start(site).log();
        // The summary may show the beginning of it only.
        assert!(log.contains(&digest[..12]), "{digest} is not in:\n{log}");
    }
}

#[test]
fn p11_two_copies_have_one_manifest_to_the_byte() {
    let (one, two) = (copy(false, MTIME), copy(true, 2));
    for flags in [
        &[][..],
        &["--format", "text"],
        &["--format", "json"],
        &["--digest"],
    ] {
        let (a, b) = (manifest(&one.root(), flags), manifest(&two.root(), flags));
        assert_eq!(a, b, "{flags:?}");
        assert_eq!(a, manifest(&one.root(), flags), "a second run, {flags:?}");
        assert!(a.ends_with('\n'), "{flags:?}");
    }
}

#[test]
fn p11_the_text_form_lists_each_file_once_in_the_order_of_its_bytes() {
    let site = copy(true, MTIME);
    let text = manifest(&site.root(), &[]);
    let mut expected = BTreeMap::new();
    for (name, content) in tree() {
        expected.insert(name, (tag(&content), content.len().to_string()));
    }
    let lines = lines(&text);
    let names: Vec<_> = lines.iter().map(|columns| decoded(columns[0])).collect();
    assert_eq!(
        names,
        expected.keys().cloned().collect::<Vec<_>>(),
        "sorted, complete, unique"
    );
    for (columns, (tag, size)) in lines.iter().zip(expected.values()) {
        assert_eq!(columns.len(), 4, "{columns:?}");
        assert_eq!(
            (columns[1], columns[2]),
            (tag.as_str(), size.as_str()),
            "{columns:?}"
        );
        assert!(columns[3].contains('/'), "{columns:?}");
        assert!(
            columns[0].bytes().all(|byte| byte.is_ascii_graphic()),
            "{columns:?}"
        );
    }
}

#[test]
fn p11_the_json_form_says_what_the_text_form_says() {
    let site = copy(false, MTIME);
    let text = manifest(&site.root(), &["--format", "text"]);
    let json: serde_json::Value =
        serde_json::from_str(&manifest(&site.root(), &["--format", "json"])).unwrap();
    assert_eq!(json["format"], 1);
    assert_eq!(json["complete"], true);
    assert_eq!(json["digest"], digest(&site.root()).as_str());
    let entries = json["entries"].as_array().unwrap();
    let lines = lines(&text);
    assert_eq!(entries.len(), lines.len());
    for (entry, columns) in entries.iter().zip(lines) {
        assert_eq!(entry["path"], columns[0]);
        assert_eq!(entry["etag"], columns[1]);
        assert_eq!(entry["size"].as_u64().unwrap().to_string(), columns[2]);
        assert_eq!(entry["type"], columns[3]);
        assert!(
            entry.get("coding").is_none_or(serde_json::Value::is_null),
            "{entry}"
        );
    }
}

#[test]
fn p11_each_line_is_what_the_server_answers() {
    let site = copy(false, MTIME);
    let server = Server::start(&site);
    let mut client = server.client();
    for columns in lines(&manifest(&site.root(), &[])) {
        let response = client.request("HEAD", columns[0], &[]);
        assert_eq!(response.status, 200, "{columns:?}");
        assert_eq!(response.field("ETag"), Some(columns[1]));
        assert_eq!(response.field("Content-Length"), Some(columns[2]));
        assert_eq!(response.field("Content-Type"), Some(columns[3]));
    }
}

#[test]
fn p7_while_a_file_is_being_written_the_digest_is_incomplete() {
    let site = TestSite::with(&[("index.html", b"here")]);
    let server = Server::with(&site, &["--sweep", "1h"]);
    assert!(!server.digest().contains("incomplete"));
    let mut new = fs::File::create(site.path("new")).unwrap();
    new.write_all(b"half").unwrap();
    eventually("the digest says so", || {
        server.digest().ends_with("-incomplete")
    });
    new.write_all(b", and the other half").unwrap();
    drop(new);
    server.wait_for_body("/new", "half, and the other half");
    let whole = digest(&site.root());
    eventually("it is announced", || server.digest() == whole);
}

#[test]
fn p7_whatever_changes_an_answer_changes_the_digest() {
    type Change = fn(&TestSite);
    let changes: [(&str, Change); 8] = [
        ("a byte", |site| {
            fs::write(site.path("index.html"), "<!doctype htmk>").unwrap()
        }),
        ("a byte of a large file, under the same mtime", |site| {
            overwrite_in_place(&site.path("big.bin"), b"?");
        }),
        ("a file more", |site| {
            fs::write(site.path("more"), "").unwrap()
        }),
        ("an empty file more, below", |site| {
            fs::write(site.path("d1/more"), "").unwrap()
        }),
        ("a file less", |site| {
            fs::remove_file(site.path("empty")).unwrap()
        }),
        ("another name", |site| {
            fs::rename(site.path("d1/f1.html"), site.path("d1/g1.html")).unwrap();
        }),
        ("another directory", |site| {
            fs::rename(site.path("d1/f1.html"), site.path("d2/f1.html")).unwrap();
        }),
        ("two names exchanged", |site| {
            fs::rename(site.path("d1/f1.html"), site.path("d1/x")).unwrap();
            fs::rename(site.path("d1/f8.html"), site.path("d1/f1.html")).unwrap();
            fs::rename(site.path("d1/x"), site.path("d1/f8.html")).unwrap();
        }),
    ];
    let before = digest(&copy(false, MTIME).root());
    let mut seen = vec![before];
    for (name, change) in changes {
        let site = copy(false, MTIME);
        change(&site);
        let after = digest(&site.root());
        assert!(
            !seen.contains(&after),
            "{name} leaves the digest, or gives it one seen before"
        );
        seen.push(after);
    }
}

#[test]
fn p7_what_changes_no_answer_leaves_the_digest() {
    type Change = fn(&TestSite);
    let changes: [(&str, Change); 4] = [
        ("an mtime", |site| set_mtime(&site.path("big.bin"), 5)),
        ("the same bytes written again", |site| {
            fs::write(site.path("index.html"), "<!doctype html>").unwrap();
        }),
        ("an empty directory", |site| {
            fs::create_dir(site.path("void")).unwrap()
        }),
        ("a hidden file", |site| {
            fs::write(site.path(".env"), "SECRET").unwrap()
        }),
    ];
    let site = copy(false, MTIME);
    let before = digest(&site.root());
    for (name, change) in changes {
        change(&site);
        assert_eq!(digest(&site.root()), before, "{name} changes the digest");
    }
}

#[test]
fn p7_what_is_left_out_leaves_the_digest_and_the_flag_does_not() {
    let site = copy(false, MTIME);
    let before = digest(&site.root());
    let site = site
        .file("index.html~", "earlier")
        .file("node_modules/a/b.js", "x")
        .file(".etagdignore", "# npm\nnode_modules\n");
    assert_eq!(digest(&site.root()), before);
    let with = |patterns: &[&str]| {
        let flags = patterns.iter().flat_map(|pattern| ["--exclude", pattern]);
        let flags: Vec<_> = ["--digest"].into_iter().chain(flags).collect();
        manifest(&site.root(), &flags)
    };
    let excluded = with(&["a", "!a"]);
    assert_ne!(excluded.trim_end(), before, "a setting");
    assert_ne!(excluded, with(&["!a", "a"]), "in their order");
    assert_eq!(excluded, with(&["a", "!a"]));
}

#[test]
fn p1_after_a_restart_nothing_stale_is_called_not_modified() {
    for size in [20, 300_000, 2_000_000] {
        let (old, new) = (noise(size, 1), noise(size, 2));
        let site = TestSite::with(&[("file", &old)]);
        let first = Server::start(&site).client().get("/file");
        let date = first.field("Last-Modified").unwrap().to_owned();
        assert_eq!(first.field("ETag"), Some(tag(&old).as_str()));
        overwrite_in_place(&site.path("file"), &new);

        let server = Server::start(&site);
        let fields = [
            ("If-None-Match", first.field("ETag").unwrap()),
            ("If-Modified-Since", &date),
        ];
        for fields in [&fields[..1], &fields] {
            let second = server.client().request("GET", "/file", fields);
            assert_eq!(second.status, 200, "{size} bytes, {fields:?}");
            assert_eq!(second.field("ETag"), Some(tag(&new).as_str()));
            assert!(second.body == new);
        }

        let server = Server::with(&site, &["--last-modified", "off"]);
        for fields in [&fields[..1], &fields[1..], &fields] {
            let third = server.client().request("GET", "/file", fields);
            assert_eq!(third.status, 200, "{size} bytes, {fields:?}, without dates");
            assert_eq!(third.field("Last-Modified"), None);
            assert!(third.body == new);
        }
        let stale = [("If-Unmodified-Since", "Tue, 14 Nov 2000 22:13:20 GMT")];
        assert_eq!(
            server.client().request("GET", "/file", &stale).status,
            200,
            "no date to fail"
        );
    }
}

/// The bytes that a path of the manifest stands for, without its slash.
fn decoded(path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = path
        .strip_prefix('/')
        .expect("a path that begins with a slash")
        .as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (hex, after) = rest.split_at(2);
            rest = after;
            bytes.push(u8::from_str_radix(str::from_utf8(hex).unwrap(), 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    bytes
}

#[test]
fn p7_the_rules_of_a_site_are_part_of_its_digest() {
    let with = |headers: Option<&str>, redirects: Option<&str>| {
        let mut site = copy(false, MTIME);
        if let Some(headers) = headers {
            site = site.file("_headers", headers);
        }
        if let Some(redirects) = redirects {
            site = site.file("_redirects", redirects);
        }
        site
    };
    let sites = [
        with(None, None),
        // These change no field of a resource: only what is not there is answered otherwise.
        with(Some("/none\n  X: 1\n"), None),
        with(Some("/none\n  X: 2\n"), None),
        with(Some("/*\n  X: 1\n"), None),
        with(Some("/*\n  Content-Type: text/x\n"), None),
        with(None, Some("/old /new\n")),
        with(None, Some("/old /new 302\n")),
        with(Some("/*\n  X: 1\n"), Some("/old /new\n")),
    ];
    let digests: Vec<_> = sites.iter().map(|site| digest(&site.root())).collect();
    for (number, one) in digests.iter().enumerate() {
        assert!(!digests[..number].contains(one), "site {number}");
    }
    // What means the same is the same: comments, spaces, lines that are left out.
    let same = [
        (with(Some(""), Some("# nothing yet\n")), 0),
        (with(Some("# why\n/*\n\tX:   1\n\n"), None), 3),
        (with(None, Some("/old\t/new # moved\nnonsense\n")), 5),
    ];
    for (site, number) in &same {
        assert_eq!(digest(&site.root()), digests[*number], "site {number}");
    }
    let flags = ["--digest", "--redirects", "cloudflare"];
    for site in [&sites[0], &sites[5]] {
        assert!(!digests.contains(&manifest(&site.root(), &flags).trim_end().to_owned()));
    }
}

#[test]
fn p11_the_manifest_says_what_rules_make_of_each_file() {
    let headers = "/d1/*\n  Content-Type: text/x\n/big.bin\n  X-Frame-Options: DENY\n";
    let site = copy(false, MTIME)
        .file("_headers", headers)
        .file("_redirects", "/a /b\n");
    let server = Server::start(&site);
    let mut client = server.client();
    let text = manifest(&site.root(), &[]);
    assert_eq!(lines(&text).len(), tree().len());
    let mut suffixed = 0;
    for columns in lines(&text) {
        let response = client.request("HEAD", columns[0], &[]);
        assert_eq!(response.status, 200, "{columns:?}");
        assert_eq!(response.field("ETag"), Some(columns[1]));
        assert_eq!(response.field("Content-Type"), Some(columns[3]));
        suffixed += usize::from(columns[1].contains('-'));
    }
    assert!(suffixed > 1, "{text}");
}

/// The first twelve bits of the BLAKE3 of a path: its bucket of 4,096.
fn bucket(path: &[u8]) -> usize {
    let hash = blake3::hash(path);
    usize::from(u16::from_be_bytes([hash.as_bytes()[0], hash.as_bytes()[1]]) >> 4)
}

/// The digest of files under the default settings, as `Manifest::digest` describes it.
fn digest_by_hand(files: &BTreeMap<Vec<u8>, Vec<u8>>) -> String {
    let mut buckets = vec![blake3::Hasher::new(); 4096];
    let frame = |hasher: &mut blake3::Hasher, bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    // A map has its keys in order, so those of a bucket come in order.
    for (path, content) in files {
        let hasher = &mut buckets[bucket(path)];
        frame(hasher, path);
        hasher.update(&1_u64.to_le_bytes());
        frame(hasher, b"identity");
        frame(hasher, tag(content).trim_matches('"').as_bytes());
    }
    let mut digest = blake3::Hasher::new();
    digest.update(b"etagd site digest");
    digest.update(&1_u32.to_le_bytes());
    // --last-modified mtime, no --immutable-query; --repr-digest off, --html-handling suffix,
    // --not-found 404-page, --redirects netlify; no --immutable.
    digest.update(&[1, 0, 0, 0, 1, 0]);
    digest.update(&0_u64.to_le_bytes());
    for bucket in buckets {
        digest.update(bucket.finalize().as_bytes());
    }
    digest.finalize().to_hex().to_string()
}

#[test]
fn p7_p11_the_digest_is_what_its_description_says_whatever_shares_a_bucket() {
    let mut files: BTreeMap<Vec<u8>, Vec<u8>> = tree().into_iter().collect();
    // Eight files in each of two buckets, and in different directories.
    for wanted in [7, 4095] {
        let names = (0..).map(|n| format!("s{}/x{n}", n % 3).into_bytes());
        let names = names.filter(|name| bucket(name) == wanted).take(8);
        files.extend(names.map(|name| (name.clone(), name)));
    }
    let made = |order: &mut dyn Iterator<Item = (&Vec<u8>, &Vec<u8>)>| {
        order.fold(TestSite::new(), |site, (name, content)| {
            site.file(name, content)
        })
    };
    let wanted = digest_by_hand(&files);
    for site in [
        made(&mut files.iter()),
        made(&mut files.iter().rev()),
        made(&mut files.iter().skip(30).chain(files.iter().take(30))),
    ] {
        assert_eq!(digest(&site.root()), wanted);
    }
    // One that comes later, on a server that runs, and one that goes.
    let site = made(&mut files.iter());
    let server = Server::start(&site);
    assert_eq!(server.digest(), wanted);
    let last = files
        .keys()
        .rfind(|name| bucket(name) == 7)
        .unwrap()
        .clone();
    let content = files.remove(&last).unwrap();
    let path = site.path(std::str::from_utf8(&last).unwrap());
    fs::remove_file(&path).unwrap();
    let without = digest_by_hand(&files);
    eventually("it is gone", || server.digest() == without);
    fs::write(&path, content).unwrap();
    eventually("it is back", || server.digest() == wanted);
}
