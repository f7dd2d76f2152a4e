//! What one connection costs in memory beside content (P10), for each transport and each way of
//! taking little: the manual has the table, and this holds the process to it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/http2.rs"]
mod http2;
mod support;
#[path = "support/transports.rs"]
mod transports;

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use http2::Http2;
use support::wire::{head, narrow};
use support::{Client, Server, TestSite, noise};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConnection, StreamOwned};
use transports::{Authority, Transport, secure_address};

/// Requests that a client has open at once: as many as one connection may.
const STREAMS: u32 = 128;
/// Bytes of fields that a request may have, or nearly.
const LONG_FIELD: usize = 15_000;

/// What the clients do. Each is a row of the table.
#[derive(Clone, Copy, Debug)]
enum Behaviour {
    /// Has asked once and waits.
    Idle,
    /// Has asked for a long file and takes nothing of it.
    Slow,
    /// Has asked for it 128 times at once and takes nothing.
    Greedy,
    /// The same, with as many fields as a request may have.
    GreedyWithFields,
}

impl Behaviour {
    const ALL: [Self; 4] = [Self::Idle, Self::Slow, Self::Greedy, Self::GreedyWithFields];

    /// Connections that are measured: more where each costs less.
    fn connections(self) -> u64 {
        match self {
            Self::Idle | Self::Slow => 150,
            Self::Greedy | Self::GreedyWithFields => 30,
        }
    }

    fn requests(self) -> u32 {
        match self {
            Self::Idle | Self::Slow => 1,
            Self::Greedy | Self::GreedyWithFields => STREAMS,
        }
    }

    fn fields(self) -> Vec<(&'static str, String)> {
        match self {
            Self::GreedyWithFields => vec![("x-long", "v".repeat(LONG_FIELD))],
            _ => Vec::new(),
        }
    }
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// A connection, with its handshake done where there is one.
fn open(server: &Server, transport: Transport, authority: &Authority) -> Box<dyn Stream> {
    let address = match transport.is_secure() {
        true => secure_address(server),
        false => server.address(),
    };
    let stream = narrow(address);
    let patience = Some(Duration::from_secs(10));
    stream.set_read_timeout(patience).unwrap();
    // The server does not read more than it may keep: the rest stays with the client.
    stream
        .set_write_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    if !transport.is_secure() {
        return Box::new(stream);
    }
    let protocol: &[u8] = match transport.is_http2() {
        true => b"h2",
        false => b"http/1.1",
    };
    let config = Arc::new(authority.client(&[protocol]));
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(config, name).unwrap();
    let mut secure = StreamOwned::new(session, stream);
    while secure.conn.is_handshaking() {
        secure.conn.complete_io(&mut secure.sock).unwrap();
    }
    Box::new(secure)
}

/// Has a client behave so on a new connection, which it is to keep.
fn behave(
    server: &Server,
    transport: Transport,
    authority: &Authority,
    behaviour: Behaviour,
) -> Box<dyn Stream> {
    let stream = open(server, transport, authority);
    let is_idle = matches!(behaviour, Behaviour::Idle);
    match transport.is_http2() {
        true => over_http2(stream, behaviour, is_idle),
        false => over_http1(stream, behaviour, is_idle),
    }
}

fn over_http1(mut stream: Box<dyn Stream>, behaviour: Behaviour, is_idle: bool) -> Box<dyn Stream> {
    let target = if is_idle { "/small" } else { "/long" };
    let fields = behaviour.fields();
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let requests = head("GET", target, &fields).repeat(behaviour.requests() as usize);
    let _ = stream.write_all(requests.as_bytes());
    let mut answer = Vec::new();
    while is_idle && !answer.ends_with(b"\r\n\r\nsmall") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    stream
}

fn over_http2(stream: Box<dyn Stream>, behaviour: Behaviour, is_idle: bool) -> Box<dyn Stream> {
    let window = match behaviour {
        Behaviour::Greedy | Behaviour::GreedyWithFields => 0,
        Behaviour::Idle | Behaviour::Slow => 1 << 30,
    };
    let mut client = Http2::over(stream, &[(http2::INITIAL_WINDOW_SIZE, window)]);
    if is_idle {
        client.assert_answers(1, "/small");
    } else {
        client.send(http2::window_update(0, 1 << 30)).unwrap();
        let fields: Vec<_> = behaviour
            .fields()
            .iter()
            .flat_map(|(name, value)| http2::literal(name, value))
            .collect();
        for number in 0..behaviour.requests() {
            let block = [http2::get("/long"), fields.clone()].concat();
            let flags = http2::END_STREAM | http2::END_HEADERS;
            let frame = http2::frame(http2::HEADERS, flags, 2 * number + 1, &block);
            let _ = client.send(frame);
        }
    }
    client.into_stream()
}

/// KiB of the process that are not content.
fn beside_content(server: &Server) -> u64 {
    let metrics = Client::connect(server.admin()).get("/metrics").body;
    let metrics = String::from_utf8(metrics).unwrap();
    let used = metrics
        .lines()
        .find_map(|line| line.strip_prefix("etagd_memory_used_bytes "));
    let used: u64 = used.unwrap().parse().unwrap();
    server.resident().saturating_sub(used / 1024)
}

/// The same, as soon as it no longer changes.
fn settled_beside_content(server: &Server) -> u64 {
    let (began, mut last, mut same) = (Instant::now(), 0_u64, 0);
    while same < 4 && began.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(100));
        let now = beside_content(server);
        same = if now.abs_diff(last) <= now / 200 {
            same + 1
        } else {
            0
        };
        last = now;
    }
    last
}

