//! `_redirects`.

use etagd::rules::{Dialect, Query, Redirects, RuleMatch, RuleOutcome, Severity};

use super::assert_complaints;

const N: Dialect = Dialect::Netlify;
const C: Dialect = Dialect::Cloudflare;

/// What a request for `target` (`/path?query`, `host/path?query`) gets: `301 /b`, `200 b.html`,
/// `-` for nothing, with `!` in front where that wins over a file.
fn answer(redirects: &Redirects, target: &str) -> String {
    let (host, rest) = match target.find('/') {
        Some(0) | None => (None, target),
        Some(at) => (Some(&target[..at]), &target[at..]),
    };
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    let asked = Query {
        path: path.as_bytes(),
        query,
        host,
    };
    match redirects.find(asked) {
        None => "-".to_owned(),
        Some(RuleMatch { is_forced, outcome }) => {
            let force = if is_forced { "!" } else { "" };
            match outcome {
                RuleOutcome::Redirect(status, to) => format!("{force}{} {to}", status.as_u16()),
                RuleOutcome::Answer(status, path) => {
                    let path = String::from_utf8_lossy(&path).into_owned();
                    format!("{force}{} {path}", status.as_u16())
                }
            }
        }
    }
}

#[test]
fn requests() {
    const IPFS: &str = "/redirect-one /one.html\n/301-redirect-one /one.html 301\n\
        /302-redirect-two /two.html 302\n/200-index /index.html 200\n\
        /posts/:year/:month/:day/:title /articles/:year/:month/:day/:title 301\n\
        /splat/* /redirected-splat/:splat 301\n/not-found/* /404.html 404\n/gone/* /410.html 410\n\
        /unavail/* /451.html 451\n/* /index.html 200\n";
    const ENGINE: &str = "/foo/test/* /1/:splat\n/foo/* /2/:splat\n/blog/:code/:name /3/:name/:code\n\
        /blog/* /4/:splat\n";
    const QUERY: &str = "/articles id=:id tag=:tag /posts/:tag/:id 301\n/articles id=:id /posts/:id 301\n\
        /articles tag=:tag /tags/:tag 301\n/articles /all 301\n";
    #[rustfmt::skip]
    let cases: &[(&str, Dialect, &str, &str, &str)] = &[
        // source, dialect, file, request, answer
        ("netlify-redirect-parser from_simple", N, "/home /", "/home", "301 /"),
        ("netlify-redirect-parser empty", N, "", "/home", "-"),
        ("netlify-redirect-parser empty_line", N, "\n/a /b\n\n/c /d\n", "/c", "301 /d"),
        ("netlify-redirect-parser line_trim", N, "  /home  /  \r\n", "/home", "301 /"),
        ("netlify-redirect-parser tabs", N, "/home\t\t/\t302", "/home", "302 /"),
        ("netlify-redirect-parser comment_full", N, "# /a /b\n/a /c", "/a", "301 /c"),
        ("netlify-redirect-parser comment_inline", N, "/a /b # why", "/a", "301 /b"),
        ("netlify-redirect-parser multiple_lines", N, "/a http://a.example/\n/b http://b.example/x 301", "/b", "301 http://b.example/x"),
        ("netlify-redirect-parser to_anchor", N, "/a.php /a#ads", "/a.php", "301 /a#ads"),
        ("netlify-redirect-parser to_splat_no_force", N, "/* https://www.example.com/:splat 301", "/a/b", "301 https://www.example.com/a/b"),
        ("netlify-redirect-parser to_splat_force", N, "/* https://www.example.com/:splat 301!", "/a", "!301 https://www.example.com/a"),
        ("netlify-redirect-parser to_path_forward", N, "/admin/* 200\n/* /x 200", "/admin/a", "200 admin/a"),
        ("netlify-redirect-parser to_path_forward, elsewhere", N, "/admin/* 200\n/* /x 200", "/b", "200 x"),
        ("netlify-redirect-parser status", N, "/test https://www.example.com/test=hello 301", "/test", "301 https://www.example.com/test=hello"),
        ("netlify-redirect-parser from_absolute_uri", N, "http://hello.example/* http://www.hello.example/:splat", "hello.example/a", "301 http://www.hello.example/a"),
        ("netlify-redirect-parser from_absolute_uri, another host", N, "http://hello.example/* http://www.hello.example/:splat", "other.example/a", "-"),
        ("netlify-redirect-parser from_absolute_uri, no host", N, "http://hello.example/* http://www.hello.example/:splat", "/a", "-"),
        ("netlify-redirect-parser query", N, "/ page=news /news", "/?page=news", "301 /news"),
        ("netlify-redirect-parser query, another value", N, "/ page=news /news", "/?page=new", "-"),
        ("netlify-redirect-parser query, none", N, "/ page=news /news", "/", "-"),
        ("netlify-redirect-parser query, captured", N, "/blog post=:post_id /blog/:post_id", "/blog?post=7", "301 /blog/7"),
        ("netlify-redirect-parser conditions_query", N, "/donate source=:s email=:e /usa?source=:s&email=:e 302", "/donate?email=a%40b&source=x+y", "302 /usa?source=x%20y&email=a%40b"),
        ("netlify-options 301 is the default", N, "/a /b", "/a", "301 /b"),
        ("netlify-options 302", N, "/my-redirect / 302", "/my-redirect", "302 /"),
        ("netlify-options 404", N, "/ecommerce /store-closed 404", "/ecommerce", "404 store-closed"),
        ("netlify-options 200", N, "/pass-through /index.html 200", "/pass-through", "200 index.html"),
        ("netlify-options single-page application", N, "/* /index.html 200", "/any/where", "200 index.html"),
        ("netlify-options single-page application, root", N, "/* /index.html 200", "/", "200 index.html"),
        ("netlify-options shadowing", N, "/app/* /app/index.html 200!", "/app/x", "!200 app/index.html"),
        ("netlify-options 404 by language", N, "/en/* /en/404.html 404\n/de/* /de/404.html 404", "/de/x", "404 de/404.html"),
        ("netlify-options splat", N, "/news/* /blog/:splat", "/news/2004/01/10/my-story", "301 /blog/2004/01/10/my-story"),
        ("netlify-options the first wins", N, "/jobs/ninja /careers/support\n/jobs/* /careers/:splat\n/jobs/old /filled", "/jobs/ninja", "301 /careers/support"),
        ("netlify-options the first wins, splat", N, "/jobs/ninja /careers/support\n/jobs/* /careers/:splat\n/jobs/old /filled", "/jobs/old", "301 /careers/old"),
        ("netlify-options the order counts, not how exact", N, "/a/* /x\n/a/b /y", "/a/b", "301 /x"),
        ("netlify-options placeholders", N, "/news/:month/:date/:year/:slug /blog/:year/:month/:date/:slug", "/news/02/12/2004/my-story", "301 /blog/2004/02/12/my-story"),
        ("netlify-options placeholders, too few", N, "/news/:month/:date/:year/:slug /blog/:slug", "/news/02/12/2004", "-"),
        ("netlify-options placeholders, too many", N, "/news/:month/:date/:year/:slug /blog/:slug", "/news/02/12/2004/a/b", "-"),
        ("netlify-options query, both", N, QUERY, "/articles?id=1&tag=x", "301 /posts/x/1"),
        ("netlify-options query, order does not matter", N, QUERY, "/articles?tag=x&id=1", "301 /posts/x/1"),
        ("netlify-options query, one", N, QUERY, "/articles?id=1", "301 /posts/1"),
        ("netlify-options query, the other", N, QUERY, "/articles?tag=x", "301 /tags/x"),
        ("netlify-options query, exactly those", N, QUERY, "/articles?id=1&more=2", "301 /all?id=1&more=2"),
        ("netlify-options query is passed on", N, "/a /b", "/a?x=1&y", "301 /b?x=1&y"),
        ("netlify-redirects a target's own query stays", N, "/a /b?z=1", "/a?x=1", "301 /b?z=1"),
        ("netlify-options query goes before the fragment", N, "/a /b#c", "/a?x=1", "301 /b?x=1#c"),
        ("netlify-options trailing slash, asked", N, "/a /b", "/a/", "301 /b"),
        ("netlify-options trailing slash, written", N, "/a/ /b", "/a", "301 /b"),
        ("netlify-options a slash more can't loop", N, "/a/ /a 301!", "/a", "-"),
        ("netlify-options a slash less", N, "/a/ /a 301!", "/a/", "!301 /a"),
        ("netlify-options domain-level", N, "http://blog.example.com/* https://www.example.com/blog/:splat 301!", "blog.example.com/a", "!301 https://www.example.com/blog/a"),
        ("netlify-redirects a rule without ! and one with: the first", N, "/a /b\n/a/ /c 301!", "/a", "301 /b"),
        ("gitlab exact_match", N, "/foo/ /bar/", "/foo/", "301 /bar/"),
        ("gitlab single_trailing_slash", N, "/foo/ /bar/", "/foo", "301 /bar/"),
        ("gitlab ignore_missing_slash", N, "/foo /bar/", "/foo/", "301 /bar/"),
        ("gitlab no_match", N, "/foo /bar/", "/foo/bar", "-"),
        ("gitlab splat_match", N, "/foo/*/bar /foo/:splat/qux", "/foo/baz/bar", "301 /foo/baz/qux"),
        ("gitlab splat_match_multiple_segments", N, "/foo/*/bar /foo/:splat/qux", "/foo/hello/world/bar", "301 /foo/hello/world/qux"),
        ("gitlab splat_match_ignore_trailing_slash", N, "/foo/*/bar /foo/:splat/qux", "/foo/baz/bar/", "301 /foo/baz/qux"),
        ("gitlab splat_match_end", N, "/foo/* /qux/:splat", "/foo/baz/bar", "301 /qux/baz/bar"),
        ("gitlab splat_match_end_with_slash", N, "/foo/* /qux/:splat", "/foo/baz/bar/", "301 /qux/baz/bar/"),
        ("gitlab splat_match_beginning", N, "/*/baz/bar /qux/:splat", "/foo/baz/bar", "301 /qux/foo"),
        ("gitlab splat_match_empty_suffix", N, "/foo/* /qux/:splat", "/foo/", "301 /qux/"),
        ("gitlab splat_consumes_trailing_slash", N, "/foo/* /qux/:splat", "/foo", "301 /qux/"),
        ("gitlab splat_match_empty_prefix", N, "/*/foo /qux/:splat", "/foo", "301 /qux/"),
        ("gitlab splat_missing_path_segment_behavior", N, "/foo/*/bar /foo/:splat/qux", "/foo/bar", "301 /foo/qux"),
        ("gitlab lone_splat", N, "/* /qux/:splat 301", "/foo/bar", "301 /qux/foo/bar"),
        ("gitlab duplicate_splat_replacements", N, "/foo/* /qux/:splat/:splat", "/foo/hello", "301 /qux/hello/hello"),
        ("gitlab placeholder_match", N, "/foo/:year/:month/:day/bar /qux/:year-:month-:day", "/foo/2021/08/16/bar", "301 /qux/2021-08-16"),
        ("gitlab placeholder_match_end", N, "/foo/:placeholder /qux/:placeholder", "/foo/bar", "301 /qux/bar"),
        ("gitlab placeholder_match_beginning", N, "/:placeholder/foo /qux/:placeholder", "/baz/foo", "301 /qux/baz"),
        ("gitlab placeholder_no_multiple_segments", N, "/foo/:placeholder/bar /foo/:placeholder/qux", "/foo/hello/world/bar", "-"),
        ("gitlab placeholder_at_beginning_no_content", N, "/:placeholder/foo /qux/:placeholder", "/foo", "-"),
        ("gitlab placeholder_at_end_no_content", N, "/foo/:placeholder /qux/:placeholder", "/foo/", "-"),
        ("gitlab placeholder_mid_segment_in_from", N, "/foo:placeholder /qux/:placeholder", "/foorbar", "-"),
        ("gitlab placeholder_mid_segment_in_to", N, "/foo/:placeholder /qux/bar:placeholder", "/foo/baz", "301 /qux/barbaz"),
        ("gitlab placeholder_name_substring", N, "/foo/:foo/:foobar /qux/:foo/:foobar", "/foo/baz/quux", "301 /qux/baz/quux"),
        ("gitlab duplicate_placeholders", N, "/foo/:p/bar/:p/baz /qux/:p", "/foo/hello/bar/world/baz", "301 /qux/hello"),
        ("gitlab splat_and_placeholder_named_splat", N, "/foo/*/bar/:splat /qux/:splat", "/foo/hello/bar/world", "301 /qux/hello"),
        ("gitlab placeholder_named_splat_and_splat", N, "/foo/:splat/bar/* /qux/:splat", "/foo/hello/bar/world", "301 /qux/hello"),
        ("gitlab: netlify leaves missing_placeholder_exact_match", N, "/foo/ /qux/:placeholder", "/foo/", "301 /qux/:placeholder"),
        ("gitlab: netlify leaves missing_placeholder_nonexact_match", N, "/foo/:a /qux/:b", "/foo/bar", "301 /qux/:b"),
        ("ipfs implicit", N, IPFS, "/redirect-one", "301 /one.html"),
        ("ipfs 302", N, IPFS, "/302-redirect-two", "302 /two.html"),
        ("ipfs 200", N, IPFS, "/200-index", "200 index.html"),
        ("ipfs placeholders", N, IPFS, "/posts/2022/01/02/hello", "301 /articles/2022/01/02/hello"),
        ("ipfs splat", N, IPFS, "/splat/a/b", "301 /redirected-splat/a/b"),
        ("ipfs 404", N, IPFS, "/not-found/x", "404 404.html"),
        ("ipfs 410", N, IPFS, "/gone/x", "410 410.html"),
        ("ipfs 451", N, IPFS, "/unavail/x", "451 451.html"),
        ("ipfs catch-all", N, IPFS, "/anything/else", "200 index.html"),
        ("ipfs 303", N, "/a /b 303", "/a", "303 /b"),
        ("ipfs 307", N, "/a /b 307", "/a", "307 /b"),
        ("ipfs 308", N, "/a /b 308", "/a", "308 /b"),
        ("ipfs line ends", N, "/a /b\r\n/c /d\r\n", "/c", "301 /d"),
        ("cf-parse-redirects 302 is the default", C, "/c /d", "/c", "!302 /d"),
        ("cf-redirects rules win over files", C, "/c /d 301", "/c", "!301 /d"),
        ("cf-parse-redirects a query in the source is cut", C, "/c?this=rejected /d 301", "/c", "!301 /d"),
        ("cf-parse-redirects a query in the target", C, "/a /b?query=string 302", "/a", "!302 /b?query=string"),
        ("cf-handler a target's query wins", C, "/a /b?query=string 302", "/a?x", "!302 /b?query=string"),
        ("cf-handler a query is passed on", C, "/a /b", "/a?x=1", "!302 /b?x=1"),
        ("cf-parse-redirects a port in the target", C, "/ext https://some.domain:1234/route?q=string#anchor", "/ext", "!302 https://some.domain:1234/route?q=string#anchor"),
        ("cf-parse-redirects a host alone gets a slash", C, "/cat https://cat.example", "/cat", "!302 https://cat.example/"),
        ("cf-parse-redirects a fragment with a hash sign", C, "/a /b##blah-1 302", "/a", "!302 /b##blah-1"),
        ("cf-parse-redirects a comment at the end", C, "/a /b # comment", "/a", "!302 /b"),
        ("cf-parse-redirects 200", C, "/a /b 200", "/a", "!200 b"),
        ("cf-parse-redirects an absolute index.html", C, "/foo https://bar.example/index.html", "/foo", "!302 https://bar.example/index.html"),
        ("cf-parse-redirects an escaped space", C, "/some%20page /somewhere%20else", "/some page", "!302 /somewhere%20else"),
        ("cf-parse-redirects no slash", C, "yeah.com https://nah.example", "/yeah.com", "!302 https://nah.example/"),
        ("cf-rules-engine splat", C, ENGINE, "/foo/test/yes", "!302 /1/yes"),
        ("cf-rules-engine empty splat", C, ENGINE, "/foo/test/", "!302 /1/"),
        ("cf-rules-engine a splat has its slash", C, ENGINE, "/foo/test", "!302 /2/test"),
        ("cf-rules-engine a splat has its slash, alone", C, ENGINE, "/foo", "-"),
        ("cf-rules-engine placeholders", C, ENGINE, "/blog/123/tricycle", "!302 /3/tricycle/123"),
        ("cf-rules-engine slashes count", C, "/a /b", "/a/", "-"),
        ("cf-rules-engine /a/ to /a", C, "/a/ /a", "/a/", "!302 /a"),
        ("cf-rules-engine /a to /a/", C, "/a /a/", "/a", "!302 /a/"),
        ("cf-rules-engine within a segment", C, "/:id.html /p/:id", "/7.html", "!302 /p/7"),
        ("cf-rules-engine after the start of a segment", C, "/post-:id /p/:id", "/post-7", "!302 /p/7"),
        ("cf-rules-engine a splat anywhere", C, "/img*.png /pictures/:splat", "/img/a.png", "!302 /pictures/a"),
        ("cf-rules-engine case counts", C, "/A /b", "/a", "-"),
        ("cf-redirects placeholders", C, "/blog/* https://blog.my.example/:splat", "/blog/a/b", "!302 https://blog.my.example/a/b"),
        ("etagd: within a segment", N, "/:id.html /p/:id", "/7.html", "301 /p/7"),
        ("etagd: a name with a dash", N, "/p/:post-id /q/:post-id", "/p/7", "301 /q/7"),
        ("etagd: what the name's dash leaves", N, "/p/:a /q/:a-b", "/p/7", "301 /q/7-b"),
        ("etagd: escapes are the bytes they stand for", N, "/caf%C3%A9 /b", "/caf\u{e9}", "301 /b"),
        ("etagd: so are the bytes", N, "/caf\u{e9} /caf\u{e9}s", "/caf\u{e9}", "301 /caf%C3%A9s"),
        ("etagd: what is captured is encoded", N, "/a/* /b/:splat", "/a/x y\u{e9}?z", "301 /b/x%20y%C3%A9?z"),
        ("etagd: in a file's name it is not", N, "/a/* /b/:splat 200", "/a/x y", "200 b/x y"),
        ("etagd: a parameter without a value", N, "/a q=:q /s/:q", "/a?q", "301 /s/"),
        ("etagd: the first of equal parameters", N, "/a q=:q /s/:q", "/a?q=1&q=2", "301 /s/1"),
        ("etagd: case counts", N, "/About /about 301!", "/about", "-"),
        ("etagd: another site's path keeps its slashes", N, "/a https://web.archive.org/2020/https://a.example/ 301", "/a", "301 https://web.archive.org/2020/https://a.example/"),
        ("etagd: not to where the request is", N, "/* /index.html 302!", "/index.html", "-"),
        ("etagd: the rule after that", N, "/* /index.html 302!\n/index.html https://h.example/ 301!", "/index.html", "!301 https://h.example/"),
        ("etagd: not to the host where the request is", N, "/* https://new.example/:splat 301!", "new.example/a", "-"),
        ("etagd: but from every other", N, "/* https://new.example/:splat 301!", "old.example/a", "!301 https://new.example/a"),
        ("etagd: another query is another place", N, "/a /a?v=2 301", "/a?v=1", "301 /a?v=2"),
        ("etagd: the same query is not", N, "/a /a?v=2 301", "/a?v=2", "-"),
        ("etagd: 404 without !", N, "/a /b 404", "/a", "404 b"),
        ("etagd: 410 with !", N, "/a /b 410!", "/a", "!410 b"),
    ];
    for (source, dialect, file, request, wanted) in cases {
        let (redirects, _) = Redirects::parse(file.as_bytes(), *dialect);
        assert_eq!(
            answer(&redirects, request),
            *wanted,
            "{source}: {file:?} and {request}"
        );
        assert_eq!(
            redirects.is_empty(),
            redirects
                .find(Query {
                    path: b"/",
                    query: None,
                    host: None
                })
                .is_none()
                && redirects.is_empty()
        );
    }
}

