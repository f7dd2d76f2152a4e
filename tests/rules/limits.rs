//! Files and paths made to cost much.

use std::time::{Duration, Instant};

use etagd::rules::{Dialect, Headers, Query, Redirects};

/// Ample for a busy machine and an unoptimised build; what grows with the square of a megabyte
/// takes hours.
const PATIENCE: Duration = Duration::from_secs(20);

/// The same for one path.
const ANSWER: Duration = Duration::from_secs(1);

/// A megabyte; less where nothing is optimised.
const LENGTH: usize = if cfg!(debug_assertions) {
    1 << 17
} else {
    1 << 20
};

/// So many of such lines.
fn lines(line: impl Fn(usize) -> String) -> String {
    let mut text = String::with_capacity(LENGTH + 100);
    let mut number = 0;
    while text.len() < LENGTH {
        text += &line(number);
        text.push('\n');
        number += 1;
    }
    text
}

/// Paths of 8 KiB that much matches for long.
fn paths() -> Vec<Vec<u8>> {
    let paths = ["/a", "/aaaaaaaa", "/a/b", "/x-", "/"];
    let mut paths: Vec<Vec<u8>> = paths
        .iter()
        .map(|piece| piece.bytes().cycle().take(8 << 10).collect())
        .collect();
    paths.push([b"/", "a".repeat(8 << 10).as_bytes()].concat());
    paths
}

#[test]
fn a_long_file_of_redirects() {
    type Line = fn(usize) -> String;
    let files: [(&str, Line); 13] = [
        ("exact", |n| format!("/p{n} /q{n}")),
        ("a chain", |n| format!("/p{n} /p{}", n + 1)),
        ("splats", |n| format!("/p{n}/* /q{n}/:splat 301!")),
        ("splats without a first segment", |n| {
            format!("/*/{n} /q/:splat")
        }),
        ("placeholders", |n| format!("/:a/:b/:c/{n} /:c/:b/:a")),
        ("one first segment", |n| format!("/a/*/{n} /b/:splat")),
        ("a splat in a word", |n| format!("/a*a{n} /b/:splat")),
        ("many placeholders", |n| {
            format!("/:a/:b/:c/:d/:e/:f/:g/:h/:i/:j/:k/:l/:m/:n/:o/{n} /x")
        }),
        ("parameters", |n| format!("/a k{n}=:v /b/:v")),
        ("queries", |n| format!("/a k={n} /b/{n}")),
        ("bad lines", |n| format!("/a{n}")),
        ("short lines", |_| "a".to_owned()),
        ("hosts", |n| format!("https://h{n}.example/a /b")),
    ];
    for (name, line) in files {
        let text = lines(line);
        let started = Instant::now();
        let (redirects, complaints) = Redirects::parse(text.as_bytes(), Dialect::Netlify);
        assert!(complaints.len() <= 1001, "{name}");
        for path in paths() {
            let query = "k=v&".repeat(1000);
            let asked = Query {
                path: &path,
                query: Some(&query),
                host: Some("h"),
            };
            let asked_at = Instant::now();
            let _ = redirects.find(asked);
            let spent = asked_at.elapsed();
            assert!(spent < ANSWER, "{name}: {spent:?} for a path");
        }
        let spent = started.elapsed();
        assert!(spent < PATIENCE, "{name}: {spent:?}");
    }
}

#[test]
fn a_long_file_of_headers() {
    type Line = fn(usize) -> String;
    let files: [(&str, Line); 9] = [
        ("exact", |n| format!("/p{n}\n x: y")),
        ("splats", |n| format!("/p{n}/*\n x: y")),
        ("stars", |n| format!("/*a*b*c*d*{n}*\n x: y")),
        ("stars that nearly match", |n| {
            format!("/*aaaa*aaaa*aaaa*{n}\n x: y")
        }),
        ("placeholders", |n| format!("/:a/:b/:c/{n}\n x: y")),
        ("all of them", |n| format!("/*\n x{n}: :splat")),
        ("all of them in one field", |n| format!("/*\n x: {n}")),
        ("none of them", |n| format!("/*\n ! x{n}")),
        ("one block", |n| match n {
            0 => "/*".to_owned(),
            n => format!(" x{n}: :splat\n ! y{n}"),
        }),
    ];
    for (name, line) in files {
        let text = lines(line);
        let started = Instant::now();
        let (headers, _) = Headers::parse(text.as_bytes());
        for path in paths() {
            let asked_at = Instant::now();
            let matching = headers.matching(&path, Some("h"));
            let overlay = headers.overlay(&matching, &path);
            let lengths = overlay.lines.iter().map(|(_, value)| value.len());
            assert!(lengths.sum::<usize>() <= 64 << 10, "{name}");
            let spent = asked_at.elapsed();
            assert!(spent < ANSWER, "{name}: {spent:?} for a path");
        }
        let spent = started.elapsed();
        assert!(spent < PATIENCE, "{name}: {spent:?}");
    }
}

/// Lines and targets that would make a response of any length are refused.
#[test]
fn long_lines() {
    let long = "x".repeat(17 << 10);
    let headers = format!("/a\n x: {long}\n y: z\n/{long}\n b: c\n");
    let (headers, complaints) = Headers::parse(headers.as_bytes());
    assert_eq!(complaints.len(), 2, "{complaints:?}");
    let overlay = headers.overlay(&headers.matching(b"/a", None), b"/a");
    assert_eq!(overlay.lines.len(), 1);

    let redirects = format!("/a/* /{}\n/b /{long}\n/z /y\n", ":splat".repeat(17));
    let (redirects, complaints) = Redirects::parse(redirects.as_bytes(), Dialect::Netlify);
    assert_eq!(complaints.len(), 2, "{complaints:?}");
    let find = |path: &[u8]| {
        redirects.find(Query {
            path,
            query: None,
            host: None,
        })
    };
    assert!(find(b"/z").is_some() && find(b"/a/b").is_none());

    let redirects = format!("/a/* /{}", ":splat/".repeat(16));
    let (redirects, complaints) = Redirects::parse(redirects.as_bytes(), Dialect::Netlify);
    assert!(complaints.is_empty(), "{complaints:?}");
    let path = [b"/a/", "x".repeat(8000).as_bytes()].concat();
    let asked = |path| Query {
        path,
        query: None,
        host: None,
    };
    assert!(
        redirects.find(asked(&path)).is_none(),
        "a Location of 128 kB"
    );
    assert!(redirects.find(asked(&path[..100])).is_some());
}
