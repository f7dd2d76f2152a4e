//! What a request may ask for, judged from its head.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256, Sha512};

use super::pen::{CREATE, Pen, files, writable};
use super::support::{Response, Server, TestSite, tag};

fn site() -> TestSite {
    TestSite::with(&[
        ("a.txt", b"one"),
        ("dir/index.html", b"<p>"),
        ("_headers", b""),
    ])
}

#[test]
fn a_precondition_is_demanded() {
    let site = site();
    let server = writable(&site);
    let mut pen = Pen::new(&server);
    let (current, other) = (tag(b"one"), tag(b"two"));
    let (weak, list) = (format!("W/{current}"), format!("{other}, {current}"));
    let weak_list = format!("W/{current}, \"x\"");
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], u16);
    let cases: &[Case<'_>] = &[
        ("none", "PUT", &[], 428),
        ("none", "DELETE", &[], 428),
        ("any version", "PUT", &[("If-Match", "*")], 428),
        ("any version", "DELETE", &[("If-Match", "*")], 428),
        ("a weak tag", "PUT", &[("If-Match", &weak)], 412),
        ("a weak tag", "DELETE", &[("If-Match", &weak)], 412),
        ("no tag", "PUT", &[("If-Match", "one")], 412),
        ("no tag", "DELETE", &[("If-Match", "one")], 412),
        ("an empty list", "PUT", &[("If-Match", "")], 412),
        (
            "a date",
            "PUT",
            &[("If-Unmodified-Since", "Sun, 06 Nov 2094 08:49:37 GMT")],
            428,
        ),
        (
            "another than this",
            "PUT",
            &[("If-None-Match", &other)],
            428,
        ),
        ("new", "DELETE", &[CREATE], 428),
        (
            "new, and no tag",
            "PUT",
            &[CREATE, ("If-Match", "one")],
            412,
        ),
        ("new", "PUT", &[CREATE], 412),
        ("another", "PUT", &[("If-Match", &other)], 412),
        ("another", "DELETE", &[("If-Match", &other)], 412),
        ("weak or another", "PUT", &[("If-Match", &weak_list)], 412),
        (
            "this, and new",
            "PUT",
            &[("If-Match", &current), CREATE],
            412,
        ),
        (
            "this, and not this",
            "PUT",
            &[("If-Match", &current), ("If-None-Match", &current)],
            412,
        ),
        ("this", "PUT", &[("If-Match", &current)], 204),
        ("one of these", "PUT", &[("If-Match", &list)], 204),
        (
            "one of two lines",
            "PUT",
            &[("If-Match", &other), ("If-Match", &current)],
            204,
        ),
        ("one of these", "DELETE", &[("If-Match", &list)], 204),
    ];
    for (what, method, fields, want) in cases {
        fs::write(site.path("a.txt"), "one").unwrap();
        server.wait_for_body("/a.txt", "one");
        let response = pen.send(method, "/a.txt", fields, b"new");
        assert_eq!(response.status, *want, "{what}: {method} {fields:?}");
        let expected_tag = match (response.status, *method, *want) {
            (412, ..) => Some(current.as_str()),
            (_, "PUT", 204) => Some(NEW),
            _ => None,
        };
        assert_eq!(response.field("ETag"), expected_tag, "{what}: {method}");
        let is_as_before = fs::read(site.path("a.txt")).ok().as_deref() == Some(b"one");
        assert_eq!(is_as_before, *want != 204, "{what}: {method}");
        server.wait_until_it_serves(&site.root());
    }
    // Nothing is none of these, whatever else is said of it.
    for known in ["\"x\"", &current] {
        for other in [CREATE, ("If-None-Match", "\"y\"")] {
            let refused = pen.send("PUT", "/new.txt", &[("If-Match", known), other], b"new");
            assert_eq!(
                (refused.status, refused.field("ETag")),
                (412, None),
                "{known}"
            );
        }
    }
    assert!(!site.path("new.txt").exists());
}

/// The tag of `new`.
const NEW: &str = "\"b20ab0a020a48d349e0c64d109c441f87c9bc43d49fc701c4a5f6f1b16aa4e32\"";

