//! `_headers`.

use etagd::rules::{Headers, Overlay, Severity};

use super::assert_complaints;

/// Which paths a path line stands for.
#[test]
fn paths() {
    #[rustfmt::skip]
    let cases: &[(&str, &str, &[&str], &[&str])] = &[
        // source, path line, what matches, what does not
        ("netlify-for-regexp single_slash", "/", &["/"], &["/a", "/index.html"]),
        ("netlify-for-regexp several_characters", "/abc", &["/abc", "/abc/"], &["/ab", "/abcd", "/abc/d", "/"]),
        ("netlify-for-regexp trailing_slash", "/a/", &["/a", "/a/"], &["/a/b", "/"]),
        ("netlify-for-regexp placeholder", "/a/:b", &["/a/x", "/a/x/"], &["/a", "/a/", "/a/x/y"]),
        ("netlify-for-regexp wildcard_slash", "/*", &["/", "/a", "/a/b", "/a/"], &[]),
        ("netlify-for-regexp wildcard_append", "/*/a", &["/a", "/x/a", "/x/y/a", "/x/a/"], &["/", "/b", "/xa", "/a/b"]),
        ("netlify-for-regexp wildcard_prepend", "/a/*", &["/a", "/a/", "/a/b", "/a/b/c"], &["/", "/b"]),
        ("netlify-for-regexp wildcard_surround", "/a/*/b", &["/a/b", "/a/x/b", "/a/x/y/b/"], &["/a", "/a/x", "/ab"]),
        ("netlify-for-regexp wildcard_multiple", "/a/*/*", &["/a", "/a/b", "/a/b/c"], &["/", "/b"]),
        ("netlify-for-regexp wildcard_inside", "/a/b*c", &["/a/bc", "/a/bxc", "/a/bx/yc", "/a/bc/"], &["/a/b", "/a/xc"]),
        ("netlify-for-regexp regexp_escape", "/a.", &["/a."], &["/ab"]),
        ("netlify-for-regexp double_slash_multiple", "//a//b//", &["/a/b"], &["/a", "/b"]),
        ("netlify-for-regexp flags i", "/Assets/*", &["/assets/x", "/ASSETS/X"], &["/asset"]),
        ("netlify-headers-parser trim_line_path", "   /path   ", &["/path"], &["/"]),
        ("etagd: a segment of its own, not a prefix", "/a/*", &["/a/b"], &["/ab"]),
        ("cf-headers one file", "/secure/page", &["/secure/page"], &["/secure", "/secure/pages"]),
        ("cf-headers one type", "/*.jpg", &["/a.jpg", "/b/c.jpg", "/.jpg"], &["/a.jpeg", "/a.jpg/b"]),
        ("cf-headers one type in a folder", "/img/*.png", &["/img/a.png", "/img/a/b.png"], &["/a.png", "/img/a.jpg"]),
        ("cf-rules-engine prefix", "/a*", &["/a", "/ab", "/a/b"], &["/", "/b"]),
        ("cf-headers placeholder", "/movies/:title", &["/movies/alien"], &["/movies", "/movies/a/b"]),
        ("cf-rules-engine two placeholders", "/blog/:code/:name", &["/blog/1/x"], &["/blog/1", "/blog/1/x/y"]),
        ("cf-rules-engine placeholder and splat", "/blog/:code/*", &["/blog/1/x", "/blog/1"], &["/blog"]),
        ("cf-parse-headers an escaped space", "/some%20page", &["/some page"], &["/some%20page"]),
        ("cf-parse-headers a space", "/some page", &["/some page"], &["/some"]),
        ("cf-rules-engine funky", "/$~.%20/!+-/[bo|%7Bo%7D]...()", &["/$~. /!+-/[bo|{o}]...()"], &["/$~"]),
        ("cf-parse-headers colons are literal", "/nons:/&@%+~{}ense", &["/nons:/&@%+~{}ense"], &["/nonsx"]),
        ("cf-parse-headers another site's name", "/yeah.com", &["/yeah.com"], &["/"]),
        ("cf-parse-headers a query is cut", "/a?b=c", &["/a"], &["/a?b=c"]),
        ("cf-parse-headers a fragment is cut", "/a#b", &["/a"], &["/"]),
        ("etagd: UTF-8", "/caf\u{e9}/*", &["/caf\u{e9}/x"], &["/cafe/x"]),
        ("etagd: an escaped star is a star", "/a%2A", &["/a*"], &["/ab"]),
        ("etagd: an escaped colon is a colon", "/%3Aa", &["/:a"], &["/b"]),
        ("etagd: a port is no placeholder", "/a/:80", &["/a/:80"], &["/a/x"]),
        ("etagd: three stars", "/a/*/b/*/c", &["/a/b/c", "/a/1/b/2/c", "/a/bx/b/c"], &["/a/bx/c", "/a/b", "/a/1/b/2"]),
        ("etagd: stars within names", "/*a*b*", &["/ab", "/xaybz", "/x/a/y/b/z"], &["/ba", "/a"]),
        ("etagd: what is before and after does not overlap", "/ab*ba", &["/abba", "/ab/ba"], &["/aba"]),
        ("etagd: a placeholder after a splat", "/a/*/:b", &["/a/x", "/a/1/2"], &["/a", "/b/x"]),
    ];
    for (source, line, yes, no) in cases {
        let (headers, _) = Headers::parse(format!("{line}\n X: y\n").as_bytes());
        for (paths, wanted) in [(yes, true), (no, false)] {
            for path in *paths {
                let matching = headers.matching(path.as_bytes(), None);
                assert_eq!(
                    !matching.is_empty(),
                    wanted,
                    "{source}: {line:?} and {path:?}"
                );
            }
        }
    }
}

