//! P1: the ETag of a representation is the BLAKE3 of its bytes, which `b3sum` prints, and nothing
//! else enters.

use std::process::Command;

use crate::support::{Server, TestSite, noise, tag};

/// Sizes around each border: chunks of BLAKE3, groups, and the ways of keeping data.
const SIZES: [usize; 21] = [
    0, 1, 63, 64, 65, 1023, 1024, 1025, 16_384, 131_071, 131_072, 131_073, 262_143, 262_144,
    262_145, 524_288, 1_048_575, 1_048_576, 1_048_577, 1_310_720, 3_000_001,
];

fn name(size: usize) -> String {
    format!("{size}.bin")
}

/// A site with a file of each size.
fn sizes() -> TestSite {
    SIZES.iter().fold(TestSite::new(), |site, &size| {
        site.file(name(size), noise(size, 7))
    })
}

#[test]
fn p1_the_tag_is_the_blake3_of_the_bytes_at_every_size() {
    let site = sizes();
    for flags in [&[][..], &["--memory", "64KiB"], &["--workers", "1"]] {
        let server = Server::with(&site, flags);
        let mut client = server.client();
        for size in SIZES {
            let content = noise(size, 7);
            let target = format!("/{}", name(size));
            let head = client.request("HEAD", &target, &[]);
            assert_eq!(
                head.field("ETag"),
                Some(tag(&content).as_str()),
                "HEAD {target} {flags:?}"
            );
            let get = client.get(&target);
            assert_eq!(
                get.field("ETag"),
                Some(tag(&content).as_str()),
                "GET {target} {flags:?}"
            );
            assert!(
                get.body == content,
                "{target} has other bytes with {flags:?}"
            );
        }
    }
}

#[test]
fn p1_the_tag_is_what_b3sum_prints() {
    let site = sizes();
    let mut b3sum = Command::new("b3sum");
    b3sum.current_dir(site.root()).args(SIZES.map(name));
    let Ok(output) = b3sum.output() else {
        // In CI a missing tool is a failure, not a reason to skip.
        assert!(
            std::env::var_os("ETAGD_NO_SKIP").is_none(),
            "b3sum is not installed"
        );
        #[allow(clippy::print_stderr)]
        {
            eprintln!("skipped: there is no b3sum here");
        }
        return;
    };
    let server = Server::start(&site);
    let mut client = server.client();
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines.lines().count(), SIZES.len());
    for line in lines.lines() {
        let (hex, name) = line.split_once("  ").unwrap();
        let response = client.request("HEAD", &format!("/{name}"), &[]);
        assert_eq!(
            response.field("ETag"),
            Some(format!("\"{hex}\"").as_str()),
            "{name}"
        );
    }
}

#[test]
fn p1_neither_name_nor_type_nor_date_enters() {
    let content = noise(5000, 1);
    let site = TestSite::new()
        .file("a.html", &content)
        .file("deep/er/b.png", &content)
        .file_dated("old", &content, 12)
        .file_dated("new.css", &content, 1_750_000_000);
    let server = Server::start(&site);
    let mut client = server.client();
    for target in ["/a.html", "/deep/er/b.png", "/old", "/new.css"] {
        assert_eq!(
            client.get(target).field("ETag"),
            Some(tag(&content).as_str()),
            "{target}"
        );
    }
}

#[test]
fn p1_one_byte_makes_another_tag() {
    for size in [1, 131_073, 1_048_577] {
        let one = noise(size, 1);
        let mut other = one.clone();
        *other.last_mut().unwrap() ^= 1;
        let site = TestSite::with(&[("one", &one), ("other", &other)]);
        let server = Server::start(&site);
        let mut client = server.client();
        let tags =
            ["/one", "/other"].map(|target| client.get(target).field("ETag").map(str::to_owned));
        assert_eq!(tags, [Some(tag(&one)), Some(tag(&other))]);
        assert_ne!(tags[0], tags[1]);
    }
}

#[test]
fn p1_a_part_carries_the_tag_of_the_whole() {
    let content = noise(700_000, 3);
    let site = TestSite::with(&[("file", &content)]);
    let server = Server::start(&site);
    let mut client = server.client();
    for range in [
        "bytes=0-0",
        "bytes=262143-262145",
        "bytes=-7",
        "bytes=0-1,5-6",
    ] {
        let response = client.request("GET", "/file", &[("Range", range)]);
        assert_eq!(response.status, 206, "{range}");
        assert_eq!(
            response.field("ETag"),
            Some(tag(&content).as_str()),
            "{range}"
        );
    }
}

#[test]
fn p1_fields_that_a_304_cannot_renew_are_part_of_the_tag() {
    let page = b"<!doctype html>";
    let headers = "/type\n  Content-Type: text/plain\n/language\n  Content-Language: de\n\
        /disposition\n  Content-Disposition: attachment\n/frame\n  X-Frame-Options: DENY\n\
        /sniff\n  ! X-Content-Type-Options\n/both\n  X-Frame-Options: DENY\n  Content-Language: de\n\
        /same\n  Content-Type: text/html; charset=utf-8\n  X-Content-Type-Options: nosniff\n\
        /other\n  Cache-Control: max-age=1\n  Content-Security-Policy: default-src 'none'\n  X-A: b\n";
    let names = [
        "type",
        "language",
        "disposition",
        "frame",
        "sniff",
        "both",
        "same",
        "other",
        "none",
    ];
    let site = names.iter().fold(TestSite::new(), |site, name| {
        site.file(format!("{name}.html"), page)
    });
    let site = site.file("_headers", headers);
    let server = Server::start(&site);
    let mut client = server.client();
    let plain = tag(page);
    // What `printf 'content-type: text/plain\n' | b3sum` begins with.
    let cases = [
        ("type", "content-type: text/plain\n"),
        ("language", "content-language: de\n"),
        ("disposition", "content-disposition: attachment\n"),
        ("frame", "x-frame-options: DENY\n"),
        ("sniff", "x-content-type-options: \n"),
        ("both", "content-language: de\nx-frame-options: DENY\n"),
        ("same", ""),
        ("other", ""),
        ("none", ""),
    ];
    let mut seen = Vec::new();
    for (name, fields) in cases {
        let etag = match fields {
            "" => plain.clone(),
            fields => {
                let hash = blake3::hash(fields.as_bytes()).to_hex();
                format!("{}-{}\"", plain.trim_end_matches('"'), &hash[..8])
            }
        };
        assert!(fields.is_empty() || !seen.contains(&etag), "{name}");
        let target = format!("/{name}");
        let response = client.get(&target);
        assert_eq!(response.field("ETag"), Some(etag.as_str()), "{name}");
        assert_eq!(response.body, page, "{name}");
        let fields = [("If-None-Match", etag.as_str())];
        assert_eq!(
            client.request("GET", &target, &fields).status,
            304,
            "{name}"
        );
        // Without the fields it is another representation: a 304 would keep the old ones.
        let fields = [("If-None-Match", plain.as_str())];
        let status = if etag == plain { 304 } else { 200 };
        assert_eq!(
            client.request("GET", &target, &fields).status,
            status,
            "{name}"
        );
        // Under the name of the file no rule applies.
        let file = client.get(&format!("/{name}.html"));
        assert_eq!(file.field("ETag"), Some(plain.as_str()), "{name}");
        seen.push(etag);
    }
}