/// KiB that one connection costs.
fn cost(site: &TestSite, authority: &Authority, transport: Transport, what: Behaviour) -> u64 {
    let flags = ["--memory", "16MiB", "--admin", "127.0.0.1:0"];
    let server = match transport.is_secure() {
        true => authority.serve(site, &flags),
        false => Server::with(site, &flags),
    };
    // What the first connections bring alone is not theirs.
    for _ in 0..3 {
        drop(behave(&server, transport, authority, what));
    }
    let before = settled_beside_content(&server);
    let connections: Vec<_> = (0..what.connections())
        .map(|_| behave(&server, transport, authority, what))
        .collect();
    let after = settled_beside_content(&server);
    let cost = after.saturating_sub(before).div_ceil(what.connections());
    drop(connections);
    cost
}

/// The table of the manual: kB at most, a row for each behaviour and a column for each transport.
fn promised() -> Vec<Vec<u64>> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-site/guide/index.html");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, table) = page.split_once("<table id=\"per-connection\">").unwrap();
    let (table, _) = table.split_once("</table>").unwrap();
    let rows = table.split("<tr><th scope=\"row\">").skip(1);
    let cells = |row: &str| {
        let cells = row.split("<td>").skip(1);
        let number = |cell: &str| cell.split_once("</td>").unwrap().0.parse().unwrap();
        cells.map(number).collect()
    };
    rows.map(cells).collect()
}

#[test]
fn p10_a_connection_costs_no_more_memory_than_the_manual_says() {
    let site = TestSite::with(&[("long", &noise(4_000_000, 1)), ("small", b"small")]);
    let authority = Authority::new();
    authority.issue();
    // In the order of the table's columns.
    let transports = [
        Transport::Http1,
        Transport::SecureHttp1,
        Transport::Http2,
        Transport::SecureHttp2,
    ];
    let measured: Vec<Vec<u64>> = Behaviour::ALL
        .into_iter()
        .map(|behaviour| {
            let cost = |transport| cost(&site, &authority, transport, behaviour);
            transports.into_iter().map(cost).collect()
        })
        .collect();
    #[expect(
        clippy::print_stdout,
        reason = "the table, for whoever runs it with --nocapture"
    )]
    {
        println!("kB a connection, beside content: {transports:?}");
        for (behaviour, costs) in Behaviour::ALL.iter().zip(&measured) {
            println!("{behaviour:?}: {costs:?}");
        }
    }
    let promised = promised();
    assert_eq!(promised.len(), measured.len());
    for (behaviour, (promised, measured)) in
        Behaviour::ALL.iter().zip(promised.iter().zip(&measured))
    {
        assert_eq!(promised.len(), transports.len());
        for (transport, (promised, measured)) in
            transports.iter().zip(promised.iter().zip(measured))
        {
            assert!(
                measured <= promised,
                "{behaviour:?} over {transport:?}: {measured} kB; the manual says {promised}"
            );
        }
    }
}
