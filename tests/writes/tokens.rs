//! Tokens: which writer has which, failed attempts, and changes of the file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::pen::{CREATE, Pen, files};
use super::support::tree::{EndOfWork, eventually};
use super::support::wire::head;
use super::support::{Client, Response, Server, TestSite};

const CI: &str = "0123456789abcdef-ci";
const ANN: &str = "0123456789abcdef-ann";

struct Guarded {
    site: TestSite,
    server: Server,
}

impl Guarded {
    fn new() -> Self {
        let site = TestSite::with(&[("index.html", b"<!doctype html>")]);
        let guarded = site.outside("tokens");
        fs::write(&guarded, format!("# who\nci {CI}\nann {ANN}\n")).unwrap();
        fs::set_permissions(&guarded, fs::Permissions::from_mode(0o600)).unwrap();
        let path = guarded.to_str().unwrap().to_owned();
        let server = Server::with(&site, &["--writable", "--write-token-file", &path]);
        Self { site, server }
    }

    fn pen(&self) -> Pen {
        Pen::new(&self.server)
    }
}

fn create(pen: &mut Pen, target: &str, authorization: &str) -> Response {
    pen.send(
        "PUT",
        target,
        &[CREATE, ("Authorization", authorization)],
        b"new",
    )
}

#[test]
fn a_token_is_required_and_its_name_is_logged() {
    let guarded = Guarded::new();
    let mut pen = guarded.pen();
    let refused = pen.create("/new.txt", "new");
    let challenge = Some("Bearer realm=\"etagd\"");
    assert_eq!(
        (refused.status, refused.field("WWW-Authenticate")),
        (401, challenge)
    );
    for (index, wrong) in [
        format!("Bearer {CI}x"),
        format!("Bearer {}", &CI[..CI.len() - 1]),
        format!("Bearer {}", CI.to_uppercase()),
        format!("Basic {CI}"),
        format!("Bearer{CI}"),
        "Bearer ".to_owned(),
        CI.to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        let refused = create(&mut pen, &format!("/{index}"), &wrong);
        assert_eq!(
            (refused.status, refused.field("WWW-Authenticate")),
            (401, challenge),
            "{wrong}"
        );
    }
    assert_eq!(
        create(&mut pen, "/ci.txt", &format!("Bearer {CI}")).status,
        201
    );
    assert_eq!(
        create(&mut pen, "/ann.txt", &format!("bearer   {ANN}")).status,
        201
    );
    assert_eq!(files(&guarded.site.root()).len(), 3);
    let log = guarded.server.log();
    assert!(log.contains("PUT /ci.txt by ci "), "{log}");
    assert!(log.contains("PUT /ann.txt by ann "), "{log}");
    assert!(!log.contains(CI) && !log.contains(ANN), "{log}");
    // Nobody learns without a token what may be written, or what is there.
    for (method, target) in [("PUT", "/.env"), ("DELETE", "/index.html")] {
        assert_eq!(
            pen.send(method, target, &[], b"").status,
            401,
            "{method} {target}"
        );
    }
    // Reading takes none.
    assert_eq!(pen.get("/ci.txt").body, b"new");
}

#[test]
fn tokens_are_read_again_on_sighup() {
    let guarded = Guarded::new();
    let mut pen = guarded.pen();
    let path = guarded.site.outside("tokens");
    fs::write(&path, format!("ci {CI}-2\n")).unwrap();
    assert_eq!(create(&mut pen, "/1", &format!("Bearer {CI}")).status, 201);
    guarded.server.signal(Signal::HUP);
    let says =
        |what: &'static str| move |lines: &[String]| lines.iter().any(|line| line.contains(what));
    guarded.server.wait_for(says("tokens reloaded"));
    assert_eq!(create(&mut pen, "/2", &format!("Bearer {CI}")).status, 401);
    assert_eq!(
        create(&mut pen, "/2", &format!("Bearer {CI}-2")).status,
        201
    );
    fs::write(&path, "").unwrap();
    guarded.server.signal(Signal::HUP);
    guarded.server.wait_for(says("keeping the current tokens"));
    assert_eq!(
        create(&mut pen, "/3", &format!("Bearer {CI}-2")).status,
        201
    );
}