#[test]
fn targets_follow_the_rules_of_reading() {
    let site = site()
        .symlink("link.txt", "a.txt")
        .symlink("out", "..")
        .fifo("pipe");
    let server = writable(&site);
    let mut pen = Pen::new(&server);
    let long = "n".repeat(256);
    let (long, below_long) = (format!("/new/{long}"), format!("/new/{long}/name"));
    let longest = format!("/{}", "n".repeat(255));
    let deep = "/new".repeat(1100);
    let cases = [
        ("/.env", 403),
        ("/dir/.htaccess", 403),
        ("/.git/config", 403),
        ("/.etagd-hold", 403),
        ("/%2eenv", 403),
        ("/_headers", 403),
        ("/_redirects", 403),
        ("/%5fHeaders", 403),
        ("/", 409),
        ("/dir/", 409),
        ("/new/", 409),
        ("/dir", 409),
        ("/a.txt/below", 409),
        ("/link.txt/below", 409),
        ("/link.txt", 412),
        ("/out/outside.txt", 409),
        ("/pipe", 409),
        ("/new//file", 400),
        ("//new", 400),
        ("/../outside.txt", 400),
        ("/%2e%2e/outside.txt", 400),
        ("/..%2foutside.txt", 400),
        ("/a%00b", 400),
        ("/a%zz", 400),
        ("/new?part=1", 400),
        (&long, 400),
        (&below_long, 400),
        (&deep, 400),
        (&longest, 201),
        ("*", 400),
        ("/.well-known/new", 201),
        ("/dir/_headers", 201),
        ("/caf%e9", 201),
    ];
    let before = files(site.root().parent().unwrap());
    let mut created = 0;
    for (target, want) in cases {
        let response = pen.create(target, "new");
        assert_eq!(response.status, want, "PUT {target}");
        created += usize::from(want == 201);
        if want != 201 {
            let delete = pen.delete(target, NEW).status;
            // A link is followed where it is only looked at.
            let is_refused = delete == want || matches!(delete, 404 | 412);
            assert!(is_refused, "DELETE {target}: {delete}");
        }
    }
    let after = files(site.root().parent().unwrap());
    assert_eq!(after.len(), before.len() + created);
    // Nor is anything made on the way to what can't be.
    assert!(!site.path("new").exists());
}

#[test]
fn a_page_is_written_under_its_own_name() {
    let site = TestSite::with(&[("about.html", b"<p>one"), ("docs/index.html", b"<p>two")]);
    let server = writable(&site);
    let mut pen = Pen::new(&server);
    let says = |refused: Response, status: u16, name: &str| {
        let reason = format!("another file answers this URL: write to {name}\n");
        assert_eq!(refused.status, status);
        assert_eq!(refused.field("ETag"), None);
        assert_eq!(String::from_utf8_lossy(&refused.body), reason);
    };
    let known = tag(b"<p>one");
    says(pen.replace("/about", &known, "<p>"), 412, "/about.html");
    says(pen.delete("/about", &known), 404, "/about.html");
    assert_eq!(pen.replace("/about.html", &known, "<p>new").status, 204);
    assert_eq!(pen.get("/about").body, b"<p>new");
    let known = tag(b"<p>two");
    says(pen.replace("/docs", &known, "<p>"), 412, "/docs/index.html");
    assert_eq!(pen.create("/about", "beside").status, 201);
}

#[test]
fn rules_are_written_where_the_operator_allows_it() {
    let site = TestSite::with(&[("_headers", b"# none\n")]);
    let server = Server::with(&site, &["--writable", "--write-rules"]);
    let mut pen = Pen::new(&server);
    let stale = pen.replace("/_headers", &tag(b"other"), "# new\n");
    assert_eq!(
        (stale.status, stale.field("ETag")),
        (412, Some(&*tag(b"# none\n")))
    );
    let replaced = pen.replace("/_headers", &tag(b"# none\n"), "# new\n");
    assert_eq!(
        (replaced.status, replaced.field("ETag")),
        (204, Some(&*tag(b"# new\n")))
    );
    assert_eq!(fs::read(site.path("_headers")).unwrap(), b"# new\n");
    assert_eq!(pen.create("/_headers", "# newer\n").status, 412);
    assert_eq!(pen.create("/_redirects", "").status, 201);
    assert_eq!(pen.delete("/_headers", &tag(b"# new\n")).status, 204);
    assert!(!site.path("_headers").exists());
    assert_eq!(pen.get("/_redirects").status, 404);
}

/// A PUT that creates `target`, with these lines in its head.
fn put(target: &str, lines: &[&str], rest: &[u8]) -> Vec<u8> {
    let mut head = format!("PUT {target} HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: *\r\n");
    for line in lines {
        head += &format!("{line}\r\n");
    }
    [head.as_bytes(), b"\r\n", rest].concat()
}

fn send(server: &Server, request: &[u8]) -> Response {
    Pen::new(server).exchange("PUT", request)
}