/// Which hosts a path line stands for.
#[test]
fn hosts() {
    #[rustfmt::skip]
    let cases = [
        // source, path line, host, path, matches
        ("cf-headers the host counts", "https://example.com/x", Some("example.com"), "/x", true),
        ("cf-headers another host", "https://example.com/x", Some("example.org"), "/x", false),
        ("cf-headers a subdomain", "https://example.com/x", Some("www.example.com"), "/x", false),
        ("cf-headers no host", "https://example.com/x", None, "/x", false),
        ("cf-headers a host and a splat", "https://myproject.pages.dev/*", Some("myproject.pages.dev"), "/a/b", true),
        ("cf-headers a placeholder", "https://:project.pages.dev/*", Some("a.pages.dev"), "/", true),
        ("cf-headers a placeholder is one label", "https://:project.pages.dev/*", Some("b.a.pages.dev"), "/", false),
        ("cf-headers two placeholders", "https://:version.:project.pages.dev/*", Some("b.a.pages.dev"), "/", true),
        ("cf-parse-headers a star", "https://*.example.com/", Some("b.a.example.com"), "/", true),
        ("cf-parse-headers a star is no empty label", "https://*.example.com/", Some("example.com"), "/", false),
        ("cf-parse-headers a host alone is its root", "https://example.com", Some("example.com"), "/", true),
        ("cf-parse-headers a host alone is its root only", "https://example.com", Some("example.com"), "/a", false),
        ("rfc9110 4.2.3 hosts have no case", "https://Example.COM/x", Some("eXample.com"), "/x", true),
        ("cf-headers a path is for every host", "/x", Some("example.com"), "/x", true),
    ];
    for (source, line, host, path, wanted) in cases {
        let (headers, _) = Headers::parse(format!("{line}\n X: y\n").as_bytes());
        assert_eq!(headers.has_hosts(), line.contains("://"), "{source}");
        let matching = headers.matching(path.as_bytes(), host);
        assert_eq!(
            !matching.is_empty(),
            wanted,
            "{source}: {line:?}, {host:?} and {path:?}"
        );
    }
}

