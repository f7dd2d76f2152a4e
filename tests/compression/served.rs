//! What clients get, and what operators are told.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use flate2::write::GzEncoder;

use super::support::server::command;
use super::support::tree::{digest_of, eventually, manifest_of, stays, within};
use super::support::{Client, Response, Server, TestSite, etagd, noise, tag};
use super::{decoded, dense, prose};

/// What a browser accepts, but for gzip: of words as few as these it makes less than brotli.
const BROWSER: &[(&str, &str)] = &[("Accept-Encoding", "deflate, br, zstd")];

fn coding(response: &Response) -> Option<&str> {
    assert!(response.is_what_its_tag_says(), "{response:?}");
    response.field("Content-Encoding")
}

fn get(server: &Server, target: &str, codings: &str) -> Response {
    let fields = [("Accept-Encoding", codings)];
    let response = server.client().request("GET", target, &fields);
    assert_eq!(response.status, 200, "{target}");
    response
}

#[test]
fn what_gains_from_it_is_sent_compressed_with_a_tag_of_its_own() {
    let page = prose(20_000, 1);
    let site = TestSite::new()
        .file("page.html", &page)
        .file("short.txt", prose(1000, 2))
        .file("photo.jpg", vec![0; 5000])
        .file("noise.txt", noise(5000, 4))
        .file("large.txt", vec![b'x'; (8 << 20) + 1]);
    let server = Server::with(&site, &["--compress"]);
    let identity = get(&server, "/page.html", "identity");
    assert_eq!((coding(&identity), &identity.body), (None, &page));
    assert_eq!(identity.field("Vary"), Some("accept-encoding"));
    let mut tags = vec![tag(&page)];
    for (accepted, token) in [
        ("br", "br"),
        ("gzip", "gzip"),
        ("zstd, gzip", "gzip"),
        (BROWSER[0].1, "br"),
    ] {
        let response = get(&server, "/page.html", accepted);
        assert_eq!(coding(&response), Some(token), "{accepted}");
        assert_eq!(
            response.field("Content-Type"),
            Some("text/html; charset=utf-8")
        );
        assert_eq!(decoded(&response), page);
        assert!(response.body.len() < page.len() / 2);
        tags.push(response.field("ETag").unwrap().to_owned());
        // The second answer is a 304, a part comes from the coding, and HEAD says the same.
        let tag = response.field("ETag").unwrap();
        let fields = [("Accept-Encoding", accepted), ("If-None-Match", tag)];
        let again = server.client().request("GET", "/page.html", &fields);
        assert_eq!((again.status, again.field("ETag")), (304, Some(tag)));
        let fields = [
            ("Accept-Encoding", accepted),
            ("Range", "bytes=10-29"),
            ("If-Range", tag),
        ];
        let part = server.client().request("GET", "/page.html", &fields);
        assert_eq!((part.status, &part.body[..]), (206, &response.body[10..30]));
        let head = server.client().request("HEAD", "/page.html", &fields[..1]);
        assert_eq!((head.status, head.field("ETag")), (200, Some(tag)));
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 3, "{tags:?}");
    // Too short, compressed by its type, not text, too long.
    for target in ["/short.txt", "/photo.jpg", "/noise.txt", "/large.txt"] {
        let response = get(&server, target, "gzip, br");
        assert_eq!(coding(&response), None, "{target}");
        assert_eq!(response.field("Vary"), None, "{target}");
    }
}

#[test]
fn the_codings_are_those_that_are_asked_for() {
    let site = TestSite::new().file("a.txt", prose(5000, 1));
    for (flags, codings) in [
        (&["--compress"][..], ["br", "identity", "gzip"]),
        (&["--compress=br,zst,gz"], ["br", "zstd", "gzip"]),
        (&["--compress=zst"], ["identity", "zstd", "identity"]),
        (&["--compress=off"], ["identity"; 3]),
        (&[], ["identity"; 3]),
    ] {
        let server = Server::with(&site, flags);
        for (accepted, want) in ["br", "zstd", "gzip"].into_iter().zip(codings) {
            let response = get(&server, "/a.txt", accepted);
            assert_eq!(coding(&response).unwrap_or("identity"), want, "{flags:?}");
        }
    }
    Server::assert_fails(
        &site.root(),
        &["--compress=gzip"],
        2,
        &["--compress", "br, zst and gz"],
    );
    Server::assert_fails(&site.root(), &["--cache", "/tmp/x"], 2, &["--compress"]);
}