#[test]
fn content_is_stored_exactly_as_sent() {
    let site = TestSite::with(&[]);
    let server = Server::with(&site, &["--writable", "--max-upload", "1KiB"]);
    let full = "x".repeat(1024);
    let chunked = |content: &str| {
        let chunks: String = content
            .as_bytes()
            .chunks(100)
            .map(|chunk| {
                format!(
                    "{:x}\r\n{}\r\n",
                    chunk.len(),
                    String::from_utf8_lossy(chunk)
                )
            })
            .collect();
        chunks + "0\r\n\r\n"
    };
    let te = "Transfer-Encoding: chunked";
    let cases: &[(&str, &[&str], &str, u16)] = &[
        (
            "a part",
            &["Content-Range: bytes 0-2/9", "Content-Length: 3"],
            "new",
            400,
        ),
        (
            "a part, not readable",
            &["Content-Range: x", "Content-Length: 3"],
            "new",
            400,
        ),
        (
            "coded",
            &["Content-Encoding: gzip", "Content-Length: 3"],
            "new",
            415,
        ),
        (
            "coded twice",
            &["Content-Encoding: identity, gzip", "Content-Length: 3"],
            "new",
            415,
        ),
        ("forgotten", &[], "", 411),
        ("too large", &["Content-Length: 1025"], "", 413),
        ("ten gigabytes", &["Content-Length: 10000000000"], "", 413),
        (
            "too large, in chunks",
            &[te],
            &chunked(&(full.clone() + "y")),
            413,
        ),
        ("empty", &["Content-Length: 0"], "", 201),
        (
            "not coded",
            &["Content-Encoding: identity", "Content-Length: 3"],
            "new",
            201,
        ),
        ("as large as may be", &["Content-Length: 1024"], &full, 201),
        ("as large as may be, in chunks", &[te], &chunked(&full), 201),
    ];
    for (index, (what, lines, content, want)) in cases.iter().enumerate() {
        let target = format!("/{index}");
        let response = send(&server, &put(&target, lines, content.as_bytes()));
        assert_eq!(response.status, *want, "{what}");
        let seen = server.client().get(&target);
        match *want {
            201 => assert_eq!(response.field("ETag"), seen.field("ETag"), "{what}"),
            _ => assert_eq!(seen.status, 404, "{what}"),
        }
    }
}

#[test]
fn a_digest_must_hold() {
    let site = TestSite::with(&[]);
    let server = writable(&site);
    let of = |content: &[u8]| {
        let digest = STANDARD.encode(Sha256::digest(content));
        format!("sha-256=:{digest}:")
    };
    let (sha256, of_nothing) = (of(b"new"), of(b""));
    let sha512 = STANDARD.encode(Sha512::digest(b"new"));
    let sha512_of_nothing = STANDARD.encode(Sha512::digest(b""));
    let cases = [
        ("true", format!("Content-Digest: {sha256}"), 201),
        ("true", format!("Repr-Digest: sha-512=:{sha512}:"), 201),
        (
            "unknown",
            "Content-Digest: md5=:AAAAAAAAAAAAAAAAAAAAAA==:".into(),
            201,
        ),
        (
            "of other content",
            format!("Content-Digest: {of_nothing}"),
            400,
        ),
        (
            "of other content",
            format!("Repr-Digest: {of_nothing}"),
            400,
        ),
        (
            "two of them",
            format!("Repr-Digest: {of_nothing}\r\nContent-Digest: {sha256}"),
            400,
        ),
        ("none", "Repr-Digest: sha-256=new".into(), 400),
        (
            "of other content, longer",
            format!("Repr-Digest: sha-512=:{sha512_of_nothing}:"),
            400,
        ),
        (
            "one of other content",
            format!("Repr-Digest: {sha256}, sha-512=:{sha512_of_nothing}:"),
            400,
        ),
    ];
    for (index, (what, line, want)) in cases.iter().enumerate() {
        let target = format!("/{index}");
        let request = put(&target, &["Content-Length: 3", line], b"new");
        assert_eq!(send(&server, &request).status, *want, "{what}: {line}");
        assert_eq!(
            site.path(target.trim_start_matches('/')).exists(),
            *want == 201,
            "{line}"
        );
    }
    super::support::tree::eventually("no draft is left", || files(&site.root()).len() == 3);
}

