//! P6: a request is looked up in the manifest only. What the scan did not let in can't be reached
//! by any spelling of a path.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::{Server, TestSite, etagd, exchange, noise};

/// Everything that must stay out, in each of the ways to get in. Whatever is secret says so.
fn site() -> TestSite {
    TestSite::new()
        .file("index.html", "<!doctype html>")
        .file("public.txt", "public")
        .file("sub/page.txt", "page")
        .file(".well-known/security.txt", "public")
        .file(".env", "SECRET")
        .file(".git/config", "SECRET")
        .file("sub/.hidden/file", "SECRET")
        .file(".well-known/.hidden", "SECRET")
        .file("..data/file", "SECRET")
        .file_outside("secret.txt", b"SECRET")
        .file_outside("site-backup/secret.txt", b"SECRET")
        .symlink("out.txt", "../secret.txt")
        .symlink("out", "..")
        .symlink("sub/far", "../../site-backup")
        .symlink("chain", "out")
        .symlink("passwd", "/etc/passwd")
        .symlink("proc", "/proc/self")
        .fifo("pipe")
        .socket("socket")
        .device("zero")
}

/// Ways to write a dot, a slash and what goes up.
const UPS: [&str; 24] = [
    "../",
    "..%2f",
    "..%2F",
    "%2e%2e/",
    "%2E%2E/",
    "%2e%2e%2f",
    ".%2e/",
    "%2e./",
    "..%5c",
    "..\\",
    "%2e%2e%5c",
    "%252e%252e/",
    "%252e%252e%252f",
    "..%00/",
    "%c0%ae%c0%ae/",
    "%c0%ae%c0%ae%c0%af",
    "%e0%80%ae%e0%80%ae/",
    "....//",
    ".../",
    "..;/",
    "..//",
    "./../",
    "%u002e%u002e/",
    "..%ef%bc%8f",
];

/// Paths of what is let in by nobody.
const HIDDEN: [&str; 22] = [
    "/.env",
    "/%2eenv",
    "/%2Eenv",
    "/./.env",
    "//.env",
    "/.env/",
    "/.env%00",
    "/.git/config",
    "/.git",
    "/%2egit/config",
    "/sub/.hidden/file",
    "/sub/%2ehidden/file",
    "/.well-known/.hidden",
    "/..data/file",
    "/%2e.data/file",
    "/out.txt",
    "/out/secret.txt",
    "/out/site/.env",
    "/sub/far/secret.txt",
    "/chain/secret.txt",
    "/passwd",
    "/proc/environ",
];

fn targets() -> Vec<String> {
    let mut targets: Vec<String> = HIDDEN.iter().map(|&path| path.to_owned()).collect();
    for up in UPS {
        for file in ["secret.txt", "site-backup/secret.txt", "site/.env"] {
            targets.push(format!("/{up}{file}"));
            targets.push(format!("/sub/{up}{up}{file}"));
            targets.push(format!("/public.txt/{up}{up}{file}"));
        }
        targets.push(format!("/{}etc/passwd", up.repeat(12)));
        // Up and down again, to what is hidden inside.
        for hidden in [
            ".env",
            ".git/config",
            "sub/.hidden/file",
            "..data/file",
            "pipe",
            "out/secret.txt",
        ] {
            targets.push(format!("/sub/{up}{hidden}"));
            targets.push(format!("/sub/{up}{}", hidden.replace('/', "%2F")));
        }
    }
    for spelling in [
        "/.%2Fpublic.txt%2F.env",
        "/%2F.env",
        "/sub%2F.hidden%2ffile",
        "/.%2f.git%2fconfig",
    ] {
        targets.push(spelling.to_owned());
    }
    targets.extend(
        [
            "/pipe",
            "/socket",
            "/zero",
            "/pipe/",
            "/%70ipe",
            "/dev/null",
        ]
        .map(String::from),
    );
    targets
}

/// The status of a bare request for this target, after a look at its body.
fn status(server: &Server, target: &str, about: &str) -> u16 {
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let responses = exchange(server.address(), request);
    let response = responses
        .first()
        .unwrap_or_else(|| panic!("{about} {target}: no response"));
    let body = String::from_utf8_lossy(&response.body);
    assert!(
        !body.contains("SECRET"),
        "{about} {target} shows what is hidden"
    );
    assert!(
        !body.contains("root:"),
        "{about} {target} shows /etc/passwd"
    );
    assert!(!response.cut, "{about} {target} is cut");
    response.status
}

