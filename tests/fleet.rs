//! Whether real replicas agree, asked over their admin listeners by `etagd check`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;

use support::fleet::{Fleet, Replica};
use support::site::overwrite_in_place;
use support::{TestSite, etagd, noise};

/// The exit code, standard output and standard error of `etagd check` over the fleet.
fn check(fleet: &Fleet, flags: &[&str]) -> (Option<i32>, String, String) {
    let urls = fleet.replicas.each_ref().map(url);
    let urls = urls.iter().map(String::as_str);
    let output = etagd(
        ["check"]
            .into_iter()
            .chain(urls)
            .chain(flags.iter().copied()),
    );
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn url(replica: &Replica) -> String {
    format!("http://{}", replica.admin)
}

#[test]
fn check_names_the_replica_that_differs() {
    let files = [
        ("/index.html", b"<!doctype html>first".to_vec()),
        ("/a.txt", b"content".to_vec()),
        ("/d/large", noise(2_000_000, 1)),
    ];
    let files: Vec<_> = files
        .map(|(path, content)| (path.to_owned(), content))
        .into();
    let fleet = Fleet::of(&files, &[]);
    let (code, out, said) = check(&fleet, &[]);
    assert_eq!((code, out.as_str()), (Some(0), ""), "{said}");

    type Change = fn(&TestSite);
    let cases: [(&str, &str, Change, Change); 3] = [
        (
            "one byte",
            "/d/large\tother tag",
            |site| {
                let mut content = noise(2_000_000, 1);
                content[1_234_567] ^= 1;
                overwrite_in_place(&site.path("d/large"), &content);
            },
            |site| overwrite_in_place(&site.path("d/large"), &noise(2_000_000, 1)),
        ),
        (
            "a missing file",
            "/a.txt\tmissing",
            |site| fs::remove_file(site.path("a.txt")).unwrap(),
            |site| fs::write(site.path("a.txt"), "content").unwrap(),
        ),
        (
            "another _headers",
            "-\tother rules",
            |site| fs::write(site.path("_headers"), "/*\n  X-Replica: three\n").unwrap(),
            |site| fs::remove_file(site.path("_headers")).unwrap(),
        ),
    ];
    for (number, (name, line, change, repair)) in cases.into_iter().enumerate() {
        let replica = &fleet.replicas[number];
        change(&replica.site);
        replica.server.wait_until_it_serves(&replica.site.root());
        let (code, out, said) = check(&fleet, &[]);
        assert_eq!(code, Some(1), "{name}: {said}");
        assert!(out.contains(line), "{name}: {out}");
        let named = |replica: &Replica| out.contains(&url(replica));
        for (other, replica) in fleet.replicas.iter().enumerate() {
            // What the others serve is what it should be; one of them stands for it.
            assert_eq!(named(replica), other == number, "{name}: {out}{said}");
        }
        repair(&replica.site);
        let (code, _, said) = check(&fleet, &["--wait", "20s"]);
        assert_eq!(code, Some(0), "{name}, repaired: {said}");
    }
}