#[test]
fn what_is_left_out_cannot_be_written() {
    let site = site().file(".etagdignore", "*.map\nbuild/\n!build\n_*\n");
    let flags = ["--writable", "--write-rules", "--exclude", "/drafts"];
    let server = Server::with(&site, &flags);
    let mut pen = Pen::new(&server);
    for (path, want) in [
        ("/a.map", 403),
        ("/dir/a.map", 403),
        ("/drafts/a", 403),
        ("/build/a", 201),
        ("/a~", 403),
        ("/.etagdignore", 403),
        ("/.etagdignore.gz", 403),
        ("/_redirects", 201),
        ("/new.txt", 201),
    ] {
        let response = pen.send("PUT", path, &[CREATE], b"new");
        assert_eq!(response.status, want, "{path}");
        let path = site.path(&path[1..]);
        assert!(want == 201 || !path.exists() || path.ends_with(".etagdignore"));
    }
    let refused = pen.send("DELETE", "/a.map", &[("If-Match", NEW)], b"");
    assert_eq!(refused.status, 403);
    let reason = String::from_utf8(refused.body).unwrap();
    assert!(reason.contains("--exclude"), "{reason}");
}

#[test]
fn expectations_are_answered_before_the_content() {
    let site = site();
    let server = writable(&site);
    let lines = ["Content-Length: 3", "Expect: 100-continue"];
    let mut client = server.client();
    client.send(put("/new.txt", &lines, b"")).unwrap();
    // Sent only because it is waited for.
    let mut interim = [0; 25];
    std::io::Read::read_exact(&mut client.socket(), &mut interim).unwrap();
    assert_eq!(
        interim.escape_ascii().to_string(),
        "HTTP/1.1 100 Continue\\r\\n\\r\\n"
    );
    client.send("new").unwrap();
    assert_eq!(client.receive("PUT").unwrap().unwrap().status, 201);
    for (target, want) in [("/a.txt", 412), ("/.env", 403), ("/dir", 409)] {
        let mut client = server.client();
        client.send(put(target, &lines, b"")).unwrap();
        let response = client.receive("PUT").unwrap().unwrap();
        assert_eq!(
            (response.status, response.interim.len()),
            (want, 0),
            "{target}"
        );
    }
}

#[test]
fn other_methods_and_options() {
    let site = site();
    let server = writable(&site);
    let mut pen = Pen::new(&server);
    let allow = Some("GET, HEAD, OPTIONS, PUT, DELETE");
    let post = pen.send("POST", "/", &[CREATE], b"new");
    assert_eq!((post.status, post.field("Allow")), (405, allow));
    for form in [
        "application/json-patch+json",
        "application/merge-patch+json",
        "text/plain",
    ] {
        let patch = pen.send("PATCH", "/a.txt", &[("Content-Type", form)], b"[]");
        assert_eq!((patch.status, patch.field("Allow")), (405, allow));
        assert_eq!(patch.field("Accept-Patch"), None);
    }
    let options = pen.exchange(
        "OPTIONS",
        b"OPTIONS /a.txt HTTP/1.1\r\nHost: localhost\r\n\r\n",
    );
    assert_eq!((options.status, options.field("Allow")), (204, allow));
    let closed = Server::start(&site);
    let mut pen = Pen::new(&closed);
    let allow = Some("GET, HEAD, OPTIONS");
    for method in ["PUT", "DELETE", "PATCH", "POST"] {
        let response = pen.send(method, "/a.txt", &[CREATE], b"new");
        assert_eq!(
            (response.status, response.field("Allow")),
            (405, allow),
            "{method}"
        );
    }
}

#[test]
fn no_page_of_another_site_writes_through_a_browser() {
    let site = TestSite::with(&[]);
    let server = writable(&site);
    let port = server.port();
    let (own, other) = (
        format!("localhost:{port}"),
        "http://evil.example".to_owned(),
    );
    let cases = [
        (own.clone(), None, 201),
        (format!("127.0.0.1:{port}"), None, 201),
        (format!("[::1]:{port}"), None, 201),
        (own.clone(), Some(format!("http://{own}")), 201),
        (own.clone(), Some(other.clone()), 403),
        (own, Some("null".to_owned()), 403),
        (format!("evil.example:{port}"), None, 403),
        ("evil.example".to_owned(), Some(other), 403),
        ("localhost.evil.example".to_owned(), None, 403),
        (String::new(), None, 403),
    ];
    for (index, (host, origin, want)) in cases.into_iter().enumerate() {
        let origin = origin
            .map(|origin| format!("Origin: {origin}\r\n"))
            .unwrap_or_default();
        let request = format!(
            "PUT /{index} HTTP/1.1\r\nHost: {host}\r\n{origin}If-None-Match: *\r\n\
             Content-Length: 3\r\n\r\nnew"
        );
        let response = send(&server, request.as_bytes());
        assert_eq!(response.status, want, "{request}");
    }
    // Nor does a proxy let strangers in that somebody has put before it.
    for field in [
        "X-Forwarded-For: 192.0.2.1",
        "Via: 1.1 proxy",
        "Forwarded: for=192.0.2.1",
    ] {
        let request = put("/new", &[field, "Content-Length: 3"], b"new");
        assert_eq!(send(&server, &request).status, 403, "{field}");
    }
}