/// What comes of several blocks and lines.
#[test]
fn fields() {
    #[rustfmt::skip]
    let cases: &[(&str, &str, &str, &str)] = &[
        // source, file, path, fields (`-name` for what is removed, `+` what joins Vary)
        ("netlify-headers-parser success", "/path\n test: one", "/path", "test: one"),
        ("netlify-headers-parser another path", "/path\n test: one", "/other", ""),
        ("netlify-headers-parser empty", "", "/", ""),
        ("netlify-headers-parser empty_line", "\n/path\n\n test: one\n\n", "/path", "test: one"),
        ("netlify-headers-parser comment", "# a\n/path\n# b\n test: one", "/path", "test: one"),
        ("netlify-headers-parser trim_line_values", "/path\n\t  test: one  \r\n", "/path", "test: one"),
        ("netlify-headers-parser trim_name", "/path\n test  : one", "/path", "test: one"),
        ("netlify-headers-parser trim_value", "/path\n test:   one", "/path", "test: one"),
        ("netlify-headers-parser multiple_values", "/path\n test: one\n test: two", "/path", "test: one, two"),
        ("netlify-headers-parser no indentation", "/path\ntest: one", "/path", "test: one"),
        ("netlify-headers-parser a colon in the value", "/path\n test: a:b", "/path", "test: a:b"),
        ("netlify-headers-parser no_colon", "/path\n test\n other: one", "/path", "other: one"),
        ("netlify-headers-parser invalid_value_name", "/path\n : one\n other: one", "/path", "other: one"),
        ("netlify-headers-parser invalid_value_string", "/path\n test:\n other: one", "/path", "other: one"),
        ("netlify-headers-parser invalid_for_order", "test: one\n/path\n other: one", "/path", "other: one"),
        ("netlify-headers multi-value", "/*\n cache-control: max-age=0\n cache-control: no-cache\n cache-control: must-revalidate",
            "/a", "cache-control: max-age=0, no-cache, must-revalidate"),
        ("netlify-headers all that match", "/*\n a: 1\n/x/*\n b: 2\n/y/*\n c: 3", "/x/y", "a: 1 | b: 2"),
        ("cf-parse-headers names have no case", "/a\n Name: 1\n nAME: 2", "/a", "name: 1, 2"),
        ("cf-parse-headers an exclamation mark", "/a\n !Name: Value", "/a", "!name: Value"),
        ("cf-parse-headers a value with one", "/a\n But: I'm okay!", "/a", "but: I'm okay!"),
        ("cf-parse-headers unset", "/a\n Name: Value\n ! Place", "/a", "name: Value | -place"),
        ("cf-parse-headers unset with a value", "/a\n ! Place: x\n Name: Value", "/a", "name: Value"),
        ("cf-parse-headers a name with a space", "/a\n Two Words: x\n Name: Value", "/a", "name: Value"),
        ("cf-parse-headers a BOM", "\u{feff}/a\n Name: Value", "/a", "name: Value"),
        ("cf-headers several blocks inherit", "/secure/*\n X-Frame-Options: DENY\n/secure/page\n Referrer-Policy: no-referrer",
            "/secure/page", "x-frame-options: DENY | referrer-policy: no-referrer"),
        ("cf-headers twice over blocks is joined", "/*\n X-Robots-Tag: nosnippet\n/a\n X-Robots-Tag: noindex",
            "/a", "x-robots-tag: nosnippet, noindex"),
        ("cf-headers detach", "/*\n Content-Security-Policy: default-src 'self'\n/*.jpg\n ! Content-Security-Policy",
            "/a.jpg", "-content-security-policy"),
        ("cf-headers detached elsewhere only", "/*\n Content-Security-Policy: default-src 'self'\n/*.jpg\n ! Content-Security-Policy",
            "/a.png", "content-security-policy: default-src 'self'"),
        ("cf-handler removed and given anew", "/*\n A: 1\n/b\n ! A\n A: 2", "/b", "a: 2"),
        ("cf-handler a block removes before it sets", "/b\n A: 2\n ! A", "/b", "a: 2"),
        ("cf-handler removed later", "/b\n A: 2\n/*\n ! A", "/b", "-a"),
        ("cf-handler the order of the file counts", "/b\n A: 2\n/*\n A: 1", "/b", "a: 2, 1"),
        ("cf-headers a splat in a value", "/movies/*\n X-Movie: [:splat]", "/movies/alien/2", "x-movie: [alien/2]"),
        ("cf-headers a placeholder in a value", "/movies/:title\n x-movie-name: You are watching \":title\"",
            "/movies/Alien", "x-movie-name: You are watching \"Alien\""),
        ("cf-rules-engine all instances", "/*\n Link: </:splat/m.js>; rel=preload, </:splat/l.js>; rel=preload",
            "/js", "link: </js/m.js>; rel=preload, </js/l.js>; rel=preload"),
        ("cf-rules-engine an unknown name stays", "/a\n X: :splat :b", "/a", "x: :splat :b"),
        ("cf-rules-engine a longer name is another", "/:id/x\n X: :id :id_2 :id-2", "/7/x", "x: 7 :id_2 7-2"),
        ("etagd: what is captured is encoded", "/*\n X: :splat", "/a b\r\nc: d", "x: a%20b%0D%0Ac:%20d"),
        ("etagd: a missing splat is empty", "/a/*\n X: [:splat]", "/a", "x: []"),
        ("rfc9110 5.3 a field with one value: the last", "/*\n X-Frame-Options: DENY\n/a\n X-Frame-Options: SAMEORIGIN",
            "/a", "x-frame-options: SAMEORIGIN"),
        ("rfc9110 8.3 Content-Type has one value", "/*\n Content-Type: text/plain\n/a\n Content-Type: text/html",
            "/a", "content-type: text/html"),
        ("rfc9110 12.5.5 Vary joins", "/*\n Vary: Origin\n/a\n Vary: Cookie", "/a", "+Origin, Cookie"),
        ("rfc6265 3 cookies do not join", "/a\n Set-Cookie: a=1\n Set-Cookie: b=2", "/a", "set-cookie: a=1 | set-cookie: b=2"),
    ];
    for (source, file, path, wanted) in cases {
        let (headers, _) = Headers::parse(file.as_bytes());
        let matching = headers.matching(path.as_bytes(), None);
        let overlay = headers.overlay(&matching, path.as_bytes());
        assert_eq!(text(&overlay), *wanted, "{source}: {file:?} and {path:?}");
        assert!(
            headers.is_fixed_for(&matching) || file.contains(':'),
            "{source}"
        );
    }
}