/// No request makes a scheme or a host of what it brings along.
#[test]
fn no_open_redirect() {
    let rules = [
        "/* /:splat 301",
        "/go/* /:splat 301",
        "/go/* /x/:splat 301",
        "/go/* :splat 301",
        "/go/* //:splat 301",
        "/go/* /\\:splat 301",
        "/go/* https:/:splat 301",
        "/go/* https://:splat 301",
        "/go/* https://:splat/ 301",
        "/go/* https://example.com:splat 301",
        "/go/* https://example.com.:splat/ 301",
        "/go/* https://user@:splat/ 301",
        "/go/* https://example.com/:splat 301",
        "/go/* https://example.com?:splat 301",
        "/go/:a/:b /:a:b 301",
        "/go/:a/:b /:a/:b 301",
        "/go/:a/* /:a/:splat 301",
        "/go to=:to /:to 301",
        "/go to=:to :to 301",
        "/go to=:to https://:to 301",
        "/go to=:to https://example.com/?to=:to 301",
        "/:a/* /:a 301",
    ];
    let evil = [
        "/evil.example",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\r\nLocation: https://evil.example",
        "https://evil.example",
        "/https://evil.example",
        "@evil.example",
        ".evil.example",
        ":80@evil.example",
        "/%2Fevil.example",
        "/%5Cevil.example",
        "\u{2f}\u{2f}evil.example",
        "javascript:alert(1)",
    ];
    let mut redirected = 0;
    for dialect in [N, C] {
        for rule in rules {
            let (redirects, _) = Redirects::parse(rule.as_bytes(), dialect);
            for evil in evil {
                let mut encoded = String::new();
                for byte in evil.bytes() {
                    encoded += &format!("%{byte:02X}");
                }
                let query = format!("to={encoded}");
                for (path, query) in [
                    (format!("/go/{evil}"), None),
                    (format!("/{evil}"), None),
                    (format!("/go/x/{evil}"), None),
                    ("/go".to_owned(), Some(&*query)),
                ] {
                    let asked = Query {
                        path: path.as_bytes(),
                        query,
                        host: None,
                    };
                    let Some(RuleMatch {
                        outcome: RuleOutcome::Redirect(_, location),
                        ..
                    }) = redirects.find(asked)
                    else {
                        continue;
                    };
                    redirected += 1;
                    let context = format!("{rule:?}, {path:?}, {query:?}: {location}");
                    assert!(
                        location.bytes().all(|byte| byte.is_ascii_graphic()),
                        "{context}"
                    );
                    // A path of this site, or the one host that is written out.
                    let is_safe = match location.strip_prefix("https://example.com") {
                        Some(rest) => rest.starts_with(['/', '?']),
                        None => {
                            matches!(location.as_bytes(), [b'/', rest @ ..] if !rest.starts_with(b"/") && !rest.starts_with(b"\\"))
                        }
                    };
                    assert!(is_safe, "{context}");
                }
            }
        }
    }
    assert!(redirected > 500, "{redirected} redirects were looked at");
}