#[test]
fn p6_no_spelling_reaches_what_is_outside() {
    let site = site();
    let mut server = Server::start(&site);
    assert_eq!(status(&server, "/public.txt", "what is public:"), 200);
    for target in targets() {
        let status = status(&server, &target, "by default");
        assert!(matches!(status, 400 | 404), "{target} is answered {status}");
        // The same as an absolute-form target, which is taken apart elsewhere.
        let absolute = self::status(&server, &format!("http://x{target}"), "as absolute-form");
        assert!(
            matches!(absolute, 400 | 404),
            "http://x{target} is answered {absolute}"
        );
    }
    server.assert_alive();
}

#[test]
fn p6_the_manifest_has_what_is_let_in_and_nothing_else() {
    let site = site();
    let output = etagd(["manifest".as_ref(), site.root().as_os_str()]);
    let text = String::from_utf8(output.stdout).unwrap();
    let paths: Vec<_> = text
        .lines()
        .map(|line| line.split('\t').next().unwrap())
        .collect();
    let expected = [
        "/.well-known/security.txt",
        "/index.html",
        "/public.txt",
        "/sub/page.txt",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn p6_no_links_are_followed_where_none_shall_be() {
    let site = TestSite::with(&[("file.txt", b"file"), ("dir/leaf.txt", b"leaf")])
        .symlink("link.txt", "file.txt")
        .symlink("linked", "dir")
        .symlink("sub/up.txt", "../file.txt");
    let server = Server::with(&site, &["--symlinks", "none"]);
    for target in ["/link.txt", "/linked/leaf.txt", "/linked", "/sub/up.txt"] {
        assert_eq!(status(&server, target, "without links"), 404, "{target}");
    }
    assert_eq!(status(&server, "/file.txt", "without links"), 200);
    let server = Server::with(&site, &["--symlinks", "inside"]);
    for target in ["/link.txt", "/linked/leaf.txt", "/sub/up.txt"] {
        assert_eq!(
            status(&server, target, "with links inside"),
            200,
            "{target}"
        );
    }
}

#[test]
fn p6_all_links_are_followed_where_all_shall_be() {
    let site = TestSite::with(&[("file.txt", b"file")])
        .file_outside("shared/outside.txt", b"outside")
        .symlink("link.txt", "../shared/outside.txt")
        .symlink("linked", "../shared")
        .symlink("loop", "loop")
        .symlink("dangling", "nowhere")
        .symlink("above", "..");
    let mut server = Server::with(&site, &["--symlinks", "all"]);
    for target in ["/link.txt", "/linked/outside.txt"] {
        assert_eq!(status(&server, target, "with all links"), 200, "{target}");
    }
    for target in ["/loop", "/dangling"] {
        assert_eq!(status(&server, target, "with all links"), 404, "{target}");
    }
    server.assert_alive();
}

#[test]
fn p6_a_link_that_is_bent_after_the_scan_leads_nowhere() {
    for size in [50, 300_000, 2_000_000] {
        let secret = b"SECRET".repeat(size / 6);
        let site = TestSite::with(&[("dir/file", &noise(size, 1)), ("file", &noise(size, 2))])
            .file_outside("outside/file", &secret)
            .symlink("link", "file");
        let server = Server::with(&site, &["--memory", "64KiB"]);
        fs::remove_file(site.path("link")).unwrap();
        symlink(site.outside("outside/file"), site.path("link")).unwrap();
        fs::rename(site.path("dir"), site.path("was-dir")).unwrap();
        symlink(site.outside("outside"), site.path("dir")).unwrap();
        for target in ["/link", "/dir/file"] {
            let status = status(&server, target, "after the scan,");
            assert!(
                matches!(status, 200 | 404 | 503),
                "{target} is answered {status}"
            );
        }
    }
}

#[test]
fn p6_a_root_that_is_itself_a_link_is_served() {
    let site = TestSite::with(&[("file.txt", b"file")]).symlink("link.txt", "file.txt");
    let link = site.outside("current");
    symlink(site.root(), &link).unwrap();
    let server = Server::run(
        crate::support::server::command(env!("CARGO_BIN_EXE_etagd")),
        &link,
        &[],
    );
    for target in ["/file.txt", "/link.txt"] {
        assert_eq!(status(&server, target, "through a link,"), 200, "{target}");
    }
}