/// What does not fit into memory, in one piece and in groups: as good as what does.
#[test]
fn what_memory_has_no_room_for_is_read_and_proven() {
    let files = [
        ("middle.txt", dense(300_000, 1)),
        ("large.txt", dense(2_000_000, 2)),
    ];
    let mut site = TestSite::new();
    for (name, content) in &files {
        site = site.file(name, content);
    }
    let server = Server::with(&site, &["--compress=gz"]);
    for (name, content) in &files {
        let target = format!("/{name}");
        let response = get(&server, &target, "gzip");
        assert_eq!(coding(&response), Some("gzip"), "{name}");
        assert_eq!(decoded(&response), *content);
        let middle = response.body.len() / 2;
        let range = format!("bytes={middle}-");
        let fields = [("Accept-Encoding", "gzip"), ("Range", &range)];
        let part = server.client().request("GET", &target, &fields);
        assert_eq!(
            (part.status, &part.body[..]),
            (206, &response.body[middle..])
        );
    }
}

/// A form that a disk has damaged takes nobody's content away, and is made again.
#[test]
fn what_is_damaged_is_not_sent() {
    let content = dense(500_000, 3);
    let site = TestSite::new().file("large.txt", &content);
    let server = Server::with(&site, &["--compress=gz"]);
    let digest = server.digest();
    let Some(mut file) = temporary_file(&server) else {
        return eprintln!("skipped: the descriptors of a process cannot be opened here");
    };
    file.write_all(&[0; 4096]).unwrap();
    let response = get(&server, "/large.txt", "gzip");
    assert_eq!((coding(&response), &response.body), (None, &content));
    within(Duration::from_secs(60), "it is made again", || {
        let response = get(&server, "/large.txt", "gzip");
        assert_eq!(decoded(&response), content);
        coding(&response) == Some("gzip")
    });
    assert_eq!(server.digest(), digest);
}

/// While publication is held nothing looks at the site, and only a request could make what is missing.
#[test]
fn no_form_is_made_for_a_request() {
    let content = dense(500_000, 3);
    let site = TestSite::new().file("large.txt", &content);
    let server = Server::with(&site, &["--compress=gz"]);
    fs::write(site.path(".etagd-hold"), "").unwrap();
    let Some(mut file) = temporary_file(&server) else {
        return eprintln!("skipped: the descriptors of a process cannot be opened here");
    };
    file.write_all(&[0; 4096]).unwrap();
    for accepted in ["gzip", "br", "zstd", "gzip, identity;q=0"].repeat(5) {
        let response = get(&server, "/large.txt", accepted);
        assert_eq!(coding(&response), None, "{accepted}");
        assert!(response.body == content, "{accepted}");
    }
    fs::remove_file(site.path(".etagd-hold")).unwrap();
    within(Duration::from_secs(60), "a look makes it", || {
        coding(&get(&server, "/large.txt", "gzip")) == Some("gzip")
    });
}

/// The file without a name that a server has open.
fn temporary_file(server: &Server) -> Option<File> {
    let folder = format!("/proc/{}/fd", server.pid());
    let mut descriptors = fs::read_dir(folder).ok()?.flatten();
    descriptors.find_map(|descriptor| {
        let target = fs::read_link(descriptor.path()).ok()?;
        let is_unnamed = target.to_string_lossy().ends_with(" (deleted)");
        let file = File::options().write(true).open(descriptor.path());
        file.ok().filter(|_| is_unnamed)
    })
}