#[test]
fn failed_logins_are_slowed_down_and_reads_are_not() {
    let guarded = Guarded::new();
    let start = Instant::now();
    let done = AtomicBool::new(false);
    let (tries, looked_at, reads) = Default::default();
    let (tries, looked_at, reads): (AtomicUsize, AtomicUsize, AtomicUsize) =
        (tries, looked_at, reads);
    thread::scope(|scope| {
        let _end = EndOfWork(&done);
        for _ in 0..4 {
            scope.spawn(|| {
                let mut pen = guarded.pen();
                while !done.load(Ordering::SeqCst) {
                    let number = tries.fetch_add(1, Ordering::SeqCst);
                    let refused = create(&mut pen, "/x", &format!("Bearer wrong-{number}"));
                    match refused.status {
                        401 => _ = looked_at.fetch_add(1, Ordering::SeqCst),
                        429 => assert_eq!(refused.field("Retry-After"), Some("1")),
                        other => panic!("{other}"),
                    }
                }
            });
        }
        scope.spawn(|| {
            let mut pen = guarded.pen();
            while !done.load(Ordering::SeqCst) {
                let asked = Instant::now();
                let response = pen.get("/index.html");
                assert_eq!(response.status, 200);
                assert!(
                    asked.elapsed() < Duration::from_secs(2),
                    "{:?}",
                    asked.elapsed()
                );
                reads.fetch_add(1, Ordering::SeqCst);
            }
        });
        eventually("a thousand have been tried", || {
            tries.load(Ordering::SeqCst) >= 1000
        });
        thread::sleep(Duration::from_secs(1));
    });
    let seconds = start.elapsed().as_secs() as usize + 1;
    let looked_at = looked_at.into_inner();
    assert!(looked_at <= 10 + seconds, "{looked_at} in {seconds} s");
    assert!(looked_at >= 10, "{looked_at}");
    assert!(reads.into_inner() > 100);
    // The wrong ones are still slowed down, and the right one, from the same address, is not.
    assert_eq!(
        create(&mut guarded.pen(), "/new", "Bearer wrong-again").status,
        429
    );
    assert_eq!(
        create(&mut guarded.pen(), "/new", &format!("Bearer {CI}")).status,
        201
    );
}

/// A socket, and a proxy that is not trusted to name its clients, are one address for everybody.
#[test]
fn a_right_token_is_never_refused_where_all_clients_share_an_address() {
    let site = TestSite::with(&[("index.html", b"<!doctype html>")]);
    let tokens = site.outside("tokens");
    fs::write(&tokens, format!("ci {CI}\n")).unwrap();
    let socket = site.outside("socket");
    let unix = format!("unix:{}", socket.display());
    let flags = [
        "--writable",
        "--write-token-file",
        tokens.to_str().unwrap(),
        "--listen",
        &unix,
    ];
    let server = Server::with(&site, &flags);
    let put = |target: &str, token: &str| {
        let length = [CREATE, ("Content-Length", "3"), ("Authorization", token)];
        let mut client = Client::connect_unix(&socket);
        let _ = client.send(head("PUT", target, &length) + "new");
        client.receive("PUT").unwrap().expect("a response").status
    };
    let right = format!("Bearer {CI}");
    let mut refused = 0;
    for round in 0..30 {
        for number in 0..10 {
            match put("/x", &format!("Bearer wrong-{round}-{number}")) {
                401 => {}
                429 => refused += 1,
                other => panic!("{other}"),
            }
        }
        assert_eq!(put(&format!("/{round}"), &right), 201, "{round}");
    }
    assert!(
        refused > 200,
        "{refused} of 300 wrong tokens are slowed down"
    );
    assert_eq!(files(&site.root()).len(), 31);
    drop(server);
}
