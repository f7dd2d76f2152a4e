//! Plain requests: what the front takes, hyper takes for the same request, of the same length and
//! without content.
//!
//! Input: what comes over a connection of HTTP/1.1.
#![no_main]

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::LazyLock;

use etagd::semantics::head::{FieldLines, RequestHead};
use etagd::semantics::plain::{FieldSpace, HeadParse, PlainHead};
use http::request::Parts;
use http::{HeaderName, Request, Response};
use http_body_util::Empty;
use hyper::body::{Body, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncWriteExt, duplex};
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().expect("a runtime"));

/// What follows a request: if it is read as it stands here, the one before has ended where it should.
const NEXT: &[u8] = b"DELETE /next HTTP/1.1\r\n\r\n";

fuzz_target!(|input: &[u8]| {
    let mut space = FieldSpace::new();
    let HeadParse::Plain(head, length) = PlainHead::read(input, &mut space) else {
        return;
    };
    let (own, _) = input.split_at(length);
    let requests = RUNTIME.block_on(read_by_hyper([own, NEXT].concat()));
    let [(parts, has_content), (next, false)] = &requests[..] else {
        panic!("hyper reads {} requests", requests.len());
    };
    assert!(!has_content);
    assert_eq!((next.method.as_str(), next.uri.path()), ("DELETE", "/next"));
    assert_same(&head, parts);
    // However it is cut, it is no other request.
    for end in 0..length {
        let mut space = FieldSpace::new();
        let begun = PlainHead::read(&input[..end], &mut space);
        assert!(!matches!(begun, HeadParse::Plain(..)), "{end} of {length}");
    }
});

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
        let name = HeaderName::from_bytes(name.as_bytes()).expect("hyper has read it");
        let own: Vec<_> = head.fields().lines(&name).collect();
        let others: Vec<_> = parts.headers.lines(&name).collect();
        assert_eq!(own, others, "{name}");
    }
}

/// The requests in some bytes, and whether each has content, as hyper reads them.
async fn read_by_hyper(bytes: Vec<u8>) -> Vec<(Parts, bool)> {
    let (mut there, here) = duplex(1 << 20);
    there.write_all(&bytes).await.expect("room");
    there.shutdown().await.expect("open");
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
