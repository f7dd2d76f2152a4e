//! Who is let in: what a start refuses, and why.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::pen::Pen;
use super::support::{Client, Server, TestSite, etagd};
use super::transports::Authority;

const TOKEN: &str = "0123456789abcdef-0123456789abcdef";

fn token_file(site: &TestSite, text: &str) -> String {
    let path = site.outside("tokens");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn nobody_gets_write_access_by_accident() {
    let site = TestSite::with(&[]);
    let root = site.root();
    let tokens = token_file(&site, &format!("ci {TOKEN}\n"));
    let public = ["--listen", "0.0.0.0:0"];
    let fails = |flags: &[&str], naming: &[&str]| {
        Server::assert_fails(&root, &[&public[..], flags].concat(), 2, naming);
    };
    fails(&["--writable"], &["0.0.0.0:", "--write-token-file"]);
    fails(&["--writable", "--write-insecure"], &["--write-token-file"]);
    let with_tokens = ["--writable", "--write-token-file", &tokens];
    fails(&with_tokens, &["without TLS", "--write-insecure"]);
    let both = [&["--listen", "127.0.0.1:0"], &with_tokens[..]].concat();
    fails(&both, &["without TLS"]);
    let proxied = ["--writable", "--trusted-proxy", "127.0.0.1"];
    Server::assert_fails(
        &root,
        &proxied,
        2,
        &["--trusted-proxy", "--write-token-file"],
    );
    fs::copy(&tokens, site.path("tokens")).unwrap();
    let served = site.path("tokens").to_str().unwrap().to_owned();
    let served_tokens = ["--writable", "--write-token-file", &served];
    Server::assert_fails(&root, &served_tokens, 2, &[&served, "it would be served"]);
    let insecure = [&public[..], &with_tokens, &["--write-insecure"]].concat();
    Server::with(&site, &insecure);
    let secure = [&public[..], &with_tokens].concat();
    let authority = Authority::new();
    authority.issue();
    authority.serve(&site, &secure);
    let socket = site.outside("socket");
    let unix = format!("unix:{}", socket.display());
    let server = Server::with(&site, &["--listen", &unix, "--writable"]);
    let mut client = Client::connect_unix(&socket);
    let request = "PUT /a HTTP/1.1\r\nHost: site.example\r\nIf-None-Match: *\r\n\
                   Content-Length: 1\r\n\r\na";
    client.send(request).unwrap();
    assert_eq!(client.receive("PUT").unwrap().unwrap().status, 201);
    drop(server);
}

#[test]
fn flags_that_say_nothing_without_another_are_refused() {
    let site = TestSite::with(&[]);
    let tokens = token_file(&site, &format!("ci {TOKEN}\n"));
    for flags in [
        &["--write-token-file", &tokens][..],
        &["--write-insecure"],
        &["--write-rules"],
        &["--writable", "--max-upload", "much"],
        &["--writable", "--max-uploads", "0"],
    ] {
        Server::assert_fails(&site.root(), flags, 2, &[]);
    }
}

#[test]
fn a_developers_server_takes_no_writes() {
    let site = TestSite::with(&[]);
    let root = site.root();
    let output = etagd(["dev", root.to_str().unwrap(), "--writable"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_file_of_tokens_must_be_valid() {
    let site = TestSite::with(&[]);
    let cases = [
        ("", "holds no token"),
        ("ci short\n", "line 1: a token has 16 characters or more"),
        ("# nobody\nci\n", "line 2: a line is NAME TOKEN"),
    ];
    for (text, want) in cases {
        let tokens = token_file(&site, text);
        let flags = ["--writable", "--write-token-file", &tokens];
        Server::assert_fails(&site.root(), &flags, 1, &[&tokens, want]);
    }
    let flags = ["--writable", "--write-token-file", "/nowhere/tokens"];
    Server::assert_fails(
        &site.root(),
        &flags,
        1,
        &["/nowhere/tokens", "No such file"],
    );
    let tokens = token_file(&site, &format!("ci {TOKEN}\n"));
    fs::set_permissions(&tokens, fs::Permissions::from_mode(0o644)).unwrap();
    let server = Server::with(&site, &["--writable", "--write-token-file", &tokens]);
    server.wait_for(|lines| lines.iter().any(|line| line.contains("chmod 600")));
    assert!(!server.log().contains(TOKEN));
    assert_eq!(Pen::new(&server).create("/a", "a").status, 401);
}
