//! A proxy that serves a site below `/blog/` and asks for it without that.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::server::command;
use crate::support::tree::{has, within};
use crate::support::{TestSite, noise};
use crate::{Observed, client, folder, succeeded};

/// HAProxy on a port of loopback. Dropping it ends it.
pub(crate) struct StrippingProxy {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl StrippingProxy {
    /// In front of a server; none, where HAProxy is not installed.
    pub(crate) fn start(server: SocketAddr) -> Option<Self> {
        if !has("haproxy") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        // Free until HAProxy takes it: it can't be asked for the port that it got.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let configuration = format!(
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
             frontend front\n  bind 127.0.0.1:{port}\n  \
             http-request redirect location /blog/ if {{ path /blog }}\n  \
             http-request deny deny_status 404 unless {{ path_beg /blog/ }}\n  \
             http-request replace-path /blog/(.*) /\\1\n  default_backend site\n\
             backend site\n  server etagd {server}\n"
        );
        let file = dir.path().join("haproxy.cfg");
        std::fs::write(&file, configuration).unwrap();
        let child = command("haproxy")
            .args(["-db", "-q", "-f"])
            .arg(file)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        within(
            Duration::from_secs(20),
            "the proxy takes connections",
            || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok(),
        );
        Some(Self {
            child,
            port,
            _dir: dir,
        })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/blog{path}", self.port)
    }
}

impl Drop for StrippingProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn redirects_of_directories_and_pages_keep_the_prefix() {
    if !has("curl") {
        return;
    }
    let site = || {
        TestSite::new()
            .file("docs/index.html", "<!doctype html>docs")
            .file("a:b/index.html", "<!doctype html>colon")
            .file("about.html", "<!doctype html>about")
            .file("large.bin", noise(300_000, 4))
    };
    let flags = ["--html-handling", "auto-trailing-slash"];
    Observed::each_way(site, &flags, |served| {
        let dir = folder(&served.site, "prefix");
        for (path, body) in [
            ("/docs", "<!doctype html>docs"),
            ("/docs/index.html", "<!doctype html>docs"),
            ("/a:b", "<!doctype html>colon"),
            ("/about.html", "<!doctype html>about"),
            ("/about/?q", "<!doctype html>about"),
        ] {
            let url = served.url(path);
            assert_eq!(
                succeeded(client("curl", &["-sSfL", &url], &dir)),
                body,
                "{url}"
            );
        }
    });
}
