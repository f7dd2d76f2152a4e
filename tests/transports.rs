//! The same answers over HTTP/1.1 and HTTP/2, in the clear and over TLS; and TLS itself.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/http2.rs"]
mod http2;
mod support;
#[path = "support/transports.rs"]
mod transports;

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http2::Http2;
use rustix::process::Signal;
use support::case::{self, Request, parse};
use support::fixture::fixture;
use support::ground::Ground;
use support::site::overwrite_in_place;
use support::tree::eventually;
use support::wire::narrow;
use support::{Client, Response, Server, TestSite, check, exchange, noise};
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::crypto::aws_lc_rs::kx_group::{SECP256R1, X25519, X25519MLKEM768};
use tokio_rustls::rustls::crypto::{CryptoProvider, SupportedKxGroup};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup, StreamOwned,
};
use transports::{Asked, Authority, Transport, Transports, secure_address};

/// Status, fields and body, without what a connection or a moment has of its own.
fn essence(response: &Response) -> (u16, Vec<(String, String)>, &[u8], bool) {
    let mut fields: Vec<_> = response
        .fields
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .filter(|(name, _)| name != "date" && name != "connection")
        .collect();
    fields.sort();
    (response.status, fields, &response.body, response.cut)
}

#[test]
fn every_case_has_the_same_answer_over_every_transport() {
    let (site, files) = fixture();
    let mut servers = BTreeMap::new();
    let sentinel: Asked<'_> = ("GET", b"/sentinel.txt", &[]);
    let mut carried = [0; Transport::ALL.len()];
    let mut wrong = Vec::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let (flags, cases) = (case::flags(&text), parse(&text));
        let flags: Vec<_> = flags.into_iter().map(str::to_owned).collect();
        let transports = servers.entry(flags).or_insert_with_key(|flags| {
            let flags: Vec<_> = flags.iter().map(String::as_str).collect();
            Transports::serve(&site, &flags)
        });
        for (number, case) in cases.into_iter().enumerate() {
            // In memory, in one read and in groups, in turn.
            let subject = ["/small.txt", "/middle.bin", "/big.bin"][number % 3];
            let ground = Ground {
                files: &files,
                subject,
            };
            let Request::Plain {
                method,
                target,
                fields,
            } = case.request(&ground)
            else {
                continue;
            };
            let asked: Asked<'_> = (&method, &target, &fields);
            let mut first: Option<Response> = None;
            for (transport, carried) in Transport::ALL.into_iter().zip(&mut carried) {
                let both = [asked, sentinel];
                // HTTP/1.1 may have to close after the first.
                let both = if transport.is_http2() {
                    &both
                } else {
                    &both[..1]
                };
                let Some(answers) = transports.exchange(transport, both) else {
                    continue;
                };
                *carried += 1;
                let response = match &answers[0] {
                    // h2 answers this one alone, without a Date, or ends the connection.
                    Ok(response) if transport.is_http2() && response.status == 431 => continue,
                    Err(_) if transport.is_http2() && case.name.starts_with("6585 5") => continue,
                    Ok(response) => response,
                    Err(error) => {
                        wrong.push(format!("{}: {transport:?}: {error}", case.name));
                        continue;
                    }
                };
                for broken in check::broken_rules(&case, &method, response) {
                    wrong.push(format!("{}: {transport:?} {broken}", case.name));
                }
                if transport.is_http2() && answers[1].as_ref().map(|next| next.status) != Ok(200) {
                    wrong.push(format!("{}: {transport:?} is unusable after it", case.name));
                }
                match &first {
                    Some(first) if essence(first) != essence(response) => {
                        let [first, this] = [first, response].map(|each| {
                            let (status, fields, body, cut) = essence(each);
                            format!("{status} {fields:?}, {} bytes, cut: {cut}", body.len())
                        });
                        wrong.push(format!(
                            "{}: {transport:?} has {this},\n  Http1 {first}",
                            case.name
                        ));
                    }
                    Some(_) => {}
                    None => first = Some(response.clone()),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(carried.iter().all(|&cases| cases > 100), "{carried:?}");
    servers.values_mut().for_each(Transports::assert_alive);
}

#[test]
fn p2_a_body_that_fails_is_cut_and_http2_goes_on() {
    let content = noise(3 << 20, 1);
    for (transport, at) in Transport::ALL
        .into_iter()
        .flat_map(|transport| [(transport, 300_000), (transport, 2_900_000)])
    {
        let site = TestSite::with(&[("big", &content), ("small", b"small")]);
        let transports = Transports::serve(&site, &["--memory", "64KiB"]);
        let mut changed = content.clone();
        changed[at] ^= 1;
        overwrite_in_place(&site.path("big"), &changed);
        let asked: [Asked<'_>; 2] = [("GET", b"/big", &[]), ("GET", b"/small", &[])];
        let answers = transports.exchange(transport, &asked).unwrap();
        match &answers[0] {
            Ok(first) if first.status == 200 && first.cut => {
                assert!(first.body.len() <= at, "{transport:?}");
                assert!(content.starts_with(&first.body), "{transport:?}");
            }
            // A server that has noticed the change by now.
            Ok(first) if first.status == 200 => {
                assert!(first.is_what_its_tag_says(), "{transport:?}");
            }
            Ok(first) => assert_eq!(first.status, 503, "{transport:?}"),
            // A reset overtakes what of the response had not left yet, its head included.
            Err(reset) => assert!(
                transport.is_http2() && reset.contains("INTERNAL_ERROR") && at < 1 << 20,
                "{transport:?} {reset}"
            ),
        }
        if transport.is_http2() {
            let next = answers[1].as_ref().unwrap();
            assert_eq!((next.status, &next.body[..]), (200, &b"small"[..]));
        }
    }
}

/// Has a client begin with a body, changes the end of the file, has the client go on, and asserts that
/// what came is the beginning of the file, and that the server counts it as what it is.
fn assert_cut<C>(
    serve: impl FnOnce(&TestSite, &[&str]) -> Server,
    begin: impl FnOnce(&Server) -> (C, Vec<u8>),
    go_on: impl FnOnce(C, Vec<u8>) -> Vec<u8>,
) {
    let content = noise(16 << 20, 1);
    let site = TestSite::with(&[("long", &content), ("small", b"small")]);
    let server = serve(&site, &["--memory", "1MiB", "--admin", "127.0.0.1:0"]);
    let (connection, body) = begin(&server);
    let mut changed = content.clone();
    *changed.last_mut().unwrap() ^= 1;
    overwrite_in_place(&site.path("long"), &changed);
    let body = go_on(connection, body);
    assert!(body.len() < content.len(), "it is complete");
    assert!(content.starts_with(&body), "it is torn");
    eventually("the cut is counted", || {
        let metrics = Client::connect(server.admin()).get("/metrics").body;
        let metrics = String::from_utf8(metrics).unwrap();
        metrics.contains("\netagd_cut_responses_total{reason=\"unproven\"} 1\n")
    });
}

/// Begins to read `/long` over HTTP/1.1, up to the first bytes of its body.
fn begin_http1(stream: &mut (impl Read + Write)) -> Vec<u8> {
    let request = b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert!(head.contains("\r\ncontent-length: "), "{head}");
    let mut body = vec![0; 1000];
    stream.read_exact(&mut body).unwrap();
    body
}

/// Begins to read `/long` over HTTP/2, as far as the window that there is at first.
fn begin_http2<S: Read + Write>(client: &mut Http2<S>) -> Vec<u8> {
    client.send(http2::request(1, "/long")).unwrap();
    let mut body = Vec::new();
    while body.len() < 65_535 {
        let frame = client.receive().expect("a frame");
        if frame.stream == 1 && frame.kind == http2::DATA {
            body.extend(&frame.payload);
        }
    }
    body
}

/// The rest of that body, which has to end with RST_STREAM, and with nothing else.
fn go_on_http2<S: Read + Write>(client: &mut Http2<S>, mut body: Vec<u8>) -> Vec<u8> {
    const INTERNAL_ERROR: u32 = 2;
    for stream in [0, 1] {
        client.send(http2::window_update(stream, 1 << 30)).unwrap();
    }
    loop {
        let frame = client.receive().expect("the end of the stream");
        match frame.kind {
            http2::DATA if frame.stream == 1 => {
                assert_eq!(
                    frame.flags & http2::END_STREAM,
                    0,
                    "it ends as if it were whole"
                );
                body.extend(&frame.payload);
            }
            http2::RST_STREAM if frame.stream == 1 => {
                assert_eq!(frame.error_code(), INTERNAL_ERROR);
                break;
            }
            _ => assert_ne!(frame.kind, http2::GOAWAY, "the connection goes on"),
        }
    }
    client.assert_answers(3, "/small");
    body
}

#[test]
fn p2_a_body_that_fails_does_not_end_well_in_any_transport() {
    let authority = Authority::new();
    authority.issue();
    let in_the_clear = |site: &TestSite, flags: &[&str]| Server::with(site, flags);
    let over_tls = |site: &TestSite, flags: &[&str]| authority.serve(site, flags);
    let connect_tls = |server: &Server, protocol: &[u8]| {
        let stream = narrow(secure_address(server));
        connect_over(stream, &Arc::new(authority.client(&[protocol])))
    };
    // The connection may be reset, and TLS need not end with close_notify: the length says it all.
    let read = |stream: &mut dyn Read, mut body: Vec<u8>| {
        let _ = stream.read_to_end(&mut body);
        body
    };
    assert_cut(
        in_the_clear,
        |server| {
            let mut stream = narrow(server.address());
            let body = begin_http1(&mut stream);
            (stream, body)
        },
        |mut stream, body| read(&mut stream, body),
    );
    assert_cut(
        over_tls,
        |server| {
            let mut stream = connect_tls(server, b"http/1.1");
            let body = begin_http1(&mut stream);
            (stream, body)
        },
        |mut stream, body| read(&mut stream, body),
    );
    assert_cut(
        in_the_clear,
        |server| {
            let mut client = Http2::connect(server.address(), &[]);
            let body = begin_http2(&mut client);
            (client, body)
        },
        |mut client, body| go_on_http2(&mut client, body),
    );
    assert_cut(
        over_tls,
        |server| {
            let mut client = Http2::over(connect_tls(server, b"h2"), &[]);
            let body = begin_http2(&mut client);
            (client, body)
        },
        |mut client, body| go_on_http2(&mut client, body),
    );
}

#[test]
fn head_has_the_length_and_nothing_else() {
    let site = TestSite::with(&[("big", &noise(3 << 20, 1)), ("small", b"small")]);
    let transports = Transports::serve(&site, &[]);
    for transport in Transport::ALL {
        let asked: [Asked<'_>; 2] = [("HEAD", b"/big", &[]), ("HEAD", b"/small", &[])];
        let answers = transports.exchange(transport, &asked).unwrap();
        for (answer, length) in answers.iter().zip(["3145728", "5"]) {
            let answer = answer.as_ref().unwrap();
            assert_eq!(answer.status, 200, "{transport:?}");
            assert_eq!(
                answer.field("Content-Length"),
                Some(length),
                "{transport:?}"
            );
            assert!(answer.body.is_empty() && !answer.cut, "{transport:?}");
        }
    }
}

// --- TLS -----------------------------------------------------------------------------------

type Secure = StreamOwned<ClientConnection, TcpStream>;

/// A connection whose handshake is done.
fn connect(server: &Server, config: &Arc<ClientConfig>) -> Secure {
    let stream = TcpStream::connect(secure_address(server)).unwrap();
    connect_over(stream, config)
}

fn connect_over(stream: TcpStream, config: &Arc<ClientConfig>) -> Secure {
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(Arc::clone(config), name).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut secure = StreamOwned::new(session, stream);
    while secure.conn.is_handshaking() {
        secure.conn.complete_io(&mut secure.sock).unwrap();
    }
    secure
}

/// One exchange of HTTP/1.1, whose body is the last five bytes.
fn get_small(secure: &mut Secure) {
    let request = b"GET /small HTTP/1.1\r\nHost: localhost\r\n\r\n";
    secure.write_all(request).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nsmall") {
        let mut byte = [0];
        secure.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
}

fn certificate(secure: &Secure) -> CertificateDer<'static> {
    secure.conn.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

fn small() -> TestSite {
    TestSite::with(&[("small", b"small")])
}

#[test]
fn the_certificate_is_read_again_on_sighup_and_no_connection_drops() {
    let authority = Authority::new();
    let before = authority.issue();
    let site = small();
    let server = authority.serve(&site, &[]);
    let config = Arc::new(authority.client(&[]));
    let mut first = connect(&server, &config);
    get_small(&mut first);
    assert_eq!(certificate(&first), before);

    let after = authority.issue();
    server.signal(Signal::HUP);
    server.wait_for(|lines| {
        lines
            .iter()
            .any(|line| line.contains("reloaded the certificate"))
    });
    // Another configuration has no session to resume.
    let mut second = connect(&server, &Arc::new(authority.client(&[])));
    assert_eq!(certificate(&second), after);
    get_small(&mut second);
    get_small(&mut first);

    // The key of nobody.
    let path = authority.key();
    fs::write(&path, "-----BEGIN PRIVATE KEY-----\n").unwrap();
    server.signal(Signal::HUP);
    server.wait_for(|lines| {
        lines
            .iter()
            .any(|line| line.starts_with("error:") && line.contains(path.to_str().unwrap()))
    });
    let third = connect(&server, &Arc::new(authority.client(&[])));
    assert_eq!(certificate(&third), after);
    get_small(&mut first);
    get_small(&mut second);
}

#[test]
fn sighup_without_tls_ends_nothing() {
    let site = small();
    let mut server = Server::start(&site);
    server.signal(Signal::HUP);
    server.assert_alive();
}

#[test]
fn a_session_is_resumed_also_after_a_reload() {
    let authority = Authority::new();
    authority.issue();
    let site = small();
    let server = authority.serve(&site, &[]);
    let config = Arc::new(authority.client(&[]));
    let mut first = connect(&server, &config);
    get_small(&mut first);
    assert_eq!(first.conn.handshake_kind(), Some(HandshakeKind::Full));
    server.signal(Signal::HUP);
    server.wait_for(|lines| {
        lines
            .iter()
            .any(|line| line.contains("reloaded the certificate"))
    });
    let second = connect(&server, &config);
    assert_eq!(second.conn.handshake_kind(), Some(HandshakeKind::Resumed));
}

/// What is recorded today may be decrypted by a quantum computer later, unless the keys were exchanged
/// with ML-KEM, too.
#[test]
fn the_key_exchange_that_quantum_computers_do_not_break_is_preferred() {
    let authority = Authority::new();
    authority.issue();
    let site = small();
    let server = authority.serve(&site, &[]);
    let group = |offered: &[&'static dyn SupportedKxGroup]| {
        let provider = CryptoProvider {
            kx_groups: offered.to_vec(),
            ..default_provider()
        };
        let config = authority.client_by(provider, &[]);
        let mut secure = connect(&server, &Arc::new(config));
        get_small(&mut secure);
        let group = secure.conn.negotiated_key_exchange_group();
        group.expect("a group").name()
    };
    assert_eq!(group(&[X25519MLKEM768]), NamedGroup::X25519MLKEM768);
    // The client's first message has shares of both, so that the server decides.
    assert_eq!(group(&[X25519MLKEM768, X25519]), NamedGroup::X25519MLKEM768);
    // Whoever can't has what there was before.
    assert_eq!(group(&[X25519]), NamedGroup::X25519);
    assert_eq!(group(&[SECP256R1]), NamedGroup::secp256r1);
}

#[test]
fn bad_certificate_files_are_reported_in_one_sentence() {
    let authority = Authority::new();
    authority.issue();
    let (certificate, key) = (authority.certificate(), authority.key());
    let site = small();
    let file = |name: &str, content: &[u8]| -> PathBuf {
        let path = site.outside(name);
        fs::write(&path, content).unwrap();
        path
    };
    let read = |path: &Path| fs::read(path).unwrap();
    let stranger = {
        let keep = (read(&certificate), read(&key));
        authority.issue();
        let stranger = file("stranger.pem", &read(&key));
        fs::write(&certificate, keep.0).unwrap();
        fs::write(&key, keep.1).unwrap();
        stranger
    };
    let empty = file("empty.pem", b"");
    let damaged = file("damaged.pem", &read(&certificate)[..200]);
    let text = file("text.pem", b"no PEM at all\n");
    let encrypted =
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let encrypted = file("encrypted.pem", encrypted);
    let nowhere = site.outside("nowhere.pem");
    let directory = site.root();
    for (certificate, key, named, reason) in [
        (&nowhere, &key, &nowhere, "No such file"),
        (&directory, &key, &directory, "directory"),
        (&empty, &key, &empty, "empty"),
        (&damaged, &key, &damaged, "damaged"),
        (&text, &key, &text, "holds no certificate"),
        (&key, &key, &key, "a private key and no certificate"),
        (&certificate, &nowhere, &nowhere, "No such file"),
        (&certificate, &empty, &empty, "empty"),
        (&certificate, &text, &text, "holds no private key"),
        (
            &certificate,
            &certificate,
            &certificate,
            "a certificate and no private key",
        ),
        (
            &certificate,
            &encrypted,
            &encrypted,
            "encrypted private key",
        ),
        (&certificate, &stranger, &stranger, "is not the key of"),
    ] {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let flags = ["--tls-cert", &text(certificate), "--tls-key", &text(key)];
        Server::assert_fails(&site.root(), &flags, 1, &[&text(named), reason, "--tls-"]);
    }
    let certificate = certificate.to_str().unwrap();
    Server::assert_fails(
        &site.root(),
        &["--tls-cert", certificate],
        2,
        &["--tls-key"],
    );
    Server::assert_fails(
        &site.root(),
        &["--tls-key", certificate],
        2,
        &["--tls-cert"],
    );
}

#[test]
fn p10_a_handshake_has_as_long_as_a_head() {
    let authority = Authority::new();
    authority.issue();
    let site = small();
    let server = authority.serve(&site, &["--header-timeout", "1s"]);
    for begun in [&b""[..], b"\x16\x03\x01", b"GET / HTTP/1.1\r\n"] {
        let mut stream = TcpStream::connect(secure_address(&server)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let since = Instant::now();
        stream.write_all(begun).unwrap();
        let mut rest = Vec::new();
        // An alert, or nothing; then the end.
        let end = stream.read_to_end(&mut rest).map_err(|error| error.kind());
        assert!(
            matches!(end, Ok(_) | Err(ErrorKind::ConnectionReset)),
            "{end:?}"
        );
        assert!(since.elapsed() < Duration::from_secs(8));
        let _ = stream.shutdown(Shutdown::Both);
    }
}

#[test]
fn a_secure_connection_beyond_the_limit_is_closed_without_a_word() {
    let authority = Authority::new();
    authority.issue();
    let site = small();
    let server = authority.serve(&site, &["--max-connections", "1"]);
    let config = Arc::new(authority.client(&[]));
    let mut first = connect(&server, &config);
    get_small(&mut first);
    let mut surplus = TcpStream::connect(secure_address(&server)).unwrap();
    let mut said = Vec::new();
    let _ = surplus.read_to_end(&mut said);
    assert!(said.is_empty(), "{}", said.escape_ascii());
    get_small(&mut first);
}

#[test]
fn plain_http_to_a_tls_port_is_answered_in_plain_words() {
    let authority = Authority::new();
    authority.issue();
    let server = authority.serve(&small(), &["--admin", "127.0.0.1:0"]);
    let address = secure_address(&server);
    let long = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "a".repeat(30_000)
    );
    let requests = [
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\r\nGET / HTTP/1.0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "get / HTTP/1.1\r\n\r\n",
        &long,
    ];
    for request in requests {
        let responses = exchange(address, request);
        let [response] = responses.as_slice() else {
            panic!("{} responses to {request:?}", responses.len());
        };
        assert_eq!((response.status, response.cut), (400, false), "{request:?}");
        let body = String::from_utf8_lossy(&response.body);
        assert!(
            body.contains("use https://") && body.lines().count() == 1,
            "{body}"
        );
    }
    let metrics = Client::connect(server.admin()).get("/metrics").body;
    let metrics = String::from_utf8(metrics).unwrap();
    let line = format!("\netagd_tls_plain_http_total {}\n", requests.len());
    assert!(metrics.contains(&line), "{metrics}");
    // Others are served as before.
    let mut secure = connect(&server, &Arc::new(authority.client(&[b"http/1.1"])));
    get_small(&mut secure);
}