#[test]
fn a_sidecar_takes_precedence_and_what_replaces_it_is_made() {
    let page = prose(20_000, 1);
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::none());
    gzip.write_all(&page).unwrap();
    let shipped = gzip.finish().unwrap();
    let site = TestSite::new()
        .file("page.html", &page)
        .file("page.html.gz", &shipped);
    let server = Server::with(&site, &["--compress"]);
    let both = digest_with(&site);
    assert_eq!(server.digest(), both);
    assert_eq!(get(&server, "/page.html", "gzip").body, shipped);
    let brotli = get(&server, "/page.html", "br");
    assert_eq!(coding(&brotli), Some("br"));
    fs::remove_file(site.path("page.html.gz")).unwrap();
    eventually("a coding in place of the sidecar", || {
        get(&server, "/page.html", "gzip").body != shipped
    });
    let made = get(&server, "/page.html", "gzip");
    assert_eq!((coding(&made), decoded(&made)), (Some("gzip"), page));
    assert_eq!(get(&server, "/page.html", "br").body, brotli.body);
    let made = digest_with(&site);
    eventually("the digest is said", || server.digest() == made);
    // There again, it is as at first.
    fs::write(site.path("page.html.gz"), &shipped).unwrap();
    eventually("the sidecar", || {
        get(&server, "/page.html", "gzip").body == shipped
    });
    eventually("the digest is said", || server.digest() == both);
}

