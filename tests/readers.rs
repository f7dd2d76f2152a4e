//! HTTP/1.1 has two readers here. What the one in front takes for a plain request, hyper must read as
//! the same request, of the same length and without content (RFC 9112 section 11.2).
//!
//! Heads are made of pieces that matter, and then damaged; `fuzz/fuzz_targets/front.rs` goes further.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use etagd::semantics::head::{FieldLines, RequestHead};
use etagd::semantics::plain::{FieldSpace, HeadParse, PlainHead};
use http::request::Parts;
use http::{HeaderName, Request, Response};
use http_body_util::Empty;
use hyper::body::{Body, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, duplex};

const HEADS: usize = 100_000;

const STARTS: &[&str] = &["", "", "", "\r\n", "\n", " "];
const METHODS: &[&str] = &["GET ", "GET ", "HEAD ", "POST ", "get ", "GET  "];
const TARGETS: &[&str] = &[
    "/",
    "/a/b.html?c=d&e",
    "/%41%zz%",
    "//a//",
    "/?",
    "/a?b?c",
    "/:@!$&'()*+,;=~._-",
    "*",
    "http://a/b",
    "/\\",
    "/\u{e9}",
    "/a#b",
    "/\"<>^`{|}",
];
const VERSIONS: &[&str] = &[
    " HTTP/1.1\r\n",
    " HTTP/1.1\n",
    " HTTP/1.0\r\n",
    " HTTP/1.1 \r\n",
];
const LINES: &[&str] = &[
    "Host: localhost\r\n",
    "host:localhost:80\r\n",
    "If-None-Match: \"x\", W/\"y\"\r\n",
    "If-None-Match:\t* \t\r\n",
    "Accept-Encoding: gzip\n",
    "X: \u{e9}\r\n",
    "X:\r\n",
    "!#$%&'*+-.^_`|~9: token\r\n",
    "Connection: keep-alive\r\n",
    "Connection: Keep-Alive \r\n",
    "Connection: close\r\n",
    "Connection: keep-alive, upgrade\r\n",
    "Content-Length: 4\r\n",
    "Content-Length: 0\r\n",
    "content-length : 4\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Upgrade: h2c\r\n",
    "Expect: 100-continue\r\n",
    "X: a\r\n b\r\n",
    ": x\r\n",
    "X\r\n",
];
const ENDS: &[&str] = &[
    "\r\n",
    "\r\n",
    "\n",
    "\r\n\r\n",
    "\r\nGET / HTTP/1.1\r\n\r\n",
    "",
];

/// xorshift64*: the same numbers on each machine.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn one_of<'a>(&mut self, pieces: &[&'a str]) -> &'a str {
        pieces[self.below(pieces.len())]
    }

    fn head(&mut self) -> Vec<u8> {
        let mut head = String::new();
        for pieces in [STARTS, METHODS, TARGETS, VERSIONS] {
            head += self.one_of(pieces);
        }
        for _ in 0..self.below(5) {
            head += self.one_of(LINES);
        }
        head += self.one_of(ENDS);
        let mut head = head.into_bytes();
        // A third of them have a byte changed, put in or taken out.
        let at = self.below(head.len());
        let byte = [0, b'\r', b'\n', b' ', b':', b'/', 0x7f, 0xff][self.below(8)];
        match self.below(9) {
            0 => head[at] = byte,
            1 => head.insert(at, byte),
            2 => drop(head.remove(at)),
            _ => {}
        }
        head
    }
}

#[tokio::test]
async fn a_plain_request_is_the_same_request_for_hyper() {
    /// If it is read as it stands here, the request before it has ended where it should.
    const NEXT: &[u8] = b"DELETE /next HTTP/1.1\r\n\r\n";
    let mut numbers = Numbers(0x5eed);
    let mut plain = 0;
    for _ in 0..HEADS {
        let bytes = numbers.head();
        let mut space = FieldSpace::new();
        let HeadParse::Plain(head, length) = PlainHead::read(&bytes, &mut space) else {
            continue;
        };
        plain += 1;
        let shown = bytes.escape_ascii();
        let requests = read_by_hyper([&bytes[..length], NEXT].concat()).await;
        let [(parts, false), (next, false)] = &requests[..] else {
            panic!("hyper reads {} requests in {shown}", requests.len());
        };
        assert_eq!(next.uri.path(), "/next", "{shown}");
        assert_same(&head, parts);
    }
    assert!(plain > HEADS / 50, "only {plain} of {HEADS} are plain");
}

/// Whether all that a head may be asked has one answer.
fn assert_same(head: &PlainHead<'_, '_>, parts: &Parts) {
    assert_eq!(head.method(), RequestHead::method(parts));
    assert_eq!(head.version(), RequestHead::version(parts));
    assert_eq!(head.target(), RequestHead::target(parts));
    assert_eq!(head.authority(), RequestHead::authority(parts));
    assert_eq!(head.path(), RequestHead::path(parts));
    assert_eq!(head.query(), RequestHead::query(parts));
    assert_eq!(head.fields().iter().count(), parts.headers.len());
    for (name, _) in head.fields().iter() {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        let own: Vec<_> = head.fields().lines(&name).collect();
        let others: Vec<_> = parts.headers.lines(&name).collect();
        assert_eq!(own, others, "{name}");
    }
}

/// The requests in some bytes, and whether each has content, as hyper reads them.
async fn read_by_hyper(bytes: Vec<u8>) -> Vec<(Parts, bool)> {
    let (mut there, here) = duplex(1 << 16);
    there.write_all(&bytes).await.unwrap();
    there.shutdown().await.unwrap();
    let requests = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&requests);
    let service = service_fn(move |request: Request<Incoming>| {
        let (parts, content) = request.into_parts();
        seen.borrow_mut().push((parts, !content.is_end_stream()));
        async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
    });
    // An error is the end of what it can read.
    let _ = http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(here), service)
        .await;
    requests.take()
}
