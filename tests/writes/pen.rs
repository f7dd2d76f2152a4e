//! A client that writes.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::support::wire::head;
use super::support::{Client, Response, Server, TestSite};

pub(crate) const CREATE: (&str, &str) = ("If-None-Match", "*");

/// A connection to write over, opened again after the server has closed it.
pub(crate) struct Pen {
    address: SocketAddr,
    client: Client,
}

impl Pen {
    pub(crate) fn new(server: &Server) -> Self {
        Self::at(server.address())
    }

    pub(crate) fn at(address: SocketAddr) -> Self {
        let client = Client::connect(address);
        Self { address, client }
    }

    /// Sends a request with content, and waits for its response.
    pub(crate) fn send(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        content: &[u8],
    ) -> Response {
        let length = content.len().to_string();
        let fields = [fields, &[("Content-Length", &length)]].concat();
        let request = [head(method, target, &fields).as_bytes(), content].concat();
        self.exchange(method, &request)
    }

    /// Sends these bytes, and waits for the response.
    pub(crate) fn exchange(&mut self, method: &str, request: &[u8]) -> Response {
        // What was refused early may not be taken in.
        let _ = self.client.send(request);
        let response = self.client.receive(method).unwrap().expect("a response");
        if response.says_close() {
            self.client = Client::connect(self.address);
        }
        response
    }

    pub(crate) fn put(
        &mut self,
        target: &str,
        condition: (&str, &str),
        content: &[u8],
    ) -> Response {
        self.send("PUT", target, &[condition], content)
    }

    pub(crate) fn create(&mut self, target: &str, content: impl AsRef<[u8]>) -> Response {
        self.put(target, CREATE, content.as_ref())
    }

    /// Replaces the version of this tag.
    pub(crate) fn replace(
        &mut self,
        target: &str,
        tag: &str,
        content: impl AsRef<[u8]>,
    ) -> Response {
        self.put(target, ("If-Match", tag), content.as_ref())
    }

    pub(crate) fn delete(&mut self, target: &str, tag: &str) -> Response {
        let request = head("DELETE", target, &[("If-Match", tag)]);
        self.exchange("DELETE", request.as_bytes())
    }

    pub(crate) fn get(&mut self, target: &str) -> Response {
        self.exchange("GET", head("GET", target, &[]).as_bytes())
    }
}

/// A server whose site anybody on this machine may change.
pub(crate) fn writable(site: &TestSite) -> Server {
    Server::with(site, &["--writable"])
}

/// Every file below a directory, hidden ones included.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}