fn text(overlay: &Overlay) -> String {
    let lines = overlay.lines.iter().map(|(name, value)| {
        let value = value.to_str().expect("a value of ASCII");
        format!("{name}: {value}")
    });
    let removed = overlay.removed.iter().map(|name| format!("-{name}"));
    let vary = overlay.vary.iter().map(|value| {
        let value = value.to_str().expect("a value of ASCII");
        format!("+{value}")
    });
    let all: Vec<_> = lines.chain(removed).chain(vary).collect();
    all.join(" | ")
}

/// What is wrong with a line, and what the others are worth all the same.
#[test]
fn complaints() {
    #[rustfmt::skip]
    let cases: &[(&str, &str, &[&str], usize)] = &[
        // source, file, errors and warnings, fields that /a still has
        ("netlify-headers-parser invalid_for_order", "test: one\n/a\n x: y", &["1 error: must come before"], 1),
        ("netlify-headers-parser invalid_value_name", "/a\n : one\n x: y", &["2 error: field name is missing"], 1),
        ("netlify-headers-parser invalid_value_string", "/a\n test:\n x: y", &["2 error: no value"], 1),
        ("cf-parse-headers a word alone", "/a\n word\n x: y", &["2 error: expected a path"], 1),
        ("cf-parse-headers a word first", "word\n/a\n x: y", &["1 error: must come before"], 1),
        ("cf-parse-headers a space in a name", "/a\n a b: c\n x: y", &["2 error: \"a b\" is not a valid field name"], 1),
        ("cf-parse-headers unset with a value", "/a\n ! B: c\n x: y", &["2 error: \"! B\" is not a valid field name"], 1),
        ("cf-parse-headers no fields", "/b\n/a\n x: y", &["1 warning: no fields follow"], 1),
        ("cf-parse-headers no fields at the end", "/a\n x: y\n/b", &["3 warning: no fields follow"], 1),
        ("cf-parse-headers a port", "https://h:8080/a\n x: y\n/a\n x: y", &["1 error: cannot have a port"], 1),
        ("cf-parse-headers one complaint for a bad path", "https://a..b/\n x: y\n y: z\n/a\n x: y", &["1 error: empty label"], 1),
        ("cf-parse-headers a query in a path", "/a?b\n x: y", &["1 warning: \"?b\""], 1),
        ("netlify-headers Age", "/a\n Age: 1\n x: y", &["2 error: cannot set or remove age"], 1),
        ("netlify-headers Accept-Ranges", "/a\n Accept-Ranges: none\n x: y", &["2 error: accept-ranges"], 1),
        ("netlify-headers Allow", "/a\n Allow: PUT\n x: y", &["2 error: allow"], 1),
        ("netlify-headers Connection", "/a\n Connection: close\n x: y", &["2 error: connection"], 1),
        ("netlify-headers Content-Encoding", "/a\n Content-Encoding: br\n x: y", &[], 2),
        ("rfc9110 8.4 not a coding", "/a\n Content-Encoding: deflate\n x: y", &["2 error: one of gzip, br and zstd"], 1),
        ("rfc9110 8.4 no coding", "/a\n Content-Encoding: identity\n x: y", &["2 error: one of gzip, br and zstd"], 1),
        ("rfc9110 8.4 two codings", "/a\n Content-Encoding: gzip, br\n x: y", &["2 error: one of gzip, br and zstd"], 1),
        ("rfc9110 8.4 a piece of the path", "/:b\n Content-Encoding: :b\n x: y", &["2 error: one of gzip, br and zstd"], 1),
        ("netlify-headers Content-Length", "/a\n Content-Length: 1\n x: y", &["2 error: content-length"], 1),
        ("netlify-headers Content-Range", "/a\n Content-Range: bytes 0-1/2\n x: y", &["2 error: content-range"], 1),
        ("netlify-headers Date", "/a\n Date: now\n x: y", &["2 error: date"], 1),
        ("netlify-headers Location", "/a\n Location: /b\n x: y", &["2 error: _redirects"], 1),
        ("netlify-headers Trailer", "/a\n Trailer: x\n x: y", &["2 error: trailer"], 1),
        ("netlify-headers Transfer-Encoding", "/a\n Transfer-Encoding: chunked\n x: y", &["2 error: transfer-encoding"], 1),
        ("netlify-headers Upgrade", "/a\n Upgrade: h2c\n x: y", &["2 error: upgrade"], 1),
        ("netlify-headers Basic-Auth", "/a\n Basic-Auth: me:secret\n x: y", &["2 error: does not check passwords"], 1),
        ("rfc9110 7.6.1 Keep-Alive", "/a\n Keep-Alive: 5\n x: y", &["2 error: keep-alive"], 1),
        ("rfc9110 10.1.4 TE", "/a\n TE: trailers\n x: y", &["2 error: te: "], 1),
        ("etagd: ETag", "/a\n ETag: \"x\"\n x: y", &["2 error: the content"], 1),
        ("etagd: ETag, in any case", "/a\n etAG: W/\"x\"\n x: y", &["2 error: the content"], 1),
        ("etagd: removing ETag", "/a\n ! ETag\n x: y", &["2 error: the content"], 1),
        ("etagd: Last-Modified", "/a\n Last-Modified: now\n x: y", &["2 error: --last-modified"], 1),
        ("etagd: Repr-Digest", "/a\n Repr-Digest: sha-256=:AA==:\n x: y", &["2 error: --repr-digest"], 1),
        ("etagd: removing Vary", "/a\n ! Vary\n x: y", &["2 error: cannot be removed"], 1),
        ("etagd: removing Content-Type", "/a\n ! Content-Type\n x: y", &["2 error: cannot be removed"], 1),
        ("rfc9110 5.5 control characters", "/a\n b: c\x07d\n x: y", &["2 error: control characters"], 1),
        ("rfc9110 5.1 no token", "/a\n b\u{fc}: c\n x: y", &["2 error: is not a valid field name"], 1),
        ("rfc9110 5.3 one value, twice", "/a\n Content-Type: a/b\n Content-Type: c/d", &["3 warning: only one value"], 1),
        ("etagd: more than 16 placeholders", "/:a/:b/:c/:d/:e/:f/:g/:h/:i/:j/:k/:l/:m/:n/:o/:p/:q\n x: y\n/a\n x: y", &["1 error: more than 16"], 1),
        ("etagd: two placeholders in a segment", "/:a-:b\n x: y\n/a\n x: y", &["1 error: more than one placeholder"], 1),
        ("etagd: a placeholder and a star in a segment", "/:a*\n x: y\n/a\n x: y", &["1 error: next to a *"], 1),
    ];
    for (source, file, wanted, fields) in cases {
        let (headers, complaints) = Headers::parse(file.as_bytes());
        assert_complaints(source, &complaints, Severity::Warning, wanted);
        let overlay = headers.overlay(&headers.matching(b"/a", None), b"/a");
        assert_eq!(overlay.lines.len(), *fields, "{source}: {overlay:?}");
    }
}