/// What is refused at its head does not cost the connection, unless more content is to come than
/// anybody wants to take in.
#[test]
fn a_refusal_says_whether_the_connection_goes_on() {
    let site = site();
    let server = writable(&site);
    let length = |length: usize| format!("Content-Length: {length}");
    let mut client = server.client();
    for _ in 0..3 {
        client.send(put("/a.txt", &[&length(100)], b"")).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        client.send([b'x'; 100]).unwrap();
        let refused = client.receive("PUT").unwrap().unwrap();
        assert_eq!((refused.status, refused.says_close()), (412, false));
        assert_eq!(client.get("/a.txt").status, 200);
    }
    let cases = [
        put("/a.txt", &[&length(10_000_000)], &[b'x'; 100]),
        put("/a.txt", &[&length(100), "Expect: 100-continue"], b""),
        put("/a.txt", &["Transfer-Encoding: chunked"], b"3\r\nnew\r\n"),
    ];
    for request in cases {
        let mut client = server.client();
        client.send(&request).unwrap();
        let refused = client.receive("PUT").unwrap().unwrap();
        assert_eq!((refused.status, refused.says_close()), (412, true));
        assert!(client.ends().unwrap());
    }
    // Content that a DELETE has is of no use, and no harm.
    let mut client = server.client();
    let condition = format!("If-Match: {}", tag(b"one"));
    let delete = put("/a.txt", &[&condition, &length(3)], b"new");
    let delete = String::from_utf8(delete)
        .unwrap()
        .replace("PUT", "DELETE")
        .replace("If-None-Match: *\r\n", "");
    client.send(delete).unwrap();
    let deleted = client.receive("DELETE").unwrap().unwrap();
    assert_eq!((deleted.status, deleted.says_close()), (204, false));
    assert_eq!(client.get("/a.txt").status, 404);
}

/// What proves a delta has a place of its own, where nothing else can be written.
#[test]
fn a_dictionary_is_written_under_its_hash_and_nowhere_else() {
    let content = b"an earlier release";
    let digest = Sha256::digest(content);
    let hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let place = format!("/.etagd/dictionaries/{hash}");
    let site = site();
    let server = writable(&site);
    let mut pen = Pen::new(&server);
    for path in [
        place.to_uppercase(),
        format!("/.etagd/dictionaries/{}", hash.to_uppercase()),
        format!("{place}0"),
        place[..place.len() - 1].to_owned(),
        format!("{place}/{hash}"),
        format!("/.etagd/dictionaries/sub/{hash}"),
        "/.etagd/dictionaries".to_owned(),
        format!("/.etagd/{hash}"),
        format!("/dir{place}"),
    ] {
        assert_eq!(pen.create(&path, content).status, 403, "{path}");
    }
    let other = pen.create(&place, b"another release");
    assert_eq!(other.status, 422);
    let reason = String::from_utf8(other.body).unwrap();
    assert!(reason.contains("its SHA-256"), "{reason}");
    let digest = format!("sha-256=:{}:", STANDARD.encode([7; 32]));
    let fields = [CREATE, ("Content-Digest", digest.as_str())];
    assert_eq!(pen.send("PUT", &place, &fields, content).status, 422);
    assert_eq!(pen.send("PUT", &place, &[], content).status, 428);
    assert!(!site.path(".etagd").exists());

    let created = pen.create(&place, content);
    assert_eq!(
        (created.status, created.field("ETag")),
        (201, Some(&*tag(content)))
    );
    assert_eq!(fs::read(site.path(&place[1..])).unwrap(), content);
    assert_eq!(pen.get(&place).status, 404);
    let again = pen.create(&place, content);
    assert_eq!(
        (again.status, again.field("ETag")),
        (412, Some(&*tag(content)))
    );
    // What a disk has damaged is replaced by its tag, like any other file.
    fs::write(site.path(&place[1..]), "damaged").unwrap();
    assert_eq!(pen.replace(&place, &tag(content), content).status, 412);
    let mended = pen.replace(&place, &tag(b"damaged"), content);
    assert_eq!(
        (mended.status, mended.field("ETag")),
        (204, Some(&*tag(content)))
    );
    assert_eq!(pen.delete(&place, &tag(b"damaged")).status, 412);
    assert_eq!(pen.delete(&place, &tag(content)).status, 204);
    assert_eq!(pen.delete(&place, &tag(content)).status, 404);
    super::support::tree::eventually("its directories are gone", || !site.path(".etagd").exists());
}