#[test]
fn complaints() {
    #[rustfmt::skip]
    let cases: &[(&str, Dialect, &str, &[&str])] = &[
        // source, dialect, file, errors and warnings; /z leads to /y all the same
        ("netlify-redirect-parser invalid_no_to_no_status", N, "/a", &["1 error: target is missing"]),
        ("netlify-redirect-parser invalid_no_to_status", N, "/a 301", &["1 error: target is missing"]),
        ("netlify-redirect-parser invalid_no_to_query", N, "/a b=c", &["1 error: target is missing"]),
        ("netlify-redirect-parser invalid_no_slash", N, "/a b", &["1 error: target is missing"]),
        ("netlify-redirect-parser invalid_status", N, "/a /b 3xx", &["1 error: neither a status"]),
        ("netlify-redirect-parser invalid_mistaken_headers", N, "/a\n X: y", &["1 error: target is missing", "2 error: must begin with /"]),
        ("netlify-redirect-parser no slash in the source", N, "a /b", &["1 error: does not begin with /"]),
        ("netlify-redirect-parser proxy", N, "/api/* https://api.example/:splat 200", &["1 error: does not proxy"]),
        ("netlify-redirect-parser signed", N, "/api/* https://api.example/:splat 200! Sign=KEY", &["1 error: ignored: the condition"]),
        ("netlify-redirect-parser conditions_country", N, "/ /china 302 Country=ch,tw", &["1 error: \"Country=ch,tw\" is not supported"]),
        ("netlify-redirect-parser conditions_language_case", N, "/ /he 302 language=he", &["1 error: is not supported"]),
        ("netlify-redirect-parser conditions_role", N, "/admin/* /admin/:splat 200 Role=admin", &["1 error: is not supported"]),
        ("netlify-redirect-parser a condition without a status", N, "/ /china Country=ch", &["1 error: is not supported"]),
        ("netlify-options Cookie", N, "/ /beta 302 Cookie=is_beta", &["1 error: is not supported"]),
        ("cf-parse-redirects one token", C, "/c", &["1 error: target is missing"]),
        ("cf-parse-redirects four tokens", C, "/d /e 302 !important", &["1 error: neither a status"]),
        ("cf-parse-redirects an unknown status", C, "/c /d 418", &["1 error: unsupported status 418"]),
        ("cf-parse-redirects proxying", C, "/a https://example.com/b 200", &["1 error: does not proxy"]),
        ("cf-parse-redirects wildcard to index", C, "/* /index.html 200", &["1 error: Cloudflare rejects it too"]),
        ("cf-parse-redirects wildcard to index, no extension", C, "/* /index 200", &["1 error: Cloudflare rejects it too"]),
        ("cf-parse-redirects root to index", C, "/ /index.html", &["1 error: Cloudflare rejects it too"]),
        ("cf-parse-redirects a duplicate", C, "/a /b\n/a /c", &["2 warning: line 1 has the same source"]),
        ("cf-parse-redirects a fragment in the source", C, "/a#b /c", &["1 warning: \"#b\" in the source"]),
        ("netlify-options a duplicate but for the slash", N, "/a /b\n/a/ /c", &["2 warning: line 1 has the same source"]),
        ("etagd: a query in the source", N, "/a?b=c /d", &["1 error: key=value"]),
        ("etagd: 500", N, "/a /b 500", &["1 error: unsupported status 500"]),
        ("etagd: two slashes in front", N, "/a //evil.example", &["1 error: another host"]),
        ("etagd: a backslash in front", N, "/a /\\evil.example", &["1 error: another host"]),
        ("etagd: a placeholder for a host", N, "/a/* https://:splat/", &["1 error: must be written out"]),
        ("etagd: a star for a host", N, "/a/* https://*.example/", &["1 error: must be written out"]),
        ("etagd: a password in a URL", N, "/a https://me:secret@example.com/", &["1 error: must be written out"]),
        ("etagd: no host", N, "/a https:///b", &["1 error: must be written out"]),
        ("etagd: a port that is none", N, "/a https://example.com:99999/", &["1 error: must be written out"]),
        ("etagd: a source for many hosts", N, "https://*.example.com/a /b", &["1 error: must be written out"]),
        ("etagd: two stars", N, "/a/*/b/* /c", &["1 error: more than one *"]),
        ("etagd: two placeholders in a segment", N, "/:a-:b /c", &["1 error: more than one placeholder"]),
        ("etagd: no parameter", N, "/a b /c", &["1 error: not a query parameter"]),
        ("etagd: no parameter's name", N, "/a =b /c", &["1 error: not a query parameter"]),
        ("etagd: a star in the target", N, "/a/* /b/*", &["1 warning: a * in the target"]),
        ("etagd: an unknown name in the target", N, "/a/:b /c/:d", &["1 warning: not in the source"]),
        ("etagd: a splat in the target alone", N, "/a /c/:splat", &["1 warning: not in the source"]),
        ("etagd: a query for a file", N, "/a /b.html?c 200", &["1 warning: ? and #"]),
        ("etagd: below a splat", N, "/a/* /b\n/a/c /d", &["2 warning: line 1 matches first"]),
        ("etagd: all below a splat", N, "/* /b 200\n/a/* /d", &["2 warning: line 1 matches first"]),
        ("etagd: the first may not match all", N, "/a/:b /b\n/a/* /d", &[]),
        ("etagd: parameters may not be there", N, "/a b=c /b\n/a /d", &[]),
        ("etagd: parameters come too late", N, "/a /b\n/a b=c /d", &["2 warning: line 1 matches first"]),
        ("etagd: to itself", N, "/a /a", &["1 warning: redirects to itself"]),
        ("etagd: to itself but for the scheme", N, "http://example.com/* https://example.com/:splat 301!", &["1 warning: redirects to itself"]),
        ("etagd: a loop of two", N, "/a /b\n/b /a", &["2 warning: redirect loop through line 1"]),
        ("etagd: a loop of two that no file ends", N, "/a /b 301!\n/b /a 301!", &["2 error: redirect loop through line 1"]),
        ("etagd: a loop of three", C, "/a /b\n/b /c\n/c /a", &["3 error: redirect loop through line 1"]),
        ("etagd: a loop of patterns", C, "/a/* /b/:splat\n/b/* /a/:splat", &["2 error: redirect loop through line 1"]),
        ("etagd: ever longer", N, "/docs/* /docs/v2/:splat", &["1 warning: redirect loop unless a file"]),
        ("etagd: ever longer, by force", N, "/docs/* /docs/v2/:splat 301!", &["1 error: redirect loop"]),
        ("etagd: a loop of one path and many", C, "/r/* /s/:splat\n/s/x /r/x", &["2 error: redirect loop through line 1"]),
        ("etagd: a loop of two paths and many", C, "/r/* /s/:splat\n/s/x /t\n/t /r/x", &["3 error: redirect loop through line 1"]),
        ("etagd: a loop of one path and many, where files may be", N, "/r/* /s/:splat\n/s/x /r/x", &["2 warning: redirect loop through line 1"]),
        ("etagd: one path in the place of many is no loop", C, "/r/x /s/y\n/r/* /s/:splat\n/s/x /r/x", &[]),
        ("etagd: two loops, one said once", N, "/a /b 301!\n/b /a 301!\n/c /d\n/d /c", &["2 error: redirect loop through line 1", "4 warning: redirect loop through line 3"]),
        ("etagd: a path with a scheme in it", C, "/a /b/https://x\n/b/* /a", &["2 error: redirect loop through line 1"]),
        ("etagd: a loop with a query", C, "/a /b?x=1\n/b /a", &["2 error: redirect loop through line 1"]),
        ("etagd: no loop", N, "/a /b\n/b /c\n/c /d", &[]),
        ("etagd: a rewrite is no loop", N, "/* /index.html 200", &[]),
        ("etagd: another host is no loop", C, "/* https://b.example/:splat 301", &[]),
        ("etagd: the way into a loop is none", C, "/x /a\n/a /b\n/b /a", &["3 error: redirect loop through line 2"]),
    ];
    for (source, dialect, file, wanted) in cases {
        let file = format!("{file}\n/z /y");
        let (redirects, complaints) = Redirects::parse(file.as_bytes(), *dialect);
        // Where all is shadowed, the last line is, too.
        let wanted: Vec<_> = wanted.to_vec();
        let without_last: Vec<_> = complaints
            .iter()
            .filter(|each| each.line < file.lines().count())
            .cloned()
            .collect();
        assert_complaints(source, &without_last, Severity::Warning, &wanted);
        if !file.contains("/* ") {
            let found = answer(&redirects, "/z");
            assert!(found.ends_with(" /y"), "{source}: /z gets {found}");
        }
    }
}

