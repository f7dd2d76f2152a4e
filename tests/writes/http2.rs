//! The same over HTTP/2, where nothing marks the end of a head but its frame.

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{SendRequest, handshake};
use http::Request;
use tokio::net::TcpStream;
use tokio::runtime::Builder;

use super::pen::files;
use super::support::server::command;
use super::support::tree::has;
use super::support::wire::PATIENCE;
use super::support::{Server, TestSite, tag};

fn run<F: Future<Output = ()>>(server: &Server, test: impl FnOnce(SendRequest<Bytes>) -> F) {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(async {
        let stream = TcpStream::connect(server.address()).await.unwrap();
        let (sender, connection) = handshake(stream).await.unwrap();
        tokio::spawn(async move { connection.await.ok() });
        test(sender).await;
    });
}

async fn put(
    sender: &SendRequest<Bytes>,
    target: &str,
    condition: (&str, &str),
    content: Option<&[u8]>,
    pause: Duration,
) -> (u16, Option<String>) {
    let request = Request::put(format!("http://localhost{target}"))
        .header(condition.0, condition.1)
        .body(())
        .unwrap();
    let mut sender = sender.clone().ready().await.unwrap();
    let (response, mut stream) = sender.send_request(request, content.is_none()).unwrap();
    if let Some(content) = content {
        for piece in content.chunks(1000) {
            // What was refused is not taken.
            let _ = stream.send_data(Bytes::copy_from_slice(piece), false);
            tokio::time::sleep(pause).await;
        }
        let _ = stream.send_data(Bytes::new(), true);
    }
    let response = response.await.unwrap();
    let tag = response
        .headers()
        .get("etag")
        .map(|tag| tag.to_str().unwrap().to_owned());
    (response.status().as_u16(), tag)
}

#[test]
fn a_file_is_written_and_compared() {
    let site = TestSite::with(&[]);
    let server = Server::with(&site, &["--writable", "--max-upload", "10KiB"]);
    run(&server, |sender| async move {
        let (create, now) = (("if-none-match", "*"), Duration::ZERO);
        let first = vec![b'1'; 4500];
        let made = put(&sender, "/a", create, Some(&first), now).await;
        assert_eq!(made, (201, Some(tag(&first))));
        let stale = put(
            &sender,
            "/a",
            ("if-match", &tag(b"other")),
            Some(b"new"),
            now,
        )
        .await;
        assert_eq!(stale, (412, Some(tag(&first))));
        let known = tag(&first);
        let replaced = put(&sender, "/a", ("if-match", &known), Some(b"new"), now).await;
        assert_eq!(replaced, (204, Some(tag(b"new"))));
        assert_eq!(put(&sender, "/b", create, None, now).await.0, 411);
        let large = vec![b'x'; 11 << 10];
        assert_eq!(put(&sender, "/b", create, Some(&large), now).await.0, 413);
        assert_eq!(put(&sender, "/b", create, Some(b""), now).await.0, 201);
    });
    assert_eq!(files(&site.root()), [site.path("a"), site.path("b")]);
}

/// While content comes, no response is due: the limit for clients that take none does not run.
#[test]
fn a_long_upload_is_not_cut() {
    let site = TestSite::with(&[]);
    let server = Server::with(&site, &["--writable", "--write-timeout", "600ms"]);
    run(&server, |sender| async move {
        let content = vec![b'x'; 10_000];
        let pause = Duration::from_millis(200);
        let made = put(&sender, "/a", ("if-none-match", "*"), Some(&content), pause).await;
        assert_eq!(made, (201, Some(tag(&content))));
    });
}

#[test]
fn a_reset_leaves_nothing() {
    let site = TestSite::with(&[]);
    let server = Server::with(&site, &["--writable"]);
    run(&server, |sender| async move {
        let request = Request::put("http://localhost/a").header("if-none-match", "*");
        let mut sender = sender.ready().await.unwrap();
        let (_, mut stream) = sender
            .send_request(request.body(()).unwrap(), false)
            .unwrap();
        stream.send_data(Bytes::from_static(b"one"), false).unwrap();
        let is_begun = || files(&site.root()).len() == 1;
        until("it has begun", is_begun).await;
        stream.send_reset(h2::Reason::CANCEL);
        until("nothing is left", || !is_begun()).await;
    });
}

/// A reset that comes with the answer is the answer to some clients.
#[test]
fn a_client_that_is_still_sending_can_read_the_refusal() {
    if !has("curl") {
        return;
    }
    let site = TestSite::with(&[]);
    let server = Server::with(&site, &["--writable", "--max-upload", "1MiB"]);
    let large = site.outside("large.bin");
    std::fs::write(&large, vec![0; 8 << 20]).unwrap();
    let url = format!("http://{}/a", server.address());
    let curl = |flags: &[&str]| {
        let mut curl = command("curl");
        curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}"]);
        curl.args(["--http2-prior-knowledge", "-T"]).arg(&large);
        let output = curl.args(flags).arg(&url).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for _ in 0..10 {
        assert_eq!(curl(&["-H", "If-None-Match: *"]), "413");
        assert_eq!(curl(&[]), "428");
        let chunked = ["-H", "If-None-Match: *", "-H", "Content-Length:"];
        assert_eq!(curl(&chunked), "413");
    }
    assert!(files(&site.root()).is_empty());
}

/// Nor does it keep one of the places that uploads have.
#[test]
fn many_resets_leave_nothing() {
    let site = TestSite::with(&[]);
    let server = Server::with(&site, &["--writable", "--max-uploads", "2"]);
    run(&server, |sender| async move {
        for number in 0..100 {
            let target = format!("http://localhost/{number}");
            let request = Request::put(target).header("if-none-match", "*");
            let mut sender = sender.clone().ready().await.unwrap();
            let request = request.body(()).unwrap();
            let (_, mut stream) = sender.send_request(request, false).unwrap();
            let _ = stream.send_data(Bytes::from_static(b"one"), false);
            // At different moments; all at once would end the connection.
            tokio::time::sleep(Duration::from_micros(1000 + number * 50)).await;
            stream.send_reset(h2::Reason::CANCEL);
        }
        until("nothing is left", || files(&site.root()).is_empty()).await;
        let create = ("if-none-match", "*");
        let made = put(&sender, "/a", create, Some(b"new"), Duration::ZERO).await;
        assert_eq!(made, (201, Some(tag(b"new"))));
        assert_eq!(files(&site.root()), [site.path("a")]);
    });
}

/// Waits until something is so, while the connection goes on.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}