/// What etagd takes and another platform would not, or not so.
#[test]
fn notes() {
    #[rustfmt::skip]
    let cases: &[(&str, &str, &[&str])] = &[
        ("cf-parse-headers more than one star", "/a/*/b/*\n x: y", &["1 note: Cloudflare rejects more than one *"]),
        ("cf-parse-headers http", "http://h/\n x: y", &["1 note: Netlify does not support hosts", "1 note: https://"]),
        ("cf-parse-headers unset needs a space", "/a\n !b", &["2 note: a space", "2 note: Netlify"]),
        ("netlify-headers-parser knows no unset", "/a\n ! b", &["2 note: Netlify"]),
        ("netlify-headers-parser knows no placeholders in values", "/*\n x: :splat", &["2 note: Netlify"]),
        ("netlify-headers Server", "/a\n Server: x", &["2 note: Netlify ignores server"]),
        ("netlify-headers Content-Encoding", "/a\n Content-Encoding: br", &["2 note: Netlify ignores content-encoding"]),
        ("netlify-headers Alt-Svc", "/a\n Alt-Svc: clear", &["2 note: Netlify ignores alt-svc"]),
        ("netlify-headers Set-Cookie", "/a\n Set-Cookie: a=b", &["2 note: Netlify ignores set-cookie"]),
        ("netlify-headers plain", "/a\n x: y", &[]),
    ];
    for (source, file, wanted) in cases {
        let (_, complaints) = Headers::parse(file.as_bytes());
        assert_complaints(source, &complaints, Severity::Note, wanted);
    }
    let long = format!("/a\n x: {}", "y".repeat(2000));
    let many = "/a\n x: y\n".repeat(101);
    let noted = |file: &str| Headers::parse(file.as_bytes()).1.len();
    assert_eq!(
        (noted(&long), noted(&many)),
        (1, 1),
        "cf-parse-headers limits"
    );
}

/// The hash tells meanings apart, and nothing else.
#[test]
fn hashes() {
    let hash = |file: &str| *Headers::parse(file.as_bytes()).0.hash();
    let one = hash("/a\n X: y\n");
    for same in [
        "# why\n\n/a\r\n\tx:  y\r\n\r\n",
        "/a\nX: y",
        "/a\n X: y\n/b\n",
        "Z: 1\n/a\n x: y",
    ] {
        assert_eq!(one, hash(same), "{same:?}");
    }
    let others = [
        "",
        "/a\n X: z",
        "/b\n X: y",
        "/a\n Y: y",
        "/a\n ! X",
        "/a\n X: y\n ! Y",
        "/a\n X: y\n/a\n X: y",
        "https://a/a\n X: y",
        "/a\n X: y\n X: y",
        "/*\n X: :splat",
        "/:splat\n X: :splat",
    ];
    let mut seen = vec![one];
    for other in others {
        let hash = hash(other);
        assert!(!seen.contains(&hash), "{other:?}");
        seen.push(hash);
    }
}