/// What etagd takes and another platform would not, or not so.
#[test]
fn notes() {
    #[rustfmt::skip]
    let cases: &[(&str, &str, &[&str])] = &[
        ("cf-parse-redirects !", "/a /b 301!", &["1 note: Cloudflare rejects !"]),
        ("cf-parse-redirects 404", "/a /b 404", &["1 note: Cloudflare rejects status 404"]),
        ("cf-parse-redirects 410", "/a /b 410", &["1 note: Cloudflare rejects status 410", "1 note: Netlify does not document status 410"]),
        ("cf-parse-redirects parameters", "/a b=:b /c/:b", &["1 note: Cloudflare does not match query"]),
        ("cf-parse-redirects hosts", "https://h.example/a /b", &["1 note: Cloudflare does not support hosts"]),
        ("cf-parse-redirects http", "/a http://b.example/", &["1 note: Cloudflare requires https"]),
        ("cf-parse-redirects wildcard to index", "/* /index.html 200", &["1 note: Cloudflare rejects /index.html"]),
        ("cf-rules-engine inner placeholders", "/a:b /c", &["1 note: Cloudflare treats :name"]),
        ("netlify-options 307", "/a /b 307", &["1 note: Netlify does not document status 307"]),
        ("netlify-redirect-parser .netlify", "/.netlify/x /b", &["1 note: Netlify rejects"]),
        ("netlify-options a splat not at the end", "/a/*/b /c", &["1 note: Netlify supports *"]),
        ("netlify-options plain", "/a /b 302", &[]),
    ];
    for (source, file, wanted) in cases {
        let (_, complaints) = Redirects::parse(file.as_bytes(), N);
        assert_complaints(source, &complaints, Severity::Note, wanted);
    }
    let file = |rule: &dyn Fn(usize) -> String, many| (0..many).map(rule).collect::<String>();
    let exact = |at: usize| format!("/a{at} /b{at}\n");
    let pattern = |at: usize| format!("/a{at}/* /b{at}/:splat\n");
    let noted = |text: String| Redirects::parse(text.as_bytes(), N).1.len();
    assert_eq!(noted(file(&exact, 2000)), 0, "cf-parse-redirects limit");
    assert_eq!(noted(file(&exact, 2500)), 1, "cf-parse-redirects limit");
    assert_eq!(noted(file(&pattern, 100)), 0, "cf-parse-redirects limit");
    assert_eq!(noted(file(&pattern, 150)), 1, "cf-parse-redirects limit");
}

