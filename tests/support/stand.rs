//! Servers that are not etagd, and say whatever a test wants to hear.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// What is sent: everything up to the end of the connection.
pub(crate) type Wire = Box<dyn Read + Send>;

/// A server that answers each request head with what a function makes of its method and target.
pub(crate) struct Stand {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Stand {
    /// The threads live as long as the test.
    pub(crate) fn new(answer: impl Fn(&str, &str) -> Wire + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, asked) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answer, count) = (Arc::clone(&answer), Arc::clone(&count));
                thread::spawn(move || serve(stream, &*answer, &count));
            }
        });
        Self { address, asked }
    }

    /// One that answers `/manifest` and `/digest` as an admin listener does.
    pub(crate) fn of_manifest(manifest: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::new(move |_, target| match target {
            "/manifest" => response(200, &[], &manifest()),
            "/digest" => response(200, &[], digest_in(&manifest()).as_bytes()),
            _ => response(404, &[], b"nothing"),
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Number of requests so far.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A response that ends with its connection.
pub(crate) fn response(status: u16, fields: &[(&str, &str)], body: &[u8]) -> Wire {
    let mut head = format!("HTTP/1.1 {status} Said\r\nConnection: close\r\n");
    let mut has_length = false;
    for (name, value) in fields {
        has_length |= name.eq_ignore_ascii_case("content-length");
        head += &format!("{name}: {value}\r\n");
    }
    if !has_length {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    Box::new(std::io::Cursor::new(
        [head.as_bytes(), b"\r\n", body].concat(),
    ))
}

/// The digest that a manifest in JSON names.
pub(crate) fn digest_in(manifest: &[u8]) -> String {
    let manifest: serde_json::Value = serde_json::from_slice(manifest).unwrap();
    manifest["digest"].as_str().unwrap().to_owned()
}

fn serve(mut stream: TcpStream, answer: &dyn Fn(&str, &str) -> Wire, asked: &AtomicUsize) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(request)) = lines.next() else {
        return;
    };
    while let Some(Ok(line)) = lines.next()
        && !line.is_empty()
    {}
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let mut answer = answer(method, target);
    asked.fetch_add(1, Ordering::SeqCst);
    // The client may have heard enough.
    let _ = std::io::copy(&mut answer, &mut stream);
    let _ = stream.flush();
}