fn digest_with(site: &TestSite) -> String {
    let root = site.root();
    let output = etagd(["manifest", "--digest", "--compress", root.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Nobody is sent what a command has made.
#[test]
fn commands_need_no_room_for_forms() {
    let site = TestSite::new().file("large.txt", dense(300_000, 1));
    let (root, digest) = (site.root(), digest_with(&site));
    let run = |arguments: &[&str]| {
        let mut etagd = command(env!("CARGO_BIN_EXE_etagd"));
        etagd
            .args(arguments)
            .arg(&root)
            .env("TMPDIR", "/nonexistent");
        let output = etagd.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let said = run(&["manifest", "--digest", "--compress"]);
    assert_eq!(said.trim(), digest);
    assert!(!digest.ends_with("-incomplete"));
    assert_eq!(run(&["lint", "--compress"]), "");
}

#[test]
fn a_change_is_published_together_with_its_codings() {
    let site = TestSite::new().file("a.txt", prose(5000, 1));
    let server = Server::with(&site, &["--compress"]);
    for version in 2..6 {
        let content = prose(50_000, version);
        fs::write(site.path("a.txt"), &content).unwrap();
        let expected = tag(&content);
        // At no moment has it a new tag and no coding: both come from one look-up.
        within(Duration::from_secs(20), "the new content", || {
            let response = get(&server, "/a.txt", "br");
            assert_eq!(coding(&response), Some("br"));
            decoded(&response) == content
        });
        assert_eq!(
            get(&server, "/a.txt", "identity").field("ETag"),
            Some(&*expected)
        );
    }
    // It is logged after it is published.
    let digest = digest_with(&site);
    within(Duration::from_secs(20), "the digest", || {
        server.digest() == digest
    });
}

#[test]
fn what_is_put_is_sent_compressed_at_once() {
    let site = TestSite::new();
    let flags = ["--compress", "--writable", "--write-insecure"];
    let server = Server::with(&site, &flags);
    let content = prose(10_000, 1);
    let length = content.len().to_string();
    let head = format!(
        "PUT /new.txt HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: *\r\nContent-Length: {length}\r\n\r\n"
    );
    let mut client = server.client();
    client.send([head.as_bytes(), &content].concat()).unwrap();
    let created = client.receive("PUT").unwrap().unwrap();
    assert_eq!(created.status, 201, "{created:?}");
    let response = client.request("GET", "/new.txt", BROWSER);
    assert_eq!(
        (coding(&response), decoded(&response)),
        (Some("br"), content)
    );
}

/// A file that never rests is published without codings: whether a replica made some would depend
/// on when it looked.
#[test]
fn what_does_not_rest_has_none_until_it_does() {
    let site = TestSite::new().file("a.txt", prose(5000, 1));
    let server = Server::with(&site, &["--compress"]);
    // It stays open for writing.
    let mut file = File::options()
        .append(true)
        .open(site.path("a.txt"))
        .unwrap();
    file.write_all(b"more").unwrap();
    let unstable = || {
        let response = get(&server, "/a.txt", "br");
        response
            .field("Cache-Control")
            .unwrap()
            .contains("no-store")
            .then_some(response)
    };
    within(
        Duration::from_secs(30),
        "published while it is open",
        || unstable().is_some(),
    );
    assert_eq!(coding(&unstable().unwrap()), None);
    eventually("it is said", || server.digest().ends_with("-incomplete"));
    drop(file);
    eventually("published with a coding", || {
        coding(&get(&server, "/a.txt", "br")) == Some("br")
    });
    let digest = digest_with(&site);
    eventually("the digest is said", || server.digest() == digest);
}

#[test]
fn what_is_gone_is_kept_compressed() {
    let script = prose(5000, 1);
    let site = TestSite::new().file("app.js", &script).file("b.txt", "b");
    let server = Server::with(&site, &["--compress", "--keep-old", "1h"]);
    let before = get(&server, "/app.js", "br");
    fs::remove_file(site.path("app.js")).unwrap();
    server.wait_for_line("published: ");
    let after = get(&server, "/app.js", "br");
    assert_eq!((coding(&after), &after.body), (Some("br"), &before.body));
}

#[test]
fn rules_apply_to_codings_as_to_all() {
    let site = TestSite::new()
        .file("a.txt", prose(5000, 1))
        .file("packed.bin", prose(5000, 2))
        .file("_headers", "/a.txt\n  X-Frame-Options: DENY\n");
    let server = Server::with(&site, &["--compress"]);
    let response = server.client().request("GET", "/a.txt", BROWSER);
    let etag = response.field("ETag").unwrap();
    let hash = tag(&response.body);
    let hash = hash.trim_end_matches('"');
    assert!(etag.starts_with(&format!("{hash}-")), "{etag}");
    // The same coding without the rule.
    fs::write(site.path("_headers"), "").unwrap();
    eventually("the rule is gone", || {
        server
            .client()
            .request("GET", "/a.txt", BROWSER)
            .is_what_its_tag_says()
    });
    let plain = server.client().request("GET", "/a.txt", BROWSER);
    assert_eq!((coding(&plain), &plain.body), (Some("br"), &response.body));
}

#[test]
fn an_operator_is_told_how_far_it_is_and_what_could_be_compressed() {
    let mut site = TestSite::new();
    for number in 0..40 {
        site = site.file(format!("{number}.txt"), dense(200_000, number));
    }
    let flags = [
        "--compress",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ];
    let server = Server::spawn(command(env!("CARGO_BIN_EXE_etagd")), &site.root(), &flags);
    let admin = server.admin();
    let mut said = Vec::new();
    within(Duration::from_secs(120), "ready", || {
        let response = Client::connect(admin).get("/readyz");
        said.push(String::from_utf8(response.body).unwrap());
        response.status == 200
    });
    let percent = |line: &String| -> Option<u64> {
        line.strip_prefix("compressing ")?
            .split(' ')
            .next()?
            .parse()
            .ok()
    };
    let percents: Vec<_> = said.iter().filter_map(percent).collect();
    assert!(percents.len() > 1 && percents.is_sorted(), "{said:#?}");
    assert!(!server.log().contains("could be sent compressed"));
    drop(server);

    let site = TestSite::new()
        .file("a.txt", prose(3000, 1))
        .file("b.txt", prose(3000, 2))
        .file("short.txt", prose(100, 3));
    let server = Server::start(&site);
    server.wait_for_line(
        "2 files (5.86 KiB) could be sent compressed: --compress, or etagd compress",
    );
    drop(server);

    // Whoever has compressed most of it has left the rest.
    for name in ["a.txt.gz", "b.txt.gz"] {
        let text = fs::read(site.path(&name[..5])).unwrap();
        let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&text).unwrap();
        fs::write(site.path(name), gzip.finish().unwrap()).unwrap();
    }
    fs::write(site.path("c.txt"), prose(2000, 4)).unwrap();
    let server = Server::start(&site);
    assert!(!server.log().contains("could be sent compressed"));
}

/// script(1) has a terminal for whoever it runs. What is done in half a second has no bar, so there is more
/// and more to do.
#[test]
fn on_a_terminal_a_bar_shows_how_far_it_is() {
    let site = TestSite::new();
    let binary = env!("CARGO_BIN_EXE_etagd");
    let line = format!(
        "{binary} manifest --compress --digest '{}'",
        site.root().display()
    );
    for megabytes in [8, 16, 32, 64, 128] {
        for number in 0..megabytes * 4 {
            let path = site.path(format!("{number}.txt"));
            fs::write(path, dense(250_000, number)).unwrap();
        }
        let mut script = Command::new("script");
        script.args(["-q", "-e", "-c", &line, "/dev/null"]);
        let output = match script.env("TERM", "xterm").stdin(Stdio::null()).output() {
            Ok(output) => output,
            Err(error) => {
                let may_skip = std::env::var_os("ETAGD_NO_SKIP").is_none();
                assert!(may_skip, "script: {error}");
                return eprintln!("skipped: there is no script(1)");
            }
        };
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
        if said.contains("compressing: ") {
            return;
        }
    }
    panic!("no bar, however much there is to do");
}

#[test]
fn a_manifest_lists_codings_and_check_names_another_setting() {
    let site = TestSite::new().file("a.txt", prose(5000, 1));
    let root = site.root();
    let directory = root.to_str().unwrap();
    let flags = ["--compress", "--admin", "127.0.0.1:0"];
    let server = Server::with(&site, &flags);
    let listed = String::from_utf8(manifest_of(&root, &["--compress"])).unwrap();
    for part in [
        "\"compress\":\"br,gz (etagd-1)\"".to_owned(),
        get(&server, "/a.txt", "br")
            .field("ETag")
            .unwrap()
            .replace('"', ""),
        get(&server, "/a.txt", "gzip")
            .field("ETag")
            .unwrap()
            .replace('"', ""),
        server.digest(),
    ] {
        assert!(listed.contains(&part), "{part}: {listed}");
    }
    assert_ne!(server.digest(), digest_of(&root));
    // The policy is a setting, also where nothing gains from it.
    let short = TestSite::new().file("a.txt", "a");
    assert_ne!(digest_with(&short), digest_of(&short.root()));
    let url = format!("http://{}", server.admin());
    let check = |flags: &[&str]| {
        let output = etagd([&["check", &url, "--dir", directory], flags].concat());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said)
    };
    assert_eq!(check(&["--compress"]), (Some(0), String::new()));
    let (code, said) = check(&[]);
    assert_eq!(code, Some(1));
    assert!(
        said.contains("--compress br,gz (etagd-1) instead of off"),
        "{said}"
    );
    let output = etagd(["lint", "--compress", directory]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_release_lists_codings_that_each_replica_makes() {
    let site = TestSite::new()
        .file("a.txt", prose(5000, 1))
        .file("b.txt", "b");
    let list = site.outside("release.json");
    fs::write(&list, manifest_of(&site.root(), &["--compress"])).unwrap();
    let list = list.to_str().unwrap();
    let server = Server::with(&site, &["--compress", "--manifest", list]);
    assert_eq!(coding(&get(&server, "/a.txt", "br")), Some("br"));
    assert_eq!(server.digest(), digest_with(&site));
    drop(server);
    // A server that makes none has not what is listed.
    let flags = ["--listen", "127.0.0.1:0", "--manifest", list];
    let server = Server::spawn(command(env!("CARGO_BIN_EXE_etagd")), &site.root(), &flags);
    server.wait_for_line("/a.txt (br) is missing");
    stays(Duration::from_millis(300), "not published", || {
        !server.log().contains("listening on")
    });
}