/// The hash tells meanings apart, and nothing else.
#[test]
fn hashes() {
    let hash = |file: &str, dialect| *Redirects::parse(file.as_bytes(), dialect).0.hash();
    let one = hash("/a /b 301", N);
    for same in [
        "# why\n\n/a\t/b   # x\r\n",
        "/a /b",
        "/a /b\nbad\n",
        "/a /b\n/a /c\n",
    ] {
        assert_eq!(one, hash(same, N), "{same:?}");
    }
    let mut seen = vec![one];
    for other in [
        "",
        "/a /c",
        "/c /b",
        "/a /b 302",
        "/a /b 301!",
        "/a b=c /b",
        "/a b=:c /b",
        "/a /b 200",
        "https://h/a /b",
        "/a https://h/b",
        "/a/* /b",
        "/a /b\n/c /d",
        "/c /d\n/a /b",
    ] {
        let hash = hash(other, N);
        assert!(!seen.contains(&hash), "{other:?}");
        seen.push(hash);
    }
    assert_ne!(hash("/a /b", N), hash("/a /b", C));
    let spaced = [hash("/a b=1%20c%20d=2 /b", N), hash("/a b=1 c%20d=2 /b", N)];
    assert_ne!(spaced[0], spaced[1], "one parameter and two");
}
